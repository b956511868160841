//! What makes errors show: free memory that holds a pattern, everything moved, and threads that let others go first.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod toy;

use heapwright::space::poison::PATTERN;
use heapwright::{
    Address, Builder, Cause, Mutator, ObjectReference, Options, PlanName, RootVisitor, SlotVisitor,
    Vm, WordHeap, WordSlots,
};
use toy::{Findings, KINDS, LEAF, NODE, Toy, alloc, get, root, set};

/// Objects without references: the first word is the size.
struct Leaves;

// SAFETY: 1: the first word. 2: there are no fields. 3: the thread's words. 4: no header bits. 5, 6: nothing is written, nothing
// allocates.
unsafe impl Vm for Leaves {
    type Thread = Vec<usize>;
    type Slots = WordSlots;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, object: ObjectReference) -> usize {
        // SAFETY: an object begins with its size.
        unsafe { object.to_address().load() }
    }

    fn scan<V: SlotVisitor>(&self, _: ObjectReference, _: &mut V) {}

    fn thread_roots<R: RootVisitor>(&self, thread: &mut Vec<usize>, visit: &mut R) {
        visit.slots(Address::from_ptr(thread.as_ptr()), thread.len());
    }
}

fn options(settings: &[(&str, &str)]) -> Options {
    let mut options = Options::default();
    for (name, value) in settings {
        options.set(name, value).unwrap();
    }
    options
}

/// A new object, all of which is zero but its size.
fn new(mutator: &mut Mutator<Leaves>, bytes: usize) -> usize {
    let object = mutator.alloc(bytes).unwrap().to_address().as_usize();
    for word in 0..bytes / 8 {
        assert_eq!(get(object, word), 0, "word {word} of {bytes} bytes");
    }
    set(object, 0, bytes);
    object
}

#[test]
fn who_writes_to_a_dead_object_is_found() {
    for plan in PlanName::ALL {
        // PageProtect's dead cannot be touched, and NoGC has none.
        if matches!(plan, PlanName::PageProtect | PlanName::NoGc) {
            continue;
        }
        for bytes in [64, 2048, 5000, 20_000] {
            let heap = Builder::default()
                .options(options(&[
                    ("plan", plan.name()),
                    ("max", "8m"),
                    ("poison", "1"),
                    ("verify", "1"),
                ]))
                .build(Leaves)
                .unwrap();
            let mut mutator = heap.attach(Vec::new()).unwrap();
            for _ in 0..3 {
                let kept = new(&mut mutator, 64);
                mutator.thread().push(kept);
            }
            for _ in 0..10 {
                new(&mut mutator, 256);
            }
            let dead = new(&mut mutator, bytes);
            let stats = mutator.collect().unwrap();
            assert_eq!(stats.violations, 0, "{plan}");
            assert_eq!(get(dead, 1), PATTERN, "{plan}, {bytes} bytes");
            // The last word, too.
            assert_eq!(get(dead, bytes / 8 - 1), PATTERN, "{plan}, {bytes} bytes");

            set(dead, bytes / 8 - 1, 7);
            let found = mutator.collect().unwrap().violations;
            // What is behind the objects of a block that slid is filled, and nobody looks at it.
            let behind = plan == PlanName::MarkCompact && bytes <= 5000;
            assert_eq!(found, usize::from(!behind), "{plan}, {bytes} bytes");
            // It is said once.
            assert_eq!(mutator.collect().unwrap().violations, 0, "{plan}");

            // And memory is taken as ever.
            for round in 0..2000 {
                new(&mut mutator, 16 + round % 700 * 8);
                new(&mut mutator, bytes);
            }
            assert_eq!(mutator.collect().unwrap().violations, 0, "{plan}");
        }
    }
}

#[test]
fn it_is_also_found_when_the_memory_is_taken() {
    for plan in [PlanName::MarkSweep, PlanName::Immix, PlanName::SemiSpace] {
        let heap = Builder::default()
            .options(options(&[
                ("plan", plan.name()),
                ("max", "8m"),
                ("poison", "1"),
                ("verify", "1"),
            ]))
            .build(Leaves)
            .unwrap();
        let mut mutator = heap.attach(Vec::new()).unwrap();
        let kept = new(&mut mutator, 64);
        mutator.thread().push(kept);
        for _ in 0..10 {
            new(&mut mutator, 256);
        }
        let dead = new(&mut mutator, 2048);
        assert_eq!(mutator.collect().unwrap().violations, 0, "{plan}");
        set(dead, 200, 7);
        for _ in 0..300 {
            new(&mut mutator, 2048);
        }
        assert_eq!(mutator.collect().unwrap().violations, 1, "{plan}");
    }
}

