//! Sliding compaction: where each live object goes (Kermany and Petrank, "The Compressor", PLDI 2006; Jonkers and LISP2 before).
//!
//! Two tables, of the compacting plan only: `live` has a bit for each 8 bytes of each live object, and `targets` a word for each
//! 512 bytes (a *unit*, one word of `live`) that says where its first object goes. Where any other object goes is that plus the
//! live bytes between the two, which is a population count. Objects need no word of their own.
//!
//! Objects slide towards lower addresses through the blocks of the plan in the order of addresses. No object may lie in two blocks;
//! where one would not fit, it goes to the start of the next block. That happens at most once among the objects that begin in a
//! unit (they have less than 9 KiB together, and a block 32), so a unit's word also says at which of them.
//!
//! All of it follows from `live` alone, but for the start of the one object in each block that does not fit: so the plan of the
//! slide reads no objects, and they are moved a run of live bytes at a time. A block's references are updated where they are,
//! right before it is moved, while it is in the cache.
//!
//! Several workers slide at once: blocks are taken in order, and a block waits until the blocks that its objects go to have been
//! left by their own (it waits only for lower ones, so the lowest never waits).
//!
//! An object never moves to a higher place: the live objects of a block fit into one block, so when those of the first `k` blocks
//! have been placed, no more than `k` blocks are in use, and what is placed in block `k` itself is what came from there.

use super::ObjectSpace;
use crate::alloc::BLOCK_BYTES;
use crate::bugs::{Bug, is_on};
use crate::space::tables::{Entry, Policy};
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes that a word of `live` stands for.
const UNIT: usize = 512;
/// Keeps targets positive: a unit's first object may go to a lower place than live bytes before it take up.
const BIAS: u64 = 1 << 16;
/// Bits for the index, in 8 bytes, of the object that goes to the next block; 0: none does.
const JUMP_BITS: u32 = 6;

/// The tables of the compacting plan.
#[derive(Clone, Copy, Debug)]
pub struct CompactTables {
    pub(crate) live: *const AtomicU64,
    pub(crate) targets: *const AtomicU64,
}

// SAFETY: as for `ObjectTables`.
unsafe impl Send for CompactTables {}
// SAFETY: as above.
unsafe impl Sync for CompactTables {}

