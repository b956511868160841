//! Pictures of a heap: its map as a line of JSON, small enough to make many of them.
//!
//! A picture has at most [`CELLS`] cells; one stands for so many blocks next to each other that this is enough. Of each cell a few
//! blocks are looked at. What there is to say of it are five numbers of one character each, so that a picture has five strings:
//!
//! | string | a character says |
//! |---|---|
//! | `space` | whose most of the blocks are: one of [`LETTERS`] |
//! | `used` | the part of the memory that is in use, of 63: 0 only if none is |
//! | `age` | for how many collections the blocks have been used for the same, 63: or more |
//! | `pins` | the part of the used blocks that must stay where they are, of 63: 0 only if none must |
//! | `holes` | holes in a used block, 63: or more |
//!
//! Numbers are written with the 64 characters of [`DIGITS`].

use crate::out::Out;
use core::fmt;
use heapwright::{BlockSpace, HeapMap, MAP_BLOCK};
use heapwright_memory::MappedVec;
use heapwright_os::{OsError, real_port};

/// The most cells of a picture.
pub const CELLS: usize = 4096;
/// The most blocks that are looked at for a picture.
const LOOKS: usize = 2 * CELLS;
/// The most blocks whose age is known: those of 512 GiB.
const AGED: usize = 1 << 24;

/// What numbers from 0 to 63 are written with.
pub const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
/// What spaces are written with, in the order of [`BlockSpace::ALL`].
pub const LETTERS: &[u8; BlockSpace::ALL.len()] = b".-cLnyik";

/// For how many collections blocks have been used for the same.
#[derive(Debug)]
pub struct Ages {
    /// What a block is used for in the upper byte, since how many collections in the lower one.
    blocks: MappedVec<u16>,
}

impl Ages {
    /// Of a heap that has no block yet.
    ///
    /// # Errors
    /// If there is no address space.
    pub fn new() -> Result<Self, OsError> {
        let blocks = MappedVec::new(real_port(), AGED, c"heapwright ages")?;
        Ok(Self { blocks })
    }

    /// A collection ended, and this is the heap.
    pub fn collected(&mut self, map: &dyn HeapMap) {
        for index in 0..map.blocks().min(AGED) {
            let now = u16::from(map.use_of(index)) << 8;
            if index >= self.blocks.len() {
                // Without memory for more they stay young.
                if self.blocks.push(now).is_err() {
                    return;
                }
                continue;
            }
            let block = &mut self.blocks.as_mut_slice()[index];
            if *block & 0xff00 == now && now != 0 {
                *block += u16::from(*block & 0xff != 0xff);
            } else {
                *block = now;
            }
        }
    }

    fn of(&self, index: usize) -> usize {
        self.blocks
            .get(index)
            .map_or(0, |block| usize::from(block & 0xff))
    }
}

/// Draws pictures.
#[derive(Debug)]
pub struct Painter {
    cells: MappedVec<[u8; 5]>,
    out: Out,
}

impl Painter {
    /// With memory for the largest picture.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new() -> Result<Self, OsError> {
        let mut cells = MappedVec::new(real_port(), CELLS, c"heapwright picture")?;
        cells.reserve(CELLS)?;
        Ok(Self {
            cells,
            out: Out::new()?,
        })
    }

    pub(crate) fn out(&mut self) -> &mut Out {
        &mut self.out
    }

    /// Draws a heap: a line with its newline, an object of JSON with the fields of `head` before its own. Allocates nothing.
    pub fn draw(&mut self, head: fmt::Arguments<'_>, map: &dyn HeapMap, ages: &Ages) -> &[u8] {
        let blocks = map.blocks();
        let each = blocks.div_ceil(CELLS).max(1);
        let count = blocks.div_ceil(each);
        let looks = (LOOKS / count.max(1)).clamp(1, each);
        self.cells.clear();
        for cell in 0..count {
            let first = cell * each;
            let here = each.min(blocks - first);
            let looks = looks.min(here);
            let picked = (0..looks).map(|look| first + look * here / looks);
            // It was reserved.
            let _ = self.cells.push(digits(map, ages, picked));
        }
        self.out.clear();
        self.out.put(format_args!(
            "{{{head},\"block_bytes\":{MAP_BLOCK},\"blocks\":{blocks},\"per_cell\":{each}"
        ));
        for (column, name) in ["space", "used", "age", "pins", "holes"].iter().enumerate() {
            self.out.put(format_args!(",\"{name}\":\""));
            for cell in self.cells.as_slice() {
                self.out.push(cell[column]);
            }
            self.out.push(b'"');
        }
        self.out.put(format_args!("}}\n"));
        self.out.bytes()
    }
}

