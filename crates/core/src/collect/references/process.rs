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

use super::tables::{
    CLEARED, Entry, FLAGS, Generations, LATE, Pair, QUEUED, Queue, Queued, Tables,
};
use super::waiting::Item;
use super::{FinalizerOrder, Strength, Waiting};
use crate::collect::cycle::{COME, Kind, Pause, Share, TraceStacks, call_helpers};
use crate::collect::trace::{Outcomes, Trace, Tracer};
use crate::options::Soft;
use crate::space::objects::{Header, ObjectSpace};
use crate::space::pages::PAGE;
use crate::vm::{SlotFormat, Vm};
use core::sync::atomic::{AtomicUsize, Ordering};
use heapwright_address::{Address, ObjectReference};
use heapwright_work::{Phase, Worker};
use std::sync::{Arc, Mutex, PoisonError};

/// Entries that one worker looks at at a time.
const PORTION: usize = 1024;
/// Entries of the mark stack that one worker looks at before helpers are called.
const ALONE: usize = 4096;

/// A tracer that looks for what waits for the objects that it reaches.
type Watcher<'a, V, const MOVES: bool> = Tracer<'a, V, true, MOVES, false, true>;

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

/// A slot of the runtime's format.
#[derive(Clone, Copy)]
struct Slots<S>(S);

impl<S: SlotFormat> Slots<S> {
    fn load(self, at: usize) -> Option<usize> {
        // SAFETY: a slot of a holder that was registered, and has not been freed (the promise of who registered it).
        unsafe { self.0.load(Address::new(at)) }.map(|o| o.to_address().as_usize())
    }

    fn store(self, at: usize, object: usize) {
        if let Some(object) = ObjectReference::from_address(Address::new(object)) {
            // SAFETY: as above; the world is stopped, and one worker has the entry.
            unsafe { self.0.store(Address::new(at), object) };
        }
    }

    fn clear(self, at: usize) {
        // SAFETY: as above.
        unsafe { self.0.clear(Address::new(at)) };
    }

    /// Says where an object is now.
    fn update(self, at: usize, old: usize, now: usize) {
        if now != old {
            self.store(at, now);
        }
    }
}

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

/// Jobs that workers share, each of which one takes.
struct Portions<'p, J, W> {
    jobs: &'p [Mutex<Option<J>>],
    next: Share,
    work: &'p W,
}

impl<J: Send, W: Fn(J) + Sync> Phase for Portions<'_, J, W> {
    fn work(&self, worker: &mut Worker<'_>) {
        call_helpers(worker, self.next.left());
        while let Some(index) = self.next.next() {
            let job = self.jobs[index]
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(job) = job {
                (self.work)(job);
            }
        }
        while worker.next().is_some() {}
    }
}

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

/// The portion of a list with a number.
fn portion<T>(list: &[T], number: usize) -> &[T] {
    let from = (number * PORTION).min(list.len());
    &list[from..list.len().min(from + PORTION)]
}

