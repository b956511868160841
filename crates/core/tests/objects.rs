//! Heaps of objects, from the outside: the example on every plan, kinds of allocation, slots, limits, failures of the system,
//! several heaps in one process.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[allow(unreachable_pub, reason = "an example is a crate of its own")]
#[path = "../examples/pairs.rs"]
mod pairs;

#[allow(unreachable_pub, reason = "an example is a crate of its own")]
#[path = "../examples/toy.rs"]
mod toy;

use heapwright::alloc::{After, Cursor};
use heapwright::{
    Address, AllocError, Builder, CompressedSlots, Metadata, Mutator, ObjectReference, Options,
    PlanName, RootVisitor, SlotFormat, SlotVisitor, TaggedSlots, Vm, WeakLookup, WeakVisitor,
    WildWord, WordSlots, World,
};
use heapwright_os::{FaultPlan, FaultyPort, real_port};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

const ENOMEM: i32 = 12;

const COLLECTING: [PlanName; 10] = [
    PlanName::MarkSweep,
    PlanName::SemiSpace,
    PlanName::MarkCompact,
    PlanName::Immix,
    PlanName::GenCopy,
    PlanName::GenImmix,
    PlanName::StickyImmix,
    PlanName::StickyMarkSweep,
    PlanName::ConcurrentImmix,
    PlanName::PageProtect,
];

#[test]
fn the_toy_runtime_works_on_every_plan_with_two_threads() {
    for plan in PlanName::ALL {
        let (lengths, collections) = toy::threads(plan).unwrap();
        assert_eq!(lengths, [1000, 1000], "{plan}");
        let roomy = matches!(plan, PlanName::NoGc | PlanName::PageProtect);
        assert!(collections > 0 || roomy, "{plan}");
    }
}

#[test]
fn the_example_runs_on_every_plan() {
    for plan in PlanName::ALL {
        let (length, collections) = pairs::run(plan).unwrap();
        let kept = if plan == PlanName::PageProtect {
            100
        } else {
            10_000
        };
        assert_eq!(length, kept, "{plan}");
        assert!(plan == PlanName::NoGc || plan == PlanName::PageProtect || collections > 0);
    }
}

/// A runtime of arrays of references in any format: a header with the length, then the slots. The first root of a thread is
/// the only one.
struct Arrays<S: SlotFormat>(S);

// SAFETY: 1, 2: the header has the length. 3: the thread's words. 4: no header bits. 5: through the barrier. 6: nothing allocates.
unsafe impl<S: SlotFormat> Vm for Arrays<S> {
    type Thread = Vec<usize>;
    type Slots = S;
    const OBJECT_MAP: bool = true;

    fn slots(&self) -> S {
        self.0
    }

    fn size(&self, object: ObjectReference) -> usize {
        // SAFETY: an object begins with its length.
        let length = unsafe { object.to_address().load::<usize>() };
        (8 + length * S::BYTES).max(16)
    }

    fn scan<V: SlotVisitor>(&self, object: ObjectReference, visit: &mut V) {
        // SAFETY: as in `size`.
        let length = unsafe { object.to_address().load::<usize>() };
        visit.slots(object.to_address().add(8), length);
    }

    fn thread_roots<R: RootVisitor>(&self, thread: &mut Vec<usize>, visit: &mut R) {
        visit.slots(Address::from_ptr(thread.as_ptr()), thread.len());
    }
}

fn options(plan: PlanName, max: usize) -> Options {
    Options {
        plan,
        max,
        verify: true,
        ..Options::default()
    }
}

