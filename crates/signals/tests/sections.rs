//! Threads in interruptible sections are stopped at any instruction, and what they hold lives and stays where it is.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod runtime;

use core::hint::black_box;
use heapwright::{Address, ObjectReference, PlanName};
use heapwright_signals::{SignalError, SignalWorld};
use runtime::{COLLECTING, Raise, alone, attach, heap, is_whole_pair, litter, object, pair};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SETTINGS: &[(&str, &str)] = &[("max", "64m"), ("workers", "2"), ("verify", "1")];

/// A thread spins without a poll, with an object in a local variable only, while another collects 1,000 times in each plan. The object and what
/// it leads to live, and stay where they are; the thread reads references and writes data meanwhile.
#[test]
fn a_thread_without_polls_is_stopped_and_keeps_what_it_holds() {
    let _alone = alone();
    for plan in COLLECTING {
        let world = SignalWorld::new().unwrap();
        let heap = heap(&world, plan, SETTINGS);
        let (over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut mutator, section) = attach(&heap, &world);
                let held = pair(&mut mutator, 7);
                let (over, rounds) = (&over, &rounds);
                // SAFETY: reads objects, and writes atomics.
                let held = unsafe {
                    section.interruptible(move || {
                        let mut wrong = 0;
                        while !over.load(Ordering::Relaxed) {
                            wrong += usize::from(!is_whole_pair(black_box(held), 7));
                            rounds.fetch_add(1, Ordering::Relaxed);
                        }
                        (held, wrong)
                    })
                };
                assert_eq!(held.1, 0, "{plan}");
                assert!(is_whole_pair(held.0, 7), "{plan}");
                mutator.thread().roots[0] = held.0.to_address().as_usize();
                let _ = mutator.collect();
                let moved = Address::new(mutator.thread().roots[0]);
                assert!(is_whole_pair(
                    ObjectReference::from_address(moved).unwrap(),
                    7
                ));
            });
            let _over = Raise(&over);
            while rounds.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            let (mut mutator, _) = attach(&heap, &world);
            let (begin, before) = (Instant::now(), heap.usage().collections);
            for _ in 0..1000 {
                litter(&mut mutator, 20);
                assert!(mutator.collect().is_some(), "{plan}");
            }
            let took = begin.elapsed();
            assert!(heap.usage().collections >= before + 1000);
            // Far above what it takes: 1,000 collections of a heap with two objects.
            assert!(took < Duration::from_secs(30), "{plan}: {took:?}");
            eprintln!("{plan}: {:?} for a collection", took / 1000);
        });
    }
}

/// Spins with the object in one register only: everywhere else its address is masked.
#[cfg(target_arch = "x86_64")]
fn spin_with_a_register(masked: usize, mask: usize, over: &AtomicBool, vector: bool) -> usize {
    let held: usize;
    // SAFETY: reads a flag; all registers that it uses are named.
    unsafe {
        if vector {
            core::arch::asm!(
                "xor {held}, {mask}", "movq xmm9, {held}", "xor {held}, {held}",
                "2: pause", "cmp byte ptr [{over}], 0", "je 2b",
                "movq {held}, xmm9",
                held = inout(reg) masked => held, mask = in(reg) mask, over = in(reg) over,
                out("xmm9") _, options(nostack)
            );
        } else {
            core::arch::asm!(
                "xor {held}, {mask}",
                "2: pause", "cmp byte ptr [{over}], 0", "je 2b",
                held = inout(reg) masked => held, mask = in(reg) mask, over = in(reg) over,
                options(nostack)
            );
        }
    }
    held
}

#[cfg(target_arch = "x86_64")]
extern "C" fn slow_handler(_: i32) {
    for n in 0..20_000 {
        black_box(n);
    }
}

