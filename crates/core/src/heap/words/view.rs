//! A look at a whole heap of words: its cells, what they refer to, and what keeps them, with the world stopped.
//!
//! It has its own walk and its own rule for words, as the verifier has; it marks nothing. No memory is taken: it may be used where
//! `malloc` may not be called.

use super::{WordHeap, central_class};
use crate::alloc::CLASSES;
use crate::bugs::{Bug, is_on};
use crate::space::MarkSweep;
use crate::vm::words::{ByWord, EachWord};
use crate::vm::{Cell, Kind, KindTraits, WordVm};
use heapwright_address::{Address, WildWord};

/// What keeps a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WordRoot {
    /// A word that the runtime reports: of a stack, a register, static data, or one of its tables.
    Runtime,
    /// It is of a kind that is not collected, and lives until it is freed.
    Uncollectable,
}

/// A heap whose world is stopped. See [`WordHeap::view`].
#[derive(Debug)]
pub struct WordView<'h, V: WordVm> {
    heap: &'h WordHeap<V>,
}

impl<V: WordVm> WordHeap<V> {
    /// What is needed to look at all cells.
    ///
    /// # Safety
    /// The caller holds the heap's lock and has stopped the world as for [`WordVm::stop_world`], and both are so until the last use of
    /// the result; or the calling thread is the only one of its process, which was forked in this state.
    #[must_use]
    pub unsafe fn view(&self) -> WordView<'_, V> {
        WordView { heap: self }
    }
}

impl<V: WordVm> WordView<'_, V> {
    /// Where cells are: the first address and how many bytes. Both are multiples of 32 KiB.
    #[must_use]
    pub fn range(&self) -> (Address, usize) {
        let space = &self.heap.space;
        (Address::new(space.tables().base()), space.extent())
    }

    /// What there is to know of a kind.
    #[must_use]
    pub fn kind(&self, kind: Kind) -> KindTraits {
        self.heap.space.kind(kind.0)
    }

    /// The cell that starts at an address, allocated or free.
    #[must_use]
    pub fn cell(&self, start: Address) -> Option<Cell> {
        let cell = self.heap.cell(WildWord::new(start.as_usize()))?;
        (cell.start == start).then_some(cell)
    }

    /// Visits the starts of cells that are set aside for threads and that no program was given yet: they look like allocated ones.
    pub fn for_each_set_aside(&self, visit: &mut dyn FnMut(Address)) {
        if is_on(Bug::ViewRunsForgotten) {
            return;
        }
        let mut cells = |class: usize, (cursor, limit): (usize, usize)| {
            (cursor..limit)
                .step_by(CLASSES[class].bytes.max(16) as usize)
                .for_each(|cell| visit(Address::new(cell)));
        };
        self.heap
            .vm
            .local_runs(&mut |runs| runs.each(|_, class, run| cells(class, run.cells())));
        for (index, run) in self.heap.central.iter().enumerate() {
            if run.end() != 0 {
                cells(central_class(index), run.cells());
            }
        }
    }

    /// Visits the cells that are kept from outside of the heap. A cell may be visited several times.
    pub fn roots(&self, visit: &mut dyn FnMut(WordRoot, Cell)) {
        let space = &self.heap.space;
        self.heap.vm.roots(&mut ByWord(Finder(space, &mut |cell| {
            visit(WordRoot::Runtime, cell)
        })));
        let wanted = |entry: crate::space::Entry| {
            !space.kind(entry.kind()).collectable && !is_on(Bug::ViewUncollectableForgotten)
        };
        space.for_each(space.parity(), wanted, |cell| {
            visit(WordRoot::Uncollectable, cell);
        });
    }

    /// Visits the cells that a cell refers to.
    pub fn references(&self, cell: Cell, visit: &mut dyn FnMut(Cell)) {
        let space = &self.heap.space;
        if !space.kind(cell.kind.0).leaf {
            self.heap.vm.scan(cell, &mut ByWord(Finder(space, visit)));
        }
    }
}

/// Finds the allocated cells that words lead to.
struct Finder<'f>(&'f MarkSweep, &'f mut dyn FnMut(Cell));

impl EachWord for Finder<'_> {
    fn word(&mut self, word: usize, any: bool) {
        let Some(cell) = self.0.cell(word) else {
            return;
        };
        let start = cell.start.as_usize();
        let counts = any || word == start || self.0.is_displacement(word - start);
        if counts && self.0.is_allocated(start) {
            (self.1)(cell);
        }
    }

    fn all_interior(&self) -> bool {
        self.0.all_interior()
    }

    fn is_marked(&self, start: Address) -> bool {
        self.0.is_allocated(start.as_usize())
    }
}
