//! Random sequences of operations on every mapper, against a map from chunks to states and contents.

#![cfg(not(loom))]
#![allow(missing_docs, clippy::unwrap_used)]

use core::ffi::CStr;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};
use heapwright_address::{Address, Chunk};
use heapwright_memory::{
    Addresses, DenseMapper, FragmentedMapper, MapError, Mmapper, Scope, SideLayout, SideMemory,
    SideMetadataSpec, SideTable,
};
use heapwright_os::{FaultPlan, FaultyPort, Op as Call, OsError, Port, Reservation, real_port};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: usize = 4096;
const PAGES_IN_CHUNK: usize = Chunk::BYTES / PAGE;
const GIB: usize = 1 << 30;
/// Chunks that tests touch; a border of 1 GiB lies in the middle.
const CHUNKS: usize = 8;
/// Those of them that a dense mapper serves.
const DENSE: Range<usize> = 1..7;
/// Where contents are looked at, by pages of a chunk.
const PLACES: [usize; 4] = [0, 1, PAGES_IN_CHUNK / 2, PAGES_IN_CHUNK - 1];

// ---- the oracle ----

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Mapped,
    Protected,
}

/// What is at [`PLACES`].
type Contents = [u64; PLACES.len()];

/// Chunks that are not in it are unmapped.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Oracle {
    base: Address,
    served: Range<usize>,
    chunks: BTreeMap<usize, (State, Contents)>,
}

impl Oracle {
    fn address(&self, chunk: usize) -> Address {
        self.base.add(chunk * Chunk::BYTES)
    }

    /// The chunks of a range, or why it is wrong.
    fn range(&self, start: Address, bytes: Option<usize>) -> Result<Range<usize>, MapError> {
        let Some(bytes) = bytes else {
            let bytes = usize::MAX;
            return Err(MapError::Overflow { start, bytes });
        };
        if !start.as_usize().is_multiple_of(PAGE) {
            return Err(MapError::Unaligned { start });
        }
        if bytes == 0 {
            return Ok(0..0);
        }
        if start.as_usize().checked_add(bytes - 1).is_none() {
            return Err(MapError::Overflow { start, bytes });
        }
        let from = start.diff(self.base);
        Ok(from / Chunk::BYTES..(from + bytes - 1) / Chunk::BYTES + 1)
    }

    fn state(&self, chunk: usize) -> Option<State> {
        self.chunks.get(&chunk).map(|(state, _)| *state)
    }

    /// `ensure_mapped` and `mark_as_mapped`; `opens`: what is protected is opened.
    fn map(&mut self, range: Range<usize>, opens: bool) -> Result<(), MapError> {
        for chunk in range {
            if !self.served.contains(&chunk) {
                let chunk = self.address(chunk);
                return Err(MapError::OutOfRange { chunk });
            }
            let (state, _) = self
                .chunks
                .entry(chunk)
                .or_insert((State::Mapped, [0; PLACES.len()]));
            if opens {
                *state = State::Mapped;
            }
        }
        Ok(())
    }

    fn protect(&mut self, range: Range<usize>) -> Result<(), MapError> {
        if let Some(hole) = range.clone().find(|chunk| self.state(*chunk).is_none()) {
            let chunk = self.address(hole);
            return Err(MapError::NotMapped { chunk });
        }
        for chunk in range {
            self.chunks.get_mut(&chunk).unwrap().0 = State::Protected;
        }
        Ok(())
    }

    fn unmap(&mut self, range: Range<usize>) {
        self.chunks.retain(|chunk, _| !range.contains(chunk));
    }

    fn decommit(
        &mut self,
        range: Range<usize>,
        start: Address,
        bytes: usize,
    ) -> Result<(), MapError> {
        for chunk in range {
            let first = self.address(chunk);
            match self.chunks.get_mut(&chunk) {
                Some((State::Mapped, contents)) => {
                    for (place, value) in PLACES.iter().zip(contents) {
                        let at = first.add(place * PAGE);
                        if start <= at && at < start.add(bytes) {
                            *value = 0;
                        }
                    }
                }
                _ => return Err(MapError::NotMapped { chunk: first }),
            }
        }
        Ok(())
    }
}

// ---- operations ----

#[derive(Clone, Copy, Debug)]
enum Size {
    /// So many pages, as far as the range goes.
    Pages(usize),
    /// More than there are addresses behind the start.
    Beyond,
    /// Pages whose bytes are no number.
    Uncountable,
}

