use crate::SideMetadataSpec;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use heapwright_address::Address;

mod sealed {
    pub trait Sealed {}
}

/// What a [`SideTable`] can hold.
pub trait Entry: Copy + Eq + sealed::Sealed + 'static {
    /// The atomic of the same size.
    type Atomic: Sync;
    /// Logarithm of its size in bits.
    const LOG_BITS: u32;
    /// See [`SideTable::load`].
    fn load(atomic: &Self::Atomic, order: Ordering) -> Self;
    /// See [`SideTable::store`].
    fn store(atomic: &Self::Atomic, value: Self, order: Ordering);
    /// See [`SideTable::fetch_or`].
    fn fetch_or(atomic: &Self::Atomic, value: Self, order: Ordering) -> Self;
    /// See [`SideTable::compare_exchange`].
    ///
    /// # Errors
    /// The value that is there, if it is not the expected one.
    fn compare_exchange(atomic: &Self::Atomic, old: Self, new: Self) -> Result<Self, Self>;
}

macro_rules! entry {
    ($($t:ty, $a:ty, $log:expr);*) => {$(
        impl sealed::Sealed for $t {}
        impl Entry for $t {
            type Atomic = $a;
            const LOG_BITS: u32 = $log;
            #[inline(always)]
            fn load(atomic: &$a, order: Ordering) -> $t {
                atomic.load(order)
            }
            #[inline(always)]
            fn store(atomic: &$a, value: $t, order: Ordering) {
                atomic.store(value, order);
            }
            #[inline(always)]
            fn fetch_or(atomic: &$a, value: $t, order: Ordering) -> $t {
                atomic.fetch_or(value, order)
            }
            #[inline(always)]
            fn compare_exchange(atomic: &$a, old: $t, new: $t) -> Result<$t, $t> {
                atomic.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
            }
        }
    )*};
}

entry!(u8, AtomicU8, 3; u16, AtomicU16, 4; u32, AtomicU32, 5; u64, AtomicU64, 6; usize, AtomicUsize, usize::BITS.trailing_zeros());

/// A table with a `T` for each `2^LOG` bytes of a range: one shift and one addition from a base.
///
/// A handle: the memory belongs to a [`crate::SideMemory`], and the part that is used must be mapped by a mapper.
///
/// ```
/// use heapwright_address::Chunk;
/// use heapwright_memory::{DenseMapper, Mmapper, Scope, SideLayout, SideMetadataSpec, SideTable};
/// use heapwright_os::{Reservation, real_port};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (port, bytes) = (real_port(), 16 << 20);
/// let memory = Reservation::new(port.clone(), bytes, Chunk::BYTES)?;
/// // A byte for each block of 32 KiB.
/// let spec = SideMetadataSpec::new("policies", 3, 15, Scope::Local);
/// let side = SideLayout::new().with(spec).place(&port, memory.start(), bytes, c"example")?;
/// let mapper = DenseMapper::new(port.clone(), memory.start(), bytes)?;
/// mapper.ensure_mapped(memory.start(), 1, &[], side.specs())?;
///
/// // SAFETY: `side` lives as long as the handle; only addresses of the chunk that was mapped are asked.
/// let policies = unsafe { SideTable::<u8, 15>::new(&side.specs()[0]) }.ok_or("another shape")?;
/// let second = memory.start().add(32 << 10);
/// policies.store(second.add(100), 7);
/// assert_eq!(policies.load(second), 7);
/// assert_eq!(policies.load(memory.start()), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SideTable<T: Entry, const LOG: u32> {
    base: usize,
    entries: *const T::Atomic,
    entry: PhantomData<T>,
}

impl<T: Entry, const LOG: u32> Clone for SideTable<T, LOG> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Entry, const LOG: u32> Copy for SideTable<T, LOG> {}

// SAFETY: the entries are atomics.
unsafe impl<T: Entry, const LOG: u32> Send for SideTable<T, LOG> {}
// SAFETY: as above.
unsafe impl<T: Entry, const LOG: u32> Sync for SideTable<T, LOG> {}

