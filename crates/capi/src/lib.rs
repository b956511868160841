//! The C interface of Heapwright.
//!
//! `include/heapwright.h` is generated from this crate by cbindgen, with the inline functions of `include/inline.h` at its end; a test
//! keeps it up to date. docs/c-api.md is the guide. The crate adds nothing to what the core does: it checks what C hands over, keeps panics
//! on this side, and turns errors into a status and a message.
//!
//! Reading order: [`status`](hw_status), [`table`](hw_vm), [`heap`](hw_heap), [`mutator`](hw_mutator), references.

#![allow(non_camel_case_types, reason = "names of C")]
#![allow(
    clippy::missing_safety_doc,
    reason = "the rules are the header's: they stand at its top and at each function"
)]

mod heap;
mod mutator;
mod references;
mod status;
mod table;

pub use heap::*;
pub use mutator::*;
pub use references::*;
pub use status::*;
pub use table::*;
