//! The heap of a runtime that knows its references.

mod builder;
mod census;
mod concurrent;
mod fork;
mod frozen;
mod full;
mod limits;
mod map;
mod mutator;
mod pins;
mod references;
mod sizing;
mod tend;

pub use builder::Builder;
pub use census::TypeCount;
pub use fork::Fork;
pub use frozen::{Frozen, Living, RootOrigin};
pub use limits::Limits;
pub use mutator::Mutator;
pub use pins::{PinGuard, Pinned};
pub use references::{Weak, WeakMap};

use crate::alloc::{Countdown, Sampler};
use crate::bugs::{Bug, is_on};
use crate::collect::cycle::{Pause, TraceStacks};
use crate::collect::local::{Barrier, Local, Locals};
use crate::collect::references::References;
use crate::collect::worked::Worked;
use crate::collect::{Hashes, Yields};
use crate::error::{AllocError, HeapError, LimitError};
use crate::event::{Cause, CollectionStats, Event, Listener, WorkerStats};
use crate::heap::workers::Workers;
use crate::options::Options;
use crate::plan::{self, Allocates, Facts};
use crate::probes;
use crate::space::ObjectSpace;
use crate::space::objects::Swept;
use crate::space::pages::PAGE;
use crate::space::tables::Policy;
use crate::vm::{Vm, World};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use heapwright_address::{ObjectReference, WildWord};
use heapwright_os::{Machine, Pressure, clock, current_thread};
use pins::Pins;
use sizing::{Sizing, Spent};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tend::Tending;

/// With the option `workers` at `auto`, one thread traces alone while less than so many pages are in use.
const ALONE_BELOW: usize = (32 << 20) / PAGE;

/// Control groups and memory pressure are looked at after a collection, but not twice in so many nanoseconds.
const FOLLOW_NS: u64 = 500_000_000;

/// What a heap uses, in bytes.
///
/// ```
/// use heapwright::example::{Pairs, push};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("marksweep")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// push(&mut mutator, 1)?;
/// mutator.collect();
/// let usage = heap.usage();
/// assert_eq!((usage.collections, usage.full_collections), (1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapUsage {
    /// Blocks and large objects in use.
    pub used_bytes: usize,
    /// What may be in use before the heap is collected: what the sizing policy decided, within [`Heap::limits`].
    pub limit_bytes: usize,
    /// External memory that the runtime reported: [`Mutator::external_allocated`].
    pub external_bytes: usize,
    /// Free memory that the heap holds and the machine's memory has room for: [`Heap::release_memory`].
    pub idle_bytes: usize,
    /// What went back to the system since the heap was built.
    pub returned_bytes: usize,
    /// What lived after the last collection, as far as the plan knows: whole blocks, lines or cells.
    pub live_bytes: usize,
    /// Handed to mutators since the heap was built, in the units in which they take memory.
    pub allocated_bytes: u64,
    /// Collections so far, and how many of them traced everything.
    pub collections: u64,
    /// See `collections`.
    pub full_collections: u64,
}

/// A heap of one runtime, with any plan. A handle: clones are the same heap, which is freed with all its memory and threads
/// when the last of them, and the last mutator, is dropped.
///
/// ```
/// use heapwright::example::{Pairs, push};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("immix")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// push(&mut mutator, 1)?;
/// assert_eq!(heap.usage().collections, 0);
/// mutator.collect();
/// assert_eq!(heap.usage().collections, 1);
/// # Ok(())
/// # }
/// ```
pub struct Heap<V: Vm>(Arc<Inner<V>>);

impl<V: Vm> Clone for Heap<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V: Vm> core::fmt::Debug for Heap<V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Heap")
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

