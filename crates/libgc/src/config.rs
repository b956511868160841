//! Settings: Boehm's variables, their getters and setters, and the client's callbacks.
//!
//! Exported variables may be written by clients at any time, so they are read where they matter, and not copied, with two
//! exceptions for the sake of the allocation path: [`extra`] follows `GC_all_interior_pointers`, and whether the heap
//! collects follows `GC_dont_gc`; both are looked at again in the slow path ([`before_allocation`]).
//!
//! Settings of mechanisms that this collector does not have (incremental collection, blacklists, allocation in big
//! steps) are stored and returned.

use crate::callback::Callback;
use crate::finalize::GC_finalizer_notifier_proc;
use crate::state::{self, BoehmHeap};
use crate::{kinds, roots};
use core::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use heapwright::CollectionStats;

/// Called when memory has run out, with the size that was asked for; what it returns is returned.
pub type GC_oom_func = unsafe extern "C-unwind" fn(usize) -> *mut c_void;
/// Asked whether a collection is to stop.
pub type GC_stop_func = unsafe extern "C-unwind" fn() -> c_int;
/// Given a message for `printf` with one number.
pub type GC_warn_proc = unsafe extern "C-unwind" fn(*mut c_char, usize);
/// Given the last message.
pub type GC_abort_func = unsafe extern "C-unwind" fn(*const c_char);
/// Called at the start of each collection.
pub type GC_start_callback_proc = unsafe extern "C-unwind" fn();
/// Called at the steps of a collection.
pub type GC_on_collection_event_proc = unsafe extern "C-unwind" fn(c_int);
/// Called when a thread is stopped and started, with the thread.
pub type GC_on_thread_event_proc = unsafe extern "C-unwind" fn(c_int, *mut c_void);
/// Called with the heap's new size when it has changed.
pub type GC_on_heap_resize_proc = unsafe extern "C-unwind" fn(usize);
/// Called about one pointer.
pub type Pointer_print_proc = unsafe extern "C-unwind" fn(*mut c_void);
/// Called about two pointers.
pub type Pointers_print_proc = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void);

macro_rules! variables {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$doc])* #[unsafe(no_mangle)] pub static $name: $type = $value;)*
    };
}