/// Builds a chain of arrays in which each refers to the one before at its middle, with garbage in between; follows it.
fn chain<S: SlotFormat>(slots: S, plan: PlanName) {
    let heap = Builder::default()
        .options(options(plan, 8 << 20))
        .build(Arrays(slots))
        .unwrap();
    let mut mutator = heap.attach(vec![0]).unwrap();
    let count = if plan == PlanName::PageProtect {
        50
    } else {
        3000
    };
    for link in 0..count {
        for (index, length) in [3, 40, 7 + link % 50].into_iter().enumerate() {
            let object = mutator.alloc(8 + length * S::BYTES).unwrap();
            // SAFETY: a new object of that length.
            unsafe { object.to_address().store(length) };
            if index != 1 {
                let slot = object.to_address().add(8 + length / 2 * S::BYTES);
                let before = mutator.thread()[0];
                if let Some(before) = ObjectReference::from_address(Address::new(before)) {
                    // SAFETY: a slot of the new object; `before` is a root.
                    unsafe { mutator.write(object, slot, before) };
                }
                mutator.thread()[0] = object.to_address().as_usize();
            }
        }
    }
    assert!(mutator.collect().is_none_or(|s| s.violations == 0));
    let mut at = ObjectReference::from_address(Address::new(mutator.thread()[0]));
    let mut found = 0;
    while let Some(object) = at {
        assert!(heap.is_object(WildWord::new(object.to_address().as_usize())));
        let inside = WildWord::new(object.to_address().as_usize() + 9);
        assert_eq!(heap.object_around(inside), Some(object), "{plan}");
        // SAFETY: reachable objects.
        at = unsafe {
            let length: usize = object.to_address().load();
            slots.load(object.to_address().add(8 + length / 2 * S::BYTES))
        };
        found += 1;
    }
    assert_eq!(found, count * 2, "{plan}");
}

#[test]
fn tagged_slots_on_every_plan() {
    for plan in COLLECTING {
        chain(TaggedSlots { tag: 5 }, plan);
    }
}

/// Where the system puts a heap is not known before it is built: a distance of 35 bits is enough for any base near it.
#[test]
fn compressed_slots_on_every_plan() {
    for plan in COLLECTING {
        // Found by building a heap and dropping it: the next one is near.
        let probe = Builder::default()
            .options(options(plan, 8 << 20))
            .build(Arrays(TaggedSlots { tag: 5 }))
            .unwrap();
        let object = probe.attach(vec![0]).unwrap().alloc(16).unwrap();
        drop(probe);
        let base = Address::new(object.to_address().as_usize().saturating_sub(16 << 30));
        chain(CompressedSlots { base, shift: 3 }, plan);
    }
}

#[test]
fn what_never_moves_is_aligned_and_stays() {
    for plan in COLLECTING {
        let heap = Builder::default()
            .options(options(plan, 16 << 20))
            .build(Arrays(TaggedSlots { tag: 5 }))
            .unwrap();
        let mut mutator = heap.attach(vec![0; 6]).unwrap();
        let mut before = Vec::new();
        for (root, align) in [16, 64, 1024, 4096, 1 << 16].into_iter().enumerate() {
            let object = mutator.alloc_aligned(100, align, 0).unwrap();
            assert_eq!(object.to_address().as_usize() % align, 0);
            mutator.thread()[root] = object.to_address().as_usize();
        }
        let object = mutator.alloc_unmoving(200).unwrap();
        mutator.thread()[5] = object.to_address().as_usize();
        before.extend_from_slice(mutator.thread());
        mutator.collect();
        mutator.collect();
        assert_eq!(*mutator.thread(), before, "{plan}");
        assert!(matches!(
            mutator.alloc_aligned(8, 24, 0),
            Err(AllocError::Unsatisfiable { .. })
        ));
        assert!(matches!(
            mutator.alloc(usize::MAX - 3),
            Err(AllocError::Unsatisfiable { .. } | AllocError::OutOfMemory { .. })
        ));
    }
}

/// What a heap says of an object that is to have a field aligned, and of addresses around it.
fn check_placed(heap: &heapwright::Heap<Arrays<WordSlots>>, object: usize, bytes: usize) {
    let word = WildWord::new;
    assert!(heap.is_object(word(object)));
    assert!(!heap.is_object(word(object - 8)) && !heap.is_object(word(object + 8)));
    for inner in [0, 1, 8, bytes - 1] {
        let found = heap.object_around(word(object + inner)).unwrap();
        assert_eq!(found.to_address().as_usize(), object, "{inner} behind");
    }
    let before = heap.object_around(word(object - 1));
    assert!(before.is_none_or(|o| o.to_address().as_usize() != object));
}

