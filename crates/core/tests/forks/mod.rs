//! A heap whose process forks, with threads that do this and that meanwhile: what `fork.rs` tests, and what the seeded bugs of `fork` break.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    missing_docs
)]

use crate::lists::{Lists, array, length, options, push};
use heapwright::{Address, Builder, Event, Heap, Listener, Mutator, ObjectReference, PlanName};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One test at a time: a fork while the test harness starts a thread leaves locks of the standard library taken in the child.
pub static ALONE: Mutex<()> = Mutex::new(());

pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the verifier found, in this process and those it comes from.
pub static FOUND: AtomicUsize = AtomicUsize::new(0);

pub struct Count;

impl Listener for Count {
    fn event(&self, event: Event<'_>) {
        if let Event::Violation(_) = event {
            FOUND.fetch_add(1, Ordering::Relaxed);
        }
    }
}

pub fn builder(plan: PlanName, settings: &[(&str, &str)]) -> Builder {
    Builder::default()
        .options(options(plan, settings))
        .listener(Box::new(Count))
}

pub fn heap(plan: PlanName, settings: &[(&str, &str)]) -> Heap<Lists> {
    builder(plan, settings).build(Lists).unwrap()
}

/// Has the child killed if it hangs.
pub fn limit() {
    // SAFETY: a timer of its own.
    unsafe { libc::alarm(20) };
}

/// Ends the child: with 0 if `child` comes to its end.
pub fn end(child: impl FnOnce()) -> ! {
    limit();
    let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).is_ok();
    // SAFETY: ends the child without the parent's exit handlers.
    unsafe { libc::_exit(i32::from(!fine)) }
}

pub fn wait(pid: libc::pid_t, what: &str) {
    let mut status = 0;
    // SAFETY: waits for a child of this process.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(
        status, 0,
        "{what}: the child ended with wait status {status:#x}"
    );
}

/// Forks from a mutator, and runs `child` there.
pub fn fork(mutator: &mut Mutator<Lists>, what: &str, child: impl FnOnce(&mut Mutator<Lists>)) {
    // SAFETY: the child uses no other mutator.
    let pid = unsafe { mutator.fork(|| libc::fork()) }.unwrap();
    assert!(pid >= 0);
    if pid == 0 {
        end(|| child(mutator));
    }
    wait(pid, what);
}

/// Allocates and drops, and checks what lives.
pub fn work(mutator: &mut Mutator<Lists>, kept: usize) {
    assert_eq!(length(mutator, 0), kept);
    for _ in 0..2 {
        mutator.thread()[1] = 0;
        for _ in 0..500 {
            push(mutator, 1, 20).unwrap();
        }
        assert_eq!(length(mutator, 1), 500);
    }
    let _ = mutator.collect();
    assert_eq!(length(mutator, 0), kept);
    assert_eq!(length(mutator, 1), 500);
    assert_eq!(
        FOUND.load(Ordering::Relaxed),
        0,
        "the verifier found errors"
    );
}

pub struct Over<'a>(pub &'a AtomicBool);
impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The fork comes in the middle of a concurrent mark, which is slowed down: in the child it goes on, and is completed by a thread of
/// the child's own. What was overwritten before lives as long as the mark needs it.
pub fn in_the_middle_of_a_mark(times: usize) {
    let settings = [("max", "32m"), ("verify", "1"), ("stress", "1000000")];
    let heap = heap(PlanName::ConcurrentImmix, &settings);
    let mut mutator = heap.attach(vec![0, 0]).unwrap();
    for _ in 0..3000 {
        push(&mut mutator, 0, 4).unwrap();
    }
    for n in 0..times {
        mutator.collect_in_background();
        let marked = heap.usage().full_collections;
        fork(&mut mutator, &format!("fork {n}"), |mutator| {
            // Slow: it is not over yet.
            assert_eq!(heap.usage().full_collections, marked);
            let begin = Instant::now();
            let mut by_thread = false;
            while heap.usage().full_collections == marked {
                push(mutator, 1, 4).unwrap();
                mutator.thread()[1] = 0;
                mutator.poll();
                std::thread::yield_now();
                by_thread |= threads("heapwright-mark") == 1;
                assert!(begin.elapsed() < Duration::from_secs(15), "the mark ends");
            }
            assert!(by_thread, "a thread of the child's own went on marking");
            work(mutator, 3000);
        });
        assert_eq!(
            heap.usage().full_collections,
            marked,
            "the parent still marks"
        );
        let _ = mutator.collect();
    }
    assert_eq!(length(&mut mutator, 0), 3000);
}

