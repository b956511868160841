//! Typed objects: the client says which words may hold references.
//!
//! A typed object's descriptor is in the last word of its cell. Layouts of up to 62 words are bitmaps in the descriptor
//! itself; longer ones are in a table of bit words here, whose index is in a procedure descriptor. An array's cell ends in
//! three words: number of elements, bytes of each, and the elements' descriptor. As long as these words are zero, as they
//! are until the object is handed out, nothing is scanned.

use crate::alloc::{TYPED, cell_at, exact, first_page, oom};
use crate::kinds::{
    self, BITMAP, GC_mark_proc, LONG_BITMAP, PER_OBJECT, PROCEDURE, TAG_BITS, TAGS,
};
use crate::table::Guarded;
use crate::{config, state, threads};
use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering};
use heapwright::alloc::{MAX_SMALL, Small};
use heapwright::{Address, Cell, Kind, WildWord, WordVisitor};
use heapwright_memory::MappedVec;
use heapwright_os::real_port;

const WORD: usize = size_of::<usize>();
/// Words that a bitmap in a descriptor can describe.
const SHORT: usize = usize::BITS as usize - TAG_BITS as usize;
/// The most words of long bitmaps of all layouts: 32 MiB of addresses.
const MOST_LONG: usize = 1 << 22;

/// Long bitmaps: a length in bits, then so many bits in whole words. Written under the heap's lock, read in the pause.
static LONG: Guarded<Option<MappedVec<usize>>> = Guarded::new(None);
/// The first element of `LONG`, and how many there are, for the pause.
static LONG_START: AtomicPtr<usize> = AtomicPtr::new(ptr::null_mut());
static LONG_LEN: AtomicUsize = AtomicUsize::new(0);

/// The kind of arrays of typed elements; negative until it is needed.
static ARRAY: AtomicI32 = AtomicI32::new(-1);
/// Words at the end of an array's cell.
const ARRAY_TAIL: usize = 3 * WORD;

/// Is this the kind of typed arrays?
pub(crate) fn is_array(kind: Kind) -> bool {
    ARRAY.load(Ordering::Relaxed) == i32::from(kind.0)
}

/// The descriptor of a typed cell.
///
/// # Safety
/// It is a cell of the typed kind.
#[inline(always)]
pub(crate) unsafe fn descriptor_of(cell: Cell) -> usize {
    // SAFETY: the last word of a cell.
    unsafe { cell.start.add(cell.bytes - WORD).load() }
}

/// A descriptor for objects of which bit n of `bits` says whether word n may be a reference, for `len` words. Where there is
/// no memory for it, one that takes all of these words for references.
///
/// # Safety
/// `bits` is readable for `len` bits.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_make_descriptor(bits: *const usize, len: usize) -> usize {
    let words = len.div_ceil(usize::BITS as usize);
    let map = if len == 0 {
        &[]
    } else {
        // SAFETY: the caller's promise.
        unsafe { core::slice::from_raw_parts(bits, words) }
    };
    let is_set = |n: usize| map[n / 64] >> (n % 64) & 1 != 0;
    let Some(last) = (0..len).rev().find(|n| is_set(*n)) else {
        return 0;
    };
    let used = last + 1;
    if (0..used).all(is_set) {
        // A length: its tag bits are zero.
        return used * WORD;
    }
    if used <= SHORT {
        return (0..used)
            .filter(|n| is_set(*n))
            .fold(BITMAP, |d, n| d | 1 << (usize::BITS as usize - 1 - n));
    }
    long(map, used).unwrap_or(used * WORD)
}

