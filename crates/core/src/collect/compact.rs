//! The second half of a collection that slides: references are updated, then objects are moved. World stopped.

use super::cycle::{COME, Pause, Share, call_helpers};
use crate::alloc::BLOCK_BYTES;
use crate::bugs::{Bug, is_on};
use crate::event::Part;
use crate::space::objects::ObjectSpace;
use crate::space::tables::{Entry, Policy};
use crate::vm::{RootVisitor, SlotFormat, SlotVisitor, Vm, WeakLookup, WeakVisitor};
use core::sync::atomic::{AtomicUsize, Ordering};
use heapwright_address::{Address, ObjectReference, WildWord};
use heapwright_os::clock;
use heapwright_work::{Phase, Worker};
use std::time::Duration;

/// Slots of a long array that are shared with other workers at once: more than an object in a block has, which slides.
const SLICE: usize = BLOCK_BYTES / 4;

fn reference(address: usize) -> ObjectReference {
    // SAFETY: callers pass addresses of objects in the heap's range, which are not 0.
    unsafe { ObjectReference::from_address_unchecked(Address::new(address)) }
}

/// Updates what it is told of.
struct Update<'a, 'w, S: SlotFormat> {
    slots: S,
    space: &'a ObjectSpace,
    /// Who can share long arrays with others.
    worker: Option<&'a mut Worker<'w>>,
}

impl<S: SlotFormat> SlotVisitor for Update<'_, '_, S> {
    #[inline]
    fn slot(&mut self, slot: Address) {
        // SAFETY: a field of a live object (Vm rule 2); each object is scanned by one worker.
        unsafe {
            if let Some(target) = self.slots.load(slot) {
                let target = target.to_address().as_usize();
                let to = self.space.slide_target(target);
                if to != target {
                    self.slots.store(slot, reference(to));
                }
            }
        }
    }

    fn slots(&mut self, first: Address, count: usize) {
        let mut index = 0;
        // Only objects with pages of their own, which stay where they are, have so many.
        while count - index > SLICE
            && let Some(worker) = &mut self.worker
            && worker.hungry()
        {
            let piece = first.add(index * S::BYTES).as_usize() << 16 | SLICE;
            if worker.share(&[piece]) == 0 {
                break;
            }
            index += SLICE;
        }
        for index in index..count {
            SlotVisitor::slot(self, first.add(index * S::BYTES));
        }
    }
}

/// Updates roots.
struct UpdateRoots<'a>(&'a ObjectSpace);

impl RootVisitor for UpdateRoots<'_> {
    fn slot(&mut self, slot: Address) {
        // SAFETY: a root that the runtime reported (Vm rule 3); the world is stopped.
        unsafe {
            let target = slot.load::<usize>();
            if target != 0 {
                slot.store(self.0.slide_target(target));
            }
        }
    }

    fn slots(&mut self, first: Address, count: usize) {
        for index in 0..count {
            RootVisitor::slot(self, first.add(index * 8));
        }
    }

    fn pinned(&mut self, _: ObjectReference) {}

    fn ambiguous(&mut self, _: WildWord) {}
}

/// Tells the runtime where objects go that it refers to weakly; what is dead it has dropped before.
struct UpdateWeak<'a>(&'a ObjectSpace);

impl WeakLookup for UpdateWeak<'_> {
    fn get(&self, object: ObjectReference) -> Option<ObjectReference> {
        Some(reference(
            self.0.slide_target(object.to_address().as_usize()),
        ))
    }
}

impl WeakVisitor for UpdateWeak<'_> {
    fn keep(&mut self, object: ObjectReference) -> ObjectReference {
        reference(self.0.slide_target(object.to_address().as_usize()))
    }
}

/// Slides the blocks of a heap, taken one by one, in order.
struct Slide<'p, 'h, V: Vm> {
    pause: &'p Pause<'h, V>,
    /// The number of the next block.
    next: AtomicUsize,
    roots: Share,
    moved: AtomicUsize,
}

/// Fills what is behind the last object of a block, with the option `poison`. All that was there has moved.
fn poison_rest(space: &ObjectSpace, from: usize) {
    let inner = from.wrapping_sub(space.tables().base()) % BLOCK_BYTES;
    if let Some(poison) = space.cells().poison().filter(|_| from != 0 && inner != 0) {
        // SAFETY: the end of a block of the range, in which there is no object that has not moved (the caller's promise).
        unsafe { poison.fill(from, from - inner + BLOCK_BYTES) };
    }
}

// SAFETY: of the pause only the runtime and the space are used.
unsafe impl<V: Vm> Sync for Slide<'_, '_, V> {}

impl<V: Vm> Phase for Slide<'_, '_, V> {
    fn work(&self, worker: &mut Worker<'_>) {
        call_helpers(worker, self.pause.space.cells().extent() / BLOCK_BYTES);
        self.blocks(Some(worker));
        let mut update = self.update(None);
        while let Some(item) = worker.next() {
            if item == COME {
                continue;
            }
            SlotVisitor::slots(&mut update, Address::new(item >> 16), item & 0xffff);
        }
    }
}

