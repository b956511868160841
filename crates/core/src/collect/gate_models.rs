//! Loom models of [`super::gate`], used as the heap uses it: mutators with a flag each in a list, and pauses.
//!
//! Each mutator has a cell that it changes while it is inside, and that a pause changes for all: loom fails two that are not
//! ordered. A wait that nobody ends is a deadlock, which loom reports; polling that nobody ends has too many branches.
#![allow(clippy::unwrap_used)]

use super::gate::{Gate, Interrupt};
use loom::cell::UnsafeCell;
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use std::sync::Arc;

fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = Some(preemptions);
    }
    builder.check(check);
}

const MOST: usize = 3;

/// What of a heap has to do with stopping.
#[derive(Default)]
struct World {
    gate: Gate,
    flags: Mutex<Vec<Arc<Interrupt>>>,
    /// Changed by each mutator.
    own: [UnsafeCell<usize>; MOST],
    /// Changed in pauses: how many there were.
    pauses: UnsafeCell<usize>,
}

// SAFETY: loom fails uses of the cells that race.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

/// A mutator that is attached.
struct Mutator {
    world: Arc<World>,
    flag: Arc<Interrupt>,
    number: usize,
}

impl World {
    /// As `Mutator::attach` of the heap.
    fn attach(self: &Arc<Self>, number: usize) -> Mutator {
        let mutator = self.enter_list(number);
        self.gate.stop();
        mutator
    }

    /// Wrong by itself: a pause that began before the flag was in the list does not raise it.
    fn enter_list(self: &Arc<Self>, number: usize) -> Mutator {
        self.gate.enter();
        let flag = Arc::new(Interrupt::default());
        self.flags.lock().unwrap().push(Arc::clone(&flag));
        Mutator {
            world: Arc::clone(self),
            flag,
            number,
        }
    }

    fn interrupt(&self, raised: bool) {
        for flag in self.flags.lock().unwrap().iter() {
            flag.set(raised);
        }
    }

    /// As `pause` of the heap: false if somebody else's is over. `inside`: the caller is.
    fn pause(&self, inside: bool) -> bool {
        if !self.gate.close(inside, || self.interrupt(true)) {
            return false;
        }
        for own in &self.own {
            add(own);
        }
        add(&self.pauses);
        self.interrupt(false);
        self.gate.open();
        true
    }

    /// How many pauses there were. By whoever is inside.
    fn pauses(&self) -> usize {
        self.pauses.with(|pauses| {
            // SAFETY: loom fails this if it races with a pause.
            unsafe { *pauses }
        })
    }
}

fn add(cell: &UnsafeCell<usize>) {
    cell.with_mut(|cell| {
        // SAFETY: loom fails this if it races.
        unsafe { *cell += 1 }
    });
}

impl Mutator {
    fn work(&self) {
        add(&self.world.own[self.number]);
    }

    fn poll(&self) {
        if self.flag.is_raised() {
            self.world.gate.stop();
        }
    }

    fn outside(&self) {
        self.world.gate.leave();
        self.world.gate.enter();
    }

    /// As the heap's mutators when they are dropped.
    fn detach(self) {
        self.world
            .flags
            .lock()
            .unwrap()
            .retain(|flag| !Arc::ptr_eq(flag, &self.flag));
        self.world.gate.leave();
    }
}

/// Mutators that are attached, to be moved into threads: they run `script`.
fn spawn(world: &Arc<World>, number: usize, script: fn(&Mutator)) -> thread::JoinHandle<()> {
    let mutator = world.attach(number);
    thread::spawn(move || {
        script(&mutator);
        mutator.detach();
    })
}

// ---- nobody is inside while the gate is closed -----------------------------------------------------------------------

#[test]
fn a_pause_has_the_heap_to_itself() {
    model(3, || {
        let world = Arc::new(World::default());
        let others = [1, 2].map(|number| {
            spawn(&world, number, |mutator| {
                mutator.work();
                mutator.poll();
                mutator.work();
            })
        });
        let me = world.attach(0);
        me.work();
        assert!(world.pause(true), "nobody else pauses");
        me.work();
        others.map(|other| other.join().unwrap());
        assert_eq!(world.pauses(), 1);
        me.detach();
    });
}

