//! Maps of spaces: see [`HeapMap`].

use crate::alloc::size_class::GRANULE;
use crate::alloc::{BLOCK_BYTES, CLASSES};
use crate::bugs::{Bug, is_on};
use crate::map::{BlockSpace, HeapMap, MAP_BLOCK, MapBlock};
use crate::space::pages::PAGE;
use crate::space::tables::{LargePage, PAIR};
use crate::space::{Entry, MarkSweep, ObjectSpace, Pages, Policy};
use core::sync::atomic::Ordering;

const PAGES_IN_BLOCK: usize = BLOCK_BYTES / PAGE;
const _: () = assert!(MAP_BLOCK == BLOCK_BYTES);

/// Of a heap of words, under its lock.
#[derive(Debug)]
pub(crate) struct CellsMap<'s> {
    pub(crate) space: &'s MarkSweep,
    pub(crate) pages: &'s Pages,
}

/// Of a heap of objects, under the lock of its pages. Of blocks that mutators fill meanwhile it may be a little old.
#[derive(Debug)]
pub(crate) struct ObjectsMap<'s> {
    pub(crate) space: &'s ObjectSpace,
    pub(crate) pages: &'s Pages,
}

impl HeapMap for CellsMap<'_> {
    fn blocks(&self) -> usize {
        self.space.extent() / BLOCK_BYTES
    }

    fn block(&self, index: usize) -> MapBlock {
        if index >= self.blocks() {
            return unused(BlockSpace::Returned);
        }
        cells_or_pages(self.space, self.pages, index * BLOCK_BYTES)
    }

    fn use_of(&self, index: usize) -> u8 {
        use_of(self.space, index)
    }
}

impl HeapMap for ObjectsMap<'_> {
    fn blocks(&self) -> usize {
        self.space.cells().extent() / BLOCK_BYTES
    }

    fn block(&self, index: usize) -> MapBlock {
        if index >= self.blocks() {
            return unused(BlockSpace::Returned);
        }
        let block = index * BLOCK_BYTES;
        let entry = self.space.tables().entry(block);
        let policies = [
            (Policy::Copy, BlockSpace::Copy),
            (Policy::Nursery, BlockSpace::Nursery),
            (Policy::Immix, BlockSpace::Immix),
            (Policy::Compact, BlockSpace::Compact),
        ];
        let Some((policy, space)) = policies.into_iter().find(|(p, _)| entry.is(*p)) else {
            return cells_or_pages(self.space.cells(), self.pages, block);
        };
        let (used_bytes, holes) = if policy == Policy::Immix {
            self.space.lines_and_holes(block)
        } else {
            (BLOCK_BYTES, 0)
        };
        MapBlock {
            space,
            used_bytes,
            holes,
            held: entry.is_held() && !is_on(Bug::MapHeldForgotten),
            cell_bytes: 0,
        }
    }

    fn use_of(&self, index: usize) -> u8 {
        use_of(self.space.cells(), index)
    }
}

fn use_of(space: &MarkSweep, index: usize) -> u8 {
    if index >= space.extent() / BLOCK_BYTES {
        return 0;
    }
    space.tables().entry(index * BLOCK_BYTES).class() as u8
}

fn unused(space: BlockSpace) -> MapBlock {
    MapBlock {
        space,
        used_bytes: 0,
        holes: 0,
        held: false,
        cell_bytes: 0,
    }
}

