//! What waits for objects to be reached: ephemerons whose keys were not reached yet, and references that hold only while their
//! holders live.
//!
//! An *item* holds its value as soon as its *holder* and its *key* are reached, those of them that it has. Items are entered into
//! a hash table under each object that they wait for, while nothing is traced; after that the table does not change. In the closure
//! that follows, a worker that reaches an object looks it up, and takes from each item of that object the bit that says so. Each
//! object is reached by one worker, and each bit taken once; who takes the last one traces the value. So each item is looked at as
//! often as it has objects to wait for, whatever the order, and there is no race that could lose one: nothing is entered while
//! objects are reached. (Ephemerons: Hayes, "Ephemerons: a new finalization mechanism", OOPSLA 1997. Repeated passes over all that
//! wait, as there, take time in the square of a chain's length.)

use crate::bugs::{Bug, is_on};
use crate::vm::SlotFormat;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use heapwright_address::{Address, ObjectReference};

/// It waits for its holder.
const HOLDER: u8 = 1;
/// It waits for its key.
const KEY: u8 = 2;
/// It holds nothing, whatever is reached.
const NOTHING: u8 = 4;

/// One thing that may hold another.
#[derive(Debug)]
pub(crate) struct Item {
    holder: usize,
    key: usize,
    /// What it holds, by its address before the collection.
    target: usize,
    /// The same in the runtime's format, so that the trace can update it as any field.
    slot: AtomicU64,
    waits: AtomicU8,
    /// The next node of the same bucket, for the holder and for the key: a node's number plus 1.
    next: [AtomicU32; 2],
}

impl Default for Item {
    fn default() -> Self {
        Self {
            holder: 0,
            key: 0,
            target: 0,
            slot: AtomicU64::new(0),
            waits: AtomicU8::new(NOTHING),
            next: [AtomicU32::new(0), AtomicU32::new(0)],
        }
    }
}

/// What an item holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'w>(&'w Item);

impl Value<'_> {
    /// The address of a slot that refers to it.
    pub(crate) fn slot(self) -> usize {
        Address::from_ptr(self.0.slot.as_ptr()).as_usize()
    }

    /// Where it was before the collection.
    pub(crate) fn target(self) -> usize {
        self.0.target
    }
}

impl Item {
    /// Says what it holds, and for which objects it waits: those of `holder` and `key` that are something and were not reached.
    /// `value` lies in the heap.
    pub(crate) fn set<S: SlotFormat>(
        &mut self,
        slots: S,
        holder: Option<usize>,
        key: Option<usize>,
        value: ObjectReference,
    ) {
        self.holder = holder.unwrap_or(0);
        self.key = key.unwrap_or(0);
        self.target = value.to_address().as_usize();
        // SAFETY: a word of the item's own, aligned to 8 bytes; formats have at most that many.
        unsafe { slots.store(Address::from_ptr(self.slot.as_ptr()), value) };
        let waits = u8::from(holder.is_some()) * HOLDER + u8::from(key.is_some()) * KEY;
        *self.waits.get_mut() = waits;
    }

    /// What it holds, if it waits for nothing.
    pub(crate) fn ready(&self) -> Option<Value<'_>> {
        (self.waits.load(Ordering::Relaxed) == 0).then_some(Value(self))
    }
}

/// All items of a collection. Filled, then entered, while nothing is traced; then looked at by all workers.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    items: Vec<Item>,
    /// The first node of each bucket: its number plus 1. A node is an item's holder or key. A power of two, or empty.
    buckets: Vec<AtomicU32>,
    /// Values were not traced for lack of memory.
    missed: AtomicBool,
}

impl Waiting {
    /// Makes room for `count` items, which hold nothing yet. False: there is no memory.
    pub(crate) fn make_room(&mut self, count: usize) -> bool {
        self.items.clear();
        self.buckets.clear();
        let buckets = (2 * count).next_power_of_two();
        if count >= 1 << 30
            || self.items.try_reserve_exact(count).is_err()
            || count != 0 && self.buckets.try_reserve_exact(buckets).is_err()
        {
            return false;
        }
        self.items.resize_with(count, Item::default);
        if count != 0 {
            self.buckets.resize_with(buckets, || AtomicU32::new(0));
        }
        true
    }