#[test]
fn a_pause_from_outside_has_the_heap_to_itself() {
    model(3, || {
        let world = Arc::new(World::default());
        let others = [1, 2].map(|number| {
            spawn(&world, number, |mutator| {
                mutator.work();
                mutator.poll();
                mutator.work();
            })
        });
        assert!(world.pause(false), "nobody else pauses");
        others.map(|other| other.join().unwrap());
    });
}

// ---- nobody waits for ever -------------------------------------------------------------------------------------------

/// One goes outside and comes back, one only polls; two pauses in a row.
#[test]
fn outside_and_back_while_another_pauses() {
    model(2, || {
        let world = Arc::new(World::default());
        let others = [
            spawn(&world, 1, |mutator| {
                mutator.work();
                mutator.outside();
                mutator.work();
            }),
            spawn(&world, 2, Mutator::poll),
        ];
        let me = world.attach(0);
        assert!(world.pause(true));
        assert!(world.pause(true));
        me.work();
        others.map(|other| other.join().unwrap());
        assert_eq!(world.pauses(), 2);
        me.detach();
    });
}

#[test]
fn outside_and_back_while_another_pauses_from_outside() {
    model(3, || {
        let world = Arc::new(World::default());
        let other = spawn(&world, 1, |mutator| {
            mutator.work();
            mutator.outside();
            mutator.work();
            mutator.outside();
            mutator.work();
        });
        assert!(world.pause(false));
        assert!(world.pause(false));
        other.join().unwrap();
    });
}

/// A mutator that only polls stops, and goes on when the gate is open again.
#[test]
fn one_that_polls_is_stopped_and_goes_on() {
    model(3, || {
        let world = Arc::new(World::default());
        let over = Arc::new(AtomicBool::new(false));
        let mutator = world.attach(1);
        let other = {
            let over = Arc::clone(&over);
            thread::spawn(move || poll_until(mutator, &over))
        };
        assert!(world.pause(false));
        over.store(true, Ordering::Relaxed);
        other.join().unwrap();
    });
}

fn poll_until(mutator: Mutator, over: &AtomicBool) {
    mutator.work();
    while !over.load(Ordering::Relaxed) {
        mutator.poll();
        thread::yield_now();
    }
    mutator.work();
    mutator.detach();
}

// ---- two pause at once -----------------------------------------------------------------------------------------------

/// Of those who want a pause at once, one has it; who is told that there was one finds that it is over.
fn pause_or_wait(mutator: &Mutator) -> bool {
    mutator.work();
    let before = mutator.world.pauses();
    let mine = mutator.world.pause(true);
    assert!(
        mutator.world.pauses() > before,
        "there was none, or it is not over"
    );
    mutator.work();
    mine
}

#[test]
fn of_two_one_pauses() {
    model(3, || {
        let world = Arc::new(World::default());
        let other = world.attach(1);
        let other = thread::spawn(move || {
            let mine = pause_or_wait(&other);
            other.detach();
            mine
        });
        let me = world.attach(0);
        let mine = pause_or_wait(&me);
        me.detach();
        let theirs = other.join().unwrap();
        assert!(mine || theirs);
        // Each that was told true had one of its own.
        assert_eq!(world.pauses(), usize::from(mine) + usize::from(theirs));
    });
}

#[test]
fn of_two_one_pauses_and_a_third_polls() {
    model(2, || {
        let world = Arc::new(World::default());
        let other = world.attach(1);
        let other = thread::spawn(move || {
            let mine = pause_or_wait(&other);
            other.detach();
            mine
        });
        let third = spawn(&world, 2, |mutator| {
            mutator.work();
            mutator.poll();
            mutator.work();
        });
        let me = world.attach(0);
        let mine = pause_or_wait(&me);
        me.detach();
        let theirs = other.join().unwrap();
        third.join().unwrap();
        assert!(mine || theirs);
        assert_eq!(world.pauses(), usize::from(mine) + usize::from(theirs));
    });
}

