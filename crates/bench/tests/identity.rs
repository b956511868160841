//! Identity hashes, pins, and who is in the heap: on every plan, in both layouts, with one, two and four workers.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use heapwright::{Heap, ObjectReference, Options, PinError, Pinned, WildWord, plan};
use heapwright_bench::runtime::{Root, Runtime, Thread};
use heapwright_bench::vm::{Embedded, EmbeddedThread, Machine};
use std::collections::HashMap;

/// The plans that collect, but for the one that needs a page for each object.
fn plans() -> impl Iterator<Item = &'static str> {
    plan::ALL
        .iter()
        .filter(|p| p.collects && p.name != "pageprotect")
        .map(|p| p.name)
}

fn runtime<const HEADER: bool, const AMBIGUOUS: bool>(
    plan: &str,
    workers: usize,
    more: &[(&str, &str)],
) -> Embedded<HEADER, AMBIGUOUS> {
    let mut options = Options::default();
    options.set("plan", plan).unwrap();
    options.set("max", "24m").unwrap();
    options.set("workers", &workers.to_string()).unwrap();
    options.set("verify", "1").unwrap();
    options.set("poison", "1").unwrap();
    for (name, value) in more {
        options.set(name, value).unwrap();
    }
    Embedded(
        Heap::<Machine<HEADER, AMBIGUOUS>>::builder()
            .options(options)
            .build(Machine::default())
            .unwrap(),
    )
}

/// Runs `test` on every plan, in both layouts, with some numbers of workers.
macro_rules! everywhere {
    ($test:ident, $ambiguous:literal) => {
        for plan in plans() {
            for workers in [1, 2, 4] {
                for evacuate in ["fragmented", "all"] {
                    let more = [("evacuate", evacuate)];
                    let on_side = runtime::<false, $ambiguous>(plan, workers, &more);
                    $test(&on_side, plan);
                    assert_eq!(on_side.0.vm().record().1, 0, "{plan}");
                    let in_header = runtime::<true, $ambiguous>(plan, workers, &more);
                    $test(&in_header, plan);
                    assert_eq!(in_header.0.vm().record().1, 0, "{plan}");
                }
            }
        }
    };
}

const OBJECTS: usize = 3000;

/// An array of so many objects, of different sizes, on the stack. Each knows its number.
fn fill<const H: bool, const A: bool>(t: &mut EmbeddedThread<H, A>, count: usize) -> Root {
    let array = t.array(count).unwrap();
    let root = t.push(Some(array));
    for index in 0..count {
        let object = t.object(index % 3, 8 + index % 5 * 9).unwrap();
        let array = t.root(root).unwrap();
        t.set(array, index, Some(object));
        t.set_raw(object, 0, index as u64);
    }
    root
}

fn at<const H: bool, const A: bool>(
    t: &EmbeddedThread<H, A>,
    root: Root,
    index: usize,
) -> ObjectReference {
    t.get(t.root(root).unwrap(), index).unwrap()
}

/// Garbage between what lives.
fn litter<const H: bool, const A: bool>(t: &mut EmbeddedThread<H, A>) {
    for _ in 0..2000 {
        let _ = t.object(1, 40).unwrap();
    }
}

fn hashes_stay<const H: bool, const A: bool>(runtime: &Embedded<H, A>, plan: &str) {
    let mut thread = runtime.attach().unwrap();
    let t = &mut thread;
    let root = fill(t, OBJECTS);
    // A half is asked while young, a quarter later, a quarter never.
    let mut hashes: HashMap<usize, usize> = HashMap::new();
    let ask = |t: &mut EmbeddedThread<H, A>, indices: &mut dyn Iterator<Item = usize>| {
        let asked: Vec<(usize, usize)> = indices
            .map(|index| {
                let object = at(t, root, index);
                (index, t.mutator().identity_hash(object))
            })
            .collect();
        asked
    };
    hashes.extend(ask(t, &mut (0..OBJECTS).step_by(2)));
    for round in 0..5 {
        litter(t);
        if round % 2 == 0 {
            t.collect();
        } else {
            t.collect_young();
        }
        if round == 1 {
            hashes.extend(ask(t, &mut (1..OBJECTS).step_by(4)));
        }
        if round == 2 {
            t.mutator().collect_in_background();
        }
        for (index, hash) in &hashes {
            let object = at(t, root, *index);
            assert_eq!(t.raw(object, 0), *index as u64, "{plan}");
            assert_eq!(t.mutator().identity_hash(object), *hash, "{plan}: {index}");
        }
        // Some die, and others come where they were.
        let array = t.root(root).unwrap();
        for index in (round..OBJECTS).step_by(50) {
            t.set(array, index, None);
            hashes.remove(&index);
        }
        for index in (round..OBJECTS).step_by(50) {
            let object = t.object(index % 3, 8 + index % 5 * 9).unwrap();
            t.set_raw(object, 0, index as u64);
            let array = t.root(root).unwrap();
            t.set(array, index, Some(object));
        }
    }
    let different: std::collections::HashSet<usize> = hashes.values().copied().collect();
    assert!(different.len() * 10 > hashes.len() * 9, "{plan}");
    t.truncate(0);
}

#[test]
fn identity_hashes_stay_when_objects_move() {
    everywhere!(hashes_stay, false);
    everywhere!(hashes_stay, true);
}

