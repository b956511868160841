//! `churn`: a heap whose references change all the time.
//!
//! A random graph of nodes with four references and 16 raw bytes. Of 16 operations 8 read a reference, 5 write one, 3
//! replace a node by a new one, which takes over its references. A replaced node lives on as long as other nodes refer to
//! it. All threads do the same, each with a graph of its own.
//!
//! The first raw word of a node is its number; the checksum is made of the numbers that were read and of those in the
//! graph at the end. The second one counts the references to the node where memory is freed by hand: a replaced node has
//! no references of its own, so that counting finds every dead one.

use super::checksum::Checksum;
use super::random::{Random, below};
use super::slices::Slices;
use super::{Fault, Outcome, POLL, Settings, there};
use crate::runtime::Thread;

const FIELDS: usize = 4;
const RAW: usize = 16;
const NUMBER: usize = 0;
const COUNT: usize = 8;

/// There is one more reference to a node.
#[inline(always)]
fn retain<T: Thread>(t: &mut T, node: T::Ref) {
    if T::MANUAL {
        let count = t.raw(node, COUNT) + 1;
        t.set_raw(node, COUNT, count);
    }
}

/// There is one less.
#[inline(always)]
fn release<T: Thread>(t: &mut T, node: T::Ref) {
    if T::MANUAL {
        let count = t.raw(node, COUNT) - 1;
        t.set_raw(node, COUNT, count);
        if count == 0 {
            t.dispose(node);
        }
    }
}

/// Runs it.
pub(super) fn run<T: Thread>(t: &mut T, settings: &Settings) -> Result<Outcome, Fault> {
    let nodes = settings.count(100_000, 512);
    let operations = settings.count(20_000_000, 40_000);
    let mut random = Random::new(settings.seed);
    let mut sum = Checksum::new();
    let bottom = t.height();
    let table = Slices::new(t, nodes)?;

    for number in 0..nodes {
        let node = t.object(FIELDS, RAW)?;
        t.set_raw(node, NUMBER, number as u64);
        retain(t, node);
        table.set(t, number, Some(node))?;
    }
    for number in 0..nodes {
        if number.is_multiple_of(POLL) {
            t.poll();
        }
        let node = there(table.get(t, number)?)?;
        for field in 0..FIELDS {
            let other = there(table.get(t, random.below(nodes))?)?;
            t.set(node, field, Some(other));
            retain(t, other);
        }
    }

    let mut number = nodes as u64;
    for operation in 0..operations {
        if operation.is_multiple_of(POLL / 4) {
            t.poll();
        }
        let bits = random.next();
        let index = below(bits, nodes);
        let field = bits as usize % FIELDS;
        match (bits >> 8) % 16 {
            0..8 => {
                let node = there(table.get(t, index)?)?;
                let other = there(t.get(node, field))?;
                sum.add(t.raw(other, NUMBER));
            }
            8..13 => {
                let node = there(table.get(t, index)?)?;
                let other = there(table.get(t, random.below(nodes))?)?;
                // First the new one: it may be the old one.
                retain(t, other);
                if T::MANUAL {
                    let old = there(t.get(node, field))?;
                    release(t, old);
                }
                t.set(node, field, Some(other));
            }
            _ => {
                let new = t.object(FIELDS, RAW)?;
                t.set_raw(new, NUMBER, number);
                number += 1;
                retain(t, new);
                let old = there(table.get(t, index)?)?;
                for field in 0..FIELDS {
                    let other = t.get(old, field);
                    t.set(new, field, other);
                    t.set(old, field, None);
                }
                table.set(t, index, Some(new))?;
                release(t, old);
            }
        }
    }

    for index in 0..nodes {
        if index.is_multiple_of(POLL) {
            t.poll();
        }
        let node = there(table.get(t, index)?)?;
        sum.add(t.raw(node, NUMBER));
        for field in 0..FIELDS {
            let other = there(t.get(node, field))?;
            sum.add(t.raw(other, NUMBER));
        }
    }

    if T::MANUAL {
        // The nodes of the table count the reference from there, and so stay until the table's end.
        for index in 0..nodes {
            let node = there(table.get(t, index)?)?;
            for field in 0..FIELDS {
                let other = there(t.get(node, field))?;
                release(t, other);
            }
        }
    }
    let bytes = table.bytes();
    table.dispose(t)?;
    t.finish(bottom);
    Ok(Outcome {
        checksum: sum.finish(),
        allocated_bytes: number * (FIELDS * 8 + RAW) as u64 + bytes,
        ..Outcome::default()
    })
}
