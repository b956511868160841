//! One collection of a heap of objects: the steps that a plan strings together.
//!
//! A [`Pause`] proves that the world is stopped. Its steps are, in the order in which plans use them: what is to be traced
//! ([`Pause::begin_full`], [`Pause::evacuate`]), [`Pause::trace`], [`Pause::weak`], and [`Pause::sweep`].

use super::hashes::Hashes;
use super::local::{Barrier, Locals};
use super::references::{Processed, References};
use super::trace::{Outcomes, Pins, Roots, Trace, TraceStack, Tracer};
use super::worked::Worked;
use crate::alloc::BLOCK_BYTES;
use crate::bugs::{Bug, is_on};
use crate::event::{CollectionStats, Event, Listener, Part};
use crate::options::{Evacuate, Soft};
use crate::probes;
use crate::space::objects::{Header, ObjectSpace, ObjectStock, Swept, examine_all};
use crate::space::tables::Policy;
use crate::verify;
use crate::vm::{RootVisitor, Vm, WeakLookup};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use heapwright_os::clock;
use heapwright_work::{Phase, Pool, Worker};

/// The stacks of a heap's workers.
#[derive(Debug)]
pub struct TraceStacks(Vec<UnsafeCell<TraceStack>>);

// SAFETY: stack n is used by worker n of a running phase, or by the collecting thread when none runs.
unsafe impl Sync for TraceStacks {}

impl TraceStacks {
    /// One for each worker; there is at least one.
    #[must_use]
    pub fn new(stacks: Vec<TraceStack>) -> Self {
        Self(stacks.into_iter().map(UnsafeCell::new).collect())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// # Safety
    /// Nobody else uses stack `index` meanwhile.
    #[allow(
        clippy::mut_from_ref,
        reason = "each stack belongs to one worker at a time, see the Sync impl"
    )]
    pub(crate) unsafe fn stack(&self, index: usize) -> &mut TraceStack {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.0[index].get() }
    }
}

/// What a trace is to do.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Where objects of moving blocks go.
    pub to: Policy,
    /// Some blocks are moving: slots are updated.
    pub moves: bool,
    /// What is reached is old from now on, and writes to it are remembered.
    pub unlog: bool,
    /// Old objects that were written to are roots: what is old otherwise is not looked at.
    pub minor: bool,
}

/// Takes what tells whether an object lives.
pub(crate) type SettlePins<'a> = dyn Fn(&dyn Fn(usize) -> bool) + 'a;

/// Proof that the world is stopped.
#[allow(missing_debug_implementations, reason = "holds the runtime")]
pub struct Pause<'h, V: Vm> {
    pub(crate) vm: &'h V,
    pub(crate) space: &'h ObjectSpace,
    pub(crate) locals: &'h Locals<V>,
    pub(crate) pool: &'h Pool,
    pub(crate) stacks: &'h TraceStacks,
    /// What workers do is noted there, if `details` says so.
    pub(crate) worked: &'h Worked,
    pub(crate) details: bool,
    /// Objects that must not move.
    pub(crate) pinned: &'h [usize],
    /// Of objects that slide.
    pub(crate) hashes: &'h Hashes,
    /// Told, after each trace, how to find out whether an object lives.
    pub(crate) settle_pins: &'h SettlePins<'h>,
    /// Old objects that were written to by mutators that have ended.
    pub(crate) orphans: &'h [usize],
    /// Objects that live as long as the heap: all, or for a minor collection those that are young.
    pub(crate) immortals: &'h [usize],
    /// References that were overwritten while marking concurrently.
    pub(crate) overwritten: &'h [usize],
    /// What is registered with the heap.
    pub(crate) references: &'h References,
    /// The option `softrefs`.
    pub(crate) soft: Soft,
    /// The collecting thread works alone.
    pub(crate) alone: bool,
    pub(crate) verify: bool,
    pub(crate) listener: Option<&'h dyn Listener>,
    /// Pages that may be in use.
    pub(crate) limit: usize,
    /// Pages that may be in use while objects are copied: the hard limit, unless more were in use when it was lowered.
    pub(crate) most: usize,
    /// The option `evacuate`.
    pub(crate) evacuate: Evacuate,
    /// The option `yields` is on.
    pub(crate) yields: bool,
    /// The last collection did not make enough room.
    pub(crate) emergency: bool,
    pub(crate) stats: CollectionStats,
    pub(crate) swept: Swept,
    pub(crate) kind: Option<Kind>,
    /// What is dead was found dead: the runtime kept nothing alive in [`Pause::weak`], and nothing ran meanwhile.
    pub(crate) exact: bool,
    /// When the last root was looked at, as far as is known.
    pub(crate) roots_end_ns: AtomicU64,
}

