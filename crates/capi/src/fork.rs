//! A process that forks.

use crate::heap::{AnyHeap, Handles, HandlesHeld, hw_heap};
use crate::mutator::{AnyMutator, hw_mutator};
use crate::status::{Done, Failure, given, given_mut, guard, hw_status, hw_status::*};
use crate::vm::CVm;
use core::cell::RefCell;
use core::ffi::c_int;
use core::ptr;
use heapwright::Fork;
use std::collections::BTreeSet;

/// A heap that is ready for a fork: its world is stopped, and nobody but the thread that made it ready holds a lock of it. Given back by
/// [`hw_fork_parent`] or [`hw_fork_child`].
#[derive(Debug)]
pub struct hw_fork(AnyFork);

#[derive(Debug)]
enum AnyFork {
    Plain(Fork<'static, CVm<false>>),
    Mapped(Fork<'static, CVm<true>>),
}

/// What the calling thread has made ready.
struct Ready {
    forks: BTreeSet<usize>,
    /// The library's own locks, from the first heap that is made ready to the first that goes on.
    held: Option<HandlesHeld>,
}

thread_local! {
    // By thread, since who forks goes on with it: so there is no lock that the child could find taken.
    static READY: RefCell<Ready> = const { RefCell::new(Ready { forks: BTreeSet::new(), held: None }) };
}

fn add(fork: AnyFork) -> *mut hw_fork {
    let handle = Box::into_raw(Box::new(hw_fork(fork)));
    READY.with_borrow_mut(|ready| {
        ready.forks.insert(handle.expose_provenance());
        if ready.held.is_none() {
            ready.held = Some(Handles::hold_all());
        }
    });
    handle
}

/// Lets a heap go on.
fn finish(fork: *mut hw_fork, child: bool) -> Done {
    if fork.is_null() {
        return Err(Failure::null("fork"));
    }
    let there = READY.with_borrow_mut(|ready| {
        let there = ready.forks.remove(&fork.addr());
        if there {
            ready.held = None;
        }
        there
    });
    if !there {
        return Err(Failure(
            HW_GONE,
            "there is no such fork any more, or another thread made the heap ready".to_owned(),
        ));
    }
    // SAFETY: made by `add` on this thread, and forgotten just now, by this call alone.
    let fork = *unsafe { Box::from_raw(fork) };
    match (fork.0, child) {
        (AnyFork::Plain(f), false) => f.parent(),
        (AnyFork::Mapped(f), false) => f.parent(),
        // SAFETY: the header's rule: this is the child, which has one thread.
        (AnyFork::Plain(f), true) => unsafe { f.child() },
        // SAFETY: as above.
        (AnyFork::Mapped(f), true) => unsafe { f.child() },
    }
    Ok(())
}

/// Makes a heap ready for a fork by the calling thread, which has no mutator of it inside (`hw_outside`): stops the world, as for a collection.
/// Until [`hw_fork_parent`] or [`hw_fork_child`] the thread does nothing with the library but make other heaps ready, and fork. Each heap that the
/// child is to use has to be made ready, all before the fork. Fit for a handler of `pthread_atfork`. Stored to `*out`; on failure that is null.
///
/// `HW_IN_COLLECTION`: by a callback of a collection. The fork may go on, but its child must not use the heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_heap_prepare_fork(
    heap: *mut hw_heap,
    out: *mut *mut hw_fork,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (out, heap) = unsafe { (given_mut(out, "out")?, given(heap, "heap")) };
        *out = ptr::null_mut();
        // SAFETY: the header's rule: the child uses mutators that stay, and no others.
        *out = add(unsafe {
            match &heap?.0 {
                AnyHeap::Plain(h) => AnyFork::Plain(h.prepare_fork()?),
                AnyHeap::Mapped(h) => AnyFork::Mapped(h.prepare_fork()?),
            }
        });
        Ok(())
    })
}

/// As [`hw_heap_prepare_fork`], by a thread whose mutator is inside. A safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_prepare_fork(
    mutator: *mut hw_mutator,
    out: *mut *mut hw_fork,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (out, mutator) = unsafe { (given_mut(out, "out")?, given_mut(mutator, "mutator")) };
        *out = ptr::null_mut();
        // SAFETY: as above; and the mutator is neither used nor detached before the fork is given back, by the header: the reference within
        // lives as long as it is needed.
        *out = add(unsafe {
            match &mut mutator?.any {
                AnyMutator::Plain(m) => {
                    let fork = m.prepare_fork()?;
                    AnyFork::Plain(core::mem::transmute::<
                        Fork<'_, CVm<false>>,
                        Fork<'static, CVm<false>>,
                    >(fork))
                }
                AnyMutator::Mapped(m) => {
                    let fork = m.prepare_fork()?;
                    AnyFork::Mapped(core::mem::transmute::<
                        Fork<'_, CVm<true>>,
                        Fork<'static, CVm<true>>,
                    >(fork))
                }
            }
        });
        Ok(())
    })
}

/// Lets a heap that was made ready go on, in the parent, or where the fork failed. By the thread that made it ready; that is a safepoint if its
/// mutator is inside. `HW_GONE` if it was called before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_fork_parent(fork: *mut hw_fork) -> hw_status {
    guard(|| finish(fork, false))
}

/// Lets a heap that was made ready go on, in the child. There, the mutators of other threads are gone, unless they were outside of the heap and
/// the callback `stays_after_fork` wants them: they may be detached, and not be used. Workers start again when there is work.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_fork_child(fork: *mut hw_fork) -> hw_status {
    guard(|| finish(fork, true))
}

/// Forks with one heap: makes it ready, calls `fork()` (as of unistd.h: 0 in the child, negative if it failed), and lets the heap go on. What that
/// gave is stored to `*pid`; -1 if it was not called. A safepoint. `HW_SYSTEM`: it failed, and `errno` says why.
///
/// As [`hw_prepare_fork`] otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_fork_with(
    mutator: *mut hw_mutator,
    fork: Option<extern "C" fn() -> c_int>,
    pid: *mut c_int,
) -> hw_status {
    let mut ready = ptr::null_mut();
    let mut said = HW_OK;
    let done = guard(|| {
        // SAFETY: the header's rules for pointers.
        let pid = unsafe { given_mut(pid, "pid")? };
        *pid = -1;
        let fork = fork.ok_or_else(|| Failure::null("fork"))?;
        // SAFETY: as above.
        said = unsafe { hw_prepare_fork(mutator, &raw mut ready) };
        if said == HW_OK {
            *pid = fork();
            finish(ready, *pid == 0)?;
            if *pid < 0 {
                return Err(Failure(HW_SYSTEM, "the system did not fork".to_owned()));
            }
        }
        Ok(())
    });
    // The message of the first call is there already.
    if said == HW_OK { done } else { said }
}
