//! What a run's heap is looked at for: a heap dump of the end of the workload, or of the moment when memory ran out, and its objects by
//! size.

use crate::spec::Dumped;
use crate::vm::Machine;
use heapwright::Mutator;
use heapwright_observe::Sizes;
use heapwright_observe::dump::{DumpError, Extent, Written, dump_heap, sizes_of};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where a dump is to go, until it is taken, and how that went.
#[derive(Debug, Default)]
pub(crate) struct Wish(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    path: Option<PathBuf>,
    taken: Option<Result<Written, DumpError>>,
    /// Objects are to be counted by size.
    count: bool,
    sizes: Option<Box<Sizes>>,
    counting: Duration,
}

impl Wish {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wishes for one.
    pub(crate) fn ask(&self, path: &Path) {
        self.state().path = Some(path.to_owned());
    }

    /// Wishes for the objects of the end by size.
    pub(crate) fn ask_for_sizes(&self) {
        self.state().count = true;
    }

    /// They, and how long it took to count them.
    pub(crate) fn sizes(&self) -> Option<(Box<Sizes>, Duration)> {
        let mut state = self.state();
        let took = state.counting;
        state.sizes.take().map(|sizes| (sizes, took))
    }

    /// How it went: nothing if it was not taken.
    pub(crate) fn taken(&self) -> Option<Result<Dumped, String>> {
        let taken = self.state().taken.take()?;
        Some(taken.map_err(|e| e.to_string()).map(|w| Dumped {
            objects: w.objects,
            object_bytes: w.object_bytes,
            references: w.references,
            file_bytes: w.bytes,
            took_ms: w.took_ns as f64 / 1e6,
        }))
    }
}

/// Takes the dump, and counts objects, if that is wished for and was not done. A safepoint then.
pub(crate) fn take<const H: bool, const A: bool>(mutator: &mut Mutator<Machine<H, A>>) {
    // Not held while the world is stopped: another thread may be here.
    let path = mutator.vm().dump().state().path.take();
    let count = core::mem::take(&mut mutator.vm().dump().state().count);
    if count {
        let begin = Instant::now();
        let sizes = sizes_of(mutator, Extent::Reachable);
        let mut state = mutator.vm().dump().state();
        state.sizes = sizes.ok().map(Box::new);
        state.counting = begin.elapsed();
    }
    if let Some(path) = path {
        let taken = dump_heap(mutator, &path, Extent::Reachable);
        mutator.vm().dump().state().taken = Some(taken);
    }
}
