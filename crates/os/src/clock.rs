//! Clocks, in nanoseconds. No call allocates.

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes to a local timespec.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Time that only goes forward, from some start.
#[must_use]
pub fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Processor time of the calling thread.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Processor time of the process.
#[must_use]
pub fn process_cpu_ns() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_goes_on() {
        let (a, b) = (super::monotonic_ns(), super::process_cpu_ns());
        let mut sum = 0u64;
        while super::monotonic_ns() < a + 2_000_000 {
            sum = sum.wrapping_add(super::thread_cpu_ns());
        }
        assert!(sum > 0 && super::process_cpu_ns() > b);
    }
}
