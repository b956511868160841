//! Which threads there are: records, registration, and how a thread comes and goes.
//!
//! A record belongs to one thread from registration until the thread is unregistered. Records live in mapped memory that
//! is never given back, because a signal may still be on its way to a handler that reads one; they are used again.
//!
//! | state    | stack scanned | signalled | meaning                                                    |
//! |----------|---------------|-----------|------------------------------------------------------------|
//! | free     | no            | no        | for the next thread; its runs are still the heap's         |
//! | live     | yes           | yes       | registered (not signalled while blocked, see `stack`)      |
//! | finished | its result    | no        | ended, created by `GC_pthread_create` and not yet joined   |
//!
//! The state changes only with the heap's lock held; so a thread cannot come or go while the world is stopped.

use crate::stack::{self, Section};
use crate::state::{self, BoehmHeap};
use crate::tls;
use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use heapwright::LocalRuns;
use heapwright_os::real_port;

/// Not in use.
pub(crate) const FREE: u32 = 0;
/// A registered thread.
pub(crate) const LIVE: u32 = 1;
/// A thread that ended, whose result is kept for `GC_pthread_join`.
pub(crate) const FINISHED: u32 = 2;

/// What is known of one thread.
///
/// The fields are written by the thread itself or with the heap's lock held, and read by the collector with the world
/// stopped; they are atomic because the suspend handler writes some of them.
#[derive(Debug)]
#[repr(C)]
pub struct ThreadRecord {
    pub(crate) runs: LocalRuns,
    next: AtomicPtr<ThreadRecord>,
    pub(crate) state: AtomicU32,
    pub(crate) tid: AtomicI32,
    pub(crate) pthread: AtomicUsize,
    /// Not 0: the process's first thread, whose stack's bottom is `GC_stackbottom`.
    pub(crate) main: AtomicU32,
    /// How many threads have had this record.
    pub(crate) incarnation: AtomicU32,
    /// Not 0: `GC_pthread_detach` was called or it was created detached.
    pub(crate) detached: AtomicU32,
    /// Not 0: created by `GC_pthread_create`, so somebody may join it through us.
    pub(crate) created: AtomicU32,
    /// What the thread returned, while it is finished.
    pub(crate) result: AtomicUsize,
    /// The cold end of its stack, as registered or set since.
    pub(crate) bottom: AtomicUsize,
    /// The stack that the system gave it.
    pub(crate) native_low: AtomicUsize,
    pub(crate) native_high: AtomicUsize,
    /// Its thread pointer, above the static thread-local storage.
    pub(crate) thread_pointer: AtomicUsize,
    /// Not 0: inside of `GC_do_blocking`; `stack_pointer` says where its stack is to be scanned from.
    pub(crate) blocked: AtomicU32,
    /// Where its stack is to be scanned from while it is stopped or blocked.
    pub(crate) stack_pointer: AtomicUsize,
    /// The signal frame's registers while it is stopped by a signal; 0 otherwise.
    pub(crate) context: AtomicUsize,
    /// The innermost active section within a blocked one (`GC_call_with_gc_active`).
    pub(crate) sections: AtomicPtr<Section>,
    /// The number of the stop that it has acknowledged last.
    pub(crate) acknowledged: AtomicU32,
    /// When it did, if somebody wants to know: monotonic clock, in nanoseconds.
    pub(crate) stopped_ns: AtomicU64,
    /// Odd: `GC_suspend_thread` wants it to wait. Counts up with each suspension and each resumption. A futex.
    pub(crate) suspended: AtomicU32,
    /// The value of `suspended` that it waits for the end of, or waited for last; `stack_pointer` and `context` are set.
    /// A futex.
    pub(crate) parked: AtomicU32,
    /// How many finalizers the thread is running, one within the other.
    pub(crate) finalizing: AtomicU32,
    /// Occasions to run more that it let pass meanwhile.
    pub(crate) finalizing_skipped: AtomicU32,
    /// How often the key's destructor has put off the end.
    exit_rounds: AtomicU32,
}

/// All records that were ever made. Records are added with the heap's lock held, and never taken out.
static RECORDS: AtomicPtr<ThreadRecord> = AtomicPtr::new(ptr::null_mut());

/// Records are mapped this many at a time.
const SLAB: usize = 16;

/// The key whose destructor unregisters a thread that ends without having done so; plus 1, 0 while there is none.
static EXIT_KEY: AtomicUsize = AtomicUsize::new(0);

/// How many rounds of destructors of other keys may still use the heap: one less than POSIX guarantees.
const EXIT_ROUNDS: u32 = 2;

