//! The first plan, driven by the toy runtime.

#![allow(clippy::unwrap_used, missing_docs)]

mod toy;

use heapwright::{Address, AllocError, Cause, FreeError, Options, WildWord, WordHeap};
use heapwright_os::{FaultPlan, FaultyPort, Port, real_port};
use std::collections::BTreeMap;
use std::sync::Arc;
use toy::{Findings, KEPT, KINDS, LEAF, NODE, Toy, WORDS, alloc, get, heap, root, set};

/// A list of `n` nodes of `bytes`: word 0 links, word 1 is the number.
fn list(heap: &WordHeap<Toy>, n: usize, bytes: usize) -> usize {
    let mut head = 0;
    for i in 0..n {
        let at = heap.vm().roots.lock().unwrap().len();
        root(heap, head);
        let node = alloc(heap, NODE, bytes).unwrap();
        heap.vm().roots.lock().unwrap().truncate(at);
        set(node, 0, head);
        set(node, 1, i);
        head = node;
    }
    head
}

fn check_list(mut head: usize, n: usize) {
    for i in (0..n).rev() {
        assert_eq!(get(head, 1), i);
        head = get(head, 0);
    }
    assert_eq!(head, 0);
}

#[test]
fn what_is_reachable_survives_and_the_rest_is_used_again() {
    for (verify, workers, stress) in [
        ("1", "1", "0"),
        ("1", "2", "0"),
        ("1", "4", "7"),
        ("0", "1", "3"),
    ] {
        let h = heap(&[
            ("verify", verify),
            ("workers", workers),
            ("stress", stress),
            ("nursery", "256k"),
        ]);
        let n = if stress == "0" { 20_000 } else { 500 };
        let kept = list(&h, n, 32);
        root(&h, kept);
        let before = h.collect(Cause::Requested).live_bytes;
        for _ in 0..20 {
            list(&h, n, 48);
        }
        let stats = h.collect(Cause::Requested);
        check_list(kept, n);
        assert_eq!(stats.violations, 0);
        assert!(
            stats.live_bytes < before + (256 << 10),
            "{} {}",
            stats.live_bytes,
            before
        );
        assert!(h.usage().heap_bytes < 64 * n + (8 << 20));
    }
}

#[test]
fn new_cells_are_zero_also_when_they_were_used_before() {
    let h = heap(&[("nursery", "64k")]);
    for round in 0..50 {
        for bytes in [16, 24, 100, 700, 4096, 5000, 100_000] {
            let node = alloc(&h, NODE, bytes).unwrap();
            for i in 0..bytes / 8 {
                assert_eq!(get(node, i), 0, "round {round}, {bytes} bytes, word {i}");
                set(node, i, usize::MAX);
            }
        }
    }
    assert!(h.collections() > 5);
}

#[test]
fn any_address_within_a_cell_finds_it() {
    let h = heap(&[]);
    for bytes in [1, 16, 17, 300, 3000, 4096, 4097, 70_000, 9 << 20] {
        let cell = alloc(&h, LEAF, bytes).unwrap();
        for inner in [0, 1, bytes / 2, bytes - 1] {
            let found = h.cell(WildWord::new(cell + inner)).unwrap();
            assert_eq!(found.start.as_usize(), cell);
            assert!(found.bytes >= bytes && found.kind == LEAF);
        }
        assert!(h.is_allocated(Address::new(cell)) && !h.is_allocated(Address::new(cell + 1)));
    }
    for stranger in [
        0,
        1,
        usize::MAX,
        &raw const h as usize,
        h.bounds().1.as_usize(),
    ] {
        assert_eq!(h.cell(WildWord::new(stranger)), None);
    }
}

