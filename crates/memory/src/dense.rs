use crate::state::{ChunkState, Chunks};
use crate::{MapError, MappedVec};
use heapwright_address::{Address, Chunk};
use heapwright_os::{OsError, Port};
use std::sync::Arc;

/// A mapper over one reservation: a byte for each chunk, in a flat array. What a heap uses for its own range.
///
/// Addresses outside of the range are not mapped, and cannot be.
///
/// ```
/// use heapwright_address::Chunk;
/// use heapwright_memory::{DenseMapper, MapError, Mmapper};
/// use heapwright_os::{Reservation, real_port};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = Reservation::new(real_port(), Chunk::BYTES, Chunk::BYTES)?;
/// let mapper = DenseMapper::new(real_port(), memory.start(), Chunk::BYTES)?;
/// mapper.ensure_mapped(memory.start(), 4, &[], &[])?;
/// // SAFETY: mapped just now, and nobody else's.
/// unsafe {
///     memory.start().store(42usize);
///     mapper.decommit(memory.start(), 1)?;
///     assert_eq!(memory.start().load::<usize>(), 0);
/// }
/// let behind = memory.start().add(Chunk::BYTES);
/// let refused = mapper.ensure_mapped(behind, 1, &[], &[]);
/// assert_eq!(refused, Err(MapError::OutOfRange { chunk: behind }));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DenseMapper {
    port: Arc<dyn Port>,
    log_page: u32,
    first: usize,
    states: MappedVec<StateByte>,
}

/// A [`ChunkState`] that a [`MappedVec`] can hold: it is only ever used as a `ChunkState`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
struct StateByte(u8);

impl DenseMapper {
    /// A mapper for `[start, start + bytes)`, which the caller has reserved and keeps reserved.
    ///
    /// # Errors
    /// If the start is not the start of a chunk, or the system has no memory for the states: a byte for each chunk.
    pub fn new(port: Arc<dyn Port>, start: Address, bytes: usize) -> Result<Self, MapError> {
        if !start.is_aligned_to(Chunk::BYTES) {
            return Err(MapError::Unaligned { start });
        }
        if bytes != 0 && start.checked_add(bytes - 1).is_none() {
            return Err(MapError::Overflow { start, bytes });
        }
        let chunks = bytes >> Chunk::LOG_BYTES;
        let mut states = MappedVec::new(Arc::clone(&port), chunks, c"heapwright chunk states")?;
        states.reserve(chunks)?;
        // SAFETY: memory that was committed for the first time reads zero, which is a state: unmapped. Nothing is written, so
        // that only pages with states in use cost memory.
        unsafe { states.set_len(chunks) };
        Ok(Self {
            log_page: port.page_size().trailing_zeros(),
            port,
            first: start.as_usize() >> Chunk::LOG_BYTES,
            states,
        })
    }
}

impl Chunks for DenseMapper {
    #[inline(always)]
    fn find(&self, chunk: usize) -> Option<&ChunkState> {
        let index = chunk.wrapping_sub(self.first);
        if index >= self.states.len() {
            return None;
        }
        // SAFETY: below the length. A ChunkState is an atomic byte; these bytes are reached through here only.
        Some(unsafe { &*self.states.as_ptr().cast::<ChunkState>().add(index) })
    }

    #[inline]
    fn find_or_create(&self, chunk: usize) -> Result<&ChunkState, MapError> {
        self.find(chunk).ok_or(MapError::OutOfRange {
            chunk: Address::new(chunk << Chunk::LOG_BYTES),
        })
    }

    fn supply(&self, start: Address, bytes: usize) -> Result<(), OsError> {
        // What a refused commit opened was never written, and stays zero.
        self.port.commit(start, bytes)
    }

    fn withdraw(&self, start: Address, bytes: usize) -> Result<(), OsError> {
        self.port.uncommit(start, bytes)
    }

    fn port(&self) -> &dyn Port {
        &*self.port
    }

    #[inline(always)]
    fn log_page(&self) -> u32 {
        self.log_page
    }
}