/// Visits every record there is. Heap lock held, or world stopped.
pub(crate) fn each(mut visit: impl FnMut(&'static ThreadRecord)) {
    let mut at = RECORDS.load(Ordering::Acquire);
    // SAFETY: records in the list are initialised and are never unmapped.
    while let Some(record) = unsafe { at.as_ref() } {
        visit(record);
        at = record.next.load(Ordering::Acquire);
    }
}

/// The first record that fits. Heap lock held.
pub(crate) fn find(fits: impl Fn(&ThreadRecord) -> bool) -> Option<&'static ThreadRecord> {
    let mut at = RECORDS.load(Ordering::Acquire);
    // SAFETY: as in `each`.
    while let Some(record) = unsafe { at.as_ref() } {
        if fits(record) {
            return Some(record);
        }
        at = record.next.load(Ordering::Acquire);
    }
    None
}

/// The record of a thread by its pthread identifier, in one of the states given. Heap lock held.
pub(crate) fn by_pthread(thread: libc::pthread_t, states: &[u32]) -> Option<&'static ThreadRecord> {
    find(|r| {
        r.pthread.load(Ordering::Relaxed) == thread as usize
            && states.contains(&r.state.load(Ordering::Relaxed))
    })
}

/// The calling thread's record, if it is registered.
#[inline(always)]
pub(crate) fn current() -> Option<&'static ThreadRecord> {
    // SAFETY: the word is null or the record that `attach` put there, which is never unmapped.
    unsafe { tls::current().as_ref() }
}

/// The heap and the calling thread's runs: what an allocation needs. Makes the heap and registers the thread if that has
/// not happened; `None` if one of them failed for lack of memory. The heap's lock must not be held.
#[inline(always)]
pub(crate) fn mutator() -> Option<(&'static BoehmHeap, &'static LocalRuns)> {
    match current() {
        // SAFETY: a thread is registered only after the heap was made.
        Some(record) => Some((unsafe { state::heap_unchecked() }, &record.runs)),
        None => attach_unknown(),
    }
}

/// An allocation of a thread that nobody registered: Boehm's collector aborts when such a thread collects; we register
/// it with the stack that the system gave it.
#[cold]
#[inline(never)]
fn attach_unknown() -> Option<(&'static BoehmHeap, &'static LocalRuns)> {
    let heap = state::heap()?;
    // Making the heap registers the thread that does it.
    let record = match current() {
        Some(record) => record,
        None => attach(heap, None)?,
    };
    Some((heap, &record.runs))
}

/// Registers the calling thread with the bottom given, or with that of its system stack. Heap lock not held. `None` if
/// there is no memory for the record.
pub(crate) fn attach(
    heap: &'static BoehmHeap,
    bottom: Option<usize>,
) -> Option<&'static ThreadRecord> {
    // Asked before the lock is taken: it may call malloc.
    let (low, high) = stack::system_bounds();
    // SAFETY: these have no preconditions.
    let (thread, tid, pid) = unsafe { (libc::pthread_self(), libc::gettid(), libc::getpid()) };
    if tid != pid {
        heap.allow_helpers();
    }
    heap.lock();
    let record = free_record(thread as usize);
    if let Some(record) = record {
        let bottom = bottom.unwrap_or(high);
        record.tid.store(tid, Ordering::Relaxed);
        record.pthread.store(thread as usize, Ordering::Relaxed);
        record.main.store(u32::from(tid == pid), Ordering::Relaxed);
        record.native_low.store(low, Ordering::Relaxed);
        record.native_high.store(high, Ordering::Relaxed);
        record.bottom.store(bottom, Ordering::Relaxed);
        record
            .thread_pointer
            .store(stack::thread_pointer(), Ordering::Relaxed);
        for flag in [
            &record.detached,
            &record.created,
            &record.blocked,
            &record.suspended,
            &record.parked,
            &record.exit_rounds,
        ] {
            flag.store(0, Ordering::Relaxed);
        }
        record.incarnation.fetch_add(1, Ordering::Relaxed);
        record.result.store(0, Ordering::Relaxed);
        record.context.store(0, Ordering::Relaxed);
        record.stack_pointer.store(0, Ordering::Relaxed);
        record.sections.store(ptr::null_mut(), Ordering::Relaxed);
        tls::set_current(ptr::from_ref(record).cast_mut());
        record.state.store(LIVE, Ordering::Release);
    }
    heap.unlock();
    if let Some(record) = record {
        arm_exit(record);
        crate::stop::unblock_signal();
    }
    record
}

