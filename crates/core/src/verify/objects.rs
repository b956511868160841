//! The check of a heap of objects, after a collection, world stopped. It walks the object graph from the roots with a set of
//! its own, and holds each object that it finds against the tables:
//!
//! 1. a reference leads into a block that is in use, not into one that was to be emptied;
//! 2. it leads to the start of an object, where the heap knows the starts (size classes, large objects, object map);
//! 3. the object is marked, where marks survive a collection;
//! 4. it lies in one block, or has pages of its own, and all its lines are marked, where there are lines;
//! 5. writes to it will be seen, in plans with generations;
//! 6. and after a full trace with the world stopped, nothing else is an object;
//! 7. with the option `poison`: no reference leads to what was freed, and, before the next trace, nobody wrote to free memory.

use crate::alloc::{BLOCK_BYTES, CLASSES};
use crate::event::Violation;
use crate::space::objects::{Header, ObjectSpace, ObjectStock, is_unlogged};
use crate::space::poison;
use crate::space::tables::{Entry, Policy};
use crate::vm::{RootVisitor, SlotFormat, SlotVisitor, Vm};
use heapwright_address::{Address, ObjectReference, WildWord};
use std::collections::HashSet;

/// How many findings are reported one by one; the others are counted.
const MOST_REPORTED: usize = 100;

const NOT_MARKED: &str = "a reachable object is not marked: a way to it was not reported when the heap was traced (Vm rules 2 and 3), or the \
     low bits of a header were written (Vm rule 4)";

/// Looks, before a trace, for free memory that was written to, with the option `poison`: how many places there are. World stopped,
/// when nobody has a region or a run.
pub fn check_free(space: &ObjectSpace, report: &mut dyn FnMut(Violation)) -> usize {
    let Some(poison) = space.cells().poison() else {
        return 0;
    };
    let mut found = poison.report(report);
    space.with(|stock: &mut ObjectStock| {
        stock.check_poison(space, &mut |wrong| {
            found += 1;
            if found <= MOST_REPORTED {
                report(wrong);
            }
        });
    });
    found
}

/// A check under way. Roots are reported to it.
#[allow(missing_debug_implementations, reason = "holds the runtime")]
pub struct Check<'a, V: Vm> {
    vm: &'a V,
    space: &'a ObjectSpace,
    header: Header<'a, V>,
    generations: bool,
    seen: HashSet<usize>,
    to_scan: Vec<usize>,
    found: usize,
    report: &'a mut dyn FnMut(Violation),
}

impl<'a, V: Vm> Check<'a, V> {
    /// A check of a heap whose plan has generations or not.
    #[must_use]
    pub fn new(
        vm: &'a V,
        space: &'a ObjectSpace,
        generations: bool,
        report: &'a mut dyn FnMut(Violation),
    ) -> Self {
        Self {
            vm,
            space,
            header: Header::new(space),
            generations,
            seen: HashSet::new(),
            to_scan: Vec::new(),
            found: 0,
            report,
        }
    }

    fn violation(&mut self, what: &'static str, object: usize, word: usize) {
        self.found += 1;
        if self.found <= MOST_REPORTED {
            (self.report)(Violation {
                what,
                cell: Address::new(object),
                word,
            });
        }
    }

    /// Checks an object that `from` refers to.
    pub(crate) fn reach(&mut self, from: usize, target: usize) {
        let offset = target.wrapping_sub(self.space.tables().base());
        if target == poison::PATTERN && self.space.cells().poison().is_some() {
            self.violation(
                "a field of a reachable object holds the pattern of free memory: its object, or a part of it, was freed (option poison)",
                from,
                target,
            );
            return;
        }
        if target == 0 || offset >= self.space.range() || !self.seen.insert(target) {
            return;
        }
        if !target.is_multiple_of(8) || !self.space.in_use(target) {
            self.violation(
                "a reference leads into free memory: its object was freed though it is reachable, or the slot is no reference \
                 (Vm rules 2, 3, 4 and 5)",
                from,
                target,
            );
            return;
        }
        let entry = self.space.entry_of(target);
        if entry.moves() {
            self.violation(
                "a reference leads to where an object was before it moved (Vm rules 2, 3 and 5)",
                from,
                target,
            );
            return;
        }
        if (!entry.is_bump() || self.space.has_object_map()) && !self.space.is_object(target) {
            self.violation(
                "a reference does not lead to the start of an object that is allocated (Vm rules 2, 3 and 5)",
                from,
                target,
            );
            return;
        }
        // SAFETY: an aligned word of a block that is in use.
        let first = unsafe { Address::new(target).load::<usize>() };
        if poison::is_dead(first) && self.space.cells().poison().is_some() {
            self.violation(
                "a reference leads to memory that holds the pattern of free memory: its object was freed though it is reachable \
                 (option poison)",
                from,
                target,
            );
            return;
        }
        self.check_object(target, offset, entry);
        self.to_scan.push(target);
    }

