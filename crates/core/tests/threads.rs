//! Threads of a heap: they come, go, block, and end without a word.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod lists;

use heapwright::{Heap, Mutator, PlanName};
use lists::{COLLECTING, Lists, heap, length, push};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

const SETTINGS: &[(&str, &str)] = &[("max", "32m"), ("workers", "2"), ("verify", "1")];

fn each_plan(test: impl Fn(PlanName, &Heap<Lists>)) {
    for plan in COLLECTING {
        test(plan, &heap(plan, SETTINGS));
    }
}

thread_local! {
    /// How a runtime has its threads detach when they end.
    static MINE: RefCell<Option<Mutator<Lists>>> = const { RefCell::new(None) };
}

/// A thread that ends with its mutator in a thread-local variable detaches when the variable is destroyed: collections do not wait
/// for it, and what only it held is dead.
#[test]
fn a_thread_that_ends_without_a_word_is_detached() {
    each_plan(|plan, heap| {
        let mut mutator = heap.attach(vec![0, 0]).unwrap();
        for _ in 0..8 {
            mutator.outside(|| {
                let heap = heap.clone();
                let thread = std::thread::spawn(move || {
                    MINE.with(|mine| {
                        let mut own = heap.attach(vec![0]).unwrap();
                        for _ in 0..100 {
                            push(&mut own, 0, 50).unwrap();
                        }
                        *mine.borrow_mut() = Some(own);
                    });
                });
                thread.join().unwrap();
            });
            let _ = mutator.collect();
            let _ = mutator.collect();
            push(&mut mutator, 0, 5).unwrap();
        }
        assert_eq!(length(&mut mutator, 0), 8);
        let used = heap.usage().used_bytes;
        assert!(used < 2 << 20, "{plan}: {used}");
    });
}

/// A thread that panics with a mutator leaves the heap as one that drops it.
#[test]
fn a_thread_that_panics_is_detached() {
    each_plan(|plan, heap| {
        let mut mutator = heap.attach(vec![0, 0]).unwrap();
        mutator.outside(|| {
            let heap = heap.clone();
            let thread = std::thread::spawn(move || {
                let mut own = heap.attach(vec![0]).unwrap();
                push(&mut own, 0, 50).unwrap();
                own.outside(|| std::panic::resume_unwind(Box::new(())));
            });
            assert!(thread.join().is_err());
        });
        let _ = mutator.collect();
        push(&mut mutator, 0, 5).unwrap();
        assert_eq!(length(&mut mutator, 0), 1, "{plan}");
    });
}

/// Threads that attach while collections run, one after the other: each finds a heap in order, and waits for none to end but the one
/// that is under way.
#[test]
fn threads_that_are_created_during_collections() {
    each_plan(|plan, heap| {
        let over = AtomicBool::new(false);
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut mutator = heap.attach(vec![0, 0]).unwrap();
                for _ in 0..500 {
                    push(&mut mutator, 0, 4).unwrap();
                }
                while !over.load(Ordering::Relaxed) {
                    let _ = mutator.collect();
                    mutator.collect_in_background();
                    assert_eq!(length(&mut mutator, 0), 500);
                }
            });
            for _ in 0..30 {
                let inner: Vec<_> = (0..3)
                    .map(|_| {
                        scope.spawn(|| {
                            let mut own = heap.attach(vec![0, 0]).unwrap();
                            for _ in 0..20 {
                                push(&mut own, 0, 4).unwrap();
                            }
                            assert_eq!(length(&mut own, 0), 20);
                            done.fetch_add(1, Ordering::Relaxed);
                        })
                    })
                    .collect();
                inner.into_iter().for_each(|t| t.join().unwrap());
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 90, "{plan}");
    });
}

/// A collection does not wait for a thread that is blocked outside; its roots are scanned, and updated; and it does not come back
/// inside before the collection is over.
#[test]
fn a_blocked_thread_is_not_waited_for_and_keeps_its_objects() {
    each_plan(|plan, heap| {
        let (blocked, is_blocked) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut own = heap.attach(vec![0, 0]).unwrap();
                for _ in 0..300 {
                    push(&mut own, 0, 4).unwrap();
                }
                own.outside(|| {
                    blocked.send(()).unwrap();
                    may_go.recv().unwrap();
                });
                assert_eq!(length(&mut own, 0), 300);
                push(&mut own, 0, 4).unwrap();
            });
            is_blocked.recv().unwrap();
            let mut mutator = heap.attach(vec![0, 0]).unwrap();
            for _ in 0..3 {
                for _ in 0..300 {
                    push(&mut mutator, 1, 4).unwrap();
                }
                mutator.thread()[1] = 0;
                // Would hang.
                assert!(mutator.collect().is_some(), "{plan}");
            }
            go.send(()).unwrap();
            mutator.outside(|| ());
        });
    });
}

/// A mutator may be handed to another thread; it is used by one at a time, which the borrow checker sees to. Detaching is dropping it,
/// so it cannot be done twice; the heap outlives its handles as long as a mutator is attached.
#[test]
fn a_mutator_goes_from_thread_to_thread_and_outlives_the_handle() {
    each_plan(|plan, first| {
        let mut mutator = first.attach(vec![0, 0]).unwrap();
        for n in 1..5 {
            mutator = std::thread::spawn(move || {
                push(&mut mutator, 0, 4).unwrap();
                let _ = mutator.collect();
                mutator
            })
            .join()
            .unwrap();
            assert_eq!(length(&mut mutator, 0), n, "{plan}");
        }
        let other = heap(plan, SETTINGS);
        let mut alone = other.attach(vec![0, 0]).unwrap();
        drop(other);
        push(&mut alone, 0, 4).unwrap();
        let _ = alone.collect();
        assert_eq!(length(&mut alone, 0), 1);
    });
}