#[test]
fn interior_pointers_follow_the_rule_of_the_heap() {
    let h = heap(&[("verify", "1")]);
    h.set_interior(false);
    assert!(h.register_displacement(8));
    assert!(!h.register_displacement(1 << 20));
    let holder = alloc(&h, NODE, 64).unwrap();
    root(&h, holder);
    let targets: Vec<usize> = (0..3).map(|_| alloc(&h, NODE, 64).unwrap()).collect();
    for (i, offset) in [0, 8, 16].into_iter().enumerate() {
        set(holder, i, targets[i] + offset);
    }
    h.collect(Cause::Requested);
    assert_eq!(
        [true, true, false],
        [0, 1, 2].map(|i| h.is_allocated(Address::new(targets[i])))
    );
    // Roots keep by any interior pointer.
    let rooted = alloc(&h, NODE, 64).unwrap();
    root(&h, rooted + 63);
    h.collect(Cause::Requested);
    assert!(h.is_allocated(Address::new(rooted)));
}

#[test]
fn large_objects_live_and_die_whole_and_their_pages_return() {
    let h = heap(&[("verify", "1")]);
    let kept = alloc(&h, NODE, 10 << 20).unwrap();
    root(&h, kept);
    let inner = alloc(&h, NODE, 6 << 20).unwrap();
    set(kept, (10 << 20) / 8 - 1, inner + (5 << 20));
    for _ in 0..20 {
        alloc(&h, LEAF, 3 << 20).unwrap();
    }
    let stats = h.collect(Cause::Requested);
    assert_eq!(stats.violations, 0);
    assert_eq!(stats.live_bytes, 16 << 20);
    assert!(h.is_allocated(Address::new(inner)));
    set(kept, (10 << 20) / 8 - 1, 0);
    assert_eq!(h.collect(Cause::Requested).live_bytes, 10 << 20);
    let returned = h.return_idle_memory();
    assert!(returned > 1 << 20, "{returned}");
    assert_eq!(h.usage().heap_bytes, 10 << 20);
}

#[test]
fn with_only_its_first_page_an_object_is_kept_by_pointers_there_alone() {
    let h = heap(&[("verify", "1")]);
    let object = h.alloc_large(NODE, 20_000, 1, true).unwrap().as_usize();
    root(&h, object + 4095);
    h.collect(Cause::Requested);
    assert!(h.is_allocated(Address::new(object)));
    h.vm().roots.lock().unwrap()[0] = object + 4096;
    h.collect(Cause::Requested);
    assert!(!h.is_allocated(Address::new(object)));
}

#[test]
fn kinds_that_are_not_collected_are_roots_until_freed() {
    let h = heap(&[("verify", "1")]);
    let kept = alloc(&h, KEPT, 40).unwrap();
    let target = alloc(&h, NODE, 40).unwrap();
    set(kept, 0, target);
    h.collect(Cause::Requested);
    assert!(h.is_allocated(Address::new(target)));
    h.free(Address::new(kept)).unwrap();
    h.collect(Cause::Requested);
    assert!(!h.is_allocated(Address::new(target)));
}

#[test]
fn free_takes_starts_of_allocated_cells_only() {
    let h = heap(&[]);
    let small = alloc(&h, NODE, 100).unwrap();
    let large = alloc(&h, NODE, 100_000).unwrap();
    for cell in [small, large] {
        assert_eq!(h.free(Address::new(cell + 16)), Err(FreeError::Interior));
        assert!(h.free(Address::new(cell)).unwrap() >= 64);
        assert!(matches!(
            h.free(Address::new(cell)),
            Err(FreeError::NotAllocated | FreeError::Foreign)
        ));
    }
    for stranger in [0, 8, usize::MAX, &raw const h as usize] {
        assert_eq!(h.free(Address::new(stranger)), Err(FreeError::Foreign));
    }
    // What is freed in a full block is handed out again without a collection.
    h.disable();
    let cells: Vec<usize> = (0..100_000).map(|_| alloc(&h, LEAF, 16).unwrap()).collect();
    let used = h.usage().heap_bytes;
    for cell in &cells {
        h.free(Address::new(*cell)).unwrap();
    }
    for _ in 0..90_000 {
        alloc(&h, LEAF, 16).unwrap();
    }
    assert!(h.usage().heap_bytes <= used + (64 << 10));
    assert!(h.enable() && !h.enable());
}

