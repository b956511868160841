//! Pages: which pages of the heap's range are free, and which of the free ones are known to be zero.
//!
//! Two bits a page, in chunk order, so a run of free pages may cross chunks: `free`, and `clean` (never written since the
//! system handed it over). A block is eight aligned pages: one byte of a word of the bitmap.
//!
//! All of it is used under the heap's lock. Equations: `free_pages + used_pages = extent / PAGE`;
//! `clean ⊆ free`; `resident_pages = used_pages + |free \ clean|` is what the heap may occupy of the machine's memory.

use crate::alloc::BLOCK_BYTES;
use crate::bugs::{Bug, is_on};
use crate::error::{AllocError, HeapError};
use crate::event::Violation;
use crate::space::poison::Poison;
use heapwright_address::Address;
use heapwright_memory::{DenseMapper, MapError, MappedVec, Mmapper, SideMetadataSpec};
use heapwright_os::{OsError, Port};
use std::sync::Arc;

/// Bytes in a page of the page allocator.
pub const PAGE: usize = 4096;
/// Bytes in a chunk: what the mapper maps at once.
pub const CHUNK: usize = 4 << 20;
const PAGES_IN_WORD: usize = 64;
const WORDS_IN_CHUNK: usize = CHUNK / PAGE / PAGES_IN_WORD;
const PAGES_IN_BLOCK: usize = BLOCK_BYTES / PAGE;
/// From this many pages in use on (16 MiB), a block that has no memory gets all of it at once: a fault costs more than the
/// page. A smaller heap has blocks of many classes of which only the first page is ever touched.
const POPULATE_FROM: usize = 4096;

/// Pages that were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// First byte.
    pub start: Address,
    /// All of it is known to be zero.
    pub clean: bool,
}

/// The page allocator of one heap.
#[derive(Debug)]
pub struct Pages {
    port: Arc<dyn Port>,
    mapper: DenseMapper,
    specs: Vec<SideMetadataSpec>,
    base: Address,
    range: usize,
    extent: usize,
    free: MappedVec<u64>,
    clean: MappedVec<u64>,
    free_pages: usize,
    clean_pages: usize,
    /// No word below this has a wholly free byte.
    block_hint: usize,
    /// No word below this has a free page.
    page_hint: usize,
    /// The system knows how to populate, and did so far.
    populates: bool,
    poison: Option<Arc<Poison>>,
}

impl Pages {
    /// A page allocator over `[base, base + range)`, of which nothing is mapped yet.
    ///
    /// # Errors
    /// If the bitmaps cannot be reserved.
    pub fn new(
        port: Arc<dyn Port>,
        mapper: DenseMapper,
        specs: Vec<SideMetadataSpec>,
        base: Address,
        range: usize,
    ) -> Result<Self, HeapError> {
        let words = range / PAGE / PAGES_IN_WORD;
        let free = MappedVec::new(Arc::clone(&port), words, c"heapwright pages free")?;
        let clean = MappedVec::new(Arc::clone(&port), words, c"heapwright pages clean")?;
        Ok(Self {
            port,
            mapper,
            specs,
            base,
            range,
            extent: 0,
            free,
            clean,
            free_pages: 0,
            clean_pages: 0,
            block_hint: 0,
            page_hint: 0,
            populates: true,
            poison: None,
        })
    }

    /// From now on, free pages that are not clean hold the pattern, and pages that are taken hold it too.
    #[must_use]
    pub fn with_poison(mut self, poison: Option<Arc<Poison>>) -> Self {
        self.poison = poison;
        self
    }

