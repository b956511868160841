//! `large`: objects for which a collector has a space of their own.
//!
//! Objects of 64 KiB to 4 MiB of raw bytes, 16 of which live at a time. A word of each page is written when an object is
//! new and read when it leaves.

use super::checksum::Checksum;
use super::random::{Random, mix};
use super::{Fault, Outcome, Settings, at};
use crate::runtime::{Root, Thread};

const RING: usize = 16;
const PAGE: usize = 4096;
const SMALLEST: u64 = 64 << 10;

/// Adds a word of each page of an object, and disposes of it.
fn finish<T: Thread>(t: &mut T, object: T::Ref, sum: &mut Checksum) {
    let length = t.raw_bytes(object);
    sum.add(length as u64);
    for offset in (0..length).step_by(PAGE) {
        sum.add(t.raw(object, offset));
    }
    t.dispose(object);
}

/// Runs it.
pub(super) fn run<T: Thread>(t: &mut T, settings: &Settings) -> Result<Outcome, Fault> {
    let count = settings.count(2000, 24);
    let mut random = Random::new(settings.seed);
    let mut sum = Checksum::new();
    let mut allocated_bytes = 0;
    let bottom = t.height();
    for _ in 0..RING {
        t.push(None);
    }

    for number in 0..count {
        let place = Root(bottom + number % RING);
        if let Some(oldest) = t.root(place) {
            finish(t, oldest, &mut sum);
            t.set_root(place, None);
        }
        // All powers of two are as frequent.
        let bits = random.next();
        let base = SMALLEST << (bits % 6);
        let length = (base + (bits >> 8) % base) as usize & !7;
        let object = t.bytes(length)?;
        t.set_root(place, Some(object));
        allocated_bytes += length as u64;
        let seed = mix(settings.seed ^ number as u64);
        for offset in (0..length).step_by(PAGE) {
            t.set_raw(object, offset, seed.wrapping_add(offset as u64));
        }
    }
    for place in 0..RING {
        t.poll();
        let object = at(t, Root(bottom + place))?;
        finish(t, object, &mut sum);
    }
    t.finish(bottom);
    Ok(Outcome {
        checksum: sum.finish(),
        allocated_bytes,
        ..Outcome::default()
    })
}
