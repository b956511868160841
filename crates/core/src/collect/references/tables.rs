//! What is registered, and the queues of what a runtime is to hear of.

use super::maps::{MapCore, MapHeld};
use super::{Cleared, Ephemeron, Finalizable, FinalizerOrder, Reference, Strength};
use crate::bugs::{Bug, is_on};
use crate::vm::{RootVisitor, SlotFormat};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use heapwright_address::{Address, ObjectReference};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A list whose younger entries stand behind the old ones.
#[derive(Debug)]
pub(super) struct Generations<T> {
    pub(super) list: Vec<T>,
    /// How many are old.
    pub(super) old: usize,
    /// Places for what mutators have in their buffers.
    promised: usize,
}

impl<T> Default for Generations<T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            old: 0,
            promised: 0,
        }
    }
}

impl<T> Generations<T> {
    /// What a collection looks at.
    pub(super) fn part(&mut self, minor: bool) -> &mut [T] {
        let from = if minor {
            self.old.min(self.list.len())
        } else {
            0
        };
        &mut self.list[from..]
    }

    /// Room for so many more in a mutator's buffer, and here.
    fn promise(&mut self, buffer: &mut Vec<T>, more: usize) -> bool {
        let all = self.promised + more;
        if self.list.try_reserve(all).is_err() || buffer.try_reserve_exact(more).is_err() {
            return false;
        }
        self.promised = all;
        true
    }

    /// Takes over a buffer. There is room.
    fn adopt(&mut self, buffer: &mut Vec<T>) {
        self.promised = self.promised.saturating_sub(buffer.capacity());
        self.list.append(buffer);
        *buffer = Vec::new();
    }

    /// All that is left is old; entries of which `gone` says so are taken out.
    pub(super) fn settle(&mut self, minor: bool, gone: impl Fn(&T) -> bool) {
        let from = if minor { self.old } else { 0 };
        let mut kept = from;
        for index in from..self.list.len() {
            if !gone(&self.list[index]) {
                self.list.swap(kept, index);
                kept += 1;
            }
        }
        self.list.truncate(kept);
        self.old = kept;
        if self.list.capacity() > 4096 && self.list.len() < self.list.capacity() / 4 {
            self.list.shrink_to(2 * self.list.len() + self.promised);
        }
    }
}

/// A weak reference that the program has outside of the heap.
#[derive(Debug)]
pub(crate) struct Cell {
    /// What it refers to; 0: it was cleared.
    pub(crate) target: AtomicUsize,
    /// When it was last read, by [`References::now`].
    pub(crate) used: AtomicU64,
}

/// A reference: one of the runtime's objects, or a cell.
#[derive(Debug)]
pub(super) enum Entry {
    Object {
        /// 0: the entry is gone. The low bits are flags.
        holder: usize,
        slot: u32,
        used: u32,
    },
    Cell(Option<Arc<Cell>>),
}

/// The holder is queued when the reference is cleared.
pub(super) const QUEUED: usize = 1;
/// The holder was dead when the references were first looked at.
pub(super) const LATE: usize = 2;
/// The reference was cleared in this collection.
pub(super) const CLEARED: usize = 4;
pub(super) const FLAGS: usize = 7;

impl Entry {
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Object { holder: 0, .. } | Self::Cell(None))
    }
}

/// An ephemeron.
#[derive(Debug)]
pub(super) struct Pair {
    /// 0: it is gone.
    pub(super) holder: usize,
    pub(super) key: u32,
    pub(super) value: u32,
}

/// An object with a finalizer.
#[derive(Debug)]
pub(super) struct Registration {
    /// 0: it is queued. The lowest bit: it is dead.
    pub(super) object: usize,
    pub(super) token: usize,
    pub(super) number: u64,
    pub(super) order: FinalizerOrder,
}

/// Something that the runtime is to hear of: a root until it has.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) object: usize,
    pub(super) token: usize,
}