#[test]
fn at_the_limit_there_is_an_error_and_the_heap_lives_on() {
    let h = heap(&[("max", "8m"), ("verify", "1")]);
    let mut kept = 0;
    let error = loop {
        match alloc(&h, NODE, 1000) {
            Ok(node) => {
                set(node, 0, kept);
                kept = node;
                h.vm().roots.lock().unwrap().clear();
                root(&h, kept);
            }
            Err(e) => break e,
        }
    };
    assert_eq!(error, AllocError::OutOfMemory { requested: 1024 });
    assert!(matches!(
        alloc(&h, NODE, 1 << 40),
        Err(AllocError::OutOfMemory { .. })
    ));
    assert!(matches!(
        alloc(&h, NODE, usize::MAX),
        Err(AllocError::Unsatisfiable { .. })
    ));
    assert!(h.usage().heap_bytes <= 8 << 20 && h.usage().live_bytes > 7 << 20);
    h.vm().roots.lock().unwrap().clear();
    for _ in 0..100_000 {
        alloc(&h, NODE, 1000).unwrap();
    }
}

#[test]
fn aligned_cells_are_aligned() {
    let h = heap(&[]);
    for align in [1, 8, 16, 32, 64, 256, 1024, 4096, 8192, 1 << 20, 8 << 20] {
        for bytes in [1, 100, 5000, 100_000] {
            let cell = h.alloc_aligned(&h.vm().runs, NODE, bytes, align).unwrap();
            assert!(cell.is_aligned_to(align));
        }
    }
    assert!(h.alloc_aligned(&h.vm().runs, NODE, 16, 24).is_err());
}

#[test]
fn many_cells_come_as_a_chain_that_is_kept() {
    let h = heap(&[("verify", "1")]);
    let mut head = 0usize;
    // SAFETY: a local.
    let cells = unsafe { h.alloc_many(&h.vm().runs, NODE, 32, &raw mut head) }.unwrap();
    assert!(cells > 10);
    root(&h, head);
    h.collect(Cause::Requested);
    let mut seen = 0;
    while head != 0 {
        assert!(h.is_allocated(Address::new(head)));
        assert_eq!((get(head, 1), get(head, 2), get(head, 3)), (0, 0, 0));
        seen += 1;
        head = get(head, 0);
    }
    assert_eq!(seen, cells);
}

#[test]
fn weak_words_are_cleared() {
    let h = heap(&[]);
    let (a, b) = (alloc(&h, NODE, 16).unwrap(), alloc(&h, NODE, 16).unwrap());
    root(&h, a);
    *h.vm().weak.lock().unwrap() = vec![a, b];
    h.collect(Cause::Requested);
    assert_eq!(*h.vm().weak.lock().unwrap(), [a, 0]);
}

#[test]
fn flushed_runs_leave_nothing_behind() {
    let h = heap(&[("verify", "1")]);
    for bytes in (16..4096).step_by(100) {
        alloc(&h, NODE, bytes).unwrap();
    }
    h.flush(&h.vm().runs);
    let stats = h.collect(Cause::Requested);
    assert_eq!((stats.live_bytes, stats.violations), (0, 0));
    assert_eq!(h.usage().heap_bytes - h.usage().free_bytes, 0);
}

#[test]
fn the_verifier_finds_a_runtime_that_does_not_report_its_references() {
    let findings = Findings::default();
    let options = Options {
        verify: true,
        ..Options::default()
    };
    let h = WordHeap::<Toy>::builder()
        .options(options)
        .kinds(&KINDS)
        .listener(Box::new(findings.clone()))
        .build(Toy::default())
        .unwrap();
    let (a, b) = (alloc(&h, NODE, 16).unwrap(), alloc(&h, NODE, 16).unwrap());
    root(&h, a);
    set(a, 0, b);
    assert_eq!(h.collect(Cause::Requested).violations, 0);
    h.vm()
        .skip_scan
        .store(true, core::sync::atomic::Ordering::Relaxed);
    assert_eq!(h.collect(Cause::Requested).violations, 1);
    assert!(findings.0.lock().unwrap()[0].contains("WordVm rule 2"));
}

