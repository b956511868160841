//! The locked part of the space: free pages, lists of blocks with free cells, large objects, and the sweep.
//!
//! Every function here is called with the heap's lock held.

use super::MarkSweep;
use crate::alloc::size_class::CLASS_COUNT;
use crate::alloc::{BLOCK_BYTES, CLASSES};
use crate::error::{AllocError, FreeError};
use crate::space::pages::{PAGE, Pages, Taken};
use crate::space::tables::{Entry, LargePage, PAIR, Tables};
use crate::vm::MAX_KINDS;
use core::sync::atomic::Ordering;
use heapwright_address::Address;
use heapwright_os::OsError;

/// Blocks that a list skips when fewer than one cell in so many is free.
const WORTH_LISTING: usize = 32;

/// What a sweep counted. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepResult {
    /// Cells that are allocated, those in threads' runs included.
    pub live: usize,
    /// The part of `live` that is never scanned.
    pub live_leaf: usize,
    /// How many cells that is.
    pub cells: usize,
    /// Free cells in blocks that stay in use.
    pub free_in_blocks: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Stock {
    pages: Pages,
    /// For each kind and class, the first block with free cells: its number plus 1; 0: none.
    lists: [[u32; CLASS_COUNT]; MAX_KINDS],
    /// Pages that may be in use at once; 0: no limit.
    max_pages: usize,
    swept: SweepResult,
    /// Bytes that were taken out of use: [`Stock::set_aside_first`].
    aside: usize,
}

impl Stock {
    /// Over an empty page allocator.
    #[must_use]
    pub fn new(pages: Pages, max_bytes: usize) -> Self {
        Self {
            pages,
            lists: [[0; CLASS_COUNT]; MAX_KINDS],
            max_pages: max_bytes / PAGE,
            swept: SweepResult::default(),
            aside: 0,
        }
    }

    /// The page allocator.
    #[must_use]
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Limits what may be in use, in bytes; 0: no limit.
    pub fn set_max(&mut self, bytes: usize) {
        self.max_pages = if bytes == 0 { 0 } else { (bytes / PAGE).max(1) };
    }

