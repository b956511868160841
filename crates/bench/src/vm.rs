//! The embedded virtual machine: small, honest, and the example of a binding.
//!
//! An object is a header of one word, then its references, then its raw bytes. The header's low eight bits are the
//! collector's if the machine grants them; then come the shape and the two lengths:
//!
//! | shape | bits 8 to 15 | bits 16 to 31 | bits 32 to 63 |
//! |---|---|---|---|
//! | object | 0 | references | raw bytes |
//! | array | 1 | | references |
//! | weak box | 2 | | 8: the raw word is the weak reference |
//! | reference object | 3 | strength | 24: see module `references` |
//! | ephemeron | 4 | | 24: the same |
//!
//! Bits 5 and 6 say whether the object was asked for its identity hash, and whether it was moved since: then it has a word more at its
//! end.
//!
//! Each thread has a shadow stack, which is its roots. Weak boxes are in lists of the machine, which it looks through after
//! each trace: what a runtime can do by itself. Reference objects and ephemerons are registered with the heap.

mod references;

use crate::runtime::{Full, Root, Runtime, Thread};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};
use heapwright::{
    Address, CollectionStats, HashBits, Heap, Metadata, Mutator, ObjectReference, PinGuard,
    RootVisitor, SlotVisitor, TypeId, Vm, WeakLookup, WildWord, WordSlots,
};
use std::sync::Mutex;

/// Free bits of the collector's byte, whether it uses that or not.
const HASH: HashBits = HashBits::IN_COLLECTORS_BYTE;

const OBJECT: u64 = 0;
const ARRAY: u64 = 1 << 8;
const WEAK: u64 = 2 << 8;
const REFERENCE: u64 = 3 << 8;
const EPHEMERON: u64 = 4 << 8;
const SHAPE: u64 = 0xff << 8;

/// The list of weak boxes has so many parts, which workers look through at the same time.
const WEAK_PARTS: usize = 16;

/// The machine. `HEADER`: it grants the collector bits in its headers; `AMBIGUOUS`: its shadow stacks are reported as words
/// that may be references, and the heap has an object map.
#[derive(Debug, Default)]
pub struct Machine<const HEADER: bool, const AMBIGUOUS: bool> {
    weak: [Mutex<Vec<ObjectReference>>; WEAK_PARTS],
    pauses: Mutex<Vec<u64>>,
    violations: AtomicU64,
    dump: crate::dump::Wish,
}

/// A thread of the machine: its shadow stack.
#[derive(Debug, Default)]
pub struct Stack(UnsafeCell<Vec<usize>>);

impl Stack {
    #[inline(always)]
    fn words(&mut self) -> &mut Vec<usize> {
        self.0.get_mut()
    }
}

#[inline(always)]
fn header(object: ObjectReference) -> u64 {
    // SAFETY: the runtime's references are to objects, which begin with a header.
    unsafe { object.to_address().load::<u64>() }
}

#[inline(always)]
fn references(header: u64) -> usize {
    match header & SHAPE {
        ARRAY => (header >> 32) as usize,
        OBJECT => (header >> 16 & 0xffff) as usize,
        _ => 0,
    }
}

#[inline(always)]
fn raw_bytes(header: u64) -> usize {
    if header & SHAPE == ARRAY {
        0
    } else {
        (header >> 32) as usize
    }
}

#[inline(always)]
fn field(object: ObjectReference, index: usize) -> Address {
    object.to_address().add(8 + index * 8)
}

// SAFETY: 1: the header has both lengths, from the end of `allocate` on. 2: the fields behind the header. 3: the shadow stacks; the
// machine has no other roots. 4: headers are written once, before anybody else sees the object, with the low bits as the heap
// left them, and read without them; 7: nobody writes them later. 5: `set` writes through the barrier. 6: no method does.
unsafe impl<const HEADER: bool, const AMBIGUOUS: bool> Vm for Machine<HEADER, AMBIGUOUS> {
    type Thread = Stack;
    type Slots = WordSlots;

    const METADATA: Metadata = if HEADER {
        Metadata::Header
    } else {
        Metadata::Side
    };
    const OBJECT_MAP: bool = AMBIGUOUS;
    const HASH: Option<HashBits> = Some(HASH);
    const PINS: bool = AMBIGUOUS;

    #[inline(always)]
    fn slots(&self) -> WordSlots {
        WordSlots
    }

    #[inline(always)]
    fn size(&self, object: ObjectReference) -> usize {
        let header = header(object);
        let bytes = (8 + references(header) * 8 + raw_bytes(header)).max(16);
        HASH.size(header as usize, bytes)
    }

    fn type_of(&self, object: ObjectReference) -> TypeId {
        TypeId((header(object) >> 8 & 0xff) as u32)
    }

    fn type_name(&self, id: TypeId) -> String {
        [
            "object",
            "array",
            "weak box",
            "reference object",
            "ephemeron",
        ]
        .get(id.0 as usize)
        .copied()
        .unwrap_or("unknown")
        .to_owned()
    }

