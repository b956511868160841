//! A process that forks with heaps: the child has a working heap, and the parent does not notice.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod forks;
mod lists;

use forks::{Count, Over, alone, builder, end, fork, heap, wait, work};
use heapwright::{
    Builder, Event, FinalizerOrder, Fork, ForkError, ForkStep, Heap, HeapUsage, Listener,
    ObjectReference, PlanName, RootVisitor, SlotVisitor, Vm, WeakVisitor, WordSlots, Workers,
};
use lists::{COLLECTING, Lists, array, length, options, push};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// 112 forks for each of ten plans, with two other threads that allocate and one that asks for figures. Each child allocates,
/// collects with helpers of its own, and is verified.
#[test]
fn a_thousand_forks_under_load() {
    let _alone = alone();
    let begin = Instant::now();
    for plan in COLLECTING {
        let start = Instant::now();
        forks(plan, 112);
        eprintln!(
            "{plan}: {:.0} forks a second, each child collects",
            112.0 / start.elapsed().as_secs_f64()
        );
    }
    eprintln!("1,120 forks in {:?}", begin.elapsed());
}

fn forks(plan: PlanName, count: usize) {
    // Of one plan each object has a page, and the addresses of what died are not used again: it gets more of them, and is slower.
    let pages = plan == PlanName::PageProtect;
    let max = if pages { "512m" } else { "16m" };
    let settings = [("max", max), ("workers", "2"), ("verify", "1")];
    let heap = heap(plan, &settings);
    let most = heap.options().max;
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
                    if !pages || round < 40_000 {
                        push(&mut mutator, 1, 10).unwrap();
                    }
                    round += 1;
                    if pages {
                        mutator.outside(|| std::thread::sleep(Duration::from_micros(100)));
                    }
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
                assert!(used_bytes <= most);
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

/// The fork comes in the middle of a concurrent mark, which goes on in the child.
#[test]
fn a_fork_in_the_middle_of_a_concurrent_mark() {
    let _alone = alone();
    forks::in_the_middle_of_a_mark(20);
}

#[test]
fn what_a_thread_that_is_gone_remembered_is_not_forgotten() {
    let _alone = alone();
    forks::a_gone_thread_had_remembered();
}

#[test]
fn what_other_threads_held_is_not_traced_in_the_child_and_helpers_are_its_own() {
    let _alone = alone();
    for plan in COLLECTING {
        if plan != PlanName::PageProtect {
            forks::with_a_thread_inside(plan, 5);
        }
    }
}

#[test]
fn memory_goes_back_in_the_child_too() {
    let _alone = alone();
    forks::memory_goes_back_in_the_child();
}

#[test]
fn threads_outside_hold_no_lock_of_the_gate() {
    let _alone = alone();
    forks::the_gate_is_asked_meanwhile(60);
}

#[test]
fn threads_outside_hold_no_lock_of_a_weak_map() {
    let _alone = alone();
    forks::maps_are_asked_meanwhile(40);
}

#[test]
fn threads_outside_hold_no_lock_of_the_listener() {
    let _alone = alone();
    forks::a_listener_is_told_meanwhile(20);
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

/// What a listener hears of forks.
#[derive(Default)]
struct Steps(Mutex<Vec<ForkStep>>);

impl Listener for Steps {
    fn event(&self, _: Event<'_>) {}

    fn fork(&self, step: ForkStep) {
        self.0.lock().unwrap().push(step);
    }
}

#[test]
fn listeners_hear_of_a_fork_on_both_sides() {
    let _alone = alone();
    let steps = Arc::new(Steps::default());
    let heap = Builder::default()
        .options(options(PlanName::Immix, &[("max", "16m")]))
        .listener(Box::new((Some(Arc::clone(&steps)), Count)))
        .build(Lists)
        .unwrap();
    let mut mutator = heap.attach(vec![0]).unwrap();
    let heard = |wanted: &[ForkStep]| assert_eq!(*steps.0.lock().unwrap(), wanted);
    fork(&mut mutator, "steps", |_| {
        heard(&[ForkStep::Before, ForkStep::Child])
    });
    heard(&[ForkStep::Before, ForkStep::Parent]);
}
