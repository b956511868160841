//! Size classes of segregated fit.
//!
//! A block of [`BLOCK_BYTES`] holds cells of one class from its first byte on. Up to 256 bytes there is a class for each
//! multiple of 16 (and, for runtimes whose objects need no more than 8, for 24, 40 and 56: a bit for each 16 bytes still tells
//! their cells apart, since none is smaller than that); above, sizes are chosen such that (a) a request, rounded up to 16 bytes, wastes at most 12.5 % of its
//! cell and (b) as little as possible is left at the end of a block: above 1 KiB a size is 32 KiB divided by a whole number.
//!
//! Finding the cell around an interior pointer takes no division: `offset * reciprocal >> 32`, which is exact for all
//! offsets within a block (a test tries them all).

/// Cells start at multiples of this, and their sizes are multiples of it; but for those of the classes for multiples of
/// a word. For each granule the side tables have a bit, and no two cells begin in the same one.
pub const GRANULE: usize = 16;

/// Cells of the last [`WORD_CLASSES`] classes start at multiples of this.
const WORD: usize = 8;

/// How many classes there are whose cells are odd multiples of [`WORD`]; they are the last ones.
const WORD_CLASSES: usize = 3;

/// Bytes in a block: the unit in which memory is given to one class and one kind.
pub const BLOCK_BYTES: usize = 32 << 10;

/// The largest cell in a block. Larger requests have whole pages of their own.
pub const MAX_SMALL: usize = 4096;

const SIZES: [u16; 47 + WORD_CLASSES] = [
    16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384,
    416, 448, 480, 512, 576, 640, 704, 768, 832, 896, 960, 1024, 1168, 1296, 1424, 1552, 1712,
    1920, 2048, 2176, 2336, 2512, 2720, 2976, 3264, 3632,
    4096, // And for multiples of a word:
    24, 40, 56,
];

/// How many classes there are, counting class 0, which is none.
pub const CLASS_COUNT: usize = SIZES.len() + 1;

/// How many classes there are for multiples of [`GRANULE`], counting class 0.
pub const GRANULE_CLASS_COUNT: usize = CLASS_COUNT - WORD_CLASSES;

/// The shape of a block of one class. Class 0 is none: its block has no cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SizeClass {
    /// Bytes of a cell.
    pub bytes: u32,
    /// Cells in a block.
    pub cells: u32,
    /// `ceil(2^32 / bytes)`.
    pub reciprocal: u32,
    /// `cells * bytes`: where the block's tail begins, which belongs to no cell.
    pub used: u32,
}

/// The classes by number, from 1; class 0 has no cells.
pub static CLASSES: [SizeClass; CLASS_COUNT] = classes();

/// The answer for each number of granules; twice as many as there are, so that a masked index needs no check.
static BY_GRANULES: [Small; 2 * MAX_SMALL / GRANULE] = by_granules();

/// What the allocation path needs to know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Small {
    bytes: u16,
    class: u8,
}

impl Small {
    /// For a request of `bytes`, which is at most [`MAX_SMALL`]. A request of 0 bytes gets the smallest cell.
    ///
    /// One load, and no branch.
    #[inline(always)]
    #[must_use]
    pub fn of(bytes: usize) -> Self {
        debug_assert!(bytes <= MAX_SMALL);
        // Not `div_ceil`, which also takes care of an overflow that cannot be.
        BY_GRANULES[((bytes + GRANULE - 1) >> GRANULE.trailing_zeros()) % BY_GRANULES.len()]
    }

    /// The same for an object that may begin at any multiple of 8.
    #[inline(always)]
    #[must_use]
    pub fn of_words(bytes: usize) -> Self {
        debug_assert!(bytes <= MAX_SMALL);
        BY_WORDS[((bytes + WORD - 1) >> WORD.trailing_zeros()) % BY_WORDS.len()]
    }

    /// The class.
    #[inline(always)]
    #[must_use]
    pub fn class(self) -> usize {
        self.class as usize
    }

    /// Bytes of its cells.
    #[inline(always)]
    #[must_use]
    pub fn bytes(self) -> usize {
        self.bytes as usize
    }
}