/// What a heap is. Field order is drop order: the memory goes last.
struct Inner<V: Vm> {
    vm: V,
    facts: Facts,
    space: ObjectSpace,
    options: Options,
    gate: Arc<dyn World>,
    locals: Locals<V>,
    pool: Workers,
    stacks: TraceStacks,
    worked: Worked,
    pins: Pins,
    hashes: Hashes,
    listener: Option<Box<dyn Listener>>,
    full: full::Full<V>,
    sampler: Option<Box<dyn Sampler>>,
    sizing: Sizing,
    /// CPU time and allocation since the last full collection.
    spent: Mutex<Clocks>,
    machine: Machine,
    tending: Tending<Self>,
    /// When the machine was looked at last, in nanoseconds.
    followed: AtomicU64,
    /// What mutators remembered that have ended.
    orphans: Mutex<Vec<usize>>,
    /// Objects that live as long as the heap.
    immortals: Mutex<Immortals>,
    references: References,
    /// The thread that has the world stopped; 0: none.
    stopper: AtomicUsize,
    /// For plans that mark while mutators run.
    background: concurrent::Background,
    yields: Yields,
    /// The next collection is to be a full one.
    full_next: AtomicBool,
    collections: AtomicU64,
    full_collections: AtomicU64,
    /// How many times everything began to be traced, and the number of the last such trace that is complete: one that marks while
    /// mutators run began before what dies meanwhile.
    traces: AtomicU64,
    traced: AtomicU64,
    /// Bytes that were handed to mutators.
    allocated: AtomicU64,
    _memory: builder::Memory,
}

/// What is spent since the last full collection, and the readings that it is computed from.
#[derive(Debug, Default)]
struct Clocks {
    spent: Spent,
    /// The process's CPU time when the last collection ended.
    cpu_ns: u64,
    /// All that was allocated until the last full collection.
    allocated: u64,
}

/// Objects that live as long as the heap. They never move.
#[derive(Debug, Default)]
struct Immortals {
    all: Vec<usize>,
    /// How many of them are old: a minor collection does not look at those.
    old: usize,
}

/// How hard a collection is to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Effort {
    /// What the plan thinks is due.
    Usual,
    /// Everything is traced.
    Full,
    /// Everything, and blocks are emptied though it costs time.
    Emergency,
}

impl<V: Vm> Heap<V> {
    /// How a heap is built.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The runtime.
    #[must_use]
    pub fn vm(&self) -> &V {
        &self.0.vm
    }

    /// The options that the heap was built with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// What the plan is like. Any thread.
    ///
    /// ```
    /// use heapwright::example::Pairs;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// assert!(Pairs::heap("gencopy")?.facts().generational);
    /// assert!(!Pairs::heap("semispace")?.facts().generational);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.0.facts
    }

    /// Attaches a mutator with the runtime's data for it. It is inside of the heap; the calling thread waits for a collection
    /// that is under way. One mutator is used by one thread at a time.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn attach(&self, thread: V::Thread) -> Result<Mutator<V>, HeapError> {
        Mutator::attach(Arc::clone(&self.0), thread)
    }

    /// What the heap uses. Any thread.
    #[must_use]
    pub fn usage(&self) -> HeapUsage {
        let inner = &self.0;
        let (used, idle) = inner
            .space
            .with(|stock| (stock.used_pages(), stock.cells.pages().idle_pages()));
        HeapUsage {
            used_bytes: used * PAGE,
            idle_bytes: idle * PAGE,
            returned_bytes: inner.tending.returned(),
            limit_bytes: inner.sizing.limit().saturating_mul(PAGE),
            external_bytes: inner.sizing.external(),
            live_bytes: inner.sizing.live(),
            allocated_bytes: inner.allocated.load(Ordering::Relaxed),
            collections: inner.collections.load(Ordering::Relaxed),
            full_collections: inner.full_collections.load(Ordering::Relaxed),
        }
    }

    /// The limits in force, in bytes, whether they were asked for or follow the system; 0: none. Any thread.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.0.sizing.bounds().limits()
    }

    /// Changes the limits, from now on. Any thread.
    ///
    /// # Errors
    /// If the soft limit is above the hard one, the hard one above the addresses that were reserved when the heap was built (twice
    /// the option `max`, or twice the machine's memory), or below what is in use now: garbage counts, so
    /// [`Mutator::set_limits`] collects first. The old limits then stay in force.
    pub fn set_limits(&self, limits: Limits) -> Result<(), LimitError> {
        self.0.set_limits(limits)
    }

    /// As [`Mutator::external_freed`], by any thread.
    pub fn external_freed(&self, bytes: usize) {
        self.0.sizing.external_freed(bytes);
    }

    /// The object around an address: for interior pointers. Needs [`Vm::OBJECT_MAP`], or an object in size classes or pages of
    /// its own. Mutator running or world stopped.
    ///
    /// ```
    /// use heapwright::WildWord;
    /// use heapwright::example::{BYTES, Pairs, push, root};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("markcompact")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// push(&mut mutator, 1)?;
    /// let pair = root(&mutator, 0);
    /// let inside = WildWord::new(pair.to_address().as_usize() + BYTES - 1);
    /// assert_eq!(heap.object_around(inside), Some(pair));
    /// assert!(!heap.is_object(inside), "not its first byte");
    /// // Any word may be asked about.
    /// assert_eq!(heap.object_around(WildWord::new(usize::MAX)), None);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn object_around(&self, word: WildWord) -> Option<ObjectReference> {
        self.0
            .space
            .object_around(word.bits(), |o| self.0.vm.size(o))
    }

    /// Is this the address of an object? As for [`Heap::object_around`].
    #[must_use]
    pub fn is_object(&self, word: WildWord) -> bool {
        self.0.space.is_object(word.bits())
    }
}