/// One cell, of the blocks that are looked at.
fn digits(map: &dyn HeapMap, ages: &Ages, picked: impl Iterator<Item = usize>) -> [u8; 5] {
    let mut spaces = [0usize; BlockSpace::ALL.len()];
    let (mut all, mut in_use, mut used, mut age, mut held, mut holes) = (0, 0, 0, 0, 0, 0);
    for index in picked {
        let block = map.block(index);
        all += 1;
        spaces[block.space.index()] += 1;
        if block.space.is_used() {
            in_use += 1;
            used += block.used_bytes.min(MAP_BLOCK);
            age += ages.of(index);
            held += usize::from(block.held);
            holes += block.holes;
        }
    }
    let most = (0..spaces.len()).max_by_key(|i| spaces[*i]).unwrap_or(0);
    let part = |part: usize, whole: usize| match whole {
        0 => 0,
        _ => (part * 63).div_ceil(whole),
    };
    let mean = |sum: usize| if in_use == 0 { 0 } else { sum.div_ceil(in_use) };
    let digit = |n: usize| DIGITS[n.min(63)];
    [
        LETTERS[most],
        digit(part(used, all * MAP_BLOCK)),
        digit(mean(age)),
        digit(part(held, in_use)),
        digit(mean(holes)),
    ]
}

/// So many collections have pictures before pictures become half as frequent.
const PAIRS: u64 = 16;
/// Pictures may take one part in so many of the time since the begin.
const SHARE: u64 = 400;

/// Which collections of a run are pictured: all at first, then every second, every fourth and so on, and none while pictures have
/// taken more than their share of the time.
#[derive(Debug, Default)]
pub struct Schedule {
    seen: u64,
    taken: u64,
    /// A picture was made at the begin of this collection, and one is due at its end.
    pending: u64,
    spent_ns: u64,
}

impl Schedule {
    /// Is a picture of the collection `number` due, at its begin or at its end?
    pub fn is_due(&mut self, number: u64, after: bool, elapsed_ns: u64) -> bool {
        if after {
            return core::mem::take(&mut self.pending) == number;
        }
        let every = 1 << (self.taken / PAIRS).min(62);
        let due = self.seen.is_multiple_of(every) && self.spent_ns <= elapsed_ns / SHARE;
        self.seen += 1;
        if due {
            self.taken += 1;
            self.pending = number;
        }
        due
    }

