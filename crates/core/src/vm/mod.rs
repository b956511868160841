//! Language runtimes as the collector sees them.
//!
//! [`objects`]: a runtime that knows its references ([`Vm`]); every plan serves it. [`words`]: one whose references are words
//! that may be anything, as of C programs ([`WordVm`]); it has plans that do not move.

mod identity;
pub mod objects;
pub mod words;
mod world;

pub use identity::HashBits;
pub(crate) use identity::{HashState, hash_of};
pub use objects::{
    CompressedSlots, Metadata, RootVisitor, SlotFormat, SlotVisitor, TaggedSlots, TypeId, Vm,
    WeakLookup, WeakVisitor, WordSlots,
};
pub use words::{Cell, Closure, Kind, KindTraits, MAX_KINDS, WordVisitor, WordVm};
pub use world::World;
