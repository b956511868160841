//! The debugging variants: objects with a header that says where they were allocated, and marks at both ends.
//!
//! The layout of a debugging object, in words: file name, line, size asked for, start mark; the client's bytes; end mark.
//! The client's pointer is [`HEADER`] bytes behind the start of the cell. Freeing checks the marks and the size, and leaves
//! an object alone that is none. Module [`crate::leaks`] prints what collections find.

use crate::alloc::{
    self, ATOMIC, ATOMIC_UNCOLLECTABLE, NORMAL, TYPED, UNCOLLECTABLE, cell_around, exact,
    first_page, oom, pointer, slow,
};
use crate::finalize::{self, GC_finalization_proc};
use crate::{config, kinds, typed};
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering, compiler_fence};
use heapwright::{Address, Cell, Kind};

const WORD: usize = size_of::<usize>();
/// Bytes before the client's.
const HEADER: usize = 4 * WORD;
/// Bytes before and after the client's.
const AROUND: usize = HEADER + WORD;
const START_MARK: usize = 0xfede_dead_beef_face;
const END_MARK: usize = 0xbaad_c0de_cafe_f00d;

/// Bytes before a debugging object.
#[unsafe(no_mangle)]
pub static GC_debug_header_size: usize = HEADER;

/// Bytes before a debugging object.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_debug_header_size() -> usize {
    HEADER
}

/// There were objects with headers.
static STARTED: AtomicBool = AtomicBool::new(false);
/// What the client frees is left to the next collection.
static DELAY_FREE: AtomicBool = AtomicBool::new(false);
/// In the place of the start mark: the client freed it, and a collection has still to look at it.
const FREED_MARK: usize = 0x0dea_d0dd_f00d_fade;
/// What a freed object is filled with until then.
const FILL: u8 = 0xef;

/// Clients have pointers to the place behind the header: they must count also when not all interior pointers do.
fn started() {
    if !STARTED.swap(true, Ordering::Relaxed) {
        config::GC_register_displacement(HEADER);
    }
}

/// Were there objects with headers?
pub(crate) fn is_started() -> bool {
    STARTED.load(Ordering::Relaxed)
}

/// From now on, what the client frees is left to the next collection.
pub(crate) fn delay_free() {
    DELAY_FREE.store(true, Ordering::Relaxed);
}

/// What a cell is to who looks for damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No object with a header.
    Plain,
    /// One as it should be.
    Whole,
    /// The word at this address was overwritten.
    Damaged(usize),
    /// Freed by the client, and untouched since.
    Freed,
    /// Freed by the client, and written to since, at this address.
    FreedAndWritten(usize),
}

/// Looks at a cell. World stopped.
pub(crate) fn look(cell: Cell) -> Found {
    if cell.bytes < AROUND {
        return Found::Plain;
    }
    // SAFETY: the first words of a cell.
    let [_, _, bytes, mark] = unsafe { cell.start.load::<[usize; 4]>() };
    if mark != START_MARK && mark != FREED_MARK || bytes > cell.bytes - AROUND {
        return Found::Plain;
    }
    let object = cell.start.add(HEADER);
    let end = object.add(bytes);
    // SAFETY: within the cell.
    let whole = unsafe { end.as_ptr::<usize>().read_unaligned() } == END_MARK;
    if !whole {
        return Found::Damaged(end.as_usize());
    }
    if mark == START_MARK {
        return Found::Whole;
    }
    // SAFETY: within the cell, which the client has freed.
    let filled = unsafe { core::slice::from_raw_parts(object.as_ptr::<u8>(), bytes) };
    match filled.iter().position(|b| *b != FILL) {
        Some(at) => Found::FreedAndWritten(object.as_usize() + at),
        None => Found::Freed,
    }
}

/// Its damage is known: it counts as a plain cell from now on, whose header says where it came from. World stopped.
pub(crate) fn forget(cell: Cell) {
    // SAFETY: the start mark of a cell that `look` found a header in.
    unsafe { cell.start.as_mut_ptr::<usize>().add(3).write(0) };
}

