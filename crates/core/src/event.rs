//! What a heap tells its listeners: one typed stream, coarse enough that a virtual call does not matter.

use crate::map::HeapMap;
use core::fmt;
use heapwright_address::Address;
use std::sync::Arc;

/// Why a collection was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Cause {
    /// As much was allocated since the last collection as the trigger allows.
    #[default]
    Budget,
    /// The heap's limit was reached.
    Limit,
    /// The program asked.
    Requested,
    /// The option `stress` asked.
    Stress,
    /// A mark that went on while mutators ran is complete.
    Concurrent,
    /// The program is quiet, or memory is scarce: what died is to go back to the system.
    Idle,
    /// The runtime took much memory outside of the heap for its objects.
    External,
}

impl Cause {
    /// All causes, in the order of [`Cause::index`].
    pub const ALL: [Self; 7] = [
        Self::Budget,
        Self::Limit,
        Self::Requested,
        Self::Stress,
        Self::Concurrent,
        Self::Idle,
        Self::External,
    ];

    /// A small number for tables of counts.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word used in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Limit => "limit",
            Self::Requested => "requested",
            Self::Stress => "stress",
            Self::Concurrent => "concurrent",
            Self::Idle => "idle",
            Self::External => "external",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One collection in numbers. Sizes in bytes, times in nanoseconds.
///
/// ```
/// use heapwright::example::{Pairs, push};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("immix")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// push(&mut mutator, 1)?;
/// let stats = mutator.collect().ok_or("immix collects")?;
/// assert_eq!((stats.number, stats.kind(), stats.cause.name()), (1, "full", "requested"));
/// assert!(stats.stop_ns + stats.mark_ns <= stats.pause_ns);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectionStats {
    /// Its number, from 1.
    pub number: u64,
    /// Why it ran.
    pub cause: Cause,
    /// Everything was traced; else only what is young.
    pub full: bool,
    /// Only began a mark that goes on while mutators run; the collection that completes it has the next number.
    pub begins: bool,
    /// When the collection began, which is when the others were asked to stop: monotonic clock.
    pub start_ns: u64,
    /// From the request to stop until the world ran again.
    pub pause_ns: u64,
    /// The part of the pause before all threads were stopped.
    pub stop_ns: u64,
    /// The part of the pause that scanned roots and completed the closure.
    pub mark_ns: u64,
    /// The part of `mark_ns` until the last root was looked at. What roots lead to is traced as it comes, so some of the closure
    /// is in it.
    pub roots_ns: u64,
    /// The part of the pause that processed weak references and finalizers.
    pub weak_ns: u64,
    /// The part of the pause that the verifier took (0 when it is off).
    pub verify_ns: u64,
    /// Counting what lives and listing free blocks: in heaps of objects a part of the pause, in heaps of words after it, with the
    /// heap's lock held.
    pub sweep_ns: u64,
    /// CPU time of the collecting thread from stop to the end of the sweep, and of its helpers if a listener wants details.
    pub cpu_ns: u64,
    /// Memory in use by cells before: live, dead and free ones in blocks that are in use.
    pub before_bytes: usize,
    /// Memory of cells that survived.
    pub live_bytes: usize,
    /// The part of `live_bytes` that is never scanned.
    pub live_leaf_bytes: usize,
    /// Words that were scanned as roots, in bytes: stacks, registers, and what the runtime reports.
    pub root_bytes: usize,
    /// How many threads allocate at once, roughly: what all were given since the last collection, by what one was given at most.
    /// 0 where it is not counted.
    pub allocators: usize,
    /// Blocks and large objects in use, and free memory kept for them, after the collection.
    pub heap_bytes: usize,
    /// What the heap may take at most, in bytes; 0: no limit.
    pub limit_bytes: usize,
    /// What may be allocated until the next collection, roughly.
    pub budget_bytes: usize,
    /// Copied to another place.
    pub copied_bytes: usize,
    /// What was young and is old from now on, as far as it was copied or its plan counts it.
    pub promoted_bytes: usize,
    /// Objects that had to stay where they are: pinned, or an ambiguous root leads to them. 0 where nothing moves.
    pub pinned: usize,
    /// Given back to the operating system by this collection.
    pub returned_bytes: usize,
    /// Cells that survived: those that were marked, and those in the runs of threads.
    pub marked_cells: usize,
    /// Workers that could take part.
    pub workers: usize,
    /// Registered references, ephemerons, entries of weak maps and finalizers that were looked at.
    pub references: usize,
    /// Of those, references that were cleared.
    pub cleared: usize,
    /// Objects that were queued to be finalized.
    pub finalizable: usize,
    /// Violations that the verifier found (0 when it is off).
    pub violations: usize,
}

