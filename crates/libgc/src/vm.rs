//! What the heap asks of a language runtime, answered for programs that know Boehm's collector.
//!
//! Everything is conservative but what clients describe: kinds with descriptors or mark procedures, and typed objects.
//! The order of one collection, with what clients see of it:
//!
//! | step            | world   | clients                                                                  |
//! |-----------------|---------|--------------------------------------------------------------------------|
//! | `before_stop`   | running | START event, start callback, toggle references, PRE_STOP_WORLD event     |
//! | `stop_world`    | stops   | thread events, POST_STOP_WORLD, MARK_START                               |
//! | `roots`         | stopped | `GC_push_other_roots`                                                    |
//! | `scan`          | stopped | mark procedures                                                          |
//! | `weak`          | stopped | nothing                                                                  |
//! | `start_world`   | starts  | MARK_END, PRE_START_WORLD, POST_START_WORLD, RECLAIM_START               |
//! | `after_start`   | running | disclaim procedures, RECLAIM_END, END; then, without the lock, finalizers or their notifier |

use crate::{config, disclaim, finalize, kinds, leaks, report, roots, state, stop, threads};
use core::ffi::c_int;
use core::sync::atomic::Ordering;
use heapwright::{Cell, Closure, CollectionStats, LocalRuns, WordVisitor, WordVm};

/// The runtime of this front end. It has no data of its own: Boehm's interface has one heap for each process, and its
/// state is in statics.
#[derive(Debug)]
pub struct BoehmVm(());

impl BoehmVm {
    /// The one value, for the one heap.
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

/// `GC_EventType`.
mod event {
    use super::c_int;
    pub(super) const START: c_int = 0;
    pub(super) const MARK_START: c_int = 1;
    pub(super) const MARK_END: c_int = 2;
    pub(super) const RECLAIM_START: c_int = 3;
    pub(super) const RECLAIM_END: c_int = 4;
    pub(super) const END: c_int = 5;
    pub(super) const PRE_STOP: c_int = 6;
    pub(super) const POST_STOP: c_int = 7;
    pub(super) const PRE_START: c_int = 8;
    pub(super) const POST_START: c_int = 9;
}

// SAFETY: 1, 5: module `stop` and the records of `threads`. 2: `kinds::scan`, conservative where the client says nothing.
// 3: `roots::report`, which covers what the interface calls roots; stacks are covered by `stack`. 4: records are never
// taken out of the list. 6: no module allocates or takes a lock in these functions; what a client's mark procedure or
// callback does there is bound by the same rule of the interface.
unsafe impl WordVm for BoehmVm {
    #[inline]
    fn scan<T: WordVisitor>(&self, cell: Cell, visit: &mut T) {
        kinds::scan(cell, visit);
    }

    fn roots<T: WordVisitor>(&self, visit: &mut T) {
        finalize::roots(visit);
        roots::report(visit);
    }

    fn weak<C: Closure>(&self, closure: &mut C) {
        disclaim::keep_referents(closure);
        finalize::weak(closure);
        disclaim::find_dead(closure);
        leaks::find(closure);
    }

    fn before_stop(&self) {
        config::collection_event(event::START);
        if let Some(callback) = config::start_callback() {
            // SAFETY: the client's function, called as the interface says: heap lock held, world running.
            unsafe { callback() };
        }
        finalize::before_stop();
        config::collection_event(event::PRE_STOP);
    }

    fn stop_world(&self) {
        roots::hold_while(stop::stop_world);
        if let Some(heap) = state::heap_if_ready() {
            state::publish_bounds(heap);
        }
        config::collection_event(event::POST_STOP);
        config::collection_event(event::MARK_START);
    }

    fn start_world(&self) {
        config::collection_event(event::MARK_END);
        config::collection_event(event::PRE_START);
        // While the world is stopped: who sees a cleared link also sees the new number.
        state::GC_gc_no.fetch_add(1, Ordering::Relaxed);
        stop::start_world();
        config::collection_event(event::POST_START);
        config::collection_event(event::RECLAIM_START);
    }

    fn after_start(&self, stats: &CollectionStats) {
        config::collection_event(event::RECLAIM_END);
        report::collected(stats);
        crate::scavenge::collected(stats);
        config::collected(stats);
        finalize::after_start();
        disclaim::ask();
        config::collection_event(event::END);
    }

    fn local_runs(&self, visit: &mut dyn FnMut(&LocalRuns)) {
        threads::each(|record| visit(&record.runs));
    }

    fn stop_point(&self, _runs: &LocalRuns) {
        stop::stop_point();
    }
}
