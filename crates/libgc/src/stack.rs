//! Stacks: their bounds, the registers, blocked and active sections, and how each thread's stack is scanned.
//!
//! A stack is scanned from the stack pointer (less the red zone) to its *bottom*, the cold end: the value of
//! [`GC_stackbottom`] for the first thread, what was registered for others. A client that switches stacks may say so by
//! moving the bottom (Crystal), or may not (Nix's coroutines, signal handlers on their own stack). So:
//!
//! | stack pointer       | bottom               | scanned                                                     |
//! |---------------------|----------------------|-------------------------------------------------------------|
//! | in the system stack | above it, there too  | `[sp, bottom)`                                              |
//! | in the system stack | anywhere else        | `[sp, top of the system stack)`                             |
//! | elsewhere           | above it, elsewhere  | `[sp, bottom)`, as far as it is readable                    |
//! | elsewhere           | in the system stack, | from sp on as far as it is readable, at most 64 MiB,        |
//! |                     | or below sp          | and all of the system stack that is in use                  |

use crate::readable;
use crate::state;
use crate::threads::{self, ThreadRecord};
use crate::tls;
use core::ffi::{c_char, c_void};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use heapwright::{Address, WildWord, WordVisitor};

/// The cold end of the first thread's present stack. Clients that switch stacks in the first thread store it directly.
#[unsafe(no_mangle)]
pub static GC_stackbottom: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());

/// Bytes below the stack pointer that a leaf function may use (System V ABI of x86-64; harmless elsewhere).
const RED_ZONE: usize = 128;

/// How much is scanned at most of a stack whose end is not known.
const UNKNOWN_STACK: usize = 64 << 20;

/// The top of the first thread's system stack, and how far down it may reach.
static MAIN_TOP: AtomicUsize = AtomicUsize::new(0);
static MAIN_LOW: AtomicUsize = AtomicUsize::new(0);

/// Bytes of static thread-local storage below the thread pointer that belong to the objects loaded at start.
static STATIC_TLS: AtomicUsize = AtomicUsize::new(0);

/// More than this is not believed to be static thread-local storage.
const STATIC_TLS_MAX: usize = 1 << 20;

/// A part of a stack that is active within a blocked one. Lives in the frame of `GC_call_with_gc_active`; all of the
/// stack above it up to `blocked_from` belongs to functions that do not touch the heap.
#[derive(Debug)]
#[repr(C)]
pub struct Section {
    /// Where the stack of the enclosing blocked section is to be scanned from.
    blocked_from: usize,
    /// The next section outwards.
    outer: *mut Section,
}

/// Finds the bounds of the first thread's stack and of static thread-local storage. Called once, when the heap is made.
pub(crate) fn init() {
    let top = main_stack_end();
    // SAFETY: a struct of integers for which zero is valid, and a place for it.
    let mut limit: libc::rlimit = unsafe { core::mem::zeroed() };
    // SAFETY: as above.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) } == 0;
    // Mappings begin further below the stack than its limit. Without a limit they begin far below.
    let room = if known && limit.rlim_cur != libc::RLIM_INFINITY {
        usize::try_from(limit.rlim_cur).unwrap_or(1 << 40)
    } else {
        1 << 40
    };
    MAIN_TOP.store(top, Ordering::Relaxed);
    MAIN_LOW.store(top.saturating_sub(room), Ordering::Relaxed);
    if GC_stackbottom.load(Ordering::Relaxed).is_null() {
        set_main_bottom(top);
    }
    STATIC_TLS.store(static_tls_bytes(), Ordering::Relaxed);
}

#[cfg(target_env = "gnu")]
fn main_stack_end() -> usize {
    unsafe extern "C" {
        static __libc_stack_end: *mut c_void;
    }
    // SAFETY: the loader's variable, set before any code of ours runs and never changed.
    unsafe { __libc_stack_end }.addr()
}

#[cfg(not(target_env = "gnu"))]
fn main_stack_end() -> usize {
    pthread_bounds().1
}

/// The top of the first thread's system stack.
pub(crate) fn main_top() -> usize {
    MAIN_TOP.load(Ordering::Relaxed)
}

