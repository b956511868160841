//! The protocol of marking and moving: what workers do to an object's header, or to its bits in the side tables, when they may
//! race for it. [`super::header`] says what the states mean and where the words are; here is nothing but the steps, over any
//! kind of atomic word, so that the model checker goes through the very same code.

use crate::bugs::{Bug, is_on};
use crate::primitive::spin_loop;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const STATE: usize = 3;
const BUSY: usize = 1;
const MOVED: usize = 2;
const MARK_SHIFT: usize = 2;
const MARK: usize = 3 << MARK_SHIFT;
/// The object is old, and in no remembered set.
pub(super) const UNLOGGED: usize = 1 << 4;
/// What of a header belongs to the collector and is not kept when an object is copied.
const OURS: usize = STATE | MARK | UNLOGGED;

/// What a worker finds when it wants to move an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// It was moved to here.
    Moved(usize),
    /// It was reached, and stays where it is.
    Stays,
    /// It is this worker's to copy. What is kept of its header.
    Claimed(usize),
}

/// A word that workers share: an atomic of the language, or one of the model checker.
pub(super) trait Atom<T> {
    fn load(&self, order: Ordering) -> T;
    fn store(&self, value: T, order: Ordering);
    /// May fail for no reason. Gives what was there.
    fn exchange(&self, old: T, new: T, order: Ordering) -> Result<T, T>;
    /// Sets bits: what was there.
    fn set(&self, bits: T, order: Ordering) -> T;
    /// Takes bits away: what was there.
    fn clear(&self, bits: T, order: Ordering) -> T;
}

macro_rules! atom {
    ($atomic:ty, $word:ty) => {
        impl Atom<$word> for $atomic {
            #[inline(always)]
            fn load(&self, order: Ordering) -> $word {
                self.load(order)
            }

            #[inline(always)]
            fn store(&self, value: $word, order: Ordering) {
                self.store(value, order);
            }

            #[inline(always)]
            fn exchange(&self, old: $word, new: $word, order: Ordering) -> Result<$word, $word> {
                self.compare_exchange_weak(old, new, order, order)
            }

            #[inline(always)]
            fn set(&self, bits: $word, order: Ordering) -> $word {
                self.fetch_or(bits, order)
            }

            #[inline(always)]
            fn clear(&self, bits: $word, order: Ordering) -> $word {
                self.fetch_and(!bits, order)
            }
        }
    };
}

atom!(AtomicUsize, usize);
atom!(AtomicU64, u64);
#[cfg(all(test, loom))]
atom!(loom::sync::atomic::AtomicUsize, usize);
#[cfg(all(test, loom))]
atom!(loom::sync::atomic::AtomicU64, u64);

/// What orders the words of a copy before its publication, where there is somebody to publish to.
const fn acquire<const SHARED: bool>() -> Ordering {
    if SHARED {
        Ordering::Acquire
    } else {
        Ordering::Relaxed
    }
}

const fn release<const SHARED: bool>() -> Ordering {
    if SHARED {
        Ordering::Release
    } else {
        Ordering::Relaxed
    }
}

// ---- in headers ------------------------------------------------------------------------------------------------------

/// The mark of an epoch in a header.
pub(super) const fn marked(epoch: usize) -> usize {
    epoch << MARK_SHIFT
}

/// Does a header have the mark of an epoch?
#[inline(always)]
pub(super) const fn is_marked(header: usize, epoch: usize) -> bool {
    header & MARK == marked(epoch)
}

/// The header of a copy. `kept` is what the claim gave.
#[inline(always)]
pub(super) const fn copied(kept: usize, epoch: usize, unlogged: bool) -> usize {
    kept | marked(epoch) | if unlogged { UNLOGGED } else { 0 }
}

/// Where an object is, if it was reached. No worker has it.
#[inline(always)]
pub(super) const fn outcome(header: usize, epoch: usize, here: usize) -> Option<usize> {
    match header & STATE {
        MOVED => Some(header & !7),
        _ if is_marked(header, epoch) => Some(here),
        _ => None,
    }
}

/// Sets the mark in the header of an object that does not move: true if it was not set.
#[inline(always)]
pub(super) fn mark_header<const SHARED: bool>(header: &impl Atom<usize>, epoch: usize) -> bool {
    let mut old = header.load(Ordering::Relaxed);
    loop {
        if is_marked(old, epoch) {
            return false;
        }
        let new = (old & !MARK) | marked(epoch);
        if !SHARED {
            header.store(new, Ordering::Relaxed);
            return true;
        }
        match header.exchange(old, new, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(now) => old = now,
        }
    }
}

/// What became of an object; claims it if nothing has yet.
#[inline(always)]
pub(super) fn claim_header<const SHARED: bool>(header: &impl Atom<usize>, epoch: usize) -> Forward {
    let mut old = header.load(acquire::<SHARED>());
    loop {
        match old & STATE {
            MOVED => return Forward::Moved(old & !7),
            BUSY if SHARED => {
                if is_on(Bug::CopyNotAwaited) {
                    return Forward::Stays;
                }
                spin_loop();
                old = header.load(Ordering::Acquire);
                continue;
            }
            _ => {}
        }
        if is_marked(old, epoch) {
            return Forward::Stays;
        }
        if !SHARED || is_on(Bug::ClaimLate) {
            return Forward::Claimed(old & !OURS);
        }
        match header.exchange(old, old | BUSY, Ordering::Acquire) {
            Ok(_) => return Forward::Claimed(old & !OURS),
            Err(now) => old = now,
        }
    }
}

