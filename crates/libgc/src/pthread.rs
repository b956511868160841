//! The functions that `gc_pthread_redirects.h` puts in the place of the system's: creating, joining, detaching, leaving.
//!
//! A thread that is created here is registered before its function runs and unregistered after it. What it returned is a
//! root until it is joined or detached.

use crate::state::BoehmHeap;
use crate::threads::{self, FINISHED, FREE, LIVE, ThreadRecord};
use crate::{state, stop};
use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};
use heapwright_os::{futex_wait, futex_wake};

/// A thread's function.
pub type Routine = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

unsafe extern "C-unwind" {
    #[link_name = "pthread_create"]
    fn system_create(
        thread: *mut libc::pthread_t,
        attributes: *const libc::pthread_attr_t,
        routine: Routine,
        data: *mut c_void,
    ) -> c_int;
    #[link_name = "pthread_join"]
    fn system_join(thread: libc::pthread_t, result: *mut *mut c_void) -> c_int;
    #[link_name = "pthread_detach"]
    fn system_detach(thread: libc::pthread_t) -> c_int;
    #[link_name = "pthread_cancel"]
    fn system_cancel(thread: libc::pthread_t) -> c_int;
    #[link_name = "pthread_exit"]
    fn system_exit(result: *mut c_void) -> !;
    #[link_name = "pthread_attr_getdetachstate"]
    fn system_detach_state(attributes: *const libc::pthread_attr_t, state: *mut c_int) -> c_int;
    #[link_name = "pthread_setcancelstate"]
    fn system_cancel_state(state: c_int, old: *mut c_int) -> c_int;
}

/// `PTHREAD_CANCEL_DISABLE`.
const CANCEL_DISABLE: c_int = 1;

/// What the creator hands to the new thread. It stays in the creator's frame, so `data` is kept alive by the creator's
/// stack until the new thread is registered.
struct Start {
    routine: Routine,
    data: *mut c_void,
    detached: bool,
    /// 1 once the new thread has copied the rest. A futex.
    taken: AtomicU32,
}

/// Creates a thread that may use the heap. As `pthread_create`; EAGAIN also if there is no memory for the heap.
///
/// # Safety
/// As for `pthread_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    routine: Routine,
    data: *mut c_void,
) -> c_int {
    if threads::mutator().is_none() {
        return libc::EAGAIN;
    }
    let mut state = libc::PTHREAD_CREATE_JOINABLE;
    if !attributes.is_null() {
        // SAFETY: the caller's promise.
        unsafe { system_detach_state(attributes, &raw mut state) };
    }
    let start = Start {
        routine,
        data,
        detached: state == libc::PTHREAD_CREATE_DETACHED,
        taken: AtomicU32::new(0),
    };
    let mut old = 0;
    // A creator that is cancelled while it waits would take the frame away from under the new thread.
    // SAFETY: a place for the old state.
    unsafe { system_cancel_state(CANCEL_DISABLE, &raw mut old) };
    // SAFETY: the caller's promise; `start` lives until it was taken.
    let result = unsafe {
        system_create(
            thread,
            attributes,
            begin,
            (&raw const start).cast_mut().cast(),
        )
    };
    if result == 0 {
        while start.taken.load(Ordering::Acquire) == 0 {
            futex_wait(&start.taken, 0, None);
        }
    }
    // SAFETY: as above.
    unsafe { system_cancel_state(old, ptr::null_mut()) };
    result
}

/// Where a created thread begins. Its own frame is the cold end of the stack: nothing above it can refer to the heap.
#[inline(never)]
unsafe extern "C-unwind" fn begin(start: *mut c_void) -> *mut c_void {
    let mut here = [0usize; 2];
    let start: *const Start = start.cast();
    // SAFETY: the creator waits until `taken` is set.
    let (routine, data, detached) = unsafe { ((*start).routine, (*start).data, (*start).detached) };
    // If there is no memory for a record, the thread runs unregistered and is registered when it first allocates.
    if let Some(heap) = state::heap()
        && let Some(record) = threads::attach(heap, None)
    {
        record.created.store(1, Ordering::Relaxed);
        record
            .detached
            .store(u32::from(detached), Ordering::Relaxed);
    }
    here[0] = data.expose_provenance();
    core::hint::black_box(&mut here);
    // SAFETY: as above; not used after this.
    unsafe {
        (*start).taken.store(1, Ordering::Release);
        futex_wake(&(*start).taken, 1);
    }
    // SAFETY: the creator's promise.
    let result = unsafe { routine(data) };
    finish(result);
    core::hint::black_box(&mut here);
    result
}

