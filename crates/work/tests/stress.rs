//! Phases on real threads: sums are exact, panics are values, threads end.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use heapwright_work::{Config, MAX_WORKERS, Phase, PhaseError, Pool, StartCause, Worker};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn pool(workers: usize, deque_capacity: usize) -> Pool {
    let pool = Pool::new(Config {
        workers,
        deque_capacity,
        name: String::from("stress"),
        ..Config::default()
    });
    pool.start().unwrap();
    assert_eq!(pool.workers(), workers);
    pool
}

/// Item `n` stands for a tree of `n` nodes: itself and two trees that share the rest.
struct Tree {
    nodes: usize,
    /// Shares when somebody is hungry and there are at least this many own items; 0: shares always.
    spare: usize,
    counted: AtomicUsize,
    helped: AtomicUsize,
}

impl Tree {
    fn of(nodes: usize, spare: usize) -> Tree {
        Tree {
            nodes,
            spare,
            counted: AtomicUsize::new(0),
            helped: AtomicUsize::new(0),
        }
    }

    fn run(self, pool: &Pool) -> usize {
        pool.run(&self).unwrap();
        assert_eq!(self.counted.into_inner(), self.nodes);
        self.helped.into_inner()
    }
}

impl Phase for Tree {
    fn work(&self, worker: &mut Worker<'_>) {
        let mut own = Vec::new();
        if worker.index() == 0 && self.nodes > 0 {
            own.push(self.nodes);
        }
        let mut counted = 0;
        while let Some(nodes) = own.pop().or_else(|| worker.next()) {
            counted += 1;
            let left = (nodes - 1) / 2;
            for child in [left, nodes - 1 - left] {
                if child > 0 {
                    own.push(child);
                }
            }
            if self.spare == 0 || (own.len() >= self.spare && worker.hungry()) {
                let half = own.len().div_ceil(2);
                let taken = worker.share(&own[..half]);
                own.drain(..taken);
            }
        }
        self.counted.fetch_add(counted, Ordering::Relaxed);
        if worker.index() != 0 {
            self.helped.fetch_add(counted, Ordering::Relaxed);
        }
    }
}

#[test]
fn trees_are_counted_exactly() {
    for workers in [1, 2, 4] {
        for capacity in [2, 64, 1024] {
            let pool = pool(workers, capacity);
            let mut helped = 0;
            for spare in [0, 1, 16] {
                for nodes in [0, 1, 2, 3, 1000, 300_001] {
                    helped += Tree::of(nodes, spare).run(&pool);
                }
            }
            if workers == 1 {
                assert_eq!(helped, 0);
                continue;
            }
            // Whether another worker gets a processor in time is the system's business, so for long enough.
            let begin = Instant::now();
            while helped == 0 {
                assert!(
                    begin.elapsed().as_secs() < 60,
                    "no helper of {workers} workers ever got work"
                );
                helped += Tree::of(300_001, 0).run(&pool);
            }
        }
    }
}

#[test]
fn others_may_be_let_go_first() {
    let called: Arc<[AtomicUsize; 3]> = Arc::default();
    let counts = Arc::clone(&called);
    let pool = Pool::new(Config {
        workers: 3,
        delay: Some(Arc::new(move |worker| {
            let count = counts[worker].fetch_add(1, Ordering::Relaxed);
            if count.is_multiple_of(3) {
                std::thread::yield_now();
            }
        })),
        ..Config::default()
    });
    pool.start().unwrap();
    for _ in 0..50 {
        Tree::of(2000, 0).run(&pool);
    }
    drop(pool);
    assert!(called.iter().any(|c| c.load(Ordering::Relaxed) > 50));
}

#[test]
fn thousands_of_tiny_phases() {
    for workers in [1, 2, 4] {
        let pool = pool(workers, 8);
        for round in 0..20_000 {
            Tree::of(round % 7, round % 2).run(&pool);
        }
    }
}

/// One item at a time goes round; everybody else sleeps and wakes all the time.
#[test]
fn a_single_item_wanders() {
    struct Wander(AtomicUsize);
    impl Phase for Wander {
        fn work(&self, worker: &mut Worker<'_>) {
            let mut item = (worker.index() == 0).then_some(20_000);
            while let Some(left) = item.take().or_else(|| worker.next()) {
                self.0.fetch_add(1, Ordering::Relaxed);
                if left > 1 && worker.share(&[left - 1]) == 0 {
                    item = Some(left - 1);
                }
            }
        }
    }
    for workers in [1, 2, 4] {
        let wander = Wander(AtomicUsize::new(0));
        pool(workers, 2).run(&wander).unwrap();
        assert_eq!(wander.0.into_inner(), 20_000);
    }
}

