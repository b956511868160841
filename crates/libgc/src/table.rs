//! Collections in mapped memory: what finalization and links keep, looked up by address.
//!
//! [`Table`] is a hash table with open addressing and linear probing, a power of two of slots of which at most three
//! quarters are in use. A removal moves later entries of the probe sequence back instead of leaving a tombstone (Knuth,
//! 6.4 R), so that any number of registrations and removals leaves it as fast as new. [`Queue`] is first in, first out, with
//! room made in advance: appending to it while the world is stopped cannot fail.
//!
//! Nothing here is a root: the entries' addresses are reported by whoever owns the table, or not, if they are weak.

use crate::state::BoehmHeap;
use core::cell::UnsafeCell;
use core::ptr;
use heapwright_os::{OsError, Reservation, real_port};

/// A value that is used with the heap's lock held.
pub(crate) struct Guarded<T>(UnsafeCell<T>);

// SAFETY: `with` takes the lock, and the callers of `held` hold it: one thread at a time has the value.
unsafe impl<T: Send> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Runs `f` on the value with the heap's lock held. `f` calls neither the heap nor a client.
    pub(crate) fn with<R>(&self, heap: &BoehmHeap, f: impl FnOnce(&mut T) -> R) -> R {
        heap.lock();
        // SAFETY: the lock is held, and `f` does not come back here.
        let result = f(unsafe { &mut *self.0.get() });
        heap.unlock();
        result
    }

    /// The value.
    ///
    /// # Safety
    /// The caller holds the heap's lock, and no other reference to the value is in use.
    #[allow(
        clippy::mut_from_ref,
        reason = "the heap's lock makes it exclusive, as the caller promises"
    )]
    pub(crate) unsafe fn held(&self) -> &mut T {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.0.get() }
    }
}

/// Zeroed memory for a number of elements.
struct Slab<T> {
    _memory: Reservation,
    pointer: *mut T,
    capacity: usize,
}

// SAFETY: it owns its memory.
unsafe impl<T: Send> Send for Slab<T> {}

impl<T: Copy> Slab<T> {
    /// Room for at least `wanted` elements: all of the pages that it takes.
    fn new(wanted: usize) -> Result<Self, OsError> {
        let port = real_port();
        let page = port.page_size();
        let bytes = wanted.saturating_mul(size_of::<T>()).max(1);
        let memory = Reservation::new(port, bytes, page)?;
        memory.port().commit(memory.start(), memory.bytes())?;
        memory
            .port()
            .name(memory.start(), memory.bytes(), c"heapwright tables");
        Ok(Self {
            pointer: memory.start().as_mut_ptr(),
            capacity: memory.bytes() / size_of::<T>(),
            _memory: memory,
        })
    }
}

/// What a [`Table`] holds: plain memory, found by a key. All bytes zero is no entry, and has the key 0.
///
/// # Safety
/// Zero is a valid value, with the key 0.
pub(crate) unsafe trait Entry: Copy {
    /// The address that it is found by; not 0.
    fn key(&self) -> usize;
}

/// A hash table of entries.
pub(crate) struct Table<E> {
    slots: Option<Slab<E>>,
    /// Number of slots: a power of two, 0 while there is no memory.
    capacity: usize,
    len: usize,
}

impl<E: Entry> Table<E> {
    pub(crate) const NEW: Self = Self {
        slots: None,
        capacity: 0,
        len: 0,
    };

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn pointer(&self) -> *mut E {
        self.slots.as_ref().map_or(ptr::null_mut(), |s| s.pointer)
    }

    fn slots(&self) -> &[E] {
        if self.capacity == 0 {
            return &[];
        }
        // SAFETY: that many slots, zero or written.
        unsafe { core::slice::from_raw_parts(self.pointer(), self.capacity) }
    }

    fn slots_mut(&mut self) -> &mut [E] {
        if self.capacity == 0 {
            return &mut [];
        }
        // SAFETY: as above, and the table is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.pointer(), self.capacity) }
    }