    fn check_object(&mut self, target: usize, offset: usize, entry: Entry) {
        // SAFETY: not zero: it lies in a block of the heap.
        let object = unsafe { ObjectReference::from_address_unchecked(Address::new(target)) };
        let bytes = self.vm.size(object);
        if bytes < 16 {
            self.violation(
                "an object is smaller than 16 bytes (Vm rule 1), or what leads to it is no reference (Vm rules 2, 3 and 5)",
                target,
                bytes,
            );
            return;
        }
        if entry.is_bump() {
            if offset % BLOCK_BYTES + bytes > BLOCK_BYTES {
                self.violation(
                    "an object does not end in its block (Vm rule 1)",
                    target,
                    bytes,
                );
                return;
            }
            let marks = entry.is(Policy::Immix) || entry.is_held();
            if marks && !self.header.is_marked(target) {
                self.violation(NOT_MARKED, target, bytes);
            }
            if entry.is(Policy::Immix) && !self.space.lines_are_marked(target, bytes) {
                self.violation(
                    "a line of a reachable object is free (Vm rule 1)",
                    target,
                    bytes,
                );
            }
        } else {
            if !self.space.is_marked_in_side(target) {
                self.violation(NOT_MARKED, target, bytes);
            }
            if let Some(class) = CLASSES.get(entry.class())
                && bytes + self.space.tables().lead(offset) > class.bytes as usize
            {
                self.violation(
                    "an object is larger than its cell (Vm rule 1)",
                    target,
                    bytes,
                );
            }
        }
        if self.generations && !is_unlogged::<V>(self.space, target) {
            self.violation(
                "writes to an old object would not be seen: its log bit is missing (Vm rule 4, if it is in the header)",
                target,
                bytes,
            );
        }
    }

    /// Follows all references: how many violations there were. `exact`: all was traced with the world stopped, so that nothing
    /// is an object, as far as the heap knows its objects, that is not reachable.
    #[must_use]
    pub fn finish(mut self, exact: bool) -> usize {
        let slots = self.vm.slots();
        let mut fields = Vec::new();
        while let Some(object) = self.to_scan.pop() {
            // SAFETY: not zero, see `check_object`.
            let reference =
                unsafe { ObjectReference::from_address_unchecked(Address::new(object)) };
            self.vm.scan(reference, &mut Fields(slots, &mut fields));
            for target in fields.drain(..) {
                self.reach(object, target);
            }
        }
        if exact {
            let space = self.space;
            space.for_each_object(|object| {
                let object = object.to_address().as_usize();
                if !self.seen.contains(&object) {
                    self.violation("a dead object was not freed: it was reported when the heap was traced, and is not now (Vm rules 2 and 3)", object, 0);
                }
            });
        }
        self.found
    }
}

struct Fields<'f, S: SlotFormat>(S, &'f mut Vec<usize>);

impl<S: SlotFormat> SlotVisitor for Fields<'_, S> {
    fn slot(&mut self, slot: Address) {
        // SAFETY: a field that the runtime reported of a reachable object, in a block in use (Vm rule 2).
        if let Some(target) = unsafe { self.0.load(slot) } {
            self.1.push(target.to_address().as_usize());
        }
    }

    fn slots(&mut self, first: Address, count: usize) {
        for index in 0..count {
            self.slot(first.add(index * S::BYTES));
        }
    }
}

impl<V: Vm> RootVisitor for Check<'_, V> {
    fn slot(&mut self, slot: Address) {
        // SAFETY: a root that the runtime reported (Vm rule 3).
        let target = unsafe { slot.load::<usize>() };
        self.reach(0, target);
    }

    fn slots(&mut self, first: Address, count: usize) {
        for index in 0..count {
            RootVisitor::slot(self, first.add(index * 8));
        }
    }

    fn pinned(&mut self, object: ObjectReference) {
        self.reach(0, object.to_address().as_usize());
    }

    fn ambiguous(&mut self, word: WildWord) {
        if let Some(object) = self.space.object_around(word.bits(), |o| self.vm.size(o)) {
            self.pinned(object);
        }
    }
}
