//! MarkSweep: segregated fit, non-moving.
//!
//! Marks are set in the second word of bits of each cell's granule; when all is marked, the marks become the map of what is
//! allocated, and a cell without a bit is free. Nothing is touched in the cells themselves.
#![forbid(unsafe_code)]

use super::{Allocates, Facts, Plan, no_reserve};
use crate::collect::{Barrier, Kind, Pause};
use crate::options::PlanName;
use crate::space::Policy;
use crate::vm::Vm;

/// The plan.
pub(super) struct MarkSweep;

impl Plan for MarkSweep {
    const FACTS: Facts = Facts {
        name: PlanName::MarkSweep,
        collects: true,
        moves: false,
        generational: false,
        allocates: Allocates::Cells,
        barrier: Barrier::None,
        concurrent: false,
        quarantine: false,
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