impl<V: Vm> Pause<'_, V> {
    /// Runs `work` on all jobs, of which there are at most `count`, with all workers.
    fn in_portions<J: Send>(
        &self,
        jobs: impl Iterator<Item = J>,
        count: usize,
        work: impl Fn(J) + Sync,
    ) {
        let mut list = Vec::new();
        if self.alone || count <= 1 || list.try_reserve_exact(count).is_err() {
            return jobs.for_each(work);
        }
        list.extend(jobs.map(|job| Mutex::new(Some(job))));
        let _ = self.pool.run(&Portions {
            next: Share::of(list.len()),
            jobs: &list,
            work: &work,
        });
    }

    /// Runs `work` on each entry of a list.
    fn for_entries<T: Send>(&self, list: &mut [T], work: impl Fn(&mut T, &Outcomes<'_, V>) + Sync) {
        let (space, count) = (self.space, list.len().div_ceil(PORTION));
        self.in_portions(list.chunks_mut(PORTION), count, |entries: &mut [T]| {
            let outcomes = Outcomes::on(space);
            entries.iter_mut().for_each(|entry| work(entry, &outcomes));
        });
    }

    /// Fills one item for each entry of a list.
    fn fill<T: Sync>(
        &self,
        list: &[T],
        items: &mut &mut [Item],
        work: impl Fn(&T, &mut Item, &Outcomes<'_, V>) + Sync,
    ) {
        let (own, rest) = core::mem::take(items).split_at_mut(list.len());
        *items = rest;
        let (space, count) = (self.space, list.len().div_ceil(PORTION));
        let jobs = list.chunks(PORTION).zip(own.chunks_mut(PORTION));
        self.in_portions(jobs, count, |(list, items): (&[T], &mut [Item])| {
            let outcomes = Outcomes::on(space);
            for (entry, item) in list.iter().zip(items) {
                work(entry, item, &outcomes);
            }
        });
    }

    /// Traces from what `seeds` gives for each portion, and from all that ephemerons hold then.
    fn closure<const MOVES: bool, F>(&self, trace: &Trace<'_, V>, portions: usize, seeds: F)
    where
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
            let _ = self.pool.run(&ClosurePhase::<V, F, MOVES> {
                trace,
                stacks: self.stacks,
                portions: Share::of(if few { 0 } else { portions }),
                seeds: &seeds,
            });
        }
        self.complete::<MOVES>(trace);
    }

    /// Ends such a closure: what did not fit onto stacks, and what stayed where it was.
    fn complete<const MOVES: bool>(&self, trace: &Trace<'_, V>) {
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
    fn weak_tables<const MOVES: bool>(&self, trace: &Trace<'_, V>) {
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

    fn is_inside(space: &ObjectSpace, object: usize) -> bool {
        object.wrapping_sub(space.tables().base()) < space.range()
    }

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
        let early = 2;
        let mut late = 0;
        for which in 0..early {
            late += self.decide(tables, which, minor, false, done);
        }
        // 3: finalizers; 4: the runtime.
        let resurrected = self.finalizers::<MOVES>(tables, trace, minor, done);
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
        let _ = resurrected;
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

    /// Makes an item of each ephemeron, entry of a map, and soft reference that holds: how many hold something by now. `None`: there is no
    /// memory for that.
    fn fill_all(&self, tables: &mut Tables, waiting: &mut Waiting, kind: Kind) -> Option<usize> {
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
    fn keep_all<const MOVES: bool>(&self, tables: &mut Tables, trace: &Trace<'_, V>, minor: bool) {
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
        let mut cells = Vec::new();
        for entry in tables.references[soft]
            .part(minor)
            .iter()
            .chain(&tables.written[soft].list)
        {
            match entry {
                Entry::Object { holder, slot, .. } => keep(holder & !FLAGS, *slot),
                Entry::Cell(cell) => cells.extend(cell.as_ref().map(Arc::clone)),
            }
        }
        for cell in cells {
            tracer.reach(cell.target.load(Ordering::Relaxed));
            tracer.run(None);
        }
        for map in &tables.maps {
            for (_, value) in map.lock().taken() {
                tracer.reach(*value);
                tracer.run(None);
            }
        }
        self.complete::<MOVES>(trace);
    }

    /// Clears the references of one strength to what was not reached, and updates the others: how many have holders that were not
    /// reached. `late`: looks at those again, and forgets them if they still are dead.
    fn decide(
        &self,
        tables: &mut Tables,
        which: usize,
        minor: bool,
        late: bool,
        done: &mut Processed,
    ) -> usize {
        let slots = Slots(self.vm.slots());
        let (cleared, queued, dead) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        let work = |entry: &mut Entry, outcomes: &Outcomes<'_, V>| match entry {
            Entry::Object { holder, slot, .. } => {
                let (old, mut flags) = (*holder & !FLAGS, *holder & FLAGS);
                if old == 0 || late != (flags & LATE != 0) {
                    return;
                }
                let Some(now) = outcomes.of(old) else {
                    *holder = if late { 0 } else { *holder | LATE };
                    dead.fetch_add(1, Ordering::Relaxed);
                    return;
                };
                let at = now + *slot as usize;
                if let Some(target) = slots.load(at) {
                    match outcomes.of(target) {
                        Some(to) => slots.update(at, target, to),
                        None => {
                            slots.clear(at);
                            cleared.fetch_add(1, Ordering::Relaxed);
                            if flags & QUEUED != 0 {
                                flags |= CLEARED;
                            }
                        }
                    }
                }
                if flags & CLEARED != 0 {
                    queued.fetch_add(1, Ordering::Relaxed);
                }
                *holder = now | (flags & !LATE);
            }
            Entry::Cell(cell) if !late => {
                let live = cell.as_ref().is_some_and(|cell| {
                    let target = cell.target.load(Ordering::Relaxed);
                    let now = (target != 0).then(|| outcomes.of(target)).flatten();
                    if target != 0 && now.is_none() {
                        cleared.fetch_add(1, Ordering::Relaxed);
                    }
                    let now = now.unwrap_or(0);
                    {
                        cell.target.store(now, Ordering::Relaxed);
                    }
                    now != 0 && Arc::strong_count(cell) > 1
                });
                if !live {
                    *cell = None;
                }
            }
            Entry::Cell(_) => {}
        };
        let Tables {
            references,
            written,
            cleared: queue,
            ..
        } = tables;
        self.for_entries(references[which].part(minor), work);
        self.for_entries(&mut written[which].list, work);
        if queued.load(Ordering::Relaxed) != 0
            && queue
                .list
                .try_reserve(queued.load(Ordering::Relaxed))
                .is_ok()
        {
            // In the order of registration.
            Self::queue_cleared(references[which].part(minor), which, queue);
            Self::queue_cleared(&mut written[which].list, which, queue);
        }
        done.cleared += cleared.into_inner();
        dead.into_inner()
    }

    /// Queues the holders of cleared references. There is room.
    fn queue_cleared(list: &mut [Entry], which: usize, queue: &mut Queue) {
        for entry in list {
            if let Entry::Object { holder, slot, .. } = entry
                && *holder & CLEARED != 0
                && *holder & LATE == 0
            {
                *holder &= !CLEARED;
                queue.list.push_back(Queued {
                    object: *holder & !FLAGS,
                    token: which << 32 | *slot as usize,
                });
            }
        }
    }

    /// Queues dead objects with finalizers, and traces them: true if there were any.
    fn finalizers<const MOVES: bool>(
        &self,
        tables: &mut Tables,
        trace: &Trace<'_, V>,
        minor: bool,
        done: &mut Processed,
    ) -> bool {
        let Tables {
            finalizers,
            finalizable,
            ..
        } = tables;
        let dead = AtomicUsize::new(0);
        self.for_entries(
            finalizers.part(minor),
            |registration, outcomes| match outcomes.of(registration.object) {
                Some(now) => registration.object = now,
                None => {
                    registration.object |= 1;
                    dead.fetch_add(1, Ordering::Relaxed);
                }
            },
        );
        let dead = dead.into_inner();
        if dead == 0 {
            finalizers.settle(minor, |_| false);
            return false;
        }
        let before = finalizable.list.len();
        let room = finalizable.list.try_reserve(dead).is_ok();
        let outcomes = Outcomes::<V>::on(self.space);
        for registration in finalizers.part(minor) {
            let together = registration.order == FinalizerOrder::Together;
            if room && registration.object & 1 != 0 && together {
                finalizable.list.push_back(Queued {
                    object: registration.object & !1,
                    token: registration.token,
                });
                registration.object = 0;
            }
        }
        let new = &finalizable.list.make_contiguous()[before..];
        if !new.is_empty() {
            self.closure::<MOVES, _>(trace, new.len().div_ceil(PORTION), |number, tracer| {
                for queued in portion(new, number) {
                    tracer.reach(queued.object);
                }
            });
            self.weak_tables::<MOVES>(trace);
        }
        for queued in finalizable.list.range_mut(before..) {
            queued.object = outcomes.of(queued.object).unwrap_or(queued.object);
        }
        for registration in finalizers.part(minor) {
            if registration.object & 1 == 0 {
                continue;
            }
            let object = registration.object & !1;
            // What an earlier one reaches lives.
            registration.object = match outcomes.of(object) {
                Some(now) => now,
                None => {
                    self.closure::<MOVES, _>(trace, 1, |_, tracer| {
                        tracer.reach(object);
                    });
                    self.weak_tables::<MOVES>(trace);
                    let now = outcomes.of(object).unwrap_or(object);
                    // Without room it waits for the next collection.
                    if room {
                        finalizable.list.push_back(Queued {
                            object: now,
                            token: registration.token,
                        });
                        0
                    } else {
                        now
                    }
                }
            };
        }
        done.finalizable += finalizable.list.len() - before;
        finalizers.settle(minor, |registration| registration.object == 0);
        true
    }

    /// Clears ephemerons with dead keys, and updates the others; the same for maps.
    fn ephemerons(&self, tables: &mut Tables, minor: bool) {
        let slots = Slots(self.vm.slots());
        let work = |pair: &mut Pair, outcomes: &Outcomes<'_, V>| {
            let Some(now) = outcomes.of(pair.holder) else {
                pair.holder = 0;
                return;
            };
            pair.holder = now;
            let (key_at, value_at) = (now + pair.key as usize, now + pair.value as usize);
            let key = slots.load(key_at).map(|key| (key, outcomes.of(key)));
            match key {
                Some((key, Some(to))) => slots.update(key_at, key, to),
                Some((_, None)) => {
                    slots.clear(key_at);
                    slots.clear(value_at);
                }
                None => {}
            }
            if let Some(value) = slots.load(value_at) {
                match outcomes.of(value) {
                    Some(to) => slots.update(value_at, value, to),
                    None => slots.clear(value_at),
                }
            }
        };
        self.for_entries(tables.ephemerons.part(minor), work);
        self.for_entries(&mut tables.written_ephemerons.list, work);
        for map in &tables.maps {
            let mut map = map.lock();
            self.for_entries(map.taken_mut(), |(key, value), outcomes| {
                match (outcomes.of(*key), outcomes.of(*value)) {
                    (Some(now), Some(to)) => (*key, *value) = (now, to),
                    _ => *key = 0,
                }
            });
            map.put_back();
        }
    }

    /// Updates all tables when objects have moved that live all. For plans that slide.
    pub(crate) fn slide_references(&self) {
        let mut tables = self.references.lock();
        let tables = &mut *tables;
        let (space, slots) = (self.space, Slots(self.vm.slots()));
        let update = |at: usize| {
            if let Some(target) = slots.load(at) {
                slots.update(at, target, space.slide_target(target));
            }
        };
        for Generations { list, .. } in &mut tables.references {
            self.for_entries(list, |entry, _| match entry {
                Entry::Object { holder, slot, .. } => {
                    let now = space.slide_target(*holder & !FLAGS);
                    *holder = now | *holder & FLAGS;
                    update(now + *slot as usize);
                }
                Entry::Cell(Some(cell)) => {
                    let target = cell.target.load(Ordering::Relaxed);
                    if target != 0 {
                        cell.target
                            .store(space.slide_target(target), Ordering::Relaxed);
                    }
                }
                Entry::Cell(None) => {}
            });
        }
        self.for_entries(&mut tables.ephemerons.list, |pair, _| {
            pair.holder = space.slide_target(pair.holder);
            update(pair.holder + pair.key as usize);
            update(pair.holder + pair.value as usize);
        });
        self.for_entries(&mut tables.finalizers.list, |registration, _| {
            registration.object = space.slide_target(registration.object);
        });
        for map in &tables.maps {
            let mut map = map.lock();
            map.take(false);
            self.for_entries(map.taken_mut(), |(key, value), _| {
                *key = space.slide_target(*key);
                *value = space.slide_target(*value);
            });
            map.put_back();
        }
    }
}
