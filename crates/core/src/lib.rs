//! Heapwright: a framework for memory managers.
//!
//! A **heap** is a value ([`Heap`]). A **plan** decides where memory comes from and how the living are found
//! ([`plan`]). A **language runtime** is a value too, and implements [`Vm`]: how to find the references of an object,
//! where the roots are, how its threads stop. A **side table** is what the heap knows about each unit of its memory.
//!
//! The crate keeps no global state: several heaps, of different plans and runtimes, live side by side in one process,
//! and each gives back all its memory when it is dropped.
//!
//! Reading order: [`vm`] (what a runtime promises), [`alloc`] (size classes and the bump path),
//! [`space`] (where cells come from), [`collect`] (marking), [`plan`], [`heap`].

pub mod alloc;
pub mod collect;
pub mod error;
pub mod event;
pub mod heap;
pub mod options;
pub mod plan;
pub mod space;
pub mod stats;
pub mod verify;
pub mod vm;

pub use alloc::{FAST_KINDS, LocalRuns};
pub use error::{AllocError, FreeError, HeapError, OptionError};
pub use event::{Cause, CollectionStats, Event, Listener, Violation};
pub use heap::{Builder, Heap, Usage};
pub use heapwright_address::{Address, ObjectReference, WildWord};
pub use options::{Options, PlanName};
pub use vm::{Cell, Closure, Kind, KindTraits, MAX_KINDS, Visitor, Vm};
