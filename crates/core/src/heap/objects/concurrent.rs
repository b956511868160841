//! The thread that marks while mutators run, for plans that do.
//!
//! It is inside of the gate while it marks, as a mutator is, and looks at a flag of its own every [`QUANTUM`] entries: so whoever
//! stops the world finds it between two objects, with its stack in order.

use super::{Effort, Inner};
use crate::bugs::{Bug, is_on};
use crate::collect::gate::Interrupt;
use crate::collect::trace::{Trace, Tracer};
use crate::event::Cause;
use crate::heap::workers::{Marker, Marks};
use crate::probes;
use crate::space::tables::Policy;
use crate::vm::Vm;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use heapwright_os::current_thread;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// Entries of the mark stack between two looks at the flag: some ten microseconds.
const QUANTUM: usize = 256;
/// The same with the option `yields`: mutators write between any two.
const QUANTUM_WITH_YIELDS: usize = 4;
/// How many references a mutator remembers before it hands them over.
pub(super) const HAND_OVER: usize = 1024;

/// What the heap and the thread share.
#[derive(Debug)]
pub(super) struct Background {
    /// The thread is to stop at its next look.
    pub(super) interrupt: Interrupt,
    marker: Marker,
    /// The thread that marks this heap now; 0: none.
    thread: AtomicUsize,
    /// The thread that marked is gone, with a process that forked.
    lost: AtomicBool,
    /// References that mutators handed over.
    overwritten: Mutex<Vec<usize>>,
}

impl Background {
    pub(super) fn new(marker: &Marker) -> Self {
        Self {
            interrupt: Interrupt::default(),
            marker: marker.clone(),
            thread: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
            overwritten: Mutex::default(),
        }
    }

    /// Is the calling thread marking the heap?
    pub(super) fn is_me(&self) -> bool {
        self.thread.load(Ordering::Relaxed) == current_thread()
    }

    /// The lock of the list of heaps, for a fork.
    pub(super) fn hold(&self) -> impl Sized + '_ {
        self.marker.hold()
    }

    /// In the child of a fork.
    pub(super) fn forked(&self, marking: bool) {
        self.thread.store(0, Ordering::Relaxed);
        let lost = marking && !is_on(Bug::ForkMarkLost);
        self.lost.store(lost, Ordering::Relaxed);
    }

    /// Takes what a mutator remembered. False if there is no memory for it: then the mutator keeps it.
    pub(super) fn hand_over(&self, log: &mut Vec<usize>) -> bool {
        let mut all = self
            .overwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if all.try_reserve(log.len()).is_err() {
            return false;
        }
        if is_on(Bug::HandOverLost) {
            log.clear();
        }
        all.append(log);
        true
    }

    /// What was handed over so far.
    pub(super) fn take_overwritten(&self) -> Vec<usize> {
        core::mem::take(
            &mut *self
                .overwritten
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl<V: Vm> Marks for Inner<V> {
    fn mark(self: Arc<Self>) {
        self.gate.enter();
        self.background
            .thread
            .store(current_thread(), Ordering::Relaxed);
        mark(&self);
        self.background.thread.store(0, Ordering::Relaxed);
        self.gate.leave();
    }
}

/// Marks until all is marked, or somebody else completed the mark.
fn mark<V: Vm>(inner: &Arc<Inner<V>>) {
    loop {
        if inner.background.interrupt.is_raised() {
            inner.gate.stop();
        }
        // Only this thread is left: nobody will use the heap again.
        if !inner.space.marking() || Arc::strong_count(inner) == 1 {
            return;
        }
        let trace = Trace {
            vm: &inner.vm,
            space: &inner.space,
            to: Policy::Immix,
            // It copies nothing.
            most: 0,
            unlog: false,
            copied: AtomicUsize::new(0),
            stayed: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            waiting: None,
        };
        // SAFETY: this thread is inside of the gate, so no pause is under way, and nobody else uses the stacks outside of one.
        let stack = unsafe { inner.stacks.stack(0) };
        let mut tracer = Tracer::<V, true, false>::new(&trace, stack);
        for object in inner.background.take_overwritten() {
            tracer.accept(object << 16);
        }
        let mut done = false;
        while !done && !inner.background.interrupt.is_raised() {
            inner.yields.point();
            done = if inner.yields.is_on() {
                tracer.run_some(QUANTUM_WITH_YIELDS)
            } else if inner.options.stress == 0 {
                tracer.run_some(QUANTUM)
            } else {
                // So slow that mutators do much meanwhile.
                thread::sleep(Duration::from_micros(50));
                tracer.run_some(2)
            };
        }
        if done {
            probes::requested(Cause::Concurrent);
            let _ = inner.pause(|| inner.collect_stopped(Cause::Concurrent, Effort::Usual, false));
            return;
        }
    }
}

impl<V: Vm> Inner<V> {
    /// Begins to mark if the plan does that while mutators run, and it is time: true if the world was stopped, and what the caller
    /// knew of the heap may be wrong. By a mutator.
    pub(super) fn begin_if_due(&self) -> bool {
        if !self.facts.concurrent {
            return false;
        }
        if self.space.marking() {
            if self.background.lost.load(Ordering::Relaxed) {
                self.wake_marker();
            }
            return false;
        }
        let mut usage = self.page_usage();
        usage.used += self.sizing.external_pages();
        let due = self.sizing.is_time_to_begin(&usage);
        if due {
            self.begin();
        }
        due
    }

    /// Begins to mark while mutators run. By a mutator of a plan that does.
    pub(super) fn begin(&self) {
        probes::requested(Cause::Budget);
        let begun = self.pause(|| self.collect_stopped(Cause::Budget, Effort::Usual, true));
        if begun.is_some() {
            self.wake_marker();
        }
    }

    /// Has the thread mark. Without one, the next collection completes the mark.
    fn wake_marker(&self) {
        self.background.lost.store(false, Ordering::Relaxed);
        let heap: &Weak<Self> = self.tending.heap();
        self.background.marker.mark(heap);
    }
}
