//! What went wrong in mappers of this kind before, one test each, where `mapper.rs` and the models do not have it yet.

#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used)]

use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use heapwright_address::{Address, Chunk};
use heapwright_memory::{
    Addresses, ChunkState, DenseMapper, FragmentedMapper, MapError, Mmapper, Scope, SideLayout,
    SideMetadataSpec, SideTable, slab_hash,
};
use heapwright_os::{FaultPlan, FaultyPort, Op, OsError, Port, Reservation, real_port};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

const PAGE: usize = 4096;
const PAGES_IN_CHUNK: usize = Chunk::BYTES / PAGE;
const GIB: usize = 1 << 30;

fn chunk(base: Address, n: usize) -> Address {
    base.add(n * Chunk::BYTES)
}

fn reserve(chunks: usize) -> Reservation {
    Reservation::new(real_port(), chunks * Chunk::BYTES, Chunk::BYTES).unwrap()
}

/// Both mappers for a range, in front of a port.
fn both(port: &Arc<dyn Port>, range: &Reservation) -> [Box<dyn Mmapper>; 2] {
    let port = || Arc::clone(port);
    [
        Box::new(DenseMapper::new(port(), range.start(), range.bytes()).unwrap()),
        Box::new(FragmentedMapper::new(port(), Addresses::Reserved).unwrap()),
    ]
}

/// Runs it on a thread, and fails instead of waiting forever.
fn within_ten_seconds<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(run()));
    let result = told.recv_timeout(Duration::from_secs(10));
    assert!(result.is_ok(), "{name} does not end");
    result.unwrap()
}

/// A port whose calls of `commit` wait while it is closed.
#[derive(Debug)]
struct Gate {
    inner: Arc<dyn Port>,
    closed: AtomicBool,
    waiting: AtomicUsize,
    named: Mutex<Vec<&'static CStr>>,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: real_port(),
            closed: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            named: Mutex::new(Vec::new()),
        })
    }
}

impl Port for Gate {
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
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while self.closed.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.inner.commit(a, n)
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
    fn name(&self, a: Address, n: usize, name: &'static CStr) {
        self.inner.name(a, n, name);
        self.named.lock().unwrap().push(name);
    }
    fn populate(&self, a: Address, n: usize) -> Result<(), OsError> {
        self.inner.populate(a, n)
    }
    fn huge(&self, a: Address, n: usize, wanted: bool) -> Result<(), OsError> {
        self.inner.huge(a, n, wanted)
    }
}

/// H4: a lock that `protect` holds while it looks for a slab, and the search takes again when the slab is not at home.
#[test]
fn protect_of_unknown_and_of_colliding_slabs_ends() {
    within_ten_seconds("protect", || {
        let port = Gate::new();
        let range = Reservation::new(real_port(), 3 * GIB, GIB).unwrap();
        let mapper =
            FragmentedMapper::new(Arc::clone(&port) as Arc<dyn Port>, Addresses::Reserved).unwrap();
        // Unknown.
        assert!(matches!(
            mapper.protect(range.start(), 1),
            Err(MapError::NotMapped { .. })
        ));
        // Others live where the slabs of the range are at home, so none of these is found at once.
        let log = mapper.log_table();
        for slab in [0, 1, 2].map(|n| (range.start().as_usize() >> 30) + n) {
            let stranger = slab ^ 1 << log ^ 1;
            let [home, theirs] = [slab, stranger].map(|s| slab_hash(Address::new(s << 30), log));
            assert_eq!(home, theirs);
            let at = Address::new(stranger << 30);
            mapper.mark_as_mapped(at, Chunk::BYTES).unwrap();
        }
        let border = range.start().add(GIB - Chunk::BYTES);
        let pages = 2 * PAGES_IN_CHUNK + GIB / PAGE;
        mapper.ensure_mapped(border, pages, &[], &[]).unwrap();
        mapper.protect(border, pages).unwrap();
        assert!(!mapper.is_mapped_address(border.add(GIB)));
        mapper.unmap(border, pages).unwrap();
    });
}

