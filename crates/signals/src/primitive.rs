//! What threads wait with: futexes, or the model checker's when the crate is compiled with `--cfg loom`.

#[cfg(loom)]
pub(crate) use modelled::*;
#[cfg(not(loom))]
pub(crate) use real::*;

#[cfg(not(loom))]
mod real {
    use core::cell::UnsafeCell;
    pub(crate) use core::sync::atomic::{
        AtomicPtr, AtomicU32, AtomicUsize, Ordering, compiler_fence,
    };
    pub(crate) use heapwright_os::clock::monotonic_ns;
    use heapwright_os::{RawLock, futex_wait, futex_wake};

    /// A number that threads, also in a signal handler, can wait on.
    #[derive(Debug, Default)]
    pub(crate) struct Word(AtomicU32);

    impl Word {
        pub(crate) fn load(&self) -> u32 {
            self.0.load(Ordering::Acquire)
        }

        pub(crate) fn add(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }

        pub(crate) fn wait(&self, expected: u32, timeout_ns: Option<u64>) {
            futex_wait(&self.0, expected, timeout_ns);
        }

        pub(crate) fn wake(&self) {
            futex_wake(&self.0, u32::MAX);
        }
    }

    /// A lock that can be made free in the child of a fork. Not for signal handlers.
    #[derive(Debug, Default)]
    pub(crate) struct Lock<T> {
        lock: RawLock,
        value: UnsafeCell<T>,
    }

    // SAFETY: the value is used with the lock held.
    unsafe impl<T: Send> Sync for Lock<T> {}

    impl<T> Lock<T> {
        pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            // SAFETY: the lock is held; `f` does not call this again, as the uses in this crate show.
            self.lock.with(|| f(unsafe { &mut *self.value.get() }))
        }

        /// Makes it free.
        ///
        /// # Safety
        /// The process has no other thread, and this one does not hold it.
        pub(crate) unsafe fn forked(&self) {
            self.lock.reset_after_fork();
        }
    }

    /// Where a signal may come: anywhere.
    #[inline(always)]
    pub(crate) fn instruction(_: &crate::stop::Record) {
        compiler_fence(Ordering::SeqCst);
    }
}

#[cfg(loom)]
mod modelled {
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
    use loom::sync::{Condvar, Mutex};

    #[derive(Debug, Default)]
    pub(crate) struct Word {
        value: AtomicU32,
        lock: Mutex<()>,
        woken: Condvar,
    }

    impl Word {
        pub(crate) fn load(&self) -> u32 {
            self.value.load(Ordering::Acquire)
        }

        pub(crate) fn add(&self) {
            self.value.fetch_add(1, Ordering::SeqCst);
        }

        /// As a futex: compares and falls asleep in one step. There is no time.
        pub(crate) fn wait(&self, expected: u32, _: Option<u64>) {
            let Ok(lock) = self.lock.lock() else { return };
            if self.load() == expected {
                drop(self.woken.wait(lock));
            }
        }

        pub(crate) fn wake(&self) {
            drop(self.lock.lock());
            self.woken.notify_all();
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Lock<T>(Mutex<T>);

    impl<T> Lock<T> {
        pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            let mut value = self.0.lock().unwrap_or_else(|e| e.into_inner());
            f(&mut value)
        }
    }

    pub(crate) fn monotonic_ns() -> u64 {
        0
    }

    /// Where a signal may come. Also a fence: in a program a store is seen by others after a time, for which the one that stops
    /// the world looks again; the model has no time.
    pub(crate) fn instruction(record: &crate::stop::Record) {
        fence(Ordering::SeqCst);
        crate::models::deliver(record);
    }
}