variables! {
    /// Not 0: pointers into objects keep them, not only those to their start.
    GC_all_interior_pointers: AtomicI32 = AtomicI32::new(1);
    /// Not 0: the heap should not grow. Stored only: the limit is the setting that binds.
    GC_dont_expand: AtomicI32 = AtomicI32::new(0);
    /// Not 0: nothing is collected.
    GC_dont_gc: AtomicI32 = AtomicI32::new(0);
    /// Not 0: no collection before a client has set up its roots. None happens before the first allocation anyway.
    GC_dont_precollect: AtomicI32 = AtomicI32::new(0);
    /// Not 0: finalizers run only in `GC_invoke_finalizers`.
    GC_finalize_on_demand: AtomicI32 = AtomicI32::new(0);
    /// Not 0: the client wants leaks to be found. Stored only.
    GC_find_leak: AtomicI32 = AtomicI32::new(0);
    /// How many partial collections between two full ones. All are full.
    GC_full_freq: AtomicI32 = AtomicI32::new(19);
    /// Not 0: what objects with unordered finalizers refer to is kept for them. It always is.
    GC_java_finalization: AtomicI32 = AtomicI32::new(1);
    /// Stored only.
    GC_use_entire_heap: AtomicI32 = AtomicI32::new(0);
    /// Called when finalizers wait, if they run on demand.
    GC_finalizer_notifier: Callback<GC_finalizer_notifier_proc> = Callback::NONE;
    /// The larger, the more often a collection, and the smaller the heap.
    GC_free_space_divisor: AtomicUsize = AtomicUsize::new(DIVISOR);
    /// Stored only.
    GC_max_retries: AtomicUsize = AtomicUsize::new(0);
    /// Bytes that the client does not want to count as collectable. Stored only.
    GC_non_gc_bytes: AtomicUsize = AtomicUsize::new(0);
    /// Called when the heap's size has changed, with the heap's lock held.
    GC_on_heap_resize: Callback<GC_on_heap_resize_proc> = Callback::NONE;
    /// Called when memory has run out.
    #[allow(clippy::undocumented_unsafe_blocks, reason = "the lint does not see comments in a macro\'s argument")]
    GC_oom_fn: Callback<GC_oom_func> = {
        // SAFETY: a function of that type.
        unsafe { Callback::first(no_memory as *mut c_void) }
    };
    /// Milliseconds that an incremental step may take. Stored only.
    GC_time_limit: AtomicUsize = AtomicUsize::new(50);
    /// Called by `GC_abort_on_oom`.
    #[allow(clippy::undocumented_unsafe_blocks, reason = "the lint does not see comments in a macro\'s argument")]
    GC_on_abort: Callback<GC_abort_func> = {
        // SAFETY: a function of that type.
        unsafe { Callback::first(no_message as *mut c_void) }
    };
    /// Called about pointers that `GC_same_obj` finds to be in different objects.
    #[allow(clippy::undocumented_unsafe_blocks, reason = "the lint does not see comments in a macro\'s argument")]
    GC_same_obj_print_proc: Callback<Pointers_print_proc> = {
        // SAFETY: a function of that type.
        unsafe { Callback::first(ignore_two as *mut c_void) }
    };
    /// Called about pointers that `GC_is_valid_displacement` finds not to count.
    #[allow(clippy::undocumented_unsafe_blocks, reason = "the lint does not see comments in a macro\'s argument")]
    GC_is_valid_displacement_print_proc: Callback<Pointer_print_proc> = {
        // SAFETY: a function of that type.
        unsafe { Callback::first(ignore_one as *mut c_void) }
    };
    /// Would be called about pointers that the collector does not see; all are taken to be seen.
    #[allow(clippy::undocumented_unsafe_blocks, reason = "the lint does not see comments in a macro\'s argument")]
    GC_is_visible_print_proc: Callback<Pointer_print_proc> = {
        // SAFETY: a function of that type.
        unsafe { Callback::first(ignore_one as *mut c_void) }
    };
    /// Free lists of atomic objects: always empty.
    GC_aobjfreelist_ptr: AtomicPtr<c_void> = AtomicPtr::new(kinds::empty_free_list());
    /// Free lists of normal objects: always empty.
    GC_objfreelist_ptr: AtomicPtr<c_void> = AtomicPtr::new(kinds::empty_free_list());
    /// Free lists of uncollectable objects: always empty.
    GC_uobjfreelist_ptr: AtomicPtr<c_void> = AtomicPtr::new(kinds::empty_free_list());
    /// Free lists of uncollectable atomic objects: always empty.
    GC_auobjfreelist_ptr: AtomicPtr<c_void> = AtomicPtr::new(kinds::empty_free_list());
}

/// Boehm's divisor by default; it stands for the growth that the heap's options say.
const DIVISOR: usize = 3;

unsafe extern "C-unwind" fn no_memory(_bytes: usize) -> *mut c_void {
    ptr::null_mut()
}
unsafe extern "C-unwind" fn no_message(_message: *const c_char) {}
unsafe extern "C-unwind" fn ignore_one(_pointer: *mut c_void) {}
unsafe extern "C-unwind" fn ignore_two(_first: *mut c_void, _second: *mut c_void) {}
unsafe extern "C-unwind" fn never_stop() -> c_int {
    0
}

static WARN: Callback<GC_warn_proc> =
    // SAFETY: a function of that type.
    unsafe { Callback::first(GC_ignore_warn_proc as *mut c_void) };