    /// A picture took so long.
    pub fn spent(&mut self, ns: u64) {
        self.spent_ns += ns;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use heapwright::MapBlock;

    /// Blocks of cells, each with its number as what there is to say.
    #[derive(Debug)]
    struct Blocks(Vec<MapBlock>);

    impl HeapMap for Blocks {
        fn blocks(&self) -> usize {
            self.0.len()
        }
        fn block(&self, index: usize) -> MapBlock {
            self.0[index]
        }
        fn use_of(&self, index: usize) -> u8 {
            if self.0[index].space.is_used() { 7 } else { 0 }
        }
    }

    fn block(space: BlockSpace, used_bytes: usize, holes: usize, held: bool) -> MapBlock {
        MapBlock {
            space,
            used_bytes,
            holes,
            held,
            cell_bytes: 0,
        }
    }

    fn drawn(map: &Blocks, ages: &Ages) -> serde_json::Value {
        let mut painter = Painter::new().unwrap();
        let line = painter.draw(format_args!("\"type\":\"map\""), map, ages);
        assert_eq!(line.last(), Some(&b'\n'));
        serde_json::from_slice(line).unwrap()
    }

    #[test]
    fn each_block_of_a_small_heap_has_a_cell() {
        let map = Blocks(vec![
            block(BlockSpace::Returned, 0, 0, false),
            block(BlockSpace::Free, 0, 0, false),
            block(BlockSpace::Cells, 1, 2000, false),
            block(BlockSpace::Immix, MAP_BLOCK / 2, 3, true),
            block(BlockSpace::Large, MAP_BLOCK, 0, false),
        ]);
        let mut ages = Ages::new().unwrap();
        for _ in 0..6 {
            ages.collected(&map);
        }
        let picture = drawn(&map, &ages);
        for (name, wanted) in [
            ("space", "-.ciL"),
            ("used", "001W_"),
            ("age", "00555"),
            ("pins", "000_0"),
            ("holes", "00_30"),
        ] {
            assert_eq!(picture[name], wanted, "{name}");
        }
        assert_eq!(
            (&picture["blocks"], &picture["per_cell"]),
            (&5.into(), &1.into())
        );
    }

    #[test]
    fn blocks_that_are_freed_or_used_otherwise_are_young_again() {
        let mut map = Blocks(vec![block(BlockSpace::Cells, 1, 0, false)]);
        let mut ages = Ages::new().unwrap();
        (0..400).for_each(|_| ages.collected(&map));
        assert_eq!(ages.of(0), 255);
        map.0[0] = block(BlockSpace::Free, 0, 0, false);
        ages.collected(&map);
        map.0[0] = block(BlockSpace::Cells, 1, 0, false);
        ages.collected(&map);
        assert_eq!(ages.of(0), 0);
        ages.collected(&map);
        assert_eq!(ages.of(0), 1);
    }

    #[test]
    fn enormous_heaps_have_small_pictures() {
        for blocks in [0, 1, CELLS, CELLS + 1, 10 * CELLS, 100 * CELLS + 17] {
            let map = Blocks(vec![block(BlockSpace::Cells, MAP_BLOCK, 1, false); blocks]);
            let picture = drawn(&map, &Ages::new().unwrap());
            let cells = picture["space"].as_str().unwrap().len();
            assert!(cells <= CELLS && (blocks == 0 || cells > CELLS / 2 || cells == blocks));
            let per_cell = picture["per_cell"].as_u64().unwrap() as usize;
            assert_eq!(cells, blocks.div_ceil(per_cell));
            assert!(picture["used"].as_str().unwrap().bytes().all(|b| b == b'_'));
            assert!(
                picture["holes"]
                    .as_str()
                    .unwrap()
                    .bytes()
                    .all(|b| b == b'1')
            );
        }
    }

    #[test]
    fn a_long_run_has_a_few_hundred_pictures_and_pays_little_for_them() {
        let mut schedule = Schedule::default();
        let mut pictures = 0;
        for number in 1..=1_000_000 {
            pictures += u32::from(schedule.is_due(number, false, number * 1000));
            pictures += u32::from(schedule.is_due(number, true, number * 1000));
        }
        assert!((400..600).contains(&pictures), "{pictures}");
        // Each takes as long as ten collections come after each other.
        let mut slow = Schedule::default();
        let mut spent = 0;
        for number in 1..=100_000 {
            for after in [false, true] {
                if slow.is_due(number, after, number * 1000) {
                    slow.spent(10_000);
                    spent += 10_000;
                }
            }
        }
        assert!(spent <= 100_000 * 1000 / SHARE + 20_000, "{spent}");
        assert!(spent > 0);
    }
}