/// Takes a free record, or one of a finished thread whose identifier the system has given to the caller. Lock held.
fn free_record(thread: usize) -> Option<&'static ThreadRecord> {
    if let Some(stale) = find(|r| {
        r.state.load(Ordering::Relaxed) != FREE && r.pthread.load(Ordering::Relaxed) == thread
    }) {
        return Some(stale);
    }
    if let Some(record) = find(|r| r.state.load(Ordering::Relaxed) == FREE) {
        return Some(record);
    }
    let port = real_port();
    let page = port.page_size();
    let bytes = (SLAB * size_of::<ThreadRecord>()).next_multiple_of(page);
    let slab = port.reserve(bytes, page).ok()?;
    if port.commit(slab, bytes).is_err() {
        // Nothing refers to the range; if it cannot be released either, it stays reserved and unused.
        let _ = port.release(slab, bytes);
        return None;
    }
    port.name(slab, bytes, c"heapwright threads");
    let first: *mut ThreadRecord = slab.as_mut_ptr();
    for i in 0..SLAB {
        // SAFETY: within the slab, which is committed and zero: a valid record, free and without runs.
        let record = unsafe { first.add(i) };
        // SAFETY: as above; nobody else has it yet.
        unsafe {
            (*record)
                .next
                .store(RECORDS.load(Ordering::Relaxed), Ordering::Relaxed)
        };
        RECORDS.store(record, Ordering::Release);
    }
    // SAFETY: in the list now.
    unsafe { RECORDS.load(Ordering::Relaxed).as_ref() }
}

/// Unregisters the calling thread, whose record this is. A result is kept for the joining thread if there may be one.
/// Heap lock not held.
pub(crate) fn detach(heap: &'static BoehmHeap, record: &'static ThreadRecord) {
    disarm_exit();
    // While the thread is still registered: a collection in between keeps the cells of its runs.
    heap.flush(&record.runs);
    heap.lock();
    tls::set_current(ptr::null_mut());
    let joinable =
        record.created.load(Ordering::Relaxed) != 0 && record.detached.load(Ordering::Relaxed) == 0;
    record
        .state
        .store(if joinable { FINISHED } else { FREE }, Ordering::Release);
    heap.unlock();
}

/// Makes the key. Called once, when the heap is made.
pub(crate) fn make_exit_key() {
    let mut key = 0;
    // SAFETY: a valid place for a key and a function that lives as long as the library, which is never unloaded while
    // threads with a value exist.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(on_thread_exit)) } == 0 {
        EXIT_KEY.store(key as usize + 1, Ordering::Release);
    }
}

fn exit_key() -> Option<libc::pthread_key_t> {
    let key = EXIT_KEY.load(Ordering::Acquire);
    key.checked_sub(1)
        .and_then(|k| libc::pthread_key_t::try_from(k).ok())
}

fn arm_exit(record: &'static ThreadRecord) {
    if let Some(key) = exit_key() {
        // If there is no memory for the value, the thread is found gone when it is signalled next.
        // SAFETY: our key.
        let _ = unsafe { libc::pthread_setspecific(key, ptr::from_ref(record).cast()) };
    }
}

fn disarm_exit() {
    if let Some(key) = exit_key() {
        // SAFETY: our key; storing null needs no memory.
        let _ = unsafe { libc::pthread_setspecific(key, ptr::null()) };
    }
}

/// The key's destructor. Destructors of other keys may still allocate, in any order, so the end is put off for as many
/// rounds as are safe.
extern "C" fn on_thread_exit(value: *mut c_void) {
    let Some(record) = current() else { return };
    if !ptr::eq(ptr::from_ref(record).cast(), value) {
        return;
    }
    let Some(heap) = state::heap_if_ready() else {
        return;
    };
    if record.exit_rounds.fetch_add(1, Ordering::Relaxed) < EXIT_ROUNDS {
        arm_exit(record);
    } else {
        detach(heap, record);
    }
}

/// In the child of a fork: only the calling thread is left. Heap lock held.
pub(crate) fn forget_others() {
    let me = tls::current();
    // SAFETY: no precondition.
    let tid = unsafe { libc::gettid() };
    each(|record| {
        if ptr::eq(record, me) {
            record.tid.store(tid, Ordering::Relaxed);
            record.main.store(1, Ordering::Relaxed);
            if record.native_high.load(Ordering::Relaxed) != stack::main_top() {
                // The thread that forked was not the first: its stack keeps its own bottom, in the variable of the first.
                stack::set_main_bottom(record.bottom.load(Ordering::Relaxed));
            }
        } else {
            // The runs stay with the record for the next thread that gets it: its cells are still the heap's.
            record.state.store(FREE, Ordering::Relaxed);
        }
    });
}