/// What is in a block of cells or of large objects, or in a free one, which is below the extent.
fn cells_or_pages(space: &MarkSweep, pages: &Pages, block: usize) -> MapBlock {
    let tables = space.tables();
    let class = tables.entry(block).class();
    if let Some(class) = CLASSES.get(class).filter(|_| class != 0) {
        let bytes = class.bytes as usize;
        let (cells, holes) = cells_and_holes(space, block, bytes, class.cells as usize);
        return MapBlock {
            used_bytes: cells * bytes,
            holes,
            cell_bytes: bytes,
            ..unused(BlockSpace::Cells)
        };
    }
    if class == Entry::LARGE {
        let free = |page: usize| {
            let page = tables.large_page(block + page * PAGE);
            matches!(page, LargePage::Free | LargePage::Dead) && !is_on(Bug::MapDeadPagesUsed)
        };
        let used = (0..PAGES_IN_BLOCK).filter(|p| !free(*p)).count();
        let holes = (0..PAGES_IN_BLOCK).filter(|p| free(*p) && (*p == 0 || !free(p - 1)));
        return MapBlock {
            used_bytes: used * PAGE,
            holes: holes.count(),
            ..unused(BlockSpace::Large)
        };
    }
    unused(if pages.is_clean_block(block) {
        BlockSpace::Returned
    } else {
        BlockSpace::Free
    })
}

/// How many cells of a block are in the object map, and how many gaps there are between and behind them.
fn cells_and_holes(space: &MarkSweep, block: usize, bytes: usize, cells: usize) -> (usize, usize) {
    let tables = space.tables();
    let words = (0..BLOCK_BYTES).step_by(PAIR).map(|pair| {
        let word = tables.word(block + pair, space.parity());
        word.load(Ordering::Relaxed)
    });
    if bytes.is_multiple_of(GRANULE) && bytes / GRANULE < 64 {
        return used_and_gaps(words, bytes / GRANULE, cells);
    }
    let (mut used, mut holes, mut next) = (0, 0, 0);
    for (pair, mut word) in words.enumerate() {
        while word != 0 {
            let granule = block + pair * PAIR + word.trailing_zeros() as usize * GRANULE;
            let at = tables.first_cell(granule) - block;
            word &= word - 1;
            holes += usize::from(at > next);
            next = at + bytes;
            used += 1;
        }
    }
    holes += usize::from(next + bytes <= cells * bytes);
    (used, holes)
}

/// The same of words with a bit for each granule, where `cells` cells of `size` granules each, 1 to 63, follow each other from the first bit
/// on: a word at a time.
fn used_and_gaps(words: impl Iterator<Item = u64>, size: usize, cells: usize) -> (usize, usize) {
    // The first granules of cells, if the first bit is one of them.
    let starts = (0..64).step_by(size).fold(0u64, |bits, i| bits | 1 << i);
    let (mut used, mut gaps) = (0, 0);
    // The last bits of the word before. What stands before the first cell counts as used.
    let (mut before, mut first, mut left) = (u64::MAX, 0, cells * size);
    for word in words {
        let here = match left {
            0 => break,
            64.. => u64::MAX,
            few => (1 << few) - 1,
        };
        let starts = starts << first & here;
        let word = word & starts;
        // Of each cell, at its first granule: is the cell before it used?
        let earlier = word << size | before >> (64 - size);
        used += word.count_ones() as usize;
        gaps += (starts & !word & earlier).count_ones() as usize;
        before = word;
        left -= left.min(64);
        // 64 granules further, the next cell begins so many behind the word's begin.
        first = (first + size - 64 % size) % size;
    }
    (used, gaps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_say_what_single_cells_say(
            size in 1usize..64,
            part in 0usize..=1,
            used in proptest::collection::vec(any::<bool>(), 2048),
        ) {
            let most = BLOCK_BYTES / GRANULE / size;
            let cells = most - part.min(most - 1);
            let mut words = [0u64; BLOCK_BYTES / PAIR];
            for cell in (0..cells).filter(|c| used[*c]) {
                words[cell * size / 64] |= 1 << (cell * size % 64);
            }
            let is_used = &used[..cells];
            let gaps = (0..cells).filter(|c| !is_used[*c] && (*c == 0 || is_used[*c - 1]));
            let wanted = (is_used.iter().filter(|u| **u).count(), gaps.count());
            prop_assert_eq!(used_and_gaps(words.into_iter(), size, cells), wanted);
        }
    }
}