impl<T: Entry, const LOG: u32> SideTable<T, LOG> {
    /// The typed face of a table that has its place.
    ///
    /// `None` if the table's shape is another one, or it has no place.
    ///
    /// # Safety
    /// The [`crate::SideMemory`] outlives the handle, and entries are used only for addresses in the table's range whose
    /// chunk is mapped along with the table.
    #[must_use]
    pub unsafe fn new(spec: &SideMetadataSpec) -> Option<Self> {
        let fits = spec.log_bits == T::LOG_BITS && spec.log_region == LOG && !spec.table.is_zero();
        fits.then(|| Self {
            base: spec.base.as_usize(),
            entries: spec.table.as_ptr(),
            entry: PhantomData,
        })
    }

    /// The number of an address's entry.
    #[inline(always)]
    #[must_use]
    pub fn index(&self, address: Address) -> usize {
        address.as_usize().wrapping_sub(self.base) >> LOG
    }

    /// The entry of an address.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, address: Address) -> &T::Atomic {
        self.at(self.index(address))
    }

    /// An entry by its number.
    #[inline(always)]
    #[must_use]
    pub fn at(&self, index: usize) -> &T::Atomic {
        // SAFETY: `new`: only entries of mapped chunks are used.
        unsafe { &*self.entries.add(index) }
    }

    /// Reads an entry. Relaxed: it orders nothing else.
    #[inline(always)]
    #[must_use]
    pub fn load(&self, address: Address) -> T {
        T::load(self.get(address), Ordering::Relaxed)
    }

    /// Reads an entry, and sees all that was written before it was stored with [`SideTable::store_release`].
    #[inline(always)]
    #[must_use]
    pub fn load_acquire(&self, address: Address) -> T {
        T::load(self.get(address), Ordering::Acquire)
    }

    /// Writes an entry. Relaxed: it orders nothing else.
    #[inline(always)]
    pub fn store(&self, address: Address, value: T) {
        T::store(self.get(address), value, Ordering::Relaxed);
    }

    /// Writes an entry, and publishes all that was written before.
    #[inline(always)]
    pub fn store_release(&self, address: Address, value: T) {
        T::store(self.get(address), value, Ordering::Release);
    }

    /// Sets bits of an entry; gives what was there. Relaxed.
    #[inline(always)]
    pub fn fetch_or(&self, address: Address, value: T) -> T {
        T::fetch_or(self.get(address), value, Ordering::Relaxed)
    }

    /// Replaces an entry that is `old`. Acquires and releases.
    ///
    /// # Errors
    /// The entry, if it is not `old`.
    #[inline(always)]
    pub fn compare_exchange(&self, address: Address, old: T, new: T) -> Result<T, T> {
        T::compare_exchange(self.get(address), old, new)
    }

    /// Stores the same value for all of a range, which is rounded inward to regions. Not atomic as a whole.
    pub fn fill(&self, start: Address, end: Address, value: T) {
        // Regions begin at the base, which need not be a multiple of their size.
        let whole = start
            .as_usize()
            .wrapping_sub(self.base)
            .is_multiple_of(1 << LOG);
        for index in self.index(start) + usize::from(!whole)..self.index(end) {
            T::store(self.at(index), value, Ordering::Relaxed);
        }
    }
}

/// A table with a bit for each `2^LOG` bytes of a range, used by words of 64 bits. A handle, as [`SideTable`].
///
/// An address means the region that it is in. So both ends of a range `[start, end)` are rounded down to regions, and what
/// is found is the start of a region.
///
/// ```
/// use heapwright_address::Chunk;
/// use heapwright_memory::{BitTable, DenseMapper, Mmapper, Scope, SideLayout, SideMetadataSpec};
/// use heapwright_os::{Reservation, real_port};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (port, bytes) = (real_port(), 16 << 20);
/// let memory = Reservation::new(port.clone(), bytes, Chunk::BYTES)?;
/// // A bit for each 16 bytes.
/// let spec = SideMetadataSpec::new("marks", 0, 4, Scope::Local);
/// let side = SideLayout::new().with(spec).place(&port, memory.start(), bytes, c"example")?;
/// let mapper = DenseMapper::new(port.clone(), memory.start(), bytes)?;
/// mapper.ensure_mapped(memory.start(), 1, &[], side.specs())?;
///
/// // SAFETY: `side` lives as long as the handle; only addresses of the chunk that was mapped are asked.
/// let marks = unsafe { BitTable::<4>::new(&side.specs()[0]) }.ok_or("another shape")?;
/// let (start, object) = (memory.start(), memory.start().add(4096));
/// assert!(marks.try_set(object));
/// assert!(!marks.try_set(object), "somebody was faster");
/// assert_eq!(marks.find_next_set(start, start.add(8192)), Some(object));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BitTable<const LOG: u32> {
    base: usize,
    words: *const AtomicU64,
}

