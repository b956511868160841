//! Heaps of words: sizing policies in place of the trigger's own rule, the soft limit, and what goes back to the system when the
//! runtime has it looked after.

#![allow(clippy::unwrap_used, missing_docs)]

mod toy;

use heapwright::{Cause, Machine, WordHeap};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use toy::{LEAF, Toy, alloc, heap, root};

const MIB: usize = 1 << 20;

/// Keeps so much alive.
fn fill(h: &WordHeap<Toy>, mebibytes: usize) {
    for _ in 0..mebibytes {
        for _ in 0..4096 {
            root(h, alloc(h, LEAF, 256).unwrap());
        }
    }
}

/// How many collections the program needs to allocate so much that dies at once.
fn collections(h: &WordHeap<Toy>, mebibytes: usize) -> u64 {
    let before = h.collections();
    for _ in 0..mebibytes * 4096 {
        alloc(h, LEAF, 256).unwrap();
    }
    h.collections() - before
}

#[test]
fn a_policy_decides_in_place_of_the_trigger() {
    let with = |settings: &[(&str, &str)]| {
        let h = heap(settings);
        fill(&h, 40);
        h.collect(Cause::Requested);
        collections(&h, 400)
    };
    let (small, large) = (
        with(&[("sizing", "factor:1.25")]),
        with(&[("sizing", "factor:5")]),
    );
    assert!((36..=46).contains(&small), "{small}");
    assert!((2..=4).contains(&large), "{large}");
    let fixed = with(&[("sizing", "fixed"), ("max", "120m")]);
    assert!((4..=8).contains(&fixed), "{fixed}");
    // Without a limit that is the trigger's rule.
    let (fixed, own) = (with(&[("sizing", "fixed")]), with(&[]));
    assert!(fixed.abs_diff(own) <= own / 3, "{fixed} {own}");
    for policy in ["cpu:5", "balance"] {
        let n = with(&[("sizing", policy)]);
        assert!((1..=80).contains(&n), "{policy}: {n}");
    }
}

#[test]
fn above_the_soft_limit_collections_come_often_and_nothing_is_refused() {
    let often = |soft: &str| {
        let h = heap(&[("soft", soft)]);
        fill(&h, 40);
        h.collect(Cause::Requested);
        let n = collections(&h, 100);
        (n, h)
    };
    let (without, h) = often("0");
    assert!(without < 40, "{without}");
    h.set_soft(30 * MIB);
    h.collect(Cause::Requested);
    assert!(collections(&h, 100) > without * 2);
    let (with, h) = often("44m");
    assert!(with > without, "{with}");
    assert!(h.usage().heap_bytes < 50 * MIB, "{:?}", h.usage());
}

/// Tends as a runtime would until nothing is to be done; collects if that is wished for and `collects`.
fn tend(h: &WordHeap<Toy>, collects: bool, machine: &Machine) -> usize {
    let begin = Instant::now();
    let mut returned = 0;
    loop {
        let step = h.tend_as(machine);
        returned += step.returned;
        if step.collect && collects {
            h.collect(Cause::Idle);
        }
        if !step.more || begin.elapsed() > Duration::from_secs(5) {
            return returned;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn idle_memory_goes_back_within_five_seconds_of_being_looked_after() {
    let machine = Machine::at("/nowhere");
    // Without a collection of the program's own, one is wished for.
    for collects in [false, true] {
        let h = heap(&[("follow", "0")]);
        fill(&h, 60);
        h.vm().roots.lock().unwrap().truncate(6 * 4096);
        if !collects {
            h.collect(Cause::Requested);
        }
        let returned = tend(&h, collects, &machine);
        assert!(returned >= 54 * MIB / 10 * 8, "{collects}: {returned}");
        assert!(h.idle_bytes() <= 2 * MIB);
        fill(&h, 10);
    }
    let h = heap(&[("decay", "off")]);
    fill(&h, 20);
    h.vm().roots.lock().unwrap().clear();
    h.collect(Cause::Requested);
    assert_eq!(tend(&h, true, &machine), 0);
}

#[test]
fn the_control_group_gives_a_soft_limit() {
    let name = format!("heapwright-words-{}", std::process::id());
    let root: PathBuf = std::env::temp_dir().join(name);
    let write = |path: &str, text: &str| {
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        std::fs::write(root.join(path), text).unwrap();
    };
    write("proc/self/cgroup", "0::/\n");
    write("sys/fs/cgroup/memory.max", "50331648\n");
    let h = heap(&[]);
    fill(&h, 40);
    h.collect(Cause::Requested);
    let without = collections(&h, 100);
    let _ = h.tend_as(&Machine::at(&root));
    h.collect(Cause::Requested);
    let with = collections(&h, 100);
    std::fs::remove_dir_all(&root).unwrap();
    assert!(with > without * 3, "{with} {without}");
}
