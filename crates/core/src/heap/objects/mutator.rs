//! A mutator: what allocates, and writes references.

use super::concurrent::HAND_OVER;
use super::pins::PinGuard;
use super::tend::Wish;
use super::{Effort, Heap, Inner, Limits};
use crate::alloc::size_class::{CLASS_OF_GRANULES, CLASS_OF_WORDS, GRANULE_CLASS_COUNT};
use crate::alloc::{
    After, BLOCK_BYTES, CLASSES, Cursor, FastPath, LocalRuns, MAX_SMALL, Run, Sample, Sampler,
    Small,
};
use crate::bugs::{Bug, is_on};
use crate::collect::local::{Barrier, Local};
use crate::error::{AllocError, HeapError, LimitError};
use crate::event::{Cause, CollectionStats, Event, MutatorStop};
use crate::heap::sampling::{self, Refill, Sampling};
use crate::plan::Allocates;
use crate::probes;
use crate::space::ObjectSpace;
use crate::space::objects::{Extended, LINE, MAX_BUMP, Region, is_unlogged, take_unlogged};
use crate::space::pages::PAGE;
use crate::space::tables::{Entry, Policy};
use crate::vm::{Metadata, SlotFormat, SlotVisitor, Vm, World};
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use heapwright_address::{Address, ObjectReference};
use heapwright_os::{clock, current_thread, thread_number};
use std::sync::Arc;

/// A request that is refused without a look: no address space holds it.
const ABSURD: usize = 1 << 46;
/// How often an allocation collects before it gives up: as usual, everything, everything and at any price.
const EFFORTS: [Effort; 3] = [Effort::Usual, Effort::Full, Effort::Emergency];

/// A mutator of a heap. Used by one thread at a time; dropping it detaches it.
///
/// It is *inside* of the heap: collections wait for it, until it polls, allocates, or goes outside. References that it holds
/// are good until then; what is to survive, the runtime has to report as a root.
///
/// ```
/// use heapwright::example::{Pairs, number, push, root};
/// use std::thread;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("genimmix")?;
/// thread::scope(|scope| {
///     for id in 0..3 {
///         let heap = &heap;
///         scope.spawn(move || {
///             // One for each thread that uses the heap.
///             let mut mutator = heap.attach(Vec::new()).unwrap();
///             push(&mut mutator, id).unwrap();
///             for _ in 0..1000 {
///                 push(&mut mutator, 0).unwrap();
///                 mutator.thread().truncate(1);
///                 // Others may want to collect.
///                 mutator.poll();
///             }
///             // What blocks is done outside: collections do not wait for it.
///             mutator.outside(thread::yield_now);
///             mutator.collect();
///             assert_eq!(number(root(&mutator, 0)), id);
///         });
///     }
/// });
/// # Ok(())
/// # }
/// ```
pub struct Mutator<V: Vm> {
    pub(super) inner: Arc<Inner<V>>,
    local: NonNull<Local<V>>,
}

// SAFETY: the record is used by whoever has the mutator; `V::Thread` is Send.
unsafe impl<V: Vm> Send for Mutator<V> {}

impl<V: Vm> core::fmt::Debug for Mutator<V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Mutator").finish_non_exhaustive()
    }
}

impl<V: Vm> Mutator<V> {
    pub(super) fn attach(inner: Arc<Inner<V>>, thread: V::Thread) -> Result<Self, HeapError> {
        inner.gate.enter();
        let local = inner.locals.add(inner.new_local(thread));
        let Some(local) = local.and_then(NonNull::new) else {
            inner.gate.leave();
            return Err(HeapError::Attach);
        };
        // Who closed the gate before this mutator was in the list did not raise its flag, and waits for it.
        inner.gate.stop();
        Ok(Self { inner, local })
    }

    #[inline(always)]
    pub(super) fn local(&mut self) -> &mut Local<V> {
        // SAFETY: the record is in the heap's list until this is dropped; the thread is inside of the heap, so the collector
        // does not look at it.
        unsafe { self.local.as_mut() }
    }

    /// The runtime's data of this mutator.
    #[inline(always)]
    #[must_use]
    pub fn thread(&mut self) -> &mut V::Thread {
        &mut self.local().thread
    }

    /// The runtime's data of this mutator, to read.
    #[inline(always)]
    #[must_use]
    pub fn thread_ref(&self) -> &V::Thread {
        // SAFETY: as in `local`.
        unsafe { &self.local.as_ref().thread }
    }

    /// The runtime.
    #[must_use]
    pub fn vm(&self) -> &V {
        &self.inner.vm
    }

    // ---- for generated code --------------------------------------------------------------------------------------

    /// The mutator's record, to which the offsets of [`FastPath`] belong. It stays where it is until the mutator is dropped; what
    /// is in it is used by the mutator's thread only, while that is inside of the heap.
    #[must_use]
    pub fn record(&self) -> Address {
        Address::from_ptr(self.local.as_ptr())
    }

