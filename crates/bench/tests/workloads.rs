//! Every workload gives the same answer on every runtime, and keeps to the rules of the interface.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]
#![allow(
    clippy::print_stdout,
    reason = "the times of the larger test are for reading"
)]

mod strict;

use heapwright_bench::oracle::{Malloc, Oracle};
use heapwright_bench::runtime::{Full, Runtime};
use heapwright_bench::workload::{ALL, LOST, Outcome, Settings, run};
use strict::Strict;

fn tiny() -> Settings {
    Settings {
        scale: 0.002,
        ..Settings::default()
    }
}

fn outcome<R: Runtime>(name: &str, runtime: &R, settings: &Settings) -> Outcome {
    let outcome = run(name, runtime, settings).unwrap().unwrap();
    assert_ne!(outcome.checksum, LOST, "{name}");
    outcome
}

fn reference(name: &str, settings: &Settings) -> Outcome {
    outcome(name, &Oracle::new(), settings)
}

#[test]
fn unknown_names() {
    assert!(run("nothing", &Oracle::new(), &tiny()).is_none());
}

#[test]
fn names_are_unique() {
    for (index, info) in ALL.iter().enumerate() {
        assert!(ALL[..index].iter().all(|other| other.name != info.name));
        assert!(!info.about.is_empty());
    }
}

#[test]
fn the_same_twice() {
    for info in ALL {
        let (a, b) = (reference(info.name, &tiny()), reference(info.name, &tiny()));
        assert_eq!(a.checksum, b.checksum, "{}", info.name);
        assert_eq!(a.allocated_bytes, b.allocated_bytes, "{}", info.name);
        assert!(a.allocated_bytes > 100_000, "{}", info.name);
        assert_eq!(a.traced_objects != 0, info.name.starts_with("graph"));
        assert_eq!(a.operation_ns.is_some(), info.name == "lru");
    }
}

#[test]
fn seeds_differ() {
    for info in ALL {
        let other = Settings { seed: 2, ..tiny() };
        let same = reference(info.name, &tiny()).checksum == reference(info.name, &other).checksum;
        // These two have nothing random.
        assert_eq!(
            same,
            ["binarytrees", "alloc"].contains(&info.name),
            "{}",
            info.name
        );
    }
}

#[test]
fn malloc_agrees_and_leaks_nothing() {
    for info in ALL {
        let malloc = Malloc::new();
        let mine = outcome(info.name, &malloc, &tiny());
        assert_eq!(
            mine.checksum,
            reference(info.name, &tiny()).checksum,
            "{}",
            info.name
        );
        assert_eq!(malloc.live(), 0, "{}", info.name);
    }
}

#[test]
fn threads_agree() {
    for info in ALL {
        let settings = Settings {
            mutators: 3,
            ..tiny()
        };
        let one = reference(info.name, &tiny());
        let three = reference(info.name, &settings);
        assert_eq!(one.checksum, three.checksum, "{}", info.name);
        let times = if info.threads { 3 } else { 1 };
        assert_eq!(
            three.allocated_bytes,
            times * one.allocated_bytes,
            "{}",
            info.name
        );
        let malloc = Malloc::new();
        assert_eq!(
            outcome(info.name, &malloc, &settings).checksum,
            one.checksum,
            "{}",
            info.name
        );
        assert_eq!(malloc.live(), 0, "{}", info.name);
    }
}

#[test]
fn objects_of_other_sizes() {
    for object_bytes in [0, 8, 16, 17, 24, 32, 40, 256] {
        let settings = Settings {
            object_bytes,
            ..tiny()
        };
        let malloc = Malloc::new();
        let mine = outcome("alloc", &malloc, &settings);
        assert_eq!(mine.checksum, reference("alloc", &settings).checksum);
        assert_eq!(malloc.live(), 0);
    }
}

#[test]
fn full() {
    for info in ALL {
        let oracle = Oracle::with_limit(0);
        assert_eq!(
            run(info.name, &oracle, &tiny()).unwrap(),
            Err(Full),
            "{}",
            info.name
        );
        let oracle = Oracle::with_limit(1 << 20);
        let settings = Settings {
            mutators: 3,
            scale: 0.02,
            ..tiny()
        };
        assert_eq!(
            run(info.name, &oracle, &settings).unwrap(),
            Err(Full),
            "{}",
            info.name
        );
        assert!(oracle.used() <= 1 << 20);
    }
}

/// References are used only until the next safepoint, what is used is reachable, and safepoints are frequent.
#[test]
fn rules_of_collection() {
    for info in ALL {
        let strict = Strict::<false>::new();
        let mine = outcome(info.name, &strict, &tiny());
        assert_eq!(
            mine.checksum,
            reference(info.name, &tiny()).checksum,
            "{}",
            info.name
        );
        let pause = strict.longest();
        assert!(
            pause <= 20_000,
            "{}: {pause} accesses without a safepoint",
            info.name
        );
    }
}

/// What was disposed of is not used again, and everything is in the end.
#[test]
fn rules_of_disposal() {
    for info in ALL {
        let strict = Strict::<true>::new();
        let mine = outcome(info.name, &strict, &tiny());
        assert_eq!(
            mine.checksum,
            reference(info.name, &tiny()).checksum,
            "{}",
            info.name
        );
        assert_eq!(strict.live(), 0, "{}", info.name);
    }
}

/// At a larger scale: what wraps around only then.
#[test]
#[ignore = "takes a while"]
fn larger() {
    for info in ALL {
        let settings = Settings {
            scale: 0.05,
            ..tiny()
        };
        let malloc = Malloc::new();
        let start = std::time::Instant::now();
        let oracle = reference(info.name, &settings);
        let between = std::time::Instant::now();
        let mine = outcome(info.name, &malloc, &settings);
        println!(
            "{:12} oracle {:7.1} ms, malloc {:7.1} ms, {:7.1} MB {:?}",
            info.name,
            (between - start).as_secs_f64() * 1e3,
            between.elapsed().as_secs_f64() * 1e3,
            mine.allocated_bytes as f64 / 1e6,
            mine.operation_ns,
        );
        assert_eq!(mine.checksum, oracle.checksum, "{}", info.name);
        assert_eq!(malloc.live(), 0, "{}", info.name);
    }
}