impl ObjectSpace {
    fn unit(table: *const AtomicU64, offset: usize) -> &'static AtomicU64 {
        // SAFETY: callers pass offsets below the extent in a heap of the compacting plan, for which the tables have words; the
        // tables live as long as the heap, and the reference is used at once.
        unsafe { &*table.add(offset / UNIT) }
    }

    /// Enters a live object of `bytes`. Any worker.
    #[inline]
    pub fn set_live<const SHARED: bool>(&self, object: usize, bytes: usize) {
        let mut at = object - self.tables().base();
        let end = at + bytes;
        while at < end {
            let unit_end = (at / UNIT + 1) * UNIT;
            let count = (unit_end.min(end) - at) / 8;
            let mask = (u64::MAX >> (64 - count)) << (at / 8 % 64);
            let word = Self::unit(self.compact.live, at);
            if SHARED {
                word.fetch_or(mask, Ordering::Relaxed);
            } else {
                word.store(word.load(Ordering::Relaxed) | mask, Ordering::Relaxed);
            }
            at = unit_end;
        }
    }

    /// May objects around this address slide? Mutator running, or world stopped.
    pub(crate) fn is_sliding(&self, object: usize) -> bool {
        let offset = object.wrapping_sub(self.tables().base());
        offset < self.range() && self.tables().entry(offset).is(Policy::Compact)
    }

    /// Calls `visit` with each live object of a block, in order; `size` gives an object's size, by its address.
    pub(crate) fn for_each_live(
        &self,
        block: usize,
        size: impl Fn(usize) -> usize,
        mut visit: impl FnMut(usize, usize),
    ) {
        let base = self.tables().base();
        let mut at = block;
        while at < block + BLOCK_BYTES {
            let word = Self::unit(self.compact.live, at).load(Ordering::Relaxed) >> (at / 8 % 64);
            if word == 0 {
                at = (at / UNIT + 1) * UNIT;
                continue;
            }
            at += word.trailing_zeros() as usize * 8;
            let bytes = size(base + at);
            visit(base + at, bytes);
            at += bytes.max(16);
        }
    }

    /// The blocks that take part, as offsets, in order.
    pub(crate) fn sliding_blocks(&self) -> impl Iterator<Item = usize> {
        (0..self.cells().extent()).step_by(BLOCK_BYTES).filter(|b| {
            let entry = self.tables().entry(*b);
            entry.is(Policy::Compact) && entry.moves()
        })
    }

    /// Decides where each live object goes: how many blocks will be in use. World stopped, after the trace.
    pub(crate) fn plan_slide(&self, size: impl Fn(usize) -> usize) -> usize {
        let mut before: Option<usize> = None;
        for block in self.sliding_blocks() {
            if let Some(before) = before {
                self.tables().set_next(before, (block / BLOCK_BYTES) as u32);
            }
            before = Some(block);
        }
        let Some(mut target) = self.sliding_blocks().next() else {
            return 0;
        };
        let (mut used, mut cursor) = (1, target);
        for block in self.sliding_blocks() {
            let live = self.live_words(block, block + BLOCK_BYTES);
            let room = (target + BLOCK_BYTES - cursor) / 8;
            if live <= room {
                let end = self.set_targets(block, block + BLOCK_BYTES, cursor / 8);
                cursor = end * 8;
                continue;
            }
            // Room for so many words: the object that has the next one goes to the next block.
            let jump = self.object_with_word(block, room, &size);
            let end = self.set_targets(block, jump, cursor / 8);
            debug_assert!(end * 8 <= target + BLOCK_BYTES || is_on(Bug::SlideOverTheEnd));
            target = self.tables().next(target) as usize * BLOCK_BYTES;
            used += 1;
            let index = jump / 8 % 64;
            let mut from = jump;
            cursor = target;
            if index != 0 {
                // The rest of the jump's unit follows from where the jump is.
                Self::unit(self.compact.targets, jump).fetch_or(index as u64, Ordering::Relaxed);
                from = (jump / UNIT + 1) * UNIT;
                cursor += self.live_words(jump, from) * 8;
            }
            cursor = self.set_targets(from, block + BLOCK_BYTES, cursor / 8) * 8;
        }
        used
    }

    /// Live words between two offsets; `start` need not be a unit's.
    fn live_words(&self, start: usize, end: usize) -> usize {
        let mut words = 0;
        let mut at = start;
        while at < end {
            let word = Self::unit(self.compact.live, at).load(Ordering::Relaxed);
            words += (word >> (at / 8 % 64)).count_ones() as usize;
            at = (at / UNIT + 1) * UNIT;
        }
        words
    }

    /// Enters where the live words of the units that begin in `[start, end)` go, the first of them to word `target`: the word
    /// behind the last one below `end`.
    fn set_targets(&self, start: usize, end: usize, mut target: usize) -> usize {
        for unit in (start..end).step_by(UNIT) {
            Self::unit(self.compact.targets, unit)
                .store((target as u64 + BIAS) << JUMP_BITS, Ordering::Relaxed);
            let word = Self::unit(self.compact.live, unit).load(Ordering::Relaxed);
            let below = if end - unit < UNIT {
                word & ((1 << (end / 8 % 64)) - 1)
            } else {
                word
            };
            target += below.count_ones() as usize;
        }
        target
    }

    /// The start of the object that has the live word number `index` of a block.
    fn object_with_word(
        &self,
        block: usize,
        index: usize,
        size: &impl Fn(usize) -> usize,
    ) -> usize {
        let (mut unit, mut left) = (block, index);
        let mut word = loop {
            let word = Self::unit(self.compact.live, unit).load(Ordering::Relaxed);
            let words = word.count_ones() as usize;
            if left < words || unit + UNIT >= block + BLOCK_BYTES {
                break word;
            }
            left -= words;
            unit += UNIT;
        };
        for _ in 0..left {
            word &= word.wrapping_sub(1);
        }
        let at = unit + (word.trailing_zeros() as usize % 64) * 8;
        // Behind words that are not live an object starts; what is between has no gap.
        let mut object = self.run_start(block, at);
        loop {
            let next = object + size(self.tables().base() + object).max(16);
            if next > at {
                let over = is_on(Bug::SlideOverTheEnd) && object < at;
                return if over { next } else { object };
            }
            object = next;
        }
    }

    /// The first word of the run of live words of a block that `at` is in.
    fn run_start(&self, block: usize, at: usize) -> usize {
        let mut unit = at / UNIT * UNIT;
        let mut dead =
            !Self::unit(self.compact.live, at).load(Ordering::Relaxed) & ((1 << (at / 8 % 64)) - 1);
        loop {
            if dead != 0 {
                return unit + (64 - dead.leading_zeros() as usize) * 8;
            }
            if unit == block {
                return block;
            }
            unit -= UNIT;
            dead = !Self::unit(self.compact.live, unit).load(Ordering::Relaxed);
        }
    }

    /// Calls `visit` with runs of live bytes of a block: from where, to where, how many. The two may overlap; one after the other,
    /// no run is written over before it is moved.
    pub(crate) fn for_each_run(&self, block: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let base = self.tables().base();
        let (mut from, mut to, mut bytes) = (0, 0, 0);
        let mut add = |at: usize, target: usize, more: usize| {
            if from + bytes == at && to + bytes == target {
                bytes += more;
                return;
            }
            if bytes != 0 {
                visit(from, to, bytes);
            }
            (from, to, bytes) = (at, target, more);
        };
        for unit in (block..block + BLOCK_BYTES).step_by(UNIT) {
            let mut word = Self::unit(self.compact.live, unit).load(Ordering::Relaxed);
            if word == 0 {
                continue;
            }
            let entry = Self::unit(self.compact.targets, unit).load(Ordering::Relaxed);
            let jump = entry & ((1 << JUMP_BITS) - 1);
            while word != 0 {
                let first = word.trailing_zeros();
                let mut count = (word >> first).trailing_ones();
                if jump > u64::from(first) && jump < u64::from(first + count) {
                    count = jump as u32 - first;
                }
                let at = base + unit + first as usize * 8;
                add(at, self.slide_target(at), count as usize * 8);
                word &= !((u64::MAX >> (64 - count)) << first);
            }
        }
        add(0, 0, 0);
    }

    /// The blocks that the live objects of a block go to: the first and the last. `None`: it has none.
    pub(crate) fn slide_blocks(&self, block: usize) -> Option<(usize, usize)> {
        let base = self.tables().base();
        let word = |unit: usize| Self::unit(self.compact.live, unit).load(Ordering::Relaxed);
        let mut units = (block..block + BLOCK_BYTES)
            .step_by(UNIT)
            .filter(|unit| word(*unit) != 0);
        let first = units.next()?;
        let last = units.next_back().unwrap_or(first);
        let target = |unit: usize, bit: u32| {
            (self.slide_target(base + unit + bit as usize * 8) - base) / BLOCK_BYTES * BLOCK_BYTES
        };
        Some((
            target(first, word(first).trailing_zeros()),
            target(last, 63 - word(last).leading_zeros()),
        ))
    }

    /// Live words of a unit below an offset in it.
    #[inline]
    fn live_below(&self, offset: usize) -> u32 {
        let below = (1u64 << (offset / 8 % 64)) - 1;
        (Self::unit(self.compact.live, offset).load(Ordering::Relaxed) & below).count_ones()
    }

    /// Where a live object goes: for one in a block that takes part; others stay.
    #[inline]
    #[must_use]
    pub(crate) fn slide_target(&self, object: usize) -> usize {
        let base = self.tables().base();
        let offset = object.wrapping_sub(base);
        if offset >= self.range() {
            return object;
        }
        let entry = self.tables().entry(offset);
        if !(entry.is(Policy::Compact) && entry.moves()) {
            return object;
        }
        let word = Self::unit(self.compact.targets, offset).load(Ordering::Relaxed);
        let first = (word >> JUMP_BITS).wrapping_sub(BIAS);
        let jump = (word & ((1 << JUMP_BITS) - 1)) as usize;
        let below = self.live_below(offset);
        if jump == 0 || offset / 8 % 64 < jump {
            return base
                + (first.wrapping_add(u64::from(below)) as usize) * 8
                + if is_on(Bug::SlideOffByOne) { 8 } else { 0 };
        }
        // The block of the last object before the jump: that of the unit's first one.
        let before_jump = self.live_below(offset / UNIT * UNIT + jump * 8);
        let last = first.wrapping_add(u64::from(before_jump)) as usize * 8 - 8;
        let next = self.tables().next(last / BLOCK_BYTES * BLOCK_BYTES) as usize * BLOCK_BYTES;
        base + next + (below - before_jump) as usize * 8
    }

    /// Takes the object map of the blocks that take part away, before objects slide.
    pub(crate) fn forget_sliding_objects(&self) {
        if self.has_object_map() {
            for block in self.sliding_blocks() {
                self.clear_object_map(block);
            }
        }
    }

    /// After the slide: the first `used` blocks have objects, the others are empty and stay marked as moving, for the sweep to
    /// free.
    pub(crate) fn end_slide(&self, used: usize) {
        let mut index = 0;
        for block in (0..self.cells().extent()).step_by(BLOCK_BYTES) {
            let entry = self.tables().entry(block);
            if !(entry.is(Policy::Compact) && entry.moves()) {
                continue;
            }
            for unit in (block..block + BLOCK_BYTES).step_by(UNIT) {
                Self::unit(self.compact.live, unit).store(0, Ordering::Relaxed);
            }
            let now = Entry::of(Policy::Compact);
            if index < used {
                self.clear_bits(block);
                self.tables().set_entry(block, now);
            } else {
                self.tables().set_entry(block, now.moving());
            }
            index += 1;
        }
    }

    /// Takes the live bits of a held block away.
    pub(crate) fn forget_held_live(&self) {
        for block in (0..self.cells().extent()).step_by(BLOCK_BYTES) {
            let entry = self.tables().entry(block);
            if entry.is(Policy::Compact) && !entry.moves() {
                for unit in (block..block + BLOCK_BYTES).step_by(UNIT) {
                    Self::unit(self.compact.live, unit).store(0, Ordering::Relaxed);
                }
            }
        }
    }
}