impl<'h, V: Vm> Pause<'h, V> {
    /// Runs a phase with all workers. It fails only if the runtime panicked on one of them: rule 6.
    pub(crate) fn run<P: Phase>(&self, part: Part, phase: &P) {
        let _ = self.worked.run(self.pool, self.details, part, phase);
    }

    /// Nothing is marked any more: all will be traced.
    pub fn begin_full(&mut self) {
        self.stats.full = true;
        if !is_on(Bug::MarksKept) {
            self.space.clear_marks();
        }
        if !is_on(Bug::LinesReusedWhileTracing) {
            self.space.with(ObjectStock::forget_recyclable);
        }
    }

    /// Has the objects of a policy's blocks moved by the next trace.
    pub fn evacuate(&mut self, policy: Policy) {
        if policy == Policy::Nursery {
            let space = self.space;
            space.with(|stock: &mut ObjectStock| stock.evacuate_nursery(space));
        } else {
            self.space.evacuate(policy);
        }
    }

    /// Has the objects of fragmented blocks moved by the next trace (or of all blocks, or of none: the option `evacuate`), as far as
    /// there is room: true if there are any.
    pub fn evacuate_fragmented(&mut self) -> bool {
        let (space, limit, emergency) = (self.space, self.limit, self.emergency);
        let evacuate = self.evacuate;
        if evacuate == Evacuate::Never {
            return false;
        }
        space.with(|stock| {
            let free = limit.saturating_sub(stock.used_pages()) * crate::space::pages::PAGE;
            if evacuate == Evacuate::All {
                return stock.choose_all(space, free);
            }
            let free_lines = stock.free_line_bytes();
            // Worth its time when much is lost to holes, or when there is no other way.
            if !emergency
                && free_lines * 5 < stock.pages_of(Policy::Immix) * crate::space::pages::PAGE
            {
                return 0;
            }
            stock.choose_fragmented(space, free)
        }) != 0
    }

    /// Marks or moves all that is reachable.
    pub fn trace(&mut self, kind: Kind) {
        let start = clock::monotonic_ns();
        self.kind = Some(kind);
        if kind.moves {
            self.hold_pinned(kind.to);
        }
        let trace = self.new_trace(kind);
        match (self.alone, kind.moves) {
            (true, false) => self.trace_as::<false, false>(&trace, kind),
            (true, true) => self.trace_as::<false, true>(&trace, kind),
            (false, false) => self.trace_as::<true, false>(&trace, kind),
            (false, true) => self.trace_as::<true, true>(&trace, kind),
        }
        self.stats.copied_bytes += trace.copied.into_inner();
        self.stats.workers = if self.alone { 1 } else { self.stacks.count() };
        self.stats.mark_ns += clock::monotonic_ns() - start;
        probes::closure(self.stats.number, self.stats.mark_ns);
        self.stats.roots_ns += self.roots_end_ns.get_mut().saturating_sub(start);
    }

