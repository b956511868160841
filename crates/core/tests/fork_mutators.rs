//! Who is there after a fork: mutators that stay, mutators of threads that are gone, and threads that begin meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod forks;
mod lists;

use forks::{Over, alone, end, threads, until, wait};
use heapwright::{
    Address, Builder, Heap, Mutator, ObjectReference, PlanName, RootVisitor, SlotVisitor, Vm,
    WordSlots, World,
};
use lists::{Lists, options};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What is counted when it is dropped.
#[derive(Default)]
struct Dropped {
    threads: AtomicUsize,
    vm: AtomicUsize,
}

/// [`Lists`], whose threads say whether they stay.
struct Named(Arc<Dropped>);

struct NamedThread {
    roots: Vec<usize>,
    stays: bool,
    dropped: Arc<Dropped>,
}

impl Drop for NamedThread {
    fn drop(&mut self) {
        self.dropped.threads.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.0.vm.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: as `Lists`.
unsafe impl Vm for Named {
    type Thread = NamedThread;
    type Slots = WordSlots;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, object: ObjectReference) -> usize {
        Lists.size(object)
    }

    fn scan<S: SlotVisitor>(&self, object: ObjectReference, visit: &mut S) {
        Lists.scan(object, visit);
    }

    fn thread_roots<R: RootVisitor>(&self, thread: &mut NamedThread, visit: &mut R) {
        Lists.thread_roots(&mut thread.roots, visit);
    }

    fn stays_after_fork(&self, thread: &NamedThread) -> bool {
        thread.stays
    }
}

fn attach(heap: &Heap<Named>, stays: bool) -> Mutator<Named> {
    let dropped = Arc::clone(&heap.vm().0);
    heap.attach(NamedThread {
        roots: vec![0],
        stays,
        dropped,
    })
    .unwrap()
}

/// A list of `count` objects of two words.
fn fill(mutator: &mut Mutator<Named>, count: usize) {
    for _ in 0..count {
        let object = mutator.alloc(16).unwrap().to_address();
        // SAFETY: a new object of a length and one field.
        unsafe {
            object.store(1usize);
            object.add(8).store(mutator.thread_ref().roots[0]);
        }
        mutator.thread().roots[0] = object.as_usize();
    }
}

/// How many objects are in the list of a thread, whether it is there or not.
fn length(mutator: &Mutator<Named>) -> usize {
    let (mut at, mut count) = (mutator.thread_ref().roots[0], 0);
    while at != 0 {
        count += 1;
        // SAFETY: objects that a root reaches.
        at = unsafe { Address::new(at).add(8).load() };
    }
    count
}

/// Has a thread attach, fill a list, and go outside until the end. Its mutator can be found.
fn outside<'s>(
    scope: &'s std::thread::Scope<'s, '_>,
    heap: &'s Heap<Named>,
    stays: bool,
    count: usize,
    over: &'s AtomicBool,
) -> *mut Mutator<Named> {
    let place = Arc::new(AtomicPtr::new(std::ptr::null_mut()));
    let mine = Arc::clone(&place);
    scope.spawn(move || {
        let mut mutator = attach(heap, stays);
        fill(&mut mutator, count);
        let pointer = &raw mut mutator;
        mutator.outside(|| {
            mine.store(pointer, Ordering::Release);
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(length(&mutator), count);
    });
    loop {
        let pointer = place.load(Ordering::Acquire);
        if !pointer.is_null() {
            return pointer;
        }
        std::thread::yield_now();
    }
}

fn build(plan: PlanName) -> Heap<Named> {
    Builder::default()
        .options(options(plan, &[("max", "16m"), ("verify", "1")]))
        .build(Named(Arc::default()))
        .unwrap()
}

/// Of two threads that are outside, one is wanted: in the child its objects live and are updated, and the other's do not. A mutator that
/// the forking thread brought outside stays. What was kept of a thread that is gone is not dropped, also when its mutator is.
#[test]
fn who_stays_and_who_is_gone() {
    let _alone = alone();
    for plan in [PlanName::SemiSpace, PlanName::Immix, PlanName::MarkSweep] {
        let heap = build(plan);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _over = Over(&over);
            let wanted = outside(scope, &heap, true, 300, &over);
            let gone = outside(scope, &heap, false, 100_000, &over);
            let mut own = attach(&heap, false);
            fill(&mut own, 200);
            let pid = own.outside(|| {
                let mut forks = attach(&heap, false);
                fill(&mut forks, 10);
                // SAFETY: the child uses `forks` and `own`, and drops one that is gone.
                let pid = unsafe { forks.fork(|| libc::fork()) }.unwrap();
                if pid == 0 {
                    forks::limit();
                    for _ in 0..3 {
                        fill(&mut forks, 1000);
                        let _ = forks.collect();
                    }
                    assert_eq!(length(&forks), 3010);
                    let live = heap.usage().live_bytes;
                    assert!(live < 1 << 20, "{plan}: {live}");
                    // SAFETY: nobody else uses it: it is dropped once.
                    drop(unsafe { gone.read() });
                    assert_eq!(heap.vm().0.threads.load(Ordering::Relaxed), 0);
                    fill(&mut forks, 1000);
                    let _ = forks.collect();
                    assert_eq!(length(&forks), 4010);
                }
                drop(forks);
                pid
            });
            if pid == 0 {
                end(|| {
                    assert_eq!(length(&own), 200);
                    let _ = own.collect();
                    assert_eq!(length(&own), 200);
                    // SAFETY: its thread is gone; its roots are the heap's to update, world running.
                    assert_eq!(length(unsafe { &*wanted }), 300);
                    assert_eq!(heap.vm().0.threads.load(Ordering::Relaxed), 1);
                });
            }
            wait(pid, plan.name());
        });
    }
}