#[test]
fn a_helper_takes_part() {
    /// Only a helper can do the item: the leader waits for it without asking.
    struct Handover(AtomicBool);
    impl Phase for Handover {
        fn work(&self, worker: &mut Worker<'_>) {
            if worker.index() == 0 {
                assert_eq!(worker.share(&[1]), 1);
                let start = Instant::now();
                while !self.0.load(Ordering::Acquire) {
                    assert!(start.elapsed() < Duration::from_secs(20), "nobody came");
                    std::thread::yield_now();
                }
            }
            while worker.next().is_some() {
                self.0.store(true, Ordering::Release);
            }
        }
    }
    let pool = pool(2, 16);
    for _ in 0..1000 {
        pool.run(&Handover(AtomicBool::new(false))).unwrap();
    }
}

#[test]
fn a_pool_of_one_shares_nothing() {
    struct Alone;
    impl Phase for Alone {
        fn work(&self, worker: &mut Worker<'_>) {
            assert_eq!(worker.index(), 0);
            assert!(!worker.hungry());
            assert_eq!(worker.share(&[1, 2, 3]), 0);
            assert_eq!(worker.next(), None);
            assert_eq!(worker.next(), None);
        }
    }
    let unstarted = Pool::new(Config {
        workers: 8,
        ..Config::default()
    });
    assert_eq!(unstarted.workers(), 1);
    unstarted.run(&Alone).unwrap();
    for workers in [0, 1] {
        let one = Pool::new(Config {
            workers,
            ..Config::default()
        });
        one.start().unwrap();
        assert_eq!(one.workers(), 1);
        one.run(&Alone).unwrap();
    }
}

#[test]
fn phases_inside_phases_and_beside_each_other() {
    struct Outer<'a>(&'a Pool, AtomicUsize);
    impl Phase for Outer<'_> {
        fn work(&self, worker: &mut Worker<'_>) {
            if worker.index() == 0 {
                worker.share(&[100, 200, 300, 400]);
            }
            while let Some(nodes) = worker.next() {
                // The pool is taken: this runs on this thread alone.
                assert_eq!(Tree::of(nodes, 0).run(self.0), 0);
                self.1.fetch_add(nodes, Ordering::Relaxed);
            }
        }
    }
    let pool = pool(3, 64);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let outer = Outer(&pool, AtomicUsize::new(0));
                    pool.run(&outer).unwrap();
                    let done = outer.1.into_inner();
                    assert!(done == 1000 || done == 0, "{done}");
                    Tree::of(777, 0).run(&pool);
                }
            });
        }
    });
}

/// Panics on the worker `victim` at item `at`.
struct Panics {
    victim: usize,
    at: usize,
    tree: Tree,
}

impl Phase for Panics {
    fn work(&self, worker: &mut Worker<'_>) {
        if worker.index() == 0 {
            assert!(worker.share(&[1; 64]) > 0);
        }
        let mut items = 0;
        while worker.next().is_some() {
            items += 1;
            if worker.index() == self.victim && items == self.at {
                panic!("at item {items}");
            }
        }
        self.tree.work(worker);
    }
}

#[test]
fn a_panic_is_a_value_and_harms_nobody() {
    std::panic::set_hook(Box::new(|info| {
        if std::thread::current().name() != Some("stress-1") {
            #[allow(
                clippy::print_stderr,
                reason = "a test tells of the panic that it did not want"
            )]
            {
                eprintln!("{info}");
            }
        }
    }));
    let pool = pool(2, 64);
    let mut caught = [0; 2];
    for round in 0..400 {
        let victim = round % 2;
        let phase = Panics {
            victim,
            at: 1 + round % 3,
            tree: Tree::of(100, 0),
        };
        match pool.run(&phase) {
            Ok(()) => {}
            Err(PhaseError::Panicked(panic)) => {
                assert_eq!(panic.worker(), victim);
                assert!(panic.message().starts_with("at item "), "{panic:?}");
                assert!(panic.into_payload().is::<String>());
                caught[victim] += 1;
            }
            Err(other) => panic!("{other}"),
        }
        Tree::of(1000, 0).run(&pool);
    }
    assert!(caught[0] > 0, "the leader has to panic now and then");
    // Whether a helper catches an item before the leader has them all is chance; make it certain.
    struct HelperPanics(AtomicBool);
    impl Phase for HelperPanics {
        fn work(&self, worker: &mut Worker<'_>) {
            if worker.index() == 1 {
                self.0.store(true, Ordering::Release);
                panic!("helper");
            }
            worker.share(&[1]);
            while !self.0.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            while worker.next().is_some() {}
        }
    }
    for _ in 0..100 {
        match pool.run(&HelperPanics(AtomicBool::new(false))) {
            Err(PhaseError::Panicked(panic)) => {
                assert_eq!((panic.worker(), panic.message()), (1, "helper"));
            }
            other => panic!("{other:?}"),
        }
    }
    Tree::of(100_000, 0).run(&pool);
}

