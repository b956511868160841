use crate::{Op, OsError, Port};
use core::ffi::CStr;
use core::sync::atomic::{AtomicUsize, Ordering};
use heapwright_address::Address;
use std::sync::{Arc, OnceLock};

/// The system that the process runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemPort;

/// The system's port, for whoever wants no other.
#[must_use]
pub fn real_port() -> Arc<dyn Port> {
    static PORT: OnceLock<Arc<SystemPort>> = OnceLock::new();
    Arc::clone(PORT.get_or_init(|| Arc::new(SystemPort))) as Arc<dyn Port>
}

const RESERVE_FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

fn errno() -> i32 {
    std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EINVAL)
}

fn check(result: i32, op: Op, address: Address, bytes: usize) -> Result<(), OsError> {
    if result == 0 {
        Ok(())
    } else {
        Err(OsError {
            op,
            address,
            bytes,
            errno: errno(),
        })
    }
}

fn map(op: Op, address: Address, bytes: usize, flags: i32) -> Result<Address, OsError> {
    // SAFETY: an anonymous mapping that replaces nothing: the flags hold no MAP_FIXED.
    let at = unsafe {
        libc::mmap(
            address.as_mut_ptr(),
            bytes,
            libc::PROT_NONE,
            RESERVE_FLAGS | flags,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED {
        Err(OsError {
            op,
            address,
            bytes,
            errno: errno(),
        })
    } else {
        Ok(Address::from_ptr(at))
    }
}

fn unmap(address: Address, bytes: usize) -> Result<(), OsError> {
    if bytes == 0 {
        return Ok(());
    }
    // SAFETY: the contract: a range that this port reserved.
    check(
        unsafe { libc::munmap(address.as_mut_ptr(), bytes) },
        Op::Release,
        address,
        bytes,
    )
}

/// Sets what may be done with a range that this port reserved.
fn allow(address: Address, bytes: usize, access: libc::c_int) -> Result<(), OsError> {
    if bytes == 0 {
        return Ok(());
    }
    // SAFETY: the contract of `Port`: a range that this port reserved.
    let result = unsafe { libc::mprotect(address.as_mut_ptr(), bytes, access) };
    check(result, Op::Commit, address, bytes)
}

impl Port for SystemPort {
    #[inline]
    fn page_size(&self) -> usize {
        static PAGE: AtomicUsize = AtomicUsize::new(0);
        match PAGE.load(Ordering::Relaxed) {
            0 => {
                // SAFETY: sysconf has no preconditions.
                let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) });
                let page = page.unwrap_or(4096);
                PAGE.store(page, Ordering::Relaxed);
                page
            }
            page => page,
        }
    }

    fn reserve(&self, bytes: usize, align: usize) -> Result<Address, OsError> {
        let refused = OsError {
            op: Op::Reserve,
            address: Address::ZERO,
            bytes,
            errno: libc::ENOMEM,
        };
        let slack = if align > self.page_size() { align } else { 0 };
        let whole = bytes.checked_add(slack).ok_or(refused)?;
        if bytes == 0 {
            return Ok(Address::new(align));
        }
        let at = map(Op::Reserve, Address::ZERO, whole, 0)?;
        if slack == 0 {
            return Ok(at);
        }
        let start = at.align_up(align).ok_or(refused)?;
        unmap(at, start.diff(at))?;
        unmap(start.add(bytes), at.add(whole).diff(start.add(bytes)))?;
        Ok(start)
    }

    fn reserve_at(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        if bytes == 0 {
            return Ok(());
        }
        let at = map(Op::ReserveAt, address, bytes, libc::MAP_FIXED_NOREPLACE)?;
        if at == address {
            return Ok(());
        }
        // An old kernel takes the address for a hint.
        unmap(at, bytes)?;
        Err(OsError {
            op: Op::ReserveAt,
            address,
            bytes,
            errno: libc::EEXIST,
        })
    }

    fn commit(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        allow(address, bytes, libc::PROT_READ | libc::PROT_WRITE)
    }

    fn commit_executable(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        allow(address, bytes, all)
    }

    fn decommit(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the contract: the owner of the range wants its contents dropped.
        let result = unsafe { libc::madvise(address.as_mut_ptr(), bytes, libc::MADV_DONTNEED) };
        check(result, Op::Decommit, address, bytes)
    }

    fn uncommit(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        let named = |e| OsError {
            op: Op::Uncommit,
            ..e
        };
        self.decommit(address, bytes).map_err(named)?;
        self.protect(address, bytes).map_err(named)
    }

    fn protect(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the contract: a range that this port reserved, which its owner wants closed.
        let result = unsafe { libc::mprotect(address.as_mut_ptr(), bytes, libc::PROT_NONE) };
        check(result, Op::Protect, address, bytes)
    }

    fn release(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        unmap(address, bytes)
    }

    fn name(&self, address: Address, bytes: usize, name: &'static CStr) {
        const PR_SET_VMA: i32 = 0x5356_4d41;
        const PR_SET_VMA_ANON_NAME: u64 = 0;
        if bytes != 0 {
            // SAFETY: reads a terminated string; a kernel that does not know the request says so, which is of no interest.
            unsafe {
                libc::prctl(
                    PR_SET_VMA,
                    PR_SET_VMA_ANON_NAME,
                    address.as_usize(),
                    bytes,
                    name.as_ptr(),
                )
            };
        }
    }

    fn populate(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the contract: the range is committed, and its contents are kept.
        let result =
            unsafe { libc::madvise(address.as_mut_ptr(), bytes, libc::MADV_POPULATE_WRITE) };
        check(result, Op::Populate, address, bytes)
    }

    fn huge(&self, address: Address, bytes: usize, wanted: bool) -> Result<(), OsError> {
        if bytes == 0 {
            return Ok(());
        }
        let advice = if wanted {
            libc::MADV_HUGEPAGE
        } else {
            libc::MADV_NOHUGEPAGE
        };
        // SAFETY: advice does not change contents.
        check(
            unsafe { libc::madvise(address.as_mut_ptr(), bytes, advice) },
            Op::Huge,
            address,
            bytes,
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn committed_memory_is_zero_keeps_its_contents_and_loses_them_when_decommitted() {
        let port = SystemPort;
        let page = port.page_size();
        let at = port.reserve(4 * page, 1 << 22).unwrap();
        assert!(at.is_aligned_to(1 << 22));
        port.commit(at, 2 * page).unwrap();
        // SAFETY: committed just now.
        unsafe {
            assert_eq!(at.load::<u64>(), 0);
            at.store(7u64);
        }
        // Kernels before 5.14 do not know it; contents are kept either way.
        if let Err(e) = port.populate(at, 2 * page) {
            assert_eq!((e.op, e.errno), (Op::Populate, libc::EINVAL));
        }
        port.protect(at, 2 * page).unwrap();
        port.commit(at, 4 * page).unwrap();
        // SAFETY: committed just now.
        assert_eq!(unsafe { at.load::<u64>() }, 7);
        port.decommit(at, page).unwrap();
        // SAFETY: decommitted memory stays readable.
        assert_eq!(unsafe { at.load::<u64>() }, 0);
        port.uncommit(at, 4 * page).unwrap();
        port.release(at, 4 * page).unwrap();
    }

    #[test]
    fn nothing_is_mapped_over_a_stranger() {
        let port = SystemPort;
        let page = port.page_size();
        let at = port.reserve(page, page).unwrap();
        let error = port.reserve_at(at, page).unwrap_err();
        assert_eq!(
            (error.op, error.address, error.bytes, error.errno),
            (Op::ReserveAt, at, page, libc::EEXIST)
        );
        assert!(error.to_string().contains("reserve at"));
        port.release(at, page).unwrap();
        port.reserve_at(at, page).unwrap();
        port.release(at, page).unwrap();
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        let error = SystemPort.reserve(1 << 60, 4096).unwrap_err();
        assert_eq!((error.op, error.errno), (Op::Reserve, libc::ENOMEM));
        assert_eq!(
            SystemPort
                .reserve(usize::MAX - 4095, 1 << 22)
                .unwrap_err()
                .errno,
            libc::ENOMEM
        );
    }
}