#[test]
fn a_field_can_be_aligned() {
    const BYTES: [usize; 5] = [16, 24, 200, 2048, 20_000];
    for plan in COLLECTING {
        let heap = Builder::default()
            .options(options(plan, 64 << 20))
            .build(Arrays(WordSlots))
            .unwrap();
        let mut mutator = heap.attach(vec![0; 500]).unwrap();
        let (mut root, mut placed) = (0, Vec::new());
        for align in [8, 16, 32, 64, 256, 1024, 4096, 1 << 14] {
            for offset in [0, 8, 16, 24, 56, 4104, align - 8] {
                for bytes in BYTES {
                    let object = mutator.alloc_aligned(bytes, align, offset).unwrap();
                    let at = object.to_address().as_usize();
                    assert_eq!((at + offset) % align, 0, "{plan}: {at:x} {align} {offset}");
                    let length = (bytes - 8) / 8;
                    for word in 0..length {
                        // SAFETY: a field of the new object.
                        let field =
                            unsafe { object.to_address().add(8 + word * 8).load::<usize>() };
                        assert_eq!(field, 0, "{plan}: not zeroed");
                    }
                    // SAFETY: the new object's first word and its last field.
                    unsafe { object.to_address().store(length) };
                    let last = object.to_address().add(length * 8);
                    // SAFETY: as above.
                    unsafe { mutator.write(object, last, object) };
                    // Every other one lives.
                    root += 1;
                    if root % 2 == 0 {
                        mutator.thread()[root / 2] = at;
                        placed.push((at, bytes));
                    }
                    check_placed(&heap, at, bytes);
                }
            }
        }
        let before = mutator.thread().clone();
        for _ in 0..3 {
            mutator.collect();
            assert_eq!(*mutator.thread(), before, "{plan}");
            for &(at, bytes) in &placed {
                check_placed(&heap, at, bytes);
                let (length, object) = (Address::new(at), Address::new(at + (bytes - 8) / 8 * 8));
                // SAFETY: an object that lives.
                let found = unsafe { (length.load::<usize>(), object.load::<usize>()) };
                assert_eq!(found, ((bytes - 8) / 8, at), "{plan}");
            }
            let mut listed = HashSet::new();
            mutator.for_each_object(&mut |object| {
                listed.insert(object.to_address().as_usize());
            });
            assert!(placed.iter().all(|(at, _)| listed.contains(at)), "{plan}");
            assert_eq!(listed.len(), placed.len(), "{plan}");
        }
        for (align, offset) in [(24, 0), (64, 4), (0, 0), (1 << 60, 8)] {
            assert!(mutator.alloc_aligned(64, align, offset).is_err());
        }
    }
}