/// Stores a long bitmap and makes a descriptor of its place.
fn long(map: &[usize], bits: usize) -> Option<usize> {
    let heap = state::heap()?;
    let words = bits.div_ceil(64);
    let index = LONG.with(heap, |long| {
        if long.is_none() {
            *long = MappedVec::new(real_port(), MOST_LONG, c"heapwright layouts").ok();
        }
        let long = long.as_mut()?;
        let index = long.len();
        let stored =
            long.push(bits).is_ok() && map.iter().take(words).all(|w| long.push(*w).is_ok());
        if !stored {
            long.truncate(index);
            return None;
        }
        LONG_START.store(long.as_slice().as_ptr().cast_mut(), Ordering::Relaxed);
        LONG_LEN.store(long.len(), Ordering::Release);
        Some(index)
    })?;
    Some((index << 6 | LONG_BITMAP) << TAG_BITS | PROCEDURE)
}

/// Reports the references of a cell by the long bitmap with that index. World stopped.
pub(crate) fn scan_long<T: WordVisitor>(index: usize, cell: Cell, visit: &mut T) {
    let (start, len) = (
        LONG_START.load(Ordering::Relaxed),
        LONG_LEN.load(Ordering::Acquire),
    );
    if start.is_null() || index >= len {
        return;
    }
    // SAFETY: so many words were written, and the vector never moves.
    let all = unsafe { core::slice::from_raw_parts(start, len) };
    let bits = all[index].min(cell.bytes / WORD);
    for (n, word) in all[index + 1..].iter().take(bits.div_ceil(64)).enumerate() {
        let mut word = *word;
        while word != 0 {
            let bit = n * 64 + word.trailing_zeros() as usize;
            word &= word - 1;
            if bit < bits {
                // SAFETY: within the cell.
                visit.field_word(WildWord::new(unsafe { cell.start.add(bit * WORD).load() }));
            }
        }
    }
}

/// Reports the references of an array of typed elements. World stopped.
pub(crate) fn scan_array<T: WordVisitor>(cell: Cell, visit: &mut T) {
    let tail = cell.start.add(cell.bytes - ARRAY_TAIL);
    // SAFETY: the last three words of the cell.
    let [elements, each, descriptor] = unsafe { tail.load::<[usize; 3]>() };
    // An array that is not set up yet has no elements.
    let fits = each
        .checked_mul(elements)
        .is_some_and(|b| b <= cell.bytes - ARRAY_TAIL);
    if !fits || each < WORD {
        return;
    }
    for n in 0..elements {
        kinds::described(
            descriptor,
            Cell {
                start: cell.start.add(n * each),
                bytes: each,
                ..cell
            },
            visit,
        );
    }
}

/// Allocates a zeroed object of at least `bytes` whose layout is that of `descriptor`. What `GC_oom_fn` gives if there is
/// no memory.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_malloc_explicitly_typed(
    bytes: usize,
    descriptor: usize,
) -> *mut c_void {
    // The descriptor's word makes the extra byte unnecessary.
    if bytes <= MAX_SMALL - WORD
        && let Some(record) = threads::current()
    {
        let small = Small::of(bytes + WORD);
        let size = small.bytes();
        if let Some(cell) = record.runs.run_for(usize::from(TYPED.0), small).bump(size) {
            // SAFETY: the last word of a fresh cell.
            unsafe { Address::new(cell + size - WORD).store(descriptor) };
            return crate::alloc::pointer(cell);
        }
    }
    typed_slow(bytes, descriptor)
}

#[cold]
#[inline(never)]
extern "C-unwind" fn typed_slow(bytes: usize, descriptor: usize) -> *mut c_void {
    let Some(padded) = bytes.checked_add(WORD) else {
        return oom(bytes);
    };
    describe(exact(TYPED, padded, bytes), descriptor)
}

/// Gives a fresh object its descriptor.
fn describe(object: *mut c_void, descriptor: usize) -> *mut c_void {
    // What the client's out-of-memory function returned is no object of ours.
    if let Some(cell) = cell_at(object).filter(|cell| cell.kind == TYPED) {
        // SAFETY: the last word of a fresh cell.
        unsafe { cell.start.add(cell.bytes - WORD).store(descriptor) };
    }
    object
}

