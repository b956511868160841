//! Threads: attached, allocating, writing, stopping, detached.

use crate::heap::{AnyHeap, Handles, hw_heap, object};
use crate::status::{Failure, given, given_mut, guard, hw_status, hw_status::*};
use crate::vm::{CVm, ThreadData, hw_object};
use core::ffi::c_void;
use core::ptr;
use heapwright::alloc::{After, Class, Cursor};
use heapwright::{Address, AllocError, FastPath, Mutator, ObjectReference};

/// The size class of a request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hw_class {
    /// Bytes of a cell.
    pub bytes: u16,
    /// The number of the class.
    pub number: u16,
}

/// How to allocate without a call: the first part of a mutator, for the functions in the header.
#[repr(C)]
#[derive(Debug)]
pub struct hw_fast_path {
    /// Cursor and limit, where objects are allocated one after the other; null where they are in cells of size classes.
    pub cursor: *mut usize,
    /// What a new object's first word is.
    pub header: *const usize,
    /// Where the address of the runs of free cells is; null where there are none.
    pub runs: *const *mut u8,
    /// Where the first run is, in bytes from there.
    pub first: usize,
    /// From one run to the next, in bytes.
    pub stride: usize,
    /// The class of each request, divided by 8.
    pub classes: *const hw_class,
    /// The largest request that needs no call; 0: each does.
    pub most: usize,
    /// Not 0: the thread is to stop.
    pub interrupt: *const u32,
    /// 0: writes need no barrier.
    pub barrier: *const u8,
}

/// A thread's handle to a heap. One thread uses it at a time.
#[repr(C)]
#[derive(Debug)]
pub struct hw_mutator {
    fast: hw_fast_path,
    pub(crate) any: AnyMutator,
}

/// With an object map, or without.
#[derive(Debug)]
pub(crate) enum AnyMutator {
    Plain(Mutator<CVm<false>>),
    Mapped(Mutator<CVm<true>>),
}

/// Does the same on either kind.
macro_rules! on_mutator {
    ($mutator:expr, $name:ident => $do:expr) => {
        match &mut $mutator.any {
            $crate::mutator::AnyMutator::Plain($name) => $do,
            $crate::mutator::AnyMutator::Mapped($name) => $do,
        }
    };
}
pub(crate) use on_mutator;

const _: () = assert!(size_of::<Class>() == size_of::<hw_class>());

impl hw_fast_path {
    fn of(record: Address, path: &FastPath) -> Self {
        let at = |offset: usize| record.add(offset);
        let mut fast = Self {
            cursor: ptr::null_mut(),
            header: &raw const NO_HEADER,
            runs: ptr::null(),
            first: 0,
            stride: 0,
            classes: ptr::null(),
            most: path.most,
            interrupt: at(path.interrupt).as_ptr(),
            barrier: at(path.barrier).as_ptr(),
        };
        match path.cursor {
            Cursor::Record { offset } => fast.cursor = at(offset).as_mut_ptr(),
            Cursor::Runs {
                runs,
                first,
                stride,
                classes,
            } => {
                fast.runs = at(runs).as_ptr();
                (fast.first, fast.stride) = (first, stride);
                fast.classes = classes.as_ptr().cast();
            }
        }
        match path.after {
            After::Nothing => {}
            After::StoreHeader { offset } => fast.header = at(offset).as_ptr(),
            After::Enter => fast.most = 0,
        }
        fast
    }
}

static NO_HEADER: usize = 0;
pub(crate) static MUTATORS: Handles = Handles::new();

/// Attaches the calling thread. `thread` is the runtime's own, for `thread_roots`. The thread is inside of the heap from now on: it must reach
/// safepoints, or others wait for it. The mutator is stored to `*out`; on failure that is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_attach(
    heap: *mut hw_heap,
    thread: *mut c_void,
    out: *mut *mut hw_mutator,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (out, heap) = unsafe { (given_mut(out, "out")?, given(heap, "heap")) };
        *out = ptr::null_mut();
        let thread = ThreadData(thread);
        let (any, record, path) = match &heap?.0 {
            AnyHeap::Plain(h) => {
                let m = h.attach(thread)?;
                let (record, path) = (m.record(), m.fast_path());
                (AnyMutator::Plain(m), record, path)
            }
            AnyHeap::Mapped(h) => {
                let m = h.attach(thread)?;
                let (record, path) = (m.record(), m.fast_path());
                (AnyMutator::Mapped(m), record, path)
            }
        };
        let fast = hw_fast_path::of(record, &path);
        *out = MUTATORS.add(Box::into_raw(Box::new(hw_mutator { fast, any })));
        Ok(())
    })
}

/// Detaches a thread. `HW_GONE` if it was detached before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_detach(mutator: *mut hw_mutator) -> hw_status {
    guard(|| {
        MUTATORS.take(mutator, "mutator")?;
        // SAFETY: made by `hw_attach`, and taken out of the list of those just now, by this call alone.
        drop(unsafe { Box::from_raw(mutator) });
        Ok(())
    })
}

fn allocate(
    mutator: *mut hw_mutator,
    out: *mut hw_object,
    run: impl FnOnce(&mut hw_mutator) -> Result<ObjectReference, AllocError>,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (out, mutator) = unsafe { (given_mut(out, "out")?, given_mut(mutator, "mutator")) };
        *out = ptr::null_mut();
        *out = run(mutator?)?.to_address().as_mut_ptr();
        Ok(())
    })
}

/// Allocates `bytes` of zeroed memory, at least 16. A safepoint. `hw_alloc` in the header does the same, mostly without a call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_alloc_slow(
    mutator: *mut hw_mutator,
    bytes: usize,
    out: *mut hw_object,
) -> hw_status {
    allocate(mutator, out, |m| on_mutator!(m, m => m.alloc(bytes)))
}

