//! NoGC: allocates and never collects. The bound on what collecting may cost, and a way to see whether a fault is the
//! collector's.
#![forbid(unsafe_code)]

use super::Plan;
use crate::collect::WordCollector;
use crate::vm::WordVm;

/// The plan.
pub(super) struct NoGc;

impl Plan for NoGc {
    const COLLECTS: bool = false;

    fn collect<V: WordVm>(_: &mut WordCollector<'_, V>) {}
}
