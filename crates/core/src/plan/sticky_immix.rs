//! StickyImmix: Immix with generations in place (Demers, Weiser, Hayes, Boehm, Bobrow, Shenker, "Combining generational and
//! conservative garbage collection", POPL 1990). Marks stick: a minor collection traces from the roots and from old objects that
//! were written to, and stops at what is marked. It moves nothing; a full one may empty fragmented blocks.
#![forbid(unsafe_code)]

use super::{Allocates, Facts, Plan, immix};
use crate::collect::{Barrier, Kind, Pause};
use crate::options::PlanName;
use crate::space::Policy;
use crate::vm::Vm;

/// The plan.
pub(super) struct StickyImmix;

impl Plan for StickyImmix {
    const FACTS: Facts = Facts {
        name: PlanName::StickyImmix,
        collects: true,
        moves: true,
        generational: true,
        allocates: Allocates::Bump(Policy::Immix),
        barrier: Barrier::Object,
        concurrent: false,
        quarantine: false,
        reserve: immix::headroom,
    };

    fn collect<V: Vm>(pause: &mut Pause<'_, V>, minor: bool) {
        if !minor {
            return immix::collect_full(pause, true);
        }
        pause.trace(Kind {
            to: Policy::Immix,
            moves: false,
            unlog: true,
            minor,
        });
        pause.weak();
        pause.sweep();
    }
}