    /// How to allocate without a call: the same for all mutators of a heap.
    #[must_use]
    pub fn fast_path(&self) -> FastPath {
        let cells = self.inner.facts.allocates == Allocates::Cells;
        let bumps = matches!(self.inner.facts.allocates, Allocates::Bump(_));
        let align = if V::OBJECT_MAP { 16 } else { 8 };
        FastPath {
            align,
            least: 16,
            // A heap that counts its allocations wants to see them.
            most: match (self.inner.options.stress, cells, bumps) {
                (0, true, _) => MAX_SMALL,
                (0, _, true) => MAX_BUMP,
                _ => 0,
            },
            cursor: if cells {
                Cursor::Runs {
                    runs: offset_of!(Local<V>, runs),
                    first: LocalRuns::FIRST,
                    stride: size_of::<Run>(),
                    classes: if V::OBJECT_MAP {
                        &CLASS_OF_GRANULES
                    } else {
                        &CLASS_OF_WORDS
                    },
                }
            } else {
                Cursor::Record {
                    offset: offset_of!(Local<V>, region),
                }
            },
            after: if cells {
                After::Nothing
            } else if V::OBJECT_MAP {
                After::Enter
            } else if matches!(V::METADATA, Metadata::Header) {
                After::StoreHeader {
                    offset: offset_of!(Local<V>, new_header),
                }
            } else {
                After::Nothing
            },
            interrupt: offset_of!(Local<V>, interrupt),
            barrier: offset_of!(Local<V>, barrier),
        }
    }

    /// Completes the allocation of an object that generated code took by [`FastPath`], where that says so.
    pub fn enter_object(&mut self, object: ObjectReference) {
        self.new_object(object.to_address().as_usize());
    }

    // ---- allocation ----------------------------------------------------------------------------------------------

    /// Allocates `bytes`, zeroed, aligned to 8 (to 16 with [`Vm::OBJECT_MAP`]). At least 16 bytes are taken. May collect: a
    /// safepoint. The runtime gives the object its size before the next safepoint.
    ///
    /// The fast path is two loads, a subtraction, a comparison, an addition and a store; [`Mutator::fast_path`] describes it for
    /// runtimes that generate code.
    ///
    /// # Errors
    /// [`AllocError::OutOfMemory`] when collecting did not make room, or what the system said. The heap is unharmed.
    #[inline(always)]
    pub fn alloc(&mut self, bytes: usize) -> Result<ObjectReference, AllocError> {
        let align = if V::OBJECT_MAP { 16 } else { 8 };
        // An absurd request stays one.
        let bytes = (bytes.saturating_add(align - 1) & !(align - 1)).max(16);
        let local = self.local();
        if let Some(object) = local.region.bump(bytes) {
            self.new_object(object);
            // SAFETY: a place in the heap is not 0.
            return Ok(unsafe { ObjectReference::from_address_unchecked(Address::new(object)) });
        }
        // Of plans with size classes, whose regions are always empty.
        if bytes <= local.most_in_cells
            && let Some(runs) = &local.runs
        {
            let small = size_class::<V>(bytes);
            if let Some(object) = runs.run_for(0, small).bump(small.bytes()) {
                // SAFETY: as above.
                return Ok(unsafe {
                    ObjectReference::from_address_unchecked(Address::new(object))
                });
            }
        }
        self.alloc_slow(bytes)
    }