/// Says where a claimed object is now. The copy is complete.
#[inline(always)]
pub(super) fn moved_header<const SHARED: bool>(header: &impl Atom<usize>, to: usize) {
    header.store(to | MOVED, release::<SHARED>());
}

/// Says that a claimed object stays where it is, marked. `kept` is what the claim gave.
#[inline(always)]
pub(super) fn stays_header(header: &impl Atom<usize>, kept: usize, epoch: usize) {
    header.store(kept | marked(epoch), Ordering::Release);
}

/// Takes a claim back. For a seeded bug.
#[cold]
pub(super) fn unclaim_header(header: &impl Atom<usize>) {
    header.clear(STATE, Ordering::Relaxed);
}

// ---- in side tables --------------------------------------------------------------------------------------------------

/// One object's bits in the side tables, and its first word.
pub(super) trait Side {
    type Word: Atom<usize>;
    type Bits: Atom<u64>;
    /// The object's bit in each of the words of bits.
    fn bit(&self) -> u64;
    fn first_word(&self) -> &Self::Word;
    fn claims(&self) -> &Self::Bits;
    fn marks(&self) -> &Self::Bits;
    /// The words of the table that says which claimed objects stay.
    fn stayed(&self) -> &Self::Bits;
    /// Does an object of the block stay? Who sees its mark, with acquire, sees this too.
    fn is_retained(&self) -> bool;
    fn retain(&self);
}

/// Sets the mark: true if it was not set.
#[inline(always)]
pub(super) fn mark_side<const SHARED: bool>(marks: &impl Atom<u64>, bit: u64) -> bool {
    let old = marks.load(Ordering::Relaxed);
    if old & bit != 0 {
        return false;
    }
    if SHARED {
        return marks.set(bit, Ordering::Relaxed) & bit == 0;
    }
    marks.store(old | bit, Ordering::Relaxed);
    true
}

/// What became of an object; claims it if nothing has yet.
#[inline(always)]
pub(super) fn claim_side<const SHARED: bool>(object: &impl Side) -> Forward {
    let (claims, marks, bit) = (object.claims(), object.marks(), object.bit());
    loop {
        // The mark is set after the address is in place, and after it is noted that the object stays.
        let marked = marks.load(acquire::<SHARED>()) & bit != 0;
        let claimed = claims.load(Ordering::Relaxed) & bit != 0;
        match (claimed, marked) {
            (true, true) => {
                if SHARED
                    && object.is_retained()
                    && object.stayed().load(Ordering::Relaxed) & bit != 0
                {
                    return Forward::Stays;
                }
                return Forward::Moved(object.first_word().load(Ordering::Relaxed));
            }
            (false, true) => return Forward::Stays,
            (true, false) => {
                if is_on(Bug::CopyNotAwaited) {
                    return Forward::Stays;
                }
                spin_loop();
                continue;
            }
            (false, false) => {}
        }
        if !SHARED {
            claims.store(claims.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
            return Forward::Claimed(object.first_word().load(Ordering::Relaxed));
        }
        if claims.set(bit, Ordering::Relaxed) & bit == 0 {
            return Forward::Claimed(object.first_word().load(Ordering::Relaxed));
        }
    }
}

/// Says where a claimed object is now. The copy is complete.
#[inline(always)]
pub(super) fn moved_side<const SHARED: bool>(object: &impl Side, to: usize) {
    object.first_word().store(to, Ordering::Relaxed);
    let (marks, bit) = (object.marks(), object.bit());
    if SHARED {
        marks.set(bit, Ordering::Release);
    } else {
        marks.store(marks.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
    }
}

/// Says that a claimed object stays where it is, marked.
///
/// With several workers its claim remains until all are done ([`settle_side`]): another one, that saw neither bit before, would
/// take the object for unclaimed when it comes to claim it.
pub(super) fn stays_side<const SHARED: bool>(object: &impl Side) {
    let (claims, marks, bit) = (object.claims(), object.marks(), object.bit());
    object.retain();
    if SHARED {
        object.stayed().set(bit, Ordering::Relaxed);
        marks.set(bit, Ordering::Release);
    } else {
        marks.store(marks.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
        claims.store(claims.load(Ordering::Relaxed) & !bit, Ordering::Relaxed);
    }
}

/// Takes the claims of all objects back that stay where they are. All workers are done.
pub(super) fn settle_side(claims: &impl Atom<u64>, stayed: &impl Atom<u64>) {
    let bits = stayed.load(Ordering::Relaxed);
    if bits != 0 {
        claims.clear(bits, Ordering::Relaxed);
        stayed.store(0, Ordering::Relaxed);
    }
}

/// Takes a claim back. For a seeded bug.
#[cold]
pub(super) fn unclaim_side(object: &impl Side) {
    object.claims().clear(object.bit(), Ordering::Relaxed);
}
