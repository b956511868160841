//! A histogram of times.

/// Counts numbers in buckets that get wider as the numbers get larger: 16 to each power of two, so that a number is known
/// to one part in 16.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: [u32; 64 * 16],
    count: u64,
    largest: u64,
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Histogram {
        Histogram {
            buckets: [0; 64 * 16],
            count: 0,
            largest: 0,
        }
    }

    #[inline]
    fn bucket(value: u64) -> usize {
        if value < 16 {
            return value as usize;
        }
        let exponent = 63 - value.leading_zeros() as usize;
        (exponent - 3) * 16 + ((value >> (exponent - 4)) & 15) as usize
    }

    /// The largest number of a bucket.
    fn upper(bucket: usize) -> u64 {
        if bucket < 16 {
            return bucket as u64;
        }
        let exponent = bucket / 16 + 3;
        let steps = u128::from(16 + bucket as u64 % 16 + 1) << (exponent - 4);
        u64::try_from(steps - 1).unwrap_or(u64::MAX)
    }

    /// Counts a number.
    #[inline]
    pub fn add(&mut self, value: u64) {
        self.buckets[Histogram::bucket(value)] += 1;
        self.count += 1;
        self.largest = self.largest.max(value);
    }

    /// The number that `part` of all numbers do not exceed, as nearly as it is known; 0 if there are none.
    pub fn percentile(&self, part: f64) -> u64 {
        let wanted = ((self.count as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return Histogram::upper(bucket).min(self.largest);
            }
        }
        self.largest
    }

    /// The largest number.
    pub fn largest(&self) -> u64 {
        self.largest
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other() {
        let mut last = None;
        for bucket in 0..(60 * 16 + 16) {
            let upper = Histogram::upper(bucket);
            assert_eq!(Histogram::bucket(upper), bucket);
            if let Some(last) = last {
                assert_eq!(Histogram::bucket(last + 1), bucket);
            }
            last = Some(upper);
        }
        assert_eq!(last, Some(u64::MAX));
    }

    #[test]
    fn percentiles() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile(0.5), 0);
        for value in 1..=1000 {
            histogram.add(value);
        }
        let near = |value: u64, wanted: f64| {
            let value = value as f64;
            assert!(
                value >= wanted && value <= wanted * 1.07,
                "{value} for {wanted}"
            );
        };
        near(histogram.percentile(0.5), 500.0);
        near(histogram.percentile(0.99), 990.0);
        assert_eq!(histogram.percentile(1.0), 1000);
        assert_eq!(histogram.largest(), 1000);
    }
}