/// A range, by pages from the base; `skew` bytes off.
#[derive(Clone, Copy, Debug)]
struct Span {
    page: usize,
    skew: usize,
    size: Size,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Ensure(Span),
    /// The caller maps what is missing, and tells. The last page is not whole by so many bytes.
    Mark(Span, usize),
    Protect(Span),
    Unmap(Span),
    Decommit(Span),
    Eager(Span),
    /// Writes to the places of a chunk, if it may.
    Stamp(usize, u64),
}

fn span() -> impl Strategy<Value = Span> {
    let page = prop_oneof![
        3 => (0..CHUNKS).prop_map(|chunk| chunk * PAGES_IN_CHUNK),
        1 => (0..CHUNKS).prop_map(|chunk| (chunk + 1) * PAGES_IN_CHUNK - 1),
        2 => 0..CHUNKS * PAGES_IN_CHUNK,
    ];
    let size = prop_oneof![
        2 => Just(Size::Pages(0)),
        5 => Just(Size::Pages(1)),
        3 => Just(Size::Pages(PAGES_IN_CHUNK)),
        2 => Just(Size::Pages(PAGES_IN_CHUNK + 1)),
        6 => (0..=CHUNKS).prop_map(|chunks| Size::Pages(chunks * PAGES_IN_CHUNK)),
        6 => (0..4 * PAGES_IN_CHUNK).prop_map(Size::Pages),
        1 => Just(Size::Beyond),
        1 => Just(Size::Uncountable),
    ];
    let skew = prop_oneof![15 => Just(0usize), 1 => 1..PAGE];
    (page, skew, size).prop_map(|(page, skew, size)| Span { page, skew, size })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => span().prop_map(Op::Ensure),
        2 => (span(), 0..PAGE).prop_map(|(span, less)| Op::Mark(span, less)),
        4 => span().prop_map(Op::Protect),
        3 => span().prop_map(Op::Unmap),
        3 => span().prop_map(Op::Decommit),
        1 => span().prop_map(Op::Eager),
        6 => (0..CHUNKS, 1..=u64::MAX).prop_map(|(chunk, stamp)| Op::Stamp(chunk, stamp)),
    ]
}

impl Span {
    fn start(&self, base: Address) -> Address {
        base.add(self.page * PAGE + self.skew)
    }

    fn pages(&self, base: Address) -> usize {
        match self.size {
            Size::Pages(pages) => pages.min(CHUNKS * PAGES_IN_CHUNK - self.page),
            Size::Beyond => (usize::MAX - self.start(base).as_usize()) / PAGE + 2,
            Size::Uncountable => usize::MAX / PAGE + 1,
        }
    }
}

// ---- what is tested ----

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dense,
    Reserved,
    Claimed,
}

const KINDS: [Kind; 3] = [Kind::Dense, Kind::Reserved, Kind::Claimed];

struct World {
    kind: Kind,
    mapper: Box<dyn Mmapper>,
    side: SideMemory,
    oracle: Oracle,
    /// The addresses, unless the mapper claims them itself.
    _memory: Option<Reservation>,
}

