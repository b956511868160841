//! A look at the whole heap: its objects, what they refer to, and what keeps them, with the world stopped.
//!
//! For heap dumps and other inspections. Nothing is moved, marked or freed; what lives is for the one who looks to find out, from the
//! roots on.

use super::{Heap, Inner, Mutator, mutator};
use crate::bugs::{Bug, is_on};
use crate::vm::{RootVisitor, SlotFormat, SlotVisitor, Vm, WeakLookup, WeakVisitor};
use heapwright_address::{Address, ObjectReference, WildWord};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;

/// What keeps an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RootOrigin {
    /// A mutator: [`Vm::thread_roots`].
    Thread,
    /// The runtime, beside its threads: [`Vm::roots`], [`Vm::roots_of`].
    Runtime,
    /// It lives as long as the heap: [`Mutator::alloc_immortal`].
    Immortal,
    /// It waits to be finalized, or for the runtime to hear that a reference was cleared.
    Queued,
}

/// What somebody who looks for what lives knows so far: see [`Frozen::kept`].
pub trait Living {
    /// Was the object found to live?
    fn lives(&self, object: ObjectReference) -> bool;
    /// It lives: by what others keep, not by a field or a root.
    fn keep(&mut self, object: ObjectReference);
}

/// A heap whose world is stopped. See [`Mutator::freeze`].
///
/// ```
/// use heapwright::example::{Pairs, push};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("genimmix")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// for n in 0..3 {
///     push(&mut mutator, n)?;
/// }
/// let (objects, roots) = mutator.freeze(|frozen| {
///     let (mut objects, mut roots) = (0, 0);
///     frozen.for_each_object(&mut |_| objects += 1);
///     frozen.roots(&mut |_, _| roots += 1);
///     (objects, roots)
/// });
/// assert_eq!((objects, roots), (3, 3));
/// # Ok(())
/// # }
/// ```
pub struct Frozen<'h, V: Vm> {
    inner: &'h Inner<V>,
}

impl<V: Vm> core::fmt::Debug for Frozen<'_, V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Frozen").finish_non_exhaustive()
    }
}

/// Has somebody look at a stopped world. A panic of theirs is to be resumed when it goes on: else it would be stopped for ever.
pub(super) fn shown<R>(look: impl FnOnce() -> R) -> std::thread::Result<R> {
    catch_unwind(AssertUnwindSafe(look))
}

impl<V: Vm> Mutator<V> {
    /// Stops the world, runs `look`, and lets the world go on. A safepoint. `look` neither allocates nor uses a mutator of this heap;
    /// how long it takes is how long all mutators are stopped. If it panics, the world goes on, and the panic with it.
    pub fn freeze<R>(&mut self, look: impl FnOnce(&mut Frozen<'_, V>) -> R) -> R {
        freeze(self.inner(), true, look)
    }
}

impl<V: Vm> Heap<V> {
    /// As [`Mutator::freeze`], by a thread that has no mutator inside of the heap: with one it would wait for itself. None: the thread is in
    /// the middle of a collection of this heap, and nothing was looked at.
    ///
    /// ```
    /// use heapwright::example::{Pairs, push};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("immix")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// push(&mut mutator, 1)?;
    /// // Another thread may look while this one is outside, or when it comes to a safepoint.
    /// let roots = mutator.outside(|| {
    ///     let looking = std::thread::scope(|threads| {
    ///         let look = threads.spawn(|| {
    ///             heap.freeze(|frozen| {
    ///                 let mut roots = 0;
    ///                 frozen.roots(&mut |_, _| roots += 1);
    ///                 roots
    ///             })
    ///         });
    ///         look.join()
    ///     });
    ///     looking.ok().flatten()
    /// });
    /// assert_eq!(roots, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn freeze<R>(&self, look: impl FnOnce(&mut Frozen<'_, V>) -> R) -> Option<R> {
        let inner = &self.0;
        (!inner.is_collecting_here()).then(|| freeze(inner, false, look))
    }

