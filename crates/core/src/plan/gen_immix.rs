//! GenImmix: a copying nursery whose survivors go into the free lines of an Immix space.
#![forbid(unsafe_code)]

use super::{Allocates, Facts, Plan, Usage, immix};
use crate::collect::{Barrier, Kind, Pause};
use crate::options::PlanName;
use crate::space::Policy;
use crate::vm::Vm;

/// The plan.
pub(super) struct GenImmix;

/// All that is young may live.
const fn reserve(usage: &Usage) -> usize {
    usage.nursery + immix::headroom(usage)
}

impl Plan for GenImmix {
    const FACTS: Facts = Facts {
        name: PlanName::GenImmix,
        collects: true,
        moves: true,
        generational: true,
        allocates: Allocates::Bump(Policy::Nursery),
        barrier: Barrier::Object,
        concurrent: false,
        quarantine: false,
        reserve,
    };

    fn collect<V: Vm>(pause: &mut Pause<'_, V>, minor: bool) {
        if !minor {
            pause.begin_full();
            pause.evacuate_fragmented();
        }
        pause.evacuate(Policy::Nursery);
        pause.trace(Kind {
            to: Policy::Immix,
            moves: true,
            unlog: true,
            minor,
        });
        pause.weak();
        pause.sweep();
    }
}
