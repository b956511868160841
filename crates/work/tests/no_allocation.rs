//! `run` allocates nothing, on any thread: the ones that are stopped may hold the allocator's lock.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use heapwright_work::{Config, Phase, Pool, Worker};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Counts what is asked of it while it is forbidden to ask.
struct Watched;

static FORBIDDEN: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicUsize = AtomicUsize::new(0);

fn watch() {
    if FORBIDDEN.load(Ordering::Relaxed) {
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        watch();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        watch();
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Hands items to and fro, with sleeps on both sides.
struct Busy(AtomicUsize);

impl Phase for Busy {
    fn work(&self, worker: &mut Worker<'_>) {
        if worker.index() == 0 {
            worker.share(&[3; 16]);
        }
        while let Some(item) = worker.next() {
            self.0.fetch_add(1, Ordering::Relaxed);
            for _ in 0..500 {
                std::hint::spin_loop();
            }
            if item > 0 {
                worker.share(&[item - 1; 2]);
            }
        }
    }
}

/// A phase on a thread that the standard library did not create.
extern "C" fn foreign(pool: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: the test passes its pool, and joins this thread before it drops it.
    let pool = unsafe { &*pool.cast::<Pool>() };
    FORBIDDEN.store(true, Ordering::SeqCst);
    for _ in 0..100 {
        let busy = Busy(AtomicUsize::new(0));
        if pool.run(&busy).is_err() || busy.0.load(Ordering::Relaxed) == 0 {
            return std::ptr::dangling_mut::<u8>().cast();
        }
    }
    FORBIDDEN.store(false, Ordering::SeqCst);
    std::ptr::null_mut()
}

#[test]
fn run_does_not_allocate() {
    for workers in [1, 2, 3] {
        let pool = Pool::new(Config {
            workers,
            ..Config::default()
        });
        pool.start().unwrap();
        if workers == 1 {
            // Alone, it is an item that is not taken.
            struct One(AtomicUsize);
            impl Phase for One {
                fn work(&self, worker: &mut Worker<'_>) {
                    assert_eq!(worker.share(&[1]), 0);
                    self.0.fetch_add(1, Ordering::Relaxed);
                }
            }
            FORBIDDEN.store(true, Ordering::SeqCst);
            let one = One(AtomicUsize::new(0));
            let outcome = pool.run(&one).is_ok();
            FORBIDDEN.store(false, Ordering::SeqCst);
            assert!(outcome);
        } else {
            // Time for the helpers to have started: their threads' own set-up allocates.
            std::thread::sleep(std::time::Duration::from_millis(100));
            let mut thread: libc::pthread_t = 0;
            let mut failed = std::ptr::null_mut();
            // SAFETY: `foreign` gets the pool it expects, and is joined before the pool goes.
            unsafe {
                let argument = std::ptr::from_ref(&pool).cast_mut().cast();
                assert_eq!(
                    libc::pthread_create(&mut thread, std::ptr::null(), foreign, argument),
                    0
                );
                assert_eq!(libc::pthread_join(thread, &mut failed), 0);
            }
            assert!(failed.is_null());
        }
        assert_eq!(CALLS.load(Ordering::SeqCst), 0, "{workers} workers");
    }
}
