//! The hot paths of heaps of objects, driven by the embedded machine: allocation, the write barrier, tracing, sweeping, and what a
//! collection costs when there is nearly nothing to do.
//!
//! The graphs of `trace` have as many nodes as the environment variable `HEAPWRIGHT_BENCH_NODES` says, else [`NODES`]. With
//! `--test`, as in the tests, everything is small.

#![allow(missing_docs, clippy::unwrap_used)]

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use heapwright::{Heap, Options};
use heapwright_bench::runtime::{Root, Runtime, Thread};
use heapwright_bench::vm::{Embedded, EmbeddedThread, Machine};
use heapwright_bench::workload::Random;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Nodes of a graph.
const NODES: usize = 1 << 20;
/// Plans that collect.
const PLANS: [&str; 9] = [
    "marksweep",
    "semispace",
    "markcompact",
    "immix",
    "gencopy",
    "genimmix",
    "stickyimmix",
    "stickymarksweep",
    "concurrentimmix",
];
/// Those of them with generations.
const GENERATIONS: [&str; 4] = ["gencopy", "genimmix", "stickyimmix", "stickymarksweep"];

/// A thread of the machine with side tables.
type Side = EmbeddedThread<false, false>;

fn is_test() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// As many as wanted, fewer in a test.
fn count(wanted: usize, in_test: usize) -> usize {
    if is_test() { in_test } else { wanted }
}

fn build<const HEADER: bool>(options: &[(&str, &str)]) -> Embedded<HEADER, false> {
    let mut all = Options::default();
    for (name, value) in options {
        all.set(name, value).unwrap();
    }
    let heap = Heap::<Machine<HEADER, false>>::builder()
        .options(all)
        .build(Machine::default());
    Embedded(heap.unwrap())
}

/// A thread of a heap of a plan; it keeps the heap.
fn thread(plan: &str, options: &[(&str, &str)]) -> Side {
    let mut all = vec![("plan", plan), ("workers", "1")];
    all.extend_from_slice(options);
    build(&all).attach().unwrap()
}

/// Runs a group whose routines take long.
fn long<'c>(c: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = c.benchmark_group(name);
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    group
}

/// The time of `timed` alone, with `prepare` before each, for `iter_custom`.
fn apart<T: Thread>(
    t: &mut T,
    times: u64,
    mut prepare: impl FnMut(&mut T),
    mut timed: impl FnMut(&mut T),
) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..times {
        prepare(t);
        let start = Instant::now();
        timed(t);
        total += start.elapsed();
    }
    total
}

/// Objects that die at once, in a heap of 64 MiB: allocation with its collections. An object of 24 bytes has two references, one
/// of 64 has one; both have a header, which is written.
fn allocate(c: &mut Criterion) {
    let mut group = c.benchmark_group("objects/allocate");
    group.throughput(Throughput::Elements(1));
    for plan in PLANS {
        for (bytes, references, raw) in [(24, 2, 0), (64, 1, 48)] {
            let mut t = thread(plan, &[("max", "64m")]);
            group.bench_function(format!("{plan}, {bytes} B"), |b| {
                b.iter(|| t.object(black_box(references), raw).unwrap());
            });
        }
    }
    group.finish();
}

/// A write of a reference with the barrier. `plan`: its barrier when nothing is to be remembered, for a young object (`young`) or
/// one that was remembered before (`logged`).
fn write(c: &mut Criterion) {
    let mut group = c.benchmark_group("objects/write");
    group.throughput(Throughput::Elements(1));
    fn fast<const HEADER: bool>(group: &mut BenchmarkGroup<'_, WallTime>, layout: &str) {
        for (plan, old) in [("semispace", false), ("gencopy", false), ("gencopy", true)] {
            let heap = build::<HEADER>(&[("plan", plan), ("workers", "1")]);
            let mut t = heap.attach().unwrap();
            let object = t.object(2, 0).unwrap();
            let root = t.push(Some(object));
            if old {
                t.collect();
            }
            let object = t.root(root);
            t.set(object.unwrap(), 0, object);
            let what = match (plan, old) {
                ("semispace", _) => "no barrier",
                (_, false) => "young",
                (_, true) => "logged",
            };
            group.bench_function(format!("{what}, {layout}"), |b| {
                b.iter(|| t.set(black_box(object).unwrap(), 0, object));
            });
        }
    }
    fast::<false>(&mut group, "side");
    fast::<true>(&mut group, "header");

    // The slow half: each old object is written to once from one minor collection to the next.
    let olds = count(10_000, 100);
    let mut t = thread("gencopy", &[]);
    for _ in 0..olds {
        let object = t.object(2, 0).unwrap();
        t.push(Some(object));
    }
    t.collect();
    group.throughput(Throughput::Elements(olds as u64));
    group.bench_function("remembered, side", |b| {
        b.iter_custom(|times| {
            apart(&mut t, times, Side::collect_young, |t| {
                for place in 0..olds {
                    let object = t.root(Root(place));
                    t.set(object.unwrap(), 0, object);
                }
            })
        });
    });

    // Nothing here is a safepoint, so the mark cannot end between its beginning and the last write.
    let mut t = thread("concurrentimmix", &[]);
    let object = t.object(2, 0).unwrap();
    let root = t.push(Some(object));
    group.bench_function("while marking concurrently, side", |b| {
        b.iter_custom(|times| {
            let begin = |t: &mut Side| {
                t.collect();
                t.collect_in_background();
            };
            apart(&mut t, times, begin, |t| {
                for _ in 0..olds {
                    let object = t.root(root);
                    t.set(object.unwrap(), 0, object);
                }
            })
        });
    });
    group.finish();
}

