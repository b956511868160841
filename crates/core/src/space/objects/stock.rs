//! The locked part: free pages and blocks, blocks with free lines, large objects, and what happens to all blocks after a trace.

use super::{LINE, LINES_IN_BLOCK, ObjectSpace};
use crate::alloc::{BLOCK_BYTES, CLASSES};
use crate::bugs::{Bug, is_on};
use crate::error::AllocError;
use crate::event::Violation;
use crate::space::Stock;
use crate::space::pages::PAGE;
use crate::space::tables::{Entry, LargePage, PAIR, Policy};
use core::sync::atomic::Ordering;
use heapwright_address::Address;
use heapwright_memory::MappedVec;

const PAGES_IN_BLOCK: usize = BLOCK_BYTES / PAGE;
/// The kind of large objects that are machine code.
pub(crate) const CODE: u8 = 1;

/// What a sweep counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Bytes that live, as far as the policies know: cells, lines, whole blocks of moved objects.
    pub live: usize,
    /// Free bytes in blocks that stay in use.
    pub free_in_blocks: usize,
    /// Blocks that were given back.
    pub freed_blocks: usize,
    /// Large objects that were freed.
    pub freed_large: usize,
}

/// See the module.
#[derive(Debug)]
pub struct ObjectStock {
    /// Size classes, large objects, and all pages.
    pub(crate) cells: Stock,
    /// The first block with free lines: its number plus 1; 0: none.
    recyclable: u32,
    recyclable_blocks: usize,
    /// The same for blocks that have no free lines in a row for an object that asked: for objects of a line at most.
    small_only: u32,
    /// Free lines of those.
    small_only_lines: usize,
    /// Large objects allocated since the last collection.
    young_large: MappedVec<usize>,
    /// Some are not in `young_large`, which could not grow: the next collection is to be a full one.
    young_large_lost: bool,
    /// Pages of large objects, and of blocks with size classes.
    large_pages: usize,
    pages: [usize; 4],
    /// Free lines of recyclable blocks.
    free_lines: usize,
    /// A bit for each block that was handed out since the last sweep: a minor collection looks at no other.
    touched: MappedVec<u64>,
    /// Some bits are missing, as there was no memory for them.
    touched_lost: bool,
    /// The part of `pages` that is of such blocks.
    touched_pages: [usize; 4],
    /// What lived after the last sweep in blocks that were not handed out since, in bytes.
    live: usize,
    /// What was free in them.
    free_in_blocks: usize,
    /// Large objects that die are made inaccessible and never reused.
    pub(crate) quarantine: bool,
    quarantined_pages: usize,
}

impl ObjectStock {
    /// Over an empty page allocator. `touched` has room for a bit per block.
    #[must_use]
    pub fn new(cells: Stock, young_large: MappedVec<usize>, touched: MappedVec<u64>) -> Self {
        Self {
            cells,
            recyclable: 0,
            recyclable_blocks: 0,
            small_only: 0,
            small_only_lines: 0,
            young_large,
            young_large_lost: false,
            large_pages: 0,
            pages: [0; 4],
            free_lines: 0,
            touched,
            touched_lost: false,
            touched_pages: [0; 4],
            live: 0,
            free_in_blocks: 0,
            quarantine: false,
            quarantined_pages: 0,
        }
    }

    /// Pages in use.
    #[must_use]
    pub fn used_pages(&self) -> usize {
        self.cells.pages().used_pages() - self.quarantined_pages
    }

    /// Pages of the blocks of a policy.
    #[must_use]
    pub fn pages_of(&self, policy: Policy) -> usize {
        self.pages[policy as usize]
    }

    /// Pages of large objects.
    #[must_use]
    pub fn large_pages(&self) -> usize {
        self.large_pages
    }

    /// Free memory in blocks that are in use, of which allocation takes first, in bytes.
    #[must_use]
    pub fn free_line_bytes(&self) -> usize {
        self.free_lines * LINE
    }

    /// Must the next collection be a full one?
    #[must_use]
    pub fn lost_track(&self) -> bool {
        self.young_large_lost || self.touched_lost
    }

    /// Notes that a block was handed out: true if it was not since the last sweep.
    fn touch(&mut self, block: usize) -> bool {
        let (word, bit) = (block / BLOCK_BYTES / 64, 1 << (block / BLOCK_BYTES % 64));
        while self.touched.len() <= word {
            if self.touched.push(0).is_err() {
                self.touched_lost = true;
                return true;
            }
        }
        let word = &mut self.touched.as_mut_slice()[word];
        let new = *word & bit == 0;
        if !is_on(Bug::BlockNotTouched) {
            *word |= bit;
        }
        new
    }