/// A child that has dropped all its own: the heap is there until the mutator of the thread that is gone is dropped, too.
#[test]
fn the_mutator_of_a_gone_thread_keeps_the_heap() {
    let _alone = alone();
    let heap = build(PlanName::Immix);
    let dropped = Arc::clone(&heap.vm().0);
    let over = AtomicBool::new(false);
    let kept = Mutex::new(Some(heap.clone()));
    std::thread::scope(|scope| {
        let _over = Over(&over);
        let gone = outside(scope, &heap, false, 10, &over);
        let mut mutator = attach(&heap, false);
        // SAFETY: the child uses this mutator, and drops the one that is gone.
        let pid = unsafe { mutator.fork(|| libc::fork()) }.unwrap();
        if pid == 0 {
            end(|| {
                let is_dropped = || dropped.vm.load(Ordering::Relaxed) == 1;
                drop(kept.lock().unwrap().take());
                drop(mutator);
                // SAFETY: nobody uses this handle again: the child ends here.
                drop(unsafe { std::ptr::read(&heap) });
                assert!(!is_dropped());
                // SAFETY: its thread is gone, and nobody else uses it.
                drop(unsafe { gone.read() });
                assert!(is_dropped(), "the last that kept the heap");
            });
        }
        wait(pid, "kept");
    });
}

/// A child that only becomes another program starts no thread, though the parent has helpers, one that marks, and a scavenger.
#[test]
fn a_child_that_only_execs_starts_no_thread() {
    let _alone = alone();
    let program = std::ffi::CString::new(std::path::Path::new("/bin/true").as_os_str().as_bytes());
    let program = program.unwrap();
    let settings = [("max", "32m"), ("workers", "2"), ("stress", "1000000")];
    let heap = lists::heap(PlanName::ConcurrentImmix, &settings);
    let mut mutator = heap.attach(vec![0, 0]).unwrap();
    for _ in 0..5000 {
        lists::push(&mut mutator, 0, 64).unwrap();
    }
    let _ = mutator.collect();
    for n in 0..5 {
        mutator.collect_in_background();
        mutator.outside(|| ());
        // A thread that was just made has not its name yet.
        until(&mut mutator, "the parent's threads", || {
            threads("heapwright") > 1
        });
        // SAFETY: the child uses this mutator only.
        let pid = unsafe { mutator.fork(|| libc::fork()) }.unwrap();
        if pid == 0 {
            end(|| {
                for _ in 0..10 {
                    assert_eq!(threads(""), 1);
                    std::thread::sleep(Duration::from_millis(5));
                }
                let arguments = [program.as_ptr(), std::ptr::null()];
                // SAFETY: a program, and its arguments with a null at the end.
                unsafe { libc::execv(program.as_ptr(), arguments.as_ptr()) };
                panic!("exec failed");
            });
        }
        wait(pid, &format!("exec {n}"));
    }
}

