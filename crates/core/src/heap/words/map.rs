//! The heap of words seen by those who are no mutators: its map, and how they ask for a collection.

use super::WordHeap;
use crate::alloc::{BLOCK_BYTES, CLASSES};
use crate::event::Event;
use crate::map::HeapMap;
use crate::plan::words as plan;
use crate::space::map::CellsMap;
use crate::space::{Entry, Pages};
use crate::vm::WordVm;
use core::sync::atomic::Ordering;

impl<V: WordVm> WordHeap<V> {
    /// Looks at the heap's blocks. Takes the heap's lock: `look` must not use the heap. Any thread. Cells that were given to a thread
    /// to hand out count as used.
    pub fn map<R>(&self, look: impl FnOnce(&dyn HeapMap) -> R) -> R {
        self.lock.with(|| {
            self.with_locked(|locked| {
                look(&CellsMap {
                    space: &self.space,
                    pages: locked.stock.pages(),
                })
            })
        })
    }

    /// Has the next mutator collect that needs a block or a large object. Any thread, at once; if nobody allocates, nothing happens.
    /// False: the plan never collects.
    pub fn ask_for_collection(&self) -> bool {
        let collects = plan::collects(self.options.plan);
        self.asked.store(collects, Ordering::Relaxed);
        collects
    }

    /// Takes the wish back, if there was one.
    pub(super) fn is_asked_for(&self) -> bool {
        self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::Relaxed)
    }

    /// Counts the allocated cells, those in threads' runs included: `visit` gets a size in bytes and how many of it there are, each size as
    /// often as there are places with it. A block of small cells takes some thirty loads, however many are in it. Heap lock held.
    pub fn count_allocated(&self, mut visit: impl FnMut(usize, usize)) {
        let (space, parity) = (&self.space, self.space.parity());
        for block in (0..space.extent()).step_by(BLOCK_BYTES) {
            let class = space.tables().entry(block).class();
            if let Some(class) = CLASSES.get(class).filter(|_| class != 0) {
                visit(class.bytes as usize, space.count(block, parity));
            }
        }
        let is_large = |entry: Entry| entry.class() == Entry::LARGE;
        space.for_each(parity, is_large, |cell| visit(cell.bytes, 1));
    }

    /// Shows the map to a listener that wants it. Heap lock held.
    pub(super) fn tell_map(&self, number: u64, after: bool, pages: &Pages) {
        if let Some(listener) = self.listener.as_ref().filter(|l| l.wants_map()) {
            let map = &CellsMap {
                space: &self.space,
                pages,
            };
            listener.event(Event::Map { number, after, map });
        }
    }
}