#[test]
fn only_what_was_hashed_and_then_moved_is_larger() {
    for plan in plans() {
        let runtime = runtime::<true, false>(plan, 1, &[]);
        let mut thread = runtime.attach().unwrap();
        let t = &mut thread;
        let root = fill(t, 100);
        let sizes = |t: &EmbeddedThread<true, false>| -> Vec<usize> {
            (0..100)
                .map(|index| heapwright::Vm::size(runtime.0.vm(), at(t, root, index)))
                .collect()
        };
        let before = sizes(t);
        let places: Vec<ObjectReference> = (0..100).map(|i| at(t, root, i)).collect();
        for index in 0..50 {
            let object = at(t, root, index);
            let _ = t.mutator().identity_hash(object);
        }
        assert_eq!(sizes(t), before, "{plan}");
        for _ in 0..3 {
            t.collect();
            for (index, size) in sizes(t).into_iter().enumerate() {
                let moved = at(t, root, index) != places[index];
                let word = match (index < 50 && moved, plan) {
                    (true, "markcompact") | (false, _) => before[index],
                    (true, _) => (before[index] + 15) & !7,
                };
                assert_eq!(size, word, "{plan}: {index}");
            }
        }
    }
}

fn pins_hold<const H: bool, const A: bool>(runtime: &Embedded<H, A>, plan: &str) {
    let heap = &runtime.0;
    let mut thread = runtime.attach().unwrap();
    let t = &mut thread;
    let root = fill(t, OBJECTS);
    let guarded: Vec<_> = (0..40).map(|i| t.pin(at(t, root, i * 7))).collect();
    let counted: Vec<ObjectReference> = (0..40).map(|i| at(t, root, i * 7 + 1)).collect();
    let for_ever: Vec<ObjectReference> = (0..40).map(|i| at(t, root, i * 7 + 2)).collect();
    for object in &counted {
        assert_eq!(heap.pin_counted(*object), 1);
        assert_eq!(heap.pin_counted(*object), 2);
    }
    for object in &for_ever {
        heap.pin_for_ever(*object);
    }
    for round in 0..3 {
        litter(t);
        if round == 1 {
            t.collect_young();
        } else {
            t.collect();
        }
        for i in 0..40 {
            assert_eq!(at(t, root, i * 7), guarded[i].object(), "{plan}");
            assert_eq!(at(t, root, i * 7 + 1), counted[i], "{plan}");
            assert_eq!(at(t, root, i * 7 + 2), for_ever[i], "{plan}");
        }
    }
    let count = |count, for_ever| Some(Pinned { count, for_ever });
    assert_eq!(heap.pinned(for_ever[0]), count(0, true));
    assert_eq!(heap.unpin(for_ever[0]), Err(PinError::NotPinned));
    assert_eq!(heap.pinned(counted[0]), count(2, false));
    for object in &counted {
        assert_eq!(heap.unpin(*object), Ok(1));
        assert_eq!(heap.unpin(*object), Ok(0));
        assert_eq!(heap.unpin(*object), Err(PinError::NotPinned));
        assert_eq!(heap.pinned(*object), None);
    }
    let held = guarded[0].object();
    let second = heap.pin(held);
    assert_eq!(heap.pinned(held), count(2, false));
    drop(guarded);
    assert_eq!(heap.pinned(held), count(1, false));
    drop(second);
    assert_eq!(heap.pinned(held), None);
    // They die, and are forgotten: nothing is pinned for ever that is not there.
    t.truncate(0);
    t.collect();
    t.collect();
    if plan != "concurrentimmix" {
        assert!(for_ever.iter().all(|o| heap.pinned(*o).is_none()), "{plan}");
    }
}

#[test]
fn pins_hold_objects_and_are_counted() {
    everywhere!(pins_hold, false);
    everywhere!(pins_hold, true);
}

#[test]
fn pins_of_several_threads_are_counted_together() {
    let runtime = runtime::<true, false>("genimmix", 2, &[]);
    let mut thread = runtime.attach().unwrap();
    let root = fill(&mut thread, 1);
    let object = at(&thread, root, 0);
    let heap = &runtime.0;
    thread.outside(|| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        heap.pin_counted(object);
                    }
                    for _ in 0..999 {
                        heap.unpin(object).unwrap();
                    }
                });
            }
        });
    });
    assert_eq!(heap.pinned(object).unwrap().count, 4);
    thread.collect();
    assert_eq!(at(&thread, root, 0), object);
}

fn who_is_there<const H: bool>(runtime: &Embedded<H, true>, plan: &str) {
    let mut thread = runtime.attach().unwrap();
    let t = &mut thread;
    let root = fill(t, 500);
    litter(t);
    t.collect();
    t.collect();
    let census = t.mutator().census();
    let of = |name: &str| census.iter().find(|c| c.name == name).unwrap();
    assert_eq!(of("object").objects, 500, "{plan}");
    assert_eq!(of("array").objects, 1, "{plan}");
    assert_eq!(of("array").bytes, 8 + 500 * 8, "{plan}");
    assert_eq!(census[0].name, "object", "{plan}");
    let mut seen = 0;
    let heap = t.mutator().heap();
    for index in 0..500 {
        let object = at(t, root, index);
        let start = object.to_address();
        let size = heapwright::Vm::size(heap.vm(), object);
        assert!(heap.is_object(WildWord::new(start.as_usize())), "{plan}");
        for inside in [0, 8, size - 1] {
            let word = WildWord::new(start.as_usize() + inside);
            assert_eq!(heap.object_around(word), Some(object), "{plan}: {inside}");
        }
        assert!(
            !heap.is_object(WildWord::new(start.as_usize() + 8)),
            "{plan}"
        );
        seen += 1;
    }
    assert_eq!(seen, 500);
    for word in [0, 1, 8, usize::MAX, 0x1000] {
        assert!(!heap.is_object(WildWord::new(word)));
        assert_eq!(heap.object_around(WildWord::new(word)), None);
    }
    t.truncate(0);
}

#[test]
fn objects_are_found_counted_and_told_from_other_words() {
    everywhere!(who_is_there, true);
}
