//! `alloc`: the cost of an object that dies at once.
//!
//! Small objects are allocated in a loop; one in 65,536 is kept for a while, in a ring of 64 roots. Each kept object refers
//! to the one that was kept before it, as long as that is in the ring. The checksum is made of the comparisons of these
//! references with the ring.

use core::hint::black_box;

use super::checksum::Checksum;
use super::{Fault, Outcome, Settings, at};
use crate::runtime::{Full, Thread};

const RING: usize = 64;
/// One object in this many is kept, or more when there are few objects.
const PERIOD: usize = 1 << 16;

/// Allocates objects that die at once.
#[inline(always)]
fn allocate<T: Thread>(t: &mut T, count: usize, references: usize, raw: usize) -> Result<(), Full> {
    for _ in 0..count {
        let object = t.object(references, raw)?;
        if T::MANUAL {
            // Without this the compiler may leave out the allocation and the disposal.
            t.dispose(black_box(object));
        }
    }
    Ok(())
}

/// Runs it.
pub(super) fn run<T: Thread>(t: &mut T, settings: &Settings) -> Result<Outcome, Fault> {
    let count = settings.count(100_000_000, 100_000);
    let payload = (settings.object_bytes.saturating_sub(8))
        .next_multiple_of(8)
        .max(8);
    let references = if payload == 8 { 1 } else { 2 };
    let raw = payload - references * 8;
    let bottom = t.height();
    for _ in 0..RING {
        t.push(None);
    }
    let place = |number: usize| crate::runtime::Root(bottom + number % RING);

    let period = (count / (16 * RING)).clamp(RING, PERIOD);
    let periods = count / period;
    for number in 0..periods {
        // The usual size as constants, as a compiler would have them.
        match (references, raw) {
            (2, 0) => allocate(t, period - 1, 2, 0)?,
            _ => allocate(t, period - 1, references, raw)?,
        }
        let kept = t.object(references, raw)?;
        // The oldest one leaves the ring, and the one after it forgets it.
        if let Some(oldest) = t.root(place(number)) {
            let next = at(t, place(number + 1))?;
            t.set(next, 0, None);
            t.dispose(oldest);
        }
        if number > 0 {
            let before = t.root(place(number - 1));
            t.set(kept, 0, before);
        }
        if raw > 0 {
            t.set_raw(kept, 0, number as u64 ^ settings.seed);
        }
        t.set_root(place(number), Some(kept));
    }
    allocate(t, count - periods * period, references, raw)?;

    let mut sum = Checksum::new();
    sum.add(count as u64);
    for number in periods.saturating_sub(RING)..periods {
        let kept = at(t, place(number))?;
        let same = match t.get(kept, 0) {
            None => 2,
            Some(before) => u64::from(t.same(before, at(t, place(number + RING - 1))?)),
        };
        sum.add(number as u64 * 4 + same);
        if raw > 0 {
            sum.add(t.raw(kept, 0));
        }
    }
    if T::MANUAL {
        for number in 0..RING {
            if let Some(kept) = t.root(place(number)) {
                t.dispose(kept);
            }
        }
    }
    t.finish(bottom);
    Ok(Outcome {
        checksum: sum.finish(),
        allocated_bytes: (count * payload) as u64,
        ..Outcome::default()
    })
}
