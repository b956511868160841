//! Kinds of objects, descriptors and mark procedures: what the collector scans in an object.
//!
//! A descriptor is one word, as `gc_mark.h` defines it; its two lowest bits say what the others are:
//!
//! | tag | name       | the other bits                                                                            |
//! |-----|------------|-------------------------------------------------------------------------------------------|
//! | 0   | length     | so many bytes from the start may hold references                                          |
//! | 1   | bitmap     | one bit for each word, the highest for the first                                          |
//! | 2   | procedure  | 6 bits: which one; the rest is handed to it                                               |
//! | 3   | per object | not negative: where in the object its descriptor is; negative: where behind the word that |
//! |     |            | the object's first word points to                                                         |
//!
//! A mark procedure reports references through [`GC_mark_and_push`], whose mark stack pointer is the address of a
//! [`Cookie`] here: there is no mark stack that C code could write to. A procedure may be called on a cell that was never
//! handed out (all zero, or linked through its first word), and more than once for the same object.

use crate::alloc::{NORMAL, TYPED, UNCOLLECTABLE};
use crate::callback::Callback;
use crate::{state, typed};
use core::ffi::{c_char, c_int, c_uint, c_void};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use heapwright::{Address, Cell, Kind, KindTraits, MAX_KINDS, WildWord, WordVisitor};

/// Bits of a descriptor that say what it is.
pub(crate) const TAG_BITS: u32 = 2;
pub(crate) const TAGS: usize = 3;
pub(crate) const LENGTH: usize = 0;
pub(crate) const BITMAP: usize = 1;
pub(crate) const PROCEDURE: usize = 2;
pub(crate) const PER_OBJECT: usize = 3;
/// Bits of a procedure descriptor that say which one.
const PROCEDURE_BITS: u32 = 6;
const PROCEDURES: usize = 1 << PROCEDURE_BITS;
/// Indices below this are for clients that choose their own.
const RESERVED: usize = 8;
/// The procedure that scans by a long bitmap of [`typed`], whose number is the rest of the descriptor.
pub(crate) const LONG_BITMAP: usize = RESERVED;
/// `GC_INDIR_PER_OBJ_BIAS`.
const INDIRECT_BIAS: usize = 0x10;
/// How often a descriptor may lead to another.
const MOST_STEPS: usize = 4;

/// `struct GC_ms_entry`: opaque to clients.
#[derive(Debug)]
#[repr(C)]
pub struct GC_ms_entry {
    opaque: *mut c_void,
}

/// A client's mark procedure: object, mark stack pointer, its limit, and the rest of the descriptor.
pub type GC_mark_proc = unsafe extern "C-unwind" fn(
    *mut usize,
    *mut GC_ms_entry,
    *mut GC_ms_entry,
    usize,
) -> *mut GC_ms_entry;
/// A client's function that describes an object in a buffer of 40 bytes.
pub type GC_describe_type_fn = unsafe extern "C-unwind" fn(*mut c_void, *mut c_char);

/// The kinds' descriptors.
static DESCRIPTORS: [AtomicUsize; MAX_KINDS] = [const { AtomicUsize::new(0) }; MAX_KINDS];
/// Not 0: the object's size is added to the kind's descriptor.
static ADD_SIZE: [AtomicUsize; MAX_KINDS] = [const { AtomicUsize::new(0) }; MAX_KINDS];
/// Bit n: kind n is defined.
static DEFINED: AtomicUsize = AtomicUsize::new((1 << state::KINDS.len()) - 1);
/// The mark procedures.
static PROCS: [Callback<GC_mark_proc>; PROCEDURES] = [const { Callback::NONE }; PROCEDURES];
/// The next number for a mark procedure.
static NEXT_PROC: AtomicUsize = AtomicUsize::new(RESERVED + 2);

