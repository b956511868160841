//! The collector's bits of an object, and the forwarding word. Nobody else touches them.
//!
//! With [`Metadata::Header`] they are the low eight bits of the object's first word:
//!
//! | bits | meaning |
//! |---|---|
//! | 0, 1 | 0: here; 1: a worker is copying it; 2: moved, and the other bits of the word from bit 3 on are its new address |
//! | 2, 3 | the epoch in which it was marked: 1 or 2; 0: not since it was allocated |
//! | 4 | old, and in no remembered set |
//! | 5 to 7 | not used yet |
//!
//! With [`Metadata::Side`] the states are in the two words of bits, as the table of [`super`] says. A first word is written
//! over only when the object has been copied.
//!
//! With several workers one of them claims an object (by compare-and-swap of the header, or by setting the bit of word 0),
//! copies it, and publishes the new address with release; the others wait for it, which takes as long as one copy. With one
//! worker there is no atomic read-modify-write at all.

use super::ObjectSpace;
use super::forward::{self, Forward, Side, UNLOGGED};
use crate::bugs::{Bug, is_on};
use crate::vm::{Metadata, Vm};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The bits of objects, where the runtime has them.
#[derive(Clone, Copy, Debug)]
pub struct Header<'s, V: Vm> {
    space: &'s ObjectSpace,
    epoch: usize,
    vm: PhantomData<fn() -> V>,
}

/// Are the bits in headers?
const fn in_header<V: Vm>() -> bool {
    matches!(V::METADATA, Metadata::Header)
}

#[inline(always)]
fn first_word<'a>(object: usize) -> &'a AtomicUsize {
    // SAFETY: callers pass objects of the heap, which are mapped and aligned to 8 bytes, with the world stopped or by the rules
    // of concurrent marking; the reference is used at once.
    unsafe { &*core::ptr::with_exposed_provenance::<AtomicUsize>(object) }
}

impl<'s, V: Vm> Header<'s, V> {
    const IN_HEADER: bool = in_header::<V>();

    /// For one collection.
    #[must_use]
    pub fn new(space: &'s ObjectSpace) -> Self {
        Self {
            space,
            epoch: space.mark_epoch(),
            vm: PhantomData,
        }
    }

    /// Sets the mark of an object in a block without size classes that does not move: true if it was not set.
    #[inline(always)]
    #[must_use]
    pub fn mark<const SHARED: bool>(&self, object: usize) -> bool {
        if !Self::IN_HEADER {
            return self.space.mark_in_side::<SHARED>(object);
        }
        if !forward::mark_header::<SHARED>(first_word(object), self.epoch) {
            return false;
        }
        self.note_for_map::<SHARED>(object);
        true
    }

    /// Sets the mark in the side table as well, which becomes the object map where there is one.
    #[inline(always)]
    fn note_for_map<const SHARED: bool>(&self, object: usize) {
        if V::OBJECT_MAP {
            let _ = self.space.mark_in_side::<SHARED>(object);
        }
    }

    /// Is the mark of such an object set?
    #[inline(always)]
    #[must_use]
    pub fn is_marked(&self, object: usize) -> bool {
        if Self::IN_HEADER {
            forward::is_marked(first_word(object).load(Ordering::Relaxed), self.epoch)
        } else {
            self.space.is_marked_in_side(object)
        }
    }

    /// What became of an object in a moving block; claims it if nothing has yet.
    #[inline(always)]
    #[must_use]
    pub fn claim<const SHARED: bool>(&self, object: usize) -> Forward {
        if Self::IN_HEADER {
            forward::claim_header::<SHARED>(first_word(object), self.epoch)
        } else {
            forward::claim_side::<SHARED>(&self.side(object))
        }
    }

