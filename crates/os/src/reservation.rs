use crate::{OsError, Port};
use heapwright_address::Address;
use std::sync::Arc;

/// A range of addresses that is ours until this is dropped.
///
/// ```
/// use heapwright_os::{Reservation, real_port};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let range = Reservation::new(real_port(), 1 << 20, 1 << 16)?;
/// assert!(range.start().is_aligned_to(1 << 16));
/// range.port().commit(range.start(), 4096)?;
/// // SAFETY: memory that was just made accessible.
/// unsafe { range.start().store(7u64) };
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reservation {
    port: Arc<dyn Port>,
    start: Address,
    bytes: usize,
}

impl Reservation {
    /// Reserves `bytes` (rounded up to pages), aligned to `align`, a power of two.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new(port: Arc<dyn Port>, bytes: usize, align: usize) -> Result<Self, OsError> {
        let page = port.page_size();
        let bytes = bytes
            .checked_next_multiple_of(page)
            .unwrap_or(usize::MAX & !(page - 1));
        let start = port.reserve(bytes, align.max(page))?;
        Ok(Self { port, start, bytes })
    }

    /// First byte.
    #[must_use]
    pub fn start(&self) -> Address {
        self.start
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// One past the last byte.
    #[must_use]
    pub fn end(&self) -> Address {
        self.start.add(self.bytes)
    }

    /// The port that it came from.
    #[must_use]
    pub fn port(&self) -> &Arc<dyn Port> {
        &self.port
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // There is nobody to tell, and nothing to do: the addresses stay taken.
        let _ = self.port.release(self.start, self.bytes);
    }
}
