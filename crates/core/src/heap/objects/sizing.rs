//! How large a heap of objects may be, when its nursery is full, and when all is traced.
//!
//! There are three limits, in pages. The *hard* one is never passed: the option `max`, or three quarters of what the process may use.
//! The *soft* one is the option `soft`, or has to do with the control group. Below them is the *present* one, at which the heap is
//! traced: what a full collection left, and the room that the policy gives ([`crate::heap::policy`]). Where that full collection
//! did not make enough, the present limit is raised; above the soft one only by little at a time, so the heap is collected often
//! and at any price. `present <= hard` always, and `used <= hard` but for what lived when the hard limit became smaller.
//!
//! External memory, which the runtime says its objects hold, counts towards the trigger: it takes up room, in the proportion that
//! the room for it has to that for objects. It does not count towards the hard limit, for the heap cannot say who holds it.
//!
//! A nursery may take half of what is free, as in Appel's collector, but no more than the option `nursery`. Without the option it is
//! between [`CACHED_NURSERY`], which allocation finds in the cache, and [`MOST_NURSERY`], which gives objects more time to die: the
//! less time minor collections take for tracing, the smaller it may be. A full collection is due when a minor one leaves so little that the nursery would be small; and
//! when free memory is in holes, which a nursery of blocks cannot use, and minor collections have traced for longer since the last full
//! one than that did: it evacuates what is fragmented.

use super::limits::Bounds;
use crate::bugs::{Bug, is_on};
use crate::heap::policy::{Measured, SizingPolicy};
use crate::options::{DEFAULT_NURSERY, Options};
use crate::plan::{Allocates, Facts, Usage};
use crate::space::Policy;
use crate::space::objects::Swept;
use crate::space::pages::PAGE;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use heapwright_os::Pressure;
use std::sync::{Mutex, PoisonError};

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
/// What a heap may have before its first collection at least, in pages.
const FIRST: usize = (8 << 20) / PAGE;
/// The room that a heap has above its soft limit is this part of it, in pages,
const ABOVE_SOFT: usize = 32;
/// and at least so much.
const LEAST_ABOVE_SOFT: usize = (512 << 10) / PAGE;
/// The least room for external memory, in bytes.
const LEAST_EXTERNAL: usize = 8 << 20;

#[derive(Debug)]
pub(super) struct Sizing {
    bounds: Bounds,
    /// The present limit.
    limit: AtomicUsize,
    policy: Mutex<Box<dyn SizingPolicy>>,
    /// External memory in bytes,
    external: AtomicUsize,
    /// how much of it there was after the last full collection, and how much more there may be until the next.
    external_after: AtomicUsize,
    external_room: AtomicUsize,
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

/// What the program and the collector did since the last full collection: see [`Measured`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    pub(super) allocated_bytes: u64,
    pub(super) program_ns: u64,
    pub(super) collector_ns: u64,
    pub(super) full_ns: u64,
    pub(super) pressure: Pressure,
}

/// Pages that may still be allocated.
fn room(usage: &Usage) -> usize {
    usage.limit.saturating_sub(usage.used) + usage.holes
}

impl Sizing {
    pub(super) fn new(options: &Options, policy: Box<dyn SizingPolicy>, bounds: Bounds) -> Self {
        // A policy that takes all that there is has it from the first.
        let first = if policy.takes_all() {
            bounds.soft().min(bounds.hard())
        } else {
            FIRST.max(options.heap / PAGE).min(bounds.hard())
        };
        let fixed_nursery = options.nursery != DEFAULT_NURSERY;
        let most_nursery = if !fixed_nursery {
            2 * CACHED_NURSERY
        } else {
            (options.nursery / PAGE).max(8)
        };
        Self {
            bounds,
            limit: AtomicUsize::new(first),
            policy: Mutex::new(policy),
            external: AtomicUsize::new(0),
            external_after: AtomicUsize::new(0),
            external_room: AtomicUsize::new(LEAST_EXTERNAL),
            fixed_nursery,
            most_nursery: AtomicUsize::new(most_nursery),
            nursery: AtomicUsize::new(most_nursery.min(first / 3).max(8)),
            live: AtomicUsize::new(0),
            after_full: AtomicUsize::new(0),
            after: AtomicUsize::new(0),
            room_after: AtomicUsize::new(first),
            full_ns: AtomicU64::new(0),
            young_ns: AtomicU64::new(0),
        }
    }

