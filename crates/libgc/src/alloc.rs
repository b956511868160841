//! The `malloc` family.
//!
//! The fast path is a load of the thread's record, the size class, and a bump; all else is out of line. A request grows by
//! one byte where all interior pointers count, so that a pointer to its end is still in it.

use crate::config::{GC_oom_fn, extra};
use crate::state::{BoehmHeap, heap_if_ready};
use crate::{config, finalize, threads};
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use heapwright::alloc::{MAX_SMALL, Small};
use heapwright::{Address, Cause, Cell, Kind, WildWord};

/// Kinds, by Boehm's numbers.
pub(crate) const ATOMIC: Kind = Kind(0);
/// Scanned conservatively.
pub(crate) const NORMAL: Kind = Kind(1);
/// Scanned, and a root.
pub(crate) const UNCOLLECTABLE: Kind = Kind(2);
/// The cell's last word is its descriptor.
pub(crate) const TYPED: Kind = Kind(3);
/// Not scanned, and kept.
pub(crate) const ATOMIC_UNCOLLECTABLE: Kind = Kind(4);

/// Objects of this size and more are aligned to it, and `ignore_off_page` counts pointers into their first so many bytes.
const PAGE: usize = 4096;

/// The inline path: one of the kinds with runs, and a thread that is known.
#[inline(always)]
fn fast(kind: Kind, bytes: usize) -> *mut c_void {
    if bytes < MAX_SMALL
        && let Some(record) = threads::current()
    {
        let small = Small::of(bytes + extra());
        if let Some(cell) = record
            .runs
            .run_for(kind.0 as usize, small)
            .bump(small.bytes())
        {
            return ptr::with_exposed_provenance_mut(cell);
        }
    }
    slow(kind, bytes)
}

#[cold]
#[inline(never)]
pub(crate) extern "C-unwind" fn slow(kind: Kind, bytes: usize) -> *mut c_void {
    let result = threads::mutator()
        .and_then(|(heap, runs)| heap.alloc(runs, kind, bytes.saturating_add(extra())).ok());
    finish(result, bytes)
}

/// After an allocation that may have collected: runs finalizers that are due, and answers a failure.
fn finish(result: Option<Address>, bytes: usize) -> *mut c_void {
    finalize::run_due();
    match result {
        Some(cell) => cell.as_mut_ptr(),
        None => oom(bytes),
    }
}

/// What an allocation gives that cannot be served. No lock is held and no destructor is pending: the client's function may
/// throw.
#[cold]
pub(crate) fn oom(bytes: usize) -> *mut c_void {
    crate::dump::out_of_memory();
    // SAFETY: the client's function, called as the interface says.
    GC_oom_fn
        .get()
        .map_or(ptr::null_mut(), |f| unsafe { f(bytes) })
}

/// Allocates in any kind.
pub(crate) fn allocate(kind: Kind, bytes: usize) -> *mut c_void {
    slow(kind, bytes)
}

/// Allocates a large object of which only pointers into the first page count, or a small one.
fn ignore_off_page(kind: Kind, bytes: usize) -> *mut c_void {
    if bytes < MAX_SMALL {
        return slow(kind, bytes);
    }
    let result = threads::mutator().and_then(|(heap, _)| {
        heap.alloc_large(kind, bytes.saturating_add(extra()), PAGE, true)
            .ok()
    });
    finish(result, bytes)
}

/// Allocates so many bytes in a kind, without the extra one; `requested` is what the client asked for.
pub(crate) fn exact(kind: Kind, bytes: usize, requested: usize) -> *mut c_void {
    let result = threads::mutator().and_then(|(heap, runs)| heap.alloc(runs, kind, bytes).ok());
    finish(result, requested)
}

/// As [`exact`], with only pointers into the first page counting for a large object.
pub(crate) fn first_page(kind: Kind, bytes: usize) -> *mut c_void {
    if bytes <= MAX_SMALL {
        return exact(kind, bytes, bytes);
    }
    let result =
        threads::mutator().and_then(|(heap, _)| heap.alloc_large(kind, bytes, PAGE, true).ok());
    finish(result, bytes)
}

/// An address as a pointer.
#[inline(always)]
pub(crate) fn pointer(address: usize) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address)
}

/// The cell that starts at a pointer.
pub(crate) fn cell_at(object: *const c_void) -> Option<Cell> {
    cell_around(object).filter(|c| c.start.as_usize() == object.addr())
}

/// A pointer to an object's start without the tag that a client has in its low bits, as ECL has for conses. Cells start at
/// multiples of 16.
pub(crate) fn untagged(object: usize) -> Address {
    Address::new(object & !15)
}

/// The cell around a pointer, as [`heapwright::WordHeap::cell`].
pub(crate) fn cell_around(pointer: *const c_void) -> Option<Cell> {
    heap_if_ready()?.cell(WildWord::new(pointer.addr()))
}

/// Allocates zeroed memory that is scanned.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_malloc(bytes: usize) -> *mut c_void {
    fast(NORMAL, bytes)
}

/// Allocates memory that holds no pointers, not zeroed.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_malloc_atomic(bytes: usize) -> *mut c_void {
    fast(ATOMIC, bytes)
}

