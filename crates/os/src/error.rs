use core::fmt;
use heapwright_address::Address;

/// A call of [`crate::Port`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// [`crate::Port::reserve`]
    Reserve,
    /// [`crate::Port::reserve_at`]
    ReserveAt,
    /// [`crate::Port::commit`]
    Commit,
    /// [`crate::Port::decommit`]
    Decommit,
    /// [`crate::Port::uncommit`]
    Uncommit,
    /// [`crate::Port::protect`]
    Protect,
    /// [`crate::Port::release`]
    Release,
    /// [`crate::Port::populate`]
    Populate,
    /// [`crate::Port::huge`]
    Huge,
}

impl Op {
    /// The word used in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::ReserveAt => "reserve at",
            Self::Commit => "commit",
            Self::Decommit => "decommit",
            Self::Uncommit => "uncommit",
            Self::Protect => "protect",
            Self::Release => "release",
            Self::Populate => "populate",
            Self::Huge => "advise on huge pages for",
        }
    }
}

/// What the operating system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OsError {
    /// The call.
    pub op: Op,
    /// Where; null if the system was to choose.
    pub address: Address,
    /// How much.
    pub bytes: usize,
    /// The system's error number.
    pub errno: i32,
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            op,
            address,
            bytes,
            errno,
        } = self;
        let text = std::io::Error::from_raw_os_error(*errno);
        write!(
            f,
            "the system would not {} {bytes} bytes at {address}: {text}",
            op.name()
        )
    }
}

impl core::error::Error for OsError {}