/// Pointers in what [`GC_new_free_list`] gives: one for each size up to 2 KiB.
const FREE_LIST: usize = 129;
/// Free lists that are always empty: who takes from them by hand finds nothing and calls us.
static FREE_LISTS: [AtomicPtr<c_void>; FREE_LIST * MAX_KINDS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; FREE_LIST * MAX_KINDS];
/// How many were given.
static NEXT_FREE_LIST: AtomicUsize = AtomicUsize::new(0);

/// The kind of a number of the client's, if there is one.
pub(crate) fn known(kind: c_int) -> Option<Kind> {
    let index = u8::try_from(kind)
        .ok()
        .filter(|k| usize::from(*k) < MAX_KINDS)?;
    (DEFINED.load(Ordering::Acquire) >> index & 1 != 0).then_some(Kind(index))
}

/// Is it a kind whose objects are never scanned?
pub(crate) fn is_leaf(kind: Kind) -> bool {
    match kind {
        NORMAL | UNCOLLECTABLE | TYPED => false,
        _ => {
            let index = usize::from(kind.0);
            DESCRIPTORS
                .get(index)
                .is_none_or(|d| d.load(Ordering::Relaxed) == 0)
                && ADD_SIZE
                    .get(index)
                    .is_none_or(|a| a.load(Ordering::Relaxed) == 0)
        }
    }
}

/// Defines a kind. Heap lock held.
pub(crate) fn define_locked(descriptor: usize, add_size: bool, clear: bool) -> Option<Kind> {
    let heap = state::heap_if_ready()?;
    let leaf = descriptor == 0 && !add_size;
    let kind = heap
        .define_kind_locked(KindTraits {
            leaf,
            zeroed: clear,
            collectable: true,
            conservative: false,
        })
        .ok()?;
    let index = usize::from(kind.0);
    if let (Some(d), Some(a)) = (DESCRIPTORS.get(index), ADD_SIZE.get(index)) {
        d.store(descriptor, Ordering::Relaxed);
        a.store(usize::from(add_size), Ordering::Relaxed);
    }
    DEFINED.fetch_or(1 << index, Ordering::Release);
    Some(kind)
}

/// Reports what an object refers to. World stopped.
#[inline]
pub(crate) fn scan<T: WordVisitor>(cell: Cell, visit: &mut T) {
    if cell.kind == NORMAL || cell.kind == UNCOLLECTABLE {
        // SAFETY: a cell of the heap.
        unsafe { visit.field_range(cell.start, cell.start.add(cell.bytes)) };
    } else if cell.kind == TYPED {
        // SAFETY: a cell of the typed kind.
        let descriptor = unsafe { typed::descriptor_of(cell) };
        described(descriptor, cell, visit);
    } else {
        scan_other(cell, visit);
    }
}

#[inline(never)]
fn scan_other<T: WordVisitor>(cell: Cell, visit: &mut T) {
    if typed::is_array(cell.kind) {
        return typed::scan_array(cell, visit);
    }
    let index = usize::from(cell.kind.0);
    let (Some(descriptor), Some(add_size)) = (DESCRIPTORS.get(index), ADD_SIZE.get(index)) else {
        return;
    };
    let mut descriptor = descriptor.load(Ordering::Relaxed);
    if add_size.load(Ordering::Relaxed) != 0 {
        descriptor = descriptor.wrapping_add(cell.bytes);
    }
    described(descriptor, cell, visit);
}

/// Reports what an object refers to by its descriptor. `cell` may also be a part of a cell.
pub(crate) fn described<T: WordVisitor>(mut descriptor: usize, cell: Cell, visit: &mut T) {
    let (start, bytes) = (cell.start, cell.bytes);
    for _ in 0..MOST_STEPS {
        match descriptor & TAGS {
            LENGTH => {
                // SAFETY: within the cell.
                unsafe { visit.field_range(start, start.add(descriptor.min(bytes))) };
                return;
            }
            BITMAP => return bitmap(descriptor & !TAGS, start, bytes, visit),
            PROCEDURE => return procedure(descriptor, cell, visit),
            _ => match per_object(descriptor, start, bytes) {
                Some(next) if next != 0 => descriptor = next,
                _ => return,
            },
        }
    }
}

