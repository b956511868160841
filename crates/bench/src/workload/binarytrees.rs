//! `binarytrees`: the program of that name of the Computer Language Benchmarks Game, after Boehm's `gcbench`.
//!
//! A tree is built to stretch the heap, another one lives on, and many are built, counted and dropped. A node has two
//! references and nothing else. The checksum is made of the counts.

use super::checksum::Checksum;
use super::tree::{bottom_up, count, dispose, size};
use super::{Fault, Outcome, Settings, at};
use crate::runtime::Thread;

const SMALLEST: u32 = 4;

/// Builds a tree, counts its nodes and disposes of it.
#[inline]
fn build_and_count<T: Thread>(t: &mut T, depth: u32) -> Result<u64, Fault> {
    let tree = bottom_up::<T, 0>(t, depth)?;
    let root = t.push(Some(tree));
    let nodes = count(t, root, depth)?;
    if T::MANUAL {
        let tree = at(t, root)?;
        dispose(t, tree);
    }
    t.truncate(root.0);
    Ok(nodes)
}

/// Runs it.
pub(super) fn run<T: Thread>(t: &mut T, settings: &Settings) -> Result<Outcome, Fault> {
    let depth = settings.depth(19);
    let mut sum = Checksum::new();
    let bottom = t.height();
    sum.add(build_and_count(t, depth + 1)?);
    let mut nodes = size(depth + 1) + size(depth);

    let long_lived = bottom_up::<T, 0>(t, depth)?;
    let long_lived = t.push(Some(long_lived));

    for small in (SMALLEST..=depth).step_by(2) {
        let iterations = 1_u64 << (depth - small + SMALLEST);
        let mut check = 0;
        for _ in 0..iterations {
            check += build_and_count(t, small)?;
        }
        nodes += iterations * size(small);
        sum.add(check);
    }

    sum.add(count(t, long_lived, depth)?);
    if T::MANUAL {
        let tree = at(t, long_lived)?;
        dispose(t, tree);
    }
    t.finish(bottom);
    Ok(Outcome {
        checksum: sum.finish(),
        allocated_bytes: nodes * 16,
        ..Outcome::default()
    })
}
