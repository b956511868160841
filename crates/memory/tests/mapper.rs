//! The mappers against their contract.

#![cfg(not(loom))]
#![allow(clippy::unwrap_used, missing_docs)]

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use heapwright_address::{Address, Chunk};
use heapwright_memory::{
    Addresses, DenseMapper, FragmentedMapper, MapError, Mmapper, Scope, SideLayout,
    SideMetadataSpec, slab_hash,
};
use heapwright_os::{FaultPlan, FaultyPort, Port, Reservation, real_port};
use std::sync::{Arc, Barrier};

const PAGE: usize = 4096;
const PAGES_IN_CHUNK: usize = Chunk::BYTES / PAGE;

/// A range of our own, and both mappers over it.
fn each_mapper(chunks: usize, test: impl Fn(&dyn Mmapper, Address)) {
    let range = Reservation::new(real_port(), chunks * Chunk::BYTES, Chunk::BYTES).unwrap();
    test(
        &DenseMapper::new(real_port(), range.start(), range.bytes()).unwrap(),
        range.start(),
    );
    let range = Reservation::new(real_port(), chunks * Chunk::BYTES, Chunk::BYTES).unwrap();
    test(
        &FragmentedMapper::new(real_port(), Addresses::Reserved).unwrap(),
        range.start(),
    );
}

fn chunk(base: Address, n: usize) -> Address {
    base.add(n * Chunk::BYTES)
}

fn write(at: Address, value: u64) {
    // SAFETY: tests write to what they mapped.
    unsafe { at.store(value) };
}

fn read(at: Address) -> u64 {
    // SAFETY: tests read what they mapped.
    unsafe { at.load() }
}

#[test]
fn the_hash_is_the_xor_of_the_digits() {
    for w in [7, 8, 11] {
        for i in 0..10usize {
            let mut address = i << 30;
            assert_eq!(slab_hash(Address::new(address), w), i);
            address += (i + 1) << (30 + w + 1);
            assert_eq!(slab_hash(Address::new(address), w), i ^ ((i + 1) << 1));
            address += (i + 2) << (30 + 2 * w + 2);
            assert_eq!(
                slab_hash(Address::new(address), w),
                i ^ ((i + 1) << 1) ^ ((i + 2) << 2)
            );
        }
    }
}

#[test]
fn one_page_one_chunk_and_more_are_mapped_whole_and_no_further() {
    for pages in [1, PAGES_IN_CHUNK, PAGES_IN_CHUNK + 1, 3 * PAGES_IN_CHUNK] {
        each_mapper(5, |mapper, base| {
            mapper.ensure_mapped(base, pages, &[], &[]).unwrap();
            let chunks = pages.div_ceil(PAGES_IN_CHUNK);
            for n in 0..5 {
                for inside in [0, 1, Chunk::BYTES / 2, Chunk::BYTES - 1] {
                    assert_eq!(
                        mapper.is_mapped_address(chunk(base, n).add(inside)),
                        n < chunks,
                        "{pages} {n}"
                    );
                }
            }
            for n in 0..chunks {
                for at in [chunk(base, n), chunk(base, n).add(Chunk::BYTES - 8)] {
                    assert_eq!(read(at), 0);
                    write(at, 1);
                }
            }
        });
    }
}

#[test]
fn a_range_in_the_middle_is_rounded_outward() {
    each_mapper(4, |mapper, base| {
        mapper
            .ensure_mapped(chunk(base, 1).add(Chunk::BYTES - PAGE), 2, &[], &[])
            .unwrap();
        assert_eq!(
            [0, 1, 2, 3].map(|n| mapper.is_mapped_address(chunk(base, n))),
            [false, true, true, false]
        );
    });
}

