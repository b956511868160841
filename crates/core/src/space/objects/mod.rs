//! All policies over one range of addresses, for runtimes that know their references.
//!
//! Each block of 32 KiB has an [`Entry`] that says what the collector does with an object in it: evacuate it, mark it where it
//! is, or leave it. A plan changes the entries before and after a trace; the tracing loop only looks at them. So there is one
//! tracing loop for all plans, and plans share memory block by block.
//!
//! What the two words of bits (see [`Tables`]) mean here; a bit stands for 16 bytes, and an object's is that of its
//! first byte (objects are at least 16 bytes long, so no two have the same bit):
//!
//! | block | word 0 | word 1 |
//! |---|---|---|
//! | size class, large | allocated | marked |
//! | others, [`Metadata::Side`](crate::vm::Metadata::Side) | being moved, or moved | marked, or moved |
//!
//! | word 0, word 1 | state of an object in a moving block |
//! |---|---|
//! | 0, 0 | not reached yet |
//! | 1, 0 | a worker is copying it |
//! | 1, 1 | moved; its first word is its new address |
//! | 0, 1 | reached, and stays where it is |
//!
//! While several workers move objects no claim is taken back: one that stays is 1, 1 too, and has its bit in a third table. When
//! they are done it becomes 0, 1.
//!
//! Marks survive until the next full collection begins: an object without a mark is young, or dead.

mod compact;
mod forward;
#[cfg(all(test, loom))]
mod forward_models;
mod header;
mod lines;
mod region;
mod stock;

pub use compact::CompactTables;
pub use forward::Forward;
pub use header::Header;
pub(crate) use header::{is_unlogged, take_unlogged};
pub use lines::{LINE, LINES_IN_BLOCK};
pub(crate) use region::Extended;
pub use region::Region;
pub(crate) use stock::{CODE, examine_all};
pub use stock::{ObjectStock, Swept};

use crate::alloc::{BLOCK_BYTES, CLASSES};
use crate::bugs::{Bug, is_on};
use crate::space::MarkSweep;
use crate::space::pages::PAGE;
use crate::space::tables::{Entry, PAIR, Policy, Tables};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use heapwright_address::ObjectReference;
use heapwright_os::RawLock;

/// Larger objects have whole pages of their own.
pub const MAX_BUMP: usize = 8 << 10;

/// The tables that only heaps of objects have. A handle, as [`Tables`].
#[derive(Clone, Copy, Debug)]
pub struct ObjectTables {
    /// A byte for each line: the epoch in which an object was found in it.
    pub(crate) lines: *const AtomicU8,
    /// A bit for each 16 bytes: the object is old, and not in a remembered set.
    pub(crate) unlogged: *const AtomicU64,
    /// A bit for each 16 bytes: an object starts here (for runtimes with an object map).
    pub(crate) objects: *const AtomicU64,
    /// A bit for each 8 bytes: an object starts here whose fields are still to be scanned, as the stack was full.
    pub(crate) pending: *const AtomicU64,
    /// A bit for each 16 bytes: the object was to be moved, and stays; only in a phase of several workers (for plans that move,
    /// and [`Metadata::Side`](crate::vm::Metadata::Side)).
    pub(crate) stayed: *const AtomicU64,
}

// SAFETY: the tables are atomics in memory that the heap owns; the handle itself never changes.
unsafe impl Send for ObjectTables {}
// SAFETY: as above.
unsafe impl Sync for ObjectTables {}

/// The memory of one heap of objects, as far as threads share it.
#[derive(Debug)]
pub struct ObjectSpace {
    cells: MarkSweep,
    side: ObjectTables,
    compact: CompactTables,
    range: usize,
    /// Objects have an entry in the object map.
    object_map: bool,
    mark_epoch: AtomicUsize,
    line_epoch: AtomicU8,
    /// A concurrent mark is under way: new objects count as marked.
    marking: AtomicBool,
    lock: RawLock,
    locked: UnsafeCell<ObjectStock>,
}

// SAFETY: `locked` is used under `lock`, or by the one thread that collects while the world is stopped (each use says so); the
// rest is Sync by itself.
unsafe impl Sync for ObjectSpace {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for ObjectSpace {}

impl ObjectSpace {
    /// A space over the range that the tables describe.
    #[must_use]
    pub fn new(
        cells: MarkSweep,
        side: ObjectTables,
        compact: CompactTables,
        range: usize,
        object_map: bool,
        stock: ObjectStock,
    ) -> Self {
        Self {
            cells,
            side,
            compact,
            range,
            object_map,
            mark_epoch: AtomicUsize::new(1),
            line_epoch: AtomicU8::new(1),
            marking: AtomicBool::new(false),
            lock: RawLock::new(),
            locked: UnsafeCell::new(stock),
        }
    }