/// A queue of them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) list: VecDeque<Queued>,
    /// How many at the front are old: a minor collection does not look at those.
    pub(super) old: usize,
}

impl Queue {
    fn pop(&mut self) -> Option<Queued> {
        let first = self.list.pop_front()?;
        self.old = self.old.saturating_sub(1);
        Some(first)
    }

    fn roots<R: RootVisitor>(&mut self, minor: bool, visit: &mut R) {
        let from = if minor { self.old } else { 0 };
        for queued in self.list.iter_mut().skip(from) {
            visit.slot(Address::from_ptr(&raw mut queued.object));
        }
    }
}

/// What a mutator registered since the world was last stopped.
#[derive(Debug, Default)]
pub(crate) struct Registered {
    references: [Vec<Entry>; 3],
    ephemerons: Vec<Pair>,
    finalizers: Vec<Registration>,
    /// References and ephemerons that were written to, which may be old.
    written: [Vec<Entry>; 3],
    written_ephemerons: Vec<Pair>,
}

impl Registered {
    /// Is there nothing to take over, and no room that was promised?
    fn is_empty(&self) -> bool {
        let lists = self.references.iter().chain(&self.written);
        lists.map(Vec::capacity).sum::<usize>() == 0
            && self.ephemerons.capacity() == 0
            && self.written_ephemerons.capacity() == 0
            && self.finalizers.capacity() == 0
    }
}

/// All that is registered with a heap.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(super) references: [Generations<Entry>; 3],
    pub(super) ephemerons: Generations<Pair>,
    pub(super) finalizers: Generations<Registration>,
    /// Copies of entries that were written to since the last collection, for a minor one.
    pub(super) written: [Generations<Entry>; 3],
    pub(super) written_ephemerons: Generations<Pair>,
    pub(super) maps: Vec<Arc<MapCore>>,
    pub(super) finalizable: Queue,
    pub(super) cleared: Queue,
    pub(super) waiting: super::Waiting,
}

/// The references of a heap.
#[derive(Debug, Default)]
pub(crate) struct References {
    tables: Mutex<Tables>,
    /// Milliseconds: the time of the last collection, or when the heap was built.
    now: AtomicU64,
    /// The next finalizer's number.
    next: AtomicU64,
}

/// There is no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

/// Places in a mutator's first buffer.
const FIRST: usize = 32;

impl References {
    /// Of a heap that is built at a time.
    pub(crate) fn new(now_ns: u64) -> Self {
        let references = Self::default();
        references.set_now(now_ns);
        references
    }

