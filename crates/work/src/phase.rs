//! What a user of the pool writes, and what it is given.

use crate::primitive::{AtomicU64, Ordering};
use crate::team::{LEADER, Team};
use std::fmt;

/// A piece of parallel work: a closure over a graph, a sweep over blocks.
///
/// The thread that calls [`Pool::run`](crate::Pool::run) calls `work` once, as worker 0. A helper
/// calls it when it has caught a shared item, as often as that happens in the phase: each call is
/// a *turn*. Turns of one worker never overlap, so per-worker state may be kept by
/// [`Worker::index`] and outlive a turn.
///
/// `work` has to return after [`Worker::next`] has said `None`, having put down whatever it holds
/// (counters to be summed, buffers to be flushed). The phase is over when worker 0 has been told
/// so and all helpers have returned.
///
/// What `work` does must suit the moment in which the phase runs: while the world is stopped by
/// signals it must not allocate or take foreign locks. The pool itself does neither.
pub trait Phase: Sync {
    /// Does the caller's part of the work; see the trait.
    fn work(&self, worker: &mut Worker<'_>);
}

/// A worker's connection to the others during one turn of a [`Phase`].
pub struct Worker<'p> {
    /// None: nobody else takes part.
    team: Option<&'p Team>,
    /// The team's set of waiting workers, or a word that stays zero.
    waiting: &'p AtomicU64,
    index: usize,
    /// The item that brought a helper here.
    first: Option<usize>,
    /// `next` has said None.
    over: bool,
    /// How often items were taken from another worker, in this turn.
    steals: usize,
}

impl<'p> Worker<'p> {
    pub(crate) fn alone(nobody: &'p AtomicU64) -> Worker<'p> {
        Worker {
            team: None,
            waiting: nobody,
            index: LEADER,
            first: None,
            over: false,
            steals: 0,
        }
    }

    pub(crate) fn of(team: &'p Team, index: usize, first: Option<usize>) -> Worker<'p> {
        Worker {
            team: Some(team),
            waiting: team.waiting(),
            index,
            first,
            over: false,
            steals: usize::from(first.is_some()),
        }
    }

    /// Which worker this is: 0 for the thread that runs the phase, then 1 and so on, below the
    /// number of workers of the configuration.
    #[inline]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Whether some worker waits for work, so that sharing would feed it. One relaxed load of a
    /// cache line that is written only when workers come and go; cheap enough for each turn of an
    /// inner loop. Always false in a pool of one.
    ///
    /// The helpers wait from the start of a phase on. A phase that is to stay on one thread as
    /// long as it is small asks only while it has work to spare: a wake-up costs both sides some
    /// microseconds.
    #[inline]
    pub fn hungry(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) != 0
    }

    /// Offers `items` to all workers, this one included, and wakes one that waits, if any does.
    /// Returns how many were taken, from the front: less than all when the queue of this worker is
    /// full, none in a pool of one and after [`Worker::next`] has said `None`. The others stay
    /// with the caller. What was written before is visible to the worker that gets an item.
    pub fn share(&mut self, items: &[usize]) -> usize {
        match self.team {
            Some(team) if !self.over => team.share(self.index, items),
            _ => 0,
        }
    }

    /// The next shared item: of this worker's own, oldest first, else of another's.
    ///
    /// Without one, worker 0 waits until there is one or until no worker has any work left: `None`
    /// is the end of the phase. A helper gets `None` as soon as there is nothing to catch: its turn
    /// is over, and it will be called again when there is more. Once `None`, always `None`.
    ///
    /// To be called only without work of one's own: as long as a worker has not asked in vain,
    /// the others count it as busy and wait for what it may still share.
    #[allow(
        clippy::should_implement_trait,
        reason = "waiting for others is no iteration: it may end and go on"
    )]
    pub fn next(&mut self) -> Option<usize> {
        if let Some(item) = self.first.take() {
            return Some(item);
        }
        if self.over {
            return None;
        }
        let caught = self.team.and_then(|team| {
            if self.index == LEADER {
                team.next_of_leader()
            } else {
                team.catch(self.index)
            }
        });
        self.over = caught.is_none();
        self.steals += usize::from(caught.as_ref().is_some_and(|c| c.stolen));
        caught.map(|c| c.item)
    }

    /// How often this worker took items from another in this turn; a helper comes with the first.
    pub fn steals(&self) -> usize {
        self.steals
    }

    /// Whether `next` has said None.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Items that a turn left with its worker without having looked at them.
    pub(crate) fn leftovers(&self) -> usize {
        usize::from(self.first.is_some())
    }
}

impl fmt::Debug for Worker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index)
            .field("alone", &self.team.is_none())
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}