    #[inline(always)]
    fn side(&self, object: usize) -> InSide<'s> {
        InSide {
            space: self.space,
            object,
            offset: object - self.space.tables().base(),
        }
    }

    /// Says where a claimed object is now. The copy is complete.
    #[inline(always)]
    pub fn moved<const SHARED: bool>(&self, object: usize, to: usize) {
        if is_on(Bug::MoveNotPublished) {
            return self.unclaim(object);
        }
        if Self::IN_HEADER {
            forward::moved_header::<SHARED>(first_word(object), to);
        } else {
            forward::moved_side::<SHARED>(&self.side(object), to);
        }
    }

    /// Takes a claim back. For a seeded bug.
    #[cold]
    fn unclaim(&self, object: usize) {
        if Self::IN_HEADER {
            forward::unclaim_header(first_word(object));
        } else {
            forward::unclaim_side(&self.side(object));
        }
    }

    /// Says that a claimed object stays where it is, marked. `kept` is what the claim gave.
    pub fn stays<const SHARED: bool>(&self, object: usize, kept: usize) {
        let side = self.side(object);
        if Self::IN_HEADER {
            side.retain();
            forward::stays_header(first_word(object), kept, self.epoch);
            self.note_for_map::<SHARED>(object);
        } else {
            forward::stays_side::<SHARED>(&side);
        }
    }

    /// Writes the first word of a copy: marked, and in no remembered set if `unlogged`.
    #[inline(always)]
    pub fn complete<const SHARED: bool>(
        &self,
        copy: usize,
        kept: usize,
        mark: bool,
        unlogged: bool,
    ) {
        if Self::IN_HEADER {
            let word = forward::copied(kept, self.epoch, unlogged);
            first_word(copy).store(word, Ordering::Relaxed);
            if V::OBJECT_MAP {
                if !is_on(Bug::MapEntryForgotten) {
                    self.space.enter(copy);
                }
                if mark {
                    self.note_for_map::<SHARED>(copy);
                }
            }
            return;
        }
        if !is_on(Bug::HeaderLost) {
            first_word(copy).store(kept, Ordering::Relaxed);
        }
        if mark {
            let _ = self.space.mark_in_side::<SHARED>(copy);
        }
        if unlogged {
            self.space.set_unlogged::<SHARED>(copy);
        }
        if V::OBJECT_MAP && !is_on(Bug::MapEntryForgotten) {
            self.space.enter(copy);
        }
    }

    /// Says that an object is old and in no remembered set. Any worker.
    #[inline(always)]
    pub fn set_unlogged<const SHARED: bool>(&self, object: usize) {
        if !Self::IN_HEADER {
            self.space.set_unlogged::<SHARED>(object);
        } else if SHARED {
            first_word(object).fetch_or(UNLOGGED, Ordering::Relaxed);
        } else {
            let word = first_word(object);
            word.store(word.load(Ordering::Relaxed) | UNLOGGED, Ordering::Relaxed);
        }
    }

    /// Ends a phase of several workers in which objects of moving blocks stayed where they are.
    pub fn settle(&self) {
        if !Self::IN_HEADER {
            self.space.settle_stayed();
        }
    }

    /// Where an object is now, if it was reached: for one in a moving block, and when no phase is running.
    #[must_use]
    pub fn outcome(&self, object: usize) -> Option<usize> {
        if Self::IN_HEADER {
            let word = first_word(object).load(Ordering::Acquire);
            return forward::outcome(word, self.epoch, object);
        }
        let tables = self.space.tables();
        let offset = object - tables.base();
        match (tables.bit(offset, 0), tables.bit(offset, 1)) {
            (true, true) => Some(first_word(object).load(Ordering::Acquire)),
            (false, true) => Some(object),
            _ => None,
        }
    }
}

/// An object's bits in the side tables of its space.
struct InSide<'s> {
    space: &'s ObjectSpace,
    object: usize,
    offset: usize,
}

impl Side for InSide<'_> {
    type Word = AtomicUsize;
    type Bits = AtomicU64;

    #[inline(always)]
    fn bit(&self) -> u64 {
        ObjectSpace::bit_of(self.offset)
    }

    #[inline(always)]
    fn first_word(&self) -> &AtomicUsize {
        first_word(self.object)
    }

    #[inline(always)]
    fn claims(&self) -> &AtomicU64 {
        self.space.tables().word(self.offset, 0)
    }

    #[inline(always)]
    fn marks(&self) -> &AtomicU64 {
        self.space.tables().word(self.offset, 1)
    }

    #[inline(always)]
    fn stayed(&self) -> &AtomicU64 {
        ObjectSpace::word_of(self.space.side.stayed, self.offset)
    }

    #[inline(always)]
    fn is_retained(&self) -> bool {
        self.space.tables().entry(self.offset).is_retained()
    }

    #[inline(always)]
    fn retain(&self) {
        self.space.tables().retain(self.offset);
    }
}

/// Is the object old, and in no remembered set? Mutator running: one load, a test, and with side tables a shift.
#[inline(always)]
#[must_use]
pub(crate) fn is_unlogged<V: Vm>(space: &ObjectSpace, object: usize) -> bool {
    if in_header::<V>() {
        first_word(object).load(Ordering::Relaxed) & UNLOGGED != 0
    } else {
        space.is_unlogged(object)
    }
}

/// Takes that away: true if this call did. Any mutator.
#[inline]
pub(crate) fn take_unlogged<V: Vm>(space: &ObjectSpace, object: usize) -> bool {
    if in_header::<V>() {
        first_word(object).fetch_and(!UNLOGGED, Ordering::AcqRel) & UNLOGGED != 0
    } else {
        space.take_unlogged(object)
    }
}
