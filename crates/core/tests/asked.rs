//! What threads ask of a heap that have no mutator of it: a collection, a look with the world stopped.

#![allow(clippy::unwrap_used, missing_docs)]

mod lists;

use heapwright::{ObjectReference, PlanName, Strength};
use lists::{COLLECTING, array, heap, push};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The collection that comes first may be less than what was asked for.
#[test]
fn a_collection_that_was_asked_for_is_not_forgotten_for_another() {
    for plan in COLLECTING {
        let heap = heap(plan, &[("max", "64m")]);
        let mut mutator = heap.attach(vec![0]).unwrap();
        let object = array(&mut mutator, 4).unwrap();
        mutator.thread()[0] = object.to_address().as_usize();
        let weak = mutator.weak(object, Strength::Weak).unwrap();
        // Old, where there are generations.
        let _ = mutator.collect();
        let _ = mutator.collect_young();
        assert!(weak.get(&mut mutator).is_some(), "{plan}");
        mutator.thread()[0] = 0;
        assert!(heap.ask_for_collection());
        let _ = mutator.collect_young();
        mutator.poll();
        assert_eq!(weak.get(&mut mutator), None::<ObjectReference>, "{plan}");
        let collections = heap.usage().collections;
        mutator.poll();
        assert_eq!(heap.usage().collections, collections, "{plan}: once");
    }
}

#[test]
fn nothing_happens_while_another_thread_looks() {
    for plan in [PlanName::GenImmix, PlanName::ConcurrentImmix] {
        let heap = heap(plan, &[("max", "64m"), ("workers", "2")]);
        let (over, steps) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut mutator = heap.attach(vec![0]).unwrap();
                    while !over.load(Ordering::Relaxed) {
                        push(&mut mutator, 0, 4).unwrap();
                        let step = steps.fetch_add(1, Ordering::Relaxed);
                        if step.is_multiple_of(500) {
                            mutator.thread()[0] = 0;
                            mutator.collect_in_background();
                        }
                        mutator.poll();
                    }
                });
            }
            for _ in 0..50 {
                let before = steps.load(Ordering::Relaxed);
                while steps.load(Ordering::Relaxed) < before + 100 {
                    std::thread::yield_now();
                }
                let seen = heap.freeze(|frozen| {
                    let seen = steps.load(Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(1));
                    let mut roots = 0;
                    frozen.roots(&mut |_, _| roots += 1);
                    (seen, steps.load(Ordering::Relaxed), roots)
                });
                let (begin, end, roots) = seen.unwrap();
                assert_eq!(begin, end, "{plan}");
                assert!(roots <= 2);
            }
            over.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn what_is_allocated_is_known_while_it_is() {
    for plan in COLLECTING {
        let heap = heap(plan, &[("max", "64m")]);
        let mut mutator = heap.attach(vec![0]).unwrap();
        for round in 1..=4 {
            for _ in 0..1000 {
                push(&mut mutator, 0, 99).unwrap();
            }
            mutator.thread()[0] = 0;
            let (known, really) = (heap.usage().allocated_bytes, round * 800_000);
            let block = 32 << 10;
            assert!((really..really * 6).contains(&known), "{plan}: {known}");
            assert!(plan == PlanName::PageProtect || known < really + really / 8 + 2 * block);
        }
    }
}

/// What survives its first collection is told as promoted, whether it is moved or not.
#[test]
fn what_becomes_old_is_counted() {
    const COUNT: usize = 20_000;
    const BYTES: usize = COUNT * 40;
    for plan in [
        PlanName::GenCopy,
        PlanName::GenImmix,
        PlanName::StickyImmix,
        PlanName::StickyMarkSweep,
    ] {
        let heap = heap(plan, &[("max", "64m")]);
        let mut mutator = heap.attach(vec![0]).unwrap();
        for round in 0..3 {
            for _ in 0..COUNT {
                push(&mut mutator, 0, 4).unwrap();
            }
            let stats = mutator.collect_young().unwrap();
            assert_eq!(stats.kind(), "young", "{plan}");
            let promoted = stats.promoted_bytes;
            // Lines and cells are larger than what is in them.
            let wanted = BYTES..BYTES + BYTES / 4;
            assert!(wanted.contains(&promoted), "{plan}, {round}: {promoted}");
            let again = mutator.collect_young().unwrap().promoted_bytes;
            assert!(again < BYTES / 100, "{plan}, {round}: {again}");
        }
    }
}
