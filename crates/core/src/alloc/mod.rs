//! What allocation works with: size classes, the runs of free cells that a thread bumps through, and which objects a profile sees.

pub mod fast_path;
pub mod runs;
pub mod sampling;
pub mod size_class;

pub use fast_path::{After, Class, Cursor, FastPath};
pub use runs::{FAST_KINDS, LocalRuns, Run};
pub(crate) use sampling::Countdown;
pub use sampling::{Sample, Sampler};
pub use size_class::{BLOCK_BYTES, CLASSES, GRANULE, MAX_SMALL, SizeClass, Small};
