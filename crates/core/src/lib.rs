//! Heapwright: a framework for memory managers.
//!
//! A **heap** is a value ([`Heap`]). A **plan** decides where memory comes from and how the living are found
//! ([`plan`]). A **language runtime** is a value too, and implements [`Vm`]: how to find the references of an object,
//! and where the roots are. A **side table** is what the heap knows about each unit of its memory.
//!
//! A runtime that knows its references has a [`Heap`], with any plan. One that has only words, which may be references or not,
//! implements [`WordVm`] and has a [`WordHeap`].
//!
//! The crate keeps no global state: several heaps, of different plans and runtimes, live side by side in one process,
//! and each gives back all its memory when it is dropped.
//!
//! Reading order: [`vm`] (what a runtime promises), [`heap`] (allocation), [`space`] (where memory comes from, and what is known
//! of it), [`collect`] (tracing), [`plan`].

pub mod alloc;
pub mod bugs;
pub mod collect;
pub mod error;
pub mod event;
pub mod example;
pub mod heap;
pub mod map;
pub mod options;
pub mod plan;
mod primitive;
pub mod probes;
pub mod space;
pub mod stats;
pub mod verify;
pub mod vm;

pub use alloc::{FAST_KINDS, FastPath, LocalRuns, Sample, Sampler};
pub use collect::references::{
    Cleared, Ephemeron, Finalizable, FinalizerOrder, Reference, Strength,
};
pub use error::{
    AllocError, ForkError, FreeError, HeapError, LimitError, OptionError, PinError, ReferenceError,
};
pub use event::{
    Cause, CollectionStats, Event, ForkStep, Listener, MutatorStop, Part, Violation, WorkerStats,
};
pub use heap::{
    Builder, Fork, Frozen, Heap, HeapUsage, Limits, Living, Measured, Mutator, PinGuard, Pinned,
    RootOrigin, Scavenger, SizingPolicy, TypeCount, Usage, Weak, WeakMap, WordBuilder, WordHeap,
    WordRoot, WordStep, WordView, Workers,
};
pub use heapwright_address::{Address, ObjectReference, WildWord};
pub use heapwright_os::{Machine, Pressure};
pub use map::{BlockSpace, HeapMap, MAP_BLOCK, MapBlock};
pub use options::{Decay, Evacuate, Options, PlanName, SizingChoice, Soft};
pub use vm::{
    Cell, Closure, CompressedSlots, HashBits, Kind, KindTraits, MAX_KINDS, Metadata, RootVisitor,
    SlotFormat, SlotVisitor, TaggedSlots, TypeId, Vm, WeakLookup, WeakVisitor, WordSlots,
    WordVisitor, WordVm, World,
};
