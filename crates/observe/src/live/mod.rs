//! A heap that answers: whoever asks over a Unix socket hears what the heap does now. `docs/live.md` has the requests.
//!
//! Nothing listens unless somebody asked for it. [`History`] keeps what the heap told, in a fixed amount of memory; [`Server`] answers, on
//! a thread of its own which is no mutator; [`Source`] is what it asks of the heap. The server allocates nothing while it serves.

mod history;
mod place;
mod server;

pub use history::History;
pub use place::{NotOurs, check_directory, directories, directory, socket_for, socket_of};
pub use server::{Descriptors, Listening, Server};

use heapwright::HeapMap;
use std::path::Path;

/// The version of what answers mean.
pub const VERSION: u32 = 1;

/// What a heap uses at the moment, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Using {
    /// Blocks and large objects in use, and free memory kept for more.
    pub heap_bytes: usize,
    /// The part of that in which nothing is.
    pub free_bytes: usize,
    /// Alive at the last collection.
    pub live_bytes: usize,
    /// What the heap may take at most; 0: no limit.
    pub limit_bytes: usize,
    /// All that was ever allocated.
    pub allocated_bytes: u64,
}

/// What the server asks of a heap. Called on the server's thread, which is no mutator and holds no lock.
pub trait Source: Send + Sync {
    /// What it uses.
    fn using(&self) -> Using;

    /// Shows its map, under the heap's lock if it has one.
    fn map(&self, look: &mut dyn FnMut(&dyn HeapMap));

    /// Has it collected soon. False: that cannot be had.
    fn collect(&self) -> bool {
        false
    }

    /// Writes a heap dump into a file: how long the world was stopped, in nanoseconds.
    ///
    /// # Errors
    /// `None` if that cannot be had, else what went wrong.
    fn dump(&self, _file: &Path) -> Result<u64, Option<String>> {
        Err(None)
    }
}
