//! References that are not plain, on every plan: what docs/references.md says, sentence by sentence.
//!
//! Each test runs on every plan that collects, with bits in side tables and in headers, with one worker, and with two and four workers
//! whose order is shaken; with poisoned free memory, everything moved that can be, and the verifier after each collection.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

#[path = "references/runtime.rs"]
mod runtime;

#[path = "references/ephemerons.rs"]
mod ephemerons;
#[path = "references/finalizers.rs"]
mod finalizers;
#[path = "references/handles.rs"]
mod handles;
#[path = "references/weak.rs"]
mod weak;
