//! The tracing loop for runtimes that know their references: marks or moves what is reachable, in any mix of policies.
//!
//! What waits to be looked at is an *edge*: a slot of a scanned object (for plans that move) or what that slot holds (for those
//! that do not). Edges wait on a stack, so the order is depth-first and the stack short. An edge that is popped goes through a
//! ring of [`RING`] places: when it enters, the first line of its target and the bits of that line in the side tables are
//! prefetched; when it leaves, they are in the cache, and the target is claimed, copied or marked, and scanned at once. Where
//! marks are in side tables, most edges end there, at a bit in a cache: so only the bits are prefetched, and an object that was
//! just marked waits in a second ring of [`OBJECTS`] places for its own line.
//! (Cher, Hosking, Vitek: "Software prefetching for mark-sweep garbage collection", ASPLOS 2004, put such a queue before a
//! mark stack of objects; here it holds edges, so that nothing is read before its line was asked for.)
//!
//! An entry of the stack is one word: an address, shifted left by 16, and a count. 0: one edge; else so many consecutive slots
//! of an array, which are taken apart bit by bit, so that a long array is shared among workers piece by piece.
//!
//! If the system refuses memory for the stack, an object whose fields do not fit is entered into a bitmap instead, which was
//! mapped along with the heap; what is in it is scanned when the stack is empty (the classical answer to mark stack overflow).

use super::references::{Value, Waiting};
use super::yields::Yields;
use crate::alloc::BLOCK_BYTES;
use crate::bugs::{Bug, is_on};
use crate::space::objects::{Forward, Header, ObjectSpace, Region};
use crate::space::tables::{Policy, Tables, prefetch};
use crate::vm::{
    HashBits, HashState, Metadata, RootVisitor, SlotFormat, SlotVisitor, Vm, WeakLookup,
    WeakVisitor, hash_of,
};
use core::sync::atomic::{AtomicUsize, Ordering};
use heapwright_address::{Address, ObjectReference, WildWord};
use heapwright_memory::MappedVec;
use heapwright_work::Worker;

/// Edges that wait for their lines.
pub const RING: usize = 32;
/// Marked objects that wait for their first line.
pub const OBJECTS: usize = 16;
/// How many edges are looked at between two looks for hungry workers.
const SHARE_EVERY: u32 = 64;
/// The same with the option `yields`, so that small graphs are shared as well.
const SHARE_EVERY_WITH_YIELDS: u32 = 4;
/// How many entries are shared at once.
const SHARE_MOST: usize = 128;
/// Slots of an array in one entry of the stack.
const SLICE: usize = 1024;
/// Slots that are taken off such an entry at once.
const BITE: usize = 16;

/// One worker's memory from one collection to the next.
#[derive(Debug)]
pub struct TraceStack {
    entries: MappedVec<usize>,
    shared: usize,
    /// Where objects are copied to.
    pub(crate) region: Region,
    /// Where those go that do not fit into the hole at hand.
    pub(crate) overflow: Region,
    yields: Yields,
}

impl TraceStack {
    /// An empty stack.
    #[must_use]
    pub fn new(entries: MappedVec<usize>, yields: Yields) -> Self {
        Self {
            entries,
            shared: 0,
            region: Region::default(),
            overflow: Region::default(),
            yields,
        }
    }

    /// With one worker nothing is shared.
    #[inline(always)]
    fn pop<const SHARED: bool>(&mut self) -> Option<usize> {
        if !SHARED || self.entries.len() > self.shared {
            return self.entries.pop();
        }
        if self.shared != 0 {
            self.entries.clear();
            self.shared = 0;
        }
        None
    }

    /// Gives back memory that only a deep graph needed.
    pub fn shrink(&mut self) {
        self.entries.clear();
        self.shared = 0;
        self.entries.shrink();
    }
}

/// What is the same for all workers of a trace.
#[allow(
    missing_debug_implementations,
    reason = "made and used up within one pause"
)]
pub struct Trace<'a, V: Vm> {
    pub(crate) vm: &'a V,
    pub(crate) space: &'a ObjectSpace,
    /// What blocks are that objects are copied to, and what those become that cannot be emptied.
    pub(crate) to: Policy,
    /// Pages that may be in use: an object for whose copy there is no block within this many stays where it is.
    pub(crate) most: usize,
    /// Objects that are reached are old from now on, and the write barrier is to see writes to them.
    pub(crate) unlog: bool,
    /// Bytes that were copied.
    pub(crate) copied: AtomicUsize,
    /// Objects that were to be moved and could not be.
    pub(crate) stayed: AtomicUsize,
    /// Objects that were entered into the bitmap of what is still to be scanned.
    pub(crate) pending: AtomicUsize,
    /// Objects that the runtime kept alive though nothing reaches them.
    pub(crate) kept: AtomicUsize,
    /// What waits for objects to be reached; looked at by tracers that watch.
    pub(crate) waiting: Option<&'a Waiting>,
}

