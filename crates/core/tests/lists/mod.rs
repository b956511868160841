//! A runtime of arrays of words: the first word of an object is its length, the others are references or 0. A thread has its roots
//! in a vector.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use heapwright::{
    Address, AllocError, Builder, Heap, Mutator, ObjectReference, Options, PlanName, RootVisitor,
    SlotVisitor, Vm, WordSlots,
};

#[derive(Debug, Default)]
pub struct Lists;

// SAFETY: 1, 2: the first word has the length. 3: the thread's words. 4: no header bits. 5: through the barrier. 6: nothing allocates.
unsafe impl Vm for Lists {
    type Thread = Vec<usize>;
    type Slots = WordSlots;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, object: ObjectReference) -> usize {
        // SAFETY: an object begins with its length.
        let length = unsafe { object.to_address().load::<usize>() };
        (8 + length * 8).max(16)
    }

    fn scan<V: SlotVisitor>(&self, object: ObjectReference, visit: &mut V) {
        // SAFETY: as in `size`.
        let length = unsafe { object.to_address().load::<usize>() };
        visit.slots(object.to_address().add(8), length);
    }

    fn thread_roots<R: RootVisitor>(&self, thread: &mut Vec<usize>, visit: &mut R) {
        visit.slots(Address::from_ptr(thread.as_ptr()), thread.len());
    }
}

pub const COLLECTING: [PlanName; 10] = [
    PlanName::MarkSweep,
    PlanName::SemiSpace,
    PlanName::MarkCompact,
    PlanName::Immix,
    PlanName::GenCopy,
    PlanName::GenImmix,
    PlanName::StickyImmix,
    PlanName::StickyMarkSweep,
    PlanName::ConcurrentImmix,
    PlanName::PageProtect,
];

pub fn options(plan: PlanName, settings: &[(&str, &str)]) -> Options {
    let mut options = Options {
        plan,
        ..Options::default()
    };
    for (name, value) in settings {
        options.set(name, value).unwrap();
    }
    options
}

pub fn heap(plan: PlanName, settings: &[(&str, &str)]) -> Heap<Lists> {
    Builder::default()
        .options(options(plan, settings))
        .build(Lists)
        .unwrap()
}

/// An array of `length` words.
pub fn array(mutator: &mut Mutator<Lists>, length: usize) -> Result<ObjectReference, AllocError> {
    let object = mutator.alloc(8 + length * 8)?;
    // SAFETY: a new object of that length.
    unsafe { object.to_address().store(length) };
    Ok(object)
}

/// Puts a new array of `length` words in front of the list that the root with a number begins: its last word leads on.
pub fn push(mutator: &mut Mutator<Lists>, root: usize, length: usize) -> Result<(), AllocError> {
    let object = array(mutator, length)?;
    if let Some(rest) = ObjectReference::from_address(Address::new(mutator.thread()[root])) {
        // SAFETY: the last word of the new object; the rest is alive, as a root says.
        unsafe { mutator.write(object, object.to_address().add(length * 8), rest) };
    }
    mutator.thread()[root] = object.to_address().as_usize();
    Ok(())
}

/// How many arrays are in the list.
pub fn length(mutator: &mut Mutator<Lists>, root: usize) -> usize {
    let mut at = mutator.thread()[root];
    let mut count = 0;
    while at != 0 {
        count += 1;
        // SAFETY: objects that a root reaches.
        at = unsafe {
            let length = Address::new(at).load::<usize>();
            Address::new(at + length * 8).load()
        };
    }
    count
}
