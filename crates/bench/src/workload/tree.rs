//! Binary trees: nodes with two references and `RAW` raw bytes.
//!
//! The functions recurse as deep as the tree. Those that do not allocate poll on the upper levels of deep trees only.

use super::{Fault, at, there};
use crate::runtime::{Full, Root, Thread};

/// A subtree of this depth is visited without a poll.
const WITHOUT_POLL: u32 = 7;

/// How many nodes a tree has.
pub(super) fn size(depth: u32) -> u64 {
    (2 << depth) - 1
}

/// Builds a tree from its leaves up. Nothing but the shadow stack has the parts of it. May collect.
pub(super) fn bottom_up<T: Thread, const RAW: usize>(
    t: &mut T,
    depth: u32,
) -> Result<T::Ref, Full> {
    if depth == 0 {
        return t.object(2, RAW);
    }
    let height = t.height();
    let left = bottom_up::<T, RAW>(t, depth - 1)?;
    let left = t.push(Some(left));
    let right = bottom_up::<T, RAW>(t, depth - 1)?;
    let right = t.push(Some(right));
    let node = t.object(2, RAW)?;
    let (left, right) = (t.root(left), t.root(right));
    t.set(node, 0, left);
    t.set(node, 1, right);
    t.truncate(height);
    Ok(node)
}

/// Adds a tree below a node that has none, from its top down. May collect.
pub(super) fn top_down<T: Thread, const RAW: usize>(
    t: &mut T,
    depth: u32,
    node: Root,
) -> Result<(), Fault> {
    if depth == 0 {
        return Ok(());
    }
    let left = t.object(2, RAW)?;
    let parent = at(t, node)?;
    t.set(parent, 0, Some(left));
    let right = t.object(2, RAW)?;
    let parent = at(t, node)?;
    t.set(parent, 1, Some(right));
    if depth == 1 {
        return Ok(());
    }
    let height = t.height();
    let child = t.get(parent, 0);
    let child = t.push(child);
    top_down::<T, RAW>(t, depth - 1, child)?;
    let next = t.get(at(t, node)?, 1);
    t.set_root(child, next);
    top_down::<T, RAW>(t, depth - 1, child)?;
    t.truncate(height);
    Ok(())
}

/// Calls `f` with each node of a complete tree and its number, parents first. The children of node `n` are `2n + 1` and
/// `2n + 2`. May collect, but not within a call of `f`.
pub(super) fn visit<T: Thread>(
    t: &mut T,
    node: Root,
    depth: u32,
    number: u64,
    f: &mut impl FnMut(&mut T, T::Ref, u64),
) -> Result<(), Fault> {
    t.poll();
    if depth <= WITHOUT_POLL {
        let node = at(t, node)?;
        return visit_small(t, node, depth, number, f);
    }
    let height = t.height();
    let parent = at(t, node)?;
    f(t, parent, number);
    let child = t.get(parent, 0);
    let child = t.push(child);
    visit(t, child, depth - 1, 2 * number + 1, f)?;
    let next = t.get(at(t, node)?, 1);
    t.set_root(child, next);
    visit(t, child, depth - 1, 2 * number + 2, f)?;
    t.truncate(height);
    Ok(())
}

fn visit_small<T: Thread>(
    t: &mut T,
    node: T::Ref,
    depth: u32,
    number: u64,
    f: &mut impl FnMut(&mut T, T::Ref, u64),
) -> Result<(), Fault> {
    f(t, node, number);
    if depth > 0 {
        let left = there(t.get(node, 0))?;
        visit_small(t, left, depth - 1, 2 * number + 1, f)?;
        let right = there(t.get(node, 1))?;
        visit_small(t, right, depth - 1, 2 * number + 2, f)?;
    }
    Ok(())
}

/// Counts the nodes of a tree that is `depth` deep, or less where something is wrong. May collect.
pub(super) fn count<T: Thread>(t: &mut T, node: Root, depth: u32) -> Result<u64, Fault> {
    t.poll();
    if depth <= WITHOUT_POLL {
        let node = at(t, node)?;
        return Ok(count_small(t, node));
    }
    let height = t.height();
    let child = t.get(at(t, node)?, 0);
    let child = t.push(child);
    let mut nodes = 1 + count(t, child, depth - 1)?;
    let next = t.get(at(t, node)?, 1);
    t.set_root(child, next);
    nodes += count(t, child, depth - 1)?;
    t.truncate(height);
    Ok(nodes)
}

fn count_small<T: Thread>(t: &T, node: T::Ref) -> u64 {
    match (t.get(node, 0), t.get(node, 1)) {
        (Some(left), Some(right)) => 1 + count_small(t, left) + count_small(t, right),
        _ => 1,
    }
}

/// Disposes of a tree.
#[inline]
pub(super) fn dispose<T: Thread>(t: &mut T, node: T::Ref) {
    if T::MANUAL {
        dispose_nodes(t, node);
    }
}

fn dispose_nodes<T: Thread>(t: &mut T, node: T::Ref) {
    if let Some(left) = t.get(node, 0) {
        dispose_nodes(t, left);
    }
    if let Some(right) = t.get(node, 1) {
        dispose_nodes(t, right);
    }
    t.dispose(node);
}
