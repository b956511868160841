//! How large heaps grow: each plan with each policy, limits that hold and that change, external memory, and the system's limits.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod lists;

use heapwright::{
    AllocError, Builder, Heap, HeapError, LimitError, Limits, Machine, Measured, Mutator, PlanName,
    SizingPolicy,
};
use lists::{COLLECTING, Lists, array, heap, length, options, push};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const POLICIES: [&str; 5] = ["auto", "fixed", "factor:1.5", "balance", "cpu:10"];
const MIB: usize = 1 << 20;

/// Arrays of some 100 bytes, so that `bytes` are allocated.
fn churn(mutator: &mut Mutator<Lists>, bytes: usize) -> Result<(), AllocError> {
    for index in 0..bytes / 104 {
        let _ = array(mutator, 8 + index % 8)?;
    }
    Ok(())
}

/// How many objects of about 100 bytes a plan can have in a small heap: one has a page for each.
fn few(plan: PlanName, count: usize) -> usize {
    if plan == PlanName::PageProtect {
        count / 50
    } else {
        count
    }
}

#[test]
fn each_plan_keeps_its_hard_limit_with_each_policy() {
    for plan in COLLECTING {
        for policy in POLICIES {
            let heap = heap(
                plan,
                &[
                    ("max", "16m"),
                    ("sizing", policy),
                    ("soft", "12m"),
                    ("verify", "1"),
                ],
            );
            let mut mutator = heap.attach(vec![0]).unwrap();
            let kept = few(plan, 20_000);
            for _ in 0..kept {
                push(&mut mutator, 0, 12).unwrap();
                for _ in 0..few(plan, 50) / 10 {
                    array(&mut mutator, 12).unwrap();
                    assert!(heap.usage().used_bytes <= 16 * MIB, "{plan} {policy}");
                }
            }
            assert!(heap.usage().limit_bytes <= 16 * MIB);
            assert_eq!(length(&mut mutator, 0), kept, "{plan} {policy}");
            // And what does not fit is an error, after which all is as before.
            let refused = (0..1_000_000).find_map(|_| push(&mut mutator, 0, 500).err());
            assert!(
                matches!(refused, Some(AllocError::OutOfMemory { .. })),
                "{plan} {policy}: {refused:?}"
            );
            assert!(heap.usage().used_bytes <= 16 * MIB, "{plan} {policy}");
            mutator.thread()[0] = 0;
            churn(&mut mutator, few(plan, 4 * MIB)).unwrap();
        }
    }
}

#[test]
fn many_mutators_at_once_do_not_pass_the_hard_limit() {
    for plan in COLLECTING {
        let heap = heap(plan, &[("max", "4m")]);
        let (done, most) = (AtomicBool::new(false), AtomicUsize::new(0));
        let look = |heap: &Heap<Lists>| most.fetch_max(heap.usage().used_bytes, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut mutator = heap.attach(vec![0]).unwrap();
                        for _ in 0..few(plan, 20_000) {
                            // The heap is full now and then.
                            let _ = push(&mut mutator, 0, 30);
                            if length(&mut mutator, 0) > few(plan, 2000) {
                                mutator.thread()[0] = 0;
                            }
                            look(&heap);
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    look(&heap);
                    std::thread::yield_now();
                }
            });
            for thread in threads {
                thread.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        let most = most.into_inner();
        assert!(most <= 4 * MIB, "{plan}: {most}");
        // Half of it is for copies where the plan makes them.
        assert!(most > 3 * MIB / 2, "{plan}: {most}");
    }
}

