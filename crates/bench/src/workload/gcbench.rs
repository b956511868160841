//! `gcbench` and, on several threads, `mtgcbench`: John Ellis and Pete Kovac's benchmark of collectors as Hans Boehm has
//! changed it.
//!
//! Trees of the same total size are built top-down and bottom-up, from many small ones to few large ones, while a large
//! tree and a large array of numbers live on. A node has two references and two integers (16 raw bytes).
//!
//! What differs from the original: the size follows the scale, and the nodes of the long-lived tree are numbered, so that
//! the checksum can tell that each is still what it was.

use super::checksum::Checksum;
use super::random::mix;
use super::tree::{bottom_up, dispose, size, top_down, visit};
use super::{Fault, Outcome, Settings, at};
use crate::runtime::{Root, Thread};

const RAW: usize = 16;
const NODE_BYTES: u64 = 2 * 8 + RAW as u64;
const SMALLEST: u32 = 4;
/// Bytes of the array that are used from one poll to the next.
const PIECE: usize = 1 << 16;

/// Runs it with a long-lived tree of depth `base` at scale 1.
pub(super) fn run<T: Thread>(t: &mut T, settings: &Settings, base: u32) -> Result<Outcome, Fault> {
    let depth = settings.depth(base);
    let elements = settings.count(500_000, 4096);
    let seed = settings.seed;
    let stretch = depth + 2;
    let bottom = t.height();
    let mut nodes = size(stretch);

    // Stretches the heap: this tree dies at once.
    let tree = bottom_up::<T, RAW>(t, stretch)?;
    dispose(t, tree);

    let long_lived = t.object(2, RAW)?;
    let long_lived = t.push(Some(long_lived));
    top_down::<T, RAW>(t, depth, long_lived)?;
    nodes += size(depth);
    visit(t, long_lived, depth, 0, &mut |t, node, number| {
        t.set_raw(node, 0, number);
        t.set_raw(node, 8, mix(seed ^ number));
    })?;

    let array = t.bytes(elements * 8)?;
    let array = t.push(Some(array));
    // As in the original, only the first half is written.
    write_reciprocals(t, array, elements / 2)?;

    for depth in (SMALLEST..=depth).step_by(2) {
        let iterations = 2 * size(stretch) / size(depth);
        nodes += 2 * iterations * size(depth);
        for _ in 0..iterations {
            let tree = t.object(2, RAW)?;
            let root = t.push(Some(tree));
            top_down::<T, RAW>(t, depth, root)?;
            if T::MANUAL {
                let tree = at(t, root)?;
                dispose(t, tree);
            }
            t.truncate(root.0);
        }
        for _ in 0..iterations {
            let tree = bottom_up::<T, RAW>(t, depth)?;
            dispose(t, tree);
        }
    }

    let mut sum = Checksum::new();
    visit(t, long_lived, depth, 0, &mut |t, node, _| {
        sum.add(t.raw(node, 0));
        sum.add(t.raw(node, 8));
    })?;
    add_array(t, array, elements, &mut sum)?;

    if T::MANUAL {
        let tree = at(t, long_lived)?;
        dispose(t, tree);
        let array = at(t, array)?;
        t.dispose(array);
    }
    t.finish(bottom);
    Ok(Outcome {
        checksum: sum.finish(),
        allocated_bytes: nodes * NODE_BYTES + elements as u64 * 8,
        ..Outcome::default()
    })
}

/// Writes `1 / i` to each element `i` below `end`.
fn write_reciprocals<T: Thread>(t: &mut T, array: Root, end: usize) -> Result<(), Fault> {
    let mut index = 0;
    while index < end {
        t.poll();
        let array = at(t, array)?;
        let piece = (end - index).min(PIECE / 8);
        let bytes = &mut t.raw_slice(array)[index * 8..][..piece * 8];
        for element in bytes.chunks_exact_mut(8) {
            let value = 1.0 / (index as f64);
            element.copy_from_slice(&value.to_bits().to_le_bytes());
            index += 1;
        }
    }
    Ok(())
}

fn add_array<T: Thread>(
    t: &mut T,
    array: Root,
    elements: usize,
    sum: &mut Checksum,
) -> Result<(), Fault> {
    let mut start = 0;
    while start < elements * 8 {
        t.poll();
        let array = at(t, array)?;
        let end = (start + PIECE).min(elements * 8);
        sum.add_bytes(&t.raw_slice(array)[start..end]);
        start = end;
    }
    Ok(())
}