#[test]
fn what_is_left_behind_is_reported() {
    struct Careless(AtomicUsize);
    impl Phase for Careless {
        fn work(&self, worker: &mut Worker<'_>) {
            if worker.index() == 0 {
                assert_eq!(worker.share(&[1; 32]), 32);
                return;
            }
            while worker.next().is_some() {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    let pool = pool(2, 32);
    for _ in 0..200 {
        let careless = Careless(AtomicUsize::new(0));
        let lost = match pool.run(&careless) {
            Ok(()) => 0,
            Err(PhaseError::Abandoned { items }) => items,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(careless.0.into_inner() + lost, 32);
        Tree::of(100, 0).run(&pool);
    }
}

/// A hook that creates nothing.
fn forgets_to_spawn(_spawn: &mut dyn FnMut()) {}

#[test]
fn start_says_what_it_could_not_do() {
    let none = Pool::new(Config {
        workers: 3,
        around_spawn: Some(forgets_to_spawn),
        ..Config::default()
    });
    let error = none.start().unwrap_err();
    assert!(matches!(error.cause, StartCause::Hook), "{error}");
    assert_eq!((error.wanted, error.running), (3, 1));
    Tree::of(1000, 0).run(&none);

    let huge = Pool::new(Config {
        workers: 2,
        deque_capacity: usize::MAX / 16,
        ..Config::default()
    });
    let error = huge.start().unwrap_err();
    assert!(matches!(error.cause, StartCause::Memory), "{error}");
    Tree::of(1000, 0).run(&huge);

    let many = Pool::new(Config {
        workers: MAX_WORKERS + 1,
        stack_bytes: 64 << 10,
        deque_capacity: 8,
        ..Config::default()
    });
    let error = many.start().unwrap_err();
    assert!(matches!(error.cause, StartCause::TooMany), "{error}");
    assert_eq!(
        error.to_string(),
        "64 of 65 workers: a pool has at most 64 workers"
    );
    assert_eq!(many.workers(), MAX_WORKERS);
    for _ in 0..10 {
        Tree::of(100_000, 0).run(&many);
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;

    fn threads_called(name: &str) -> usize {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
            .filter(|comm| comm.trim_end().starts_with(name))
            .count()
    }

    #[test]
    fn start_is_idempotent_and_drop_joins() {
        let pool = Pool::new(Config {
            workers: 4,
            name: String::from("joined"),
            ..Config::default()
        });
        assert_eq!(threads_called("joined"), 0);
        for _ in 0..3 {
            pool.start().unwrap();
        }
        // A new thread takes its name a moment after its creation.
        let start = Instant::now();
        while threads_called("joined") != 3 {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
        Tree::of(1000, 0).run(&pool);
        drop(pool);
        // The kernel wakes who joins a thread a moment before it takes the thread off its list.
        let start = Instant::now();
        while threads_called("joined") != 0 {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
    }

    /// The thread's mask of blocked signals, as the kernel reports it.
    fn blocked(task: &std::path::Path) -> Option<u64> {
        let status = std::fs::read_to_string(task.join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("SigBlk:"))?;
        u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok()
    }

    fn with_signals_blocked(spawn: &mut dyn FnMut()) {
        // SAFETY: a zeroed set is overwritten by sigfillset, and the old mask by the first call.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut old: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
            spawn();
            libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut());
        }
    }

    #[test]
    fn helpers_inherit_the_signal_mask() {
        let pool = Pool::new(Config {
            workers: 2,
            name: String::from("masked"),
            around_spawn: Some(with_signals_blocked),
            ..Config::default()
        });
        pool.start().unwrap();
        assert_eq!(blocked("/proc/thread-self".as_ref()), Some(0));
        let start = Instant::now();
        let mask = loop {
            let masked = std::fs::read_dir("/proc/self/task")
                .unwrap()
                .filter_map(|task| {
                    let path = task.unwrap().path();
                    let comm = std::fs::read_to_string(path.join("comm")).ok()?;
                    comm.starts_with("masked").then(|| blocked(&path))?
                })
                .next();
            if let Some(mask) = masked {
                break mask;
            }
            assert!(start.elapsed() < Duration::from_secs(20));
        };
        // All but KILL and STOP, which cannot be blocked, and 32 and 33, the C library's own.
        let never = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1) | 1 << 31 | 1 << 32;
        assert_eq!(mask | never, u64::MAX);
    }
}
