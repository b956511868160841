//! The verifier: after a collection's marking, looks at the whole heap again, by itself, and compares.
//!
//! It checks, world stopped and before the marks become the object map:
//! 1. closure: each reference of a marked cell leads to a marked cell (WordVm rule 2, and the tracing loop);
//! 2. every mark is on the start of an allocated cell;
//! 3. pages of blocks in use are not free, and pages of free blocks are;
//! 4. the cells of kinds that are never collected are marked;
//! 5. every page of a large object leads to its first page;
//! 6. with the option `poison`: nobody wrote to free memory.
//!
//! It uses its own walk and its own lookup of cells (a division instead of the reciprocal), not the tracing loop's.

use crate::alloc::{BLOCK_BYTES, CLASSES};
use crate::event::Violation;
use crate::space::pages::PAGE;
use crate::space::tables::{Entry, LargePage};
use crate::space::{MarkSweep, Stock};
use crate::vm::words::{ByWord, EachWord};
use crate::vm::{Cell, WordVm};
use heapwright_address::Address;

/// Checks the heap and reports what is wrong; gives the number of findings.
pub fn check<V: WordVm>(
    vm: &V,
    space: &MarkSweep,
    stock: &Stock,
    report: &mut dyn FnMut(Violation),
) -> usize {
    let mut found = 0;
    let mut note = |violation| {
        found += 1;
        report(violation);
    };
    check_pages(space, stock, &mut note);
    let marks = space.parity() ^ 1;
    let base = space.tables().base();
    space.for_each(
        marks,
        |_| true,
        |cell| {
            let offset = cell.start.as_usize() - base;
            if !space.tables().bit(offset, space.parity()) {
                note(Violation {
                    what: "a cell is marked that is not allocated",
                    cell: cell.start,
                    word: 0,
                });
            }
            if space.kind(cell.kind.0).leaf {
                return;
            }
            let checker = Checker {
                space,
                cell,
                note: &mut note,
            };
            vm.scan(cell, &mut ByWord(checker));
        },
    );
    space.for_each(
        space.parity(),
        |entry| !space.kind(entry.kind()).collectable,
        |cell| {
            if !space.tables().bit(cell.start.as_usize() - base, marks) {
                note(Violation {
                    what: "a cell of an uncollectable kind is not marked",
                    cell: cell.start,
                    word: 0,
                });
            }
        },
    );
    check_mark_positions(space, &mut note);
    space.check_poison(&mut note);
    stock.pages().check_poison(&mut note);
    if let Some(poison) = space.poison() {
        found += poison.report(report);
    }
    found
}

/// Marks and object bits stand only at starts of cells.
fn check_mark_positions(space: &MarkSweep, note: &mut dyn FnMut(Violation)) {
    let tables = space.tables();
    let mut offset = 0;
    while offset < space.extent() {
        for parity in 0..2 {
            let mut word = tables
                .word(offset, parity)
                .load(core::sync::atomic::Ordering::Relaxed);
            while word != 0 {
                let at = offset + word.trailing_zeros() as usize * 16;
                word &= word - 1;
                if locate(space, at).is_none_or(|(start, _)| start != at) {
                    let cell = Address::new(tables.base() + at);
                    note(Violation {
                        what: "a bit is set where no cell starts",
                        cell,
                        word: parity,
                    });
                }
            }
        }
        offset += crate::space::tables::PAIR;
    }
}

fn check_pages(space: &MarkSweep, stock: &Stock, note: &mut dyn FnMut(Violation)) {
    let tables = space.tables();
    let mut block = 0;
    while block < space.extent() {
        let entry = tables.entry(block);
        for page in (block..block + BLOCK_BYTES).step_by(PAGE) {
            let address = Address::new(tables.base() + page);
            let used = match entry.class() {
                0 => false,
                Entry::LARGE => tables.large_page(page) != LargePage::Free,
                _ => true,
            };
            if used == stock.pages().is_free(address) {
                note(Violation {
                    what: "a page's block and the page allocator disagree",
                    cell: address,
                    word: used.into(),
                });
            }
            if let (Entry::LARGE, LargePage::Back(pages)) = (entry.class(), tables.large_page(page))
            {
                let first = tables.large_page(page - pages * PAGE);
                if !matches!(first, LargePage::First { pages: n, .. } if n > pages) {
                    note(Violation {
                        what: "a page of a large object does not lead to its first page",
                        cell: address,
                        word: pages,
                    });
                }
            }
        }
        block += BLOCK_BYTES;
    }
}

/// The verifier's own lookup: start and size of the cell around an offset below the extent.
fn locate(space: &MarkSweep, offset: usize) -> Option<(usize, usize)> {
    let tables = space.tables();
    let class = tables.entry(offset).class();
    if class == Entry::LARGE {
        let page = offset / PAGE * PAGE;
        let start = match tables.large_page(page) {
            LargePage::Free | LargePage::Dead => return None,
            LargePage::First { .. } => page,
            LargePage::Back(pages) => page - pages * PAGE,
        };
        let LargePage::First {
            pages,
            first_page_only,
            ..
        } = tables.large_page(start)
        else {
            return None;
        };
        return (!first_page_only || start == page).then_some((start, pages * PAGE));
    }
    let bytes = CLASSES.get(class)?.bytes as usize;
    if bytes == 0 {
        return None;
    }
    let block = offset / BLOCK_BYTES * BLOCK_BYTES;
    let index = (offset - block) / bytes;
    (index < BLOCK_BYTES / bytes).then_some((block + index * bytes, bytes))
}

struct Checker<'a> {
    space: &'a MarkSweep,
    cell: Cell,
    note: &'a mut dyn FnMut(Violation),
}

impl EachWord for Checker<'_> {
    fn word(&mut self, word: usize, any: bool) {
        let offset = word.wrapping_sub(self.space.tables().base());
        if offset >= self.space.extent() {
            return;
        }
        let Some((start, _)) = locate(self.space, offset) else {
            return;
        };
        if !any && offset != start && !self.space.is_displacement(offset - start) {
            return;
        }
        let tables = self.space.tables();
        if tables.bit(start, self.space.parity()) && !tables.bit(start, self.space.parity() ^ 1) {
            (self.note)(Violation {
                what: "a marked cell refers to an allocated cell that is not marked (WordVm rule 2)",
                cell: self.cell.start,
                word,
            });
        }
    }

    fn all_interior(&self) -> bool {
        self.space.all_interior()
    }

    fn is_marked(&self, start: Address) -> bool {
        let offset = start.as_usize().wrapping_sub(self.space.tables().base());
        offset < self.space.extent() && self.space.tables().bit(offset, self.space.parity() ^ 1)
    }
}
