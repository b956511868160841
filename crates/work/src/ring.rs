//! A worker's public queue: a fixed ring that its owner fills and that anybody empties.
//!
//! ```text
//!          head                     tail
//!           v                        v
//!   .   .   a   b   c   d   e   f    .   .      slot of index i: i mod capacity
//!           `--- taken from here     `--- owner pushes here
//! ```
//!
//! * `tail` is written by the owner only, and only grows.
//! * `head` only grows, by compare-exchange: thieves take from it, and so does the owner. Whoever
//!   moves `head` from `h` to `h + k` owns the items `h .. h + k`, which it has read *before*.
//! * A slot is written again only after the owner has seen `head` beyond it (acquire). So if a
//!   thief has read a slot that was being written again, `head` had moved and its exchange fails.
//! * Both indices run freely and are reduced only to find a slot, so a value of `head` never
//!   comes back (in 64 bits; in 32 after 2^32 items within one attempt).
//!
//! The oldest item goes first, to the owner too. Workers go depth first on stacks of their own;
//! what is here is surplus, and the oldest surplus is what is nearest to the roots and so the
//! largest piece of work. In return there is no contended last item as in the Chase-Lev deque, no
//! store-load fence in the owner's `take`, and a thief moves half of the items in one exchange.

use crate::primitive::{AtomicUsize, Ordering, Padded};
use std::collections::TryReserveError;

#[derive(Debug)]
pub(crate) struct Ring {
    head: Padded<AtomicUsize>,
    tail: Padded<AtomicUsize>,
    slots: Box<[AtomicUsize]>,
}

impl Ring {
    /// A ring of `capacity` items, which is a power of two.
    pub(crate) fn new(capacity: usize) -> Result<Ring, TryReserveError> {
        debug_assert!(capacity.is_power_of_two());
        let mut slots = Vec::new();
        slots.try_reserve_exact(capacity)?;
        slots.resize_with(capacity, || AtomicUsize::new(0));
        Ok(Ring {
            head: Padded(AtomicUsize::new(0)),
            tail: Padded(AtomicUsize::new(0)),
            slots: slots.into_boxed_slice(),
        })
    }

    fn slot(&self, index: usize) -> &AtomicUsize {
        &self.slots[index & (self.slots.len() - 1)]
    }

    /// Owner only: adds as many of `items` as there is room for, and says how many that is.
    pub(crate) fn push(&self, items: &[usize]) -> usize {
        let tail = self.tail.load(Ordering::Relaxed);
        let head = self.head.load(Ordering::Acquire);
        let room = self.slots.len() - tail.wrapping_sub(head);
        let taken = items.len().min(room);
        for (offset, item) in items[..taken].iter().enumerate() {
            self.slot(tail.wrapping_add(offset))
                .store(*item, Ordering::Relaxed);
        }
        self.tail.store(tail.wrapping_add(taken), Ordering::Release);
        taken
    }

    /// Anybody: takes the oldest item.
    pub(crate) fn take(&self) -> Option<usize> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            if self.tail.load(Ordering::Acquire) == head {
                return None;
            }
            let item = self.slot(head).load(Ordering::Relaxed);
            match self.advance(head, 1) {
                Ok(()) => return Some(item),
                Err(moved) => head = moved,
            }
        }
    }

    /// Anybody: takes half of the items, rounded up. The oldest is returned, the others go to
    /// `into`, which must be the caller's own ring, up to its room.
    pub(crate) fn take_half(&self, into: &Ring) -> Option<usize> {
        let into_tail = into.tail.load(Ordering::Relaxed);
        let into_head = into.head.load(Ordering::Acquire);
        let room = into.slots.len() - into_tail.wrapping_sub(into_head);
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            // An old `head` with a new `tail` can look like more than a ringful.
            let there = self
                .tail
                .load(Ordering::Acquire)
                .wrapping_sub(head)
                .min(self.slots.len());
            if there == 0 {
                return None;
            }
            let surplus = (there.div_ceil(2) - 1).min(room);
            let item = self.slot(head).load(Ordering::Relaxed);
            // Beyond `into`'s tail nobody reads, so a failed attempt leaves nothing behind.
            for offset in 0..surplus {
                let copied = self
                    .slot(head.wrapping_add(1 + offset))
                    .load(Ordering::Relaxed);
                into.slot(into_tail.wrapping_add(offset))
                    .store(copied, Ordering::Relaxed);
            }
            match self.advance(head, 1 + surplus) {
                Ok(()) => {
                    into.tail
                        .store(into_tail.wrapping_add(surplus), Ordering::Release);
                    return Some(item);
                }
                Err(moved) => head = moved,
            }
        }
    }

    /// Moves `head` from `from` by `by`, or says where it is. Release: the slots were read before.
    /// Acquire: `tail` is then seen at `head` or beyond.
    fn advance(&self, from: usize, by: usize) -> Result<(), usize> {
        self.head
            .compare_exchange(
                from,
                from.wrapping_add(by),
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .map(|_| ())
    }

    /// A hint, except after the sequentially consistent fence of the wake-up protocol: there it
    /// does not miss an item pushed before a fence that is earlier.
    pub(crate) fn is_empty(&self) -> bool {
        let head = self.head.load(Ordering::Acquire);
        self.tail.load(Ordering::Acquire) == head
    }
}
