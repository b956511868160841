//! The conformance suite: every plan x every workload x {side, header} x {1, 2, 4 workers} x {precise, ambiguous roots}, in the
//! smallest of a few heaps in which the workload lives, with the verifier after each collection. The answers are those of
//! a runtime that never frees anything.
//!
//! `under_stress` runs a part of it again with poisoned free memory, threads that let others go first at random, everything moved
//! that can be moved, and more collections.
//!
//! `HEAPWRIGHT_CONFORMANCE=plan,workload` runs only what contains one of these words, and prints a line for each run.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

use heapwright::plan::{self, PlanInfo};
use heapwright_bench::oracle::Oracle;
use heapwright_bench::spec::{Report, Spec, Status};
use heapwright_bench::workload::{self, Settings};

const SCALE: f64 = 0.003;
const SEED: u64 = 42;
/// Heaps from small to large: the first in which a workload lives is the one it is tested in.
const HEAPS: [usize; 8] = [
    512 << 10,
    1 << 20,
    2 << 20,
    4 << 20,
    8 << 20,
    16 << 20,
    48 << 20,
    256 << 20,
];

fn spec(plan: &PlanInfo, workload: &str, heap: usize) -> Spec {
    Spec {
        mutators: 2,
        scale: SCALE,
        seed: SEED,
        verify: true,
        ..Spec::new(workload, plan.name, heap)
    }
}

fn answer(workload: &str) -> u64 {
    let settings = Settings {
        scale: SCALE,
        seed: SEED,
        mutators: 2,
        object_bytes: 24,
    };
    workload::run(workload, &Oracle::default(), &settings)
        .unwrap()
        .unwrap()
        .checksum
}

fn wanted(words: &[String], plan: &str, workload: &str) -> bool {
    words.is_empty() || words.iter().any(|w| *w == plan || *w == workload)
}

#[derive(Default)]
struct Count {
    runs: usize,
    collections: u64,
    full: u64,
    out_of_memory: usize,
}

impl Count {
    fn check(&mut self, spec: &Spec, expected: u64) -> Report {
        let report = heapwright_bench::run(spec);
        self.runs += 1;
        self.collections += report.collections;
        self.full += report.full_collections;
        match report.status {
            Status::Ok => assert_eq!(report.checksum, expected, "wrong answer: {spec:?}"),
            Status::OutOfMemory => self.out_of_memory += 1,
            _ => panic!("{spec:?}: {report:?}"),
        }
        assert_eq!(report.violations, 0, "{spec:?}");
        report
    }
}

fn suite(plans: &[&str]) {
    let words: Vec<String> = std::env::var("HEAPWRIGHT_CONFORMANCE")
        .map(|v| v.split(',').map(str::to_owned).collect())
        .unwrap_or_default();
    let mut count = Count::default();
    for info in plan::ALL.iter().filter(|p| plans.contains(&p.name)) {
        for workload in &workload::ALL {
            if !wanted(&words, info.name, workload.name) {
                continue;
            }
            // A system call for each object that dies: some workloads have to do.
            let slow = info.name == "pageprotect";
            if slow && !["graph", "large", "lru", "weak"].contains(&workload.name) {
                continue;
            }
            // What never gives memory back, or takes a page for each object, gets less to do.
            let greedy = !info.collects || info.name == "pageprotect";
            let heaps: &[usize] = if greedy { &[0] } else { &HEAPS };
            let expected = answer(workload.name);
            for header in [false, true] {
                for ambiguous in [false, true] {
                    let mut lives = None;
                    for heap in heaps {
                        let mut spec = spec(info, workload.name, *heap);
                        spec.header = header;
                        spec.ambiguous = ambiguous;
                        if !words.is_empty() {
                            eprintln!("{spec:?}");
                        }
                        if count.check(&spec, expected).status == Status::Ok {
                            lives = Some(spec);
                            break;
                        }
                    }
                    if slow {
                        continue;
                    }
                    let Some(mut spec) = lives else {
                        panic!(
                            "{} does not live on {} in any heap",
                            workload.name, info.name
                        );
                    };
                    for workers in [2, 4] {
                        spec.workers = workers;
                        count.check(&spec, expected);
                    }
                }
            }
        }
    }
    eprintln!(
        "{plans:?}: {} runs, {} collections ({} full), each verified; {} ran out of memory cleanly",
        count.runs, count.collections, count.full, count.out_of_memory
    );
}

