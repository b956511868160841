//! Heaps as values: [`Heap`] for runtimes whose references are known, [`WordHeap`] for those that hand out words.

mod decay;
mod objects;
pub mod policy;
mod scavenger;
mod trigger;
mod words;

pub use objects::{
    Builder, Heap, HeapUsage, Limits, Mutator, PinGuard, Pinned, TypeCount, Weak, WeakMap,
};
pub use policy::{Measured, SizingPolicy};
pub use scavenger::Scavenger;
pub use words::{Usage, WordBuilder, WordHeap, WordStep};
