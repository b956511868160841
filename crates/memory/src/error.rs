use core::fmt;
use heapwright_address::Address;
use heapwright_os::OsError;

/// Why a mapper or a layout refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// The range does not fit into the address space.
    Overflow {
        /// Where it starts.
        start: Address,
        /// Its size in bytes (or the largest number, if that overflowed).
        bytes: usize,
    },
    /// The start of the range is no multiple of a page.
    Unaligned {
        /// Where it starts.
        start: Address,
    },
    /// A chunk of the range is not mapped, and the operation needs it to be.
    NotMapped {
        /// The first such chunk.
        chunk: Address,
    },
    /// A chunk of the range is not in the range that the mapper serves.
    OutOfRange {
        /// The first such chunk.
        chunk: Address,
    },
    /// The system refused.
    Os(OsError),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overflow { start, bytes } => write!(
                f,
                "{bytes} bytes from {start} do not fit into the address space"
            ),
            Self::Unaligned { start } => write!(f, "{start} is not the start of a page"),
            Self::NotMapped { chunk } => write!(f, "the chunk at {chunk} is not mapped"),
            Self::OutOfRange { chunk } => {
                write!(f, "the chunk at {chunk} is outside of the mapper's range")
            }
            Self::Os(e) => write!(f, "{e}"),
        }
    }
}

impl core::error::Error for MapError {}

impl From<OsError> for MapError {
    fn from(e: OsError) -> Self {
        Self::Os(e)
    }
}
