//! A forked child has no helpers, and gets new ones.
#![cfg(all(unix, not(loom)))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

use heapwright_work::{Config, Phase, Pool, Worker};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Done when a helper has done the one item, or, without helpers, the leader.
struct Handover<'a> {
    pool: &'a Pool,
    by: AtomicUsize,
    done: AtomicBool,
}

impl Phase for Handover<'_> {
    fn work(&self, worker: &mut Worker<'_>) {
        if worker.index() == 0 && self.pool.workers() > 1 {
            assert_eq!(worker.share(&[1]), 1);
            let start = Instant::now();
            while !self.done.load(Ordering::Acquire) {
                assert!(start.elapsed() < Duration::from_secs(20), "nobody came");
                std::thread::yield_now();
            }
        }
        while worker.next().is_some() {
            self.by.store(worker.index(), Ordering::Relaxed);
            self.done.store(true, Ordering::Release);
        }
    }
}

fn done_by(pool: &Pool) -> usize {
    let phase = Handover {
        pool,
        by: AtomicUsize::new(0),
        done: AtomicBool::new(false),
    };
    pool.run(&phase).unwrap();
    phase.by.into_inner()
}

/// Runs `child` in a forked process and says whether it came to its end.
fn in_child(child: impl FnOnce()) -> bool {
    // SAFETY: the child uses the C library's allocator, which is usable after fork there, and
    // ends by _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: arms a timer of this process: a child that hangs is killed.
        unsafe { libc::alarm(30) };
        let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).is_ok();
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(i32::from(!fine)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    if status != 0 {
        eprintln!("the child ended with wait status {status:#x}");
    }
    status == 0
}

/// One test at a time: a fork while another thread is being started or ends leaves locks of the standard library taken in the
/// child.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn started() -> Pool {
    let pool = Pool::new(Config {
        workers: 2,
        ..Config::default()
    });
    pool.start().unwrap();
    pool
}

#[test]
fn a_child_gets_helpers_of_its_own() {
    let _alone = alone();
    for round in 0..50 {
        let pool = started();
        if round % 2 == 0 {
            assert_eq!(done_by(&pool), 1);
        }
        assert!(in_child(|| {
            pool.forget_helpers_after_fork();
            assert_eq!(pool.workers(), 1);
            assert_eq!(done_by(&pool), 0);
            pool.start().unwrap();
            assert_eq!(pool.workers(), 2);
            assert_eq!(done_by(&pool), 1);
            // A grandchild too, and dropping joins the child's helper.
            assert!(in_child(|| {
                pool.forget_helpers_after_fork();
                pool.start().unwrap();
                assert_eq!(done_by(&pool), 1);
            }));
            // SAFETY: `pool` is not used again: the child ends by _exit.
            drop(unsafe { std::ptr::read(&pool) });
        }));
        // The parent's are still there.
        assert_eq!(done_by(&pool), 1);
    }
}

/// Another thread runs phases all the time: the fork may come at any moment of one.
#[test]
fn a_fork_in_the_middle_of_a_phase() {
    let _alone = alone();
    let pool = started();
    let stop = AtomicBool::new(false);
    /// Also when an assertion fails: else the scope would wait for ever.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let begun = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            done_by(&pool);
            begun.store(true, Ordering::Release);
            while !stop.load(Ordering::Relaxed) {
                done_by(&pool);
            }
        });
        while !begun.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        for _ in 0..100 {
            assert!(in_child(|| {
                pool.forget_helpers_after_fork();
                pool.start().unwrap();
                assert_eq!(done_by(&pool), 1);
            }));
        }
    });
}

#[test]
fn a_child_that_was_not_told_neither_hangs_nor_joins() {
    let _alone = alone();
    let pool = started();
    assert!(in_child(|| {
        struct Empty;
        impl Phase for Empty {
            fn work(&self, worker: &mut Worker<'_>) {
                worker.share(&[1, 2, 3]);
                while worker.next().is_some() {}
            }
        }
        pool.run(&Empty).unwrap();
        // SAFETY: `pool` is not used again: the child ends by _exit.
        drop(unsafe { std::ptr::read(&pool) });
    }));
}
