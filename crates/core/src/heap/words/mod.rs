//! A heap as a value: what a runtime allocates from.

pub(in crate::heap) mod builder;
mod map;
mod tend;
mod view;

pub use builder::WordBuilder;
pub use tend::WordStep;
pub use view::{WordRoot, WordView};

use super::sampling::{self, Refill};
use super::trigger::{self, Trigger};
use crate::alloc::size_class::{CLASS_COUNT, class_of};
use crate::alloc::{
    BLOCK_BYTES, CLASSES, Countdown, FAST_KINDS, LocalRuns, MAX_SMALL, Run, Sample, Sampler, Small,
};
use crate::collect::Yields;
use crate::collect::words::MarkStacks;
use crate::collect::words::WordCollector;
use crate::collect::worked::Worked;
use crate::error::{AllocError, FreeError, HeapError};
use crate::event::{Cause, CollectionStats, Event, Listener};
use crate::options::Options;
use crate::plan::words as plan;
use crate::probes;
use crate::space::pages::PAGE;
use crate::space::{Entry, MarkSweep, Stock};
use crate::vm::words::{Cell, Kind, KindTraits, MAX_KINDS, WordVm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use heapwright_address::{Address, WildWord};
use heapwright_os::{RawLock, clock, limits};
use heapwright_work::Pool;

/// A request that is refused without a look: no address space holds it.
const ABSURD: usize = 1 << 46;
/// With the option `workers` at `auto`, one thread marks alone while less than so many bytes live that are scanned: waking
/// others costs more CPU time than the shorter pause is worth.
const ALONE_BELOW: usize = 32 << 20;

/// What a heap uses, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Blocks and large objects in use, and idle memory kept for more.
    pub heap_bytes: usize,
    /// Free cells in blocks in use (as of the last collection, less what was allocated since), and idle memory.
    pub free_bytes: usize,
    /// Address space that was used once and whose memory went back to the system, or was never touched.
    pub unmapped_bytes: usize,
    /// Handed out since the last collection.
    pub allocated_since_collection: usize,
    /// Handed out since the heap was built.
    pub allocated_total: u64,
    /// What the last collection found alive.
    pub live_bytes: usize,
    /// How many collections there were.
    pub collections: u64,
}

/// What is used under the heap's lock.
pub(super) struct Locked {
    pub(super) stock: Stock,
    pub(super) trigger: Trigger,
    tending: tend::Tending,
    /// To the next sample of what is allocated under the lock.
    countdown: Countdown,
}

/// A heap of one runtime. See the crate's documentation.
///
/// Field order is drop order: the memory goes last.
///
/// ```
/// use heapwright::{Cell, Cause, Kind, KindTraits, LocalRuns, WildWord, WordHeap, WordVisitor, WordVm};
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// /// A runtime of one thread, with one variable.
/// #[derive(Default)]
/// struct One {
///     runs: LocalRuns,
///     variable: AtomicUsize,
/// }
///
/// // SAFETY: there is no other thread to stop; the variable is the only root; cells are scanned word by word.
/// unsafe impl WordVm for One {
///     fn scan<T: WordVisitor>(&self, cell: Cell, visit: &mut T) {
///         // SAFETY: a cell is readable.
///         unsafe { visit.field_range(cell.start, cell.start.add(cell.bytes)) };
///     }
///
///     fn roots<T: WordVisitor>(&self, visit: &mut T) {
///         visit.root_word(WildWord::new(self.variable.load(Ordering::Relaxed)));
///     }
///
///     fn stop_world(&self) {}
///
///     fn start_world(&self) {}
///
///     fn local_runs(&self, visit: &mut dyn FnMut(&LocalRuns)) {
///         visit(&self.runs);
///     }
/// }
///
/// const WORDS: KindTraits = KindTraits {
///     leaf: false,
///     zeroed: true,
///     collectable: true,
///     conservative: true,
/// };
///
/// let heap = WordHeap::<One>::builder().kinds(&[WORDS]).build(One::default())?;
/// let cell = heap.alloc(&heap.vm().runs, Kind(0), 40)?;
/// heap.vm().variable.store(cell.as_usize(), Ordering::Relaxed);
/// heap.collect(Cause::Requested);
/// assert!(heap.is_allocated(cell));
/// heap.vm().variable.store(0, Ordering::Relaxed);
/// heap.collect(Cause::Requested);
/// assert!(!heap.is_allocated(cell));
/// # Ok(())
/// # }
/// ```
pub struct WordHeap<V: WordVm> {
    vm: V,
    space: MarkSweep,
    options: Options,
    lock: RawLock,
    locked: UnsafeCell<Locked>,
    central: Box<[Run]>,
    pool: Pool,
    stacks: MarkStacks,
    worked: Worked,
    listener: Option<Box<dyn Listener>>,
    sampler: Option<Box<dyn Sampler>>,
    disabled: AtomicUsize,
    stress: AtomicUsize,
    /// Somebody who is no mutator wants a collection.
    asked: AtomicBool,
    /// Not in a child after `fork`, before [`WordHeap::allow_helpers`].
    helpers: AtomicBool,
    yields: Yields,
    collections: AtomicU64,
    allocated_before: AtomicU64,
    live: AtomicUsize,
    _memory: builder::Memory,
}

