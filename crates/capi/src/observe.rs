//! What a collection was like.

use crate::vm::hw_object;
use core::ffi::c_char;
use heapwright::{CollectionStats, Violation};
use std::ffi::CString;

/// A collection that has ended. Times in nanoseconds, sizes in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct hw_collection {
    /// 1, 2, ...
    pub number: u64,
    /// Everything was traced, not only what is young.
    pub full: bool,
    /// When it began, on the monotonic clock.
    pub start_ns: u64,
    /// How long the world was stopped.
    pub pause_ns: u64,
    /// The part of it in which threads were waited for.
    pub stop_ns: u64,
    /// In use before it.
    pub before_bytes: usize,
    /// What lives, as far as the plan knows.
    pub live_bytes: usize,
    /// In use, and free memory that is kept, after it.
    pub heap_bytes: usize,
    /// Copied to another place.
    pub copied_bytes: usize,
    /// Threads that could take part.
    pub workers: usize,
    /// Reference objects and handles that were cleared.
    pub cleared: usize,
    /// Objects that became finalizable.
    pub finalizable: usize,
    /// What the verifier found, with the option `verify`.
    pub violations: usize,
}

impl hw_collection {
    pub(crate) fn of(stats: &CollectionStats) -> Self {
        Self {
            number: stats.number,
            full: stats.full,
            start_ns: stats.start_ns,
            pause_ns: stats.pause_ns,
            stop_ns: stats.stop_ns,
            before_bytes: stats.before_bytes,
            live_bytes: stats.live_bytes,
            heap_bytes: stats.heap_bytes,
            copied_bytes: stats.copied_bytes,
            workers: stats.workers,
            cleared: stats.cleared,
            finalizable: stats.finalizable,
            violations: stats.violations,
        }
    }
}

pub(crate) fn note_violation(
    violation: &Violation,
    tell: impl FnOnce(*const c_char, hw_object, usize),
) {
    let what = CString::new(violation.what).unwrap_or_default();
    tell(what.as_ptr(), violation.cell.as_mut_ptr(), violation.word);
}
