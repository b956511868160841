//! ConcurrentImmix: Immix that marks while mutators run.
//!
//! A first pause notes what the roots refer to. Then a thread of the heap marks, while mutators remember each reference that they
//! overwrite, and allocate in lines that count as marked: what was reachable in the first pause is marked in the end (a snapshot
//! at the beginning). A second pause marks what was remembered last, looks at weak references, and finds free lines. Nothing moves
//! in these. When memory runs out before the mark is complete, the second pause completes it; and if that gives too little, a
//! collection as Immix's, in one pause, may empty fragmented blocks.
#![forbid(unsafe_code)]

use super::{Allocates, Facts, Plan, immix};
use crate::collect::{Barrier, Kind, Pause};
use crate::options::PlanName;
use crate::space::Policy;
use crate::vm::Vm;

/// The plan.
pub(super) struct ConcurrentImmix;

const MARK: Kind = Kind {
    to: Policy::Immix,
    moves: false,
    unlog: false,
    minor: false,
};

impl Plan for ConcurrentImmix {
    const FACTS: Facts = Facts {
        name: PlanName::ConcurrentImmix,
        collects: true,
        moves: true,
        generational: false,
        allocates: Allocates::Bump(Policy::Immix),
        barrier: Barrier::Snapshot,
        concurrent: true,
        quarantine: false,
        reserve: immix::headroom,
    };

    fn begin<V: Vm>(pause: &mut Pause<'_, V>) {
        pause.begin_full();
        pause.begin_marking(MARK);
    }

    fn collect<V: Vm>(pause: &mut Pause<'_, V>, _: bool) {
        if !pause.is_marking() {
            return immix::collect_full(pause, false);
        }
        pause.finish_marking(MARK);
        pause.weak();
        pause.sweep();
    }
}