impl<V: Vm> Inner<V> {
    fn immortals(&self) -> MutexGuard<'_, Immortals> {
        self.immortals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Is a collection due before `pages` more are taken?
    fn due(&self, pages: usize) -> bool {
        if !self.facts.collects {
            return false;
        }
        let usage = self.page_usage();
        self.sizing.nursery_is_full(&self.facts, &usage, pages)
            || self.needed(&usage, pages) + self.sizing.external_pages() > usage.limit
    }

    /// Pages that are in use if `pages` more are taken, with those that the plan reserves.
    fn needed(&self, usage: &plan::Usage, pages: usize) -> usize {
        usage
            .used
            .saturating_add(pages)
            .saturating_add((self.facts.reserve)(usage))
    }

    /// Pages that may be in use in a collection, before anything is freed: the hard limit. Where that was lowered below what is in
    /// use, as the system's may be, what the plan reserves comes on top: else nothing could be copied, and less would be freed.
    fn most_while_copying(&self, before: &plan::Usage) -> usize {
        let hard = self.sizing.bounds().hard();
        if before.used <= hard {
            hard
        } else {
            self.needed(before, 0)
        }
    }

    fn set_limits(&self, limits: Limits) -> Result<(), LimitError> {
        let reserved = self.needed(&self.page_usage(), 0);
        self.sizing.bounds().ask(limits, reserved)?;
        self.sizing.bounds_changed(reserved);
        Ok(())
    }

