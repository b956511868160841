use crate::{Op, OsError};
use core::ffi::CStr;
use core::fmt::Debug;
use heapwright_address::Address;

/// What a memory layer asks of an operating system.
///
/// The contract, for all calls:
/// - sizes and addresses are multiples of [`Port::page_size`]; a size of 0 does nothing and succeeds;
/// - ranges, but for those of `reserve`, lie within what this port reserved and has not released;
/// - a call either does all that it says or returns an error. `commit`, `decommit` and `protect` that fail may have treated
///   a first part of the range; contents are never lost by a failing `commit` or `protect`;
/// - no call replaces a mapping that it did not make, and nothing is executable but what `commit_executable` says;
/// - any thread may call at any time; calls on overlapping ranges are ordered by the caller;
/// - no call allocates from malloc.
///
/// ```
/// use heapwright_os::real_port;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let port = real_port();
/// let bytes = 16 * port.page_size();
/// let start = port.reserve(bytes, 1 << 20)?;
/// assert!(start.is_aligned_to(1 << 20));
/// port.commit(start, bytes)?;
/// // SAFETY: committed, and nobody else's.
/// unsafe {
///     start.store(7usize);
///     // Contents are kept while access is forbidden.
///     port.protect(start, bytes)?;
///     port.commit(start, bytes)?;
///     assert_eq!(start.load::<usize>(), 7);
///     // They are gone when the memory went back.
///     port.decommit(start, bytes)?;
///     assert_eq!(start.load::<usize>(), 0);
/// }
/// port.release(start, bytes)?;
/// # Ok(())
/// # }
/// ```
pub trait Port: Send + Sync + Debug {
    /// Bytes in a page of the system: asked, never assumed.
    fn page_size(&self) -> usize;

    /// Sets aside addresses, aligned to `align` (a power of two), that no access is allowed to. It costs no memory.
    ///
    /// # Errors
    /// If the system has no such range.
    fn reserve(&self, bytes: usize, align: usize) -> Result<Address, OsError>;

    /// Sets aside exactly this range.
    ///
    /// # Errors
    /// If something is there already (EEXIST), or the system refuses.
    fn reserve_at(&self, address: Address, bytes: usize) -> Result<(), OsError>;

    /// Makes a range readable and writable. Pages that never were so, or were decommitted, read zero; others keep their
    /// contents.
    ///
    /// # Errors
    /// If the system has no memory for it.
    fn commit(&self, address: Address, bytes: usize) -> Result<(), OsError>;

    /// As `commit`, and executable too, for machine code; `commit` takes that away again.
    ///
    /// # Errors
    /// If the system has no memory for it, or a policy against memory that is both writable and executable; ENOSYS for a port
    /// that has no such call.
    fn commit_executable(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        Err(OsError {
            op: Op::Commit,
            address,
            bytes,
            errno: 38,
        })
    }

    /// Gives the memory of a committed range back. It stays readable and writable, and reads zero.
    ///
    /// # Errors
    /// If the system refuses.
    fn decommit(&self, address: Address, bytes: usize) -> Result<(), OsError>;

    /// Gives the memory back and forbids access: as after `reserve`.
    ///
    /// # Errors
    /// If the system refuses.
    fn uncommit(&self, address: Address, bytes: usize) -> Result<(), OsError>;

    /// Forbids access and keeps the contents; `commit` allows it again.
    ///
    /// # Errors
    /// If the system refuses.
    fn protect(&self, address: Address, bytes: usize) -> Result<(), OsError>;

    /// Gives addresses and memory back. The range is not the caller's any more.
    ///
    /// # Errors
    /// If the system refuses.
    fn release(&self, address: Address, bytes: usize) -> Result<(), OsError>;

    /// Names a range for those who look at the process's maps, where the system can.
    fn name(&self, address: Address, bytes: usize, name: &'static CStr);

    /// Asks for the memory of a committed range now, in one call instead of a fault for each page. A hint: without it, or if
    /// it fails, the memory comes when it is touched. Contents are kept.
    ///
    /// # Errors
    /// If the system does not know the call (EINVAL) or has no memory at hand.
    fn populate(&self, address: Address, bytes: usize) -> Result<(), OsError>;

    /// Asks for huge pages in a range, or not to use them.
    ///
    /// # Errors
    /// If the system refuses or has none.
    fn huge(&self, address: Address, bytes: usize, wanted: bool) -> Result<(), OsError>;
}
