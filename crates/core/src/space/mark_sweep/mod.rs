//! Segregated fit, non-moving: the part that threads share without a lock.
//!
//! A block holds cells of one class and kind. What is free in it is read from the object map: a cell without a bit is free.
//! There are no free lists through the cells, and a collection does not sweep them: it marks in the words of the other
//! parity, swaps the two, and the marks *are* the object map.
//!
//! Who may touch what: a block's owner takes runs from it ([`MarkSweep::refill`]) without a lock; [`Stock`] (blocks, lists,
//! pages) is used under the heap's lock; marks are set by the workers of a collection while the world is stopped.

mod stock;

pub use stock::{Stock, SweepResult};

use crate::alloc::{BLOCK_BYTES, CLASSES, Run, size_class::GRANULE};
use crate::event::Violation;
use crate::space::poison::Poison;
use crate::space::tables::{Entry, PAIR, Tables};
use crate::vm::{Cell, Kind, KindTraits, MAX_KINDS};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering, fence};
use heapwright_address::Address;
use std::sync::Arc;

/// Offsets within a cell that can be registered as displacements, in bytes.
pub const MAX_DISPLACEMENT: usize = 4096;

/// How much a run hands over at once, and at least one cell: zeroed in one go, and small enough to be in the cache when it is used.
pub(crate) const RUN_BYTES: usize = 4096;

/// The space, as far as it is shared.
#[derive(Debug)]
pub struct MarkSweep {
    tables: Tables,
    extent: AtomicUsize,
    parity: AtomicUsize,
    all_interior: AtomicBool,
    displacements: [AtomicU8; MAX_DISPLACEMENT],
    /// What is set in `displacements`, as far as it is in the first granule, and [`FAR`] for the rest.
    tags: AtomicU32,
    kinds: [AtomicU8; MAX_KINDS],
    allocated: AtomicUsize,
    one_cell_runs: bool,
    poison: Option<Arc<Poison>>,
}

/// In `MarkSweep::tags`: a displacement beyond the first granule is registered.
const FAR: u32 = 1 << 16;

const LEAF: u8 = 1;
const ZEROED: u8 = 2;
const COLLECTABLE: u8 = 4;
const DEFINED: u8 = 8;
const CONSERVATIVE: u8 = 16;

impl MarkSweep {
    /// A space over the range that the tables describe, of which nothing is mapped yet. With `one_cell_runs` each run holds
    /// one cell, so that every allocation passes the slow path (the option `stress`).
    #[must_use]
    pub fn new(tables: Tables, one_cell_runs: bool) -> Self {
        let space = Self {
            tables,
            extent: AtomicUsize::new(0),
            parity: AtomicUsize::new(0),
            all_interior: AtomicBool::new(true),
            displacements: [const { AtomicU8::new(0) }; MAX_DISPLACEMENT],
            tags: AtomicU32::new(1),
            kinds: [const { AtomicU8::new(0) }; MAX_KINDS],
            allocated: AtomicUsize::new(0),
            one_cell_runs,
            poison: None,
        };
        space.displacements[0].store(1, Ordering::Relaxed);
        space
    }

    /// From now on, free cells hold the pattern.
    #[must_use]
    pub fn with_poison(mut self, poison: Option<Arc<Poison>>) -> Self {
        self.poison = poison;
        self
    }

    /// With the option `poison`: what the spaces share of it.
    #[must_use]
    pub(crate) fn poison(&self) -> Option<&Poison> {
        self.poison.as_deref()
    }

    /// Fills the cells of a block whose bit is in `old` and not in `new`, for the words of bits at an offset.
    ///
    /// Those cells are dead, and nobody uses the block meanwhile: world stopped.
    pub(crate) fn poison_dead(&self, offset: usize, old: u64, new: u64) {
        let Some(poison) = &self.poison else {
            return;
        };
        let bytes = CLASSES
            .get(self.tables.entry(offset).class())
            .map_or(0, |c| c.bytes as usize);
        let mut dead = old & !new;
        while dead != 0 {
            let granule = offset + dead.trailing_zeros() as usize * GRANULE;
            let cell = self.tables.base() + self.tables.first_cell(granule);
            // SAFETY: a cell of a block with a size class, which is dead, by the rule above.
            unsafe { poison.fill(cell, cell + bytes) };
            dead &= dead - 1;
        }
    }

