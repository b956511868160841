//! Numbers for what is met, in the order in which it is met first.

use heapwright_memory::MappedVec;
use heapwright_os::{OsError, real_port};

/// The first table has so many places.
const FIRST: usize = 1 << 10;
/// There are at most so many numbers.
const MOST: usize = 1 << 26;

/// Keys by number, and a hash table (open addressing, at most half full) that leads from a key to its number.
pub(super) struct Numbering {
    keys: MappedVec<u64>,
    /// A number plus 1; 0: free.
    places: MappedVec<u64>,
}

impl Numbering {
    pub(super) fn new() -> Result<Self, OsError> {
        Ok(Self {
            keys: MappedVec::new(real_port(), MOST, c"heapwright dump")?,
            places: MappedVec::<u64>::zeros(real_port(), FIRST, c"heapwright dump")?,
        })
    }

    /// All keys, by number.
    pub(super) fn keys(&self) -> &[u64] {
        self.keys.as_slice()
    }

    /// The number of a key that was met.
    #[inline]
    pub(super) fn get(&self, key: u64) -> Option<usize> {
        self.find(key).ok()
    }

    /// The number, or the place for it.
    fn find(&self, key: u64) -> Result<usize, usize> {
        let places = self.places.as_slice();
        let mask = places.len() - 1;
        // Fibonacci hashing (Knuth, vol. 3, 6.4): the high bits depend on all.
        let mut at = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        loop {
            match places[at] as usize {
                0 => return Err(at),
                n if self.keys.get(n - 1) == Some(key) => return Ok(n - 1),
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// The number of a key, a new one if it is met for the first time; and whether it is.
    #[inline]
    pub(super) fn number(&mut self, key: u64) -> Result<(usize, bool), OsError> {
        let mut place = match self.find(key) {
            Ok(number) => return Ok((number, false)),
            Err(place) => place,
        };
        if (self.keys.len() + 1) * 2 > self.places.len() {
            self.grow()?;
            place = self.find(key).err().unwrap_or(place);
        }
        self.keys.push(key)?;
        self.places.as_mut_slice()[place] = self.keys.len() as u64;
        Ok((self.keys.len() - 1, true))
    }

    fn grow(&mut self) -> Result<(), OsError> {
        let places = self.places.len() * 2;
        self.places = MappedVec::<u64>::zeros(real_port(), places, c"heapwright dump")?;
        for number in 0..self.keys.len() {
            if let Some(key) = self.keys.get(number)
                && let Err(place) = self.find(key)
            {
                self.places.as_mut_slice()[place] = number as u64 + 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn numbers_are_given_once() {
        let mut numbering = Numbering::new().unwrap();
        for round in 0..2 {
            for key in 0..10_000u64 {
                let (number, new) = numbering.number(key << 20).unwrap();
                assert_eq!((number as u64, new), (key, round == 0));
            }
        }
        assert_eq!(numbering.get(77 << 20), Some(77));
        assert_eq!(numbering.get(1), None);
        assert_eq!(numbering.keys().len(), 10_000);
    }
}
