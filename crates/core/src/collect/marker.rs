//! The tracing loop: two short queues that hide the memory's latency, around a depth-first stack.
//!
//! A word of an object that lies in the heap is a *candidate*. It goes into the first queue as it is, with a prefetch of the
//! bits of its granule; [`CANDIDATES`] candidates later they are in the cache, and say in one test whether an allocated,
//! unmarked cell starts there. If so it is marked, and pushed onto the stack unless it is a leaf. (Only if no cell starts in
//! that granule, and interior pointers count, is the cell around it computed.) What is popped from the stack goes into the
//! second queue with a prefetch of its first line, and is scanned [`OBJECTS`] pops later. So the stack holds each object
//! once, and never a leaf. When there is nothing to pop, the oldest candidates are settled that had time to arrive, then the
//! oldest object is scanned, then all else: the queues stay as full as the graph allows, and a list passes both at once. (Cher, Hosking, Vitek: "Software prefetching for mark-sweep garbage collection", ASPLOS 2004, has
//! the second queue.)
//!
//! Cells whose every word counts ([`crate::KindTraits::conservative`]) are scanned here, with all state in registers; for
//! others the runtime is asked.
//!
//! A mark is tested before it is set. With one worker it is set by a plain store; with several by an atomic or, whose
//! result decides who scans.
//!
//! If the stack cannot grow, the object is marked but not pushed; at the end of the drain all marked cells are scanned again
//! until nothing was lost (the classical answer to mark stack overflow).

use super::near::Near;
use super::yields::Yields;
use crate::alloc::{MAX_SMALL, size_class::GRANULE};
use crate::space::MarkSweep;
use crate::space::tables::{Entry, Tables, prefetch};
use crate::vm::{Closure, WordVisitor, WordVm};
use core::sync::atomic::Ordering;
use heapwright_address::{Address, ObjectReference, WildWord};
use heapwright_memory::MappedVec;
use heapwright_work::Worker;

/// Entries of the queue of candidates.
pub const CANDIDATES: usize = 32;
/// Entries of the queue of objects to scan.
pub const OBJECTS: usize = 32;

/// How many objects are scanned between two looks for hungry workers.
const SHARE_EVERY: u32 = 64;
/// How many objects are shared at once.
const SHARE_MOST: usize = 128;

/// Candidates that stay in their queue while there are objects to scan: those before them had time to arrive in the cache.
const READY: usize = CANDIDATES / 2;

/// [`FieldRule`] as a constant of the loop.
const INTERIOR_RULE: u8 = 0;
const TAGS_RULE: u8 = 1;
const DISPLACEMENTS_RULE: u8 = 2;

/// How many words are scanned between two looks at the stack's room.
const PIECE: usize = MOST_WORDS * size_of::<usize>();
/// Words of the largest cell in a block.
const MOST_WORDS: usize = MAX_SMALL / size_of::<usize>();

/// A marked object that waits to be scanned: the start of the cell, shifted left by 16, and below it what [`Entry::upper`]
/// gives of its block's state, so that scanning need not look the block up again. (Addresses have 48 bits.)
#[derive(Clone, Copy, Debug)]
struct Grey(usize);

impl Grey {
    #[inline(always)]
    const fn new(start: usize, entry: Entry) -> Self {
        Self(start << 16 | entry.upper())
    }

    #[inline(always)]
    const fn start(self) -> usize {
        self.0 >> 16
    }

    /// Bytes to scan word by word; 0 if the runtime is to be asked.
    #[inline(always)]
    const fn words_bytes(self) -> usize {
        Entry::words_bytes(self.0)
    }
}

/// Bit 0 of a candidate: any address within a cell counts. A candidate is an offset into the heap, of which no bit below the
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
    pub(super) yields: Yields,
}