    /// The items, to be filled.
    pub(crate) fn items_mut(&mut self) -> &mut [Item] {
        &mut self.items
    }

    /// The items.
    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }

    fn bucket(&self, object: usize) -> Option<&AtomicU32> {
        if self.buckets.is_empty() {
            return None;
        }
        let hash = (object >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let shift = usize::BITS - self.buckets.len().trailing_zeros();
        self.buckets.get(hash.checked_shr(shift).unwrap_or(0))
    }

    /// Enters items into the table, each by one worker. Nothing is traced meanwhile.
    pub(crate) fn enter(&self, range: core::ops::Range<usize>) {
        for index in range {
            let Some(item) = self.items.get(index) else {
                return;
            };
            let waits = item.waits.load(Ordering::Relaxed);
            for (which, object) in [item.holder, item.key].into_iter().enumerate() {
                if waits & NOTHING != 0 || waits & 1 << which == 0 {
                    continue;
                }
                if let Some(bucket) = self.bucket(object) {
                    let first = bucket.swap((index * 2 + which + 1) as u32, Ordering::Relaxed);
                    item.next[which].store(first, Ordering::Relaxed);
                }
            }
        }
    }

    /// An object was reached, by the calling worker: gives it what is held from now on.
    #[inline]
    pub(crate) fn reached(&self, object: usize, mut held: impl FnMut(Value<'_>)) {
        let Some(bucket) = self.bucket(object) else {
            return;
        };
        let mut node = bucket.load(Ordering::Relaxed) as usize;
        while node != 0 {
            let (index, which) = ((node - 1) / 2, (node - 1) % 2);
            let Some(item) = self.items.get(index) else {
                return;
            };
            if [item.holder, item.key][which] == object && !is_on(Bug::EphemeronOnce) {
                let bit = 1 << which;
                // Relaxed: what the items say was written before the phase began.
                if item.waits.fetch_and(!bit, Ordering::Relaxed) == bit {
                    held(Value(item));
                }
            }
            node = item.next[which].load(Ordering::Relaxed) as usize;
        }
    }

    /// A value that is held could not be pushed.
    #[cold]
    pub(crate) fn miss(&self) {
        self.missed.store(true, Ordering::Relaxed);
    }

    /// Was one missed since the last call?
    pub(crate) fn take_missed(&self) -> bool {
        self.missed.swap(false, Ordering::Relaxed)
    }

    /// Gives memory back that few collections need.
    pub(crate) fn shrink(&mut self) {
        if self.items.capacity() > 4096 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::vm::WordSlots;

    fn object(word: usize) -> ObjectReference {
        ObjectReference::from_address(Address::new(word)).unwrap()
    }

    fn reached(waiting: &Waiting, at: usize) -> Vec<usize> {
        let mut found = Vec::new();
        waiting.reached(at, |value| found.push(value.target()));
        found
    }

    #[test]
    fn an_item_is_held_once_when_all_that_it_waits_for_is_reached() {
        let mut waiting = Waiting::default();
        assert!(waiting.make_room(5));
        let items = waiting.items_mut();
        items[0].set(WordSlots, Some(0x100), Some(0x200), object(0x1000));
        items[1].set(WordSlots, None, Some(0x200), object(0x1008));
        items[2].set(WordSlots, None, None, object(0x1010));
        items[3].set(WordSlots, Some(0x200), Some(0x200), object(0x1018));
        assert_eq!(items[2].ready().unwrap().target(), 0x1010);
        assert!(items[0].ready().is_none() && items[4].ready().is_none());
        waiting.enter(0..5);
        assert!(reached(&waiting, 0x300).is_empty());
        let mut found = reached(&waiting, 0x200);
        found.sort_unstable();
        assert_eq!(found, [0x1008, 0x1018]);
        assert_eq!(reached(&waiting, 0x100), [0x1000]);
        assert!(waiting.items()[3].ready().is_some());
    }

    #[test]
    fn without_items_nothing_is_looked_up() {
        let mut waiting = Waiting::default();
        assert!(waiting.make_room(0));
        waiting.enter(0..0);
        assert!(reached(&waiting, 0x100).is_empty());
    }
}