/// Sets [`GC_stackbottom`].
pub(crate) fn set_main_bottom(bottom: usize) {
    GC_stackbottom.store(ptr::with_exposed_provenance_mut(bottom), Ordering::Relaxed);
}

/// The bounds `(low, high)` of the calling thread's system stack. May call malloc.
pub(crate) fn system_bounds() -> (usize, usize) {
    // SAFETY: these have no preconditions.
    if unsafe { libc::gettid() == libc::getpid() } {
        if main_top() == 0 {
            return (0, main_stack_end());
        }
        return (MAIN_LOW.load(Ordering::Relaxed), main_top());
    }
    pthread_bounds()
}

fn pthread_bounds() -> (usize, usize) {
    let mut low = ptr::null_mut();
    let mut bytes = 0;
    // SAFETY: an attributes object is plain memory until it is initialised by `pthread_getattr_np`.
    let mut attributes: libc::pthread_attr_t = unsafe { core::mem::zeroed() };
    // SAFETY: a place for the attributes, and the calling thread.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) } != 0 {
        return (0, 0);
    }
    // SAFETY: initialised above; places for the results.
    let got =
        unsafe { libc::pthread_attr_getstack(&raw const attributes, &raw mut low, &raw mut bytes) };
    // SAFETY: initialised above, destroyed once.
    unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
    if got == 0 {
        (low.addr(), low.addr() + bytes)
    } else {
        (0, 0)
    }
}

/// The calling thread's thread pointer: static thread-local storage lies below it. 0 where that is not so.
pub(crate) fn thread_pointer() -> usize {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        let at: usize;
        // SAFETY: the first word of the thread control block is its own address (ABI for thread-local storage).
        unsafe {
            core::arch::asm!("mov {}, qword ptr fs:[0]", out(reg) at, options(pure, readonly, nostack, preserves_flags))
        };
        at
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    0
}

/// How far the thread-local storage of the objects that are loaded now reaches below the thread pointer.
fn static_tls_bytes() -> usize {
    struct Walk {
        pointer: usize,
        most: usize,
    }
    unsafe extern "C" fn object(
        info: *mut libc::dl_phdr_info,
        size: usize,
        walk: *mut c_void,
    ) -> libc::c_int {
        // SAFETY: `dl_iterate_phdr` gives an object's description and what it was given below.
        let (info, walk) = unsafe { (&*info, &mut *walk.cast::<Walk>()) };
        if size >= size_of::<libc::dl_phdr_info>() && !info.dlpi_tls_data.is_null() {
            let below = walk.pointer.wrapping_sub(info.dlpi_tls_data.addr());
            if below <= STATIC_TLS_MAX {
                walk.most = walk.most.max(below);
            }
        }
        0
    }
    let pointer = thread_pointer();
    if pointer == 0 {
        return 0;
    }
    let mut walk = Walk { pointer, most: 0 };
    // SAFETY: the callback's contract is that of `dl_iterate_phdr`; it gets our `Walk`.
    unsafe { libc::dl_iterate_phdr(Some(object), (&raw mut walk).cast()) };
    let low = Address::new(pointer - walk.most);
    if readable::readable_end(low, Address::new(pointer)).as_usize() == pointer {
        walk.most
    } else {
        0
    }
}

/// The bottom of a thread's present stack.
pub(crate) fn bottom_of(record: &ThreadRecord) -> usize {
    if record.main.load(Ordering::Relaxed) != 0 {
        GC_stackbottom.load(Ordering::Relaxed).addr()
    } else {
        record.bottom.load(Ordering::Relaxed)
    }
}

/// The callee-saved registers, as they were in the caller.
pub(crate) type Registers = [usize; 16];

