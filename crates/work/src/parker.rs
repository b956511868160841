//! A place for one thread to sleep: a token, and a condition variable behind it.
//!
//! | state      | meaning                                    | set by                     |
//! |------------|--------------------------------------------|----------------------------|
//! | `EMPTY`    | no token, nobody sleeps                    | the waiter taking a token  |
//! | `PARKED`   | no token, the waiter sleeps or is about to | the waiter, under the lock |
//! | `NOTIFIED` | a token is there                           | any notifier, by a swap    |
//!
//! Tokens do not add up, and a token may be stale: whoever comes back from [`Parker::wait`] looks
//! at the world again and knows only that every write before the `notify` it took is visible.
//! `std::thread::park` would do for the helpers, but the thread that runs a phase belongs to
//! somebody else, and its first `std::thread::current()` allocates. On Linux the standard mutex
//! and condition variable are each one futex word and never allocate.

use crate::primitive::{AtomicU32, Condvar, Mutex, Ordering, lock, spin_loop};
use std::sync::PoisonError;

const EMPTY: u32 = 0;
const PARKED: u32 = 1;
const NOTIFIED: u32 = 2;

/// One thread waits here at a time; any thread notifies.
#[derive(Debug)]
pub(crate) struct Parker {
    state: AtomicU32,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Parker {
    pub(crate) fn new() -> Parker {
        Parker {
            state: AtomicU32::new(EMPTY),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        }
    }

    /// Waits for a token and takes it. Spins at most `spins` turns first, and no longer than
    /// `worthwhile` says so; then sleeps.
    pub(crate) fn wait(&self, spins: u32, worthwhile: impl Fn() -> bool) {
        for _ in 0..spins {
            if self.state.load(Ordering::Relaxed) == NOTIFIED || !worthwhile() {
                break;
            }
            spin_loop();
        }
        if self.take_token() {
            return;
        }
        let mut guard = lock(&self.lock);
        let parked =
            self.state
                .compare_exchange(EMPTY, PARKED, Ordering::Relaxed, Ordering::Relaxed);
        if parked.is_err() {
            // The token came between the look and the lock. A swap, because a second notifier
            // may just be replacing it, and its writes must be visible too.
            self.state.swap(EMPTY, Ordering::Acquire);
            return;
        }
        loop {
            guard = self
                .wake
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
            if self.take_token() {
                return;
            }
        }
    }

    /// Leaves a token, and wakes the waiter if there is one. Everything written before is visible
    /// to the waiter that takes the token.
    pub(crate) fn notify(&self) {
        if self.state.swap(NOTIFIED, Ordering::AcqRel) == PARKED {
            // The waiter holds the lock from setting PARKED until it sleeps: passing through the
            // lock makes sure that the wake-up does not come before the sleep.
            drop(lock(&self.lock));
            self.wake.notify_one();
        }
    }

    fn take_token(&self) -> bool {
        self.state
            .compare_exchange(NOTIFIED, EMPTY, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }
}