    /// What is to be done for a new object beside finding its place: nothing, unless the runtime wants an object map or grants
    /// header bits.
    #[inline(always)]
    fn new_object(&mut self, object: usize) {
        if V::OBJECT_MAP {
            self.inner.space.enter(object);
            if self.local().barrier == Barrier::Snapshot {
                let _ = self.inner.space.mark_in_side::<true>(object);
            }
        }
        if matches!(V::METADATA, Metadata::Header) {
            let header = self.local().new_header;
            if header != 0 {
                // SAFETY: a new object of at least 16 bytes.
                unsafe { Address::new(object).store(header) };
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow(&mut self, bytes: usize) -> Result<ObjectReference, AllocError> {
        let object = match self.inner.facts.allocates {
            _ if bytes >= ABSURD => return Err(AllocError::Unsatisfiable { requested: bytes }),
            Allocates::Cells if bytes <= MAX_SMALL => self.alloc_cell(Place::any::<V>(bytes))?,
            Allocates::Bump(policy) if bytes <= MAX_BUMP => self.alloc_bump(policy, bytes)?,
            _ => self.alloc_pages(bytes, (1, 0), false)?,
        };
        ObjectReference::from_address(Address::new(object))
            .ok_or(AllocError::Unsatisfiable { requested: bytes })
    }

    /// Allocates an object that never moves, in every plan: in cells of size classes, or in pages of its own. As
    /// [`Mutator::alloc`] otherwise.
    ///
    /// ```
    /// use heapwright::WildWord;
    /// use heapwright::example::{BYTES, Pairs, root};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("semispace")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// let stays = mutator.alloc_unmoving(BYTES)?;
    /// let table = mutator.alloc_immortal(BYTES)?;
    /// let vector = mutator.alloc_aligned(BYTES, 64, 16)?;
    /// // The field at 16, for instructions that want it so.
    /// assert!(vector.to_address().add(16).is_aligned_to(64));
    /// mutator.thread().push(stays.to_address().as_usize());
    /// mutator.collect();
    /// assert_eq!(root(&mutator, 0), stays);
    /// // Nothing leads to it.
    /// assert!(heap.is_object(WildWord::new(table.to_address().as_usize())));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Mutator::alloc`].
    pub fn alloc_unmoving(&mut self, bytes: usize) -> Result<ObjectReference, AllocError> {
        let bytes = bytes.max(16);
        if bytes >= ABSURD {
            return Err(AllocError::Unsatisfiable { requested: bytes });
        }
        let object = if bytes <= MAX_SMALL {
            self.alloc_cell(Place::any::<V>(bytes))?
        } else {
            self.alloc_pages(bytes, (1, 0), false)?
        };
        ObjectReference::from_address(Address::new(object))
            .ok_or(AllocError::Unsatisfiable { requested: bytes })
    }

    /// Allocates an object that lives as long as the heap, with all that it reaches, and never moves. As [`Mutator::alloc`]
    /// otherwise.
    ///
    /// # Errors
    /// As [`Mutator::alloc`].
    pub fn alloc_immortal(&mut self, bytes: usize) -> Result<ObjectReference, AllocError> {
        let object = self.alloc_unmoving(bytes)?;
        let mut immortals = self.inner.immortals();
        if immortals.all.try_reserve(1).is_err() {
            // The object dies: nothing is lost.
            return Err(AllocError::OutOfMemory { requested: bytes });
        }
        immortals.all.push(object.to_address().as_usize());
        drop(immortals);
        Ok(object)
    }

    /// Allocates an object of machine code: whole pages that are readable, writable and executable, at a multiple of `align`, a
    /// power of two. Nothing else in the heap is executable. It never moves, is collected as others are, and its pages are not
    /// executable any more when it is. As [`Mutator::alloc`] otherwise.
    ///
    /// ```
    /// use heapwright::AllocError;
    /// use heapwright::example::{BYTES, Pairs};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("immix")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// match mutator.alloc_code(BYTES, 64) {
    ///     Ok(code) => assert!(code.to_address().is_aligned_to(64)),
    ///     // Systems may forbid memory that is both writable and executable.
    ///     Err(refused) => assert!(matches!(refused, AllocError::Os(_)), "{refused}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Mutator::alloc`], if `align` is no power of two, and if the system does not allow such pages.
    pub fn alloc_code(
        &mut self,
        bytes: usize,
        align: usize,
    ) -> Result<ObjectReference, AllocError> {
        if !align.is_power_of_two() || bytes >= ABSURD || align >= ABSURD {
            return Err(AllocError::Unsatisfiable { requested: bytes });
        }
        let object = self.alloc_pages(bytes.max(16), (align, 0), true)?;
        ObjectReference::from_address(Address::new(object))
            .ok_or(AllocError::Unsatisfiable { requested: bytes })
    }

    /// Allocates an object such that its address plus `offset` is a multiple of `align`: the field at `offset` is aligned. `align`
    /// is a power of two, `offset` a multiple of 8. The object never moves. As [`Mutator::alloc`] otherwise.
    ///
    /// Up to some hundred bytes it gets a cell, of the size class in which the fewest cells are left out between two that fit;
    /// else pages of its own.
    ///
    /// # Errors
    /// As [`Mutator::alloc`], and if `align` is no power of two, or `offset` no multiple of 8.
    pub fn alloc_aligned(
        &mut self,
        bytes: usize,
        align: usize,
        offset: usize,
    ) -> Result<ObjectReference, AllocError> {
        let possible = align.is_power_of_two() && offset.is_multiple_of(8);
        if !possible || bytes >= ABSURD || align >= ABSURD {
            return Err(AllocError::Unsatisfiable { requested: bytes });
        }
        let bytes = bytes.max(16);
        let residue = offset.wrapping_neg() & (align - 1);
        let object = match Place::at(bytes, align, residue) {
            Some(place) => self.alloc_cell(place)?,
            None => self.alloc_pages(bytes, (align, residue), false)?,
        };
        ObjectReference::from_address(Address::new(object))
            .ok_or(AllocError::Unsatisfiable { requested: bytes })
    }

    fn alloc_bump(&mut self, policy: Policy, bytes: usize) -> Result<usize, AllocError> {
        self.count_for_stress();
        // What is larger than a line does not go from hole to hole.
        let medium = policy == Policy::Immix && bytes > LINE;
        let mut efforts = EFFORTS.iter();
        let mut point = None;
        loop {
            let inner = self.inner();
            let local = self.local();
            let sampling = inner.sampler().map(|s| (s, &local.countdown));
            let found = take(&mut local.region, bytes, sampling, &mut point);
            let region = if medium {
                &mut local.overflow
            } else {
                &mut local.region
            };
            let found = match found {
                None if medium => take(region, bytes, sampling, &mut point),
                found => found,
            };
            if let Some(object) = found {
                if inner.options.stress != 0 {
                    // The next allocation is to be counted too.
                    local.region.close();
                    local.overflow.close();
                }
                self.new_object(object);
                inner.sample(bytes, point);
                return Ok(object);
            }
            if inner.space.refill(region, bytes) {
                cut(region, sampling);
                continue;
            }
            if local.interrupt.is_raised() {
                self.stop();
                continue;
            }
            if inner.begin_if_due() {
                continue;
            }
            let holes = inner.space.fill_hole(region, policy, bytes);
            if holes {
                cut(region, sampling);
                inner.handed(BLOCK_BYTES);
                inner.tending.took(1);
                continue;
            }
            if self.make_room(bytes, BLOCK_BYTES / PAGE, &mut efforts)? {
                continue;
            }
            let local = self.local();
            let region = if medium {
                &mut local.overflow
            } else {
                &mut local.region
            };
            let hard = inner.sizing.bounds().hard();
            match inner.space.fill(region, policy, bytes, hard) {
                Ok(()) => {
                    cut(region, inner.sampler().map(|s| (s, &local.countdown)));
                    inner.handed(BLOCK_BYTES);
                    inner.tending.took(1);
                }
                Err(e) => self.try_harder(e, &mut efforts)?,
            }
        }
    }

    fn alloc_cell(&mut self, place: Place) -> Result<usize, AllocError> {
        let bytes = CLASSES[place.class].bytes as usize;
        let inner = self.inner();
        self.count_for_stress();
        let mut efforts = EFFORTS.iter();
        let mut point = None;
        loop {
            let Some(runs) = &self.local().runs else {
                return Err(AllocError::Unsatisfiable { requested: bytes });
            };
            let run = runs.run(place.kind as usize, place.class);
            if let Some(object) = place.take(&inner.space, run) {
                inner.sample(bytes, point);
                return Ok(object);
            }
            let cells = inner.space.cells();
            let sampling = inner.sampler().map(|s| (s, &runs.countdown));
            let given = sampling::refill(cells, run, place.kind, place.class, sampling);
            // The point of a cell that was of no use is nobody's.
            point = match given {
                Refill::Sampled(mean) => Some(mean),
                _ => point.filter(|_| is_on(Bug::SamplePointKept)),
            };
            if given != Refill::Empty {
                if inner.space.marking() {
                    inner.space.mark_cells(run, bytes);
                }
                continue;
            }
            // Blocks with free cells of the class are in use as it is.
            let pages = match inner
                .space
                .with(|stock| stock.has_cells(place.kind, place.class))
            {
                true => 0,
                false => BLOCK_BYTES / PAGE,
            };
            if self.make_room(bytes, pages, &mut efforts)? {
                continue;
            }
            let Some(runs) = &self.local().runs else {
                return Err(AllocError::Unsatisfiable { requested: bytes });
            };
            let run = runs.run(place.kind as usize, place.class);
            let old = run.end();
            let base = inner.space.tables().base();
            let old = (old != 0).then(|| (old - 1 - base) / BLOCK_BYTES * BLOCK_BYTES);
            let hard = inner.sizing.bounds().hard();
            let block = inner.space.with(|stock| {
                let pages = BLOCK_BYTES / PAGE;
                if !stock.has_cells(place.kind, place.class) && stock.used_pages() + pages > hard {
                    return Ok(None);
                }
                let block = stock.take_cells(&inner.space, old, place.kind, place.class);
                block.map(Some)
            });
            match block {
                // Others took what there was between the look and here.
                Ok(None) => {
                    let full = AllocError::OutOfMemory { requested: bytes };
                    self.try_harder(full, &mut efforts)?;
                }
                Ok(Some(block)) => {
                    let start = base + block;
                    let used = CLASSES[place.class].used as usize;
                    run.set(start, start, start + used);
                    inner.handed(used);
                    inner.tending.took(1);
                }
                Err(e) => {
                    run.set(0, 0, 0);
                    return Err(e);
                }
            }
        }
    }

    fn alloc_pages(
        &mut self,
        bytes: usize,
        at: (usize, usize),
        code: bool,
    ) -> Result<usize, AllocError> {
        self.count_for_stress();
        let mut efforts = EFFORTS.iter();
        let inner = self.inner();
        let pages = (at.1 % PAGE + bytes).div_ceil(PAGE);
        loop {
            if self.make_room(bytes, pages, &mut efforts)? {
                continue;
            }
            let hard = inner.sizing.bounds().hard();
            let object = inner.space.with(|stock| {
                if stock.used_pages() + pages > hard {
                    return Err(AllocError::OutOfMemory { requested: bytes });
                }
                stock.take_large(&inner.space, bytes, at, code)
            });
            match object {
                Ok(object) => {
                    let local = self.local();
                    inner.handed(bytes);
                    inner.tending.took(bytes / BLOCK_BYTES);
                    if let Some(sampler) = inner.sampler() {
                        inner.sample(bytes, local.countdown.object(sampler, bytes));
                    }
                    return Ok(object.as_usize());
                }
                Err(e) => self.try_harder(e, &mut efforts)?,
            }
        }
    }

    /// Collects if there is no room for `pages` more, for an object of `bytes`: true if a collection ran, by whomever, and it is to
    /// be tried again.
    fn make_room(
        &mut self,
        bytes: usize,
        pages: usize,
        efforts: &mut core::slice::Iter<'_, Effort>,
    ) -> Result<bool, AllocError> {
        if self.local().interrupt.is_raised() {
            self.stop();
            return Ok(true);
        }
        let inner = self.inner();
        if inner.begin_if_due() {
            return Ok(true);
        }
        if !inner.facts.collects {
            let used = inner.page_usage().used.saturating_add(pages);
            return if used <= inner.sizing.bounds().hard() {
                Ok(false)
            } else {
                Err(self.out_of_memory(bytes))
            };
        }
        // What a collection does not free, it frees the less if it is repeated for its sake.
        let external = efforts.len() == EFFORTS.len() && inner.sizing.external_is_due();
        if external {
            inner.full_next.store(true, Ordering::Relaxed);
        } else if !inner.due(pages) {
            return Ok(false);
        }
        // All was traced: what is in the way is the present limit.
        if efforts.as_slice().first() == Some(&Effort::Emergency) {
            let usage = inner.page_usage();
            if inner.sizing.raise(inner.needed(&usage, pages)) {
                return Ok(false);
            }
        }
        self.collect_as(bytes, efforts)?;
        Ok(true)
    }

    /// After an allocation failed: collects and has it tried again, or gives the error back.
    fn try_harder(
        &mut self,
        error: AllocError,
        efforts: &mut core::slice::Iter<'_, Effort>,
    ) -> Result<(), AllocError> {
        match error {
            AllocError::OutOfMemory { requested } if self.inner().facts.collects => {
                self.collect_as(requested, efforts)
            }
            AllocError::OutOfMemory { requested } => Err(self.out_of_memory(requested)),
            error => Err(error),
        }
    }

    /// Collects with the next effort; above the soft limit with the greatest, instead of a second one.
    fn collect_as(
        &mut self,
        bytes: usize,
        efforts: &mut core::slice::Iter<'_, Effort>,
    ) -> Result<(), AllocError> {
        let inner = self.inner();
        let Some(&effort) = efforts.next() else {
            return Err(self.out_of_memory(bytes));
        };
        let (cause, effort) = match effort {
            Effort::Usual => (Cause::Budget, effort),
            _ if inner.sizing.is_above_soft(inner.page_usage().used) => {
                (Cause::Limit, Effort::Emergency)
            }
            _ => (Cause::Limit, effort),
        };
        let _ = inner.collect(cause, effort);
        Ok(())
    }

    // ---- limits and external memory --------------------------------------------------------------------------------

    /// As [`super::Heap::set_limits`], but collects first if more is in use than the hard limit allows. A safepoint.
    ///
    /// # Errors
    /// If still more is in use then, and as [`super::Heap::set_limits`]. The old limits stay in force.
    pub fn set_limits(&mut self, limits: Limits) -> Result<(), LimitError> {
        let inner = self.inner();
        let mut result = inner.set_limits(limits);
        for effort in [Effort::Full, Effort::Emergency] {
            if !matches!(result, Err(LimitError::BelowUse { .. })) {
                break;
            }
            let _ = inner.collect(Cause::Limit, effort);
            result = inner.set_limits(limits);
        }
        result
    }

    /// The runtime took `bytes` outside of the heap for an object, from malloc or elsewhere. They count towards the trigger of
    /// collections, not towards limits. Not a safepoint; a collection that this makes due happens at the next one. Two atomic
    /// operations.
    ///
    /// ```
    /// use heapwright::example::Pairs;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("immix")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// mutator.external_allocated(1 << 20);
    /// assert_eq!(heap.usage().external_bytes, 1 << 20);
    /// // A finalizer that has no mutator asks the heap.
    /// heap.external_freed(1 << 19);
    /// mutator.external_freed(1 << 19);
    /// assert_eq!(heap.usage().external_bytes, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn external_allocated(&mut self, bytes: usize) {
        if self.inner.sizing.external_allocated(bytes) && self.inner.facts.collects {
            self.inner.tending.wish(&self.inner.locals, Wish::External);
        }
    }

    /// The runtime gave such memory back: at the latest when the object is dead. More than was ever taken counts as all. Any thread
    /// that has a mutator; a finalizer that has none calls [`super::Heap::external_freed`].
    pub fn external_freed(&mut self, bytes: usize) {
        self.inner.sizing.external_freed(bytes);
    }

    /// Its heap.
    #[must_use]
    pub fn heap(&self) -> Heap<V> {
        Heap(Arc::clone(&self.inner))
    }

    pub(super) fn shared(&self) -> &Arc<Inner<V>> {
        &self.inner
    }

    pub(super) fn record_ptr(&self) -> *mut Local<V> {
        self.local.as_ptr()
    }

    pub(super) fn inner<'a>(&self) -> &'a Inner<V> {
        // SAFETY: the heap lives as long as this mutator, and the reference is used within one of its methods.
        unsafe { &*Arc::as_ptr(&self.inner) }
    }

    fn count_for_stress(&mut self) {
        self.local().yields.point();
        let every = self.inner.options.stress;
        if every == 0 {
            return;
        }
        let local = self.local();
        local.stress = local.stress.saturating_sub(1);
        if local.stress == 0 {
            local.stress = every;
            let _ = self.inner().collect(Cause::Stress, Effort::Usual);
        }
    }

    /// Keeps an object where it is until the guard is dropped: see [`super::Heap::pin`]. Not a safepoint.
    #[must_use]
    pub fn pin(&self, object: ObjectReference) -> PinGuard<V> {
        PinGuard::new(Arc::clone(&self.inner), object)
    }

    // ---- safepoints ----------------------------------------------------------------------------------------------

    /// A safepoint: stops here if a collection waits. One load and a branch.
    #[inline(always)]
    pub fn poll(&mut self) {
        if self.local().interrupt.is_raised() {
            self.stop();
        }
    }

    #[cold]
    #[inline(never)]
    fn stop(&mut self) {
        self.local().yields.point();
        probes::mutator_stop();
        if self.inner.wants_details() {
            self.stop_watched();
        } else {
            self.inner.gate.stop();
        }
        probes::mutator_resume();
        self.local().yields.point();
        self.grant();
    }

    fn stop_watched(&mut self) {
        let stopped_ns = clock::monotonic_ns();
        self.inner.gate.stop();
        if let Some(listener) = &self.inner.listener {
            listener.event(Event::MutatorStopped(&MutatorStop {
                thread: thread_number(),
                stopped_ns,
                resumed_ns: clock::monotonic_ns(),
            }));
        }
    }

    /// Runs `f` outside of the heap: collections do not wait for it. `f` gets no access to the mutator, and must not use
    /// references to objects.
    pub fn outside<R>(&mut self, f: impl FnOnce() -> R) -> R {
        struct Back<'a, V: Vm>(&'a dyn World, NonNull<Local<V>>);
        impl<V: Vm> Drop for Back<'_, V> {
            fn drop(&mut self) {
                self.0.enter();
                // SAFETY: the mutator's record, inside of the heap.
                let local = unsafe { self.1.as_mut() };
                (local.owner, local.inside) = (current_thread(), true);
            }
        }
        self.local().inside = false;
        self.inner.gate.leave();
        self.inner.tending.changed();
        // Also if `f` panics: the mutator is inside when it is used again.
        let _back = Back(&*self.inner.gate, self.local);
        f()
    }

