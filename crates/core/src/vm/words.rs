//! The language runtime as the collector sees it.
//!
//! A runtime implements [`WordVm`] on a value that its heap owns. The heap calls it to stop threads, to find roots, and to
//! find the references of an object; what it finds, it reports to a [`WordVisitor`].

use crate::alloc::LocalRuns;
use crate::event::CollectionStats;
use heapwright_address::{Address, ObjectReference, WildWord};

/// How many kinds of cells a heap can have.
pub const MAX_KINDS: usize = 32;

/// A kind of cell: all cells of a block are of one kind. Kinds 0 to [`crate::FAST_KINDS`]` - 1` have runs in each thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Kind(pub u8);

/// What the heap must know of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindTraits {
    /// Its cells hold no references and are never scanned.
    pub leaf: bool,
    /// Its cells are zero when they are handed out.
    pub zeroed: bool,
    /// Its cells are freed when nothing reaches them. Others are roots until they are freed explicitly.
    pub collectable: bool,
    /// Every word of its cells is reported by the rule of [`WordVisitor::field_word`]. The collector then does that itself, and
    /// calls [`WordVm::scan`] only for large objects of the kind.
    pub conservative: bool,
}

/// A cell: a unit of allocation, in use or free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its first byte, aligned to 16.
    pub start: Address,
    /// Its whole size in bytes, a multiple of 16.
    pub bytes: usize,
    /// Its kind.
    pub kind: Kind,
    /// It occupies whole pages of its own.
    pub large: bool,
}

/// Receives references. Implemented by the collector; a runtime only calls it.
///
/// All methods may be called with any bits: words that are no reference are ignored, except where a method says otherwise.
pub trait WordVisitor {
    /// The exact start of an allocated cell; anything else is ignored.
    fn object(&mut self, object: ObjectReference);
    /// A word of a stack, a register or a static root: any address within a cell keeps it (an interior pointer).
    fn root_word(&mut self, word: WildWord);
    /// Each aligned word in `[start, end)`, by the rule of [`WordVisitor::root_word`].
    ///
    /// # Safety
    /// The range must be readable.
    unsafe fn root_range(&mut self, start: Address, end: Address);
    /// A word of an object: follows the heap's rule for interior pointers (see [`crate::WordHeap::set_interior`]).
    fn field_word(&mut self, word: WildWord);
    /// Each aligned word in `[start, end)`, by the rule of [`WordVisitor::field_word`].
    ///
    /// # Safety
    /// The range must be readable.
    unsafe fn field_range(&mut self, start: Address, end: Address);
    /// Marks the allocated cell that starts here without following its contents. True if it was not marked before.
    fn mark_unscanned(&mut self, start: Address) -> bool;
    /// Is the allocated cell that starts here marked?
    fn is_marked(&self, start: Address) -> bool;
}

/// Looks at words one by one and marks nothing: as [`ByWord`] it receives what a runtime reports.
pub(crate) trait EachWord {
    /// A word. `any`: an address anywhere within a cell counts; else the start of one, or a registered displacement.
    fn word(&mut self, word: usize, any: bool);
    /// Does it count anywhere for the words of objects too?
    fn all_interior(&self) -> bool;
    /// As [`WordVisitor::is_marked`].
    fn is_marked(&self, start: Address) -> bool;
}

/// See [`EachWord`].
pub(crate) struct ByWord<W>(pub(crate) W);

impl<W: EachWord> ByWord<W> {
    /// # Safety
    /// The range must be readable.
    unsafe fn range(&mut self, start: Address, end: Address, any: bool) {
        let mut at = start.as_usize().next_multiple_of(8);
        while at + 8 <= end.as_usize() {
            // SAFETY: an aligned word of the caller's readable range.
            let word = unsafe { core::ptr::with_exposed_provenance::<usize>(at).read_volatile() };
            self.0.word(word, any);
            at += 8;
        }
    }
}

impl<W: EachWord> WordVisitor for ByWord<W> {
    fn object(&mut self, object: ObjectReference) {
        self.0.word(object.to_address().as_usize(), true);
    }

    fn root_word(&mut self, word: WildWord) {
        self.0.word(word.bits(), true);
    }

    unsafe fn root_range(&mut self, start: Address, end: Address) {
        // SAFETY: the caller's promise.
        unsafe { self.range(start, end, true) };
    }

    fn field_word(&mut self, word: WildWord) {
        let any = self.0.all_interior();
        self.0.word(word.bits(), any);
    }

    unsafe fn field_range(&mut self, start: Address, end: Address) {
        let any = self.0.all_interior();
        // SAFETY: the caller's promise.
        unsafe { self.range(start, end, any) };
    }

    fn mark_unscanned(&mut self, _: Address) -> bool {
        false
    }

    fn is_marked(&self, start: Address) -> bool {
        self.0.is_marked(start)
    }
}

/// What a runtime may do after the closure: complete it again from further objects.
pub trait Closure: WordVisitor {
    /// Marks all that is reachable from what was reported.
    fn drain(&mut self);
    /// Reports the references of the cell that starts here, without marking the cell itself.
    fn scan_contents(&mut self, start: Address);
}

/// A language runtime. One value per heap; no statics.
///
/// # Safety
/// The heap relies on these rules. The verifier (option `verify`) checks 2, 3 and 4 as far as they can be seen.
///
/// 1. [`WordVm::stop_world`] returns only when every thread that can touch the heap is stopped outside of sections in which
///    its [`LocalRuns::busy`] is set, and they stay so until [`WordVm::start_world`].
/// 2. [`WordVm::scan`] reports every reference of a cell.
/// 3. [`WordVm::roots`] reports every way in which a stopped thread, or one that is outside of the heap, can reach it.
/// 4. [`WordVm::local_runs`] visits the runs of every thread, and those of threads that have ended until they were flushed.
/// 5. A `LocalRuns` is used by one thread at a time, is zero at first, and does not move.
/// 6. `scan`, `roots`, `weak`, `stop_world`, `start_world` and `local_runs` neither allocate on this heap, nor take a lock
///    that a stopped thread may hold.
pub unsafe trait WordVm: Sized + Send + Sync + 'static {
    /// Reports the references of one marked cell that is not a leaf. Called by any worker, world stopped; may be called
    /// again for the same cell.
    fn scan<T: WordVisitor>(&self, cell: Cell, visit: &mut T);

    /// Reports all roots. Called once in each collection, on the collecting thread, world stopped.
    fn roots<T: WordVisitor>(&self, visit: &mut T);

    /// After the closure, world stopped, collecting thread: weak references, finalizers.
    fn weak<C: Closure>(&self, closure: &mut C) {
        let _ = closure;
    }

    /// A collection is about to stop the world. World running, heap lock held.
    fn before_stop(&self) {}

    /// Stops all threads of the runtime but the caller. Heap lock held.
    fn stop_world(&self);

    /// Lets them run again. Heap lock held.
    fn start_world(&self);

    /// The collection has ended. World running, heap lock held.
    fn after_start(&self, stats: &CollectionStats) {
        let _ = stats;
    }

    /// Visits every thread's runs. World stopped.
    fn local_runs(&self, visit: &mut dyn FnMut(&LocalRuns));

    /// The calling thread left a section in which [`LocalRuns::busy`] was set, and [`LocalRuns::stop_wanted`] is set: it is
    /// to stop here until the world is started. Called without the heap's lock.
    fn stop_point(&self, runs: &LocalRuns) {
        let _ = runs;
    }
}
