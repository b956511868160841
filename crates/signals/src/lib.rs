//! Threads of a heap that are stopped by signals: a [`World`](heapwright::World) for code that runs long without a poll.
//!
//! A [`SignalWorld`] stops threads at polls and allocations, as the core's gate does. A thread may besides be in an *interruptible
//! section* ([`Section::interruptible`]), such as a numeric loop or a loop of generated code: there a signal stops it at any instruction. Its
//! registers and its stack are then scanned as ambiguous roots: what they lead to lives, and does not move, in any plan. To begin and
//! end a section costs a few loads and stores, and no system call; who is in no section gets no signal, so that calls that are
//! interrupted by signals, malloc, and half-done allocations are as they are without this crate.
//!
//! The runtime has [`heapwright::Vm::PINS`] and [`heapwright::Vm::OBJECT_MAP`], keeps the section of each mutator in its `Vm::Thread`, and calls
//! [`Section::report`] in `Vm::thread_roots`. `tests/sections.rs` has a whole runtime.

#[cfg(all(test, loom))]
mod models;
mod primitive;
#[cfg_attr(loom, allow(dead_code, reason = "the models have no stacks"))]
mod stop;
mod system;

#[cfg(not(loom))]
mod world;
#[cfg(not(loom))]
pub use world::{Section, SignalWorld};

/// Why a signal cannot stop threads.
#[derive(Debug)]
#[non_exhaustive]
pub enum SignalError {
    /// There is no such signal, or it cannot be caught, or threads cause it by what they do, such as `SIGSEGV`.
    Unfit {
        /// The signal.
        signal: i32,
    },
    /// Somebody else's handler is installed for it.
    Taken {
        /// The signal.
        signal: i32,
    },
}

impl core::fmt::Display for SignalError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unfit { signal } => write!(
                f,
                "signal {signal} cannot stop threads: choose one that can be caught and that programs do not cause, such as SIGURG"
            ),
            Self::Taken { signal } => write!(
                f,
                "signal {signal} has a handler of somebody else's: choose another for stopping threads"
            ),
        }
    }
}

impl core::error::Error for SignalError {}
