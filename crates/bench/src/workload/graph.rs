//! `graph` and `graphseq`: what a full collection costs.
//!
//! A graph of objects of three references and no raw bytes, all of them held by an array of arrays too, is collected four
//! times; nothing dies. In `graph` the references go to random objects, so that tracing misses the caches nearly always; in
//! `graphseq` they go to the next three objects in the order of allocation.
//!
//! Nothing in a node tells which one it is. The checksum is made of a sample of references, each compared with the node
//! that it must be by its place in the array.

use super::checksum::Checksum;
use super::random::{Random, below, mix};
use super::slices::Slices;
use super::{Fault, Outcome, POLL, Settings, there};
use crate::runtime::Thread;

const FIELDS: usize = 3;
const COLLECTIONS: usize = 4;

/// Where reference `field` of node `node` of `nodes` goes in `graph`.
#[inline]
pub(super) fn random(seed: u64, node: usize, field: usize, nodes: usize) -> usize {
    below(mix(mix(seed) ^ (node * FIELDS + field) as u64), nodes)
}

/// And in `graphseq`.
#[inline]
pub(super) fn neighbour(_: u64, node: usize, field: usize, nodes: usize) -> usize {
    (node + field + 1) % nodes
}

/// Runs it; `target` says where the references go.
pub(super) fn run<T: Thread>(
    t: &mut T,
    settings: &Settings,
    target: impl Fn(u64, usize, usize, usize) -> usize,
) -> Result<Outcome, Fault> {
    let nodes = settings.count(4_194_304, 2048);
    let seed = settings.seed;
    let bottom = t.height();
    let table = Slices::new(t, nodes)?;

    for index in 0..nodes {
        let node = t.object(FIELDS, 0)?;
        table.set(t, index, Some(node))?;
    }
    for index in 0..nodes {
        if index.is_multiple_of(POLL) {
            t.poll();
        }
        let node = there(table.get(t, index)?)?;
        for field in 0..FIELDS {
            let other = table.get(t, target(seed, index, field, nodes))?;
            t.set(node, field, other);
        }
    }

    for _ in 0..COLLECTIONS {
        t.collect();
    }

    let mut sum = Checksum::new();
    let mut choice = Random::new(seed ^ 0x67);
    for sample in 0..nodes / 4 {
        if sample.is_multiple_of(POLL) {
            t.poll();
        }
        let index = choice.below(nodes);
        let field = sample % FIELDS;
        let expected = target(seed, index, field, nodes);
        let node = there(table.get(t, index)?)?;
        let found = there(t.get(node, field))?;
        let other = there(table.get(t, expected)?)?;
        sum.add(expected as u64 ^ (u64::from(t.same(found, other)) << 63));
    }

    let (objects, bytes) = (nodes + table.objects(), table.bytes());
    table.dispose(t)?;
    t.finish(bottom);
    Ok(Outcome {
        checksum: sum.finish(),
        allocated_bytes: (nodes * FIELDS * 8) as u64 + bytes,
        traced_objects: objects as u64,
        ..Outcome::default()
    })
}