/// The client's pointer, and file, line and size as the header of the cell that starts here has them.
pub(crate) fn describe(cell: usize) -> (usize, [usize; 3]) {
    // SAFETY: a cell that has, or had, a header, and that is kept.
    (cell + HEADER, unsafe { Address::new(cell).load() })
}

/// Has the cell that starts here a header?
pub(crate) fn has_header(cell: usize) -> bool {
    header(pointer(cell + HEADER)).is_some()
}

/// Allocates with `allocate` and puts header and marks around the client's bytes.
#[inline]
fn make(
    bytes: usize,
    file: *const c_char,
    line: c_int,
    allocate: impl FnOnce(usize) -> *mut c_void,
) -> *mut c_void {
    started();
    let Some(whole) = bytes.checked_add(AROUND) else {
        return oom(bytes);
    };
    let base = allocate(whole);
    // What the client's out-of-memory function returned is no object of ours.
    match cell_around(base) {
        Some(cell) if cell.bytes >= whole && cell.start.as_usize() == base.addr() => {}
        _ => return base,
    }
    // SAFETY: within the cell, which nobody else has; words are written unaligned at the end.
    unsafe {
        base.byte_add(HEADER + bytes)
            .cast::<usize>()
            .write_unaligned(END_MARK);
        // A collection that stops the thread here finds a header only when all is in place.
        compiler_fence(Ordering::SeqCst);
        base.cast::<[usize; 3]>()
            .write([file.expose_provenance(), line as usize, bytes]);
        compiler_fence(Ordering::SeqCst);
        base.cast::<usize>().add(3).write(START_MARK);
        base.byte_add(HEADER)
    }
}

/// The start of the cell, the kind and the size of a debugging object.
fn header(object: *mut c_void) -> Option<(*mut c_void, Kind, usize)> {
    let cell = cell_around(object)?;
    let start = cell.start.as_usize();
    if object.addr().checked_sub(HEADER)? != start || cell.bytes < AROUND {
        return None;
    }
    // SAFETY: the first words of a cell.
    let [_, _, bytes, mark] = unsafe { cell.start.load::<[usize; 4]>() };
    (mark == START_MARK && bytes <= cell.bytes - AROUND).then(|| (pointer(start), cell.kind, bytes))
}

macro_rules! variants {
    ($($name:ident, $allocate:expr, $plain:literal;)*) => {$(
        #[doc = concat!("As `", $plain, "`, with a debugging header.")]
        #[unsafe(no_mangle)]
        pub extern "C-unwind" fn $name(bytes: usize, file: *const c_char, line: c_int) -> *mut c_void {
            make(bytes, file, line, $allocate)
        }
    )*};
}

variants! {
    GC_debug_malloc, |n| slow(NORMAL, n), "GC_malloc";
    GC_debug_malloc_atomic, |n| slow(ATOMIC, n), "GC_malloc_atomic";
    GC_debug_malloc_stubborn, |n| slow(NORMAL, n), "GC_malloc_stubborn";
    GC_debug_malloc_uncollectable, |n| exact(UNCOLLECTABLE, n, n), "GC_malloc_uncollectable";
    GC_debug_malloc_atomic_uncollectable, |n| exact(ATOMIC_UNCOLLECTABLE, n, n), "GC_malloc_atomic_uncollectable";
    GC_debug_malloc_ignore_off_page, |n| first_page(NORMAL, n), "GC_malloc_ignore_off_page";
    GC_debug_malloc_atomic_ignore_off_page, |n| first_page(ATOMIC, n), "GC_malloc_atomic_ignore_off_page";
}

/// As `GC_malloc`, with a debugging header that names no place.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_debug_malloc_replacement(bytes: usize) -> *mut c_void {
    GC_debug_malloc(bytes, c"unknown".as_ptr(), 0)
}

/// As `GC_generic_or_special_malloc`, with a debugging header.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_debug_generic_or_special_malloc(
    bytes: usize,
    kind: c_int,
    file: *const c_char,
    line: c_int,
) -> *mut c_void {
    make(bytes, file, line, |n| {
        alloc::GC_generic_or_special_malloc(n, kind)
    })
}