impl CollectionStats {
    /// `full`, `young`, or `begin` for one that only began a concurrent mark.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match (self.full, self.begins) {
            (_, true) => "begin",
            (true, _) => "full",
            (false, _) => "young",
        }
    }
}

/// A part of a collection that several workers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Ambiguous roots: what they lead to is held in its place.
    Pins,
    /// Roots, and what they lead to.
    Closure,
    /// Weak references, ephemerons, finalizers.
    Weak,
    /// Looking at all blocks.
    Sweep,
    /// Sliding objects together.
    Slide,
}

impl Part {
    /// All parts, in the order of [`Part::index`].
    pub const ALL: [Self; 5] = [
        Self::Pins,
        Self::Closure,
        Self::Weak,
        Self::Sweep,
        Self::Slide,
    ];

    /// A small number for tables.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word used in recordings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pins => "pins",
            Self::Closure => "closure",
            Self::Weak => "weak",
            Self::Sweep => "sweep",
            Self::Slide => "slide",
        }
    }
}

/// What one worker did in one part of a collection. A helper comes when there is something to do, as often as that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerStats {
    /// The collection's number.
    pub collection: u64,
    /// Of what.
    pub part: Part,
    /// Which worker: 0 is the collecting thread.
    pub worker: usize,
    /// When it came first: monotonic clock, in nanoseconds.
    pub start_ns: u64,
    /// When it went last.
    pub end_ns: u64,
    /// Time from coming to going, all turns together.
    pub busy_ns: u64,
    /// CPU time of that.
    pub cpu_ns: u64,
    /// How often it came.
    pub turns: u64,
    /// How often it took work from another.
    pub steals: u64,
}

/// A mutator was stopped for a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MutatorStop {
    /// The thread, as the system numbers it, or as the runtime does.
    pub thread: u64,
    /// When it stopped: monotonic clock, in nanoseconds.
    pub stopped_ns: u64,
    /// When it ran again.
    pub resumed_ns: u64,
}