/// Another thread wrote the only reference to a young object into an old one, and is gone in the child.
pub fn a_gone_thread_had_remembered() {
    for plan in [
        PlanName::GenCopy,
        PlanName::GenImmix,
        PlanName::StickyImmix,
        PlanName::StickyMarkSweep,
    ] {
        let heap = heap(plan, &[("max", "16m"), ("verify", "1")]);
        let mut mutator = heap.attach(vec![0, 0]).unwrap();
        // So much that a minor collection is due next, not a full one.
        for _ in 0..5000 {
            push(&mut mutator, 1, 4).unwrap();
        }
        let old = array(&mut mutator, 1).unwrap();
        mutator.thread()[0] = old.to_address().as_usize();
        let _ = mutator.collect();
        let old = mutator.thread()[0];
        let (written, over) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let _over = Over(&over);
            let (heap, written, over) = (&heap, &written, &over);
            scope.spawn(move || {
                let mut other = heap.attach(vec![0]).unwrap();
                let young = array(&mut other, 0).unwrap();
                let old = ObjectReference::from_address(Address::new(old)).unwrap();
                // SAFETY: the field of an old object that the first thread's root reaches; nothing collected since.
                unsafe { other.write(old, old.to_address().add(8), young) };
                written.store(true, Ordering::Release);
                while !over.load(Ordering::Relaxed) {
                    other.poll();
                    std::thread::yield_now();
                }
            });
            while !written.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            fork(&mut mutator, plan.name(), |mutator| {
                let stats = mutator.collect_young().unwrap();
                assert!(!stats.full, "{plan}");
                // What was freed is used again.
                for _ in 0..2000 {
                    let _ = array(mutator, 9).unwrap();
                }
                assert_eq!(length(mutator, 0), 2, "{plan}");
                work(mutator, 2);
            });
        });
    }
}

/// Waits for something; the mutator goes outside and back meanwhile.
pub fn until(mutator: &mut Mutator<Lists>, what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(15), "{what}");
        mutator.outside(|| std::thread::sleep(Duration::from_millis(20)));
    }
}

/// How many threads the process has whose names begin so.
pub fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // One that has ended meanwhile has no name.
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|comm| comm.starts_with(name))
        .count()
}

/// What helpers are called.
const HELPER: &str = "heapwright-1";

/// Another thread is inside and allocates at each fork; in the child its mutator is gone, what it held is not traced any more, and
/// helpers of the child's own take part.
pub fn with_a_thread_inside(plan: PlanName, times: usize) {
    let heap = heap(plan, &[("max", "32m"), ("workers", "2"), ("verify", "1")]);
    let over = AtomicBool::new(false);
    let ready = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&over);
        scope.spawn(|| {
            let mut mutator = heap.attach(vec![0, 0]).unwrap();
            // 4 MiB.
            for _ in 0..8000 {
                push(&mut mutator, 0, 64).unwrap();
            }
            ready.store(true, Ordering::Release);
            while !over.load(Ordering::Relaxed) {
                array(&mut mutator, 10).unwrap();
            }
        });
        let mut mutator = heap.attach(vec![0, 0]).unwrap();
        push(&mut mutator, 0, 4).unwrap();
        mutator.outside(|| {
            while !ready.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        });
        let _ = mutator.collect();
        for n in 0..times {
            fork(&mut mutator, &format!("{plan}, fork {n}"), |mutator| {
                assert_eq!(threads(""), 1);
                work(mutator, 1);
                // It may take its time to begin, and has its name then.
                until(mutator, "a helper comes", || threads(HELPER) == 1);
                let _ = mutator.collect();
                let live = heap.usage().live_bytes;
                assert!(live < 2 << 20, "{plan}: {live} live in the child");
                another_waits_for_who_is_inside(&heap, mutator);
            });
        }
        work(&mut mutator, 1);
    });
}

