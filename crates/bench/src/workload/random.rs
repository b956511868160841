//! Random numbers that are the same everywhere.

/// The increment of splitmix64: the golden ratio in 64 bits.
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes the bits of a number: the output function of splitmix64 (Steele, Lea, Flood 2014). A bijection.
#[inline]
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A generator of random numbers: xorshift64* (Marsaglia 2003, Vigna 2016).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator; each seed has its own sequence.
    pub fn new(seed: u64) -> Random {
        // Zero is the one state that it must not have.
        Random(mix(seed).max(1))
    }

    /// The next 64 bits.
    #[inline]
    #[allow(clippy::should_implement_trait, reason = "a generator has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is at most 2^32.
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        below(self.next(), bound)
    }
}

/// Makes a number below `bound`, which is at most 2^32, of the upper 32 bits of `bits`.
#[inline]
pub(super) fn below(bits: u64, bound: usize) -> usize {
    (((bits >> 32) * bound as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_is_below_and_reaches_all() {
        let mut random = Random::new(3);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[random.below(7)] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(below(u64::MAX, 1 << 32), u32::MAX as usize);
        assert_eq!(below(u64::MAX, 0), 0);
    }

    #[test]
    fn seeds_differ() {
        let first = |seed| Random::new(seed).next();
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
        assert_ne!(first(0), 0);
    }
}
