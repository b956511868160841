//! Loom models of [`crate::stop`]: threads in sections, and pauses. The model's signals come at [`crate::primitive::instruction`], or, if
//! there is none after they were sent, not at all.
//!
//! Each thread has a cell that it changes while it is inside, and that a pause changes for all: loom fails two that are not ordered. A
//! wait that nobody ends is a deadlock, which loom reports.
#![allow(clippy::unwrap_used)]

use crate::primitive::{AtomicU32, Ordering, instruction};
use crate::stop::{Record, Stops};
use loom::cell::UnsafeCell;
use loom::thread;
use std::sync::Arc;

fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = Some(preemptions);
    }
    builder.check(check);
}

/// The thread has a signal pending.
pub(crate) fn send(record: &Record) {
    record.pending.store(1, Ordering::Release);
    record.sent.add();
    record.sent.wake();
}

/// A pending signal comes.
pub(crate) fn deliver(record: &Record) {
    if record.pending.swap(0, Ordering::AcqRel) != 0 {
        // SAFETY: the world outlives its records.
        unsafe { &*record.stops }.handle(record, 1, |_| true);
    }
}

const MOST: usize = 3;

struct World {
    stops: Stops,
    flag: AtomicU32,
    /// Changed by each thread.
    own: [UnsafeCell<usize>; MOST],
    /// Changed in pauses: how many there were.
    pauses: UnsafeCell<usize>,
}

// SAFETY: loom fails uses of the cells that race.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

fn add(cell: &UnsafeCell<usize>) {
    cell.with_mut(|cell| {
        // SAFETY: loom fails this if it races.
        unsafe { *cell += 1 }
    });
}

fn world() -> Arc<World> {
    Arc::new(World {
        stops: Stops::new(0),
        flag: AtomicU32::new(0),
        own: Default::default(),
        pauses: UnsafeCell::default(),
    })
}

impl World {
    /// As `pause` of the heap.
    fn pause(&self, inside: bool) -> bool {
        if !(self.stops).close(inside, || self.flag.store(1, Ordering::Relaxed)) {
            return false;
        }
        for own in &self.own {
            add(own);
        }
        add(&self.pauses);
        self.flag.store(0, Ordering::Relaxed);
        self.stops.open();
        true
    }

    fn pauses(&self) -> usize {
        // SAFETY: loom fails this if it races with a pause.
        self.pauses.with(|pauses| unsafe { *pauses })
    }
}

/// A thread with a mutator, inside.
struct Thread {
    world: Arc<World>,
    record: &'static Record,
    number: usize,
}

impl Thread {
    fn attach(world: &Arc<World>, number: usize) -> Self {
        world.stops.come_in(1);
        // SAFETY: the record lives as long as the world, which this keeps.
        let record = unsafe { &*world.stops.take_record() };
        Self {
            world: Arc::clone(world),
            record,
            number,
        }
    }

    fn work(&self) {
        add(&self.world.own[self.number]);
    }

    fn poll(&self) {
        if self.world.flag.load(Ordering::Relaxed) != 0 {
            self.world.stops.stop();
        }
    }

    /// A section; signals come before and after what it does.
    fn section(&self, code: impl FnOnce()) {
        self.world.stops.begin(self.record, 1, 2);
        instruction(self.record);
        code();
        instruction(self.record);
        Stops::end(self.record);
    }

    fn detach(self) {
        self.record.handles.store(0, Ordering::Release);
        self.world.stops.leave();
    }
}

fn spawn(
    world: &Arc<World>,
    number: usize,
    script: impl FnOnce(&Thread) + Send + 'static,
) -> thread::JoinHandle<()> {
    let world = Arc::clone(world);
    world.stops.come_in(1);
    thread::spawn(move || {
        // SAFETY: as in `attach`.
        let record = unsafe { &*world.stops.take_record() };
        let thread = Thread {
            world,
            record,
            number,
        };
        script(&thread);
        thread.detach();
    })
}

