//! Threads that come, go, block and use malloc while a world of signals is stopped and started, and processes that fork.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod runtime;

use core::hint::black_box;
use heapwright::{Address, ObjectReference, Options, PlanName, World};
use heapwright_bench::vm::{Embedded, Machine};
use heapwright_bench::workload::{self, Settings};
use heapwright_signals::SignalWorld;
use runtime::{
    COLLECTING, Raise, alone, attach, heap, is_whole, is_whole_pair, limit, litter, object, pair,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const SETTINGS: &[(&str, &str)] = &[("max", "64m"), ("workers", "2"), ("verify", "1")];

/// Threads attach, use sections, detach and end while another collects.
#[test]
fn threads_come_and_go_during_collections() {
    let _alone = alone();
    for plan in COLLECTING {
        let world = SignalWorld::new().unwrap();
        let heap = heap(&world, plan, SETTINGS);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut mutator, _) = attach(&heap, &world);
                while !over.load(Ordering::Relaxed) {
                    let _ = mutator.collect();
                    mutator.collect_in_background();
                    mutator.outside(|| std::thread::sleep(Duration::from_micros(100)));
                }
            });
            let _over = Raise(&over);
            for round in 0..8 {
                let three: Vec<_> = (0..3)
                    .map(|n| {
                        let (heap, world) = (&heap, &world);
                        scope.spawn(move || {
                            let (mut own, section) = attach(heap, world);
                            let number = round * 3 + n;
                            let mut held = pair(&mut own, number);
                            for _ in 0..10 {
                                // SAFETY: reads objects.
                                let whole = unsafe {
                                    section.interruptible(move || {
                                        let whole = (0..200)
                                            .all(|_| is_whole_pair(black_box(held), number));
                                        (held, whole)
                                    })
                                };
                                assert!(whole.1, "{plan}");
                                own.thread().roots[0] = whole.0.to_address().as_usize();
                                litter(&mut own, 5);
                                let now = Address::new(own.thread().roots[0]);
                                held = ObjectReference::from_address(now).unwrap();
                            }
                        })
                    })
                    .collect();
                three.into_iter().for_each(|t| t.join().unwrap());
            }
        });
    }
}

/// Threads that use malloc heavily outside of sections, allocate, and begin sections; many collections, which use malloc with the world stopped.
#[test]
fn a_storm_of_malloc_does_not_stand_still() {
    let _alone = alone();
    for plan in COLLECTING {
        let world = SignalWorld::new().unwrap();
        let heap = heap(&world, plan, SETTINGS);
        let (over, blocks) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for number in 0..3 {
                let (heap, world, over, blocks) = (&heap, &world, &over, &blocks);
                scope.spawn(move || {
                    let (mut mutator, section) = attach(heap, world);
                    let mut kept: Vec<Vec<usize>> = Vec::new();
                    let mut round = number;
                    while !over.load(Ordering::Relaxed) {
                        round += 1;
                        for n in 0..50 {
                            kept.push(vec![n; 1 + (round * 31 + n * 7) % 3000]);
                            if kept.len() > 40 {
                                kept.swap_remove((round + n) % 40);
                            }
                        }
                        blocks.fetch_add(50, Ordering::Relaxed);
                        let held = object(&mut mutator, 0, 6, round).unwrap();
                        // SAFETY: reads an object.
                        let whole = unsafe {
                            section.interruptible(move || {
                                (0..20).all(|_| is_whole(black_box(held), round))
                            })
                        };
                        assert!(whole, "{plan}");
                        mutator.poll();
                    }
                });
            }
            let _over = Raise(&over);
            while blocks.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            let (mut mutator, _) = attach(&heap, &world);
            for _ in 0..50 {
                let _ = mutator.collect();
                mutator.outside(std::thread::yield_now);
            }
        });
    }
}