    /// The locks of the tables and of all weak maps, for a fork. World stopped: nobody has two of them.
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        let tables = self.lock();
        let maps: Vec<MapHeld> = match is_on(Bug::ForkMapNotHeld) {
            true => Vec::new(),
            false => tables.maps.iter().map(MapHeld::new).collect(),
        };
        (maps, tables)
    }

    /// Who has this comes to no safepoint with it.
    pub(super) fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tables, if anything is registered.
    pub(crate) fn if_any(&self) -> Option<MutexGuard<'_, Tables>> {
        Some(self.lock()).filter(|tables| !tables.is_empty())
    }

    /// Reports each object that is registered, or that something registered refers to, with that which refers to it: 0 if that is none.
    /// World stopped, after a collection.
    pub(crate) fn each<S: SlotFormat>(&self, slots: S, visit: &mut dyn FnMut(usize, usize)) {
        self.lock().each(slots, visit);
    }

    /// Reports each object that is kept if others live, after these; 0 among them is none. World stopped.
    pub(crate) fn kept<S: SlotFormat>(&self, slots: S, visit: &mut dyn FnMut([usize; 2], usize)) {
        let tables = self.lock();
        // SAFETY: slots of holders that live (the promise of who registered them); the world is stopped.
        let load = |at: usize| unsafe { slots.load(Address::new(at)) };
        let load = |at: usize| load(at).map_or(0, |o| o.to_address().as_usize());
        for entry in &tables.references[Strength::Soft as usize].list {
            match entry {
                _ if is_on(Bug::FrozenSoftForgotten) => {}
                Entry::Object { holder, slot, .. } if holder & !FLAGS != 0 => {
                    let holder = holder & !FLAGS;
                    visit([holder, 0], load(holder + *slot as usize));
                }
                Entry::Cell(Some(cell)) => visit([0, 0], cell.target.load(Ordering::Relaxed)),
                _ => {}
            }
        }
        for pair in tables.ephemerons.list.iter().filter(|p| p.holder != 0) {
            let at = |slot: u32| load(pair.holder + slot as usize);
            if at(pair.key) != 0 && !is_on(Bug::FrozenEphemeronsForgotten) {
                let holder = match is_on(Bug::FrozenEphemeronsDead) {
                    true => 0,
                    false => pair.holder,
                };
                visit([holder, at(pair.key)], at(pair.value));
            }
        }
        // A map that nobody has any more is still in the list, up to the next collection.
        let had = |map: &&Arc<MapCore>| Arc::strong_count(map) > 1 || is_on(Bug::FrozenMapsDead);
        for map in tables.maps.iter().filter(had) {
            if !is_on(Bug::FrozenMapsForgotten) {
                map.lock().each(|key, value| visit([key, 0], value));
            }
        }
    }

    /// What soft references count time by, in milliseconds.
    pub(crate) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    pub(crate) fn set_now(&self, now_ns: u64) {
        self.now.store(now_ns / 1_000_000, Ordering::Relaxed);
    }

    /// Makes room in one of a mutator's buffers, and in the table that will take it over.
    fn room<T>(
        &self,
        buffer: &mut Vec<T>,
        table: impl FnOnce(&mut Tables) -> &mut Generations<T>,
    ) -> Result<(), NoMemory> {
        if buffer.len() < buffer.capacity() {
            return Ok(());
        }
        // What it gets beyond what was asked for is not used: `capacity` is what was promised.
        let more = buffer.capacity().max(FIRST);
        let promised = table(&mut self.lock()).promise(buffer, more);
        promised.then_some(()).ok_or(NoMemory)
    }

    fn entry(reference: &Reference) -> Entry {
        Entry::Object {
            holder: reference.holder.to_address().as_usize()
                | if reference.queued { QUEUED } else { 0 },
            slot: reference.slot,
            used: reference.used,
        }
    }

    /// Registers a reference object.
    pub(crate) fn add_reference(
        &self,
        local: &mut Registered,
        reference: &Reference,
    ) -> Result<(), NoMemory> {
        self.add_entry(local, reference.strength, Self::entry(reference))
    }

    /// Registers a cell.
    pub(crate) fn add_cell(
        &self,
        local: &mut Registered,
        strength: Strength,
        cell: &Arc<Cell>,
    ) -> Result<(), NoMemory> {
        self.add_entry(local, strength, Entry::Cell(Some(Arc::clone(cell))))
    }

    fn add_entry(
        &self,
        local: &mut Registered,
        strength: Strength,
        entry: Entry,
    ) -> Result<(), NoMemory> {
        let which = strength as usize;
        let buffer = &mut local.references[which];
        self.room(buffer, |tables| &mut tables.references[which])?;
        buffer.push(entry);
        Ok(())
    }

    /// Notes that a reference object was written to.
    pub(crate) fn wrote(
        &self,
        local: &mut Registered,
        reference: &Reference,
    ) -> Result<(), NoMemory> {
        let which = reference.strength as usize;
        let buffer = &mut local.written[which];
        if buffer.len() == buffer.capacity() {
            let place = |entry: &Entry| match entry {
                Entry::Object { holder, slot, .. } => (*holder, *slot),
                Entry::Cell(_) => (0, 0),
            };
            buffer.sort_unstable_by_key(place);
            buffer.dedup_by_key(|entry| place(entry));
        }
        self.room(buffer, |tables| &mut tables.written[which])?;
        buffer.push(Self::entry(reference));
        Ok(())
    }

    fn pair(ephemeron: &Ephemeron) -> Pair {
        Pair {
            holder: ephemeron.holder.to_address().as_usize(),
            key: ephemeron.key,
            value: ephemeron.value,
        }
    }

    /// Registers an ephemeron.
    pub(crate) fn add_ephemeron(
        &self,
        local: &mut Registered,
        ephemeron: &Ephemeron,
    ) -> Result<(), NoMemory> {
        self.room(&mut local.ephemerons, |tables| &mut tables.ephemerons)?;
        local.ephemerons.push(Self::pair(ephemeron));
        Ok(())
    }

    /// Notes that an ephemeron was written to.
    pub(crate) fn wrote_ephemeron(
        &self,
        local: &mut Registered,
        ephemeron: &Ephemeron,
    ) -> Result<(), NoMemory> {
        let buffer = &mut local.written_ephemerons;
        if buffer.len() == buffer.capacity() {
            buffer.sort_unstable_by_key(|pair| (pair.holder, pair.key, pair.value));
            buffer.dedup_by_key(|pair| (pair.holder, pair.key, pair.value));
        }
        self.room(buffer, |tables| &mut tables.written_ephemerons)?;
        buffer.push(Self::pair(ephemeron));
        Ok(())
    }

    /// Registers a finalizer.
    pub(crate) fn add_finalizer(
        &self,
        local: &mut Registered,
        object: ObjectReference,
        order: FinalizerOrder,
        token: usize,
    ) -> Result<(), NoMemory> {
        self.room(&mut local.finalizers, |tables| &mut tables.finalizers)?;
        local.finalizers.push(Registration {
            object: object.to_address().as_usize(),
            token,
            number: self.next.fetch_add(1, Ordering::Relaxed),
            order,
        });
        Ok(())
    }

    /// Registers a weak map.
    pub(crate) fn add_map(&self, map: &Arc<MapCore>) -> Result<(), NoMemory> {
        let mut tables = self.lock();
        tables.maps.try_reserve(1).map_err(|_| NoMemory)?;
        tables.maps.push(Arc::clone(map));
        Ok(())
    }

    /// Takes over what a mutator registered. World stopped, or by the mutator's thread while it is inside of the heap.
    pub(crate) fn adopt(&self, local: &mut Registered) {
        if local.is_empty() {
            return;
        }
        let mut tables = self.lock();
        let tables = &mut *tables;
        for which in 0..3 {
            tables.references[which].adopt(&mut local.references[which]);
            tables.written[which].adopt(&mut local.written[which]);
        }
        tables.ephemerons.adopt(&mut local.ephemerons);
        tables
            .written_ephemerons
            .adopt(&mut local.written_ephemerons);
        tables.finalizers.adopt(&mut local.finalizers);
    }

    /// Takes an object whose turn it is to be finalized.
    pub(crate) fn next_finalizable(&self) -> Option<Finalizable> {
        let next = self.lock().finalizable.pop()?;
        Some(Finalizable {
            object: ObjectReference::from_address(Address::new(next.object))?,
            token: next.token,
        })
    }

    /// Takes a reference object that was cleared.
    pub(crate) fn next_cleared(&self) -> Option<Cleared> {
        let next = self.lock().cleared.pop()?;
        Some(Cleared {
            holder: ObjectReference::from_address(Address::new(next.object))?,
            slot: next.token as u32,
            strength: Strength::ALL[(next.token >> 32) % 3],
        })
    }

    /// How many wait in the two queues.
    pub(crate) fn queued(&self) -> (usize, usize) {
        let tables = self.lock();
        (tables.finalizable.list.len(), tables.cleared.list.len())
    }

    /// Queues all objects with finalizers, though they live, in the order of registration: how many. What mutators registered was taken
    /// over.
    pub(crate) fn queue_all(&self) -> Result<usize, NoMemory> {
        let mut tables = self.lock();
        let tables = &mut *tables;
        tables.order_finalizers();
        let (list, queue) = (&mut tables.finalizers.list, &mut tables.finalizable.list);
        queue.try_reserve(list.len()).map_err(|_| NoMemory)?;
        let count = list.len();
        queue.extend(list.drain(..).map(|r| Queued {
            object: r.object,
            token: r.token,
        }));
        tables.finalizers.old = 0;
        Ok(count)
    }

    /// Takes the finalizers of an object back, queued ones not: how many. What mutators registered was taken over.
    pub(crate) fn remove_finalizers(&self, object: ObjectReference) -> usize {
        let mut tables = self.lock();
        let finalizers = &mut tables.finalizers;
        let (before, object) = (finalizers.list.len(), object.to_address().as_usize());
        let old = finalizers.old.min(before);
        let gone = |r: &Registration| r.object == object;
        let old_gone = finalizers.list[..old].iter().filter(|r| gone(r)).count();
        finalizers.list.retain(|r| !gone(r));
        finalizers.old = old - old_gone;
        before - finalizers.list.len()
    }

    /// Reports what is queued. World stopped. `minor`: only what is young.
    pub(crate) fn roots<R: RootVisitor>(&self, minor: bool, visit: &mut R) {
        let mut tables = self.lock();
        tables.finalizable.roots(minor, visit);
        tables.cleared.roots(minor, visit);
    }
}