/// Allocates zeroed memory that is a root until it is freed.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_malloc_uncollectable(bytes: usize) -> *mut c_void {
    fast(UNCOLLECTABLE, bytes)
}

/// Allocates memory that holds no pointers and stays until it is freed.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_malloc_atomic_uncollectable(bytes: usize) -> *mut c_void {
    allocate(ATOMIC_UNCOLLECTABLE, bytes)
}

/// As [`GC_malloc`]; a large object is kept only by pointers into its first page.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_malloc_ignore_off_page(bytes: usize) -> *mut c_void {
    if bytes < MAX_SMALL {
        fast(NORMAL, bytes)
    } else {
        ignore_off_page(NORMAL, bytes)
    }
}

/// As [`GC_malloc_atomic`]; a large object is kept only by pointers into its first page.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_malloc_atomic_ignore_off_page(bytes: usize) -> *mut c_void {
    if bytes < MAX_SMALL {
        fast(ATOMIC, bytes)
    } else {
        ignore_off_page(ATOMIC, bytes)
    }
}

/// As [`GC_malloc`].
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_malloc_stubborn(bytes: usize) -> *mut c_void {
    fast(NORMAL, bytes)
}

/// Allocates in a kind.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_generic_malloc(bytes: usize, kind: c_int) -> *mut c_void {
    allocate(Kind(kind as u8), bytes)
}

/// Allocates in a kind.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_malloc_kind(bytes: usize, kind: c_int) -> *mut c_void {
    allocate(Kind(kind as u8), bytes)
}

/// Allocates in a kind.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_malloc_kind_global(bytes: usize, kind: c_int) -> *mut c_void {
    allocate(Kind(kind as u8), bytes)
}

/// Allocates in a kind.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_generic_or_special_malloc(bytes: usize, kind: c_int) -> *mut c_void {
    allocate(Kind(kind as u8), bytes)
}

/// Allocates in a kind; a large object is kept only by pointers into its first page.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_generic_malloc_ignore_off_page(
    bytes: usize,
    kind: c_int,
) -> *mut c_void {
    ignore_off_page(Kind(kind as u8), bytes)
}

/// Allocates in one of the uncollectable kinds.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_generic_malloc_uncollectable(bytes: usize, kind: c_int) -> *mut c_void {
    allocate(
        if kind == 0 || kind == 4 {
            ATOMIC_UNCOLLECTABLE
        } else {
            UNCOLLECTABLE
        },
        bytes,
    )
}

/// Stores a list of cells of `bytes` in a kind, linked through the first word, to `result`; null if there is no memory.
///
/// # Safety
/// `result` is valid for writing, and is where the collector finds the list.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_generic_malloc_many(
    bytes: usize,
    kind: c_int,
    result: *mut *mut c_void,
) {
    // SAFETY: the caller's promise.
    let done = threads::mutator().map(|(heap, runs)| unsafe {
        heap.alloc_many(runs, Kind(kind as u8), bytes, result.cast())
    });
    if !matches!(done, Some(Ok(_))) {
        // SAFETY: the caller's promise.
        unsafe { result.write(oom(bytes)) };
        let at = result;
        // SAFETY: as above. A list of one cell that the client's function gave ends here.
        let first = unsafe { *at };
        if !first.is_null() {
            // SAFETY: the client's function gave memory of that size.
            unsafe { first.cast::<usize>().write(0) };
        }
    }
    finalize::run_due();
}

/// A list of cells of `bytes`, linked through the first word; null if there is no memory.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_malloc_many(bytes: usize) -> *mut c_void {
    let mut list = ptr::null_mut();
    // Room for the extra byte, and a multiple of the granule, as the list's user will count.
    let bytes = bytes.saturating_add(extra()).next_multiple_of(16);
    // SAFETY: a local, which is on the stack and so is a root.
    unsafe { GC_generic_malloc_many(bytes, 1, &raw mut list) };
    list
}

/// Frees an object. Null, and what is no start of an allocated object, is ignored.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_free(object: *mut c_void) {
    if !object.is_null()
        && let Some(heap) = heap_if_ready()
    {
        // The interface leaves wrong pointers undefined; here they do no harm.
        if let Ok(bytes) = heap.free(Address::from_ptr(object)) {
            config::freed(bytes);
        }
    }
}