    #[inline(always)]
    fn scan<S: SlotVisitor>(&self, object: ObjectReference, visit: &mut S) {
        let header = header(object);
        if header & SHAPE == ARRAY {
            visit.slots(field(object, 0), (header >> 32) as usize);
        } else if header & SHAPE == OBJECT {
            for index in 0..(header >> 16 & 0xffff) as usize {
                visit.slot(field(object, index));
            }
        }
    }

    fn thread_roots<R: RootVisitor>(&self, thread: &mut Stack, visit: &mut R) {
        let words = thread.words();
        if AMBIGUOUS {
            words
                .iter()
                .for_each(|w| visit.ambiguous(WildWord::new(*w)));
        } else {
            visit.slots(Address::from_ptr(words.as_ptr()), words.len());
        }
    }

    fn weak_parts(&self) -> usize {
        WEAK_PARTS
    }

    fn weak_of<W: WeakLookup>(&self, part: usize, visit: &mut W) {
        let Ok(mut list) = self.weak[part].lock() else {
            return;
        };
        list.retain_mut(|weak| {
            let Some(now) = visit.get(*weak) else {
                return false;
            };
            *weak = now;
            let slot = field(now, 0);
            // SAFETY: a weak box has one raw word.
            let referent = ObjectReference::from_address(Address::new(unsafe { slot.load() }));
            let target = referent.and_then(|r| visit.get(r));
            let word = target.map_or(0, |t| t.to_address().as_usize());
            // SAFETY: as above; the world is stopped.
            unsafe { slot.store(word) };
            word != 0
        });
    }

    fn collected(&self, stats: &CollectionStats) {
        if let Ok(mut pauses) = self.pauses.lock() {
            pauses.push(stats.pause_ns);
        }
        self.violations
            .fetch_add(stats.violations as u64, Ordering::Relaxed);
    }
}

impl<const HEADER: bool, const AMBIGUOUS: bool> Machine<HEADER, AMBIGUOUS> {
    /// The heap dump that is wished for.
    pub(crate) fn dump(&self) -> &crate::dump::Wish {
        &self.dump
    }

    /// The pauses so far, in nanoseconds, and what the verifier found.
    #[must_use]
    pub fn record(&self) -> (Vec<u64>, u64) {
        let pauses = self.pauses.lock().map(|p| p.clone()).unwrap_or_default();
        (pauses, self.violations.load(Ordering::Relaxed))
    }
}

/// The machine with its heap.
#[derive(Debug)]
pub struct Embedded<const HEADER: bool, const AMBIGUOUS: bool>(
    pub Heap<Machine<HEADER, AMBIGUOUS>>,
);

impl<const HEADER: bool, const AMBIGUOUS: bool> Runtime for Embedded<HEADER, AMBIGUOUS> {
    type Thread<'r> = EmbeddedThread<HEADER, AMBIGUOUS>;

    fn attach(&self) -> Result<Self::Thread<'_>, Full> {
        self.0
            .attach(Stack::default())
            .map(EmbeddedThread)
            .map_err(|_| Full)
    }
}

/// A thread of the machine, attached to its heap.
#[derive(Debug)]
pub struct EmbeddedThread<const HEADER: bool, const AMBIGUOUS: bool>(
    Mutator<Machine<HEADER, AMBIGUOUS>>,
);

impl<const HEADER: bool, const AMBIGUOUS: bool> EmbeddedThread<HEADER, AMBIGUOUS> {
    #[inline(always)]
    fn allocate(&mut self, bytes: usize, header: u64) -> Result<ObjectReference, Full> {
        let object = self.0.alloc(bytes).map_err(|_| Full)?;
        let first = object.to_address();
        let ours = if HEADER {
            // SAFETY: a new object has at least 16 bytes.
            header | unsafe { first.load::<u64>() }
        } else {
            header
        };
        // SAFETY: as above.
        unsafe { first.store(ours) };
        Ok(object)
    }
}

impl<const HEADER: bool, const AMBIGUOUS: bool> EmbeddedThread<HEADER, AMBIGUOUS> {
    /// Collects what the plan thinks is due. A safepoint.
    pub fn collect_young(&mut self) {
        let _ = self.0.collect_young();
    }

    /// Begins a collection that goes on while the program runs, where the plan has such.
    pub fn collect_in_background(&mut self) {
        self.0.collect_in_background();
    }

    /// The mutator.
    pub fn mutator(&mut self) -> &mut Mutator<Machine<HEADER, AMBIGUOUS>> {
        &mut self.0
    }

    /// Keeps an object where it is until the guard is dropped.
    #[must_use]
    pub fn pin(&self, object: ObjectReference) -> PinGuard<Machine<HEADER, AMBIGUOUS>> {
        self.0.pin(object)
    }
}

impl<const HEADER: bool, const AMBIGUOUS: bool> Thread for EmbeddedThread<HEADER, AMBIGUOUS> {
    type Ref = ObjectReference;