    pub(crate) fn new_trace(&self, kind: Kind) -> Trace<'h, V> {
        Trace {
            vm: self.vm,
            space: self.space,
            to: kind.to,
            most: self.most,
            unlog: kind.unlog,
            copied: AtomicUsize::new(0),
            stayed: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            waiting: None,
        }
    }

    /// Keeps pinned objects, and what ambiguous roots lead to, where they are: their blocks become blocks of `to`. A trace that
    /// moves does that by itself.
    pub fn hold_pinned(&mut self, to: Policy) {
        for object in self.pinned {
            self.space.hold(*object, to);
        }
        if V::PINS {
            let phase = PinsPhase {
                pause: self,
                parts: Share::of(self.root_parts()),
                to,
                found: AtomicUsize::new(0),
            };
            if self.alone {
                phase.parts();
            } else {
                self.run(Part::Pins, &phase);
            }
            let found = phase.found.into_inner();
            self.stats.pinned += found;
        }
        self.stats.pinned += self.pinned.len();
    }

    /// How many mutators there are.
    pub(crate) fn mutators(&self) -> usize {
        self.locals.count()
    }

    /// In how many parts the roots can be scanned: each mutator's, the runtime's, and the parts that it divides others into.
    pub(crate) fn root_parts(&self) -> usize {
        self.mutators() + 1 + self.vm.root_parts()
    }

    /// Reports one of these parts. One worker for each.
    pub(crate) fn roots_of<R: RootVisitor>(&self, part: usize, visit: &mut R) {
        let mutators = self.mutators();
        if part < mutators {
            // SAFETY: a pause: the world is stopped; one worker has this part.
            unsafe {
                self.locals.visit(part, |local| {
                    self.vm.thread_roots(&mut local.thread, visit);
                });
            }
        } else if part == mutators {
            self.vm.roots(visit);
        } else {
            self.vm.roots_of(part - mutators - 1, visit);
        }
    }

    fn trace_as<const SHARED: bool, const MOVES: bool>(&self, trace: &Trace<'h, V>, kind: Kind) {
        if SHARED {
            // Where the runtime panics in a scan, that worker's edges are gone. The panic is reported by the runtime's own
            // means; what was lost is found again from the objects in the bitmap, or not at all.
            if self.yields {
                self.run(Part::Closure, &self.phase::<MOVES, true>(trace, kind));
            } else {
                self.run(Part::Closure, &self.phase::<MOVES, false>(trace, kind));
            }
            if trace.stayed.load(Ordering::Relaxed) != 0 {
                Header::<V>::new(self.space).settle();
            }
        } else {
            // SAFETY: no phase is running, so this thread alone uses the stacks.
            let stack = unsafe { self.stacks.stack(0) };
            let mut tracer = Tracer::<V, false, MOVES>::new(trace, stack);
            self.start(&mut tracer, kind, &Share::of(self.root_parts()));
            tracer.run(None);
        }
        if SHARED && trace.pending.load(Ordering::Relaxed) != 0 {
            // SAFETY: the phase has ended.
            let stack = unsafe { self.stacks.stack(0) };
            Tracer::<V, false, MOVES>::new(trace, stack).run(None);
        }
    }

    fn phase<'p, const MOVES: bool, const YIELDS: bool>(
        &'p self,
        trace: &'p Trace<'h, V>,
        kind: Kind,
    ) -> TracePhase<'p, 'h, V, MOVES, YIELDS> {
        TracePhase {
            pause: self,
            trace,
            kind,
            parts: Share::of(self.root_parts()),
        }
    }

    /// Is a concurrent mark under way?
    #[must_use]
    pub fn is_marking(&self) -> bool {
        self.space.marking()
    }

    /// Begins to mark while mutators run: remembers what the roots refer to; from now on mutators remember what they overwrite,
    /// and what they allocate counts as marked (a snapshot at the beginning: Yuasa, "Real-time garbage collection on
    /// general-purpose machines", 1990).
    pub fn begin_marking(&mut self, kind: Kind) {
        let start = clock::monotonic_ns();
        let trace = self.new_trace(kind);
        // SAFETY: no phase is running, and the concurrent marker is stopped.
        let stack = unsafe { self.stacks.stack(0) };
        let parts = Share::of(self.root_parts());
        self.start(
            &mut Tracer::<V, true, false>::new(&trace, stack),
            kind,
            &parts,
        );
        self.space.set_marking(true);
        self.set_barriers(Barrier::Snapshot);
        self.stats.mark_ns += clock::monotonic_ns() - start;
    }

    /// Completes such a mark.
    pub fn finish_marking(&mut self, kind: Kind) {
        let start = clock::monotonic_ns();
        self.stats.full = true;
        self.kind = Some(kind);
        self.exact = false;
        self.space.set_marking(false);
        let trace = self.new_trace(kind);
        if self.alone {
            // SAFETY: as in `begin_marking`.
            let stack = unsafe { self.stacks.stack(0) };
            let mut tracer = Tracer::<V, false, false>::new(&trace, stack);
            self.snapshots(&mut tracer);
            tracer.run(None);
        } else {
            let (pause, trace) = (&*self, &trace);
            if self.yields {
                self.run(Part::Closure, &FinishPhase::<V, true> { pause, trace });
            } else {
                self.run(Part::Closure, &FinishPhase::<V, false> { pause, trace });
            }
            if trace.pending.load(Ordering::Relaxed) != 0 {
                // SAFETY: the phase has ended.
                let stack = unsafe { self.stacks.stack(0) };
                Tracer::<V, false, false>::new(trace, stack).run(None);
            }
        }
        self.set_barriers(Barrier::None);
        self.stats.mark_ns += clock::monotonic_ns() - start;
        probes::closure(self.stats.number, self.stats.mark_ns);
    }

    /// Reports what was overwritten since the mark began, as far as the concurrent marker did not see it.
    fn snapshots<const SHARED: bool, const YIELDS: bool>(
        &self,
        tracer: &mut Tracer<'_, V, SHARED, false, YIELDS>,
    ) {
        for object in self.orphans.iter().chain(self.overwritten) {
            tracer.accept(*object << 16);
        }
        // SAFETY: a pause: the world is stopped; only the leader of a phase comes here.
        unsafe {
            self.locals.each(|local| {
                for object in local.log.drain(..) {
                    tracer.accept(object << 16);
                }
            });
        }
    }

    fn set_barriers(&self, barrier: Barrier) {
        let header = match barrier {
            Barrier::Snapshot => self.space.marked_header(),
            _ => 0,
        };
        // SAFETY: a pause.
        unsafe {
            self.locals.each(|local| {
                local.barrier = barrier;
                local.new_header = header;
            });
        }
    }

    /// Reports roots, and remembered objects, to a tracer: the parts that it takes.
    fn start<const SHARED: bool, const MOVES: bool, const YIELDS: bool>(
        &self,
        tracer: &mut Tracer<'_, V, SHARED, MOVES, YIELDS>,
        kind: Kind,
        parts: &Share,
    ) {
        let mutators = self.mutators();
        while let Some(part) = parts.next() {
            if part < mutators {
                // SAFETY: a pause: the world is stopped; one worker has this part.
                unsafe {
                    self.locals.visit(part, |local| {
                        let log = core::mem::take(&mut local.log);
                        if kind.minor && local.barrier == Barrier::Object {
                            for object in &log {
                                tracer.remember(*object);
                            }
                        }
                        local.log = log;
                        local.log.clear();
                    });
                }
                if part == 0 && is_on(Bug::MutatorSkipped) {
                    continue;
                }
            } else if part == mutators {
                for object in self.immortals {
                    let _ = tracer.reach(*object);
                }
                self.references.roots(kind.minor, &mut Roots(&mut *tracer));
                if kind.minor {
                    for object in self.orphans {
                        tracer.remember(*object);
                    }
                }
            }
            self.roots_of(part, &mut Roots(&mut *tracer));
        }
        self.roots_end_ns
            .fetch_max(clock::monotonic_ns(), Ordering::Relaxed);
        probes::roots(self.stats.number);
    }

    /// Weak references.
    pub fn weak(&mut self) {
        let start = clock::monotonic_ns();
        if let Some(kind) = self.kind.filter(|_| !is_on(Bug::WeakSkipped)) {
            let references = self.references;
            let done = match (references.if_any(), kind.moves) {
                (Some(mut tables), true) => self.process::<true>(&mut tables, kind),
                (Some(mut tables), false) => self.process::<false>(&mut tables, kind),
                (None, true) => self.only_weak::<true>(kind),
                (None, false) => self.only_weak::<false>(kind),
            };
            let space = self.space;
            self.weak_parts(|| Outcomes::<V>::on(space));
            self.stats.copied_bytes += done.copied;
            self.stats.references = done.references;
            self.stats.cleared = done.cleared;
            self.stats.finalizable = done.finalizable;
            self.exact &= done.kept == 0;
            let outcomes = Outcomes::<V>::on(space);
            let lives = |object: usize| outcomes.of(object).is_some();
            self.hashes.keep(lives);
            (self.settle_pins)(&lives);
        }
        self.stats.weak_ns += clock::monotonic_ns() - start;
        probes::weak(self.stats.number, self.stats.weak_ns);
    }

    /// The runtime's own, where nothing is registered with the heap.
    fn only_weak<const MOVES: bool>(&self, kind: Kind) -> Processed {
        let trace = self.new_trace(kind);
        // SAFETY: no phase is running.
        let stack = unsafe { self.stacks.stack(0) };
        let mut tracer = Tracer::<V, false, MOVES>::new(&trace, stack);
        let kept = || trace.kept.load(Ordering::Relaxed);
        let weak_tables = |tracer: &mut Tracer<'_, V, false, MOVES>| {
            let mut before = kept();
            if !V::WEAK_TABLES {
                return;
            }
            loop {
                self.vm.weak_tables(tracer);
                if kept() == before {
                    break;
                }
                before = kept();
            }
        };
        weak_tables(&mut tracer);
        let before = kept();
        self.vm.weak(&mut tracer);
        tracer.run(None);
        if kept() != before {
            weak_tables(&mut tracer);
        }
        Processed {
            copied: trace.copied.load(Ordering::Relaxed),
            kept: kept(),
            ..Processed::default()
        }
    }

    /// The parts of weak references that the runtime divides them into; `lookup` makes what answers one worker.
    pub(crate) fn weak_parts<W: WeakLookup>(&self, lookup: impl Fn() -> W + Sync) {
        let count = self.vm.weak_parts();
        if count == 0 {
            return;
        }
        let phase = WeakPhase {
            vm: self.vm,
            parts: Share::of(count),
            lookup: &lookup,
        };
        if self.alone {
            phase.parts();
        } else {
            self.run(Part::Weak, &phase);
        }
    }

    /// Frees what was not reached, and checks the heap if the option `verify` is on.
    pub fn sweep(&mut self) {
        let start = clock::monotonic_ns();
        let (space, kind) = (self.space, self.kind);
        for index in 0..self.stacks.count() {
            // SAFETY: no phase is running.
            let stack = unsafe { self.stacks.stack(index) };
            stack.region.clear();
            stack.overflow.clear();
            stack.shrink();
        }
        if let Some(kind) = kind {
            if !kind.minor {
                self.examine(kind.to);
            }
            self.swept =
                space.with(|stock: &mut ObjectStock| stock.sweep(space, !kind.minor, kind.to));
        }
        self.stats.sweep_ns += clock::monotonic_ns() - start;
        probes::sweep(self.stats.number, self.stats.sweep_ns);
        self.check();
    }

    /// Looks at all blocks after a full trace, with all workers if there are many.
    fn examine(&self, promoted: Policy) {
        let examine = ExaminePhase {
            space: self.space,
            promoted,
            next: AtomicUsize::new(0),
        };
        if self.alone || self.space.cells().extent() < 2 * PORTION {
            examine.portions();
        } else {
            self.run(Part::Sweep, &examine);
        }
    }

    /// Looks for free memory that was written to since the last collection, if the options `verify` and `poison` are on. Before the
    /// first trace.
    pub(crate) fn check_free(&mut self) {
        if self.verify {
            let listener = self.listener;
            self.stats.violations += verify::objects::check_free(self.space, &mut |violation| {
                if let Some(listener) = listener {
                    listener.event(Event::Violation(&violation));
                }
            });
        }
    }

    fn check(&mut self) {
        let Some(kind) = self.kind else {
            return;
        };
        if !self.verify {
            return;
        }
        let start = clock::monotonic_ns();
        let listener = self.listener;
        let mut report = |violation| {
            if let Some(listener) = listener {
                listener.event(Event::Violation(&violation));
            }
        };
        let mut check = verify::objects::Check::new(self.vm, self.space, kind.unlog, &mut report);
        for part in 0..self.root_parts() {
            self.roots_of(part, &mut check);
        }
        for object in self.immortals {
            check.reach(0, *object);
        }
        self.references.roots(false, &mut check);
        self.references.each(self.vm.slots(), &mut |from, object| {
            check.reach(from, object);
        });
        self.stats.violations += check.finish(self.exact && !kind.minor);
        self.stats.verify_ns += clock::monotonic_ns() - start;
    }
}