    /// Reports free pages that were written to. With the option `poison`, under the lock.
    pub(crate) fn check_poison(&self, note: &mut dyn FnMut(Violation)) {
        let Some(poison) = &self.poison else {
            return;
        };
        let words = self.free.as_slice().iter().zip(self.clean.as_slice());
        for (index, (free, clean)) in words.enumerate() {
            for_each_bit(free & !clean, |bit| {
                let page = self.base.as_usize() + (index * PAGES_IN_WORD + bit) * PAGE;
                // SAFETY: a free page below the extent, under the lock.
                if let Some(wrong) = unsafe { poison.written(page, page + PAGE) } {
                    note(wrong);
                }
            });
        }
    }

    /// Bytes from the base of the range that are mapped: whole chunks. It never shrinks.
    #[must_use]
    pub fn extent(&self) -> usize {
        self.extent
    }

    /// Pages that were taken and not given back.
    #[must_use]
    pub fn used_pages(&self) -> usize {
        self.extent / PAGE - self.free_pages
    }

    /// Free pages that may occupy memory of the machine.
    #[must_use]
    pub fn idle_pages(&self) -> usize {
        self.free_pages - self.clean_pages
    }

    /// Free pages that occupy none, since they were never used or were returned.
    #[must_use]
    pub fn clean_pages(&self) -> usize {
        self.clean_pages
    }

    /// Takes a block: eight pages aligned to their size.
    ///
    /// # Errors
    /// [`AllocError::OutOfMemory`] at the end of the range, or what the system said.
    pub fn take_block(&mut self) -> Result<Taken, AllocError> {
        loop {
            let words = self.free.as_slice();
            for (index, word) in words.iter().enumerate().skip(self.block_hint) {
                if let Some(byte) = full_byte(*word) {
                    self.block_hint = index;
                    let taken = self.take_at(index * PAGES_IN_WORD + byte * 8, PAGES_IN_BLOCK);
                    if self.populates && taken.clean && self.used_pages() > POPULATE_FROM {
                        self.populates = self.port.populate(taken.start, BLOCK_BYTES).is_ok();
                    }
                    return Ok(taken);
                }
            }
            self.block_hint = words.len();
            self.grow(1, BLOCK_BYTES)?;
        }
    }

    /// Takes `pages` consecutive pages whose start is aligned to `align` bytes, a power of two not below a page.
    ///
    /// # Errors
    /// As [`Pages::take_block`].
    pub fn take_pages(&mut self, pages: usize, align: usize) -> Result<Taken, AllocError> {
        let step = (align / PAGE).max(1);
        let requested = pages.saturating_mul(PAGE);
        if requested > self.range || align > self.range {
            return Err(AllocError::OutOfMemory { requested });
        }
        if let Some(first) = self.find(pages, step) {
            return Ok(self.take_at(first, pages));
        }
        let chunks = (requested + if step > 1 { align } else { 0 }).div_ceil(CHUNK);
        // The last free pages before the end count towards the request.
        let tail = self.free_tail();
        let needed = if step == 1 {
            (requested - (tail * PAGE).min(requested))
                .div_ceil(CHUNK)
                .max(1)
        } else {
            chunks
        };
        self.grow(needed, requested)?;
        match self.find(pages, step) {
            Some(first) => Ok(self.take_at(first, pages)),
            None => Err(AllocError::OutOfMemory { requested }),
        }
    }

    /// Gives pages back. They keep their contents, and their memory until [`Pages::return_idle`].
    pub fn give(&mut self, start: Address, pages: usize) {
        let first = start.diff(self.base) / PAGE;
        if let Some(poison) = &self.poison {
            // SAFETY: the pages are below the extent, and nobody uses them any more.
            unsafe { poison.fill(start.as_usize(), start.as_usize() + pages * PAGE) };
        }
        for_each_word(first, pages, |index, mask| {
            let word = &mut self.free.as_mut_slice()[index];
            debug_assert_eq!(*word & mask, 0, "pages are given back once");
            *word |= mask;
        });
        self.free_pages += pages;
        self.block_hint = self.block_hint.min(first / PAGES_IN_WORD);
        self.page_hint = self.page_hint.min(first / PAGES_IN_WORD);
    }

