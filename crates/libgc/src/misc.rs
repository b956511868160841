//! What is left: the lock, checks of pointers, dumps, and what is without effect here.

use crate::alloc::cell_around;
use crate::config;
use crate::stack::GC_fn_type;
use crate::{finalize, state, usage};
use core::ffi::{c_char, c_int, c_void};
use core::fmt::{self, Write};
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use heapwright::alloc::{MAX_SMALL, Small};

/// Called for an object with its size and data.
pub type GC_reachable_object_proc = unsafe extern "C-unwind" fn(*mut c_void, usize, *mut c_void);

/// Where messages of the log go, dumps, and what is wrong.
static LOG_FD: AtomicI32 = AtomicI32::new(libc::STDERR_FILENO);
static OUTPUT_FD: AtomicI32 = AtomicI32::new(libc::STDOUT_FILENO);
static ERROR_FD: AtomicI32 = AtomicI32::new(libc::STDERR_FILENO);

/// Registered displacements, as far as [`GC_is_valid_displacement`] looks: bit n for n bytes.
static DISPLACEMENTS: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

/// A displacement was registered.
pub(crate) fn note_displacement(offset: usize) {
    if let Some(word) = DISPLACEMENTS.get(offset / 64) {
        word.fetch_or(1 << (offset % 64), Ordering::Relaxed);
    }
}

/// Runs `f(data)` with the heap's lock held: no collection happens meanwhile, and `f` must not allocate.
///
/// # Safety
/// `f` can be called with `data`. If it leaves by a jump or an exception, the lock stays taken.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_call_with_alloc_lock(
    f: GC_fn_type,
    data: *mut c_void,
) -> *mut c_void {
    let Some(heap) = state::heap() else {
        // Without a heap there is nothing that could happen meanwhile.
        // SAFETY: the caller's promise.
        return unsafe { f(data) };
    };
    heap.lock();
    // SAFETY: the caller's promise.
    let result = unsafe { f(data) };
    heap.unlock();
    result
}

/// Takes the heap's lock.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_alloc_lock() {
    if let Some(heap) = state::heap() {
        heap.lock();
    }
}

/// Releases the heap's lock.
#[unsafe(no_mangle)]
pub extern "C" fn GC_alloc_unlock() {
    if let Some(heap) = state::heap_if_ready() {
        heap.unlock();
    }
}

/// As `dlopen`, with collecting off: the loader's lists are not walked while they change.
///
/// # Safety
/// As for `dlopen`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_dlopen(path: *const c_char, mode: c_int) -> *mut c_void {
    // The lists are read under the loader's own lock, so nothing needs to be off.
    // SAFETY: the caller's promise.
    unsafe { libc::dlopen(path, mode) }
}

// ---- checks of pointers ----------------------------------------------------------------------------------------------

/// Gives back its first argument; if the two are in different objects, or the second in none and the first in one, calls
/// `GC_same_obj_print_proc`.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_same_obj(first: *mut c_void, second: *mut c_void) -> *mut c_void {
    let start = |p: *mut c_void| cell_around(p).map(|cell| cell.start);
    if start(first) != start(second)
        && let Some(f) = config::GC_same_obj_print_proc.get()
    {
        // SAFETY: the client's function.
        unsafe { f(first, second) };
    }
    first
}

/// Adds `bytes` to `*place` and gives the new value; checks as [`GC_same_obj`].
///
/// # Safety
/// `place` can be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_pre_incr(place: *mut *mut c_void, bytes: isize) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe {
        let new = (*place).wrapping_byte_offset(bytes);
        *place = GC_same_obj(new, *place);
        new
    }
}

/// Adds `bytes` to `*place` and gives the old value; checks as [`GC_same_obj`].
///
/// # Safety
/// `place` can be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_post_incr(place: *mut *mut c_void, bytes: isize) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe {
        let old = *place;
        *place = GC_same_obj(old.wrapping_byte_offset(bytes), old);
        old
    }
}

/// Gives back its argument: every place is taken to be visible.
#[unsafe(no_mangle)]
pub extern "C" fn GC_is_visible(place: *mut c_void) -> *mut c_void {
    place
}

/// Gives back its argument; if it points into an object at a place where pointers do not count, calls
/// `GC_is_valid_displacement_print_proc`.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_is_valid_displacement(inside: *mut c_void) -> *mut c_void {
    let valid = cell_around(inside).is_none_or(|cell| {
        let offset = inside.addr() - cell.start.as_usize();
        offset == 0
            || config::GC_get_all_interior_pointers() != 0
            || DISPLACEMENTS
                .get(offset / 64)
                .is_some_and(|w| w.load(Ordering::Relaxed) >> (offset % 64) & 1 != 0)
    });
    if !valid && let Some(f) = config::GC_is_valid_displacement_print_proc.get() {
        // SAFETY: the client's function.
        unsafe { f(inside) };
    }
    inside
}

