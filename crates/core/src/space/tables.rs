//! The side tables of a heap: what is known of each block, each page and each granule of its range.
//!
//! | table | unit | entry |
//! |---|---|---|
//! | `blocks` | 32 KiB | [`Entry`]: class, kind, state of the block |
//! | `next` | 32 KiB | link of the list that the block is in |
//! | `pages` | 4 KiB | of a large object: [`LargePage`] |
//! | `bits` | 1 KiB | two words: a bit for each granule in each |
//!
//! The two words of `bits` stand next to each other, so that one cache line tells both of a cell: whether it is allocated
//! (the object map) and whether it is marked. Which word is which is the *parity*; a collection swaps the two. Only the
//! first granule of a cell has bits. Outside of a collection the words of the other parity are all zero.
//!
//! Addresses are given as offsets from the base of the range. Offsets below [`Pages::extent`](super::Pages::extent) are
//! mapped; the functions here check against nothing else.

use crate::alloc::size_class::{GRANULE, GRANULE_CLASS_COUNT};
use crate::alloc::{BLOCK_BYTES, CLASSES};
use crate::space::pages::PAGE;
use crate::vm::KindTraits;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of the heap that a pair of words of `bits` describes.
pub const PAIR: usize = 1024;

/// State of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u32);

impl Entry {
    /// The class of a block whose pages belong to large objects.
    pub const LARGE: usize = 0xff;
    /// Of no use: free.
    pub const NONE: Self = Self(0);
    const OWNED: u32 = 1 << 16;
    const EXHAUSTED: u32 = 1 << 17;
    const CLEAN: u32 = 1 << 18;
    const LEAF: u32 = 1 << 19;
    /// Where the size of cells stands whose every word is to be reported, in granules: bits 20 to 28. Without the lowest 16
    /// bits, and without the flags, it reads as bytes.
    const GRANULES: u32 = 20;

    /// A block for cells of a class and kind that is owned by whoever takes cells from it.
    #[must_use]
    pub const fn owned(class: usize, kind: u8, traits: KindTraits, clean: bool) -> Self {
        let flags = Self::OWNED
            | if traits.leaf { Self::LEAF } else { 0 }
            | if clean { Self::CLEAN } else { 0 };
        let granules = if traits.conservative && !traits.leaf {
            CLASSES[class].bytes / GRANULE as u32
        } else {
            0
        };
        Self(class as u32 | (kind as u32) << 8 | flags | granules << Self::GRANULES)
    }

    /// A block of large objects.
    #[must_use]
    pub const fn large() -> Self {
        Self(Self::LARGE as u32)
    }

    /// The kind of cells for objects that have to be at a certain address, of the objects interface.
    pub const APART: u8 = 2;
    /// The same for objects that begin 8 bytes behind their cell.
    pub const BEHIND: u8 = 3;
    /// The class of a block in which objects are next to each other, of the objects interface: see [`Policy`].
    const FIRST_POLICY: usize = 0xe0;
    /// Its objects are evacuated in this collection.
    const MOVES: u32 = 1 << 29;
    /// Its objects stay where they are: one of them is pinned, or could not be moved.
    const HELD: u32 = 1 << 30;
    /// In this collection, an object of it could not be moved. Of a block that slides: all its objects have left it.
    const RETAINED: u32 = 1 << 31;
    /// Where the number of lines in use stands, of a block that has lines: bits 20 to 27.
    const LINES: u32 = 20;

    /// A block of a policy.
    #[must_use]
    pub const fn of(policy: Policy) -> Self {
        Self(Self::FIRST_POLICY as u32 + policy as u32)
    }

    /// The number of its policy, or more than there are.
    #[must_use]
    pub(crate) const fn policy_index(self) -> usize {
        self.class().wrapping_sub(Self::FIRST_POLICY)
    }

    /// Is it a block of this policy?
    #[inline(always)]
    #[must_use]
    pub const fn is(self, policy: Policy) -> bool {
        self.class() == Self::FIRST_POLICY + policy as usize
    }

    /// Are objects next to each other in it, with no size class?
    #[inline(always)]
    #[must_use]
    pub const fn is_bump(self) -> bool {
        self.policy_index() < Self::LARGE - Self::FIRST_POLICY
    }

    /// Are its objects evacuated in this collection?
    #[inline(always)]
    #[must_use]
    pub const fn moves(self) -> bool {
        self.0 & Self::MOVES != 0
    }