    /// Returns idle pages to the operating system, from the highest addresses down, until at most `keep` pages are idle.
    /// Gives the bytes returned.
    pub fn return_idle(&mut self, keep: usize) -> usize {
        let mut returned = 0;
        let mut index = self.free.len();
        while index > 0 && self.idle_pages() > keep {
            index -= 1;
            let mut idle = self.free.as_slice()[index] & !self.clean.as_slice()[index];
            while idle != 0 && self.idle_pages() > keep {
                let high = 63 - idle.leading_zeros();
                let run = (idle << (63 - high)).leading_ones();
                let low = high + 1 - run;
                let start = self.base.add((index * PAGES_IN_WORD + low as usize) * PAGE);
                let mask = mask_of(low as usize, run as usize);
                idle &= !mask;
                let more = usize::from(is_on(Bug::UsedPageReturned)) * PAGE;
                if !is_on(Bug::ReturnedNotGone)
                    && self
                        .port
                        .decommit(start, run as usize * PAGE + more)
                        .is_err()
                {
                    return returned;
                }
                self.clean.as_mut_slice()[index] |= mask;
                self.clean_pages += run as usize;
                returned += run as usize * PAGE;
            }
        }
        returned
    }

    /// Maps more, so that at least `bytes` are free and mapped.
    ///
    /// # Errors
    /// As [`Pages::take_block`].
    pub fn expand(&mut self, bytes: usize) -> Result<(), AllocError> {
        let free = self.free_pages * PAGE;
        if free >= bytes {
            Ok(())
        } else {
            self.grow((bytes - free).div_ceil(CHUNK), bytes)
        }
    }

    /// Is the page at this address free? For the verifier.
    #[must_use]
    pub fn is_free(&self, page: Address) -> bool {
        let index = page.diff(self.base) / PAGE;
        self.free
            .as_slice()
            .get(index / PAGES_IN_WORD)
            .is_none_or(|w| w >> (index % PAGES_IN_WORD) & 1 == 1)
    }

    /// Do the eight pages of the block at an offset from the base occupy no memory?
    #[must_use]
    pub(crate) fn is_clean_block(&self, block: usize) -> bool {
        let first = block / PAGE;
        self.clean
            .as_slice()
            .get(first / PAGES_IN_WORD)
            .is_none_or(|w| w >> (first % PAGES_IN_WORD) & 0xff == 0xff)
    }