/// Makes a graph of `n` nodes of 32 bytes with one root: a binary tree over an order, random if `shuffled`, whose third
/// references go to random nodes, or to the next one.
fn graph(t: &mut Side, n: usize, shuffled: bool) {
    for _ in 0..n {
        let node = t.object(3, 0).unwrap();
        t.push(Some(node));
    }
    let mut random = Random::new(1);
    let mut order: Vec<usize> = (0..n).collect();
    if shuffled {
        for i in (1..n).rev() {
            order.swap(i, random.below(i + 1));
        }
    }
    for i in 0..n {
        let node = t.root(Root(order[i])).unwrap();
        let third = if shuffled {
            random.below(n)
        } else {
            (i + 1) % n
        };
        for (field, target) in [2 * i + 1, 2 * i + 2, third].into_iter().enumerate() {
            if target < n {
                let target = t.root(Root(order[target]));
                t.set(node, field, target);
            }
        }
    }
    let first = t.root(Root(order[0]));
    t.truncate(0);
    t.push(first);
}

/// Full collections of a graph in which nothing dies. A plan that moves all objects has them in the order of its trace from
/// the first collection on; then only the third references are random.
fn trace(c: &mut Criterion) {
    let nodes = std::env::var("HEAPWRIGHT_BENCH_NODES").map_or(NODES, |n| n.parse().unwrap());
    let nodes = count(nodes, 2_000);
    let heap = (nodes * 256).max(8 << 20).to_string();
    let mut group = long(c, "objects/trace");
    group.throughput(Throughput::Elements(nodes as u64));
    for plan in PLANS {
        for (order, shuffled, workers) in [
            ("shuffled", true, "1"),
            ("in order", false, "1"),
            ("shuffled, 2 workers", true, "2"),
        ] {
            let mut t = thread(plan, &[("max", &heap), ("workers", workers)]);
            graph(&mut t, nodes, shuffled);
            group.bench_function(format!("{plan}, {order}"), |b| b.iter(|| t.collect()));
        }
    }
    group.finish();
}

/// Full collections of 16 MiB of objects of 32 bytes of which one in 1000 lives. The time is for each object, dead or alive.
fn sweep(c: &mut Criterion) {
    let objects = count(1 << 19, 2_000);
    let mut group = long(c, "objects/sweep");
    group.throughput(Throughput::Elements(objects as u64));
    for plan in PLANS {
        let mut t = thread(plan, &[("max", "128m"), ("nursery", "48m")]);
        group.bench_function(plan, |b| {
            b.iter_custom(|times| {
                let fill = |t: &mut Side| {
                    t.truncate(0);
                    for number in 0..objects {
                        let object = t.object(3, 0).unwrap();
                        if number.is_multiple_of(1000) {
                            t.push(Some(object));
                        }
                    }
                };
                apart(&mut t, times, fill, Side::collect)
            });
        });
    }
    group.finish();
}

/// A full collection with one object in the heap.
fn empty(c: &mut Criterion) {
    let mut group = c.benchmark_group("objects/empty collection");
    for plan in PLANS {
        for workers in ["1", "2"] {
            let mut t = thread(plan, &[("workers", workers)]);
            let object = t.object(2, 0).unwrap();
            t.push(Some(object));
            group.bench_function(format!("{plan}, {workers} workers"), |b| {
                b.iter(|| t.collect());
            });
        }
    }
    group.finish();
}

/// A minor collection of a full nursery in which one object lives.
fn minor(c: &mut Criterion) {
    let mut group = c.benchmark_group("objects/minor collection");
    for plan in GENERATIONS {
        for mib in [1, 4] {
            // A block less than the nursery has: the last one would set off the collection.
            let objects = ((mib << 20) - (64 << 10)) / 32;
            let nursery = format!("{mib}m");
            let mut t = thread(plan, &[("max", "64m"), ("nursery", &nursery)]);
            group.bench_function(format!("{plan}, {mib} MiB"), |b| {
                b.iter_custom(|times| {
                    let fill = |t: &mut Side| {
                        t.truncate(0);
                        let object = t.object(3, 0).unwrap();
                        t.push(Some(object));
                        for _ in 1..objects {
                            t.object(3, 0).unwrap();
                        }
                    };
                    apart(&mut t, times, fill, Side::collect_young)
                });
            });
        }
    }
    group.finish();
}

/// A heap is built, serves one object, and is dropped.
fn start(c: &mut Criterion) {
    let mut group = c.benchmark_group("objects/start and end");
    for plan in ["marksweep", "semispace", "genimmix", "concurrentimmix"] {
        for (limit, max) in [("no limit", "0"), ("64 MiB", "64m")] {
            group.bench_function(format!("{plan}, {limit}"), |b| {
                b.iter(|| {
                    let mut t = thread(plan, &[("max", max)]);
                    t.object(2, 0).unwrap()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, allocate, write, trace, sweep, empty, minor, start);
criterion_main!(benches);