impl World {
    fn new(kind: Kind, port: Arc<dyn Port>) -> Self {
        let half = CHUNKS / 2 * Chunk::BYTES;
        let (memory, border) = if kind == Kind::Claimed {
            // Addresses that no other test has, and that systems do not give out by themselves.
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed) % 64;
            (None, Address::new((64 + 4 * number) * GIB))
        } else {
            let memory = Reservation::new(real_port(), 2 * GIB, GIB).unwrap();
            let border = memory.start().add(GIB);
            (Some(memory), border)
        };
        let base = border.sub(half);
        let served = if kind == Kind::Dense {
            DENSE
        } else {
            0..usize::MAX
        };
        let mapper: Box<dyn Mmapper> = match kind {
            Kind::Dense => {
                let start = base.add(DENSE.start * Chunk::BYTES);
                let bytes = DENSE.len() * Chunk::BYTES;
                Box::new(DenseMapper::new(Arc::clone(&port), start, bytes).unwrap())
            }
            Kind::Reserved => {
                Box::new(FragmentedMapper::new(Arc::clone(&port), Addresses::Reserved).unwrap())
            }
            Kind::Claimed => {
                Box::new(FragmentedMapper::new(Arc::clone(&port), Addresses::Claimed).unwrap())
            }
        };
        let side = SideLayout::new()
            .with(SideMetadataSpec::new("bytes", 3, 12, Scope::Global))
            .with(SideMetadataSpec::new("words", 6, 15, Scope::Local))
            .place(&real_port(), base, CHUNKS * Chunk::BYTES, c"test")
            .unwrap();
        let chunks = BTreeMap::new();
        let oracle = Oracle {
            base,
            served,
            chunks,
        };
        Self {
            kind,
            mapper,
            side,
            oracle,
            _memory: memory,
        }
    }

    /// The chunks of a right range.
    fn range(&self, op: &Op) -> Range<usize> {
        let (Op::Ensure(s) | Op::Mark(s, _) | Op::Protect(s)) = op else {
            let (Op::Unmap(s) | Op::Decommit(s) | Op::Eager(s)) = op else {
                return 0..0;
            };
            return self.range(&Op::Ensure(*s));
        };
        let base = self.oracle.base;
        let bytes = s.pages(base).checked_mul(PAGE);
        self.oracle.range(s.start(base), bytes).unwrap_or(0..0)
    }

    /// What the operation should do.
    fn expect(&self, op: &Op) -> (Result<(), MapError>, Oracle) {
        let mut oracle = self.oracle.clone();
        let base = oracle.base;
        let bytes = |s: &Span| s.pages(base).checked_mul(PAGE);
        let result = match op {
            Op::Ensure(s) => oracle
                .range(s.start(base), bytes(s))
                .and_then(|range| oracle.map(range, true)),
            Op::Mark(s, less) => oracle
                .range(s.start(base), Some(marked_bytes(s, base, *less)))
                .and_then(|range| oracle.map(range, false)),
            Op::Protect(s) => oracle
                .range(s.start(base), bytes(s))
                .and_then(|range| oracle.protect(range)),
            Op::Unmap(s) => oracle
                .range(s.start(base), bytes(s))
                .map(|range| oracle.unmap(range)),
            Op::Decommit(s) => oracle.range(s.start(base), bytes(s)).and_then(|range| {
                oracle.decommit(range, s.start(base), bytes(s).unwrap_or_default())
            }),
            Op::Eager(s) => eager_pages(s, base)
                .and_then(|pages| oracle.range(s.start(base), Some(pages * PAGE)))
                .and_then(|range| oracle.map(range, true)),
            Op::Stamp(chunk, stamp) => {
                if let Some((State::Mapped, contents)) = oracle.chunks.get_mut(chunk) {
                    for (n, value) in contents.iter_mut().enumerate() {
                        *value = stamp.wrapping_add(n as u64);
                    }
                }
                Ok(())
            }
        };
        (result, oracle)
    }

    fn act(&self, op: &Op) -> Result<(), MapError> {
        let base = self.oracle.base;
        let (global, local) = self.side.specs().split_at(1);
        match op {
            Op::Ensure(s) => self
                .mapper
                .ensure_mapped(s.start(base), s.pages(base), global, local),
            Op::Mark(s, less) => self
                .mapper
                .mark_as_mapped(s.start(base), marked_bytes(s, base, *less)),
            Op::Protect(s) => self.mapper.protect(s.start(base), s.pages(base)),
            Op::Unmap(s) => self.mapper.unmap(s.start(base), s.pages(base)),
            Op::Decommit(s) => self.mapper.decommit(s.start(base), s.pages(base)),
            Op::Eager(s) => {
                let start = s.start(base);
                match s.size {
                    Size::Pages(_) => {
                        let end = start.add(s.pages(base) * PAGE);
                        self.mapper.eagerly_mmap_all_spaces(&[start, end])
                    }
                    Size::Beyond => self
                        .mapper
                        .eagerly_mmap_all_spaces(&[start, start.sub(PAGE)]),
                    Size::Uncountable => self.mapper.eagerly_mmap_all_spaces(&[start]),
                }
            }
            Op::Stamp(chunk, stamp) => {
                if self.oracle.state(*chunk) == Some(State::Mapped) {
                    for (n, place) in PLACES.iter().enumerate() {
                        let at = self.oracle.address(*chunk).add(place * PAGE);
                        // SAFETY: the chunk is mapped.
                        unsafe { at.store(stamp.wrapping_add(n as u64)) };
                    }
                }
                Ok(())
            }
        }
    }

    /// Before the mapper is told of chunks, the caller maps them.
    fn prepare(&self, op: &Op, after: &Oracle) {
        if let Op::Mark(..) = op {
            for chunk in after.chunks.keys() {
                if self.oracle.state(*chunk).is_none() {
                    let at = self.oracle.address(*chunk);
                    if self.kind == Kind::Claimed {
                        real_port().reserve_at(at, Chunk::BYTES).unwrap();
                    }
                    real_port().commit(at, Chunk::BYTES).unwrap();
                }
            }
        }
    }

    /// A step that the system does not refuse.
    fn step(&mut self, op: &Op) {
        let (expected, after) = self.expect(op);
        self.prepare(op, &after);
        let result = self.act(op);
        assert_eq!(result, expected, "{op:?}");
        self.metadata(op, &after);
        self.oracle = after;
        self.check(op);
    }

    /// Chunks that were just mapped have their tables: a test that fails here ends by a signal.
    fn metadata(&self, op: &Op, after: &Oracle) {
        if !matches!(op, Op::Ensure(_)) {
            return;
        }
        let specs = self.side.specs();
        // SAFETY: used only for chunks that were mapped along with the tables.
        let (bytes, words) = unsafe {
            (
                SideTable::<u8, 12>::new(&specs[0]).unwrap(),
                SideTable::<u64, 15>::new(&specs[1]).unwrap(),
            )
        };
        for chunk in after.chunks.keys() {
            if self.oracle.state(*chunk).is_none() {
                let start = self.oracle.address(*chunk);
                for at in [start, start.add(Chunk::BYTES - 1)] {
                    bytes.store(at, bytes.load(at).wrapping_add(1));
                    words.store(at, words.load(at).wrapping_add(1));
                }
            }
        }
    }

    fn contents(&self, chunk: usize) -> Contents {
        PLACES.map(|place| {
            let at = self.oracle.address(chunk).add(place * PAGE);
            // SAFETY: only asked of mapped chunks.
            unsafe { at.load() }
        })
    }

    /// States, contents and what the system allows are as the oracle says.
    fn check(&self, op: &Op) {
        self.check_but(op, false);
    }

    /// As `check`; `lax`: what is unmapped may be open, which is so after half of a call that maps.
    fn check_but(&self, op: &Op, lax: bool) {
        let open = accessible(self.oracle.base);
        for (chunk, open) in open.iter().enumerate() {
            let known = self.oracle.chunks.get(&chunk).copied();
            let mapped = known.is_some_and(|(state, _)| state == State::Mapped);
            for inside in [0, 1, Chunk::BYTES / 2 + 3, Chunk::BYTES - 1] {
                let at = self.oracle.address(chunk).add(inside);
                assert_eq!(
                    self.mapper.is_mapped_address(at),
                    mapped,
                    "{op:?}, chunk {chunk}"
                );
            }
            if let Some(open) = open
                && (known.is_some() || !lax)
            {
                let expected = if mapped { Chunk::BYTES } else { 0 };
                assert_eq!(*open, expected, "{op:?}, access to chunk {chunk}");
            }
            if let (true, Some((_, contents))) = (mapped, known) {
                assert_eq!(self.contents(chunk), contents, "{op:?}, chunk {chunk}");
            }
        }
    }

    /// After the system refused a step: each chunk of its range is as it was, or as it should be. The oracle learns which.
    fn learn(&mut self, op: &Op) {
        let (_, after) = self.expect(op);
        let mut learnt = self.oracle.clone();
        for chunk in 0..CHUNKS {
            let (old, new) = (self.oracle.state(chunk), after.state(chunk));
            let is_mapped = self.mapper.is_mapped_address(self.oracle.address(chunk));
            let is_new = match (old, new) {
                (old, new) if old == new => false,
                (Some(State::Protected), None) => {
                    // Both count as not mapped; only what is protected can be protected.
                    let again = self.mapper.protect(self.oracle.address(chunk), 1);
                    assert!(matches!(again, Ok(()) | Err(MapError::NotMapped { .. })));
                    again.is_err()
                }
                (_, new) => is_mapped == (new == Some(State::Mapped)),
            };
            match after.chunks.get(&chunk) {
                Some(entry) if is_new => learnt.chunks.insert(chunk, *entry),
                None if is_new => learnt.chunks.remove(&chunk),
                _ => None,
            };
            // Pages that were to be given back are or are not.
            if let (Op::Decommit(_), true) = (op, is_mapped) {
                let found = self.contents(chunk);
                let (old, new) = (self.oracle.chunks[&chunk].1, after.chunks[&chunk].1);
                for n in 0..PLACES.len() {
                    assert!(found[n] == old[n] || found[n] == new[n], "{op:?}");
                }
                learnt.chunks.insert(chunk, (State::Mapped, found));
            }
            if !self.range(op).contains(&chunk) {
                assert_eq!(learnt.chunks.get(&chunk), self.oracle.chunks.get(&chunk));
            }
        }
        self.metadata(op, &learnt);
        self.oracle = learnt;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What the mapper has claimed, others may claim after it. A port that is told to refuse does so a few times.
        if self.kind == Kind::Claimed {
            let pages = CHUNKS * PAGES_IN_CHUNK;
            let _ = (0..20).any(|_| self.mapper.unmap(self.oracle.base, pages).is_ok());
        }
    }
}