impl MarkStack {
    /// An empty stack.
    #[must_use]
    pub fn new(objects: MappedVec<usize>, yields: Yields) -> Self {
        Self {
            objects,
            shared: 0,
            yields,
        }
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

/// The places of a queue: those that wait are the `waiting` ones before `next`, which wraps.
#[derive(Debug)]
struct Queue<T, const N: usize>([T; N]);

impl<T: Copy, const N: usize> Queue<T, N> {
    /// Takes the oldest; there must be one.
    #[inline(always)]
    fn take(&self, next: usize, waiting: &mut usize) -> T {
        let oldest = self.0[next.wrapping_sub(*waiting) % N];
        *waiting -= 1;
        oldest
    }
}

/// What is in registers while words are scanned.
struct Hot<'m> {
    tables: Tables,
    near: Near,
    extent: usize,
    candidates: &'m mut Queue<usize, CANDIDATES>,
    next: usize,
    waiting: usize,
    objects: *mut usize,
    len: usize,
}

impl Hot<'_> {
    /// Sets the mark of the cell that starts in the granule of an offset. `None` if none does; else whether it was unmarked.
    #[inline(always)]
    fn mark<const SHARED: bool>(tables: &Tables, parity: usize, offset: usize) -> Option<bool> {
        let bit = 1u64 << (offset / GRANULE % 64);
        let marks = tables.word(offset, parity ^ 1);
        let word = marks.load(Ordering::Relaxed);
        let cells = tables.word(offset, parity).load(Ordering::Relaxed);
        if cells & !word & bit == 0 {
            return (cells & bit != 0).then_some(false);
        }
        if SHARED {
            return Some(marks.fetch_or(bit, Ordering::Relaxed) & bit == 0);
        }
        marks.store(word | bit, Ordering::Relaxed);
        Some(true)
    }

    /// Marks the cell around an offset that is not in a cell's first granule; gives its start if it was unmarked.
    #[inline(never)]
    fn mark_interior<const SHARED: bool>(
        tables: &Tables,
        parity: usize,
        offset: usize,
    ) -> Option<usize> {
        let (start, _, _) = tables.cell(offset)?;
        (Self::mark::<SHARED>(tables, parity, start) == Some(true)).then_some(start)
    }

    /// Decides on a candidate: marks its cell. Gives the object if it was unmarked and may have to be scanned.
    #[inline(always)]
    fn settle<const SHARED: bool>(
        tables: &Tables,
        parity: usize,
        mut candidate: usize,
    ) -> Option<Grey> {
        match Self::mark::<SHARED>(tables, parity, candidate) {
            Some(true) => {}
            Some(false) => return None,
            None => {
                if candidate & INTERIOR == 0 {
                    return None;
                }
                candidate = Self::mark_interior::<SHARED>(tables, parity, candidate)?;
            }
        }
        let start = candidate & !(GRANULE - 1);
        let entry = tables.entry(start);
        if entry.is_leaf() {
            return None;
        }
        Some(Grey::new(tables.base() + start, entry))
    }

    /// The candidate that a word is by a rule, if it is one.
    #[inline(always)]
    fn candidate<const RULE: u8>(
        tables: &Tables,
        space: &MarkSweep,
        extent: usize,
        tags: u32,
        word: usize,
    ) -> Option<usize> {
        let offset = word.wrapping_sub(tables.base());
        if offset >= extent {
            return None;
        }
        if RULE == INTERIOR_RULE {
            return Some(offset | INTERIOR);
        }
        if RULE == TAGS_RULE {
            let counts = tags >> (offset % GRANULE) & 1 != 0;
            return counts.then_some((offset | INTERIOR) ^ INTERIOR);
        }
        let (start, _, _) = tables.cell(offset)?;
        space.is_displacement(offset - start).then_some(start)
    }

    /// Scans words.
    ///
    /// # Safety
    /// The range must be aligned and readable, and the stack have room for an object from each word.
    #[inline(always)]
    unsafe fn words<const SHARED: bool, const RULE: u8>(
        &mut self,
        space: &MarkSweep,
        parity: usize,
        tags: u32,
        mut at: usize,
        end: usize,
    ) {
        while at + 4 * size_of::<usize>() <= end {
            // SAFETY: the caller's promise.
            let mut near = unsafe { self.near.four(at) };
            while near != 0 {
                let index = near.trailing_zeros() as usize;
                near &= near - 1;
                // SAFETY: the caller's promise.
                unsafe {
                    self.word::<SHARED, RULE>(space, parity, tags, at + index * size_of::<usize>());
                }
            }
            at += 4 * size_of::<usize>();
        }
        while at < end {
            // SAFETY: the caller's promise.
            unsafe { self.word::<SHARED, RULE>(space, parity, tags, at) };
            at += size_of::<usize>();
        }
    }