/// Others may wait for a block: they go on even if the runtime panics while it is scanned.
struct Leaving<'a>(&'a ObjectSpace, usize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.tables().leave(self.1);
    }
}

impl<V: Vm> Slide<'_, '_, V> {
    fn update<'u, 'w>(&'u self, worker: Option<&'u mut Worker<'w>>) -> Update<'u, 'w, V::Slots> {
        Update {
            slots: self.pause.vm.slots(),
            space: self.pause.space,
            worker,
        }
    }

    fn blocks(&self, mut worker: Option<&mut Worker<'_>>) {
        let (space, vm) = (self.pause.space, self.pause.vm);
        while let Some(part) = self.roots.next() {
            if part < self.pause.mutators() && is_on(Bug::SlideRootsForgotten) {
                continue;
            }
            if part == self.pause.mutators() {
                self.pause.references.roots(false, &mut UpdateRoots(space));
            }
            self.pause.roots_of(part, &mut UpdateRoots(space));
        }
        let alone = worker.is_none();
        let mut moved = 0;
        loop {
            let block = self.next.fetch_add(1, Ordering::Relaxed) * BLOCK_BYTES;
            if block >= space.cells().extent() {
                break;
            }
            let entry = space.tables().entry(block);
            let mut update = self.update(worker.as_deref_mut());
            if !entry.is(Policy::Compact) {
                if entry != Entry::NONE {
                    space.for_each_marked_cell(block, |object| vm.scan(object, &mut update));
                }
                continue;
            }
            let slides = entry.moves();
            let leaving = slides.then(|| Leaving(space, block));
            space.for_each_live(block, self.pause.sizes(), |object, _| {
                vm.scan(reference(object), &mut update);
                if V::OBJECT_MAP && slides {
                    space.enter(space.slide_target(object));
                }
            });
            let Some(ends) = space.slide_blocks(block).filter(|_| slides) else {
                continue;
            };
            if !alone && !is_on(Bug::SlideNotAwaited) {
                wait_until_left(space, block, ends);
            }
            if self.pause.yields && (block / BLOCK_BYTES).is_multiple_of(3) {
                // So late that the next block's objects come before these have left, if they do not wait.
                std::thread::sleep(Duration::from_micros(100));
            }
            space.for_each_run(block, |from, to, bytes| {
                if from != to {
                    // SAFETY: live objects go to a lower place, whose former objects have left it (see the space's module); the
                    // two may overlap.
                    unsafe {
                        core::ptr::copy(
                            Address::new(from).as_ptr::<u8>(),
                            Address::new(to).as_mut_ptr::<u8>(),
                            bytes,
                        );
                    }
                    moved += bytes;
                }
            });
            drop(leaving);
        }
        self.moved.fetch_add(moved, Ordering::Relaxed);
    }
}

/// Waits until the objects of the blocks that this one's go to have left them.
fn wait_until_left(space: &ObjectSpace, block: usize, (first, last): (usize, usize)) {
    let mut tries = 0;
    while [first, last]
        .iter()
        .any(|target| *target != block && !space.tables().is_left(*target))
    {
        tries += 1;
        if tries < 100 {
            core::hint::spin_loop();
        } else {
            // It is another worker's, which may not be running.
            std::thread::yield_now();
        }
    }
}

impl<V: Vm> Pause<'_, V> {
    /// The size of an object at an address, as its memory is counted.
    fn sizes(&self) -> impl Fn(usize) -> usize + Copy + use<'_, V> {
        let vm = self.vm;
        let align = if V::OBJECT_MAP { 16 } else { 8 };
        move |object: usize| (vm.size(reference(object)) + align - 1) & !(align - 1)
    }

    /// Slides the marked objects of the compacting policy together and updates all references. After the trace and the weak
    /// references; before the sweep.
    pub fn slide(&mut self) {
        let start = clock::monotonic_ns();
        let (space, vm) = (self.space, self.vm);
        let used = space.plan_slide(self.sizes());
        space.forget_sliding_objects();
        let slide = Slide {
            pause: &*self,
            next: AtomicUsize::new(0),
            roots: Share::of(self.root_parts()),
            moved: AtomicUsize::new(0),
        };
        if self.alone {
            slide.blocks(None);
        } else {
            self.run(Part::Slide, &slide);
        }
        let moved = slide.moved.into_inner();
        // All has moved: what lies behind the last object of each block is free.
        if space.cells().poison().is_some() {
            let mut end = 0;
            for block in space.sliding_blocks() {
                space.for_each_run(block, |_, to, bytes| {
                    if to != end {
                        poison_rest(space, end);
                    }
                    end = to + bytes;
                });
            }
            poison_rest(space, end);
        }
        // Objects are where they go by now, and the tables still say where that is.
        self.slide_references();
        vm.weak(&mut UpdateWeak(space));
        if !is_on(Bug::HashNotFollowed) {
            self.hashes.follow(|object| space.slide_target(object));
        }
        self.weak_parts(|| UpdateWeak(space));
        space.end_slide(used);
        space.forget_held_live();
        self.stats.copied_bytes += moved;
        self.stats.mark_ns += clock::monotonic_ns() - start;
    }
}
