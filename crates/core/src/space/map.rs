//! Maps of spaces: see [`HeapMap`].

use crate::alloc::size_class::GRANULE;
use crate::alloc::{BLOCK_BYTES, CLASSES};
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
            held: entry.is_held(),
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
            matches!(page, LargePage::Free | LargePage::Dead)
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
    let (mut used, mut holes, mut next) = (0, 0, 0);
    for pair in (0..BLOCK_BYTES).step_by(PAIR) {
        let word = space.tables().word(block + pair, space.parity());
        let mut word = word.load(Ordering::Relaxed);
        while word != 0 {
            let granule = block + pair + word.trailing_zeros() as usize * GRANULE;
            let at = space.tables().first_cell(granule) - block;
            word &= word - 1;
            holes += usize::from(at > next);
            next = at + bytes;
            used += 1;
        }
    }
    holes += usize::from(next + bytes <= cells * bytes);
    (used, holes)
}