#[inline]
fn bitmap<T: WordVisitor>(mut bits: usize, start: Address, bytes: usize, visit: &mut T) {
    let mut at = start;
    let end = start.add(bytes);
    while bits != 0 && at < end {
        if bits.cast_signed() < 0 {
            // SAFETY: a word of the cell.
            visit.field_word(WildWord::new(unsafe { at.load() }));
        }
        bits <<= 1;
        at = at.add(size_of::<usize>());
    }
}

/// The descriptor that a per-object descriptor leads to.
fn per_object(descriptor: usize, start: Address, bytes: usize) -> Option<usize> {
    if descriptor.cast_signed() >= 0 {
        let offset = descriptor & !TAGS;
        // SAFETY: within the cell, and aligned: the tag bits were cleared, and words are read unaligned.
        return (offset.checked_add(size_of::<usize>())? <= bytes)
            .then(|| unsafe { start.add(offset).as_ptr::<usize>().read_unaligned() });
    }
    // SAFETY: the first word of the cell.
    let table: usize = unsafe { start.load() };
    if table == 0 {
        return None;
    }
    let at = table.wrapping_sub(descriptor.wrapping_add(INDIRECT_BIAS - PER_OBJECT));
    // SAFETY: the client's promise: the first word is null, the link of a list of free cells, or the address of a
    // structure with a descriptor at that place.
    Some(unsafe { Address::new(at).as_ptr::<usize>().read_unaligned() })
}

/// What the mark stack pointer of a mark procedure points to: where its references go.
#[repr(C, align(16))]
struct Cookie {
    visit: *mut c_void,
    word: unsafe fn(*mut c_void, usize),
    magic: usize,
}

/// Tells a cookie from other pointers.
const MAGIC: usize = 0x6865_6170_7772_6967;
/// How far above the mark stack pointer its limit is said to be: clients compare the two.
const ROOM: usize = 1 << 16;

#[inline(never)]
fn procedure<T: WordVisitor>(descriptor: usize, cell: Cell, visit: &mut T) {
    let index = descriptor >> TAG_BITS & (PROCEDURES - 1);
    let environment = descriptor >> (TAG_BITS + PROCEDURE_BITS);
    if index == LONG_BITMAP {
        return typed::scan_long(environment, cell, visit);
    }
    let Some(function) = PROCS.get(index).and_then(Callback::get) else {
        // A procedure that was never made known: the safe answer is the conservative one.
        // SAFETY: within the cell.
        unsafe { visit.field_range(cell.start, cell.start.add(cell.bytes)) };
        return;
    };
    /// # Safety
    /// `visit` is the visitor of type `T` that the cookie was made of, while it is in use.
    unsafe fn word<T: WordVisitor>(visit: *mut c_void, word: usize) {
        // SAFETY: the caller's promise.
        unsafe { &mut *visit.cast::<T>() }.field_word(WildWord::new(word));
    }
    let mut cookie = Cookie {
        visit: ptr::from_mut(visit).cast(),
        word: word::<T>,
        magic: MAGIC,
    };
    let stack: *mut GC_ms_entry = (&raw mut cookie).cast();
    let limit = stack.wrapping_byte_add(ROOM);
    // SAFETY: the client's procedure, called as the interface says: on an object, or a cell that is zero.
    unsafe { function(cell.start.as_mut_ptr(), stack, limit, environment) };
}

/// Reports a reference from within a mark procedure; gives back the mark stack pointer.
///
/// # Safety
/// `stack` is what the mark procedure was called with, or null, and it has not returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn GC_mark_and_push(
    object: *mut c_void,
    stack: *mut GC_ms_entry,
    _limit: *mut GC_ms_entry,
    _from: *mut *mut c_void,
) -> *mut GC_ms_entry {
    // SAFETY: the caller's promise.
    if let Some(cookie) = unsafe { stack.cast::<Cookie>().as_ref() }
        && cookie.magic == MAGIC
    {
        // SAFETY: the visitor that the cookie was made of.
        unsafe { (cookie.word)(cookie.visit, object.addr()) };
    }
    stack
}