fn marked_bytes(span: &Span, base: Address, less: usize) -> usize {
    match span.size {
        Size::Pages(_) => (span.pages(base) * PAGE).saturating_sub(less),
        _ => usize::MAX,
    }
}

/// How many pages a call of `eagerly_mmap_all_spaces` asks for.
fn eager_pages(span: &Span, base: Address) -> Result<usize, MapError> {
    match span.size {
        Size::Pages(_) => Ok(span.pages(base)),
        _ => Err(MapError::Overflow {
            start: span.start(base),
            bytes: usize::MAX,
        }),
    }
}

/// How many bytes of each chunk may be read and written, as far as the system tells.
fn accessible(base: Address) -> [Option<usize>; CHUNKS] {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return [None; CHUNKS];
    };
    let mut open = [0usize; CHUNKS];
    for line in maps.lines() {
        let Some((range, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((from, to)) = range.split_once('-') else {
            continue;
        };
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        if rest.starts_with("rw") {
            for (chunk, bytes) in open.iter_mut().enumerate() {
                let start = base.as_usize() + chunk * Chunk::BYTES;
                let (low, high) = (
                    number(from).max(start),
                    number(to).min(start + Chunk::BYTES),
                );
                *bytes += high.saturating_sub(low);
            }
        }
    }
    open.map(Some)
}

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

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn every_sequence_of_operations_agrees_with_the_oracle(
        ops in prop::collection::vec(op(), 1..50),
    ) {
        for kind in KINDS {
            let mut world = World::new(kind, real_port());
            for op in &ops {
                world.step(op);
            }
        }
    }
}