#[test]
fn a_heap_without_a_limit_grows_for_what_lives_and_for_one_large_object() {
    for plan in COLLECTING {
        for policy in POLICIES {
            let heap = heap(plan, &[("sizing", policy)]);
            let mut mutator = heap.attach(vec![0, 0]).unwrap();
            // Larger than any first room.
            let large = array(&mut mutator, 12 * MIB).unwrap();
            mutator.thread()[1] = large.to_address().as_usize();
            let kept = few(plan, 400_000);
            for _ in 0..kept {
                push(&mut mutator, 0, 12).unwrap();
            }
            assert_eq!(length(&mut mutator, 0), kept, "{plan} {policy}");
            let collections = heap.usage().full_collections;
            assert!(collections < 40, "{plan} {policy}: {collections}");
        }
    }
}

#[test]
fn above_the_soft_limit_the_heap_collects_harder_and_up_to_the_hard_one_it_grows() {
    for plan in COLLECTING {
        let collections = |soft: &str, kept: usize| {
            let heap = heap(plan, &[("max", "64m"), ("soft", soft)]);
            let mut mutator = heap.attach(vec![0]).unwrap();
            for _ in 0..few(plan, kept) {
                push(&mut mutator, 0, 12).unwrap();
            }
            churn(&mut mutator, few(plan, 40 * MIB)).unwrap();
            assert_eq!(length(&mut mutator, 0), few(plan, kept));
            (heap.usage().collections, heap.usage().used_bytes)
        };
        let (without, _) = collections("0", 10_000);
        let (with, used) = collections("8m", 10_000);
        assert!(with > without, "{plan}: {with} {without}");
        assert!(used <= 10 * MIB, "{plan}: {used}");
        // 20 MiB live: far above the soft limit.
        if plan != PlanName::PageProtect {
            let (_, used) = collections("4m", 200_000);
            assert!(used > 19 * MIB, "{plan}: {used}");
        }
    }
}

#[test]
fn limits_change_at_run_time_and_wrong_ones_are_refused() {
    for plan in COLLECTING {
        let heap = heap(plan, &[("max", "32m")]);
        let mut mutator = heap.attach(vec![0]).unwrap();
        let kept = few(plan, 50_000);
        for _ in 0..kept {
            push(&mut mutator, 0, 12).unwrap();
        }
        churn(&mut mutator, few(plan, 2 * MIB)).unwrap();
        let limits = |soft, hard| Limits { soft, hard };
        assert_eq!(heap.limits(), limits(0, 32 * MIB));
        assert!(matches!(
            heap.set_limits(limits(9 * MIB, 8 * MIB)),
            Err(LimitError::SoftAboveHard { .. })
        ));
        assert!(matches!(
            heap.set_limits(limits(0, 1 << 45)),
            Err(LimitError::BeyondRange { .. })
        ));
        // Smaller than what lives.
        let error = mutator.set_limits(limits(0, MIB)).unwrap_err();
        let LimitError::BelowUse { hard, used } = error else {
            panic!("{plan}: {error}");
        };
        assert!(
            hard == MIB && used > MIB && used < 32 * MIB,
            "{plan}: {used}"
        );
        assert!(error.to_string().contains("in use"));
        assert_eq!(heap.limits(), limits(0, 32 * MIB));
        churn(&mut mutator, few(plan, 2 * MIB)).unwrap();
        assert_eq!(length(&mut mutator, 0), kept);
        // As small as it can be, and the heap goes on.
        let room = (used + used / 8).next_multiple_of(MIB);
        mutator.set_limits(limits(0, room)).unwrap();
        churn(&mut mutator, few(plan, 2 * MIB)).unwrap();
        assert!(heap.usage().used_bytes <= room);
        assert_eq!(length(&mut mutator, 0), kept, "{plan}");
        assert!(array(&mut mutator, 5 * MIB).is_err());
        // Raised beyond what it was built with: it is used.
        mutator.set_limits(limits(0, 60 * MIB)).unwrap();
        let large = array(&mut mutator, 5 * MIB).unwrap();
        mutator.thread().push(large.to_address().as_usize());
        assert!(heap.usage().limit_bytes == 60 * MIB, "{plan}");
        assert_eq!(length(&mut mutator, 0), kept, "{plan}");
    }
}