/// As `GC_gcj_malloc`, with a debugging header; the mark procedure scans the object.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_debug_gcj_malloc(
    bytes: usize,
    table: *mut c_void,
    file: *const c_char,
    line: c_int,
) -> *mut c_void {
    let kind = typed::GC_gcj_debug_kind.load(Ordering::Relaxed);
    let Some(kind) = kinds::known(kind).filter(|_| kind != 0) else {
        return oom(bytes);
    };
    let object = make(bytes, file, line, |n| slow(kind, n));
    if bytes >= WORD && header(object).is_some_and(|(_, k, _)| k == kind) {
        // SAFETY: the first word of a fresh object.
        unsafe { object.cast::<*mut c_void>().write(table) };
    }
    object
}

/// As `GC_strdup`, with a debugging header.
///
/// # Safety
/// `string` is null or a terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_debug_strdup(
    string: *const c_char,
    file: *const c_char,
    line: c_int,
) -> *mut c_char {
    if string.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the caller's promise.
    unsafe { copy_string(string, libc::strlen(string), file, line) }
}

/// As `GC_strndup`, with a debugging header.
///
/// # Safety
/// `string` is null, or readable for `most` bytes or up to a terminator before that.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_debug_strndup(
    string: *const c_char,
    most: usize,
    file: *const c_char,
    line: c_int,
) -> *mut c_char {
    if string.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the caller's promise.
    unsafe { copy_string(string, libc::strnlen(string, most), file, line) }
}

/// # Safety
/// `bytes` bytes can be read.
unsafe fn copy_string(
    string: *const c_char,
    bytes: usize,
    file: *const c_char,
    line: c_int,
) -> *mut c_char {
    let copy: *mut c_char = GC_debug_malloc_atomic(bytes.saturating_add(1), file, line).cast();
    if copy.is_null() {
        // SAFETY: the calling thread's errno.
        unsafe { *libc::__errno_location() = libc::ENOMEM };
        return copy;
    }
    // SAFETY: a fresh object of one byte more.
    unsafe {
        ptr::copy_nonoverlapping(string, copy, bytes);
        copy.add(bytes).write(0);
    }
    copy
}

/// As `GC_free`, for an object with a debugging header; other objects are freed as they are.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_debug_free(object: *mut c_void) {
    match header(object) {
        Some((base, kind, bytes))
            if DELAY_FREE.load(Ordering::Relaxed)
                && config::GC_get_find_leak() != 0
                && kind != UNCOLLECTABLE
                && kind != ATOMIC_UNCOLLECTABLE =>
        {
            // SAFETY: the client's object, which it has given up.
            unsafe {
                object.cast::<u8>().write_bytes(FILL, bytes);
                base.cast::<usize>().add(3).write(FREED_MARK);
            }
        }
        Some((base, ..)) => {
            // So that it is no debugging object any more when it is freed again.
            // SAFETY: the header of an allocated object.
            unsafe { base.cast::<usize>().add(3).write(0) };
            alloc::GC_free(base);
        }
        None => alloc::GC_free(object),
    }
}

/// As `GC_realloc`, for an object with a debugging header; it always moves.
///
/// # Safety
/// As for `GC_realloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_debug_realloc(
    object: *mut c_void,
    bytes: usize,
    file: *const c_char,
    line: c_int,
) -> *mut c_void {
    if object.is_null() {
        return GC_debug_malloc(bytes, file, line);
    }
    if bytes == 0 {
        GC_debug_free(object);
        return ptr::null_mut();
    }
    let Some((_, kind, old)) = header(object) else {
        // SAFETY: the caller's promise.
        return unsafe { alloc::GC_realloc(object, bytes) };
    };
    let kind = if kind == TYPED { NORMAL } else { kind };
    let new = GC_debug_generic_or_special_malloc(bytes, c_int::from(kind.0), file, line);
    if !new.is_null() {
        // SAFETY: both are at least that large, and different.
        unsafe { ptr::copy_nonoverlapping(object.cast::<u8>(), new.cast(), old.min(bytes)) };
        GC_debug_free(object);
    }
    new
}

