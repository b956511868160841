//! Peers that free what they are told to: `malloc` of the C library, jemalloc, and mimalloc.

use crate::layout::{self, Object, from_word, to_word};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use heapwright_bench::runtime::{Full, Root, Runtime, Thread};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

/// Weak boxes by what they hold, and what each box holds: a box is emptied when its referent is freed.
#[derive(Debug, Default)]
struct Weak {
    boxes: HashMap<u64, Vec<u64>>,
    held: HashMap<u64, u64>,
}

/// A heap without a collector.
#[derive(Debug)]
pub(crate) struct Manual<A> {
    allocator: A,
    weak: Mutex<Weak>,
    /// There were weak boxes, so freeing has to look for them.
    has_weak: AtomicBool,
}

impl<A: GlobalAlloc + Sync> Manual<A> {
    /// A heap on an allocator.
    pub(crate) fn new(allocator: A) -> Self {
        Self {
            allocator,
            weak: Mutex::default(),
            has_weak: AtomicBool::new(false),
        }
    }

    fn weak(&self) -> MutexGuard<'_, Weak> {
        self.weak.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl<A: GlobalAlloc + Sync> Runtime for Manual<A> {
    type Thread<'r>
        = ManualThread<'r, A>
    where
        A: 'r;

    fn attach(&self) -> Result<ManualThread<'_, A>, Full> {
        Ok(ManualThread {
            heap: self,
            stack: Vec::with_capacity(1024),
        })
    }
}

/// A thread of [`Manual`].
#[derive(Debug)]
pub(crate) struct ManualThread<'r, A> {
    heap: &'r Manual<A>,
    stack: Vec<Option<Object>>,
}

impl<A: GlobalAlloc + Sync> ManualThread<'_, A> {
    #[inline(always)]
    fn allocate(&mut self, references: usize, raw: usize) -> Result<Object, Full> {
        let layout =
            Layout::from_size_align(layout::bytes(references, raw)?, 8).map_err(|_| Full)?;
        // SAFETY: the size is not 0; what comes back is zeroed and ours.
        unsafe {
            let start = NonNull::new(self.heap.allocator.alloc_zeroed(layout)).ok_or(Full)?;
            Ok(Object::format(start, references, raw))
        }
    }
}

impl<A: GlobalAlloc + Sync> Thread for ManualThread<'_, A> {
    type Ref = Object;

    const MANUAL: bool = true;

    #[inline(always)]
    fn object(&mut self, references: usize, raw: usize) -> Result<Object, Full> {
        self.allocate(references, raw)
    }

    #[inline(always)]
    fn array(&mut self, length: usize) -> Result<Object, Full> {
        self.allocate(length, 0)
    }

    #[inline(always)]
    fn bytes(&mut self, length: usize) -> Result<Object, Full> {
        self.allocate(0, length)
    }

    fn weak(&mut self, referent: Root) -> Result<Object, Full> {
        let new = self.allocate(0, 8)?;
        let held = to_word(self.root(referent));
        new.set_raw(0, held);
        if held != 0 {
            let mut weak = self.heap.weak();
            weak.boxes.entry(held).or_default().push(to_word(Some(new)));
            weak.held.insert(to_word(Some(new)), held);
            self.heap.has_weak.store(true, Ordering::Relaxed);
        }
        Ok(new)
    }

    fn weak_get(&mut self, weak: Object) -> Option<Object> {
        from_word(weak.raw(0))
    }

    #[inline(always)]
    fn get(&self, object: Object, index: usize) -> Option<Object> {
        object.get(index)
    }

    #[inline(always)]
    fn set(&mut self, object: Object, index: usize, value: Option<Object>) {
        object.set(index, value);
    }

    #[inline(always)]
    fn references(&self, object: Object) -> usize {
        object.references()
    }

    #[inline(always)]
    fn raw_bytes(&self, object: Object) -> usize {
        object.raw_bytes()
    }

    #[inline(always)]
    fn raw(&self, object: Object, offset: usize) -> u64 {
        object.raw(offset)
    }

    #[inline(always)]
    fn set_raw(&mut self, object: Object, offset: usize, value: u64) {
        object.set_raw(offset, value);
    }

    #[inline(always)]
    fn raw_slice(&mut self, object: Object) -> &mut [u8] {
        // SAFETY: nothing moves here; the workload sees to the rest.
        unsafe { object.raw_slice() }
    }

    #[inline(always)]
    fn same(&self, a: Object, b: Object) -> bool {
        a == b
    }

    #[inline(always)]
    fn push(&mut self, value: Option<Object>) -> Root {
        self.stack.push(value);
        Root(self.stack.len() - 1)
    }

    #[inline(always)]
    fn root(&self, root: Root) -> Option<Object> {
        self.stack[root.0]
    }

    #[inline(always)]
    fn set_root(&mut self, root: Root, value: Option<Object>) {
        self.stack[root.0] = value;
    }

    #[inline(always)]
    fn height(&self) -> usize {
        self.stack.len()
    }

    #[inline(always)]
    fn truncate(&mut self, height: usize) {
        self.stack.truncate(height);
    }

    #[inline(always)]
    fn poll(&mut self) {}

    fn collect(&mut self) {}

    fn outside<R>(&mut self, f: impl FnOnce() -> R) -> R {
        f()
    }

    #[inline(always)]
    fn dispose(&mut self, object: Object) {
        if self.heap.has_weak.load(Ordering::Relaxed) {
            forget(&mut self.heap.weak(), object);
        }
        // SAFETY: the workload does not use the object again, and this is the layout that it was allocated with.
        unsafe {
            let layout = Layout::from_size_align_unchecked(object.bytes(), 8);
            self.heap.allocator.dealloc(object.start().as_ptr(), layout);
        }
    }
}

/// An object is about to be freed: empties the boxes that hold it and, if it is a box, forgets what it held.
#[cold]
fn forget(weak: &mut Weak, object: Object) {
    let word = to_word(Some(object));
    for holder in weak.boxes.remove(&word).unwrap_or_default() {
        weak.held.remove(&holder);
        if let Some(holder) = from_word(holder) {
            holder.set_raw(0, 0);
        }
    }
    if let Some(held) = weak.held.remove(&word)
        && let Some(boxes) = weak.boxes.get_mut(&held)
    {
        boxes.retain(|holder| *holder != word);
    }
}