    /// Collects everything now: what was garbage when this was called is gone when it returns. Where a mark goes on while mutators run, it is
    /// completed, and a collection in one pause follows. A safepoint. None: the plan does not collect, or another thread just did.
    pub fn collect(&mut self) -> Option<CollectionStats> {
        self.inner().collect_all(Cause::Requested, Effort::Full)
    }

    /// Collects what the plan thinks is due. A safepoint. As [`Mutator::collect`] otherwise.
    pub fn collect_young(&mut self) -> Option<CollectionStats> {
        self.inner().collect(Cause::Requested, Effort::Usual)
    }

    /// Begins a collection that goes on while mutators run, where the plan has such; elsewhere as [`Mutator::collect_young`]. A
    /// safepoint.
    pub fn collect_in_background(&mut self) {
        let inner = self.inner();
        if !inner.facts.concurrent {
            let _ = self.collect_young();
        } else if !inner.space.marking() {
            inner.begin();
        }
    }

    /// Visits every object of the heap, in the order of addresses, with the world stopped. A safepoint. Needs [`Vm::OBJECT_MAP`],
    /// without which this does not compile.
    ///
    /// Objects that died since the last collection are visited too, and what their fields refer to may be gone: collect first if
    /// that matters. `visit` neither allocates nor uses a mutator of this heap.
    pub fn for_each_object(&mut self, visit: &mut dyn FnMut(ObjectReference)) {
        const {
            assert!(
                V::OBJECT_MAP,
                "to visit all objects the heap needs Vm::OBJECT_MAP"
            );
        }
        while !self.inner().enumerate(visit) {}
    }