    /// Visits the blocks that were handed out since the last sweep, the highest first.
    fn for_each_touched(&mut self, mut visit: impl FnMut(&mut Self, usize)) {
        for index in (0..self.touched.len()).rev() {
            let mut word = self.touched.as_slice()[index];
            while word != 0 {
                let bit = 63 - word.leading_zeros() as usize;
                word &= !(1 << bit);
                visit(self, (index * 64 + bit) * BLOCK_BYTES);
            }
        }
    }

    /// Has the objects of all nursery blocks moved by the next trace. World stopped.
    pub(crate) fn evacuate_nursery(&mut self, space: &ObjectSpace) {
        if self.touched_lost {
            space.evacuate(Policy::Nursery);
            return;
        }
        // All were handed out since the last sweep, which left none.
        self.for_each_touched(|_, block| {
            let entry = space.tables().entry(block);
            if entry.is(Policy::Nursery) {
                space.tables().set_entry(block, entry.moving());
            }
        });
    }

    /// Forgets which blocks have free lines: a full trace is to find it out anew, and until then no line may be reused.
    pub(crate) fn forget_recyclable(&mut self) {
        self.recyclable = 0;
        self.recyclable_blocks = 0;
        self.small_only = 0;
        self.small_only_lines = 0;
    }

    /// Takes a block with free lines. `small`: for objects of a line at most.
    pub(super) fn take_recyclable(&mut self, space: &ObjectSpace, small: bool) -> Option<usize> {
        let tables = space.tables();
        if small && self.small_only != 0 {
            let block = (self.small_only - 1) as usize * BLOCK_BYTES;
            self.small_only = tables.next(block);
            let free = LINES_IN_BLOCK - tables.entry(block).lines();
            self.free_lines = self.free_lines.saturating_sub(free);
            self.small_only_lines = self.small_only_lines.saturating_sub(free);
            return Some(block);
        }
        if self.recyclable == 0 {
            return None;
        }
        let block = (self.recyclable - 1) as usize * BLOCK_BYTES;
        self.recyclable = tables.next(block);
        self.recyclable_blocks -= 1;
        let lines = tables.entry(block).lines();
        self.free_lines = self.free_lines.saturating_sub(LINES_IN_BLOCK - lines);
        let _ = self.touch(block);
        self.live = self.live.saturating_sub(lines * LINE);
        let free = (LINES_IN_BLOCK - lines) * LINE;
        self.free_in_blocks = self.free_in_blocks.saturating_sub(free);
        self.touched_pages[Policy::Immix as usize] += PAGES_IN_BLOCK;
        Some(block)
    }

    /// Gives such a block back, of which nothing was used since no hole is large enough.
    pub(super) fn keep_for_small(&mut self, space: &ObjectSpace, block: usize) {
        space.tables().set_next(block, self.small_only);
        self.small_only = (block / BLOCK_BYTES) as u32 + 1;
        let free = LINES_IN_BLOCK - space.tables().entry(block).lines();
        self.free_lines += free;
        self.small_only_lines += free;
    }

    pub(super) fn take_block(
        &mut self,
        space: &ObjectSpace,
        entry: Entry,
        limit: usize,
    ) -> Result<(usize, bool), AllocError> {
        if self.used_pages() + PAGES_IN_BLOCK > limit {
            return Err(AllocError::OutOfMemory {
                requested: BLOCK_BYTES,
            });
        }
        let taken = self.cells.take_bump_block(&space.cells)?;
        let block = taken.start.as_usize() - space.tables().base();
        space.tables().set_entry(block, entry);
        let _ = self.touch(block);
        self.pages[entry.policy_index() % 4] += PAGES_IN_BLOCK;
        self.touched_pages[entry.policy_index() % 4] += PAGES_IN_BLOCK;
        Ok((block, taken.clean))
    }

    /// Are there blocks with free cells of a kind and class that nobody owns?
    #[must_use]
    pub(crate) fn has_cells(&self, kind: u8, class: usize) -> bool {
        self.cells.has_cells(kind, class)
    }

    /// Takes a block with free cells of a kind and class; its owner leaves block `old`, if any.
    pub(crate) fn take_cells(
        &mut self,
        space: &ObjectSpace,
        old: Option<usize>,
        kind: u8,
        class: usize,
    ) -> Result<usize, AllocError> {
        if let Some(old) = old {
            self.cells.leave_block(&space.cells, old);
        }
        let block = self.cells.take_block(&space.cells, kind, class)?;
        if self.touch(block) {
            let live = space.cells.count(block, 0);
            if live != 0 {
                let shape = &CLASSES[class];
                let bytes = shape.bytes as usize;
                let free = (shape.cells as usize - live) * bytes;
                self.live = self.live.saturating_sub(live * bytes);
                self.free_in_blocks = self.free_in_blocks.saturating_sub(free);
            }
        }
        Ok(block)
    }

