//! What a heap looks like from far: its blocks, one by one.

use core::fmt;

/// Bytes of a block of a [`HeapMap`].
pub const MAP_BLOCK: usize = 32 << 10;

/// Whose a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlockSpace {
    /// Nobody's, and it may occupy memory.
    Free,
    /// Nobody's, and it occupies none: it was never used, or the system has it back.
    Returned,
    /// Cells of one size.
    Cells,
    /// Pages of large objects.
    Large,
    /// Young objects, which the next collection moves.
    Nursery,
    /// Objects that full collections move.
    Copy,
    /// Objects in lines, whose holes are filled again.
    Immix,
    /// Objects that slide together.
    Compact,
}

impl BlockSpace {
    /// All of them, in the order of [`BlockSpace::index`].
    pub const ALL: [Self; 8] = [
        Self::Free,
        Self::Returned,
        Self::Cells,
        Self::Large,
        Self::Nursery,
        Self::Copy,
        Self::Immix,
        Self::Compact,
    ];

    /// A small number for tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word used in maps.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Returned => "returned",
            Self::Cells => "cells",
            Self::Large => "large",
            Self::Nursery => "nursery",
            Self::Copy => "copy",
            Self::Immix => "immix",
            Self::Compact => "compact",
        }
    }

    /// Is it somebody's?
    #[must_use]
    pub const fn is_used(self) -> bool {
        !matches!(self, Self::Free | Self::Returned)
    }
}

/// One block of [`MAP_BLOCK`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapBlock {
    /// Whose it is.
    pub space: BlockSpace,
    /// Bytes in use: of cells and pages, those that were handed out and not found dead; of lines, those in which the last collection
    /// found something, or that were filled since. Where objects are moved out of whole blocks it is all of the block, in use or not.
    pub used_bytes: usize,
    /// Runs of free cells, pages or lines between and behind those in use.
    pub holes: usize,
    /// What is in it stays where it is, though its like is moved: something in it is pinned.
    pub held: bool,
    /// Bytes of a cell; 0 where there are none.
    pub cell_bytes: usize,
}

/// The blocks of a heap, in the order of their addresses, as long as nobody changes whose they are.
///
/// Who has one may look at as many or as few blocks as wanted: to look at one takes a microsecond at most and no memory.
///
/// ```
/// use heapwright::BlockSpace;
/// use heapwright::example::{Pairs, push};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let heap = Pairs::heap("immix")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// push(&mut mutator, 1)?;
/// mutator.collect();
/// let used = heap.map(|map| {
///     let blocks = (0..map.blocks()).map(|index| map.block(index));
///     blocks.filter(|block| block.space == BlockSpace::Immix).count()
/// });
/// assert_eq!(used, 1);
/// # Ok(())
/// # }
/// ```
pub trait HeapMap: fmt::Debug {
    /// How many blocks there are.
    fn blocks(&self) -> usize;

    /// What is in a block, of which there are [`HeapMap::blocks`]; a free one behind the last.
    fn block(&self, index: usize) -> MapBlock;

    /// A number of what the block is used for, 0: for nothing. Another use has mostly another number. Takes a few nanoseconds.
    fn use_of(&self, index: usize) -> u8;
}