    /// Scans one word.
    ///
    /// # Safety
    /// As [`Hot::words`].
    #[inline(always)]
    unsafe fn word<const SHARED: bool, const RULE: u8>(
        &mut self,
        space: &MarkSweep,
        parity: usize,
        tags: u32,
        at: usize,
    ) {
        // SAFETY: an aligned word in the caller's readable range. It may change at any time when it belongs to a thread
        // that is outside of the heap, hence volatile.
        let word = unsafe { core::ptr::with_exposed_provenance::<usize>(at).read_volatile() };
        let Some(candidate) = Self::candidate::<RULE>(&self.tables, space, self.extent, tags, word)
        else {
            return;
        };
        self.tables.prefetch(candidate);
        let place = &mut self.candidates.0[self.next % CANDIDATES];
        let oldest = core::mem::replace(place, candidate);
        self.next = self.next.wrapping_add(1);
        if self.waiting != CANDIDATES {
            self.waiting += 1;
            return;
        }
        if let Some(object) = Self::settle::<SHARED>(&self.tables, parity, oldest) {
            // SAFETY: the caller's promise.
            unsafe { self.objects.add(self.len).write(object.0) };
            self.len += 1;
        }
    }
}

/// Why the hot loop ended.
enum Outcome {
    /// Nothing is left.
    Done,
    /// The runtime is to scan this object.
    Ask(Grey),
    /// The stack has no room for the next object's references.
    Grow,
    /// It is time to look for hungry workers.
    Share,
}

/// Marks for one worker. `SHARED`: others mark at the same time.
#[derive(Debug)]
pub struct Marker<'a, V: WordVm, const SHARED: bool> {
    vm: &'a V,
    space: &'a MarkSweep,
    tables: Tables,
    near: Near,
    extent: usize,
    parity: usize,
    rule: FieldRule,
    stack: &'a mut MarkStack,
    candidates: Queue<usize, CANDIDATES>,
    next: usize,
    waiting: usize,
    objects: Queue<Grey, OBJECTS>,
    next_object: usize,
    waiting_objects: usize,
    /// Bytes of the ranges that the runtime reported.
    ranges: usize,
    lost: bool,
}

