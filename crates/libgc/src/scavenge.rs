//! The thread that gives idle memory back to the system while the program does nothing.
//!
//! It takes the heap's lock for moments, stops nobody, sends no signal, and never collects: a program that is blocked in a system
//! call notices nothing. It is started by a collection of a heap that has some size, sleeps while there is nothing to give back, has
//! all signals blocked, and is not one of the client's threads.
//!
//! | `WORK` | says |
//! |---|---|
//! | 0 | the thread sleeps, or there is none |
//! | 1 | the heap is to be looked at |

use crate::state;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use heapwright::CollectionStats;
use heapwright_os::{futex_wait, futex_wake};
use std::thread;

/// A heap below this, in bytes, is left alone: what it could give back is little beside the process.
const WORTH: usize = 16 << 20;
/// Between two looks.
const PERIOD: Duration = Duration::from_millis(125);

static WORK: AtomicU32 = AtomicU32::new(0);
/// The process that has the thread; 0: none has.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// After a collection: has the thread look at the heap. Heap lock held.
pub(crate) fn collected(stats: &CollectionStats) {
    let Some(heap) = state::heap_if_ready() else {
        return;
    };
    let off = heap.options().decay == heapwright::Decay::Off;
    if off || stats.heap_bytes < WORTH || !heap.may_have_helpers() {
        return;
    }
    // In a child of a fork the flag may be up, and the thread is the parent's.
    let process = std::process::id();
    if PROCESS.load(Ordering::Relaxed) == process {
        if WORK.swap(1, Ordering::Release) == 0 {
            futex_wake(&WORK, 1);
        }
        return;
    }
    WORK.store(1, Ordering::Release);
    if start("heapwright-return", live) {
        PROCESS.store(process, Ordering::Relaxed);
    }
}

/// Starts a thread of the library's own, which begins with all signals blocked.
pub(crate) fn start(name: &str, live: fn()) -> bool {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut old = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: writes the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set is written, and the old one is.
    let blocked =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr()) } == 0;
    let started = blocked
        && thread::Builder::new()
            .name(String::from(name))
            .stack_size(256 << 10)
            .spawn(live)
            .is_ok();
    if blocked {
        // SAFETY: the mask from before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), core::ptr::null_mut()) };
    }
    started
}

/// The thread's life.
fn live() {
    loop {
        while WORK.swap(0, Ordering::Acquire) == 0 {
            futex_wait(&WORK, 0, None);
        }
        let Some(heap) = state::heap_if_ready() else {
            return;
        };
        if heap.tend().more {
            WORK.store(1, Ordering::Relaxed);
        }
        thread::sleep(PERIOD);
    }
}