/// What happened. Delivered on the thread that it happened to, with the world running unless it says otherwise.
///
/// ```
/// use heapwright::example::{Pairs, push};
/// use heapwright::{Event, Heap, Listener};
/// use std::sync::{Arc, Mutex};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// #[derive(Default)]
/// struct Kinds(Mutex<Vec<&'static str>>);
///
/// impl Listener for Kinds {
///     fn event(&self, event: Event<'_>) {
///         if let Event::Collected(stats) = event {
///             self.0.lock().unwrap().push(stats.kind());
///         }
///     }
/// }
///
/// let kinds = Arc::new(Kinds::default());
/// let heap = Heap::<Pairs>::builder()
///     .options(Pairs::options("gencopy")?)
///     .listener(Box::new(Arc::clone(&kinds)))
///     .build(Pairs)?;
/// let mut mutator = heap.attach(Vec::new())?;
/// push(&mut mutator, 1)?;
/// mutator.collect_young();
/// mutator.collect();
/// assert_eq!(*kinds.0.lock().unwrap(), ["young", "full"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A collection ended.
    Collected(&'a CollectionStats),
    /// What a worker did in the collection whose end is told next. Only if [`Listener::wants_details`].
    Worked(&'a WorkerStats),
    /// A mutator was stopped and runs again. Only if [`Listener::wants_details`].
    MutatorStopped(&'a MutatorStop),
    /// What the heap looks like when a collection begins, and once more when what lives is known. Only if [`Listener::wants_map`].
    /// Delivered on the collecting thread: in heaps of objects with the world stopped, in heaps of words with the heap's lock held.
    Map {
        /// The collection's number.
        number: u64,
        /// At its end, not at its begin.
        after: bool,
        /// The blocks, as they are during the call.
        map: &'a dyn HeapMap,
    },
    /// Bytes went back to the operating system, beside a collection.
    Returned {
        /// When: monotonic clock, in nanoseconds.
        at_ns: u64,
        /// How many.
        bytes: usize,
    },
    /// An allocation of that many bytes is about to fail: the heap's limit is reached, and collecting did not help.
    OutOfMemory {
        /// Bytes that were asked for.
        requested: usize,
    },
    /// The verifier found something wrong; one event for each finding, delivered with the world stopped.
    Violation(&'a Violation),
}

/// Where in a fork of the process a heap is: see [`Listener::fork`].
///
/// ```
/// use heapwright::{Event, ForkStep, Listener};
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// /// Counts nothing in the children of forks.
/// #[derive(Default)]
/// struct Quiet(AtomicBool);
///
/// impl Listener for Quiet {
///     fn event(&self, _: Event<'_>) {}
///
///     fn fork(&self, step: ForkStep) {
///         if step == ForkStep::Child {
///             self.0.store(true, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let quiet = Quiet::default();
/// [ForkStep::Before, ForkStep::Parent].map(|step| quiet.fork(step));
/// assert!(!quiet.0.load(Ordering::Relaxed));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForkStep {
    /// Before it. The world is stopped, and no other thread tells the listener anything.
    Before,
    /// After it in the parent, or where it failed; the world is about to run.
    Parent,
    /// After it in the child, whose only thread this is.
    Child,
}

/// Receives a heap's events.
///
/// It may be called with the heap's lock held, [`Event::Violation`] and [`Event::Map`] with the world stopped: it must not allocate on
/// the heap, and must not wait for a mutator. Several threads may call it at once.
///
/// ```
/// use heapwright::{Event, Listener};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// /// The longest pause so far, in nanoseconds.
/// #[derive(Default)]
/// struct Longest(AtomicU64);
///
/// impl Listener for Longest {
///     fn event(&self, event: Event<'_>) {
///         if let Event::Collected(stats) = event {
///             self.0.fetch_max(stats.pause_ns, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let longest = Longest::default();
/// longest.event(Event::Collected(&heapwright::CollectionStats {
///     pause_ns: 7,
///     ..Default::default()
/// }));
/// assert_eq!(longest.0.into_inner(), 7);
/// ```
pub trait Listener: Send + Sync {
    /// Called for each event.
    fn event(&self, event: Event<'_>);

    /// Are [`Event::Worked`] and [`Event::MutatorStopped`] wanted, and the CPU time of all workers? Asked at each collection and each
    /// stop. They cost some readings of clocks for each worker and mutator.
    fn wants_details(&self) -> bool {
        false
    }

    /// Is [`Event::Map`] wanted? Asked when a collection begins and again when it ends. What it costs is what the listener looks at.
    fn wants_map(&self) -> bool {
        false
    }

    /// The process forks, with the heap made ready for it ([`crate::Heap::prepare_fork`]). A listener that has threads, locks that others
    /// than those who tell it something may hold, or open files that the child must not have, puts them in order here. It allocates
    /// nothing on the heap.
    fn fork(&self, step: ForkStep) {
        let _ = step;
    }
}

impl<L: Listener + ?Sized> Listener for Arc<L> {
    fn event(&self, event: Event<'_>) {
        (**self).event(event);
    }

    fn wants_details(&self) -> bool {
        (**self).wants_details()
    }

    fn wants_map(&self) -> bool {
        (**self).wants_map()
    }

    fn fork(&self, step: ForkStep) {
        (**self).fork(step);
    }
}

/// Both hear of everything.
impl<A: Listener, B: Listener> Listener for (A, B) {
    fn event(&self, event: Event<'_>) {
        self.0.event(event);
        self.1.event(event);
    }

    fn wants_details(&self) -> bool {
        self.0.wants_details() || self.1.wants_details()
    }

    fn wants_map(&self) -> bool {
        self.0.wants_map() || self.1.wants_map()
    }

    fn fork(&self, step: ForkStep) {
        self.0.fork(step);
        self.1.fork(step);
    }
}

/// Hears if it is there.
impl<L: Listener> Listener for Option<L> {
    fn event(&self, event: Event<'_>) {
        if let Some(listener) = self {
            listener.event(event);
        }
    }

    fn wants_details(&self) -> bool {
        self.as_ref().is_some_and(L::wants_details)
    }

    fn wants_map(&self) -> bool {
        self.as_ref().is_some_and(L::wants_map)
    }

    fn fork(&self, step: ForkStep) {
        if let Some(listener) = self {
            listener.fork(step);
        }
    }
}

/// One thing that the verifier found wrong, with the rule that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong, in one sentence, naming the rule of [`crate::WordVm`] or the invariant of the space.
    pub what: &'static str,
    /// The cell that it was found in.
    pub cell: Address,
    /// The word or the target that is wrong.
    pub word: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Wants(bool, bool);

    impl Listener for Wants {
        fn event(&self, _: Event<'_>) {}

        fn wants_details(&self) -> bool {
            self.0
        }

        fn wants_map(&self) -> bool {
            self.1
        }
    }

    #[test]
    fn what_one_of_several_listeners_wants_is_wanted() {
        for (details, map) in [(false, false), (true, false), (false, true)] {
            let both = (Some(Arc::new(Wants(details, map))), None::<Wants>);
            assert_eq!((both.wants_details(), both.wants_map()), (details, map));
        }
    }
}
