//! Which of four words may lead into the heap: a look that is cheaper than a comparison of each.
//!
//! Three of four words of a program's objects are no addresses of the heap (numbers, nothing, other memory). The upper halves
//! of four words are compared at once with those that addresses of the heap have; what passes is looked at more closely.

/// What addresses of the heap have in common, in the upper half of the word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Near {
    /// The bits that all of them share.
    mask: u32,
    /// Their values.
    value: u32,
}

impl Near {
    /// For a heap of `extent` bytes from `base` on.
    pub(super) const fn new(base: usize, extent: usize) -> Self {
        let last = if extent == 0 { base } else { base + extent - 1 };
        let (low, high) = ((base >> 32) as u32, (last >> 32) as u32);
        let mask = match (low ^ high).leading_zeros() {
            0 => 0,
            same => u32::MAX << (32 - same),
        };
        Self {
            mask,
            value: low & mask,
        }
    }

    /// Bit n is set if word n behind `at` may lead into the heap; it is set if it does.
    ///
    /// # Safety
    /// Four words from `at` on, which is a multiple of 8, are readable. Others may write them meanwhile: each word is looked at as it
    /// was at some time.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) unsafe fn four(self, at: usize) -> u32 {
        use core::arch::x86_64::{
            _mm_and_si128, _mm_castps_si128, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_loadu_si128,
            _mm_movemask_ps, _mm_set1_epi32, _mm_shuffle_ps,
        };
        let from = core::ptr::with_exposed_provenance(at);
        // SAFETY: the caller's promise; SSE2 is part of the architecture.
        unsafe {
            let low = _mm_castsi128_ps(_mm_loadu_si128(from));
            let high = _mm_castsi128_ps(_mm_loadu_si128(from.add(1)));
            let uppers = _mm_castps_si128(_mm_shuffle_ps::<0b11_01_11_01>(low, high));
            let shared = _mm_and_si128(uppers, _mm_set1_epi32(self.mask.cast_signed()));
            let equal = _mm_cmpeq_epi32(shared, _mm_set1_epi32(self.value.cast_signed()));
            _mm_movemask_ps(_mm_castsi128_ps(equal)).cast_unsigned()
        }
    }

    /// As above.
    ///
    /// # Safety
    /// As above.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    pub(super) unsafe fn four(self, at: usize) -> u32 {
        let mut near = 0;
        for index in 0..4 {
            // SAFETY: the caller's promise.
            let word = unsafe {
                core::ptr::with_exposed_provenance::<usize>(at + index * size_of::<usize>())
                    .read_volatile()
            };
            near |= u32::from((word >> 32) as u32 & self.mask == self.value) << index;
        }
        near
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_of_the_heap_pass_and_what_is_far_does_not() {
        for (base, extent) in [
            (0x7f12_3456_0000_usize, 0x10_0000_usize),
            (0x7f12_ffff_0000, 0x4_0000_0000),
            (0x10_0000, 0x8000),
            (0x7fff_0000_0000, 0),
        ] {
            let near = Near::new(base, extent);
            let inside = [
                base,
                base + extent / 2,
                base + extent.saturating_sub(1),
                base,
            ];
            // SAFETY: four words of ours.
            let all = unsafe { near.four(inside.as_ptr().expose_provenance()) };
            assert_eq!(all, 15);
            let mixed = [base ^ 1 << 47, base, !base, base ^ 1 << 46];
            // SAFETY: as above.
            let one = unsafe { near.four(mixed.as_ptr().expose_provenance()) };
            assert_eq!(one, 2);
        }
    }
}
