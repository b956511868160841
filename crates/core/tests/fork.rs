//! A process that forks with heaps: the child has a working heap, and the parent does not notice.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod lists;

use heapwright::{
    Builder, Event, FinalizerOrder, Fork, ForkError, Heap, HeapUsage, Listener, Mutator,
    ObjectReference, PlanName, RootVisitor, SlotVisitor, Vm, WeakVisitor, WordSlots, Workers,
};
use lists::{COLLECTING, Lists, array, length, options, push};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// One test at a time: a fork while the test harness starts a thread leaves locks of the standard library taken in the child.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the verifier found, in this process and those it comes from.
static FOUND: AtomicUsize = AtomicUsize::new(0);

struct Count;

impl Listener for Count {
    fn event(&self, event: Event<'_>) {
        if let Event::Violation(_) = event {
            FOUND.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn builder(plan: PlanName, settings: &[(&str, &str)]) -> Builder {
    Builder::default()
        .options(options(plan, settings))
        .listener(Box::new(Count))
}

fn heap(plan: PlanName, settings: &[(&str, &str)]) -> Heap<Lists> {
    builder(plan, settings).build(Lists).unwrap()
}

/// Ends the child: with 0 if `child` comes to its end.
fn end(child: impl FnOnce()) -> ! {
    // SAFETY: a child that hangs is killed by a timer of its own.
    unsafe { libc::alarm(20) };
    let fine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).is_ok();
    // SAFETY: ends the child without the parent's exit handlers.
    unsafe { libc::_exit(i32::from(!fine)) }
}

fn wait(pid: libc::pid_t, what: &str) {
    let mut status = 0;
    // SAFETY: waits for a child of this process.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(
        status, 0,
        "{what}: the child ended with wait status {status:#x}"
    );
}

/// Forks from a mutator, and runs `child` there.
fn fork(mutator: &mut Mutator<Lists>, what: &str, child: impl FnOnce(&mut Mutator<Lists>)) {
    // SAFETY: the child uses no other mutator.
    let pid = unsafe { mutator.fork(|| libc::fork()) }.unwrap();
    assert!(pid >= 0);
    if pid == 0 {
        end(|| child(mutator));
    }
    wait(pid, what);
}

/// Allocates and drops, and checks what lives.
fn work(mutator: &mut Mutator<Lists>, kept: usize) {
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

/// 112 forks for each of nine plans, with two other threads that allocate and one that asks for figures. Each child allocates,
/// collects with helpers of its own, and is verified.
#[test]
fn a_thousand_forks_under_load() {
    let _alone = alone();
    let begin = Instant::now();
    // Of one plan each object has a page, and what died stays inaccessible: under load there are soon too many mappings.
    for plan in COLLECTING {
        if plan == PlanName::PageProtect {
            continue;
        }
        let start = Instant::now();
        forks(plan, 112);
        eprintln!(
            "{plan}: {:.0} forks a second, each child collects",
            112.0 / start.elapsed().as_secs_f64()
        );
    }
    eprintln!("1,008 forks in {:?}", begin.elapsed());
}

fn forks(plan: PlanName, count: usize) {
    let settings = [("max", "16m"), ("workers", "2"), ("verify", "1")];
    let heap = heap(plan, &settings);
    let over = AtomicBool::new(false);
    let ready = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for thread in 0..2 {
            let (heap, over, ready) = (&heap, &over, &ready);
            scope.spawn(move || {
                let mut mutator = heap.attach(vec![0, 0]).unwrap();
                for _ in 0..200 {
                    push(&mut mutator, 0, 10).unwrap();
                }
                ready.fetch_add(1, Ordering::Release);
                let mut round = thread;
                while !over.load(Ordering::Relaxed) {
                    push(&mut mutator, 1, 10).unwrap();
                    round += 1;
                    if round % 200 == 0 {
                        mutator.thread()[1] = 0;
                        mutator.outside(std::thread::yield_now);
                    }
                    if round % 1000 == 0 {
                        mutator.collect_in_background();
                        assert_eq!(length(&mut mutator, 0), 200);
                    }
                }
            });
        }
        let (usage, stop, up) = (&heap, &over, &ready);
        scope.spawn(move || {
            up.fetch_add(1, Ordering::Release);
            while !stop.load(Ordering::Relaxed) {
                let HeapUsage { used_bytes, .. } = usage.usage();
                assert!(used_bytes <= 16 << 20);
                usage.set_limits(usage.limits()).unwrap();
                usage.external_freed(1);
                std::thread::yield_now();
            }
        });
        let mut mutator = heap.attach(vec![0, 0]).unwrap();
        for _ in 0..300 {
            push(&mut mutator, 0, 10).unwrap();
        }
        // Helpers and the thread that marks run.
        let _ = mutator.collect();
        mutator.outside(|| {
            while ready.load(Ordering::Acquire) < 3 {
                std::thread::yield_now();
            }
        });
        for n in 0..count {
            fork(&mut mutator, &format!("{plan}, fork {n}"), |mutator| {
                let begin = Instant::now();
                work(mutator, 300);
                assert!(begin.elapsed() < Duration::from_secs(15));
            });
            if n % 10 == 0 {
                assert_eq!(length(&mut mutator, 0), 300);
            }
        }
        work(&mut mutator, 300);
    });
}