/// An object that is in one register, general or vector, lives and stays; also while handlers of the program's run on a stack of their own,
/// where the thread is not stopped.
#[cfg(target_arch = "x86_64")]
fn registers(plan: PlanName, vector: bool, handlers: bool) {
    const MASK: usize = 0x5555_0f0f_3333_aaaa;
    let world = SignalWorld::new().unwrap();
    let heap = heap(&world, plan, SETTINGS);
    let (over, ready) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stack = vec![0u8; 1 << 16];
            let alternative = libc::stack_t {
                ss_sp: stack.as_mut_ptr().cast(),
                ss_flags: if handlers { 0 } else { libc::SS_DISABLE },
                ss_size: stack.len(),
            };
            let mut old = libc::stack_t {
                ss_sp: core::ptr::null_mut(),
                ss_flags: 0,
                ss_size: 0,
            };
            // SAFETY: a stack that is there until it is replaced, below.
            unsafe { assert_eq!(libc::sigaltstack(&alternative, &mut old), 0) };
            let (mut mutator, section) = attach(&heap, &world);
            let masked = pair(&mut mutator, 3).to_address().as_usize() ^ MASK;
            // The stack below has other words now than the address.
            litter(&mut mutator, 0);
            // SAFETY: its own thread.
            ready.store(unsafe { libc::pthread_self() } as usize, Ordering::Release);
            let over = &over;
            // SAFETY: reads a flag.
            let held = unsafe {
                section.interruptible(move || {
                    spin_with_a_register(black_box(masked), black_box(MASK), over, vector)
                })
            };
            let held = ObjectReference::from_address(Address::new(held)).unwrap();
            assert!(is_whole_pair(held, 3), "{plan}, vector: {vector}");
            // SAFETY: puts back what was there.
            unsafe { libc::sigaltstack(&old, core::ptr::null_mut()) };
        });
        let _over = Raise(&over);
        while ready.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(2));
        let (mut mutator, _) = attach(&heap, &world);
        for _ in 0..100 {
            if handlers {
                let thread = ready.load(Ordering::Relaxed) as libc::pthread_t;
                // SAFETY: the thread waits for the flag.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR2) };
            }
            litter(&mut mutator, 50);
            assert!(mutator.collect().is_some());
        }
        litter(&mut mutator, 2000);
    });
}

#[cfg(target_arch = "x86_64")]
#[test]
fn an_object_in_a_register_lives() {
    let _alone = alone();
    for plan in COLLECTING {
        registers(plan, false, false);
        registers(plan, true, false);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_thread_is_not_stopped_in_a_handler_on_another_stack() {
    let _alone = alone();
    // SAFETY: installs a handler that only counts.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        let handler: extern "C" fn(i32) = slow_handler;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigaction(libc::SIGUSR2, &action, core::ptr::null_mut());
    }
    registers(PlanName::SemiSpace, false, true);
    registers(PlanName::Immix, false, true);
}

/// Short sections that begin and end all the time, with allocations between, against collections: a signal comes exactly when one begins or ends.
#[test]
fn sections_that_begin_and_end_all_the_time() {
    let _alone = alone();
    for plan in COLLECTING {
        if plan == PlanName::PageProtect {
            // It soon has used up its addresses.
            continue;
        }
        let world = SignalWorld::new().unwrap();
        let heap = heap(&world, plan, SETTINGS);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for number in 1..3 {
                let (heap, world, over) = (&heap, &world, &over);
                scope.spawn(move || {
                    let (mut mutator, section) = attach(heap, world);
                    while !over.load(Ordering::Relaxed) {
                        let held = pair(&mut mutator, number);
                        // SAFETY: reads an object.
                        let held = unsafe {
                            section.interruptible(|| {
                                let held = black_box(held);
                                // Nested: changes nothing.
                                let whole =
                                    section.interruptible(move || is_whole_pair(held, number));
                                (held, whole && is_whole_pair(held, number))
                            })
                        };
                        // Captured by reference, so this is the closure's copy.
                        assert!(held.1, "{plan}");
                        mutator.poll();
                    }
                });
            }
            let _over = Raise(&over);
            let (mut mutator, _) = attach(&heap, &world);
            for _ in 0..300 {
                let _ = mutator.collect();
                litter(&mut mutator, 10);
            }
        });
    }
}