    /// The same, evacuated in this collection.
    #[must_use]
    pub const fn moving(self) -> Self {
        Self((self.0 | Self::MOVES) & !(Self::HELD | Self::RETAINED))
    }

    /// The same as a block of `policy` whose objects stay where they are.
    #[must_use]
    pub const fn held(self, policy: Policy) -> Self {
        Self((self.0 & !(0xff | Self::MOVES | Self::RETAINED)) | Self::of(policy).0 | Self::HELD)
    }

    /// Do its objects stay where they are, though its policy moves objects?
    #[inline(always)]
    #[must_use]
    pub const fn is_held(self) -> bool {
        self.0 & Self::HELD != 0
    }

    /// Could an object of it not be moved in this collection?
    #[must_use]
    pub const fn is_retained(self) -> bool {
        self.0 & Self::RETAINED != 0
    }

    /// How many of its lines were in use after the last collection.
    #[must_use]
    pub const fn lines(self) -> usize {
        (self.0 >> Self::LINES & 0xff) as usize
    }

    /// The same with this many lines in use, listed or not, and owned by nobody.
    #[must_use]
    pub const fn with_lines(self, lines: usize) -> Self {
        Self(
            (self.0 & !(0xff << Self::LINES | Self::OWNED | Self::HELD))
                | (lines as u32) << Self::LINES,
        )
    }

    /// The size class; 0: the block is free; [`Entry::LARGE`].
    #[inline(always)]
    #[must_use]
    pub const fn class(self) -> usize {
        (self.0 & 0xff) as usize
    }

    /// The kind of its cells.
    #[inline(always)]
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Its cells are never scanned.
    #[inline(always)]
    #[must_use]
    pub const fn is_leaf(self) -> bool {
        self.0 & Self::LEAF != 0
    }

    /// What the marker keeps with an object: the flags, and the size of its cells. 16 bits.
    #[inline(always)]
    pub(crate) const fn upper(self) -> usize {
        (self.0 >> 16) as usize
    }

    /// Bytes of a cell if all of its words are to be reported, of what [`Entry::upper`] gave (higher bits do not matter); else 0.
    #[inline(always)]
    pub(crate) const fn words_bytes(upper: usize) -> usize {
        upper & 0x1ff0
    }

    /// A run's owner takes cells from it.
    #[must_use]
    pub const fn is_owned(self) -> bool {
        self.0 & Self::OWNED != 0
    }

    /// All of its cells were in use when its owner left it.
    #[must_use]
    pub const fn is_exhausted(self) -> bool {
        self.0 & Self::EXHAUSTED != 0
    }

    /// Cells that were not handed out since it was taken are zero.
    #[must_use]
    pub const fn is_clean(self) -> bool {
        self.0 & Self::CLEAN != 0
    }

    /// The same, owned and no longer clean.
    #[must_use]
    pub const fn taken(self) -> Self {
        Self((self.0 | Self::OWNED) & !(Self::EXHAUSTED | Self::CLEAN))
    }

    /// The same, left by its owner with no free cell.
    #[must_use]
    pub const fn exhausted(self) -> Self {
        Self((self.0 | Self::EXHAUSTED) & !(Self::OWNED | Self::CLEAN))
    }

    /// The same, in a list of blocks with free cells.
    #[must_use]
    pub const fn listed(self) -> Self {
        Self(self.0 & !(Self::OWNED | Self::EXHAUSTED | Self::CLEAN))
    }
}

/// How the objects of a block are laid out and collected, where that is not by size class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Policy {
    /// Objects that are moved by each full collection.
    Copy,
    /// Objects that are moved by the next collection.
    Nursery,
    /// Lines of 256 bytes are reused where no object is; objects may be moved.
    Immix,
    /// Objects slide towards the start of the space.
    Compact,
}

/// What the table `pages` says of a page in a block of large objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LargePage {
    /// The page is in no large object.
    Free,
    /// It is the object's first page.
    First {
        /// How many pages the object has.
        pages: usize,
        /// The object's kind.
        kind: u8,
        /// The object is never scanned.
        leaf: bool,
        /// Only pointers into the first page keep the object.
        first_page_only: bool,
        /// Bytes of the first page before the object: a multiple of 8.
        lead: usize,
    },
    /// The object begins so many pages before.
    Back(usize),
    /// It was in an object that died, and is never used again: whoever touches it is stopped by the system.
    Dead,
}