impl Tables {
    /// Is there nothing to look at?
    pub(super) fn is_empty(&self) -> bool {
        self.references.iter().all(|list| list.list.is_empty())
            && self.ephemerons.list.is_empty()
            && self.finalizers.list.is_empty()
            && self.maps.is_empty()
    }

    /// How many entries a collection looks at. Maps are in its hands.
    pub(super) fn count(&mut self, minor: bool) -> usize {
        let references = self
            .references
            .iter_mut()
            .map(|list| list.part(minor).len());
        let written = self.written.iter().map(|list| list.list.len());
        references.sum::<usize>()
            + written.sum::<usize>()
            + self.ephemerons.part(minor).len()
            + self.written_ephemerons.list.len()
            + self.finalizers.part(minor).len()
            + self
                .maps
                .iter()
                .map(|map| map.lock().taken().len())
                .sum::<usize>()
    }

    /// Puts young finalizers in the order of their registration: several mutators registered some.
    pub(super) fn order_finalizers(&mut self) {
        // What is old is in order already.
        let from = self.finalizers.old.min(self.finalizers.list.len());
        self.finalizers.list[from..].sort_unstable_by_key(|r| r.number);
    }

    /// Reports each object that an entry has or refers to, with that which refers to it: 0 if that is none.
    pub(super) fn each<S: SlotFormat>(&self, slots: S, visit: &mut dyn FnMut(usize, usize)) {
        // SAFETY: slots of holders that live (the promise of who registered them); the world is stopped.
        let load = |at: usize| unsafe { slots.load(Address::new(at)) };
        for entry in self.references.iter().flat_map(|list| &list.list) {
            match entry {
                Entry::Object { holder, slot, .. } => {
                    let holder = holder & !FLAGS;
                    visit(0, holder);
                    if let Some(target) = load(holder + *slot as usize) {
                        visit(holder, target.to_address().as_usize());
                    }
                }
                Entry::Cell(Some(cell)) => visit(0, cell.target.load(Ordering::Relaxed)),
                Entry::Cell(None) => {}
            }
        }
        for pair in &self.ephemerons.list {
            visit(0, pair.holder);
            for slot in [pair.key, pair.value] {
                if let Some(target) = load(pair.holder + slot as usize) {
                    visit(pair.holder, target.to_address().as_usize());
                }
            }
        }
        for registration in &self.finalizers.list {
            visit(0, registration.object);
        }
        for map in &self.maps {
            map.lock().each(|key, value| {
                visit(0, key);
                visit(0, value);
            });
        }
    }
}