// SAFETY: `locked` and `central` are used under `lock` only (each use says so); the rest is Sync by itself.
unsafe impl<V: WordVm> Sync for WordHeap<V> {}
// SAFETY: nothing in a heap belongs to a thread.
unsafe impl<V: WordVm> Send for WordHeap<V> {}

impl<V: WordVm> core::fmt::Debug for WordHeap<V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("WordHeap")
            .field("options", &self.options)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

const fn central_class(index: usize) -> usize {
    index % CLASS_COUNT
}

impl<V: WordVm> WordHeap<V> {
    /// How a heap is built.
    #[must_use]
    pub fn builder() -> WordBuilder {
        WordBuilder::default()
    }

    /// The runtime.
    #[inline(always)]
    #[must_use]
    pub fn vm(&self) -> &V {
        &self.vm
    }

    /// The options that the heap was built with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Defines one more kind of cells. Takes the heap's lock.
    ///
    /// # Errors
    /// If there are [`MAX_KINDS`] already.
    pub fn define_kind(&self, traits: KindTraits) -> Result<Kind, HeapError> {
        self.lock.with(|| self.define_kind_locked(traits))
    }

    /// As [`WordHeap::define_kind`], with the lock held by the caller.
    ///
    /// # Errors
    /// As [`WordHeap::define_kind`].
    pub fn define_kind_locked(&self, traits: KindTraits) -> Result<Kind, HeapError> {
        self.space
            .define_kind(traits)
            .ok_or(HeapError::TooManyKinds)
    }

    // ---- allocation ----------------------------------------------------------------------------------------------

    /// Allocates a cell of at least `bytes`, aligned to 16. Mutator running, heap lock not held; may collect.
    ///
    /// # Errors
    /// [`AllocError::OutOfMemory`] when a collection did not help, or what the system said.
    #[inline(always)]
    pub fn alloc(&self, runs: &LocalRuns, kind: Kind, bytes: usize) -> Result<Address, AllocError> {
        if bytes <= MAX_SMALL && (kind.0 as usize) < FAST_KINDS {
            let small = Small::of(bytes);
            if let Some(cell) = runs.run_for(kind.0 as usize, small).bump(small.bytes()) {
                return Ok(Address::new(cell));
            }
        }
        self.alloc_slow(runs, kind, bytes)
    }

    /// As [`WordHeap::alloc`], without the look at the thread's run.
    ///
    /// # Errors
    /// As [`WordHeap::alloc`].
    #[cold]
    #[inline(never)]
    pub fn alloc_slow(
        &self,
        runs: &LocalRuns,
        kind: Kind,
        bytes: usize,
    ) -> Result<Address, AllocError> {
        if bytes > MAX_SMALL {
            return self.alloc_large(kind, bytes, PAGE, false);
        }
        let class = class_of(bytes);
        if kind.0 as usize >= FAST_KINDS {
            return self.alloc_central(kind, class);
        }
        let run = runs.run(kind.0 as usize, class);
        let cell_bytes = CLASSES[class].bytes as usize;
        self.count_for_stress();
        loop {
            // Also the answer to a thread that was stopped, and whose run somebody filled, between the look and here.
            if let Some(cell) = run.bump(cell_bytes) {
                return Ok(Address::new(cell));
            }
            match self.busy(runs, || self.refill(runs, run, kind, class)) {
                Refill::Cells => {}
                // Outside of the busy section: to walk the stack may take locks, which a stopped thread may have.
                Refill::Sampled(mean) => self.sample(cell_bytes, mean, kind),
                Refill::Empty => self.take_block(runs, run, kind, class)?,
            }
        }
    }

