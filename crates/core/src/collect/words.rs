//! One collection: the steps that a plan strings together.
//!
//! A plan's `collect` receives a [`WordCollector`] and calls [`WordCollector::pause`]; inside, a [`WordPause`] proves that the world is
//! stopped. All memory that the steps need is set up when the heap is built or before the world stops: a stopped thread may
//! hold malloc's lock.

use super::marker::{MarkStack, Marker};
use super::worked::Worked;
use super::yields::Yields;
use crate::alloc::{CLASSES, Run};
use crate::event::{CollectionStats, Event, Listener, Part};
use crate::probes;
use crate::space::{MarkSweep, Stock};
use crate::verify;
use crate::vm::{Closure, WordVisitor, WordVm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use heapwright_address::ObjectReference;
use heapwright_os::clock;
use heapwright_work::{Phase, Pool, Worker};

/// The mark stacks of a heap's workers.
#[derive(Debug)]
pub struct MarkStacks(Vec<UnsafeCell<MarkStack>>);

// SAFETY: stack n is used by worker n of a running phase, or by the collecting thread when none runs.
unsafe impl Sync for MarkStacks {}

impl MarkStacks {
    /// One stack for each worker; there is at least one.
    #[must_use]
    pub fn new(stacks: Vec<MarkStack>) -> Self {
        Self(stacks.into_iter().map(UnsafeCell::new).collect())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// # Safety
    /// Nobody else uses stack `index` meanwhile.
    #[allow(
        clippy::mut_from_ref,
        reason = "each stack belongs to one worker at a time, see the Sync impl"
    )]
    unsafe fn stack(&self, index: usize) -> &mut MarkStack {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.0[index].get() }
    }
}

/// A collection that is under way. Exists while the heap's lock is held.
pub struct WordCollector<'h, V: WordVm> {
    pub(crate) vm: &'h V,
    pub(crate) space: &'h MarkSweep,
    pub(crate) stock: &'h mut Stock,
    pub(crate) central: &'h [Run],
    pub(crate) central_class: fn(usize) -> usize,
    pub(crate) pool: &'h Pool,
    pub(crate) stacks: &'h MarkStacks,
    /// What workers do is noted there, if `details` says so.
    pub(crate) worked: &'h Worked,
    pub(crate) details: bool,
    /// The collecting thread marks alone.
    pub(crate) alone: bool,
    pub(crate) verify: bool,
    pub(crate) yields: &'h Yields,
    pub(crate) listener: Option<&'h dyn Listener>,
    pub(crate) stats: CollectionStats,
}

impl<V: WordVm> core::fmt::Debug for WordCollector<'_, V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("WordCollector")
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// Proof that the world is stopped.
#[derive(Debug)]
pub struct WordPause<'c, 'h, V: WordVm> {
    cycle: &'c mut WordCollector<'h, V>,
}

impl<'h, V: WordVm> WordCollector<'h, V> {
    /// Stops the world, runs `steps`, and starts it again.
    pub fn pause(&mut self, steps: impl FnOnce(&mut WordPause<'_, 'h, V>)) {
        self.vm.before_stop();
        self.yields.point();
        let start = clock::monotonic_ns();
        self.stats.start_ns = start;
        self.vm.stop_world();
        self.yields.point();
        self.stats.stop_ns = clock::monotonic_ns() - start;
        probes::begun(&self.stats);
        steps(&mut WordPause { cycle: self });
        self.yields.point();
        self.vm.start_world();
        self.yields.point();
        self.stats.pause_ns = clock::monotonic_ns() - start;
    }

    /// After the pause: frees what was not marked.
    pub fn sweep(&mut self) {
        let start = clock::monotonic_ns();
        let swept = self.stock.sweep(self.space);
        self.stats.live_bytes = swept.live;
        self.stats.marked_cells = swept.cells;
        self.stats.live_leaf_bytes = swept.live_leaf;
        self.stats.sweep_ns = clock::monotonic_ns() - start;
        probes::sweep(self.stats.number, self.stats.sweep_ns);
    }
}

impl<V: WordVm> WordPause<'_, '_, V> {
    /// Marks the cells of all threads' runs: they are handed out to a thread, though not yet to the program.
    pub fn keep_runs(&mut self) {
        let space = self.cycle.space;
        let (mut handed, mut most) = (0, 0);
        self.cycle.vm.local_runs(&mut |runs| {
            runs.each(|_, class, run| space.keep(run, class));
            let count = runs.take_count();
            handed += count;
            most = most.max(count);
        });
        // A quarter of a thread counts as one.
        self.cycle.stats.allocators = (handed + most / 4 * 3).checked_div(most).unwrap_or(0);
        for (index, run) in self.cycle.central.iter().enumerate() {
            if run.end() != 0 {
                space.keep(run, (self.cycle.central_class)(index));
            }
        }
    }

