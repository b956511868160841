//! Identity hashes: a number of an object that stays the same while it lives, also when it moves.
//!
//! The hash of an object is made from its address when it is asked for first. Two bits of the object's first word say what
//! became of it since (Bacon, Fink, Grove: "Space- and time-efficient implementation of the Java object model", 2002):
//!
//! | bits | the object | its hash |
//! |---|---|---|
//! | 0 | was never asked for its hash | |
//! | 1 | was asked, and is where it was then | is made from its address |
//! | 2 | was asked, and was moved since | stands in its last word, by which the copy is larger |
//!
//! So an object that nobody hashes pays nothing but the two bits, and one that does not move no memory. Plans that slide objects cannot
//! make them larger: they keep the hashes of those that were asked in a table beside the heap.

/// Where the two bits are, in an object's first word.
///
/// ```
/// use heapwright::HashBits;
///
/// const HASH: HashBits = HashBits::new(5);
/// assert_eq!(HASH.size(0, 24), 24);
/// // Moved since somebody asked for its hash: there is a word more.
/// assert_eq!(HASH.size(2 << 5, 24), 32);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashBits {
    shift: u32,
}

/// What an object's bits say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HashState {
    /// Nobody has its hash.
    None,
    /// Made from where it is.
    Address,
    /// In its last word.
    Stored,
}

const ADDRESS: usize = 1;
const STORED: usize = 2;

impl HashBits {
    /// Of the eight bits that [`super::Metadata::Header`] grants the collector, these two are free.
    pub const IN_COLLECTORS_BYTE: Self = Self::new(5);

    /// Bits `shift` and `shift + 1`, from 5 to 62.
    ///
    /// # Panics
    /// If it is less or more: at compile time, in a constant.
    #[must_use]
    #[allow(clippy::panic, reason = "at compile time")]
    pub const fn new(shift: u32) -> Self {
        assert!(shift >= 5 && shift <= 62, "bits 5 to 63 of the first word");
        Self { shift }
    }

    /// For [`super::Vm::size`]: the bytes of an object whose first word is `word` and that was allocated with `bytes`. A shift, a test
    /// and an addition.
    #[inline(always)]
    #[must_use]
    pub const fn size(self, word: usize, bytes: usize) -> usize {
        if word >> self.shift & STORED == 0 {
            bytes
        } else {
            (bytes + 15) & !7
        }
    }

    #[inline(always)]
    pub(crate) const fn state(self, word: usize) -> HashState {
        match word >> self.shift & 3 {
            0 => HashState::None,
            ADDRESS => HashState::Address,
            _ => HashState::Stored,
        }
    }

    /// The bit to set in the first word of an object that is asked for the first time.
    pub(crate) const fn asked(self) -> usize {
        ADDRESS << self.shift
    }

    /// The first word of a copy with its hash in the last word.
    pub(crate) const fn stored(self, word: usize) -> usize {
        word & !(3 << self.shift) | STORED << self.shift
    }
}

/// The hash of an address: all its bits count (the finaliser of `SplitMix64`: Steele, Lea, Flood, 2014).
#[must_use]
pub(crate) const fn hash_of(address: usize) -> usize {
    let mut x = (address >> 3) as u64;
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ x >> 31) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_each_other_and_leave_other_bits() {
        for bits in [HashBits::IN_COLLECTORS_BYTE, HashBits::new(40)] {
            let word = !(3 << bits.shift);
            assert_eq!(bits.state(word), HashState::None);
            let asked = word | bits.asked();
            assert_eq!(bits.state(asked), HashState::Address);
            assert_eq!(bits.size(asked, 17), 17);
            let stored = bits.stored(asked);
            assert_eq!(bits.state(stored), HashState::Stored);
            assert_eq!(stored & word, word);
            assert_eq!(bits.size(stored, 17), 32);
            assert_eq!(bits.size(stored, 16), 24);
        }
    }

    #[test]
    fn neighbours_have_different_hashes() {
        let mut seen = std::collections::HashSet::new();
        for at in (0..1 << 20).step_by(8) {
            assert!(seen.insert(hash_of(0x5000_0000_0000 + at) % (1 << 48)));
        }
    }
}
