//! Collecting: the tracing loop, what a pause consists of, how mutators stop. [`yields`] is for finding errors.
//!
//! For runtimes that know their references: [`trace`], [`cycle`], [`gate`], [`references`]. For words: [`marker`] and [`mod@words`].

pub mod compact;
pub mod cycle;
pub mod gate;
#[cfg(all(test, loom))]
mod gate_models;
mod hashes;
pub mod local;
pub mod marker;
mod near;
pub mod references;
pub mod trace;
pub mod words;
pub mod worked;
pub mod yields;

pub use cycle::{Kind, Pause};
pub use hashes::Hashes;
pub use local::{Barrier, Local};
pub use marker::Marker;
pub use words::{WordCollector, WordPause};
pub use yields::Yields;