/// A thread of the child's own cannot collect before the mutator that forked, which is inside, polls or goes outside.
fn another_waits_for_who_is_inside(heap: &Heap<Lists>, mutator: &mut Mutator<Lists>) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut other = heap.attach(vec![0, 0]).unwrap();
            let _ = other.collect();
            done.store(true, Ordering::Release);
        });
        std::thread::sleep(Duration::from_millis(30));
        assert!(
            !done.load(Ordering::Acquire),
            "the child forgot who is inside"
        );
        mutator.outside(|| {
            while !done.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        });
    });
}

/// The scavenger has the heap in hand when the process forks: in the child it does not, and memory goes back all the same.
pub fn memory_goes_back_in_the_child() {
    let settings = [("max", "64m"), ("decay", "1000"), ("huge", "off")];
    let heap = heap(PlanName::Immix, &settings);
    let mut mutator = heap.attach(vec![0, 0]).unwrap();
    for _ in 0..60_000 {
        push(&mut mutator, 1, 64).unwrap();
    }
    mutator.thread()[1] = 0;
    let _ = mutator.collect();
    push(&mut mutator, 0, 4).unwrap();
    // It goes back bit by bit, for seconds.
    until(&mut mutator, "some went back", || {
        heap.usage().returned_bytes > 0
    });
    fork(&mut mutator, "returns", |mutator| {
        let before = heap.usage();
        assert!(before.idle_bytes > 8 << 20, "{before:?}");
        until(mutator, "memory goes back", || {
            heap.usage().idle_bytes < before.idle_bytes / 2
        });
        work(mutator, 1);
    });
}

/// Threads outside look whether the gate can be closed: in the child nobody has its lock.
pub fn the_gate_is_asked_meanwhile(times: usize) {
    let heap = heap(PlanName::Immix, &[("max", "16m"), ("decay", "off")]);
    let mut mutator = heap.attach(vec![0, 0]).unwrap();
    push(&mut mutator, 0, 4).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _ = heap.release_memory();
                }
            });
        }
        for n in 0..times {
            fork(&mut mutator, &format!("gate, fork {n}"), |mutator| {
                mutator.outside(|| ());
                work(mutator, 1);
            });
        }
    });
}

/// Threads outside ask weak maps how large they are: in the child nobody has their locks.
pub fn maps_are_asked_meanwhile(times: usize) {
    let heap = heap(PlanName::Immix, &[("max", "16m"), ("verify", "1")]);
    let mut mutator = heap.attach(vec![0, 0]).unwrap();
    push(&mut mutator, 0, 4).unwrap();
    let map = mutator.weak_map().unwrap();
    let key = ObjectReference::from_address(Address::new(mutator.thread()[0])).unwrap();
    map.insert(&mut mutator, key, key).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(map.len(), 1);
                    let _ = heap.queued();
                }
            });
        }
        for n in 0..times {
            fork(&mut mutator, &format!("maps, fork {n}"), |mutator| {
                let _ = mutator.collect();
                assert_eq!(map.len(), 1);
                work(mutator, 1);
            });
        }
    });
}

/// A listener with a lock of its own, under which it takes its time.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<usize>>);

impl Listener for Slow {
    fn event(&self, event: Event<'_>) {
        let mut heard = self.0.lock().unwrap();
        *heard += 1;
        if let Event::Returned { .. } = event {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A thread outside has memory given back, of which the listener is told: in the child its lock is free.
pub fn a_listener_is_told_meanwhile(times: usize) {
    let settings = [("max", "32m"), ("decay", "off")];
    let slow = Slow::default();
    let heap = Builder::default()
        .options(options(PlanName::Immix, &settings))
        .listener(Box::new(slow.clone()))
        .build(Lists)
        .unwrap();
    let mut mutator = heap.attach(vec![0, 0]).unwrap();
    push(&mut mutator, 0, 4).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = heap.release_memory();
            }
        });
        for n in 0..times {
            for _ in 0..400 {
                push(&mut mutator, 1, 300).unwrap();
            }
            mutator.thread()[1] = 0;
            let _ = mutator.collect();
            mutator.outside(|| std::thread::sleep(Duration::from_millis(3)));
            fork(&mut mutator, &format!("listener, fork {n}"), |mutator| {
                let before = *slow.0.lock().unwrap();
                work(mutator, 1);
                assert!(*slow.0.lock().unwrap() > before);
            });
        }
    });
}
