//! Immix: bumps through the free lines of blocks, marks in place, and empties fragmented blocks when there is room for their
//! objects (Blackburn and McKinley, "Immix: a mark-region garbage collector with space efficiency, fast collection, and mutator
//! performance", PLDI 2008).
//!
//! A block with a pinned object is not emptied.
#![forbid(unsafe_code)]

use super::{Allocates, Facts, Plan, Usage};
use crate::collect::{Barrier, Kind, Pause};
use crate::options::PlanName;
use crate::space::Policy;
use crate::vm::Vm;

/// The plan.
pub(super) struct Immix;

/// A little, for emptying the first blocks: each gives more than it takes.
pub(super) const fn headroom(usage: &Usage) -> usize {
    let part = usage.immix / 64;
    if part < 16 { 16 } else { part }
}

/// A full collection of a heap with lines.
pub(super) fn collect_full<V: Vm>(pause: &mut Pause<'_, V>, unlog: bool) {
    pause.begin_full();
    let moves = pause.evacuate_fragmented();
    pause.trace(Kind {
        to: Policy::Immix,
        moves,
        unlog,
        minor: false,
    });
    pause.weak();
    pause.sweep();
}

impl Plan for Immix {
    const FACTS: Facts = Facts {
        name: PlanName::Immix,
        collects: true,
        moves: true,
        generational: false,
        allocates: Allocates::Bump(Policy::Immix),
        barrier: Barrier::None,
        concurrent: false,
        quarantine: false,
        reserve: headroom,
    };

    fn collect<V: Vm>(pause: &mut Pause<'_, V>, _: bool) {
        collect_full(pause, false);
    }
}
