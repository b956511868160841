//! What listens to a heap, inside of the process: the log line and the recording.
//!
//! A [`heapwright::Listener`] hears of a heap's events. The listeners here turn them into lines of text and append those to a file,
//! each by one system call: a process that is killed leaves what it had to say so far, and two processes can share a file. What
//! does not fit on a full disk is lost, and the program goes on. Lines are put together on the stack ([`mod@line`]), so that this serves
//! heaps under programs whose own `malloc` is a heap of ours, too. System calls are made directly: errno stays as it is.
//!
//! - [`instruments`]: all of them together, for a heap that is embedded.
//! - [`log`]: one line for each collection, for people and scripts. `docs/observing.md` has its grammar.
//! - [`profile`]: which objects are allocated where, sampled. `docs/profiling.md` says what is made of it.
//! - [`record`]: everything, as JSON, a line for each event. The `heapwright` command makes reports, timelines and summaries of it.
//! - [`picture`]: maps of the heap, in the recording and for who asks.
//! - [`live`]: answers who asks what the heap does now, over a socket.
//! - [`dump`]: the heap itself, for the tools that open heap dumps.

#![deny(unsafe_code)]

pub mod dump;
pub mod instruments;
pub mod line;
pub mod live;
pub mod log;
mod out;
pub mod picture;
pub mod profile;
pub mod record;
pub mod sink;
pub mod sizes;

pub use instruments::{InstrumentError, Instruments, Wanted, Watching};
pub use record::Recorder;
pub use sink::Sink;
pub use sizes::Sizes;