/// Changes an object's size; the kind stays. Null is an allocation, size 0 frees. If there is no memory, the result is the
/// out-of-memory function's, and the object is as it was.
///
/// # Safety
/// `object` is null or an allocated object.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_realloc(object: *mut c_void, bytes: usize) -> *mut c_void {
    if object.is_null() {
        return GC_malloc(bytes);
    }
    if bytes == 0 {
        GC_free(object);
        return ptr::null_mut();
    }
    let Some(old) = cell_around(object).filter(|c| c.start.as_usize() == object.addr()) else {
        return ptr::null_mut();
    };
    let wanted = bytes.saturating_add(extra());
    let scanned = old.kind != ATOMIC && old.kind != ATOMIC_UNCOLLECTABLE;
    if wanted <= old.bytes && wanted > old.bytes / 2 && old.kind != TYPED {
        if scanned {
            // SAFETY: the cell is the caller's, and the range is within it.
            unsafe { ptr::write_bytes(object.cast::<u8>().add(bytes), 0, old.bytes - bytes) };
        }
        return object;
    }
    // A typed object's descriptor is in its last word, which moves: from here on it is scanned as a whole.
    let kind = if old.kind == TYPED { NORMAL } else { old.kind };
    let new = if kind.0 < 2 {
        fast(kind, bytes)
    } else {
        allocate(kind, bytes)
    };
    if !new.is_null() {
        let kept = bytes.min(old.bytes);
        // SAFETY: both are at least that long, and a new object overlaps none.
        unsafe { ptr::copy_nonoverlapping(object.cast::<u8>(), new.cast::<u8>(), kept) };
        GC_free(object);
    }
    new
}

/// The start of the object that a pointer leads into; null if it leads into none.
#[unsafe(no_mangle)]
pub extern "C" fn GC_base(pointer: *mut c_void) -> *mut c_void {
    cell_around(pointer).map_or(ptr::null_mut(), |c| c.start.as_mut_ptr())
}

/// Bytes of the object that starts here, as the collector rounded them.
#[unsafe(no_mangle)]
pub extern "C" fn GC_size(object: *const c_void) -> usize {
    cell_around(object).map_or(0, |c| c.bytes)
}

/// Is the address in a block of the heap?
#[unsafe(no_mangle)]
pub extern "C" fn GC_is_heap_ptr(pointer: *const c_void) -> c_int {
    c_int::from(cell_around(pointer).is_some())
}

/// The kind of the object that starts here; its size to `bytes`, unless that is null.
///
/// # Safety
/// `bytes` is null or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn GC_get_kind_and_size(object: *const c_void, bytes: *mut usize) -> c_int {
    let Some(found) = cell_around(object) else {
        return -1;
    };
    if !bytes.is_null() {
        // SAFETY: the caller's promise.
        unsafe { bytes.write(found.bytes) };
    }
    c_int::from(found.kind.0)
}

/// A copy of a string, in memory that holds no pointers.
///
/// # Safety
/// `text` is null or a terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_strdup(text: *const c_char) -> *mut c_char {
    if text.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the caller's promise.
    unsafe { copy_string(text, libc::strlen(text)) }
}

/// As [`GC_strdup`], of at most `most` bytes.
///
/// # Safety
/// `text` is readable up to its end or for `most` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_strndup(text: *const c_char, most: usize) -> *mut c_char {
    // SAFETY: the caller's promise.
    unsafe { copy_string(text, libc::strnlen(text, most)) }
}

/// # Safety
/// `text` has `length` readable bytes.
pub(crate) unsafe fn copy_string(text: *const c_char, length: usize) -> *mut c_char {
    let copy = GC_malloc_atomic(length.saturating_add(1)).cast::<c_char>();
    if !copy.is_null() {
        // SAFETY: the caller's promise, and the copy has one byte more.
        unsafe { ptr::copy_nonoverlapping(text, copy, length) };
        // SAFETY: as above.
        unsafe { copy.add(length).write(0) };
    }
    copy
}

/// Allocates at a multiple of `align`, a power of two; null if it is none.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_memalign(align: usize, bytes: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return ptr::null_mut();
    }
    let result = threads::mutator().and_then(|(heap, runs)| {
        heap.alloc_aligned(runs, NORMAL, bytes.saturating_add(extra()), align)
            .ok()
    });
    finish(result, bytes)
}

/// As POSIX has it: EINVAL, ENOMEM, or 0 with the address in `result`.
///
/// # Safety
/// `result` is valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_posix_memalign(
    result: *mut *mut c_void,
    align: usize,
    bytes: usize,
) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<usize>()) {
        return libc::EINVAL;
    }
    let object = GC_memalign(align, bytes);
    if object.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { result.write(object) };
    0
}

fn collect_once(heap: &BoehmHeap) -> bool {
    heap.collect(Cause::Requested).number != 0
}

/// Collects now, and runs finalizers unless they wait for a demand.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_gcollect() {
    if let Some((heap, _)) = threads::mutator() {
        let _ = config::collect_explicitly(heap, collect_once);
        if config::force_unmap() {
            heap.return_idle_memory();
        }
        finalize::run_due();
    }
}

/// Collects now and returns free memory to the system.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_gcollect_and_unmap() {
    if let Some((heap, _)) = threads::mutator() {
        let _ = config::collect_explicitly(heap, collect_once);
        heap.return_idle_memory();
        finalize::run_due();
    }
}

/// Collects now. Collections are short, so `stop` is not asked. 0 if collecting is disabled.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_try_to_collect(_stop: *mut c_void) -> c_int {
    let Some((heap, _)) = threads::mutator() else {
        return 0;
    };
    let done = config::collect_explicitly(heap, collect_once);
    finalize::run_due();
    c_int::from(done)
}

/// Does collection work that is due, and gives 0: none is ever left.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_collect_a_little() -> c_int {
    finalize::run_due();
    0
}
