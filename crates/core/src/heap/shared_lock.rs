//! What a thread that forks holds for several heaps at once.

use core::sync::atomic::{AtomicUsize, Ordering};
use heapwright_os::current_thread;
use std::sync::MutexGuard;

/// Which thread holds a lock for a fork; 0: none. A lock that several heaps share is taken for the first of them that is made ready,
/// and given back by the first that goes on, after the fork: then the others need it no more.
#[derive(Debug, Default)]
pub(super) struct Holder(AtomicUsize);

/// The lock is held.
pub(super) struct Hold<'a, T> {
    holder: &'a Holder,
    _guard: MutexGuard<'a, T>,
}

impl Holder {
    /// Takes the lock, unless the calling thread has it for another heap.
    pub(super) fn hold<'a, T>(
        &'a self,
        lock: impl FnOnce() -> MutexGuard<'a, T>,
    ) -> Option<Hold<'a, T>> {
        if self.0.load(Ordering::Relaxed) == current_thread() {
            return None;
        }
        let guard = lock();
        self.0.store(current_thread(), Ordering::Relaxed);
        Some(Hold {
            holder: self,
            _guard: guard,
        })
    }
}

impl<T> Drop for Hold<'_, T> {
    fn drop(&mut self) {
        self.holder.0.store(0, Ordering::Relaxed);
    }
}