/// H5, H6: everything through shared references at once, on neighbours; what nobody changes stays as it is.
#[test]
fn changes_beside_a_chunk_do_not_change_it() {
    let range = reserve(9);
    for mapper in both(&real_port(), &range) {
        let base = range.start();
        let done = AtomicBool::new(false);
        for n in [1, 4, 7] {
            mapper.ensure_mapped(chunk(base, n), 1, &[], &[]).unwrap();
            // SAFETY: mapped just now.
            unsafe { chunk(base, n).store(n as u64) };
        }
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    while !done.load(Ordering::Acquire) {
                        for n in [1, 4, 7] {
                            assert!(mapper.is_mapped_address(chunk(base, n)));
                            // SAFETY: nobody closes it.
                            assert_eq!(unsafe { chunk(base, n).load::<u64>() }, n as u64);
                        }
                        assert!(!mapper.is_mapped_address(Address::new(1 << 50)));
                    }
                });
            }
            let changers: Vec<_> = [0, 2, 3, 5, 6, 8]
                .into_iter()
                .map(|n| {
                    let mapper = &mapper;
                    s.spawn(move || {
                        for round in 0..200u64 {
                            let at = chunk(base, n);
                            mapper.ensure_mapped(at, 1, &[], &[]).unwrap();
                            // SAFETY: mapped just now, and only this thread changes it.
                            unsafe {
                                assert_eq!(at.load::<u64>(), 0);
                                at.store(round);
                            }
                            mapper.protect(at, 1).unwrap();
                            mapper.ensure_mapped(at, 1, &[], &[]).unwrap();
                            // SAFETY: as above.
                            assert_eq!(unsafe { at.load::<u64>() }, round);
                            if round % 2 == 0 {
                                mapper.decommit(at, 1).unwrap();
                            }
                            mapper.unmap(at, 1).unwrap();
                        }
                    })
                })
                .collect();
            let ends: Vec<_> = changers.into_iter().map(|c| c.join()).collect();
            done.store(true, Ordering::Release);
            assert!(ends.iter().all(Result::is_ok));
        });
        mapper.unmap(base, 9 * PAGES_IN_CHUNK).unwrap();
    }
}

/// H7: states are made of zeroed memory, not by reinterpreting an array of something else.
#[test]
fn every_state_of_a_new_slab_is_unmapped() {
    assert_eq!((size_of::<ChunkState>(), align_of::<ChunkState>()), (1, 1));
    let mapper = FragmentedMapper::new(real_port(), Addresses::Reserved).unwrap();
    let slab = Address::new(700 * GIB);
    mapper
        .mark_as_mapped(chunk(slab, 99), Chunk::BYTES)
        .unwrap();
    for n in 0..256 {
        assert_eq!(mapper.is_mapped_address(chunk(slab, n)), n == 99);
    }
    let fresh = ChunkState::new();
    let default = ChunkState::default();
    assert_eq!(format!("{fresh:?}"), format!("{default:?}"));
}

/// H8: "mapped" is published before the chunk's tables are there.
#[test]
fn whoever_sees_a_chunk_mapped_may_use_it_and_its_tables() {
    const CHUNKS: usize = 64;
    let range = reserve(CHUNKS);
    for mapper in both(&real_port(), &range) {
        let base = range.start();
        let side = SideLayout::new()
            .with(SideMetadataSpec::new("words", 6, 12, Scope::Global))
            .place(&real_port(), base, range.bytes(), c"test")
            .unwrap();
        // SAFETY: used where a mapper says that it is mapped.
        let words = unsafe { SideTable::<u64, 12>::new(&side.specs()[0]) }.unwrap();
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    for n in 0..CHUNKS {
                        let at = chunk(base, n).add(Chunk::BYTES - 8);
                        while !mapper.is_mapped_address(at) {
                            std::thread::yield_now();
                        }
                        assert!(words.fetch_or(at, 1) <= 1);
                        // SAFETY: the mapper says so.
                        assert_eq!(unsafe { at.load::<u64>() }, 0);
                    }
                });
            }
            for n in 0..CHUNKS {
                mapper
                    .ensure_mapped(chunk(base, n), 1, side.specs(), &[])
                    .unwrap();
            }
        });
        mapper.unmap(base, CHUNKS * PAGES_IN_CHUNK).unwrap();
    }
}

