//! How much memory there is: counters that clients read, often without asking whether a collection is under way.
//!
//! The heap's own counters need its lock. A client may ask in a callback that is called with the lock held; then it gets
//! the numbers that were read last.

use crate::{config, state};
use core::sync::atomic::{AtomicUsize, Ordering};

/// The numbers that were read last: heap, free, unmapped, total.
static LAST: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

/// Heap, free, unmapped, and all that was ever allocated, in bytes.
fn read() -> [usize; 4] {
    if let Some(heap) = state::heap_if_ready()
        && heap.try_lock()
    {
        let usage = heap.usage_locked();
        heap.unlock();
        let total = usize::try_from(usage.allocated_total).unwrap_or(usize::MAX);
        let numbers = [
            usage.heap_bytes,
            usage.free_bytes,
            usage.unmapped_bytes,
            total,
        ];
        for (place, number) in LAST.iter().zip(numbers) {
            place.store(number, Ordering::Relaxed);
        }
        return numbers;
    }
    LAST.each_ref().map(|n| n.load(Ordering::Relaxed))
}

/// Bytes of the heap: objects, and free memory kept for more.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_heap_size() -> usize {
    read()[0]
}

/// The part of the heap that is free.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_free_bytes() -> usize {
    read()[1]
}

/// Bytes that were the heap's and are the system's again.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_unmapped_bytes() -> usize {
    read()[2]
}

/// Bytes allocated since the last collection.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_bytes_since_gc() -> usize {
    state::heap_if_ready().map_or(0, |heap| heap.allocated_since_collection())
}

/// Bytes freed explicitly since the last collection.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_expl_freed_bytes_since_gc() -> usize {
    config::reclaimed()[0]
}

/// Bytes allocated since the start.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_total_bytes() -> usize {
    read()[3]
}

/// Bytes that the heap has from the system.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_obtained_from_os_bytes() -> usize {
    read()[0]
}

/// Bytes of objects that were in use after the last collection, and of those allocated since.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_memory_use() -> usize {
    let [heap, free, ..] = read();
    heap.saturating_sub(free)
}

/// Stores the counters that are asked for: heap, free, unmapped, allocated since the last collection, allocated in all.
///
/// # Safety
/// Each pointer is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn GC_get_heap_usage_safe(
    heap: *mut usize,
    free: *mut usize,
    unmapped: *mut usize,
    since: *mut usize,
    total: *mut usize,
) {
    let [h, f, u, t] = read();
    for (place, number) in [
        (heap, h),
        (free, f),
        (unmapped, u),
        (since, GC_get_bytes_since_gc()),
        (total, t),
    ] {
        if !place.is_null() {
            // SAFETY: the caller's promise.
            unsafe { place.write(number) };
        }
    }
}

/// `struct GC_prof_stats_s` as words: heap and free with and without what is unmapped, and so on.
type Statistics = [usize; 12];

/// Fills a `struct GC_prof_stats_s` as far as `bytes` reaches; what is further in it, with all bits set. The bytes that
/// were filled with numbers.
///
/// # Safety
/// `statistics` is writable for `bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn GC_get_prof_stats(statistics: *mut usize, bytes: usize) -> usize {
    let [heap, free, unmapped, total] = read();
    let since = GC_get_bytes_since_gc();
    let [freed, reclaimed, before] = config::reclaimed();
    let numbers: Statistics = [
        heap + unmapped,
        free + unmapped,
        unmapped,
        since,
        total.saturating_sub(since),
        config::GC_get_non_gc_bytes(),
        state::GC_get_gc_no(),
        usize::try_from(state::GC_get_parallel()).unwrap_or(0),
        reclaimed,
        before,
        freed,
        heap,
    ];
    let known = bytes.min(size_of::<Statistics>());
    // SAFETY: the caller's promise.
    unsafe {
        core::ptr::copy_nonoverlapping(numbers.as_ptr().cast::<u8>(), statistics.cast(), known);
        core::ptr::write_bytes(statistics.cast::<u8>().add(known), 0xff, bytes - known);
    }
    known
}

/// As [`GC_get_prof_stats`].
///
/// # Safety
/// As for [`GC_get_prof_stats`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn GC_get_prof_stats_unsafe(statistics: *mut usize, bytes: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { GC_get_prof_stats(statistics, bytes) }
}

/// Counts explicit allocations of the client's own that the collector should know of. They are not part of the heap, and
/// have no effect on when it collects.
#[unsafe(no_mangle)]
pub extern "C" fn GC_incr_bytes_allocd(_bytes: usize) {}

/// Counts an explicit free of the client's own.
#[unsafe(no_mangle)]
pub extern "C" fn GC_incr_bytes_freed(bytes: usize) {
    config::freed(bytes);
}
