use crate::{futex_wait, futex_wake};
use core::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may sleep.
const WAITED_FOR: u32 = 2;

/// A lock for code that runs inside of malloc-like functions: no poisoning, no allocation, no thread-local state, and
/// released by a call instead of a guard, since a forked child and foreign callbacks must be able to.
///
/// | state | lock | unlock |
/// |---|---|---|
/// | free | held | - |
/// | held | waited for, sleep | free |
/// | waited for | sleep | free, wake one |
///
/// (Drepper, "Futexes are tricky", mutex 2.) It is not recursive.
///
/// ```
/// use heapwright_os::RawLock;
///
/// let lock = RawLock::new();
/// assert_eq!(lock.with(|| 7), 7);
/// assert!(lock.try_lock());
/// assert!(!lock.try_lock() && lock.is_locked());
/// lock.unlock();
/// ```
#[derive(Debug, Default)]
pub struct RawLock(AtomicU32);

impl RawLock {
    /// A free lock.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(FREE))
    }

    /// Takes the lock, sleeping as long as somebody else holds it.
    #[inline]
    pub fn lock(&self) {
        if self
            .0
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            self.wait();
        }
    }

    #[cold]
    fn wait(&self) {
        for _ in 0..40 {
            if self.0.load(Ordering::Relaxed) == FREE
                && self
                    .0
                    .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
            core::hint::spin_loop();
        }
        while self.0.swap(WAITED_FOR, Ordering::Acquire) != FREE {
            futex_wait(&self.0, WAITED_FOR, None);
        }
    }

    /// Takes the lock if it is free.
    #[must_use]
    pub fn try_lock(&self) -> bool {
        self.0
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Releases the lock. Called by whoever holds it.
    #[inline]
    pub fn unlock(&self) {
        if self.0.swap(FREE, Ordering::Release) == WAITED_FOR {
            futex_wake(&self.0, 1);
        }
    }

    /// Does anybody hold it?
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.0.load(Ordering::Relaxed) != FREE
    }

    /// Runs `f` with the lock held.
    pub fn with<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Unlock<'a>(&'a RawLock);
        impl Drop for Unlock<'_> {
            fn drop(&mut self) {
                self.0.unlock();
            }
        }
        self.lock();
        let _unlock = Unlock(self);
        f()
    }

    /// Makes the lock free: in the child of a fork, whose only thread held it (or found it free) at the fork.
    pub fn reset_after_fork(&self) {
        self.0.store(FREE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::UnsafeCell;

    struct Counter(RawLock, UnsafeCell<u64>);
    // SAFETY: the cell is used with the lock held.
    unsafe impl Sync for Counter {}

    #[test]
    fn no_increment_is_lost_and_nobody_sleeps_for_ever() {
        let counter = Counter(RawLock::new(), UnsafeCell::new(0));
        let shared = &counter;
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(move || {
                    let shared: &Counter = shared;
                    for i in 0..20_000 {
                        shared.0.lock();
                        // SAFETY: the lock is held.
                        unsafe { *shared.1.get() += 1 };
                        if i % 100 == 0 {
                            std::thread::yield_now();
                        }
                        shared.0.unlock();
                    }
                });
            }
        });
        assert_eq!(counter.1.into_inner(), 80_000);
        assert!(!counter.0.is_locked());
    }

    #[test]
    fn a_held_lock_is_not_taken_and_a_reset_one_is() {
        let lock = RawLock::new();
        assert!(lock.try_lock());
        assert!(!lock.try_lock());
        lock.reset_after_fork();
        assert!(lock.try_lock());
    }
}
