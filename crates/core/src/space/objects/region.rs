//! Regions: the memory between two addresses that one thread bumps a pointer through, and where the next one comes from.

use super::{LINE, MAX_BUMP, ObjectSpace};
use crate::alloc::{BLOCK_BYTES, Countdown, Sampler};
use crate::bugs::{Bug, is_on};
use crate::error::AllocError;
use crate::space::tables::{Entry, Policy};

/// How much is zeroed at a time: it is in the nearest cache when it is used, and no allocation pays for a whole block.
const ZEROED_AHEAD: usize = 1 << 10;

/// A region of one thread. `cursor <= limit <= end`; `[cursor, limit)` is zero; all within one block.
///
/// The layout is part of the interface ([`crate::alloc::FastPath`]): the cursor is its first word, the limit its second.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Region {
    /// The next object goes here.
    pub cursor: usize,
    /// Up to here there is zeroed memory.
    pub limit: usize,
    end: usize,
    /// Objects may lie in lines behind `end` that are free, in the block with this offset plus 1.
    block: usize,
    /// Not 0: the first point that is ahead lies here ([`crate::alloc::sampling`]), and this is the mean distance of points. The
    /// limit is not beyond it, but up to `clean` memory is zero.
    cut: usize,
    mean: usize,
    clean: usize,
}

/// What came of an attempt to give a region more zeroed memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extended {
    /// The object does not fit into what the region has.
    No,
    /// It fits.
    Yes,
    /// It was taken, at this address, and a point lies in it: the mean distance of points in bytes.
    Sampled(usize, usize),
}

/// Holes are looked for for objects up to this size; larger ones would find few.
const MOST_IN_HOLES: usize = 4 << 10;

impl Region {
    /// Takes `bytes`, a multiple of 8. Two loads, an addition, a comparison and a store.
    #[inline(always)]
    pub fn bump(&mut self, bytes: usize) -> Option<usize> {
        let object = self.cursor;
        // Not `object + bytes > limit`: an absurd request would wrap.
        if bytes > self.limit - object {
            return None;
        }
        self.cursor = object + bytes;
        Some(object)
    }

    /// Zeroes more of what the region has: true if `bytes` fit now.
    #[inline]
    pub fn extend(&mut self, bytes: usize) -> bool {
        if self.cursor + bytes > self.end {
            return false;
        }
        let limit = self.end.min(self.limit + ZEROED_AHEAD.max(bytes));
        // SAFETY: `[limit, end)` is memory of the region's owner that holds no object (`fill`).
        unsafe {
            core::ptr::write_bytes(
                core::ptr::with_exposed_provenance_mut::<u8>(self.limit),
                0,
                if is_on(Bug::NotZeroed) {
                    0
                } else {
                    limit - self.limit - if is_on(Bug::ZeroedShort) { 8 } else { 0 }
                },
            );
        }
        self.limit = limit;
        true
    }

    /// Does a point lie in what the region has left?
    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        self.cut != 0
    }

    /// Finds the first point in what the region has: after it was filled, and behind each object with a point. The owner.
    pub(crate) fn cut(&mut self, (sampler, countdown): (&dyn Sampler, &Countdown)) {
        self.clean = self.clean.max(self.limit);
        let rest = self.end - self.cursor;
        let left = countdown.left(sampler);
        if left < rest {
            self.cut = self.cursor + (left & !7);
            self.mean = countdown.pass(sampler);
            self.limit = self.clean.min(self.cut);
        } else {
            self.cut = 0;
            if !is_on(Bug::SampleRestForgotten) {
                countdown.handed(rest);
            }
            self.limit = self.clean;
        }
    }

    /// As [`Region::extend`] for one that is cut: up to the point, or just for the object at hand if the point lies in that. The
    /// owner.
    #[cold]
    pub(crate) fn extend_cut(
        &mut self,
        bytes: usize,
        sampling: (&dyn Sampler, &Countdown),
    ) -> Extended {
        let next = self.cursor + bytes;
        if next > self.end {
            return Extended::No;
        }
        if next <= self.cut {
            let ahead = self.limit + ZEROED_AHEAD.max(bytes);
            self.zero_to(ahead.min(self.cut));
            return Extended::Yes;
        }
        self.zero_to(next);
        let (object, mean) = (self.cursor, self.mean);
        self.cursor = next;
        self.cut(sampling);
        Extended::Sampled(object, mean)
    }

    /// Moves the limit, within what the region has.
    fn zero_to(&mut self, limit: usize) {
        let from = self.clean.clamp(self.limit, limit);
        // SAFETY: `[limit, end)` is memory of the region's owner that holds no object (`fill`).
        unsafe {
            core::ptr::write_bytes(
                core::ptr::with_exposed_provenance_mut::<u8>(from),
                0,
                limit - from,
            );
        }
        self.limit = limit;
    }

    /// As [`Region::extend`] for a copy, which needs no zeroed memory.
    #[inline]
    pub fn extend_raw(&mut self, bytes: usize) -> bool {
        self.limit = self.end;
        self.cursor + bytes <= self.end
    }

    /// Has the next allocation take the slow path: what was zeroed ahead is zeroed again.
    pub(crate) fn close(&mut self) {
        self.limit = self.cursor;
    }

    /// Makes it empty. World stopped, or by the owner.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The part that holds no object yet.
    #[must_use]
    pub fn rest(&self) -> (usize, usize) {
        (self.cursor, self.end)
    }

    /// Is the region empty, with nothing behind it?
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.end == 0
    }

    fn set(&mut self, start: usize, end: usize, clean: bool) {
        self.cursor = start;
        self.limit = if clean { end } else { start };
        self.end = end;
        (self.clean, self.cut) = (0, 0);
    }
}