/// Calls `f(object, bytes, data)` for each object that is in use. The caller holds the heap's lock.
///
/// # Safety
/// `f` can be called; it does not allocate.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_enumerate_reachable_objects_inner(
    f: GC_reachable_object_proc,
    data: *mut c_void,
) {
    let Some(heap) = state::heap_if_ready() else {
        return;
    };
    heap.for_each_allocated(|cell| {
        // SAFETY: the caller's promise.
        unsafe { f(cell.start.as_mut_ptr(), cell.bytes, data) };
    });
}

/// Bytes of the object that a small request gets, as the collector rounds it; `usize::MAX` for a request that is negative or not
/// small.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_size_map_at(request: c_int) -> usize {
    usize::try_from(request)
        .ok()
        .map(|bytes| bytes + config::extra())
        .filter(|bytes| *bytes <= MAX_SMALL)
        .map_or(usize::MAX, |bytes| Small::of(bytes).bytes())
}

/// The stock library's private state, which it exports without a header that says what is in it: zeros of the same size, so
/// that what refers to it can be started.
#[unsafe(no_mangle)]
pub static GC_arrays: [AtomicU64; 0x2_c9f0 / 8] = [const { AtomicU64::new(0) }; 0x2_c9f0 / 8];

// ---- stores that an incremental collector would want to know of ------------------------------------------------------

/// Stores a pointer.
///
/// # Safety
/// `place` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn GC_ptr_store_and_dirty(place: *mut c_void, value: *const c_void) {
    // SAFETY: the caller's promise.
    unsafe { place.cast::<*const c_void>().write_unaligned(value) };
}

/// Stores a pointer.
///
/// # Safety
/// `place` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn GC_debug_ptr_store_and_dirty(place: *mut c_void, value: *const c_void) {
    // SAFETY: the caller's promise.
    unsafe { GC_ptr_store_and_dirty(place, value) };
}

/// Without effect: it is not necessary to know which objects change.
#[unsafe(no_mangle)]
pub extern "C" fn GC_end_stubborn_change(_object: *const c_void) {}

/// Without effect, as [`GC_end_stubborn_change`].
#[unsafe(no_mangle)]
pub extern "C" fn GC_debug_end_stubborn_change(_object: *const c_void) {}

/// Without effect, as [`GC_end_stubborn_change`].
#[unsafe(no_mangle)]
pub extern "C" fn GC_change_stubborn(_object: *const c_void) {}

/// Without effect, as [`GC_end_stubborn_change`].
#[unsafe(no_mangle)]
pub extern "C" fn GC_debug_change_stubborn(_object: *const c_void) {}

/// Takes a value, so that a compiler does not think it unused.
#[unsafe(no_mangle)]
pub extern "C" fn GC_noop1(value: usize) {
    core::hint::black_box(value);
}

/// Gives back its argument. Dead parts of the stack are not cleared: what they hold keeps objects alive at most until they
/// are overwritten.
#[unsafe(no_mangle)]
pub extern "C" fn GC_clear_stack(value: *mut c_void) -> *mut c_void {
    value
}

// ---- dumps -----------------------------------------------------------------------------------------------------------

/// Sends messages of the log to another descriptor than standard error.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_log_fd(fd: c_int) {
    LOG_FD.store(fd, Ordering::Relaxed);
}

/// Where log messages go.
pub(crate) fn log_fd() -> c_int {
    LOG_FD.load(Ordering::Relaxed)
}

/// Where dumps go.
pub(crate) fn output_fd() -> c_int {
    OUTPUT_FD.load(Ordering::Relaxed)
}

/// Where leaks and other faults of the program are reported.
pub(crate) fn error_fd() -> c_int {
    ERROR_FD.load(Ordering::Relaxed)
}

/// Sends all that is written here to a file, and not only messages of the log.
pub(crate) fn write_to(fd: c_int) {
    OUTPUT_FD.store(fd, Ordering::Relaxed);
    ERROR_FD.store(fd, Ordering::Relaxed);
}

/// Text on its way to a descriptor, put together without malloc.
pub(crate) struct Out {
    pub(crate) fd: c_int,
}

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            // SAFETY: readable bytes.
            let n = unsafe { libc::write(self.fd, rest.as_ptr().cast(), rest.len()) };
            match usize::try_from(n) {
                Ok(n) if n > 0 => rest = rest.get(n..).unwrap_or_default(),
                _ => return Err(fmt::Error),
            }
        }
        Ok(())
    }
}

/// Writes the heap's counters to standard output.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_dump() {
    // SAFETY: null is allowed.
    unsafe { GC_dump_named(ptr::null()) };
}

