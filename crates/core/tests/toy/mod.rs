//! The smallest runtime: one mutator, objects whose every word may be a reference, roots in a vector.

#![allow(dead_code, clippy::unwrap_used)]

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use heapwright::{
    Address, AllocError, Cell, Closure, Event, Kind, KindTraits, Listener, LocalRuns, Options,
    WildWord, WordHeap, WordVisitor, WordVm,
};
use std::sync::{Arc, Mutex};

/// Never scanned.
pub(crate) const LEAF: Kind = Kind(0);
/// Scanned and collected.
pub(crate) const NODE: Kind = Kind(1);
/// A root until it is freed.
pub(crate) const KEPT: Kind = Kind(2);
/// As a node, scanned by the collector itself.
pub(crate) const WORDS: Kind = Kind(3);

/// The runtime.
#[derive(Default)]
pub(crate) struct Toy {
    pub roots: Mutex<Vec<usize>>,
    pub runs: Box<LocalRuns>,
    /// Words that are cleared when what they refer to is unreachable.
    pub weak: Mutex<Vec<usize>>,
    /// Set by tests that want the verifier to find something: nodes report nothing until the closure is complete.
    pub skip_scan: AtomicBool,
    pub hide: AtomicBool,
    pub stopped: AtomicUsize,
}

// SAFETY: the rules hold by construction: one mutator, which is the collecting thread; every word of a node is reported
// (unless a test breaks rule 2 on purpose); all roots are in the vector; the runs are in a box.
unsafe impl WordVm for Toy {
    fn scan<T: WordVisitor>(&self, cell: Cell, visit: &mut T) {
        if !self.hide.load(Relaxed) {
            // SAFETY: a cell is readable.
            unsafe { visit.field_range(cell.start, cell.start.add(cell.bytes)) };
        }
    }

    fn roots<T: WordVisitor>(&self, visit: &mut T) {
        self.hide.store(self.skip_scan.load(Relaxed), Relaxed);
        self.roots
            .lock()
            .unwrap()
            .iter()
            .for_each(|w| visit.root_word(WildWord::new(*w)));
    }

    fn weak<C: Closure>(&self, closure: &mut C) {
        self.hide.store(false, Relaxed);
        for word in self.weak.lock().unwrap().iter_mut() {
            if *word != 0 && !closure.is_marked(Address::new(*word)) {
                *word = 0;
            }
        }
    }

    fn stop_world(&self) {
        assert_eq!(self.stopped.swap(1, Relaxed), 0);
    }

    fn start_world(&self) {
        assert_eq!(self.stopped.swap(0, Relaxed), 1);
    }

    fn local_runs(&self, visit: &mut dyn FnMut(&LocalRuns)) {
        visit(&self.runs);
    }
}

/// The kinds of the toy.
pub(crate) const KINDS: [KindTraits; 4] = [
    KindTraits {
        leaf: true,
        zeroed: false,
        collectable: true,
        conservative: false,
    },
    KindTraits {
        leaf: false,
        zeroed: true,
        collectable: true,
        conservative: false,
    },
    KindTraits {
        leaf: false,
        zeroed: true,
        collectable: false,
        conservative: true,
    },
    KindTraits {
        leaf: false,
        zeroed: true,
        collectable: true,
        conservative: true,
    },
];

/// A heap with the options changed by name.
pub(crate) fn heap(options: &[(&str, &str)]) -> WordHeap<Toy> {
    let mut o = Options::default();
    for (name, value) in options {
        o.set(name, value).unwrap();
    }
    WordHeap::<Toy>::builder()
        .options(o)
        .kinds(&KINDS)
        .build(Toy::default())
        .unwrap()
}

/// Allocation by the heap's own mutator.
pub(crate) fn alloc(heap: &WordHeap<Toy>, kind: Kind, bytes: usize) -> Result<usize, AllocError> {
    heap.alloc(&heap.vm().runs, kind, bytes)
        .map(Address::as_usize)
}

/// Adds a root.
pub(crate) fn root(heap: &WordHeap<Toy>, word: usize) {
    heap.vm().roots.lock().unwrap().push(word);
}

/// Reads a word of an object.
pub(crate) fn get(object: usize, index: usize) -> usize {
    // SAFETY: tests read only words of their own live objects.
    unsafe { Address::new(object + index * 8).load() }
}

/// Writes a word of an object.
pub(crate) fn set(object: usize, index: usize, word: usize) {
    // SAFETY: tests write only words of their own live objects.
    unsafe { Address::new(object + index * 8).store(word) };
}

/// Counts what the verifier finds.
#[derive(Clone, Default)]
pub(crate) struct Findings(pub Arc<Mutex<Vec<&'static str>>>);

impl Listener for Findings {
    fn event(&self, event: Event<'_>) {
        if let Event::Violation(v) = event {
            self.0.lock().unwrap().push(v.what);
        }
    }
}