    /// Marks all that the roots reach.
    pub fn trace(&mut self) {
        let start = clock::monotonic_ns();
        let c = &mut *self.cycle;
        let mut lost = false;
        if c.alone {
            // SAFETY: no phase is running, so this thread alone uses the stacks.
            let stack = unsafe { c.stacks.stack(0) };
            let mut marker = Marker::<V, false>::new(c.vm, c.space, stack);
            roots(c.vm, c.space, &mut marker);
            c.stats.root_bytes = marker.ranges();
            c.stats.roots_ns = clock::monotonic_ns() - start;
            probes::roots(c.stats.number);
            marker.drain();
        } else {
            let phase = ClosurePhase {
                number: c.stats.number,
                vm: c.vm,
                space: c.space,
                stacks: c.stacks,
                lost: AtomicBool::new(false),
                root_bytes: AtomicUsize::new(0),
                roots_end_ns: AtomicU64::new(start),
            };
            // A phase fails only if the runtime panicked in a scan on some worker, whose objects are gone then: mark on, alone,
            // from the roots and from all that is marked.
            let failed = c
                .worked
                .run(c.pool, c.details, Part::Closure, &phase)
                .is_err();
            lost = phase.lost.into_inner() || failed;
            c.stats.root_bytes = phase.root_bytes.into_inner();
            c.stats.roots_ns = phase.roots_end_ns.into_inner() - start;
            if failed {
                // SAFETY: the phase has ended.
                let stack = unsafe { c.stacks.stack(0) };
                let mut marker = Marker::<V, false>::new(c.vm, c.space, stack);
                roots(c.vm, c.space, &mut marker);
                marker.drain();
            }
        }
        if lost {
            // SAFETY: the phase has ended.
            let stack = unsafe { c.stacks.stack(0) };
            let mut marker = Marker::<V, false>::new(c.vm, c.space, stack);
            marker.set_lost();
            marker.drain();
        }
        c.stats.workers = if c.alone { 1 } else { c.stacks.len() };
        c.stats.mark_ns = clock::monotonic_ns() - start;
        probes::closure(c.stats.number, c.stats.mark_ns);
    }

    /// Weak references and finalizers.
    pub fn weak(&mut self) {
        let start = clock::monotonic_ns();
        let c = &mut *self.cycle;
        // SAFETY: no phase is running.
        let stack = unsafe { c.stacks.stack(0) };
        let mut marker = Marker::<V, false>::new(c.vm, c.space, stack);
        c.vm.weak(&mut marker);
        marker.drain();
        c.stats.weak_ns = clock::monotonic_ns() - start;
        probes::weak(c.stats.number, c.stats.weak_ns);
    }

    /// Checks the closure and the tables, if the option `verify` is on.
    pub fn verify(&mut self) {
        let c = &mut *self.cycle;
        if !c.verify {
            return;
        }
        let start = clock::monotonic_ns();
        let listener = c.listener;
        c.stats.violations = verify::words::check(c.vm, c.space, c.stock, &mut |violation| {
            if let Some(listener) = listener {
                listener.event(Event::Violation(&violation));
            }
        });
        c.stats.verify_ns = clock::monotonic_ns() - start;
    }

    /// Makes the marks the object map.
    pub fn adopt_marks(&mut self) {
        self.cycle.space.flip();
        self.cycle.space.poison_all_dead();
    }
}

/// Reports the roots to a marker: the runtime's, and the cells of kinds that are never collected.
fn roots<V: WordVm, T: WordVisitor>(vm: &V, space: &MarkSweep, marker: &mut T) {
    vm.roots(marker);
    space.for_each(
        space.parity(),
        |entry| !space.kind(entry.kind()).collectable,
        |cell| {
            if let Some(object) = ObjectReference::from_address(cell.start) {
                marker.object(object);
            }
        },
    );
}

struct ClosurePhase<'a, V: WordVm> {
    /// Of the collection.
    number: u64,
    vm: &'a V,
    space: &'a MarkSweep,
    stacks: &'a MarkStacks,
    lost: AtomicBool,
    root_bytes: AtomicUsize,
    /// When the roots had been looked at.
    roots_end_ns: AtomicU64,
}

impl<V: WordVm> Phase for ClosurePhase<'_, V> {
    fn work(&self, worker: &mut Worker<'_>) {
        // SAFETY: the pool runs the phase once for each worker index.
        let stack = unsafe { self.stacks.stack(worker.index()) };
        let mut marker = Marker::<V, true>::new(self.vm, self.space, stack);
        if worker.index() == 0 {
            roots(self.vm, self.space, &mut marker);
            self.root_bytes.store(marker.ranges(), Ordering::Relaxed);
            self.roots_end_ns
                .store(clock::monotonic_ns(), Ordering::Relaxed);
            probes::roots(self.number);
        }
        marker.run(Some(worker));
        while let Some(object) = worker.next() {
            marker.accept(object);
            marker.run(Some(worker));
        }
        self.lost.fetch_or(marker.lost(), Ordering::Relaxed);
    }
}

impl MarkSweep {
    /// Marks the cells of a run.
    fn keep(&self, run: &Run, class: usize) {
        let (cursor, limit) = run.cells();
        let base = self.tables().base();
        if cursor < limit {
            self.set_bits(
                cursor - base,
                limit - base,
                CLASSES[class].bytes as usize,
                self.parity() ^ 1,
            );
        }
    }
}