/// H10: a panic under a lock made every later call panic. Here refusal after refusal is an error, and then all works.
#[test]
fn a_thousand_refusals_poison_nothing() {
    let port = Arc::new(FaultyPort::new(real_port(), None));
    let dynamic = Arc::clone(&port) as Arc<dyn Port>;
    let range = reserve(4);
    for mapper in both(&dynamic, &range) {
        let refuse = |op| {
            port.set(Some(FaultPlan {
                op: Some(op),
                at: 0,
                times: usize::MAX,
                errno: 12,
            }));
        };
        refuse(Op::Commit);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..250 {
                        let result = mapper.ensure_mapped(range.start(), 1, &[], &[]);
                        assert!(matches!(result, Err(MapError::Os(e)) if e.errno == 12));
                        assert!(!mapper.is_mapped_address(range.start()));
                    }
                });
            }
        });
        port.set(None);
        mapper
            .ensure_mapped(range.start(), 4 * PAGES_IN_CHUNK, &[], &[])
            .unwrap();
        refuse(Op::Protect);
        assert!(mapper.protect(range.start(), 1).is_err());
        assert!(mapper.is_mapped_address(range.start()));
        port.set(None);
        mapper.unmap(range.start(), 4 * PAGES_IN_CHUNK).unwrap();
    }
}

/// H12: one page is protected, and with it its whole chunk: that is the contract, and no byte more. Memory is given back by
/// the page.
#[test]
fn protecting_one_page_closes_its_chunk_and_no_other() {
    let range = reserve(3);
    for mapper in both(&real_port(), &range) {
        let base = range.start();
        mapper
            .ensure_mapped(base, 3 * PAGES_IN_CHUNK, &[], &[])
            .unwrap();
        for n in 0..3 {
            // SAFETY: mapped just now.
            unsafe { chunk(base, n).store(n as u64 + 1) };
        }
        mapper.protect(chunk(base, 1).add(17 * PAGE), 1).unwrap();
        for n in [0, 2] {
            let at = chunk(base, n);
            assert!(mapper.is_mapped_address(at.add(Chunk::BYTES - 1)));
            // SAFETY: mapped.
            assert_eq!(unsafe { at.load::<u64>() }, n as u64 + 1);
        }
        for inside in [0, Chunk::BYTES - 1] {
            assert!(!mapper.is_mapped_address(chunk(base, 1).add(inside)));
        }
        mapper.ensure_mapped(chunk(base, 1), 1, &[], &[]).unwrap();
        mapper.decommit(chunk(base, 1).add(17 * PAGE), 1).unwrap();
        // SAFETY: mapped.
        assert_eq!(unsafe { chunk(base, 1).load::<u64>() }, 2);
        mapper.unmap(base, 3 * PAGES_IN_CHUNK).unwrap();
    }
}

/// S2: a system call for every chunk, and one for every table of every chunk.
#[test]
fn a_run_of_chunks_costs_one_call_and_one_for_each_table() {
    const CHUNKS: usize = 100;
    let port = Arc::new(FaultyPort::new(real_port(), None));
    let dynamic = Arc::clone(&port) as Arc<dyn Port>;
    let range = reserve(CHUNKS);
    let base = range.start();
    for mapper in both(&dynamic, &range) {
        let side = SideLayout::new()
            .with(SideMetadataSpec::new("bits", 0, 4, Scope::Global))
            .with(SideMetadataSpec::new("bytes", 3, 12, Scope::Local))
            .place(&real_port(), base, range.bytes(), c"test")
            .unwrap();
        let (global, local) = side.specs().split_at(1);
        // A fragmented mapper asks for memory for slabs at first.
        mapper.mark_as_mapped(base, range.bytes()).unwrap();
        mapper.unmap(base, CHUNKS * PAGES_IN_CHUNK).unwrap();
        let calls = |run: &dyn Fn() -> Result<(), MapError>| {
            port.set(None);
            run().unwrap();
            port.counted()
        };
        let all = CHUNKS * PAGES_IN_CHUNK;
        assert_eq!(calls(&|| mapper.ensure_mapped(base, all, global, local)), 3);
        assert_eq!(calls(&|| mapper.ensure_mapped(base, all, global, local)), 0);
        assert_eq!(calls(&|| mapper.mark_as_mapped(base, range.bytes())), 0);
        assert_eq!(calls(&|| mapper.protect(base, all)), 1);
        assert_eq!(calls(&|| mapper.protect(base, all)), 0);
        assert_eq!(calls(&|| mapper.ensure_mapped(base, all, global, local)), 1);
        assert_eq!(calls(&|| mapper.decommit(base, all)), 1);
        assert_eq!(calls(&|| mapper.unmap(chunk(base, 50), 1)), 1);
        // Two runs around the hole, and one for it when it is filled.
        assert_eq!(calls(&|| mapper.ensure_mapped(base, all, global, local)), 3);
        assert_eq!(calls(&|| mapper.unmap(base, all)), 1);
        assert_eq!(calls(&|| mapper.unmap(base, all)), 0);
    }
}

