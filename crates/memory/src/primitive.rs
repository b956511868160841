//! Atomics and waiting, from `core` or, with `--cfg loom`, from the model checker.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU8, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};

/// Lets whoever is in the middle of a transition go on.
#[cfg(not(loom))]
pub(crate) fn pause(round: u32) {
    if round < 64 {
        core::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

#[cfg(loom)]
pub(crate) fn pause(_: u32) {
    loom::thread::yield_now();
}
