//! What the process and the machine have. No call allocates.

use core::ffi::CStr;

/// How many processors this process may run on; at least 1. No allocation.
#[must_use]
pub fn processors() -> usize {
    // SAFETY: all zero is a set, the empty one.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: the size is the set's.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0 {
        return 1;
    }
    // SAFETY: reads the set.
    let count = unsafe { libc::CPU_COUNT(&set) };
    usize::try_from(count).unwrap_or(1).max(1)
}

/// Bytes of memory that the machine has; 0 if it does not say.
#[must_use]
pub fn physical_bytes() -> usize {
    // SAFETY: sysconf has no preconditions.
    let (pages, page) = unsafe {
        (
            libc::sysconf(libc::_SC_PHYS_PAGES),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    usize::try_from(pages)
        .unwrap_or(0)
        .saturating_mul(usize::try_from(page).unwrap_or(0))
}

/// The limit on the process's address space (`ulimit -v`), if there is one.
#[must_use]
pub fn address_space_limit() -> Option<usize> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: writes to a local.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur as usize)
}

/// Bytes of the process that are in memory now; 0 if the system does not say.
#[must_use]
pub fn resident_bytes() -> usize {
    let mut buffer = [0u8; 128];
    let text = read(c"/proc/self/statm", &mut buffer);
    let pages = number(text.split(|b| *b == b' ').nth(1).unwrap_or_default());
    // SAFETY: sysconf has no preconditions.
    pages * usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// The most bytes of the process that ever were in memory at once; 0 if the system does not say.
#[must_use]
pub fn peak_resident_bytes() -> usize {
    let mut buffer = [0u8; 4096];
    let text = read(c"/proc/self/status", &mut buffer);
    let line = text
        .split(|b| *b == b'\n')
        .find(|l| l.starts_with(b"VmHWM:"))
        .unwrap_or_default();
    let digits = line
        .iter()
        .position(u8::is_ascii_digit)
        .map_or(&line[..0], |at| &line[at..]);
    number(digits) * 1024
}

fn number(text: &[u8]) -> usize {
    text.iter()
        .take_while(|b| b.is_ascii_digit())
        .fold(0, |n, b| n * 10 + usize::from(b - b'0'))
}

fn read<'b>(path: &CStr, buffer: &'b mut [u8]) -> &'b [u8] {
    // SAFETY: a terminated path.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return &[];
    }
    // SAFETY: writes at most the buffer's length.
    let got = unsafe { libc::read(file, buffer.as_mut_ptr().cast(), buffer.len()) };
    // SAFETY: opened above.
    unsafe { libc::close(file) };
    &buffer[..usize::try_from(got).unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_in_memory_and_fits_the_machine() {
        let resident = resident_bytes();
        assert!(resident > 64 << 10 && resident <= peak_resident_bytes() + (4 << 20));
        assert!(resident < physical_bytes());
    }
}
