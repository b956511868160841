//! What to do for a heap that nobody works on: how much idle memory to give back now, and whether to collect.
//!
//! *Idle* memory is free and occupies memory of the machine. A program that allocates will need it again: what it may allocate
//! before the next collection is not surplus. One that has not allocated for a second needs none. Surplus goes back by halves, in
//! the time that the option `decay` says, and no faster than `rate`: so a program that pauses for a moment loses little, and the
//! system is not asked for gigabytes at once. When memory is scarce, or the heap is above its soft limit, it goes at once.
//!
//! A heap that became quiet is collected once, as nobody else would do it: then memory that died since goes back too. Again only
//! if something happened since: and the less such collections free, the longer until the next, and they take at most a twentieth
//! of a processor.
//!
//! All of it sees numbers and no heap.

use crate::alloc::BLOCK_BYTES;
use crate::options::{Decay, Options};
use heapwright_os::Pressure;

/// A program that has not allocated a block for so long, in nanoseconds, is quiet.
const QUIET_NS: u64 = 1_000_000_000;
/// Heaps with less in use, in bytes, are not worth a collection that nobody asked for.
const WORTH: usize = 4 << 20;
/// Between two such collections there are so many times what the last one took,
const TIMES: u64 = 20;
/// and so many nanoseconds, twice as many for each that freed little,
const LEAST_WAIT_NS: u64 = 2_000_000_000;
/// up to so many.
const MOST_WAIT_NS: u64 = 64_000_000_000;
/// Less surplus than this goes back in one go, in bytes.
const SMALL: usize = 1 << 20;
/// Without the option `rate` so much may go back in a second at least, in bytes.
const LEAST_RATE: usize = 256 << 20;
/// In so many seconds all is to be over.
const SECONDS: usize = 3;
/// After the system refused, it is left alone for so many nanoseconds.
const REFUSED_NS: u64 = 10_000_000_000;

/// A heap in numbers. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct View {
    pub(super) now_ns: u64,
    /// In use.
    pub(super) used: usize,
    /// Free, and in the machine's memory.
    pub(super) idle: usize,
    /// What may be in use before the next collection.
    pub(super) limit: usize,
    /// Grows with each block that mutators take.
    pub(super) blocks: u64,
    /// Grows with all that may change what lives.
    pub(super) changes: u64,
    /// Its value at the last full collection.
    pub(super) changes_at_full: u64,
    /// How many full collections there were,
    pub(super) full: u64,
    /// and how long the last one took, in nanoseconds.
    pub(super) full_ns: u64,
    pub(super) pressure: Pressure,
    pub(super) above_soft: bool,
    /// The plan collects.
    pub(super) collects: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Bytes to give back.
    pub(super) give: usize,
    /// A collection is wanted.
    pub(super) collect: bool,
    /// There will be something to do later, though nobody says so.
    pub(super) more: bool,
}

/// What is remembered between two looks.
#[derive(Debug)]
pub(super) struct Scavenging {
    decay: Decay,
    rate: usize,
    last_ns: u64,
    blocks: u64,
    /// When a block was taken last.
    active_ns: u64,
    /// The most surplus since there was none.
    peak: usize,
    /// When a collection was asked for last, and what was in use then.
    asked_ns: u64,
    asked_used: usize,
    asked_full: u64,
    asked_blocks: u64,
    wait_ns: u64,
    refused_ns: u64,
}

