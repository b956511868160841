//! The dump of a heap of words.

use super::{Node, RootKind, Source};
use heapwright::{Address, Cell, Kind, WordRoot, WordView, WordVm};

/// Says what a kind is called.
pub type KindName = fn(Kind, &mut dyn FnMut(&str));

/// A [`heapwright::WordHeap`] whose world is stopped: [`heapwright::WordHeap::view`]. Types are the kinds of cells, and sizes those of cells.
/// What it refers to is found as the collector finds it: of cells that are scanned conservatively, each word that leads to a cell.
#[derive(Debug)]
pub struct Cells<'h, V: WordVm> {
    view: WordView<'h, V>,
    kind_name: KindName,
}

impl<'h, V: WordVm> Cells<'h, V> {
    /// To dump it, with what kinds are called.
    #[must_use]
    pub fn new(view: WordView<'h, V>, kind_name: KindName) -> Self {
        Self { view, kind_name }
    }

    fn cell(&self, object: usize) -> Option<Cell> {
        self.view.cell(Address::new(object))
    }
}

impl<V: WordVm> Source for Cells<'_, V> {
    fn range(&self) -> (usize, usize) {
        let (base, bytes) = self.view.range();
        (base.as_usize(), bytes)
    }

    fn roots(&mut self, visit: &mut dyn FnMut(RootKind, usize)) {
        self.view.roots(&mut |root, cell| {
            let kind = match root {
                WordRoot::Runtime => RootKind::Thread,
                WordRoot::Uncollectable => RootKind::Permanent,
            };
            visit(kind, cell.start.as_usize());
        });
    }

    fn all(&mut self, _: &mut dyn FnMut(usize)) -> bool {
        false
    }

    fn set_aside(&mut self, visit: &mut dyn FnMut(usize)) {
        self.view
            .for_each_set_aside(&mut |start| visit(start.as_usize()));
    }

    fn node(&self, object: usize) -> Node {
        let Some(cell) = self.cell(object) else {
            return Node {
                type_id: 0,
                bytes: 0,
                references: 0,
            };
        };
        let mut references = 0;
        self.view.references(cell, &mut |_| references += 1);
        Node {
            type_id: cell.kind.0.into(),
            bytes: cell.bytes,
            references,
        }
    }

    fn references(&self, object: usize, visit: &mut dyn FnMut(usize)) {
        if let Some(cell) = self.cell(object) {
            self.view
                .references(cell, &mut |target| visit(target.start.as_usize()));
        }
    }

    fn type_name(&self, type_id: u32, put: &mut dyn FnMut(&str)) {
        (self.kind_name)(Kind(type_id as u8), put);
    }
}
