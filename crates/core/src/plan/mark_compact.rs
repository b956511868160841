//! MarkCompact: marks, then slides all that lives together, in the order of addresses. It needs no memory to copy to, and
//! leaves no holes; references are looked at twice.
//!
//! A block with a pinned object stays as it is.
#![forbid(unsafe_code)]

use super::{Allocates, Facts, Plan, no_reserve};
use crate::collect::{Barrier, Kind, Pause};
use crate::options::PlanName;
use crate::space::Policy;
use crate::vm::Vm;

/// The plan.
pub(super) struct MarkCompact;

impl Plan for MarkCompact {
    const FACTS: Facts = Facts {
        name: PlanName::MarkCompact,
        collects: true,
        moves: true,
        generational: false,
        allocates: Allocates::Bump(Policy::Compact),
        barrier: Barrier::None,
        concurrent: false,
        quarantine: false,
        reserve: no_reserve,
    };

    fn collect<V: Vm>(pause: &mut Pause<'_, V>, _: bool) {
        pause.begin_full();
        pause.evacuate(Policy::Compact);
        pause.hold_pinned(Policy::Compact);
        pause.trace(Kind {
            to: Policy::Compact,
            moves: false,
            unlog: false,
            minor: false,
        });
        pause.weak();
        pause.slide();
        pause.sweep();
    }
}
