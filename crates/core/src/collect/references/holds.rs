//! What ephemerons, weak maps and soft references hold: made into items that wait.

use super::closure::Watcher;
use super::portions::{PORTION, Slots};
use super::tables::{Entry, FLAGS, Pair, Tables};
use super::waiting::Item;
use super::{Strength, Waiting};
use crate::collect::cycle::{Kind, Pause};
use crate::collect::trace::{Outcomes, Trace};
use crate::options::Soft;
use crate::space::objects::ObjectSpace;
use crate::space::pages::PAGE;
use crate::vm::Vm;
use core::sync::atomic::{AtomicUsize, Ordering};
use heapwright_address::{Address, ObjectReference};
use std::sync::Arc;

/// Which soft references hold.
#[derive(Clone, Copy, Debug)]
struct SoftPolicy {
    soft: Soft,
    emergency: bool,
    /// Milliseconds, as of the last collection.
    now: u64,
    free_mib: u64,
}

impl SoftPolicy {
    /// Does a reference hold that was last read at a time? `None`: nobody knows when.
    fn holds(&self, used: Option<u64>) -> bool {
        if self.emergency {
            return false;
        }
        match (self.soft, used) {
            (Soft::Clear, _) => false,
            (Soft::Room, _) | (_, None) => true,
            (Soft::Recent(per_mib), Some(used)) => {
                self.now.saturating_sub(used) <= self.free_mib * u64::from(per_mib)
            }
        }
    }
}