#[test]
fn protect_closes_and_ensure_mapped_opens_with_the_contents() {
    each_mapper(3, |mapper, base| {
        mapper
            .ensure_mapped(base, 2 * PAGES_IN_CHUNK, &[], &[])
            .unwrap();
        write(base, 11);
        write(chunk(base, 1), 22);
        mapper.protect(base, PAGES_IN_CHUNK).unwrap();
        mapper.protect(base, 1).unwrap();
        assert_eq!(
            [0, 1, 2].map(|n| mapper.is_mapped_address(chunk(base, n))),
            [false, true, false]
        );
        mapper.mark_as_mapped(base, Chunk::BYTES).unwrap();
        assert!(
            !mapper.is_mapped_address(base),
            "what is protected stays so"
        );
        mapper
            .ensure_mapped(base, 3 * PAGES_IN_CHUNK, &[], &[])
            .unwrap();
        assert_eq!(
            [read(base), read(chunk(base, 1)), read(chunk(base, 2))],
            [11, 22, 0]
        );
        let hole = mapper.unmap(chunk(base, 1), 1);
        assert_eq!(hole, Ok(()));
        assert_eq!(
            mapper.protect(base, 2 * PAGES_IN_CHUNK),
            Err(MapError::NotMapped {
                chunk: chunk(base, 1)
            })
        );
        assert!(
            mapper.is_mapped_address(base),
            "a range with a hole is refused whole"
        );
    });
}

#[test]
fn unmap_and_decommit_give_memory_back() {
    each_mapper(2, |mapper, base| {
        mapper
            .ensure_mapped(base, 2 * PAGES_IN_CHUNK, &[], &[])
            .unwrap();
        write(base, 1);
        write(base.add(PAGE), 2);
        mapper.decommit(base, 1).unwrap();
        assert_eq!(
            (read(base), read(base.add(PAGE))),
            (0, 2),
            "exactly the pages that were named"
        );
        assert!(mapper.is_mapped_address(base));
        mapper.unmap(base, 2 * PAGES_IN_CHUNK).unwrap();
        mapper.unmap(base, 2 * PAGES_IN_CHUNK).unwrap();
        assert!(!mapper.is_mapped_address(base) && !mapper.is_mapped_address(chunk(base, 1)));
        assert!(matches!(
            mapper.decommit(base, 1),
            Err(MapError::NotMapped { .. })
        ));
        mapper.ensure_mapped(base, 1, &[], &[]).unwrap();
        assert_eq!(read(base.add(PAGE)), 0);
    });
}

#[test]
fn what_is_wrong_is_an_error_and_nothing_is_nothing() {
    each_mapper(1, |mapper, base| {
        assert_eq!(mapper.ensure_mapped(base, 0, &[], &[]), Ok(()));
        assert_eq!(mapper.protect(base, 0), Ok(()));
        assert_eq!(mapper.mark_as_mapped(base, 0), Ok(()));
        assert!(!mapper.is_mapped_address(base));
        let unaligned = base.add(8);
        assert_eq!(
            mapper.ensure_mapped(unaligned, 1, &[], &[]),
            Err(MapError::Unaligned { start: unaligned })
        );
        assert!(matches!(
            mapper.ensure_mapped(base, usize::MAX, &[], &[]),
            Err(MapError::Overflow { .. })
        ));
        assert!(matches!(
            mapper.ensure_mapped(base, usize::MAX / PAGE, &[], &[]),
            Err(MapError::Overflow { .. })
        ));
        assert!(matches!(
            mapper.protect(base, 1),
            Err(MapError::NotMapped { .. })
        ));
        for bits in [
            0,
            1,
            usize::MAX,
            1 << 63,
            (1 << 57) - 1,
            base.as_usize() ^ (1 << 40),
        ] {
            assert!(!mapper.is_mapped_address(Address::new(bits)));
        }
    });
}

#[test]
fn a_range_may_cross_slabs_and_end_at_the_top_of_the_address_space() {
    let mapper = FragmentedMapper::new(real_port(), Addresses::Reserved).unwrap();
    let top = Address::new(usize::MAX & !(2 * Chunk::BYTES - 1));
    mapper.mark_as_mapped(top, 2 * Chunk::BYTES).unwrap();
    assert!(mapper.is_mapped_address(Address::MAX) && mapper.is_mapped_address(top));
    assert!(!mapper.is_mapped_address(top.sub(1)));
    let border = Address::new(5 << 30);
    mapper
        .mark_as_mapped(border.sub(Chunk::BYTES), 2 * Chunk::BYTES)
        .unwrap();
    assert!(mapper.is_mapped_address(border) && mapper.is_mapped_address(border.sub(1)));
    assert_eq!(mapper.slabs(), 3);
}

