//! How long it takes to stop a thread, by its poll or by a signal in a section, and what a section costs.
//!
//!     cargo run --release -p heapwright-signals --example stopping

#![allow(clippy::print_stdout)]

use core::hint::black_box;
use heapwright::collect::gate::Gate;
use heapwright::{Address, World};
use heapwright_signals::{Section, SignalWorld};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const STOPS: usize = 2000;

/// Stops a thread that is inside and runs `spin` until a flag is up, again and again. Prints the times.
fn measure<W: World>(what: &str, world: &W, spin: impl FnOnce(&AtomicBool, &AtomicBool) + Send) {
    let (raised, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut times = Vec::with_capacity(STOPS);
    world.enter();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            spin(&raised, &over);
            world.leave();
        });
        for _ in 0..STOPS {
            std::thread::sleep(Duration::from_micros(300));
            let begin = Instant::now();
            let closed = world.close(false, &|| raised.store(true, Ordering::Relaxed));
            times.push(begin.elapsed());
            assert!(closed);
            raised.store(false, Ordering::Relaxed);
            world.open(false);
        }
        over.store(true, Ordering::Relaxed);
    });
    times.sort_unstable();
    let (median, late) = (times[STOPS / 2], times[STOPS * 99 / 100]);
    println!("{what:36} median {median:>9.1?}   99 of 100 within {late:>9.1?}");
}

/// A thread that polls all the time.
fn polls(world: &impl World, raised: &AtomicBool, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        if raised.load(Ordering::Relaxed) {
            world.stop();
        }
    }
}

fn each(count: u32, what: &str, mut f: impl FnMut()) {
    let begin = Instant::now();
    for _ in 0..count {
        f();
    }
    let each = begin.elapsed().as_secs_f64() * 1e9 / f64::from(count);
    println!("{what:36} {each:.2} ns");
}

fn cost(section: &Section) {
    let high = 0usize;
    let high = Address::from_ptr(black_box(&raw const high));
    // SAFETY: does nothing in the sections, on a thread that is inside.
    unsafe {
        each(20_000_000, "an empty loop", || {
            black_box(());
        });
        each(20_000_000, "begin and end of a section", || {
            section.begin(high);
            black_box(());
            section.end();
        });
        each(20_000_000, "interruptible(|| ())", || {
            section.interruptible(|| black_box(()));
        });
    }
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let (gate, world) = (Gate::new(), SignalWorld::new()?);
    measure("the gate, a thread that polls", &gate, |raised, over| {
        polls(&gate, raised, over);
    });
    let signals: &SignalWorld = &world;
    measure("signals, a thread that polls", signals, |raised, over| {
        polls(signals, raised, over);
    });
    let world: &Arc<SignalWorld> = &world;
    measure("signals, a thread in a section", signals, |_, over| {
        // SAFETY: reads a flag, on a thread that is inside.
        unsafe {
            world.section().interruptible(|| {
                while !over.load(Ordering::Relaxed) {
                    core::hint::spin_loop();
                }
            });
        }
    });
    world.enter();
    cost(&world.section());
    world.leave();
    Ok(())
}