/// A section begins and ends at any time of a pause, and what follows polls.
#[test]
fn a_pause_and_a_section() {
    model(3, || {
        let world = world();
        let other = spawn(&world, 1, |thread| {
            thread.work();
            thread.section(|| thread.work());
            thread.work();
        });
        let me = Thread::attach(&world, 0);
        me.work();
        assert!(world.pause(true));
        me.work();
        other.join().unwrap();
        assert_eq!(world.pauses(), 1);
        me.detach();
    });
}

/// Two pauses after each other: a thread that is slow to come out of the first is in the second.
#[test]
fn two_pauses_and_two_sections() {
    model(2, || {
        let world = world();
        let other = spawn(&world, 1, |thread| {
            thread.section(|| thread.work());
            thread.poll();
            thread.section(|| thread.work());
        });
        assert!(world.pause(false));
        assert!(world.pause(false));
        other.join().unwrap();
        assert_eq!(world.pauses(), 2);
    });
}

/// A thread does not end its section before a signal has come, so the pause ends only if it is stopped there.
#[test]
fn one_that_does_not_end_its_section_is_stopped() {
    model(3, || {
        let world = world();
        let me = Thread::attach(&world, 0);
        let thread = Thread::attach(&world, 1);
        let record = thread.record;
        let other = thread::spawn(move || {
            thread.section(|| {
                thread.record.sent.wait(0, None);
                thread.work();
            });
            thread.work();
            thread.detach();
        });
        assert!(world.pause(true));
        // If the section began after the pause.
        send(record);
        me.work();
        me.detach();
        other.join().unwrap();
    });
}

/// Sections in sections: only the outermost counts.
#[test]
fn nested_sections() {
    model(2, || {
        let world = world();
        let other = spawn(&world, 1, |thread| {
            thread.section(|| {
                thread.section(|| thread.work());
                thread.work();
            });
            thread.work();
        });
        assert!(world.pause(false));
        other.join().unwrap();
    });
}

/// Two that want a pause, one thread in a section, one that goes outside.
#[test]
fn two_pause_at_once() {
    model(2, || {
        let world = world();
        let other = spawn(&world, 1, |thread| {
            thread.section(|| thread.work());
            let before = thread.world.pauses();
            let mine = thread.world.pause(true);
            assert!(mine || thread.world.pauses() > before);
        });
        let mine = world.pause(false);
        other.join().unwrap();
        let pauses = world.pauses();
        assert!(pauses == 2 || pauses == 1, "{mine}");
    });
}

#[test]
fn a_quiet_pause_and_a_section() {
    model(3, || {
        let world = world();
        let other = spawn(&world, 1, |thread| {
            thread.section(|| thread.work());
            thread.world.stops.leave();
            thread.world.stops.come_in(1);
            thread.section(|| thread.work());
        });
        if world.stops.try_close() {
            world.own.iter().for_each(add);
            world.stops.open();
        }
        other.join().unwrap();
        assert!(world.stops.try_close());
        world.stops.open();
    });
}

// ---- what is wrong is found ------------------------------------------------------------------------------------------

/// A section whose thread does not look at the epoch when it begins, and gets no signal later.
#[test]
#[should_panic(expected = "deadlock")]
fn one_that_is_never_reached_is_found() {
    model(3, || {
        let world = world();
        let thread = Thread::attach(&world, 1);
        let _ = world.pause(false);
        thread.detach();
    });
}

/// One that works in the heap when it is not inside.
#[test]
#[should_panic(expected = "Causality violation")]
fn one_that_works_outside_is_found() {
    model(3, || {
        let world = world();
        let other = spawn(&world, 1, |thread| {
            thread.world.stops.leave();
            thread.work();
            thread.world.stops.come_in(1);
        });
        assert!(world.pause(false));
        other.join().unwrap();
    });
}

/// One that is in a section, and does not say so.
#[test]
#[should_panic(expected = "deadlock")]
fn one_that_does_not_begin_its_section_is_found() {
    model(3, || {
        let world = world();
        let thread = Thread::attach(&world, 1);
        let other = thread::spawn(move || {
            thread.record.sent.wait(0, None);
            thread.detach();
        });
        assert!(world.pause(false));
        other.join().unwrap();
    });
}