const fn classes() -> [SizeClass; CLASS_COUNT] {
    let mut table = [SizeClass {
        bytes: 0,
        cells: 0,
        reciprocal: 0,
        used: 0,
    }; CLASS_COUNT];
    let mut i = 0;
    while i < SIZES.len() {
        let bytes = SIZES[i] as u32;
        let cells = BLOCK_BYTES as u32 / bytes;
        let reciprocal = (1u64 << 32).div_ceil(bytes as u64) as u32;
        table[i + 1] = SizeClass {
            bytes,
            cells,
            reciprocal,
            used: cells * bytes,
        };
        i += 1;
    }
    table
}

const fn by_granules() -> [Small; 2 * MAX_SMALL / GRANULE] {
    let mut table = [Small {
        bytes: 16,
        class: 1,
    }; 2 * MAX_SMALL / GRANULE];
    let mut granules = 1;
    let mut class = 0;
    while granules <= MAX_SMALL / GRANULE {
        if granules * GRANULE > SIZES[class] as usize {
            class += 1;
        }
        table[granules] = Small {
            bytes: SIZES[class],
            class: class as u8 + 1,
        };
        granules += 1;
    }
    table
}

/// The answer for each number of words: the classes for multiples of a word where they fit best.
static BY_WORDS: [Small; 2 * MAX_SMALL / WORD] = by_words();

const fn by_words() -> [Small; 2 * MAX_SMALL / WORD] {
    let granules = by_granules();
    let mut table = [granules[0]; 2 * MAX_SMALL / WORD];
    let mut words = 0;
    while words < table.len() {
        table[words] = granules[words.div_ceil(2) % granules.len()];
        words += 1;
    }
    let mut class = GRANULE_CLASS_COUNT;
    while class < CLASS_COUNT {
        let bytes = SIZES[class - 1];
        table[bytes as usize / WORD] = Small {
            bytes,
            class: class as u8,
        };
        class += 1;
    }
    table
}

/// The class of each request, divided by [`GRANULE`] and rounded up: for [`super::FastPath`].
pub static CLASS_OF_GRANULES: [super::Class; MAX_SMALL / GRANULE + 1] = described(&BY_GRANULES);

/// The class of each request, divided by 8 and rounded up: for [`super::FastPath`].
pub static CLASS_OF_WORDS: [super::Class; MAX_SMALL / WORD + 1] = described(&BY_WORDS);

const fn described<const N: usize>(small: &[Small]) -> [super::Class; N] {
    let mut table = [super::Class { bytes: 0, class: 0 }; N];
    let mut at = 0;
    while at < N {
        table[at] = super::Class {
            bytes: small[at].bytes,
            class: small[at].class as u16,
        };
        at += 1;
    }
    table
}

/// The class for a request of `bytes`, which is at most [`MAX_SMALL`]. A request of 0 bytes gets the smallest cell.
#[inline(always)]
#[must_use]
pub fn class_of(bytes: usize) -> usize {
    Small::of(bytes).class()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_fits_and_wastes_at_most_an_eighth() {
        for bytes in 1..=MAX_SMALL {
            let class = &CLASSES[class_of(bytes)];
            let cell = class.bytes as usize;
            assert_eq!(Small::of(bytes).bytes(), cell);
            assert!(cell >= bytes);
            let rounded = bytes.next_multiple_of(GRANULE);
            assert!((cell - rounded) * 8 <= cell, "{bytes} in {cell}");
        }
        assert_eq!(CLASSES[class_of(0)].bytes, 16);
        for bytes in 0..=MAX_SMALL {
            let small = Small::of_words(bytes);
            assert_eq!(CLASSES[small.class()].bytes as usize, small.bytes());
            assert!(small.bytes() >= bytes && small.bytes() <= Small::of(bytes).bytes());
        }
        assert_eq!(
            [17, 24, 25, 33, 56].map(|n| Small::of_words(n).bytes()),
            [24, 24, 32, 40, 56]
        );
    }

    #[test]
    fn the_tail_of_a_block_is_small() {
        for class in &CLASSES[1..] {
            assert!(
                BLOCK_BYTES as u32 - class.used <= BLOCK_BYTES as u32 / 50,
                "{class:?}"
            );
        }
    }

    #[test]
    fn the_reciprocal_divides_every_offset_exactly() {
        for class in &CLASSES[1..] {
            for offset in 0..BLOCK_BYTES as u64 {
                assert_eq!(
                    (offset * u64::from(class.reciprocal)) >> 32,
                    offset / u64::from(class.bytes)
                );
            }
        }
    }
}
