use crate::Address;
use core::ops::Range;

/// A stretch of `2^LOG` bytes, aligned to its size.
///
/// ```
/// use heapwright_address::{Address, Block, Page};
///
/// assert_eq!(Block::BYTES, 32 << 10);
/// let pages = Page::iterate(Address::new(0x1000)..Address::new(0x3000));
/// assert_eq!(pages.count(), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Unit<const LOG: u32>(Address);

/// 4 KiB. The operating system's page may be larger: ask the port.
pub type Page = Unit<12>;
/// 256 bytes.
pub type Line = Unit<8>;
/// 32 KiB.
pub type Block = Unit<15>;
/// 4 MiB.
pub type Chunk = Unit<22>;

impl<const LOG: u32> Unit<LOG> {
    /// The logarithm of the size.
    pub const LOG_BYTES: u32 = LOG;
    /// The size in bytes.
    pub const BYTES: usize = 1 << LOG;

    /// The unit around an address.
    #[inline(always)]
    #[must_use]
    pub const fn containing(address: Address) -> Self {
        Self(address.align_down(Self::BYTES))
    }

    /// Its first byte.
    #[inline(always)]
    #[must_use]
    pub const fn start(self) -> Address {
        self.0
    }

    /// One past its last byte; `None` for the last unit of the address space.
    #[inline(always)]
    #[must_use]
    pub const fn end(self) -> Option<Address> {
        self.0.checked_add(Self::BYTES)
    }

    /// The unit behind it, if there is one.
    #[inline(always)]
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.end() {
            Some(a) => Some(Self(a)),
            None => None,
        }
    }

    /// How many units it is from `base`, which is not above it.
    #[inline(always)]
    #[must_use]
    pub const fn index_from(self, base: Address) -> usize {
        self.0.diff(base) >> LOG
    }

    /// The units that overlap a range of addresses.
    pub fn iterate(range: Range<Address>) -> impl Iterator<Item = Self> {
        let first = range.start.as_usize() >> LOG;
        let end = if range.is_empty() {
            first
        } else {
            ((range.end.as_usize() - 1) >> LOG) + 1
        };
        (first..end).map(|i| Self(Address::new(i << LOG)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_rounded_outward() {
        let starts: [usize; 2] = [0x1000, 0x2000];
        let mut pages = Page::iterate(Address::new(0x1fff)..Address::new(0x2001));
        assert_eq!(pages.next().map(|p| p.start().as_usize()), Some(starts[0]));
        assert_eq!(pages.next().map(|p| p.start().as_usize()), Some(starts[1]));
        assert_eq!(pages.next(), None);
        assert_eq!(Page::iterate(Address::new(5)..Address::new(5)).next(), None);
    }

    #[test]
    fn the_last_unit_has_no_end() {
        assert_eq!(Chunk::containing(Address::MAX).end(), None);
    }
}
