//! What a mapper touches when it is made. Alone in its process, whose pages are counted.

#![allow(clippy::unwrap_used, missing_docs)]

use heapwright_address::{Address, Chunk};
use heapwright_memory::{Addresses, DenseMapper, FragmentedMapper, Mmapper};
use heapwright_os::{Reservation, limits, real_port};

/// Bytes that became resident while `make` ran; the least of some runs, since the first one also pays for code pages.
fn touched<T>(make: impl Fn() -> T) -> usize {
    (0..8)
        .map(|_| {
            let before = limits::resident_bytes();
            let made = make();
            let after = limits::resident_bytes();
            drop(made);
            after.saturating_sub(before)
        })
        .min()
        .unwrap()
}

#[test]
fn a_mapper_touches_at_most_64_kib_when_it_is_made_and_has_its_first_chunk() {
    // The counter works: what is written is seen.
    let port = real_port();
    assert!(
        touched(|| {
            let range = Reservation::new(real_port(), 8 << 20, Chunk::BYTES).unwrap();
            port.commit(range.start(), 8 << 20).unwrap();
            // SAFETY: committed just now.
            unsafe { core::ptr::write_bytes(range.start().as_mut_ptr::<u8>(), 1, 8 << 20) };
            range
        }) > 7 << 20
    );
    let fragmented = touched(|| {
        let mapper = FragmentedMapper::new(real_port(), Addresses::Reserved).unwrap();
        mapper.mark_as_mapped(Address::new(1 << 40), 1).unwrap();
        assert!(mapper.is_mapped_address(Address::new(1 << 40)));
        mapper
    });
    assert!(fragmented <= 64 << 10, "{fragmented}");
    // A range of 4 TiB has a million states, of which one is used.
    let dense = touched(|| {
        let range = Reservation::new(real_port(), 1 << 42, Chunk::BYTES).unwrap();
        let mapper = DenseMapper::new(real_port(), range.start(), range.bytes()).unwrap();
        mapper.ensure_mapped(range.start(), 1, &[], &[]).unwrap();
        (mapper, range)
    });
    assert!(dense <= 64 << 10, "{dense}");
}