// SAFETY: the words are atomics.
unsafe impl<const LOG: u32> Send for BitTable<LOG> {}
// SAFETY: as above.
unsafe impl<const LOG: u32> Sync for BitTable<LOG> {}

impl<const LOG: u32> BitTable<LOG> {
    /// As [`SideTable::new`].
    ///
    /// # Safety
    /// As [`SideTable::new`].
    #[must_use]
    pub unsafe fn new(spec: &SideMetadataSpec) -> Option<Self> {
        let fits = spec.log_bits == 0 && spec.log_region == LOG && !spec.table.is_zero();
        fits.then(|| Self {
            base: spec.base.as_usize(),
            words: spec.table.as_ptr(),
        })
    }

    #[inline(always)]
    fn index(&self, address: Address) -> usize {
        address.as_usize().wrapping_sub(self.base) >> LOG
    }

    fn address(&self, index: usize) -> Address {
        Address::new(self.base + (index << LOG))
    }

    /// The word that a bit is in.
    #[inline(always)]
    fn word(&self, index: usize) -> &AtomicU64 {
        self.word_at(index / 64)
    }

    /// A word by its own number.
    #[inline(always)]
    fn word_at(&self, number: usize) -> &AtomicU64 {
        // SAFETY: `new`: only words of mapped chunks are used.
        unsafe { &*self.words.add(number) }
    }

    /// The bit of an address.
    #[inline(always)]
    #[must_use]
    pub fn load(&self, address: Address) -> bool {
        let index = self.index(address);
        self.word(index).load(Ordering::Relaxed) >> (index % 64) & 1 != 0
    }