/// A new array of free lists for [`GC_new_kind`].
#[unsafe(no_mangle)]
pub extern "C" fn GC_new_free_list_inner() -> *mut *mut c_void {
    let index = NEXT_FREE_LIST
        .fetch_add(1, Ordering::Relaxed)
        .min(MAX_KINDS - 1);
    FREE_LISTS
        .get(index * FREE_LIST)
        .map_or(ptr::null_mut(), AtomicPtr::as_ptr)
}

/// A new array of free lists for [`GC_new_kind`].
#[unsafe(no_mangle)]
pub extern "C" fn GC_new_free_list() -> *mut *mut c_void {
    GC_new_free_list_inner()
}

/// An array of free lists that is always empty, for the exported variables that point to one.
pub(crate) const fn empty_free_list() -> *mut c_void {
    (&raw const FREE_LISTS).cast_mut().cast()
}

/// Makes a new kind of objects, and returns its number: they are scanned by `descriptor`, plus their size if `add_size`,
/// and zeroed if `clear`. A kind whose descriptor comes to 0 is never scanned. Where there are too many kinds already, the
/// number of the normal kind.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_new_kind(
    _free_list: *mut *mut c_void,
    descriptor: usize,
    add_size: c_int,
    clear: c_int,
) -> c_uint {
    let Some(heap) = state::heap() else {
        return c_uint::from(NORMAL.0);
    };
    heap.lock();
    let kind = define_locked(descriptor, add_size != 0, clear != 0);
    heap.unlock();
    c_uint::from(kind.unwrap_or(NORMAL).0)
}

/// As [`GC_new_kind`], with the heap's lock held.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_new_kind_inner(
    _free_list: *mut *mut c_void,
    descriptor: usize,
    add_size: c_int,
    clear: c_int,
) -> c_uint {
    c_uint::from(
        define_locked(descriptor, add_size != 0, clear != 0)
            .unwrap_or(NORMAL)
            .0,
    )
}

/// Makes a mark procedure known: its number for a descriptor. Where there are too many already, a number whose objects are
/// scanned conservatively.
#[unsafe(no_mangle)]
pub extern "C" fn GC_new_proc(procedure: Option<GC_mark_proc>) -> c_uint {
    let index = NEXT_PROC.fetch_add(1, Ordering::Relaxed);
    if index >= PROCEDURES {
        NEXT_PROC.store(PROCEDURES, Ordering::Relaxed);
        // Reserved, and nobody's.
        return (RESERVED + 1) as c_uint;
    }
    set_proc(index, procedure);
    index as c_uint
}

/// Makes a mark procedure known under a number that the client chose.
pub(crate) fn set_proc(index: usize, procedure: Option<GC_mark_proc>) -> bool {
    PROCS.get(index).map(|p| p.set(procedure)).is_some()
}

/// As [`GC_new_proc`], with the heap's lock held.
#[unsafe(no_mangle)]
pub extern "C" fn GC_new_proc_inner(procedure: Option<GC_mark_proc>) -> c_uint {
    GC_new_proc(procedure)
}

