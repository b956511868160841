//! `fragment`: survivors that are everywhere, after the adversary of Robson (1971, 1974).
//!
//! A round allocates objects of one size, then drops all but each eighth, so that something lives in nearly every line and
//! page. The next round has larger objects, which do not fit between these. A pass has rounds from 16 to 4096 bytes; the
//! survivors of a round live until the same round of the next pass. Live are at most two and a half times what a round
//! allocates. A runtime that never moves an object has to leave most of its memory unused.

use super::checksum::Checksum;
use super::random::mix;
use super::slices::Slices;
use super::{Fault, Outcome, POLL, Settings, there};
use crate::runtime::Thread;

/// Sizes of the objects of the rounds, headers not counted.
const SIZES: [usize; 12] = [16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 2048, 4096];
const PASSES: usize = 8;
/// One object in this many survives.
const SPACING: usize = 8;

/// Runs it.
pub(super) fn run<T: Thread>(t: &mut T, settings: &Settings) -> Result<Outcome, Fault> {
    let budget = settings.count(32 << 20, 256 << 10);
    let count = |size: usize| budget / (size + 8);
    let bottom = t.height();
    let mut sum = Checksum::new();

    let all = Slices::new(t, count(SIZES[0]))?;
    let mut allocated_bytes = all.bytes();
    let mut survivors = [all; SIZES.len()];
    for (round, size) in SIZES.into_iter().enumerate() {
        survivors[round] = Slices::new(t, count(size).div_ceil(SPACING))?;
        allocated_bytes += survivors[round].bytes();
    }

    for pass in 0..PASSES {
        for (round, size) in SIZES.into_iter().enumerate() {
            let kept = survivors[round];
            let objects = count(size);
            let seed = mix(settings.seed ^ (pass * SIZES.len() + round) as u64);
            for index in 0..objects {
                let object = t.object(1, size - 8)?;
                t.set_raw(object, 0, seed ^ index as u64);
                all.set(t, index, Some(object))?;
            }
            allocated_bytes += (objects * size) as u64;
            // Which ones survive differs from pass to pass. Each refers to the one before it.
            let mut next = 0;
            for index in 0..objects {
                if index.is_multiple_of(POLL) {
                    t.poll();
                }
                let object = there(all.get(t, index)?)?;
                all.set(t, index, None)?;
                if index % SPACING != pass % SPACING {
                    t.dispose(object);
                    continue;
                }
                if let Some(old) = kept.get(t, next)? {
                    t.dispose(old);
                }
                if next > 0 {
                    let before = kept.get(t, next - 1)?;
                    t.set(object, 0, before);
                }
                kept.set(t, next, Some(object))?;
                next += 1;
            }
            // A pass may have one survivor less than the one before it.
            for index in next..kept.len() {
                if let Some(old) = kept.get(t, index)? {
                    t.dispose(old);
                    kept.set(t, index, None)?;
                }
            }
        }
        for kept in survivors {
            add_survivors(t, kept, &mut sum)?;
        }
    }

    for kept in survivors {
        kept.dispose(t)?;
    }
    all.dispose(t)?;
    t.finish(bottom);
    Ok(Outcome {
        checksum: sum.finish(),
        allocated_bytes,
        ..Outcome::default()
    })
}

fn add_survivors<T: Thread>(t: &mut T, kept: Slices, sum: &mut Checksum) -> Result<(), Fault> {
    for index in 0..kept.len() {
        if index.is_multiple_of(POLL) {
            t.poll();
        }
        let Some(object) = kept.get(t, index)? else {
            sum.add(index as u64);
            continue;
        };
        sum.add(t.raw(object, 0));
        if index > 0 {
            let before = there(t.get(object, 0))?;
            let expected = there(kept.get(t, index - 1)?)?;
            sum.add(u64::from(t.same(before, expected)));
        }
    }
    Ok(())
}