const FIRST: u64 = 1 << 63;
const DEAD: u64 = 1 << 62;

impl LargePage {
    #[inline]
    fn decode(word: u64) -> Self {
        if word & FIRST != 0 {
            Self::First {
                pages: (word & 0xffff_ffff) as usize,
                kind: (word >> 32) as u8,
                leaf: word >> 40 & 1 != 0,
                first_page_only: word >> 41 & 1 != 0,
                lead: (word >> 42) as usize * 8 % PAGE,
            }
        } else if word == DEAD {
            Self::Dead
        } else if word != 0 {
            Self::Back(word as usize)
        } else {
            Self::Free
        }
    }

    fn encode(self) -> u64 {
        match self {
            Self::Free => 0,
            Self::First {
                pages,
                kind,
                leaf,
                first_page_only,
                lead,
            } => {
                FIRST
                    | pages as u64
                    | u64::from(kind) << 32
                    | u64::from(leaf) << 40
                    | u64::from(first_page_only) << 41
                    | (lead as u64 / 8) << 42
            }
            Self::Back(pages) => pages as u64,
            Self::Dead => DEAD,
        }
    }
}

/// The tables of one heap. A handle: the memory belongs to the heap's layout, which outlives it.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    base: usize,
    bits: *const AtomicU64,
    blocks: *const AtomicU32,
    next: *const AtomicU32,
    pages: *const AtomicU64,
}

// SAFETY: the tables are atomics in memory that the heap owns; the handle itself never changes.
unsafe impl Send for Tables {}
// SAFETY: as above.
unsafe impl Sync for Tables {}

impl Tables {
    /// Tables for a range that starts at `base`.
    ///
    /// # Safety
    /// Each pointer is the entry of `base` in a table of the shape that the module's documentation gives; the entries of
    /// all offsets below the extent are readable, writable and zero at first for as long as the handle is used.
    pub unsafe fn new(
        base: usize,
        bits: *const AtomicU64,
        blocks: *const AtomicU32,
        next: *const AtomicU32,
        pages: *const AtomicU64,
    ) -> Self {
        Self {
            base,
            bits,
            blocks,
            next,
            pages,
        }
    }

    /// The first address of the range.
    #[inline(always)]
    #[must_use]
    pub fn base(&self) -> usize {
        self.base
    }

    /// The state of the block around an offset below the extent.
    #[inline(always)]
    #[must_use]
    pub fn entry(&self, offset: usize) -> Entry {
        // SAFETY: offsets below the extent have an entry (`new`); callers check the extent.
        Entry(unsafe { &*self.blocks.add(offset / BLOCK_BYTES) }.load(Ordering::Relaxed))
    }

    /// Sets it. Under the heap's lock, or by the block's owner.
    pub fn set_entry(&self, offset: usize, entry: Entry) {
        // SAFETY: as in `entry`.
        unsafe { &*self.blocks.add(offset / BLOCK_BYTES) }.store(entry.0, Ordering::Relaxed);
    }

    /// Says that an object of the moving block around an offset stays where it is. Any worker, world stopped.
    pub fn retain(&self, offset: usize) {
        // SAFETY: as in `entry`.
        unsafe { &*self.blocks.add(offset / BLOCK_BYTES) }
            .fetch_or(Entry::RETAINED, Ordering::Relaxed);
    }

    /// Says that the live objects of a sliding block have left it. Any worker, world stopped.
    pub fn leave(&self, offset: usize) {
        // SAFETY: as in `entry`.
        unsafe { &*self.blocks.add(offset / BLOCK_BYTES) }
            .fetch_or(Entry::RETAINED, Ordering::Release);
    }

    /// Have they? What their mover wrote is visible then.
    #[must_use]
    pub fn is_left(&self, offset: usize) -> bool {
        // SAFETY: as in `entry`.
        let entry = unsafe { &*self.blocks.add(offset / BLOCK_BYTES) }.load(Ordering::Acquire);
        Entry(entry).is_retained()
    }

    /// The link of the block around an offset: a block's number plus 1, or 0. Under the heap's lock.
    #[must_use]
    pub fn next(&self, offset: usize) -> u32 {
        // SAFETY: as in `entry`.
        unsafe { &*self.next.add(offset / BLOCK_BYTES) }.load(Ordering::Relaxed)
    }