/// Calls that signals interrupt: a thread outside, or inside and in no section, gets none; in a section a call is restarted.
#[test]
fn system_calls_are_not_interrupted() {
    let _alone = alone();
    let world = SignalWorld::new().unwrap();
    let heap = heap(&world, PlanName::Immix, SETTINGS);
    let (mut sleeps, mut pipe) = (AtomicUsize::new(0), [0; 2]);
    // SAFETY: two descriptors.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    let ready = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut mutator, section) = attach(&heap, &world);
            // It has been in a section before.
            // SAFETY: does nothing.
            unsafe { section.interruptible(|| ()) };
            ready.fetch_add(1, Ordering::Release);
            mutator.outside(|| {
                for _ in 0..20 {
                    let time = libc::timespec {
                        tv_sec: 0,
                        tv_nsec: 5_000_000,
                    };
                    // SAFETY: sleeps. It is never restarted by the system when a handler has run.
                    assert_eq!(unsafe { libc::nanosleep(&time, core::ptr::null_mut()) }, 0);
                    sleeps.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        scope.spawn(|| {
            let (mut mutator, section) = attach(&heap, &world);
            let held = pair(&mut mutator, 4);
            let (descriptor, ready) = (pipe[0], &ready);
            // SAFETY: a system call, which takes no lock of the process.
            let (read, held) = unsafe {
                section.interruptible(move || {
                    let mut byte = 0u8;
                    ready.fetch_add(1, Ordering::Release);
                    (libc::read(descriptor, (&raw mut byte).cast(), 1), held)
                })
            };
            assert_eq!(read, 1);
            assert!(is_whole_pair(held, 4));
        });
        while ready.load(Ordering::Acquire) < 2 {
            std::thread::yield_now();
        }
        let (mut mutator, _) = attach(&heap, &world);
        for _ in 0..500 {
            litter(&mut mutator, 5);
            let _ = mutator.collect();
        }
        // SAFETY: a byte for the other thread.
        let wrote = unsafe { libc::write(pipe[1], (&raw const pipe).cast(), 1) };
        assert_eq!(wrote, 1);
        mutator.outside(|| ());
    });
    assert_eq!(*sleeps.get_mut(), 20);
}

/// A signal that a thread had blocked when it began its first section comes all the same.
#[test]
fn a_thread_that_had_the_signal_blocked_is_stopped() {
    let _alone = alone();
    let world = SignalWorld::new().unwrap();
    let heap = heap(&world, PlanName::GenCopy, SETTINGS);
    let (over, ready) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: blocks all signals of this thread.
            unsafe {
                let mut all = core::mem::zeroed();
                libc::sigfillset(&mut all);
                libc::pthread_sigmask(libc::SIG_BLOCK, &all, core::ptr::null_mut());
            }
            let (_mutator, section) = attach(&heap, &world);
            // SAFETY: reads a flag.
            unsafe {
                section.interruptible(|| {
                    ready.store(true, Ordering::Relaxed);
                    while !over.load(Ordering::Relaxed) {
                        core::hint::spin_loop();
                    }
                });
            }
        });
        let _over = Raise(&over);
        while !ready.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let (mut mutator, _) = attach(&heap, &world);
        for _ in 0..50 {
            let _ = mutator.collect();
        }
    });
}

/// Forks while two threads are in sections and one attaches: the child has a heap that it can use, with sections, threads and collections, and the parent's
/// threads go on.
#[test]
fn forks_while_threads_are_in_sections() {
    let _alone = alone();
    for plan in COLLECTING {
        let world = SignalWorld::new().unwrap();
        let heap = heap(&world, plan, SETTINGS);
        let (over, ready) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for number in 0..2 {
                let (heap, world, over, ready) = (&heap, &world, &over, &ready);
                scope.spawn(move || {
                    let (mut own, section) = attach(heap, world);
                    let held = pair(&mut own, number);
                    // SAFETY: reads objects.
                    let whole = unsafe {
                        section.interruptible(move || {
                            ready.fetch_add(1, Ordering::Release);
                            let mut whole = true;
                            while !over.load(Ordering::Relaxed) {
                                whole &= is_whole_pair(black_box(held), number);
                            }
                            whole
                        })
                    };
                    assert!(whole, "{plan}");
                });
            }
            let _over = Raise(&over);
            while ready.load(Ordering::Acquire) < 2 {
                std::thread::yield_now();
            }
            let (mut mutator, section) = attach(&heap, &world);
            let kept = pair(&mut mutator, 9).to_address().as_usize();
            mutator.thread().roots[0] = kept;
            for _ in 0..12 {
                // SAFETY: the child uses no other mutator.
                let pid = unsafe { mutator.fork(|| libc::fork()) }.unwrap();
                assert!(pid >= 0);
                if pid == 0 {
                    limit(30);
                    let child = core::panic::AssertUnwindSafe(|| {
                        for _ in 0..10 {
                            litter(&mut mutator, 20);
                            assert!(mutator.collect().is_some());
                        }
                        let held = pair(&mut mutator, 11);
                        // SAFETY: reads objects.
                        let held = unsafe {
                            section.interruptible(move || (held, is_whole_pair(held, 11)))
                        };
                        assert!(held.1 && is_whole_pair(held.0, 11));
                        let kept = Address::new(mutator.thread().roots[0]);
                        let kept = ObjectReference::from_address(kept).unwrap();
                        assert!(is_whole_pair(kept, 9));
                        // Signals are as they were.
                        // SAFETY: asks for the mask.
                        unsafe {
                            let mut now = core::mem::zeroed();
                            libc::pthread_sigmask(0, core::ptr::null(), &mut now);
                            assert_eq!(libc::sigismember(&now, libc::SIGTERM), 0);
                        }
                    });
                    let fine = std::panic::catch_unwind(child).is_ok();
                    // SAFETY: ends the child without the parent's exit handlers.
                    unsafe { libc::_exit(i32::from(!fine)) }
                }
                let mut status = 0;
                // SAFETY: waits for the child.
                assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
                assert_eq!(status, 0, "{plan}: the child's wait status");
                let _ = mutator.collect();
            }
        });
    }
}

