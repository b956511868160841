//! The heap of words seen by those who are no mutators: its map, and how they ask for a collection.

use super::WordHeap;
use crate::event::Event;
use crate::map::HeapMap;
use crate::plan::words as plan;
use crate::space::Pages;
use crate::space::map::CellsMap;
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
