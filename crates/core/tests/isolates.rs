//! A thousand heaps in one process. What the process occupies is measured, so all is one test in a process of its own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod lists;

use heapwright::{Builder, Heap, PlanName, Scavenger, Workers};
use heapwright_os::limits;
use lists::{COLLECTING, Lists, length, options, push};
use std::time::{Duration, Instant};

const HEAPS: usize = 1000;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .count()
}

fn virtual_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<usize>().unwrap() * 4096
}

/// Fills a heap with a list of `count` arrays, and drops as much.
fn use_a_little(heap: &Heap<Lists>, count: usize) {
    let mut mutator = heap.attach(vec![0, 0]).unwrap();
    for _ in 0..count {
        push(&mut mutator, 0, 6).unwrap();
        push(&mut mutator, 1, 6).unwrap();
    }
    mutator.thread()[1] = 0;
    let _ = mutator.collect();
    assert_eq!(length(&mut mutator, 0), count);
}

/// Of one plan each object has a page.
fn objects(heap: &Heap<Lists>, count: usize) -> usize {
    match heap.options().plan {
        PlanName::PageProtect => count / 20,
        _ => count,
    }
}

#[test]
fn a_thousand_heaps() {
    one_heap_starts_fast_and_small();
    for shared in [true, false] {
        for plan in [
            PlanName::Immix,
            PlanName::GenImmix,
            PlanName::ConcurrentImmix,
        ] {
            many(plan, shared, "32m");
        }
    }
    // Each may become large, and has huge pages then: addresses cost nothing.
    for plan in [PlanName::GenImmix, PlanName::MarkSweep] {
        many(plan, true, "128m");
    }
    many(PlanName::Immix, true, "8g");
    huge_pages_from_the_start_cost_what_they_are();
    they_collect_independently();
    all_plans_share_workers();
}

fn one_heap_starts_fast_and_small() {
    for plan in COLLECTING {
        let (mut best, mut grown) = (Duration::MAX, 0);
        for _ in 0..20 {
            let before = limits::resident_bytes();
            let begin = Instant::now();
            let heap = lists::heap(plan, &[("max", "64m")]);
            best = best.min(begin.elapsed());
            grown = grown.max(limits::resident_bytes().saturating_sub(before));
            drop(heap);
        }
        eprintln!("{plan}: start-up {best:?}, {} KiB resident", grown >> 10);
        assert!(best < Duration::from_millis(1), "{plan}: {best:?}");
        assert!(grown < 1 << 20, "{plan}: {grown}");
    }
}

fn many(plan: PlanName, shared: bool, max: &str) {
    let workers = Workers::new(2);
    let scavenger = Scavenger::new();
    let build = || {
        let builder = Builder::default()
            .options(options(plan, &[("max", max)]))
            .scavenger(&scavenger);
        let builder = if shared {
            builder.workers(&workers)
        } else {
            builder
        };
        builder.build(Lists).unwrap()
    };
    drop(build());
    let (resident, maps, space, before) = (
        limits::resident_bytes(),
        mappings(),
        virtual_bytes(),
        threads(),
    );
    let begin = Instant::now();
    let heaps: Vec<_> = (0..HEAPS).map(|_| build()).collect();
    let built = begin.elapsed() / HEAPS as u32;
    let new = (limits::resident_bytes() - resident) / HEAPS;
    for heap in &heaps {
        use_a_little(heap, 20);
    }
    let used = (limits::resident_bytes() - resident) / HEAPS;
    for heap in &heaps {
        heap.release_memory();
    }
    let idle = (limits::resident_bytes() - resident) / HEAPS;
    eprintln!(
        "{plan}, {}: start-up {built:?}; resident KiB when new {}, used {}, idle {}; {} mappings, {} MiB of addresses each; {} threads more",
        if shared { "shared" } else { "own" },
        new >> 10,
        used >> 10,
        idle >> 10,
        (mappings() - maps) / HEAPS,
        ((virtual_bytes() - space) / HEAPS) >> 20,
        threads() - before,
    );
    assert!(idle <= 64 << 10, "{plan}: {idle}");
    assert!((mappings() - maps) < 50_000);
    // Nobody needed a helper, and the marking thread, if there was one, serves all.
    assert!(threads() <= before + 2, "{}", threads());
}

/// Who asks for huge pages from the first byte gets one, where the system has them.
fn huge_pages_from_the_start_cost_what_they_are() {
    let setting = "/sys/kernel/mm/transparent_hugepage/enabled";
    let setting = std::fs::read_to_string(setting).unwrap_or_default();
    let build = |huge| {
        let before = limits::resident_bytes();
        let heap = lists::heap(PlanName::Immix, &[("max", "128m"), ("huge", huge)]);
        use_a_little(&heap, 1);
        let grown = limits::resident_bytes().saturating_sub(before);
        (grown, heap)
    };
    let ((off, _off), (auto, _auto), (on, _on)) = (build("off"), build("auto"), build("on"));
    eprintln!(
        "a heap with one object: {} KiB with huge=off, {} with auto, {} with on; the system says {}",
        off >> 10,
        auto >> 10,
        on >> 10,
        setting.trim()
    );
    assert!(off < 256 << 10 && auto < 256 << 10, "{off} {auto}");
}

fn they_collect_independently() {
    let workers = Workers::new(2);
    let heaps: Vec<_> = COLLECTING
        .into_iter()
        .map(|plan| {
            Builder::default()
                .options(options(plan, &[("max", "4m"), ("verify", "1")]))
                .workers(&workers)
                .build(Lists)
                .unwrap()
        })
        .collect();
    let (first, others) = heaps.split_first().unwrap();
    // One heap's mutator stands inside and never polls while all others collect.
    let mut mutator = first.attach(vec![0]).unwrap();
    push(&mut mutator, 0, 6).unwrap();
    let before = first.usage().collections;
    for heap in others {
        use_a_little(heap, objects(heap, 2000));
        assert!(heap.usage().collections > 0);
    }
    assert_eq!(first.usage().collections, before);
    assert_eq!(length(&mut mutator, 0), 1);
}

/// Heaps of all plans, collected by threads at the same time, with two workers in all.
fn all_plans_share_workers() {
    let workers = Workers::new(2);
    assert_eq!(workers.count(), 2);
    let before = threads();
    std::thread::scope(|scope| {
        for plan in COLLECTING {
            let workers = &workers;
            scope.spawn(move || {
                let heap = Builder::default()
                    .options(options(
                        plan,
                        &[("max", "16m"), ("workers", "2"), ("verify", "1")],
                    ))
                    .workers(workers)
                    .build(Lists)
                    .unwrap();
                for _ in 0..5 {
                    use_a_little(&heap, objects(&heap, 5000));
                }
                assert!(heap.usage().full_collections >= 5, "{plan}");
            });
        }
    });
    // One helper, and perhaps the one that marks, and those of scavengers.
    let more = threads() - before;
    assert!((1..=2 + COLLECTING.len()).contains(&more), "{more}");
    drop(workers);
}