/// A child's threads can be stopped in sections, by the child's signals.
#[test]
fn a_child_stops_threads_of_its_own() {
    let _alone = alone();
    let world = SignalWorld::new().unwrap();
    let heap = heap(&world, PlanName::StickyImmix, SETTINGS);
    let (mut mutator, section) = attach(&heap, &world);
    // The thread has a number from here on; in the child it has another.
    // SAFETY: does nothing.
    unsafe { section.interruptible(|| ()) };
    // SAFETY: the child uses no other mutator.
    let pid = unsafe { mutator.fork(|| libc::fork()) }.unwrap();
    if pid == 0 {
        limit(30);
        let child = core::panic::AssertUnwindSafe(|| {
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let other = scope.spawn(|| {
                    let (mut own, _) = attach(&heap, &world);
                    for _ in 0..100 {
                        litter(&mut own, 5);
                        let _ = own.collect();
                    }
                    over.store(true, Ordering::Relaxed);
                });
                let held = pair(&mut mutator, 2);
                let over = &over;
                // SAFETY: reads objects and a flag.
                let whole = unsafe {
                    section.interruptible(move || {
                        while !over.load(Ordering::Relaxed) {
                            core::hint::spin_loop();
                        }
                        is_whole_pair(held, 2)
                    })
                };
                assert!(whole);
                mutator.outside(|| other.join().unwrap());
            });
        });
        let fine = std::panic::catch_unwind(child).is_ok();
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(i32::from(!fine)) }
    }
    let mut status = 0;
    // SAFETY: waits for the child.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0);
}

/// Workloads of the benchmarks give the same results as with the core's gate, in each plan.
#[test]
fn workloads_give_the_same_results_as_with_the_gate() {
    let _alone = alone();
    let settings = Settings {
        scale: 0.004,
        mutators: 3,
        ..Settings::default()
    };
    let outcome = |plan: PlanName, workload: &str, world: Option<Arc<dyn World>>| {
        let mut options = Options {
            plan,
            ..Options::default()
        };
        for (name, value) in SETTINGS {
            options.set(name, value).unwrap();
        }
        let mut builder = heapwright::Builder::default().options(options);
        if let Some(world) = world {
            builder = builder.world(world);
        }
        let heap = builder.build(Machine::<true, false>::default()).unwrap();
        let runtime = Embedded(heap);
        let outcome = workload::run(workload, &runtime, &settings).unwrap();
        assert_eq!(
            runtime.0.vm().record().1,
            0,
            "{plan}: the verifier found errors"
        );
        outcome.unwrap().checksum
    };
    for plan in COLLECTING {
        if plan == PlanName::PageProtect {
            continue;
        }
        for workload in ["churn", "mtgcbench", "lru"] {
            let world = SignalWorld::new().unwrap();
            let with_signals = outcome(plan, workload, Some(world));
            assert_eq!(
                with_signals,
                outcome(plan, workload, None),
                "{plan}, {workload}"
            );
        }
    }
}
