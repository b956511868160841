//! Errors that are switched on one by one, and must be found: by the verifier, by the shadow of a random program, by a wrong
//! answer, by memory that runs out, by a crash or by a hang. Each runs in a process of its own.
//!
//! `RUSTFLAGS="--cfg seeded_bugs" cargo test --release -p heapwright-bench --test seeded_bugs -- --nocapture`
#![cfg(seeded_bugs)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

#[path = "../../core/tests/copies/mod.rs"]
mod copies;
#[path = "../../core/tests/forks/mod.rs"]
mod forks;
#[path = "../../core/tests/lists/mod.rs"]
mod lists;
#[path = "../../core/tests/looks/mod.rs"]
mod looks;
mod released;
#[path = "../../core/tests/requests/mod.rs"]
mod requests;
#[path = "../../core/tests/sampled/mod.rs"]
mod sampled;
#[path = "../../core/tests/toy/mod.rs"]
mod toy;

use heapwright::bugs::{self, Bug};
use heapwright::plan;
use heapwright::{Heap, Options, PlanName};
use heapwright_bench::fuzz;
use heapwright_bench::oracle::Oracle;
use heapwright_bench::spec::{Spec, Status};
use heapwright_bench::vm::{Embedded, Machine};
use heapwright_bench::workload::{self, Settings};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BUG: &str = "HEAPWRIGHT_SEEDED_BUG";
/// If it is set, the part of the suite that runs without the modes of [`MODES`].
const PLAIN: &str = "HEAPWRIGHT_SEEDED_PLAIN";
/// If it is set, what looks at the heap is examined, instead of what collects.
const LOOKS: &str = "HEAPWRIGHT_SEEDED_LOOKS";
/// How long a suite without a bug may take, also where others use the machine: it takes a few seconds of its own.
const PATIENCE: Duration = Duration::from_secs(300);
/// One with a bug hangs if it takes at least this long and this many times as long as the slowest without. A suite that is merely
/// slow must not count as one that found something.
const HUNG: Duration = Duration::from_secs(60);
const HUNG_TIMES: u32 = 4;
/// What is added to the seeds. An error of two threads that race shows in some runs only, so each is looked for in up to
/// [`ATTEMPTS`] suites, with seeds of their own.
const SHIFT: &str = "HEAPWRIGHT_SEEDED_SHIFT";
const ATTEMPTS: u64 = 4;
/// Options that make errors show.
const MODES: &[(&str, &str)] = &[
    ("poison", "1"),
    ("yields", "20"),
    ("evacuate", "all"),
    ("workers", "2"),
];
/// What does no harm that can be seen without the option `poison`.
const HARMLESS: &[Bug] = &[Bug::LinesNotPoisoned, Bug::FreeLineWritten];

/// The first error of what looks at the heap; those behind it are such, too. Each is found in the first attempt.
const FIRST_LOOK: Bug = Bug::FrozenMutatorSkipped;

fn programs<const HEADER: bool, const AMBIGUOUS: bool>(
    plan: &str,
    seed: u64,
    threads: u64,
    modes: &[(&str, &str)],
) {
    let mut options = Options::default();
    options.set("plan", plan).unwrap();
    options.set("max", ["1m", "4m"][seed as usize % 2]).unwrap();
    options.set("workers", &(1 + seed % 2).to_string()).unwrap();
    options.set("verify", "1").unwrap();
    // Slows the concurrent marker down; not so often that nothing else happens.
    options
        .set("stress", ["0", "500"][seed as usize / 2 % 2])
        .unwrap();
    for (name, value) in modes {
        options.set(name, value).unwrap();
    }
    let heap = Heap::<Machine<HEADER, AMBIGUOUS>>::builder()
        .options(options)
        .build(Machine::<HEADER, AMBIGUOUS>::default())
        .unwrap();
    let runtime = Embedded(heap);
    let runtime = &runtime;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let seed = seed * 16 + thread;
                fuzz::run(runtime, &fuzz::program(seed, 3000)).unwrap();
                fuzz::run(runtime, &fuzz::references(seed, 3000)).unwrap();
            });
        }
    });
    assert_eq!(runtime.0.vm().record().1, 0, "{plan}");
}

/// A scenario that provokes one kind of error, so many times on one heap of 16 MiB that is verified.
fn scenario<const HEADER: bool>(
    options: &[(&str, &str)],
    times: usize,
    run: impl Fn(&Embedded<HEADER, false>) -> Result<(), String>,
) {
    let mut all = Options::default();
    for (name, value) in [("max", "16m"), ("verify", "1")].iter().chain(options) {
        all.set(name, value).unwrap();
    }
    let heap = Heap::<Machine<HEADER, false>>::builder()
        .options(all)
        .build(Machine::<HEADER, false>::default())
        .unwrap();
    let runtime = Embedded(heap);
    for _ in 0..times {
        run(&runtime).unwrap();
    }
    assert_eq!(runtime.0.vm().record().1, 0);
}

