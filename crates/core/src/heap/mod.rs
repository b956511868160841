//! Heaps as values: [`Heap`] for runtimes whose references are known, [`WordHeap`] for those that hand out words.

mod objects;
pub mod policy;
mod trigger;
mod words;

pub use objects::{Builder, Heap, HeapUsage, Limits, Mutator, PinGuard};
pub use policy::{Measured, SizingPolicy};
pub use words::{Usage, WordBuilder, WordHeap};
