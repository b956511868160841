//! The allocation path as data: for runtimes that generate code, or are written in another language.
//!
//! What a mutator allocates from is in its *record* ([`crate::Mutator::record`]), at an address that stays the same until it is
//! detached. All offsets are in bytes, from the record unless they say otherwise, and are the same for all mutators of a heap.

/// How to allocate without a call. When any step says "call", call [`crate::Mutator::alloc`] with the same request.
///
/// 1. Round the request up to a multiple of [`FastPath::align`], and to at least [`FastPath::least`]. If it is more than
///    [`FastPath::most`], call.
/// 2. Find cursor and limit, two words one after the other: see [`Cursor`].
/// 3. If the request is larger than `limit - cursor`, call. Else the object is at `cursor`; store `cursor` plus the request (with
///    size classes, plus the class's bytes).
/// 4. Do what [`FastPath::after`] says. The memory is zero.
///
/// Between 2 and 3 the mutator must not pass a safepoint.
///
/// ```
/// use heapwright::example::{BYTES, Pairs};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("semispace")?;
/// let mutator = heap.attach(Vec::new())?;
/// let path = mutator.fast_path();
/// // Pairs can be allocated without a call.
/// assert!(path.most >= BYTES && BYTES % path.align == 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastPath {
    /// Requests are multiples of this, a power of two.
    pub align: usize,
    /// The smallest request, in bytes.
    pub least: usize,
    /// The largest one that may be allocated without a call, in bytes; 0: none.
    pub most: usize,
    /// Where cursor and limit are.
    pub cursor: Cursor,
    /// What is to be done with a new object.
    pub after: After,
    /// Where the word of 32 bits is that is not 0 when the mutator is to stop: then call [`crate::Mutator::poll`].
    pub interrupt: usize,
    /// Where the byte is that is 0 as long as writes need no barrier; else call [`crate::Mutator::before_write`] before a write.
    pub barrier: usize,
}

/// Where cursor and limit are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// In the record.
    Record {
        /// Where the cursor is; the limit is the next word.
        offset: usize,
    },
    /// In one of the runs of free cells, one for each size class.
    Runs {
        /// Where the record has the address of the runs.
        runs: usize,
        /// Where the run of class 0 is, from that address.
        first: usize,
        /// From the run of one class to that of the next.
        stride: usize,
        /// For each request, divided by [`FastPath::align`], its class and the bytes of that class.
        classes: &'static [Class],
    },
}

/// The size class of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Class {
    /// Bytes of a cell.
    pub bytes: u16,
    /// The number of the class.
    pub class: u16,
}

/// What is to be done with a new object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Nothing,
    /// Store the word that is at this place of the record as the object's first word, and keep its low eight bits from then on.
    StoreHeader {
        /// Where the word is.
        offset: usize,
    },
    /// Call [`crate::Mutator::enter_object`] with the object.
    Enter,
}
