//! Poison: with the option `poison`, memory that holds no object is filled with a pattern that is no reference. So whoever still
//! reads a dead object sees the pattern, and whoever still writes to one leaves a trace that the verifier finds.
//!
//! | memory | filled | looked at, with the option `verify` |
//! |---|---|---|
//! | free pages and blocks | when they are given back | at each collection, and when they are taken |
//! | free cells | when they die, or are freed | at each collection, and when they are taken |
//! | free lines | by the sweep | at the next collection if nobody took the block, and when they are taken |
//! | the end of a block behind objects that slid | after the slide | not at all |
//! | the end of a block behind copies | it was free before | not at all |
//!
//! What is taken is cleaned as ever: the pattern takes the place of what the dead left there. A page that comes from the system
//! is zero, and filled when it is taken.
//!
//! Not filled are: the dead in a block of `Copy` or `Compact` that is held, since nobody knows where they end; what went back to
//! the system, which is zero; and the pages of the plan PageProtect, which cannot be touched at all.

use crate::event::Violation;
use core::sync::atomic::{AtomicUsize, Ordering};
use heapwright_address::Address;

const BYTE: u8 = 0xdb;
/// The pattern, as a word: it is odd, and no address of a program.
pub const PATTERN: usize = usize::from_ne_bytes([BYTE; size_of::<usize>()]);

/// What is wrong when free memory does not hold the pattern.
const WRITTEN: &str =
    "free memory was written to: somebody still uses an object that is dead (option poison)";

/// Is this the first word of a dead object? (A mark may have been set in it since.)
#[must_use]
pub(crate) const fn is_dead(word: usize) -> bool {
    word >> 8 == PATTERN >> 8
}

/// What the spaces of a heap share whose option `poison` is on.
#[derive(Debug)]
pub struct Poison {
    looks: bool,
    /// Places that were found written to since somebody asked; and the last of them.
    found: AtomicUsize,
    place: AtomicUsize,
    word: AtomicUsize,
}

impl Poison {
    /// With `looks`, memory is looked at when it is taken.
    #[must_use]
    pub const fn new(looks: bool) -> Self {
        Self {
            looks,
            found: AtomicUsize::new(0),
            place: AtomicUsize::new(0),
            word: AtomicUsize::new(0),
        }
    }

    /// Fills memory.
    ///
    /// # Safety
    /// `[start, end)` is mapped memory of the caller that holds no object.
    pub unsafe fn fill(&self, start: usize, end: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            core::ptr::write_bytes(
                core::ptr::with_exposed_provenance_mut::<u8>(start),
                BYTE,
                end - start,
            );
        }
    }

    /// Looks at memory that was filled and is to be taken now, and remembers what is wrong for the verifier.
    ///
    /// # Safety
    /// As for [`Poison::fill`]; both are multiples of 8.
    pub unsafe fn look(&self, start: usize, end: usize) {
        if self.looks {
            // SAFETY: the caller's promise.
            if let Some(wrong) = unsafe { self.written(start, end) } {
                self.place.store(wrong.cell.as_usize(), Ordering::Relaxed);
                self.word.store(wrong.word, Ordering::Relaxed);
                self.found.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What is wrong with memory that was filled: the first word that was written to. The memory is filled again, so that it is
    /// said once.
    ///
    /// # Safety
    /// As for [`Poison::fill`]; both are multiples of 8.
    #[must_use]
    pub(crate) unsafe fn written(&self, start: usize, end: usize) -> Option<Violation> {
        let found = (start..end).step_by(size_of::<usize>()).find_map(|at| {
            // SAFETY: an aligned word of the caller's memory. Whoever is looked for may write it now, hence volatile.
            let word = unsafe { core::ptr::with_exposed_provenance::<usize>(at).read_volatile() };
            (word != PATTERN).then(|| Violation {
                what: WRITTEN,
                cell: Address::new(at),
                word,
            })
        });
        if found.is_some() {
            // SAFETY: the caller's promise.
            unsafe { self.fill(start, end) };
        }
        found
    }

    /// Reports what was found since the last time, as one: how many there were. For the verifier.
    pub(crate) fn report(&self, report: &mut dyn FnMut(Violation)) -> usize {
        let found = self.found.swap(0, Ordering::Relaxed);
        if found != 0 {
            report(Violation {
                what: WRITTEN,
                cell: Address::new(self.place.load(Ordering::Relaxed)),
                word: self.word.load(Ordering::Relaxed),
            });
        }
        found
    }
}
