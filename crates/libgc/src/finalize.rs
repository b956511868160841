//! Finalizers.
//!
//! A finalizer belongs to an object and is queued when the object is found unreachable. At the end of the marking of each
//! collection:
//!
//! 1. short links to unmarked objects are cleared (module [`crate::links`]);
//! 2. from each unmarked object with an *ordered* finalizer all that it refers to is marked, so that an object is finalized
//!    before those that it uses, and objects on cycles never (unless the only cycle is the object's reference to itself and
//!    the finalizer was registered with `ignore_self`). An `unreachable` finalizer is ordered too. `no_order` marks nothing;
//! 3. objects that are still unmarked are moved to the queue and marked, those with a `no_order` finalizer with all that
//!    they refer to; an `unreachable` one that such an object reaches goes back and waits;
//! 4. links in dead objects are forgotten, toggle references to dead objects dropped, and long links cleared.
//!
//! Nothing in this needs memory: an entry moves from the table to the queue, where room was made when it was registered.
//! What is queued, and every finalizer's data, are roots.
//!
//! The queue is run by [`GC_invoke_finalizers`]: by the client if it said `GC_finalize_on_demand` (its notifier is called
//! once for each collection that leaves something in the queue), else by the allocation that collected. No lock is held
//! then, and nothing with a destructor is alive, so a finalizer may allocate, collect, throw or jump.

use crate::alloc::{ATOMIC, ATOMIC_UNCOLLECTABLE, cell_at, pointer, untagged};
use crate::callback::Callback;
use crate::config;
use crate::leaks;
use crate::links;
use crate::state::{self, BoehmHeap};
use crate::table::{Entry, Guarded, Queue, Table};
use crate::threads;
use crate::toggle;
use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use heapwright::{Address, Closure, ObjectReference, WildWord, WordVisitor};

/// A finalizer: object and data.
pub type GC_finalization_proc = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void);
/// Told of each object that is queued.
pub type GC_await_finalize_proc = unsafe extern "C-unwind" fn(*mut c_void);
/// Called when there is something in the queue.
pub type GC_finalizer_notifier_proc = unsafe extern "C-unwind" fn();

/// What must be marked before an object can be finalized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
enum Order {
    /// All that it refers to.
    Normal = 0,
    /// All that it refers to but itself.
    IgnoreSelf,
    /// Nothing.
    Unordered,
    /// As normal; and no `Unordered` object that is finalized at the same time may reach it.
    Unreachable,
}

/// One finalizer.
#[derive(Clone, Copy)]
struct Finalizer {
    object: usize,
    function: Option<GC_finalization_proc>,
    data: usize,
    order: Order,
}

impl Finalizer {
    /// Where the object starts; the client's pointer to it may have a tag.
    fn start(&self) -> Address {
        untagged(self.object)
    }
}

// SAFETY: integers, a function pointer for which null is `None`, and an order for which zero is `Normal`.
unsafe impl Entry for Finalizer {
    fn key(&self) -> usize {
        self.object
    }
}

struct Finalizers {
    registered: Table<Finalizer>,
    queue: Queue<Finalizer>,
    /// How many of the queue's last elements this collection put there.
    fresh: usize,
}

static FINALIZERS: Guarded<Finalizers> = Guarded::new(Finalizers {
    registered: Table::NEW,
    queue: Queue::NEW,
    fresh: 0,
});

/// Finalizers are to be run, or their notifier called.
static DUE: AtomicBool = AtomicBool::new(false);
/// How many are queued, for who asks without the lock.
static QUEUED: AtomicUsize = AtomicUsize::new(0);

static AWAIT: Callback<GC_await_finalize_proc> = Callback::NONE;

// ---- in a collection -------------------------------------------------------------------------------------------------

/// Reports what finalizers keep. World stopped, heap lock held.
pub(crate) fn roots<T: WordVisitor>(visit: &mut T) {
    // SAFETY: the collecting thread holds the lock, all others are stopped.
    let finalizers = unsafe { FINALIZERS.held() };
    finalizers
        .registered
        .each(|f| visit.root_word(WildWord::new(f.data)));
    for f in finalizers.queue.as_slice() {
        visit.root_word(WildWord::new(f.object));
        visit.root_word(WildWord::new(f.data));
    }
    toggle::roots(visit);
}