    /// As [`Heap::freeze`], if no mutator is inside of the heap and nobody collects; else None, at once. Any thread.
    ///
    /// ```
    /// use heapwright::example::Pairs;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("immix")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// let used = || heap.freeze_if_quiet(|frozen| frozen.range().1);
    /// assert_eq!(used(), None);
    /// assert!(mutator.outside(used).is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn freeze_if_quiet<R>(&self, look: impl FnOnce(&mut Frozen<'_, V>) -> R) -> Option<R> {
        let inner = &self.0;
        let seen = inner.gate.try_close().then(|| {
            inner.with_gate_closed(false, || {
                // SAFETY: called by the one who closed the gate.
                unsafe { inner.make_countable() };
                shown(|| look(&mut Frozen { inner }))
            })
        });
        seen.map(|result| result.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

/// `inside`: the calling thread has a mutator that is.
fn freeze<V: Vm, R>(
    inner: &Inner<V>,
    inside: bool,
    look: impl FnOnce(&mut Frozen<'_, V>) -> R,
) -> R {
    let mut look = Some(look);
    loop {
        let seen = inner.stopped(inside, || {
            // SAFETY: called by the one who closed the gate.
            unsafe { inner.make_countable() };
            look.take()
                .map(|look| shown(|| look(&mut Frozen { inner })))
        });
        // Where somebody else stopped the world first, that is over, and it is tried again.
        if let Some(Some(result)) = seen {
            return result.unwrap_or_else(|panic| resume_unwind(panic));
        }
    }
}

impl<V: Vm> Frozen<'_, V> {
    /// The runtime.
    #[must_use]
    pub fn vm(&self) -> &V {
        &self.inner.vm
    }

    /// Where objects are, as of now: the first address and how many bytes. Both are multiples of 32 KiB.
    #[must_use]
    pub fn range(&self) -> (Address, usize) {
        let space = &self.inner.space;
        (Address::new(space.tables().base()), space.cells().extent())
    }

    /// Visits every object in the order of addresses, also those that died since the last collection: what their fields refer to may be
    /// gone. False if the heap does not know them all, which needs [`Vm::OBJECT_MAP`], and nothing was visited.
    pub fn for_each_object(&mut self, visit: &mut dyn FnMut(ObjectReference)) -> bool {
        if V::OBJECT_MAP {
            self.inner.space.for_each_object(visit);
        }
        V::OBJECT_MAP
    }

    /// Visits what keeps objects, from outside of the heap. An object may be visited several times.
    pub fn roots(&mut self, visit: &mut dyn FnMut(RootOrigin, ObjectReference)) {
        let inner = self.inner;
        let mut roots = Roots {
            inner,
            origin: RootOrigin::Thread,
            visit,
        };
        // SAFETY: the world is stopped by the calling thread, which nobody else visits mutators with: only `freeze` makes a `Frozen`,
        // and this borrows it exclusively.
        unsafe {
            let mut skip = is_on(Bug::FrozenMutatorSkipped);
            inner.locals.each(|local| {
                if !core::mem::take(&mut skip) {
                    inner.vm.thread_roots(&mut local.thread, &mut roots);
                }
            });
        }
        roots.origin = RootOrigin::Runtime;
        inner.vm.roots(&mut roots);
        for part in usize::from(is_on(Bug::FrozenPartSkipped))..inner.vm.root_parts() {
            inner.vm.roots_of(part, &mut roots);
        }
        roots.origin = RootOrigin::Immortal;
        let immortals = inner
            .immortals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for object in &immortals.all {
            if !is_on(Bug::FrozenImmortalsForgotten) {
                roots.report(*object);
            }
        }
        drop(immortals);
        roots.origin = RootOrigin::Queued;
        inner
            .references
            .roots(is_on(Bug::FrozenQueuedForgotten), &mut roots);
    }

    /// Reports what is kept because other objects live, without a field that [`Vm::scan`] reports: the values of ephemerons and of
    /// entries of weak maps, what soft references refer to, and what the runtime's own weak tables keep. Who looks for what lives asks
    /// again until nothing is added.
    pub fn kept(&mut self, living: &mut dyn Living) {
        let inner = self.inner;
        let reference = |a: usize| ObjectReference::from_address(Address::new(a));
        inner
            .references
            .kept(inner.vm.slots(), &mut |conditions, object| {
                let lives = |a: &usize| reference(*a).is_none_or(|o| living.lives(o));
                let object = reference(object).filter(|o| inner.has(o.to_address().as_usize()));
                if let Some(object) = object
                    && conditions.iter().all(lives)
                    && !living.lives(object)
                {
                    living.keep(object);
                }
            });
        if V::WEAK_TABLES && !is_on(Bug::FrozenTablesForgotten) {
            inner.vm.weak_tables(&mut Tables(living));
        }
    }

    /// How many fields of an object hold a reference or nothing.
    #[must_use]
    pub fn fields(&self, object: ObjectReference) -> usize {
        struct Count(usize);
        impl SlotVisitor for Count {
            fn slot(&mut self, _: Address) {
                self.0 += 1;
            }
            fn slots(&mut self, _: Address, count: usize) {
                self.0 += count;
            }
        }
        let mut count = Count(0);
        self.inner.vm.scan(object, &mut count);
        count.0
    }

    /// Visits what the fields of an object refer to, in the order in which [`Vm::scan`] reports them; `None`: nothing. A reference that
    /// leads out of the heap counts as nothing.
    ///
    /// ```
    /// use heapwright::example::{Pairs, link, push, root};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("immix")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// push(&mut mutator, 1)?;
    /// push(&mut mutator, 2)?;
    /// link(&mut mutator, 0, 1);
    /// let (first, second) = (root(&mutator, 0), root(&mutator, 1));
    /// mutator.freeze(|frozen| {
    ///     assert_eq!(frozen.fields(first), 1);
    ///     frozen.references(first, &mut |target| assert_eq!(target, Some(second)));
    ///     frozen.references(second, &mut |target| assert_eq!(target, None));
    ///     let (start, bytes) = frozen.range();
    ///     assert!(first.to_address().diff(start) < bytes);
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn references(
        &self,
        object: ObjectReference,
        visit: &mut dyn FnMut(Option<ObjectReference>),
    ) {
        struct Fields<'f, V: Vm> {
            inner: &'f Inner<V>,
            visit: &'f mut dyn FnMut(Option<ObjectReference>),
        }
        impl<V: Vm> SlotVisitor for Fields<'_, V> {
            fn slot(&mut self, slot: Address) {
                // SAFETY: a field that the runtime reported of an object (Vm rule 2).
                let target = unsafe { self.inner.vm.slots().load(slot) };
                (self.visit)(target.filter(|t| self.inner.has(t.to_address().as_usize())));
            }
            fn slots(&mut self, first: Address, count: usize) {
                for index in 0..count - usize::from(is_on(Bug::FrozenSlotForgotten)) {
                    self.slot(first.add(index * V::Slots::BYTES));
                }
            }
        }
        let inner = self.inner;
        inner.vm.scan(object, &mut Fields { inner, visit });
    }
}