    /// The part of it with size classes.
    #[inline(always)]
    #[must_use]
    pub fn cells(&self) -> &MarkSweep {
        &self.cells
    }

    /// The side tables.
    #[inline(always)]
    #[must_use]
    pub fn tables(&self) -> &Tables {
        self.cells.tables()
    }

    /// Bytes of the range of addresses. Objects outside of it belong to somebody else.
    #[inline(always)]
    #[must_use]
    pub fn range(&self) -> usize {
        self.range
    }

    /// The value of the mark field in headers that says "marked": 1 or 2.
    #[inline(always)]
    #[must_use]
    pub fn mark_epoch(&self) -> usize {
        self.mark_epoch.load(Ordering::Relaxed)
    }

    /// The header bits of a new object that counts as marked.
    #[must_use]
    pub(crate) fn marked_header(&self) -> usize {
        forward::marked(self.mark_epoch())
    }

    /// The value of a line's byte that says "in use".
    #[inline(always)]
    #[must_use]
    pub fn line_epoch(&self) -> u8 {
        self.line_epoch.load(Ordering::Relaxed)
    }

    /// Is a concurrent mark under way?
    #[inline(always)]
    #[must_use]
    pub fn marking(&self) -> bool {
        self.marking.load(Ordering::Relaxed)
    }

    /// World stopped.
    pub fn set_marking(&self, marking: bool) {
        self.marking.store(marking, Ordering::Relaxed);
    }

    /// Do objects have an entry in the object map?
    #[inline(always)]
    #[must_use]
    pub fn has_object_map(&self) -> bool {
        self.object_map
    }

    /// Runs `f` on what is used under the lock. It neither collects nor allocates. Any thread.
    pub fn with<R>(&self, f: impl FnOnce(&mut ObjectStock) -> R) -> R {
        self.lock.lock();
        // SAFETY: the lock is held, and `f` has no way to come back here (it gets no reference to the space).
        let result = f(unsafe { &mut *self.locked.get() });
        self.lock.unlock();
        result
    }

    /// Takes the lock of [`ObjectSpace::with`], until [`ObjectSpace::release_lock`]: what is under it is whole meanwhile.
    pub(crate) fn hold_lock(&self) {
        self.lock.lock();
    }

    /// Releases the lock, for who holds it; also in the child of a fork.
    pub(crate) fn release_lock(&self) {
        self.lock.unlock();
    }

    /// The state of the block around an address of the range.
    #[inline(always)]
    #[must_use]
    pub fn entry_of(&self, object: usize) -> Entry {
        self.tables().entry(object - self.tables().base())
    }

    /// Is the address in the range, in a block that is in use?
    #[must_use]
    pub fn in_use(&self, address: usize) -> bool {
        let offset = address.wrapping_sub(self.tables().base());
        offset < self.cells.extent() && self.tables().entry(offset).class() != 0
    }

    // ---- bits of 16 bytes each -----------------------------------------------------------------------------------

    /// The word of a table of bits for an offset.
    #[inline(always)]
    fn word_of(table: *const AtomicU64, offset: usize) -> &'static AtomicU64 {
        // SAFETY: callers pass offsets below the extent, for which the tables have words (`new`); the tables live as long as
        // the heap, and the reference is used at once.
        unsafe { &*table.add(offset / PAIR) }
    }

    #[inline(always)]
    const fn bit_of(offset: usize) -> u64 {
        1 << (offset / 16 % 64)
    }

    /// Is the object old, and not in a remembered set? (In the side table.)
    #[inline(always)]
    #[must_use]
    pub fn is_unlogged(&self, object: usize) -> bool {
        let offset = object - self.tables().base();
        Self::word_of(self.side.unlogged, offset).load(Ordering::Relaxed) & Self::bit_of(offset)
            != 0
    }

    /// Says that it is. Any worker.
    #[inline(always)]
    pub fn set_unlogged<const SHARED: bool>(&self, object: usize) {
        let offset = object - self.tables().base();
        let word = Self::word_of(self.side.unlogged, offset);
        let bit = Self::bit_of(offset);
        let old = word.load(Ordering::Relaxed);
        if old & bit == 0 {
            if SHARED {
                word.fetch_or(bit, Ordering::Relaxed);
            } else {
                word.store(old | bit, Ordering::Relaxed);
            }
        }
    }