    #[inline(always)]
    fn object(&mut self, references: usize, raw: usize) -> Result<ObjectReference, Full> {
        debug_assert!(references < 1 << 16 && raw < 1 << 32);
        self.allocate(
            8 + references * 8 + raw,
            OBJECT | (references as u64) << 16 | (raw as u64) << 32,
        )
    }

    fn array(&mut self, length: usize) -> Result<ObjectReference, Full> {
        if length >= 1 << 32 {
            return Err(Full);
        }
        self.allocate(8 + length * 8, ARRAY | (length as u64) << 32)
    }

    #[inline(always)]
    fn bytes(&mut self, length: usize) -> Result<ObjectReference, Full> {
        self.object(0, length)
    }

    fn weak(&mut self, referent: Root) -> Result<ObjectReference, Full> {
        let weak = self.allocate(16, WEAK | 8 << 32)?;
        let word = self.root(referent).map_or(0, |r| r.to_address().as_usize());
        // SAFETY: a weak box has one raw word.
        unsafe { field(weak, 0).store(word) };
        // The next place is as good as random.
        let part = weak.to_address().as_usize() / 16 % WEAK_PARTS;
        if let Ok(mut list) = self.0.vm().weak[part].lock() {
            list.push(weak);
        }
        Ok(weak)
    }

    fn weak_get(&mut self, weak: ObjectReference) -> Option<ObjectReference> {
        // SAFETY: a weak box has one raw word.
        let held = ObjectReference::from_address(Address::new(unsafe { field(weak, 0).load() }))?;
        self.0.read_weakly(held);
        Some(held)
    }

    #[inline(always)]
    fn get(&self, object: ObjectReference, index: usize) -> Option<ObjectReference> {
        debug_assert!(index < references(header(object)));
        // SAFETY: a field of the object.
        ObjectReference::from_address(Address::new(unsafe { field(object, index).load() }))
    }

    #[inline(always)]
    fn set(&mut self, object: ObjectReference, index: usize, value: Option<ObjectReference>) {
        debug_assert!(index < references(header(object)));
        let slot = field(object, index);
        self.0.before_write(object, Some(slot));
        // SAFETY: a field of the object.
        unsafe { slot.store(value.map_or(0, |v| v.to_address().as_usize())) };
    }

    #[inline(always)]
    fn references(&self, object: ObjectReference) -> usize {
        references(header(object))
    }

    #[inline(always)]
    fn raw_bytes(&self, object: ObjectReference) -> usize {
        raw_bytes(header(object))
    }

    #[inline(always)]
    fn raw(&self, object: ObjectReference, offset: usize) -> u64 {
        let header = header(object);
        debug_assert!(offset + 8 <= raw_bytes(header).next_multiple_of(8));
        // SAFETY: within the object's raw bytes, rounded up to words.
        unsafe { field(object, references(header)).add(offset).load() }
    }

    #[inline(always)]
    fn set_raw(&mut self, object: ObjectReference, offset: usize, value: u64) {
        let header = header(object);
        debug_assert!(offset + 8 <= raw_bytes(header).next_multiple_of(8));
        // SAFETY: as in `raw`.
        unsafe { field(object, references(header)).add(offset).store(value) };
    }

    #[inline(always)]
    fn raw_slice(&mut self, object: ObjectReference) -> &mut [u8] {
        let header = header(object);
        let start = field(object, references(header));
        // SAFETY: the object's raw bytes; the borrow of the thread keeps it from reaching a safepoint.
        unsafe { core::slice::from_raw_parts_mut(start.as_mut_ptr(), raw_bytes(header)) }
    }

    #[inline(always)]
    fn same(&self, a: ObjectReference, b: ObjectReference) -> bool {
        a == b
    }

    #[inline(always)]
    fn push(&mut self, value: Option<ObjectReference>) -> Root {
        let words = self.0.thread().words();
        words.push(value.map_or(0, |v| v.to_address().as_usize()));
        Root(words.len() - 1)
    }

    #[inline(always)]
    fn root(&self, root: Root) -> Option<ObjectReference> {
        // SAFETY: this thread is inside of the heap, so the collector does not use the stack, and nothing else does.
        let words = unsafe { &*self.0.thread_ref().0.get() };
        ObjectReference::from_address(Address::new(words[root.0]))
    }

    #[inline(always)]
    fn set_root(&mut self, root: Root, value: Option<ObjectReference>) {
        self.0.thread().words()[root.0] = value.map_or(0, |v| v.to_address().as_usize());
    }

    fn height(&self) -> usize {
        // SAFETY: as in `root`.
        unsafe { &*self.0.thread_ref().0.get() }.len()
    }

    #[inline(always)]
    fn truncate(&mut self, height: usize) {
        self.0.thread().words().truncate(height);
    }

    fn finish(&mut self, height: usize) {
        crate::dump::take(&mut self.0);
        self.truncate(height);
    }

    #[inline(always)]
    fn poll(&mut self) {
        self.0.poll();
    }

    fn collect(&mut self) {
        let _ = self.0.collect();
    }

    fn outside<R>(&mut self, f: impl FnOnce() -> R) -> R {
        self.0.outside(f)
    }
}
