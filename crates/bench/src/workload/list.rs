//! `list`: the longest path that there can be.
//!
//! A singly linked list is built, collected at its full length, and added up. A collector that marks with recursion ends
//! here, and one that marks with several threads cannot use them.

use super::checksum::Checksum;
use super::random::mix;
use super::{Fault, Outcome, POLL, Settings, there};
use crate::runtime::Thread;

/// Runs it.
pub(super) fn run<T: Thread>(t: &mut T, settings: &Settings) -> Result<Outcome, Fault> {
    let count = settings.count(10_000_000, 10_000);
    let seed = mix(settings.seed);
    let head = t.push(None);
    for number in 0..count as u64 {
        let element = t.object(1, 8)?;
        t.set_raw(element, 0, seed ^ number);
        let next = t.root(head);
        t.set(element, 0, next);
        t.set_root(head, Some(element));
    }

    t.collect();

    let mut sum = Checksum::new();
    let cursor = t.root(head);
    let cursor = t.push(cursor);
    let mut left = count;
    while left > 0 {
        t.poll();
        let piece = left.min(POLL);
        let mut element = t.root(cursor);
        for _ in 0..piece {
            let this = there(element)?;
            sum.add(t.raw(this, 0));
            element = t.get(this, 0);
        }
        t.set_root(cursor, element);
        left -= piece;
    }
    sum.add(u64::from(t.root(cursor).is_none()));

    if T::MANUAL {
        let mut element = t.root(head);
        while let Some(this) = element {
            element = t.get(this, 0);
            t.dispose(this);
        }
    }
    t.finish(head.0);
    Ok(Outcome {
        checksum: sum.finish(),
        allocated_bytes: count as u64 * 16,
        ..Outcome::default()
    })
}
