//! A runtime that fails where a program breaks the rules.
//!
//! Every call that may collect makes all references void that are not in the shadow stack or in the heap, as if all objects
//! had moved. Without `MANUAL` it collects, often; with it, it frees what is disposed of. Objects are in safe memory, and
//! places of dead ones are used again under another number.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use heapwright_bench::runtime::{Full, Root, Runtime, Thread};

/// Allocations from one collection to the next.
const PERIOD: u64 = 20_011;

#[derive(Debug, Default)]
pub(crate) struct Strict<const MANUAL: bool> {
    live: AtomicU64,
    longest: Mutex<u64>,
}

impl<const MANUAL: bool> Strict<MANUAL> {
    pub(crate) fn new() -> Self {
        Strict::default()
    }

    /// Objects that threads left behind.
    pub(crate) fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// The largest number of accesses from one safepoint to the next.
    pub(crate) fn longest(&self) -> u64 {
        *self.longest.lock().unwrap()
    }
}

impl<const MANUAL: bool> Runtime for Strict<MANUAL> {
    type Thread<'r> = StrictThread<'r, MANUAL>;

    fn attach(&self) -> Result<StrictThread<'_, MANUAL>, Full> {
        Ok(StrictThread {
            runtime: self,
            objects: Vec::new(),
            free: VecDeque::new(),
            stack: Vec::new(),
            epoch: 0,
            allocations: 0,
            accesses: std::cell::Cell::new(0),
            longest: std::cell::Cell::new(0),
        })
    }
}

/// A reference: a place, and when it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ref {
    place: usize,
    epoch: u64,
}

#[derive(Debug)]
struct Object {
    references: Vec<Option<usize>>,
    /// Whole words.
    raw: Vec<u8>,
    length: usize,
    weak: bool,
    /// Weak boxes that hold it.
    boxes: Vec<usize>,
    marked: bool,
}

#[derive(Debug)]
pub(crate) struct StrictThread<'r, const MANUAL: bool> {
    runtime: &'r Strict<MANUAL>,
    objects: Vec<Option<Object>>,
    free: VecDeque<usize>,
    stack: Vec<Option<usize>>,
    epoch: u64,
    allocations: u64,
    accesses: std::cell::Cell<u64>,
    longest: std::cell::Cell<u64>,
}

impl<const MANUAL: bool> StrictThread<'_, MANUAL> {
    fn access(&self) {
        self.accesses.set(self.accesses.get() + 1);
    }

    fn object(&self, object: Ref) -> &Object {
        self.access();
        assert_eq!(object.epoch, self.epoch, "used after a safepoint");
        self.objects[object.place]
            .as_ref()
            .expect("used after its death")
    }

    fn object_mut(&mut self, object: Ref) -> &mut Object {
        self.access();
        assert_eq!(object.epoch, self.epoch, "used after a safepoint");
        self.objects[object.place]
            .as_mut()
            .expect("used after its death")
    }

    fn reference(&self, place: Option<usize>) -> Option<Ref> {
        place.map(|place| Ref {
            place,
            epoch: self.epoch,
        })
    }

    fn place(&self, value: Option<Ref>) -> Option<usize> {
        value.map(|value| {
            self.object(value);
            value.place
        })
    }

    fn safepoint(&mut self) {
        self.epoch += 1;
        self.longest
            .set(self.longest.get().max(self.accesses.get()));
        self.accesses.set(0);
    }

    fn allocate(&mut self, references: usize, length: usize, weak: bool) -> Ref {
        self.safepoint();
        self.allocations += 1;
        if self.allocations.is_multiple_of(PERIOD) {
            self.trace();
        }
        let object = Some(Object {
            references: vec![None; references],
            raw: vec![0; length.next_multiple_of(8)],
            length,
            weak,
            boxes: Vec::new(),
            marked: false,
        });
        let place = match self.free.pop_front() {
            Some(place) => {
                self.objects[place] = object;
                place
            }
            None => {
                self.objects.push(object);
                self.objects.len() - 1
            }
        };
        Ref {
            place,
            epoch: self.epoch,
        }
    }

    fn trace(&mut self) {
        if MANUAL {
            return;
        }
        let mut todo: Vec<usize> = self.stack.iter().flatten().copied().collect();
        while let Some(place) = todo.pop() {
            let object = self.objects[place]
                .as_mut()
                .expect("a live object refers to a dead one");
            if !object.marked {
                object.marked = true;
                if !object.weak {
                    todo.extend(object.references.iter().flatten());
                }
            }
        }
        for place in 0..self.objects.len() {
            let Some(object) = &self.objects[place] else {
                continue;
            };
            if !object.marked {
                self.objects[place] = None;
                self.free.push_back(place);
            }
        }
        for place in 0..self.objects.len() {
            if let Some(object) = &self.objects[place]
                && object.weak
                && let Some(referent) = object.references[0]
                && self.objects[referent].is_none()
            {
                self.objects[place].as_mut().unwrap().references[0] = None;
            }
        }
        for object in self.objects.iter_mut().flatten() {
            object.marked = false;
        }
    }
}

