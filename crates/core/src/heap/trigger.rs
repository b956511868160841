//! When to collect: after so many bytes were handed out since the last collection.
//!
//! After a collection the heap may grow to
//! `room = live + max(weight * growth %, min(weight * 80 %, 6 MiB), nursery)`, or to 31/32 of the room before if that is more;
//! the budget is what lies between that and what is live. `weight` counts cells that are never scanned by a third: to mark
//! them costs little, so a heap that is full of them is collected more often for the same price. A heap that was large once
//! uses its room, collecting less often, and gives it up slowly if it stays unneeded: by half in 22 collections.

use crate::options::Options;
use core::sync::atomic::{AtomicUsize, Ordering};

/// How many collections the memory of idle pages is watched over before it is returned.
const WATCHED: usize = 4;
/// A heap may grow by four fifths while that is less than this: in bytes it is little.
const SMALL: usize = 6 << 20;

/// A heap's trigger.
#[derive(Debug)]
pub(super) struct Trigger {
    budget: AtomicUsize,
    growth: usize,
    nursery: usize,
    room: usize,
    /// Idle bytes at the start of the last collections: what none of these cycles needed.
    unneeded: [usize; WATCHED],
    at: usize,
}

impl Trigger {
    pub(super) fn new(options: &Options) -> Self {
        let first = if options.heap == 0 {
            options.nursery
        } else {
            options.heap
        };
        Self {
            budget: AtomicUsize::new(first.max(64 << 10)),
            growth: options.growth,
            nursery: options.nursery,
            room: 0,
            unneeded: [0; WATCHED],
            at: 0,
        }
    }

    /// Bytes that may be handed out between two collections.
    pub(super) fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    /// Sets it, until the next collection.
    pub(super) fn set_budget(&self, bytes: usize) {
        self.budget.store(bytes.max(4096), Ordering::Relaxed);
    }

    /// After a collection: the next budget.
    pub(super) fn collected(&mut self, live: usize, leaf: usize) {
        let weight = live.saturating_sub(leaf) + leaf / 3;
        let least = (weight / 100 * self.growth)
            .max((weight / 5 * 4).min(SMALL))
            .max(self.nursery);
        self.room = (self.room - self.room / 32).max(live + least);
        self.set_budget(self.room - live);
    }

    /// Changes the growth, in percent.
    pub(super) fn set_growth(&mut self, percent: usize) {
        self.growth = percent.clamp(5, 1000);
    }

    /// Tells how many bytes were idle when a collection began; gives how many have been idle all through the last cycles.
    pub(super) fn surplus(&mut self, idle: usize) -> usize {
        self.unneeded[self.at % WATCHED] = idle;
        self.at += 1;
        if self.at < WATCHED {
            0
        } else {
            self.unneeded.iter().copied().min().unwrap_or(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_follows_the_live_size_above_the_nursery() {
        let mut t = Trigger::new(&Options {
            growth: 50,
            nursery: 1 << 20,
            ..Options::default()
        });
        assert_eq!(t.budget(), 1 << 20);
        t.collected(100 << 20, 0);
        assert_eq!(t.budget(), (100 << 20) / 100 * 50);
        // Room that was there is used, and given up slowly.
        t.collected(1000, 0);
        assert!(t.budget() > 140 << 20);
        for _ in 0..400 {
            t.collected(1000, 0);
        }
        assert_eq!(t.budget(), 1 << 20);
    }

    #[test]
    fn only_what_no_recent_cycle_needed_is_surplus() {
        let mut t = Trigger::new(&Options::default());
        assert_eq!(t.surplus(100), 0);
        assert_eq!(t.surplus(90), 0);
        assert_eq!(t.surplus(20), 0);
        assert_eq!(t.surplus(80), 20);
        assert_eq!(t.surplus(80), 20);
        assert_eq!(t.surplus(80), 20);
        assert_eq!(t.surplus(80), 80);
    }
}