/// Objects are hidden from a concurrent marker.
fn hidden<const HEADER: bool>() {
    let options = [("plan", "concurrentimmix"), ("stress", "1000000")];
    scenario::<HEADER>(&options, 5, |runtime| fuzz::hide(runtime, 2000));
}

/// Holes that are too small for some objects, with a minor collection in between.
fn small_holes<const HEADER: bool>() {
    let options = [("plan", "stickyimmix"), ("nursery", "8m")];
    scenario::<HEADER>(&options, 3, |runtime| fuzz::small_holes(runtime, 3000));
}

/// Blocks that are listed become empty in a minor collection.
fn unfinished_blocks<const HEADER: bool>() {
    let options = [("plan", "stickymarksweep"), ("nursery", "8m")];
    scenario::<HEADER>(&options, 3, |runtime| fuzz::unfinished_blocks(runtime, 500));
}

/// What looks at the heap: against models of it, and against the law of Poisson.
fn instruments() {
    for plan in PlanName::ALL {
        looks::walk_through::<false>(plan, &mut looks::frozen::check);
        looks::walk_through::<true>(plan, &mut looks::frozen::check);
        // By itself: a look takes back what a census would have to.
        looks::walk_through::<true>(plan, &mut looks::frozen::check_census);
    }
    looks::words::cells_are_seen_as_they_are();
    looks::told::maps_agree_with_a_walk();
    looks::told::workers_are_told_with_their_collection();
    sampled::each_object_is_told_once();
    sampled::points_that_are_far_from_each_other_are_not_lost();
    sampled::mutators_that_come_and_go_are_sampled_without_bias();
    sampled::aligned_objects_are_sampled_without_bias();
    sampled::lists_of_cells_are_sampled_without_bias();
    sampled::objects_are_sampled_without_bias_on_every_plan();
    sampled::words_are_sampled_without_bias();
}

/// A part of the conformance suite and of the fuzzer.
fn suite(shift: u64) {
    if std::env::var_os(LOOKS).is_some() {
        return instruments();
    }
    plain(shift);
    if std::env::var_os(PLAIN).is_none() {
        with_modes(shift);
    }
}

/// Random programs again, with what makes errors show.
fn with_modes(shift: u64) {
    many_slide(MODES);
    for seed in shift + 1..shift + 7 {
        for info in plan::ALL
            .iter()
            .filter(|p| p.collects && p.name != "pageprotect")
        {
            programs::<false, false>(info.name, seed, 2, MODES);
            programs::<true, false>(info.name, seed, 2, MODES);
        }
    }
}

/// Many blocks slide at once, by two workers.
fn many_slide(modes: &[(&str, &str)]) {
    let settings = Settings {
        scale: 0.01,
        seed: 5,
        mutators: 2,
        object_bytes: 24,
    };
    let answer = workload::run("lru", &Oracle::default(), &settings)
        .unwrap()
        .unwrap()
        .checksum;
    let spec = Spec {
        options: modes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..spec("lru", "markcompact", 8 << 20, &settings)
    };
    let report = heapwright_bench::run(&spec);
    assert_eq!(report.status, Status::Ok, "{report:?}");
    assert_eq!(report.checksum, answer);
}

fn spec(workload: &str, plan: &str, heap_bytes: usize, settings: &Settings) -> Spec {
    Spec {
        workers: 2,
        mutators: 2,
        scale: settings.scale,
        seed: settings.seed,
        iterations: 3,
        verify: true,
        header: true,
        nursery_bytes: 256 << 10,
        ..Spec::new(workload, plan, heap_bytes)
    }
}

/// The hard limit, while workers copy.
fn copies_within_the_limit() {
    for plan in [PlanName::SemiSpace, PlanName::GenImmix, PlanName::Immix] {
        let (peak, _) = copies::peak(plan, "4", 1 << 20, 4);
        assert!(peak <= 1 << 20, "{plan}: {peak}");
    }
}

/// The process forks, with other threads that do this and that.
fn processes_that_fork() {
    let _alone = forks::alone();
    forks::with_a_thread_inside(PlanName::Immix, 3);
    forks::with_a_thread_inside(PlanName::GenCopy, 2);
    forks::in_the_middle_of_a_mark(3);
    forks::the_gate_is_asked_meanwhile(60);
    forks::maps_are_asked_meanwhile(20);
    forks::a_listener_is_told_meanwhile(10);
    forks::memory_goes_back_in_the_child();
}

