//! The hard limit holds at every moment of a collection, also while several workers copy, each to a block of its own.

#![allow(clippy::print_stderr, missing_docs)]

mod copies;
mod lists;

use copies::{MOVING, peak};
use heapwright::PlanName;

const MIB: usize = 1 << 20;

#[test]
fn workers_that_copy_do_not_pass_the_hard_limit() {
    for plan in MOVING {
        for workers in ["1", "4"] {
            for max in [MIB, 3 * MIB] {
                let (peak, copied) = peak(plan, workers, max, 4);
                eprintln!(
                    "{plan}, {workers} workers, {max}: at most {peak} in use, {copied} copied"
                );
                assert!(
                    peak <= max,
                    "{plan}, {workers} workers: {peak} of {max} in use"
                );
                assert!(copied > 0 || plan == PlanName::MarkCompact, "{plan}");
            }
        }
    }
}
