//! Threads that many heaps can share: the helpers of collections, and one that marks while mutators run.

use super::shared_lock::Holder;
use crate::collect::Yields;
use core::fmt;
use heapwright_work::{Config, Pool};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// How long the thread waits for a heap before it ends.
const LINGER: Duration = Duration::from_millis(500);

/// Who helps to collect: so many workers, the collecting thread included, and a thread that marks for plans that do so while
/// mutators run. A handle: clones are the same.
///
/// No thread is started before there is work. While the workers help one heap, a second one that is collected at the same time is
/// collected by its own thread alone: heaps never wait for each other. Heaps that mark while mutators run are marked one after the
/// other; one whose turn does not come in time completes its mark in a pause. The helpers end when the last handle is dropped, the
/// thread that marks half a second after its last work.
///
/// ```
/// use heapwright::Workers;
/// use heapwright::example::Pairs;
/// use heapwright::Heap;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let workers = Workers::new(2);
/// assert_eq!(workers.count(), 2);
/// let heap = Heap::<Pairs>::builder()
///     .options(Pairs::options("immix")?)
///     .workers(&workers)
///     .build(Pairs)?;
/// heap.attach(Vec::new())?.collect();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Workers {
    pool: Arc<Pool>,
    count: usize,
    marker: Marker,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Workers {
    /// So many workers: 0 counts as 1, and there are at most [`heapwright_work::MAX_WORKERS`].
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self::own(workers, 0)
    }

    /// The same, with the option `yields`.
    pub(super) fn own(workers: usize, yields: usize) -> Self {
        let workers = workers.clamp(1, heapwright_work::MAX_WORKERS);
        let pool = Pool::new(Config {
            workers,
            delay: Yields::for_pool(yields, workers),
            ..Config::default()
        });
        Self {
            pool: Arc::new(pool),
            count: workers,
            marker: Marker::default(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) fn marker(&self) -> &Marker {
        &self.marker
    }
}

/// A heap that is marked while its mutators run.
pub(super) trait Marks: Send + Sync {
    /// Marks until all is marked. By the thread.
    fn mark(self: Arc<Self>);
}

/// The thread that marks. It is started by the first mark, and ends when there was none for a while: an idle heap has none.
#[derive(Clone, Default)]
pub(super) struct Marker(Arc<Shared>);

#[derive(Default)]
struct Shared {
    holder: Holder,
    state: Mutex<State>,
    /// There is a heap, or the thread has begun, or is to end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    heaps: VecDeque<Weak<dyn Marks>>,
    /// The process that has the thread; 0: there is none.
    process: u32,
    /// The thread has begun.
    arrived: bool,
    /// Nobody will have anything marked any more.
    over: bool,
}

impl fmt::Debug for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Marker").finish_non_exhaustive()
    }
}

impl Marker {
    /// Has a heap marked, if there can be a thread. World running.
    pub(super) fn mark<H: Marks + 'static>(&self, heap: &Weak<H>) {
        let mut state = self.0.lock();
        if state.heaps.try_reserve(1).is_err() {
            return;
        }
        if state.process != std::process::id() {
            let shared = Arc::clone(&self.0);
            let started = thread::Builder::new()
                .name(String::from("heapwright-mark"))
                .spawn(move || live(&shared));
            if started.is_err() {
                return;
            }
            state.process = std::process::id();
            state.arrived = false;
        }
        state.heaps.push_back(Weak::<H>::clone(heap));
        drop(state);
        self.0.changed.notify_all();
    }

    /// The lock, for a fork: no thread is being started.
    pub(super) fn hold(&self) -> impl Sized + '_ {
        let shared = &self.0;
        shared.holder.hold(|| {
            let starting = |s: &mut State| s.process == std::process::id() && !s.arrived;
            let waited = shared
                .changed
                .wait_timeout_while(shared.lock(), LINGER, starting);
            waited.unwrap_or_else(PoisonError::into_inner).0
        })
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        // This one and the thread's. Two that are dropped at once may both miss it: then the thread ends a little later.
        if Arc::strong_count(&self.0) == 2 {
            self.0.lock().over = true;
            self.0.changed.notify_all();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A list and flags: whole after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next heap; `None`: the thread ends.
    fn next(&self) -> Option<Weak<dyn Marks>> {
        let idle = |s: &mut State| s.heaps.is_empty() && !s.over;
        let wait = self.changed.wait_timeout_while(self.lock(), LINGER, idle);
        let (mut state, _) = wait.unwrap_or_else(PoisonError::into_inner);
        let next = state.heaps.pop_front();
        if next.is_none() {
            state.process = 0;
        }
        next
    }
}

/// The thread's life.
fn live(shared: &Shared) {
    shared.lock().arrived = true;
    shared.changed.notify_all();
    while let Some(heap) = shared.next() {
        if let Some(heap) = heap.upgrade() {
            heap.mark();
        }
    }
}