fn plain(shift: u64) {
    unfinished_blocks::<false>();
    unfinished_blocks::<true>();
    many_slide(&[]);
    for info in plan::ALL
        .iter()
        .filter(|p| p.collects && p.name != "pageprotect")
    {
        released::programs::<false>(info.name, shift + 1, 2);
        released::programs::<true>(info.name, shift + 2, 2);
    }
    small_holes::<false>();
    small_holes::<true>();
    hidden::<false>();
    hidden::<true>();
    for seed in shift + 1..shift + 5 {
        for info in plan::ALL
            .iter()
            .filter(|p| p.collects && p.name != "pageprotect")
        {
            programs::<false, false>(info.name, seed, 1 + seed % 2 * 2, &[]);
            programs::<true, false>(info.name, seed, 1, &[]);
            programs::<false, true>(info.name, seed, 1, &[]);
            programs::<true, true>(info.name, seed, 2, &[]);
        }
    }
    for workload in ["gcbench", "lru", "large", "list", "weak", "graph", "churn"] {
        let settings = Settings {
            scale: 0.003,
            seed: shift + 3,
            mutators: 2,
            object_bytes: 24,
        };
        let answer = workload::run(workload, &Oracle::default(), &settings)
            .unwrap()
            .unwrap()
            .checksum;
        for info in plan::ALL
            .iter()
            .filter(|p| p.collects && p.name != "pageprotect")
        {
            let heap = if workload == "large" {
                96 << 20
            } else {
                12 << 20
            };
            let report = heapwright_bench::run(&spec(workload, info.name, heap, &settings));
            assert_eq!(report.status, Status::Ok, "{}: {report:?}", info.name);
            assert_eq!(report.checksum, answer, "{}", info.name);
        }
    }
    // Last: where what they are not for is wrong, they may go on for ever.
    requests::what_is_garbage_is_gone(PlanName::ConcurrentImmix, 0, 4);
    copies_within_the_limit();
    processes_that_fork();
}

/// What the other test runs in a process of its own.
#[test]
fn suite_with_the_bug_of_the_environment() {
    let Ok(name) = std::env::var(BUG) else {
        return;
    };
    // A thread that fails may hold what others wait for.
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    if let Some(bug) = Bug::ALL.iter().find(|b| format!("{b:?}") == name) {
        bugs::switch_on(*bug);
    }
    let shift = std::env::var(SHIFT).map_or(0, |shift| shift.parse().unwrap());
    suite(shift);
}

/// How a process examines the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum With {
    /// What collects, also with [`MODES`].
    Modes,
    /// Without them.
    Plain,
    /// What looks at the heap.
    Looks,
}

fn start(bug: &str, with: With, attempt: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    match with {
        With::Modes => {}
        With::Plain => drop(command.env(PLAIN, "1")),
        With::Looks => drop(command.env(LOOKS, "1")),
    }
    command
        .args(["--exact", "suite_with_the_bug_of_the_environment"])
        .env(BUG, bug)
        .env(SHIFT, (attempt * 100).to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// How the process ended: `None` if it found nothing wrong.
fn outcome(mut child: Child, patience: Duration) -> Option<&'static str> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return match status.code() {
                Some(0) => None,
                Some(_) => Some("found"),
                None => Some("crashed"),
            };
        }
        if begin.elapsed() > patience {
            let _ = child.kill();
            let _ = child.wait();
            return Some("hung");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_bug_is_found() {
    if std::env::var_os(BUG).is_some() {
        return;
    }
    let mut slowest = Duration::ZERO;
    for attempt in 0..ATTEMPTS {
        let begin = Instant::now();
        assert_eq!(
            outcome(start("none", With::Modes, attempt), PATIENCE),
            None,
            "the suite fails without a bug, attempt {attempt}"
        );
        slowest = slowest.max(begin.elapsed());
    }
    let patience = HUNG.max(slowest * HUNG_TIMES);
    assert_eq!(
        outcome(start("none", With::Looks, 0), PATIENCE),
        None,
        "what looks at the heap is wrong without a bug"
    );
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let begin = Instant::now();
        let (with, most) = match *bug as u32 >= FIRST_LOOK as u32 {
            true => (With::Looks, 1),
            false => (With::Modes, ATTEMPTS),
        };
        let mut attempts = 0..most;
        let how = attempts
            .find_map(|attempt| outcome(start(&format!("{bug:?}"), with, attempt), patience));
        eprintln!(
            "{bug:?}: {} in {:.1} s, attempt {}",
            how.unwrap_or("MISSED"),
            begin.elapsed().as_secs_f64(),
            attempts.start
        );
        if how.is_none() {
            missed.push(bug);
        }
    }
    eprintln!(
        "{} of {} seeded bugs found",
        Bug::ALL.len() - missed.len(),
        Bug::ALL.len()
    );
    assert!(missed.is_empty(), "missed: {missed:?}");
    for bug in HARMLESS {
        let how = outcome(start(&format!("{bug:?}"), With::Plain, 0), PATIENCE);
        assert_eq!(how, None, "{bug:?} is found without the modes");
    }
}
