//! Runs: stretches of free cells that one thread owns and bumps through.
//!
//! Equations, for each run at any instant at which its thread may be stopped:
//! - `cursor <= limit <= end`, all within one block, or all zero (no run yet);
//! - the cells in `[cursor, limit)` belong to the thread, are in the object map, and are zero where the kind is zeroed;
//! - `[limit, end)` is what the thread has not looked at yet in the block that it owns.
//!
//! The collector never changes a run. It keeps the cells of `[cursor, limit)` alive, so a thread may be stopped between
//! loading `cursor` and storing it.

use super::sampling::Countdown;
use super::size_class::{CLASS_COUNT, Small};
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Kinds with runs in each thread: 0 to 3. Others are allocated under the heap's lock.
pub const FAST_KINDS: usize = 4;

/// In `end`, whose low bits are 0 otherwise: the run was cut.
const CUT: usize = 1;

/// One run of one class and kind.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Run {
    cursor: AtomicUsize,
    limit: AtomicUsize,
    end: Cell<usize>,
}

impl Run {
    /// An empty run.
    #[allow(
        clippy::declare_interior_mutable_const,
        reason = "each use makes a run of its own"
    )]
    pub const NEW: Self = Self {
        cursor: AtomicUsize::new(0),
        limit: AtomicUsize::new(0),
        end: Cell::new(0),
    };

    /// Takes one cell of `bytes`: the address of the cell, or `None` when the run is used up.
    ///
    /// Two loads, an addition, a comparison and a store. Owner only.
    #[inline(always)]
    pub fn bump(&self, bytes: usize) -> Option<usize> {
        let cell = self.cursor.load(Ordering::Relaxed);
        let next = cell + bytes;
        if next > self.limit.load(Ordering::Relaxed) {
            return None;
        }
        self.cursor.store(next, Ordering::Relaxed);
        Some(cell)
    }

    /// `[cursor, limit)`: the cells that are not handed out yet. Owner, or collector while the owner is stopped.
    #[must_use]
    pub fn cells(&self) -> (usize, usize) {
        (
            self.cursor.load(Ordering::Relaxed),
            self.limit.load(Ordering::Relaxed),
        )
    }

    /// Where the run's block ends for this class; 0 if there is no block.
    #[must_use]
    pub fn end(&self) -> usize {
        self.end.get() & !CUT
    }

    /// Does the run end before a cell that is to be sampled ([`super::sampling`])?
    #[must_use]
    pub(crate) fn is_cut(&self) -> bool {
        self.end.get() & CUT != 0
    }

    /// Says that it does, until the run is replaced. Owner only.
    pub(crate) fn cut(&self) {
        self.end.set(self.end.get() | CUT);
    }

    /// Leaves out cells at the beginning. Owner only, inside of a busy section.
    pub(crate) fn skip_to(&self, cursor: usize) {
        self.cursor.store(cursor, Ordering::Relaxed);
    }

    /// Replaces the run. Owner only, inside of a busy section.
    pub(crate) fn set(&self, cursor: usize, limit: usize, end: usize) {
        self.cursor.store(cursor, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
        self.end.set(end);
    }
}

/// A thread's runs. All zero is the valid first state, so it may live in freshly mapped memory.
///
/// It is used by one thread, and read by the collector while that thread is stopped (WordVm rule 5).
#[derive(Debug)]
#[repr(C)]
pub struct LocalRuns {
    /// Not 0 while the thread is in a section in which it must not be stopped asynchronously. Such a section is short, and
    /// never waits for the heap's lock.
    pub busy: AtomicU32,
    /// Set by whoever wanted to stop the thread in such a section; the thread stops when it leaves the section.
    pub stop_wanted: AtomicU32,
    /// Bytes that runs were given since the last collection. Owner; taken by the collector while the owner is stopped.
    handed: AtomicUsize,
    /// To the next cell that is sampled.
    pub(crate) countdown: Countdown,
    runs: [[Run; CLASS_COUNT]; FAST_KINDS],
}

impl Default for LocalRuns {
    fn default() -> Self {
        Self::new()
    }
}

impl LocalRuns {
    /// Runs that are all empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            busy: AtomicU32::new(0),
            stop_wanted: AtomicU32::new(0),
            handed: AtomicUsize::new(0),
            countdown: Countdown::new(),
            runs: [const { [Run::NEW; CLASS_COUNT] }; FAST_KINDS],
        }
    }

    /// Where the run of kind 0 and class 0 is: for [`super::FastPath`].
    pub const FIRST: usize = core::mem::offset_of!(Self, runs);

    /// Counts what the run was just given. Owner only.
    pub(crate) fn count(&self, run: &Run) {
        let (cursor, limit) = run.cells();
        let before = self.handed.load(Ordering::Relaxed);
        self.handed
            .store(before + (limit - cursor), Ordering::Relaxed);
    }

    /// What was counted since this was called last. Collector, owner stopped.
    pub(crate) fn take_count(&self) -> usize {
        self.handed.swap(0, Ordering::Relaxed)
    }

    /// The run of a kind below [`FAST_KINDS`] and a class.
    #[inline(always)]
    #[must_use]
    pub fn run(&self, kind: usize, class: usize) -> &Run {
        &self.runs[kind][class]
    }

    /// The run of a kind below [`FAST_KINDS`] for a request.
    #[inline(always)]
    #[must_use]
    pub fn run_for(&self, kind: usize, small: Small) -> &Run {
        debug_assert!(small.class() < CLASS_COUNT);
        // SAFETY: `Small` has no other classes than those below CLASS_COUNT: its table is made of SIZES, and its fields are
        // private.
        unsafe { self.runs[kind].get_unchecked(small.class()) }
    }

    /// All runs that are not used up: kind, class, and the cells.
    pub fn each(&self, mut visit: impl FnMut(usize, usize, &Run)) {
        for (kind, classes) in self.runs.iter().enumerate() {
            for (class, run) in classes.iter().enumerate() {
                if run.end() != 0 {
                    visit(kind, class, run);
                }
            }
        }
    }
}

// SAFETY: WordVm rule 5: one thread uses the runs, others only look while it is stopped, which synchronises.
unsafe impl Sync for LocalRuns {}
// SAFETY: plain addresses; nothing in it belongs to a particular thread.
unsafe impl Send for LocalRuns {}
