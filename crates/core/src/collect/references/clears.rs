//! What is cleared, and what is updated since it is not.

use super::portions::Slots;
use super::process::Processed;
use super::tables::{
    CLEARED, Entry, FLAGS, Generations, LATE, Pair, QUEUED, Queue, Queued, Tables,
};
use crate::bugs::{Bug, is_on};
use crate::collect::cycle::Pause;
use crate::collect::trace::Outcomes;
use crate::vm::Vm;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

impl<V: Vm> Pause<'_, V> {
    /// Clears the references of one strength to what was not reached, and updates the others: how many have holders that were not
    /// reached. `late`: looks at those again, and forgets them if they still are dead.
    pub(super) fn decide(
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
                    cell.target.store(now, Ordering::Relaxed);
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

    /// Clears ephemerons with dead keys, and updates the others; the same for maps.
    pub(super) fn ephemerons(&self, tables: &mut Tables, minor: bool) {
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
                    (Some(_), Some(to)) if is_on(Bug::MapNotRehashed) => *value = to,
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
            if !is_on(Bug::EphemeronNotSlid) {
                update(pair.holder + pair.key as usize);
                update(pair.holder + pair.value as usize);
            }
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
