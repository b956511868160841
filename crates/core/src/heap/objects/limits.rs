//! The soft and the hard limit of a heap, and where they come from if nobody says them.

use crate::bugs::{Bug, is_on};
use crate::error::LimitError;
use crate::space::pages::PAGE;
use core::sync::atomic::{AtomicUsize, Ordering};
use heapwright_os::Memory;
use std::sync::{Mutex, PoisonError};

/// The least hard limit that is not asked for, in bytes: whatever files say.
const LEAST_HARD: usize = 16 << 20;

/// The limits of a heap, in bytes; 0: none is asked for, and the system's are followed.
///
/// ```
/// use heapwright::example::{Pairs, push};
/// use heapwright::{AllocError, Limits};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("marksweep")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// heap.set_limits(Limits {
///     soft: 1 << 20,
///     hard: 2 << 20,
/// })?;
/// let error = loop {
///     if let Err(error) = push(&mut mutator, 7) {
///         break error;
///     }
/// };
/// assert!(matches!(error, AllocError::OutOfMemory { .. }));
/// // More room, and it goes on. Less than what lives is refused.
/// heap.set_limits(Limits { soft: 0, hard: 8 << 20 })?;
/// push(&mut mutator, 8)?;
/// assert!(heap.set_limits(Limits { soft: 0, hard: 64 << 10 }).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Above it the heap collects harder before it grows, and keeps no memory that it does not need. Without one, seven
    /// eighths of the control group's `memory.high`, if there is that.
    pub soft: usize,
    /// It is never passed: an allocation that does not fit after all that collecting can do is
    /// [`crate::AllocError::OutOfMemory`]. Without one, three quarters of the least of what the machine has, the control groups
    /// allow, and `ulimit` allows.
    pub hard: usize,
}

/// The limits in force, in pages; `usize::MAX`: none.
#[derive(Debug)]
pub(super) struct Bounds {
    soft: AtomicUsize,
    hard: AtomicUsize,
    /// What was asked for, and what the system said last.
    source: Mutex<(Limits, Memory)>,
    /// Bytes of addresses that the heap reserved.
    range: usize,
}

impl Bounds {
    /// Limits that were asked for, before the system was looked at.
    pub(super) fn new(asked: Limits, range: usize) -> Result<Self, LimitError> {
        let bounds = Self {
            soft: AtomicUsize::new(usize::MAX),
            hard: AtomicUsize::new(usize::MAX),
            source: Mutex::new((Limits::default(), Memory::default())),
            range,
        };
        bounds.ask(asked, 0)?;
        Ok(bounds)
    }

    pub(super) fn soft(&self) -> usize {
        self.soft.load(Ordering::Relaxed)
    }

    pub(super) fn hard(&self) -> usize {
        if is_on(Bug::HardLimitPassed) {
            return usize::MAX;
        }
        self.hard.load(Ordering::Relaxed)
    }

    /// In bytes; 0: none.
    pub(super) fn limits(&self) -> Limits {
        let bytes = |pages: usize| pages.checked_mul(PAGE).unwrap_or(0);
        Limits {
            soft: bytes(self.soft()),
            hard: bytes(self.hard()),
        }
    }

    /// Sets limits, if no more than the hard one is in use: `reserved` pages and the plan's reserve.
    pub(super) fn ask(&self, asked: Limits, reserved: usize) -> Result<(), LimitError> {
        let Limits { soft, hard } = asked;
        if hard != 0 && soft > hard {
            return Err(LimitError::SoftAboveHard { soft, hard });
        }
        if hard > self.range {
            let range = self.range;
            return Err(LimitError::BeyondRange { hard, range });
        }
        if hard != 0 && hard.div_ceil(PAGE) < reserved {
            let used = reserved.saturating_mul(PAGE);
            return Err(LimitError::BelowUse { hard, used });
        }
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        source.0 = asked;
        self.settle(&source);
        Ok(())
    }

    /// The system says something else now: true if that changed a limit.
    pub(super) fn follow(&self, memory: Memory) -> bool {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let before = (self.soft(), self.hard());
        source.1 = memory;
        self.settle(&source);
        before != (self.soft(), self.hard())
    }

    /// The lock, for a fork.
    pub(super) fn hold(&self) -> impl Sized + '_ {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, (asked, memory): &(Limits, Memory)) {
        let pages = |bytes: usize| bytes.div_ceil(PAGE).max(8);
        let hard = match (asked.hard, memory.usable()) {
            (0, None) => usize::MAX,
            (0, Some(usable)) => pages((usable / 4 * 3).max(LEAST_HARD)),
            (hard, _) => pages(hard),
        };
        let soft = match (asked.soft, memory.group_high) {
            (0, None) => usize::MAX,
            (0, Some(high)) => pages(high / 8 * 7),
            (soft, _) => pages(soft),
        };
        self.hard.store(hard, Ordering::Relaxed);
        self.soft.store(soft, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MIB: usize = 1 << 20;

    fn bounds(soft: usize, hard: usize) -> Result<Bounds, LimitError> {
        Bounds::new(Limits { soft, hard }, 1 << 30)
    }

    #[test]
    fn limits_that_cannot_be_are_refused_and_the_old_ones_stay() {
        assert_eq!(
            bounds(2, 1).unwrap_err(),
            LimitError::SoftAboveHard { soft: 2, hard: 1 }
        );
        let b = bounds(10 * MIB, 20 * MIB).unwrap();
        let before = b.limits();
        let ask = |soft, hard, reserved| b.ask(Limits { soft, hard }, reserved);
        assert!(matches!(
            ask(30 * MIB, 20 * MIB, 0),
            Err(LimitError::SoftAboveHard { .. })
        ));
        assert!(matches!(
            ask(0, 2 << 30, 0),
            Err(LimitError::BeyondRange { .. })
        ));
        let used = 5 * MIB / PAGE;
        assert_eq!(
            ask(0, 4 * MIB, used),
            Err(LimitError::BelowUse {
                hard: 4 * MIB,
                used: 5 * MIB
            })
        );
        assert_eq!(b.limits(), before);
        ask(0, 5 * MIB, used).unwrap();
        assert_eq!(
            b.limits(),
            Limits {
                soft: 0,
                hard: 5 * MIB
            }
        );
    }

    #[test]
    fn without_limits_the_systems_are_followed() {
        let b = bounds(0, 0).unwrap();
        assert_eq!(b.limits(), Limits::default());
        let memory = Memory {
            physical: Some(16 << 30),
            ..Memory::default()
        };
        assert!(b.follow(memory));
        assert_eq!(b.limits().hard, 12 << 30);
        assert!(!b.follow(memory));
        let in_group = Memory {
            group: Some(512 * MIB),
            group_high: Some(400 * MIB),
            ..memory
        };
        assert!(b.follow(in_group));
        let limits = Limits {
            soft: 350 * MIB,
            hard: 384 * MIB,
        };
        assert_eq!(b.limits(), limits);
        // A group that leaves next to nothing.
        b.follow(Memory {
            group: Some(1),
            ..memory
        });
        assert_eq!(b.limits().hard, LEAST_HARD);
        // What is asked for goes first.
        b.ask(
            Limits {
                soft: 1 << 20,
                hard: 2 << 20,
            },
            0,
        )
        .unwrap();
        assert!(!b.follow(in_group));
        b.ask(Limits::default(), 0).unwrap();
        assert_eq!(b.limits(), limits);
    }
}
