//! The hot paths: allocation with its collections, and the tracing loop, driven by the toy runtime.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/toy/mod.rs"]
mod toy;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use heapwright::{Cause, WordHeap};
use std::hint::black_box;
use std::time::Duration;
use toy::{NODE, Toy, alloc, heap, root, set};

/// A graph of `n` nodes with three references each and a number, 32 bytes; `shuffled` in random order.
fn graph(n: usize, shuffled: bool, workers: &str) -> WordHeap<Toy> {
    let h = heap(&[("heap", "8g"), ("workers", workers)]);
    let nodes: Vec<usize> = (0..n).map(|_| alloc(&h, NODE, 32).unwrap()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |m: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % m as u64) as usize
    };
    if shuffled {
        for i in (1..n).rev() {
            order.swap(i, random(i + 1));
        }
    }
    for i in 0..n {
        let node = nodes[order[i]];
        // A binary tree over the order reaches all; the third reference goes anywhere.
        for (word, target) in [2 * i + 1, 2 * i + 2].into_iter().enumerate() {
            if target < n {
                set(node, word, nodes[order[target]]);
            }
        }
        set(
            node,
            2,
            nodes[if shuffled {
                random(n)
            } else {
                order[(i + 1) % n]
            }],
        );
        set(node, 3, i);
    }
    root(&h, nodes[order[0]]);
    h
}

fn trace(c: &mut Criterion) {
    let mut group = c.benchmark_group("trace");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    for (name, shuffled, workers) in [
        ("shuffled", true, "1"),
        ("in order", false, "1"),
        ("shuffled, 2 workers", true, "2"),
    ] {
        let n = 1 << 21;
        let h = graph(n, shuffled, workers);
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(name, |b| {
            b.iter(|| assert!(h.collect(Cause::Requested).marked_cells >= n))
        });
    }
    group.finish();
}

fn allocate(c: &mut Criterion) {
    let mut group = c.benchmark_group("allocate");
    group.throughput(Throughput::Elements(1));
    for bytes in [24, 64, 256, 4096] {
        let h = heap(&[]);
        group.bench_function(format!("{bytes} B, all garbage"), |b| {
            b.iter(|| alloc(&h, NODE, black_box(bytes)).unwrap())
        });
    }
    group.finish();
}

fn empty(c: &mut Criterion) {
    let mut group = c.benchmark_group("empty collection");
    for workers in ["1", "2"] {
        let h = heap(&[("workers", workers)]);
        group.bench_function(format!("{workers} workers"), |b| {
            b.iter_batched(
                || (),
                |()| h.collect(Cause::Requested),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, allocate, empty, trace);
criterion_main!(benches);