// ---- refusals ----

fn call() -> impl Strategy<Value = Option<Call>> {
    prop_oneof![
        4 => Just(None),
        2 => Just(Some(Call::Commit)),
        1 => Just(Some(Call::Protect)),
        1 => Just(Some(Call::Decommit)),
        1 => Just(Some(Call::Uncommit)),
        1 => Just(Some(Call::ReserveAt)),
        1 => Just(Some(Call::Release)),
    ]
}

proptest! {
    #![proptest_config(cases(64))]

    /// The system refuses the n-th call from some step on: that step's chunks are as they were or complete, and once it
    /// gives in, the step does all that it should.
    #[test]
    fn after_a_refusal_each_chunk_is_as_it_was_or_complete(
        ops in prop::collection::vec(op(), 1..30),
        op in call(),
        at in 0usize..8,
        times in 1usize..4,
        errno in prop::sample::select(vec![12, 11, 1]),
    ) {
        for kind in KINDS {
            let port = Arc::new(FaultyPort::new(real_port(), None));
            let mut world = World::new(kind, Arc::clone(&port) as Arc<dyn Port>);
            // A claim whose undoing is refused too stays a claim, so there is one refusal only.
            let times = if kind == Kind::Claimed { 1 } else { times };
            let plan = FaultPlan { op, at, times, errno };
            port.set(Some(plan));
            for op in &ops {
                let (expected, after) = world.expect(op);
                world.prepare(op, &after);
                let result = world.act(op);
                if let Err(MapError::Os(e)) = result {
                    prop_assert_eq!(e.errno, errno);
                    port.set(None);
                    world.learn(op);
                    world.check(op);
                    world.step(op);
                    port.set(Some(plan));
                } else {
                    prop_assert_eq!(result, expected);
                    world.metadata(op, &after);
                    world.oracle = after;
                    world.check(op);
                }
            }
        }
    }
}

