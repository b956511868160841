//! Tracing what is held, in the middle of the processing of references: each object that is reached is looked up among what is waited for.

use super::Waiting;
use super::waiting::Item;
use crate::collect::cycle::{COME, Pause, Share, TraceStacks, call_helpers};
use crate::collect::trace::{Trace, Tracer};
use crate::event::Part;
use crate::space::objects::Header;
use crate::vm::Vm;
use core::sync::atomic::Ordering;
use heapwright_work::{Phase, Worker};

/// Entries of the mark stack that one worker looks at before helpers are called.
const ALONE: usize = 4096;

/// A tracer that looks for what waits for the objects that it reaches.
pub(super) type Watcher<'a, V, const MOVES: bool> = Tracer<'a, V, true, MOVES, false, true>;

/// A closure from what `seeds` traces, portion by portion.
struct ClosurePhase<'p, V: Vm, F, const MOVES: bool> {
    trace: &'p Trace<'p, V>,
    stacks: &'p TraceStacks,
    portions: Share,
    seeds: &'p F,
}

impl<V: Vm, F, const MOVES: bool> Phase for ClosurePhase<'_, V, F, MOVES>
where
    F: Fn(usize, &mut Watcher<'_, V, MOVES>) + Sync,
{
    fn work(&self, worker: &mut Worker<'_>) {
        // SAFETY: the pool runs the phase once for each worker index.
        let stack = unsafe { self.stacks.stack(worker.index()) };
        let mut tracer = Watcher::<V, MOVES>::new(self.trace, stack);
        call_helpers(worker, self.portions.left());
        while let Some(portion) = self.portions.next() {
            (self.seeds)(portion, &mut tracer);
            tracer.run(Some(worker));
        }
        tracer.run(Some(worker));
        while let Some(entry) = worker.next() {
            if entry != COME {
                tracer.accept(entry);
                tracer.run(Some(worker));
            }
        }
    }
}

impl<V: Vm> Pause<'_, V> {
    /// Traces from what `seeds` gives for each portion, and from all that ephemerons hold then.
    pub(super) fn closure<const MOVES: bool, F>(
        &self,
        trace: &Trace<'_, V>,
        portions: usize,
        seeds: F,
    ) where
        F: Fn(usize, &mut Watcher<'_, V, MOVES>) + Sync,
    {
        let few = self.alone || portions <= 1;
        let mut done = false;
        if few {
            // SAFETY: no phase is running, so this thread alone uses the stacks.
            let stack = unsafe { self.stacks.stack(0) };
            let mut tracer = Watcher::<V, MOVES>::new(trace, stack);
            for number in 0..portions {
                seeds(number, &mut tracer);
            }
            if self.alone {
                tracer.run(None);
                done = true;
            } else {
                done = tracer.run_some(ALONE);
                tracer.count();
            }
        }
        if !done {
            let phase = ClosurePhase::<V, F, MOVES> {
                trace,
                stacks: self.stacks,
                portions: Share::of(if few { 0 } else { portions }),
                seeds: &seeds,
            };
            self.run(Part::Weak, &phase);
        }
        self.complete::<MOVES>(trace);
    }

    /// Ends such a closure: what did not fit onto stacks, and what stayed where it was.
    pub(super) fn complete<const MOVES: bool>(&self, trace: &Trace<'_, V>) {
        loop {
            // SAFETY: no phase is running.
            let stack = unsafe { self.stacks.stack(0) };
            let mut tracer = Watcher::<V, MOVES>::new(trace, stack);
            while tracer.resume_pending() {
                tracer.run(None);
            }
            let missed = trace.waiting.is_some_and(Waiting::take_missed);
            if missed {
                let items = trace.waiting.map_or(&[][..], Waiting::items);
                for value in items.iter().filter_map(Item::ready) {
                    tracer.reach_ready(value);
                    tracer.run(None);
                }
            }
            if MOVES && trace.stayed.swap(0, Ordering::Relaxed) != 0 {
                Header::<V>::new(self.space).settle();
            }
            if !missed && trace.pending.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }

    /// Has the runtime's own tables keep what their keys hold, until they keep nothing more.
    pub(super) fn weak_tables<const MOVES: bool>(&self, trace: &Trace<'_, V>) {
        if !V::WEAK_TABLES {
            return;
        }
        loop {
            let before = trace.kept.load(Ordering::Relaxed);
            // SAFETY: no phase is running.
            let stack = unsafe { self.stacks.stack(0) };
            let mut tracer = Watcher::<V, MOVES>::new(trace, stack);
            self.vm.weak_tables(&mut tracer);
            tracer.run(None);
            self.complete::<MOVES>(trace);
            if trace.kept.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}
