//! Side tables against simple models: a vector of booleans for a [`BitTable`], a vector of entries for a [`SideTable`].

#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used)]

use core::ffi::CStr;
use core::sync::atomic::{AtomicUsize, Ordering};
use heapwright_address::{Address, Chunk};
use heapwright_memory::{
    BitTable, DenseMapper, Mmapper, Scope, SideLayout, SideMemory, SideMetadataSpec, SideTable,
};
use heapwright_os::{OsError, Port, Reservation, real_port};
use proptest::prelude::*;
use std::sync::{Arc, Barrier, Mutex};

const PAGE: usize = 4096;

/// So many cases, or what the environment says; what failed is printed and not kept in files.
fn cases(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: match std::env::var_os("PROPTEST_CASES") {
            Some(_) => default.cases,
            None => cases,
        },
        failure_persistence: None,
        ..default
    }
}

/// A range of chunks, all mapped along with its tables.
struct Rig {
    range: Reservation,
    side: SideMemory,
}

impl Rig {
    fn new(chunks: usize, specs: &[SideMetadataSpec]) -> Self {
        let port = real_port();
        let range =
            Reservation::new(Arc::clone(&port), chunks * Chunk::BYTES, Chunk::BYTES).unwrap();
        let layout = specs
            .iter()
            .fold(SideLayout::new(), |layout, spec| layout.with(*spec));
        let side = layout
            .place(&port, range.start(), range.bytes(), c"test")
            .unwrap();
        DenseMapper::new(port, range.start(), range.bytes())
            .unwrap()
            .ensure_mapped(range.start(), range.bytes() / PAGE, side.specs(), &[])
            .unwrap();
        Self { range, side }
    }

    fn bits<const LOG: u32>(chunks: usize) -> (Self, BitTable<LOG>) {
        let rig = Self::new(
            chunks,
            &[SideMetadataSpec::new("bits", 0, LOG, Scope::Global)],
        );
        // SAFETY: both are returned, the table's whole range is mapped, and tests drop them together.
        let table = unsafe { BitTable::new(&rig.side.specs()[0]) }.unwrap();
        (rig, table)
    }
}

// ---- layout ----

/// A port that notes what is committed.
#[derive(Debug)]
struct Noting {
    inner: Arc<dyn Port>,
    committed: Mutex<Vec<(usize, usize)>>,
}

impl Noting {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: real_port(),
            committed: Mutex::new(Vec::new()),
        })
    }

    fn has(&self, from: Address, to: Address) -> bool {
        let list = self.committed.lock().unwrap();
        (from.align_down(PAGE).as_usize()..to.as_usize())
            .step_by(PAGE)
            .all(|page| list.iter().any(|(a, b)| *a <= page && page < *b))
    }
}

