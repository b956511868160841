//! The memory layer of a heap: what is mapped ([`Mmapper`]), and what is known of each unit of memory ([`SideTable`],
//! [`BitTable`]), with growable vectors that do not come from malloc ([`MappedVec`]).
//!
//! Reading order: `state` (the life of a chunk and the one implementation of its transitions), `dense` and `fragmented`
//! (two ways to find a chunk's state), `side` (tables beside a range).

mod dense;
mod error;
mod fragmented;
mod primitive;
mod side;
mod state;
mod table;
mod vec;

pub use dense::DenseMapper;
pub use error::MapError;
pub use fragmented::{Addresses, FragmentedMapper, slab_hash};
pub use side::{Scope, SideLayout, SideMemory, SideMetadataSpec};
pub use state::{ChunkState, Mmapper};
pub use table::{BitTable, Entry, SideTable};
pub use vec::MappedVec;
