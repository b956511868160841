//! The map of a heap of objects.

use super::{Heap, Inner};
use crate::event::Event;
use crate::map::HeapMap;
use crate::space::map::ObjectsMap;
use crate::vm::Vm;

impl<V: Vm> Heap<V> {
    /// Looks at the heap's blocks, without stopping anybody. Any thread; mutators that need a block wait meanwhile, and `look` must not
    /// use the heap. Lines that a mutator is filling may be missing.
    pub fn map<R>(&self, look: impl FnOnce(&dyn HeapMap) -> R) -> R {
        self.0.map(look)
    }
}

impl<V: Vm> Inner<V> {
    fn map<R>(&self, look: impl FnOnce(&dyn HeapMap) -> R) -> R {
        self.space.with(|stock| {
            look(&ObjectsMap {
                space: &self.space,
                pages: stock.cells.pages(),
            })
        })
    }

    /// Shows the map to a listener that wants it. World stopped.
    pub(super) fn tell_map(&self, number: u64, after: bool) {
        if let Some(listener) = self.listener.as_ref().filter(|l| l.wants_map()) {
            self.map(|map| listener.event(Event::Map { number, after, map }));
        }
    }
}
