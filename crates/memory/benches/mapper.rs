//! Looking addresses up, and asking for what is mapped already: what each block costs at run time.

#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use heapwright_address::{Address, Chunk};
use heapwright_memory::{Addresses, DenseMapper, FragmentedMapper, Mmapper};
use heapwright_os::{Reservation, real_port};
use std::hint::black_box;

fn lookups(c: &mut Criterion, name: &str, mapper: &impl Mmapper, base: Address) {
    mapper.ensure_mapped(base, 1, &[], &[]).unwrap();
    let mut group = c.benchmark_group(name);
    let unmapped = base.add(3 * Chunk::BYTES);
    let nowhere = Address::new(1 << 50);
    group.bench_function("mapped", |b| {
        b.iter(|| mapper.is_mapped_address(black_box(base)))
    });
    group.bench_function("unmapped", |b| {
        b.iter(|| mapper.is_mapped_address(black_box(unmapped)))
    });
    group.bench_function("unknown", |b| {
        b.iter(|| mapper.is_mapped_address(black_box(nowhere)))
    });
    group.bench_function("ensure mapped", |b| {
        b.iter(|| mapper.ensure_mapped(black_box(base), 1, &[], &[]).is_ok());
    });
    group.finish();
}

fn mappers(c: &mut Criterion) {
    let range = Reservation::new(real_port(), 4 * Chunk::BYTES, Chunk::BYTES).unwrap();
    let dense = DenseMapper::new(real_port(), range.start(), range.bytes()).unwrap();
    lookups(c, "dense", &dense, range.start());
    let range = Reservation::new(real_port(), 4 * Chunk::BYTES, Chunk::BYTES).unwrap();
    let fragmented = FragmentedMapper::new(real_port(), Addresses::Reserved).unwrap();
    lookups(c, "fragmented", &fragmented, range.start());
}

criterion_group!(benches, mappers);
criterion_main!(benches);
