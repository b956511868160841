//! Random programs against a shadow, on every plan, in every layout, with several threads in one heap.
//!
//! `HEAPWRIGHT_FUZZ_SECONDS=3600 cargo test --release -p heapwright-bench --test fuzz` goes on for an hour with new seeds;
//! `HEAPWRIGHT_FUZZ_SEED=n` runs one seed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod released;

use heapwright::plan;
use heapwright::{Heap, Options};
use heapwright_bench::fuzz::{self, Failure, Op};
use heapwright_bench::vm::{Embedded, Machine};
use std::time::{Duration, Instant};

const LENGTH: usize = 4000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().unwrap())
}

#[derive(Debug)]
struct Case {
    plan: &'static str,
    heap: &'static str,
    workers: usize,
    threads: u64,
    seed: u64,
    /// A collection at every so many allocations that leave the fast path.
    stress: usize,
    /// Free memory is poisoned.
    poison: bool,
    /// Threads let others go first at one in so many points.
    yields: usize,
    /// What is moved of that which need not.
    evacuate: &'static str,
    /// With reference objects, ephemerons, weak maps and finalizers.
    references: bool,
}

impl Case {
    fn options(&self) -> Options {
        let mut options = Options::default();
        for (name, value) in [
            ("plan", self.plan.to_owned()),
            ("max", self.heap.to_owned()),
            ("workers", self.workers.to_string()),
            ("stress", self.stress.to_string()),
            ("poison", u8::from(self.poison).to_string()),
            ("yields", self.yields.to_string()),
            ("evacuate", self.evacuate.to_owned()),
            ("verify", "1".to_owned()),
        ] {
            options.set(name, &value).unwrap();
        }
        options
    }
}

fn on<const HEADER: bool, const AMBIGUOUS: bool>(
    case: &Case,
    ops: &[Vec<Op>],
) -> Result<usize, Failure> {
    let heap = Heap::<Machine<HEADER, AMBIGUOUS>>::builder()
        .options(case.options())
        .build(Machine::<HEADER, AMBIGUOUS>::default())
        .unwrap();
    let runtime = Embedded(heap);
    let runtime = &runtime;
    let results: Vec<Result<usize, Failure>> = std::thread::scope(|scope| {
        let threads: Vec<_> = ops
            .iter()
            .map(|ops| scope.spawn(move || fuzz::run(runtime, ops)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let (_, violations) = runtime.0.vm().record();
    let mut compared = 0;
    for result in results {
        compared += result?;
    }
    if violations != 0 {
        return Err(Failure {
            step: 0,
            what: format!("the verifier found {violations} violations"),
        });
    }
    Ok(compared)
}

fn layouts(case: &Case, ops: &[Vec<Op>]) -> [Result<usize, Failure>; 4] {
    [
        on::<false, false>(case, ops),
        on::<true, false>(case, ops),
        on::<false, true>(case, ops),
        on::<true, true>(case, ops),
    ]
}

fn check(case: &Case) -> usize {
    let ops: Vec<Vec<Op>> = (0..case.threads)
        .map(|t| {
            let seed = case.seed * 16 + t;
            if case.references {
                fuzz::references(seed, LENGTH)
            } else {
                fuzz::program(seed, LENGTH)
            }
        })
        .collect();
    let mut compared = 0;
    for (layout, result) in layouts(case, &ops).into_iter().enumerate() {
        match result {
            Ok(count) => compared += count,
            Err(failure) => {
                let shortened = if ops.len() == 1 {
                    fuzz::shrink(&ops[0], |ops| {
                        layouts(case, &[ops.to_vec()])[layout].is_err()
                    })
                } else {
                    Vec::new()
                };
                panic!("{case:?}, layout {layout}: {failure:?}\n{shortened:?}");
            }
        }
    }
    compared
}

#[test]
fn programs_agree_with_their_shadow() {
    agree(false, 12);
}

#[test]
fn programs_with_references_agree_with_their_shadow() {
    agree(true, 12);
}

fn agree(references: bool, seeds: u64) {
    let begin = Instant::now();
    let limit = number("HEAPWRIGHT_FUZZ_SECONDS").map(Duration::from_secs);
    let only = number("HEAPWRIGHT_FUZZ_SEED");
    let (mut programs, mut compared) = (0, 0);
    let mut seed = only.unwrap_or(1);
    loop {
        for info in plan::ALL
            .iter()
            .filter(|p| p.collects && p.name != "pageprotect")
        {
            let (workers, threads) = [(1, 1), (2, 1), (1, 3), (2, 2)][seed as usize % 4];
            let bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            compared += check(&Case {
                plan: info.name,
                heap: ["1m", "3m", "12m"][seed as usize % 3],
                workers,
                threads,
                seed,
                stress: if seed.is_multiple_of(5) { 97 } else { 0 },
                // Bits of the seed: over some seeds each goes with each heap, and with each number of workers and threads.
                poison: bits & 1 != 0,
                yields: [0, 0, 0, 0, 0, 200, 20, 3][bits as usize >> 1 & 7],
                evacuate: match bits >> 4 & 3 {
                    0 => "fragmented",
                    1 if info.non_moving => "never",
                    _ => "all",
                },
                references,
            });
            programs += 4 * threads;
        }
        seed += 1;
        let more = limit.map_or(seed <= seeds, |limit| begin.elapsed() < limit);
        if only.is_some() || !more {
            break;
        }
    }
    eprintln!("{programs} programs, {compared} objects compared");
    assert!(compared > 1000);
}

fn hidden<const HEADER: bool, const AMBIGUOUS: bool>() {
    for info in plan::ALL.iter().filter(|p| p.collects) {
        let mut options = Options::default();
        options.set("plan", info.name).unwrap();
        options.set("max", "32m").unwrap();
        options.set("verify", "1").unwrap();
        options.set("stress", "1000000").unwrap();
        let heap = Heap::<Machine<HEADER, AMBIGUOUS>>::builder()
            .options(options)
            .build(Machine::<HEADER, AMBIGUOUS>::default())
            .unwrap();
        let runtime = Embedded(heap);
        for _ in 0..5 {
            fuzz::hide(&runtime, 2000).unwrap();
        }
        assert_eq!(runtime.0.vm().record().1, 0, "{}", info.name);
    }
}

#[test]
fn nothing_can_be_hidden_from_a_marker() {
    hidden::<false, false>();
    hidden::<true, false>();
    hidden::<false, true>();
    hidden::<true, true>();
}

#[test]
fn a_failing_program_is_shortened() {
    let ops = fuzz::program(7, 500);
    let culprit = *ops.iter().find(|op| matches!(op, Op::Pin(_))).unwrap();
    let short = fuzz::shrink(&ops, |ops| ops.contains(&culprit));
    assert_eq!(short, [culprit]);
}

#[test]
fn programs_run_while_their_memory_is_released() {
    for seed in 0..4 {
        for info in plan::ALL
            .iter()
            .filter(|p| p.collects && p.name != "pageprotect")
        {
            released::programs::<false>(info.name, seed, 1 + seed % 3);
            released::programs::<true>(info.name, seed + 1, 2);
        }
    }
}
