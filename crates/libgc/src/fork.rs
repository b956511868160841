//! `fork` in a process with a heap and, perhaps, threads.
//!
//! The lock is taken before, so that the child finds the heap in order; in the child only the calling thread is left.
//! By default this is done by handlers that `pthread_atfork` installs when the heap is made. `GC_set_handle_fork(0)` or
//! `(-1)` before that leaves it to the client, who then calls `GC_atfork_prepare`, `_parent` and `_child`.

use crate::{roots, state, stop, threads};
use core::cell::Cell;
use core::ffi::c_int;
use core::sync::atomic::{AtomicI32, Ordering};

/// More than 0: handlers are to be installed.
static HANDLE_FORK: AtomicI32 = AtomicI32::new(1);
/// Not 0: handlers are installed.
static INSTALLED: AtomicI32 = AtomicI32::new(0);

thread_local! {
    /// The calling thread made the heap ready for its fork. There may have been none then, and be one when the fork is over: another thread
    /// made it.
    static READY: Cell<bool> = const { Cell::new(false) };
}

/// Installs the handlers if they are wanted. Called once, when the heap is made.
pub(crate) fn init() {
    if HANDLE_FORK.load(Ordering::Relaxed) <= 0 {
        return;
    }
    // SAFETY: functions that live as long as the library.
    if unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) } == 0 {
        INSTALLED.store(1, Ordering::Relaxed);
    }
}

/// Unsafe as `pthread_atfork` declares its handlers; there is nothing to promise.
unsafe extern "C" fn prepare() {
    if let Some(heap) = state::heap_if_ready() {
        heap.prepare_fork();
        roots::before_fork();
        crate::live::before_fork();
        READY.set(true);
    }
}

unsafe extern "C" fn parent() {
    if let (true, Some(heap)) = (READY.take(), state::heap_if_ready()) {
        crate::live::after_fork_parent();
        heap.after_fork_parent();
    }
}

unsafe extern "C" fn child() {
    READY.set(false);
    // Whoever else had the lock is not there.
    if let Some(heap) = state::heap_if_ready() {
        threads::forget_others();
        stop::after_fork();
        roots::in_child();
        heap.after_fork_child();
        crate::report::after_fork();
        crate::ears::after_fork(heap);
        crate::profile::after_fork();
        crate::live::after_fork_child();
    }
}

fn by_client() -> bool {
    INSTALLED.load(Ordering::Relaxed) == 0
}

/// More than 0 (the default): `fork` is handled automatically; 0 or less: the client calls the three functions below.
/// Without effect once the heap is made.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_handle_fork(mode: c_int) {
    if !state::heap_is_ready() {
        HANDLE_FORK.store(mode, Ordering::Relaxed);
    }
}

/// To be called before `fork` by a client that handles it itself; without effect otherwise.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_atfork_prepare() {
    if by_client() && state::heap().is_some() {
        // SAFETY: no precondition.
        unsafe { prepare() };
    }
}

/// To be called after `fork` in the parent by a client that handles it itself; without effect otherwise.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_atfork_parent() {
    if by_client() {
        // SAFETY: no precondition.
        unsafe { parent() };
    }
}

/// To be called after `fork` in the child by a client that handles it itself; without effect otherwise.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_atfork_child() {
    if by_client() {
        // SAFETY: no precondition.
        unsafe { child() };
    }
}
