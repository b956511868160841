//! Refills that end before an object that is to be sampled: see [`crate::alloc::sampling`].

use crate::alloc::{CLASSES, Countdown, MAX_SMALL, Run, Sampler};
use crate::bugs::{Bug, is_on};
use crate::space::{MarkSweep, RUN_BYTES};

/// Who hears of samples, and the distance to the next one.
pub(super) type Sampling<'a> = Option<(&'a dyn Sampler, &'a Countdown)>;

const _: () = assert!(MAX_SMALL <= RUN_BYTES);

/// What a run was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refill {
    /// Nothing: its block is used up, or there is none.
    Empty,
    /// Cells.
    Cells,
    /// One cell, in which a point lies: the mean distance of points in bytes.
    Sampled(usize),
}

/// [`MarkSweep::refill`], which stops before a cell with a point, or gives just that one. As there.
pub(super) fn refill(
    space: &MarkSweep,
    run: &Run,
    kind: u8,
    class: usize,
    sampling: Sampling<'_>,
) -> Refill {
    let Some((sampler, countdown)) = sampling else {
        return match space.refill(run, kind, class, usize::MAX) {
            true => Refill::Cells,
            false => Refill::Empty,
        };
    };
    // No cell is larger. Nearly always the point is far.
    if countdown.is_beyond(RUN_BYTES) && !run.is_cut() {
        if !space.refill(run, kind, class, usize::MAX) {
            return Refill::Empty;
        }
        let (cursor, limit) = run.cells();
        if !is_on(Bug::SampleCellsForgotten) {
            countdown.handed(limit - cursor);
        }
        return Refill::Cells;
    }
    refill_near(space, run, (kind, class), (sampler, countdown))
}

/// The same where a point may be among the cells.
#[cold]
fn refill_near(
    space: &MarkSweep,
    run: &Run,
    (kind, class): (u8, usize),
    (sampler, countdown): (&dyn Sampler, &Countdown),
) -> Refill {
    let bytes = CLASSES[class].bytes as usize;
    let left = countdown.left(sampler);
    if run.is_cut() {
        // The point was passed when the run was cut. Its cell is the next one: nobody else takes cells from the block.
        return match space.refill(run, kind, class, bytes) {
            true => Refill::Sampled(countdown.mean()),
            false => Refill::Empty,
        };
    }
    if !space.refill(run, kind, class, left) {
        return Refill::Empty;
    }
    if left < bytes {
        return Refill::Sampled(countdown.pass(sampler));
    }
    let (cursor, limit) = run.cells();
    countdown.handed(limit - cursor);
    // Is the cell behind these one that would have been among them?
    let most = space.most_cells(class) * bytes;
    if countdown.left(sampler) < bytes && limit - cursor < most && space.follows(run) {
        let _ = countdown.pass(sampler);
        run.cut();
    }
    Refill::Cells
}
