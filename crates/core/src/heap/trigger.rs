//! When to collect: after so many bytes were handed out since the last collection.
//!
//! `budget = max(nursery, live * growth %)`. It is in the square of how often a program collects against how much it
//! occupies; front ends with other policies set it after each collection.

use crate::options::Options;
use core::sync::atomic::{AtomicUsize, Ordering};

/// How many collections the memory of idle pages is watched over before it is returned.
const WATCHED: usize = 4;

/// A heap's trigger.
#[derive(Debug)]
pub(super) struct Trigger {
    budget: AtomicUsize,
    growth: usize,
    nursery: usize,
    /// Idle bytes at the start of the last collections: what none of these cycles needed.
    unneeded: [usize; WATCHED],
    at: usize,
}

impl Trigger {
    pub(super) fn new(options: &Options) -> Self {
        let first = if options.heap == 0 { options.nursery } else { options.heap };
        Self {
            budget: AtomicUsize::new(first.max(64 << 10)),
            growth: options.growth,
            nursery: options.nursery,
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
    pub(super) fn collected(&self, live: usize) {
        self.set_budget((live / 100 * self.growth).max(self.nursery));
    }

    /// Changes the growth, in percent.
    pub(super) fn set_growth(&mut self, percent: usize) {
        self.growth = percent.clamp(5, 1000);
    }

    /// Tells how many bytes were idle when a collection began; gives how many have been idle all through the last cycles.
    pub(super) fn surplus(&mut self, idle: usize) -> usize {
        self.unneeded[self.at % WATCHED] = idle;
        self.at += 1;
        if self.at < WATCHED { 0 } else { self.unneeded.iter().copied().min().unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_follows_the_live_size_above_the_nursery() {
        let t = Trigger::new(&Options { growth: 50, nursery: 1 << 20, ..Options::default() });
        assert_eq!(t.budget(), 1 << 20);
        t.collected(100 << 20);
        assert_eq!(t.budget(), (100 << 20) / 100 * 50);
        t.collected(1000);
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