/// The calling thread ends with this result.
fn finish(result: *mut c_void) {
    if let (Some(heap), Some(record)) = (state::heap_if_ready(), threads::current()) {
        record
            .result
            .store(result.expose_provenance(), Ordering::Relaxed);
        threads::detach(heap, record);
    }
}

/// Ends the calling thread. As `pthread_exit`.
///
/// # Safety
/// As for `pthread_exit`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_pthread_exit(result: *mut c_void) -> ! {
    // Cleanup handlers and destructors may still use the heap: the key's destructor unregisters the thread.
    if let Some(record) = threads::current() {
        record
            .result
            .store(result.expose_provenance(), Ordering::Relaxed);
    }
    // SAFETY: the caller's promise.
    unsafe { system_exit(result) }
}

/// A thread's record, and which of its threads it is.
#[derive(Clone, Copy)]
struct Joined(&'static ThreadRecord, u32);

impl Joined {
    /// The record of a thread that has not been joined yet.
    fn find(heap: &BoehmHeap, thread: libc::pthread_t) -> Option<Self> {
        heap.lock();
        let found = threads::by_pthread(thread, &[LIVE, FINISHED]);
        let joined = found.map(|r| Self(r, r.incarnation.load(Ordering::Relaxed)));
        heap.unlock();
        joined
    }

    /// It was joined. The system may have given its identifier to a new thread, and that thread may have this record, which is
    /// its own then.
    fn forget(self, heap: &BoehmHeap) {
        let Self(record, incarnation) = self;
        heap.lock();
        if record.incarnation.load(Ordering::Relaxed) == incarnation
            && record.state.load(Ordering::Relaxed) == FINISHED
        {
            record.state.store(FREE, Ordering::Release);
        }
        heap.unlock();
    }
}

/// Waits for a thread's end. As `pthread_join`.
///
/// # Safety
/// As for `pthread_join`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_pthread_join(
    thread: libc::pthread_t,
    result: *mut *mut c_void,
) -> c_int {
    let heap = state::heap_if_ready();
    // Before the call: afterwards the identifier may belong to another thread.
    let joined = heap.and_then(|heap| Joined::find(heap, thread));
    let mut value = ptr::null_mut();
    // SAFETY: the caller's promise; a place of our own, so that the value is on this stack before its record goes.
    let code = unsafe { system_join(thread, &raw mut value) };
    if code == 0 {
        if !result.is_null() {
            // SAFETY: the caller's promise.
            unsafe { *result = value };
        }
        if let (Some(heap), Some(joined)) = (heap, joined) {
            joined.forget(heap);
        }
        core::hint::black_box(value);
    }
    code
}

/// Lets a thread end without being joined. As `pthread_detach`.
///
/// # Safety
/// As for `pthread_detach`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_pthread_detach(thread: libc::pthread_t) -> c_int {
    // Before the call: afterwards the identifier may belong to another thread.
    if let Some(heap) = state::heap_if_ready() {
        heap.lock();
        if let Some(record) = threads::by_pthread(thread, &[FINISHED]) {
            record.state.store(FREE, Ordering::Release);
        } else if let Some(record) = threads::by_pthread(thread, &[LIVE]) {
            record.detached.store(1, Ordering::Relaxed);
        }
        heap.unlock();
    }
    // SAFETY: the caller's promise.
    unsafe { system_detach(thread) }
}

/// Asks a thread to end. As `pthread_cancel`.
///
/// # Safety
/// As for `pthread_cancel`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_pthread_cancel(thread: libc::pthread_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { system_cancel(thread) }
}

/// Changes the calling thread's signal mask, except that the signal that stops threads is not blocked.
///
/// # Safety
/// As for `pthread_sigmask`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GC_pthread_sigmask(
    how: c_int,
    set: *const libc::sigset_t,
    old: *mut libc::sigset_t,
) -> c_int {
    if set.is_null() || how == libc::SIG_UNBLOCK {
        // SAFETY: the caller's promise.
        return unsafe { libc::pthread_sigmask(how, set, old) };
    }
    // SAFETY: the caller's promise; a copy of its set.
    unsafe {
        let mut copy = *set;
        libc::sigdelset(&raw mut copy, stop::GC_get_suspend_signal());
        libc::pthread_sigmask(how, &raw const copy, old)
    }
}
