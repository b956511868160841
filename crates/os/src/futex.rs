use core::sync::atomic::AtomicU32;

/// Sleeps while the word is `expected`, until a wake-up or the end of `timeout_ns`. May return early; allocates nothing and
/// is safe in a signal handler. errno is kept.
pub fn futex_wait(word: &AtomicU32, expected: u32, timeout_ns: Option<u64>) {
    let time = timeout_ns.map(|ns| libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    });
    let pointer = time.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    call(word, libc::FUTEX_WAIT, expected, pointer);
}

/// Wakes up to `most` sleepers of the word.
pub fn futex_wake(word: &AtomicU32, most: u32) {
    call(
        word,
        libc::FUTEX_WAKE,
        most.min(i32::MAX as u32),
        core::ptr::null(),
    );
}

fn call(word: &AtomicU32, op: i32, value: u32, time: *const libc::timespec) {
    // SAFETY: errno's location is valid for the calling thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let kept = unsafe { *errno };
    // SAFETY: the word outlives the call, and the time is null or points to a timespec that does.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            op | libc::FUTEX_PRIVATE_FLAG,
            value,
            time,
        )
    };
    // SAFETY: as above.
    unsafe { *errno = kept };
}