    /// Takes whole pages for an object: its address, `residue` behind a multiple of `align`, zeroed. `code`: they are
    /// executable.
    ///
    /// # Errors
    /// [`AllocError::OutOfMemory`] at the limit (in pages), or what the system said.
    pub fn take_large(
        &mut self,
        space: &ObjectSpace,
        bytes: usize,
        (align, residue): (usize, usize),
        code: bool,
    ) -> Result<Address, AllocError> {
        let kind = if code { CODE } else { 0 };
        let object =
            self.cells
                .take_large(&space.cells, kind, bytes, (align.max(PAGE), residue), false)?;
        let offset = (object.as_usize() - space.tables().base()) / PAGE * PAGE;
        let pages = (residue % PAGE + bytes).div_ceil(PAGE);
        if code
            && let Err(e) = self
                .cells
                .set_executable(space.tables(), offset, pages, true)
        {
            self.large_pages += pages;
            self.free_large(space, offset, pages);
            return Err(AllocError::Os(e));
        }
        self.large_pages += pages;
        if self.young_large.push(object.as_usize()).is_err() {
            self.young_large_lost = true;
        }
        if space.marking() {
            let _ = space.mark_in_side::<true>(object.as_usize());
        }
        Ok(object)
    }

    /// After a minor collection: frees large objects that are young and were not reached. World stopped.
    pub(crate) fn sweep_young_large(&mut self, space: &ObjectSpace) -> usize {
        let mut freed = 0;
        for index in 0..self.young_large.len() {
            let Some(object) = self.young_large.get(index) else {
                break;
            };
            let offset = (object - space.tables().base()) / PAGE * PAGE;
            if (!space.is_marked_in_side(object) || is_on(Bug::YoungLargeFreed))
                && let LargePage::First { pages, .. } = space.tables().large_page(offset)
            {
                self.free_large(space, offset, pages);
                freed += 1;
            }
        }
        self.young_large.clear();
        freed
    }

    /// Frees the large object whose first page is at `offset`.
    fn free_large(&mut self, space: &ObjectSpace, offset: usize, pages: usize) {
        let tables = space.tables();
        let object = offset + tables.lead(offset);
        tables
            .word(object, 0)
            .fetch_and(!(1 << (object / 16 % 64)), Ordering::Relaxed);
        let _ = space.take_unlogged(tables.base() + object);
        self.large_pages -= pages;
        let code = matches!(
            tables.large_page(offset),
            LargePage::First { kind: CODE, .. }
        );
        // What cannot be made harmless is not used again.
        let harmful = code
            && self
                .cells
                .set_executable(tables, offset, pages, false)
                .is_err();
        if (self.quarantine || harmful) && self.cells.quarantine(tables, offset, pages) {
            self.quarantined_pages += pages;
        } else if harmful {
            self.cells.bury(tables, offset, pages);
            self.quarantined_pages += pages;
        } else {
            self.cells.release_large(&space.cells, offset, pages);
        }
    }

    /// After a trace: frees what was not reached. `full`: everything was traced, and the sweep looks at all blocks, of which
    /// [`examine`] was called for each; else only at those that were handed out since the last one. `promoted`: what blocks become
    /// whose objects could not all be moved. World stopped.
    pub(crate) fn sweep(&mut self, space: &ObjectSpace, full: bool, promoted: Policy) -> Swept {
        let mut swept = Swept::default();
        if full {
            self.cells.forget_lists();
            self.forget_recyclable();
            self.free_lines = 0;
            self.pages = [0; 4];
            self.live = 0;
            self.free_in_blocks = 0;
            // From high to low, so that lists begin with the lowest block.
            let mut block = space.cells.extent();
            while block > 0 {
                block -= BLOCK_BYTES;
                if space.tables().entry(block).class() != 0 {
                    let found = Examined(space.tables().next(block));
                    self.settle(space, block, found, false, &mut swept);
                }
            }
            self.young_large.clear();
            self.young_large_lost = false;
        } else {
            swept.freed_large = self.sweep_young_large(space);
            // They were handed out, and will be listed anew.
            self.free_lines = self.free_lines.saturating_sub(self.small_only_lines);
            self.small_only_lines = 0;
            if !is_on(Bug::SmallListKept) {
                self.small_only = 0;
            }
            for (pages, touched) in self.pages.iter_mut().zip(self.touched_pages) {
                *pages -= touched;
            }
            self.for_each_touched(|stock, block| {
                let found = examine(space, block, false, promoted);
                // In a list are those that nobody owns and that had free cells when they were left.
                let entry = space.tables().entry(block);
                let listed = !entry.is_owned() && !entry.is_exhausted() && !is_on(Bug::ListedTwice);
                stock.settle(space, block, found, listed, &mut swept);
            });
        }
        self.touched.as_mut_slice().fill(0);
        self.touched_lost = false;
        self.touched_pages = [0; 4];
        swept.live = self.live + self.large_pages * PAGE;
        swept.free_in_blocks = self.free_in_blocks;
        swept
    }

