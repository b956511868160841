//! When to collect: after so many bytes were handed out since the last collection.
//!
//! What a collection costs is its *weight*: the bytes that live and are scanned, an eighth of those that are never scanned,
//! and half of the roots. After a collection the heap gets *room*: what lives, and
//!
//! - a quarter of the weight for a tiny heap, where each MiB is felt;
//! - twice what the weight has above 3 MiB for a small one: it is little beside the process, and collections are many;
//! - 11 MiB for a middling one, until that is less than
//! - 80 % of what the weight has above 10 MiB;
//!
//! each of them times the option `growth` divided by its default, and at least the nursery. Beside that, a heap may always grow
//!
//! - by 2 MiB for each thread that allocates, where there are several: a collection has to stop all others, and costs the more;
//! - by twice the roots, but no more than a twelfth of what the process has resident: where there are thousands of stacks to scan,
//!   that is what collections spend their time on, and the heap is little beside them.
//!
//! The budget is what lies between the room and what is live.
//!
//! Room that a heap once had it keeps for a while: the peak is paid for, and to collect less often than one has to is what
//! saves most. It decays with time, by a half in 20 s, and what exceeds three times the live size and 16 MiB is halved by each
//! collection. (Counted in collections, not in seconds, programs that collect a hundred times in a second lost it at once, and
//! took up to 1.8 times as long.)

use crate::event::CollectionStats;
use crate::options::{DEFAULT_GROWTH, Options};
use core::sync::atomic::{AtomicUsize, Ordering};

/// How many collections the memory of idle pages is watched over before it is returned.
const WATCHED: usize = 4;
/// A small heap's room grows by twice what its weight has above this.
const SMALL_FROM: usize = 3 << 20;
/// What a middling one's grows by.
const MIDDLING: usize = 11 << 20;
/// A large one's grows by a part of what its weight has above this.
const LARGE_FROM: usize = 10 << 20;
/// What a program may allocate before its first collection, unless an option says it.
const FIRST: usize = 1 << 20;
/// In this time, in nanoseconds, room would decay to nothing if it decayed as fast as at first.
const DECAY_NS: u64 = 30_000_000_000;
/// Room up to so much, beside three times what lives, decays by time only.
const SLACK: usize = 16 << 20;

/// A heap whose threads allocate at once may grow by so much for each.
const FOR_EACH_THREAD: usize = 2 << 20;
/// Roots below this do not count for what follows from the process's size.
const FEW_ROOTS: usize = 256 << 10;

/// Does [`Trigger::collected`] need to know how large the process is?
pub(super) fn asks_for_resident(stats: &CollectionStats) -> bool {
    stats.root_bytes >= FEW_ROOTS
}

/// By how much the room of a heap of some weight exceeds what lives.
fn growth(weight: usize) -> usize {
    (weight.saturating_sub(LARGE_FROM) / 100 * DEFAULT_GROWTH)
        .max(MIDDLING)
        .min(weight.saturating_sub(SMALL_FROM).saturating_mul(2))
        .max(weight / 4)
}

/// A heap's trigger.
#[derive(Debug)]
pub(super) struct Trigger {
    budget: AtomicUsize,
    growth: usize,
    nursery: usize,
    room: usize,
    /// When the last collection ended, on the monotonic clock.
    last_ns: u64,
    /// Idle bytes at the start of the last collections: what none of these cycles needed.
    unneeded: [usize; WATCHED],
    at: usize,
}