impl<'a, V: WordVm, const SHARED: bool> Marker<'a, V, SHARED> {
    /// A marker with an empty stack. World stopped.
    #[must_use]
    pub fn new(vm: &'a V, space: &'a MarkSweep, stack: &'a mut MarkStack) -> Self {
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
            tables: *space.tables(),
            near: Near::new(space.tables().base(), space.extent()),
            extent: space.extent(),
            parity: space.parity(),
            rule,
            stack,
            candidates: Queue([0; CANDIDATES]),
            next: 0,
            waiting: 0,
            objects: Queue([Grey(0); OBJECTS]),
            next_object: 0,
            waiting_objects: 0,
            ranges: 0,
            lost: false,
        }
    }

    /// Bytes of the ranges that the runtime reported to this marker: after the roots, what those have.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.ranges
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

    /// Puts a candidate into the queue; settles the one that falls out. For single words.
    #[inline]
    fn enqueue(&mut self, candidate: usize) {
        self.tables.prefetch(candidate);
        if self.waiting == CANDIDATES {
            let oldest = self.candidates.take(self.next, &mut self.waiting);
            self.settle(oldest);
        }
        self.candidates.0[self.next % CANDIDATES] = candidate;
        self.next = self.next.wrapping_add(1);
        self.waiting += 1;
    }

    #[inline]
    fn settle(&mut self, candidate: usize) {
        if let Some(object) = Hot::settle::<SHARED>(&self.tables, self.parity, candidate) {
            self.push(object);
        }
    }

    /// Reports a range of words: as roots, or by a rule for objects.
    ///
    /// # Safety
    /// The range must be readable.
    unsafe fn range<const RULE: u8>(&mut self, start: Address, end: Address, tags: u32) {
        let mut at = start.as_usize().next_multiple_of(size_of::<usize>());
        let end = end.as_usize() & !(size_of::<usize>() - 1);
        self.ranges += end.saturating_sub(at);
        while at < end {
            let piece_end = end.min(at + PIECE);
            if self
                .stack
                .objects
                .reserve(PIECE / size_of::<usize>())
                .is_ok()
            {
                let mut hot = Hot {
                    tables: self.tables,
                    near: self.near,
                    extent: self.extent,
                    next: self.next,
                    waiting: self.waiting,
                    objects: self.stack.objects.as_mut_ptr(),
                    len: self.stack.objects.len(),
                    candidates: &mut self.candidates,
                };
                // SAFETY: the caller's promise, and there is room for an object from each word.
                unsafe {
                    hot.words::<SHARED, RULE>(self.space, self.parity, tags, at, piece_end);
                }
                let (next, waiting, len) = (hot.next, hot.waiting, hot.len);
                (self.next, self.waiting) = (next, waiting);
                // SAFETY: all below was written just now or before.
                unsafe { self.stack.objects.set_len(len) };
            } else {
                for at in (at..piece_end).step_by(size_of::<usize>()) {
                    // SAFETY: as in `words`.
                    let word =
                        unsafe { core::ptr::with_exposed_provenance::<usize>(at).read_volatile() };
                    self.word::<RULE>(word, tags);
                }
            }
            at = piece_end;
        }
    }

    /// A single word.
    #[inline]
    fn word<const RULE: u8>(&mut self, word: usize, tags: u32) {
        if let Some(candidate) =
            Hot::candidate::<RULE>(&self.tables, self.space, self.extent, tags, word)
        {
            self.enqueue(candidate);
        }
    }

    /// Scans an object by asking the runtime.
    fn scan(&mut self, object: Grey) {
        if let Some(cell) = self.space.cell(object.start())
            && !self.space.kind(cell.kind.0).leaf
        {
            self.vm.scan(cell, self);
        }
    }

    /// Marks all that is reachable from the stack and the queues. With a worker, shares objects with hungry ones; it does
    /// not take any.
    pub fn run(&mut self, mut worker: Option<&mut Worker<'_>>) {
        loop {
            let outcome = match (self.rule, self.parity) {
                (FieldRule::Interior, 0) => self.hot::<INTERIOR_RULE, 0>(0),
                (FieldRule::Interior, _) => self.hot::<INTERIOR_RULE, 1>(0),
                (FieldRule::Tags(tags), 0) => self.hot::<TAGS_RULE, 0>(tags),
                (FieldRule::Tags(tags), _) => self.hot::<TAGS_RULE, 1>(tags),
                (FieldRule::Displacements, 0) => self.hot::<DISPLACEMENTS_RULE, 0>(0),
                (FieldRule::Displacements, _) => self.hot::<DISPLACEMENTS_RULE, 1>(0),
            };
            match outcome {
                Outcome::Done => return,
                Outcome::Ask(object) => self.scan(object),
                Outcome::Grow => {
                    if self.stack.objects.reserve(2 * MOST_WORDS).is_err() {
                        return self.run_without_room();
                    }
                }
                Outcome::Share => {
                    if let Some(worker) = worker.as_deref_mut() {
                        self.feed(worker);
                    }
                }
            }
        }
    }

    /// The loop of the module's documentation.
    fn hot<const RULE: u8, const PARITY: usize>(&mut self, tags: u32) -> Outcome {
        let room = self.stack.objects.capacity();
        let floor = self.stack.shared;
        let space = self.space;
        let queue = &mut self.objects;
        let (mut next_object, mut waiting) = (self.next_object, self.waiting_objects);
        let mut scans = 0;
        let mut hot = Hot {
            tables: self.tables,
            near: self.near,
            extent: self.extent,
            next: self.next,
            waiting: self.waiting,
            objects: self.stack.objects.as_mut_ptr(),
            len: self.stack.objects.len(),
            candidates: &mut self.candidates,
        };
        let outcome = loop {
            if hot.len + MOST_WORDS > room {
                break Outcome::Grow;
            }
            let object = if hot.len > floor {
                hot.len -= 1;
                // SAFETY: it was below the length.
                let object = Grey(unsafe { hot.objects.add(hot.len).read() });
                let start = object.start();
                prefetch(start);
                // Many objects cross a line, and the next ones of a longer object are not always foreseen.
                prefetch(start + 56);
                let bytes = object.words_bytes();
                if bytes > 128 {
                    let mut at = start + 120;
                    let end = start + if bytes < 512 { bytes } else { 512 };
                    while at < end {
                        prefetch(at);
                        at += 64;
                    }
                }
                let oldest = core::mem::replace(&mut queue.0[next_object % OBJECTS], object);
                next_object = next_object.wrapping_add(1);
                if waiting != OBJECTS {
                    waiting += 1;
                    continue;
                }
                oldest
            } else if hot.waiting > if waiting == 0 { 0 } else { READY } {
                let candidate = hot.candidates.take(hot.next, &mut hot.waiting);
                if let Some(object) = Hot::settle::<SHARED>(&hot.tables, PARITY, candidate) {
                    // SAFETY: there is room for MOST_WORDS objects.
                    unsafe { hot.objects.add(hot.len).write(object.0) };
                    hot.len += 1;
                }
                continue;
            } else if waiting != 0 {
                queue.take(next_object, &mut waiting)
            } else {
                break Outcome::Done;
            };
            let bytes = object.words_bytes();
            if bytes == 0 {
                break Outcome::Ask(object);
            }
            let start = object.start();
            // SAFETY: an allocated cell of the heap, and its size; there is room for MOST_WORDS objects.
            unsafe { hot.words::<SHARED, RULE>(space, PARITY, tags, start, start + bytes) };
            if SHARED {
                scans += 1;
                if scans == SHARE_EVERY {
                    break Outcome::Share;
                }
            }
        };
        let mut len = hot.len;
        (self.next, self.waiting) = (hot.next, hot.waiting);
        (self.next_object, self.waiting_objects) = (next_object, waiting);
        if len == floor && floor != 0 {
            len = 0;
            self.stack.shared = 0;
        }
        // SAFETY: all below was written just now or before.
        unsafe { self.stack.objects.set_len(len) };
        outcome
    }

    /// As `run`, with what room there is: objects for which there is none are lost.
    #[cold]
    fn run_without_room(&mut self) {
        loop {
            if let Some(object) = self.stack.pop() {
                self.scan(Grey(object));
                continue;
            }
            if self.waiting_objects != 0 {
                let object = self
                    .objects
                    .take(self.next_object, &mut self.waiting_objects);
                self.scan(object);
            } else if self.waiting != 0 {
                let candidate = self.candidates.take(self.next, &mut self.waiting);
                self.settle(candidate);
            } else {
                return;
            }
        }
    }

    #[inline(never)]
    fn feed(&mut self, worker: &mut Worker<'_>) {
        self.stack.yields.point();
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

impl<V: WordVm, const SHARED: bool> WordVisitor for Marker<'_, V, SHARED> {
    #[inline]
    fn object(&mut self, object: ObjectReference) {
        let offset = object
            .to_address()
            .as_usize()
            .wrapping_sub(self.tables.base());
        if offset < self.extent && offset.is_multiple_of(GRANULE) {
            self.enqueue(offset);
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
        let offset = start.as_usize().wrapping_sub(self.tables.base());
        offset < self.extent
            && offset.is_multiple_of(GRANULE)
            && Hot::mark::<SHARED>(&self.tables, self.parity, offset) == Some(true)
    }

    fn is_marked(&self, start: Address) -> bool {
        let offset = start.as_usize().wrapping_sub(self.tables.base());
        offset < self.extent && self.tables.bit(offset, self.parity ^ 1)
    }
}

impl<V: WordVm, const SHARED: bool> Closure for Marker<'_, V, SHARED> {
    fn drain(&mut self) {
        self.run(None);
        self.recover();
    }

    fn scan_contents(&mut self, start: Address) {
        let offset = start.as_usize().wrapping_sub(self.tables.base());
        if offset < self.extent
            && let Some((start, bytes, entry)) = self.tables.cell(offset)
            && !entry.is_leaf()
        {
            let cell = self.space.describe(start, bytes, entry);
            self.vm.scan(cell, self);
        }
    }
}