    /// Frees or lists a block, and counts it. `listed`: one with a size class is in a list.
    fn settle(
        &mut self,
        space: &ObjectSpace,
        block: usize,
        found: Examined,
        listed: bool,
        swept: &mut Swept,
    ) {
        let tables = space.tables();
        let entry = tables.entry(block);
        if found == Examined::EMPTY {
            if listed && let Some(shape) = CLASSES.get(entry.class()) {
                // There it stays, for whoever needs it.
                self.free_in_blocks += shape.used as usize;
                return;
            }
            tables.set_entry(block, Entry::NONE);
            self.cells.give_block(Address::new(tables.base() + block));
            swept.freed_blocks += 1;
            return;
        }
        if entry.class() == Entry::LARGE {
            for page in (0..PAGES_IN_BLOCK).filter(|page| found.0 >> page & 1 != 0) {
                let start = block + page * PAGE;
                if let LargePage::First { pages, .. } = tables.large_page(start) {
                    self.free_large(space, start, pages);
                    swept.freed_large += 1;
                }
            }
            return;
        }
        let count = found.0 as usize;
        if entry.class() < CLASSES.len() {
            let shape = &CLASSES[entry.class()];
            let bytes = shape.bytes as usize;
            self.live += count * bytes;
            self.free_in_blocks += (shape.cells as usize - count) * bytes;
            if !listed {
                self.cells.list_if_worth(&space.cells, block, entry, count);
            }
            return;
        }
        if entry.is(Policy::Immix) {
            tables.set_entry(block, entry.with_lines(count));
            self.live += count * LINE;
            self.free_in_blocks += (LINES_IN_BLOCK - count) * LINE;
            if count < LINES_IN_BLOCK {
                tables.set_next(block, self.recyclable);
                self.recyclable = (block / BLOCK_BYTES) as u32 + 1;
                self.recyclable_blocks += 1;
                self.free_lines += LINES_IN_BLOCK - count;
            }
        } else {
            self.live += BLOCK_BYTES;
        }
        self.pages[entry.policy_index() % 4] += PAGES_IN_BLOCK;
    }

    /// Reports free memory that was written to, with the option `poison`: pages, cells, and the lines of blocks that nobody took
    /// since the last collection. World stopped, before a trace, when nobody has a region or a run.
    pub(crate) fn check_poison(&self, space: &ObjectSpace, note: &mut dyn FnMut(Violation)) {
        self.cells.pages().check_poison(note);
        space.cells.check_poison(note);
        let Some(poison) = space.cells.poison() else {
            return;
        };
        let mut next = self.recyclable;
        while next != 0 {
            let block = (next - 1) as usize * BLOCK_BYTES;
            space.check_poisoned_lines(poison, block, note);
            next = space.tables().next(block);
        }
    }

    /// Chooses as many blocks to be evacuated as `budget` bytes have room for the lines of: gives how many. World stopped,
    /// before a full trace.
    pub(crate) fn choose_all(&mut self, space: &ObjectSpace, budget: usize) -> usize {
        let tables = space.tables();
        let mut room = budget / LINE;
        let mut chosen = 0;
        for block in (0..space.cells.extent()).step_by(BLOCK_BYTES) {
            let entry = tables.entry(block);
            if !entry.is(Policy::Immix) || entry.moves() {
                continue;
            }
            // Of a block that was taken since the last collection nobody knows how many are in use.
            let most = match entry.lines() {
                0 => LINES_IN_BLOCK,
                lines => lines,
            };
            if most <= room {
                room -= most;
                tables.set_entry(block, entry.moving());
                chosen += 1;
            }
        }
        chosen
    }

