//! How large a heap of objects may be, when its nursery is full, and when all is traced.
//!
//! With the option `max` the limit is that. Without it the heap may grow to what lived after the last full collection, plus the
//! option `growth` in percent of that, plus 8 MiB.
//!
//! A nursery may take half of what is free, as in Appel's collector, but no more than the option `nursery`. Without the option it is
//! between [`CACHED_NURSERY`], which allocation finds in the cache, and [`MOST_NURSERY`], which gives objects more time to die: the
//! less time minor collections take for tracing, the smaller it may be. A full collection is due when a minor one leaves so little that the nursery would be small; and
//! when free memory is in holes, which a nursery of blocks cannot use, and minor collections have traced for longer since the last full
//! one than that did: it evacuates what is fragmented.

use crate::options::{DEFAULT_NURSERY, Options};
use crate::plan::{Allocates, Facts, Usage};
use crate::space::Policy;
use crate::space::objects::Swept;
use crate::space::pages::PAGE;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The largest nursery unless the option says another.
const MOST_NURSERY: usize = (32 << 20) / PAGE;
/// The smallest one that is chosen for the sake of the cache.
const CACHED_NURSERY: usize = (4 << 20) / PAGE;
/// A nursery beyond the cache costs some 100 microseconds for each MiB. If a minor collection traces for less than this, in
/// nanoseconds, the nursery is halved;
const SHORT_TRACE: u64 = 150_000;
/// if for more than this, it is doubled.
const LONG_TRACE: u64 = 500_000;
/// The smallest one, if there is room for it.
const LEAST_NURSERY: usize = (256 << 10) / PAGE;
/// What a heap without a limit may grow by at least, in pages.
const LEAST_GROWTH: usize = (8 << 20) / PAGE;

#[derive(Debug)]
pub(super) struct Sizing {
    /// Pages; 0: no limit.
    max: usize,
    limit: AtomicUsize,
    growth: usize,
    /// The option `nursery` decides.
    fixed_nursery: bool,
    most_nursery: AtomicUsize,
    nursery: AtomicUsize,
    live: AtomicUsize,
    /// Pages in use after the last full collection.
    after_full: AtomicUsize,
    /// Pages in use after the last collection.
    after: AtomicUsize,
    /// Pages that were free then.
    room_after: AtomicUsize,
    /// Nanoseconds that the last full collection traced.
    full_ns: AtomicU64,
    /// Nanoseconds that minor collections have traced since.
    young_ns: AtomicU64,
}

/// Pages that may still be allocated.
fn room(usage: &Usage) -> usize {
    usage.limit.saturating_sub(usage.used) + usage.holes
}

impl Sizing {
    pub(super) fn new(options: &Options) -> Self {
        let max = options.max.div_ceil(PAGE);
        let limit = if max == 0 {
            LEAST_GROWTH.max(options.heap / PAGE)
        } else {
            max
        };
        let fixed_nursery = options.nursery != DEFAULT_NURSERY;
        let most_nursery = if !fixed_nursery {
            2 * CACHED_NURSERY
        } else {
            (options.nursery / PAGE).max(8)
        };
        Self {
            max,
            limit: AtomicUsize::new(limit),
            growth: options.growth,
            fixed_nursery,
            most_nursery: AtomicUsize::new(most_nursery),
            nursery: AtomicUsize::new(most_nursery.min(limit / 3).max(8)),
            live: AtomicUsize::new(0),
            after_full: AtomicUsize::new(0),
            after: AtomicUsize::new(0),
            room_after: AtomicUsize::new(limit),
            full_ns: AtomicU64::new(0),
            young_ns: AtomicU64::new(0),
        }
    }

    /// Pages that may be in use.
    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// The option `max` in pages, or `none` without one.
    pub(super) fn limit_or(&self, none: usize) -> usize {
        if self.max == 0 { none } else { self.max }
    }

    /// Bytes that lived after the last collection.
    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Is it time for a mark that goes on while mutators run? When half of what was free after the last collection has been used:
    /// free lines, which are used first, and free pages.
    pub(super) fn is_time_to_begin(&self, usage: &Usage) -> bool {
        room(usage) <= self.room_after.load(Ordering::Relaxed) / 2
    }

    /// Has a plan with generations allocated what it may before a minor collection?
    pub(super) fn nursery_is_full(&self, facts: &Facts, usage: &Usage, pages: usize) -> bool {
        let after = self.after.load(Ordering::Relaxed);
        // With nothing young there is nothing to collect, however large the request.
        facts.generational
            && usage.used > after
            && usage.used + pages > after + self.nursery.load(Ordering::Relaxed)
    }

