//! What the process occupies follows what lives. Alone in its process, which other tests would disturb.

#![allow(clippy::unwrap_used, missing_docs)]

mod toy;

use heapwright::Cause;
use heapwright_os::limits;
use toy::{LEAF, NODE, alloc, heap, root};

#[test]
fn what_the_process_occupies_follows_what_lives() {
    memory_that_died_goes_back_to_the_system();
    idle_memory_goes_back_by_itself_after_some_collections();
}

fn memory_that_died_goes_back_to_the_system() {
    let h = heap(&[]);
    let before = limits::resident_bytes();
    assert!(before < 64 << 20, "a heap costs little: {before}");
    for kind in [LEAF, NODE] {
        let large = alloc(&h, kind, 200 << 20).unwrap();
        root(&h, large);
        // SAFETY: an object of that size.
        unsafe { core::ptr::write_bytes(large as *mut u8, 1, 200 << 20) };
        for _ in 0..100_000 {
            root(&h, alloc(&h, kind, 512).unwrap());
        }
        h.collect(Cause::Requested);
        assert!(limits::resident_bytes() > before + (200 << 20));
        h.vm().roots.lock().unwrap().clear();
        h.collect(Cause::Requested);
        h.return_idle_memory();
        let after = limits::resident_bytes();
        assert!(after < before + (24 << 20), "{before} -> {after}");
    }
}

fn idle_memory_goes_back_by_itself_after_some_collections() {
    let h = heap(&[("nursery", "1m")]);
    let large = alloc(&h, LEAF, 100 << 20).unwrap();
    // SAFETY: an object of that size.
    unsafe { core::ptr::write_bytes(large as *mut u8, 1, 100 << 20) };
    for _ in 0..8 {
        h.collect(Cause::Requested);
    }
    assert!(h.usage().heap_bytes < 60 << 20, "{:?}", h.usage());
}
