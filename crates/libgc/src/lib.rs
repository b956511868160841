//! `libgc.so.1`: Boehm's interface on a Heapwright heap.
//!
//! Programs that were built against Boehm's collector run on it unchanged: the functions and variables of `gc.h`,
//! `gc_mark.h`, `gc_typed.h`, `gc_gcj.h`, `javaxfc.h` and of the pthread redirections, with what their inlined code
//! relies on. The collector is fully conservative and never moves an object.
//!
//! Reading order: [`state`] (the one heap of the process), [`vm`] (what the heap asks of us), [`threads`] and [`stop`]
//! (who is stopped, and how), [`roots`] (what is scanned), then the interface by subject.
//!
//! Rules that hold in every module:
//! - While the world is stopped nothing calls malloc, takes the loader's lock or any lock that a stopped thread may hold,
//!   or touches thread-locals other than the one word of [`tls`].
//! - No function prints, aborts or panics on its own account. Where the interface says that a client's function is
//!   called, no lock is held and no destructor is pending, so that it may throw or `longjmp` through us, unless the
//!   interface says that it is called with the lock held.
//! - Lock order: the heap's lock; then nothing.

#![allow(
    rustdoc::private_intra_doc_links,
    reason = "the interface is the exported functions; these pages are for who works on them"
)]
#![allow(
    clippy::not_unsafe_ptr_arg_deref,
    reason = "pointers of clients are given on to their own functions, or are checked to be starts of cells"
)]
#![allow(
    non_upper_case_globals,
    reason = "the exported variables have the names of Boehm's interface"
)]
#![allow(
    non_snake_case,
    reason = "the exported functions have the names of Boehm's interface"
)]
#![allow(
    non_camel_case_types,
    reason = "the types of that interface have its names"
)]

pub mod alloc;
pub mod callback;
pub mod config;
pub mod debug;
pub mod disclaim;
pub mod dump;
mod ears;
pub mod finalize;
pub mod fork;
pub mod kinds;
pub mod leaks;
pub mod links;
mod live;
pub mod misc;
mod profile;
pub mod pthread;
pub mod readable;
pub mod report;
pub mod roots;
mod scavenge;
pub mod stack;
pub mod state;
pub mod stop;
pub mod table;
pub mod threads;
pub mod tls;
pub mod toggle;
pub mod typed;
pub mod usage;
pub mod vm;