impl ObjectSpace {
    /// Gives a region the next free memory in the block that it has, if there is some for `bytes`. No lock.
    pub fn refill(&self, region: &mut Region, bytes: usize) -> bool {
        while region.block != 0 {
            let block = region.block - 1;
            let from = (region.end - self.tables().base()).next_multiple_of(LINE);
            if from >= block + BLOCK_BYTES {
                region.block = 0;
                break;
            }
            match self.next_hole(from) {
                // Small holes are left out when a larger one is needed.
                Some((start, end)) if bytes <= end - start => {
                    let base = self.tables().base();
                    if let Some(poison) = self.cells.poison() {
                        // SAFETY: free lines of a block that the caller has.
                        unsafe { poison.look(base + start, base + end) };
                    }
                    self.clean_hole(start, end);
                    region.set(base + start, base + end, false);
                    self.count_hole(region);
                    return true;
                }
                Some((_, end)) => {
                    let end = self.tables().base() + end;
                    region.set(end, end, false);
                }
                None => region.block = 0,
            }
        }
        false
    }

    /// While marking concurrently, all that is allocated counts as marked. (With an object map each object is marked on its
    /// own, since the marks become the map.)
    fn count_hole(&self, region: &Region) {
        if self.marking() {
            if !self.has_object_map() && !is_on(Bug::NewNotMarked) {
                self.mark_range(region.cursor, region.end);
            }
            if !is_on(Bug::NewLinesFree) {
                self.mark_lines_between(region.cursor, region.end);
            }
        }
    }

    /// Gives a region free lines of a block that is in use, for `bytes`: true if there were any. It takes no more pages. Takes the
    /// lock.
    pub fn fill_hole(&self, region: &mut Region, policy: Policy, bytes: usize) -> bool {
        if policy != Policy::Immix || bytes > MOST_IN_HOLES {
            return false;
        }
        let small = bytes <= LINE;
        while let Some(block) = self.with(|stock| stock.take_recyclable(self, small)) {
            let start = self.tables().base() + block;
            region.set(start, start, false);
            region.block = block + 1;
            if self.refill(region, bytes) {
                return true;
            }
            if !small {
                self.with(|stock| stock.keep_for_small(self, block));
            }
        }
        false
    }

    /// Gives a region a free block for `bytes`, at most [`MAX_BUMP`]. Takes the lock. `limit`: pages that may be in use then.
    ///
    /// # Errors
    /// [`AllocError::OutOfMemory`] at the limit, or what the system said. The region is as before.
    pub fn fill(
        &self,
        region: &mut Region,
        policy: Policy,
        bytes: usize,
        limit: usize,
    ) -> Result<(), AllocError> {
        debug_assert!(bytes <= MAX_BUMP.max(BLOCK_BYTES));
        let (block, clean) = self.with(|stock| stock.take_block(self, Entry::of(policy), limit))?;
        let start = self.tables().base() + block;
        region.set(start, start + BLOCK_BYTES, clean || is_on(Bug::DirtyBlock));
        region.block = 0;
        self.count_hole(region);
        Ok(())
    }
}