impl Trigger {
    pub(super) fn new(options: &Options) -> Self {
        let first = if options.heap == 0 {
            options.nursery.max(FIRST)
        } else {
            options.heap
        };
        Self {
            budget: AtomicUsize::new(first.max(64 << 10)),
            growth: options.growth,
            nursery: options.nursery,
            room: 0,
            last_ns: 0,
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

    /// After a collection: the next budget. `resident`: bytes of the process that are in memory, where
    /// [`asks_for_resident`] says so.
    pub(super) fn collected(&mut self, stats: &CollectionStats, resident: usize) {
        let (live, leaf) = (stats.live_bytes, stats.live_leaf_bytes);
        let weight = live.saturating_sub(leaf) + leaf / 8 + stats.root_bytes / 2;
        let threads = match stats.allocators {
            0 | 1 => 0,
            many => many * FOR_EACH_THREAD,
        };
        let roots = (stats.root_bytes * 2).min(resident / 12);
        let growth = growth(weight).max(threads).max(roots);
        let least = (growth / DEFAULT_GROWTH * self.growth).max(self.nursery);
        let now = stats.start_ns + stats.pause_ns;
        let time = now.saturating_sub(self.last_ns).min(DECAY_NS / 2);
        self.last_ns = now;
        let kept =
            self.room - (self.room as u128 * u128::from(time) / u128::from(DECAY_NS)) as usize;
        let most = live.saturating_mul(3).saturating_add(SLACK);
        let kept = kept - kept.saturating_sub(most) / 2;
        self.room = kept.max(live.saturating_add(least));
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

    const SECOND: u64 = 1_000_000_000;

    fn stats(live: usize, second: u64) -> CollectionStats {
        CollectionStats {
            live_bytes: live,
            start_ns: second * SECOND,
            ..CollectionStats::default()
        }
    }

    fn trigger(growth: usize, nursery: usize) -> Trigger {
        Trigger::new(&Options {
            growth,
            nursery,
            ..Options::default()
        })
    }

    #[test]
    fn the_budget_follows_the_live_size_above_the_nursery() {
        let budget = |growth, nursery, live| {
            let mut t = trigger(growth, nursery);
            assert_eq!(t.budget(), nursery.max(FIRST));
            t.collected(&stats(live, 1), 0);
            t.budget()
        };
        let close = |a: usize, b: usize| a.abs_diff(b) < 1000;
        assert_eq!(budget(80, 64 << 10, 100 << 10), 64 << 10);
        assert!(close(budget(80, 64 << 10, 2 << 20), 1 << 19));
        assert!(close(budget(80, 64 << 10, 6 << 20), 6 << 20));
        assert!(close(budget(80, 64 << 10, 16 << 20), 11 << 20));
        assert!(close(budget(80, 64 << 10, 110 << 20), 80 << 20));
        assert!(close(budget(40, 64 << 10, 110 << 20), 40 << 20));
        assert!(close(budget(160, 64 << 10, 16 << 20), 22 << 20));
        assert_eq!(budget(80, 3 << 20, 2 << 20), 3 << 20);
    }

    #[test]
    fn what_is_never_scanned_weighs_an_eighth_and_roots_a_half() {
        let mut t = trigger(80, 1 << 20);
        t.collected(
            &CollectionStats {
                live_leaf_bytes: 80 << 20,
                root_bytes: 136 << 20,
                ..stats(112 << 20, 1)
            },
            0,
        );
        assert!(t.budget().abs_diff(80 << 20) < 1000);
    }

    #[test]
    fn room_is_kept_for_a_while_and_most_of_a_lost_peak_is_not() {
        let mut t = trigger(80, 1 << 20);
        t.collected(&stats(110 << 20, 1), 0);
        // A hundred collections in no time take nothing.
        for _ in 0..100 {
            t.collected(&stats(70 << 20, 1), 0);
        }
        assert!(t.budget() > 119 << 20);
        // Half a minute takes half; what the live size asks for stays.
        t.collected(&stats(70 << 20, 31), 0);
        assert!(t.budget().abs_diff(48 << 20) < 1000);
        // Nothing lives any more: all but a little goes in a few collections,
        for _ in 0..12 {
            t.collected(&stats(1000, 31), 0);
        }
        assert!(t.budget() < 17 << 20);
        // and the rest with time.
        for minute in 1..20 {
            t.collected(&stats(1000, 31 + minute * 60), 0);
        }
        assert_eq!(t.budget(), 1 << 20);
    }

    #[test]
    fn threads_that_allocate_and_many_roots_get_room() {
        let budget = |allocators, root_bytes, resident| {
            let mut t = trigger(80, 64 << 10);
            let stats = CollectionStats {
                allocators,
                root_bytes,
                ..stats(100 << 10, 1)
            };
            t.collected(&stats, resident);
            t.budget() >> 10
        };
        assert_eq!(budget(1, 0, 0), 64);
        assert_eq!(budget(2, 0, 0), 4095);
        assert_eq!(budget(4, 0, 0), 8191);
        assert_eq!(budget(1, 2 << 20, 80 << 20), 4095);
        assert_eq!(budget(1, 2 << 20, 12 << 20), 1023);
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
