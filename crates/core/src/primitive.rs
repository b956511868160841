//! What threads wait with: the standard library's, or the model checker's when the crate is compiled with `--cfg loom`.
//!
//! Only what is modelled comes from here: the gate, and the wait for a forwarding word.

#[cfg(not(loom))]
pub(crate) use core::{
    hint::spin_loop,
    sync::atomic::{AtomicU32, Ordering},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

#[cfg(loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicU32, Ordering},
    sync::{Condvar, Mutex, MutexGuard},
};

#[cfg(loom)]
loom::lazy_static! {
    static ref SPINS: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);
}

/// Lets others go on. Where two threads wait for a third, the model checker would look at longer and longer runs in which those two
/// take turns: after some rounds it is told to end the run as fairly as it can.
#[cfg(loom)]
pub(crate) fn spin_loop() {
    if SPINS.fetch_add(1, Ordering::Relaxed) == MOST_SPINS {
        loom::skip_branch();
    }
    loom::hint::spin_loop();
}

#[cfg(loom)]
const MOST_SPINS: usize = 12;