/// As [`GC_malloc_explicitly_typed`]; of an object larger than a page, only pointers into the first page keep it.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_malloc_explicitly_typed_ignore_off_page(
    bytes: usize,
    descriptor: usize,
) -> *mut c_void {
    if bytes <= MAX_SMALL - WORD {
        return GC_malloc_explicitly_typed(bytes, descriptor);
    }
    match bytes.checked_add(WORD) {
        Some(padded) => describe(first_page(TYPED, padded), descriptor),
        None => oom(bytes),
    }
}

/// Allocates a zeroed array of `elements` objects of `bytes` each, with the layout of `descriptor`. What `GC_oom_fn` gives
/// if there is no memory, or no such size.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_calloc_explicitly_typed(
    elements: usize,
    bytes: usize,
    descriptor: usize,
) -> *mut c_void {
    let Some(whole) = elements.checked_mul(bytes) else {
        return oom(usize::MAX);
    };
    let Some(padded) = whole.checked_add(ARRAY_TAIL) else {
        return oom(whole);
    };
    if elements <= 1 {
        return GC_malloc_explicitly_typed(whole, descriptor);
    }
    if descriptor & TAGS == 0 && descriptor >= bytes {
        // All words of all elements.
        return GC_malloc_explicitly_typed(whole, whole);
    }
    let Some(kind) = array_kind() else {
        return oom(whole);
    };
    let object = exact(kind, padded, whole);
    if let Some(cell) = cell_at(object).filter(|cell| cell.kind == kind) {
        // SAFETY: the last three words of a fresh cell.
        unsafe {
            cell.start
                .add(cell.bytes - ARRAY_TAIL)
                .store([elements, bytes, descriptor])
        };
    }
    object
}

fn array_kind() -> Option<Kind> {
    let known = |n: i32| u8::try_from(n).ok().map(Kind);
    if let Some(kind) = known(ARRAY.load(Ordering::Acquire)) {
        return Some(kind);
    }
    let heap = state::heap()?;
    heap.lock();
    if ARRAY.load(Ordering::Relaxed) < 0
        && let Some(kind) = kinds::define_locked(0, true, true)
    {
        ARRAY.store(i32::from(kind.0), Ordering::Release);
    }
    heap.unlock();
    known(ARRAY.load(Ordering::Acquire))
}

// ---- gcj -------------------------------------------------------------------------------------------------------------

/// The kind of objects whose first word points to a table with their descriptor in its second word.
#[unsafe(no_mangle)]
pub static GC_gcj_kind: AtomicI32 = AtomicI32::new(0);

/// The kind of such objects with a debugging header; they are scanned by the mark procedure.
#[unsafe(no_mangle)]
pub static GC_gcj_debug_kind: AtomicI32 = AtomicI32::new(0);

/// Where behind the table the descriptor is.
const TABLE_OFFSET: isize = WORD as isize;

/// Makes the kinds of gcj objects: to be called before the functions below. `procedure` becomes known under the number
/// `index`, and scans objects with a debugging header, with 1 as the rest of its descriptor.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_init_gcj_malloc(index: c_int, procedure: Option<GC_mark_proc>) {
    let (Some(heap), Ok(index)) = (state::heap(), usize::try_from(index)) else {
        return;
    };
    if !kinds::set_proc(index, procedure) {
        return;
    }
    heap.lock();
    if GC_gcj_kind.load(Ordering::Relaxed) == 0 {
        // `GC_INDIR_PER_OBJ_BIAS` is 16.
        let indirect = (-TABLE_OFFSET - 16).cast_unsigned() | PER_OBJECT;
        let with_procedure = (1 << 6 | index) << TAG_BITS | PROCEDURE;
        for (variable, descriptor) in [
            (&GC_gcj_kind, indirect),
            (&GC_gcj_debug_kind, with_procedure),
        ] {
            if let Some(kind) = kinds::define_locked(descriptor, false, true) {
                variable.store(c_int::from(kind.0), Ordering::Relaxed);
            }
        }
    }
    heap.unlock();
}