// SAFETY: a function of that type.
static STOP: Callback<GC_stop_func> = unsafe { Callback::first(never_stop as *mut c_void) };
static START: Callback<GC_start_callback_proc> = Callback::NONE;
static COLLECTION_EVENT: Callback<GC_on_collection_event_proc> = Callback::NONE;
static THREAD_EVENT: Callback<GC_on_thread_event_proc> = Callback::NONE;

/// What is added to each request: 1 while all interior pointers count.
static EXTRA: AtomicUsize = AtomicUsize::new(1);
/// The heap's collecting is off because of `GC_dont_gc` or `DISABLE_AUTOMATIC`.
static OFF: AtomicBool = AtomicBool::new(false);
/// Not 0: only explicit collections.
static DISABLE_AUTOMATIC: AtomicI32 = AtomicI32::new(0);
/// The limit that was set before there was a heap, plus 1; 0: none was set.
static EARLY_MAX: AtomicUsize = AtomicUsize::new(0);
static FORCE_UNMAP: AtomicI32 = AtomicI32::new(0);
/// Bytes freed explicitly since the last collection.
static FREED: AtomicUsize = AtomicUsize::new(0);
/// Bytes that collections have freed.
static RECLAIMED: AtomicUsize = AtomicUsize::new(0);
static RECLAIMED_LAST: AtomicUsize = AtomicUsize::new(0);
/// Time of all pauses in nanoseconds, while it is measured.
static MEASURED: AtomicU64 = AtomicU64::new(0);
static MEASURING: AtomicBool = AtomicBool::new(false);
/// The heap's size when the client was last told.
static KNOWN_SIZE: AtomicUsize = AtomicUsize::new(0);

/// What is added to each request.
#[inline(always)]
pub(crate) fn extra() -> usize {
    EXTRA.load(Ordering::Relaxed)
}

/// The heap was just made: applies what was set before, and the environment.
pub(crate) fn init(heap: &BoehmHeap) {
    if std::env::var_os("GC_ALL_INTERIOR_POINTERS").is_some() {
        GC_all_interior_pointers.store(1, Ordering::Relaxed);
    }
    apply_interior(heap);
    if let Some(max) = EARLY_MAX.load(Ordering::Relaxed).checked_sub(1) {
        heap.set_max(max);
    }
    if let Some(max) = size("GC_MAXIMUM_HEAP_SIZE") {
        heap.set_max(max);
    }
    if let Some(initial) = size("GC_INITIAL_HEAP_SIZE") {
        // A heap that cannot be made larger now grows later, or not.
        let _ = heap.expand(initial);
    }
    if let Some(divisor) = number("GC_FREE_SPACE_DIVISOR").filter(|d| *d > 0) {
        GC_free_space_divisor.store(divisor, Ordering::Relaxed);
    }
    if std::env::var_os("GC_DONT_GC").is_some() {
        GC_dont_gc.store(1, Ordering::Relaxed);
    }
    if let Some(on) = is_on("GC_FORCE_UNMAP_ON_GCOLLECT") {
        FORCE_UNMAP.store(i32::from(on), Ordering::Relaxed);
    }
    if let Some(on) = is_on("GC_USE_ENTIRE_HEAP") {
        GC_use_entire_heap.store(i32::from(on), Ordering::Relaxed);
    }
    if let Some(often) = number("GC_FULL_FREQUENCY").and_then(|n| i32::try_from(n).ok()) {
        GC_full_freq.store(often, Ordering::Relaxed);
    }
    if let Some(ms) = number("GC_PAUSE_TIME_TARGET").filter(|ms| *ms > 0) {
        GC_time_limit.store(ms, Ordering::Relaxed);
    }
    apply_divisor(heap);
    crate::leaks::init();
    before_allocation(heap);
}

/// A variable that switches something on, or off if it is `0`.
pub(crate) fn is_on(name: &str) -> Option<bool> {
    Some(std::env::var_os(name)? != "0")
}

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.trim().parse().ok()
}

fn size(name: &str) -> Option<usize> {
    heapwright::options::size(&std::env::var(name).ok()?)
        .ok()
        .filter(|n| *n != 0)
}