/// S3: who only asks, and who maps other chunks, waits for nobody.
#[test]
fn lookups_and_other_chunks_go_on_while_a_call_to_the_system_hangs() {
    let port = Gate::new();
    let range = reserve(4);
    for mapper in both(&(Arc::clone(&port) as Arc<dyn Port>), &range) {
        let mapper: Arc<dyn Mmapper> = Arc::from(mapper);
        let base = range.start();
        mapper.ensure_mapped(chunk(base, 3), 1, &[], &[]).unwrap();
        port.closed.store(true, Ordering::SeqCst);
        let [first, second] = [0, 1].map(|n| {
            let mapper = Arc::clone(&mapper);
            std::thread::spawn(move || mapper.ensure_mapped(chunk(base, n), 1, &[], &[]))
        });
        let (gate, asked) = (Arc::clone(&port), Arc::clone(&mapper));
        within_ten_seconds("a lookup beside a mapping call", move || {
            // Both are in the system at the same time: there is no lock around it.
            while gate.waiting.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            for n in [0, 1, 2] {
                assert!(!asked.is_mapped_address(chunk(base, n)));
            }
            assert!(asked.is_mapped_address(chunk(base, 3)));
            // At home in the same place of a fragmented mapper's table as the range, and nowhere at all.
            let slab = base.as_usize() >> 30;
            assert!(!asked.is_mapped_address(Address::new((slab ^ 1 << 9 ^ 1) << 30)));
            assert!(!asked.is_mapped_address(Address::MAX));
            // What needs no call is done.
            asked.ensure_mapped(chunk(base, 3), 1, &[], &[]).unwrap();
            asked.protect(chunk(base, 3), 1).unwrap();
            asked.unmap(chunk(base, 3), 1).unwrap();
        });
        port.closed.store(false, Ordering::SeqCst);
        first.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
        mapper.unmap(base, 4 * PAGES_IN_CHUNK).unwrap();
    }
}

/// S1, S4: all memory at the start, seven eighths of it never used, and room for 64 slabs.
#[test]
fn states_cost_memory_as_they_are_needed_and_have_no_small_limit() {
    let mapper = FragmentedMapper::new(real_port(), Addresses::Reserved).unwrap();
    let empty = mapper.metadata_bytes();
    assert!(empty <= 8192, "{empty}");
    for n in 0..5000 {
        // 5000 GiB, each in a slab of its own.
        let at = Address::new((n + 1) * GIB);
        mapper.mark_as_mapped(at, 1).unwrap();
        let slabs = n + 1;
        // 256 bytes for a slab; a table of at most four places of 16 bytes for each, and as much in all before it.
        let bound = 2 * empty + slabs * (256 + 2 * 4 * 16);
        assert!(mapper.metadata_bytes() <= bound, "{slabs} slabs");
    }
    assert_eq!(mapper.slabs(), 5000);
}

/// How long it takes to look slabs up that are all mapped, in nanoseconds for each.
fn lookup_time(slabs: &[usize]) -> f64 {
    let mapper = FragmentedMapper::new(real_port(), Addresses::Reserved).unwrap();
    for slab in slabs {
        mapper.mark_as_mapped(Address::new(slab << 30), 1).unwrap();
    }
    let round = || {
        let begin = std::time::Instant::now();
        for slab in slabs {
            assert!(mapper.is_mapped_address(Address::new(slab << 30)));
        }
        begin.elapsed().as_secs_f64() * 1e9 / slabs.len() as f64
    };
    (0..50).map(|_| round()).fold(f64::MAX, f64::min)
}