    // ---- the write barrier -----------------------------------------------------------------------------------------

    /// The barrier: before a reference is written into `slot` of `object`, or with `None` into any number of its fields (a bulk
    /// copy). Not a safepoint, and there must be none between it and the write. One call serves both those plans that want the value
    /// that is overwritten and those that want to know the object that is written to; nothing is to be called after the write.
    ///
    /// To clear a field or to copy many, which [`Mutator::write`] does not do:
    ///
    /// ```
    /// use heapwright::example::{Pairs, SLOTS, link, next, push, root};
    /// use heapwright::{SlotFormat, Vm};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("concurrentimmix")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// push(&mut mutator, 1)?;
    /// push(&mut mutator, 2)?;
    /// link(&mut mutator, 0, 1);
    /// // Marking goes on from here; it has to see what was there when it began.
    /// mutator.collect_in_background();
    /// let pair = root(&mutator, 0);
    /// let field = pair.to_address().add(SLOTS[0] as usize);
    /// mutator.before_write(pair, Some(field));
    /// // SAFETY: a field of an object that is alive.
    /// unsafe { heap.vm().slots().clear(field) };
    /// assert_eq!(next(pair), None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The fast half is inline: without a barrier one load and a branch; with generations also a test of a bit of the object.
    #[inline(always)]
    pub fn before_write(&mut self, object: ObjectReference, slot: Option<Address>) {
        match self.local().barrier {
            Barrier::None => {}
            Barrier::Object => {
                let address = object.to_address().as_usize();
                if is_unlogged::<V>(&self.inner.space, address) {
                    self.log(address);
                }
            }
            Barrier::Snapshot => self.snapshot(object, slot),
        }
    }