    /// Sets it. Under the heap's lock.
    pub fn set_next(&self, offset: usize, next: u32) {
        // SAFETY: as in `entry`.
        unsafe { &*self.next.add(offset / BLOCK_BYTES) }.store(next, Ordering::Relaxed);
    }

    /// What is known of the page around an offset, which is in a block of large objects.
    #[inline]
    #[must_use]
    pub fn large_page(&self, offset: usize) -> LargePage {
        // SAFETY: as in `entry`.
        LargePage::decode(unsafe { &*self.pages.add(offset / PAGE) }.load(Ordering::Relaxed))
    }

    /// Sets it. Under the heap's lock.
    pub fn set_large_page(&self, offset: usize, page: LargePage) {
        // SAFETY: as in `entry`.
        unsafe { &*self.pages.add(offset / PAGE) }.store(page.encode(), Ordering::Relaxed);
    }

    /// The word of `bits` for an offset and a parity, 0 or 1. Bit `offset / 16 % 64` of it is the granule's.
    #[inline(always)]
    #[must_use]
    pub fn word(&self, offset: usize, parity: usize) -> &AtomicU64 {
        // SAFETY: as in `entry`; a pair has two words.
        unsafe { &*self.bits.add(offset / PAIR * 2 + parity) }
    }

    /// The bit of a granule.
    #[inline(always)]
    #[must_use]
    pub fn bit(&self, offset: usize, parity: usize) -> bool {
        self.word(offset, parity).load(Ordering::Relaxed) >> (offset / 16 % 64) & 1 != 0
    }

    /// Starts to bring the words of an offset into the cache.
    #[inline(always)]
    pub fn prefetch(&self, offset: usize) {
        prefetch(self.word(offset, 0) as *const AtomicU64 as usize);
    }

    /// The cell around an offset below the extent, allocated or free: its offset, its size, and its block's state.
    /// For large objects the state holds the object's kind and leaf bit.
    #[inline(always)]
    #[must_use]
    pub fn cell(&self, offset: usize) -> Option<(usize, usize, Entry)> {
        let entry = self.entry(offset);
        let Some(class) = CLASSES.get(entry.class()) else {
            return self.large_cell(offset);
        };
        let inner = offset % BLOCK_BYTES;
        let index = (inner as u64 * u64::from(class.reciprocal)) >> 32;
        // Class 0 has no cells, so a free block ends here too.
        if index >= u64::from(class.cells) {
            return None;
        }
        Some((
            offset - inner + index as usize * class.bytes as usize,
            class.bytes as usize,
            entry,
        ))
    }

    /// The first cell that begins at an offset or behind it, in the same granule or the next: the offset itself, but in the classes
    /// for multiples of a word.
    #[inline]
    #[must_use]
    pub fn first_cell(&self, offset: usize) -> usize {
        let class = self.entry(offset).class();
        if !(GRANULE_CLASS_COUNT..CLASSES.len()).contains(&class) {
            return offset;
        }
        let bytes = CLASSES[class].bytes as usize;
        let inner = offset % BLOCK_BYTES;
        offset - inner + inner.next_multiple_of(bytes)
    }

    /// How many bytes before its object the cell starts (of runtimes that know their references): `start` is the cell's first
    /// byte, or its object's.
    #[must_use]
    pub fn lead(&self, start: usize) -> usize {
        let entry = self.entry(start);
        if entry.class() != Entry::LARGE {
            return if entry.kind() == Entry::BEHIND { 8 } else { 0 };
        }
        match self.large_page(start) {
            LargePage::First { lead, .. } => lead,
            _ => 0,
        }
    }

    #[inline(never)]
    fn large_cell(&self, offset: usize) -> Option<(usize, usize, Entry)> {
        let page = offset / PAGE * PAGE;
        let start = match self.large_page(page) {
            LargePage::Free | LargePage::Dead => return None,
            LargePage::First { .. } => page,
            LargePage::Back(pages) => page - pages * PAGE,
        };
        let LargePage::First {
            pages,
            kind,
            leaf,
            first_page_only,
            ..
        } = self.large_page(start)
        else {
            return None;
        };
        if first_page_only && start != page {
            return None;
        }
        let entry =
            Entry(Entry::LARGE as u32 | u32::from(kind) << 8 | if leaf { Entry::LEAF } else { 0 });
        Some((start, pages * PAGE, entry))
    }
}

/// Asks the processor to load the line around an address; any address is allowed.
#[inline(always)]
pub fn prefetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(
            core::ptr::without_provenance(address),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