fn apply_interior(heap: &BoehmHeap) {
    let all = GC_all_interior_pointers.load(Ordering::Relaxed) != 0;
    EXTRA.store(usize::from(all), Ordering::Relaxed);
    heap.set_interior(all);
}

fn apply_divisor(heap: &BoehmHeap) {
    let divisor = GC_free_space_divisor.load(Ordering::Relaxed).max(1);
    if divisor != DIVISOR {
        heap.set_growth(heap.options().growth * DIVISOR / divisor);
    }
}

/// Looks at the variables again that the heap has its own copy of. In the slow path of each allocation.
#[inline]
pub(crate) fn before_allocation(heap: &BoehmHeap) {
    let off =
        GC_dont_gc.load(Ordering::Relaxed) != 0 || DISABLE_AUTOMATIC.load(Ordering::Relaxed) != 0;
    if off != OFF.load(Ordering::Relaxed) {
        switch(heap, off);
    }
}

#[cold]
#[inline(never)]
fn switch(heap: &BoehmHeap, off: bool) {
    if OFF.swap(off, Ordering::Relaxed) != off {
        if off {
            heap.disable();
        } else {
            heap.enable();
        }
    }
}

/// Runs a collection that the client asked for, which happens even if automatic ones are off; not if all are off.
pub(crate) fn collect_explicitly(
    heap: &BoehmHeap,
    collect: impl FnOnce(&BoehmHeap) -> bool,
) -> bool {
    if GC_dont_gc.load(Ordering::Relaxed) != 0 {
        return false;
    }
    let lifted = DISABLE_AUTOMATIC.load(Ordering::Relaxed) != 0 && heap.enable();
    let collected = collect(heap);
    if lifted {
        heap.disable();
    }
    collected
}

/// An object was freed explicitly.
pub(crate) fn freed(bytes: usize) {
    FREED.fetch_add(bytes, Ordering::Relaxed);
}

/// A collection ended. Heap lock held, world running.
pub(crate) fn collected(stats: &CollectionStats) {
    let reclaimed = stats.before_bytes.saturating_sub(stats.live_bytes);
    FREED.store(0, Ordering::Relaxed);
    RECLAIMED.fetch_add(
        RECLAIMED_LAST.swap(reclaimed, Ordering::Relaxed),
        Ordering::Relaxed,
    );
    if MEASURING.load(Ordering::Relaxed) {
        MEASURED.fetch_add(stats.pause_ns, Ordering::Relaxed);
    }
    if KNOWN_SIZE.swap(stats.heap_bytes, Ordering::Relaxed) != stats.heap_bytes
        && let Some(resized) = GC_on_heap_resize.get()
    {
        // SAFETY: the client's function, called as the interface says: the lock is held.
        unsafe { resized(stats.heap_bytes) };
    }
}

/// For the counters of module `usage`: bytes freed explicitly since the last collection, reclaimed by it, and before.
pub(crate) fn reclaimed() -> [usize; 3] {
    [&FREED, &RECLAIMED_LAST, &RECLAIMED].map(|n| n.load(Ordering::Relaxed))
}

/// Is idle memory given back after each explicit collection?
pub(crate) fn force_unmap() -> bool {
    FORCE_UNMAP.load(Ordering::Relaxed) != 0
}

/// The client's callback for the start of a collection.
pub(crate) fn start_callback() -> Option<GC_start_callback_proc> {
    START.get()
}

/// Tells the client of a step of a collection.
pub(crate) fn collection_event(event: c_int) {
    if let Some(f) = COLLECTION_EVENT.get() {
        // SAFETY: the client's function, called as the interface says.
        unsafe { f(event) };
    }
}

/// Tells the client that a thread was stopped or started.
pub(crate) fn thread_event(event: c_int, thread: usize) {
    if let Some(f) = THREAD_EVENT.get() {
        // SAFETY: the client's function, called as the interface says.
        unsafe { f(event, ptr::without_provenance_mut(thread)) };
    }
}