/// Numbers that workers share, each of which one worker takes.
pub(crate) struct Share {
    next: AtomicUsize,
    count: usize,
}

impl Share {
    /// The numbers below `count`.
    pub(crate) fn of(count: usize) -> Self {
        Self {
            next: AtomicUsize::new(0),
            count,
        }
    }

    /// How many have not been taken.
    pub(crate) fn left(&self) -> usize {
        self.count.saturating_sub(self.next.load(Ordering::Relaxed))
    }

    /// The next one, for the calling worker alone.
    pub(crate) fn next(&self) -> Option<usize> {
        // Not counted up for ever by those who come too late.
        if self.next.load(Ordering::Relaxed) >= self.count {
            return None;
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        (next < self.count).then_some(next)
    }
}

/// What helpers are called with to a phase whose work is not shared as items: they take portions of it as they come.
pub(crate) const COME: usize = 0;

/// Calls helpers to such a phase, no more than there are portions for. Helpers come only for an item: without one the phase would
/// stay on its first worker.
pub(crate) fn call_helpers(worker: &mut Worker<'_>, portions: usize) {
    if worker.index() != 0 {
        return;
    }
    for _ in 1..portions {
        if !worker.hungry() || worker.share(&[COME]) == 0 {
            return;
        }
    }
}

struct PinsPhase<'p, 'h, V: Vm> {
    pause: &'p Pause<'h, V>,
    parts: Share,
    to: Policy,
    found: AtomicUsize,
}

// SAFETY: of the pause only the runtime, the space and the mutators are used, each by its own rule.
unsafe impl<V: Vm> Sync for PinsPhase<'_, '_, V> {}

impl<V: Vm> PinsPhase<'_, '_, V> {
    fn parts(&self) {
        let mut pins = Pins {
            vm: self.pause.vm,
            space: self.pause.space,
            to: self.to,
            found: 0,
        };
        while let Some(part) = self.parts.next() {
            self.pause.roots_of(part, &mut pins);
        }
        self.found.fetch_add(pins.found, Ordering::Relaxed);
    }
}

impl<V: Vm> Phase for PinsPhase<'_, '_, V> {
    fn work(&self, worker: &mut Worker<'_>) {
        call_helpers(worker, self.parts.left());
        self.parts();
        while worker.next().is_some() {}
    }
}

struct WeakPhase<'p, V: Vm, F> {
    vm: &'p V,
    parts: Share,
    lookup: &'p F,
}