    /// Looks at what the system allows now and then: how short of memory it is.
    fn follow(&self) -> Pressure {
        let now = clock::monotonic_ns();
        let last = self.followed.load(Ordering::Relaxed);
        let due = self.options.follow && now.saturating_sub(last) >= FOLLOW_NS;
        let exchange = |to| {
            self.followed
                .compare_exchange(last, to, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        if due && exchange(now) {
            if self.sizing.bounds().follow(self.machine.memory()) {
                let reserved = self.needed(&self.page_usage(), 0);
                self.sizing.bounds_changed(reserved);
            }
            let pressure = self.machine.pressure();
            self.clocks().spent.pressure = pressure;
        }
        self.clocks().spent.pressure
    }

    fn clocks(&self) -> MutexGuard<'_, Clocks> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many workers trace a heap with so many pages in use.
    fn workers(&self, used: usize) -> usize {
        match self.options.workers {
            0 if used < ALONE_BELOW => 1,
            _ => self.stacks.count(),
        }
    }

    fn page_usage(&self) -> plan::Usage {
        let limit = self.sizing.limit();
        self.space.with(|stock| plan::Usage {
            limit,
            workers: self.workers(stock.used_pages()),
            used: stock.used_pages(),
            copy: stock.pages_of(Policy::Copy),
            nursery: stock.pages_of(Policy::Nursery),
            immix: stock.pages_of(Policy::Immix),
            holes: stock.free_line_bytes() / PAGE,
        })
    }

    /// Stops the world and collects, on the calling thread, which is inside of the heap; if another thread collects at the same
    /// time, waits for that one instead. None: the plan does not collect, or somebody else did.
    fn collect(&self, cause: Cause, effort: Effort) -> Option<CollectionStats> {
        if !self.facts.collects {
            return None;
        }
        probes::requested(cause);
        self.pause(|| self.collect_stopped(cause, effort, false))
    }

    /// Collects until all is gone that is garbage now: a mark that goes on is completed first. By a mutator that is inside. None: the
    /// plan does not collect, or the last collection was another thread's.
    fn collect_all(&self, cause: Cause, effort: Effort) -> Option<CollectionStats> {
        let now = self.traces.load(Ordering::Relaxed);
        loop {
            let stats = self.collect(cause, effort);
            let done = self.traced.load(Ordering::Relaxed) > now || is_on(Bug::RequestHalfDone);
            if done || !self.facts.collects {
                return stats;
            }
        }
    }

    /// Stops the world and runs `steps`. None: somebody else did, and it is over.
    fn pause(&self, steps: impl FnOnce() -> CollectionStats) -> Option<CollectionStats> {
        let asked = clock::monotonic_ns();
        let mut stats = self.stopped(true, steps)?;
        // The steps began when all others had stopped.
        stats.stop_ns = stats.start_ns.saturating_sub(asked);
        stats.start_ns = asked;
        stats.pause_ns = clock::monotonic_ns() - asked;
        self.tell(&stats);
        Some(stats)
    }

    /// After a collection, with the world running: looks at what the system allows now, and tells who wants to know.
    fn tell(&self, stats: &CollectionStats) {
        self.tell_runtime(stats);
        let worked = match self.wants_details() {
            // The thread is inside: nobody else has collected.
            true => self.worked.take(stats.number),
            false => Vec::new(),
        };
        self.tell_listener(stats, &worked);
    }

    fn tell_runtime(&self, stats: &CollectionStats) {
        let _ = self.follow();
        self.tending.wake();
        self.vm.collected(stats);
    }

    fn tell_listener(&self, stats: &CollectionStats, worked: &[WorkerStats]) {
        probes::ended(stats);
        if let Some(listener) = &self.listener {
            for stats in worked {
                listener.event(Event::Worked(stats));
            }
            listener.event(Event::Collected(stats));
        }
    }

    /// Are workers and mutators to be watched?
    fn wants_details(&self) -> bool {
        self.listener.as_ref().is_some_and(|l| l.wants_details())
    }

    /// The same, without telling anybody. `inside`: the calling thread is.
    fn stopped<R>(&self, inside: bool, steps: impl FnOnce() -> R) -> Option<R> {
        let raise = || {
            self.background.interrupt.set(true);
            self.locals.interrupt(true);
        };
        self.yields.point();
        self.gate
            .close(inside, &raise)
            .then(|| self.with_gate_closed(inside, steps))
    }

    /// Runs `steps` and opens the gate, which the calling thread has closed.
    fn with_gate_closed<R>(&self, inside: bool, steps: impl FnOnce() -> R) -> R {
        self.stopper.store(current_thread(), Ordering::Relaxed);
        self.yields.point();
        let result = steps();
        self.yields.point();
        self.stopper.store(0, Ordering::Relaxed);
        self.background.interrupt.set(false);
        self.tending.lower(&self.locals);
        self.gate.open(inside);
        self.yields.point();
        result
    }

    /// Visits every object, with the world stopped by the calling thread, which is inside of the heap. False: another thread
    /// stopped it first, and nothing was visited.
    fn enumerate(&self, visit: &mut dyn FnMut(ObjectReference)) -> bool {
        let visited = self.stopped(true, || {
            // SAFETY: called by the one who closed the gate.
            unsafe {
                self.locals.each(|local| {
                    if !is_on(Bug::CensusRunsKept) {
                        mutator::retire_runs(&self.space, local);
                    }
                });
            }
            frozen::shown(|| self.space.for_each_object(visit))
        });
        if let Some(Err(panic)) = visited {
            std::panic::resume_unwind(panic);
        }
        visited.is_some()
    }

    /// World stopped. `begin`: only begins a collection that goes on while mutators run.
    fn collect_stopped(&self, cause: Cause, effort: Effort, begin: bool) -> CollectionStats {
        let (start, cpu) = (clock::monotonic_ns(), clock::thread_cpu_ns());
        let all_cpu = clock::process_cpu_ns();
        let completed = self.space.marking();
        if begin {
            self.tending.marking_begins();
            self.traces.fetch_add(1, Ordering::Relaxed);
        }
        let before = self.page_usage();
        let lost = self.retire();
        let full = effort >= Effort::Full
            || lost
            || self.full_next.load(Ordering::Relaxed)
            || !self.facts.generational;
        let orphans =
            core::mem::take(&mut *self.orphans.lock().unwrap_or_else(PoisonError::into_inner));
        let overwritten = self.background.take_overwritten();
        let mut pinned: Vec<usize> = Vec::new();
        if self.facts.moves {
            self.pins.addresses(&mut pinned);
        }
        let mut immortals = self.immortals();
        let young = if full || begin { 0 } else { immortals.old };
        immortals.old = immortals.all.len();
        let alone = self.workers(before.used) == 1 || self.pool.pool().start().is_err();
        let mut pause = Pause {
            vm: &self.vm,
            space: &self.space,
            locals: &self.locals,
            pool: self.pool.pool(),
            stacks: &self.stacks,
            worked: &self.worked,
            details: self.wants_details(),
            pinned: &pinned,
            hashes: &self.hashes,
            settle_pins: &|lives| self.pins.keep(lives),
            orphans: &orphans,
            immortals: &immortals.all[young..],
            overwritten: &overwritten,
            references: &self.references,
            soft: self.options.soft_references,
            alone,
            verify: self.options.verify,
            listener: self.listener.as_deref(),
            limit: before.limit,
            most: self.most_while_copying(&before),
            evacuate: self.options.evacuate,
            yields: self.yields.is_on(),
            emergency: effort == Effort::Emergency,
            stats: CollectionStats {
                number: self.collections.fetch_add(1, Ordering::Relaxed) + 1,
                cause,
                start_ns: start,
                before_bytes: before.used * PAGE,
                ..CollectionStats::default()
            },
            swept: Swept::default(),
            kind: None,
            exact: true,
            roots_end_ns: AtomicU64::new(0),
        };
        probes::begun(&pause.stats);
        pause.check_free();
        self.tell_map(pause.stats.number, false);
        if is_on(Bug::MapEarly) {
            self.tell_map(pause.stats.number, true);
        }
        if begin {
            plan::begin(self.facts.name, &mut pause);
        } else {
            plan::collect(self.facts.name, &mut pause, !full);
        }
        let (mut stats, swept) = (pause.stats, pause.swept);
        if !is_on(Bug::MapEarly) {
            self.tell_map(stats.number, true);
        }
        if stats.full && !begin {
            self.full_collections.fetch_add(1, Ordering::Relaxed);
            let began = u64::from(!completed);
            let traces = self.traces.fetch_add(began, Ordering::Relaxed) + began;
            self.traced.store(traces, Ordering::Relaxed);
        }
        let after = self.page_usage();
        let full = stats.full && !begin;
        let mut clocks = self.clocks();
        clocks.spent.program_ns += all_cpu.saturating_sub(clocks.cpu_ns);
        clocks.cpu_ns = clock::process_cpu_ns();
        let took = clocks.cpu_ns.saturating_sub(all_cpu);
        clocks.spent.collector_ns += took;
        clocks.spent.full_ns = took;
        if full {
            let allocated = self.allocated.load(Ordering::Relaxed);
            clocks.spent.allocated_bytes = allocated.saturating_sub(clocks.allocated);
            clocks.allocated = allocated;
            self.tending.collected_all(took, completed);
        }
        let spent = clocks.spent;
        let lived = self.sizing.live();
        if full {
            clocks.spent = Spent {
                pressure: spent.pressure,
                ..Spent::default()
            };
        }
        drop(clocks);
        stats.begins = begin;
        if begin {
            stats.full = false;
        } else {
            let traced_ns = stats.mark_ns + stats.weak_ns;
            match stats.full {
                true => self.sizing.traced_all(traced_ns),
                false => self.sizing.traced_young(traced_ns),
            }
            let next_full = self
                .sizing
                .collected(&self.facts, &after, &swept, stats.full, &spent);
            self.full_next.store(next_full, Ordering::Relaxed);
        }
        self.references.set_now(clock::monotonic_ns());
        stats.live_bytes = self.sizing.live();
        stats.heap_bytes = after.used * PAGE;
        // Without a limit it is more than can be said in bytes.
        stats.limit_bytes = self.sizing.bounds().hard().checked_mul(PAGE).unwrap_or(0);
        stats.budget_bytes = self.sizing.limit().saturating_sub(after.used) * PAGE;
        if !stats.full && !begin {
            // Where young objects stay where they are, what lives is more by those that survived.
            stats.promoted_bytes = match before.nursery {
                0 => swept.live.saturating_sub(lived),
                _ => stats.copied_bytes,
            };
        }
        stats.cpu_ns = clock::thread_cpu_ns().saturating_sub(cpu) + self.worked.helpers_cpu_ns();
        stats.pause_ns = clock::monotonic_ns() - start;
        stats
    }

    /// A mutator was handed so many bytes.
    fn handed(&self, bytes: usize) {
        self.allocated.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Keeps what a mutator remembered that ends.
    fn adopt_log(&self, mut log: Vec<usize>, lost: bool) {
        let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        if lost || orphans.try_reserve(log.len()).is_err() {
            self.full_next.store(true, Ordering::Relaxed);
        } else {
            orphans.append(&mut log);
        }
    }

    /// Takes back what mutators hold, world stopped: true if track of something was lost and all must be traced.
    fn retire(&self) -> bool {
        let mut lost = self.space.with(|stock| stock.lost_track());
        // SAFETY: called by the one who closed the gate.
        unsafe {
            self.locals.each(|local| {
                lost |= core::mem::take(&mut local.log_lost);
                mutator::retire(&self.space, local);
                self.references.adopt(&mut local.registered);
            });
        }
        lost
    }

    /// Tells that an allocation fails.
    fn out_of_memory(&self, bytes: usize) -> AllocError {
        probes::out_of_memory(bytes as u64);
        if let Some(listener) = &self.listener {
            listener.event(Event::OutOfMemory { requested: bytes });
        }
        AllocError::OutOfMemory { requested: bytes }
    }

    fn new_local(&self, thread: V::Thread) -> Local<V> {
        let barrier = match self.facts.barrier {
            Barrier::Snapshot if !self.space.marking() => Barrier::None,
            barrier => barrier,
        };
        let new_header = if self.space.marking() {
            self.space.marked_header()
        } else {
            0
        };
        Local {
            region: Default::default(),
            new_header,
            interrupt: Default::default(),
            barrier,
            most_in_cells: if self.facts.allocates == Allocates::Cells {
                crate::alloc::MAX_SMALL
            } else {
                0
            },
            overflow: Default::default(),
            runs: Some(Box::default()),
            log: Vec::new(),
            log_lost: false,
            stress: self.options.stress,
            yields: Yields::new(self.options.yields, 128 + self.locals.count()),
            owner: current_thread(),
            inside: true,
            registered: Box::default(),
            countdown: Countdown::new(),
            thread,
        }
    }
}