    /// Fills the cells that died, once the marks are the object map. World stopped, before the sweep.
    pub(crate) fn poison_all_dead(&self) {
        if self.poison.is_none() {
            return;
        }
        let parity = self.parity();
        for at in (0..self.extent()).step_by(PAIR) {
            let class = self.tables.entry(at).class();
            if class != 0 && class < CLASSES.len() {
                let word = |parity| self.tables.word(at, parity).load(Ordering::Relaxed);
                self.poison_dead(at, word(parity ^ 1), word(parity));
            }
        }
    }

    /// Reports free cells that were written to, with the option `poison`. World stopped.
    pub(crate) fn check_poison(&self, note: &mut dyn FnMut(Violation)) {
        let Some(poison) = &self.poison else {
            return;
        };
        let base = self.tables.base();
        for block in (0..self.extent()).step_by(BLOCK_BYTES) {
            let Some(class) = CLASSES.get(self.tables.entry(block).class()) else {
                continue;
            };
            let bytes = class.bytes as usize;
            for index in 0..class.cells as usize {
                let cell = block + index * bytes;
                if !self.tables.bit(cell, self.parity()) {
                    // SAFETY: a free cell, and nobody takes it while the world is stopped.
                    if let Some(wrong) = unsafe { poison.written(base + cell, base + cell + bytes) }
                    {
                        note(wrong);
                    }
                }
            }
        }
    }

    /// The side tables.
    #[inline(always)]
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Bytes from the base of the range that are mapped.
    #[inline(always)]
    #[must_use]
    pub fn extent(&self) -> usize {
        self.extent.load(Ordering::Acquire)
    }

    /// The parity of the object map. The other one is the marks'.
    #[inline(always)]
    #[must_use]
    pub fn parity(&self) -> usize {
        self.parity.load(Ordering::Relaxed)
    }

    /// Makes the marks the object map. World stopped.
    pub fn flip(&self) {
        self.parity.store(self.parity() ^ 1, Ordering::Relaxed);
    }

    /// Defines a kind, under the heap's lock. `None` when there are [`MAX_KINDS`] already.
    pub fn define_kind(&self, traits: KindTraits) -> Option<Kind> {
        let index = self
            .kinds
            .iter()
            .position(|k| k.load(Ordering::Relaxed) == 0)?;
        let bits = if traits.leaf { LEAF } else { 0 }
            | if traits.zeroed { ZEROED } else { 0 }
            | if traits.collectable { COLLECTABLE } else { 0 }
            | if traits.conservative { CONSERVATIVE } else { 0 }
            | DEFINED;
        self.kinds[index].store(bits, Ordering::Relaxed);
        Some(Kind(index as u8))
    }

    /// What a kind is. An undefined kind is a zeroed one that is scanned and collected.
    #[inline]
    #[must_use]
    pub fn kind(&self, kind: u8) -> KindTraits {
        let bits = self
            .kinds
            .get(kind as usize)
            .map_or(0, |k| k.load(Ordering::Relaxed));
        let bits = if bits == 0 {
            ZEROED | COLLECTABLE
        } else {
            bits
        };
        KindTraits {
            leaf: bits & LEAF != 0,
            zeroed: bits & ZEROED != 0,
            collectable: bits & COLLECTABLE != 0,
            conservative: bits & CONSERVATIVE != 0,
        }
    }

    /// Do all interior pointers in objects count (`true`), or only those at registered displacements?
    pub fn set_all_interior(&self, all: bool) {
        self.all_interior.store(all, Ordering::Relaxed);
    }

    /// See [`MarkSweep::set_all_interior`].
    #[must_use]
    pub fn all_interior(&self) -> bool {
        self.all_interior.load(Ordering::Relaxed)
    }

    /// Lets pointers to `offset` bytes behind a cell's start count. False if the offset is [`MAX_DISPLACEMENT`] or more.
    pub fn register_displacement(&self, offset: usize) -> bool {
        let Some(displacement) = self.displacements.get(offset) else {
            return false;
        };
        displacement.store(1, Ordering::Relaxed);
        let tag = if offset < GRANULE { 1 << offset } else { FAR };
        self.tags.fetch_or(tag, Ordering::Relaxed);
        true
    }

