//! GenCopy: a copying nursery before a semispace (Ungar, "Generation scavenging", 1984; en-masse promotion as in Appel, "Simple
//! generational garbage collection and fast allocation", 1989).
#![forbid(unsafe_code)]

use super::{Allocates, Facts, Plan, Usage, for_copies};
use crate::collect::{Barrier, Kind, Pause};
use crate::options::PlanName;
use crate::space::Policy;
use crate::vm::Vm;

/// The plan.
pub(super) struct GenCopy;

/// All that is young may live, and all that is old.
const fn reserve(usage: &Usage) -> usize {
    for_copies(usage.copy + usage.nursery, usage)
}

impl Plan for GenCopy {
    const FACTS: Facts = Facts {
        name: PlanName::GenCopy,
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
            pause.evacuate(Policy::Copy);
        }
        pause.evacuate(Policy::Nursery);
        pause.trace(Kind {
            to: Policy::Copy,
            moves: true,
            unlog: true,
            minor,
        });
        pause.weak();
        pause.sweep();
    }
}
