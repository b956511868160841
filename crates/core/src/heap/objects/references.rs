//! References that are not plain, for mutators: registering, reading and writing them, handles of the program, finalizers' queue.
//!
//! docs/references.md says what a runtime can rely on. What is registered here is looked at by [`crate::collect::references`].

use super::mutator::Mutator;
use super::{Heap, Inner};
use crate::bugs::{Bug, is_on};
use crate::collect::local::Barrier;
use crate::collect::references::{
    Cell, Cleared, Ephemeron, Finalizable, FinalizerOrder, MapCore, NoMemory, Reference, Strength,
};
use crate::error::ReferenceError;
use crate::vm::{SlotFormat, Vm};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use heapwright_address::{Address, ObjectReference};
use std::sync::{Arc, Weak as HeapWeak};

impl From<NoMemory> for ReferenceError {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

fn object(word: usize) -> Option<ObjectReference> {
    ObjectReference::from_address(Address::new(word))
}

fn word(object: ObjectReference) -> usize {
    object.to_address().as_usize()
}

impl<V: Vm> Mutator<V> {
    // ---- reference objects of the runtime ------------------------------------------------------------------------------

    /// Registers a reference object. It stays registered until the holder dies, also while it refers to nothing; then it is forgotten
    /// silently. Not a safepoint.
    ///
    /// # Errors
    /// If there is no memory for it: nothing was registered.
    ///
    /// # Safety
    /// As long as the holder lives: the slot, and the word `used` of a soft reference, lie in it, aligned; the slot holds a reference in the
    /// runtime's format, or nothing; [`Vm::scan`] reports neither; and this slot is registered once.
    pub unsafe fn add_reference(&mut self, reference: &Reference) -> Result<(), ReferenceError> {
        let inner = self.inner();
        if reference.strength == Strength::Soft && reference.used != 0 {
            // SAFETY: the caller's promise.
            unsafe { self.stamp(reference) };
        }
        let local = &mut self.local().registered;
        Ok(inner.references.add_reference(local, reference)?)
    }

    /// Notes in a soft reference that it was read.
    ///
    /// # Safety
    /// It has a word for that.
    unsafe fn stamp(&mut self, reference: &Reference) {
        let used = reference.holder.to_address().add(reference.used as usize);
        // SAFETY: the caller's promise. Several mutators may write at once.
        unsafe { &*used.as_ptr::<AtomicU64>() }
            .store(self.inner.references.now(), Ordering::Relaxed);
    }

    /// What a reference object refers to, if it was not cleared. Not a safepoint. The runtime may read the slot itself, too, if it then
    /// calls [`Mutator::read_weakly`].
    ///
    /// ```
    /// use heapwright::example::{Pairs, SLOTS, push, push_holder, root};
    /// use heapwright::{Mutator, Reference};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("immix")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// push_holder(&mut mutator)?;
    /// push(&mut mutator, 1)?;
    /// let at = |mutator: &Mutator<Pairs>| Reference::weak(root(mutator, 0), SLOTS[0]);
    /// let (reference, target) = (at(&mutator), root(&mutator, 1));
    /// // SAFETY: the slot is the holder's, it is empty, and the runtime does not scan it.
    /// unsafe { mutator.add_reference(&reference) }?;
    /// // SAFETY: as above; both are roots.
    /// unsafe { mutator.set_referent(&reference, Some(target)) }?;
    /// mutator.collect();
    /// // The holder may have moved: it is named anew.
    /// let reference = at(&mutator);
    /// // SAFETY: as above.
    /// let read = unsafe { mutator.referent(&reference) };
    /// assert_eq!(read, Some(root(&mutator, 1)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Safety
    /// As for [`Mutator::add_reference`], and the holder is alive.
    #[inline]
    pub unsafe fn referent(&mut self, reference: &Reference) -> Option<ObjectReference> {
        let slot = reference.holder.to_address().add(reference.slot as usize);
        // SAFETY: the caller's promise.
        let target = unsafe { self.inner.vm.slots().load(slot) }?;
        self.read_weakly(target);
        if reference.strength == Strength::Soft && reference.used != 0 {
            // SAFETY: the caller's promise.
            unsafe { self.stamp(reference) };
        }
        Some(target)
    }