/// After the marking: the steps above. World stopped, heap lock held.
pub(crate) fn weak<C: Closure>(closure: &mut C) {
    let Some(heap) = state::heap_if_ready() else {
        return;
    };
    // SAFETY: the collecting thread holds the lock, all others are stopped.
    let finalizers = unsafe { FINALIZERS.held() };
    // SAFETY: as above.
    unsafe { links::SHORT.clear(closure) };
    finalizers.mark_ordered(heap, closure);
    finalizers.enqueue(heap, closure);
    // SAFETY: as above.
    unsafe { links::SHORT.forget_dead(heap, closure) };
    toggle::forget_dead(closure);
    // SAFETY: as above.
    unsafe { links::LONG.clear(closure) };
    // SAFETY: as above.
    unsafe { links::LONG.forget_dead(heap, closure) };
    QUEUED.store(finalizers.queue.len(), Ordering::Relaxed);
}

impl Finalizers {
    fn mark_ordered<C: Closure>(&mut self, heap: &BoehmHeap, closure: &mut C) {
        self.registered.each(|f| {
            let object = f.start();
            if f.order == Order::Unordered
                || closure.is_marked(object)
                || !heap.is_allocated(object)
            {
                return;
            }
            if f.order == Order::IgnoreSelf {
                report_others(heap, object, closure);
            } else {
                closure.scan_contents(object);
            }
            closure.drain();
        });
    }

    fn enqueue<C: Closure>(&mut self, heap: &BoehmHeap, closure: &mut C) {
        let Self {
            registered,
            queue,
            fresh,
        } = self;
        let before = queue.len();
        registered.retain(|f| {
            let object = f.start();
            if closure.is_marked(object) {
                return true;
            }
            // What was freed meanwhile has no finalizer any more. There is room for all others.
            heap.is_allocated(object) && !queue.push(*f)
        });
        for f in queue
            .as_slice()
            .iter()
            .skip(before)
            .filter(|f| f.order == Order::Unordered)
        {
            if let Some(object) = ObjectReference::from_address(f.start()) {
                closure.object(object);
                closure.drain();
            }
        }
        queue.retain_from(before, |f| {
            let unreachable = f.order != Order::Unreachable || !closure.is_marked(f.start());
            // It was in the table until now, so there is room.
            unreachable || registered.insert(*f).is_err()
        });
        for f in queue.as_slice().iter().skip(before) {
            // Its contents are marked already, but for what a reference of an object to itself brings.
            if let Some(object) = ObjectReference::from_address(f.start()) {
                closure.object(object);
            }
        }
        closure.drain();
        *fresh = queue.len() - before;
    }
}

/// Reports all words of an object that do not refer to the object itself.
fn report_others<C: Closure>(heap: &BoehmHeap, object: Address, closure: &mut C) {
    let Some(cell) = heap.cell(WildWord::new(object.as_usize())) else {
        return;
    };
    if cell.kind == ATOMIC || cell.kind == ATOMIC_UNCOLLECTABLE || crate::kinds::is_leaf(cell.kind)
    {
        return;
    }
    let end = cell.start.add(cell.bytes);
    let mut at = cell.start;
    while at < end {
        // SAFETY: a word of the cell.
        let word = WildWord::new(unsafe { at.load() });
        if !(cell.start.as_usize()..end.as_usize()).contains(&word.bits()) {
            closure.field_word(word);
        }
        at = at.add(size_of::<usize>());
    }
}

/// Before the world stops. Heap lock held.
pub(crate) fn before_stop() {
    toggle::ask();
}

/// After the world runs again. Heap lock held.
pub(crate) fn after_start() {
    // SAFETY: the lock is held; the client's function below is called with the lock held, and may not come back here.
    let finalizers = unsafe { FINALIZERS.held() };
    let fresh = core::mem::take(&mut finalizers.fresh);
    if let Some(awaiting) = AWAIT.get() {
        let first = finalizers.queue.len().saturating_sub(fresh);
        for f in finalizers.queue.as_slice().iter().skip(first) {
            // SAFETY: the client's function, called as the interface says.
            unsafe { awaiting(pointer(f.object)) };
        }
    }
    finalizers.registered.shrink();
    // SAFETY: the lock is held.
    unsafe { links::SHORT.shrink() };
    // SAFETY: as above.
    unsafe { links::LONG.shrink() };
    if finalizers.queue.len() != 0 {
        DUE.store(true, Ordering::Release);
    }
}

