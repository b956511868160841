//! How small a heap may be: 1.1 times what lives, for plans that need no room to copy to (1.25 times with objects of many sizes, if
//! they do not slide); 2.2 times for those that do.
//!
//! `cargo test --release -p heapwright-bench --test small_heaps -- --nocapture --ignored` looks for the smallest heap of each plan and
//! prints it as a multiple of what lives.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

use heapwright::{Event, Heap, Listener, Options, PlanName};
use heapwright_bench::runtime::Full;
use heapwright_bench::vm::{Embedded, Machine};
use heapwright_bench::workload::{self, Settings};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Plans that begin with a collection of a half that is empty: they need twice what lives.
const COPYING: [PlanName; 2] = [PlanName::SemiSpace, PlanName::GenCopy];
const OTHERS: [PlanName; 7] = [
    PlanName::MarkSweep,
    PlanName::MarkCompact,
    PlanName::Immix,
    PlanName::GenImmix,
    PlanName::StickyImmix,
    PlanName::StickyMarkSweep,
    PlanName::ConcurrentImmix,
];
const WORKLOADS: [&str; 3] = ["graph", "lru", "binarytrees"];

const SCALE: f64 = 0.2;

struct Most(Arc<AtomicUsize>);

impl Listener for Most {
    fn event(&self, event: Event<'_>) {
        if let Event::Collected(stats) = event {
            self.0.fetch_max(stats.live_bytes, Ordering::Relaxed);
        }
    }
}

fn settings(scale: f64) -> Settings {
    Settings {
        scale,
        seed: 7,
        mutators: 1,
        object_bytes: 24,
    }
}

/// Runs a workload: its checksum, if it lives.
fn run(workload: &str, scale: f64, options: Options, most: &Arc<AtomicUsize>) -> Option<u64> {
    let heap = Heap::<Machine<false, false>>::builder()
        .options(options)
        .listener(Box::new(Most(Arc::clone(most))))
        .build(Machine::<false, false>::default())
        .unwrap();
    match workload::run(workload, &Embedded(heap), &settings(scale)).unwrap() {
        Ok(outcome) => Some(outcome.checksum),
        Err(Full) => None,
    }
}

fn options(plan: PlanName, max: usize) -> Options {
    Options {
        plan,
        max,
        workers: 1,
        ..Options::default()
    }
}

/// The most that lives at once, in bytes, and the checksum: what a plan has that copies all that lives, looked at often.
fn live(workload: &str, scale: f64) -> (usize, u64) {
    let most = Arc::default();
    let mut options = options(PlanName::SemiSpace, 8 << 30);
    options.set("stress", "100000").unwrap();
    let checksum = run(workload, scale, options, &most).unwrap();
    (most.load(Ordering::Relaxed), checksum)
}

fn lives(workload: &str, scale: f64, plan: PlanName, bytes: usize) -> Option<u64> {
    run(workload, scale, options(plan, bytes), &Arc::default())
}

/// In how many times what lives a plan has to manage. Objects of many sizes leave room unused in cells and lines, which only sliding
/// and copying get back.
fn factor(workload: &str, plan: PlanName) -> f64 {
    match plan {
        _ if COPYING.contains(&plan) => 2.2,
        PlanName::MarkCompact => 1.1,
        _ if workload == "lru" => 1.25,
        _ => 1.1,
    }
}

#[test]
fn a_heap_may_be_little_more_than_what_lives() {
    for workload in WORKLOADS {
        let (live, checksum) = live(workload, SCALE);
        for plan in COPYING.into_iter().chain(OTHERS) {
            let factor = factor(workload, plan);
            let bytes = (live as f64 * factor) as usize;
            let found = lives(workload, SCALE, plan, bytes);
            assert_eq!(
                found,
                Some(checksum),
                "{workload} in {plan} with {factor}x {live} bytes"
            );
        }
    }
}

#[test]
#[ignore = "takes minutes, and only prints"]
fn the_smallest_heaps() {
    for workload in WORKLOADS {
        let (live, _) = live(workload, SCALE);
        eprintln!("{workload}: {} KiB live", live >> 10);
        for plan in COPYING.into_iter().chain(OTHERS) {
            let mut factor = 1.0;
            while lives(workload, SCALE, plan, (live as f64 * factor) as usize).is_none() {
                factor += 0.02;
            }
            eprintln!("  {plan}: {factor:.2}");
        }
    }
}