/// Traces for one worker. `SHARED`: others do at the same time. `MOVES`: blocks may be moving, and slots are updated. `YIELDS`: the
/// option `yields` is on. `WATCH`: each object that is reached is looked up among those that ephemerons wait for.
#[allow(
    missing_debug_implementations,
    reason = "made and used up within one phase"
)]
pub struct Tracer<
    'a,
    V: Vm,
    const SHARED: bool,
    const MOVES: bool,
    const YIELDS: bool = false,
    const WATCH: bool = false,
> {
    trace: &'a Trace<'a, V>,
    header: Header<'a, V>,
    slots: V::Slots,
    tables: Tables,
    range: usize,
    line_epoch: u8,
    unlog: bool,
    stack: &'a mut TraceStack,
    /// What the edges lead to, all within the range, and with `MOVES` their slots.
    ring: [usize; RING],
    ring_slots: [usize; RING],
    next: usize,
    waiting: usize,
    /// Objects that were marked and wait for their first line.
    objects: [usize; OBJECTS],
    next_object: usize,
    waiting_objects: usize,
    copied: usize,
}

/// What is still to be done with an object that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing: it was reached before, or is not looked at.
    Nothing,
    /// It was copied, or could not be: scan it.
    Copied,
    /// It was marked, in a block with size classes or pages of its own: scan it.
    Cell,
    /// It was marked, in a block that does not move though its policy does: scan it.
    Held,
    /// It was marked: mark its lines and scan it.
    Lines,
    /// It was marked, and is to slide: enter its extent and scan it.
    Slides,
}

impl Next {
    /// What follows the mark, in the lowest bits of an object's address.
    #[inline(always)]
    const fn tag(self) -> usize {
        match self {
            Self::Lines => LINES,
            Self::Slides => SLIDES,
            _ => 0,
        }
    }
}

/// See [`Next::Lines`].
const LINES: usize = 1;
/// See [`Next::Slides`].
const SLIDES: usize = 2;

/// The fields of an object, on their way to the stack: what is from its top to `end` may be written. The compiler has both in
/// registers, as nobody else has this by reference.
struct Fields<'s, S: SlotFormat, const MOVES: bool> {
    slots: S,
    entries: &'s mut MappedVec<usize>,
    top: *mut usize,
    end: *mut usize,
    full: bool,
}

impl<'s, S: SlotFormat, const MOVES: bool> Fields<'s, S, MOVES> {
    #[inline(always)]
    fn new(slots: S, entries: &'s mut MappedVec<usize>) -> Self {
        let start = entries.as_mut_ptr();
        Self {
            slots,
            top: start.wrapping_add(entries.len()),
            end: start.wrapping_add(entries.capacity()),
            entries,
            full: false,
        }
    }

    #[inline(always)]
    fn push(&mut self, entry: usize) {
        if self.top == self.end {
            let Some(end) = more_entries(self.entries, self.top) else {
                self.full = true;
                return;
            };
            self.end = end;
        }
        // SAFETY: below `end`, up to which there is room (`MappedVec::reserve`), and the vector is borrowed.
        unsafe {
            self.top.write(entry);
            self.top = self.top.add(1);
        }
    }

    /// Enters what was pushed: true if all of it had room. Else nothing is.
    #[inline(always)]
    fn finish(self) -> bool {
        if !self.full {
            let length =
                (self.top as usize - self.entries.as_mut_ptr() as usize) / size_of::<usize>();
            // SAFETY: `push` wrote all that is below `top`.
            unsafe { self.entries.set_len(length) };
        }
        !self.full
    }
}

/// Makes room for more entries behind `top`: where it ends. The vector does not move, and its length stays.
#[cold]
#[inline(never)]
fn more_entries(entries: &mut MappedVec<usize>, top: *mut usize) -> Option<*mut usize> {
    let start = entries.as_mut_ptr();
    let pushed = (top as usize - start as usize) / size_of::<usize>() - entries.len();
    entries.reserve(pushed + 1).ok()?;
    Some(start.wrapping_add(entries.capacity()))
}