#[test]
fn who_writes_to_a_dead_cell_of_words_is_found() {
    for explicitly in [false, true] {
        for (kind, bytes) in [(NODE, 64), (LEAF, 48), (NODE, 2048), (NODE, 20_000)] {
            let findings = Findings::default();
            let heap = WordHeap::<Toy>::builder()
                .options(options(&[("poison", "1"), ("verify", "1")]))
                .kinds(&KINDS)
                .listener(Box::new(findings.clone()))
                .build(Toy::default())
                .unwrap();
            for _ in 0..3 {
                root(&heap, alloc(&heap, NODE, 64).unwrap());
            }
            let dead = alloc(&heap, kind, bytes).unwrap();
            root(&heap, dead);
            heap.collect(Cause::Requested);
            set(dead, 1, 1);
            heap.vm().roots.lock().unwrap().pop();
            if explicitly {
                heap.free(Address::new(dead)).unwrap();
            } else {
                heap.collect(Cause::Requested);
            }
            assert_eq!(get(dead, 1), PATTERN);
            assert_eq!(heap.collect(Cause::Requested).violations, 0);

            set(dead, 1, 0);
            assert_eq!(heap.collect(Cause::Requested).violations, 1);
            let said = findings.0.lock().unwrap().pop().unwrap();
            assert!(said.contains("free memory was written to"), "{said}");
            // It is said once.
            assert_eq!(heap.collect(Cause::Requested).violations, 0);

            for bytes in [16, 64, 2048, 4096, 20_000] {
                for _ in 0..100 {
                    let node = alloc(&heap, NODE, bytes).unwrap();
                    for word in 0..bytes / 8 {
                        assert_eq!(get(node, word), 0);
                    }
                    set(node, 0, usize::MAX);
                }
            }
        }
    }
}

#[test]
fn everything_moves_that_can() {
    for plan in [
        PlanName::Immix,
        PlanName::GenImmix,
        PlanName::StickyImmix,
        PlanName::ConcurrentImmix,
    ] {
        for all in ["fragmented", "all"] {
            let heap = Builder::default()
                .options(options(&[
                    ("plan", plan.name()),
                    ("max", "16m"),
                    ("evacuate", all),
                    ("poison", "1"),
                    ("verify", "1"),
                ]))
                .build(Leaves)
                .unwrap();
            let mut mutator = heap.attach(Vec::new()).unwrap();
            for _ in 0..10_000 {
                let kept = new(&mut mutator, 64);
                mutator.thread().push(kept);
            }
            // Out of the nursery, where there is one.
            mutator.collect().unwrap();
            for _ in 0..3 {
                let before = mutator.thread().clone();
                let stats = mutator.collect().unwrap();
                let moved = before.iter().zip(mutator.thread().iter());
                let moved = moved.filter(|(a, b)| a != b).count();
                let wanted = if all == "all" { 10_000 } else { 0 };
                assert_eq!(moved, wanted, "{plan}");
                assert_eq!(stats.copied_bytes, wanted * 64, "{plan}");
                assert_eq!(stats.violations, 0, "{plan}");
            }
        }
    }
}

/// Of 20,000 objects every 20th is kept, full collections follow: gives how many of them moved.
fn moved_of_fragments(plan: PlanName, evacuate: &str) -> usize {
    let heap = Builder::default()
        .options(options(&[
            ("plan", plan.name()),
            ("max", "256m"),
            ("evacuate", evacuate),
            ("verify", "1"),
        ]))
        .build(Leaves)
        .unwrap();
    let mut mutator = heap.attach(Vec::new()).unwrap();
    for _ in 0..20_000 {
        let kept = new(&mut mutator, 64);
        mutator.thread().push(kept);
    }
    // Out of the nursery, where there is one.
    mutator.collect().unwrap();
    let mut position = 0;
    mutator.thread().retain(|_| {
        position += 1;
        position % 20 == 0
    });
    let before = mutator.thread().clone();
    for _ in 0..4 {
        let stats = mutator.collect().unwrap();
        assert_eq!(stats.violations, 0, "{plan}");
    }
    let now = mutator.thread();
    before
        .iter()
        .zip(now.iter())
        .filter(|(a, b)| a != b)
        .count()
}

#[test]
fn nothing_moves_where_that_is_asked_for() {
    for plan in PlanName::ALL {
        let info = heapwright::plan::info(plan);
        // GenImmix among them: it copies what survives its nursery, whatever is asked for.
        if !info.non_moving {
            let heap = Builder::default()
                .options(options(&[
                    ("plan", info.name),
                    ("max", "16m"),
                    ("evacuate", "never"),
                ]))
                .build(Leaves);
            let text = heap.err().unwrap().to_string();
            assert!(text.contains(info.name), "{text}");
            assert!(text.contains("evacuate"), "{text}");
            continue;
        }
        if plan != PlanName::NoGc {
            assert_eq!(moved_of_fragments(plan, "never"), 0, "{plan}");
        }
    }
    // And what is fragmented does move otherwise.
    assert!(moved_of_fragments(PlanName::Immix, "fragmented") > 500);
}

#[test]
fn without_the_option_nothing_is_filled() {
    let heap = Builder::default()
        .options(options(&[("plan", "immix"), ("max", "8m")]))
        .build(Leaves)
        .unwrap();
    let mut mutator = heap.attach(Vec::new()).unwrap();
    let dead = new(&mut mutator, 2048);
    mutator.collect().unwrap();
    assert_ne!(get(dead, 1), PATTERN);
}