    /// Changes what a registered reference object refers to. Not a safepoint, and needs no other write barrier.
    ///
    /// # Errors
    /// If there is no memory to remember it: nothing was changed.
    ///
    /// # Safety
    /// As for [`Mutator::add_reference`], and the holder and the target are alive.
    pub unsafe fn set_referent(
        &mut self,
        reference: &Reference,
        target: Option<ObjectReference>,
    ) -> Result<(), ReferenceError> {
        let inner = self.inner();
        let local = self.local();
        // What a minor collection might not look at otherwise.
        if local.barrier == Barrier::Object && target.is_some() && !is_on(Bug::WrittenForgotten) {
            inner.references.wrote(&mut local.registered, reference)?;
        }
        let slot = reference.holder.to_address().add(reference.slot as usize);
        // SAFETY: the caller's promise.
        unsafe { self.store_weakly(slot, target) };
        Ok(())
    }

    /// # Safety
    /// A slot of an object that is alive, in the runtime's format.
    unsafe fn store_weakly(&mut self, slot: Address, target: Option<ObjectReference>) {
        let slots = self.inner.vm.slots();
        match target {
            // SAFETY: the caller's promise.
            Some(target) => unsafe { slots.store(slot, target) },
            // SAFETY: as above.
            None => unsafe { slots.clear(slot) },
        }
    }

    /// Takes the next reference object whose reference was cleared, of those that are registered with [`Reference::queued`]. From now on the
    /// queue does not keep it alive. Not a safepoint.
    pub fn next_cleared(&mut self) -> Option<Cleared> {
        self.inner.references.next_cleared()
    }

    // ---- ephemerons ------------------------------------------------------------------------------------------------------

    /// Registers an ephemeron. As [`Mutator::add_reference`].
    ///
    /// # Errors
    /// As [`Mutator::add_reference`].
    ///
    /// # Safety
    /// As for [`Mutator::add_reference`], of both slots.
    pub unsafe fn add_ephemeron(&mut self, ephemeron: &Ephemeron) -> Result<(), ReferenceError> {
        let inner = self.inner();
        let local = &mut self.local().registered;
        Ok(inner.references.add_ephemeron(local, ephemeron)?)
    }

    /// Key and value of an ephemeron. Not a safepoint.
    ///
    /// # Safety
    /// As for [`Mutator::add_ephemeron`], and the holder is alive.
    pub unsafe fn ephemeron(
        &mut self,
        ephemeron: &Ephemeron,
    ) -> Option<(ObjectReference, Option<ObjectReference>)> {
        let (slots, holder) = (self.inner.vm.slots(), ephemeron.holder.to_address());
        // SAFETY: the caller's promise.
        let key = unsafe { slots.load(holder.add(ephemeron.key as usize)) }?;
        // SAFETY: as above.
        let value = unsafe { slots.load(holder.add(ephemeron.value as usize)) };
        self.read_weakly(key);
        if let Some(value) = value {
            self.read_weakly(value);
        }
        Some((key, value))
    }

    /// Changes key and value of a registered ephemeron. As [`Mutator::set_referent`].
    ///
    /// # Errors
    /// As [`Mutator::set_referent`].
    ///
    /// # Safety
    /// As for [`Mutator::add_ephemeron`], and the holder, key and value are alive.
    pub unsafe fn set_ephemeron(
        &mut self,
        ephemeron: &Ephemeron,
        key: Option<ObjectReference>,
        value: Option<ObjectReference>,
    ) -> Result<(), ReferenceError> {
        let inner = self.inner();
        let local = self.local();
        if local.barrier == Barrier::Object
            && (key.is_some() || value.is_some())
            && !is_on(Bug::WrittenForgotten)
        {
            inner
                .references
                .wrote_ephemeron(&mut local.registered, ephemeron)?;
        }
        let holder = ephemeron.holder.to_address();
        // SAFETY: the caller's promise.
        unsafe { self.store_weakly(holder.add(ephemeron.key as usize), key) };
        // SAFETY: as above.
        unsafe { self.store_weakly(holder.add(ephemeron.value as usize), value) };
        Ok(())
    }

    // ---- handles -----------------------------------------------------------------------------------------------------------