#[test]
fn slabs_that_collide_are_all_found_and_the_table_grows_under_readers() {
    let mapper = FragmentedMapper::new(real_port(), Addresses::Reserved).unwrap();
    assert!(mapper.metadata_bytes() <= 64 << 10);
    let first = mapper.log_table();
    // Equal hashes in the first table: slab and slab ^ (x << w) ^ x.
    let slabs: Vec<usize> = (0..4000usize).map(|i| i << first ^ i).collect();
    let done = AtomicBool::new(false);
    let filled = AtomicUsize::new(0);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let n = filled.load(Ordering::Acquire);
                    for slab in &slabs[..n] {
                        assert!(mapper.is_mapped_address(Address::new(slab << 30)));
                    }
                }
            });
        }
        for (n, slab) in slabs.iter().enumerate() {
            assert!(!mapper.is_mapped_address(Address::new(slab << 30)));
            mapper
                .mark_as_mapped(Address::new(slab << 30), Chunk::BYTES)
                .unwrap();
            filled.store(n + 1, Ordering::Release);
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(mapper.slabs(), slabs.len());
    assert!(mapper.log_table() > first);
    for slab in &slabs {
        assert!(mapper.is_mapped_address(Address::new(slab << 30)));
        assert!(!mapper.is_mapped_address(Address::new((slab << 30) + Chunk::BYTES)));
    }
}

#[test]
fn claimed_addresses_are_never_a_strangers() {
    let mapper = FragmentedMapper::new(real_port(), Addresses::Claimed).unwrap();
    // An address that the system gives to nobody who does not ask for it, so that no other test takes it in between.
    let base = Address::new(0x2a00_0000_0000);
    real_port().reserve_at(base, 2 * Chunk::BYTES).unwrap();
    assert!(
        matches!(mapper.ensure_mapped(base, 1, &[], &[]), Err(MapError::Os(e)) if e.errno == 17)
    );
    real_port().release(base, 2 * Chunk::BYTES).unwrap();
    mapper.ensure_mapped(base, 1, &[], &[]).unwrap();
    write(base, 5);
    mapper.unmap(base, 1).unwrap();
}