    /// Chooses blocks with many free lines to be evacuated, whose live lines fill at most `budget` bytes: gives how many.
    /// World stopped, before a full trace.
    pub(crate) fn choose_fragmented(&mut self, space: &ObjectSpace, budget: usize) -> usize {
        let tables = space.tables();
        let blocks = || {
            (0..space.cells.extent())
                .step_by(BLOCK_BYTES)
                .map(|b| (b, tables.entry(b)))
                .filter(|(_, e)| e.is(Policy::Immix) && !e.moves() && e.lines() != 0)
        };
        let mut by_lines = [0usize; LINES_IN_BLOCK + 1];
        for (_, entry) in blocks() {
            by_lines[entry.lines().min(LINES_IN_BLOCK)] += 1;
        }
        let mut room = budget / LINE;
        let mut most = 0;
        // A block with more than three quarters of its lines in use gives too little for its copying.
        for (lines, count) in by_lines
            .iter()
            .enumerate()
            .take(LINES_IN_BLOCK * 3 / 4 + 1)
            .skip(1)
        {
            if *count * lines > room {
                break;
            }
            room -= count * lines;
            most = lines;
        }
        let mut chosen = 0;
        for (block, entry) in blocks() {
            if entry.lines() <= most {
                tables.set_entry(block, entry.moving());
                chosen += 1;
            }
        }
        chosen
    }
}

/// What a sweep finds in a block: how many cells or lines of it are in use, or, of a block of large objects, a bit for each page
/// at which a dead one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Examined(u32);

impl Examined {
    /// Nothing lives in it, and its part of the side tables is clear.
    const EMPTY: Self = Self(u32::MAX);
}

/// Looks at a block after a trace and brings its part of the side tables in order: all of a sweep that can be done by many
/// workers at once. World stopped; one worker for each block.
fn examine(space: &ObjectSpace, block: usize, full: bool, promoted: Policy) -> Examined {
    let tables = space.tables();
    let entry = tables.entry(block);
    let used = match entry.class() {
        0 => return Examined(0),
        Entry::LARGE => {
            // Of a minor collection, young ones are looked at one by one.
            return Examined(if full { dead_large(space, block) } else { 0 });
        }
        class if class < CLASSES.len() => adopt_cells(space, block),
        _ if entry.moves() && !entry.is_retained() || entry.is_held() && is_on(Bug::HeldFreed) => 0,
        _ => {
            if entry.moves() {
                space.settle_retained(block, promoted);
            }
            let entry = tables.entry(block);
            let used = if entry.is(Policy::Immix) {
                space.lines_in_use(block)
            } else {
                LINES_IN_BLOCK
            };
            // The dead of a held block are no objects any more: an ambiguous root must not find them.
            if used != 0 && space.has_object_map() && (entry.is(Policy::Immix) || entry.is_held()) {
                space.adopt_marks(block);
            }
            if used != 0 && entry.is(Policy::Immix) {
                space.poison_free_lines(block);
            }
            used
        }
    };
    if used == 0 {
        space.wipe(block);
        return Examined::EMPTY;
    }
    Examined(used as u32)
}

/// Examines blocks of a full collection, and keeps what it found in their links, which the sweep makes anew.
pub(crate) fn examine_all(
    space: &ObjectSpace,
    blocks: impl Iterator<Item = usize>,
    promoted: Policy,
) {
    for block in blocks {
        if space.tables().entry(block).class() != 0 {
            let found = examine(space, block, true, promoted);
            space.tables().set_next(block, found.0);
        }
    }
}

/// The marks of a block with size classes become its object map: how many there are.
fn adopt_cells(space: &ObjectSpace, block: usize) -> usize {
    let tables = space.tables();
    let poisons = space.cells.poison().is_some();
    let mut live = 0;
    for pair in (block..block + BLOCK_BYTES).step_by(PAIR) {
        let mut marks = tables.word(pair, 1).load(Ordering::Relaxed);
        if is_on(Bug::CellsNotFreed) {
            marks |= tables.word(pair, 0).load(Ordering::Relaxed);
        }
        if is_on(Bug::CellFreed) && pair == block {
            marks &= marks.wrapping_sub(1);
        }
        if poisons {
            let old = tables.word(pair, 0).load(Ordering::Relaxed);
            space.cells.poison_dead(pair, old, marks);
        }
        tables.word(pair, 0).store(marks, Ordering::Relaxed);
        live += marks.count_ones() as usize;
    }
    live
}

/// A bit for each page of a block at which a large object begins that was not reached.
fn dead_large(space: &ObjectSpace, block: usize) -> u32 {
    let mut dead = 0;
    for page in 0..PAGES_IN_BLOCK {
        let start = block + page * PAGE;
        if let LargePage::First { lead, .. } = space.tables().large_page(start)
            && (!space.is_marked_in_side(space.tables().base() + start + lead)
                || is_on(Bug::LargeFreed))
        {
            dead |= 1 << page;
        }
    }
    dead
}
