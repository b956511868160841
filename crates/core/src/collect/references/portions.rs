//! Tables, portion by portion, with all workers; and the slots in the runtime's objects.

use super::waiting::Item;
use crate::bugs::{Bug, is_on};
use crate::collect::cycle::{Pause, Share, call_helpers};
use crate::collect::trace::Outcomes;
use crate::event::Part;
use crate::vm::{SlotFormat, Vm};
use heapwright_address::{Address, ObjectReference};
use heapwright_work::{Phase, Worker};
use std::sync::{Mutex, PoisonError};

/// Entries that one worker looks at at a time.
pub(super) const PORTION: usize = 1024;

/// A slot of the runtime's format.
#[derive(Clone, Copy)]
pub(super) struct Slots<S>(pub(super) S);

impl<S: SlotFormat> Slots<S> {
    pub(super) fn load(self, at: usize) -> Option<usize> {
        // SAFETY: a slot of a holder that was registered, and has not been freed (the promise of who registered it).
        unsafe { self.0.load(Address::new(at)) }.map(|o| o.to_address().as_usize())
    }

    pub(super) fn store(self, at: usize, object: usize) {
        if let Some(object) = ObjectReference::from_address(Address::new(object)) {
            // SAFETY: as above; the world is stopped, and one worker has the entry.
            unsafe { self.0.store(Address::new(at), object) };
        }
    }

    pub(super) fn clear(self, at: usize) {
        // SAFETY: as above.
        unsafe { self.0.clear(Address::new(at)) };
    }

    /// Says where an object is now.
    pub(super) fn update(self, at: usize, old: usize, now: usize) {
        if now != old && !is_on(Bug::WeakNotUpdated) {
            self.store(at, now);
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

/// The portion of a list with a number.
pub(super) fn portion<T>(list: &[T], number: usize) -> &[T] {
    let from = (number * PORTION).min(list.len());
    &list[from..list.len().min(from + PORTION)]
}

impl<V: Vm> Pause<'_, V> {
    /// Runs `work` on all jobs, of which there are at most `count`, with all workers.
    pub(super) fn in_portions<J: Send>(
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
        let portions = Portions {
            next: Share::of(list.len()),
            jobs: &list,
            work: &work,
        };
        self.run(Part::Weak, &portions);
    }

    /// Runs `work` on each entry of a list.
    pub(super) fn for_entries<T: Send>(
        &self,
        list: &mut [T],
        work: impl Fn(&mut T, &Outcomes<'_, V>) + Sync,
    ) {
        let (space, count) = (self.space, list.len().div_ceil(PORTION));
        self.in_portions(list.chunks_mut(PORTION), count, |entries: &mut [T]| {
            let outcomes = Outcomes::on(space);
            entries.iter_mut().for_each(|entry| work(entry, &outcomes));
        });
    }

    /// Fills one item for each entry of a list.
    pub(super) fn fill<T: Sync>(
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
}