impl<V: Vm, W: WeakLookup, F: Fn() -> W> WeakPhase<'_, V, F> {
    fn parts(&self) {
        let mut lookup = (self.lookup)();
        while let Some(part) = self.parts.next() {
            if part == 3 && is_on(Bug::WeakPartSkipped) {
                continue;
            }
            self.vm.weak_of(part, &mut lookup);
        }
    }
}

impl<V: Vm, W: WeakLookup, F: Fn() -> W + Sync> Phase for WeakPhase<'_, V, F> {
    fn work(&self, worker: &mut Worker<'_>) {
        call_helpers(worker, self.parts.left());
        self.parts();
        while worker.next().is_some() {}
    }
}

/// Bytes of the heap that one worker examines at a time.
const PORTION: usize = 64 * BLOCK_BYTES;

struct ExaminePhase<'h> {
    space: &'h ObjectSpace,
    promoted: Policy,
    /// The number of the next portion.
    next: AtomicUsize,
}

impl ExaminePhase<'_> {
    fn portions(&self) {
        let extent = self.space.cells().extent();
        loop {
            let start = self.next.fetch_add(1, Ordering::Relaxed) * PORTION;
            if start >= extent {
                return;
            }
            let blocks = (start..extent.min(start + PORTION)).step_by(BLOCK_BYTES);
            examine_all(self.space, blocks, self.promoted);
        }
    }
}

