//! MarkSweep: segregated fit, non-moving, stop the world.
//!
//! Marks are set in the words of the side table that the object map does not use; then the two change roles, and what was
//! not marked is free. Nothing is touched in the cells themselves. The sweep only counts marks, a cache line for each 4 KiB,
//! while the program runs again.
#![forbid(unsafe_code)]

use super::Plan;
use crate::collect::WordCollector;
use crate::vm::WordVm;

/// The plan.
pub(super) struct MarkSweep;

impl Plan for MarkSweep {
    const COLLECTS: bool = true;

    fn collect<V: WordVm>(collector: &mut WordCollector<'_, V>) {
        collector.pause(|pause| {
            pause.keep_runs();
            pause.trace();
            pause.weak();
            pause.verify();
            pause.adopt_marks();
        });
        collector.sweep();
    }
}
