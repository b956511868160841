//! Heap dumps, for the tools that open them.

use crate::heap::{hw_heap, on_heap};
use crate::mutator::{hw_mutator, on_mutator};
use crate::status::{Failure, given, given_mut, guard, hw_status, hw_status::*, text};
use core::ffi::c_char;
use heapwright_observe::dump::{DumpError, Extent, Format, dump_heap_as, dump_when_full};
use std::path::{Path, PathBuf};

/// The format of a heap dump that its file's name says: it ends in `.hprof` or `.heapsnapshot`.
pub const HW_DUMP_BY_NAME: u32 = 0;
/// HPROF: for Eclipse MAT, VisualVM and others.
pub const HW_DUMP_HPROF: u32 = 1;
/// V8's heap snapshots: for Chrome's DevTools and others.
pub const HW_DUMP_HEAPSNAPSHOT: u32 = 2;

/// The format that is meant; none if there is no such number.
fn format_of(format: u32, path: &Path) -> Result<Format, Failure> {
    match format {
        HW_DUMP_BY_NAME => Format::of(path).map_err(|e| DumpError::from(e).into()),
        HW_DUMP_HPROF => Ok(Format::Hprof),
        HW_DUMP_HEAPSNAPSHOT => Ok(Format::HeapSnapshot),
        other => Err(Failure(
            HW_INVALID,
            format!("there is no format {other} of heap dumps"),
        )),
    }
}

/// Writes all objects that something keeps to a file, with their types, sizes and references, in one of the formats `HW_DUMP_...`. A
/// safepoint; all threads are stopped until it is written. `%p` in the path is the process's number. The file has its name when it is whole.
///
/// `HW_INVALID` for a format that there is not, `HW_SYSTEM` if the file cannot be written: there is none then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_heap_dump(
    mutator: *mut hw_mutator,
    path: *const c_char,
    format: u32,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (mutator, path) = unsafe { (given_mut(mutator, "mutator")?, text(path, "path")?) };
        let path = Path::new(path);
        let format = format_of(format, path)?;
        on_mutator!(mutator, m => dump_heap_as(m, path, format, Extent::Reachable)?);
        Ok(())
    })
}

/// Has the heap dumped when an allocation is about to fail for want of room, the first time: as [`hw_heap_dump`], on the thread that
/// asked. A dump that cannot be written then is not missed. Once for a heap: `HW_INVALID` if it was asked for already, or the path's name
/// says no format.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_heap_dump_on_out_of_memory(
    heap: *const hw_heap,
    path: *const c_char,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (heap, path) = unsafe { (given(heap, "heap")?, text(path, "path")?) };
        let path = PathBuf::from(path);
        format_of(HW_DUMP_BY_NAME, &path)?;
        if on_heap!(heap.0, h => dump_when_full(h, path)) {
            Ok(())
        } else {
            let why = "it was asked for already".to_owned();
            Err(Failure(HW_INVALID, why))
        }
    })
}