impl Phase for ExaminePhase<'_> {
    fn work(&self, worker: &mut Worker<'_>) {
        call_helpers(worker, self.space.cells().extent().div_ceil(PORTION));
        self.portions();
        while worker.next().is_some() {}
    }
}

struct FinishPhase<'p, 'h, V: Vm, const YIELDS: bool> {
    pause: &'p Pause<'h, V>,
    trace: &'p Trace<'h, V>,
}

// SAFETY: as for `TracePhase`.
unsafe impl<V: Vm, const YIELDS: bool> Sync for FinishPhase<'_, '_, V, YIELDS> {}

impl<V: Vm, const YIELDS: bool> Phase for FinishPhase<'_, '_, V, YIELDS> {
    fn work(&self, worker: &mut Worker<'_>) {
        // SAFETY: the pool runs the phase once for each worker index.
        let stack = unsafe { self.pause.stacks.stack(worker.index()) };
        let mut tracer = Tracer::<V, true, false, YIELDS>::new(self.trace, stack);
        if worker.index() == 0 {
            self.pause.snapshots(&mut tracer);
        }
        tracer.run(Some(worker));
        while let Some(entry) = worker.next() {
            tracer.accept(entry);
            tracer.run(Some(worker));
        }
    }
}

struct TracePhase<'p, 'h, V: Vm, const MOVES: bool, const YIELDS: bool> {
    pause: &'p Pause<'h, V>,
    trace: &'p Trace<'h, V>,
    kind: Kind,
    /// Of the roots.
    parts: Share,
}

// SAFETY: of the pause only the runtime, the space, the stacks and the mutators are used, each by its own rule.
unsafe impl<V: Vm, const MOVES: bool, const YIELDS: bool> Sync
    for TracePhase<'_, '_, V, MOVES, YIELDS>
{
}

impl<V: Vm, const MOVES: bool, const YIELDS: bool> Phase for TracePhase<'_, '_, V, MOVES, YIELDS> {
    fn work(&self, worker: &mut Worker<'_>) {
        // SAFETY: the pool runs the phase once for each worker index.
        let stack = unsafe { self.pause.stacks.stack(worker.index()) };
        let mut tracer = Tracer::<V, true, MOVES, YIELDS>::new(self.trace, stack);
        // A mutator's roots are few; what the runtime divides into parts is not.
        call_helpers(worker, self.pause.vm.root_parts());
        self.pause.start(&mut tracer, self.kind, &self.parts);
        tracer.run(Some(worker));
        while let Some(entry) = worker.next() {
            if entry == COME {
                continue;
            }
            tracer.accept(entry);
            tracer.run(Some(worker));
        }
    }
}
