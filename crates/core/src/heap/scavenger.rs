//! The thread that looks after heaps while their programs do nothing: it gives memory back, and collects when nobody would.
//!
//! A [`Scavenger`] is a value. Each heap has one of its own, or shares one with others ([`crate::Builder::scavenger`]): a thousand
//! heaps then have one thread. The thread is started by the first heap that has something to be looked after, and ends when none
//! has: an idle heap costs nothing.
//!
//! | who | does | when |
//! |---|---|---|
//! | a mutator | puts the heap into the list if its flag `tended` is down, and raises that | it takes a block, comes back from outside, has collected |
//! | the thread | lowers the flag, tends the heap, and keeps it in the list if there is more to do | eight times a second |
//!
//! So a heap is in the list at most once but for a moment, and what happens while it is tended is seen the next time. The list
//! holds weak references; the thread keeps a heap alive while it tends it.

use super::shared_lock::Holder;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// How often heaps are looked at.
pub(super) const PERIOD: Duration = Duration::from_millis(125);
/// How long the thread waits for a heap before it ends.
const LINGER: Duration = Duration::from_millis(500);

/// A heap that is looked after.
pub(super) trait Tended: Send + Sync {
    /// Does what is due: true if there is more to come.
    fn tend(&self) -> bool;

    /// It is in the list.
    fn tended(&self) -> &AtomicBool;
}

/// Looks after heaps in a thread of its own. A handle: clones are the same.
///
/// ```
/// use heapwright::example::Pairs;
/// use heapwright::{Heap, Scavenger};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let scavenger = Scavenger::new();
/// let heap = Heap::<Pairs>::builder()
///     .options(Pairs::options("immix")?)
///     .scavenger(&scavenger)
///     .build(Pairs)?;
/// // Its thread comes when there is something to tend.
/// assert!(!scavenger.is_running());
/// // On request memory goes back at once.
/// let _ = heap.release_memory();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Scavenger(Arc<Shared>);

#[derive(Default)]
struct Shared {
    holder: Holder,
    state: Mutex<State>,
    changed: Condvar,
    begun: Condvar,
}

#[derive(Default)]
struct State {
    heaps: Vec<Weak<dyn Tended>>,
    /// The process that has the thread; 0: there is none.
    process: u32,
    /// The thread has begun: it holds no lock of the standard library any more that a new thread takes.
    arrived: bool,
}

impl core::fmt::Debug for Scavenger {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Scavenger")
            .field("runs", &self.is_running())
            .finish_non_exhaustive()
    }
}

impl Scavenger {
    /// One that has no thread yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has the thread been started, and not ended for lack of work?
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.lock().process == std::process::id()
    }

    /// The lock of the list, for a fork: no thread is being started.
    pub(super) fn hold(&self) -> impl Sized + '_ {
        let shared = &self.0;
        shared.holder.hold(|| {
            let starting = |s: &mut State| s.process == std::process::id() && !s.arrived;
            let waited = shared
                .begun
                .wait_timeout_while(shared.lock(), LINGER, starting);
            waited.unwrap_or_else(PoisonError::into_inner).0
        })
    }

    /// Has a heap looked after, unless it is already. Never waits: if the list is being used, the next call does it.
    pub(super) fn look_after<H: Tended + 'static>(&self, heap: &Weak<H>, tended: &AtomicBool) {
        if tended.swap(true, Ordering::Relaxed) {
            return;
        }
        // In a child of a fork the lock may be held by a thread that the child does not have.
        let added = self.0.state.try_lock().is_ok_and(|mut state| {
            if state.heaps.try_reserve(1).is_err() {
                return false;
            }
            state.heaps.push(Weak::<H>::clone(heap));
            if state.process != std::process::id() {
                // What a parent's thread had in hand it looks after itself.
                let shared = Arc::clone(&self.0);
                let started = thread::Builder::new()
                    .name(String::from("heapwright-scavenge"))
                    .spawn(move || live(&shared))
                    .is_ok();
                if !started {
                    state.heaps.pop();
                    return false;
                }
                state.process = std::process::id();
                state.arrived = false;
            }
            true
        });
        if added {
            self.0.changed.notify_one();
        } else {
            tended.store(false, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A list and a number: whole after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's life.
fn live(shared: &Shared) {
    let mut heaps = Vec::new();
    shared.lock().arrived = true;
    shared.begun.notify_all();
    loop {
        let mut state = shared.lock();
        heaps.append(&mut state.heaps);
        if heaps.is_empty() {
            let wait = shared
                .changed
                .wait_timeout_while(state, LINGER, |s| s.heaps.is_empty());
            let (mut state, _) = wait.unwrap_or_else(PoisonError::into_inner);
            if state.heaps.is_empty() {
                state.process = 0;
                return;
            }
            continue;
        }
        drop(state);
        heaps.retain(|heap| heap.upgrade().is_some_and(|heap| tend(&*heap)));
        thread::sleep(PERIOD);
    }
}

/// True if the heap stays in the list.
fn tend(heap: &dyn Tended) -> bool {
    heap.tended().store(false, Ordering::Relaxed);
    // If the flag is up again, somebody put it into the list meanwhile.
    heap.tend() && !heap.tended().swap(true, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicUsize;
    use std::time::Instant;

    #[derive(Default)]
    struct Counted {
        tended: AtomicBool,
        times: AtomicUsize,
        left: AtomicUsize,
    }

    impl Tended for Counted {
        fn tend(&self) -> bool {
            self.times.fetch_add(1, Ordering::Relaxed);
            self.left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
        }

        fn tended(&self) -> &AtomicBool {
            &self.tended
        }
    }

    fn wait(what: &str, mut until: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !until() {
            assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_thread_comes_with_work_and_goes_without() {
        let scavenger = Scavenger::new();
        assert!(!scavenger.is_running());
        for round in 1..4 {
            let heaps: Vec<_> = (0..20).map(|_| Arc::new(Counted::default())).collect();
            for heap in &heaps {
                heap.left.store(3, Ordering::Relaxed);
                // A thread that is about to end may hold the lock.
                wait("added", || {
                    scavenger.look_after(&Arc::downgrade(heap), &heap.tended);
                    heap.tended.load(Ordering::Relaxed)
                });
                scavenger.look_after(&Arc::downgrade(heap), &heap.tended);
            }
            assert!(scavenger.is_running(), "{round}");
            wait("tended", || {
                heaps
                    .iter()
                    .all(|heap| heap.times.load(Ordering::Relaxed) >= 4)
            });
            wait("ended", || !scavenger.is_running());
            assert!(heaps.iter().all(|h| h.times.load(Ordering::Relaxed) == 4));
        }
    }

    #[test]
    fn a_heap_that_is_gone_is_forgotten() {
        let scavenger = Scavenger::new();
        let heap = Arc::new(Counted::default());
        heap.left.store(usize::MAX, Ordering::Relaxed);
        let weak = Arc::downgrade(&heap);
        scavenger.look_after(&weak, &heap.tended);
        wait("tended", || heap.times.load(Ordering::Relaxed) > 1);
        drop(heap);
        wait("dropped", || weak.strong_count() == 0);
        wait("ended", || !scavenger.is_running());
    }
}