#[test]
fn a_plan_that_never_collects_does_not() {
    let h = heap(&[("plan", "nogc"), ("max", "4m")]);
    assert_eq!(h.collect(Cause::Requested).number, 0);
    let mut n = 0;
    while alloc(&h, NODE, 1024).is_ok() {
        n += 1;
    }
    assert!((3 << 10..=4 << 10).contains(&n), "{n}");
}

#[test]
fn every_refused_call_while_building_and_growing_is_an_error_and_the_next_try_works() {
    for errno in [12, 11, 1] {
        let mut at = 0;
        loop {
            let port = Arc::new(FaultyPort::new(
                real_port(),
                Some(FaultPlan {
                    op: None,
                    at,
                    times: 1,
                    errno,
                }),
            ));
            let built = WordHeap::<Toy>::builder()
                .kinds(&KINDS)
                .port(Arc::clone(&port) as Arc<dyn Port>)
                .build(Toy::default());
            let mut refused = usize::from(built.is_err());
            if let Ok(h) = built {
                let mut kept = 0;
                for i in 0..3000 {
                    let bytes = if i % 10 == 0 { 9000 } else { 64 };
                    let node = match alloc(&h, NODE, bytes) {
                        Ok(node) => node,
                        Err(_) => {
                            refused += 1;
                            alloc(&h, NODE, bytes).unwrap()
                        }
                    };
                    set(node, 0, kept);
                    set(node, 1, i);
                    kept = node;
                    h.vm().roots.lock().unwrap().clear();
                    root(&h, kept);
                    if i % 500 == 499 {
                        h.collect(Cause::Requested);
                    }
                }
                for i in (0..3000).rev() {
                    assert_eq!(get(kept, 1), i);
                    kept = get(kept, 0);
                }
            }
            assert!(refused <= 1);
            if port.failed() == 0 {
                assert!(at > 10, "{at}");
                break;
            }
            at += 1;
        }
    }
}

#[test]
fn two_heaps_live_side_by_side_and_give_everything_back() {
    let (a, b) = (heap(&[("verify", "1")]), heap(&[("workers", "2")]));
    let (la, lb) = (list(&a, 1000, 32), list(&b, 1000, 48));
    root(&a, la);
    root(&b, lb);
    a.collect(Cause::Requested);
    check_list(lb, 1000);
    b.collect(Cause::Requested);
    let range = a.bounds();
    drop(a);
    check_list(lb, 1000);
    // The addresses are free again.
    real_port()
        .reserve_at(range.0, range.1.diff(range.0))
        .unwrap();
    real_port().release(range.0, range.1.diff(range.0)).unwrap();
}

/// A graph that no list is: each node refers to four of the nodes, some of them by pointers behind the start, and to leaves.
/// Gives the nodes; the first reaches all.
fn tangle(h: &WordHeap<Toy>, n: usize, displacement: usize) -> Vec<usize> {
    let nodes: Vec<usize> = (0..n)
        .map(|i| alloc(h, if i % 2 == 0 { NODE } else { WORDS }, 64).unwrap())
        .collect();
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    for (i, node) in nodes.iter().enumerate() {
        for (word, target) in [2 * i + 1, 2 * i + 2].into_iter().enumerate() {
            if let Some(target) = nodes.get(target) {
                set(*node, word, target + displacement);
            }
        }
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        set(*node, 2, nodes[seed as usize % n]);
        set(*node, 3, i);
    }
    nodes
}

