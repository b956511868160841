//! Spaces: memory under one policy.
//!
//! [`pages`] gives out pages and blocks of the heap's range; [`mark_sweep`] is segregated fit over them; [`objects`] has all
//! policies side by side, for runtimes that know their references. [`poison`] is for finding errors.

pub(crate) mod map;
pub mod mark_sweep;
pub mod objects;
pub mod pages;
pub mod poison;
pub mod tables;

pub(crate) use mark_sweep::RUN_BYTES;
pub use mark_sweep::{MarkSweep, Stock};
pub use objects::ObjectSpace;
pub use pages::Pages;
pub use tables::{Entry, Policy, Tables};
