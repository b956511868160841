//! Lines: the unit in which Immix reuses memory (Blackburn and McKinley, "Immix: a mark-region garbage collector", PLDI 2008).
//!
//! A byte for each line of 256 bytes holds the epoch in which a live object was found in it; another value means that the line
//! is free. Unlike the paper we mark each line that an object touches, also for small objects, whose size the tracing loop
//! knows by then; so a hole may begin right behind a marked line.

use super::ObjectSpace;
use crate::alloc::BLOCK_BYTES;
use crate::bugs::{Bug, is_on};
use crate::event::Violation;
use crate::space::poison::Poison;
use core::sync::atomic::{AtomicU8, Ordering};
use heapwright_address::Address;

/// Bytes in a line.
pub const LINE: usize = 256;
/// Lines in a block.
pub const LINES_IN_BLOCK: usize = BLOCK_BYTES / LINE;
/// Epochs of lines, after which they begin anew.
const EPOCHS: u8 = 100;

impl ObjectSpace {
    #[inline(always)]
    fn line(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: callers pass offsets below the extent, for which the table has bytes.
        unsafe { &*self.side.lines.add(offset / LINE) }
    }

    /// Marks the lines of an object. Any worker: plain stores, all of the same value.
    #[inline(always)]
    pub fn mark_lines(&self, object: usize, bytes: usize, epoch: u8) {
        let first = object - self.tables().base();
        let last = first + bytes - 1;
        self.line(first).store(epoch, Ordering::Relaxed);
        let mut at = first / LINE + 1;
        while at <= last / LINE && !is_on(Bug::LinesShort) {
            self.line(at * LINE).store(epoch, Ordering::Relaxed);
            at += 1;
        }
    }

    /// Marks the lines of `[start, end)`, by their owner.
    pub fn mark_lines_between(&self, start: usize, end: usize) {
        if start < end {
            self.mark_lines(start, end - start, self.line_epoch());
        }
    }

    /// Are all lines of an object marked?
    #[must_use]
    pub fn lines_are_marked(&self, object: usize, bytes: usize) -> bool {
        let first = object - self.tables().base();
        let epoch = self.line_epoch();
        (first / LINE..=(first + bytes - 1) / LINE)
            .all(|line| self.line(line * LINE).load(Ordering::Relaxed) == epoch)
    }

    /// The lines in use of a block.
    #[must_use]
    pub fn lines_in_use(&self, block: usize) -> usize {
        let epoch = self.line_epoch();
        // SAFETY: the bytes of a block below the extent; the world is stopped, or the block is the caller's.
        let lines = unsafe {
            core::slice::from_raw_parts(
                self.line(block) as *const AtomicU8 as *const u8,
                LINES_IN_BLOCK,
            )
        };
        lines.iter().map(|l| usize::from(*l == epoch)).sum()
    }

    /// The next run of free lines of a block at or after an offset in it, as offsets. For the block's owner.
    #[must_use]
    pub fn next_hole(&self, from: usize) -> Option<(usize, usize)> {
        let epoch = self.line_epoch();
        let block_end = (from / BLOCK_BYTES + 1) * BLOCK_BYTES;
        let mut start = from;
        while start < block_end && self.line(start).load(Ordering::Relaxed) == epoch {
            start += LINE;
        }
        if start >= block_end {
            return None;
        }
        let mut end = start + LINE;
        while end < block_end && self.line(end).load(Ordering::Relaxed) != epoch {
            end += LINE;
        }
        if is_on(Bug::HoleEarly) && !start.is_multiple_of(BLOCK_BYTES) {
            start -= LINE;
        }
        if is_on(Bug::HoleLong) && end < block_end {
            end += LINE;
        }
        Some((start, end))
    }

    /// Calls `visit` with start and end of each run of free lines of a block, as addresses.
    fn for_each_hole(&self, block: usize, mut visit: impl FnMut(usize, usize)) {
        let base = self.tables().base();
        let mut from = block;
        while from < block + BLOCK_BYTES
            && let Some((start, end)) = self.next_hole(from)
        {
            visit(base + start, base + end);
            from = end;
        }
    }

    /// Bytes of the lines in use of a block, and how many holes there are between and behind them. Any thread; while the block is
    /// filled it may be a little old.
    #[must_use]
    pub(crate) fn lines_and_holes(&self, block: usize) -> (usize, usize) {
        let epoch = self.line_epoch();
        let (mut used, mut holes, mut was_used) = (0, 0, true);
        for at in (block..block + BLOCK_BYTES).step_by(LINE) {
            let is_used = self.line(at).load(Ordering::Relaxed) == epoch;
            used += usize::from(is_used) * LINE;
            holes += usize::from(was_used && !is_used);
            was_used = is_used;
        }
        (used, holes)
    }

    /// Fills the free lines of a block, with the option `poison`. World stopped, when nobody has a region.
    pub(super) fn poison_free_lines(&self, block: usize) {
        if let Some(poison) = self
            .cells
            .poison()
            .filter(|_| !is_on(Bug::LinesNotPoisoned))
        {
            self.for_each_hole(block, |start, end| {
                // SAFETY: lines of a block in use in which no object was found, and that nobody has a region in.
                unsafe { poison.fill(start, end) };
                if is_on(Bug::FreeLineWritten) {
                    // SAFETY: as above.
                    unsafe { Address::new(start).store(0usize) };
                }
            });
        }
    }

    /// Reports free lines of a block that were written to. Nobody took the block since they were filled.
    pub(super) fn check_poisoned_lines(
        &self,
        poison: &Poison,
        block: usize,
        note: &mut dyn FnMut(Violation),
    ) {
        self.for_each_hole(block, |start, end| {
            // SAFETY: free lines of a block that nobody took, world stopped.
            if let Some(wrong) = unsafe { poison.written(start, end) } {
                note(wrong);
            }
        });
    }

    /// Starts a new epoch: all lines are free until objects are found in them. World stopped.
    pub(super) fn next_line_epoch(&self) {
        let next = self.line_epoch() + 1;
        if next <= EPOCHS {
            self.line_epoch.store(next, Ordering::Relaxed);
            return;
        }
        self.line_epoch.store(1, Ordering::Relaxed);
        for block in (0..self.cells.extent()).step_by(BLOCK_BYTES) {
            self.wipe_lines(block);
        }
    }

    pub(super) fn wipe_lines(&self, block: usize) {
        // SAFETY: the bytes of a block below the extent, which is free or whose world is stopped.
        unsafe {
            core::ptr::write_bytes(
                self.side.lines.add(block / LINE).cast_mut().cast::<u8>(),
                0,
                LINES_IN_BLOCK,
            );
        }
    }

    /// Takes the log bits and the object map of a hole away, before objects are allocated in it.
    pub(super) fn clean_hole(&self, start: usize, end: usize) {
        let (lines, word) = (LINE / 16, super::PAIR / 16);
        debug_assert_eq!(word, 64);
        for line in start / LINE..end / LINE {
            let mask = !((u64::MAX >> (64 - lines)) << (line * lines % 64));
            let unlogged = Self::word_of(self.side.unlogged, line * LINE);
            if unlogged.load(Ordering::Relaxed) & !mask != 0 {
                unlogged.fetch_and(mask, Ordering::Relaxed);
            }
            if self.object_map {
                Self::word_of(self.side.objects, line * LINE).fetch_and(mask, Ordering::Relaxed);
            }
            let marks = self.tables().word(line * LINE, 1);
            if marks.load(Ordering::Relaxed) & !mask != 0 {
                marks.fetch_and(mask, Ordering::Relaxed);
            }
        }
    }
}
