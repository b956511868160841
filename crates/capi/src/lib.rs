//! The C interface: `heapwright.h` and `libheapwright`.
//!
//! Everything here is a thin layer over the core: pointers are checked for null, errors become a [`hw_status`] and a message, a panic never
//! passes into C. The header is made from this crate by cbindgen and kept in `include/`; the allocation fast path in it is written by
//! hand (`include/fast_path.h`), from what the core says of itself ([`heapwright::FastPath`]).
//!
//! One library serves two kinds of heap: with an object map and without ([`HW_OBJECT_MAP`]), chosen when the heap is made.

#![allow(
    non_camel_case_types,
    reason = "the names are those of the C interface"
)]
#![allow(
    clippy::missing_safety_doc,
    reason = "rules for pointers are the same for all functions and stand on top of the header"
)]

mod dump;
mod fork;
mod heap;
mod mutator;
mod observe;
mod options;
mod references;
mod status;
mod vm;

pub use dump::*;
pub use fork::*;
pub use heap::*;
pub use mutator::*;
pub use observe::*;
pub use options::*;
pub use references::*;
pub use status::*;
pub use vm::*;