/// Allocates an object that never moves. As [`hw_alloc_slow`] otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_alloc_unmoving(
    mutator: *mut hw_mutator,
    bytes: usize,
    out: *mut hw_object,
) -> hw_status {
    allocate(
        mutator,
        out,
        |m| on_mutator!(m, m => m.alloc_unmoving(bytes)),
    )
}

/// Allocates an object that lives as long as the heap, with all that it reaches, and never moves. As [`hw_alloc_slow`] otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_alloc_immortal(
    mutator: *mut hw_mutator,
    bytes: usize,
    out: *mut hw_object,
) -> hw_status {
    allocate(
        mutator,
        out,
        |m| on_mutator!(m, m => m.alloc_immortal(bytes)),
    )
}

/// Allocates an object whose address plus `offset` is a multiple of `align`, a power of two. It never moves. As [`hw_alloc_slow`] otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_alloc_aligned(
    mutator: *mut hw_mutator,
    bytes: usize,
    align: usize,
    offset: usize,
    out: *mut hw_object,
) -> hw_status {
    allocate(
        mutator,
        out,
        |m| on_mutator!(m, m => m.alloc_aligned(bytes, align, offset)),
    )
}

/// Before a reference is written into `slot` of `o`, or with null into any number of its fields. No safepoint between this and the write.
/// `hw_write` in the header calls it where the plan wants it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_before_write(
    mutator: *mut hw_mutator,
    o: hw_object,
    slot: *mut hw_object,
) {
    // SAFETY: the header's rules for pointers.
    if let (Some(m), Ok(o)) = (unsafe { mutator.as_mut() }, object(o)) {
        let slot = (!slot.is_null()).then(|| Address::from_ptr(slot));
        on_mutator!(m, m => m.before_write(o, slot));
    }
}

/// Stops here if a collection waits. `hw_poll` in the header calls it where that is so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_poll_slow(mutator: *mut hw_mutator) {
    // SAFETY: the header's rules for pointers.
    if let Some(m) = unsafe { mutator.as_mut() } {
        on_mutator!(m, m => m.poll());
    }
}

/// Calls `run(context)` with the thread outside of the heap: collections do not wait for it. `run` uses no object and not this mutator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_outside(
    mutator: *mut hw_mutator,
    run: Option<extern "C" fn(context: *mut c_void)>,
    context: *mut c_void,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let mutator = unsafe { given_mut(mutator, "mutator")? };
        let run = run.ok_or_else(|| Failure::null("run"))?;
        on_mutator!(mutator, m => m.outside(|| run(context)));
        Ok(())
    })
}

/// Collects everything now. A safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_collect(mutator: *mut hw_mutator) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let mutator = unsafe { given_mut(mutator, "mutator")? };
        on_mutator!(mutator, m => m.collect());
        Ok(())
    })
}

/// Collects what the plan thinks is due. A safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_collect_young(mutator: *mut hw_mutator) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let mutator = unsafe { given_mut(mutator, "mutator")? };
        on_mutator!(mutator, m => m.collect_young());
        Ok(())
    })
}

/// The runtime took memory elsewhere on behalf of an object: it counts towards the next collection. Not a safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_external_allocated(
    mutator: *mut hw_mutator,
    bytes: usize,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let mutator = unsafe { given_mut(mutator, "mutator")? };
        on_mutator!(mutator, m => m.external_allocated(bytes));
        Ok(())
    })
}

/// A number of the object that stays the same while it lives, wherever it moves. Two objects may have the same. Not a safepoint. 0 if a
/// pointer is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_identity_hash(mutator: *mut hw_mutator, o: hw_object) -> usize {
    // SAFETY: the header's rules for pointers.
    match (unsafe { mutator.as_mut() }, object(o)) {
        (Some(m), Ok(o)) => on_mutator!(m, m => m.identity_hash(o)),
        _ => 0,
    }
}

/// A function for each object.
pub type hw_object_visitor = Option<extern "C" fn(context: *mut c_void, object: hw_object)>;

fn mapped(mutator: &mut hw_mutator) -> Result<&mut Mutator<CVm<true>>, Failure> {
    match &mut mutator.any {
        AnyMutator::Mapped(m) => Ok(m),
        AnyMutator::Plain(_) => Err(Failure(
            HW_UNSUPPORTED,
            "the heap has no object map: it was made without HW_OBJECT_MAP".to_owned(),
        )),
    }
}

/// Visits all objects, with the world stopped. A safepoint. Those that died since the last collection are visited, too. `visit` does not use
/// this heap. `HW_UNSUPPORTED` without an object map.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_for_each_object(
    mutator: *mut hw_mutator,
    visit: hw_object_visitor,
    context: *mut c_void,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let mutator = unsafe { given_mut(mutator, "mutator")? };
        let visit = visit.ok_or_else(|| Failure::null("visit"))?;
        mapped(mutator)?.for_each_object(&mut |o| visit(context, o.to_address().as_mut_ptr()));
        Ok(())
    })
}

/// A function for each type: its number, how many objects it has, and their bytes.
pub type hw_type_visitor =
    Option<extern "C" fn(context: *mut c_void, type_: u32, objects: usize, bytes: usize)>;

/// Counts all objects by type, the most bytes first. As [`hw_for_each_object`]; `visit` is called with the world running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_census(
    mutator: *mut hw_mutator,
    visit: hw_type_visitor,
    context: *mut c_void,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let mutator = unsafe { given_mut(mutator, "mutator")? };
        let visit = visit.ok_or_else(|| Failure::null("visit"))?;
        for count in mapped(mutator)?.census() {
            visit(context, count.id.0, count.objects, count.bytes);
        }
        Ok(())
    })
}
