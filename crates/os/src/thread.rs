//! Which thread runs, and what is called when the process forks.

use std::io;

/// A number that no other thread of the process has while this one lives; never 0. A few instructions. In the child of a fork the
/// thread keeps it.
#[must_use]
pub fn current_thread() -> usize {
    // SAFETY: it has no precondition.
    unsafe { libc::pthread_self() as usize }
}

/// The number by which the system and its tools know the calling thread. A system call.
#[must_use]
pub fn thread_number() -> u64 {
    // SAFETY: it has no precondition.
    let number = unsafe { libc::syscall(libc::SYS_gettid) };
    number.unsigned_abs()
}

/// Has the C library call `before` before each fork of the process, on the thread that forks, and then `parent` and `child` in the
/// parent and in the child. For front ends; it cannot be undone.
///
/// # Errors
/// If there is no memory for it.
pub fn at_fork(
    before: extern "C" fn(),
    parent: extern "C" fn(),
    child: extern "C" fn(),
) -> io::Result<()> {
    // SAFETY: functions that are safe to call, without arguments, that live as long as the program.
    let errno = unsafe { libc::pthread_atfork(Some(before), Some(parent), Some(child)) };
    if errno == 0 {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(errno))
}