/// Several threads map overlapping ranges and write to them at once. True if no datum was lost.
fn overlapping_threads_keep_their_data(mapper: &dyn Mmapper, base: Address, rounds: usize) -> bool {
    const THREADS: usize = 4;
    let ok = AtomicBool::new(true);
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|s| {
        for t in 0..THREADS {
            let (ok, barrier) = (&ok, &barrier);
            s.spawn(move || {
                for round in 0..rounds {
                    // Everybody's range has the round's chunk, and some of its neighbours.
                    let from = (round + t)
                        .saturating_sub(THREADS - 1)
                        .max(round.saturating_sub(1));
                    barrier.wait();
                    mapper
                        .ensure_mapped(
                            chunk(base, from),
                            (round + 1 - from) * PAGES_IN_CHUNK,
                            &[],
                            &[],
                        )
                        .unwrap();
                    let mine = chunk(base, round).add(t * 64);
                    write(mine, 1 + round as u64);
                    barrier.wait();
                    if read(mine) != 1 + round as u64 {
                        ok.store(false, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    ok.into_inner()
}

#[test]
fn many_threads_on_overlapping_ranges_lose_nothing() {
    each_mapper(200, |mapper, base| {
        assert!(overlapping_threads_keep_their_data(mapper, base, 200))
    });
}

/// The historical bug: the state is looked at before, and the chunk mapped anew after it, without a claim in between; to
/// map a chunk is to zero it.
struct Buggy {
    states: Vec<AtomicU8>,
    base: Address,
    port: Arc<dyn Port>,
}

impl Mmapper for Buggy {
    fn eagerly_mmap_all_spaces(&self, _: &[Address]) -> Result<(), MapError> {
        Ok(())
    }
    fn mark_as_mapped(&self, _: Address, _: usize) -> Result<(), MapError> {
        Ok(())
    }
    fn ensure_mapped(
        &self,
        start: Address,
        pages: usize,
        _: &[SideMetadataSpec],
        _: &[SideMetadataSpec],
    ) -> Result<(), MapError> {
        let first = start.diff(self.base) / Chunk::BYTES;
        for n in first..first + pages.div_ceil(PAGES_IN_CHUNK) {
            if self.states[n].load(Ordering::Relaxed) == 0 {
                std::thread::sleep(core::time::Duration::from_micros(50 * (n as u64 % 3)));
                self.port.commit(chunk(self.base, n), Chunk::BYTES)?;
                self.port.decommit(chunk(self.base, n), Chunk::BYTES)?;
                self.states[n].store(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
    fn is_mapped_address(&self, _: Address) -> bool {
        true
    }
    fn protect(&self, _: Address, _: usize) -> Result<(), MapError> {
        Ok(())
    }
    fn unmap(&self, _: Address, _: usize) -> Result<(), MapError> {
        Ok(())
    }
    fn decommit(&self, _: Address, _: usize) -> Result<(), MapError> {
        Ok(())
    }
}

#[test]
fn the_same_test_catches_the_historical_bug() {
    let caught = (0..20).any(|_| {
        let range = Reservation::new(real_port(), 200 * Chunk::BYTES, Chunk::BYTES).unwrap();
        let states = (0..200).map(|_| AtomicU8::new(0)).collect();
        let buggy = Buggy {
            states,
            base: range.start(),
            port: real_port(),
        };
        !overlapping_threads_keep_their_data(&buggy, range.start(), 200)
    });
    assert!(caught);
}

#[test]
fn after_any_refused_call_each_chunk_is_untouched_or_complete_and_the_next_try_works() {
    for errno in [12, 11, 1] {
        for at in 0.. {
            let port = Arc::new(FaultyPort::new(real_port(), None));
            let dynamic = Arc::clone(&port) as Arc<dyn Port>;
            let range =
                Reservation::new(Arc::clone(&dynamic), 4 * Chunk::BYTES, Chunk::BYTES).unwrap();
            let base = range.start();
            let side = SideLayout::new()
                .with(SideMetadataSpec::new("bits", 0, 4, Scope::Global))
                .with(SideMetadataSpec::new("bytes", 3, 12, Scope::Local))
                .place(&dynamic, base, range.bytes(), c"test")
                .unwrap();
            let (global, local) = side.specs().split_at(1);
            let mapper = DenseMapper::new(dynamic, base, range.bytes()).unwrap();
            mapper
                .ensure_mapped(chunk(base, 1), 1, global, local)
                .unwrap();
            write(chunk(base, 1), 77);
            port.set(Some(FaultPlan {
                op: None,
                at,
                times: 1,
                errno,
            }));
            let steps: [&dyn Fn() -> Result<(), MapError>; 5] = [
                &|| mapper.ensure_mapped(base, 4 * PAGES_IN_CHUNK, global, local),
                &|| mapper.protect(base, 2 * PAGES_IN_CHUNK),
                &|| mapper.ensure_mapped(base, 2 * PAGES_IN_CHUNK, global, local),
                &|| mapper.decommit(chunk(base, 3), 4),
                &|| mapper.unmap(chunk(base, 2), PAGES_IN_CHUNK),
            ];
            for step in steps {
                if let Err(e) = step() {
                    assert!(matches!(e, MapError::Os(os) if os.errno == errno), "{e}");
                    for n in 0..4 {
                        if mapper.is_mapped_address(chunk(base, n)) {
                            let at = chunk(base, n).add(Chunk::BYTES - 8);
                            write(at, read(at));
                            for spec in side.specs() {
                                let entry = spec.table().add(spec.bytes_for(n * Chunk::BYTES));
                                write(entry, read(entry));
                            }
                        }
                    }
                    step().unwrap();
                }
            }
            assert_eq!(read(chunk(base, 1)), 77);
            assert_eq!(
                [0, 1, 2, 3].map(|n| mapper.is_mapped_address(chunk(base, n))),
                [true, true, false, true]
            );
            if port.failed() == 0 {
                assert!(at > 6, "every call was walked: {at}");
                break;
            }
        }
    }
}