/// One of them is outside, and waits there.
#[test]
fn of_two_one_pauses_from_outside() {
    model(3, || {
        let world = Arc::new(World::default());
        let other = world.attach(1);
        let other = thread::spawn(move || {
            let mine = pause_or_wait(&other);
            other.detach();
            mine
        });
        let mine = world.pause(false);
        let theirs = other.join().unwrap();
        assert!(mine || theirs);
        assert_eq!(world.pauses(), usize::from(mine) + usize::from(theirs));
    });
}

// ---- mutators come and go --------------------------------------------------------------------------------------------

#[test]
fn one_attaches_and_detaches_while_another_pauses() {
    model(3, || {
        let world = Arc::new(World::default());
        let other = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let mutator = world.attach(1);
                mutator.work();
                mutator.detach();
            })
        };
        let me = world.attach(0);
        me.work();
        assert!(world.pause(true));
        me.detach();
        other.join().unwrap();
    });
}

#[test]
fn one_attaches_and_another_detaches_while_a_third_pauses() {
    model(2, || {
        let world = Arc::new(World::default());
        let leaving = spawn(&world, 2, Mutator::work);
        let coming = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let mutator = world.attach(1);
                mutator.work();
                mutator.poll();
                mutator.work();
                mutator.detach();
            })
        };
        let me = world.attach(0);
        me.work();
        assert!(world.pause(true));
        me.work();
        me.detach();
        leaving.join().unwrap();
        coming.join().unwrap();
    });
}

/// A mutator that attaches while another pauses is waited for, and so has to hear of it, even if it only polls from then on.
fn attach_and_poll(attach: fn(&Arc<World>, usize) -> Mutator) {
    let world = Arc::new(World::default());
    let over = Arc::new(AtomicBool::new(false));
    let other = {
        let (world, over) = (Arc::clone(&world), Arc::clone(&over));
        thread::spawn(move || poll_until(attach(&world, 1), &over))
    };
    assert!(world.pause(false));
    over.store(true, Ordering::Relaxed);
    other.join().unwrap();
}

#[test]
fn one_that_attaches_hears_of_the_pause() {
    model(3, || attach_and_poll(World::attach));
}

// ---- what is wrong is found ------------------------------------------------------------------------------------------

#[test]
#[should_panic]
fn one_that_attaches_and_does_not_hear_of_the_pause_is_found() {
    model(3, || attach_and_poll(World::enter_list));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn one_that_works_outside_is_found() {
    model(3, || {
        let world = Arc::new(World::default());
        let other = spawn(&world, 1, |mutator| {
            mutator.world.gate.leave();
            mutator.work();
            mutator.world.gate.enter();
        });
        assert!(world.pause(false));
        other.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_gate_that_is_not_opened_is_found() {
    model(3, || {
        let world = Arc::new(World::default());
        let other = spawn(&world, 1, Mutator::outside);
        assert!(world.gate.close(false, || world.interrupt(true)));
        other.join().unwrap();
    });
}

/// One that neither polls nor leaves.
#[test]
#[should_panic(expected = "deadlock")]
fn one_that_never_stops_is_found() {
    model(3, || {
        let world = Arc::new(World::default());
        let other = world.attach(1);
        let _ = world.gate.close(false, || world.interrupt(true));
        other.detach();
    });
}

// ---- who finds nobody inside closes the gate, and who finds somebody changes nothing --------------------------------

/// As the scavenger: a pause of one who is outside, if nobody is inside.
fn quiet_pause(world: &World) -> bool {
    if !world.gate.try_close() {
        return false;
    }
    for own in &world.own {
        add(own);
    }
    add(&world.pauses);
    world.interrupt(false);
    world.gate.open();
    true
}

#[test]
fn a_quiet_pause_races_with_one_that_comes_in_and_one_that_pauses() {
    model(3, || {
        let world = Arc::new(World::default());
        let first = spawn(&world, 0, |mutator| {
            mutator.outside();
            mutator.work();
            let _ = mutator.world.pause(true);
            mutator.work();
        });
        let _ = quiet_pause(&world);
        first.join().unwrap();
        let before = {
            world.gate.enter();
            let pauses = world.pauses();
            world.gate.leave();
            pauses
        };
        // Now nobody is inside.
        assert!(quiet_pause(&world));
        world.gate.enter();
        assert_eq!(world.pauses(), before + 1);
        assert!(!world.gate.try_close());
        world.gate.leave();
    });
}