    /// Makes pages that are in use executable, or takes that away again.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn set_executable(
        &mut self,
        start: Address,
        pages: usize,
        executable: bool,
    ) -> Result<(), OsError> {
        if executable {
            self.port.commit_executable(start, pages * PAGE)
        } else {
            self.port.commit(start, pages * PAGE)
        }
    }

    /// Makes pages that are in use inaccessible and gives their memory back. They stay taken.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn forbid(&mut self, start: Address, pages: usize) -> Result<(), OsError> {
        self.port.uncommit(start, pages * PAGE)
    }

    fn take_at(&mut self, first: usize, pages: usize) -> Taken {
        let mut clean = 0;
        for_each_word(first, pages, |index, mask| {
            self.free.as_mut_slice()[index] &= !mask;
            let word = &mut self.clean.as_mut_slice()[index];
            let were_clean = *word & mask;
            clean += were_clean.count_ones() as usize;
            *word &= !mask;
            if let Some(poison) = &self.poison {
                for_each_bit(mask, |bit| {
                    let page = self.base.as_usize() + (index * PAGES_IN_WORD + bit) * PAGE;
                    // SAFETY: a page below the extent, which was free and is the caller's now.
                    unsafe {
                        if were_clean >> bit & 1 == 1 {
                            poison.fill(page, page + PAGE);
                        } else {
                            poison.look(page, page + PAGE);
                        }
                    }
                });
            }
        });
        self.free_pages -= pages;
        self.clean_pages -= clean;
        Taken {
            start: self.base.add(first * PAGE),
            clean: clean == pages && self.poison.is_none(),
        }
    }

    /// The lowest run of free pages whose address, in pages, is a multiple of `step`.
    fn find(&mut self, pages: usize, step: usize) -> Option<usize> {
        let base = self.base.as_usize() / PAGE;
        let aligned = |page: usize| (base + page).next_multiple_of(step) - base;
        let words = self.free.as_slice();
        while self.page_hint < words.len() && words[self.page_hint] == 0 {
            self.page_hint += 1;
        }
        let total = words.len() * PAGES_IN_WORD;
        let mut page = aligned(self.page_hint * PAGES_IN_WORD);
        while page + pages <= total {
            let start = next_bit(words, page, total, true)?;
            if start != page {
                page = aligned(start);
                continue;
            }
            let end = next_bit(words, start, (start + pages).min(total), false)
                .unwrap_or((start + pages).min(total));
            if end - start >= pages {
                return Some(start);
            }
            page = aligned(end);
        }
        None
    }

    fn free_tail(&self) -> usize {
        let mut pages = 0;
        for word in self.free.as_slice().iter().rev() {
            pages += word.leading_ones() as usize;
            if *word != u64::MAX {
                break;
            }
        }
        pages
    }

    fn grow(&mut self, chunks: usize, requested: usize) -> Result<(), AllocError> {
        let bytes = chunks.saturating_mul(CHUNK);
        if bytes > self.range - self.extent {
            return Err(AllocError::OutOfMemory { requested });
        }
        let start = self.base.add(self.extent);
        self.mapper
            .ensure_mapped(start, bytes / PAGE, &self.specs, &[])
            .map_err(|e| match e {
                MapError::Os(os) => AllocError::Os(os),
                _ => AllocError::OutOfMemory { requested },
            })?;
        for _ in 0..chunks * WORDS_IN_CHUNK {
            self.free.push(u64::MAX)?;
            if let Err(e) = self.clean.push(u64::MAX) {
                self.free.pop();
                return Err(e.into());
            }
            // Kept in step word by word, so a refused push leaves the equations true.
            self.free_pages += PAGES_IN_WORD;
            self.clean_pages += PAGES_IN_WORD;
            self.extent += PAGES_IN_WORD * PAGE;
        }
        Ok(())
    }
}

/// The first byte of the word that is all ones.
fn full_byte(word: u64) -> Option<usize> {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let mut w = word;
    w &= w >> 4;
    w &= w >> 2;
    w &= w >> 1;
    let full = w & LOW;
    (full != 0).then(|| full.trailing_zeros() as usize / 8)
}

fn mask_of(low: usize, bits: usize) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        ((1 << bits) - 1) << low
    }
}

/// Calls `visit` with the number of each bit that is set.
fn for_each_bit(mut word: u64, mut visit: impl FnMut(usize)) {
    while word != 0 {
        visit(word.trailing_zeros() as usize);
        word &= word - 1;
    }
}

/// Calls `visit(word, mask)` for the words that hold bits `first .. first + count`.
fn for_each_word(first: usize, count: usize, mut visit: impl FnMut(usize, u64)) {
    let mut bit = first;
    let end = first + count;
    while bit < end {
        let low = bit % 64;
        let bits = (64 - low).min(end - bit);
        visit(bit / 64, mask_of(low, bits));
        bit += bits;
    }
}

/// The first bit in `[from, end)` that has the value.
fn next_bit(words: &[u64], from: usize, end: usize, value: bool) -> Option<usize> {
    let mut bit = from;
    while bit < end {
        let word = if value {
            words[bit / 64]
        } else {
            !words[bit / 64]
        };
        let word = word >> (bit % 64);
        if word != 0 {
            let found = bit + word.trailing_zeros() as usize;
            return (found < end).then_some(found);
        }
        bit = (bit / 64 + 1) * 64;
    }
    None
}