impl<V: Vm> Pause<'_, V> {
    fn is_inside(space: &ObjectSpace, object: usize) -> bool {
        object.wrapping_sub(space.tables().base()) < space.range()
    }

    /// Makes an item of each ephemeron, entry of a map, and soft reference that holds: how many hold something by now. `None`: there is no
    /// memory for that.
    pub(super) fn fill_all(
        &self,
        tables: &mut Tables,
        waiting: &mut Waiting,
        kind: Kind,
    ) -> Option<usize> {
        let minor = kind.minor;
        let soft = Strength::Soft as usize;
        let maps: usize = tables.maps.iter().map(|map| map.lock().taken().len()).sum();
        let count = maps
            + tables.ephemerons.part(minor).len()
            + tables.written_ephemerons.list.len()
            + tables.references[soft].part(minor).len()
            + tables.written[soft].list.len();
        if !waiting.make_room(count) {
            return None;
        }
        let (space, slots) = (self.space, Slots(self.vm.slots()));
        let ready = AtomicUsize::new(0);
        let set = |item: &mut Item,
                   outcomes: &Outcomes<'_, V>,
                   holder: Option<usize>,
                   key: Option<usize>,
                   value: usize| {
            // What lives already, or lies elsewhere, need not be held.
            if !Self::is_inside(space, value) || outcomes.of(value).is_some() {
                return;
            }
            if let Some(value) = ObjectReference::from_address(Address::new(value)) {
                item.set(slots.0, holder, key, value);
                if holder.is_none() && key.is_none() {
                    ready.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let policy = self.soft_policy();
        let mut items = waiting.items_mut();
        let pair = |pair: &Pair, item: &mut Item, outcomes: &Outcomes<'_, V>| {
            let now = outcomes.of(pair.holder);
            let at = now.unwrap_or(pair.holder);
            let (key, value) = (
                slots.load(at + pair.key as usize),
                slots.load(at + pair.value as usize),
            );
            if let (Some(key), Some(value)) = (key, value) {
                let dead = outcomes.of(key).is_none().then_some(key);
                set(
                    item,
                    outcomes,
                    now.is_none().then_some(pair.holder),
                    dead,
                    value,
                );
            }
        };
        self.fill(tables.ephemerons.part(minor), &mut items, pair);
        self.fill(&tables.written_ephemerons.list, &mut items, pair);
        let soft_entry = |entry: &Entry, item: &mut Item, outcomes: &Outcomes<'_, V>| match entry {
            Entry::Object { holder, slot, used } => {
                let holder = holder & !FLAGS;
                let now = outcomes.of(holder);
                let at = now.unwrap_or(holder);
                if let Some(target) = slots.load(at + *slot as usize)
                    && policy.holds(Self::last_used(at, *used))
                {
                    set(
                        item,
                        outcomes,
                        now.is_none().then_some(holder),
                        None,
                        target,
                    );
                }
            }
            Entry::Cell(Some(cell)) if Arc::strong_count(cell) > 1 => {
                let used = cell.used.load(Ordering::Relaxed);
                if policy.holds(Some(used)) {
                    set(
                        item,
                        outcomes,
                        None,
                        None,
                        cell.target.load(Ordering::Relaxed),
                    );
                }
            }
            Entry::Cell(_) => {}
        };
        self.fill(tables.references[soft].part(minor), &mut items, soft_entry);
        self.fill(&tables.written[soft].list, &mut items, soft_entry);
        for map in &tables.maps {
            self.fill(
                map.lock().taken(),
                &mut items,
                |(key, value), item, outcomes| {
                    let dead = outcomes.of(*key).is_none().then_some(*key);
                    set(item, outcomes, None, dead, *value);
                },
            );
        }
        let ready = ready.into_inner();
        let portions = count.div_ceil(PORTION);
        let shared: &Waiting = waiting;
        let jobs = (0..portions).map(|n| n * PORTION..((n + 1) * PORTION).min(count));
        self.in_portions(jobs, portions, |range| shared.enter(range));
        Some(ready)
    }

    fn soft_policy(&self) -> SoftPolicy {
        let free = self
            .limit
            .saturating_sub(self.stats.before_bytes / PAGE)
            .saturating_mul(PAGE);
        SoftPolicy {
            soft: self.soft,
            emergency: self.emergency,
            now: self.references.now(),
            free_mib: (free >> 20) as u64,
        }
    }

    /// When a soft reference was last read, if its holder, which is at an address, has a word for that.
    fn last_used(at: usize, used: u32) -> Option<u64> {
        // SAFETY: a word of the holder, which has not been freed (the promise of who registered it).
        (used != 0).then(|| unsafe { Address::new(at + used as usize).load::<u64>() })
    }

    /// Keeps all that ephemerons, maps and soft references refer to: without memory for a table of who waits for what, that is what
    /// can be done without losing anything. What is dead goes with a later collection.
    #[cold]
    pub(super) fn keep_all<const MOVES: bool>(
        &self,
        tables: &mut Tables,
        trace: &Trace<'_, V>,
        minor: bool,
    ) {
        let slots = Slots(self.vm.slots());
        // SAFETY: no phase is running.
        let stack = unsafe { self.stacks.stack(0) };
        let mut tracer = Watcher::<V, MOVES>::new(trace, stack);
        let mut keep = |holder: usize, slot: u32| {
            let at = Outcomes::<V>::on(self.space).of(holder).unwrap_or(holder);
            if let Some(target) = slots.load(at + slot as usize) {
                tracer.reach(target);
                tracer.run(None);
            }
        };
        for pair in tables
            .ephemerons
            .part(minor)
            .iter()
            .chain(&tables.written_ephemerons.list)
        {
            keep(pair.holder, pair.value);
        }
        let soft = Strength::Soft as usize;
        let entries = tables.references[soft].part(minor).iter();
        for entry in entries.clone().chain(&tables.written[soft].list) {
            if let Entry::Object { holder, slot, .. } = entry {
                keep(holder & !FLAGS, *slot);
            }
        }
        for entry in entries {
            if let Entry::Cell(Some(cell)) = entry {
                tracer.reach(cell.target.load(Ordering::Relaxed));
                tracer.run(None);
            }
        }
        for map in &tables.maps {
            for (_, value) in map.lock().taken() {
                tracer.reach(*value);
                tracer.run(None);
            }
        }
        self.complete::<MOVES>(trace);
    }
}
