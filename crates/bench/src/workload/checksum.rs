//! Checksums, and contents of raw bytes that can be checked.

use super::random::{GOLDEN, mix};

/// A checksum of words in their order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checksum(u64);

impl Checksum {
    pub(super) fn new() -> Checksum {
        Checksum(0x243f_6a88_85a3_08d3)
    }

    /// Adds a word.
    #[inline]
    pub(super) fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(GOLDEN);
    }

    /// Adds bytes, whole words first.
    #[inline]
    pub(super) fn add_bytes(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let mut buffer = [0; 8];
            buffer.copy_from_slice(word);
            self.add(u64::from_le_bytes(buffer));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut buffer = [0; 8];
            buffer[..rest.len()].copy_from_slice(rest);
            self.add(u64::from_le_bytes(buffer));
        }
    }

    /// The checksum.
    pub(super) fn finish(self) -> u64 {
        mix(self.0)
    }
}

/// Fills bytes with words that depend on `seed` and on where they are.
#[inline]
pub(super) fn fill(bytes: &mut [u8], seed: u64) {
    let mut value = seed;
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        word.copy_from_slice(&value.to_le_bytes());
        value = value.wrapping_add(GOLDEN);
    }
    let rest = words.into_remainder();
    let length = rest.len();
    rest.copy_from_slice(&value.to_le_bytes()[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let mut bytes = [0; 29];
        fill(&mut bytes, 5);
        let sum = |bytes: &[u8]| {
            let mut sum = Checksum::new();
            sum.add_bytes(bytes);
            sum.finish()
        };
        let whole = sum(&bytes);
        for index in 0..bytes.len() {
            bytes[index] ^= 1;
            assert_ne!(sum(&bytes), whole);
            bytes[index] ^= 1;
        }
        assert_eq!(sum(&bytes), whole);
    }
}
