//! PageProtect: for finding errors. Each object has pages of its own; when it is dead they become inaccessible and are never
//! used again, so that whoever still touches it is stopped by the system at that very instruction.
//!
//! It takes a page for each object, and addresses for each object that ever was.
#![forbid(unsafe_code)]

use super::{Allocates, Facts, Plan, no_reserve};
use crate::collect::{Barrier, Kind, Pause};
use crate::options::PlanName;
use crate::space::Policy;
use crate::vm::Vm;

/// The plan.
pub(super) struct PageProtect;

impl Plan for PageProtect {
    const FACTS: Facts = Facts {
        name: PlanName::PageProtect,
        collects: true,
        moves: false,
        generational: false,
        allocates: Allocates::Pages,
        barrier: Barrier::None,
        concurrent: false,
        quarantine: true,
        reserve: no_reserve,
    };

    fn collect<V: Vm>(pause: &mut Pause<'_, V>, _: bool) {
        pause.begin_full();
        pause.trace(Kind {
            to: Policy::Immix,
            moves: false,
            unlog: false,
            minor: false,
        });
        pause.weak();
        pause.sweep();
    }
}