// ---- functions of the client's ---------------------------------------------------------------------------------------

macro_rules! callbacks {
    ($($variable:ident: $type:ty, $set:ident, $get:ident, $what:literal;)*) => {$(
        #[doc = concat!("Sets the function ", $what, ".")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $set(function: Option<$type>) {
            $variable.set(function);
        }

        #[doc = concat!("The function ", $what, ".")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $get() -> Option<$type> {
            $variable.get()
        }
    )*};
}

callbacks! {
    START: GC_start_callback_proc, GC_set_start_callback, GC_get_start_callback,
        "that is called at the start of each collection, with the heap's lock held and the world running";
    COLLECTION_EVENT: GC_on_collection_event_proc, GC_set_on_collection_event, GC_get_on_collection_event,
        "that is called at the steps of each collection, with the heap's lock held";
    THREAD_EVENT: GC_on_thread_event_proc, GC_set_on_thread_event, GC_get_on_thread_event,
        "that is called for each thread that is stopped and started";
    GC_on_heap_resize: GC_on_heap_resize_proc, GC_set_on_heap_resize, GC_get_on_heap_resize,
        "that is called when a collection finds the heap's size changed, with the heap's lock held";
    GC_finalizer_notifier: GC_finalizer_notifier_proc, GC_set_finalizer_notifier, GC_get_finalizer_notifier,
        "that is called after a collection that leaves finalizers waiting, if they run on demand";
}

macro_rules! needed_callbacks {
    ($($variable:ident: $type:ty, $set:ident, $get:ident, $what:literal;)*) => {$(
        #[doc = concat!("Sets the function ", $what, ". Null is ignored.")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $set(function: Option<$type>) {
            if function.is_some() {
                $variable.set(function);
            }
        }

        #[doc = concat!("The function ", $what, ". Not null.")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $get() -> Option<$type> {
            $variable.get()
        }
    )*};
}

needed_callbacks! {
    GC_oom_fn: GC_oom_func, GC_set_oom_fn, GC_get_oom_fn, "that is called when memory has run out";
    WARN: GC_warn_proc, GC_set_warn_proc, GC_get_warn_proc, "that is given warnings, of which there are none at present";
    STOP: GC_stop_func, GC_set_stop_func, GC_get_stop_func, "that incremental collections ask whether to stop";
    GC_on_abort: GC_abort_func, GC_set_abort_func, GC_get_abort_func, "that is given the last message before an abort";
}

/// A warning function that ignores its warning.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_ignore_warn_proc(_message: *mut c_char, _argument: usize) {}

/// Gives the last message to the client and ends the process: for clients that call it.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_abort_on_oom() {
    abort(c"Insufficient memory for the allocation")
}

/// Ends the process after a last message, as the client asked.
pub(crate) fn abort(message: &CStr) -> ! {
    if let Some(f) = GC_on_abort.get() {
        // SAFETY: the client's function, and a terminated text.
        unsafe { f(message.as_ptr()) };
    }
    // SAFETY: the client asked for it.
    unsafe { libc::abort() }
}

// ---- switches --------------------------------------------------------------------------------------------------------

/// Nothing is collected until [`GC_enable`]; nests.
#[unsafe(no_mangle)]
pub extern "C" fn GC_disable() {
    GC_dont_gc.fetch_add(1, Ordering::Relaxed);
    sync();
}

/// Undoes one [`GC_disable`].
#[unsafe(no_mangle)]
pub extern "C" fn GC_enable() {
    // More calls of this than of the other are the client's mistake; the count stays at 0.
    let _ = GC_dont_gc.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
        (n > 0).then(|| n - 1)
    });
    sync();
}

fn sync() {
    if let Some(heap) = state::heap_if_ready() {
        before_allocation(heap);
    }
}