#[test]
fn a_full_heap_is_an_error_and_can_be_used_on() {
    for plan in COLLECTING {
        let heap = Builder::default()
            .options(options(plan, 1 << 20))
            .build(Arrays(TaggedSlots { tag: 5 }))
            .unwrap();
        let mut mutator = heap.attach(vec![0]).unwrap();
        let mut kept = 0;
        let error = loop {
            match mutator.alloc(8 + 8 * 8) {
                Ok(object) => {
                    // SAFETY: a new object of that length.
                    unsafe { object.to_address().store(8usize) };
                    let word = object.to_address().as_usize();
                    mutator.thread().push(word);
                    kept += 1;
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(error, AllocError::OutOfMemory { .. }), "{plan}");
        assert!(mutator.alloc(4 << 20).is_err());
        let least = if plan == PlanName::PageProtect {
            200
        } else {
            3000
        };
        assert!(kept > least, "{plan}: {kept} objects of 72 bytes in 1 MiB");
        mutator.thread().truncate(1);
        mutator.collect();
        assert!(mutator.alloc(72).is_ok(), "{plan}");
    }
}

#[test]
fn several_heaps_of_several_plans_side_by_side() {
    let heaps: Vec<_> = COLLECTING
        .iter()
        .cycle()
        .take(30)
        .map(|plan| {
            Builder::default()
                .options(options(*plan, 4 << 20))
                .build(Arrays(TaggedSlots { tag: 5 }))
                .unwrap()
        })
        .collect();
    std::thread::scope(|scope| {
        for heap in &heaps {
            scope.spawn(move || {
                let mut mutator = heap.attach(vec![0]).unwrap();
                for _ in 0..2000 {
                    let object = mutator.alloc(24).unwrap();
                    // SAFETY: a new object of two slots.
                    unsafe { object.to_address().store(2usize) };
                    mutator.thread()[0] = object.to_address().as_usize();
                }
                mutator.collect();
            });
        }
    });
}

#[test]
fn a_heap_starts_fast_and_small_and_gives_all_back() {
    let begin = Instant::now();
    let mut fastest = u128::MAX;
    for _ in 0..200 {
        let start = Instant::now();
        let heap = Builder::default()
            .options(options(PlanName::GenImmix, 512 << 20))
            .build(Arrays(TaggedSlots { tag: 5 }))
            .unwrap();
        let _ = heap.attach(vec![0]).unwrap().alloc(64).unwrap();
        fastest = fastest.min(start.elapsed().as_micros());
    }
    assert!(fastest < 20_000, "{fastest} us");
    // 200 heaps of 512 MiB would not fit into the address space limits of small systems, nor into this bound.
    assert!(begin.elapsed().as_secs() < 60);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let left = maps.lines().filter(|l| l.contains("heapwright")).count();
    // Other tests of this process have heaps at the same time; 200 lost ones would show.
    assert!(left < 1000, "{left} mappings of heaps are left");
}

/// Every call to the system fails once, in turn: building and using a heap gives errors as values, and the next try works.
#[test]
fn each_refusal_of_the_system_is_an_error() {
    for plan in COLLECTING {
        let mut nth = 0;
        let mut refusals = 0;
        loop {
            let port = Arc::new(FaultyPort::new(real_port(), None));
            port.set(Some(FaultPlan {
                op: None,
                at: nth,
                times: 1,
                errno: ENOMEM,
            }));
            let built = Builder::default()
                .options(options(plan, 8 << 20))
                .port(Arc::<FaultyPort>::clone(&port))
                .build(Arrays(TaggedSlots { tag: 5 }));
            if let Ok(heap) = built {
                let mut mutator = heap.attach(vec![0]).unwrap();
                let mut errors = 0;
                for _ in 0..200 {
                    match mutator.alloc(4000) {
                        Ok(object) => {
                            // SAFETY: a new object without slots.
                            unsafe { object.to_address().store(0usize) };
                            mutator.thread()[0] = object.to_address().as_usize();
                        }
                        Err(_) => errors += 1,
                    }
                }
                mutator.collect();
                assert!(errors <= 1, "{plan}: one refusal, {errors} errors");
            }
            if port.failed() == 0 {
                break;
            }
            refusals += port.failed();
            nth += 1;
            assert!(nth < 500, "{plan} makes more and more calls");
        }
        assert!(refusals > 10, "{plan}: {refusals}");
    }
}

const PARTS: usize = 5;

/// A runtime whose objects are a number and a reference, with roots and weak references in tables of several parts, and with a
/// list of objects that it keeps alive when they die, once, as finalizers do.
#[derive(Default)]
struct Tables {
    roots: [Mutex<Vec<usize>>; PARTS],
    weak: [Mutex<Vec<usize>>; PARTS],
    watched: Mutex<Vec<usize>>,
    ready: Mutex<Vec<usize>>,
    /// If it is not zero: the milliseconds that a part takes, and who took parts of roots and of weak references.
    slow: AtomicUsize,
    takers: [Mutex<HashSet<ThreadId>>; 2],
}

impl Tables {
    fn note(&self, which: usize) {
        let time = self.slow.load(Ordering::Relaxed);
        if time != 0 {
            std::thread::sleep(Duration::from_millis(time as u64));
            self.takers[which]
                .lock()
                .unwrap()
                .insert(std::thread::current().id());
        }
    }
}

fn object(word: usize) -> ObjectReference {
    ObjectReference::from_address(Address::new(word)).unwrap()
}

fn word(object: ObjectReference) -> usize {
    object.to_address().as_usize()
}

// SAFETY: 1, 2: all objects are alike. 3: the tables. 4: no header bits. 5: objects are written once, when they are new.
// 6: nothing allocates.
unsafe impl Vm for Tables {
    type Thread = ();
    type Slots = WordSlots;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, _: ObjectReference) -> usize {
        16
    }

    fn scan<V: SlotVisitor>(&self, object: ObjectReference, visit: &mut V) {
        visit.slot(object.to_address().add(8));
    }

    fn thread_roots<R: RootVisitor>(&self, (): &mut (), _: &mut R) {}

    fn roots<R: RootVisitor>(&self, visit: &mut R) {
        let ready = self.ready.lock().unwrap();
        visit.slots(Address::from_ptr(ready.as_ptr()), ready.len());
    }

    fn root_parts(&self) -> usize {
        PARTS
    }

    fn roots_of<R: RootVisitor>(&self, part: usize, visit: &mut R) {
        self.note(0);
        let roots = self.roots[part].lock().unwrap();
        visit.slots(Address::from_ptr(roots.as_ptr()), roots.len());
    }

    fn weak<W: WeakVisitor>(&self, visit: &mut W) {
        let mut ready = self.ready.lock().unwrap();
        self.watched.lock().unwrap().retain_mut(|at| {
            if let Some(now) = visit.get(object(*at)) {
                *at = word(now);
                return true;
            }
            ready.push(word(visit.keep(object(*at))));
            false
        });
    }

    fn weak_parts(&self) -> usize {
        PARTS
    }

    fn weak_of<W: WeakLookup>(&self, part: usize, visit: &mut W) {
        self.note(1);
        self.weak[part].lock().unwrap().retain_mut(|at| {
            let now = visit.get(object(*at));
            *at = now.map_or(0, word);
            now.is_some()
        });
    }
}

/// Roots and weak references in parts, and what is kept alive, on every plan, by one worker and by three.
#[test]
fn parts_of_roots_and_weak_references() {
    const COUNT: usize = 4000;
    for (plan, workers) in COLLECTING.into_iter().flat_map(|p| [(p, 1), (p, 3)]) {
        let heap = Builder::default()
            .options(Options {
                workers,
                ..options(plan, 64 << 20)
            })
            .build(Tables::default())
            .unwrap();
        let mut mutator = heap.attach(()).unwrap();
        let mut new = |number: usize, next: usize| {
            let made = mutator.alloc(16).unwrap();
            // SAFETY: a new object of two words; nothing was allocated since `next` was.
            unsafe {
                made.to_address().store(number << 8);
                made.to_address().add(8).store(next);
            }
            word(made)
        };
        // Object n is a root if n % 3 == 0, watched if n % 3 == 1, else only weak; each has a second one behind it. PageProtect
        // has a page for each.
        let count = if plan == PlanName::PageProtect {
            200
        } else {
            COUNT
        };
        for number in 0..count {
            let inner = new(count + number, 0);
            // The second allocation may move the first one: it is a root meanwhile.
            heap.vm().roots[0].lock().unwrap().push(inner);
            let outer = new(number, 0);
            let inner = heap.vm().roots[0].lock().unwrap().pop().unwrap();
            // SAFETY: both are alive, and the outer one is new: no barrier is needed.
            unsafe { Address::new(outer + 8).store(inner) };
            let part = number % PARTS;
            match number % 3 {
                0 => heap.vm().roots[part].lock().unwrap().push(outer),
                1 => heap.vm().watched.lock().unwrap().push(outer),
                _ => {}
            }
            heap.vm().weak[part].lock().unwrap().push(outer);
        }
        let check = |list: &[usize], rest: usize| {
            for at in list {
                // SAFETY: they are kept alive.
                let (number, next): (usize, usize) =
                    unsafe { (Address::new(*at).load(), Address::new(*at + 8).load()) };
                assert_eq!((number >> 8) % 3, rest, "{plan}");
                // SAFETY: as above.
                let inner: usize = unsafe { Address::new(next).load() };
                assert_eq!(inner >> 8, (number >> 8) + count, "{plan}");
            }
        };
        for round in 0..3 {
            let stats = mutator.collect().unwrap();
            assert_eq!(stats.violations, 0, "{plan} {workers} {round}");
            let vm = heap.vm();
            let ready = vm.ready.lock().unwrap();
            assert_eq!(ready.len(), (count + 1) / 3, "{plan}");
            check(&ready, 1);
            assert!(vm.watched.lock().unwrap().is_empty());
            let mut alive = 0;
            for part in 0..PARTS {
                check(&vm.roots[part].lock().unwrap(), 0);
                alive += vm.weak[part].lock().unwrap().len();
            }
            // Roots, and what was kept.
            assert_eq!(alive, count.div_ceil(3) + (count + 1) / 3, "{plan}");
        }
        // What was kept may go now.
        heap.vm().ready.lock().unwrap().clear();
        assert_eq!(mutator.collect().unwrap().violations, 0);
        let left: usize = heap.vm().weak.iter().map(|w| w.lock().unwrap().len()).sum();
        assert_eq!(left, count.div_ceil(3), "{plan} {workers}");
    }
}

/// Parts are for all workers, though nothing is shared between them: each worker takes some as it comes.
#[test]
fn several_workers_take_parts() {
    for plan in COLLECTING {
        let heap = Builder::default()
            .options(Options {
                workers: 2,
                ..options(plan, 16 << 20)
            })
            .build(Tables::default())
            .unwrap();
        heap.vm().slow.store(2, Ordering::Relaxed);
        let mut mutator = heap.attach(()).unwrap();
        let begin = Instant::now();
        for which in [0, 1] {
            // A helper may not get a processor in time.
            while heap.vm().takers[which].lock().unwrap().len() < 2 {
                assert!(begin.elapsed().as_secs() < 60, "{plan} {which}");
                mutator.collect().unwrap();
            }
        }
    }
}

/// Allocates as generated code would, by what [`FastPath`] says.
fn by_fast_path<V: Vm>(mutator: &mut Mutator<V>, bytes: usize) -> Option<ObjectReference> {
    let path = mutator.fast_path();
    let bytes = bytes.next_multiple_of(path.align).max(path.least);
    if bytes > path.most {
        return None;
    }
    let record = mutator.record();
    let (at, bytes) = match path.cursor {
        Cursor::Record { offset } => (record.add(offset), bytes),
        Cursor::Runs {
            runs,
            first,
            stride,
            classes,
        } => {
            let class = classes[bytes / path.align];
            // SAFETY: the record has the address of the runs there.
            let runs: usize = unsafe { record.add(runs).load() };
            let run = Address::new(runs + first + class.class as usize * stride);
            (run, class.bytes as usize)
        }
    };
    // SAFETY: cursor and limit are two words of the record or of a run, of this thread's mutator.
    unsafe {
        let (cursor, limit): (usize, usize) = (at.load(), at.add(8).load());
        if bytes > limit - cursor {
            return None;
        }
        at.store(cursor + bytes);
        let object = object(cursor);
        match path.after {
            After::Nothing => {}
            After::StoreHeader { offset } => {
                object
                    .to_address()
                    .store(record.add(offset).load::<usize>());
            }
            After::Enter => mutator.enter_object(object),
        }
        Some(object)
    }
}

/// As [`Tables`], with header bits and one root: a list of numbers.
struct List;

// SAFETY: as for `Tables`; the number is in the header's upper bits.
unsafe impl Vm for List {
    type Thread = Vec<usize>;
    type Slots = WordSlots;
    const METADATA: Metadata = Metadata::Header;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, object: ObjectReference) -> usize {
        // SAFETY: an object begins with its number, which says its size.
        let number = unsafe { object.to_address().load::<usize>() } >> 8;
        16 + number % 20 * 8
    }

    fn scan<V: SlotVisitor>(&self, object: ObjectReference, visit: &mut V) {
        visit.slot(object.to_address().add(8));
    }

    fn thread_roots<R: RootVisitor>(&self, thread: &mut Vec<usize>, visit: &mut R) {
        visit.slots(Address::from_ptr(thread.as_ptr()), thread.len());
    }
}

