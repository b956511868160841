//! How far memory can be read from an address on, asked of the kernel without a fault.
//!
//! Stacks that are not the system's (fibers, coroutines) have bounds that only their owner knows, and the word that says
//! where such a stack ends can be stale. A stack that is scanned up to a doubtful end is therefore probed first: one byte
//! of each page is copied by `process_vm_readv`, which stops at the first page that cannot be read.

use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use heapwright_address::Address;

const PAGE: usize = 4096;
const BATCH: usize = 64;

/// The system refuses `process_vm_readv` (a seccomp filter): pages are probed by `write` into a pipe instead.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// The end of the readable memory that begins at `start`, at most `end`. `start` itself if its page cannot be read.
///
/// Costs one system call for each 64 pages. Takes no lock and allocates nothing; called with the world stopped.
pub(crate) fn readable_end(start: Address, end: Address) -> Address {
    let end = end.as_usize();
    let mut at = start.as_usize();
    while at < end {
        let pages = (end - (at & !(PAGE - 1))).div_ceil(PAGE).min(BATCH);
        let good = probe(at, pages);
        if good == 0 {
            break;
        }
        at = (at & !(PAGE - 1)).saturating_add(good * PAGE);
        if good < pages {
            break;
        }
    }
    Address::new(at.min(end).max(start.as_usize()))
}

/// The lowest page boundary, at least `low`, from which everything up to `end` is mapped. For a stack that grows on demand:
/// asking does not make it grow.
///
/// Costs one system call for each 64 pages. Takes no lock and allocates nothing; called with the world stopped.
pub(crate) fn mapped_start(end: Address, low: Address) -> Address {
    let low = low.as_usize();
    let mut at = end.as_usize() & !(PAGE - 1);
    let mut step = BATCH;
    while step > 0 {
        let below = at.saturating_sub(step * PAGE);
        if below >= low && below < at && mapped(below, at - below) {
            at = below;
        } else {
            step /= 2;
        }
    }
    Address::new(at)
}

/// Is each page of the range mapped? At most [`BATCH`] pages.
fn mapped(start: usize, bytes: usize) -> bool {
    let mut resident = [0u8; BATCH];
    // SAFETY: one byte of the array for each page; the kernel checks the range.
    unsafe {
        libc::mincore(
            ptr::without_provenance_mut(start),
            bytes,
            resident.as_mut_ptr(),
        ) == 0
    }
}

/// How many of the first `pages` pages from the one of `at` on can be read.
fn probe(at: usize, pages: usize) -> usize {
    let mut bytes = [0u8; BATCH];
    if !REFUSED.load(Ordering::Relaxed) {
        let mut remote = [libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        }; BATCH];
        let base = at & !(PAGE - 1);
        for (i, v) in remote.iter_mut().take(pages).enumerate() {
            v.iov_base = ptr::without_provenance_mut(base + i * PAGE);
            v.iov_len = 1;
        }
        let local = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: pages,
        };
        // SAFETY: the local vector is `bytes`; what the remote one names is checked by the kernel.
        let n = unsafe {
            libc::process_vm_readv(
                libc::getpid(),
                &raw const local,
                1,
                remote.as_ptr(),
                pages as libc::c_ulong,
                0,
            )
        };
        if let Ok(n) = usize::try_from(n) {
            return n.min(pages);
        }
        // SAFETY: the calling thread's errno.
        let errno = unsafe { *libc::__errno_location() };
        if errno == libc::EFAULT {
            return 0;
        }
        REFUSED.store(true, Ordering::Relaxed);
    }
    probe_by_pipe(at, pages)
}

/// The slow way: `write` to a pipe fails with EFAULT for what cannot be read.
fn probe_by_pipe(at: usize, pages: usize) -> usize {
    let mut pipe = [0; 2];
    // SAFETY: an array of two descriptors.
    if unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
        return 0;
    }
    let base = at & !(PAGE - 1);
    let mut good = 0;
    while good < pages {
        let page: *const libc::c_void = ptr::without_provenance(base + good * PAGE);
        // SAFETY: the kernel checks the address. A pipe takes a batch of bytes without being read.
        if unsafe { libc::write(pipe[1], page, 1) } != 1 {
            break;
        }
        good += 1;
    }
    for fd in pipe {
        // SAFETY: ours, opened above.
        unsafe { libc::close(fd) };
    }
    good
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// 200 pages, of which page 150 may not be touched and page 180 is not there.
    fn holed() -> usize {
        // SAFETY: a fresh anonymous mapping of 200 pages, then changes to its own pages.
        unsafe {
            let p = libc::mmap(
                ptr::null_mut(),
                200 * PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(p, libc::MAP_FAILED);
            libc::mprotect(p.byte_add(150 * PAGE), PAGE, libc::PROT_NONE);
            libc::munmap(p.byte_add(180 * PAGE), PAGE);
            p.addr()
        }
    }

    /// Has nobody mapped something there?
    fn is_hole(page: usize) -> bool {
        let mut resident = 0;
        // SAFETY: asks about one page; any address is allowed.
        unsafe { libc::mincore(ptr::without_provenance_mut(page), PAGE, &raw mut resident) != 0 }
    }

    #[test]
    fn stops_at_a_page_without_access_and_at_a_hole() {
        // Another test's thread may map something into the hole at any time: then it is tried again with a new one.
        for _ in 0..100 {
            let base = holed();
            let end = |from: usize, to: usize| {
                readable_end(Address::new(base + from), Address::new(base + to)).as_usize() - base
            };
            let start = |from: usize, low: usize| {
                mapped_start(Address::new(base + from), Address::new(base + low)).as_usize() - base
            };
            let behind_the_hole = end(151 * PAGE + 8, 200 * PAGE);
            let above = start(200 * PAGE - 8, 0);
            if !is_hole(base + 180 * PAGE) {
                continue;
            }
            assert_eq!(behind_the_hole, 180 * PAGE);
            assert_eq!(above, 181 * PAGE);
            assert_eq!(start(180 * PAGE, 0), 0);
            assert_eq!(end(0, 100 * PAGE), 100 * PAGE);
            assert_eq!(end(24, 100 * PAGE - 8), 100 * PAGE - 8);
            assert_eq!(end(24, 200 * PAGE), 150 * PAGE);
            assert_eq!(end(150 * PAGE, 200 * PAGE), 150 * PAGE);
            assert_eq!(end(40, 40), 40);
            assert_eq!(probe_by_pipe(base + 148 * PAGE, 8), 2);
            assert_eq!(probe(8, 4), 0);
            return;
        }
        panic!("the hole was filled each time");
    }
}
