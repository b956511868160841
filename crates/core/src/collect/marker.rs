//! The tracing loop: a depth-first stack of edges with a prefetch ring in front of it.
//!
//! An *edge* is the start of a cell that some word refers to, with what its block says of it. Edges go onto the stack
//! unchecked. What is popped is prefetched (the bits, and the first line of the cell) and goes into the ring; what leaves
//! the ring, [`RING`] pops later (or when there is nothing to pop), is in the cache: it is tested, marked, and its contents are scanned at once, which pushes
//! further edges. (Cher, Hosking, Vitek: "Software prefetching for mark-sweep garbage collection", ASPLOS 2004.)
//!
//! A mark is tested before it is set. With one worker it is set by a plain store; with several by an atomic or, whose
//! result decides who scans.
//!
//! If the stack cannot grow, an edge's target is marked at once and not pushed; at the end of the drain all marked cells
//! are scanned again until nothing was lost (the classical answer to mark stack overflow).

use crate::alloc::CLASSES;
use crate::space::MarkSweep;
use crate::space::tables::{Entry, Tables, prefetch};
use crate::vm::{Cell, Closure, Kind, Visitor, Vm};
use core::sync::atomic::Ordering;
use heapwright_address::{Address, ObjectReference, WildWord};
use heapwright_memory::MappedVec;
use heapwright_work::Worker;

/// Entries of the prefetch ring.
pub const RING: usize = 32;

/// How many pops pass between two looks for hungry workers.
const SHARE_EVERY: u32 = 64;
/// How many edges are shared at once.
const SHARE_MOST: usize = 128;

/// How many words are scanned between two looks at the stack's room.
const PIECE: usize = 512 * 8;

/// An edge: the start of a cell (bits 4 to 47), its leaf bit (bit 0), and the class and kind of its block (bits 48 to 63),
/// so that scanning need not look the block up again. 0 is none.
#[derive(Clone, Copy, Debug)]
struct Edge(usize);

impl Edge {
    const NONE: Self = Self(0);
    const START: usize = ((1 << 48) - 1) & !15;

    #[inline(always)]
    const fn new(start: usize, entry: Entry) -> Self {
        Self(start | (entry.0 as usize & 0xffff) << 48 | entry.is_leaf() as usize)
    }

    #[inline(always)]
    const fn start(self) -> usize {
        self.0 & Self::START
    }

    #[inline(always)]
    const fn is_leaf(self) -> bool {
        self.0 & 1 != 0
    }

    #[inline(always)]
    const fn class(self) -> usize {
        self.0 >> 48 & 0xff
    }

    #[inline(always)]
    const fn kind(self) -> Kind {
        Kind((self.0 >> 56) as u8)
    }
}

/// One worker's mark stack.
#[derive(Debug)]
pub struct MarkStack {
    edges: MappedVec<usize>,
    /// Edges below this were given to others.
    shared: usize,
}

impl MarkStack {
    /// An empty stack.
    #[must_use]
    pub fn new(edges: MappedVec<usize>) -> Self {
        Self { edges, shared: 0 }
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<usize> {
        if self.edges.len() > self.shared {
            self.edges.pop()
        } else {
            if self.shared != 0 {
                self.edges.clear();
                self.shared = 0;
            }
            None
        }
    }

    /// The oldest edges that may be given away: at most half of what there is.
    fn shareable(&self) -> &[usize] {
        let own = &self.edges.as_slice()[self.shared..];
        &own[..(own.len() / 2).min(SHARE_MOST)]
    }

    /// Gives back memory that only a deep graph needed.
    pub fn shrink(&mut self) {
        self.edges.clear();
        self.shared = 0;
        self.edges.shrink();
    }
}

/// Marks for one worker. `SHARED`: others mark at the same time.
#[derive(Debug)]
pub struct Marker<'a, V: Vm, const SHARED: bool> {
    vm: &'a V,
    space: &'a MarkSweep,
    tables: Tables,
    base: usize,
    extent: usize,
    parity: usize,
    all_interior: bool,
    stack: &'a mut MarkStack,
    ring: [Edge; RING],
    /// The oldest entry of the ring, and the place of the next one; both only grow, and differ by at most [`RING`].
    first: usize,
    last: usize,
    pops: u32,
    marked: usize,
    lost: bool,
}