#[test]
fn the_fast_path_can_be_followed_from_its_description() {
    for plan in PlanName::ALL {
        let max = if plan == PlanName::NoGc { 0 } else { 4 << 20 };
        let heap = Builder::default()
            .options(options(plan, max))
            .build(List)
            .unwrap();
        let mut mutator = heap.attach(vec![0]).unwrap();
        let (mut fast, mut slow) = (0, 0);
        let count = if plan == PlanName::PageProtect {
            300
        } else {
            20_000
        };
        for number in 0..count * 3 {
            let bytes = 16 + number % 20 * 8;
            let new = match by_fast_path(&mut mutator, bytes) {
                Some(new) => {
                    fast += 1;
                    new
                }
                None => {
                    slow += 1;
                    mutator.alloc(bytes).unwrap()
                }
            };
            // SAFETY: a new object. Its header's low bits are the heap's.
            unsafe {
                let header: usize = new.to_address().load();
                assert_eq!(header >> 8, 0, "{plan}");
                assert_eq!(new.to_address().add(8).load::<usize>(), 0, "{plan}");
                new.to_address().store(header | number << 8);
            }
            // Two of three are garbage.
            if number % 3 == 0 {
                let before = mutator.thread()[0];
                // SAFETY: a new object; `before` is a root.
                unsafe { new.to_address().add(8).store(before) };
                mutator.thread()[0] = word(new);
                if mutator.thread_ref()[0] != 0 && number % (count / 2) == 0 {
                    mutator.thread()[0] = 0;
                }
            }
        }
        assert!(mutator.collect().is_none_or(|s| s.violations == 0));
        let mut at = mutator.thread()[0];
        let mut last = usize::MAX;
        while at != 0 {
            // SAFETY: reachable objects.
            let (number, next): (usize, usize) =
                unsafe { (Address::new(at).load(), Address::new(at + 8).load()) };
            assert!(number >> 8 < last && (number >> 8) % 3 == 0, "{plan}");
            last = number >> 8;
            at = next;
        }
        if plan == PlanName::PageProtect {
            assert_eq!(fast, 0);
        } else {
            assert!(fast > slow, "{plan}: {fast} and {slow}");
        }
    }
}