    /// How long a full collection traced, in nanoseconds.
    pub(super) fn traced_all(&self, trace_ns: u64) {
        self.full_ns.store(trace_ns, Ordering::Relaxed);
        self.young_ns.store(0, Ordering::Relaxed);
    }

    /// How long a minor collection traced, in nanoseconds.
    pub(super) fn traced_young(&self, trace_ns: u64) {
        self.young_ns.fetch_add(trace_ns, Ordering::Relaxed);
        let most = self.most_nursery.load(Ordering::Relaxed);
        let next = match trace_ns {
            _ if self.fixed_nursery => most,
            ..SHORT_TRACE => (most / 2).max(CACHED_NURSERY),
            LONG_TRACE.. => (most * 2).min(MOST_NURSERY),
            _ => most,
        };
        self.most_nursery.store(next, Ordering::Relaxed);
    }

    /// After a collection: true if the next one is to trace everything.
    pub(super) fn collected(
        &self,
        facts: &Facts,
        after: &Usage,
        swept: &Swept,
        full: bool,
    ) -> bool {
        self.live.store(swept.live, Ordering::Relaxed);
        self.after.store(after.used, Ordering::Relaxed);
        if full {
            self.after_full.store(after.used, Ordering::Relaxed);
            if self.max == 0 {
                let live = swept.live.div_ceil(PAGE).min(after.used);
                let copies = (facts.reserve)(after);
                let growth = (live * self.growth / 100).max(LEAST_GROWTH);
                self.limit
                    .store(after.used + copies + growth, Ordering::Relaxed);
            }
        }
        let limit = self.limit();
        self.room_after
            .store(room(&Usage { limit, ..*after }), Ordering::Relaxed);
        if !facts.generational {
            return false;
        }
        let reserve = (facts.reserve)(after);
        let free = self.limit().saturating_sub(after.used + reserve)
            + swept.free_in_blocks / PAGE * usize::from(!facts.moves || after.nursery == 0);
        // What is young may have to be copied as well.
        let room = free / 2;
        let nursery = room.min(self.most_nursery.load(Ordering::Relaxed));
        self.nursery.store(nursery.max(8), Ordering::Relaxed);
        let grown = after
            .used
            .saturating_sub(self.after_full.load(Ordering::Relaxed));
        let blocks = self.limit().saturating_sub(after.used + reserve);
        let starved = matches!(facts.allocates, Allocates::Bump(Policy::Nursery))
            && blocks < nursery
            && self.young_ns.load(Ordering::Relaxed) > self.full_ns.load(Ordering::Relaxed);
        // Tracing all costs what lives; it pays when there is a good part of it to be found dead.
        !full && (room < LEAST_NURSERY || grown > room.max(LEAST_NURSERY) * 2 || starved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nursery_is_as_small_as_its_survivors_allow() {
        let sizing = Sizing::new(&Options::default());
        let most = || sizing.most_nursery.load(Ordering::Relaxed);
        for _ in 0..9 {
            sizing.traced_young(5_000_000);
        }
        assert_eq!(most(), MOST_NURSERY);
        sizing.traced_young(300_000);
        assert_eq!(most(), MOST_NURSERY);
        for _ in 0..9 {
            sizing.traced_young(1000);
        }
        assert_eq!(most(), CACHED_NURSERY);
        let sizing = Sizing::new(&Options {
            nursery: 1 << 20,
            ..Options::default()
        });
        sizing.traced_young(5_000_000);
        assert_eq!(
            sizing.most_nursery.load(Ordering::Relaxed),
            (1 << 20) / PAGE
        );
    }

    #[test]
    fn holes_that_a_nursery_cannot_use_are_evacuated_when_that_pays() {
        let sizing = Sizing::new(&Options {
            max: 1000 * PAGE,
            ..Options::default()
        });
        let facts = &crate::plan::facts(crate::options::PlanName::GenImmix);
        let swept = Swept {
            free_in_blocks: 300 * PAGE,
            ..Swept::default()
        };
        let usage = |used| Usage {
            limit: 1000,
            used,
            copy: 0,
            nursery: 0,
            immix: used,
            holes: 0,
        };
        sizing.traced_all(1_000_000);
        let _ = sizing.collected(facts, &usage(950), &swept, true);
        sizing.traced_young(800_000);
        assert!(!sizing.collected(facts, &usage(950), &swept, false));
        sizing.traced_young(800_000);
        assert!(sizing.collected(facts, &usage(950), &swept, false));
        // With blocks enough for the nursery there is no need.
        assert!(!sizing.collected(facts, &usage(400), &swept, false));
    }
}