    /// Where the search for a key begins. Capacity not 0.
    fn home(&self, key: usize) -> usize {
        let bits = self.capacity.trailing_zeros();
        let product = (key as u64 >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (product >> (64 - bits.max(1))) as usize & (self.capacity - 1)
    }

    /// The slot of a key, or the empty one where it belongs. There is always an empty slot. Capacity not 0.
    fn slot(&self, key: usize) -> (usize, bool) {
        let mask = self.capacity - 1;
        let slots = self.slots();
        let mut at = self.home(key);
        loop {
            match slots[at].key() {
                0 => return (at, false),
                k if k == key => return (at, true),
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// The entry with this key.
    pub(crate) fn get(&self, key: usize) -> Option<E> {
        if self.len == 0 || key == 0 {
            return None;
        }
        let (at, found) = self.slot(key);
        found.then(|| self.slots()[at])
    }

    /// Stores an entry, in the place of one with the same key, which is returned.
    ///
    /// # Errors
    /// If there is no memory; the table is unchanged then. It cannot happen if an entry was removed before and none was
    /// added since.
    pub(crate) fn insert(&mut self, entry: E) -> Result<Option<E>, OsError> {
        if (self.len + 1) * 4 > self.capacity * 3 {
            let bigger = (self.capacity * 2).max(1);
            // A table that cannot grow is still usable as long as one slot stays empty.
            if let Err(e) = self.resize(bigger)
                && self.len + 1 >= self.capacity
            {
                return Err(e);
            }
        }
        let (at, found) = self.slot(entry.key());
        let old = core::mem::replace(&mut self.slots_mut()[at], entry);
        self.len += usize::from(!found);
        Ok(found.then_some(old))
    }

    /// Removes the entry with this key.
    pub(crate) fn remove(&mut self, key: usize) -> Option<E> {
        if self.len == 0 || key == 0 {
            return None;
        }
        let (at, found) = self.slot(key);
        found.then(|| self.remove_at(at))
    }

    fn remove_at(&mut self, at: usize) -> E {
        let mask = self.capacity - 1;
        let removed = self.slots()[at];
        let (mut hole, mut next) = (at, at);
        loop {
            next = (next + 1) & mask;
            let entry = self.slots()[next];
            if entry.key() == 0 {
                break;
            }
            // An entry whose search begins after the hole must not be moved before its beginning.
            let home = self.home(entry.key());
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(hole) & mask) {
                self.slots_mut()[hole] = entry;
                hole = next;
            }
        }
        // SAFETY: zero is a valid entry (trait Entry).
        self.slots_mut()[hole] = unsafe { core::mem::zeroed() };
        self.len -= 1;
        removed
    }

    /// Keeps the entries for which `keep` says so. It may be asked twice about an entry, and must give the same answer.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&mut E) -> bool) {
        let mut at = 0;
        while at < self.capacity {
            let entry = &mut self.slots_mut()[at];
            if entry.key() == 0 || keep(entry) {
                at += 1;
            } else {
                // Another entry may be here now: look again. What is moved past the end of the table was asked before.
                self.remove_at(at);
            }
        }
    }

    /// Visits each entry.
    pub(crate) fn each(&self, mut visit: impl FnMut(&E)) {
        for entry in self.slots() {
            if entry.key() != 0 {
                visit(entry);
            }
        }
    }

    /// Each entry, for writing; keys stay.
    pub(crate) fn each_mut(&mut self) -> impl Iterator<Item = &mut E> {
        self.slots_mut().iter_mut().filter(|entry| entry.key() != 0)
    }

    /// Gives back memory that was needed for many more entries than there are. World running.
    pub(crate) fn shrink(&mut self) {
        let first = self.slots.as_ref().map_or(0, |_| page_slots::<E>());
        if self.capacity > first && self.len * 8 < self.capacity {
            // A refusal leaves it as it is.
            let _ = self.resize(self.capacity / 4);
        }
    }

    fn resize(&mut self, capacity: usize) -> Result<(), OsError> {
        let capacity = capacity.max(page_slots::<E>());
        let slab = Slab::<E>::new(capacity)?;
        let old = core::mem::replace(
            self,
            Self {
                slots: Some(slab),
                capacity,
                len: 0,
            },
        );
        for entry in old.slots() {
            if entry.key() != 0 {
                let (at, _) = self.slot(entry.key());
                self.slots_mut()[at] = *entry;
                self.len += 1;
            }
        }
        Ok(())
    }
}

/// The smallest number of slots: a page of them.
fn page_slots<E>() -> usize {
    let slots = 4096 / size_of::<E>().max(1);
    if slots.is_power_of_two() {
        slots
    } else {
        slots.next_power_of_two() / 2
    }
}

/// First in, first out.
pub(crate) struct Queue<T> {
    slots: Option<Slab<T>>,
    head: usize,
    tail: usize,
}

impl<T: Copy> Queue<T> {
    pub(crate) const NEW: Self = Self {
        slots: None,
        head: 0,
        tail: 0,
    };

    /// How many elements there are.
    pub(crate) fn len(&self) -> usize {
        self.tail - self.head
    }

    fn capacity(&self) -> usize {
        self.slots.as_ref().map_or(0, |s| s.capacity)
    }

    /// Makes room: `more` elements can be appended without failing.
    ///
    /// # Errors
    /// If there is no memory; nothing is changed then.
    pub(crate) fn reserve(&mut self, more: usize) -> Result<(), OsError> {
        if self.capacity() - self.tail >= more {
            return Ok(());
        }
        let len = self.len();
        if self.capacity() - len >= more && self.head >= len {
            // Half of what is used is used up: move the rest to the front.
            if let Some(slab) = &self.slots {
                // SAFETY: within the slab; the two do not overlap.
                unsafe { ptr::copy_nonoverlapping(slab.pointer.add(self.head), slab.pointer, len) };
            }
        } else {
            let slab = Slab::new((len + more).max(2 * len))?;
            if let Some(old) = &self.slots {
                // SAFETY: `len` initialised elements to a slab that is larger.
                unsafe { ptr::copy_nonoverlapping(old.pointer.add(self.head), slab.pointer, len) };
            }
            self.slots = Some(slab);
        }
        self.head = 0;
        self.tail = len;
        Ok(())
    }

    /// Appends an element; false if no room was made for it.
    pub(crate) fn push(&mut self, value: T) -> bool {
        match &self.slots {
            Some(slab) if self.tail < slab.capacity => {
                // SAFETY: within the slab.
                unsafe { slab.pointer.add(self.tail).write(value) };
                self.tail += 1;
                true
            }
            _ => false,
        }
    }

    /// Takes the first element.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let first = self.as_slice().first().copied()?;
        self.head += 1;
        if self.head == self.tail {
            self.head = 0;
            self.tail = 0;
        }
        Some(first)
    }

    /// All elements, the first one first.
    pub(crate) fn as_slice(&self) -> &[T] {
        match &self.slots {
            // SAFETY: elements from `head` to `tail` are initialised.
            Some(slab) => unsafe {
                core::slice::from_raw_parts(slab.pointer.add(self.head), self.len())
            },
            None => &[],
        }
    }

    /// All elements, for writing.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        match &self.slots {
            // SAFETY: as above, and the queue is borrowed exclusively.
            Some(slab) => unsafe {
                core::slice::from_raw_parts_mut(slab.pointer.add(self.head), self.len())
            },
            None => &mut [],
        }
    }

    /// Keeps the elements from index `from` on for which `keep` says so, in their order.
    pub(crate) fn retain_from(&mut self, from: usize, mut keep: impl FnMut(&mut T) -> bool) {
        let slice = self.as_mut_slice();
        let mut to = from;
        for index in from..slice.len() {
            let mut value = slice[index];
            if keep(&mut value) {
                slice[to] = value;
                to += 1;
            }
        }
        self.tail = self.head + to.min(self.len());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::{BTreeMap, VecDeque};

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Pair(usize, usize);

    // SAFETY: two integers.
    unsafe impl Entry for Pair {
        fn key(&self) -> usize {
            self.0
        }
    }

    struct Random(u64);
    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % n as u64) as usize
        }
    }

    fn same(table: &Table<Pair>, model: &BTreeMap<usize, usize>) {
        let mut all = BTreeMap::new();
        table.each(|p| assert!(all.insert(p.0, p.1).is_none()));
        assert_eq!(&all, model);
        assert_eq!(table.len(), model.len());
    }

    #[test]
    fn the_table_agrees_with_a_map_through_any_history() {
        for keys in [300, 3000, 100_000] {
            let (mut table, mut model, mut random) =
                (Table::<Pair>::NEW, BTreeMap::new(), Random(keys as u64));
            for step in 0..60_000 {
                let key = 8 * (1 + random.below(keys));
                match random.below(100) {
                    0..55 => assert_eq!(
                        table.insert(Pair(key, step)).unwrap().map(|p| p.1),
                        model.insert(key, step)
                    ),
                    55..90 => assert_eq!(table.remove(key).map(|p| p.1), model.remove(&key)),
                    _ => assert_eq!(table.get(key).map(|p| p.1), model.get(&key).copied()),
                }
                if step % 9973 == 0 {
                    let odd = random.below(7);
                    table.retain(|p| p.0 / 8 % 7 != odd);
                    model.retain(|k, _| k / 8 % 7 != odd);
                    same(&table, &model);
                }
            }
            table.retain(|p| p.0 % 1024 == 0);
            model.retain(|k, _| k % 1024 == 0);
            for _ in 0..8 {
                table.shrink();
            }
            same(&table, &model);
            for key in model.keys() {
                assert!(table.get(*key).is_some());
            }
        }
    }

    #[test]
    fn keys_that_collide_are_all_found_and_removed_in_any_order() {
        // Addresses of one page stride collide in naive hashes.
        let mut table = Table::<Pair>::NEW;
        let keys: Vec<usize> = (1..=5000).map(|i| i << 12).collect();
        for &k in &keys {
            table.insert(Pair(k, k + 1)).unwrap();
        }
        for &k in keys.iter().step_by(3).chain(keys.iter().skip(1).step_by(3)) {
            assert_eq!(table.remove(k), Some(Pair(k, k + 1)));
            assert_eq!(table.get(k), None);
        }
        assert_eq!(table.len(), keys.len() / 3);
        assert!(
            keys.iter()
                .skip(2)
                .step_by(3)
                .all(|&k| table.get(k).is_some())
        );
        assert_eq!(table.get(0), None);
        assert_eq!(table.remove(0), None);
    }

    #[test]
    fn the_queue_keeps_its_order_and_its_promise_of_room() {
        let (mut queue, mut model, mut random) = (Queue::<usize>::NEW, VecDeque::new(), Random(7));
        assert!(!queue.push(0));
        for step in 0..20_000 {
            let n = random.below(200);
            queue.reserve(n).unwrap();
            for i in 0..n {
                assert!(queue.push(step * 1000 + i));
                model.push_back(step * 1000 + i);
            }
            for _ in 0..random.below(210) {
                assert_eq!(queue.pop(), model.pop_front());
            }
            assert_eq!(queue.len(), model.len());
        }
        let from = model.len() / 2;
        let kept: Vec<usize> = model
            .iter()
            .enumerate()
            .filter(|(i, v)| *i < from || **v % 2 == 0)
            .map(|(_, v)| *v)
            .collect();
        queue.retain_from(from, |v| *v % 2 == 0);
        assert_eq!(queue.as_slice(), kept);
    }
}