#[test]
fn options_that_contradict_each_other_build_no_heap() {
    let options = options(PlanName::Immix, &[("max", "4m"), ("soft", "5m")]);
    let error = Builder::default()
        .options(options)
        .build(Lists)
        .unwrap_err();
    assert!(matches!(error, HeapError::Option(_)));
    assert!(error.to_string().contains("soft"), "{error}");
}

#[test]
fn a_plan_that_does_not_collect_keeps_the_limit() {
    let heap = heap(PlanName::NoGc, &[("max", "2m")]);
    let mut mutator = heap.attach(vec![0]).unwrap();
    let refused = (0..100_000).find_map(|_| array(&mut mutator, 12).err());
    assert!(matches!(refused, Some(AllocError::OutOfMemory { .. })));
    assert!(heap.usage().used_bytes <= 2 * MIB);
    assert!(matches!(
        mutator.set_limits(Limits { soft: 0, hard: MIB }),
        Err(LimitError::BelowUse { .. })
    ));
    mutator
        .set_limits(Limits {
            soft: 0,
            hard: 3 * MIB,
        })
        .unwrap();
    array(&mut mutator, 12).unwrap();
}

#[test]
fn external_memory_makes_collections_due_and_is_no_limit() {
    for plan in COLLECTING {
        let heap = heap(plan, &[("max", "64m")]);
        let mut mutator = heap.attach(vec![0]).unwrap();
        let run = |mutator: &mut Mutator<Lists>, bytes: usize| {
            let before = heap.usage().full_collections;
            for _ in 0..few(plan, 10_000) {
                push(mutator, 0, 12).unwrap();
                mutator.external_allocated(bytes);
                mutator.poll();
            }
            mutator.thread()[0] = 0;
            heap.usage().full_collections - before
        };
        // A gigabyte of it for each megabyte of objects.
        let bytes = 100_000 * 10_000 / few(plan, 10_000);
        assert_eq!(run(&mut mutator, 0), 0, "{plan}");
        let full = run(&mut mutator, bytes);
        assert!((3..=40).contains(&full), "{plan}: {full}");
        assert_eq!(heap.usage().external_bytes, bytes * few(plan, 10_000));
        mutator.external_freed(bytes);
        heap.external_freed(usize::MAX);
        assert_eq!(heap.usage().external_bytes, 0);
        mutator.external_allocated(usize::MAX);
        mutator.external_allocated(usize::MAX);
        churn(&mut mutator, few(plan, MIB)).unwrap();
        assert_eq!(heap.usage().external_bytes, usize::MAX);
    }
}

#[derive(Debug)]
struct Own(Arc<Mutex<Vec<Measured>>>);

impl SizingPolicy for Own {
    fn name(&self) -> &'static str {
        "own"
    }

    fn room(&mut self, measured: &Measured) -> usize {
        self.0.lock().unwrap().push(*measured);
        3 * MIB
    }
}

#[test]
fn a_runtime_decides_by_itself() {
    for plan in COLLECTING {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let heap = Builder::default()
            .options(options(plan, &[("max", "64m"), ("heap", "1m")]))
            .sizing(Box::new(Own(Arc::clone(&seen))))
            .build(Lists)
            .unwrap();
        let mut mutator = heap.attach(vec![0]).unwrap();
        for _ in 0..few(plan, 10_000) {
            push(&mut mutator, 0, 12).unwrap();
        }
        mutator.collect();
        let used = heap.usage().used_bytes;
        churn(&mut mutator, few(plan, 30 * MIB)).unwrap();
        mutator.collect();
        let seen = seen.lock().unwrap();
        assert!(seen.len() >= 2, "{plan}");
        let last = seen.last().unwrap();
        assert!(last.live_bytes > few(plan, 10_000) * 100 && last.live_bytes < 8 * MIB);
        assert!(
            last.full_ns > 0 && last.full_ns <= last.collector_ns,
            "{last:?}"
        );
        assert!(last.program_ns > 0 && last.most_bytes < 64 * MIB);
        let all: u64 = seen.iter().map(|m| m.allocated_bytes).sum();
        assert!(all as usize >= few(plan, 28 * MIB), "{plan}: {all}");
        let limit = heap.usage().limit_bytes;
        assert!(
            limit >= used + 2 * MIB && limit <= 4 * used + 4 * MIB,
            "{plan}: {limit}"
        );
    }
}