/// Descriptions of objects appear nowhere: nothing is printed.
#[unsafe(no_mangle)]
pub extern "C" fn GC_register_describe_type_fn(
    _kind: c_int,
    _describe: Option<GC_describe_type_fn>,
) {
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use heapwright::ObjectReference;

    /// Records what is reported.
    #[derive(Default)]
    pub(crate) struct Record(pub(crate) Vec<usize>);

    impl WordVisitor for Record {
        fn object(&mut self, object: ObjectReference) {
            self.0.push(object.to_address().as_usize());
        }
        fn root_word(&mut self, word: WildWord) {
            self.0.push(word.bits());
        }
        unsafe fn root_range(&mut self, start: Address, end: Address) {
            // SAFETY: the caller's promise.
            unsafe { self.field_range(start, end) };
        }
        fn field_word(&mut self, word: WildWord) {
            self.0.push(word.bits());
        }
        unsafe fn field_range(&mut self, start: Address, end: Address) {
            let mut at = start;
            while at < end {
                // SAFETY: the caller's promise.
                self.0.push(unsafe { at.load() });
                at = at.add(8);
            }
        }
        fn mark_unscanned(&mut self, _start: Address) -> bool {
            false
        }
        fn is_marked(&self, _start: Address) -> bool {
            false
        }
    }

    pub(crate) fn cell_of(words: &[usize]) -> Cell {
        Cell {
            start: Address::from_ptr(words.as_ptr()),
            bytes: words.len() * 8,
            kind: Kind(9),
            large: false,
        }
    }

    fn reported(descriptor: usize, words: &[usize]) -> Vec<usize> {
        let mut record = Record::default();
        described(descriptor, cell_of(words), &mut record);
        record.0
    }

    #[test]
    fn a_length_is_cut_at_the_cells_end() {
        assert_eq!(reported(16, &[1, 2, 3]), [1, 2]);
        assert_eq!(reported(4096, &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(reported(0, &[1, 2, 3]), []);
    }

    #[test]
    fn a_bitmaps_highest_bit_is_the_first_word() {
        assert_eq!(reported(1 << 63 | 1 << 61 | BITMAP, &[1, 2, 3, 4]), [1, 3]);
        assert_eq!(reported(!TAGS | BITMAP, &[1, 2]), [1, 2]);
    }

    #[test]
    fn a_per_object_descriptor_is_found_in_the_object_or_behind_its_first_word() {
        assert_eq!(reported(16 | PER_OBJECT, &[1, 2, 8]), [1]);
        assert_eq!(reported(64 | PER_OBJECT, &[1, 2, 8]), []);
        // As gcj has it: the second word of the table that the first word points to.
        let table = [0usize, 24];
        let descriptor = ((-8isize - 16) as usize) | PER_OBJECT;
        let at = Address::from_ptr(table.as_ptr()).as_usize();
        assert_eq!(reported(descriptor, &[at, 5, 6, 7]), [at, 5, 6]);
        assert_eq!(reported(descriptor, &[0, 5, 6]), []);
        // One that leads to itself ends.
        assert_eq!(reported(PER_OBJECT, &[PER_OBJECT, 1]), []);
    }

    unsafe extern "C-unwind" fn second_word(
        object: *mut usize,
        stack: *mut GC_ms_entry,
        limit: *mut GC_ms_entry,
        environment: usize,
    ) -> *mut GC_ms_entry {
        // SAFETY: the tests' cells have two words; the stack pointer is the one given.
        unsafe {
            let stack = GC_mark_and_push(
                ptr::without_provenance_mut(*object.add(1)),
                stack,
                limit,
                ptr::null_mut(),
            );
            GC_mark_and_push(
                ptr::without_provenance_mut(environment),
                stack,
                limit,
                ptr::null_mut(),
            )
        }
    }

    #[test]
    fn a_mark_procedure_reports_through_its_cookie() {
        let index = GC_new_proc(Some(second_word)) as usize;
        let descriptor = (77 << PROCEDURE_BITS | index) << TAG_BITS | PROCEDURE;
        assert_eq!(reported(descriptor, &[1, 2, 3]), [2, 77]);
        // Not made known: everything.
        assert_eq!(
            reported((PROCEDURES - 1) << TAG_BITS | PROCEDURE, &[1, 2, 3]),
            [1, 2, 3]
        );
        let none = ptr::null_mut();
        assert!(
            // SAFETY: null is allowed.
            unsafe { GC_mark_and_push(none, ptr::null_mut(), ptr::null_mut(), ptr::null_mut()) }
                .is_null()
        );
    }
}
