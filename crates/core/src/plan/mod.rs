//! Plans: each is one file and says how a collection goes, from start to end, in a straight line.
//!
//! The plans here serve runtimes that know their references ([`crate::vm::Vm`]); those for words are in [`words`]. A new plan is
//! one file with an implementation of [`Plan`], a name in [`crate::options::PlanName`], and a line in `select!` below.
#![forbid(unsafe_code)]

mod concurrent_immix;
mod gen_copy;
mod gen_immix;
mod immix;
mod mark_compact;
mod mark_sweep;
mod nogc;
mod page_protect;
mod semispace;
mod sticky_immix;
mod sticky_mark_sweep;
pub mod words;

use crate::alloc::BLOCK_BYTES;
use crate::collect::{Barrier, Pause};
use crate::options::PlanName;
use crate::space::Policy;
use crate::space::pages::PAGE;
use crate::vm::Vm;

/// Where small objects are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocates {
    /// In cells of size classes.
    Cells,
    /// One after the other, in blocks of a policy.
    Bump(Policy),
    /// In pages of their own.
    Pages,
}

/// What a plan is, for those who choose one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanInfo {
    /// Its name on command lines.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// It collects.
    pub collects: bool,
    /// It moves objects.
    pub moves: bool,
    /// It moves none, or none with the option `evacuate=never`.
    pub non_moving: bool,
    /// Most collections trace only what is young; it needs the write barrier.
    pub generational: bool,
    /// It marks while mutators run; it needs the write barrier.
    pub concurrent: bool,
    /// Runtimes with ambiguous roots can use it.
    pub ambiguous_roots: bool,
    /// Objects can be pinned.
    pub pins: bool,
}

/// What the heap needs of a plan, beside its collections.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The plan.
    pub name: PlanName,
    /// It collects.
    pub collects: bool,
    /// It moves objects.
    pub moves: bool,
    /// It has minor collections.
    pub generational: bool,
    /// Where small objects go.
    pub allocates: Allocates,
    /// The write barrier that mutators begin with.
    pub barrier: Barrier,
    /// It marks while mutators run: [`Plan::begin`] begins, [`Plan::collect`] completes.
    pub concurrent: bool,
    /// Dead large objects become inaccessible for good.
    pub quarantine: bool,
    /// Pages that must be free for a collection to succeed.
    pub reserve: fn(&Usage) -> usize,
}

impl Facts {
    /// Can all objects stay where they are? A plan whose objects are in blocks with lines from the first need not evacuate.
    #[must_use]
    pub const fn can_stay(&self) -> bool {
        !self.moves || matches!(self.allocates, Allocates::Bump(Policy::Immix))
    }
}

/// The pages of a heap, by what they are used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// That may be in use.
    pub limit: usize,
    /// How many workers collect a heap of this size.
    pub workers: usize,
    /// In use.
    pub used: usize,
    /// Of objects that move at each full collection.
    pub copy: usize,
    /// Of objects that move at each collection.
    pub nursery: usize,
    /// Of blocks with lines.
    pub immix: usize,
    /// Free lines of such blocks, of which allocation takes first, as pages.
    pub holes: usize,
}

/// How memory is given out and how the living are found.
pub trait Plan {
    /// What it is.
    const FACTS: Facts;

    /// Begins a collection that goes on while mutators run, world stopped. Only where [`Facts::concurrent`] says so.
    fn begin<V: Vm>(pause: &mut Pause<'_, V>) {
        let _ = pause;
    }

    /// One collection, world stopped. `minor`: a collection of the young is enough, where the plan has such.
    fn collect<V: Vm>(pause: &mut Pause<'_, V>, minor: bool);
}

/// For copies into blocks that hold nothing else: all of `pages` may live, and each worker has a block that it does not fill.
const fn for_copies(pages: usize, usage: &Usage) -> usize {
    let begun = usage.workers * (BLOCK_BYTES / PAGE);
    // No more blocks are begun than there are objects to copy.
    pages + if begun < pages { begun } else { pages }
}

/// A plan that copies nothing needs no free pages.
const fn no_reserve(_: &Usage) -> usize {
    0
}

macro_rules! select {
    ($name:expr, $plan:ident => $run:expr) => {
        match $name {
            PlanName::NoGc => {
                type $plan = nogc::NoGc;
                $run
            }
            PlanName::MarkSweep => {
                type $plan = mark_sweep::MarkSweep;
                $run
            }
            PlanName::SemiSpace => {
                type $plan = semispace::SemiSpace;
                $run
            }
            PlanName::MarkCompact => {
                type $plan = mark_compact::MarkCompact;
                $run
            }
            PlanName::Immix => {
                type $plan = immix::Immix;
                $run
            }
            PlanName::GenCopy => {
                type $plan = gen_copy::GenCopy;
                $run
            }
            PlanName::GenImmix => {
                type $plan = gen_immix::GenImmix;
                $run
            }
            PlanName::StickyImmix => {
                type $plan = sticky_immix::StickyImmix;
                $run
            }
            PlanName::StickyMarkSweep => {
                type $plan = sticky_mark_sweep::StickyMarkSweep;
                $run
            }
            PlanName::ConcurrentImmix => {
                type $plan = concurrent_immix::ConcurrentImmix;
                $run
            }
            PlanName::PageProtect => {
                type $plan = page_protect::PageProtect;
                $run
            }
        }
    };
}

/// What the heap needs of a plan.
#[must_use]
pub const fn facts(name: PlanName) -> Facts {
    select!(name, P => P::FACTS)
}

/// Runs one collection of a plan.
pub fn collect<V: Vm>(name: PlanName, pause: &mut Pause<'_, V>, minor: bool) {
    select!(name, P => P::collect(pause, minor));
}

/// Begins a collection that goes on while mutators run.
pub fn begin<V: Vm>(name: PlanName, pause: &mut Pause<'_, V>) {
    select!(name, P => P::begin(pause));
}

/// All plans.
pub const ALL: &[PlanInfo] = &{
    let mut all = [info(PlanName::NoGc); PlanName::ALL.len()];
    let mut index = 0;
    while index < all.len() {
        all[index] = info(PlanName::ALL[index]);
        index += 1;
    }
    all
};

/// What a plan is.
#[must_use]
pub const fn info(name: PlanName) -> PlanInfo {
    let facts = facts(name);
    PlanInfo {
        name: name.name(),
        about: name.about(),
        collects: facts.collects,
        moves: facts.moves,
        non_moving: facts.can_stay(),
        generational: facts.generational,
        concurrent: facts.concurrent,
        ambiguous_roots: true,
        pins: true,
    }
}