    /// A weak handle to an object, for the program's own data. Not a safepoint.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn weak(
        &mut self,
        object: ObjectReference,
        strength: Strength,
    ) -> Result<Weak<V>, ReferenceError> {
        let inner = self.inner();
        let cell = Arc::new(Cell {
            target: AtomicUsize::new(word(object)),
            used: AtomicU64::new(inner.references.now()),
        });
        let local = &mut self.local().registered;
        inner.references.add_cell(local, strength, &cell)?;
        Ok(Weak {
            heap: Arc::downgrade(&self.inner),
            cell,
            strength,
        })
    }

    /// A weak map, for the program's own data.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn weak_map(&mut self) -> Result<WeakMap<V>, ReferenceError> {
        let core = Arc::new(MapCore::default());
        self.inner.references.add_map(&core)?;
        Ok(WeakMap {
            heap: Arc::downgrade(&self.inner),
            core,
        })
    }

    fn belongs_to(&self, heap: &HeapWeak<Inner<V>>) -> bool {
        core::ptr::eq(heap.as_ptr(), Arc::as_ptr(&self.inner))
    }

    // ---- finalizers ----------------------------------------------------------------------------------------------------------

    /// Registers a finalizer: when nothing reaches the object any more, it is queued for [`Mutator::next_finalizable`] and kept alive
    /// until it is taken from there. `token` is the runtime's; it comes back with the object. An object may have several. Not a safepoint.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn add_finalizer(
        &mut self,
        object: ObjectReference,
        order: FinalizerOrder,
        token: usize,
    ) -> Result<(), ReferenceError> {
        let inner = self.inner();
        let local = &mut self.local().registered;
        Ok(inner
            .references
            .add_finalizer(local, object, order, token)?)
    }

    /// Takes the next object that is to be finalized. The queue does not keep it alive any more: whether it lives on is up to the runtime.
    /// Its finalizer is used up; it may be registered again. Not a safepoint.
    ///
    /// ```
    /// use heapwright::FinalizerOrder;
    /// use heapwright::example::{Pairs, push, root};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("genimmix")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// for token in [10, 20, 30] {
    ///     let place = push(&mut mutator, token)?;
    ///     let pair = root(&mutator, place);
    ///     mutator.add_finalizer(pair, FinalizerOrder::Registration, token)?;
    /// }
    /// // The first is closed by hand, and needs none any more.
    /// assert_eq!(mutator.remove_finalizers(|mutator| root(mutator, 0)), 1);
    /// // Nothing leads to the third.
    /// mutator.thread().truncate(2);
    /// mutator.collect();
    /// assert_eq!(mutator.next_finalizable().map(|f| f.token), Some(30));
    /// assert!(mutator.next_finalizable().is_none());
    /// // The runtime ends: whatever is left.
    /// assert_eq!(mutator.queue_all_finalizers()?, 1);
    /// assert_eq!(mutator.next_finalizable().map(|f| f.token), Some(20));
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_finalizable(&mut self) -> Option<Finalizable> {
        self.inner.references.next_finalizable()
    }

    /// Calls `finalize` for what is queued, but for no more than `most`: for how many. `finalize` may do anything that a mutator may, also
    /// collect, or register the object again; until its first safepoint the object is good. If it panics, the panic passes through, and
    /// what was not finalized yet stays queued.
    pub fn run_finalizers(
        &mut self,
        most: usize,
        mut finalize: impl FnMut(&mut Self, Finalizable),
    ) -> usize {
        let mut count = 0;
        while count < most
            && let Some(next) = self.next_finalizable()
        {
            count += 1;
            finalize(self, next);
        }
        count
    }

    /// Takes all finalizers of an object back that are not queued: how many there were. Stops the world: a safepoint, at which the object
    /// may move before it is looked for; so `object` reads it from where the runtime has it.
    ///
    /// It looks through all finalizers.
    pub fn remove_finalizers(&mut self, object: impl Fn(&Self) -> ObjectReference) -> usize {
        let inner = self.inner();
        loop {
            let removed = inner.stopped(true, || {
                inner.adopt_registered();
                inner.references.remove_finalizers(object(self))
            });
            if let Some(removed) = removed {
                return removed;
            }
        }
    }

    /// Queues all objects with finalizers, though they live: for a runtime that ends and wants them all to run. How many there were. Stops
    /// the world: a safepoint.
    ///
    /// # Errors
    /// If there is no memory for the queue: nothing was changed.
    pub fn queue_all_finalizers(&mut self) -> Result<usize, ReferenceError> {
        let inner = self.inner();
        loop {
            let queued = inner.stopped(true, || {
                inner.adopt_registered();
                inner.references.queue_all()
            });
            if let Some(queued) = queued {
                return Ok(queued?);
            }
        }
    }

    /// The runtime read this reference out of a weak one, and keeps it. Not a safepoint. (While marking concurrently nobody
    /// else may have seen it.)
    #[inline]
    pub fn read_weakly(&mut self, object: ObjectReference) {
        if self.local().barrier == Barrier::Snapshot && !is_on(Bug::WeakReadForgotten) {
            self.remember(object.to_address().as_usize());
        }
    }
}