/// The plan that has a page for each object, without load.
#[test]
fn forks_with_protected_pages() {
    let _alone = alone();
    let heap = heap(PlanName::PageProtect, &[("max", "64m"), ("verify", "1")]);
    let mut mutator = heap.attach(vec![0, 0]).unwrap();
    for _ in 0..20 {
        push(&mut mutator, 0, 10).unwrap();
    }
    for n in 0..20 {
        fork(&mut mutator, &format!("fork {n}"), |mutator| {
            work(mutator, 20)
        });
        let _ = mutator.collect();
    }
    work(&mut mutator, 20);
}

struct Over<'a>(&'a AtomicBool);
impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The fork comes in the middle of a concurrent mark, which is slowed down: in the child it goes on, and is completed by a thread of
/// the child's own. What was overwritten before lives as long as the mark needs it.
#[test]
fn a_fork_in_the_middle_of_a_concurrent_mark() {
    let _alone = alone();
    let settings = [("max", "32m"), ("verify", "1"), ("stress", "1000000")];
    let heap = heap(PlanName::ConcurrentImmix, &settings);
    let mut mutator = heap.attach(vec![0, 0]).unwrap();
    for _ in 0..3000 {
        push(&mut mutator, 0, 4).unwrap();
    }
    for n in 0..20 {
        mutator.collect_in_background();
        let marked = heap.usage().full_collections;
        fork(&mut mutator, &format!("fork {n}"), |mutator| {
            // Slow: it is not over yet.
            assert_eq!(heap.usage().full_collections, marked);
            let begin = Instant::now();
            while heap.usage().full_collections == marked {
                push(mutator, 1, 4).unwrap();
                mutator.thread()[1] = 0;
                mutator.poll();
                std::thread::yield_now();
                assert!(begin.elapsed() < Duration::from_secs(15), "the mark ends");
            }
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
#[test]
fn what_a_thread_that_is_gone_remembered_is_not_forgotten() {
    let _alone = alone();
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
                let old = ObjectReference::from_address(heapwright::Address::new(old)).unwrap();
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

/// Heaps with shared workers: all are made ready, by a thread that is inside of one, and has a mutator outside of another.
#[test]
fn several_heaps_are_made_ready_together() {
    let _alone = alone();
    let workers = Workers::new(2);
    let build = |plan| {
        builder(plan, &[("max", "16m"), ("workers", "2"), ("verify", "1")])
            .workers(&workers)
            .build(Lists)
            .unwrap()
    };
    let (first, second) = (build(PlanName::GenImmix), build(PlanName::ConcurrentImmix));
    let mut one = first.attach(vec![0, 0]).unwrap();
    let mut two = second.attach(vec![0, 0]).unwrap();
    push(&mut one, 0, 4).unwrap();
    push(&mut two, 0, 4).unwrap();
    let _ = (one.collect(), two.collect());
    for n in 0..20 {
        let pid = two.outside(|| {
            // SAFETY: the child uses this thread's mutators only.
            let ready = unsafe { (second.prepare_fork().unwrap(), one.prepare_fork().unwrap()) };
            // SAFETY: as above.
            let pid = unsafe { libc::fork() };
            drop(ready);
            pid
        });
        if pid == 0 {
            end(|| {
                work(&mut one, 1);
                work(&mut two, 1);
                // And a grandchild.
                fork(&mut one, "grandchild", |one| work(one, 1));
            });
        }
        wait(pid, &format!("fork {n}"));
        work(&mut one, 1);
        work(&mut two, 1);
    }
}

/// A child that drops its heap, with threads that it does not have.
#[test]
fn a_child_may_drop_its_heap() {
    let _alone = alone();
    for plan in [PlanName::MarkSweep, PlanName::ConcurrentImmix] {
        let heap = heap(plan, &[("max", "16m"), ("workers", "2")]);
        let mut mutator = heap.attach(vec![0, 0]).unwrap();
        push(&mut mutator, 0, 4).unwrap();
        let _ = mutator.collect();
        mutator.collect_in_background();
        // SAFETY: the child uses this mutator only.
        let pid = unsafe { mutator.fork(|| libc::fork()) }.unwrap();
        if pid == 0 {
            end(move || {
                work(&mut mutator, 1);
                drop(mutator);
                drop(heap);
            });
        }
        wait(pid, plan.name());
    }
}

// ---- forks where none may be ------------------------------------------------------------------------------------------------

/// A runtime that wants to fork in its hooks.
#[derive(Default)]
struct Forks {
    heap: OnceLock<Heap<Hooked>>,
    on: AtomicBool,
    refused: Mutex<Vec<&'static str>>,
    allowed: Mutex<Vec<&'static str>>,
}

#[derive(Clone, Default)]
struct Hooked(Arc<Forks>);

impl Hooked {
    fn attempt(&self, name: &'static str) {
        if !self.0.on.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: nobody forks.
        let list = match unsafe { self.0.heap.get().unwrap().prepare_fork() } {
            Ok(_) => &self.0.allowed,
            Err(ForkError::InCollection) => &self.0.refused,
            Err(e) => panic!("{e}"),
        };
        list.lock().unwrap().push(name);
    }
}

// SAFETY: as `Lists`; an attempt that is refused does nothing.
unsafe impl Vm for Hooked {
    type Thread = Vec<usize>;
    type Slots = WordSlots;
    const WEAK_TABLES: bool = true;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, object: ObjectReference) -> usize {
        Lists.size(object)
    }

    fn scan<S: SlotVisitor>(&self, object: ObjectReference, visit: &mut S) {
        self.attempt("scan");
        Lists.scan(object, visit);
    }

    fn thread_roots<R: RootVisitor>(&self, thread: &mut Vec<usize>, visit: &mut R) {
        self.attempt("roots");
        Lists.thread_roots(thread, visit);
    }

    fn weak_tables<W: WeakVisitor>(&self, _: &mut W) {
        self.attempt("weak tables");
    }

    fn weak<W: WeakVisitor>(&self, _: &mut W) {
        self.attempt("weak");
    }
}

/// In a method of the runtime that a collection calls, on any of its threads, an error says so, and nothing hangs.
#[test]
fn a_fork_in_a_collection_is_refused() {
    let _alone = alone();
    for plan in COLLECTING {
        let vm = Hooked::default();
        let heap = Builder::default()
            .options(options(plan, &[("max", "16m"), ("workers", "2")]))
            .build(vm.clone())
            .unwrap();
        assert!(vm.0.heap.set(heap.clone()).is_ok());
        let mut mutator = heap.attach(vec![0]).unwrap();
        for _ in 0..2000 {
            let object = mutator.alloc(16).unwrap();
            // SAFETY: a new object of two words, the second of which is a field of its own.
            unsafe {
                object.to_address().store(1usize);
                object.to_address().add(8).store(mutator.thread()[0]);
            }
            mutator.thread()[0] = object.to_address().as_usize();
        }
        vm.0.on.store(true, Ordering::Relaxed);
        let _ = mutator.collect();
        mutator.collect_in_background();
        let _ = mutator.collect();
        vm.0.on.store(false, Ordering::Relaxed);
        let refused = vm.0.refused.lock().unwrap();
        for name in ["scan", "roots", "weak tables", "weak"] {
            assert!(refused.contains(&name), "{plan}: {name}");
        }
        assert!(vm.0.allowed.lock().unwrap().is_empty());
        drop(refused);
        // SAFETY: nobody forks.
        drop(unsafe { mutator.prepare_fork() }.unwrap());
        // The runtime keeps its heap; let it go.
        drop(mutator);
        drop(heap);
    }
}

/// Finalizers are run by mutators between collections: they may fork.
#[test]
fn a_fork_in_a_finalizer() {
    let _alone = alone();
    let heap = heap(PlanName::Immix, &[("max", "16m"), ("verify", "1")]);
    let mut mutator = heap.attach(vec![0, 0]).unwrap();
    push(&mut mutator, 0, 4).unwrap();
    let dying = array(&mut mutator, 3).unwrap();
    mutator
        .add_finalizer(dying, FinalizerOrder::Together, 7)
        .unwrap();
    let _ = mutator.collect();
    let found = mutator.next_finalizable().unwrap();
    assert_eq!(found.token, 7);
    fork(&mut mutator, "finalizer", |mutator| {
        assert!(mutator.next_finalizable().is_none());
        work(mutator, 1);
    });
    work(&mut mutator, 1);
}

// ---- by handlers of the C library -------------------------------------------------------------------------------------------

thread_local! {
    /// What a front end keeps between its handlers: by the thread that forks.
    static READY: RefCell<Option<Fork<'static, Lists>>> = const { RefCell::new(None) };
}

static HEAP: OnceLock<Heap<Lists>> = OnceLock::new();

extern "C" fn before() {
    if let Some(heap) = HEAP.get() {
        // SAFETY: the test's children use no mutator of another thread.
        let ready = unsafe { heap.prepare_fork() }.ok();
        READY.with(|r| *r.borrow_mut() = ready);
    }
}

extern "C" fn after() {
    READY.with(|r| drop(r.borrow_mut().take()));
}

/// A front end, which has statics, has the C library call it at each fork, whoever forks.
#[test]
fn a_front_end_may_register_handlers() {
    let _alone = alone();
    heapwright_os::at_fork(before, after, after).unwrap();
    let heap = HEAP.get_or_init(|| {
        heap(
            PlanName::ConcurrentImmix,
            &[("max", "16m"), ("verify", "1")],
        )
    });
    let mut mutator = heap.attach(vec![0, 0]).unwrap();
    push(&mut mutator, 0, 4).unwrap();
    for _ in 0..10 {
        mutator.collect_in_background();
        // SAFETY: the child uses this mutator only.
        let pid = mutator.outside(|| unsafe { libc::fork() });
        if pid == 0 {
            end(|| work(&mut mutator, 1));
        }
        wait(pid, "handlers");
        work(&mut mutator, 1);
    }
}

// ---- what is shared ---------------------------------------------------------------------------------------------------------

/// Bytes of the process's own in mappings that can be shared: `Private_Dirty` of the mappings with a name.
fn private_dirty() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text
        .lines()
        .find(|l| l.starts_with("Private_Dirty"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        << 10
}

/// The same lists, with the collector's bits in the objects.
#[derive(Debug, Default)]
struct InHeaders;

// SAFETY: as `Lists`; the length is in the upper bits of the first word.
unsafe impl Vm for InHeaders {
    type Thread = Vec<usize>;
    type Slots = WordSlots;
    const METADATA: heapwright::Metadata = heapwright::Metadata::Header;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, object: ObjectReference) -> usize {
        // SAFETY: an object begins with its length, above eight bits of the heap's.
        let length = unsafe { object.to_address().load::<usize>() } >> 8;
        (8 + length * 8).max(16)
    }

    fn scan<S: SlotVisitor>(&self, object: ObjectReference, visit: &mut S) {
        // SAFETY: as in `size`.
        let length = unsafe { object.to_address().load::<usize>() } >> 8;
        visit.slots(object.to_address().add(8), length);
    }

    fn thread_roots<R: RootVisitor>(&self, thread: &mut Vec<usize>, visit: &mut R) {
        Lists.thread_roots(thread, visit);
    }
}

/// Builds 32 MiB of lists, forks, and has the child collect: how many bytes became its own.
fn made_private<V: Vm<Thread = Vec<usize>>>(vm: V, plan: PlanName, shift: u32) -> usize {
    let heap = Builder::default()
        .options(options(
            plan,
            &[("max", "256m"), ("huge", "off"), ("workers", "1")],
        ))
        .build(vm)
        .unwrap();
    let mut mutator = heap.attach(vec![0]).unwrap();
    for _ in 0..(32 << 20) / 128 {
        let object = mutator.alloc(128).unwrap().to_address();
        // SAFETY: a new object of 16 words: its header, and 15 fields.
        unsafe {
            let header = object.load::<usize>();
            object.store(header | (15 << shift));
            object.add(15 * 8).store(mutator.thread()[0]);
        }
        mutator.thread()[0] = object.as_usize();
    }
    let _ = mutator.collect();
    let mut pipe = [0; 2];
    // SAFETY: two descriptors are written.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    // SAFETY: the child uses this mutator only.
    let pid = unsafe { mutator.fork(|| libc::fork()) }.unwrap();
    if pid == 0 {
        end(|| {
            let before = private_dirty();
            let _ = mutator.collect();
            let grown = (private_dirty() - before).to_ne_bytes();
            // SAFETY: the bytes of a number.
            assert_eq!(unsafe { libc::write(pipe[1], grown.as_ptr().cast(), 8) }, 8);
        });
    }
    let mut grown = [0; 8];
    // SAFETY: room for eight bytes.
    let read = unsafe { libc::read(pipe[0], grown.as_mut_ptr().cast(), 8) };
    assert_eq!(read, 8);
    wait(pid, "measured");
    for end in pipe {
        // SAFETY: both are open.
        unsafe { libc::close(end) };
    }
    usize::from_ne_bytes(grown)
}

/// With marks in side tables a child that collects goes on sharing the objects' pages with its parent.
#[test]
fn a_child_that_collects_shares_objects_when_marks_are_in_side_tables() {
    let _alone = alone();
    for plan in [PlanName::Immix, PlanName::MarkSweep] {
        let side = made_private(Lists, plan, 0);
        let header = made_private(InHeaders, plan, 8);
        eprintln!(
            "{plan}: of 32 MiB that live, a collection in a child makes private: {} KiB with side tables, {} KiB with headers",
            side >> 10,
            header >> 10
        );
        assert!(side < 8 << 20, "{plan}: {side}");
        // Of cells the marks are in side tables in either case.
        if plan == PlanName::Immix {
            assert!(header > 3 * side, "{plan}: {side}, {header}");
        }
    }
}