    /// The limit in bytes; 0: none.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max_pages * PAGE
    }

    /// What the last sweep counted.
    #[must_use]
    pub fn swept(&self) -> &SweepResult {
        &self.swept
    }

    /// Are there blocks with free cells of a class and kind that nobody owns?
    #[must_use]
    pub fn has_cells(&self, kind: u8, class: usize) -> bool {
        self.lists[kind as usize][class] != 0
    }

    /// A block with free cells of a class and kind, now owned by the caller: its offset.
    ///
    /// # Errors
    /// [`AllocError::OutOfMemory`] at the limit, or what the system said.
    pub fn take_block(
        &mut self,
        space: &MarkSweep,
        kind: u8,
        class: usize,
    ) -> Result<usize, AllocError> {
        let tables = space.tables();
        let head = &mut self.lists[kind as usize][class];
        if *head != 0 {
            let block = (*head - 1) as usize * BLOCK_BYTES;
            *head = tables.next(block);
            tables.set_entry(block, tables.entry(block).taken());
            return Ok(block);
        }
        self.check_limit(BLOCK_BYTES / PAGE, CLASSES[class].bytes as usize)?;
        let taken = self.pages.take_block()?;
        space.extent.store(self.pages.extent(), Ordering::Release);
        let block = taken.start.as_usize() - tables.base();
        tables.set_entry(
            block,
            Entry::owned(class, kind, space.kind(kind), taken.clean),
        );
        Ok(block)
    }

    /// The owner leaves a block that it used up.
    pub fn leave_block(&mut self, space: &MarkSweep, block: usize) {
        let tables = space.tables();
        tables.set_entry(block, tables.entry(block).exhausted());
    }

    /// The owner leaves a block in which there may be free cells.
    pub fn leave_unfinished(&mut self, space: &MarkSweep, block: usize) {
        self.list(space, block, space.tables().entry(block));
    }

    /// Takes whole pages for an object of `bytes`: its address, which is `residue` behind a multiple of `align` (at least a page;
    /// the residue is a multiple of 8 below it). Zero if its kind is zeroed.
    ///
    /// # Errors
    /// As [`Stock::take_block`].
    pub fn take_large(
        &mut self,
        space: &MarkSweep,
        kind: u8,
        bytes: usize,
        (align, residue): (usize, usize),
        first_page_only: bool,
    ) -> Result<Address, AllocError> {
        let (before, lead) = (residue / PAGE, residue % PAGE);
        let pages = (lead + bytes).div_ceil(PAGE);
        if pages + before >= u32::MAX as usize {
            return Err(AllocError::Unsatisfiable { requested: bytes });
        }
        self.check_limit(pages, bytes)?;
        let taken = self.pages.take_pages(before + pages, align)?;
        space.extent.store(self.pages.extent(), Ordering::Release);
        if before != 0 {
            self.pages.give(taken.start, before);
        }
        let first = taken.start.add(before * PAGE);
        let tables = space.tables();
        let traits = space.kind(kind);
        if traits.zeroed && !taken.clean {
            // SAFETY: the pages are mapped and were free, so nothing else uses them.
            unsafe { core::ptr::write_bytes(first.as_mut_ptr::<u8>(), 0, pages * PAGE) };
        }
        let start = first.as_usize() - tables.base();
        tables.set_large_page(
            start,
            LargePage::First {
                pages,
                kind,
                leaf: traits.leaf,
                first_page_only,
                lead,
            },
        );
        for page in 1..pages {
            tables.set_large_page(start + page * PAGE, LargePage::Back(page));
        }
        let mut block = start / BLOCK_BYTES * BLOCK_BYTES;
        while block < start + pages * PAGE {
            tables.set_entry(block, Entry::large());
            block += BLOCK_BYTES;
        }
        let object = start + lead;
        tables
            .word(object, space.parity())
            .fetch_or(1 << (object / 16 % 64), Ordering::Relaxed);
        space.allocated.fetch_add(pages * PAGE, Ordering::Relaxed);
        Ok(first.add(lead))
    }

    fn check_limit(&self, pages: usize, requested: usize) -> Result<(), AllocError> {
        if self.max_pages != 0 && self.used() / PAGE + pages > self.max_pages {
            return Err(AllocError::OutOfMemory { requested });
        }
        Ok(())
    }

    /// Maps memory ahead, so that `bytes` more can be allocated without growing.
    ///
    /// # Errors
    /// As [`Stock::take_block`].
    pub fn expand(&mut self, space: &MarkSweep, bytes: usize) -> Result<(), AllocError> {
        self.check_limit(bytes.div_ceil(PAGE), bytes)?;
        self.pages.expand(bytes)?;
        space.extent.store(self.pages.extent(), Ordering::Release);
        Ok(())
    }

    /// Frees the cell that starts at an address.
    ///
    /// # Errors
    /// If there is no allocated cell; nothing is changed then.
    pub fn free(&mut self, space: &MarkSweep, start: usize) -> Result<usize, FreeError> {
        let tables = space.tables();
        let offset = start.wrapping_sub(tables.base());
        if offset >= space.extent() {
            return Err(FreeError::Foreign);
        }
        let (first, bytes, entry) = tables.cell(offset).ok_or(FreeError::Foreign)?;
        if first != offset {
            return Err(FreeError::Interior);
        }
        let bit = 1 << (offset / 16 % 64);
        let word = tables.word(offset, space.parity());
        if word.load(Ordering::Relaxed) & bit == 0 {
            return Err(FreeError::NotAllocated);
        }
        if let Some(poison) = space.poison().filter(|_| entry.class() != Entry::LARGE) {
            // SAFETY: the caller's cell, until its bit is clear.
            unsafe { poison.fill(start, start + bytes) };
        }
        // Others clear bits under the lock only. Release: see `MarkSweep::refill`.
        word.fetch_and(!bit, Ordering::Release);
        let _ = space
            .allocated
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                Some(n.saturating_sub(bytes))
            });
        if entry.class() == Entry::LARGE {
            self.release_large(space, offset, bytes / PAGE);
        } else if tables.entry(offset).is_exhausted() {
            let block = offset / BLOCK_BYTES * BLOCK_BYTES;
            self.list(space, block, tables.entry(offset));
        }
        Ok(bytes)
    }

    fn list(&mut self, space: &MarkSweep, block: usize, entry: Entry) {
        let tables = space.tables();
        let head = &mut self.lists[entry.kind() as usize][entry.class()];
        tables.set_next(block, *head);
        *head = (block / BLOCK_BYTES) as u32 + 1;
        tables.set_entry(block, entry.listed());
    }

    /// Takes the first block of the range out of use. The collector's own frames hold the address of the range, and would keep
    /// alive what is there.
    ///
    /// # Errors
    /// As [`Stock::take_block`].
    pub(crate) fn set_aside_first(&mut self, space: &MarkSweep) -> Result<(), AllocError> {
        let taken = self.pages.take_block()?;
        space.extent.store(self.pages.extent(), Ordering::Release);
        let tables = space.tables();
        let block = taken.start.as_usize() - tables.base();
        debug_assert_eq!(block, 0);
        tables.set_entry(block, Entry::large());
        self.bury(tables, block, BLOCK_BYTES / PAGE);
        self.aside = BLOCK_BYTES;
        Ok(())
    }

    /// Bytes that the heap uses, without what is idle and what was set aside.
    pub(crate) fn used(&self) -> usize {
        self.pages.used_pages() * PAGE - self.aside
    }

    /// Takes a free block that will have no size class. The caller sets its entry.
    pub(crate) fn take_bump_block(&mut self, space: &MarkSweep) -> Result<Taken, AllocError> {
        let taken = self.pages.take_block()?;
        space.extent.store(self.pages.extent(), Ordering::Release);
        Ok(taken)
    }

    /// Gives such a block back, or one with a size class. Its entry and its bits are clear.
    pub(crate) fn give_block(&mut self, start: Address) {
        self.pages.give(start, BLOCK_BYTES / PAGE);
    }

    /// Takes all blocks off the lists.
    pub(crate) fn forget_lists(&mut self) {
        self.lists = [[0; CLASS_COUNT]; MAX_KINDS];
    }

    /// Lists a block of which `live` cells are in use if enough are free. Nobody owns it.
    pub(crate) fn list_if_worth(
        &mut self,
        space: &MarkSweep,
        block: usize,
        entry: Entry,
        live: usize,
    ) {
        let cells = CLASSES[entry.class()].cells as usize;
        if (cells - live) * WORTH_LISTING >= cells {
            self.list(space, block, entry);
        } else {
            space.tables().set_entry(block, entry.exhausted());
        }
    }

    /// Makes the pages of a dead large object inaccessible for good, instead of freeing them: true if the system did.
    pub(crate) fn quarantine(&mut self, tables: &Tables, start: usize, pages: usize) -> bool {
        let done = self
            .pages
            .forbid(Address::new(tables.base() + start), pages)
            .is_ok();
        if done {
            self.bury(tables, start, pages);
        }
        done
    }

    /// Has the pages of a dead large object never be used again.
    pub(crate) fn bury(&mut self, tables: &Tables, start: usize, pages: usize) {
        for page in 0..pages {
            tables.set_large_page(start + page * PAGE, LargePage::Dead);
        }
    }

    /// Makes the pages of a large object executable, or takes that away again.
    pub(crate) fn set_executable(
        &mut self,
        tables: &Tables,
        start: usize,
        pages: usize,
        executable: bool,
    ) -> Result<(), OsError> {
        let start = Address::new(tables.base() + start);
        self.pages.set_executable(start, pages, executable)
    }

    pub(crate) fn release_large(&mut self, space: &MarkSweep, start: usize, pages: usize) {
        let tables = space.tables();
        for page in 0..pages {
            tables.set_large_page(start + page * PAGE, LargePage::Free);
        }
        self.pages.give(Address::new(tables.base() + start), pages);
        let end = start + pages * PAGE;
        let mut block = start / BLOCK_BYTES * BLOCK_BYTES;
        while block < end {
            let used = (0..BLOCK_BYTES / PAGE)
                .any(|i| tables.large_page(block + i * PAGE) != LargePage::Free);
            if !used {
                tables.set_entry(block, Entry::NONE);
            }
            block += BLOCK_BYTES;
        }
    }

    /// After a collection: frees blocks and large objects without a mark, lists blocks with free cells anew, counts what
    /// lives, and clears the words of the other parity. The object map is what was marked. The world may be running.
    pub fn sweep(&mut self, space: &MarkSweep) -> SweepResult {
        let tables = space.tables();
        let parity = space.parity();
        let mut result = SweepResult::default();
        self.lists = [[0; CLASS_COUNT]; MAX_KINDS];
        // From high to low, so that lists begin with the lowest block.
        let mut block = space.extent();
        while block > 0 {
            block -= BLOCK_BYTES;
            let entry = tables.entry(block);
            match entry.class() {
                0 => {}
                Entry::LARGE => self.sweep_large(space, block, &mut result),
                class => {
                    let mut live = 0;
                    for i in 0..BLOCK_BYTES / PAIR {
                        live += tables
                            .word(block + i * PAIR, parity)
                            .load(Ordering::Relaxed)
                            .count_ones() as usize;
                        tables
                            .word(block + i * PAIR, parity ^ 1)
                            .store(0, Ordering::Relaxed);
                    }
                    let shape = &CLASSES[class];
                    let (bytes, cells) = (shape.bytes as usize, shape.cells as usize);
                    result.live += live * bytes;
                    result.cells += live;
                    if entry.is_leaf() {
                        result.live_leaf += live * bytes;
                    }
                    if entry.is_owned() {
                        continue;
                    }
                    if live == 0 {
                        tables.set_entry(block, Entry::NONE);
                        self.pages
                            .give(Address::new(tables.base() + block), BLOCK_BYTES / PAGE);
                        continue;
                    }
                    result.free_in_blocks += (cells - live) * bytes;
                    if (cells - live) * WORTH_LISTING >= cells {
                        self.list(space, block, entry);
                    } else {
                        tables.set_entry(block, entry.exhausted());
                    }
                }
            }
        }
        self.swept = result;
        space.allocated.store(0, Ordering::Relaxed);
        result
    }

    /// The objects that begin in this block.
    fn sweep_large(&mut self, space: &MarkSweep, block: usize, result: &mut SweepResult) {
        let tables = space.tables();
        let parity = space.parity();
        for page in 0..BLOCK_BYTES / PAGE {
            let start = block + page * PAGE;
            let LargePage::First { pages, leaf, .. } = tables.large_page(start) else {
                continue;
            };
            tables.word(start, parity ^ 1).store(0, Ordering::Relaxed);
            if tables.bit(start, parity) {
                result.live += pages * PAGE;
                result.cells += 1;
                if leaf {
                    result.live_leaf += pages * PAGE;
                }
            } else {
                self.release_large(space, start, pages);
            }
        }
    }

    /// Returns idle memory to the system until at most `keep` bytes of it are left. Gives the bytes returned.
    pub fn return_idle(&mut self, keep: usize) -> usize {
        self.pages.return_idle(keep / PAGE)
    }
}