/// As [`GC_debug_realloc`], without a place.
///
/// # Safety
/// As for `GC_realloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_debug_realloc_replacement(
    object: *mut c_void,
    bytes: usize,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { GC_debug_realloc(object, bytes, c"unknown".as_ptr(), 0) }
}

/// As `GC_register_displacement`, also behind a debugging header.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_debug_register_displacement(offset: usize) {
    config::GC_register_displacement(offset);
    config::GC_register_displacement(offset.saturating_add(HEADER));
}

/// A finalizer of the client's and its data, for an object with a header: what the finalizer of the cell gets as data.
#[repr(C)]
struct Behind {
    function: Option<GC_finalization_proc>,
    data: *mut c_void,
}

/// The finalizer of a cell with a debugging header: calls the client's with the client's pointer.
unsafe extern "C-unwind" fn finalize_behind(base: *mut c_void, data: *mut c_void) {
    // SAFETY: `data` is the `Behind` that was made for it.
    let behind = unsafe { data.cast::<Behind>().read() };
    if let Some(function) = behind.function {
        // SAFETY: the client's function.
        unsafe { function(base.byte_add(HEADER), behind.data) };
    }
}

type Register = unsafe extern "C-unwind" fn(
    *mut c_void,
    Option<GC_finalization_proc>,
    *mut c_void,
    *mut Option<GC_finalization_proc>,
    *mut *mut c_void,
);

/// # Safety
/// `old_function` and `old_data` are null or writable.
unsafe fn register(
    object: *mut c_void,
    function: Option<GC_finalization_proc>,
    data: *mut c_void,
    old_function: *mut Option<GC_finalization_proc>,
    old_data: *mut *mut c_void,
    register: Register,
) {
    let Some((base, ..)) = header(object) else {
        // SAFETY: the caller's promise.
        return unsafe { register(object, function, data, old_function, old_data) };
    };
    let mut old = None;
    let mut old_behind = ptr::null_mut();
    let mut behind = ptr::null_mut();
    if function.is_some() {
        behind = slow(NORMAL, size_of::<Behind>());
        if behind.is_null() {
            return;
        }
        // SAFETY: a fresh object of that size.
        unsafe { behind.cast::<Behind>().write(Behind { function, data }) };
    }
    let new = function.map(|_| finalize_behind as GC_finalization_proc);
    // SAFETY: places on this stack.
    unsafe { register(base, new, behind, &raw mut old, &raw mut old_behind) };
    let ours = old.is_some_and(|f| ptr::fn_addr_eq(f, finalize_behind as GC_finalization_proc))
        && !old_behind.is_null();
    if ours {
        // SAFETY: the `Behind` of the finalizer that was registered before.
        let before = unsafe { old_behind.cast::<Behind>().read() };
        // Nobody else refers to it.
        alloc::GC_free(old_behind);
        old = before.function;
        old_behind = before.data;
    }
    // SAFETY: the caller's promise.
    unsafe {
        if !old_function.is_null() {
            old_function.write(old);
        }
        if !old_data.is_null() {
            old_data.write(old_behind);
        }
    }
}

macro_rules! finalizers {
    ($($name:ident, $plain:ident;)*) => {$(
        #[doc = concat!("As `", stringify!($plain), "`, for an object with a debugging header.")]
        ///
        /// # Safety
        /// `old_function` and `old_data` are null or writable; `function` can be called.
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name(
            object: *mut c_void,
            function: Option<GC_finalization_proc>,
            data: *mut c_void,
            old_function: *mut Option<GC_finalization_proc>,
            old_data: *mut *mut c_void,
        ) {
            // SAFETY: the caller's promise.
            unsafe { register(object, function, data, old_function, old_data, finalize::$plain) }
        }
    )*};
}

finalizers! {
    GC_debug_register_finalizer, GC_register_finalizer;
    GC_debug_register_finalizer_ignore_self, GC_register_finalizer_ignore_self;
    GC_debug_register_finalizer_no_order, GC_register_finalizer_no_order;
    GC_debug_register_finalizer_unreachable, GC_register_finalizer_unreachable;
}