    /// Writes a reference into a field, with the barrier. Not a safepoint. To write "nothing", call [`Mutator::before_write`] and
    /// then [`crate::SlotFormat::clear`].
    ///
    /// # Safety
    /// `slot` is a field of `object` in the runtime's format, and `object` and `value` are alive.
    #[inline(always)]
    pub unsafe fn write(&mut self, object: ObjectReference, slot: Address, value: ObjectReference) {
        self.before_write(object, Some(slot));
        // SAFETY: the caller's promise.
        unsafe { self.inner.vm.slots().store(slot, value) };
    }

    #[cold]
    #[inline(never)]
    fn log(&mut self, object: usize) {
        if take_unlogged::<V>(&self.inner.space, object) && !is_on(Bug::BarrierDropped) {
            self.remember(object);
        }
    }

    pub(super) fn remember(&mut self, word: usize) {
        let most = if self.inner.options.stress == 0 {
            HAND_OVER
        } else {
            8
        };
        let local = self.local();
        if local.log.len() == local.log.capacity() && local.log.try_reserve(256).is_err() {
            local.log_lost = true;
            return;
        }
        local.log.push(word);
        if local.barrier == Barrier::Snapshot && local.log.len() >= most {
            let inner = self.inner();
            let _ = inner.background.hand_over(&mut self.local().log);
        }
    }