// ---- running ---------------------------------------------------------------------------------------------------------

/// Runs what a collection left to run. No lock is held, and the caller's results are on its stack.
#[inline(always)]
pub(crate) fn run_due() {
    leaks::print_due();
    if DUE.load(Ordering::Relaxed) {
        run();
    }
}

/// In a thread that is running finalizers, further ones are run only at the 2^n-th occasion, n being the depth: an
/// allocation in a finalizer that collects would otherwise recur without end.
#[cold]
#[inline(never)]
extern "C-unwind" fn run() {
    if config::GC_finalize_on_demand.load(Ordering::Relaxed) != 0 {
        if DUE.swap(false, Ordering::AcqRel)
            && let Some(notifier) = config::GC_finalizer_notifier.get()
        {
            // SAFETY: the client's function, called as the interface says: no lock is held.
            unsafe { notifier() };
        }
        return;
    }
    let Some(record) = threads::current() else {
        return;
    };
    let depth = record.finalizing.load(Ordering::Relaxed);
    if depth > 0 {
        let skipped = record.finalizing_skipped.load(Ordering::Relaxed) + 1;
        if skipped < 1 << depth.min(30) {
            record.finalizing_skipped.store(skipped, Ordering::Relaxed);
            return;
        }
        record.finalizing_skipped.store(0, Ordering::Relaxed);
    }
    record.finalizing.store(depth + 1, Ordering::Relaxed);
    let _ = GC_invoke_finalizers();
    record.finalizing.store(depth, Ordering::Relaxed);
}

/// Takes the first finalizer out of the queue.
fn next(heap: &BoehmHeap) -> Option<Finalizer> {
    FINALIZERS.with(heap, |f| {
        let first = f.queue.pop();
        QUEUED.store(f.queue.len(), Ordering::Relaxed);
        if f.queue.len() == 0 {
            DUE.store(false, Ordering::Relaxed);
        }
        first
    })
}

/// Runs the finalizers that are queued; how many. No lock may be held.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_invoke_finalizers() -> c_int {
    let mut count = 0;
    let Some(heap) = state::heap_if_ready() else {
        return 0;
    };
    while GC_should_invoke_finalizers() != 0 {
        let Some(f) = next(heap) else { break };
        if let Some(function) = f.function {
            // The object is on this stack until the call has ended.
            let (object, data) = (
                core::hint::black_box(pointer(f.object)),
                core::hint::black_box(pointer(f.data)),
            );
            // SAFETY: the client's function, called as the interface says.
            unsafe { function(object, data) };
            core::hint::black_box((object, data));
        }
        count += 1;
    }
    count
}

/// Is a finalizer queued?
#[unsafe(no_mangle)]
pub extern "C" fn GC_should_invoke_finalizers() -> c_int {
    c_int::from(QUEUED.load(Ordering::Relaxed) != 0)
}

/// Runs all finalizers, also those of objects that are reachable, until none is registered. For the end of the program.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_finalize_all() {
    let Some(heap) = state::heap_if_ready() else {
        return;
    };
    loop {
        let queued = FINALIZERS.with(heap, |f| {
            let Finalizers {
                registered, queue, ..
            } = f;
            // Room was made for each when it was registered.
            registered.retain(|f| !queue.push(*f));
            QUEUED.store(queue.len(), Ordering::Relaxed);
            queue.len()
        });
        if queued == 0 {
            return;
        }
        let _ = GC_invoke_finalizers();
    }
}

// ---- registering -----------------------------------------------------------------------------------------------------