    /// Gives a thread's run the next free cells of its block. Inside of a busy section.
    fn refill(&self, runs: &LocalRuns, run: &Run, kind: Kind, class: usize) -> Refill {
        let sampling = self.sampler.as_deref().map(|s| (s, &runs.countdown));
        let given = sampling::refill(&self.space, run, kind.0, class, sampling);
        if given != Refill::Empty {
            runs.count(run);
        }
        given
    }

    #[cold]
    fn sample(&self, bytes: usize, mean: usize, kind: Kind) {
        if let Some(sampler) = &self.sampler {
            probes::sample(bytes as u64, mean as u64);
            sampler.sample(Sample::new(bytes, mean, kind.0));
        }
    }

    /// The same for what was allocated under the lock, once that is released.
    fn sample_central<R>(
        &self,
        bytes: usize,
        kind: Kind,
        taken: Result<(R, Option<usize>), AllocError>,
    ) -> Result<R, AllocError> {
        let (object, point) = taken?;
        if let Some(mean) = point {
            self.sample(bytes, mean, kind);
        }
        Ok(object)
    }

    /// Does a point lie in an object of `bytes` that was allocated under the lock? The mean distance of points, if so.
    fn point_in(&self, locked: &Locked, bytes: usize) -> Option<usize> {
        let sampler = self.sampler.as_deref()?;
        locked.countdown.object(sampler, bytes)
    }

    /// Replaces the used-up block of a thread's run.
    fn take_block(
        &self,
        runs: &LocalRuns,
        run: &Run,
        kind: Kind,
        class: usize,
    ) -> Result<(), AllocError> {
        let old = run.end();
        let taken = self.with_room(CLASSES[class].bytes as usize, |locked, first| {
            if first && old != 0 {
                locked
                    .stock
                    .leave_block(&self.space, self.block_of(old - 1));
            }
            locked.stock.take_block(&self.space, kind.0, class)
        });
        self.busy(runs, || match taken {
            Ok(block) => {
                let start = self.space.tables().base() + block;
                run.set(start, start, start + CLASSES[class].used as usize);
                Ok(())
            }
            Err(e) => {
                run.set(0, 0, 0);
                Err(e)
            }
        })
    }

    fn block_of(&self, address: usize) -> usize {
        (address - self.space.tables().base()) / BLOCK_BYTES * BLOCK_BYTES
    }

    /// Runs `section` with the thread's `busy` flag up.
    fn busy<R>(&self, runs: &LocalRuns, section: impl FnOnce() -> R) -> R {
        runs.busy.store(1, Ordering::Relaxed);
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        let result = section();
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        runs.busy.store(0, Ordering::Relaxed);
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        if runs.stop_wanted.load(Ordering::Relaxed) != 0 {
            self.vm.stop_point(runs);
        }
        result
    }

    fn alloc_central(&self, kind: Kind, class: usize) -> Result<Address, AllocError> {
        let index = (kind.0 as usize).saturating_sub(FAST_KINDS) * CLASS_COUNT + class;
        let Some(run) = self.central.get(index) else {
            return Err(AllocError::Unsatisfiable {
                requested: CLASSES[class].bytes as usize,
            });
        };
        let bytes = CLASSES[class].bytes as usize;
        self.count_for_stress();
        let taken = self.with_room(bytes, |locked, _| {
            loop {
                if let Some(cell) = run.bump(bytes) {
                    return Ok((Address::new(cell), self.point_in(locked, bytes)));
                }
                if self.space.refill(run, kind.0, class, usize::MAX) {
                    continue;
                }
                if run.end() != 0 {
                    locked
                        .stock
                        .leave_block(&self.space, self.block_of(run.end() - 1));
                    run.set(0, 0, 0);
                }
                let block = locked.stock.take_block(&self.space, kind.0, class)?;
                let start = self.space.tables().base() + block;
                run.set(start, start, start + CLASSES[class].used as usize);
            }
        });
        self.sample_central(bytes, kind, taken)
    }