    #[cold]
    #[inline(never)]
    fn snapshot(&mut self, object: ObjectReference, slot: Option<Address>) {
        struct Old<'m, S: SlotFormat>(S, &'m mut Vec<usize>);
        impl<S: SlotFormat> SlotVisitor for Old<'_, S> {
            fn slot(&mut self, slot: Address) {
                // SAFETY: a field of an object that is alive.
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
        let mut found = Vec::new();
        let mut old = Old(self.inner.vm.slots(), &mut found);
        match slot {
            Some(slot) => old.slot(slot),
            None => self.inner().vm.scan(object, &mut old),
        }
        for word in found {
            if !is_on(Bug::SnapshotDropped) {
                self.remember(word);
            }
        }
    }
}

/// The size class of a request of at most [`MAX_SMALL`] bytes: with an object map, objects lie at multiples of 16.
#[inline(always)]
fn size_class<V: Vm>(bytes: usize) -> Small {
    if V::OBJECT_MAP {
        Small::of(bytes)
    } else {
        Small::of_words(bytes)
    }
}

/// Where a cell for an object may be.
#[derive(Clone, Copy, Debug)]
struct Place {
    kind: u8,
    class: usize,
    /// A power of two.
    align: usize,
    /// The cell's address modulo `align`.
    residue: usize,
    /// Bytes before the object: 0 or 8.
    lead: usize,
}

impl Place {
    /// Anywhere: for an object of at most [`MAX_SMALL`] bytes.
    fn any<V: Vm>(bytes: usize) -> Self {
        Self {
            kind: 0,
            class: size_class::<V>(bytes).class(),
            align: 1,
            residue: 0,
            lead: 0,
        }
    }

