//! Heaps as values: [`Heap`] for runtimes whose references are known, [`WordHeap`] for those that hand out words.

mod objects;
mod trigger;
mod words;

pub use objects::{Builder, Heap, HeapUsage, Mutator, PinGuard};
pub use words::{Usage, WordBuilder, WordHeap};