    /// Allocates whole pages, aligned to `align` (a power of two; at least a page is given). With `first_page_only`, only
    /// pointers into the first page keep the object. Mutator running, heap lock not held; may collect.
    ///
    /// # Errors
    /// As [`WordHeap::alloc`], and if `align` is no power of two.
    pub fn alloc_large(
        &self,
        kind: Kind,
        bytes: usize,
        align: usize,
        first_page_only: bool,
    ) -> Result<Address, AllocError> {
        if bytes >= ABSURD || !align.is_power_of_two() || kind.0 as usize >= MAX_KINDS {
            return Err(AllocError::Unsatisfiable { requested: bytes });
        }
        self.count_for_stress();
        let rounded = bytes.max(1).next_multiple_of(PAGE);
        let taken = self.with_room(bytes, |locked, _| {
            let object = locked.stock.take_large(
                &self.space,
                kind.0,
                bytes.max(1),
                (align.max(PAGE), 0),
                first_page_only,
            )?;
            Ok((object, self.point_in(locked, rounded)))
        });
        self.sample_central(rounded, kind, taken)
    }

    /// Allocates a cell whose start is a multiple of `align`, a power of two.
    ///
    /// # Errors
    /// As [`WordHeap::alloc`], and if `align` is no power of two.
    pub fn alloc_aligned(
        &self,
        runs: &LocalRuns,
        kind: Kind,
        bytes: usize,
        align: usize,
    ) -> Result<Address, AllocError> {
        if !align.is_power_of_two() || bytes >= ABSURD || align >= ABSURD {
            return Err(AllocError::Unsatisfiable { requested: bytes });
        }
        // Cells whose size is a power of two lie at multiples of it.
        let rounded = bytes.max(align).next_power_of_two();
        if align <= 16 {
            self.alloc(runs, kind, bytes)
        } else if rounded <= MAX_SMALL {
            self.alloc(runs, kind, rounded)
        } else {
            self.alloc_large(kind, bytes, align, false)
        }
    }

    /// Takes all cells of the thread's run for `bytes`, at most a page of them, linked through their first word and ending
    /// in 0, and stores the first one's address to `result`. Their other words are zero where the kind is zeroed.
    ///
    /// The cells are in nobody's run once this returns: `result` must be where the collector finds them. It gives the number
    /// of cells.
    ///
    /// # Errors
    /// As [`WordHeap::alloc`]; for requests beyond [`MAX_SMALL`] or kinds without runs the list has one cell.
    ///
    /// # Safety
    /// `result` is valid for writing.
    pub unsafe fn alloc_many(
        &self,
        runs: &LocalRuns,
        kind: Kind,
        bytes: usize,
        result: *mut usize,
    ) -> Result<usize, AllocError> {
        if bytes > MAX_SMALL || kind.0 as usize >= FAST_KINDS {
            let cell = self.alloc(runs, kind, bytes)?;
            // SAFETY: a fresh cell of at least 16 bytes.
            unsafe { cell.store::<usize>(0) };
            // SAFETY: the caller's promise.
            unsafe { result.write(cell.as_usize()) };
            return Ok(1);
        }
        let class = class_of(bytes);
        let run = runs.run(kind.0 as usize, class);
        let cell_bytes = CLASSES[class].bytes as usize;
        self.count_for_stress();
        loop {
            let mut point = None;
            let cells = self.busy(runs, || {
                let (cursor, limit) = run.cells();
                if cursor == limit {
                    match self.refill(runs, run, kind, class) {
                        Refill::Cells => {}
                        Refill::Sampled(mean) => point = Some(mean),
                        Refill::Empty => return 0,
                    }
                }
                let (cursor, limit) = run.cells();
                let mut at = cursor;
                while at + cell_bytes < limit {
                    // SAFETY: a cell of the thread's own run.
                    unsafe { Address::new(at).store(at + cell_bytes) };
                    at += cell_bytes;
                }
                // SAFETY: as above, the last cell.
                unsafe { Address::new(at).store(0usize) };
                run.skip_to(limit);
                // SAFETY: the caller's promise.
                unsafe { result.write(cursor) };
                (limit - cursor) / cell_bytes
            });
            if let Some(mean) = point {
                self.sample(cell_bytes, mean, kind);
            }
            if cells != 0 {
                return Ok(cells);
            }
            self.take_block(runs, run, kind, class)?;
        }
    }