    /// `residue` bytes behind a multiple of `align`, if there are cells for that which waste little.
    fn at(bytes: usize, align: usize, residue: usize) -> Option<Self> {
        let lead = residue % 16;
        let residue = residue - lead;
        if bytes + lead > MAX_SMALL {
            return None;
        }
        // Cells of `n` bytes lie at multiples of n in a block. Modulo `align` these are the multiples of the largest power of two
        // that divides both, each of them once in `turn` bytes.
        let turn = |class: usize| {
            let bytes = CLASSES[class].bytes as usize;
            let common = 1 << bytes.trailing_zeros().min(align.trailing_zeros());
            residue
                .is_multiple_of(common)
                .then(|| bytes * (align / common))
        };
        let class = (Small::of(bytes + lead).class()..GRANULE_CLASS_COUNT)
            .filter(|&class| turn(class).is_some_and(|turn| turn <= PAGE))
            .min_by_key(|&class| turn(class))?;
        let kind = match lead {
            0 if turn(class) == Some(CLASSES[class].bytes as usize) => 0,
            0 => Entry::APART,
            _ => Entry::BEHIND,
        };
        Some(Self {
            kind,
            class,
            align,
            residue,
            lead,
        })
    }

    /// Takes the run's next cell that fits, and gives those before it back. For the run's owner.
    fn take(self, space: &ObjectSpace, run: &Run) -> Option<usize> {
        let bytes = CLASSES[self.class].bytes as usize;
        let (cursor, limit) = run.cells();
        let mut fits = cursor;
        while fits < limit && fits & (self.align - 1) != self.residue & (self.align - 1) {
            fits += bytes;
        }
        if fits != cursor {
            let block = (cursor - space.tables().base()) / BLOCK_BYTES * BLOCK_BYTES;
            space.forget_cells(cursor, fits, block);
            run.skip_to(fits);
        }
        run.bump(bytes).map(|cell| cell + self.lead)
    }
}

/// Takes `bytes` from a region, of which more may have to be zeroed. If the object is to be sampled, `point` becomes the mean
/// distance of points.
#[inline]
fn take(
    region: &mut Region,
    bytes: usize,
    sampling: Sampling<'_>,
    point: &mut Option<usize>,
) -> Option<usize> {
    if let Some(object) = region.bump(bytes) {
        return Some(object);
    }
    match sampling.filter(|_| region.is_cut()) {
        None => region.extend(bytes).then(|| region.bump(bytes)).flatten(),
        Some(sampling) => match region.extend_cut(bytes, sampling) {
            Extended::No => None,
            Extended::Yes => region.bump(bytes),
            Extended::Sampled(object, mean) => {
                *point = Some(mean);
                Some(object)
            }
        },
    }
}

/// After a region was filled.
fn cut(region: &mut Region, sampling: Sampling<'_>) {
    if let Some(sampling) = sampling {
        region.cut(sampling);
    }
}

impl<V: Vm> Inner<V> {
    #[inline]
    fn sampler(&self) -> Option<&dyn Sampler> {
        self.sampler.as_deref()
    }

    /// Tells of an object of `bytes`, if a point lies in it.
    fn sample(&self, bytes: usize, point: Option<usize>) {
        if let (Some(sampler), Some(mean)) = (self.sampler(), point) {
            probes::sample(bytes as u64, mean as u64);
            sampler.sample(Sample::new(bytes, mean, 0));
        }
    }
}

/// Takes back the memory that a mutator has not used. World stopped, or by its owner.
pub(super) fn retire<V: Vm>(space: &ObjectSpace, local: &mut Local<V>) {
    if !is_on(Bug::RegionKept) {
        local.region.clear();
    }
    local.overflow.clear();
    if !is_on(Bug::RunKept) {
        retire_runs(space, local);
    }
}

/// The same for what it has of blocks with size classes.
pub(super) fn retire_runs<V: Vm>(space: &ObjectSpace, local: &Local<V>) {
    let Some(runs) = &local.runs else {
        return;
    };
    let base = space.tables().base();
    runs.each(|_, _, run| {
        let block = (run.end() - 1 - base) / BLOCK_BYTES * BLOCK_BYTES;
        let (cursor, limit) = run.cells();
        space.forget_cells(cursor, limit, block);
        space.with(|stock| stock.cells.leave_unfinished(space.cells(), block));
        run.set(0, 0, 0);
    });
}

/// Gives the heap what a mutator has that ends. World stopped, or by its owner.
pub(super) fn end<V: Vm>(inner: &Inner<V>, local: &mut Local<V>) {
    if local.region.is_cut() && is_on(Bug::SampleAtDetach) {
        inner.sample(16, Some(local.countdown.mean()));
    }
    retire(&inner.space, local);
    inner.references.adopt(&mut local.registered);
    // What this mutator remembered others must not forget.
    if !local.log.is_empty() || local.log_lost {
        inner.adopt_log(core::mem::take(&mut local.log), local.log_lost);
    }
}

impl<V: Vm> Drop for Mutator<V> {
    fn drop(&mut self) {
        let inner = &self.inner;
        // SAFETY: this mutator's own, inside of the heap: no collection is under way.
        let local = unsafe { inner.locals.remove(self.local.as_ptr()) };
        // In the child of a fork it may be another thread's, which is not counted any more.
        if let Some(mut local) = local {
            end(inner, &mut local);
            inner.tending.changed();
            inner.gate.leave();
        }
    }
}