/// Threads begin and end all the time, and the standard library may have a lock of theirs taken at the moment of the fork: the child
/// collects all the same, drops its heap, and neither waits for a helper that never begins nor joins it.
#[test]
fn threads_that_begin_and_end_at_the_moment_of_a_fork() {
    let _alone = alone();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _ = std::thread::Builder::new().spawn(|| ()).unwrap().join();
                }
            });
        }
        for n in 0..60 {
            let plan = [PlanName::GenImmix, PlanName::ConcurrentImmix][n % 2];
            let heap = lists::heap(plan, &[("max", "16m"), ("workers", "2"), ("verify", "1")]);
            let mut mutator = heap.attach(vec![0, 0]).unwrap();
            lists::push(&mut mutator, 0, 4).unwrap();
            let _ = mutator.collect();
            // SAFETY: the child uses this mutator only.
            let pid = unsafe { mutator.fork(|| libc::fork()) }.unwrap();
            if pid == 0 {
                end(move || {
                    let begin = Instant::now();
                    forks::work(&mut mutator, 1);
                    mutator.collect_in_background();
                    forks::work(&mut mutator, 1);
                    drop(mutator);
                    drop(heap);
                    assert!(begin.elapsed() < Duration::from_secs(15));
                });
            }
            wait(pid, &format!("fork {n}"));
        }
    });
}

// ---- a world of the runtime's own -------------------------------------------------------------------------------------------

/// One lock, which a thread has while it is inside.
#[derive(Default)]
struct OneLock {
    taken: AtomicBool,
    /// What `forked` was called with: 1 outside, 2 inside.
    forked: AtomicUsize,
}

impl OneLock {
    fn take(&self) {
        while self.taken.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    fn give(&self) {
        self.taken.store(false, Ordering::Release);
    }
}

// SAFETY: 1, 3: who is inside, or has the world closed, has the lock. 2: `close` is never false. 4: nothing allocates.
unsafe impl World for OneLock {
    fn enter(&self) {
        self.take();
    }

    fn leave(&self) {
        self.give();
    }

    fn stop(&self) {
        self.give();
        std::thread::yield_now();
        self.take();
    }

    fn close(&self, inside: bool, _: &dyn Fn()) -> bool {
        if !inside {
            self.take();
        }
        true
    }

    fn open(&self, inside: bool) {
        if !inside {
            self.give();
        }
    }

    unsafe fn forked(&self, inside: bool) {
        self.forked
            .store(1 + usize::from(inside), Ordering::Relaxed);
    }
}

/// It is told of the fork in the child, and not in the parent, and whether the thread that forked is inside.
#[test]
fn a_world_of_the_runtimes_own_is_told_in_the_child() {
    let _alone = alone();
    let world = Arc::new(OneLock::default());
    let heap = Builder::default()
        .options(options(
            PlanName::GenImmix,
            &[("max", "16m"), ("verify", "1")],
        ))
        .world(Arc::clone(&world) as Arc<dyn World>)
        .build(Lists)
        .unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&over);
        scope.spawn(|| {
            let mut other = heap.attach(vec![0, 0]).unwrap();
            while !over.load(Ordering::Relaxed) {
                lists::push(&mut other, 0, 4).unwrap();
                other.thread()[0] = 0;
                other.outside(std::thread::yield_now);
            }
        });
        let mut mutator = heap.attach(vec![0, 0]).unwrap();
        lists::push(&mut mutator, 0, 4).unwrap();
        for n in 0..10 {
            let told = 1 + n % 2;
            let pid = if told == 2 {
                // SAFETY: the child uses this mutator only.
                unsafe { mutator.fork(|| libc::fork()) }.unwrap()
            } else {
                mutator.outside(|| {
                    // SAFETY: as above.
                    let ready = unsafe { heap.prepare_fork() }.unwrap();
                    // SAFETY: as above.
                    let pid = unsafe { libc::fork() };
                    drop(ready);
                    pid
                })
            };
            if pid == 0 {
                end(|| {
                    assert_eq!(world.forked.load(Ordering::Relaxed), told);
                    forks::work(&mut mutator, 1);
                });
            }
            wait(pid, &format!("fork {n}"));
            assert_eq!(world.forked.load(Ordering::Relaxed), 0);
        }
        forks::work(&mut mutator, 1);
    });
}
