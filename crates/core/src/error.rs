//! What can go wrong, as values.
//!
//! What the environment refuses and what a caller gets wrong is returned; nothing in this crate panics or aborts.

use core::fmt;
use heapwright_memory::MapError;
use heapwright_os::{Op, OsError};

/// Why an allocation failed. The heap is unharmed and may be used further.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocError {
    /// The heap has reached its limit and collecting did not make room for `requested` bytes.
    OutOfMemory {
        /// The size that was asked for, in bytes.
        requested: usize,
    },
    /// The request can be served by no heap: larger than the heap's whole range, or its alignment is not a power of two.
    Unsatisfiable {
        /// The size that was asked for, in bytes.
        requested: usize,
    },
    /// The operating system refused memory.
    Os(OsError),
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory { requested } => {
                write!(
                    f,
                    "out of memory: {requested} bytes do not fit under the heap's limit, also after a collection"
                )
            }
            Self::Unsatisfiable { requested } => {
                write!(f, "no heap can serve a request of {requested} bytes")
            }
            Self::Os(e) => write!(f, "the system refused memory: {e}"),
        }
    }
}

impl core::error::Error for AllocError {}

impl From<OsError> for AllocError {
    fn from(e: OsError) -> Self {
        Self::Os(e)
    }
}

/// Why a pin was not taken back. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PinError {
    /// The object has no counted pin: it was never pinned, or as often unpinned, or is pinned for ever.
    NotPinned,
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPinned => "the object has no pin that could be taken back",
        })
    }
}

impl core::error::Error for PinError {}

/// Why a heap cannot be made ready for a fork. Nothing was changed; a child of a fork that goes on all the same must not use the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForkError {
    /// The calling thread is collecting, or marking, or a helper of one that does: a method of the runtime ([`crate::Vm`]) forks.
    InCollection,
}

impl fmt::Display for ForkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InCollection => f.write_str(
                "the heap is being collected by this thread: a runtime forks when its methods have returned, such as in a finalizer",
            ),
        }
    }
}

impl core::error::Error for ForkError {}

/// Why an explicit free was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FreeError {
    /// The address is not in a block of this heap.
    Foreign,
    /// The address is inside of a cell, not at its start.
    Interior,
    /// The cell is not allocated: freed before, or never handed out.
    NotAllocated,
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "the address is not in this heap",
            Self::Interior => "the address is inside of an object, not at its start",
            Self::NotAllocated => "nothing is allocated there: freed before, or never handed out",
        })
    }
}

impl core::error::Error for FreeError {}

/// Why a reference or a finalizer was not registered, or not changed. Nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReferenceError {
    /// There is no memory to note it.
    NoMemory,
    /// The mutator is of another heap.
    OtherHeap,
}

impl fmt::Display for ReferenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMemory => "there is no memory to note a reference or a finalizer",
            Self::OtherHeap => "the mutator is of another heap than the references",
        })
    }
}

impl core::error::Error for ReferenceError {}

/// Why a heap could not be built or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeapError {
    /// The operating system refused memory or address space.
    Os(OsError),
    /// The mapper refused a range.
    Map(MapError),
    /// An option was wrong.
    Option(OptionError),
    /// There are [`crate::MAX_KINDS`] kinds already.
    TooManyKinds,
    /// The plan cannot serve the runtime.
    Plan {
        /// The plan's name.
        plan: &'static str,
        /// Why, and what to use instead.
        why: &'static str,
    },
    /// The thread that marks while mutators run could not be started.
    Thread,
    /// A thread could not be attached: there is no memory for its record.
    Attach,
    /// The system gave a range of addresses above 2^48, which the mark stack cannot hold.
    TooHigh,
}

impl fmt::Display for HeapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os(e) if e.op == Op::Reserve => write!(
                f,
                "{e}. These are addresses, not memory: a heap reserves about four times its option max, and `ulimit -v` limits what the \
                 process may have. A smaller max asks for fewer"
            ),
            Self::Os(e) => write!(f, "{e}"),
            Self::Map(e) => write!(f, "{e}"),
            Self::Option(e) => write!(f, "{e}"),
            Self::TooHigh => f.write_str("the system gave addresses above 2^48 for the heap"),
            Self::Plan { plan, why } => write!(f, "plan {plan}: {why}"),
            Self::Thread => f.write_str("the system refused a thread for marking"),
            Self::Attach => f.write_str("there is no memory for one more mutator"),
            Self::TooManyKinds => f.write_str("there is no room for one more kind of cells"),
        }
    }
}

impl core::error::Error for HeapError {}

impl From<OsError> for HeapError {
    fn from(e: OsError) -> Self {
        Self::Os(e)
    }
}

impl From<MapError> for HeapError {
    fn from(e: MapError) -> Self {
        Self::Map(e)
    }
}

impl From<OptionError> for HeapError {
    fn from(e: OptionError) -> Self {
        Self::Option(e)
    }
}

/// Why limits were refused. Those that were in force before still are, and the heap is unharmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitError {
    /// The soft limit is above the hard one.
    SoftAboveHard {
        /// The soft limit in bytes.
        soft: usize,
        /// The hard limit in bytes.
        hard: usize,
    },
    /// More is in use than the hard limit allows.
    BelowUse {
        /// The hard limit in bytes.
        hard: usize,
        /// Bytes in use, and what the plan needs to copy to.
        used: usize,
    },
    /// The hard limit is above the addresses that the heap reserved when it was built.
    BeyondRange {
        /// The hard limit in bytes.
        hard: usize,
        /// The reserved bytes.
        range: usize,
    },
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SoftAboveHard { soft, hard } => {
                write!(
                    f,
                    "the soft limit of {soft} bytes is above the hard one of {hard}; give a lower soft one, or 0 for none"
                )
            }
            Self::BelowUse { hard, used } => write!(
                f,
                "{used} bytes are in use, more than the limit of {hard}; collect first (Mutator::set_limits does), or give a higher one"
            ),
            Self::BeyondRange { hard, range } => write!(
                f,
                "the heap was built with {range} bytes of addresses, less than the limit of {hard}; build it with a higher option max"
            ),
        }
    }
}

impl core::error::Error for LimitError {}

/// An option that does not exist, or a value that it does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    /// The option's name as given.
    pub name: String,
    /// The value as given.
    pub value: String,
    /// What is wrong, and what is allowed.
    pub why: String,
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "option {}={}: {}", self.name, self.value, self.why)
    }
}

impl core::error::Error for OptionError {}