    /// Gives a thread's blocks back to the heap; the runs are empty after it. By the owner, before its runs go away (or by
    /// whoever knows that the owner has ended). Takes the heap's lock.
    pub fn flush(&self, runs: &LocalRuns) {
        self.lock.lock();
        runs.each(|_, _, run| {
            let block = self.block_of(run.end() - 1);
            let (cursor, limit) = run.cells();
            self.space.forget(cursor, limit, block);
            self.with_locked(|locked| locked.stock.leave_unfinished(&self.space, block));
            run.set(0, 0, 0);
        });
        self.lock.unlock();
    }

    /// Frees the cell that starts at an address: gives its size in bytes. Takes the heap's lock.
    ///
    /// # Errors
    /// If no allocated cell starts there; nothing is changed then.
    pub fn free(&self, start: Address) -> Result<usize, FreeError> {
        self.lock.with(|| self.free_locked(start))
    }

    /// As [`WordHeap::free`], with the heap's lock held by the caller.
    ///
    /// # Errors
    /// If no allocated cell starts there; nothing is changed then.
    pub fn free_locked(&self, start: Address) -> Result<usize, FreeError> {
        self.with_locked(|locked| locked.stock.free(&self.space, start.as_usize()))
    }

    fn count_for_stress(&self) {
        self.yields.point();
        if self.options.stress != 0
            && (self.stress.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(self.options.stress)
        {
            self.collect(Cause::Stress);
        }
    }

    /// Takes the lock, collects if that is due, and runs `take`; at the limit collects and tries once more. `take` is told
    /// whether it is its first run.
    fn with_room<R>(
        &self,
        bytes: usize,
        mut take: impl FnMut(&mut Locked, bool) -> Result<R, AllocError>,
    ) -> Result<R, AllocError> {
        self.lock.lock();
        let mut collected = false;
        if self.is_asked_for() {
            collected = self.collect_locked(Cause::Requested).number != 0;
        } else if self.space.allocated().saturating_add(bytes)
            > self.with_locked(|l| l.trigger.budget())
        {
            collected = self.collect_locked(Cause::Budget).number != 0;
        }
        let mut result = self.with_locked(|locked| take(locked, true));
        if result.is_err() && !collected && self.collect_locked(Cause::Limit).number != 0 {
            result = self.with_locked(|locked| take(locked, false));
        }
        if result.is_err() {
            probes::out_of_memory(bytes as u64);
        }
        if let (Err(_), Some(listener)) = (&result, &self.listener) {
            listener.event(Event::OutOfMemory { requested: bytes });
        }
        self.lock.unlock();
        result
    }

    /// # Heap lock held.
    fn with_locked<R>(&self, f: impl FnOnce(&mut Locked) -> R) -> R {
        // SAFETY: callers hold the lock, and none of the closures passed here calls back into the heap.
        f(unsafe { &mut *self.locked.get() })
    }

    // ---- questions -----------------------------------------------------------------------------------------------

    /// The cell around any word, allocated or free; `None` if it is in no block in use. Takes no lock.
    #[inline]
    #[must_use]
    pub fn cell(&self, word: WildWord) -> Option<Cell> {
        self.space.cell(word.bits())
    }

    /// Is this the start of an allocated cell? Takes no lock.
    #[must_use]
    pub fn is_allocated(&self, start: Address) -> bool {
        self.space.is_allocated(start.as_usize())
    }

    /// Addresses outside of `[low, high)` are in no cell, as of now.
    #[must_use]
    pub fn bounds(&self) -> (Address, Address) {
        let base = Address::new(self.space.tables().base());
        (base, base.add(self.space.extent()))
    }

    /// What the heap uses. Takes the lock.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.lock.with(|| self.usage_locked())
    }

    /// As [`WordHeap::usage`], with the lock held.
    #[must_use]
    pub fn usage_locked(&self) -> Usage {
        let allocated = self.space.allocated();
        self.with_locked(|locked| {
            let pages = locked.stock.pages();
            let idle = pages.idle_pages() * PAGE;
            Usage {
                heap_bytes: locked.stock.used() + idle,
                free_bytes: locked
                    .stock
                    .swept()
                    .free_in_blocks
                    .saturating_sub(allocated)
                    + idle,
                unmapped_bytes: pages.clean_pages() * PAGE,
                allocated_since_collection: allocated,
                allocated_total: self.allocated_before.load(Ordering::Relaxed) + allocated as u64,
                live_bytes: self.live.load(Ordering::Relaxed),
                collections: self.collections.load(Ordering::Relaxed),
            }
        })
    }