    /// Does a pointer to `offset` bytes behind a cell's start count, when not all do?
    #[inline(always)]
    #[must_use]
    pub fn is_displacement(&self, offset: usize) -> bool {
        self.displacements
            .get(offset)
            .is_some_and(|d| d.load(Ordering::Relaxed) != 0)
    }

    /// The registered displacements within the first granule: bit n for n bytes. `None` if there are others.
    #[must_use]
    pub fn tags(&self) -> Option<u32> {
        let tags = self.tags.load(Ordering::Relaxed);
        (tags & FAR == 0).then_some(tags)
    }

    /// Bytes handed to threads since the last collection, less what was freed explicitly.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.allocated.load(Ordering::Relaxed)
    }

    /// The cell around any word, allocated or free.
    #[must_use]
    pub fn cell(&self, word: usize) -> Option<Cell> {
        let offset = word.wrapping_sub(self.tables.base());
        if offset >= self.extent() {
            return None;
        }
        let (start, bytes, entry) = self.tables.cell(offset)?;
        Some(self.describe(start, bytes, entry))
    }

    /// A cell from what [`Tables::cell`] gives.
    #[inline]
    #[must_use]
    pub fn describe(&self, start: usize, bytes: usize, entry: Entry) -> Cell {
        Cell {
            start: Address::new(self.tables.base() + start),
            bytes,
            kind: Kind(entry.kind()),
            large: entry.class() == Entry::LARGE,
        }
    }

    /// Is this the start of an allocated cell (or of one in a thread's run)?
    #[must_use]
    pub fn is_allocated(&self, start: usize) -> bool {
        let offset = start.wrapping_sub(self.tables.base());
        offset < self.extent()
            && offset == self.tables.first_cell(offset & !(GRANULE - 1))
            && self.tables.entry(offset).class() != 0
            && self.tables.bit(offset, self.parity())
    }

    /// Takes the next free cells of the run's block, up to `most` bytes but at least one cell. False if there are none: the
    /// block is used up, or there is no block.
    ///
    /// Called by the run's owner inside of a busy section (or under the heap's lock with the collector shut out).
    pub fn refill(&self, run: &Run, kind: u8, class: usize, most: usize) -> bool {
        let end = run.end();
        if end == 0 {
            return false;
        }
        let bytes = CLASSES[class].bytes as usize;
        let base = self.tables.base();
        let (cursor, limit) = run.cells();
        debug_assert_eq!(cursor, limit);
        let parity = self.parity();
        let Some(first) = self.next_free(limit - base, end - base, bytes, parity) else {
            run.set(end, end, end);
            return false;
        };
        let full = self.most_cells(class) * bytes;
        let most = if most >= full {
            full
        } else {
            (most / bytes).max(1) * bytes
        };
        let last = self.next_used(first, (first + most).min(end - base), parity);
        if let Some(poison) = &self.poison {
            // With the release in `Stock::free`: who freed a cell has filled it before.
            fence(Ordering::Acquire);
            // SAFETY: as below.
            unsafe { poison.look(base + first, base + last) };
        }
        self.set_bits(first, last, bytes, parity);
        if self.kind(kind).zeroed && !self.tables.entry(first).is_clean() {
            // SAFETY: the cells are in a mapped block that the caller owns, and no bit of the object map said that they
            // are in use.
            unsafe { core::ptr::write_bytes((base + first) as *mut u8, 0, last - first) };
        }
        self.allocated.fetch_add(last - first, Ordering::Relaxed);
        run.set(base + first, base + last, end);
        true
    }

    /// How many cells a run is given at most.
    pub(crate) fn most_cells(&self, class: usize) -> usize {
        if self.one_cell_runs {
            1
        } else {
            (RUN_BYTES / CLASSES[class].bytes as usize).max(1)
        }
    }

    /// Is the cell behind a run free, and in the run's block? The run's owner.
    pub(crate) fn follows(&self, run: &Run) -> bool {
        let limit = run.cells().1;
        limit < run.end() && !self.tables.bit(limit - self.tables.base(), self.parity())
    }

    /// The first cell from `from` on whose bit is clear.
    fn next_free(&self, mut from: usize, end: usize, bytes: usize, parity: usize) -> Option<usize> {
        while from < end {
            let word = self.tables.word(from, parity).load(Ordering::Relaxed);
            let pair_end = (from / PAIR + 1) * PAIR;
            while from < pair_end && from < end {
                if word >> (from / 16 % 64) & 1 == 0 {
                    return Some(from);
                }
                from += bytes;
            }
        }
        None
    }

    /// The first cell from `from` on whose bit is set, at most `end`.
    fn next_used(&self, from: usize, end: usize, parity: usize) -> usize {
        let mut at = from;
        while at < end {
            let word = self.tables.word(at, parity).load(Ordering::Relaxed) >> (at / 16 % 64);
            if word != 0 {
                let granule = at - at % GRANULE + word.trailing_zeros() as usize * GRANULE;
                return self.tables.first_cell(granule).min(end);
            }
            at = (at / PAIR + 1) * PAIR;
        }
        end
    }

    /// Takes the cells `[cursor, limit)` out of the object map: a run that will not be used further. `block` is where they
    /// lie. Under the heap's lock, or by the run's owner.
    pub fn forget(&self, cursor: usize, limit: usize, block: usize) {
        let bytes = CLASSES
            .get(self.tables.entry(block).class())
            .map_or(0, |c| c.bytes as usize);
        let base = self.tables.base();
        if let Some(poison) = &self.poison {
            // SAFETY: cells of a run that was the caller's and holds no objects.
            unsafe { poison.fill(cursor, limit) };
        }
        let mut at = cursor;
        while bytes != 0 && at < limit {
            let offset = at - base;
            self.tables
                .word(offset, self.parity())
                .fetch_and(!(1 << (offset / 16 % 64)), Ordering::Relaxed);
            at += bytes;
        }
        self.allocated
            .fetch_sub((limit - cursor).min(self.allocated()), Ordering::Relaxed);
    }

    /// Sets the bits of the cells of `bytes` that start in `[from, end)`.
    pub(crate) fn set_bits(&self, mut from: usize, end: usize, bytes: usize, parity: usize) {
        while from < end {
            let word = self.tables.word(from, parity);
            let pair_end = ((from / PAIR + 1) * PAIR).min(end);
            let mut mask = 0u64;
            while from < pair_end {
                mask |= 1 << (from / 16 % 64);
                from += bytes;
            }
            // Others may free cells of this word at the same time.
            word.fetch_or(mask, Ordering::Relaxed);
        }
    }

    /// Counts the bits of a block.
    #[must_use]
    pub fn count(&self, block: usize, parity: usize) -> usize {
        (0..BLOCK_BYTES / PAIR)
            .map(|i| {
                self.tables
                    .word(block + i * PAIR, parity)
                    .load(Ordering::Relaxed)
                    .count_ones() as usize
            })
            .sum()
    }

    /// Visits the cells below the extent whose bit is set. Under the heap's lock, and such that no block changes its class
    /// meanwhile.
    pub fn for_each(
        &self,
        parity: usize,
        mut wanted: impl FnMut(Entry) -> bool,
        mut visit: impl FnMut(Cell),
    ) {
        let mut block = 0;
        let extent = self.extent();
        while block < extent {
            let entry = self.tables.entry(block);
            if entry.class() != 0 && (entry.class() == Entry::LARGE || wanted(entry)) {
                for pair in 0..BLOCK_BYTES / PAIR {
                    let at = block + pair * PAIR;
                    let mut word = self.tables.word(at, parity).load(Ordering::Relaxed);
                    while word != 0 {
                        let granule = at + word.trailing_zeros() as usize * GRANULE;
                        let offset = self.tables.first_cell(granule);
                        word &= word - 1;
                        if let Some((start, bytes, cell_entry)) = self.tables.cell(offset)
                            && start == offset
                            && (entry.class() != Entry::LARGE || wanted(cell_entry))
                        {
                            visit(self.describe(start, bytes, cell_entry));
                        }
                    }
                }
            }
            block += BLOCK_BYTES;
        }
    }
}
