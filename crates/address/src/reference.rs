use crate::Address;
use core::num::NonZeroUsize;

/// Where an object is. Never null.
///
/// ```
/// use heapwright_address::{Address, ObjectReference};
///
/// assert_eq!(ObjectReference::from_address(Address::ZERO), None);
/// let object = ObjectReference::from_address(Address::new(0x1000));
/// assert_eq!(object.map(|o| o.to_address().as_usize()), Some(0x1000));
/// // Not larger than an address.
/// assert_eq!(size_of::<Option<ObjectReference>>(), size_of::<usize>());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ObjectReference(NonZeroUsize);

impl ObjectReference {
    /// From an address; `None` for null.
    #[inline(always)]
    #[must_use]
    pub const fn from_address(address: Address) -> Option<Self> {
        match NonZeroUsize::new(address.as_usize()) {
            Some(a) => Some(Self(a)),
            None => None,
        }
    }

    /// From an address that is not null.
    ///
    /// # Safety
    /// The address is not null.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn from_address_unchecked(address: Address) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { NonZeroUsize::new_unchecked(address.as_usize()) })
    }

    /// The address.
    #[inline(always)]
    #[must_use]
    pub const fn to_address(self) -> Address {
        Address::new(self.0.get())
    }
}

/// Unchecked bits: a word of a stack or of an untyped object, which may be an address or anything else.
///
/// ```
/// use heapwright_address::WildWord;
///
/// // A word of a stack: it may be a reference, or a number that looks like one.
/// assert_eq!(WildWord::new(12).bits(), 12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct WildWord(usize);

impl WildWord {
    /// Any bits.
    #[inline(always)]
    #[must_use]
    pub const fn new(bits: usize) -> Self {
        Self(bits)
    }

    /// The bits.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> usize {
        self.0
    }

    /// The bits as an address that nothing is known of: for comparisons and lookups, not for access.
    #[inline(always)]
    #[must_use]
    pub const fn as_candidate(self) -> Address {
        Address::new(self.0)
    }
}