    /// How many collections there were. Takes no lock.
    #[must_use]
    pub fn collections(&self) -> u64 {
        self.collections.load(Ordering::Relaxed)
    }

    /// Bytes handed out since the last collection. Takes no lock.
    #[must_use]
    pub fn allocated_since_collection(&self) -> usize {
        self.space.allocated()
    }

    /// Visits each allocated cell, those in threads' runs included. Heap lock held; cells may be allocated meanwhile
    /// unless the world is stopped.
    pub fn for_each_allocated(&self, mut visit: impl FnMut(Cell)) {
        self.space
            .for_each(self.space.parity(), |_| true, &mut visit);
    }

    /// As [`WordHeap::for_each_allocated`], of kinds whose bit is set: bit n for kind n. In a pause, cells may be marked meanwhile.
    pub fn for_each_of_kinds(&self, kinds: usize, mut visit: impl FnMut(Cell)) {
        let wanted = |entry: Entry| kinds >> entry.kind() & 1 != 0;
        self.space.for_each(self.space.parity(), wanted, &mut visit);
    }

    // ---- collecting ----------------------------------------------------------------------------------------------

    /// Collects now, unless collecting is disabled or the plan never collects (then the statistics' number is 0).
    /// Mutator running, heap lock not held.
    pub fn collect(&self, cause: Cause) -> CollectionStats {
        self.lock.lock();
        let stats = self.collect_locked(cause);
        self.lock.unlock();
        stats
    }

    /// As [`WordHeap::collect`], with the heap's lock held by the caller.
    pub fn collect_locked(&self, cause: Cause) -> CollectionStats {
        if self.disabled.load(Ordering::Relaxed) != 0 || !plan::collects(self.options.plan) {
            return CollectionStats::default();
        }
        let cpu = clock::thread_cpu_ns();
        let allocated = self.space.allocated();
        self.allocated_before
            .fetch_add(allocated as u64, Ordering::Relaxed);
        // SAFETY: the caller holds the lock; the runtime's hooks do not allocate on this heap (WordVm rule 6).
        let locked = unsafe { &mut *self.locked.get() };
        let swept = locked.stock.swept();
        let alone = self.pool.workers() == 1
            || !self.helpers.load(Ordering::Relaxed)
            || self.options.workers == 0 && swept.live - swept.live_leaf < ALONE_BELOW;
        if !alone {
            // A pool that could not start its helpers works with fewer.
            let _ = self.pool.start();
        }
        let surplus = locked
            .trigger
            .surplus(locked.stock.pages().idle_pages() * PAGE);
        let mut stats = CollectionStats {
            full: true,
            number: self.collections.load(Ordering::Relaxed) + 1,
            cause,
            before_bytes: locked.stock.pages().used_pages() * PAGE,
            ..CollectionStats::default()
        };
        self.collections.store(stats.number, Ordering::Relaxed);
        probes::requested(cause);
        self.tell_map(stats.number, false, locked.stock.pages());
        let details = self.listener.as_ref().is_some_and(|l| l.wants_details());
        let mut collector = WordCollector {
            vm: &self.vm,
            space: &self.space,
            stock: &mut locked.stock,
            central: &self.central,
            central_class,
            pool: &self.pool,
            stacks: &self.stacks,
            worked: &self.worked,
            details,
            alone,
            verify: self.options.verify,
            yields: &self.yields,
            listener: self.listener.as_deref(),
            stats,
        };
        plan::collect(self.options.plan, &mut collector);
        stats = collector.stats;
        // Only where it matters: it is a system call.
        let resident = if trigger::asks_for_resident(&stats) {
            limits::resident_bytes()
        } else {
            0
        };
        locked.trigger.collected(&stats, resident);
        locked.resize(&stats, allocated);
        self.live.store(stats.live_bytes, Ordering::Relaxed);
        if surplus > 0 {
            let idle = locked.stock.pages().idle_pages() * PAGE;
            stats.returned_bytes = locked
                .stock
                .return_idle(idle.saturating_sub(surplus).max(locked.trigger.budget()));
        }
        stats.heap_bytes =
            (locked.stock.pages().used_pages() + locked.stock.pages().idle_pages()) * PAGE;
        self.tell_map(stats.number, true, locked.stock.pages());
        stats.limit_bytes = locked.stock.max();
        stats.budget_bytes = locked.trigger.budget();
        stats.cpu_ns = clock::thread_cpu_ns().saturating_sub(cpu) + self.worked.helpers_cpu_ns();
        probes::ended(&stats);
        self.vm.after_start(&stats);
        if let Some(listener) = &self.listener {
            if details {
                self.worked.tell(stats.number, listener.as_ref());
            }
            listener.event(Event::Collected(&stats));
        }
        stats
    }

