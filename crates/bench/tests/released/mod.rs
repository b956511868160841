//! Random programs while somebody gives their heap's memory back all the time, and looks whether the limit is kept.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use heapwright::{Heap, Options};
use heapwright_bench::fuzz;
use heapwright_bench::runtime::Runtime as _;
use heapwright_bench::vm::{Embedded, Machine, Stack};
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs programs by `threads` threads on a heap that is released meanwhile, from outside and in the background.
pub fn programs<const HEADER: bool>(plan: &str, seed: u64, threads: u64) {
    let mut options = Options::default();
    let max = [1 << 20, 4 << 20][seed as usize % 2];
    for (name, value) in [
        ("plan", plan),
        ("verify", "1"),
        ("decay", "0"),
        ("workers", "1"),
    ] {
        options.set(name, value).unwrap();
    }
    options.max = max;
    let heap = Heap::<Machine<HEADER, false>>::builder()
        .options(options)
        .build(Machine::<HEADER, false>::default())
        .unwrap();
    let runtime = Embedded(heap);
    let (runtime, over) = (&runtime, &AtomicBool::new(false));
    std::thread::scope(|scope| {
        let programs: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    // Inside of the heap from before somebody wants it to himself.
                    drop(runtime.attach().unwrap());
                    fuzz::run(runtime, &fuzz::program(seed * 16 + thread, 2000)).unwrap();
                })
            })
            .collect();
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                runtime.0.release_memory();
                let used = runtime.0.usage().used_bytes;
                assert!(used <= max, "{plan}: {used} of {max} bytes");
                std::thread::yield_now();
            }
        });
        let results: Vec<_> = programs.into_iter().map(|p| p.join()).collect();
        over.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|r| r.unwrap());
    });
    assert_eq!(runtime.0.vm().record().1, 0, "{plan}");
    external(&runtime.0, plan);
}

/// External memory makes collections due.
fn external<const HEADER: bool>(heap: &Heap<Machine<HEADER, false>>, plan: &str) {
    let mut mutator = heap.attach(Stack::default()).unwrap();
    let before = heap.usage().full_collections;
    for _ in 0..200 {
        mutator.external_allocated(1 << 20);
        mutator.poll();
    }
    assert!(heap.usage().full_collections > before, "{plan}");
}
