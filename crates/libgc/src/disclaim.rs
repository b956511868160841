//! Disclaim procedures (`gc_disclaim.h`): a client's function is asked about each object of a kind that is about to be
//! reclaimed, and may keep it for this time.
//!
//! The stock library asks while it sweeps. Here dead cells have no such moment, so the objects are found at the end of the
//! marking, and kept; once the world runs again, with the heap's lock held as the interface promises, each is asked about
//! and freed at once unless its procedure says otherwise. So a procedure may wait for what another thread holds, but for the
//! heap's lock. If there is no memory to note an object, it stays, and its turn comes with the next collection.
//!
//! A procedure may be called on a cell that was never handed out, which is all zero; `GC_free` does not ask.

use crate::alloc::{allocate, pointer};
use crate::callback::{Callback, Function};
use crate::config;
use crate::finalize::GC_finalization_proc;
use crate::kinds;
use crate::state;
use crate::table::{Guarded, Queue};
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use heapwright::{Address, Closure, Kind, MAX_KINDS};

/// Is asked about an object: 0 lets it go.
pub type GC_disclaim_proc = unsafe extern "C-unwind" fn(*mut c_void) -> c_int;

/// The kinds' procedures.
static PROCS: [Callback<GC_disclaim_proc>; MAX_KINDS] = [const { Callback::NONE }; MAX_KINDS];
/// Bit n: kind n has a procedure.
static ASKED: AtomicUsize = AtomicUsize::new(0);
/// Bit n: what objects of kind n refer to is kept while they wait for their procedure.
static KEEP_REFERENTS: AtomicUsize = AtomicUsize::new(0);

/// An object that was found dead, and its kind.
#[derive(Clone, Copy)]
struct Dead {
    object: usize,
    kind: u8,
}

/// Those that the last collection found.
static DEAD: Guarded<Queue<Dead>> = Guarded::new(Queue::NEW);

/// The object whose procedure runs; 0: none.
static BEING_ASKED: AtomicUsize = AtomicUsize::new(0);

/// The kind of [`GC_finalized_malloc`]; negative until it is made.
static FINALIZED: AtomicI32 = AtomicI32::new(-1);
/// In the first word of such an object, beside its closure's address: it was handed out, and not yet finalized.
const LIVE: usize = 1;
const WORD: usize = size_of::<usize>();

/// A function and its data, which clients keep.
#[derive(Debug)]
#[repr(C)]
pub struct GC_finalizer_closure {
    function: Option<GC_finalization_proc>,
    data: *mut c_void,
}

/// Keeps what dead objects refer to, for their procedures. World stopped, heap lock held, before finalizers and links.
pub(crate) fn keep_referents<C: Closure>(closure: &mut C) {
    let kinds = KEEP_REFERENTS.load(Ordering::Relaxed);
    let Some(heap) = state::heap_if_ready().filter(|_| kinds != 0) else {
        return;
    };
    heap.for_each_of_kinds(kinds, |cell| {
        if !closure.is_marked(cell.start) {
            closure.scan_contents(cell.start);
        }
    });
    closure.drain();
}

/// Finds the dead objects. World stopped, heap lock held, after finalizers and links.
pub(crate) fn find_dead<C: Closure>(closure: &mut C) {
    let kinds = ASKED.load(Ordering::Relaxed);
    let Some(heap) = state::heap_if_ready().filter(|_| kinds != 0) else {
        return;
    };
    let leaks = config::GC_get_find_leak() != 0;
    // SAFETY: the collecting thread holds the lock, all others are stopped.
    let dead = unsafe { DEAD.held() };
    heap.for_each_of_kinds(kinds, |cell| {
        if !leaks && closure.mark_unscanned(cell.start) && dead.reserve(1).is_ok() {
            dead.push(Dead {
                object: cell.start.as_usize(),
                kind: cell.kind.0,
            });
        }
    });
}

/// Does its procedure run? To the procedure it is not marked.
pub(crate) fn is_being_asked(start: Address) -> bool {
    start.as_usize() != 0 && BEING_ASKED.load(Ordering::Relaxed) == start.as_usize()
}

