//! The objects of every peer: a header of 8 bytes (how many references, how many raw bytes), then the references, then the
//! raw bytes.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use heapwright_bench::runtime::Full;

/// Bytes before the first reference.
pub(crate) const HEADER: usize = 8;

/// The smallest object: mmtk's Compressor marks the first and the last word of one.
const SMALLEST: usize = 16;

/// The numbers of references and of raw bytes that fit into a header.
const MOST: usize = u32::MAX as usize;

/// An object. It is where this says until the next collection, or until it is freed; that is a promise of those who use it
/// (see `Thread::Ref` of the traits), which no method checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Object(NonNull<AtomicU64>);

/// How many bytes an object takes.
///
/// # Errors
/// If no header can say it.
#[inline(always)]
pub(crate) const fn bytes(references: usize, raw: usize) -> Result<usize, Full> {
    if references > MOST || raw > MOST {
        return Err(Full);
    }
    let bytes = HEADER + references * 8 + raw.next_multiple_of(8);
    Ok(if bytes < SMALLEST { SMALLEST } else { bytes })
}

impl Object {
    /// Makes an object of memory.
    ///
    /// # Safety
    /// There are [`bytes`] zero bytes at `start`, aligned to 8, and they are nobody else's.
    #[inline(always)]
    pub(crate) unsafe fn format(start: NonNull<u8>, references: usize, raw: usize) -> Self {
        let object = Self(start.cast());
        object
            .word(0)
            .store(references as u64 | (raw as u64) << 32, Ordering::Relaxed);
        object
    }

    /// The object at an address.
    ///
    /// # Safety
    /// There is one.
    #[inline(always)]
    pub(crate) unsafe fn at(address: NonNull<u8>) -> Self {
        Self(address.cast())
    }

    /// Where it starts.
    #[inline(always)]
    pub(crate) fn start(self) -> NonNull<u8> {
        self.0.cast()
    }

    /// A word, counted from the header.
    #[inline(always)]
    fn word<'a>(self, index: usize) -> &'a AtomicU64 {
        // SAFETY: the object is there, and callers stay within it, which they check in debug builds.
        unsafe { self.0.add(index).as_ref() }
    }

    /// How many references it has.
    #[inline(always)]
    pub(crate) fn references(self) -> usize {
        self.word(0).load(Ordering::Relaxed) as u32 as usize
    }

    /// How many raw bytes it has.
    #[inline(always)]
    pub(crate) fn raw_bytes(self) -> usize {
        (self.word(0).load(Ordering::Relaxed) >> 32) as usize
    }

    /// How many bytes it takes.
    #[inline(always)]
    pub(crate) fn bytes(self) -> usize {
        bytes(self.references(), self.raw_bytes()).unwrap_or(SMALLEST)
    }

    /// Where a reference is.
    #[inline(always)]
    pub(crate) fn slot(self, index: usize) -> NonNull<AtomicU64> {
        debug_assert!(
            index < self.references(),
            "reference {index} of {}",
            self.references()
        );
        // SAFETY: within the object.
        unsafe { self.0.add(1 + index) }
    }

    /// Reads a reference.
    #[inline(always)]
    pub(crate) fn get(self, index: usize) -> Option<Self> {
        debug_assert!(
            index < self.references(),
            "reference {index} of {}",
            self.references()
        );
        from_word(self.word(1 + index).load(Ordering::Relaxed))
    }

    /// Writes a reference.
    #[inline(always)]
    pub(crate) fn set(self, index: usize, value: Option<Self>) {
        debug_assert!(
            index < self.references(),
            "reference {index} of {}",
            self.references()
        );
        self.word(1 + index)
            .store(to_word(value), Ordering::Relaxed);
    }

    /// Reads the raw word at an offset.
    #[inline(always)]
    pub(crate) fn raw(self, offset: usize) -> u64 {
        debug_assert!(
            offset.is_multiple_of(8) && offset < self.raw_bytes(),
            "raw offset {offset} of {}",
            self.raw_bytes()
        );
        self.word(1 + self.references() + offset / 8)
            .load(Ordering::Relaxed)
    }

    /// Writes the raw word at an offset.
    #[inline(always)]
    pub(crate) fn set_raw(self, offset: usize, value: u64) {
        debug_assert!(
            offset.is_multiple_of(8) && offset < self.raw_bytes(),
            "raw offset {offset} of {}",
            self.raw_bytes()
        );
        self.word(1 + self.references() + offset / 8)
            .store(value, Ordering::Relaxed);
    }

    /// The raw part.
    ///
    /// # Safety
    /// No other thread touches it while the slice is there, and the object stays where it is.
    #[inline(always)]
    pub(crate) unsafe fn raw_slice<'a>(self) -> &'a mut [u8] {
        // SAFETY: the raw bytes follow the references; the caller sees to the rest.
        unsafe {
            let start = self.0.add(1 + self.references()).cast::<u8>();
            core::slice::from_raw_parts_mut(start.as_ptr(), self.raw_bytes())
        }
    }
}

/// A reference as a field holds it: an address, or 0.
#[inline(always)]
pub(crate) fn to_word(value: Option<Object>) -> u64 {
    value.map_or(0, |object| object.0.addr().get() as u64)
}

/// What a field holds.
#[inline(always)]
pub(crate) fn from_word(word: u64) -> Option<Object> {
    NonNull::new(core::ptr::with_exposed_provenance_mut(word as usize)).map(Object)
}