/// Each plan on a few workloads with all that makes errors show.
fn under_stress(plans: &[&str], evacuate: &str) {
    let mut count = Count::default();
    for info in plan::ALL.iter().filter(|p| plans.contains(&p.name)) {
        for workload in ["lru", "graph", "weak", "large", "churn"] {
            if info.name == "pageprotect" && workload == "churn" {
                continue;
            }
            let expected = answer(workload);
            let heap = match workload {
                _ if !info.collects || info.name == "pageprotect" => 0,
                "large" => 64 << 20,
                _ => 8 << 20,
            };
            for (workers, yields, stress) in [(1, 500, 300), (2, 20, 500), (4, 100, 2000)] {
                for header in [false, true] {
                    let mut spec = spec(info, workload, heap);
                    spec.workers = workers;
                    spec.header = header;
                    spec.ambiguous = workers == 4;
                    // Of allocations that leave the fast path: with size classes each does, with regions one in some 8 KiB.
                    spec.stress = stress;
                    spec.options = [
                        ("poison", "1".to_owned()),
                        ("evacuate", evacuate.to_owned()),
                        ("yields", yields.to_string()),
                    ]
                    .map(|(name, value)| (name.to_owned(), value))
                    .into();
                    let status = count.check(&spec, expected).status;
                    assert_eq!(status, Status::Ok, "{spec:?}");
                }
            }
        }
    }
    eprintln!(
        "under stress: {} runs, {} collections ({} full), each verified",
        count.runs, count.collections, count.full
    );
}

#[test]
fn under_stress_what_does_not_move() {
    under_stress(
        &["nogc", "marksweep", "stickymarksweep", "pageprotect"],
        "all",
    );
}

#[test]
fn under_stress_what_copies() {
    under_stress(&["semispace", "gencopy", "markcompact"], "all");
}

#[test]
fn under_stress_what_has_lines() {
    under_stress(
        &["immix", "genimmix", "stickyimmix", "concurrentimmix"],
        "all",
    );
}

#[test]
fn under_stress_where_nothing_may_move() {
    under_stress(&["immix", "stickyimmix", "concurrentimmix"], "never");
}

#[test]
fn every_plan_is_in_one_of_the_tests() {
    let tested = [
        "nogc",
        "marksweep",
        "semispace",
        "markcompact",
        "immix",
        "gencopy",
        "genimmix",
        "stickyimmix",
        "stickymarksweep",
        "concurrentimmix",
        "pageprotect",
    ];
    let all: Vec<&str> = plan::ALL.iter().map(|p| p.name).collect();
    assert_eq!(all, tested);
}

#[test]
fn nogc() {
    suite(&["nogc"]);
}

#[test]
fn marksweep() {
    suite(&["marksweep"]);
}

#[test]
fn semispace() {
    suite(&["semispace"]);
}

#[test]
fn immix() {
    suite(&["immix"]);
}

#[test]
fn gencopy() {
    suite(&["gencopy"]);
}

#[test]
fn genimmix() {
    suite(&["genimmix"]);
}

#[test]
fn stickyimmix() {
    suite(&["stickyimmix"]);
}

#[test]
fn stickymarksweep() {
    suite(&["stickymarksweep"]);
}

#[test]
fn concurrentimmix() {
    suite(&["concurrentimmix"]);
}

#[test]
fn pageprotect() {
    suite(&["pageprotect"]);
}

#[test]
fn markcompact() {
    suite(&["markcompact"]);
}