impl<'a, V: Vm, const SHARED: bool> Marker<'a, V, SHARED> {
    /// A marker with an empty stack. World stopped.
    #[must_use]
    pub fn new(vm: &'a V, space: &'a MarkSweep, stack: &'a mut MarkStack) -> Self {
        let tables = *space.tables();
        Self {
            vm,
            space,
            tables,
            base: tables.base(),
            extent: space.extent(),
            parity: space.parity(),
            all_interior: space.all_interior(),
            stack,
            ring: [Edge::NONE; RING],
            first: 0,
            last: 0,
            pops: 0,
            marked: 0,
            lost: false,
        }
    }

    /// Cells marked by this marker.
    #[must_use]
    pub fn marked(&self) -> usize {
        self.marked
    }

    /// An edge was lost because the stack could not grow; its target is marked.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// Begins with a lost edge: the next drain scans all marked cells again.
    pub fn set_lost(&mut self) {
        self.lost = true;
    }

    /// Takes an edge that another worker shared.
    pub fn accept(&mut self, edge: usize) {
        self.push(Edge(edge));
    }

    #[inline(always)]
    fn push(&mut self, edge: Edge) {
        if self.stack.edges.push(edge.0).is_err() {
            self.push_lost(edge);
        }
    }

    #[cold]
    fn push_lost(&mut self, edge: Edge) {
        self.lost |= self.mark(edge.start() - self.base);
    }

    /// Sets the mark of an allocated cell. True if it was not set.
    #[inline(always)]
    fn mark(&mut self, offset: usize) -> bool {
        let bit = 1u64 << (offset / 16 % 64);
        let marks = self.tables.word(offset, self.parity ^ 1);
        let word = marks.load(Ordering::Relaxed);
        if word & bit != 0
            || self
                .tables
                .word(offset, self.parity)
                .load(Ordering::Relaxed)
                & bit
                == 0
        {
            return false;
        }
        if SHARED {
            if marks.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
                return false;
            }
        } else {
            marks.store(word | bit, Ordering::Relaxed);
        }
        self.marked += 1;
        true
    }

    /// The edge that a word is, if it refers to a cell.
    #[inline(always)]
    fn resolve(&self, word: usize, any: bool) -> Option<Edge> {
        let offset = word.wrapping_sub(self.base);
        if offset >= self.extent {
            return None;
        }
        let (start, _, entry) = self.tables.cell(offset)?;
        if !any && offset != start && !self.space.is_displacement(offset - start) {
            return None;
        }
        Some(Edge::new(self.base + start, entry))
    }

    /// # Safety
    /// The range must be readable.
    #[inline(always)]
    unsafe fn range(&mut self, start: Address, end: Address, any: bool) {
        let mut at = start.as_usize().next_multiple_of(8);
        let end = end.as_usize() & !7;
        while at < end {
            let piece_end = end.min(at + PIECE);
            if self.stack.edges.reserve(PIECE / 8).is_ok() {
                // SAFETY: the caller's promise, and there is room for an edge from each word.
                unsafe { self.piece(at, piece_end, any) };
            } else {
                // SAFETY: the caller's promise.
                unsafe { self.piece_without_room(at, piece_end, any) };
            }
            at = piece_end;
        }
    }

    /// The hot loop: all that it uses is in locals, since the compiler must assume that a push changes the marker.
    ///
    /// # Safety
    /// The range must be readable, and the stack have room for an edge from each of its words.
    #[inline(always)]
    unsafe fn piece(&mut self, mut at: usize, end: usize, any: bool) {
        let (tables, base, extent, space) = (self.tables, self.base, self.extent, self.space);
        let edges = self.stack.edges.as_mut_ptr();
        let mut len = self.stack.edges.len();
        while at < end {
            // SAFETY: an aligned word in the caller's readable range. It may change at any time when it belongs to a thread
            // that is outside of the heap, hence volatile.
            let word = unsafe { core::ptr::with_exposed_provenance::<usize>(at).read_volatile() };
            at += 8;
            let offset = word.wrapping_sub(base);
            if offset >= extent {
                continue;
            }
            let Some((start, _, entry)) = tables.cell(offset) else {
                continue;
            };
            if !any && offset != start && !space.is_displacement(offset - start) {
                continue;
            }
            // SAFETY: the caller's promise.
            unsafe { edges.add(len).write(Edge::new(base + start, entry).0) };
            len += 1;
        }
        // SAFETY: all below was written just now or before.
        unsafe { self.stack.edges.set_len(len) };
    }

    /// # Safety
    /// The range must be readable.
    #[cold]
    unsafe fn piece_without_room(&mut self, start: usize, end: usize, any: bool) {
        for at in (start..end).step_by(8) {
            // SAFETY: as in `piece`.
            let word = unsafe { core::ptr::with_exposed_provenance::<usize>(at).read_volatile() };
            if let Some(edge) = self.resolve(word, any) {
                self.push(edge);
            }
        }
    }

    #[inline(always)]
    fn scan(&mut self, edge: Edge) {
        let start = Address::new(edge.start());
        let cell = match CLASSES.get(edge.class()) {
            Some(class) => Cell {
                start,
                bytes: class.bytes as usize,
                kind: edge.kind(),
                large: false,
            },
            None => match self.space.cell(edge.start()) {
                Some(cell) => cell,
                None => return,
            },
        };
        self.vm.scan(cell, self);
    }

    /// Marks all that is reachable from the stack and the ring. With a worker, shares edges with hungry ones; it does not
    /// take any.
    pub fn run(&mut self, mut worker: Option<&mut Worker<'_>>) {
        loop {
            match self.stack.pop() {
                Some(edge) => {
                    let edge = Edge(edge);
                    self.tables.prefetch(edge.start() - self.base);
                    if !edge.is_leaf() {
                        prefetch(edge.start());
                    }
                    self.ring[self.last % RING] = edge;
                    self.last = self.last.wrapping_add(1);
                    if self.last.wrapping_sub(self.first) < RING {
                        continue;
                    }
                }
                None if self.first == self.last => return,
                // A list has but one edge at a time: it must not wait for a full ring.
                None => {}
            }
            let out = self.ring[self.first % RING];
            self.first = self.first.wrapping_add(1);
            if self.mark(out.start() - self.base) && !out.is_leaf() {
                self.scan(out);
            }
            if SHARED {
                self.pops += 1;
                if self.pops.is_multiple_of(SHARE_EVERY)
                    && let Some(worker) = worker.as_deref_mut()
                {
                    self.feed(worker);
                }
            }
        }
    }

    #[inline(never)]
    fn feed(&mut self, worker: &mut Worker<'_>) {
        if worker.hungry() {
            let taken = worker.share(self.stack.shareable());
            self.stack.shared += taken;
        }
    }

    /// Scans every marked cell again, until no edge was lost. See the module.
    pub fn recover(&mut self) {
        while core::mem::take(&mut self.lost) {
            let space = self.space;
            let parity = self.parity ^ 1;
            space.for_each(
                parity,
                |entry| !entry.is_leaf(),
                |cell| {
                    self.vm.scan(cell, self);
                    self.run(None);
                },
            );
        }
    }
}

