//! Plans: each is one file and says how a collection goes, from start to end, in a straight line.
#![forbid(unsafe_code)]

mod mark_sweep;
mod nogc;

use crate::collect::WordCollector;
use crate::options::PlanName;
use crate::vm::WordVm;

/// How memory is given out and how the living are found.
pub trait Plan {
    /// May a collection run at all?
    const COLLECTS: bool;

    /// One collection, heap lock held. Called only where [`Plan::COLLECTS`].
    fn collect<V: WordVm>(collector: &mut WordCollector<'_, V>);
}

/// Does the plan collect?
#[must_use]
pub fn collects(name: PlanName) -> bool {
    match name {
        PlanName::NoGc => nogc::NoGc::COLLECTS,
        PlanName::MarkSweep => mark_sweep::MarkSweep::COLLECTS,
        _ => false,
    }
}

/// Runs one collection of the plan.
pub fn collect<V: WordVm>(name: PlanName, collector: &mut WordCollector<'_, V>) {
    match name {
        PlanName::NoGc => nogc::NoGc::collect(collector),
        PlanName::MarkSweep => mark_sweep::MarkSweep::collect(collector),
        // The builder of a heap of words refuses other plans.
        _ => {}
    }
}
