//! A small runtime that the examples of this documentation use, and that a runtime of one's own can begin as.
//!
//! Its objects are *pairs* of a reference and a number, and *holders*, whose two slots do not keep what they refer to. A thread has a
//! stack of roots. The toy of the book ("Bind a VM") is explained line by line; this is less.
//!
//! ```
//! use heapwright::example::{Pairs, link, next, number, push, root};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let heap = Pairs::heap("semispace")?;
//! let mut mutator = heap.attach(Vec::new())?;
//! push(&mut mutator, 1)?;
//! push(&mut mutator, 2)?;
//! link(&mut mutator, 0, 1);
//! let before = root(&mutator, 0);
//! mutator.collect();
//! // It has moved, and the thread's root says where it is.
//! let after = root(&mutator, 0);
//! assert_ne!(before, after);
//! assert_eq!(number(after), 1);
//! assert_eq!(next(after).map(number), Some(2));
//! # Ok(())
//! # }
//! ```

use crate::error::AllocError;
use crate::heap::{Heap, Mutator};
use crate::options::Options;
use crate::vm::{HashBits, RootVisitor, SlotVisitor, TypeId, Vm, WordSlots};
use core::sync::atomic::{AtomicUsize, Ordering};
use heapwright_address::{Address, ObjectReference};

/// Where an object has its bits for identity hashes; bit 8 says that it is a holder.
const HASH: HashBits = HashBits::IN_COLLECTORS_BYTE;
const HOLDER: usize = 1 << 8;

/// Where the two slots of an object are, in bytes, and its number.
pub const SLOTS: [u32; 2] = [8, 16];
const NUMBER: usize = 24;
/// Bytes of an object.
pub const BYTES: usize = 32;

/// The runtime. It has nothing that threads share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pairs;

impl Pairs {
    /// A heap of 16 MiB at most, on a plan.
    ///
    /// # Errors
    /// If there is no such plan, or the system refuses.
    pub fn heap(plan: &str) -> Result<Heap<Self>, Box<dyn std::error::Error>> {
        Ok(Heap::<Self>::builder()
            .options(Self::options(plan)?)
            .build(Self)?)
    }

    /// The options of such a heap.
    ///
    /// # Errors
    /// If there is no such plan.
    pub fn options(plan: &str) -> Result<Options, Box<dyn std::error::Error>> {
        let mut options = Options::default();
        options.set("plan", plan)?;
        options.set("max", "16m")?;
        Ok(options)
    }
}

fn word(object: ObjectReference, offset: usize) -> &'static AtomicUsize {
    // SAFETY: a word of an object that is alive, aligned; who writes words of objects does so by atomics here.
    unsafe { &*object.to_address().add(offset).as_ptr::<AtomicUsize>() }
}

// SAFETY: 1: all objects are of 32 bytes, and a word more when they were hashed and moved. 2: of a pair the first slot, of a holder
// none. 3: references are in the threads' stacks only. 5: slots are written by `link`, and by the heap. 6: nothing allocates. 7: the first word
// is written when the object is new.
unsafe impl Vm for Pairs {
    type Thread = Vec<usize>;
    type Slots = WordSlots;
    const OBJECT_MAP: bool = true;
    const PINS: bool = true;
    const HASH: Option<HashBits> = Some(HASH);

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, object: ObjectReference) -> usize {
        HASH.size(word(object, 0).load(Ordering::Relaxed), BYTES)
    }

    fn scan<S: SlotVisitor>(&self, object: ObjectReference, visit: &mut S) {
        if word(object, 0).load(Ordering::Relaxed) & HOLDER == 0 {
            visit.slot(object.to_address().add(SLOTS[0] as usize));
        }
    }

    fn thread_roots<R: RootVisitor>(&self, stack: &mut Vec<usize>, visit: &mut R) {
        visit.slots(Address::from_ptr(stack.as_ptr()), stack.len());
    }

    fn type_of(&self, object: ObjectReference) -> TypeId {
        TypeId(u32::from(
            word(object, 0).load(Ordering::Relaxed) & HOLDER != 0,
        ))
    }

    fn type_name(&self, id: TypeId) -> String {
        ["pair", "holder"][id.0 as usize % 2].to_owned()
    }
}

fn new(mutator: &mut Mutator<Pairs>, first: usize, count: usize) -> Result<usize, AllocError> {
    let object = mutator.alloc(BYTES)?;
    word(object, 0).fetch_or(first, Ordering::Relaxed);
    word(object, NUMBER).store(count, Ordering::Relaxed);
    mutator.thread().push(object.to_address().as_usize());
    Ok(mutator.thread().len() - 1)
}

/// Makes a pair with a number and no reference, and pushes it onto the thread's stack: its place there. A safepoint.
///
/// # Errors
/// If the heap is full.
pub fn push(mutator: &mut Mutator<Pairs>, number: usize) -> Result<usize, AllocError> {
    new(mutator, 0, number)
}

/// Makes a holder, whose two [`SLOTS`] are empty and are not scanned, and pushes it: its place. A safepoint.
///
/// # Errors
/// If the heap is full.
pub fn push_holder(mutator: &mut Mutator<Pairs>) -> Result<usize, AllocError> {
    new(mutator, HOLDER, 0)
}

/// The object at a place of the thread's stack.
///
/// # Panics
/// If there is none.
#[must_use]
#[allow(clippy::expect_used, reason = "as said")]
pub fn root(mutator: &Mutator<Pairs>, place: usize) -> ObjectReference {
    let word = mutator.thread_ref()[place];
    ObjectReference::from_address(Address::new(word)).expect("only objects are pushed")
}

/// Has the pair at one place refer to the object at another. Not a safepoint.
pub fn link(mutator: &mut Mutator<Pairs>, from: usize, to: usize) {
    let (from, to) = (root(mutator, from), root(mutator, to));
    let slot = from.to_address().add(SLOTS[0] as usize);
    // SAFETY: a field of an object, and an object, both of which are roots; no safepoint between.
    unsafe { mutator.write(from, slot, to) };
}

/// What a pair refers to.
#[must_use]
pub fn next(pair: ObjectReference) -> Option<ObjectReference> {
    let word = word(pair, SLOTS[0] as usize).load(Ordering::Relaxed);
    ObjectReference::from_address(Address::new(word))
}

/// A pair's number.
#[must_use]
pub fn number(pair: ObjectReference) -> usize {
    word(pair, NUMBER).load(Ordering::Relaxed)
}