    /// Sets the bit. True if it was clear and this call set it: tests before it writes, so a set bit costs a load.
    #[inline(always)]
    pub fn try_set(&self, address: Address) -> bool {
        let index = self.index(address);
        let (word, bit) = (self.word(index), 1 << (index % 64));
        word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// As [`BitTable::try_set`] where nobody else writes the word: no atomic read-modify-write.
    #[inline(always)]
    pub fn try_set_alone(&self, address: Address) -> bool {
        let index = self.index(address);
        let (word, bit) = (self.word(index), 1 << (index % 64));
        let old = word.load(Ordering::Relaxed);
        word.store(old | bit, Ordering::Relaxed);
        old & bit == 0
    }

    /// Clears the bit. True if it was set and this call cleared it.
    #[inline(always)]
    pub fn try_clear(&self, address: Address) -> bool {
        let index = self.index(address);
        let (word, bit) = (self.word(index), 1 << (index % 64));
        word.load(Ordering::Relaxed) & bit != 0
            && word.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }

    /// Calls `visit(number of the word, mask)` for the words of `[from, to)`, by numbers of bits. All words but the first and
    /// the last are visited from a loop whose mask is a constant, which made it five times faster.
    #[inline(always)]
    fn each_word(from: usize, to: usize, mut visit: impl FnMut(usize, u64)) {
        if from >= to {
            return;
        }
        let (first, last) = (from / 64, (to - 1) / 64);
        let (head, tail) = (u64::MAX << (from % 64), u64::MAX >> (63 - (to - 1) % 64));
        if first == last {
            visit(first, head & tail);
            return;
        }
        visit(first, head);
        for number in first + 1..last {
            visit(number, u64::MAX);
        }
        visit(last, tail);
    }

    /// Sets all bits of `[start, end)`. Bits outside of it may be changed by others meanwhile.
    pub fn set_range(&self, start: Address, end: Address) {
        Self::each_word(self.index(start), self.index(end), |number, mask| {
            let word = self.word_at(number);
            if mask == u64::MAX {
                word.store(mask, Ordering::Relaxed);
            } else {
                word.fetch_or(mask, Ordering::Relaxed);
            }
        });
    }

    /// Clears all bits of `[start, end)`. Bits outside of it may be changed by others meanwhile.
    pub fn clear_range(&self, start: Address, end: Address) {
        Self::each_word(self.index(start), self.index(end), |number, mask| {
            let word = self.word_at(number);
            if mask == u64::MAX {
                word.store(0, Ordering::Relaxed);
            } else {
                word.fetch_and(!mask, Ordering::Relaxed);
            }
        });
    }

    /// The first address in `[start, end)` whose bit is set.
    #[must_use]
    pub fn find_next_set(&self, start: Address, end: Address) -> Option<Address> {
        self.find(start, end, |word| word)
    }

    /// The first address in `[start, end)` whose bit is clear.
    #[must_use]
    pub fn find_next_clear(&self, start: Address, end: Address) -> Option<Address> {
        self.find(start, end, |word| !word)
    }

    fn find(&self, start: Address, end: Address, look: impl Fn(u64) -> u64) -> Option<Address> {
        let (from, to) = (self.index(start), self.index(end));
        if from >= to {
            return None;
        }
        let last = (to - 1) / 64;
        let mut number = from / 64;
        let mut bits = look(self.word_at(number).load(Ordering::Relaxed)) & u64::MAX << (from % 64);
        while bits == 0 {
            if number == last {
                return None;
            }
            number += 1;
            bits = look(self.word_at(number).load(Ordering::Relaxed));
        }
        let found = number * 64 + bits.trailing_zeros() as usize;
        (found < to).then(|| self.address(found))
    }

    /// Visits the addresses in `[start, end)` whose bits are set, a word at a time.
    pub fn for_each_set(&self, start: Address, end: Address, mut visit: impl FnMut(Address)) {
        Self::each_word(self.index(start), self.index(end), |number, mask| {
            let origin = self.address(number * 64);
            let mut bits = self.word_at(number).load(Ordering::Relaxed) & mask;
            while bits != 0 {
                visit(origin.add((bits.trailing_zeros() as usize) << LOG));
                bits &= bits - 1;
            }
        });
    }

    /// How many bits of `[start, end)` are set.
    #[must_use]
    pub fn count(&self, start: Address, end: Address) -> usize {
        let (from, to) = (self.index(start), self.index(end));
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("popcnt") {
            // SAFETY: the processor has the instruction.
            return unsafe { self.count_by_popcnt(from, to) };
        }
        self.count_between(from, to)
    }

    /// [`BitTable::count_between`] with an instruction that not every x86-64 has.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "popcnt")]
    fn count_by_popcnt(&self, from: usize, to: usize) -> usize {
        self.count_between(from, to)
    }

    #[inline(always)]
    fn count_between(&self, from: usize, to: usize) -> usize {
        let mut sum = 0;
        Self::each_word(from, to, |number, mask| {
            sum += (self.word_at(number).load(Ordering::Relaxed) & mask).count_ones() as usize;
        });
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a processor that has the instruction, the others' way is taken nowhere else.
    #[test]
    fn both_ways_to_count_agree() {
        let mut random = 1u64;
        let words: Vec<AtomicU64> = (0..100)
            .map(|_| {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                AtomicU64::new(random ^ random >> 32)
            })
            .collect();
        let table = BitTable::<4> {
            base: 0,
            words: words.as_ptr(),
        };
        let bits = words.len() * 64;
        for from in (0..bits).step_by(61) {
            for to in (0..=bits).step_by(67) {
                let expected = (from..to)
                    .filter(|i| words[i / 64].load(Ordering::Relaxed) >> (i % 64) & 1 != 0)
                    .count();
                assert_eq!(table.count_between(from, to), expected);
                assert_eq!(
                    table.count(Address::new(from << 4), Address::new(to << 4)),
                    expected
                );
            }
        }
    }
}
