//! What workers did in the parts of a collection, if a listener wants to know.

use crate::bugs::{Bug, is_on};
use crate::event::{Event, Listener, Part, WorkerStats};
use core::cell::UnsafeCell;
use heapwright_os::clock;
use heapwright_work::{Phase, PhaseError, Pool, Worker};

/// A worker's sums, part by part.
type Row = [Option<WorkerStats>; Part::ALL.len()];

/// The sums of all workers of a heap. Its memory is there before the world stops.
#[derive(Debug)]
pub struct Worked(Vec<UnsafeCell<Row>>);

// SAFETY: row n is used by worker n of a running phase, or by the collecting thread when none runs.
unsafe impl Sync for Worked {}

impl Worked {
    /// For so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| UnsafeCell::default()).collect())
    }

    /// Runs a phase; with `details`, notes when workers came and went.
    ///
    /// # Errors
    /// As [`Pool::run`].
    pub(crate) fn run<P: Phase>(
        &self,
        pool: &Pool,
        details: bool,
        part: Part,
        phase: &P,
    ) -> Result<(), PhaseError> {
        if details {
            let rows = self;
            pool.run(&Watched { rows, part, phase })
        } else {
            pool.run(phase)
        }
    }

    /// The CPU time of the helpers since the last [`Worked::tell`]. The collecting thread, between phases.
    pub(crate) fn helpers_cpu_ns(&self) -> u64 {
        self.rows().skip(1).flatten().map(|w| w.cpu_ns).sum()
    }

    /// Tells all, and forgets it. The collecting thread, between phases, as long as nobody else can begin one.
    pub(crate) fn tell(&self, collection: u64, listener: &dyn Listener) {
        self.drain(collection, |stats| listener.event(Event::Worked(&stats)));
    }

    /// The same for who tells it later. Takes memory.
    pub(crate) fn take(&self, collection: u64) -> Vec<WorkerStats> {
        let mut all = Vec::new();
        self.drain(collection, |stats| all.push(stats));
        all
    }

    fn drain(&self, collection: u64, mut visit: impl FnMut(WorkerStats)) {
        for row in &self.0 {
            // SAFETY: the caller's promise: no phase is running.
            for slot in unsafe { &mut *row.get() } {
                let stats = match is_on(Bug::WorkedKept) {
                    true => *slot,
                    false => slot.take(),
                };
                if let Some(stats) = stats {
                    visit(WorkerStats {
                        collection,
                        ..stats
                    });
                }
            }
        }
    }

    fn rows(&self) -> impl Iterator<Item = impl Iterator<Item = &WorkerStats>> {
        // SAFETY: as in `tell`, of which this is a part.
        self.0
            .iter()
            .map(|row| unsafe { &*row.get() }.iter().flatten())
    }
}

/// A phase whose workers' times are noted. One for all phases: their code is not there twice.
struct Watched<'a> {
    rows: &'a Worked,
    part: Part,
    phase: &'a dyn Phase,
}

impl Phase for Watched<'_> {
    fn work(&self, worker: &mut Worker<'_>) {
        let (start_ns, cpu_ns) = (clock::monotonic_ns(), clock::thread_cpu_ns());
        self.phase.work(worker);
        let Some(row) = self.rows.0.get(worker.index()) else {
            return;
        };
        // SAFETY: turns of one worker do not overlap, and the row is this worker's.
        let slot = unsafe { &mut (*row.get())[self.part.index()] };
        let end_ns = clock::monotonic_ns();
        let stats = slot.get_or_insert(WorkerStats {
            collection: 0,
            part: self.part,
            worker: worker.index(),
            start_ns,
            end_ns,
            busy_ns: 0,
            cpu_ns: 0,
            turns: 0,
            steals: 0,
        });
        stats.end_ns = end_ns;
        stats.busy_ns += (end_ns - start_ns) << u32::from(is_on(Bug::WorkedTwice));
        stats.cpu_ns += clock::thread_cpu_ns().saturating_sub(cpu_ns);
        stats.turns += 1 << u32::from(is_on(Bug::WorkedTwice));
        stats.steals += worker.steals() as u64;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use heapwright_work::Config;
    use std::sync::Mutex;

    /// As many portions as there are workers, each of which waits until all are taken.
    struct Meet(std::sync::Barrier);

    impl Phase for Meet {
        fn work(&self, worker: &mut Worker<'_>) {
            if worker.index() == 0 {
                assert_eq!(worker.share(&[1]), 1);
                self.0.wait();
            }
            while let Some(item) = worker.next() {
                assert_eq!(item, 1);
                self.0.wait();
            }
        }
    }

    #[derive(Default)]
    struct Seen(Mutex<Vec<WorkerStats>>);

    impl Listener for Seen {
        fn event(&self, event: Event<'_>) {
            if let Event::Worked(stats) = event {
                self.0.lock().unwrap().push(*stats);
            }
        }
    }

    #[test]
    fn each_worker_that_came_is_told_once_with_its_thefts() {
        let pool = Pool::new(Config {
            workers: 2,
            ..Config::default()
        });
        pool.start().unwrap();
        let worked = Worked::new(2);
        let meet = || Meet(std::sync::Barrier::new(2));
        worked.run(&pool, false, Part::Weak, &meet()).unwrap();
        for _ in 0..3 {
            worked.run(&pool, true, Part::Closure, &meet()).unwrap();
        }
        let seen = Seen::default();
        worked.tell(9, &seen);
        worked.tell(10, &seen);
        let seen = seen.0.into_inner().unwrap();
        assert_eq!(seen.len(), 2, "{seen:?}");
        for (index, stats) in seen.iter().enumerate() {
            assert_eq!((stats.worker, stats.collection), (index, 9));
            assert_eq!((stats.part, stats.turns), (Part::Closure, 3));
            assert_eq!(stats.steals, 3 * index as u64);
            assert!(
                stats.start_ns < stats.end_ns && stats.busy_ns <= stats.end_ns - stats.start_ns
            );
        }
    }
}
