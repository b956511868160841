//! Pauses in numbers, for front ends: percentiles from a histogram of fixed size.

/// Buckets: four for each power of two of nanoseconds, up to 2^40 ns.
const BUCKETS: usize = 40 * 4;

/// A histogram of times. It never allocates; a percentile is exact to a quarter of a power of two (19 % at most), minimum
/// and maximum are exact.
#[derive(Clone, Debug)]
pub struct Times {
    buckets: [u32; BUCKETS],
    count: u64,
    total: u64,
    min: u64,
    max: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self::new()
    }
}

impl Times {
    /// No times.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            buckets: [0; BUCKETS],
            count: 0,
            total: 0,
            min: u64::MAX,
            max: 0,
        }
    }

    fn bucket(ns: u64) -> usize {
        let ns = ns.max(4);
        let log = 63 - ns.leading_zeros() as usize;
        (log * 4 + (ns >> (log - 2) & 3) as usize).min(BUCKETS - 1)
    }

    /// Adds one time, in nanoseconds.
    pub fn add(&mut self, ns: u64) {
        self.buckets[Self::bucket(ns)] += 1;
        self.count += 1;
        self.total += ns;
        self.min = self.min.min(ns);
        self.max = self.max.max(ns);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, in nanoseconds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The shortest; 0 if there is none.
    #[must_use]
    pub fn min(&self) -> u64 {
        if self.count == 0 { 0 } else { self.min }
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The time that `percent` of all do not exceed, in nanoseconds.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (index, n) in self.buckets.iter().enumerate() {
            seen += u64::from(*n);
            if seen >= rank {
                let (log, quarter) = (index as u64 / 4, index as u64 % 4);
                // The middle of the bucket.
                let low = (4 + quarter) << log >> 2;
                return (low + (1 << log >> 3)).clamp(self.min(), self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_near_and_ends_are_exact() {
        let mut t = Times::new();
        assert_eq!((t.min(), t.max(), t.percentile(50)), (0, 0, 0));
        for i in 1..=1000u64 {
            t.add(i * 1000);
        }
        assert_eq!(
            (t.count(), t.min(), t.max(), t.total()),
            (1000, 1000, 1_000_000, 500_500_000)
        );
        for p in [5, 50, 95, 99] {
            let (got, want) = (t.percentile(p) as f64, p as f64 * 10_000.0);
            assert!((got / want - 1.0).abs() < 0.2, "{p}: {got} {want}");
        }
        assert!(t.percentile(100) <= t.max());
    }
}