fn check_tangle(nodes: &[usize], displacement: usize) {
    for (i, node) in nodes.iter().enumerate() {
        assert_eq!(get(*node, 3), i);
        if let Some(target) = nodes.get(2 * i + 1) {
            assert_eq!(get(*node, 0), target + displacement);
        }
        let leaf = get(*node, 4);
        if leaf != 0 {
            assert_eq!(get(leaf, 0), i);
        }
    }
}

#[test]
fn every_rule_for_pointers_into_cells_keeps_what_it_should() {
    // The displacement, and whether only registered ones count: anywhere, in the first granule, beyond it.
    for (displacement, all) in [(40, true), (0, false), (5, false), (24, false)] {
        for workers in ["1", "3"] {
            let h = heap(&[("verify", "1"), ("workers", workers), ("heap", "64m")]);
            h.set_interior(all);
            if !all {
                assert!(h.register_displacement(displacement));
            }
            let nodes = tangle(&h, 30_000, displacement);
            for (i, node) in nodes.iter().enumerate().step_by(7) {
                let leaf = alloc(&h, LEAF, 16).unwrap();
                set(leaf, 0, i);
                set(*node, 4, leaf);
            }
            root(&h, nodes[0]);
            for _ in 0..3 {
                let stats = h.collect(Cause::Requested);
                assert_eq!(stats.violations, 0);
                assert!(stats.marked_cells >= 30_000 + 30_000 / 7);
                check_tangle(&nodes, displacement);
            }
            // A pointer that the rule does not know keeps nothing.
            if !all {
                for node in &nodes {
                    set(*node, 0, 0);
                    set(*node, 1, 0);
                    set(*node, 2, nodes[1] + 16 + displacement);
                    set(*node, 4, 0);
                }
                assert!(h.collect(Cause::Requested).marked_cells < 1000);
            }
        }
    }
}

#[test]
fn a_mark_stack_that_cannot_grow_loses_nothing() {
    for workers in ["1", "2"] {
        let port = Arc::new(FaultyPort::new(real_port(), None));
        let mut options = Options::default();
        for (name, value) in [("verify", "1"), ("workers", workers), ("heap", "256m")] {
            options.set(name, value).unwrap();
        }
        let h = WordHeap::<Toy>::builder()
            .options(options)
            .kinds(&KINDS)
            .port(Arc::clone(&port) as Arc<dyn Port>)
            .build(Toy::default())
            .unwrap();
        // One object that refers to all nodes: the stack would have to hold most of them.
        let n = 100_000;
        let nodes = tangle(&h, n, 0);
        let all = alloc(&h, NODE, n * 8).unwrap();
        for (i, node) in nodes.iter().enumerate() {
            set(all, i, *node);
        }
        root(&h, all);
        port.set(Some(FaultPlan {
            op: Some(heapwright_os::Op::Commit),
            at: 0,
            times: usize::MAX,
            errno: 12,
        }));
        for _ in 0..2 {
            let stats = h.collect(Cause::Requested);
            assert_eq!(stats.violations, 0);
            assert!(stats.marked_cells > n);
            check_tangle(&nodes, 0);
        }
        assert!(port.failed() > 0, "the stack asked for room");
    }
}

#[test]
fn cells_are_counted_as_they_are_visited() {
    let h = heap(&[("nursery", "64k")]);
    for round in 0..300 {
        for bytes in [16, 24, 100, 700, 4096, 5000, 100_000] {
            let node = alloc(&h, NODE, bytes).unwrap();
            if round % 3 == 0 {
                root(&h, node);
            }
        }
    }
    let (mut visited, mut counted) = (BTreeMap::new(), BTreeMap::new());
    h.lock();
    h.for_each_allocated(|cell| *visited.entry(cell.bytes).or_insert(0) += 1);
    h.count_allocated(|bytes, cells| *counted.entry(bytes).or_insert(0) += cells);
    h.unlock();
    counted.retain(|_, cells| *cells != 0);
    assert_eq!(counted, visited);
    assert!(counted.len() >= 6 && counted.values().all(|cells| *cells >= 100));
}