/// S6: 16 spaces, 2 TiB apart, each with 64 GiB: their hashes fall together, but lookups must not walk over all of them.
#[test]
fn spaces_far_apart_do_not_pile_up() {
    let spaces: Vec<usize> = (1..=16)
        .flat_map(|space| (0..64).map(move |n| (space << 11) + n))
        .collect();
    let contiguous: Vec<usize> = (100..100 + spaces.len()).collect();
    let (far, near) = (lookup_time(&spaces), lookup_time(&contiguous));
    assert!(far < 10.0 * near, "{far} ns, next to each other {near} ns");
}

/// S6: slabs next to each other, as one space has them, each have a place of their own.
#[test]
fn neighbours_have_homes_of_their_own() {
    for log in 7..14 {
        let size = 1usize << log;
        for first in [0, 1 << 11, 16 << 11, 0x7f12] {
            let first = first & !(size - 1);
            let mut taken = vec![false; size];
            for slab in first..first + size {
                let home = slab_hash(Address::new(slab << 30), log);
                assert!(!core::mem::replace(&mut taken[home], true));
            }
        }
    }
}

/// The search goes on at the start of a table when it comes to its end.
#[test]
fn a_search_goes_round_the_end_of_the_table() {
    let mapper = FragmentedMapper::new(real_port(), Addresses::Reserved).unwrap();
    let log = mapper.log_table();
    let last = (1usize << log) - 1;
    // All at home in the last place.
    let slabs = [0, 1, 2, 3].map(|digit| digit << log | (last ^ digit));
    for (n, slab) in slabs.into_iter().enumerate() {
        assert_eq!(slab_hash(Address::new(slab << 30), log), last);
        mapper.mark_as_mapped(Address::new(slab << 30), 1).unwrap();
        assert_eq!(mapper.slabs(), n + 1);
        for (m, slab) in slabs.into_iter().enumerate() {
            for c in 0..256 {
                let at = chunk(Address::new(slab << 30), c);
                assert_eq!(mapper.is_mapped_address(at), c == 0 && m <= n);
            }
        }
    }
}

/// What the README computes by hand.
#[test]
fn the_example_of_the_hash() {
    assert_eq!(slab_hash(Address::new(0x0300_4000_0000), 7), 25);
}

/// S5: maps of the process say what is whose.
#[test]
fn what_mappers_and_tables_take_for_themselves_has_a_name() {
    let port = Gate::new();
    let dynamic = Arc::clone(&port) as Arc<dyn Port>;
    let range = reserve(1);
    drop(both(&dynamic, &range));
    SideLayout::new()
        .with(SideMetadataSpec::new("bits", 0, 4, Scope::Global))
        .place(&dynamic, range.start(), range.bytes(), c"heapwright tables")
        .unwrap();
    let named = port.named.lock().unwrap();
    for name in [
        c"heapwright chunk states",
        c"heapwright slabs",
        c"heapwright tables",
    ] {
        assert!(named.contains(&name), "{name:?}");
    }
}

/// Two chunks whose entries share a page of a table: the second mapping zeroed the entries of the first.
#[test]
fn chunks_that_share_a_page_of_a_table_keep_their_entries() {
    let range = reserve(8);
    for mapper in both(&real_port(), &range) {
        let side = SideLayout::new()
            .with(SideMetadataSpec::new("blocks", 3, 15, Scope::Local))
            .place(&real_port(), range.start(), range.bytes(), c"test")
            .unwrap();
        // SAFETY: used for mapped chunks.
        let table = unsafe { SideTable::<u8, 15>::new(&side.specs()[0]) }.unwrap();
        for n in 0..8 {
            let at = chunk(range.start(), n);
            mapper.ensure_mapped(at, 1, &[], side.specs()).unwrap();
            table.store(at, n as u8 + 1);
            table.store(at.add(Chunk::BYTES - 1), n as u8 + 1);
        }
        for n in 0..8 {
            let at = chunk(range.start(), n);
            assert_eq!(table.load(at), n as u8 + 1);
            assert_eq!(table.load(at.add(Chunk::BYTES - 1)), n as u8 + 1);
        }
        mapper.unmap(range.start(), 8 * PAGES_IN_CHUNK).unwrap();
    }
}