/// Asks about the dead. World running, heap lock held.
pub(crate) fn ask() {
    let Some(heap) = state::heap_if_ready() else {
        return;
    };
    // SAFETY: the lock is held; a procedure may not come back here, as it is called with the lock held.
    while let Some(dead) = unsafe { DEAD.held() }.pop() {
        let Some(procedure) = PROCS.get(usize::from(dead.kind)).and_then(Callback::get) else {
            continue;
        };
        BEING_ASKED.store(dead.object, Ordering::Relaxed);
        // SAFETY: the client's procedure, called as the interface says, on a cell that nobody else has.
        if unsafe { procedure(pointer(dead.object)) } == 0 {
            let _ = heap.free_locked(Address::new(dead.object));
        }
        BEING_ASKED.store(0, Ordering::Relaxed);
    }
}

/// Has `procedure` asked about each object of a kind before it is reclaimed. With `keep_referents`, what such an object refers
/// to is kept until then.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_register_disclaim_proc(
    kind: c_int,
    procedure: Option<GC_disclaim_proc>,
    keep_referents: c_int,
) {
    let Some(heap) = state::heap() else {
        return;
    };
    heap.lock();
    if let Some(kind) = kinds::known(kind) {
        register_locked(kind, procedure, keep_referents != 0);
    }
    heap.unlock();
}

fn register_locked(kind: Kind, procedure: Option<GC_disclaim_proc>, keep: bool) {
    let set = |bits: &AtomicUsize, on: bool| {
        let bit = 1 << kind.0;
        if on {
            bits.fetch_or(bit, Ordering::Relaxed);
        } else {
            bits.fetch_and(!bit, Ordering::Relaxed);
        }
    };
    if let Some(place) = PROCS.get(usize::from(kind.0)) {
        place.set(procedure);
        set(&ASKED, procedure.is_some());
        set(&KEEP_REFERENTS, keep && procedure.is_some());
    }
}

// ---- objects with a finalizer in their first word ------------------------------------------------------------------------

/// The procedure of that kind.
unsafe extern "C-unwind" fn finalize(object: *mut c_void) -> c_int {
    let first = object.cast::<usize>();
    // SAFETY: the first word of a cell of this kind.
    let closure = unsafe { first.replace(0) };
    if closure & LIVE != 0 {
        let closure: *const GC_finalizer_closure =
            core::ptr::with_exposed_provenance(closure & !LIVE);
        // SAFETY: the client's closure, which is static or was kept because the object refers to it; its function is called as
        // the interface says.
        unsafe {
            if let Some(function) = (*closure).function {
                function(first.add(1).cast(), (*closure).data);
            }
        }
    }
    0
}

/// Makes the kind of [`GC_finalized_malloc`], which is otherwise made by its first call.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_init_finalized_malloc() {
    let _ = finalized_kind();
}

fn finalized_kind() -> Option<Kind> {
    if let Ok(kind) = u8::try_from(FINALIZED.load(Ordering::Acquire)) {
        return Some(Kind(kind));
    }
    let heap = state::heap()?;
    heap.lock();
    let kind = match u8::try_from(FINALIZED.load(Ordering::Acquire)) {
        Ok(kind) => Some(Kind(kind)),
        Err(_) => kinds::define_locked(0, true, true),
    };
    if let Some(kind) = kind {
        register_locked(kind, Some(finalize), true);
        FINALIZED.store(c_int::from(kind.0), Ordering::Release);
    }
    heap.unlock();
    // Clients hold the second word's address; the first holds a closure's with a bit set.
    for displacement in [WORD, LIVE, WORD | LIVE] {
        config::GC_register_displacement(displacement);
    }
    kind
}

/// Allocates an object that `closure` finalizes when it is reclaimed. The cell is a word larger, and begins a word before the
/// result.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_finalized_malloc(
    bytes: usize,
    closure: *const GC_finalizer_closure,
) -> *mut c_void {
    let Some(kind) = finalized_kind() else {
        return crate::alloc::oom(bytes);
    };
    let cell = allocate(kind, bytes.saturating_add(WORD)).cast::<usize>();
    if cell.is_null() {
        return cell.cast();
    }
    // SAFETY: a new cell of at least two words.
    unsafe {
        cell.write(closure.expose_provenance() | LIVE);
        cell.add(1).cast()
    }
}

const _: () = {
    const fn is_function<F: Function>() {}
    is_function::<GC_disclaim_proc>();
};
