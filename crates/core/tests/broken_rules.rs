//! Runtimes that break a rule of `Vm`: the verifier says which.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use heapwright::{
    Address, Builder, Event, Listener, Metadata, Mutator, ObjectReference, Options, PlanName,
    RootVisitor, SlotVisitor, Vm, WordSlots,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Breaks {
    Nothing,
    /// `size` says 8.
    SizeTooSmall,
    /// `size` says more than was allocated.
    SizeTooLarge,
    /// `scan` leaves the last field out when it is first called for an object in a pause.
    FieldOmitted,
    /// `scan` reports a field that refers to the middle of an object.
    NotAReference,
    /// `thread_roots` leaves the last root out when it is first called in a pause.
    RootOmitted,
    /// The runtime writes the low bits of a header.
    HeaderBits,
    /// The runtime writes a reference without the barrier.
    NoBarrier,
}

/// A runtime of arrays of references: the length is in the first word, above the heap's bits. The threads' words are the
/// roots.
struct Broken {
    breaks: Breaks,
    /// How often each object was scanned in this pause.
    scanned: Mutex<HashMap<usize, u32>>,
    rooted: AtomicU32,
}

const WORD: usize = 8;

fn word(object: ObjectReference, index: usize) -> Address {
    object.to_address().add(index * WORD)
}

// SAFETY: it breaks the rules, one at a time, in a way that cannot harm more than this heap: what it reports lies in the heap's memory.
unsafe impl Vm for Broken {
    type Thread = Vec<usize>;
    type Slots = WordSlots;
    const METADATA: Metadata = Metadata::Header;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, object: ObjectReference) -> usize {
        // SAFETY: an object begins with its length.
        let length = unsafe { word(object, 0).load::<usize>() } >> 8;
        match self.breaks {
            Breaks::SizeTooSmall => 8,
            Breaks::SizeTooLarge => 4 << 10,
            _ => (1 + length) * WORD,
        }
    }

    fn scan<S: SlotVisitor>(&self, object: ObjectReference, visit: &mut S) {
        // SAFETY: as above.
        let length = unsafe { word(object, 0).load::<usize>() } >> 8;
        let mut scanned = self.scanned.lock().unwrap();
        let times = scanned.entry(object.to_address().as_usize()).or_insert(0);
        *times += 1;
        let omit = self.breaks == Breaks::FieldOmitted && *times == 1;
        visit.slots(word(object, 1), length.saturating_sub(usize::from(omit)));
    }

    fn thread_roots<R: RootVisitor>(&self, thread: &mut Vec<usize>, visit: &mut R) {
        let first = self.rooted.fetch_add(1, Ordering::Relaxed) == 0;
        let omit = usize::from(self.breaks == Breaks::RootOmitted && first);
        visit.slots(
            Address::from_ptr(thread.as_ptr()),
            thread.len().saturating_sub(omit),
        );
    }
}

#[derive(Clone, Default)]
struct Findings(Arc<Mutex<Vec<&'static str>>>);

impl Listener for Findings {
    fn event(&self, event: Event<'_>) {
        if let Event::Violation(violation) = event {
            self.0.lock().unwrap().push(violation.what);
        }
    }
}

fn array(mutator: &mut Mutator<Broken>, length: usize) -> ObjectReference {
    let array = mutator.alloc((1 + length) * WORD).unwrap();
    // SAFETY: a new object; its low bits stay.
    unsafe { word(array, 0).store(word(array, 0).load::<usize>() | length << 8) };
    array
}

/// Three arrays in a chain, of which the first is the thread's only root; two collections, with what the runtime does wrong in
/// between. What the verifier said.
fn run(plan: PlanName, breaks: Breaks) -> Vec<&'static str> {
    let findings = Findings::default();
    let options = Options {
        plan,
        max: 16 << 20,
        workers: 1,
        verify: true,
        ..Options::default()
    };
    let vm = Broken {
        breaks,
        scanned: Mutex::default(),
        rooted: AtomicU32::new(0),
    };
    let heap = Builder::default()
        .options(options)
        .listener(Box::new(findings.clone()))
        .build(vm)
        .unwrap();
    let mut mutator = heap.attach(vec![0]).unwrap();
    let pause = |mutator: &mut Mutator<Broken>, full: bool| {
        mutator.vm().scanned.lock().unwrap().clear();
        mutator.vm().rooted.store(0, Ordering::Relaxed);
        if full {
            mutator.collect();
        } else {
            mutator.collect_young();
        }
    };
    let mut last = 0;
    for _ in 0..3 {
        let new = array(&mut mutator, 3);
        if let Some(target) = ObjectReference::from_address(Address::new(last)) {
            // SAFETY: the last field of the new array.
            unsafe { mutator.write(new, word(new, 3), target) };
        }
        last = new.to_address().as_usize();
    }
    mutator.thread()[0] = last;
    pause(&mut mutator, true);
    let root = ObjectReference::from_address(Address::new(mutator.thread()[0])).unwrap();
    match breaks {
        Breaks::NotAReference => {
            let middle = word(root, 2).as_usize();
            // SAFETY: a field of the array.
            unsafe { word(root, 1).store(middle) };
        }
        Breaks::HeaderBits => {
            for mark in 1..=2 {
                // SAFETY: the array's header.
                unsafe {
                    let old = word(root, 0).load::<usize>();
                    word(root, 0).store(old & !0xc | mark << 2);
                }
                pause(&mut mutator, true);
            }
        }
        Breaks::NoBarrier => {
            let young = array(&mut mutator, 1).to_address().as_usize();
            // SAFETY: a field of the array.
            unsafe { word(root, 1).store(young) };
        }
        _ => {}
    }
    pause(&mut mutator, breaks != Breaks::NoBarrier);
    drop(mutator);
    drop(heap);
    let found = findings.0.lock().unwrap();
    found.clone()
}

#[test]
fn each_broken_rule_is_named() {
    for (breaks, plan, rule) in [
        (Breaks::SizeTooSmall, PlanName::Immix, "rule 1"),
        (Breaks::SizeTooSmall, PlanName::MarkSweep, "rule 1"),
        (Breaks::SizeTooLarge, PlanName::MarkSweep, "rule 1"),
        (Breaks::FieldOmitted, PlanName::MarkSweep, "rules 2"),
        (Breaks::FieldOmitted, PlanName::Immix, "rules 2"),
        (Breaks::NotAReference, PlanName::MarkSweep, "rules 2"),
        (Breaks::RootOmitted, PlanName::MarkSweep, "rules 2, 3"),
        (Breaks::RootOmitted, PlanName::Immix, "rules 2, 3"),
        (Breaks::HeaderBits, PlanName::Immix, "4"),
        (Breaks::NoBarrier, PlanName::GenImmix, "and 5"),
        (Breaks::NoBarrier, PlanName::GenCopy, "and 5"),
        (Breaks::NoBarrier, PlanName::StickyMarkSweep, "5"),
    ] {
        let found = run(plan, Breaks::Nothing);
        assert_eq!(found, [""; 0], "{plan}");
        let found = run(plan, breaks);
        assert!(
            found.iter().any(|what| what.contains(rule)),
            "{breaks:?} on {plan}: {found:?}"
        );
    }
}
