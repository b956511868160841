//! A list that stays short: of neighbours, the one that matters more is kept.

/// At most so many entries of a sequence, spread over all of it. See the module.
#[derive(Debug)]
pub(crate) struct Thin<T> {
    kept: Vec<T>,
    most: usize,
    /// Each entry stands for so many.
    stride: usize,
    /// How many the last entry stands for so far.
    in_last: usize,
    weight: fn(&T) -> u64,
}

impl<T> Thin<T> {
    /// Keeps `most` entries, which is even; of those that one has to stand for, the one with the greatest weight.
    pub(crate) fn new(most: usize, weight: fn(&T) -> u64) -> Self {
        Self {
            kept: Vec::new(),
            most,
            stride: 1,
            in_last: 1,
            weight,
        }
    }

    pub(crate) fn push(&mut self, new: T) {
        if self.in_last < self.stride {
            self.in_last += 1;
            let weight = self.weight;
            if let Some(last) = self
                .kept
                .last_mut()
                .filter(|last| weight(&new) > weight(last))
            {
                *last = new;
            }
            return;
        }
        if self.kept.len() == self.most {
            self.halve();
        }
        self.in_last = 1;
        self.kept.push(new);
    }

    fn halve(&mut self) {
        let old = std::mem::take(&mut self.kept);
        let mut pairs = old.into_iter();
        while let Some(first) = pairs.next() {
            let kept = match pairs.next() {
                Some(second) if (self.weight)(&second) > (self.weight)(&first) => second,
                _ => first,
            };
            self.kept.push(kept);
        }
        self.stride *= 2;
    }

    /// What is kept, in order.
    pub(crate) fn kept(&self) -> &[T] {
        &self.kept
    }

    /// Was everything kept?
    pub(crate) fn is_whole(&self) -> bool {
        self.stride == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_short_in_order_and_has_the_heaviest() {
        for count in [0u64, 1, 7, 8, 9, 1000, 12_345] {
            let mut thin = Thin::new(8, |n: &u64| *n % 1000);
            for n in 0..count {
                thin.push(n);
            }
            assert_eq!(thin.is_whole(), count <= 8);
            assert!(thin.kept().len() <= 8 && thin.kept().len() as u64 >= count.min(4));
            assert!(thin.kept().is_sorted());
            let heaviest = (0..count).map(|n| n % 1000).max();
            assert_eq!(thin.kept().iter().map(|n| n % 1000).max(), heaviest);
        }
    }
}
