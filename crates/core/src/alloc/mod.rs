//! What allocation works with: size classes, and the runs of free cells that a thread bumps through.

pub mod fast_path;
pub mod runs;
pub mod size_class;

pub use fast_path::{After, Class, Cursor, FastPath};
pub use runs::{FAST_KINDS, LocalRuns, Run};
pub use size_class::{BLOCK_BYTES, CLASSES, GRANULE, MAX_SMALL, SizeClass, Small};