/// As [`GC_dump`], with a name in its first line.
///
/// # Safety
/// `name` is null or a terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_dump_named(name: *const c_char) {
    let mut out = Out { fd: output_fd() };
    // A dump that cannot be written is cut.
    if !name.is_null() {
        // SAFETY: the caller's promise.
        if let Ok(name) = unsafe { core::ffi::CStr::from_ptr(name) }.to_str() {
            let _ = writeln!(out, "GC dump {name}");
        }
    }
    let _ = dump(&mut out);
}

fn dump(out: &mut Out) -> fmt::Result {
    writeln!(out, "collections: {}", state::GC_get_gc_no())?;
    writeln!(
        out,
        "heap: {} bytes, {} of them free",
        usage::GC_get_heap_size(),
        usage::GC_get_free_bytes()
    )?;
    writeln!(
        out,
        "allocated: {} bytes, {} since the last collection",
        usage::GC_get_total_bytes(),
        usage::GC_get_bytes_since_gc()
    )?;
    writeln!(out, "static roots: {} bytes", config::static_bytes())?;
    dump_finalization(out)
}

fn dump_finalization(out: &mut Out) -> fmt::Result {
    let Some(heap) = state::heap_if_ready() else {
        return Ok(());
    };
    let [finalizers, queued, short, long] = finalize::counts(heap);
    writeln!(
        out,
        "finalizers: {finalizers} registered, {queued} queued; links: {short} short, {long} long"
    )
}

/// Writes the heap's bounds to standard output.
#[unsafe(no_mangle)]
pub extern "C" fn GC_dump_regions() {
    if let Some(heap) = state::heap_if_ready() {
        let (low, high) = heap.bounds();
        let _ = writeln!(Out { fd: output_fd() }, "heap from {low} to {high}");
    }
}

/// Writes the numbers of finalizers and links to standard output.
#[unsafe(no_mangle)]
pub extern "C" fn GC_dump_finalization() {
    let _ = dump_finalization(&mut Out { fd: output_fd() });
}

/// There are no free lists to print.
#[unsafe(no_mangle)]
pub extern "C" fn GC_print_free_list(_kind: c_int, _granules: usize) {}

// ---- printf ----------------------------------------------------------------------------------------------------------

/// `vdprintf` for the three functions below: descriptor by number, format, and the arguments.
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn print(target: c_int, format: *const c_char, arguments: *mut c_void) {
    unsafe extern "C" {
        fn vdprintf(fd: c_int, format: *const c_char, arguments: *mut c_void) -> c_int;
    }
    let fd = match target {
        0 => log_fd(),
        libc::STDOUT_FILENO => output_fd(),
        _ => error_fd(),
    };
    // SAFETY: the client's format and arguments.
    unsafe { vdprintf(fd, format, arguments) };
}

/// The body of a variadic function with one named argument: stores the argument registers and calls [`print()`] with a
/// `va_list` (System V ABI, x86-64): 8 bytes of the general registers are used up, the other arguments follow the return
/// address.
#[cfg(target_arch = "x86_64")]
macro_rules! variadic {
    ($($(#[$doc:meta])* $name:ident, $target:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// The arguments fit the format.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name(format: *const c_char) {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "sub rsp, 216",
                ".cfi_adjust_cfa_offset 216",
                "mov [rsp + 40], rsi",
                "mov [rsp + 48], rdx",
                "mov [rsp + 56], rcx",
                "mov [rsp + 64], r8",
                "mov [rsp + 72], r9",
                "test al, al",
                "je 2f",
                "movaps [rsp + 80], xmm0",
                "movaps [rsp + 96], xmm1",
                "movaps [rsp + 112], xmm2",
                "movaps [rsp + 128], xmm3",
                "movaps [rsp + 144], xmm4",
                "movaps [rsp + 160], xmm5",
                "movaps [rsp + 176], xmm6",
                "movaps [rsp + 192], xmm7",
                "2:",
                "mov dword ptr [rsp], 8",
                "mov dword ptr [rsp + 4], 48",
                "lea rax, [rsp + 224]",
                "mov [rsp + 8], rax",
                "lea rax, [rsp + 32]",
                "mov [rsp + 16], rax",
                "mov rsi, rdi",
                "mov edi, {target}",
                "mov rdx, rsp",
                "call {print}",
                "add rsp, 216",
                ".cfi_adjust_cfa_offset -216",
                "ret",
                ".cfi_endproc",
                target = const $target,
                print = sym print,
            )
        }
    )*};
}

#[cfg(target_arch = "x86_64")]
variadic! {
    /// `printf` to standard output, unbuffered. For clients that call it; nothing else here prints.
    GC_printf, 1;
    /// `printf` to standard error, unbuffered.
    GC_err_printf, 2;
    /// `printf` to where log messages go, see [`GC_set_log_fd`].
    GC_log_printf, 0;
}
