//! NoGC: allocates and never collects. The bound on what collecting may cost, and a way to see whether a fault is the
//! collector's.
#![forbid(unsafe_code)]

use super::{Allocates, Facts, Plan, no_reserve};
use crate::collect::{Barrier, Pause};
use crate::options::PlanName;
use crate::space::Policy;
use crate::vm::Vm;

/// The plan.
pub(super) struct NoGc;

impl Plan for NoGc {
    const FACTS: Facts = Facts {
        name: PlanName::NoGc,
        collects: false,
        moves: false,
        generational: false,
        allocates: Allocates::Bump(Policy::Immix),
        barrier: Barrier::None,
        concurrent: false,
        quarantine: false,
        reserve: no_reserve,
    };

    fn collect<V: Vm>(_: &mut Pause<'_, V>, _: bool) {}
}