impl Scavenging {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            decay: options.decay,
            rate: options.rate,
            last_ns: 0,
            blocks: u64::MAX,
            active_ns: 0,
            peak: 0,
            asked_ns: 0,
            asked_used: 0,
            asked_full: 0,
            asked_blocks: 0,
            wait_ns: 0,
            refused_ns: 0,
        }
    }

    /// One look at the heap.
    pub(super) fn step(&mut self, view: &View) -> Step {
        let Decay::Half(half_ms) = self.decay else {
            return Step::default();
        };
        let now = view.now_ns;
        let passed = now.saturating_sub(self.last_ns).min(QUIET_NS);
        self.last_ns = now;
        if view.blocks != self.blocks {
            self.blocks = view.blocks;
            self.active_ns = now;
        }
        let quiet = now.saturating_sub(self.active_ns) >= QUIET_NS;
        let hurry = view.pressure > Pressure::None || view.above_soft;
        let collect = self.collect(view, quiet);
        let needed = if quiet || hurry {
            0
        } else {
            view.limit.saturating_sub(view.used)
        };
        let surplus = view.idle.saturating_sub(needed);
        let give = if now < self.refused_ns {
            0
        } else {
            self.share(surplus, passed, if hurry { 0 } else { half_ms })
        };
        let may_collect = view.collects
            && view.used >= WORTH
            && view.changes != view.changes_at_full
            && self.wait_ns < MOST_WAIT_NS;
        Step {
            give,
            collect,
            more: !quiet || surplus > give || may_collect || collect,
        }
    }

    /// The part of the surplus that goes back now.
    fn share(&mut self, surplus: usize, passed_ns: u64, half_ms: usize) -> usize {
        self.peak = if surplus == 0 {
            0
        } else {
            self.peak.max(surplus)
        };
        if half_ms == 0 && self.rate == 0 {
            return surplus;
        }
        let rate = match self.rate {
            0 => LEAST_RATE.max(self.peak / SECONDS),
            rate => rate,
        };
        let most = (rate as u128 * u128::from(passed_ns) / 1_000_000_000) as usize;
        let part = if half_ms == 0 || surplus <= SMALL {
            surplus
        } else {
            let halves = passed_ns as f64 / (half_ms as f64 * 1e6);
            (surplus as f64 * (1.0 - left_after(halves))) as usize
        };
        part.min(most)
    }

    fn collect(&mut self, view: &View, quiet: bool) -> bool {
        let now = view.now_ns;
        // Whether the last one was worth it is known when it has run.
        if self.asked_ns != 0 && view.full != self.asked_full {
            let freed = self.asked_used.saturating_sub(view.used);
            self.wait_ns = if freed >= self.asked_used / 8 {
                0
            } else {
                (self.wait_ns * 2).clamp(LEAST_WAIT_NS, MOST_WAIT_NS)
            };
            self.asked_full = view.full;
        }
        // A program that allocated a good part of its heap since is another one.
        let allocated = view.blocks.saturating_sub(self.asked_blocks);
        if allocated.saturating_mul(BLOCK_BYTES as u64) >= view.used as u64 / 16 {
            self.wait_ns = 0;
        }
        let scarce = view.pressure > Pressure::None;
        let wait = self
            .wait_ns
            .max(LEAST_WAIT_NS)
            .max(view.full_ns.saturating_mul(TIMES));
        let due = view.collects
            && view.used >= WORTH
            && view.changes != view.changes_at_full
            && (quiet || scarce)
            && (self.asked_ns == 0 || now.saturating_sub(self.asked_ns) >= wait);
        if due {
            self.asked_ns = now;
            self.asked_used = view.used;
            self.asked_full = view.full;
            self.asked_blocks = view.blocks;
        }
        due
    }

    /// The system did not take what it was given.
    pub(super) fn refused(&mut self, now_ns: u64) {
        self.refused_ns = now_ns.saturating_add(REFUSED_NS);
    }
}

/// What is left of 1 after so many halvings: to a five-hundredth. (The power function would
/// bring the mathematical library into every program that uses libgc: 300 KB that it may not have otherwise.)
fn left_after(halves: f64) -> f64 {
    let whole = halves as u64;
    let part = halves - whole as f64;
    if whole >= 64 {
        return 0.0;
    }
    // The first terms of the exponential function's series.
    let y = part * core::f64::consts::LN_2;
    (1.0 - y * (1.0 - y / 2.0 * (1.0 - y / 3.0 * (1.0 - y / 4.0)))) / (1u64 << whole) as f64
}

#[cfg(test)]
#[path = "decay_tests.rs"]
mod tests;