impl<V: Vm> Inner<V> {
    /// Has the heap know of all objects and references that mutators have for themselves.
    ///
    /// # Safety
    /// The world is stopped by the calling thread.
    unsafe fn make_countable(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            self.locals.each(|local| {
                if !is_on(Bug::FrozenRunsKept) {
                    mutator::retire_runs(&self.space, local);
                }
                if !is_on(Bug::FrozenRegisteredForgotten) {
                    self.references.adopt(&mut local.registered);
                }
            });
        }
    }

    /// May an object be there?
    fn has(&self, address: usize) -> bool {
        address.is_multiple_of(8) && self.space.in_use(address)
    }
}

struct Roots<'r, V: Vm> {
    inner: &'r Inner<V>,
    origin: RootOrigin,
    visit: &'r mut dyn FnMut(RootOrigin, ObjectReference),
}

impl<V: Vm> Roots<'_, V> {
    fn report(&mut self, address: usize) {
        if self.inner.has(address)
            && let Some(object) = ObjectReference::from_address(Address::new(address))
        {
            (self.visit)(self.origin, object);
        }
    }
}

impl<V: Vm> RootVisitor for Roots<'_, V> {
    fn slot(&mut self, slot: Address) {
        // SAFETY: a root that the runtime reported (Vm rule 3).
        self.report(unsafe { slot.load::<usize>() });
    }

    fn slots(&mut self, first: Address, count: usize) {
        for index in 0..count {
            RootVisitor::slot(self, first.add(index * 8));
        }
    }

    fn pinned(&mut self, object: ObjectReference) {
        self.report(object.to_address().as_usize());
    }

    fn ambiguous(&mut self, word: WildWord) {
        let space = &self.inner.space;
        if !is_on(Bug::FrozenAmbiguousForgotten)
            && let Some(object) = space.object_around(word.bits(), |o| self.inner.vm.size(o))
        {
            self.pinned(object);
        }
    }
}

struct Tables<'l>(&'l mut dyn Living);

impl WeakLookup for Tables<'_> {
    fn get(&self, object: ObjectReference) -> Option<ObjectReference> {
        self.0.lives(object).then_some(object)
    }
}

impl WeakVisitor for Tables<'_> {
    fn keep(&mut self, object: ObjectReference) -> ObjectReference {
        if !self.0.lives(object) {
            self.0.keep(object);
        }
        object
    }
}
