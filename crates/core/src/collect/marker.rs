//! The tracing loop: two short queues that hide the memory's latency, around a depth-first stack.
//!
//! A word of an object that lies in the heap is a *candidate*. It goes into the first queue as it is, with a prefetch of the
//! bits of its granule; [`CANDIDATES`] candidates later they are in the cache, and say in one test whether an allocated,
//! unmarked cell starts there. If so it is marked, and pushed onto the stack unless it is a leaf. (Only if no cell starts in
//! that granule, and interior pointers count, is the cell around it computed.) What is popped from the stack goes into the
//! second queue with a prefetch of its first line, and is scanned [`OBJECTS`] pops later, or when there is nothing to pop.
//! So the stack holds each object once, and never a leaf. (Cher, Hosking, Vitek: "Software prefetching for mark-sweep
//! garbage collection", ASPLOS 2004, has the second queue.)
//!
//! A mark is tested before it is set. With one worker it is set by a plain store; with several by an atomic or, whose
//! result decides who scans.
//!
//! If the stack cannot grow, the object is marked but not pushed; at the end of the drain all marked cells are scanned again
//! until nothing was lost (the classical answer to mark stack overflow).

use crate::alloc::CLASSES;
use crate::space::MarkSweep;
use crate::space::tables::{Entry, Tables, prefetch};
use crate::vm::{Cell, Closure, Kind, Visitor, Vm};
use core::sync::atomic::Ordering;
use heapwright_address::{Address, ObjectReference, WildWord};
use heapwright_memory::MappedVec;
use heapwright_work::Worker;

/// Entries of the queue of candidates.
pub const CANDIDATES: usize = 32;
/// Entries of the queue of objects to scan.
pub const OBJECTS: usize = 8;

/// How many pops pass between two looks for hungry workers.
const SHARE_EVERY: u32 = 64;
/// How many objects are shared at once.
const SHARE_MOST: usize = 128;

/// Candidates that wait while there are objects to scan: what is older is in the cache and may become an object.
const READY: usize = CANDIDATES / 2;

/// [`FieldRule`] as a constant of the loop.
const INTERIOR_RULE: u8 = 0;
const TAGS_RULE: u8 = 1;
const DISPLACEMENTS_RULE: u8 = 2;

/// How many words are scanned between two looks at the stack's room.
const PIECE: usize = 512 * 8;

/// A marked object that waits to be scanned: the start of the cell (bits 0 to 47), and the class and kind of its block (bits
/// 48 to 63), so that scanning need not look the block up again. 0 is none.
#[derive(Clone, Copy, Debug)]
struct Grey(usize);

impl Grey {
    const NONE: Self = Self(0);
    const START: usize = (1 << 48) - 1;

    #[inline(always)]
    const fn new(start: usize, entry: Entry) -> Self {
        Self(start | (entry.0 as usize) << 48)
    }