/// Allocates a zeroed object whose first word is `table`. What `GC_oom_fn` gives if there is no memory, or
/// [`GC_init_gcj_malloc`] was not called.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_gcj_malloc(bytes: usize, table: *mut c_void) -> *mut c_void {
    gcj(bytes, table, crate::alloc::slow)
}

/// As [`GC_gcj_malloc`]; of an object larger than a page, only pointers into the first page keep it.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_gcj_malloc_ignore_off_page(
    bytes: usize,
    table: *mut c_void,
) -> *mut c_void {
    if bytes.saturating_add(config::extra()) <= MAX_SMALL {
        return GC_gcj_malloc(bytes, table);
    }
    gcj(bytes, table, gcj_first_page)
}

extern "C-unwind" fn gcj_first_page(kind: Kind, bytes: usize) -> *mut c_void {
    first_page(kind, bytes)
}

fn gcj(
    bytes: usize,
    table: *mut c_void,
    allocate: extern "C-unwind" fn(Kind, usize) -> *mut c_void,
) -> *mut c_void {
    let kind = GC_gcj_kind.load(Ordering::Relaxed);
    let Some(kind) = kinds::known(kind).filter(|_| kind != 0) else {
        return oom(bytes);
    };
    let object = allocate(kind, bytes);
    if cell_at(object).is_some_and(|cell| cell.kind == kind) {
        // SAFETY: a fresh object of at least a word.
        unsafe { object.cast::<*mut c_void>().write(table) };
    }
    object
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kinds::tests::{Record, cell_of};

    fn make(bits: &[usize], len: usize) -> usize {
        let mut map = vec![0usize; len.div_ceil(64).max(1)];
        for b in bits {
            map[b / 64] |= 1 << (b % 64);
        }
        // SAFETY: `map` has `len` bits.
        unsafe { GC_make_descriptor(map.as_ptr(), len) }
    }

    fn reported(descriptor: usize, words: &[usize]) -> Vec<usize> {
        let mut record = Record::default();
        kinds::described(descriptor, cell_of(words), &mut record);
        record.0
    }

    #[test]
    fn a_layout_reports_exactly_its_words() {
        let words: Vec<usize> = (100..300).collect();
        let third: Vec<usize> = (0..200).step_by(3).collect();
        for bits in [
            vec![],
            vec![0],
            vec![1],
            vec![0, 1, 2],
            vec![61],
            vec![60, 61],
            vec![0, 62],
            vec![63],
            vec![199],
            third,
        ] {
            let descriptor = make(&bits, 200);
            let expected: Vec<usize> = bits.iter().map(|b| 100 + b).collect();
            assert_eq!(reported(descriptor, &words), expected, "{bits:?}");
        }
        assert_eq!(make(&[], 0), 0);
        assert_eq!(make(&[0, 1, 2, 3], 9), 32);
        // A cell that is shorter than its layout.
        assert_eq!(reported(make(&[0, 62, 150], 200), &words[..63]), [100, 162]);
    }

    #[test]
    fn an_array_reports_each_element_and_nothing_before_it_is_set_up() {
        let descriptor = make(&[1], 2);
        let mut words = [1, 2, 3, 4, 5, 6, 0, 0, 0, 0];
        let mut record = Record::default();
        scan_array(cell_of(&words), &mut record);
        assert_eq!(record.0, []);
        words[7..].copy_from_slice(&[3, 16, descriptor]);
        scan_array(cell_of(&words), &mut record);
        assert_eq!(record.0, [2, 4, 6]);
        // Nonsense in the tail reports nothing.
        words[7..].copy_from_slice(&[usize::MAX, 16, descriptor]);
        let mut record = Record::default();
        scan_array(cell_of(&words), &mut record);
        assert_eq!(record.0, []);
    }
}
