//! `weak`: weak references to objects half of which live.
//!
//! A table of objects and a table of weak boxes that hold them. A round drops half of the objects, collects, and checks
//! through the boxes that all others are there, with the right contents; what else a box holds must be right too, but may
//! be gone or not. Then new objects and boxes take the places of the dropped ones.

use super::checksum::Checksum;
use super::random::mix;
use super::slices::Slices;
use super::{Fault, Outcome, POLL, Settings, there};
use crate::runtime::Thread;

const ROUNDS: u64 = 10;
const RAW: usize = 16;

/// Is the object dropped in this round?
#[inline]
fn dropped(settings: &Settings, round: u64, index: usize) -> bool {
    mix(mix(settings.seed ^ round) ^ index as u64) & 1 == 0
}

/// Puts a new object and a new weak box at `index`. May collect.
fn renew<T: Thread>(
    t: &mut T,
    objects: Slices,
    boxes: Slices,
    index: usize,
    contents: u64,
) -> Result<(), Fault> {
    let object = t.object(1, RAW)?;
    t.set_raw(object, 0, index as u64);
    t.set_raw(object, 8, contents);
    let root = t.push(Some(object));
    let weak = t.weak(root)?;
    let object = t.root(root);
    t.truncate(root.0);
    objects.set(t, index, object)?;
    if T::MANUAL
        && let Some(old) = boxes.get(t, index)?
    {
        t.dispose(old);
    }
    boxes.set(t, index, Some(weak))
}

/// Runs it.
pub(super) fn run<T: Thread>(t: &mut T, settings: &Settings) -> Result<Outcome, Fault> {
    let count = settings.count(200_000, 1024);
    let bottom = t.height();
    let objects = Slices::new(t, count)?;
    let boxes = Slices::new(t, count)?;
    let mut made = count as u64;
    let mut sum = Checksum::new();
    for index in 0..count {
        renew(t, objects, boxes, index, mix(settings.seed ^ index as u64))?;
    }

    for round in 0..ROUNDS {
        for index in 0..count {
            if index.is_multiple_of(POLL) {
                t.poll();
            }
            if dropped(settings, round, index) {
                if T::MANUAL {
                    let object = there(objects.get(t, index)?)?;
                    t.dispose(object);
                }
                objects.set(t, index, None)?;
            }
        }

        t.collect();

        for index in 0..count {
            if index.is_multiple_of(POLL) {
                t.poll();
            }
            let weak = there(boxes.get(t, index)?)?;
            let held = t.weak_get(weak);
            match (objects.get(t, index)?, held) {
                (Some(object), Some(held)) => {
                    sum.add(u64::from(t.same(object, held)));
                    sum.add(t.raw(held, 0));
                    sum.add(t.raw(held, 8));
                }
                (Some(_), None) => return Err(Fault::Lost),
                (None, Some(held)) if t.raw(held, 0) != index as u64 => return Err(Fault::Lost),
                (None, _) => {}
            }
        }

        for index in 0..count {
            if index.is_multiple_of(POLL) {
                t.poll();
            }
            if objects.get(t, index)?.is_none() {
                renew(t, objects, boxes, index, mix(settings.seed ^ made))?;
                made += 1;
            }
        }
    }

    let bytes = objects.bytes() + boxes.bytes();
    objects.dispose(t)?;
    boxes.dispose(t)?;
    t.finish(bottom);
    Ok(Outcome {
        checksum: sum.finish(),
        allocated_bytes: made * (8 + RAW as u64 + 8) + bytes,
        ..Outcome::default()
    })
}
