//! How many objects there are of which size.

/// Sizes up to this are counted in steps of [`GRAIN`].
const SMALL: usize = 4096;
const GRAIN: usize = 16;

/// Objects counted by size, without memory of its own: small ones by their size, larger ones by the next power of two.
///
/// ```
/// use heapwright_observe::Sizes;
///
/// let mut sizes = Sizes::default();
/// for bytes in [24, 32, 5000] {
///     sizes.add(bytes, 1);
/// }
/// let mut seen = Vec::new();
/// sizes.each(|bytes, objects| seen.push((bytes, objects)));
/// assert_eq!(seen, [(32, 2), (8192, 1)]);
/// ```
#[derive(Clone, Debug)]
pub struct Sizes {
    small: [usize; SMALL / GRAIN + 1],
    large: [usize; usize::BITS as usize],
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            small: [0; SMALL / GRAIN + 1],
            large: [0; usize::BITS as usize],
        }
    }
}

impl Sizes {
    /// Counts so many objects of a size.
    pub fn add(&mut self, bytes: usize, objects: usize) {
        let slot = if bytes <= SMALL {
            &mut self.small[bytes.div_ceil(GRAIN)]
        } else {
            // The number of the next power of two; what lies behind the last goes into it.
            let power = (usize::BITS - (bytes - 1).leading_zeros()) as usize;
            &mut self.large[power.min(usize::BITS as usize - 1)]
        };
        *slot += objects;
    }

    /// Sizes in bytes and how many objects have it, or less down to the size before; only sizes that occur, smallest first.
    pub fn each(&self, mut visit: impl FnMut(usize, usize)) {
        let small = self.small.iter().enumerate().map(|(i, n)| (i * GRAIN, *n));
        let large = self.large.iter().enumerate().map(|(i, n)| (1 << i, *n));
        for (bytes, objects) in small.chain(large) {
            if objects > 0 {
                visit(bytes, objects);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_is_counted_in_one_place() {
        let mut sizes = Sizes::default();
        for bytes in [0, 1, 16, 17, 4096, 4097, 8192, 8193, 1 << 40, usize::MAX] {
            sizes.add(bytes, 1);
        }
        let mut seen = Vec::new();
        sizes.each(|bytes, n| seen.push((bytes, n)));
        let wanted = [
            (0, 1),
            (16, 2),
            (32, 1),
            (4096, 1),
            (8192, 2),
            (16384, 1),
            (1 << 40, 1),
            (1 << 63, 1),
        ];
        assert_eq!(seen, wanted);
    }
}