impl Port for Noting {
    fn page_size(&self) -> usize {
        self.inner.page_size()
    }
    fn reserve(&self, bytes: usize, align: usize) -> Result<Address, OsError> {
        self.inner.reserve(bytes, align)
    }
    fn reserve_at(&self, a: Address, n: usize) -> Result<(), OsError> {
        self.inner.reserve_at(a, n)
    }
    fn commit(&self, a: Address, n: usize) -> Result<(), OsError> {
        self.inner.commit(a, n)?;
        let mut list = self.committed.lock().unwrap();
        list.push((a.as_usize(), a.as_usize() + n));
        Ok(())
    }
    fn decommit(&self, a: Address, n: usize) -> Result<(), OsError> {
        self.inner.decommit(a, n)
    }
    fn uncommit(&self, a: Address, n: usize) -> Result<(), OsError> {
        self.inner.uncommit(a, n)
    }
    fn protect(&self, a: Address, n: usize) -> Result<(), OsError> {
        self.inner.protect(a, n)
    }
    fn release(&self, a: Address, n: usize) -> Result<(), OsError> {
        self.inner.release(a, n)
    }
    fn name(&self, _: Address, _: usize, _: &'static CStr) {}
    fn populate(&self, a: Address, n: usize) -> Result<(), OsError> {
        self.inner.populate(a, n)
    }
    fn huge(&self, a: Address, n: usize, wanted: bool) -> Result<(), OsError> {
        self.inner.huge(a, n, wanted)
    }
}

/// The bytes of a table that hold the entries of `[offset, offset + bytes)` of its range, from first principles.
fn bytes_of_entries(spec: &SideMetadataSpec, offset: usize, bytes: usize) -> (Address, Address) {
    let first = offset >> spec.log_region;
    let last = (offset + bytes - 1) >> spec.log_region;
    let (first_bit, end_bit) = (first << spec.log_bits, (last + 1) << spec.log_bits);
    (
        spec.table().add(first_bit / 8),
        spec.table().add(end_bit.div_ceil(8)),
    )
}

/// A chunk far into a range, whose entry is the last bit of a page of the table, and chunks smaller than a region.
#[test]
fn the_entries_of_any_chunk_are_mapped_with_it_alone() {
    let chunks = 32_768 + 16;
    for (log_bits, log_region) in [
        (0, 22),
        (0, 23),
        (0, 25),
        (1, 22),
        (2, 24),
        (3, 26),
        (6, 22),
    ] {
        for n in [0, 1, 7, 8, 32_760, 32_761, 32_767, 32_768, chunks - 1] {
            let port = Noting::new();
            let dynamic = Arc::clone(&port) as Arc<dyn Port>;
            let range = Reservation::new(Arc::clone(&dynamic), chunks * Chunk::BYTES, Chunk::BYTES)
                .unwrap();
            let spec = SideMetadataSpec::new("sparse", log_bits, log_region, Scope::Global);
            let side = SideLayout::new()
                .with(spec)
                .place(&dynamic, range.start(), range.bytes(), c"test")
                .unwrap();
            let mapper = DenseMapper::new(dynamic, range.start(), range.bytes()).unwrap();
            mapper
                .ensure_mapped(range.start().add(n * Chunk::BYTES), 1, side.specs(), &[])
                .unwrap();
            let spec = &side.specs()[0];
            let (from, to) = bytes_of_entries(spec, n * Chunk::BYTES, Chunk::BYTES);
            assert!(port.has(from, to), "{log_bits} {log_region} chunk {n}");
            assert!(to.diff(spec.table()) <= side.bytes());
        }
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn tables_lie_side_by_side_whatever_their_shapes(
        shapes in prop::collection::vec((0u32..=6, 3u32..=24), 1..8),
        chunks in 1usize..300,
        odd in 0usize..Chunk::BYTES,
    ) {
        // The last chunk need not be whole.
        let bytes = chunks * Chunk::BYTES - odd;
        let base = Address::new(1 << 40);
        let layout = shapes.iter().fold(SideLayout::new(), |layout, (bits, region)| {
            layout.with(SideMetadataSpec::new("t", *bits, *region, Scope::Local))
        });
        let side = layout.place(&real_port(), base, bytes, c"test").unwrap();
        prop_assert_eq!(side.specs().len(), shapes.len());
        let mut end = side.specs()[0].table();
        for (spec, (bits, region)) in side.specs().iter().zip(&shapes) {
            prop_assert_eq!((spec.log_bits, spec.log_region), (*bits, *region));
            prop_assert_eq!(spec.base(), base);
            prop_assert!(spec.table().is_aligned_to(PAGE));
            prop_assert!(spec.table() >= end, "tables overlap");
            let (from, to) = bytes_of_entries(spec, 0, bytes);
            prop_assert_eq!(from, spec.table());
            prop_assert_eq!(to.diff(from), spec.bytes_for(bytes));
            end = to;
        }
        prop_assert!(end.diff(side.specs()[0].table()) <= side.bytes());
    }

    /// Whatever is written through one table, the others read what they did.
    #[test]
    fn tables_of_one_range_do_not_touch_each_other(
        chunks in 1usize..4,
        writes in prop::collection::vec((0usize..3, any::<prop::sample::Index>()), 1..50),
    ) {
        let rig = Rig::new(chunks, &[
            SideMetadataSpec::new("bits", 0, 4, Scope::Global),
            SideMetadataSpec::new("bytes", 3, 12, Scope::Local),
            SideMetadataSpec::new("words", 6, 15, Scope::Local),
        ]);
        let specs = rig.side.specs();
        // SAFETY: the rig outlives them, and its whole range is mapped.
        let (bits, bytes, words) = unsafe {
            (
                BitTable::<4>::new(&specs[0]).unwrap(),
                SideTable::<u8, 12>::new(&specs[1]).unwrap(),
                SideTable::<u64, 15>::new(&specs[2]).unwrap(),
            )
        };
        let (start, end) = (rig.range.start(), rig.range.end());
        let sums = || (
            bits.count(start, end),
            (0..rig.range.bytes() >> 12).filter(|i| bytes.at(*i).load(Ordering::Relaxed) == 0xa5).count(),
            (0..rig.range.bytes() >> 15).filter(|i| words.at(*i).load(Ordering::Relaxed) == u64::MAX).count(),
        );
        let mut expected = (0, 0, 0);
        for (which, index) in writes {
            let at = start.add(index.index(rig.range.bytes()));
            match which {
                0 => expected.0 += usize::from(bits.try_set(at)),
                1 => {
                    expected.1 += usize::from(bytes.load(at) == 0);
                    bytes.store(at, 0xa5);
                }
                _ => expected.2 += usize::from(words.fetch_or(at, u64::MAX) == 0),
            }
        }
        prop_assert_eq!(sums(), expected);
    }
}

#[test]
fn a_face_fits_its_own_shape_only() {
    let rig = Rig::new(1, &[SideMetadataSpec::new("bytes", 3, 12, Scope::Global)]);
    let placed = rig.side.specs()[0];
    let unplaced = SideMetadataSpec::new("bytes", 3, 12, Scope::Global);
    assert_eq!((placed.name, placed.scope), ("bytes", Scope::Global));
    // SAFETY: none of them is used.
    unsafe {
        assert!(SideTable::<u8, 12>::new(&placed).is_some());
        assert!(SideTable::<u8, 12>::new(&unplaced).is_none());
        assert!(SideTable::<u8, 13>::new(&placed).is_none());
        assert!(SideTable::<u16, 12>::new(&placed).is_none());
        assert!(BitTable::<12>::new(&placed).is_none());
    }
}

#[test]
fn a_layout_that_does_not_fit_into_the_address_space_is_refused() {
    let layout = SideLayout::new()
        .with(SideMetadataSpec::new("a", 6, 3, Scope::Global))
        .with(SideMetadataSpec::new("b", 6, 3, Scope::Global));
    let bytes = usize::MAX & !(Chunk::BYTES - 1);
    assert!(
        layout
            .place(&real_port(), Address::new(Chunk::BYTES), bytes, c"test")
            .is_err()
    );
    // 2^58 bytes of memory by 2^6 bits for each 2^0: the number of bits is a multiple of 2^64.
    let wrapping = SideLayout::new().with(SideMetadataSpec::new("c", 6, 0, Scope::Global));
    let placed = wrapping.place(&real_port(), Address::new(1 << 40), 1 << 58, c"test");
    assert!(placed.is_err());
    let empty = SideLayout::new().place(&real_port(), Address::new(1 << 40), 1 << 30, c"test");
    assert!(empty.is_ok_and(|side| side.specs().is_empty() && side.bytes() == 0));
}

// ---- entries ----

#[derive(Clone, Debug)]
enum EntryOp {
    Load(usize),
    Store(usize, u64),
    StoreRelease(usize, u64),
    Or(usize, u64),
    /// Replaces what is there if true, else what is not there.
    Exchange(usize, bool, u64),
    Fill(usize, usize, u64),
}

/// Numbers of regions in a window at the start, in the middle, or at the end.
const WINDOW: usize = 320;

fn at() -> impl Strategy<Value = usize> {
    // Borders of words are likelier than the rest.
    prop_oneof![
        3 => 0..WINDOW,
        2 => (0usize..=WINDOW / 64, -2isize..=2)
            .prop_map(|(word, off)| (word * 64).saturating_add_signed(off).min(WINDOW - 1)),
    ]
}

fn span() -> impl Strategy<Value = (usize, usize)> {
    (at(), at(), any::<bool>()).prop_map(|(a, b, whole)| {
        let (low, high) = (a.min(b), a.max(b));
        (low, if whole { WINDOW } else { high })
    })
}

fn entry_op() -> impl Strategy<Value = EntryOp> {
    prop_oneof![
        at().prop_map(EntryOp::Load),
        (at(), any::<u64>()).prop_map(|(i, v)| EntryOp::Store(i, v)),
        (at(), any::<u64>()).prop_map(|(i, v)| EntryOp::StoreRelease(i, v)),
        (at(), any::<u64>()).prop_map(|(i, v)| EntryOp::Or(i, v)),
        (at(), any::<bool>(), any::<u64>()).prop_map(|(i, hit, v)| EntryOp::Exchange(i, hit, v)),
        (span(), any::<u64>()).prop_map(|((a, b), v)| EntryOp::Fill(a, b, v)),
    ]
}

macro_rules! entry_tests {
    ($($name:ident: $t:ty, $log_bits:expr, $log:literal;)*) => {$(
        mod $name {
            use super::*;

            fn table(chunks: usize) -> (Rig, SideTable<$t, $log>) {
                let rig = Rig::new(chunks, &[SideMetadataSpec::new("t", $log_bits, $log, Scope::Local)]);
                // SAFETY: both are returned, and the table's whole range is mapped.
                let table = unsafe { SideTable::new(&rig.side.specs()[0]) }.unwrap();
                (rig, table)
            }

            fn run(first: usize, inside: usize, ops: &[EntryOp]) {
                let regions = 2 * Chunk::BYTES >> $log;
                let (rig, table) = table(2);
                let first = first.min(regions - WINDOW);
                let edge = |i: usize| rig.range.start().add((first + i) << $log);
                // Any address inside of a region means the region.
                let inner = |i: usize| edge(i).add(inside & ((1 << $log) - 1));
                let mut model = [0 as $t; WINDOW];
                for op in ops {
                    match *op {
                        EntryOp::Load(i) => {
                            assert_eq!(table.load(inner(i)), model[i]);
                            assert_eq!(table.load_acquire(inner(i)), model[i]);
                            assert_eq!(table.index(inner(i)), first + i);
                        }
                        EntryOp::Store(i, v) => {
                            table.store(inner(i), v as $t);
                            model[i] = v as $t;
                        }
                        EntryOp::StoreRelease(i, v) => {
                            table.store_release(inner(i), v as $t);
                            model[i] = v as $t;
                        }
                        EntryOp::Or(i, v) => {
                            assert_eq!(table.fetch_or(inner(i), v as $t), model[i]);
                            model[i] |= v as $t;
                        }
                        EntryOp::Exchange(i, hit, v) => {
                            let there = model[i];
                            let old = if hit { there } else { !there };
                            let result = table.compare_exchange(inner(i), old, v as $t);
                            if hit {
                                assert_eq!(result, Ok(there));
                                model[i] = v as $t;
                            } else {
                                assert_eq!(result, Err(there));
                            }
                        }
                        EntryOp::Fill(a, b, v) => {
                            // Rounded inward: an address inside the first region leaves it out, one inside the last too.
                            let skip = usize::from(inside & ((1 << $log) - 1) != 0);
                            table.fill(inner(a), if b == WINDOW { edge(b) } else { inner(b) }, v as $t);
                            for entry in model.iter_mut().take(b).skip(a + skip) {
                                *entry = v as $t;
                            }
                        }
                    }
                }
                let all = (0..regions).map(|i| <$t as heapwright_memory::Entry>::load(table.at(i), Ordering::Relaxed));
                for (i, value) in all.enumerate() {
                    let expected = i.checked_sub(first).and_then(|i| model.get(i)).copied().unwrap_or(0);
                    assert_eq!(value, expected, "entry {i}");
                }
            }

            proptest! {
                #![proptest_config(cases(48))]

                #[test]
                fn operations_agree_with_the_model(
                    first in prop_oneof![Just(0usize), Just(usize::MAX), 0usize..2000],
                    inside in prop_oneof![Just(0usize), any::<usize>()],
                    ops in prop::collection::vec(entry_op(), 1..80),
                ) {
                    run(first, inside, &ops);
                }
            }

            #[test]
            fn the_first_and_the_last_entry_of_each_chunk_are_its_own() {
                let (rig, table) = table(3);
                let per_chunk = Chunk::BYTES >> $log;
                for n in 0..3 {
                    let start = rig.range.start().add(n * Chunk::BYTES);
                    table.store(start, 1);
                    table.store(start.add(Chunk::BYTES - 1), 2);
                }
                let all: Vec<$t> = (0..3 * per_chunk)
                    .map(|i| <$t as heapwright_memory::Entry>::load(table.at(i), Ordering::Relaxed))
                    .collect();
                for (i, value) in all.iter().enumerate() {
                    let expected = match i % per_chunk {
                        0 => 1,
                        i if i == per_chunk - 1 => 2,
                        _ => 0,
                    };
                    assert_eq!(*value, expected);
                }
            }

            /// Additions by compare-and-exchange beside a neighbour that others change: none is lost, no neighbour is hit.
            #[test]
            fn concurrent_exchanges_lose_nothing() {
                const THREADS: usize = 4;
                const ROUNDS: usize = 2000;
                let (rig, table) = table(1);
                let entry = |i: usize| rig.range.start().add(i << $log);
                std::thread::scope(|s| {
                    for t in 0..THREADS {
                        s.spawn(move || {
                            for round in 0..ROUNDS {
                                loop {
                                    let old = table.load(entry(0));
                                    if table.compare_exchange(entry(0), old, old.wrapping_add(1)).is_ok() {
                                        break;
                                    }
                                }
                                let mine = table.load(entry(1 + t));
                                assert_eq!(mine, round as $t);
                                table.store(entry(1 + t), mine.wrapping_add(1));
                            }
                        });
                    }
                });
                assert_eq!(table.load(entry(0)), (THREADS * ROUNDS) as $t);
            }
        }
    )*};
}

entry_tests! {
    entries_u8: u8, 3, 12;
    entries_u16: u16, 4, 12;
    entries_u32: u32, 5, 9;
    entries_u64: u64, 6, 8;
    entries_usize: usize, usize::BITS.trailing_zeros(), 10;
}

/// Regions of 8 MiB in a range that starts in the middle of 8 MiB.
#[test]
fn regions_begin_at_the_base_of_the_range() {
    let port = real_port();
    let whole = Reservation::new(Arc::clone(&port), 9 * Chunk::BYTES, 2 * Chunk::BYTES).unwrap();
    let base = whole.start().add(Chunk::BYTES);
    let side = SideLayout::new()
        .with(SideMetadataSpec::new("t", 3, 23, Scope::Local))
        .place(&port, base, 8 * Chunk::BYTES, c"test")
        .unwrap();
    DenseMapper::new(port, base, 8 * Chunk::BYTES)
        .unwrap()
        .ensure_mapped(base, 1, side.specs(), &[])
        .unwrap();
    // SAFETY: the four entries share a page, which is mapped.
    let table = unsafe { SideTable::<u8, 23>::new(&side.specs()[0]) }.unwrap();
    let entries = || [0, 1, 2, 3].map(|i| table.at(i).load(Ordering::Relaxed));
    table.fill(base, base.add(4 * Chunk::BYTES), 1);
    assert_eq!(entries(), [1, 1, 0, 0]);
    table.fill(base.add(Chunk::BYTES), base.add(7 * Chunk::BYTES), 2);
    assert_eq!(entries(), [1, 2, 2, 0]);
}

/// What was written before `store_release` is seen after `load_acquire`.
#[test]
fn a_released_entry_publishes_what_was_written_before() {
    let rig = Rig::new(1, &[SideMetadataSpec::new("flag", 3, 12, Scope::Local)]);
    // SAFETY: the rig outlives it, and its whole range is mapped.
    let flags = unsafe { SideTable::<u8, 12>::new(&rig.side.specs()[0]) }.unwrap();
    std::thread::scope(|s| {
        s.spawn(|| {
            for page in 0..Chunk::BYTES / PAGE {
                let at = rig.range.start().add(page * PAGE);
                // SAFETY: mapped; the reader waits for the flag.
                unsafe { at.store(page as u64 + 1) };
                flags.store_release(at, 1);
            }
        });
        for page in 0..Chunk::BYTES / PAGE {
            let at = rig.range.start().add(page * PAGE);
            while flags.load_acquire(at) == 0 {
                std::thread::yield_now();
            }
            // SAFETY: mapped, and written before the flag.
            assert_eq!(unsafe { at.load::<u64>() }, page as u64 + 1);
        }
    });
}

// ---- bits ----

#[derive(Clone, Debug)]
enum BitOp {
    Load(usize),
    Set(usize),
    SetAlone(usize),
    Clear(usize),
    SetRange(usize, usize),
    ClearRange(usize, usize),
    Look(usize, usize),
}

fn bit_op() -> impl Strategy<Value = BitOp> {
    prop_oneof![
        1 => at().prop_map(BitOp::Load),
        3 => at().prop_map(BitOp::Set),
        2 => at().prop_map(BitOp::SetAlone),
        2 => at().prop_map(BitOp::Clear),
        1 => span().prop_map(|(a, b)| BitOp::SetRange(a, b)),
        1 => span().prop_map(|(a, b)| BitOp::ClearRange(a, b)),
        2 => span().prop_map(|(a, b)| BitOp::Look(a, b)),
    ]
}

/// A table and what it should hold in a window from bit `first` on; clear elsewhere.
struct Modelled<const LOG: u32> {
    rig: Rig,
    table: BitTable<LOG>,
    first: usize,
    model: [bool; WINDOW],
}

impl<const LOG: u32> Modelled<LOG> {
    /// `first` is cut so that the window ends at the table's last bit.
    fn new(first: usize) -> Self {
        let chunks = (WINDOW << LOG).div_ceil(Chunk::BYTES).max(1);
        let (rig, table) = Rig::bits(chunks);
        let first = first.min((rig.range.bytes() >> LOG) - WINDOW);
        Self {
            rig,
            table,
            first,
            model: [false; WINDOW],
        }
    }

    fn address(&self, bit: usize) -> Address {
        self.rig.range.start().add((self.first + bit) << LOG)
    }

    /// All questions about bits `[a, b)`, each asked twice: from the starts of the regions and from inside of them.
    fn look(&self, a: usize, b: usize) {
        let bits = &self.model[a..b];
        let first = |wanted| bits.iter().position(|bit| *bit == wanted);
        let place = |i: Option<usize>| i.map(|i| self.address(a + i));
        let set: Vec<Address> = (a..b)
            .filter(|i| self.model[*i])
            .map(|i| self.address(i))
            .collect();
        let inner = (1 << LOG) - 1;
        for inside in [0, inner] {
            let start = self.address(a).add(inside);
            // The end of the table is not in it; its neighbours are.
            let end = self.address(b);
            let end = if b < WINDOW { end.add(inside) } else { end };
            assert_eq!(self.table.count(start, end), set.len(), "count {a} {b}");
            assert_eq!(self.table.find_next_set(start, end), place(first(true)));
            assert_eq!(self.table.find_next_clear(start, end), place(first(false)));
            let mut seen = Vec::new();
            self.table.for_each_set(start, end, |at| seen.push(at));
            assert_eq!(seen, set);
        }
    }

    fn apply(&mut self, op: &BitOp, inside: usize) {
        let inside = inside & ((1 << LOG) - 1);
        let inner = |this: &Self, i: usize| this.address(i).add(inside);
        match *op {
            BitOp::Load(i) => assert_eq!(self.table.load(inner(self, i)), self.model[i]),
            BitOp::Set(i) => {
                assert_eq!(self.table.try_set(inner(self, i)), !self.model[i]);
                self.model[i] = true;
            }
            BitOp::SetAlone(i) => {
                assert_eq!(self.table.try_set_alone(inner(self, i)), !self.model[i]);
                self.model[i] = true;
            }
            BitOp::Clear(i) => {
                assert_eq!(self.table.try_clear(inner(self, i)), self.model[i]);
                self.model[i] = false;
            }
            BitOp::SetRange(a, b) => {
                self.table.set_range(self.address(a), self.address(b));
                self.model[a..b].fill(true);
            }
            BitOp::ClearRange(a, b) => {
                self.table.clear_range(self.address(a), self.address(b));
                self.model[a..b].fill(false);
            }
            BitOp::Look(a, b) => self.look(a, b),
        }
    }

    /// The window is as in the model, and all else is clear.
    fn check(&self) {
        self.look(0, WINDOW);
        for (i, bit) in self.model.iter().enumerate() {
            assert_eq!(self.table.load(self.address(i)), *bit, "bit {i}");
        }
        let set = self.model.iter().filter(|bit| **bit).count();
        let (start, end) = (self.rig.range.start(), self.rig.range.end());
        assert_eq!(self.table.count(start, end), set);
        let first = self.model.iter().position(|bit| *bit);
        assert_eq!(
            self.table.find_next_set(start, end),
            first.map(|i| self.address(i))
        );
    }
}

fn run_bits<const LOG: u32>(first: usize, inside: usize, ops: &[BitOp]) {
    let mut modelled = Modelled::<LOG>::new(first);
    for op in ops {
        modelled.apply(op, inside);
    }
    modelled.check();
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn bits_agree_with_the_model(
        first in prop_oneof![Just(0usize), Just(usize::MAX), 0usize..100_000],
        inside in any::<usize>(),
        ops in prop::collection::vec(bit_op(), 1..120),
    ) {
        run_bits::<3>(first, inside, &ops);
        run_bits::<4>(first, inside, &ops);
        run_bits::<12>(first, inside, &ops);
        run_bits::<15>(first, inside, &ops);
    }

    /// Ranges that are much longer than a word, against a sum over single loads.
    #[test]
    fn long_ranges_agree_with_single_bits(
        ranges in prop::collection::vec((0usize..20_000, 0usize..20_000, any::<bool>()), 1..6),
        asked in (0usize..20_000, 0usize..20_000),
    ) {
        let (rig, table) = Rig::bits::<4>(1);
        let address = |i: usize| rig.range.start().add(i << 4);
        let mut model = vec![false; 20_000];
        for (a, b, value) in ranges {
            let (a, b) = (a.min(b), a.max(b));
            if value {
                table.set_range(address(a), address(b));
            } else {
                table.clear_range(address(a), address(b));
            }
            model[a..b].fill(value);
        }
        let (a, b) = (asked.0.min(asked.1), asked.0.max(asked.1));
        let set = (a..b).filter(|i| model[*i]).count();
        prop_assert_eq!(table.count(address(a), address(b)), set);
        let mut seen = 0;
        table.for_each_set(address(a), address(b), |at| seen += usize::from(table.load(at)));
        prop_assert_eq!(seen, set);
        prop_assert_eq!(
            table.find_next_clear(address(a), address(b)),
            (a..b).find(|i| !model[*i]).map(address)
        );
    }
}

/// Every pair of borders of words, on a clear, a full and a mixed table, at both ends of the table.
#[test]
fn ranges_between_all_borders_agree_with_the_model() {
    let mut borders = vec![0, 1, WINDOW - 1, WINDOW];
    for word in 1..WINDOW / 64 {
        borders.extend([word * 64 - 1, word * 64, word * 64 + 1]);
    }
    let befores: [fn(usize) -> bool; 3] = [|_| false, |_| true, |i| (i * 7) % 3 == 0];
    for first in [0, usize::MAX] {
        let mut m = Modelled::<4>::new(first);
        for (a, b) in borders
            .iter()
            .flat_map(|a| borders.iter().map(move |b| (*a, *b)))
        {
            if a > b {
                // An empty range: nothing happens.
                m.table.set_range(m.address(a), m.address(b));
                m.table.clear_range(m.address(a), m.address(b));
                assert_eq!(m.table.count(m.address(a), m.address(b)), 0);
                assert_eq!(m.table.find_next_set(m.address(a), m.address(b)), None);
                assert_eq!(m.table.find_next_clear(m.address(a), m.address(b)), None);
                continue;
            }
            for before in befores {
                for value in [true, false] {
                    for i in 0..WINDOW {
                        if before(i) {
                            m.table.try_set(m.address(i));
                        } else {
                            m.table.try_clear(m.address(i));
                        }
                        m.model[i] = before(i);
                    }
                    m.look(a, b);
                    let op = if value {
                        BitOp::SetRange(a, b)
                    } else {
                        BitOp::ClearRange(a, b)
                    };
                    m.apply(&op, 0);
                    m.check();
                }
            }
        }
    }
}

/// Each bit that many threads try to set at once is won by exactly one of them; so it is with clearing.
#[test]
fn each_bit_is_won_exactly_once() {
    const THREADS: usize = 4;
    const BITS: usize = 20_000;
    let (rig, table) = Rig::bits::<4>(1);
    let won: Vec<AtomicUsize> = (0..BITS).map(|_| AtomicUsize::new(0)).collect();
    let barrier = Barrier::new(THREADS);
    for round in 1..=4 {
        std::thread::scope(|s| {
            for t in 0..THREADS {
                let (rig, won, barrier) = (&rig, &won, &barrier);
                s.spawn(move || {
                    barrier.wait();
                    for n in 0..BITS {
                        // Half of the threads go backwards, so that all meet somewhere.
                        let bit = if t % 2 == 0 { n } else { BITS - 1 - n };
                        let at = rig.range.start().add(bit << 4);
                        let mine = if round % 2 == 1 {
                            table.try_set(at)
                        } else {
                            table.try_clear(at)
                        };
                        won[bit].fetch_add(usize::from(mine), Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(won.iter().all(|n| n.load(Ordering::Relaxed) == round));
        assert_eq!(
            table.count(rig.range.start(), rig.range.end()),
            if round % 2 == 1 { BITS } else { 0 }
        );
    }
}

/// Ranges that begin and end in words in which other threads set and clear single bits.
#[test]
fn ranges_keep_the_bits_of_others_in_their_first_and_last_word() {
    const ROUNDS: usize = 1_000_000;
    let (rig, table) = Rig::bits::<4>(1);
    let address = |bit: usize| rig.range.start().add(bit << 4);
    // Bits 64 to 191; the range is [100, 150), the neighbours own 99 and 150.
    let barrier = Barrier::new(3);
    std::thread::scope(|s| {
        let neighbours = [99, 150].map(|mine| {
            let (address, barrier) = (&address, &barrier);
            s.spawn(move || {
                barrier.wait();
                for _ in 0..ROUNDS {
                    assert!(table.try_set(address(mine)));
                    assert!(table.load(address(mine)));
                    assert!(table.try_clear(address(mine)));
                    assert!(!table.load(address(mine)));
                }
                assert!(table.try_set(address(mine)));
            })
        });
        barrier.wait();
        while !neighbours.iter().all(|n| n.is_finished()) {
            // Nothing but the two, so that they meet the neighbours as often as can be.
            for _ in 0..64 {
                table.set_range(address(100), address(150));
                table.clear_range(address(100), address(150));
            }
            assert_eq!(table.count(address(100), address(150)), 0);
        }
    });
    let mut left = Vec::new();
    table.for_each_set(rig.range.start(), rig.range.end(), |at| left.push(at));
    assert_eq!(left, [address(99), address(150)]);
}

/// `try_set_alone` where threads own words: neighbours in other words are not disturbed.
#[test]
fn setting_alone_in_words_of_ones_own_loses_nothing() {
    let (rig, table) = Rig::bits::<4>(1);
    let address = |bit: usize| rig.range.start().add(bit << 4);
    std::thread::scope(|s| {
        for t in 0..4 {
            s.spawn(move || {
                for word in (t..1024).step_by(4) {
                    for bit in 0..64 {
                        assert!(table.try_set_alone(address(word * 64 + bit)));
                        assert!(!table.try_set_alone(address(word * 64 + bit)));
                    }
                }
            });
        }
    });
    assert_eq!(table.count(address(0), address(1024 * 64)), 1024 * 64);
    assert_eq!(
        table.find_next_set(address(1024 * 64), rig.range.end()),
        None
    );
}