impl<S: SlotFormat, const MOVES: bool> SlotVisitor for Fields<'_, S, MOVES> {
    #[inline(always)]
    fn slot(&mut self, slot: Address) {
        // SAFETY: a field that the runtime reported of a live object (Vm rule 2).
        if let Some(target) = unsafe { self.slots.load(slot) } {
            self.push(if MOVES {
                slot.as_usize() << 16
            } else {
                target.to_address().as_usize() << 16
            });
        }
    }

    #[inline]
    fn slots(&mut self, first: Address, count: usize) {
        if count <= BITE {
            for index in 0..count {
                self.slot(first.add(index * S::BYTES));
            }
            return;
        }
        let mut at = count;
        while at > 0 {
            let slice = if at.is_multiple_of(SLICE) {
                SLICE
            } else {
                at % SLICE
            };
            at -= slice;
            if is_on(Bug::ArraySliceLost) && at + slice == count && count > SLICE {
                continue;
            }
            self.push(first.add(at * S::BYTES).as_usize() << 16 | slice);
        }
    }
}

impl<'a, V: Vm, const SHARED: bool, const MOVES: bool, const YIELDS: bool, const WATCH: bool>
    Tracer<'a, V, SHARED, MOVES, YIELDS, WATCH>
{
    const SIDE: bool = matches!(V::METADATA, Metadata::Side);
    const SHARE_EVERY: u32 = if YIELDS {
        SHARE_EVERY_WITH_YIELDS
    } else {
        SHARE_EVERY
    };

    /// A tracer for one worker.
    #[must_use]
    pub fn new(trace: &'a Trace<'a, V>, stack: &'a mut TraceStack) -> Self {
        Self {
            trace,
            header: Header::new(trace.space),
            slots: trace.vm.slots(),
            tables: *trace.space.tables(),
            range: trace.space.range(),
            line_epoch: trace.space.line_epoch(),
            unlog: trace.unlog,
            stack,
            ring: [0; RING],
            ring_slots: [0; RING],
            next: 0,
            waiting: 0,
            objects: [0; OBJECTS],
            next_object: 0,
            waiting_objects: 0,
            copied: 0,
        }
    }

    /// Another worker may go first.
    #[inline(always)]
    fn point(&self) {
        if YIELDS || WATCH {
            self.stack.yields.point();
        }
    }

    /// Decides on an object: where it is from now on, and what is still to be done with it (by this worker).
    #[inline(always)]
    fn visit(&mut self, object: usize) -> (usize, Next) {
        let offset = object.wrapping_sub(self.tables.base());
        if offset >= self.range {
            return (object, Next::Nothing);
        }
        self.visit_inside(object, offset)
    }

    /// As [`Tracer::visit`], for an object that is known to lie in the range.
    #[inline(always)]
    fn visit_inside(&mut self, object: usize, offset: usize) -> (usize, Next) {
        // Where nothing moves and all marks are in one table, most edges need no more than the mark.
        let marked_first = Self::SIDE && !MOVES;
        if marked_first && !self.mark(offset) {
            return (object, Next::Nothing);
        }
        let entry = self.tables.entry(offset);
        if MOVES && entry.moves() {
            return self.move_object(object);
        }
        // Objects of a moving policy that do not move now: already moved, or old.
        if MOVES && entry.is(Policy::Copy) && !entry.is_held() {
            return (object, Next::Nothing);
        }
        let new = if !Self::SIDE && entry.is_bump() {
            self.header.mark::<SHARED>(object)
        } else {
            marked_first || self.mark(offset)
        };
        let lost = || is_on(Bug::LargeNotMarked) && self.trace.space.unmark_large(object);
        if !new || lost() {
            (object, Next::Nothing)
        } else if entry.is(Policy::Immix) {
            (object, Next::Lines)
        } else if entry.is(Policy::Compact) {
            (object, Next::Slides)
        } else if entry.is_bump() {
            (object, Next::Held)
        } else {
            (object, Next::Cell)
        }
    }

    /// Sets the mark in the side table: true if it was not set.
    #[inline(always)]
    fn mark(&self, offset: usize) -> bool {
        let word = self.tables.word(offset, 1);
        let bit = 1 << (offset / 16 % 64);
        let old = word.load(Ordering::Relaxed);
        if old & bit != 0 {
            return false;
        }
        if SHARED {
            return word.fetch_or(bit, Ordering::Relaxed) & bit == 0;
        }
        word.store(old | bit, Ordering::Relaxed);
        true
    }

    /// What follows a mark: lines and log bit. The object's first line is in the cache. `tag`: see [`Next::tag`].
    #[inline(always)]
    fn complete(&mut self, object: usize, tag: usize) {
        if tag == LINES {
            let bytes = self.size(object);
            self.trace.space.mark_lines(object, bytes, self.line_epoch);
        } else if !MOVES && tag == SLIDES {
            let bytes = self.size(object);
            let bytes = bytes - if is_on(Bug::LiveShort) { 8 } else { 0 };
            self.trace.space.set_live::<SHARED>(object, bytes);
        }
        if self.unlog {
            self.set_unlogged(object);
        }
    }

    #[inline(always)]
    fn set_unlogged(&self, object: usize) {
        if !is_on(Bug::LogBitForgotten) {
            self.header.set_unlogged::<SHARED>(object);
        };
    }

    #[inline(always)]
    fn size(&self, object: usize) -> usize {
        // SAFETY: not zero: it lies in the heap's range.
        let object = unsafe { ObjectReference::from_address_unchecked(Address::new(object)) };
        let align = if V::OBJECT_MAP { 16 } else { 8 };
        (self.trace.vm.size(object) + align - 1) & !(align - 1)
    }

    #[inline(always)]
    fn move_object(&mut self, object: usize) -> (usize, Next) {
        let claim = self.header.claim::<SHARED>(object);
        let kept = match claim {
            Forward::Moved(to) => return (to, Next::Nothing),
            Forward::Stays => return (object, Next::Nothing),
            Forward::Claimed(kept) => kept,
        };
        self.point();
        if let Some(bits) = V::HASH
            && bits.state(kept) == HashState::Address
        {
            return self.move_hashed(object, kept, bits);
        }
        let bytes = self.size(object);
        let Some(copy) = self.room(bytes) else {
            return self.keep_in_place(object, kept, bytes);
        };
        // SAFETY: the object is this worker's to copy, and has `bytes` bytes (Vm rule 1); the region's memory is this worker's.
        unsafe { copy_words(object, copy, bytes) };
        let immix = self.trace.to == Policy::Immix;
        let unlog = self.trace.unlog;
        self.header.complete::<SHARED>(copy, kept, immix, unlog);
        if immix {
            self.trace.space.mark_lines(copy, bytes, self.line_epoch);
        }
        self.point();
        self.header.moved::<SHARED>(object, copy);
        self.copied += bytes;
        (copy, Next::Copied)
    }

    /// Moves a claimed object that was asked for its hash: the copy has a word more, with the hash.
    #[cold]
    #[inline(never)]
    fn move_hashed(&mut self, object: usize, kept: usize, bits: HashBits) -> (usize, Next) {
        let old = self.size(object);
        // SAFETY: not zero: it lies in the heap's range.
        let reference = unsafe { ObjectReference::from_address_unchecked(Address::new(object)) };
        let kept_now = bits.stored(kept);
        let size = bits.size(kept_now, self.trace.vm.size(reference));
        let align = if V::OBJECT_MAP { 16 } else { 8 };
        let bytes = (size + align - 1) & !(align - 1);
        let Some(copy) = self.room(bytes) else {
            return self.keep_in_place(object, kept, old);
        };
        // SAFETY: as in `move_object`; the copy has a word more than the object.
        unsafe { copy_words(object, copy, old) };
        if !is_on(Bug::HashNotStored) {
            // SAFETY: the last word of the copy, which is this worker's.
            unsafe { Address::new(copy + size - 8).store(hash_of(object)) };
        }
        let immix = self.trace.to == Policy::Immix;
        self.header
            .complete::<SHARED>(copy, kept_now, immix, self.trace.unlog);
        if immix {
            self.trace.space.mark_lines(copy, bytes, self.line_epoch);
        }
        self.header.moved::<SHARED>(object, copy);
        self.copied += bytes;
        (copy, Next::Copied)
    }

    /// Memory for a copy.
    #[inline(always)]
    fn room(&mut self, bytes: usize) -> Option<usize> {
        if let Some(copy) = self.stack.region.bump(bytes) {
            return Some(copy);
        }
        self.more_room(bytes)
    }

    #[cold]
    #[inline(never)]
    fn more_room(&mut self, bytes: usize) -> Option<usize> {
        let (space, to, most) = (self.trace.space, self.trace.to, self.trace.most);
        let most = if is_on(Bug::CopiesNotLimited) {
            usize::MAX
        } else {
            most
        };
        let stack = &mut *self.stack;
        // What is larger than a line does not go from hole to hole.
        let region = if to == Policy::Immix && bytes > crate::space::objects::LINE {
            &mut stack.overflow
        } else {
            &mut stack.region
        };
        loop {
            if let Some(copy) = region.bump(bytes) {
                return Some(copy);
            }
            if region.extend_raw(bytes)
                || space.refill(region, bytes)
                || space.fill_hole(region, to, bytes)
            {
                continue;
            }
            if bytes > BLOCK_BYTES || space.fill(region, to, bytes, most).is_err() {
                return None;
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn keep_in_place(&mut self, object: usize, kept: usize, bytes: usize) -> (usize, Next) {
        self.trace.stayed.fetch_add(1, Ordering::Relaxed);
        self.header.stays::<SHARED>(object, kept);
        self.trace.space.mark_lines(object, bytes, self.line_epoch);
        if self.trace.unlog {
            self.set_unlogged(object);
        }
        (object, Next::Copied)
    }

    /// Pushes the fields of an object.
    #[inline(always)]
    pub(crate) fn scan(&mut self, object: usize) {
        // SAFETY: not zero: callers pass objects.
        let object = unsafe { ObjectReference::from_address_unchecked(Address::new(object)) };
        let mut fields = Fields::<V::Slots, MOVES>::new(self.slots, &mut self.stack.entries);
        self.trace.vm.scan(object, &mut fields);
        if !fields.finish() {
            self.trace.space.set_pending(object.to_address().as_usize());
            self.trace.pending.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Looks at an edge at once: for roots and weak references.
    pub(crate) fn reach(&mut self, object: usize) -> usize {
        let (now, next) = self.visit(object);
        if WATCH && next != Next::Nothing {
            self.wake(object);
        }
        match next {
            Next::Nothing => {}
            Next::Copied => self.scan(now),
            Next::Cell | Next::Held | Next::Lines | Next::Slides => {
                self.complete(now, next.tag());
                self.scan(now);
            }
        }
        now
    }

    /// Lets an edge leave the ring.
    #[inline(always)]
    fn settle(&mut self, slot: usize, target: usize) {
        self.point();
        let (now, next) = self.visit_inside(target, target.wrapping_sub(self.tables.base()));
        if MOVES && now != target && !is_on(Bug::SlotNotUpdated) {
            // SAFETY: the slot that held the object; a new place is never 0. No other worker has this edge.
            unsafe {
                self.slots.store(
                    Address::new(slot),
                    ObjectReference::from_address_unchecked(Address::new(now)),
                );
            }
        }
        if WATCH && next != Next::Nothing {
            self.wake(target);
        }
        match next {
            Next::Nothing => {}
            Next::Copied => self.scan(now),
            Next::Held | Next::Lines | Next::Slides if !Self::SIDE => {
                self.complete(now, next.tag());
                self.scan(now);
            }
            Next::Cell | Next::Held | Next::Lines | Next::Slides => {
                // Only its mark was looked at so far.
                prefetch(now);
                let place = self.next_object % OBJECTS;
                self.next_object = self.next_object.wrapping_add(1);
                // Objects are aligned to 8 bytes.
                let entry = now | next.tag();
                let oldest = core::mem::replace(&mut self.objects[place], entry);
                if self.waiting_objects == OBJECTS {
                    self.scan_marked(oldest);
                } else {
                    self.waiting_objects += 1;
                }
            }
        }
    }

    /// An object was reached by this worker, and was at `object` before: what waits for it, and for nothing else any more, is
    /// traced.
    #[inline]
    fn wake(&mut self, object: usize) {
        if let Some(waiting) = self.trace.waiting {
            waiting.reached(object, |value| {
                let entry = if MOVES { value.slot() } else { value.target() };
                // Not looked at here: a chain would become one of calls.
                if entry != 0 && self.stack.entries.push(entry << 16).is_err() {
                    waiting.miss();
                }
            });
        }
    }

    /// Traces what an item keeps that waits for nothing.
    pub(crate) fn reach_ready(&mut self, value: Value<'_>) {
        let entry = if MOVES { value.slot() } else { value.target() };
        if entry != 0 {
            self.accept(entry << 16);
        }
    }

    #[inline(always)]
    fn scan_marked(&mut self, entry: usize) {
        let object = entry & !7;
        self.complete(object, entry & 7);
        self.scan(object);
    }

    #[inline(always)]
    fn scan_oldest(&mut self) {
        let oldest = self.objects[self.next_object.wrapping_sub(self.waiting_objects) % OBJECTS];
        self.waiting_objects -= 1;
        self.scan_marked(oldest);
    }

    /// Lets an entry of the stack enter the ring; settles the edge that falls out.
    #[inline(always)]
    fn enter(&mut self, entry: usize) {
        if entry & 0xffff != 0 {
            self.bite(entry);
            return;
        }
        let slot = entry >> 16;
        let target = if MOVES {
            // SAFETY: a field of an object that was scanned, which stays in place until the trace ends.
            match unsafe { self.slots.load(Address::new(slot)) } {
                Some(target) => target.to_address().as_usize(),
                None => return,
            }
        } else {
            slot
        };
        let offset = target.wrapping_sub(self.tables.base());
        if offset >= self.range {
            return;
        }
        if Self::SIDE && !MOVES {
            self.tables.prefetch(offset);
        } else {
            // What moves is copied at once, and header bits are in the object; of others only the mark is looked at.
            let entry = self.tables.entry(offset);
            if entry.moves() || !Self::SIDE && entry.is_bump() {
                prefetch(target);
            }
            if Self::SIDE || !entry.is_bump() {
                self.tables.prefetch(offset);
            }
        }
        let place = self.next % RING;
        self.next = self.next.wrapping_add(1);
        let old_target = core::mem::replace(&mut self.ring[place], target);
        let old_slot = if MOVES {
            core::mem::replace(&mut self.ring_slots[place], slot)
        } else {
            old_target
        };
        if self.waiting == RING {
            self.settle(old_slot, old_target);
        } else {
            self.waiting += 1;
        }
    }

    /// Takes some slots off an entry that stands for many.
    #[inline(never)]
    fn bite(&mut self, entry: usize) {
        let (first, count) = (Address::new(entry >> 16), entry & 0xffff);
        let now = count.min(BITE);
        if count > now {
            self.accept(first.add(now * V::Slots::BYTES).as_usize() << 16 | (count - now));
        }
        let now = now - usize::from(is_on(Bug::ArraySlotLost));
        for index in 0..now {
            let slot = first.add(index * V::Slots::BYTES);
            if MOVES {
                self.accept(slot.as_usize() << 16);
            // SAFETY: a slot of an array that was scanned, which stays in place until the trace ends.
            } else if let Some(target) = unsafe { self.slots.load(slot) } {
                self.accept(target.to_address().as_usize() << 16);
            }
        }
    }

    /// Empties stack and ring, sharing with hungry workers.
    pub(crate) fn run(&mut self, mut worker: Option<&mut Worker<'_>>) {
        let mut until_share = Self::SHARE_EVERY;
        loop {
            while let Some(entry) = self.stack.pop::<SHARED>() {
                self.enter(entry);
                if SHARED {
                    until_share -= 1;
                    if until_share == 0 {
                        until_share = Self::SHARE_EVERY;
                        if let Some(worker) = worker.as_deref_mut()
                            && worker.hungry()
                        {
                            self.share(worker);
                        }
                    }
                }
            }
            if self.waiting > usize::from(is_on(Bug::EdgeLeftInRing)) {
                self.settle_oldest();
            } else if self.waiting_objects > usize::from(is_on(Bug::ObjectLeftInRing)) {
                self.scan_oldest();
            } else if SHARED || !self.resume_pending() {
                break;
            }
        }
        self.count();
    }

    /// Adds what this worker copied to the sum.
    pub(crate) fn count(&mut self) {
        self.trace.copied.fetch_add(self.copied, Ordering::Relaxed);
        self.copied = 0;
    }

    /// Takes the oldest edge out of the ring: its slot and what it leads to.
    #[inline(always)]
    fn take_oldest(&mut self) -> (usize, usize) {
        let place = self.next.wrapping_sub(self.waiting) % RING;
        self.waiting -= 1;
        (self.ring_slots[place], self.ring[place])
    }

    #[inline(always)]
    fn settle_oldest(&mut self) {
        let (slot, target) = self.take_oldest();
        self.settle(slot, target);
    }

    /// Scans what did not fit onto the stack: true if there was something. By one worker.
    pub(crate) fn resume_pending(&mut self) -> bool {
        if self.trace.pending.swap(0, Ordering::Relaxed) == 0 {
            return false;
        }
        let mut from = 0;
        while let Some(object) = self.trace.space.take_pending(from) {
            from = object - self.tables.base();
            self.scan(object);
            while let Some(entry) = self.stack.pop::<SHARED>() {
                self.enter(entry);
            }
            while self.waiting_objects != 0 {
                self.scan_oldest();
            }
        }
        true
    }

    #[cold]
    fn share(&mut self, worker: &mut Worker<'_>) {
        let own = &self.stack.entries.as_slice()[self.stack.shared..];
        let offered = &own[..(own.len() / 2).min(SHARE_MOST)];
        if !offered.is_empty() {
            self.stack.shared += worker.share(offered);
            self.point();
        }
    }

    /// Takes an entry that another worker shared.
    #[inline]
    pub(crate) fn accept(&mut self, entry: usize) {
        if self.stack.entries.push(entry).is_err() {
            self.enter_without_stack(entry);
        }
    }

    #[cold]
    #[inline(never)]
    fn enter_without_stack(&mut self, entry: usize) {
        self.enter(entry);
    }

    /// Takes an old object that was written to: its fields are looked at, and writes to it are seen again.
    pub(crate) fn remember(&mut self, object: usize) {
        if !is_on(Bug::RememberedForGood) {
            self.set_unlogged(object);
        }
        if !is_on(Bug::RememberedNotScanned) {
            self.scan(object);
        }
    }

    /// Looks at most at `entries` of the stack; then puts what waits in the ring back. True if nothing is left. For marking
    /// while mutators run.
    pub(crate) fn run_some(&mut self, entries: usize) -> bool {
        for _ in 0..entries {
            if let Some(entry) = self.stack.pop::<SHARED>() {
                self.enter(entry);
            } else if self.waiting != 0 {
                self.settle_oldest();
            } else if self.waiting_objects != 0 {
                self.scan_oldest();
            } else {
                return true;
            }
        }
        while self.waiting_objects != 0 {
            self.scan_oldest();
        }
        while self.waiting != 0 {
            let (slot, target) = self.take_oldest();
            let entry = if MOVES { slot } else { target } << 16;
            if self.stack.entries.push(entry).is_err() {
                self.settle(slot, target);
            }
        }
        false
    }
}

/// Tells what became of objects, after a trace. Any worker.
#[allow(missing_debug_implementations, reason = "holds the runtime")]
pub(crate) struct Outcomes<'a, V: Vm> {
    space: &'a ObjectSpace,
    header: Header<'a, V>,
}

impl<'a, V: Vm> Outcomes<'a, V> {
    pub(crate) fn new(trace: &Trace<'a, V>) -> Self {
        Self::on(trace.space)
    }

    /// Of the trace that has just ended.
    pub(crate) fn on(space: &'a ObjectSpace) -> Self {
        Self {
            space,
            header: Header::new(space),
        }
    }

    /// Where an object is, if it was reached.
    pub(crate) fn of(&self, object: usize) -> Option<usize> {
        if is_on(Bug::WeakCleared) {
            return None;
        }
        let offset = object.wrapping_sub(self.space.tables().base());
        if offset >= self.space.range() {
            return Some(object);
        }
        let entry = self.space.tables().entry(offset);
        if entry.moves() {
            return self.header.outcome(object);
        }
        if entry.is(Policy::Copy) && !entry.is_held() {
            return Some(object);
        }
        let marked = if entry.is_bump() {
            self.header.is_marked(object)
        } else {
            self.space.is_marked_in_side(object)
        };
        marked.then_some(object)
    }
}

impl<V: Vm> WeakLookup for Outcomes<'_, V> {
    fn get(&self, object: ObjectReference) -> Option<ObjectReference> {
        ObjectReference::from_address(Address::new(self.of(object.to_address().as_usize())?))
    }
}

/// Copies an object.
///
/// # Safety
/// `from` is readable and `to` writable for `bytes`, a multiple of 8; the two do not overlap; both are aligned to 8.
#[inline(always)]
unsafe fn copy_words(from: usize, to: usize, bytes: usize) {
    let source = core::ptr::with_exposed_provenance::<u64>(from);
    let target = core::ptr::with_exposed_provenance_mut::<u64>(to);
    if bytes > 128 {
        // SAFETY: the caller's promise.
        unsafe { core::ptr::copy_nonoverlapping(source, target, bytes / 8) };
        return;
    }
    // Not the first word: it is written apart, and a call costs more than some words.
    let mut at = 1;
    let bytes = if is_on(Bug::CopyShort) {
        bytes - 8
    } else {
        bytes
    };
    while at < bytes / 8 {
        // SAFETY: the caller's promise.
        unsafe { target.add(at).write(source.add(at).read()) };
        at += 1;
    }
}

/// Roots, on their way into a trace.
#[allow(
    missing_debug_implementations,
    reason = "made and used up within one call"
)]
pub struct Roots<'t, 'a, V: Vm, const SHARED: bool, const MOVES: bool, const YIELDS: bool>(
    pub(crate) &'t mut Tracer<'a, V, SHARED, MOVES, YIELDS>,
);

impl<V: Vm, const SHARED: bool, const MOVES: bool, const YIELDS: bool> RootVisitor
    for Roots<'_, '_, V, SHARED, MOVES, YIELDS>
{
    #[inline]
    fn slot(&mut self, slot: Address) {
        // SAFETY: a root that the runtime reported (Vm rule 3): a word that holds a reference or 0.
        let target = unsafe { slot.load::<usize>() };
        if target == 0 {
            return;
        }
        if !MOVES {
            self.0.accept(target << 16);
        } else if V::Slots::IS_WORD {
            self.0.accept(slot.as_usize() << 16);
        } else {
            let now = self.0.reach(target);
            if now != target {
                // SAFETY: as above; nobody else writes it while the world is stopped.
                unsafe { slot.store(now) };
            }
        }
    }

    fn slots(&mut self, first: Address, count: usize) {
        let count = count.saturating_sub(usize::from(is_on(Bug::RootSlotSkipped)));
        for index in 0..count {
            self.slot(first.add(index * 8));
        }
    }

    fn pinned(&mut self, object: ObjectReference) {
        let address = object.to_address().as_usize();
        let now = self.0.reach(address);
        debug_assert_eq!(now, address, "a pinned object's block was held before");
    }

    fn ambiguous(&mut self, word: WildWord) {
        if is_on(Bug::AmbiguousIgnored) {
            return;
        }
        let vm = self.0.trace.vm;
        if let Some(object) = self
            .0
            .trace
            .space
            .object_around(word.bits(), |o| vm.size(o))
        {
            self.pinned(object);
        }
    }
}

/// Only looks for roots whose objects must not move, and holds their blocks. Before the trace.
#[allow(
    missing_debug_implementations,
    reason = "made and used up within one call"
)]
pub struct Pins<'a, V: Vm> {
    pub(crate) vm: &'a V,
    pub(crate) space: &'a ObjectSpace,
    /// What held blocks become.
    pub(crate) to: Policy,
    pub(crate) found: usize,
}

