//! SemiSpace: all that lives is copied from one half of the heap to the other (Fenichel and Yochelson, "A LISP garbage collector
//! for virtual-memory computer systems", CACM 1969; Cheney's order is replaced by depth-first).
//!
//! The halves are sets of blocks, not of addresses. A block with a pinned object stays where it is, with all in it that is
//! reached (Bartlett, "Compacting garbage collection with ambiguous roots", 1988), until the next collection.
#![forbid(unsafe_code)]

use super::{Allocates, Facts, Plan, Usage, for_copies};
use crate::collect::{Barrier, Kind, Pause};
use crate::options::PlanName;
use crate::space::Policy;
use crate::vm::Vm;

/// The plan.
pub(super) struct SemiSpace;

/// All that was allocated may live.
const fn reserve(usage: &Usage) -> usize {
    for_copies(usage.copy, usage)
}

impl Plan for SemiSpace {
    const FACTS: Facts = Facts {
        name: PlanName::SemiSpace,
        collects: true,
        moves: true,
        generational: false,
        allocates: Allocates::Bump(Policy::Copy),
        barrier: Barrier::None,
        concurrent: false,
        quarantine: false,
        reserve,
    };

    fn collect<V: Vm>(pause: &mut Pause<'_, V>, _: bool) {
        pause.begin_full();
        pause.evacuate(Policy::Copy);
        pause.trace(Kind {
            to: Policy::Copy,
            moves: true,
            unlog: false,
            minor: false,
        });
        pause.weak();
        pause.sweep();
    }
}
