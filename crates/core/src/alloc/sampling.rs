//! Which objects a profile of allocations sees: sampling by bytes, in the slow paths only.
//!
//! Points lie on the memory that a thread is handed, at distances that are exponentially distributed around a mean. An object
//! is in the sample if a point lies in its memory. So one of `b` bytes is chosen with the probability `p = 1 - exp(-b / mean)`,
//! whatever it is and whoever allocates it, and counting it `1 / p` times estimates counts and bytes without bias
//! ([`Sample::weight`]).
//!
//! The fast paths know nothing of this. A thread is handed memory in stretches (runs of cells, holes of blocks). One with a point
//! in it is *cut*: the fast path may use it up to the object with the point. That object takes the slow path, which sees the cut,
//! takes the object's memory, and tells the [`Sampler`]. The cut stays with its stretch: would the point go to whatever is
//! allocated next, then sites whose objects come right behind the refills of others would get the others' points. A stretch that is
//! given up takes its points along: points in memory that no object gets are nobody's. Exponential distances have no memory, so a
//! distance goes on from one stretch to the next, whichever that is.
//!
//! Sampling of this kind: Vitter, Faster methods for random sampling, CACM 27(7), 1984; for allocations, in tcmalloc, Go and
//! jemalloc.

use crate::bugs::{Bug, is_on};
use core::cell::Cell;

/// An object that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// Its memory in bytes, as the heap rounded it.
    pub bytes: usize,
    /// The mean distance of points in bytes when it was chosen.
    pub mean_bytes: usize,
    /// For heaps of words its kind ([`crate::Kind`]); 0 for others.
    pub kind: u8,
}

impl Sample {
    /// Of so many bytes, chosen by points at that mean distance.
    #[must_use]
    pub const fn new(bytes: usize, mean_bytes: usize, kind: u8) -> Self {
        Self {
            bytes,
            mean_bytes,
            kind,
        }
    }

    /// How many objects of its size it stands for: the inverse of the probability with which one is chosen.
    #[must_use]
    pub fn weight(&self) -> f64 {
        let points = self.bytes as f64 / (self.mean_bytes.max(1)) as f64;
        if is_on(Bug::SampleWeightLinear) {
            return (1.0 / points).max(1.0);
        }
        1.0 / one_minus_exp(points)
    }
}

/// Hears of sampled objects, and says how often.
///
/// It is called by the thread that allocates, on its stack, right before the allocation returns: whoever walks the stack finds
/// the caller there. No lock of the heap is held; the thread is inside of the heap and does not stop at safepoints meanwhile. (With a
/// [`crate::WordVm`] it may be stopped as anywhere else.) It must not allocate on a [`crate::Heap`].
pub trait Sampler: Send + Sync {
    /// The mean distance of points in bytes, from the next point on: at least 1. Any thread, perhaps with the heap's lock held:
    /// a load.
    fn mean_bytes(&self) -> usize;

    /// Where a thread's sequence of distances begins: another number each time. As [`Sampler::mean_bytes`].
    fn seed(&self) -> u64;

    /// An object was chosen.
    fn sample(&self, sample: Sample);
}

/// A thread's distance to its next point. All zero is the valid first state.
#[derive(Debug, Default)]
pub(crate) struct Countdown {
    /// Bytes that can be handed out before the point.
    left: Cell<usize>,
    /// The mean that `left` was drawn with; 0 before the first.
    mean: Cell<usize>,
    dice: Cell<u64>,
}

impl Countdown {
    /// Before the first draw.
    pub(crate) const fn new() -> Self {
        Self {
            left: Cell::new(0),
            mean: Cell::new(0),
            dice: Cell::new(0),
        }
    }

    /// Bytes that can be handed out before the next point. Owner only, as all of it.
    pub(crate) fn left(&self, sampler: &dyn Sampler) -> usize {
        if self.mean.get() == 0 {
            self.dice.set(match is_on(Bug::SampleSeedsAlike) {
                true => 1,
                false => sampler.seed(),
            });
            self.draw(sampler);
            if is_on(Bug::SampleFirstFixed) {
                self.left.set(self.mean.get());
            }
        }
        self.left.get()
    }

    /// Is the point at least so far? A load and a comparison.
    #[inline(always)]
    pub(crate) fn is_beyond(&self, bytes: usize) -> bool {
        self.left.get() >= bytes
    }

    /// So many were: at most [`Countdown::left`].
    #[inline(always)]
    pub(crate) fn handed(&self, bytes: usize) {
        self.left.set(self.left.get().saturating_sub(bytes));
    }

    /// The mean distance that the present one was drawn with.
    pub(crate) fn mean(&self) -> usize {
        self.mean.get()
    }