impl<V: Vm> RootVisitor for Pins<'_, V> {
    fn slot(&mut self, _: Address) {}

    fn slots(&mut self, _: Address, _: usize) {}

    fn pinned(&mut self, object: ObjectReference) {
        self.space.hold(object.to_address().as_usize(), self.to);
        self.found += 1;
    }

    fn ambiguous(&mut self, word: WildWord) {
        if let Some(object) = self.space.object_around(word.bits(), |o| self.vm.size(o)) {
            self.pinned(object);
        }
    }
}

impl<V: Vm, const SHARED: bool, const MOVES: bool, const WATCH: bool> WeakLookup
    for Tracer<'_, V, SHARED, MOVES, false, WATCH>
{
    fn get(&self, object: ObjectReference) -> Option<ObjectReference> {
        Outcomes::<V>::new(self.trace).get(object)
    }
}

impl<V: Vm, const SHARED: bool, const MOVES: bool, const WATCH: bool> WeakVisitor
    for Tracer<'_, V, SHARED, MOVES, false, WATCH>
{
    fn keep(&mut self, object: ObjectReference) -> ObjectReference {
        let address = object.to_address().as_usize();
        if let Some(now) = WeakLookup::get(self, object) {
            // It lives by itself. (Not so if the seeded bug says that all are dead.)
            return now;
        }
        self.trace.kept.fetch_add(1, Ordering::Relaxed);
        let now = self.reach(address);
        self.run(None);
        // SAFETY: an object's place is never 0.
        unsafe { ObjectReference::from_address_unchecked(Address::new(now)) }
    }
}