impl<V: Vm> Heap<V> {
    /// How many objects wait to be finalized, and how many reference objects that were cleared wait to be heard of. Any thread.
    #[must_use]
    pub fn queued(&self) -> (usize, usize) {
        self.0.references.queued()
    }
}

impl<V: Vm> Inner<V> {
    /// Takes over what mutators registered. World stopped, by who stopped it.
    pub(super) fn adopt_registered(&self) {
        // SAFETY: called by the one who closed the gate.
        unsafe {
            self.locals
                .each(|local| self.references.adopt(&mut local.registered));
        }
    }
}

/// A handle that does not keep its object alive: see [`Mutator::weak`]. Clones are the same handle. It may outlive its heap, and then
/// refers to nothing.
///
/// ```
/// use heapwright::Strength;
/// use heapwright::example::{Pairs, push, root};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("gencopy")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// push(&mut mutator, 1)?;
/// let object = root(&mutator, 0);
/// let weak = mutator.weak(object, Strength::Weak)?;
/// mutator.collect();
/// assert_eq!(weak.get(&mut mutator), Some(root(&mutator, 0)));
/// mutator.thread().clear();
/// mutator.collect();
/// assert!(weak.is_cleared());
/// assert_eq!(weak.get(&mut mutator), None);
/// # Ok(())
/// # }
/// ```
pub struct Weak<V: Vm> {
    heap: HeapWeak<Inner<V>>,
    cell: Arc<Cell>,
    strength: Strength,
}

impl<V: Vm> Clone for Weak<V> {
    fn clone(&self) -> Self {
        Self {
            heap: HeapWeak::clone(&self.heap),
            cell: Arc::clone(&self.cell),
            strength: self.strength,
        }
    }
}

impl<V: Vm> core::fmt::Debug for Weak<V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Weak")
            .field("strength", &self.strength)
            .field("is_cleared", &self.is_cleared())
            .finish_non_exhaustive()
    }
}

impl<V: Vm> Weak<V> {
    /// The object, if it was not cleared. `None` also for a phantom handle, which never gives it, and for a mutator of another heap. Not
    /// a safepoint.
    #[must_use]
    pub fn get(&self, mutator: &mut Mutator<V>) -> Option<ObjectReference> {
        if self.strength == Strength::Phantom || !mutator.belongs_to(&self.heap) {
            return None;
        }
        let target = object(self.cell.target.load(Ordering::Relaxed))?;
        self.cell
            .used
            .store(mutator.inner().references.now(), Ordering::Relaxed);
        mutator.read_weakly(target);
        Some(target)
    }

    /// Does it refer to nothing, as it was cleared or the heap is gone? Any thread.
    #[must_use]
    pub fn is_cleared(&self) -> bool {
        self.heap.strong_count() == 0 || self.cell.target.load(Ordering::Relaxed) == 0
    }

    /// How strongly it holds.
    #[must_use]
    pub fn strength(&self) -> Strength {
        self.strength
    }

    /// Makes it refer to nothing. Any thread.
    pub fn clear(&self) {
        self.cell.target.store(0, Ordering::Relaxed);
    }
}

