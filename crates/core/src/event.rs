//! What a heap tells its listeners: one typed stream, coarse enough that a virtual call does not matter.

use core::fmt;
use heapwright_address::Address;

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectionStats {
    /// Its number, from 1.
    pub number: u64,
    /// Why it ran.
    pub cause: Cause,
    /// Everything was traced; else only what is young.
    pub full: bool,
    /// When the collection began: monotonic clock.
    pub start_ns: u64,
    /// From the request to stop until the world ran again.
    pub pause_ns: u64,
    /// The part of the pause before all threads were stopped.
    pub stop_ns: u64,
    /// The part of the pause that scanned roots and completed the closure.
    pub mark_ns: u64,
    /// The part of the pause that processed weak references and finalizers.
    pub weak_ns: u64,
    /// The part of the pause that the verifier took (0 when it is off).
    pub verify_ns: u64,
    /// After the pause: counting live cells and listing free blocks, heap lock held.
    pub sweep_ns: u64,
    /// CPU time of the collecting thread from stop to the end of the sweep.
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
    /// Copied to another place.
    pub copied_bytes: usize,
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

/// What happened. Delivered on the collecting thread, with the world running and the heap's lock held.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A collection ended.
    Collected(&'a CollectionStats),
    /// The verifier found something wrong; one event for each finding, delivered with the world stopped.
    Violation(&'a Violation),
}

/// Receives a heap's events.
///
/// It is called with the heap's lock held, [`Event::Violation`] with the world stopped: it must not allocate on the
/// heap, and must not wait for a mutator.
pub trait Listener: Send + Sync {
    /// Called for each event.
    fn event(&self, event: Event<'_>);
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