/// # Safety
/// `old_function` and `old_data` are null or writable.
unsafe fn register(
    object: *mut c_void,
    function: Option<GC_finalization_proc>,
    data: *mut c_void,
    old_function: *mut Option<GC_finalization_proc>,
    old_data: *mut *mut c_void,
    order: Order,
) {
    let mut old = None;
    if let Some(heap) = state::heap_if_ready()
        && cell_at(untagged(object.addr()).as_ptr()).is_some()
    {
        let new = Finalizer {
            object: object.addr(),
            function,
            data: data.expose_provenance(),
            order,
        };
        old = set(heap, new);
        if function.is_some()
            && old.is_none()
            && FINALIZERS
                .with(heap, |f| f.registered.get(new.object))
                .is_none()
        {
            // There is no memory for it. The client's function may free some, throw, or give up.
            if !crate::alloc::oom(size_of::<Finalizer>()).is_null() {
                old = set(heap, new);
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe {
        if !old_function.is_null() {
            old_function.write(old.and_then(|f| f.function));
        }
        if !old_data.is_null() {
            old_data.write(old.map_or(ptr::null_mut(), |f| pointer(f.data)));
        }
    }
}

/// Registers a finalizer, or removes one if it has no function: the one that was there.
fn set(heap: &BoehmHeap, new: Finalizer) -> Option<Finalizer> {
    FINALIZERS.with(heap, |f| {
        if new.function.is_none() {
            return f.registered.remove(new.object);
        }
        // Room for all that are registered, and this one.
        f.queue.reserve(f.registered.len() + 1).ok()?;
        f.registered.insert(new).ok().flatten()
    })
}

/// Has the object that starts at `object` finalized by `function(object, data)` when it is unreachable: after all objects
/// that refer to it, and not at all if it can be reached from itself. Null removes the finalizer. What was registered is
/// stored to `*old_function` and `*old_data`. Without effect for what is not the start of an object, but for a tag below 16, which
/// the function gets too.
///
/// # Safety
/// `old_function` and `old_data` are null or writable; `function` can be called.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_register_finalizer(
    object: *mut c_void,
    function: Option<GC_finalization_proc>,
    data: *mut c_void,
    old_function: *mut Option<GC_finalization_proc>,
    old_data: *mut *mut c_void,
) {
    // SAFETY: the caller's promise.
    unsafe {
        register(
            object,
            function,
            data,
            old_function,
            old_data,
            Order::Normal,
        )
    }
}

/// As [`GC_register_finalizer`]; references of the object to itself do not count.
///
/// # Safety
/// As for [`GC_register_finalizer`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_register_finalizer_ignore_self(
    object: *mut c_void,
    function: Option<GC_finalization_proc>,
    data: *mut c_void,
    old_function: *mut Option<GC_finalization_proc>,
    old_data: *mut *mut c_void,
) {
    // SAFETY: the caller's promise.
    unsafe {
        register(
            object,
            function,
            data,
            old_function,
            old_data,
            Order::IgnoreSelf,
        )
    }
}

/// As [`GC_register_finalizer`], without regard to what refers to the object.
///
/// # Safety
/// As for [`GC_register_finalizer`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_register_finalizer_no_order(
    object: *mut c_void,
    function: Option<GC_finalization_proc>,
    data: *mut c_void,
    old_function: *mut Option<GC_finalization_proc>,
    old_data: *mut *mut c_void,
) {
    // SAFETY: the caller's promise.
    unsafe {
        register(
            object,
            function,
            data,
            old_function,
            old_data,
            Order::Unordered,
        )
    }
}

/// As [`GC_register_finalizer`], and only when also no object that is being finalized without order refers to it.
///
/// # Safety
/// As for [`GC_register_finalizer`].
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_register_finalizer_unreachable(
    object: *mut c_void,
    function: Option<GC_finalization_proc>,
    data: *mut c_void,
    old_function: *mut Option<GC_finalization_proc>,
    old_data: *mut *mut c_void,
) {
    // SAFETY: the caller's promise.
    unsafe {
        register(
            object,
            function,
            data,
            old_function,
            old_data,
            Order::Unreachable,
        )
    }
}

/// Sets the function that is told of each object that is queued, with the heap's lock held.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_await_finalize_proc(function: Option<GC_await_finalize_proc>) {
    AWAIT.set(function);
}

/// The function that is told of each object that is queued.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_await_finalize_proc() -> Option<GC_await_finalize_proc> {
    AWAIT.get()
}

/// Counts for the dump: finalizers registered and queued, short links, long links.
pub(crate) fn counts(heap: &BoehmHeap) -> [usize; 4] {
    FINALIZERS.with(heap, |f| {
        // SAFETY: the lock is held.
        let (short, long) = unsafe { (links::SHORT.len(), links::LONG.len()) };
        [f.registered.len(), f.queue.len(), short, long]
    })
}