    #[inline(always)]
    const fn start(self) -> usize {
        self.0 & Self::START
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

/// Bit 0 of a candidate, which is an offset into the heap: any address within a cell counts. No bit of an offset below the
/// granule matters otherwise.
const INTERIOR: usize = 1;

/// Which words of objects count, as the heap was told.
#[derive(Clone, Copy, Debug)]
enum FieldRule {
    /// Those that lead anywhere into a cell.
    Interior,
    /// Those to the first granule of a cell whose low four bits are one of these.
    Tags(u32),
    /// Displacements beyond the first granule are registered: each word is looked up.
    Displacements,
}

/// One worker's mark stack.
#[derive(Debug)]
pub struct MarkStack {
    objects: MappedVec<usize>,
    /// Those below this were given to others.
    shared: usize,
}

impl MarkStack {
    /// An empty stack.
    #[must_use]
    pub fn new(objects: MappedVec<usize>) -> Self {
        Self { objects, shared: 0 }
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<usize> {
        if self.objects.len() > self.shared {
            self.objects.pop()
        } else {
            if self.shared != 0 {
                self.objects.clear();
                self.shared = 0;
            }
            None
        }
    }

    /// The oldest objects that may be given away: at most half of what there is.
    fn shareable(&self) -> &[usize] {
        let own = &self.objects.as_slice()[self.shared..];
        &own[..(own.len() / 2).min(SHARE_MOST)]
    }

    /// Gives back memory that only a deep graph needed.
    pub fn shrink(&mut self) {
        self.objects.clear();
        self.shared = 0;
        self.objects.shrink();
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
    rule: FieldRule,
    stack: &'a mut MarkStack,
    candidates: [usize; CANDIDATES],
    /// The oldest candidate, and the place of the next one; both only grow, and differ by at most [`CANDIDATES`].
    first: usize,
    last: usize,
    objects: [Grey; OBJECTS],
    /// The same for the objects.
    first_object: usize,
    last_object: usize,
    pops: u32,
    marked: usize,
    lost: bool,
}

impl<'a, V: Vm, const SHARED: bool> Marker<'a, V, SHARED> {
    /// A marker with an empty stack. World stopped.
    #[must_use]
    pub fn new(vm: &'a V, space: &'a MarkSweep, stack: &'a mut MarkStack) -> Self {
        let tables = *space.tables();
        let rule = if space.all_interior() {
            FieldRule::Interior
        } else {
            space
                .tags()
                .map_or(FieldRule::Displacements, FieldRule::Tags)
        };
        Self {
            vm,
            space,
            tables,
            base: tables.base(),
            extent: space.extent(),
            parity: space.parity(),
            rule,
            stack,
            candidates: [0; CANDIDATES],
            first: 0,
            last: 0,
            objects: [Grey::NONE; OBJECTS],
            first_object: 0,
            last_object: 0,
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

    /// A marked object was lost because the stack could not grow.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// Begins with a lost object: the next drain scans all marked cells again.
    pub fn set_lost(&mut self) {
        self.lost = true;
    }

    /// Takes a marked object that another worker shared.
    pub fn accept(&mut self, object: usize) {
        self.push(Grey(object));
    }

    #[inline(always)]
    fn push(&mut self, object: Grey) {
        if self.stack.objects.push(object.0).is_err() {
            self.lost = true;
        }
    }

    /// Sets the mark of the cell that starts in the granule of an offset. `None` if none does; else whether it was unmarked.
    #[inline(always)]
    fn mark(tables: &Tables, parity: usize, offset: usize) -> Option<bool> {
        let bit = 1u64 << (offset / 16 % 64);
        let marks = tables.word(offset, parity ^ 1);
        let (word, cells) = (
            marks.load(Ordering::Relaxed),
            tables.word(offset, parity).load(Ordering::Relaxed),
        );
        if cells & !word & bit == 0 {
            return (cells & bit != 0).then_some(false);
        }
        if SHARED {
            return Some(marks.fetch_or(bit, Ordering::Relaxed) & bit == 0);
        }
        marks.store(word | bit, Ordering::Relaxed);
        Some(true)
    }

    /// Decides on a candidate: marks its cell. Gives the object if it was unmarked and is to be scanned.
    #[inline(always)]
    fn settle(
        tables: &Tables,
        parity: usize,
        mut candidate: usize,
        marked: &mut usize,
    ) -> Option<Grey> {
        match Self::mark(tables, parity, candidate) {
            Some(true) => {}
            Some(false) => return None,
            None => {
                if candidate & INTERIOR == 0 {
                    return None;
                }
                candidate = Self::mark_interior(tables, parity, candidate)?;
            }
        }
        *marked += 1;
        let start = candidate & !15;
        let entry = tables.entry(start);
        if entry.is_leaf() {
            return None;
        }
        if entry.class() == Entry::LARGE {
            return Self::large(tables, start);
        }
        Some(Grey::new(tables.base() + start, entry))
    }

    /// Marks the cell around an offset that is not in a cell's first granule; gives its start if it was unmarked.
    #[inline(never)]
    fn mark_interior(tables: &Tables, parity: usize, offset: usize) -> Option<usize> {
        let (start, _, _) = tables.cell(offset)?;
        (Self::mark(tables, parity, start) == Some(true)).then_some(start)
    }

    #[cold]
    #[inline(never)]
    fn large(tables: &Tables, start: usize) -> Option<Grey> {
        let (start, _, entry) = tables.cell(start)?;
        (!entry.is_leaf()).then(|| Grey::new(tables.base() + start, entry))
    }

    /// Puts a candidate into the queue; settles the one that falls out. For single words.
    #[inline]
    fn candidate(&mut self, candidate: usize) {
        self.tables.prefetch(candidate);
        if self.last.wrapping_sub(self.first) == CANDIDATES {
            self.settle_oldest();
        }
        self.candidates[self.last % CANDIDATES] = candidate;
        self.last = self.last.wrapping_add(1);
    }

    #[inline]
    fn settle_oldest(&mut self) {
        let oldest = self.candidates[self.first % CANDIDATES];
        self.first = self.first.wrapping_add(1);
        if let Some(object) = Self::settle(&self.tables, self.parity, oldest, &mut self.marked) {
            self.push(object);
        }
    }

    /// The start of the cell that a word of an object refers to, where displacements beyond the first granule count.
    fn displaced(&self, offset: usize) -> Option<usize> {
        let (start, _, _) = self.tables.cell(offset)?;
        self.space.is_displacement(offset - start).then_some(start)
    }

    /// Reports a range of words: as roots, or by the rule for objects.
    ///
    /// # Safety
    /// The range must be readable.
    #[inline(always)]
    unsafe fn range<const RULE: u8>(&mut self, start: Address, end: Address, tags: u32) {
        let mut at = start.as_usize().next_multiple_of(8);
        let end = end.as_usize() & !7;
        while at < end {
            let piece_end = end.min(at + PIECE);
            if self.stack.objects.reserve(PIECE / 8).is_ok() {
                // SAFETY: the caller's promise, and there is room for an object from each word.
                unsafe { self.piece::<RULE>(at, piece_end, tags) };
            } else {
                // SAFETY: the caller's promise.
                unsafe { self.piece_without_room::<RULE>(at, piece_end, tags) };
            }
            at = piece_end;
        }
    }

    /// The hot loop: all that it uses is in locals, since the compiler must assume that a mark changes the marker.
    ///
    /// # Safety
    /// The range must be readable, and the stack have room for an object from each of its words.
    #[inline(always)]
    unsafe fn piece<const RULE: u8>(&mut self, mut at: usize, end: usize, tags: u32) {
        let (tables, base, extent, parity) = (self.tables, self.base, self.extent, self.parity);
        let objects = self.stack.objects.as_mut_ptr();
        let mut len = self.stack.objects.len();
        let (mut first, mut last, mut marked) = (self.first, self.last, self.marked);
        while at < end {
            // SAFETY: an aligned word in the caller's readable range. It may change at any time when it belongs to a thread
            // that is outside of the heap, hence volatile.
            let word = unsafe { core::ptr::with_exposed_provenance::<usize>(at).read_volatile() };
            at += 8;
            let offset = word.wrapping_sub(base);
            if offset >= extent {
                continue;
            }
            let candidate = if RULE == INTERIOR_RULE {
                offset | INTERIOR
            } else if RULE == TAGS_RULE {
                if tags >> (offset % 16) & 1 == 0 {
                    continue;
                }
                offset & !INTERIOR
            } else {
                match self.displaced(offset) {
                    Some(start) => start,
                    None => continue,
                }
            };
            tables.prefetch(candidate);
            let place = &mut self.candidates[last % CANDIDATES];
            let oldest = core::mem::replace(place, candidate);
            last = last.wrapping_add(1);
            if last.wrapping_sub(first) <= CANDIDATES {
                continue;
            }
            first = first.wrapping_add(1);
            if let Some(object) = Self::settle(&tables, parity, oldest, &mut marked) {
                // SAFETY: the caller's promise.
                unsafe { objects.add(len).write(object.0) };
                len += 1;
            }
        }
        (self.first, self.last, self.marked) = (first, last, marked);
        // SAFETY: all below was written just now or before.
        unsafe { self.stack.objects.set_len(len) };
    }

    /// # Safety
    /// The range must be readable.
    #[cold]
    unsafe fn piece_without_room<const RULE: u8>(&mut self, start: usize, end: usize, tags: u32) {
        for at in (start..end).step_by(8) {
            // SAFETY: as in `piece`.
            let word = unsafe { core::ptr::with_exposed_provenance::<usize>(at).read_volatile() };
            self.word::<RULE>(word, tags);
        }
    }

    /// A single word.
    #[inline]
    fn word<const RULE: u8>(&mut self, word: usize, tags: u32) {
        let offset = word.wrapping_sub(self.base);
        if offset >= self.extent {
            return;
        }
        if RULE == INTERIOR_RULE {
            self.candidate(offset | INTERIOR);
        } else if RULE == TAGS_RULE {
            if tags >> (offset % 16) & 1 != 0 {
                self.candidate(offset & !INTERIOR);
            }
        } else if let Some(start) = self.displaced(offset) {
            self.candidate(start);
        }
    }

    #[inline(always)]
    fn scan(&mut self, object: Grey) {
        let start = Address::new(object.start());
        let cell = match CLASSES.get(object.class()) {
            Some(class) => Cell {
                start,
                bytes: class.bytes as usize,
                kind: object.kind(),
                large: false,
            },
            None => match self.space.cell(object.start()) {
                Some(cell) => cell,
                None => return,
            },
        };
        self.vm.scan(cell, self);
    }

    /// Marks all that is reachable from the stack and the queues. With a worker, shares objects with hungry ones; it does
    /// not take any.
    pub fn run(&mut self, mut worker: Option<&mut Worker<'_>>) {
        loop {
            let waiting = self.last_object.wrapping_sub(self.first_object);
            if let Some(object) = self.stack.pop() {
                let object = Grey(object);
                prefetch(object.start());
                self.objects[self.last_object % OBJECTS] = object;
                self.last_object = self.last_object.wrapping_add(1);
                if waiting + 1 < OBJECTS {
                    continue;
                }
            } else if self.last.wrapping_sub(self.first) > if waiting == 0 { 0 } else { READY } {
                self.settle_oldest();
                continue;
            } else if waiting == 0 {
                return;
            }
            let object = self.objects[self.first_object % OBJECTS];
            self.first_object = self.first_object.wrapping_add(1);
            self.scan(object);
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

    /// Scans every marked cell again, until no object was lost. See the module.
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
        if offset < self.extent && offset.is_multiple_of(16) {
            self.candidate(offset);
        }
    }

    #[inline]
    fn root_word(&mut self, word: WildWord) {
        self.word::<INTERIOR_RULE>(word.bits(), 0);
    }

    unsafe fn root_range(&mut self, start: Address, end: Address) {
        // SAFETY: the caller's promise.
        unsafe { self.range::<INTERIOR_RULE>(start, end, 0) };
    }

    #[inline]
    fn field_word(&mut self, word: WildWord) {
        match self.rule {
            FieldRule::Interior => self.word::<INTERIOR_RULE>(word.bits(), 0),
            FieldRule::Tags(tags) => self.word::<TAGS_RULE>(word.bits(), tags),
            FieldRule::Displacements => self.word::<DISPLACEMENTS_RULE>(word.bits(), 0),
        }
    }

    #[inline]
    unsafe fn field_range(&mut self, start: Address, end: Address) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.rule {
                FieldRule::Interior => self.range::<INTERIOR_RULE>(start, end, 0),
                FieldRule::Tags(tags) => self.range::<TAGS_RULE>(start, end, tags),
                FieldRule::Displacements => self.range::<DISPLACEMENTS_RULE>(start, end, 0),
            }
        }
    }

    fn mark_unscanned(&mut self, start: Address) -> bool {
        let offset = start.as_usize().wrapping_sub(self.base);
        let fresh = offset < self.extent
            && offset.is_multiple_of(16)
            && Self::mark(&self.tables, self.parity, offset) == Some(true);
        self.marked += usize::from(fresh);
        fresh
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