#[test]
fn immortal_objects_stay_with_all_that_they_reach() {
    for plan in COLLECTING {
        let heap = Builder::default()
            .options(options(plan, 8 << 20))
            .build(List)
            .unwrap();
        let mut mutator = heap.attach(vec![0]).unwrap();
        let mut all = Vec::new();
        for number in 1..=50 {
            let made = mutator.alloc_immortal(16 + number % 20 * 8).unwrap();
            // SAFETY: a new object.
            unsafe { made.to_address().store(number << 8) };
            let inner = mutator.alloc(16 + (number + 100) % 20 * 8).unwrap();
            // SAFETY: a new object, and a field of one that never moves.
            unsafe {
                let header: usize = inner.to_address().load();
                inner.to_address().store(header | (number + 100) << 8);
                mutator.write(made, made.to_address().add(8), inner);
            }
            all.push(word(made));
            if number % 10 == 0 {
                assert!(mutator.collect_young().is_none_or(|s| s.violations == 0));
            }
        }
        for _ in 0..2 {
            assert_eq!(mutator.collect().unwrap().violations, 0, "{plan}");
        }
        for (index, at) in all.iter().enumerate() {
            // SAFETY: they live as long as the heap.
            unsafe {
                assert_eq!(Address::new(*at).load::<usize>() >> 8, index + 1, "{plan}");
                let inner: usize = Address::new(at + 8).load();
                assert_eq!(Address::new(inner).load::<usize>() >> 8, index + 101);
            }
        }
    }
}