    /// Pages that may be in use before the heap is collected.
    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed).min(self.bounds.hard())
    }

    /// The hard and the soft limit.
    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Raises the present limit such that `needed` pages may be in use, and a little more: false if the hard one is in the way.
    pub(super) fn raise(&self, needed: usize) -> bool {
        let hard = self.bounds.hard();
        if needed > hard {
            return false;
        }
        let room = if needed > self.bounds.soft() {
            LEAST_ABOVE_SOFT
        } else {
            FIRST
        };
        self.limit
            .fetch_max(needed.saturating_add(room).min(hard), Ordering::Relaxed);
        true
    }

    /// Is more in use than the soft limit says?
    pub(super) fn is_above_soft(&self, used: usize) -> bool {
        used > self.bounds.soft()
    }

    /// After the bounds changed: the present limit keeps within them, or follows a hard one that was raised, where the policy takes
    /// all. `reserved`: what is in use and the plan's reserve.
    pub(super) fn bounds_changed(&self, reserved: usize) {
        let fixed = self.policy().takes_all();
        let bound = self.bound(
            if fixed {
                usize::MAX
            } else {
                self.limit.load(Ordering::Relaxed)
            },
            reserved,
        );
        self.limit.store(bound, Ordering::Relaxed);
    }

    /// What the present limit may be if a policy wants `wanted`.
    fn bound(&self, wanted: usize, reserved: usize) -> usize {
        let (soft, hard) = (self.bounds.soft(), self.bounds.hard());
        let above = reserved.saturating_add((reserved / ABOVE_SOFT).max(LEAST_ABOVE_SOFT));
        wanted.min(soft.max(above)).min(hard)
    }

    /// The locks, for a fork.
    pub(super) fn hold(&self) -> (impl Sized + '_, impl Sized + '_) {
        (self.policy(), self.bounds.hold())
    }

    fn policy(&self) -> std::sync::MutexGuard<'_, Box<dyn SizingPolicy>> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts external memory: true if so much came since the last full collection that the next is due.
    pub(super) fn external_allocated(&self, bytes: usize) -> bool {
        if is_on(Bug::ExternalForgotten) {
            return false;
        }
        let before = self
            .external
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                Some(n.saturating_add(bytes))
            })
            .unwrap_or_default();
        let grown = |external: usize| {
            external.saturating_sub(self.external_after.load(Ordering::Relaxed))
                >= self.external_room.load(Ordering::Relaxed)
        };
        // Only who passes the mark says so.
        grown(before.saturating_add(bytes)) && !grown(before)
    }

    /// Counts external memory that is free.
    pub(super) fn external_freed(&self, bytes: usize) {
        let _ = self
            .external
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                Some(n.saturating_sub(bytes))
            });
    }

    /// External memory in bytes.
    pub(super) fn external(&self) -> usize {
        self.external.load(Ordering::Relaxed)
    }

    /// Did external memory alone use up its room?
    pub(super) fn external_is_due(&self) -> bool {
        self.external_grown() >= self.external_room.load(Ordering::Relaxed)
    }

    fn external_grown(&self) -> usize {
        self.external()
            .saturating_sub(self.external_after.load(Ordering::Relaxed))
    }

    /// The pages of room that external memory takes up.
    pub(super) fn external_pages(&self) -> usize {
        let grown = self.external_grown();
        if grown == 0 {
            return 0;
        }
        let room = self
            .limit()
            .saturating_sub(self.after_full.load(Ordering::Relaxed));
        let part = grown as f64 / self.external_room.load(Ordering::Relaxed).max(1) as f64;
        // What is more than all of it is looked at by `external_is_due`, after which it is nothing.
        (room as f64 * part.min(1.0)) as usize
    }

    /// External memory counts anew from now on. After a full collection.
    fn settle_external(&self, room: usize) {
        let external = self.external();
        self.external_after.store(external, Ordering::Relaxed);
        self.external_room.store(
            room.min(usize::MAX / 2)
                .max(external / 5 * 4)
                .max(LEAST_EXTERNAL),
            Ordering::Relaxed,
        );
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
        spent: &Spent,
    ) -> bool {
        self.live.store(swept.live, Ordering::Relaxed);
        self.after.store(after.used, Ordering::Relaxed);
        if full {
            self.after_full.store(after.used, Ordering::Relaxed);
            let live = swept.live.min(after.used * PAGE);
            let reserved = after.used + (facts.reserve)(after);
            let hard = self.bounds.hard();
            let measured = Measured {
                live_bytes: live.saturating_add(self.external()),
                allocated_bytes: spent.allocated_bytes,
                program_ns: spent.program_ns,
                collector_ns: spent.collector_ns,
                full_ns: spent.full_ns,
                most_bytes: hard.saturating_sub(reserved).saturating_mul(PAGE),
                pressure: spent.pressure,
            };
            let mut policy = self.policy();
            let room = policy.room(&measured);
            let fixed = policy.takes_all();
            drop(policy);
            // A fixed size is what somebody asked for, not a guess.
            let room = match spent.pressure {
                Pressure::None => room,
                _ if fixed => room,
                _ => room / 2,
            };
            let wanted = reserved.saturating_add(room.div_ceil(PAGE).max(8));
            let limit = self.bound(wanted, reserved);
            self.limit.store(limit, Ordering::Relaxed);
            self.settle_external(limit.saturating_sub(reserved).saturating_mul(PAGE));
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
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::heap::objects::limits::Limits;
    use crate::heap::policy;

    fn sizing(options: &Options) -> Sizing {
        let limits = Limits {
            soft: options.soft,
            hard: options.max,
        };
        let bounds = Bounds::new(limits, 1 << 40).unwrap();
        Sizing::new(options, policy::choose(options), bounds)
    }

    #[test]
    fn a_nursery_is_as_small_as_its_survivors_allow() {
        let s = sizing(&Options::default());
        let most = || s.most_nursery.load(Ordering::Relaxed);
        for _ in 0..9 {
            s.traced_young(5_000_000);
        }
        assert_eq!(most(), MOST_NURSERY);
        s.traced_young(300_000);
        assert_eq!(most(), MOST_NURSERY);
        for _ in 0..9 {
            s.traced_young(1000);
        }
        assert_eq!(most(), CACHED_NURSERY);
        let s = sizing(&Options {
            nursery: 1 << 20,
            ..Options::default()
        });
        s.traced_young(5_000_000);
        assert_eq!(s.most_nursery.load(Ordering::Relaxed), (1 << 20) / PAGE);
    }

    #[test]
    fn holes_that_a_nursery_cannot_use_are_evacuated_when_that_pays() {
        let s = sizing(&Options {
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
            workers: 1,
            used,
            copy: 0,
            nursery: 0,
            immix: used,
            holes: 0,
        };
        s.traced_all(1_000_000);
        let _ = s.collected(facts, &usage(950), &swept, true, &Spent::default());
        s.traced_young(800_000);
        assert!(!s.collected(facts, &usage(950), &swept, false, &Spent::default()));
        s.traced_young(800_000);
        assert!(s.collected(facts, &usage(950), &swept, false, &Spent::default()));
        // With blocks enough for the nursery there is no need.
        assert!(!s.collected(facts, &usage(400), &swept, false, &Spent::default()));
    }
}