    /// Collecting is off until [`WordHeap::enable`]; nests.
    pub fn disable(&self) {
        self.disabled.fetch_add(1, Ordering::Relaxed);
    }

    /// Undoes one [`WordHeap::disable`]. False if there was none.
    pub fn enable(&self) -> bool {
        self.disabled
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_ok()
    }

    /// Is collecting off?
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::Relaxed) != 0
    }

    /// Do all interior pointers in objects count (the default), or only those to starts and to registered displacements?
    pub fn set_interior(&self, all: bool) {
        self.space.set_all_interior(all);
    }

    /// Lets pointers to `offset` bytes behind an object's start count. False if that is too far.
    pub fn register_displacement(&self, offset: usize) -> bool {
        self.space.register_displacement(offset)
    }

    /// Limits what the heap may use, in bytes; 0: no limit. Takes the lock.
    pub fn set_max(&self, bytes: usize) {
        self.lock
            .with(|| self.with_locked(|locked| locked.stock.set_max(bytes)));
    }

    /// The limit in bytes; 0: none. Takes the lock.
    #[must_use]
    pub fn max(&self) -> usize {
        self.lock
            .with(|| self.with_locked(|locked| locked.stock.max()))
    }

    /// Sets how much may be allocated between two collections, in percent of what is live. Takes the lock.
    pub fn set_growth(&self, percent: usize) {
        self.lock
            .with(|| self.with_locked(|locked| locked.trigger.set_growth(percent)));
    }

    /// Makes room for `bytes` more: they can be allocated without a collection and without mapping. Takes the lock.
    ///
    /// # Errors
    /// If the limit or the system refuses.
    pub fn expand(&self, bytes: usize) -> Result<(), AllocError> {
        self.lock.with(|| {
            self.with_locked(|locked| {
                locked.stock.expand(&self.space, bytes)?;
                let budget = self.space.allocated().saturating_add(bytes);
                if budget > locked.trigger.budget() {
                    locked.trigger.set_budget(budget);
                }
                Ok(())
            })
        })
    }

    /// Returns all idle memory to the operating system now: the bytes returned. Takes the lock.
    pub fn return_idle_memory(&self) -> usize {
        let gone = self
            .lock
            .with(|| self.with_locked(|locked| locked.stock.return_idle(0)));
        if gone != 0 {
            probes::returned(gone as u64);
        }
        gone
    }

    // ---- the lock, and fork --------------------------------------------------------------------------------------

    /// Takes the heap's lock: no collection begins and no block changes hands until it is released. Not recursive.
    pub fn lock(&self) {
        self.lock.lock();
    }

    /// Takes the lock if it is free.
    #[must_use]
    pub fn try_lock(&self) -> bool {
        self.lock.try_lock()
    }

    /// Releases it.
    pub fn unlock(&self) {
        self.lock.unlock();
    }

    /// Before `fork`: takes the lock, so that the child finds the heap in order.
    pub fn prepare_fork(&self) {
        self.lock.lock();
    }

    /// May threads be started for the heap? Not in a child after `fork` that has none of its own yet.
    #[must_use]
    pub fn may_have_helpers(&self) -> bool {
        self.helpers.load(Ordering::Relaxed)
    }

    /// In a child after `fork`: it has created a thread, so workers can be created too.
    pub fn allow_helpers(&self) {
        self.helpers.store(true, Ordering::Relaxed);
    }

    /// After `fork`, in the parent.
    pub fn after_fork_parent(&self) {
        self.lock.unlock();
    }

    /// After `fork`, in the child: releases the lock, and forgets the workers, which the child does not have. It starts none by
    /// itself: to create a thread takes locks of the C library that a thread of the parent may have held.
    pub fn after_fork_child(&self) {
        self.helpers.store(false, Ordering::Relaxed);
        self.pool.forget_helpers_after_fork();
        self.lock.reset_after_fork();
    }
}
