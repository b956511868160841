//! Heaps as values: [`Heap`] for runtimes whose references are known, [`WordHeap`] for those that hand out words.

mod decay;
mod objects;
pub mod policy;
mod sampling;
mod scavenger;
mod shared_lock;
mod trigger;
mod words;
mod workers;

pub use objects::{
    Builder, Fork, Frozen, Heap, HeapUsage, Limits, Living, Mutator, PinGuard, Pinned, RootOrigin,
    TypeCount, Weak, WeakMap,
};
pub use policy::{Measured, SizingPolicy};
pub use scavenger::Scavenger;
pub use words::{Usage, WordBuilder, WordHeap, WordRoot, WordStep, WordView};
pub use workers::Workers;
