//! What happens to references in a collection, after the closure from the roots. World stopped.
//!
//! 1. Values of ephemerons and of weak maps whose keys were reached are traced, and what the policy says of what soft references refer
//!    to, until nothing more is reached ([`super::waiting`]); the runtime's own tables take part.
//! 2. Soft and weak references to what was not reached are cleared.
//! 3. Objects with finalizers that were not reached are queued, and traced; step 1 goes on with what they reach.
//! 4. [`Vm::weak`] may keep more, and step 1 goes on.
//! 5. Soft and weak references whose holders only steps 3 and 4 reached are cleared if what they refer to was not.
//! 6. Phantom references to what was not reached are cleared. Ephemerons and entries of maps with dead keys are.
//!
//! Whatever is not cleared is updated in the same step. Each step looks at its table in portions, with all workers. A plan that slides has
//! all tables updated once more when objects have moved.

use super::closure::Watcher;
use super::portions::{PORTION, portion};
use super::tables::{Entry, Pair, Tables};
use super::waiting::Item;
use super::{Strength, Waiting};
use crate::bugs::{Bug, is_on};
use crate::collect::cycle::{Kind, Pause};
use crate::collect::trace::Trace;
use crate::vm::Vm;
use core::sync::atomic::Ordering;
use std::sync::Arc;

/// What one collection did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Processed {
    pub(crate) copied: usize,
    /// Objects that the runtime kept.
    pub(crate) kept: usize,
    /// Entries that were looked at.
    pub(crate) references: usize,
    pub(crate) cleared: usize,
    pub(crate) finalizable: usize,
}

impl<V: Vm> Pause<'_, V> {
    /// All steps, and [`Vm::weak`].
    pub(crate) fn process<const MOVES: bool>(&self, tables: &mut Tables, kind: Kind) -> Processed {
        let minor = kind.minor;
        let mut done = Processed::default();
        if !minor {
            tables.written.iter_mut().for_each(|w| w.list.clear());
            tables.written_ephemerons.list.clear();
        }
        tables.maps.retain(|map| Arc::strong_count(map) > 1);
        for map in &tables.maps {
            map.lock().take(minor);
        }
        done.references = tables.count(minor);
        tables.order_finalizers();
        let mut waiting = core::mem::take(&mut tables.waiting);
        let ready = self.fill_all(tables, &mut waiting, kind);
        {
            let trace = Trace {
                waiting: Some(&waiting),
                ..self.new_trace(kind)
            };
            self.process_filled::<MOVES>(tables, &trace, ready, minor, &mut done);
            done.copied = trace.copied.load(Ordering::Relaxed);
            done.kept = trace.kept.load(Ordering::Relaxed);
        }
        waiting.shrink();
        tables.waiting = waiting;
        done
    }

    fn process_filled<const MOVES: bool>(
        &self,
        tables: &mut Tables,
        trace: &Trace<'_, V>,
        ready: Option<usize>,
        minor: bool,
        done: &mut Processed,
    ) {
        // 1: ephemerons, maps, soft references.
        match ready {
            Some(0) => {}
            Some(_) => {
                let items = trace.waiting.map_or(&[][..], Waiting::items);
                self.closure::<MOVES, _>(trace, items.len().div_ceil(PORTION), |number, tracer| {
                    let ready = portion(items, number).iter().filter_map(Item::ready);
                    ready.for_each(|value| tracer.reach_ready(value));
                });
            }
            None => self.keep_all::<MOVES>(tables, trace, minor),
        }
        self.weak_tables::<MOVES>(trace);
        // 2: what is cleared before finalizers are looked for.
        let early = if is_on(Bug::PhantomEarly) { 3 } else { 2 };
        let mut late = 0;
        for which in 0..early {
            late += self.decide(tables, which, minor, false, done);
        }
        // 3: finalizers; 4: the runtime.
        self.finalizers::<MOVES>(tables, trace, minor, done);
        let kept = trace.kept.load(Ordering::Relaxed);
        {
            // SAFETY: no phase is running.
            let stack = unsafe { self.stacks.stack(0) };
            let mut tracer = Watcher::<V, MOVES>::new(trace, stack);
            self.vm.weak(&mut tracer);
            tracer.run(None);
        }
        self.complete::<MOVES>(trace);
        if trace.kept.load(Ordering::Relaxed) != kept {
            self.weak_tables::<MOVES>(trace);
        }
        // 5: holders that were resurrected.
        if late != 0 {
            for which in 0..2 {
                self.decide(tables, which, minor, true, done);
            }
        }
        // 6: the rest.
        if self.decide(tables, Strength::Phantom as usize, minor, false, done) != 0 {
            self.decide(tables, Strength::Phantom as usize, minor, true, done);
        }
        self.ephemerons(tables, minor);
        for list in &mut tables.references {
            list.settle(minor, Entry::is_gone);
        }
        tables.written.iter_mut().for_each(|w| w.list.clear());
        tables.written_ephemerons.list.clear();
        tables
            .ephemerons
            .settle(minor, |pair: &Pair| pair.holder == 0);
        tables.finalizable.old = tables.finalizable.list.len();
        tables.cleared.old = tables.cleared.list.len();
    }
}