/// A port whose n-th call does half of its work and then fails, which the contract allows.
#[derive(Debug)]
struct HalfPort {
    inner: Arc<dyn Port>,
    left: AtomicUsize,
    /// Does `uncommit` fail too? It drops all contents, closes half, and fails.
    uncommit: bool,
}

impl HalfPort {
    fn new(uncommit: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: real_port(),
            left: AtomicUsize::new(usize::MAX),
            uncommit,
        })
    }
}

impl HalfPort {
    fn cut(
        &self,
        op: Call,
        address: Address,
        bytes: usize,
        call: impl Fn(usize) -> Result<(), OsError>,
    ) -> Result<(), OsError> {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.wrapping_sub(1), Ordering::Relaxed);
        if left != 0 {
            return call(bytes);
        }
        call(bytes / 2 / PAGE * PAGE)?;
        let errno = 12;
        Err(OsError {
            op,
            address,
            bytes,
            errno,
        })
    }
}

impl Port for HalfPort {
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
        self.cut(Call::Commit, a, n, |n| self.inner.commit(a, n))
    }
    fn decommit(&self, a: Address, n: usize) -> Result<(), OsError> {
        self.cut(Call::Decommit, a, n, |n| self.inner.decommit(a, n))
    }
    fn uncommit(&self, a: Address, n: usize) -> Result<(), OsError> {
        if !self.uncommit {
            return self.inner.uncommit(a, n);
        }
        self.inner.decommit(a, n)?;
        self.cut(Call::Uncommit, a, n, |n| self.inner.protect(a, n))
    }
    fn protect(&self, a: Address, n: usize) -> Result<(), OsError> {
        self.cut(Call::Protect, a, n, |n| self.inner.protect(a, n))
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

proptest! {
    #![proptest_config(cases(64))]

    /// A call that fails half-way is undone: what counts as mapped can be used whole, what is protected is closed whole,
    /// and contents are where they were.
    #[test]
    fn a_call_that_fails_half_way_is_undone(
        ops in prop::collection::vec(op(), 1..30),
        at in 0usize..8,
    ) {
        for kind in KINDS {
            let port = HalfPort::new(false);
            let mut world = World::new(kind, Arc::clone(&port) as Arc<dyn Port>);
            port.left.store(at, Ordering::Relaxed);
            for op in &ops {
                let (expected, after) = world.expect(op);
                world.prepare(op, &after);
                let result = world.act(op);
                if let Err(MapError::Os(_)) = result {
                    port.left.store(usize::MAX, Ordering::Relaxed);
                    world.learn(op);
                    world.check_but(op, true);
                    // Nobody wrote to what was opened too early, so it is zero when it is mapped.
                    world.step(op);
                    port.left.store(at, Ordering::Relaxed);
                } else {
                    prop_assert_eq!(result, expected);
                    world.metadata(op, &after);
                    world.oracle = after;
                    world.check(op);
                }
            }
        }
    }
}

/// A refused `unmap` may have lost the contents, but what still counts as mapped can be used whole.
#[test]
fn an_unmap_that_fails_half_way_leaves_no_chunk_half_open() {
    for kind in [Kind::Dense, Kind::Reserved] {
        let port = HalfPort::new(true);
        let world = World::new(kind, Arc::clone(&port) as Arc<dyn Port>);
        let start = world.oracle.address(2);
        let pages = 3 * PAGES_IN_CHUNK;
        world.mapper.ensure_mapped(start, pages, &[], &[]).unwrap();
        port.left.store(0, Ordering::Relaxed);
        assert!(world.mapper.unmap(start, pages).is_err());
        port.left.store(usize::MAX, Ordering::Relaxed);
        let open = accessible(world.oracle.base);
        for (chunk, open) in open.iter().enumerate() {
            if world.mapper.is_mapped_address(world.oracle.address(chunk)) {
                assert!(
                    open.is_none_or(|bytes| bytes == Chunk::BYTES),
                    "chunk {chunk}"
                );
            }
        }
        world.mapper.unmap(start, pages).unwrap();
    }
}