/// A section of one world in one of another: each can stop the thread.
#[test]
fn sections_of_two_worlds() {
    let _alone = alone();
    let worlds = [(); 2].map(|()| SignalWorld::new().unwrap());
    let heaps = [0, 1].map(|n| heap(&worlds[n], PlanName::Immix, SETTINGS));
    let (over, ready) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut outer, outer_section) = attach(&heaps[0], &worlds[0]);
            let (mut inner, inner_section) = attach(&heaps[1], &worlds[1]);
            let held = (pair(&mut outer, 1), pair(&mut inner, 2));
            let (over, ready) = (&over, &ready);
            let inner_section = &inner_section;
            // SAFETY: reads objects and a flag.
            let whole = unsafe {
                outer_section.interruptible(move || {
                    inner_section.interruptible(move || {
                        ready.store(true, Ordering::Relaxed);
                        let mut whole = true;
                        while !over.load(Ordering::Relaxed) {
                            whole &= is_whole_pair(black_box(held.0), 1);
                            whole &= is_whole_pair(black_box(held.1), 2);
                        }
                        whole
                    })
                })
            };
            assert!(whole);
        });
        let _over = Raise(&over);
        while !ready.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let others = [0, 1].map(|n| {
            let (heap, world) = (&heaps[n], &worlds[n]);
            scope.spawn(move || {
                let (mut mutator, _) = attach(heap, world);
                for _ in 0..200 {
                    litter(&mut mutator, 20);
                    let _ = mutator.collect();
                }
            })
        });
        for other in others {
            other.join().unwrap();
        }
    });
}

/// A thread that ends with its section begun is outside from then on: collections go on, and another thread's sections too.
#[test]
fn a_thread_that_ends_in_a_section_is_not_waited_for() {
    let _alone = alone();
    let world = SignalWorld::new().unwrap();
    let heap = heap(&world, PlanName::GenImmix, SETTINGS);
    let (mut mutator, _) = attach(&heap, &world);
    for _ in 0..3 {
        mutator.outside(|| {
            let (heap, world) = (&heap, &world);
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let (mut own, section) = attach(heap, world);
                    let kept = pair(&mut own, 5).to_address().as_usize();
                    own.thread().roots[0] = kept;
                    let high = 0usize;
                    // SAFETY: the thread ends, and its mutator is not used again.
                    unsafe { section.begin(Address::from_ptr(&raw const high)) };
                    core::mem::forget((own, section));
                });
            });
        });
        for _ in 0..20 {
            litter(&mut mutator, 20);
            assert!(mutator.collect().is_some());
        }
    }
}

#[test]
fn a_signal_that_does_not_fit_is_refused() {
    let _alone = alone();
    for signal in [libc::SIGSEGV, libc::SIGKILL, 0, 1000] {
        let refused = SignalWorld::with_signal(signal);
        assert!(matches!(refused, Err(SignalError::Unfit { signal: s }) if s == signal));
    }
    extern "C" fn other(_: i32) {}
    let handler: extern "C" fn(i32) = other;
    // SAFETY: a handler that does nothing.
    unsafe { libc::signal(libc::SIGUSR1, handler as usize) };
    let refused = SignalWorld::with_signal(libc::SIGUSR1).unwrap_err();
    assert!(matches!(refused, SignalError::Taken { .. }));
    assert!(refused.to_string().contains("choose another"));
    // Two worlds share a signal; another may have another.
    let _worlds = (SignalWorld::new().unwrap(), SignalWorld::new().unwrap());
    let world = SignalWorld::with_signal(libc::SIGPWR).unwrap();
    let heap = heap(&world, PlanName::Immix, SETTINGS);
    let (mut mutator, section) = attach(&heap, &world);
    let held = object(&mut mutator, 0, 1, 9).unwrap();
    // SAFETY: returns what it was given.
    let held = unsafe { section.interruptible(move || held) };
    assert!(runtime::is_whole(held, 9));
    assert!(section.stopped_words().is_none());
    drop(Arc::clone(&world));
}
