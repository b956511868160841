//! StickyMarkSweep: MarkSweep with generations in place, for runtimes whose objects cannot move (Demers and others, POPL 1990).
//! Marks stick until the next full collection: what is marked is old.
#![forbid(unsafe_code)]

use super::{Allocates, Facts, Plan, no_reserve};
use crate::collect::{Barrier, Kind, Pause};
use crate::options::PlanName;
use crate::space::Policy;
use crate::vm::Vm;

/// The plan.
pub(super) struct StickyMarkSweep;

impl Plan for StickyMarkSweep {
    const FACTS: Facts = Facts {
        name: PlanName::StickyMarkSweep,
        collects: true,
        moves: false,
        generational: true,
        allocates: Allocates::Cells,
        barrier: Barrier::Object,
        concurrent: false,
        quarantine: false,
        reserve: no_reserve,
    };

    fn collect<V: Vm>(pause: &mut Pause<'_, V>, minor: bool) {
        if !minor {
            pause.begin_full();
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
