//! A bit table of 1 MiB, whole: what sweeping and counting cost.

#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use heapwright_address::{Address, Chunk};
use heapwright_memory::{
    BitTable, DenseMapper, Mmapper, Scope, SideLayout, SideMemory, SideMetadataSpec,
};
use heapwright_os::{Reservation, real_port};
use std::hint::black_box;

const LOG: u32 = 4;
/// A bit for each 16 bytes of 128 MiB: 1 MiB of bits.
const BYTES: usize = 128 << 20;

/// A table, with what keeps it.
fn table() -> (Reservation, SideMemory, BitTable<LOG>) {
    let range = Reservation::new(real_port(), BYTES, Chunk::BYTES).unwrap();
    let spec = SideMetadataSpec::new("bits", 0, LOG, Scope::Global);
    let side = SideLayout::new()
        .with(spec)
        .place(&real_port(), range.start(), BYTES, c"bits")
        .unwrap();
    DenseMapper::new(real_port(), range.start(), BYTES)
        .unwrap()
        .ensure_mapped(range.start(), BYTES >> 12, side.specs(), &[])
        .unwrap();
    // SAFETY: the whole range is mapped, and the caller keeps all three.
    let bits = unsafe { BitTable::new(&side.specs()[0]) }.unwrap();
    (range, side, bits)
}

/// Sets about one bit of each `of`, at random.
fn scatter(bits: BitTable<LOG>, start: Address, of: u64) {
    let mut random = 1u64;
    for n in 0..BYTES >> LOG {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if random.is_multiple_of(of) {
            bits.try_set(start.add(n << LOG));
        }
    }
}

fn tables(c: &mut Criterion) {
    let (range, side, bits) = table();
    let (start, end) = (range.start(), range.end());
    for (name, of) in [("empty", 0), ("sparse", 1024), ("dense", 2)] {
        bits.clear_range(start, end);
        if of != 0 {
            scatter(bits, start, of);
        }
        let mut group = c.benchmark_group("bits");
        group.throughput(Throughput::Bytes(side.bytes() as u64));
        group.bench_function(BenchmarkId::new("count", name), |b| {
            b.iter(|| bits.count(black_box(start), black_box(end)));
        });
        group.bench_function(BenchmarkId::new("for_each_set", name), |b| {
            b.iter(|| {
                let mut sum = 0usize;
                bits.for_each_set(black_box(start), black_box(end), |at| {
                    sum = sum.wrapping_add(at.as_usize());
                });
                sum
            });
        });
        group.bench_function(BenchmarkId::new("find_next_set", name), |b| {
            b.iter(|| {
                let (mut at, mut sum) = (black_box(start), 0usize);
                while let Some(found) = bits.find_next_set(at, end) {
                    sum = sum.wrapping_add(found.as_usize());
                    at = found.add(1 << LOG);
                }
                sum
            });
        });
        group.finish();
    }
    // A block of 32 KiB with 8 lines of 4 KiB, and the whole.
    for (name, bytes) in [("4 KiB", 4 << 10), ("32 KiB", 32 << 10), ("128 MiB", BYTES)] {
        let mut group = c.benchmark_group("ranges");
        // Both ends lie inside of words.
        let (from, to) = (start.add(16), start.add(bytes - 16));
        group.bench_function(BenchmarkId::new("set_range", name), |b| {
            b.iter(|| bits.set_range(black_box(from), black_box(to)));
        });
        group.bench_function(BenchmarkId::new("clear_range", name), |b| {
            b.iter(|| bits.clear_range(black_box(from), black_box(to)));
        });
        group.bench_function(BenchmarkId::new("count", name), |b| {
            b.iter(|| bits.count(black_box(from), black_box(to)));
        });
        group.finish();
    }
}

criterion_group!(benches, tables);
criterion_main!(benches);