/// Is collecting off?
#[unsafe(no_mangle)]
pub extern "C" fn GC_is_disabled() -> c_int {
    c_int::from(GC_dont_gc.load(Ordering::Relaxed) != 0)
}

/// Not 0: only collections that the client asks for take place.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_disable_automatic_collection(off: c_int) {
    DISABLE_AUTOMATIC.store(off, Ordering::Relaxed);
    sync();
}

/// Do only collections take place that the client asks for?
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_disable_automatic_collection() -> c_int {
    DISABLE_AUTOMATIC.load(Ordering::Relaxed)
}

/// Not 0: pointers into objects keep them, and requests are made one byte larger. To be set before the first allocation.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_all_interior_pointers(all: c_int) {
    GC_all_interior_pointers.store(c_int::from(all != 0), Ordering::Relaxed);
    if let Some(heap) = state::heap_if_ready() {
        apply_interior(heap);
    }
}

/// The larger, the smaller the heap and the more collections: 3 by default, which stands for the growth of the heap's
/// options; twice as much is half of that growth. 0 is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_free_space_divisor(divisor: usize) {
    if divisor == 0 {
        return;
    }
    GC_free_space_divisor.store(divisor, Ordering::Relaxed);
    if let Some(heap) = state::heap_if_ready() {
        heap.set_growth(heap.options().growth * DIVISOR / divisor);
    }
}

/// Limits the heap, in bytes; 0: no limit.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_max_heap_size(bytes: usize) {
    EARLY_MAX.store(bytes.saturating_add(1), Ordering::Relaxed);
    if let Some(heap) = state::heap_if_ready() {
        heap.set_max(bytes);
    }
}

/// Makes room for `bytes` more: 1, or 0 if the limit or the system refuses.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_expand_hp(bytes: usize) -> c_int {
    c_int::from(state::heap().is_some_and(|heap| heap.expand(bytes).is_ok()))
}

/// Lets pointers to `offset` bytes behind an object's start count.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_register_displacement(offset: usize) {
    if let Some(heap) = state::heap()
        && heap.register_displacement(offset)
    {
        crate::misc::note_displacement(offset);
    }
}

macro_rules! plain {
    ($($type:ty: $variable:expr, $get:ident $(, $set:ident)?, $what:literal;)*) => {$(
        #[doc = concat!("The setting: ", $what, ".")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $get() -> $type {
            $variable.load(Ordering::Relaxed) as $type
        }

        $(
            #[doc = concat!("Sets: ", $what, ".")]
            #[unsafe(no_mangle)]
            pub extern "C" fn $set(value: $type) {
                $variable.store(value as _, Ordering::Relaxed);
            }
        )?
    )*};
}

static ALLOCATED_PER_FINALIZER: AtomicUsize = AtomicUsize::new(10_000);
static PAGES_EXECUTABLE: AtomicI32 = AtomicI32::new(0);
static MIN_BYTES: AtomicUsize = AtomicUsize::new(1);
static RATE: AtomicI32 = AtomicI32::new(10);
static PRIOR_ATTEMPTS: AtomicI32 = AtomicI32::new(3);
static MANUAL_VDB: AtomicI32 = AtomicI32::new(0);

