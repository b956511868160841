//! The system calls: the handler, which threads are in sections, masks.

use crate::stop::Record;
#[cfg(not(loom))]
pub(crate) use real::*;

/// Sends a thread the signal. False if there is no such thread any more.
#[cfg(loom)]
pub(crate) fn send(record: &Record, _: u32, _: i32) -> bool {
    crate::models::send(record);
    true
}

#[cfg(loom)]
pub(crate) fn unblock(_: i32) {}

/// The signals that a thread had blocked.
#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct Mask;

#[cfg(loom)]
pub(crate) fn block_all() -> Option<Mask> {
    None
}

#[cfg(loom)]
pub(crate) fn restore(_: &Mask) {}

#[cfg(not(loom))]
mod real {
    use super::Record;
    use crate::SignalError;
    use core::cell::Cell;
    use core::ffi::{c_int, c_void};
    use core::mem::MaybeUninit;
    use core::ptr;
    use core::sync::atomic::{Ordering, compiler_fence};
    use heapwright_os::thread_number;
    use std::io;
    use std::sync::{Mutex, PoisonError};

    /// What a thread causes by what it does. Blocked, it would end the process without asking its handler.
    const OWN: [c_int; 7] = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGSYS,
        libc::SIGABRT,
    ];

    thread_local! {
        /// The innermost section that the thread is in. The handler reads it, of threads that have been in one: it is there then.
        static CURRENT: Cell<*const Record> = const { Cell::new(ptr::null()) };
        /// The thread's number; 0 if it was not asked for yet.
        static NUMBER: Cell<u32> = const { Cell::new(0) };
    }

    /// The calling thread's number. It can get the signal from then on.
    #[inline(always)]
    pub(crate) fn own_number(signal: c_int) -> u32 {
        let number = NUMBER.get();
        if number == 0 {
            return first_number(signal);
        }
        number
    }

    #[cold]
    fn first_number(signal: c_int) -> u32 {
        unblock(signal);
        NUMBER.set(thread_number() as u32);
        NUMBER.get()
    }

    /// In the child of a fork: the thread has another number, and is in no section.
    pub(crate) fn forked() {
        NUMBER.set(0);
        CURRENT.set(ptr::null());
    }

    /// The record of the innermost section that the thread is in.
    #[inline(always)]
    pub(crate) fn current() -> *const Record {
        CURRENT.get()
    }

    /// For the handler the order of this and the accesses before and after it is that of the program.
    #[inline(always)]
    pub(crate) fn set_current(record: *const Record) {
        compiler_fence(Ordering::SeqCst);
        CURRENT.set(record);
        compiler_fence(Ordering::SeqCst);
    }

    /// Installs the handler for a signal, once in the process.
    pub(crate) fn install(signal: c_int) -> Result<(), SignalError> {
        /// Two that look at once would both find nobody.
        static INSTALLING: Mutex<()> = Mutex::new(());
        if OWN.contains(&signal) {
            return Err(SignalError::Unfit { signal });
        }
        let _lock = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_signal;
        // SAFETY: a struct for which zero is valid.
        let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
        // SAFETY: asks for what is installed.
        if unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) } != 0 {
            return Err(SignalError::Unfit { signal });
        }
        if action.sa_sigaction == handler as usize {
            return Ok(());
        }
        if !matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) {
            return Err(SignalError::Taken { signal });
        }
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO;
        // SAFETY: the set is of bits. All signals, the system's own included, which `sigfillset` leaves out: with the one for
        // `pthread_cancel` a thread would leave the handler, and the stop, by unwinding. The handler is async-signal-safe.
        let failed = unsafe {
            (&raw mut action.sa_mask).write_bytes(0xff, 1);
            libc::sigaction(signal, &raw const action, ptr::null_mut())
        };
        // As for `SIGKILL`.
        (failed == 0)
            .then_some(())
            .ok_or(SignalError::Unfit { signal })
    }

    /// Touches records and futexes, which keep errno, and asks where the thread's signal stack is.
    extern "C" fn on_signal(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
        let mut at = CURRENT.get();
        if at.is_null() {
            return;
        }
        // SAFETY: the calling thread's errno.
        let errno = unsafe { *libc::__errno_location() };
        // The frame that the kernel made has all registers; the interrupted code's stack begins behind it.
        let low = context.addr() & !7;
        // SAFETY: a section's record is in its world's list until the section has ended.
        while let Some(record) = unsafe { at.as_ref() } {
            // SAFETY: the world outlives the section.
            let stops = unsafe { &*record.stops };
            stops.handle(record, low, is_on_one_stack);
            at = record.outer.load(Ordering::Relaxed);
        }
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
    }

    /// Is the thread on the stack that a section, whose upper end is `high`, began on? Not so if a handler of the program's, on a stack
    /// for signals, was interrupted.
    fn is_on_one_stack(high: usize) -> bool {
        let mut stack = MaybeUninit::<libc::stack_t>::zeroed();
        // SAFETY: only asks.
        if unsafe { libc::sigaltstack(ptr::null(), stack.as_mut_ptr()) } != 0 {
            return true;
        }
        // SAFETY: zeroed, and filled in.
        let stack = unsafe { stack.assume_init() };
        let start = stack.ss_sp.addr();
        stack.ss_flags & libc::SS_ONSTACK == 0 || (start..=start + stack.ss_size).contains(&high)
    }

    /// Sends a thread the signal. False if there is no such thread any more.
    pub(crate) fn send(_: &Record, thread: u32, signal: c_int) -> bool {
        // SAFETY: signals a thread of this process by its number.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
        // Other errors are temporary, as of a queue that is full: it is sent again later.
        sent == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
    }

    /// Makes sure that the calling thread gets the signal.
    pub(crate) fn unblock(signal: c_int) {
        let mut set = MaybeUninit::uninit();
        // SAFETY: the set is initialised before it is used.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
        }
    }

    /// The signals that a thread had blocked.
    pub(crate) struct Mask(libc::sigset_t);

    impl core::fmt::Debug for Mask {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.write_str("Mask")
        }
    }

    /// Has signals to the calling thread wait, but for those that it causes itself: what was blocked before.
    pub(crate) fn block_all() -> Option<Mask> {
        let (mut most, mut old) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: the first set is initialised before it is used; the second is written, if the call succeeds.
        unsafe {
            libc::sigfillset(most.as_mut_ptr());
            for signal in OWN {
                libc::sigdelset(most.as_mut_ptr(), signal);
            }
            let failed = libc::pthread_sigmask(libc::SIG_BLOCK, most.as_ptr(), old.as_mut_ptr());
            (failed == 0).then(|| Mask(old.assume_init()))
        }
    }

    pub(crate) fn restore(mask: &Mask) {
        // SAFETY: a set that the system gave.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask.0, ptr::null_mut()) };
    }
}
