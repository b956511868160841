//! Typed addresses, references and units of memory. `no_std`, no dependencies.
//!
//! Different trust, different type: an [`Address`] is some place; an [`ObjectReference`] is an object's; a [`WildWord`] is
//! unchecked bits from a stack. They never convert silently.
#![no_std]

mod address;
mod reference;
mod unit;

pub use address::Address;
pub use reference::{ObjectReference, WildWord};
pub use unit::{Block, Chunk, Line, Page, Unit};