plain! {
    c_int: GC_all_interior_pointers, GC_get_all_interior_pointers, "all pointers into objects keep them";
    c_int: GC_finalize_on_demand, GC_get_finalize_on_demand, GC_set_finalize_on_demand, "finalizers run on demand";
    c_int: GC_java_finalization, GC_get_java_finalization, GC_set_java_finalization, "unordered finalizers see whole objects";
    c_int: GC_find_leak, GC_get_find_leak, GC_set_find_leak, "leaks are to be found and printed";
    c_int: GC_dont_expand, GC_get_dont_expand, GC_set_dont_expand, "the heap should not grow; stored only";
    c_int: GC_dont_precollect, GC_get_dont_precollect, GC_set_dont_precollect, "no collection at the start; there is none";
    c_int: GC_full_freq, GC_get_full_freq, GC_set_full_freq, "partial collections between full ones; all are full";
    usize: GC_free_space_divisor, GC_get_free_space_divisor, "the larger, the smaller the heap";
    usize: GC_max_retries, GC_get_max_retries, GC_set_max_retries, "attempts before memory has run out; stored only";
    usize: GC_non_gc_bytes, GC_get_non_gc_bytes, GC_set_non_gc_bytes, "bytes not to be counted as collectable; stored only";
    c_ulong: GC_time_limit, GC_get_time_limit, GC_set_time_limit, "milliseconds for an incremental step; stored only";
    usize: ALLOCATED_PER_FINALIZER, GC_get_allocd_bytes_per_finalizer, GC_set_allocd_bytes_per_finalizer,
        "bytes that a finalizer counts for; stored only";
    c_int: PAGES_EXECUTABLE, GC_get_pages_executable, GC_set_pages_executable,
        "objects may be executed; they never may";
    usize: MIN_BYTES, GC_get_min_bytes_allocd, GC_set_min_bytes_allocd, "bytes between two collections; stored only";
    c_int: RATE, GC_get_rate, GC_set_rate, "the size of an incremental step; stored only";
    c_int: PRIOR_ATTEMPTS, GC_get_max_prior_attempts, GC_set_max_prior_attempts, "attempts of an incremental step; stored only";
    c_int: MANUAL_VDB, GC_get_manual_vdb_allowed, GC_set_manual_vdb_allowed, "the client tells what it writes; stored only";
    c_int: FORCE_UNMAP, GC_get_force_unmap_on_gcollect, GC_set_force_unmap_on_gcollect,
        "an explicit collection gives idle memory back";
}

/// `struct GC_timeval_s`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct GC_timeval_s {
    /// Milliseconds.
    pub tv_ms: c_ulong,
    /// And nanoseconds.
    pub tv_nsec: c_ulong,
}

static TIME_LIMIT_NS: AtomicUsize = AtomicUsize::new(0);

/// Sets the time for an incremental step; stored only.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_time_limit_tv(limit: GC_timeval_s) {
    GC_time_limit.store(limit.tv_ms as usize, Ordering::Relaxed);
    TIME_LIMIT_NS.store(limit.tv_nsec as usize, Ordering::Relaxed);
}

/// The time for an incremental step.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_time_limit_tv() -> GC_timeval_s {
    GC_timeval_s {
        tv_ms: GC_time_limit.load(Ordering::Relaxed) as c_ulong,
        tv_nsec: TIME_LIMIT_NS.load(Ordering::Relaxed) as c_ulong,
    }
}

/// Begins to add up the time of collections.
#[unsafe(no_mangle)]
pub extern "C" fn GC_start_performance_measurement() {
    MEASURING.store(true, Ordering::Relaxed);
}

/// Milliseconds of all pauses since [`GC_start_performance_measurement`].
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_full_gc_total_time() -> c_ulong {
    (MEASURED.load(Ordering::Relaxed) / 1_000_000) as c_ulong
}

/// 8.2.2, as the interface that this is.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_version() -> c_uint {
    8 << 16 | 2 << 8 | 2
}

// ---- incremental collection, which there is not ----------------------------------------------------------------------

/// Makes the heap; collections stay as they are.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_enable_incremental() {
    state::GC_init();
}

/// Are collections incremental? No.
#[unsafe(no_mangle)]
pub extern "C" fn GC_is_incremental_mode() -> c_int {
    0
}

/// What incremental collections protect: nothing.
#[unsafe(no_mangle)]
pub extern "C" fn GC_incremental_protection_needs() -> c_int {
    0
}

/// Without effect: collections are not incremental.
#[unsafe(no_mangle)]
pub extern "C" fn GC_start_incremental_collection() {}

/// Bytes of static roots at the last collection, for the dump.
pub(crate) fn static_bytes() -> usize {
    roots::static_bytes()
}