impl<const MANUAL: bool> Drop for StrictThread<'_, MANUAL> {
    fn drop(&mut self) {
        let live = self.objects.iter().flatten().count() as u64;
        self.runtime.live.fetch_add(live, Ordering::Relaxed);
        if !std::thread::panicking() {
            assert_eq!(self.stack.len(), 0, "left in the shadow stack");
            let mut longest = self.runtime.longest.lock().unwrap();
            *longest = longest.max(self.longest.get());
        }
    }
}

impl<const MANUAL: bool> Thread for StrictThread<'_, MANUAL> {
    type Ref = Ref;

    const MANUAL: bool = MANUAL;

    fn object(&mut self, references: usize, raw: usize) -> Result<Ref, Full> {
        Ok(self.allocate(references, raw, false))
    }

    fn array(&mut self, length: usize) -> Result<Ref, Full> {
        Ok(self.allocate(length, 0, false))
    }

    fn bytes(&mut self, length: usize) -> Result<Ref, Full> {
        Ok(self.allocate(0, length, false))
    }

    fn weak(&mut self, referent: Root) -> Result<Ref, Full> {
        let weak = self.allocate(1, 0, true);
        let referent = self.stack[referent.0];
        self.objects[weak.place].as_mut().unwrap().references[0] = referent;
        if let Some(referent) = referent {
            self.objects[referent]
                .as_mut()
                .unwrap()
                .boxes
                .push(weak.place);
        }
        Ok(weak)
    }

    fn weak_get(&mut self, weak: Ref) -> Option<Ref> {
        let object = StrictThread::object(self, weak);
        assert!(object.weak);
        let referent = object.references[0];
        self.reference(referent)
    }

    fn get(&self, object: Ref, index: usize) -> Option<Ref> {
        let object = StrictThread::object(self, object);
        assert!(!object.weak);
        let value = object.references[index];
        self.reference(value)
    }

    fn set(&mut self, object: Ref, index: usize, value: Option<Ref>) {
        let value = self.place(value);
        let object = self.object_mut(object);
        assert!(!object.weak);
        object.references[index] = value;
    }

    fn references(&self, object: Ref) -> usize {
        StrictThread::object(self, object).references.len()
    }

    fn raw_bytes(&self, object: Ref) -> usize {
        StrictThread::object(self, object).length
    }

    fn raw(&self, object: Ref, offset: usize) -> u64 {
        let object = StrictThread::object(self, object);
        assert!(offset.is_multiple_of(8) && offset + 8 <= object.length);
        u64::from_ne_bytes(object.raw[offset..offset + 8].try_into().unwrap())
    }

    fn set_raw(&mut self, object: Ref, offset: usize, value: u64) {
        let object = self.object_mut(object);
        assert!(offset.is_multiple_of(8) && offset + 8 <= object.length);
        object.raw[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
    }

    fn raw_slice(&mut self, object: Ref) -> &mut [u8] {
        let object = self.object_mut(object);
        let length = object.length;
        &mut object.raw[..length]
    }

    fn same(&self, a: Ref, b: Ref) -> bool {
        StrictThread::object(self, a);
        StrictThread::object(self, b);
        a.place == b.place
    }

    fn push(&mut self, value: Option<Ref>) -> Root {
        let value = self.place(value);
        self.stack.push(value);
        assert!(self.stack.len() < 4096, "the shadow stack grows and grows");
        Root(self.stack.len() - 1)
    }

    fn root(&self, root: Root) -> Option<Ref> {
        self.reference(self.stack[root.0])
    }

    fn set_root(&mut self, root: Root, value: Option<Ref>) {
        self.stack[root.0] = self.place(value);
    }

    fn height(&self) -> usize {
        self.stack.len()
    }

    fn truncate(&mut self, height: usize) {
        assert!(height <= self.stack.len());
        self.stack.truncate(height);
    }

    fn poll(&mut self) {
        self.safepoint();
    }

    fn collect(&mut self) {
        self.safepoint();
        self.trace();
    }

    fn outside<R>(&mut self, f: impl FnOnce() -> R) -> R {
        self.safepoint();
        f()
    }

    fn dispose(&mut self, object: Ref) {
        StrictThread::object(self, object);
        if !MANUAL {
            return;
        }
        // Places are not used again, so that a dangling reference is always found; but the weak boxes are emptied.
        if let Some(dead) = self.objects[object.place].take() {
            for weak in dead.boxes {
                if let Some(weak) = &mut self.objects[weak] {
                    weak.references[0] = None;
                }
            }
        }
    }
}