/// Fills `registers` with the callee-saved registers and returns the stack pointer. Whatever of them this function's
/// callers have saved lies in their frames, above the stack pointer.
#[inline(always)]
pub(crate) fn spill(registers: &mut Registers) -> usize {
    let sp;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: stores six registers into the array.
    unsafe {
        core::arch::asm!(
            "mov [{p}], rbx", "mov [{p} + 8], rbp", "mov [{p} + 16], r12", "mov [{p} + 24], r13",
            "mov [{p} + 32], r14", "mov [{p} + 40], r15", "mov {sp}, rsp",
            p = in(reg) registers.as_mut_ptr(), sp = out(reg) sp, options(nostack, preserves_flags),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: stores twelve registers into the array.
    unsafe {
        core::arch::asm!(
            "stp x19, x20, [{p}]", "stp x21, x22, [{p}, #16]", "stp x23, x24, [{p}, #32]", "stp x25, x26, [{p}, #48]",
            "stp x27, x28, [{p}, #64]", "stp x29, x30, [{p}, #80]", "mov {sp}, sp",
            p = in(reg) registers.as_mut_ptr(), sp = out(reg) sp, options(nostack, preserves_flags),
        );
    }
    sp
}

/// Reports the stacks of all threads: the collecting one's from here, the others' from where they were stopped. World
/// stopped.
#[inline(never)]
pub(crate) fn push_all<T: WordVisitor>(visit: &mut T) {
    let mut registers: Registers = [0; 16];
    let here = spill(&mut registers);
    let me = tls::current();
    let mut known = false;
    threads::each(|record| match record.state.load(Ordering::Relaxed) {
        threads::LIVE => {
            let sp = if ptr::eq(record, me) {
                known = true;
                words(visit, &registers);
                here
            } else {
                record.stack_pointer.load(Ordering::Relaxed)
            };
            push_one(visit, record, sp);
        }
        threads::FINISHED => visit.root_word(WildWord::new(record.result.load(Ordering::Relaxed))),
        _ => {}
    });
    if !known {
        // A thread that could not be registered collects: what is known of it is where its stack is.
        words(visit, &registers);
        let from = Address::new(here & !7);
        let to = readable::readable_end(
            from,
            Address::new(from.as_usize().saturating_add(UNKNOWN_STACK)),
        );
        // SAFETY: readable up to there, which was just asked.
        unsafe { visit.root_range(from, to) };
    }
    // The array must be in memory until all was read from it.
    core::hint::black_box(&registers);
}

fn words<T: WordVisitor>(visit: &mut T, words: &[usize]) {
    for word in words {
        visit.root_word(WildWord::new(*word));
    }
}

/// Reports one thread's registers, stack and static thread-local storage.
fn push_one<T: WordVisitor>(visit: &mut T, record: &ThreadRecord, sp: usize) {
    if let Some(context) = crate::stop::registers_of(record) {
        words(visit, context);
    }
    let mut from = sp.saturating_sub(RED_ZONE) & !7;
    let mut section: *const Section = record.sections.load(Ordering::Relaxed);
    // SAFETY: sections lie in frames of a thread that is stopped, and each is linked to one further out.
    while let Some(s) = unsafe { section.as_ref() } {
        push_range(visit, record, from, section.addr());
        from = s.blocked_from & !7;
        section = s.outer;
    }
    push_range(visit, record, from, bottom_of(record));
    let pointer = record.thread_pointer.load(Ordering::Relaxed);
    let tls = STATIC_TLS.load(Ordering::Relaxed);
    if pointer != 0 && tls != 0 {
        // SAFETY: the live thread's static thread-local storage, of the size found at start.
        unsafe { visit.root_range(Address::new(pointer - tls), Address::new(pointer)) };
    }
}

/// Reports `[from, to)` of a thread's stack by the table at the top.
fn push_range<T: WordVisitor>(visit: &mut T, record: &ThreadRecord, from: usize, to: usize) {
    let (low, high) = (
        record.native_low.load(Ordering::Relaxed),
        record.native_high.load(Ordering::Relaxed),
    );
    let native = |at: usize| low <= at && at <= high;
    if native(from) {
        let to = if from <= to && native(to) { to } else { high };
        // SAFETY: from the live part of a stack to its end, all within the mapping of that stack.
        unsafe { visit.root_range(Address::new(from), Address::new(to)) };
        return;
    }
    let known = from <= to && !native(to);
    let limit = if known {
        to
    } else {
        from.saturating_add(UNKNOWN_STACK)
    };
    let start = Address::new(from);
    let end = readable::readable_end(start, Address::new(limit));
    // SAFETY: readable up to there, which was just asked.
    unsafe { visit.root_range(start, end) };
    if !known && high != 0 {
        let start = readable::mapped_start(Address::new(high), Address::new(low));
        // SAFETY: mapped as a stack, which was just asked.
        unsafe { visit.root_range(start, Address::new(high)) };
    }
}

/// A function of the client's that is called with data.
pub type GC_fn_type = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;
/// A function of the client's that is called with its stack's base and data.
pub type GC_stack_base_func =
    unsafe extern "C-unwind" fn(*mut threads::GC_stack_base, *mut c_void) -> *mut c_void;

/// Calls `f` while the calling thread counts as stopped: it is not signalled, and its stack is scanned as it is now. `f`
/// must not touch the heap but through [`GC_call_with_gc_active`].
///
/// # Safety
/// `f` must be callable with `data`. If it leaves by a jump or an exception, the thread stays blocked.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C-unwind" fn GC_do_blocking(f: GC_fn_type, data: *mut c_void) -> *mut c_void {
    let (Some((heap, _)), Some(record)) = (threads::mutator(), threads::current()) else {
        // SAFETY: the caller's promise.
        return unsafe { f(data) };
    };
    let mut registers: Registers = [0; 16];
    let sp = spill(&mut registers);
    core::hint::black_box(&mut registers);
    enter_blocked(heap, record, sp);
    // SAFETY: the caller's promise.
    let result = unsafe { f(data) };
    leave_blocked(heap, record);
    core::hint::black_box(&mut registers);
    result
}

fn enter_blocked(heap: &state::BoehmHeap, record: &ThreadRecord, sp: usize) {
    heap.lock();
    record.stack_pointer.store(sp, Ordering::Relaxed);
    record.context.store(0, Ordering::Relaxed);
    record.blocked.store(1, Ordering::Relaxed);
    heap.unlock();
}

/// Waits for the end of a stop that goes on, because the lock is held during one, and of a suspension.
fn leave_blocked(heap: &state::BoehmHeap, record: &ThreadRecord) {
    loop {
        heap.lock();
        let suspended = record.suspended.load(Ordering::Relaxed);
        if suspended & 1 == 0 {
            record.blocked.store(0, Ordering::Relaxed);
            heap.unlock();
            return;
        }
        heap.unlock();
        heapwright_os::futex_wait(&record.suspended, suspended, None);
    }
}

/// Calls `f` as an ordinary, active thread: the inverse of [`GC_do_blocking`], within it or not.
///
/// # Safety
/// `f` must be callable with `data`. If it leaves a blocked section by a jump or an exception, the thread stays active.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C-unwind" fn GC_call_with_gc_active(
    f: GC_fn_type,
    data: *mut c_void,
) -> *mut c_void {
    let (Some((heap, _)), Some(record)) = (threads::mutator(), threads::current()) else {
        // SAFETY: the caller's promise.
        return unsafe { f(data) };
    };
    if record.blocked.load(Ordering::Relaxed) == 0 {
        // SAFETY: the caller's promise.
        return unsafe { f(data) };
    }
    let mut section = Section {
        blocked_from: record.stack_pointer.load(Ordering::Relaxed),
        outer: record.sections.load(Ordering::Relaxed),
    };
    leave_blocked(heap, record);
    // The section is entered after the thread became active: a stop in between scans the whole stack, which is safe.
    record.sections.store(&raw mut section, Ordering::Release);
    // SAFETY: the caller's promise.
    let result = unsafe { f(data) };
    heap.lock();
    record.sections.store(section.outer, Ordering::Relaxed);
    record
        .stack_pointer
        .store(section.blocked_from, Ordering::Relaxed);
    record.context.store(0, Ordering::Relaxed);
    record.blocked.store(1, Ordering::Relaxed);
    heap.unlock();
    result
}

/// Calls `f` with the address of a frame that is further out than its own.
///
/// # Safety
/// `f` must be callable with `data`.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C-unwind" fn GC_call_with_stack_base(
    f: GC_stack_base_func,
    data: *mut c_void,
) -> *mut c_void {
    let mut base = threads::GC_stack_base {
        mem_base: ptr::null_mut(),
    };
    base.mem_base = (&raw mut base).cast();
    // SAFETY: the caller's promise.
    let result = unsafe { f(&raw mut base, data) };
    core::hint::black_box(&mut base);
    result
}