/// The access that the process has to an address, as the system says.
fn access(at: usize) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| {
        let (low, high) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [low, high] = [low, high].map(|x| usize::from_str_radix(x, 16).unwrap());
        (low..high).contains(&at)
    });
    line.unwrap().split(' ').nth(1).unwrap().to_owned()
}

/// Code runs, other objects are not executable, and neither is code that has died.
#[test]
#[cfg(target_arch = "x86_64")]
fn code_is_executable_and_nothing_else_is() {
    for plan in COLLECTING {
        let heap = Builder::default()
            .options(options(plan, 8 << 20))
            .build(List)
            .unwrap();
        let mut mutator = heap.attach(vec![0, 0]).unwrap();
        assert!(mutator.alloc_code(64, 3).is_err());
        let code = match mutator.alloc_code(64, 1) {
            Ok(code) => code,
            // A hardened system.
            Err(AllocError::Os(_)) => return,
            Err(e) => panic!("{e}"),
        };
        // SAFETY: a new object of 64 bytes: header, no reference, and `mov eax, 42; ret`.
        unsafe {
            code.to_address().store(6usize << 8);
            code.to_address().add(16).store(0xc300_0000_2ab8_u64);
        }
        mutator.thread()[0] = word(code);
        let data = mutator.alloc(64).unwrap();
        // SAFETY: a new object.
        unsafe {
            let header: usize = data.to_address().load();
            data.to_address().store(header | 6 << 8);
        }
        mutator.thread()[1] = word(data);
        assert_eq!(mutator.collect().unwrap().violations, 0);
        assert_eq!(mutator.thread()[0], word(code), "code stays");
        // SAFETY: the code just written.
        let answer = unsafe {
            let run: extern "C" fn() -> i32 = core::mem::transmute(word(code) + 16);
            run()
        };
        assert_eq!(answer, 42);
        assert_eq!(access(word(code)), "rwxp");
        assert_eq!(access(mutator.thread()[1]), "rw-p");
        mutator.thread()[0] = 0;
        assert_eq!(mutator.collect().unwrap().violations, 0);
        assert!(!access(word(code)).contains('x'), "{plan}");
    }
}

