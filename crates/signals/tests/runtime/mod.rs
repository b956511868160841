//! A runtime with interruptible sections: objects of references and data, and threads with a vector of roots and a section.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use heapwright::{
    Address, AllocError, Builder, Heap, Mutator, ObjectReference, Options, PlanName, RootVisitor,
    SlotVisitor, Vm, WordSlots, World,
};
use heapwright_signals::{Section, SignalWorld};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Default)]
pub struct Runtime;

/// What each mutator has.
#[derive(Debug)]
pub struct Thread {
    pub roots: Vec<usize>,
    pub section: Option<Section>,
}

/// The numbers of references and of words of data, in an object's first word.
fn counts(object: ObjectReference) -> (usize, usize) {
    // SAFETY: an object begins with them.
    let word = unsafe { object.to_address().load::<usize>() };
    (word & 0xffff, word >> 16)
}

// SAFETY: 1, 2: the first word says how many there are. 3: the thread's roots, and what it holds in a section. 4: no header bits. 5: through the
// barrier. 6: nothing allocates.
unsafe impl Vm for Runtime {
    type Thread = Thread;
    type Slots = WordSlots;
    const OBJECT_MAP: bool = true;
    const PINS: bool = true;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, object: ObjectReference) -> usize {
        let (references, data) = counts(object);
        (8 + (references + data) * 8).max(16)
    }

    fn scan<V: SlotVisitor>(&self, object: ObjectReference, visit: &mut V) {
        visit.slots(object.to_address().add(8), counts(object).0);
    }

    fn thread_roots<R: RootVisitor>(&self, thread: &mut Thread, visit: &mut R) {
        visit.slots(Address::from_ptr(thread.roots.as_ptr()), thread.roots.len());
        if let Some(section) = &thread.section {
            section.report(visit);
        }
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

pub fn heap(world: &Arc<SignalWorld>, plan: PlanName, settings: &[(&str, &str)]) -> Heap<Runtime> {
    let mut options = Options {
        plan,
        ..Options::default()
    };
    for (name, value) in settings {
        options.set(name, value).unwrap();
    }
    Builder::default()
        .options(options)
        .world(Arc::clone(world) as Arc<dyn World>)
        .build(Runtime)
        .unwrap()
}

pub fn attach(heap: &Heap<Runtime>, world: &Arc<SignalWorld>) -> (Mutator<Runtime>, Section) {
    let section = world.section();
    let thread = Thread {
        roots: vec![0; 4],
        section: Some(section.clone()),
    };
    (heap.attach(thread).unwrap(), section)
}

/// A new object, with a number in each word of its data.
pub fn object(
    mutator: &mut Mutator<Runtime>,
    references: usize,
    data: usize,
    number: usize,
) -> Result<ObjectReference, AllocError> {
    let object = mutator.alloc(8 + (references + data) * 8)?;
    let at = object.to_address();
    // SAFETY: a new object of that size.
    unsafe {
        at.store(references | data << 16);
        for word in 0..data {
            at.add(8 * (1 + references + word)).store(number ^ word);
        }
    }
    Ok(object)
}

pub fn is_whole(object: ObjectReference, number: usize) -> bool {
    let (references, data) = counts(object);
    data != 0
        && (0..data).all(|word| {
            let at = object.to_address().add(8 * (1 + references + word));
            // SAFETY: a word of an object.
            unsafe { at.as_ptr::<usize>().read_volatile() == number ^ word }
        })
}

/// The first reference of an object.
pub fn first(object: ObjectReference) -> Option<ObjectReference> {
    // SAFETY: a reference of an object that has one.
    let word = unsafe { object.to_address().add(8).as_ptr::<usize>().read_volatile() };
    ObjectReference::from_address(Address::new(word))
}

/// An object that leads to another. Nothing but what is returned holds them.
pub fn pair(mutator: &mut Mutator<Runtime>, number: usize) -> ObjectReference {
    let child = object(mutator, 0, 7, number).unwrap();
    mutator.thread().roots[3] = child.to_address().as_usize();
    let parent = object(mutator, 1, 5, number + 1000).unwrap();
    let child = ObjectReference::from_address(Address::new(mutator.thread().roots[3])).unwrap();
    // SAFETY: its reference; the child is alive.
    unsafe { mutator.write(parent, parent.to_address().add(8), child) };
    mutator.thread().roots[3] = 0;
    parent
}

pub fn is_whole_pair(parent: ObjectReference, number: usize) -> bool {
    is_whole(parent, number + 1000) && first(parent).is_some_and(|child| is_whole(child, number))
}

/// Fills memory that is free with other objects.
pub fn litter(mutator: &mut Mutator<Runtime>, count: usize) {
    for n in 0..count {
        object(mutator, n % 3, 5 + n % 4, !n).unwrap();
    }
}

/// Raises a flag when the value ends, also in a panic, so that threads do not wait for ever.
pub struct Raise<'a>(pub &'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A test that stands still is killed.
pub fn limit(seconds: u32) {
    // SAFETY: sets a timer of the process, whose signal ends it.
    unsafe { libc::alarm(seconds) };
}

/// Tests of one file run one after the other: a fork must not come while the harness starts a thread, and signals are the process's.
pub fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let alone = ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    limit(200);
    alone
}
