use core::fmt;

/// A place in memory, or one past it. Arithmetic is checked where it can be wrong.
///
/// ```
/// use heapwright_address::Address;
///
/// let start = Address::new(0x1000);
/// assert_eq!(start.add(24).diff(start), 24);
/// assert!(start.is_aligned_to(4096) && !start.add(8).is_aligned_to(16));
/// assert_eq!(Address::new(usize::MAX).checked_add(1), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Address(usize);

impl Address {
    /// The null address.
    pub const ZERO: Self = Self(0);
    /// The highest address.
    pub const MAX: Self = Self(usize::MAX);

    /// From a number.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: usize) -> Self {
        Self(address)
    }

    /// From a pointer, whose provenance is exposed.
    #[inline(always)]
    #[must_use]
    pub fn from_ptr<T>(pointer: *const T) -> Self {
        Self(pointer.expose_provenance())
    }

    /// As a number.
    #[inline(always)]
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0
    }

    /// As a pointer, with a provenance that was exposed.
    #[inline(always)]
    #[must_use]
    pub fn as_ptr<T>(self) -> *const T {
        core::ptr::with_exposed_provenance(self.0)
    }

    /// As a pointer for writing, with a provenance that was exposed.
    #[inline(always)]
    #[must_use]
    pub fn as_mut_ptr<T>(self) -> *mut T {
        core::ptr::with_exposed_provenance_mut(self.0)
    }

    /// Is it null?
    #[inline(always)]
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// So many bytes further; `None` beyond the highest address.
    #[inline(always)]
    #[must_use]
    pub const fn checked_add(self, bytes: usize) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(a) => Some(Self(a)),
            None => None,
        }
    }

    /// So many bytes before; `None` below zero.
    #[inline(always)]
    #[must_use]
    pub const fn checked_sub(self, bytes: usize) -> Option<Self> {
        match self.0.checked_sub(bytes) {
            Some(a) => Some(Self(a)),
            None => None,
        }
    }

    /// So many bytes further. The caller knows that it does not overflow; debug builds check.
    #[inline(always)]
    #[must_use]
    #[allow(
        clippy::should_implement_trait,
        reason = "an address and a number of bytes are different things"
    )]
    pub const fn add(self, bytes: usize) -> Self {
        debug_assert!(self.0.checked_add(bytes).is_some());
        Self(self.0.wrapping_add(bytes))
    }

    /// So many bytes before. The caller knows that it does not underflow; debug builds check.
    #[inline(always)]
    #[must_use]
    #[allow(
        clippy::should_implement_trait,
        reason = "an address and a number of bytes are different things"
    )]
    pub const fn sub(self, bytes: usize) -> Self {
        debug_assert!(self.0 >= bytes);
        Self(self.0.wrapping_sub(bytes))
    }

    /// Bytes from `earlier` to here. The caller knows that it is not later; debug builds check.
    #[inline(always)]
    #[must_use]
    pub const fn diff(self, earlier: Self) -> usize {
        debug_assert!(self.0 >= earlier.0);
        self.0.wrapping_sub(earlier.0)
    }

    /// The multiple of `align` (a power of two) at or below.
    #[inline(always)]
    #[must_use]
    pub const fn align_down(self, align: usize) -> Self {
        Self(self.0 & !(align - 1))
    }

    /// The multiple of `align` (a power of two) at or above; `None` beyond the highest address.
    #[inline(always)]
    #[must_use]
    pub const fn align_up(self, align: usize) -> Option<Self> {
        match self.0.checked_add(align - 1) {
            Some(a) => Some(Self(a & !(align - 1))),
            None => None,
        }
    }

    /// Is it a multiple of `align`, a power of two?
    #[inline(always)]
    #[must_use]
    pub const fn is_aligned_to(self, align: usize) -> bool {
        self.0 & (align - 1) == 0
    }

    /// Reads a value.
    ///
    /// # Safety
    /// A `T` is there, aligned, and nobody writes it meanwhile.
    #[inline(always)]
    #[must_use]
    pub unsafe fn load<T: Copy>(self) -> T {
        // SAFETY: the caller's promise.
        unsafe { self.as_ptr::<T>().read() }
    }

    /// Writes a value.
    ///
    /// # Safety
    /// There is room for an aligned `T`, and nobody else uses it meanwhile.
    #[inline(always)]
    pub unsafe fn store<T: Copy>(self, value: T) {
        // SAFETY: the caller's promise.
        unsafe { self.as_mut_ptr::<T>().write(value) };
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_of_the_address_space_are_values() {
        assert_eq!(Address::MAX.checked_add(1), None);
        assert_eq!(Address::ZERO.checked_sub(1), None);
        assert_eq!(Address::MAX.align_up(4096), None);
        assert_eq!(Address::MAX.align_down(4096).as_usize(), usize::MAX - 4095);
        assert_eq!(Address::new(4097).align_up(4096), Some(Address::new(8192)));
    }
}
