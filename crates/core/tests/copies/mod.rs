//! A runtime that looks at its heap at the end of each trace, when all was copied and nothing is free yet.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use crate::lists::{Lists, options};
use heapwright::{
    AllocError, Builder, Event, Heap, Listener, Mutator, ObjectReference, PlanName, RootVisitor,
    SlotVisitor, Vm, WeakVisitor, WordSlots,
};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

pub const MOVING: [PlanName; 7] = [
    PlanName::SemiSpace,
    PlanName::GenCopy,
    PlanName::GenImmix,
    PlanName::Immix,
    PlanName::StickyImmix,
    PlanName::ConcurrentImmix,
    PlanName::MarkCompact,
];

/// What it saw.
#[derive(Default)]
struct Seen {
    heap: OnceLock<Heap<Watched>>,
    /// The most that was in use, in bytes.
    peak: AtomicUsize,
    violations: AtomicUsize,
    /// What was copied, in bytes.
    copied: AtomicUsize,
}

/// [`Lists`] with a look at the heap in each collection.
#[derive(Clone, Default)]
struct Watched(Arc<Seen>);

impl Listener for Watched {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Violation(_) => {
                self.0.violations.fetch_add(1, Ordering::Relaxed);
            }
            Event::Collected(stats) => {
                self.0
                    .copied
                    .fetch_add(stats.copied_bytes, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

// SAFETY: as `Lists`; looking at the heap takes its lock, which no collection holds while it calls the runtime.
unsafe impl Vm for Watched {
    type Thread = Vec<usize>;
    type Slots = WordSlots;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, object: ObjectReference) -> usize {
        Lists.size(object)
    }

    fn scan<S: SlotVisitor>(&self, object: ObjectReference, visit: &mut S) {
        Lists.scan(object, visit);
    }

    fn thread_roots<R: RootVisitor>(&self, thread: &mut Vec<usize>, visit: &mut R) {
        Lists.thread_roots(thread, visit);
    }

    fn weak<W: WeakVisitor>(&self, _: &mut W) {
        let used = self.0.heap.get().unwrap().usage().used_bytes;
        self.0.peak.fetch_max(used, Ordering::Relaxed);
    }
}

/// A new array of `length` words, which root 0 of the mutator's leads to in its last word.
fn push(mutator: &mut Mutator<Watched>, root: usize, length: usize) -> Result<(), AllocError> {
    let object = mutator.alloc(8 + length * 8)?;
    // SAFETY: a new object of that length; the write goes to its last field, and what the root holds is alive.
    unsafe {
        object.to_address().store(length);
        let rest = heapwright::Address::new(mutator.thread()[root]);
        if let Some(rest) = ObjectReference::from_address(rest) {
            mutator.write(object, object.to_address().add(length * 8), rest);
        }
    }
    mutator.thread()[root] = object.to_address().as_usize();
    Ok(())
}

fn count(mutator: &mut Mutator<Watched>, root: usize) -> usize {
    let (mut at, mut count) = (mutator.thread()[root], 0);
    while at != 0 {
        count += 1;
        // SAFETY: objects that a root reaches.
        at = unsafe {
            let length = heapwright::Address::new(at).load::<usize>();
            heapwright::Address::new(at + length * 8).load()
        };
    }
    count
}

/// Fills a heap with lists until it is full, lets one of them go, and so on: nearly all lives in each collection, and workers have
/// many lists to share. The most that was in use, and what was copied, in bytes.
pub fn peak(plan: PlanName, workers: &str, max: usize, rounds: usize) -> (usize, usize) {
    const LISTS: usize = 64;
    let vm = Watched::default();
    let max_text = max.to_string();
    let settings = [
        ("max", max_text.as_str()),
        ("workers", workers),
        ("evacuate", "all"),
        ("yields", "1000"),
        ("verify", "1"),
        ("huge", "off"),
    ];
    let heap = Builder::default()
        .options(options(plan, &settings))
        .listener(Box::new(vm.clone()))
        .build(vm.clone())
        .unwrap();
    assert!(vm.0.heap.set(heap.clone()).is_ok());
    let mut mutator = heap.attach(vec![0; LISTS]).unwrap();
    let mut lengths = [0; LISTS];
    let mut next = 0;
    for round in 0..rounds {
        loop {
            next = (next + 1) % LISTS;
            if push(&mut mutator, next, 5 + next % 60).is_err() {
                break;
            }
            lengths[next] += 1;
        }
        for gone in 0..LISTS / 4 {
            let gone = (gone * 7 + round) % LISTS;
            mutator.thread()[gone] = 0;
            lengths[gone] = 0;
        }
        for (root, length) in lengths.iter().enumerate() {
            assert_eq!(count(&mut mutator, root), *length, "{plan}, list {root}");
        }
    }
    let seen = &vm.0;
    assert_eq!(seen.violations.load(Ordering::Relaxed), 0, "{plan}");
    let result = (
        seen.peak.load(Ordering::Relaxed),
        seen.copied.load(Ordering::Relaxed),
    );
    drop(mutator);
    result
}