    /// The point is passed: the next one is drawn. Gives the mean distance with which the one passed was drawn.
    pub(crate) fn pass(&self, sampler: &dyn Sampler) -> usize {
        let mean = self.mean.get();
        self.draw(sampler);
        mean
    }

    /// Memory of one object is handed out by itself: the mean distance, if a point lies in it.
    pub(crate) fn object(&self, sampler: &dyn Sampler, bytes: usize) -> Option<usize> {
        if self.left(sampler) < bytes {
            return Some(self.pass(sampler));
        }
        if !is_on(Bug::SampleLargeForgotten) {
            self.handed(bytes);
        }
        None
    }

    #[cold]
    fn draw(&self, sampler: &dyn Sampler) {
        let mean = sampler.mean_bytes().max(1);
        // splitmix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014).
        let state = self.dice.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.dice.set(state);
        let mut x = state;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        // In (0, 1].
        let uniform = ((x >> 11) + 1) as f64 / (1u64 << 53) as f64;
        self.left.set((minus_ln(uniform) * mean as f64) as usize);
        self.mean.set(mean);
    }
}

/// `1 - exp(-x)` for `x` from 0, without a loss where it is small. As [`minus_ln`] without the mathematical library.
fn one_minus_exp(x: f64) -> f64 {
    if x > 40.0 {
        return 1.0;
    }
    let mut halvings = 0;
    let mut y = -x;
    while y < -0.25 {
        y /= 2.0;
        halvings += 1;
    }
    // exp(y) - 1.
    let mut less = 0.0;
    for n in (1..14u32).rev() {
        less = y / f64::from(n) * (1.0 + less);
    }
    for _ in 0..halvings {
        less *= less + 2.0;
    }
    -less
}

/// `-ln(x)` for `x` in (0, 1]. Not the mathematical library's, which a program under `libgc` would not load otherwise.
fn minus_ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i32 - 1022;
    // In [0.5, 1), and then in [0.707, 1.414).
    let mut m = f64::from_bits(bits & ((1 << 52) - 1) | 1022 << 52);
    let mut e = f64::from(exponent);
    if m < core::f64::consts::FRAC_1_SQRT_2 {
        m *= 2.0;
        e -= 1.0;
    }
    // ln m = 2 artanh s.
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for n in (0..12u32).rev() {
        sum = sum * square + 1.0 / f64::from(2 * n + 1);
    }
    -(e * core::f64::consts::LN_2 + 2.0 * s * sum)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    struct Fixed(usize);

    impl Sampler for Fixed {
        fn mean_bytes(&self) -> usize {
            self.0
        }
        fn seed(&self) -> u64 {
            17
        }
        fn sample(&self, _: Sample) {}
    }

    #[test]
    fn the_logarithm_is_that_of_the_mathematical_library() {
        let mut x = 1.0f64;
        while x > 1e-16 {
            assert!((minus_ln(x) + x.ln()).abs() < 1e-12, "{x}");
            x *= 0.99;
        }
        assert_eq!(minus_ln(1.0), 0.0);
    }

    #[test]
    fn so_is_the_exponential() {
        let mut x = 1e-12f64;
        while x < 100.0 {
            let right = -(-x).exp_m1();
            assert!((one_minus_exp(x) / right - 1.0).abs() < 1e-12, "{x}");
            x *= 1.01;
        }
    }

    #[test]
    fn distances_are_exponential() {
        let (sampler, countdown) = (Fixed(1 << 19), Countdown::new());
        let draws = 100_000;
        let (mut sum, mut beyond) = (0.0, 0);
        for _ in 0..draws {
            let left = countdown.left(&sampler) as f64 / (1 << 19) as f64;
            sum += left;
            beyond += usize::from(left > 2.0);
            assert_eq!(countdown.pass(&sampler), 1 << 19);
        }
        let mean = sum / f64::from(draws);
        // The standard error is 0.0032.
        assert!((mean - 1.0).abs() < 0.013, "{mean}");
        let beyond = beyond as f64 / f64::from(draws);
        assert!((beyond - (-2.0f64).exp()).abs() < 0.005, "{beyond}");
    }

    #[test]
    fn an_object_is_chosen_as_often_as_its_weight_says() {
        let sampler = Fixed(1000);
        for bytes in [16usize, 300, 1000, 5000] {
            let countdown = Countdown::new();
            let objects = 200_000u32;
            let mut estimate = 0.0;
            for _ in 0..objects {
                if let Some(mean) = countdown.object(&sampler, bytes) {
                    estimate += Sample::new(bytes, mean, 0).weight();
                }
            }
            let ratio = estimate / f64::from(objects);
            // The relative standard error is at most 0.018, for the smallest.
            let within = if bytes == 16 { 0.07 } else { 0.02 };
            assert!((ratio - 1.0).abs() < within, "{bytes}: {ratio}");
        }
    }
}