    /// Takes the bit away: true if this call did. Any mutator.
    #[inline]
    pub fn take_unlogged(&self, object: usize) -> bool {
        let offset = object - self.tables().base();
        let bit = Self::bit_of(offset);
        Self::word_of(self.side.unlogged, offset).fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// Enters an object into the object map. Any mutator or worker.
    #[inline(always)]
    pub fn enter(&self, object: usize) {
        let offset = object - self.tables().base();
        Self::word_of(self.side.objects, offset).fetch_or(Self::bit_of(offset), Ordering::Relaxed);
    }

    /// Is there an object at this address? Needs the object map, or a block with size classes.
    #[must_use]
    pub fn is_object(&self, address: usize) -> bool {
        let offset = address.wrapping_sub(self.tables().base());
        if offset >= self.cells.extent() || !offset.is_multiple_of(8) {
            return false;
        }
        let entry = self.tables().entry(offset);
        if entry.is_bump() {
            offset.is_multiple_of(16)
                && self.object_map
                && Self::word_of(self.side.objects, offset).load(Ordering::Relaxed)
                    & Self::bit_of(offset)
                    != 0
        } else {
            let lead = self.tables().lead(offset);
            match entry.class() {
                // Within the first page.
                Entry::LARGE => offset % PAGE == lead && self.cells.is_allocated(address & !15),
                _ => self.cells.is_allocated(address - lead),
            }
        }
    }

    /// The object around an address, by its start. Needs the object map. `size` gives an object's size.
    #[must_use]
    pub fn object_around(
        &self,
        address: usize,
        size: impl Fn(ObjectReference) -> usize,
    ) -> Option<ObjectReference> {
        let offset = address.wrapping_sub(self.tables().base());
        if offset >= self.cells.extent() {
            return None;
        }
        let entry = self.tables().entry(offset);
        if entry.class() == 0 {
            return None;
        }
        if !entry.is_bump() {
            let (start, _, _) = self.tables().cell(offset)?;
            let object = self.tables().base() + start + self.tables().lead(start);
            return (object <= address && self.is_object(object))
                .then(|| reference(object))
                .flatten();
        }
        if !self.object_map {
            return None;
        }
        let block = offset / BLOCK_BYTES * BLOCK_BYTES;
        let mut pair = offset / PAIR * PAIR;
        let mut mask = u64::MAX >> (63 - offset / 16 % 64);
        loop {
            let word = Self::word_of(self.side.objects, pair).load(Ordering::Relaxed) & mask;
            if word != 0 {
                let start = self.tables().base() + pair + (63 - word.leading_zeros() as usize) * 16;
                let object = reference(start)?;
                return (address - start < size(object)).then_some(object);
            }
            if pair == block {
                return None;
            }
            pair -= PAIR;
            mask = u64::MAX;
        }
    }

    /// Visits every object: of blocks with size classes, large ones, and, with an object map, all others. World stopped.
    pub fn for_each_object(&self, mut visit: impl FnMut(ObjectReference)) {
        let base = self.tables().base();
        for block in (0..self.cells.extent()).step_by(BLOCK_BYTES) {
            let entry = self.tables().entry(block);
            if entry.class() == 0 {
                continue;
            }
            if !entry.is_bump() {
                self.for_each_cell(block, 0, &mut visit);
            } else if self.object_map {
                self.for_each_bit(self.side.objects, block, |offset| {
                    if let Some(object) = reference(base + offset) {
                        visit(object);
                    }
                });
            }
        }
    }

    fn for_each_bit(&self, table: *const AtomicU64, block: usize, mut visit: impl FnMut(usize)) {
        for pair in (block..block + BLOCK_BYTES).step_by(PAIR) {
            let mut word = Self::word_of(table, pair).load(Ordering::Relaxed);
            while word != 0 {
                visit(pair + word.trailing_zeros() as usize * 16);
                word &= word - 1;
            }
        }
    }

    // ---- marks in the side table ---------------------------------------------------------------------------------

    /// Sets the mark: true if it was not set. Any worker.
    #[inline(always)]
    pub fn mark_in_side<const SHARED: bool>(&self, object: usize) -> bool {
        let offset = object - self.tables().base();
        forward::mark_side::<SHARED>(self.tables().word(offset, 1), Self::bit_of(offset))
    }

    /// Takes the mark of a large object away. For a seeded bug.
    #[cold]
    pub(crate) fn unmark_large(&self, object: usize) -> bool {
        let offset = object - self.tables().base();
        let large = self.tables().entry(offset).class() == Entry::LARGE;
        if large {
            self.tables()
                .word(offset, 1)
                .fetch_and(!Self::bit_of(offset), Ordering::Relaxed);
        }
        large
    }

    /// Is the mark set?
    #[inline(always)]
    #[must_use]
    pub fn is_marked_in_side(&self, object: usize) -> bool {
        self.tables().bit(object - self.tables().base(), 1)
    }

    /// Marks the cells of a run, each of `bytes`. For its owner.
    pub fn mark_cells(&self, run: &crate::alloc::Run, bytes: usize) {
        let (cursor, limit) = run.cells();
        let base = self.tables().base();
        self.cells.set_bits(cursor - base, limit - base, bytes, 1);
    }

    /// Takes back the cells `[cursor, limit)` of a run in a block: they hold no objects. For its owner, or with the world stopped.
    pub fn forget_cells(&self, cursor: usize, limit: usize, block: usize) {
        self.cells.forget(cursor, limit, block);
        if self.marking() {
            let base = self.tables().base();
            let bytes = CLASSES
                .get(self.tables().entry(block).class())
                .map_or(16, |class| class.bytes as usize);
            for at in (cursor - base..limit - base).step_by(bytes) {
                let word = self.tables().word(at, 1);
                word.fetch_and(!Self::bit_of(at), Ordering::Relaxed);
            }
        }
    }

    /// Marks all that is allocated in `[start, end)` from now on: sets every bit. For the owner of the memory.
    pub fn mark_range(&self, start: usize, end: usize) {
        let base = self.tables().base();
        let mut at = start - base;
        while at < end - base {
            let pair_end = ((at / PAIR + 1) * PAIR).min(end - base);
            let bits = (pair_end - at).div_ceil(16);
            let mask = if bits >= 64 {
                u64::MAX
            } else {
                (1 << bits) - 1
            } << (at / 16 % 64);
            self.tables().word(at, 1).fetch_or(mask, Ordering::Relaxed);
            at = pair_end;
        }
    }

    /// Remembers an object whose fields are still to be scanned. Any worker.
    #[cold]
    pub(crate) fn set_pending(&self, object: usize) {
        let offset = object - self.tables().base();
        let word = Self::word_of(self.side.pending, offset * 2);
        word.fetch_or(1 << (offset / 8 % 64), Ordering::Relaxed);
    }

    /// Takes the first such object at an offset or behind it. World stopped, one worker.
    #[cold]
    pub(crate) fn take_pending(&self, from: usize) -> Option<usize> {
        let mut at = from / 512 * 512;
        while at < self.cells.extent() {
            let word = Self::word_of(self.side.pending, at * 2);
            let bits = word.load(Ordering::Relaxed);
            if bits != 0 {
                word.store(bits & (bits - 1), Ordering::Relaxed);
                return Some(self.tables().base() + at + bits.trailing_zeros() as usize * 8);
            }
            at += 512;
        }
        None
    }

    // ---- what a plan does to blocks, world stopped ------------------------------------------------------------------

    /// Begins a full collection: nothing is marked any more. World stopped.
    pub fn clear_marks(&self) {
        self.mark_epoch
            .store(3 - self.mark_epoch(), Ordering::Relaxed);
        self.next_line_epoch();
        for block in (0..self.cells.extent()).step_by(BLOCK_BYTES) {
            let entry = self.tables().entry(block);
            if entry.class() != 0 && !entry.moves() {
                for pair in (block..block + BLOCK_BYTES).step_by(PAIR) {
                    let word = self.tables().word(pair, 1);
                    if word.load(Ordering::Relaxed) != 0 {
                        word.store(0, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// Has the objects of all blocks of a policy evacuated. World stopped.
    pub fn evacuate(&self, policy: Policy) {
        for block in (0..self.cells.extent()).step_by(BLOCK_BYTES) {
            let entry = self.tables().entry(block);
            if entry.is(policy) {
                self.tables().set_entry(block, entry.moving());
            }
        }
    }

    /// Keeps the objects of the block around an address where they are, as of `policy`. World stopped, before the trace.
    pub fn hold(&self, address: usize, policy: Policy) {
        let offset = address.wrapping_sub(self.tables().base());
        if offset >= self.cells.extent() {
            return;
        }
        let entry = self.tables().entry(offset);
        if entry.moves() && !is_on(Bug::PinIgnored) {
            self.tables().set_entry(offset, entry.held(policy));
        }
    }

    /// Clears what the side tables say of a block that is to be free.
    fn wipe(&self, block: usize) {
        let mut words = [
            (
                self.tables().word(block, 0) as *const AtomicU64,
                2 * BLOCK_BYTES / PAIR,
            ),
            (Self::word_of(self.side.unlogged, block), BLOCK_BYTES / PAIR),
            (core::ptr::null(), 0),
        ];
        if self.object_map {
            words[2] = (Self::word_of(self.side.objects, block), BLOCK_BYTES / PAIR);
        }
        for (first, count) in words {
            if count != 0 {
                // SAFETY: the words of a block below the extent, which are one after the other; the world is stopped, and one
                // worker has the block.
                unsafe { core::ptr::write_bytes(first.cast_mut(), 0, count) };
            }
        }
        self.wipe_lines(block);
    }

    /// Takes all marks of a block away.
    fn clear_bits(&self, block: usize) {
        for pair in (block..block + BLOCK_BYTES).step_by(PAIR) {
            self.tables().word(pair, 0).store(0, Ordering::Relaxed);
            self.tables().word(pair, 1).store(0, Ordering::Relaxed);
        }
    }

    /// Takes the object map of a block away.
    fn clear_object_map(&self, block: usize) {
        for pair in (block..block + BLOCK_BYTES).step_by(PAIR) {
            Self::word_of(self.side.objects, pair).store(0, Ordering::Relaxed);
        }
    }

    /// Visits the marked objects of a block with size classes or of large objects. World stopped, after a trace.
    pub(crate) fn for_each_marked_cell(&self, block: usize, visit: impl FnMut(ObjectReference)) {
        if !self.tables().entry(block).is_bump() {
            self.for_each_cell(block, 1, visit);
        }
    }

    /// Visits the objects of a block with size classes or of large objects that have a bit in a word (0: allocated, 1: marked).
    fn for_each_cell(&self, block: usize, word: usize, mut visit: impl FnMut(ObjectReference)) {
        for pair in (block..block + BLOCK_BYTES).step_by(PAIR) {
            let mut bits = self.tables().word(pair, word).load(Ordering::Relaxed);
            while bits != 0 {
                // The bit leads to the 16 bytes in which the object begins.
                let at = self
                    .tables()
                    .first_cell(pair + bits.trailing_zeros() as usize * 16);
                let object = self.tables().base() + at + self.tables().lead(at) % 16;
                if let Some(object) = reference(object) {
                    visit(object);
                }
                bits &= bits - 1;
            }
        }
    }

    /// Makes the marks of a block its object map, and takes the log bits of the dead away.
    fn adopt_marks(&self, block: usize) {
        for pair in (block..block + BLOCK_BYTES).step_by(PAIR) {
            let marks = self.tables().word(pair, 1).load(Ordering::Relaxed);
            if self.object_map && !is_on(Bug::MapKept) {
                Self::word_of(self.side.objects, pair).store(marks, Ordering::Relaxed);
            }
        }
    }

    /// Ends a phase of several workers: what was to be moved and stays is no longer claimed. World stopped.
    #[cold]
    fn settle_stayed(&self) {
        for block in (0..self.cells.extent()).step_by(BLOCK_BYTES) {
            let entry = self.tables().entry(block);
            if entry.moves() && entry.is_retained() {
                for pair in (block..block + BLOCK_BYTES).step_by(PAIR) {
                    forward::settle_side(
                        self.tables().word(pair, 0),
                        Self::word_of(self.side.stayed, pair),
                    );
                }
            }
        }
    }

    /// After a trace, a block whose objects moved but for some: those stay, as of `policy`.
    fn settle_retained(&self, block: usize, policy: Policy) {
        for pair in (block..block + BLOCK_BYTES).step_by(PAIR) {
            let moved = self.tables().word(pair, 0).swap(0, Ordering::Relaxed);
            self.tables()
                .word(pair, 1)
                .fetch_and(!moved, Ordering::Relaxed);
        }
        self.adopt_marks(block);
        let entry = self.tables().entry(block);
        self.tables().set_entry(block, entry.held(policy));
    }
}

/// An address of the heap as a reference.
#[inline(always)]
fn reference(address: usize) -> Option<ObjectReference> {
    ObjectReference::from_address(heapwright_address::Address::new(address))
}