/// Executable memory that the system refuses, or does not take back: an error, and its pages are not used again.
#[test]
fn a_system_that_refuses_code_is_an_error() {
    let port = Arc::new(FaultyPort::new(real_port(), None));
    let heap = Builder::default()
        .port(Arc::clone(&port) as Arc<dyn heapwright_os::Port>)
        .options(options(PlanName::Immix, 8 << 20))
        .build(List)
        .unwrap();
    let mut mutator = heap.attach(vec![0]).unwrap();
    // So that what follows commits nothing but code.
    let _ = mutator.alloc(16).unwrap();
    let refuse = |times| {
        port.set(Some(FaultPlan {
            op: Some(heapwright_os::Op::Commit),
            at: 0,
            times,
            errno: ENOMEM,
        }));
    };
    let used = heap.usage().used_bytes;
    refuse(1);
    let refused = mutator.alloc_code(64, 1);
    assert!(matches!(refused, Err(AllocError::Os(_))), "{refused:?}");
    assert_eq!(heap.usage().used_bytes, used);
    port.set(None);
    let code = mutator.alloc_code(64, 1).unwrap();
    // SAFETY: a new object.
    unsafe { code.to_address().store(6usize << 8) };
    // It dies, and the system does not take the permission back.
    refuse(1);
    assert_eq!(mutator.collect().unwrap().violations, 0);
    assert_eq!(port.failed(), 1);
    port.set(None);
    for _ in 0..10 {
        let other = mutator.alloc_code(64, 1).unwrap();
        assert_ne!(other, code, "its page is not used again");
        // SAFETY: a new object.
        unsafe { other.to_address().store(6usize << 8) };
    }
}

/// A runtime's own stopping: only the thread that holds a lock is inside.
#[derive(Default)]
struct OneLock {
    held: Mutex<bool>,
    freed: Condvar,
}

// SAFETY: 1: who closes is inside, so it holds the lock, and nobody else is. 2: never false. 3: the mutex. 4: it does not.
unsafe impl World for OneLock {
    fn enter(&self) {
        let mut held = self.held.lock().unwrap();
        while *held {
            held = self.freed.wait(held).unwrap();
        }
        *held = true;
    }

    fn leave(&self) {
        *self.held.lock().unwrap() = false;
        self.freed.notify_one();
    }

    fn stop(&self) {
        self.leave();
        std::thread::yield_now();
        self.enter();
    }

    fn close(&self, inside: bool, _: &dyn Fn()) -> bool {
        if !inside {
            self.enter();
        }
        true
    }

    fn open(&self, inside: bool) {
        if !inside {
            self.leave();
        }
    }
}

#[test]
fn a_runtime_may_stop_its_threads_by_its_own_lock() {
    for plan in COLLECTING {
        let world = Arc::new(OneLock::default());
        let heap = Builder::default()
            .world(Arc::clone(&world) as Arc<dyn World>)
            .options(options(plan, 8 << 20))
            .build(List)
            .unwrap();
        let count = if plan == PlanName::PageProtect {
            60
        } else {
            20_000
        };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut mutator = heap.attach(vec![0]).unwrap();
                    for number in 0..count {
                        let new = mutator.alloc(16 + number % 20 * 8).unwrap();
                        // SAFETY: a new object; what it refers to is a root.
                        unsafe {
                            let header: usize = new.to_address().load();
                            new.to_address().store(header | number << 8);
                            if number % 50 != 0 {
                                new.to_address().add(8).store(mutator.thread()[0]);
                            }
                        }
                        mutator.thread()[0] = word(new);
                        if number % 100 == 99 {
                            // Another thread's turn.
                            mutator.outside(std::thread::yield_now);
                        }
                    }
                    assert!(mutator.collect().is_none_or(|s| s.violations == 0));
                    let (mut at, mut length) = (mutator.thread()[0], 0);
                    while at != 0 {
                        // SAFETY: reachable objects.
                        at = unsafe { Address::new(at + 8).load() };
                        length += 1;
                    }
                    assert_eq!(length, (count - 1) % 50 + 1, "{plan}");
                });
            }
        });
    }
}
