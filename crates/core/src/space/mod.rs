//! Spaces: memory under one policy.
//!
//! [`pages`] gives out pages and blocks of the heap's range; [`mark_sweep`] is segregated fit over them.

pub mod mark_sweep;
pub mod pages;
pub mod tables;

pub use mark_sweep::{MarkSweep, Stock};
pub use pages::Pages;
pub use tables::{Entry, Tables};