impl<V: Vm, const SHARED: bool> Visitor for Marker<'_, V, SHARED> {
    #[inline]
    fn object(&mut self, object: ObjectReference) {
        let offset = object.to_address().as_usize().wrapping_sub(self.base);
        if offset >= self.extent {
            return;
        }
        if let Some((start, _, entry)) = self.tables.cell(offset)
            && start == offset
        {
            self.push(Edge::new(self.base + start, entry));
        }
    }

    #[inline]
    fn root_word(&mut self, word: WildWord) {
        if let Some(edge) = self.resolve(word.bits(), true) {
            self.push(edge);
        }
    }

    unsafe fn root_range(&mut self, start: Address, end: Address) {
        // SAFETY: the caller's promise.
        unsafe { self.range(start, end, true) };
    }

    #[inline]
    fn field_word(&mut self, word: WildWord) {
        if let Some(edge) = self.resolve(word.bits(), self.all_interior) {
            self.push(edge);
        }
    }

    #[inline]
    unsafe fn field_range(&mut self, start: Address, end: Address) {
        if self.all_interior {
            // SAFETY: the caller's promise.
            unsafe { self.range(start, end, true) };
        } else {
            // SAFETY: the caller's promise.
            unsafe { self.range(start, end, false) };
        }
    }

    fn mark_unscanned(&mut self, start: Address) -> bool {
        let offset = start.as_usize().wrapping_sub(self.base);
        offset < self.extent && offset.is_multiple_of(16) && self.mark(offset)
    }

    fn is_marked(&self, start: Address) -> bool {
        let offset = start.as_usize().wrapping_sub(self.base);
        offset < self.extent && self.tables.bit(offset, self.parity ^ 1)
    }
}

impl<V: Vm, const SHARED: bool> Closure for Marker<'_, V, SHARED> {
    fn drain(&mut self) {
        self.run(None);
        self.recover();
    }

    fn scan_contents(&mut self, start: Address) {
        let offset = start.as_usize().wrapping_sub(self.base);
        if offset < self.extent
            && let Some((start, bytes, entry)) = self.tables.cell(offset)
            && !entry.is_leaf()
        {
            let cell = self.space.describe(start, bytes, entry);
            self.vm.scan(cell, self);
        }
    }
}
