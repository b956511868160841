//! What a phase costs by itself, and what an item costs.
//!
//! ```text
//! cargo bench -p heapwright-work                 # as the machine is
//! taskset -c 0 cargo bench -p heapwright-work    # all workers on one core
//! ```
//!
//! "cpu" figures are CPU time of the whole process: helpers that spin show here.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use heapwright_work::{Config, Phase, Pool, Worker};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

fn pool(workers: usize) -> Pool {
    let pool = Pool::new(Config {
        workers,
        ..Config::default()
    });
    pool.start().unwrap();
    // The helper's first steps are not what is measured.
    std::thread::sleep(Duration::from_millis(20));
    pool
}

fn process_cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is written by the call.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn cpu(bencher: &mut Bencher<'_>, mut body: impl FnMut()) {
    bencher.iter_custom(|iterations| {
        let start = process_cpu_time();
        for _ in 0..iterations {
            body();
        }
        process_cpu_time() - start
    });
}

/// Nothing to do.
struct Empty;

impl Phase for Empty {
    fn work(&self, worker: &mut Worker<'_>) {
        while let Some(item) = worker.next() {
            black_box(item);
        }
    }
}

/// One item, which only a helper can do: a wake-up, and the end that waits for it.
struct Handover(AtomicBool);

impl Phase for Handover {
    fn work(&self, worker: &mut Worker<'_>) {
        if worker.index() == 0 {
            worker.share(&[1]);
            while !self.0.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        }
        while worker.next().is_some() {
            self.0.store(true, Ordering::Release);
        }
    }
}

/// Worker 0 offers `items`, 32 at a time, and all take them.
struct Stream {
    items: usize,
    sum: AtomicUsize,
}

impl Phase for Stream {
    fn work(&self, worker: &mut Worker<'_>) {
        let mut sum = 0;
        if worker.index() == 0 {
            for _ in 0..self.items / 32 {
                let mut batch: &[usize] = &[1; 32];
                while !batch.is_empty() {
                    let taken = worker.share(batch);
                    batch = &batch[taken..];
                    if taken == 0 {
                        match worker.next() {
                            Some(item) => sum += item,
                            // A team of one has nobody to share with.
                            None => {
                                sum += batch.len();
                                break;
                            }
                        }
                    }
                }
            }
        }
        while let Some(item) = worker.next() {
            sum += item;
        }
        self.sum.fetch_add(sum, Ordering::Relaxed);
    }
}

/// A tree of `nodes` with some work at each, walked depth first; surplus goes to who is hungry.
struct Tree {
    nodes: usize,
    sum: AtomicUsize,
}

impl Phase for Tree {
    fn work(&self, worker: &mut Worker<'_>) {
        let mut own = Vec::with_capacity(64);
        if worker.index() == 0 {
            own.push(self.nodes);
        }
        let mut sum = 0;
        while let Some(nodes) = own.pop().or_else(|| worker.next()) {
            sum += 1;
            for _ in 0..20 {
                black_box(nodes);
            }
            let left = (nodes - 1) / 2;
            for child in [left, nodes - 1 - left] {
                if child > 0 {
                    own.push(child);
                }
            }
            if own.len() >= 8 && worker.hungry() {
                let taken = worker.share(&own[..4]);
                own.drain(..taken);
            }
        }
        self.sum.fetch_add(sum, Ordering::Relaxed);
    }
}

fn phases(criterion: &mut Criterion) {
    for workers in [1, 2] {
        let pool = pool(workers);
        let mut group = criterion.benchmark_group(format!("workers-{workers}"));
        group.bench_function("empty", |b| b.iter(|| pool.run(&Empty).unwrap()));
        group.bench_function("empty-cpu", |b| cpu(b, || pool.run(&Empty).unwrap()));
        if workers > 1 {
            let handover = || pool.run(&Handover(AtomicBool::new(false))).unwrap();
            group.bench_function("handover", |b| b.iter(handover));
            group.bench_function("handover-cpu", |b| cpu(b, handover));
            let items = 32 << 10;
            let stream = || {
                let stream = Stream {
                    items,
                    sum: AtomicUsize::new(0),
                };
                pool.run(&stream).unwrap();
                assert_eq!(stream.sum.into_inner(), items);
            };
            group.throughput(Throughput::Elements(items as u64));
            group.bench_function("share-next", |b| b.iter(stream));
            group.bench_function("share-next-cpu", |b| cpu(b, stream));
        }
        for nodes in [100, 1_000_000] {
            let walk = || {
                let tree = Tree {
                    nodes,
                    sum: AtomicUsize::new(0),
                };
                pool.run(&tree).unwrap();
                assert_eq!(tree.sum.into_inner(), nodes);
            };
            group.throughput(Throughput::Elements(nodes as u64));
            group.bench_function(format!("tree-{nodes}"), |b| b.iter(walk));
            group.bench_function(format!("tree-{nodes}-cpu"), |b| cpu(b, walk));
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000))
        .sample_size(20)
        .without_plots();
    targets = phases
}
criterion_main!(benches);