/// A map from objects, by identity, to objects that live as long as their keys do, and the map: see [`Mutator::weak_map`]. Clones are the
/// same map. It may outlive its heap, and then is empty.
///
/// A value may refer to its own key, or to other keys. Entries whose keys die disappear.
///
/// ```
/// use heapwright::example::{Pairs, number, push, root};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("semispace")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// let map = mutator.weak_map()?;
/// push(&mut mutator, 1)?;
/// push(&mut mutator, 2)?;
/// let (key, value) = (root(&mutator, 0), root(&mutator, 1));
/// map.insert(&mut mutator, key, value)?;
/// // The key keeps the value.
/// mutator.thread().truncate(1);
/// mutator.collect();
/// let key = root(&mutator, 0);
/// assert_eq!(map.get(&mut mutator, key).map(number), Some(2));
/// mutator.thread().clear();
/// mutator.collect();
/// assert!(map.is_empty());
/// # Ok(())
/// # }
/// ```
pub struct WeakMap<V: Vm> {
    heap: HeapWeak<Inner<V>>,
    core: Arc<MapCore>,
}

impl<V: Vm> Clone for WeakMap<V> {
    fn clone(&self) -> Self {
        Self {
            heap: HeapWeak::clone(&self.heap),
            core: Arc::clone(&self.core),
        }
    }
}

impl<V: Vm> core::fmt::Debug for WeakMap<V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("WeakMap")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl<V: Vm> WeakMap<V> {
    /// Enters a value: the one that was there before. Not a safepoint.
    ///
    /// # Errors
    /// If there is no memory, or the mutator is of another heap: nothing was changed.
    pub fn insert(
        &self,
        mutator: &mut Mutator<V>,
        key: ObjectReference,
        value: ObjectReference,
    ) -> Result<Option<ObjectReference>, ReferenceError> {
        if !mutator.belongs_to(&self.heap) {
            return Err(ReferenceError::OtherHeap);
        }
        let before = self.core.lock().insert(word(key), word(value))?;
        Ok(before.and_then(|before| Self::read(mutator, before)))
    }

    /// The value of a key. Not a safepoint.
    #[must_use]
    pub fn get(&self, mutator: &mut Mutator<V>, key: ObjectReference) -> Option<ObjectReference> {
        if !mutator.belongs_to(&self.heap) {
            return None;
        }
        let value = self.core.lock().get(word(key))?;
        Self::read(mutator, value)
    }

    /// Takes an entry out: its value. Not a safepoint.
    pub fn remove(
        &self,
        mutator: &mut Mutator<V>,
        key: ObjectReference,
    ) -> Option<ObjectReference> {
        if !mutator.belongs_to(&self.heap) {
            return None;
        }
        let value = self.core.lock().remove(word(key))?;
        Self::read(mutator, value)
    }

    fn read(mutator: &mut Mutator<V>, target: usize) -> Option<ObjectReference> {
        let target = object(target)?;
        mutator.read_weakly(target);
        Some(target)
    }

    /// Visits all entries, in no order. `visit` neither allocates nor uses the map. Not a safepoint.
    ///
    /// ```
    /// use heapwright::example::{Pairs, number, push, root};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("marksweep")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// push(&mut mutator, 1)?;
    /// push(&mut mutator, 2)?;
    /// let (key, value) = (root(&mutator, 0), root(&mutator, 1));
    /// let map = mutator.weak_map()?;
    /// map.insert(&mut mutator, key, value)?;
    /// let mut entries = Vec::new();
    /// map.for_each(&mut mutator, &mut |key, value| entries.push((number(key), number(value))));
    /// assert_eq!(entries, [(1, 2)]);
    /// assert_eq!(map.len(), 1);
    /// assert_eq!(map.remove(&mut mutator, key), Some(value));
    /// assert!(map.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn for_each(
        &self,
        mutator: &mut Mutator<V>,
        visit: &mut dyn FnMut(ObjectReference, ObjectReference),
    ) {
        if !mutator.belongs_to(&self.heap) {
            return;
        }
        self.core.lock().each(|key, value| {
            if let (Some(key), Some(value)) = (Self::read(mutator, key), Self::read(mutator, value))
            {
                visit(key, value);
            }
        });
    }

    /// How many entries there are, with those whose keys died since the last collection. Any thread.
    #[must_use]
    pub fn len(&self) -> usize {
        if self.heap.strong_count() == 0 {
            return 0;
        }
        self.core.lock().len()
    }

    /// Are there none? Any thread.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
