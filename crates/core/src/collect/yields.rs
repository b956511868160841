//! Random delays: with the option `yields`, threads of the heap let others go first at about one in so many of the points where
//! the order of threads may matter. So orders are tried that are rare on a machine with few processors.
//!
//! The points: where a worker looks at an edge, has claimed an object, and has copied it; where it shares, and takes what others
//! share; where a mutator allocates by the slow path or stops at a poll; before and after the world is stopped and started. The
//! tracing loop for objects is compiled twice, with and without them, so that they cost nothing when the option is off.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// One in so many delays is a sleep; the others only let another thread run.
const SLEEPS: u64 = 8;

/// A thread's dice. Others may throw them as well: then nobody knows who got what.
#[derive(Debug, Default)]
pub struct Yields {
    every: u64,
    state: AtomicU64,
}

impl Yields {
    /// For the option's value, and one of several threads: each has a sequence of its own, the same in each run.
    #[must_use]
    pub const fn new(every: usize, thread: usize) -> Self {
        let seed = (thread as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            every: every as u64,
            state: AtomicU64::new(seed | 1),
        }
    }

    /// Is the option on?
    #[inline(always)]
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.every != 0
    }

    /// A point at which another thread may go first.
    #[inline(always)]
    pub fn point(&self) {
        if self.is_on() {
            self.throw();
        }
    }

    #[cold]
    #[inline(never)]
    fn throw(&self) {
        let mut x = self.state.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.state.store(x, Ordering::Relaxed);
        let x = x >> 16;
        if !x.is_multiple_of(self.every) {
            return;
        }
        match x / self.every % SLEEPS {
            0 => thread::sleep(Duration::from_micros(20 + x % 64)),
            _ => thread::yield_now(),
        }
    }

    /// What the pool of workers calls where one takes what others share.
    #[must_use]
    pub fn for_pool(every: usize, workers: usize) -> Option<heapwright_work::Delay> {
        if every == 0 {
            return None;
        }
        let dice: Vec<Self> = (0..workers).map(|n| Self::new(every, 64 + n)).collect();
        Some(Arc::new(move |worker| {
            if let Some(own) = dice.get(worker) {
                own.point();
            }
        }))
    }
}