/// A machine below a directory, which is removed with it.
struct Simulated(PathBuf);

impl Simulated {
    fn new(name: &str) -> Self {
        let name = format!("heapwright-sizing-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn group(&self, max: &str, high: &str) {
        self.write("proc/self/cgroup", "0::/a/b\n");
        self.write("proc/meminfo", "MemTotal: 8388608 kB\n");
        self.write("sys/fs/cgroup/a/memory.max", max);
        self.write("sys/fs/cgroup/a/b/memory.high", high);
    }

    fn heap(&self, settings: &[(&str, &str)]) -> Heap<Lists> {
        Builder::default()
            .options(options(PlanName::Immix, settings))
            .machine(Machine::at(&self.0))
            .build(Lists)
            .unwrap()
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn limits_of_the_control_group_are_found_at_the_start_and_followed() {
    let machine = Simulated::new("follow");
    machine.group("max", "max");
    assert_eq!(machine.heap(&[]).limits().hard, 6 << 30);
    machine.group("67108864", "33554432");
    let heap = machine.heap(&[]);
    assert_eq!(
        heap.limits(),
        Limits {
            soft: 28 * MIB,
            hard: 48 * MIB
        }
    );
    let mut mutator = heap.attach(vec![0]).unwrap();
    let refused = (0..1_000_000).find_map(|_| push(&mut mutator, 0, 100).err());
    assert!(refused.is_some() && heap.usage().used_bytes <= 48 * MIB);
    // More is allowed: after the next collections, which may be half a second apart.
    machine.group("134217728", "max");
    let wait = || {
        std::thread::sleep(std::time::Duration::from_millis(600));
    };
    wait();
    mutator.collect();
    assert_eq!(heap.limits().hard, 96 * MIB);
    for _ in 0..1000 {
        push(&mut mutator, 0, 100).unwrap();
    }
    // Less than what lives: nothing is lost, and nothing more is given until some of it dies.
    machine.group("20971520", "garbage");
    wait();
    mutator.collect();
    assert_eq!(heap.limits().hard, 16 * MIB);
    let before = length(&mut mutator, 0);
    assert!((0..1000).any(|_| push(&mut mutator, 0, 100).is_err()));
    assert!(length(&mut mutator, 0) >= before);
    mutator.thread()[0] = 0;
    for _ in 0..10_000 {
        push(&mut mutator, 0, 100).unwrap();
    }
    // What is asked for goes first; and what is not to be followed is not.
    assert_eq!(machine.heap(&[("max", "1g")]).limits().hard, 1 << 30);
    assert_eq!(machine.heap(&[("soft", "1m")]).limits().soft, MIB);
}

#[test]
fn memory_pressure_halves_the_room() {
    let machine = Simulated::new("pressure");
    machine.group("max", "max");
    let stall = "some avg10=50.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=20.00 avg60=0.00 avg300=0.00 total=0\n";
    let limit = |text: &str| {
        machine.write("proc/pressure/memory", text);
        let heap = machine.heap(&[("sizing", "factor:2")]);
        let mut mutator = heap.attach(vec![0]).unwrap();
        for _ in 0..400_000 {
            push(&mut mutator, 0, 12).unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(600));
        mutator.collect();
        mutator.collect();
        (heap.usage().limit_bytes - heap.usage().used_bytes) / MIB
    };
    let (calm, short) = (limit("nonsense"), limit(stall));
    assert!(short * 2 <= calm + 2 && short > 0, "{short} {calm}");
}
