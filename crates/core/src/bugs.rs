//! Seeded bugs: errors that can be switched on to see whether the tests find them.
//!
//! They exist only where the crate is compiled with `--cfg seeded_bugs`; else `is_on` is `false` at compile time and nothing is
//! left of it. `crates/bench/tests/seeded_bugs.rs` switches each on in turn and expects that the suite fails.

macro_rules! bugs {
    ($($(#[$about:meta])* $name:ident,)*) => {
        /// A bug that can be switched on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Bug {
            $($(#[$about])* $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

bugs! {
    /// The write barrier does not remember old objects.
    BarrierDropped,
    /// An object that was written to is remembered once and never again.
    RememberedForGood,
    /// Remembered objects are not scanned.
    RememberedNotScanned,
    /// What becomes old does not get its log bit.
    LogBitForgotten,
    /// The roots of the first mutator are not scanned.
    MutatorSkipped,
    /// The last of several root slots is not looked at.
    RootSlotSkipped,
    /// The last slice of a long array is not looked at.
    ArraySliceLost,
    /// The last slot of each bite off an array is not looked at.
    ArraySlotLost,
    /// The trace ends with one edge left in the ring.
    EdgeLeftInRing,
    /// The trace ends with one marked object that was not scanned.
    ObjectLeftInRing,
    /// Large objects are not marked.
    LargeNotMarked,
    /// Marks are not cleared before a full collection.
    MarksKept,
    /// Only the first line of an object is marked.
    LinesShort,
    /// Holes begin a line too early.
    HoleEarly,
    /// Holes end a line too late.
    HoleLong,
    /// Lines are reused during a full trace.
    LinesReusedWhileTracing,
    /// The new place of an object is not published.
    MoveNotPublished,
    /// Slots are not updated.
    SlotNotUpdated,
    /// The last word of an object is not copied.
    CopyShort,
    /// The first word of an object is not copied.
    HeaderLost,
    /// Pinned objects move.
    PinIgnored,
    /// Ambiguous roots are not looked at.
    AmbiguousIgnored,
    /// Weak references are not looked at.
    WeakSkipped,
    /// All weak references are cleared.
    WeakCleared,
    /// A held block is freed.
    HeldFreed,
    /// Dead cells are not freed.
    CellsNotFreed,
    /// The first live cell of a block is freed.
    CellFreed,
    /// Large objects are freed though they live.
    LargeFreed,
    /// Young large objects are freed though they live.
    YoungLargeFreed,
    /// Memory is not zeroed.
    NotZeroed,
    /// The last word of zeroed memory is not.
    ZeroedShort,
    /// A used block counts as zeroed.
    DirtyBlock,
    /// Runs of cells are not taken back before a collection.
    RunKept,
    /// Regions are not taken back before a collection.
    RegionKept,
    /// The world is taken for stopped when it is not.
    StopNotAwaited,
    /// References that are overwritten while marking are forgotten.
    SnapshotDropped,
    /// Those that were handed over are forgotten.
    HandOverLost,
    /// Objects that are allocated while marking do not count as marked.
    NewNotMarked,
    /// The lines of such objects count as free.
    NewLinesFree,
    /// Sliding objects go a word too far.
    SlideOffByOne,
    /// Objects slide over the end of a block.
    SlideOverTheEnd,
    /// Roots are not updated after a slide.
    SlideRootsForgotten,
    /// The last word of an object does not count as live in a slide.
    LiveShort,
    /// Copies are not entered into the object map.
    MapEntryForgotten,
    /// The object map keeps what is dead.
    MapKept,
    /// Free lines are not poisoned (found with the option `poison` only).
    LinesNotPoisoned,
    /// Something is written into free lines (found with the option `poison` only).
    FreeLineWritten,
    /// A worker that finds an object being copied does not wait for its new place (with one processor found with the option
    /// `yields` only).
    CopyNotAwaited,
    /// A worker copies an object before it has claimed it (as above).
    ClaimLate,
    /// Blocks that were kept for small objects stay in their list beside the one that a minor collection makes.
    SmallListKept,
    /// Blocks of size classes that are in a list are listed again by a minor collection.
    ListedTwice,
    /// Blocks that are handed out are not noted: a minor collection does not look at them.
    BlockNotTouched,
    /// An object that moves does not take its identity hash along.
    HashNotStored,
    /// Identity hashes of objects that slide stay with the old addresses.
    HashNotFollowed,
    /// One part of the weak references is not looked at.
    WeakPartSkipped,
    /// Objects slide into a block before its own have left it (found with the option `yields` only).
    SlideNotAwaited,
    /// Ephemerons whose keys are reached late are not looked at again.
    EphemeronOnce,
    /// What a weak reference refers to moved, and it is not told.
    WeakNotUpdated,
    /// A minor collection does not look at young finalizers.
    FinalizerYoungSkipped,
    /// What is read out of weak references while marking concurrently is not remembered.
    WeakReadForgotten,
    /// What is queued to be finalized is not kept.
    FinalizableNotTraced,
    /// Phantom references are cleared before finalizers are looked for.
    PhantomEarly,
    /// What old references and ephemerons are set to is not noted for a minor collection.
    WrittenForgotten,
    /// Keys of weak maps that moved are not found any more.
    MapNotRehashed,
    /// After a slide, ephemerons refer to where their keys and values were.
    EphemeronNotSlid,
    /// A page that is in use goes back to the system with those that are not.
    UsedPageReturned,
    /// Pages count as returned, and are not.
    ReturnedNotGone,
    /// The hard limit is not looked at when a block is taken.
    HardLimitPassed,
    /// Nor is it when objects are copied.
    CopiesNotLimited,
    /// External memory makes no collection due.
    ExternalForgotten,
    /// A heap is taken for quiet though mutators are inside.
    QuietNotAsked,
    /// A collection that is asked for only completes the mark that goes on.
    RequestHalfDone,
    /// In the child of a fork nobody counts as inside.
    ForkInsideForgotten,
    /// It waits for helpers that it does not have.
    ForkHelpersKept,
    /// The mutators of threads that are gone are not retired.
    ForkMutatorsKept,
    /// A mark that went on is not taken up again.
    ForkMarkLost,
    /// The heap counts as one that the scavenger has in hand.
    ForkTendedKept,
    /// The locks of weak maps are left to whoever has them.
    ForkMapNotHeld,
    /// A fork does not wait for a thread that tells the listener something.
    ForkListenerNotHeld,
    /// A look at a frozen heap does not see the roots of the first mutator.
    FrozenMutatorSkipped,
    /// It does not see one part of the runtime's roots.
    FrozenPartSkipped,
    /// It does not see what ambiguous roots lead to.
    FrozenAmbiguousForgotten,
    /// It does not see immortal objects as roots.
    FrozenImmortalsForgotten,
    /// It does not see what is queued.
    FrozenQueuedForgotten,
    /// It does not see the last slot of an array.
    FrozenSlotForgotten,
    /// It does not see what soft references keep.
    FrozenSoftForgotten,
    /// It does not see what ephemerons keep.
    FrozenEphemeronsForgotten,
    /// It takes dead ephemerons for such that keep something.
    FrozenEphemeronsDead,
    /// It does not see what weak maps keep.
    FrozenMapsForgotten,
    /// It takes weak maps that nobody has any more for such that keep something.
    FrozenMapsDead,
    /// It does not see what the runtime's own weak tables keep.
    FrozenTablesForgotten,
    /// It does not see what mutators registered since the world was last stopped.
    FrozenRegisteredForgotten,
    /// It takes cells that mutators have not used yet for objects.
    FrozenRunsKept,
    /// So does a census.
    CensusRunsKept,
    /// A look at a heap of words takes such cells for used ones.
    ViewRunsForgotten,
    /// It does not see cells that are never collected as roots.
    ViewUncollectableForgotten,
    /// Memory without a point that a mutator bumps through does not bring it nearer to the next one.
    SampleRestForgotten,
    /// Nor do cells that it is given.
    SampleCellsForgotten,
    /// Nor do large objects.
    SampleLargeForgotten,
    /// The weight of an object does not know that more than one point may lie in it.
    SampleWeightLinear,
    /// A mutator's first point lies as far as points lie on average.
    SampleFirstFixed,
    /// All mutators have the same points.
    SampleSeedsAlike,
    /// A mutator that detaches tells the point that it has ahead.
    SampleAtDetach,
    /// The point of a cell that an object could not use goes to another.
    SamplePointKept,
    /// The map after a collection shows whose blocks were before it.
    MapEarly,
    /// The map does not show that blocks are held.
    MapHeldForgotten,
    /// The map takes pages of dead objects for used ones.
    MapDeadPagesUsed,
    /// A worker's turn counts twice.
    WorkedTwice,
    /// What a worker did in a collection is told again after the next one.
    WorkedKept,
    /// What workers did in two collections of one pause is told with the first.
    WorkedTogether,
}

#[cfg(seeded_bugs)]
static ON: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(u32::MAX);

/// Switches a bug on, in all heaps of the process.
#[cfg(seeded_bugs)]
pub fn switch_on(bug: Bug) {
    ON.store(bug as u32, core::sync::atomic::Ordering::Relaxed);
}

/// Is the bug on?
#[cfg(seeded_bugs)]
#[inline]
pub(crate) fn is_on(bug: Bug) -> bool {
    ON.load(core::sync::atomic::Ordering::Relaxed) == bug as u32
}

/// Is the bug on? Never.
#[cfg(not(seeded_bugs))]
#[inline(always)]
pub(crate) const fn is_on(_: Bug) -> bool {
    false
}