/// `struct GC_stack_base`.
#[derive(Debug)]
#[repr(C)]
pub struct GC_stack_base {
    /// The cold end of a stack.
    pub mem_base: *mut c_void,
}

/// Success, for the functions that say so.
pub(crate) const GC_SUCCESS: c_int = 0;
/// Registered already.
pub(crate) const GC_DUPLICATE: c_int = 1;
/// What is asked for cannot be done here.
pub(crate) const GC_UNIMPLEMENTED: c_int = 3;

/// Registers the calling thread with the bottom of its stack. 0, or 1 if it was registered already; 3 if there was no
/// memory to do so.
///
/// # Safety
/// `base` must be readable; its address must be the cold end of the calling thread's stack.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_register_my_thread(base: *const GC_stack_base) -> c_int {
    let Some(heap) = state::heap() else {
        return GC_UNIMPLEMENTED;
    };
    if current().is_some() {
        return GC_DUPLICATE;
    }
    // SAFETY: the caller's promise.
    let bottom = unsafe { base.as_ref() }
        .map(|b| b.mem_base.addr())
        .filter(|b| *b != 0);
    if attach(heap, bottom).is_some() {
        GC_SUCCESS
    } else {
        GC_UNIMPLEMENTED
    }
}

/// Unregisters the calling thread, which must not use the heap any more. 0; 4 if it was not registered.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_unregister_my_thread() -> c_int {
    let (Some(heap), Some(record)) = (state::heap_if_ready(), current()) else {
        return 4;
    };
    detach(heap, record);
    GC_SUCCESS
}

/// Is the calling thread registered?
#[unsafe(no_mangle)]
pub extern "C" fn GC_thread_is_registered() -> c_int {
    c_int::from(current().is_some())
}

/// Makes `GC_register_my_thread` possible: it always is. Makes the heap if need be.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_allow_register_threads() {
    let _ = state::heap();
}

/// The cold end of the calling thread's system stack. 0, or 3 if the system does not tell.
///
/// # Safety
/// `base` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn GC_get_stack_base(base: *mut GC_stack_base) -> c_int {
    let (_, high) = stack::system_bounds();
    if high == 0 {
        return GC_UNIMPLEMENTED;
    }
    // SAFETY: the caller's promise.
    unsafe { (*base).mem_base = ptr::with_exposed_provenance_mut(high) };
    GC_SUCCESS
}

/// The cold end of the calling thread's present stack, as it was registered or set since; returns a handle for
/// [`GC_set_stackbottom`], null if the thread cannot be registered.
///
/// # Safety
/// `base` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_get_my_stackbottom(base: *mut GC_stack_base) -> *mut c_void {
    if mutator().is_none() {
        return ptr::null_mut();
    }
    let Some(record) = current() else {
        return ptr::null_mut();
    };
    // SAFETY: the caller's promise.
    unsafe { (*base).mem_base = ptr::with_exposed_provenance_mut(stack::bottom_of(record)) };
    ptr::from_ref(record).cast_mut().cast()
}

/// Sets the cold end of a thread's present stack. Null stands for the calling thread. To be called with the heap's lock
/// held or with the world stopped, or before the heap is made, for the first thread.
///
/// # Safety
/// `handle` must be null or from [`GC_get_my_stackbottom`]; `base` must be readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn GC_set_stackbottom(handle: *mut c_void, base: *const GC_stack_base) {
    // SAFETY: the caller's promise.
    let bottom = unsafe { (*base).mem_base.addr() };
    let record = if handle.is_null() {
        current()
    } else {
        // SAFETY: the caller's promise: a record, which is never unmapped.
        unsafe { handle.cast::<ThreadRecord>().as_ref() }
    };
    match record {
        Some(r) if r.main.load(Ordering::Relaxed) == 0 => r.bottom.store(bottom, Ordering::Relaxed),
        _ => stack::set_main_bottom(bottom),
    }
}

/// Tells where an alternative signal stack is. Nothing needs to be kept: a thread that is stopped on a stack that is not
/// the system's has both scanned.
#[unsafe(no_mangle)]
pub extern "C" fn GC_register_altstack(
    _stack: *mut c_void,
    _bytes: usize,
    _alternative: *mut c_void,
    _alternative_bytes: usize,
) {
}
