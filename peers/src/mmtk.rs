//! mmtk-core, with every plan that it has, behind a binding as its documentation wants one: the bump pointer and the test of
//! the barrier are inlined, link-time optimisation does the rest, and nothing is asked of mmtk per object that it does not
//! need to know.

use crate::layout::{self, Object, from_word, to_word};
use crate::record::{self, Pause};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use heapwright_bench::runtime::{Full, Root, Runtime, Thread};
use mmtk::plan::PlanConstraints;
use mmtk::scheduler::GCWorker;
use mmtk::util::alloc::{
    AllocationError, Allocator, AllocatorInfo, AllocatorSelector, BumpAllocator, BumpPointer,
    FreeListAllocator, ImmixAllocator, LargeObjectAllocator, MarkCompactAllocator,
};
use mmtk::util::copy::{CopySemantics, GCWorkerCopyContext};
use mmtk::util::options::{GCTriggerSelector, PlanSelector};
use mmtk::util::{
    Address, ObjectReference, OpaquePointer, VMMutatorThread, VMThread, VMWorkerThread,
};
use mmtk::vm::slot::{SimpleSlot, UnimplementedMemorySlice};
use mmtk::vm::{
    ActivePlan, Collection, GCThreadContext, ObjectModel, ObjectTracer, ObjectTracerContext,
    ReferenceGlue, RootsWorkFactory, Scanning, SlotVisitor, VMBinding, VMGlobalLogBitSpec,
    VMLocalForwardingBitsSpec, VMLocalForwardingPointerSpec, VMLocalLOSMarkNurserySpec,
    VMLocalMarkBitSpec,
};
use mmtk::{AllocationSemantics, BarrierSelector, MMTK, MMTKBuilder, Mutator, MutatorContext};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

/// The plans, by their names on the command line.
pub(crate) const PLANS: &[&str] = &[
    "nogc",
    "semispace",
    "marksweep",
    "markcompact",
    "immix",
    "gencopy",
    "genimmix",
    "stickyimmix",
    "concurrentimmix",
    "compressor",
];

fn selector(plan: &str) -> Option<PlanSelector> {
    Some(match plan {
        "nogc" => PlanSelector::NoGC,
        "semispace" => PlanSelector::SemiSpace,
        "marksweep" => PlanSelector::MarkSweep,
        "markcompact" => PlanSelector::MarkCompact,
        "immix" => PlanSelector::Immix,
        "gencopy" => PlanSelector::GenCopy,
        "genimmix" => PlanSelector::GenImmix,
        "stickyimmix" => PlanSelector::StickyImmix,
        "concurrentimmix" => PlanSelector::ConcurrentImmix,
        "compressor" => PlanSelector::Compressor,
        _ => return None,
    })
}

/// Objects up to this size are bump-allocated without a look at the plan's own limit, which is not below.
const BUMP_LIMIT: usize = 8 << 10;

/// Slots of the shadow stack in one work packet.
const ROOTS_PER_PACKET: usize = 4096;

/// How each plan's barrier is tested for: nothing to do.
pub(crate) const NO_BARRIER: u8 = 0;
/// Look at the log bit after the store.
pub(crate) const AFTER: u8 = 1;
/// Look at the log bit before the store.
pub(crate) const BEFORE: u8 = 2;

static INSTANCE: OnceLock<&'static MMTK<Vm>> = OnceLock::new();

fn instance() -> &'static MMTK<Vm> {
    let Some(mmtk) = INSTANCE.get() else {
        unreachable!(
            "set before the first thread is attached and before a collector thread starts"
        );
    };
    mmtk
}

fn constraints() -> &'static PlanConstraints {
    instance().get_plan().constraints()
}

// ---- Who stops and who goes on ----

/// A running thread is to stop at its next poll.
static STOP: AtomicBool = AtomicBool::new(false);

/// Under a lock: which threads there are, and how many of them touch the heap at the moment.
struct World {
    threads: Vec<*mut Context>,
    running: usize,
    stopping: bool,
    /// Counts pauses.
    pauses: u64,
    /// When the pause that there is was asked for.
    since: Option<Instant>,
    /// Weak boxes that survived a collection, or whose thread is gone.
    weak: Vec<Object>,
}

// SAFETY: contexts and objects are reached from other threads in pauses only.
unsafe impl Send for World {}

static WORLD: Mutex<World> = Mutex::new(World {
    threads: Vec::new(),
    running: 0,
    stopping: false,
    pauses: 0,
    since: None,
    weak: Vec::new(),
});

/// The last thread stopped.
static STOPPED: Condvar = Condvar::new();
/// The pause is over.
static RESUMED: Condvar = Condvar::new();
/// What kind the last pause had, as [`pause_kind`] says.
static LAST_KIND: AtomicU8 = AtomicU8::new(0);

fn world() -> MutexGuard<'static, World> {
    WORLD.lock().unwrap_or_else(|e| e.into_inner())
}

/// The calling thread does not touch the heap from here on.
fn leave(world: &mut World) {
    world.running -= 1;
    if world.running == 0 {
        STOPPED.notify_all();
    }
}

/// The calling thread waits until there is no pause, and touches the heap from then on.
fn enter(mut world: MutexGuard<'static, World>) -> MutexGuard<'static, World> {
    while world.stopping {
        world = RESUMED.wait(world).unwrap_or_else(|e| e.into_inner());
    }
    world.running += 1;
    world
}

#[cold]
#[inline(never)]
fn stop_here() {
    let mut world = world();
    leave(&mut world);
    drop(enter(world));
}

// ---- What mmtk is told ----

/// What mmtk knows a thread by. It looks at this of a stopped thread only.
#[derive(Debug)]
struct Context {
    /// A thread of the runtime, not one of the collector.
    is_mutator: bool,
    mutator: *mut Mutator<Vm>,
    stack: Vec<Option<Object>>,
    /// Weak boxes since the last collection.
    young_weak: Vec<Object>,
}

impl Context {
    fn thread(this: *mut Self) -> VMThread {
        VMThread(OpaquePointer::from_address(Address::from_mut_ptr(this)))
    }

    fn of(thread: VMThread) -> *mut Self {
        thread.0.to_address().to_mut_ptr()
    }
}

/// The binding.
#[derive(Debug, Default)]
pub(crate) struct Vm;

impl VMBinding for Vm {
    type VMObjectModel = Self;
    type VMScanning = Self;
    type VMCollection = Self;
    type VMActivePlan = Self;
    type VMReferenceGlue = Self;
    type VMSlot = SimpleSlot;
    type VMMemorySlice = UnimplementedMemorySlice<SimpleSlot>;

    const ALIGNMENT_VALUE: u8 = 0;
    const MIN_ALIGNMENT: usize = 8;
    const MAX_ALIGNMENT: usize = 8;
    const USE_ALLOCATION_OFFSET: bool = false;
    const ALLOC_END_ALIGNMENT: usize = 8;
}

#[inline(always)]
fn object(reference: ObjectReference) -> Object {
    // SAFETY: a reference is not null, and all of them are to our objects.
    unsafe {
        Object::at(NonNull::new_unchecked(
            reference.to_raw_address().to_mut_ptr(),
        ))
    }
}

#[inline(always)]
fn reference(object: Object) -> ObjectReference {
    // SAFETY: the start of an object is not null and aligned.
    unsafe {
        ObjectReference::from_raw_address_unchecked(Address::from_mut_ptr(object.start().as_ptr()))
    }
}

impl ObjectModel<Self> for Vm {
    const GLOBAL_LOG_BIT_SPEC: VMGlobalLogBitSpec = VMGlobalLogBitSpec::side_first();
    // Over the header of the old copy.
    const LOCAL_FORWARDING_POINTER_SPEC: VMLocalForwardingPointerSpec =
        VMLocalForwardingPointerSpec::in_header(0);
    const LOCAL_FORWARDING_BITS_SPEC: VMLocalForwardingBitsSpec =
        VMLocalForwardingBitsSpec::side_first();
    const LOCAL_MARK_BIT_SPEC: VMLocalMarkBitSpec =
        VMLocalMarkBitSpec::side_after(Self::LOCAL_FORWARDING_BITS_SPEC.as_spec());
    const LOCAL_LOS_MARK_NURSERY_SPEC: VMLocalLOSMarkNurserySpec =
        VMLocalLOSMarkNurserySpec::side_after(Self::LOCAL_MARK_BIT_SPEC.as_spec());

    const UNIFIED_OBJECT_REFERENCE_ADDRESS: bool = true;
    const OBJECT_REF_OFFSET_LOWER_BOUND: isize = 0;
    const VM_WORST_CASE_COPY_EXPANSION: f64 = 1.0;

    #[inline(always)]
    fn copy(
        from: ObjectReference,
        semantics: CopySemantics,
        copy_context: &mut GCWorkerCopyContext<Self>,
    ) -> ObjectReference {
        let bytes = object(from).bytes();
        let to = copy_context.alloc_copy(from, bytes, 8, 0, semantics);
        // SAFETY: mmtk gave the room, and an object is as long as it says.
        let new = unsafe {
            core::ptr::copy_nonoverlapping::<u64>(
                from.to_raw_address().to_ptr(),
                to.to_mut_ptr(),
                bytes / 8,
            );
            ObjectReference::from_raw_address_unchecked(to)
        };
        copy_context.post_copy(new, bytes, semantics);
        new
    }

    fn copy_to(from: ObjectReference, to: ObjectReference, _region: Address) -> Address {
        let bytes = object(from).bytes();
        // SAFETY: as above, but the two may overlap.
        unsafe {
            core::ptr::copy::<u64>(
                from.to_raw_address().to_ptr(),
                to.to_raw_address().to_mut_ptr(),
                bytes / 8,
            )
        };
        to.to_raw_address() + bytes
    }

    fn get_reference_when_copied_to(_from: ObjectReference, to: Address) -> ObjectReference {
        // SAFETY: not null and aligned.
        unsafe { ObjectReference::from_raw_address_unchecked(to) }
    }

    #[inline(always)]
    fn get_current_size(of: ObjectReference) -> usize {
        object(of).bytes()
    }

    #[inline(always)]
    fn get_size_when_copied(of: ObjectReference) -> usize {
        object(of).bytes()
    }

    fn get_align_when_copied(_of: ObjectReference) -> usize {
        8
    }

    fn get_align_offset_when_copied(_of: ObjectReference) -> usize {
        0
    }

    fn get_type_descriptor(_of: ObjectReference) -> &'static [i8] {
        &[]
    }

    #[inline(always)]
    fn ref_to_object_start(of: ObjectReference) -> Address {
        of.to_raw_address()
    }

    #[inline(always)]
    fn ref_to_header(of: ObjectReference) -> Address {
        of.to_raw_address()
    }

    fn dump_object(_of: ObjectReference) {}
}

impl ActivePlan<Self> for Vm {
    fn is_mutator(thread: VMThread) -> bool {
        // SAFETY: every thread that mmtk knows has a context for as long as it knows it.
        unsafe { (*Context::of(thread)).is_mutator }
    }

    fn mutator(thread: VMMutatorThread) -> &'static mut Mutator<Self> {
        // SAFETY: as above; it has one.
        unsafe { &mut *(*Context::of(thread.0)).mutator }
    }

    fn mutators<'a>() -> Box<dyn Iterator<Item = &'a mut Mutator<Self>> + 'a> {
        let threads = world().threads.clone();
        // SAFETY: mmtk asks in pauses, in which no thread comes or goes.
        Box::new(
            threads
                .into_iter()
                .map(|context| unsafe { &mut *(*context).mutator }),
        )
    }

    fn number_of_mutators() -> usize {
        world().threads.len()
    }
}

/// What the pause that there is does: 0 the collection of a nursery, 1 a whole collection, 2 the start of a concurrent one, 3
/// its end.
fn pause_kind() -> u8 {
    let plan = instance().get_plan();
    if let Some(kind) = plan.concurrent().and_then(|plan| plan.current_pause()) {
        return kind as u8;
    }
    u8::from(
        !plan
            .generational()
            .is_some_and(|plan| plan.is_current_gc_nursery()),
    )
}

impl Collection<Self> for Vm {
    fn stop_all_mutators<F>(_thread: VMWorkerThread, mut visit: F)
    where
        F: FnMut(&'static mut Mutator<Self>),
    {
        let mut world = world();
        world.since = Some(Instant::now());
        world.stopping = true;
        STOP.store(true, Ordering::SeqCst);
        while world.running > 0 {
            world = STOPPED.wait(world).unwrap_or_else(|e| e.into_inner());
        }
        LAST_KIND.store(pause_kind(), Ordering::Relaxed);
        for context in &world.threads {
            // SAFETY: the thread is stopped, and stays so until the pause is over.
            visit(unsafe { &mut *(**context).mutator });
        }
    }

    fn resume_mutators(_thread: VMWorkerThread) {
        let kind = LAST_KIND.load(Ordering::Relaxed);
        let mut world = world();
        if let Some(since) = world.since.take() {
            record::pause(Pause {
                time: since.elapsed(),
                ends: kind != 2,
                full: kind != 0,
            });
        }
        world.pauses += 1;
        world.stopping = false;
        STOP.store(false, Ordering::SeqCst);
        RESUMED.notify_all();
    }

    fn block_for_gc(_thread: VMMutatorThread) {
        // The pause cannot have begun: this thread is running.
        let mut world = world();
        let before = world.pauses;
        leave(&mut world);
        while world.pauses == before {
            world = RESUMED.wait(world).unwrap_or_else(|e| e.into_inner());
        }
        drop(enter(world));
    }

    fn spawn_gc_thread(_thread: VMThread, context: GCThreadContext<Self>) {
        let GCThreadContext::Worker(worker) = context;
        let spawned = std::thread::Builder::new()
            .name("mmtk worker".into())
            .spawn(move || {
                // Collector threads live as long as the process.
                let own = Box::into_raw(Box::new(Context {
                    is_mutator: false,
                    mutator: core::ptr::null_mut(),
                    stack: Vec::new(),
                    young_weak: Vec::new(),
                }));
                worker.run(VMWorkerThread(Context::thread(own)), instance());
            });
        if spawned.is_err() {
            std::process::abort();
        }
    }

    fn out_of_memory(_thread: VMThread, _kind: AllocationError) {
        // The allocation comes back with nothing.
    }
}

impl ReferenceGlue<Self> for Vm {
    type FinalizableType = ObjectReference;

    // mmtk's own processors of references are not used.
    fn clear_referent(_reference: ObjectReference) {}

    fn get_referent(_of: ObjectReference) -> Option<ObjectReference> {
        None
    }

    fn set_referent(_reference: ObjectReference, _referent: ObjectReference) {}

    fn enqueue_references(_references: &[ObjectReference], _thread: VMWorkerThread) {}
}

/// Where a box that is alive is now, after emptying it if what it holds is dead. Nothing if the box is dead.
fn settle(holder: Object, moved: bool) -> Option<Object> {
    let now = |object: Object| {
        let reference = reference(object);
        if !reference.is_reachable() {
            return None;
        }
        Some(if moved {
            reference
                .get_forwarded_object()
                .map_or(object, self::object)
        } else {
            object
        })
    };
    let holder = now(holder)?;
    if let Some(held) = from_word(holder.raw(0)) {
        holder.set_raw(0, to_word(now(held)));
    }
    Some(holder)
}

impl Scanning<Self> for Vm {
    #[inline(always)]
    fn scan_object<SV: SlotVisitor<SimpleSlot>>(
        _thread: VMWorkerThread,
        of: ObjectReference,
        visitor: &mut SV,
    ) {
        let object = object(of);
        for index in 0..object.references() {
            if object.get(index).is_some() {
                visitor.visit_slot(SimpleSlot::from_address(Address::from_mut_ptr(
                    object.slot(index).as_ptr(),
                )));
            }
        }
    }

    fn notify_initial_thread_scan_complete(_partial: bool, _thread: VMWorkerThread) {}

    fn scan_roots_in_mutator_thread(
        _thread: VMWorkerThread,
        mutator: &'static mut Mutator<Self>,
        mut factory: impl RootsWorkFactory<SimpleSlot>,
    ) {
        // SAFETY: the thread is stopped, and nobody but this worker looks at its stack.
        let stack = unsafe { &mut (*Context::of(mutator.mutator_tls.0)).stack };
        for part in stack.chunks_mut(ROOTS_PER_PACKET) {
            let slots = part
                .iter_mut()
                .filter(|place| place.is_some())
                .map(|place| SimpleSlot::from_address(Address::from_mut_ptr(place)))
                .collect();
            factory.create_process_roots_work(slots);
        }
    }

    fn scan_vm_specific_roots(
        _thread: VMWorkerThread,
        _factory: impl RootsWorkFactory<SimpleSlot>,
    ) {
    }

    fn supports_return_barrier() -> bool {
        false
    }

    fn prepare_for_roots_re_scanning() {}

    fn process_weak_refs(
        _worker: &mut GCWorker<Self>,
        _tracer: impl ObjectTracerContext<Self>,
    ) -> bool {
        let moved = !constraints().needs_forward_after_liveness;
        let mut world = world();
        // What survived one collection is old in every plan that has a nursery, and so is what it holds, which is older.
        if LAST_KIND.load(Ordering::Relaxed) != 0 {
            world.weak = world
                .weak
                .iter()
                .filter_map(|holder| settle(*holder, moved))
                .collect();
        }
        for index in 0..world.threads.len() {
            let context = world.threads[index];
            // SAFETY: the thread is stopped.
            let young = core::mem::take(unsafe { &mut (*context).young_weak });
            world
                .weak
                .extend(young.into_iter().filter_map(|holder| settle(holder, moved)));
        }
        false
    }

    fn forward_weak_refs(worker: &mut GCWorker<Self>, tracer: impl ObjectTracerContext<Self>) {
        // Objects still are where they were; all boxes in the list and all that they hold are alive.
        let mut world = world();
        tracer.with_tracer(worker, |tracer| {
            for holder in &mut world.weak {
                if let Some(held) = from_word(holder.raw(0)) {
                    holder.set_raw(
                        0,
                        to_word(Some(object(tracer.trace_object(reference(held))))),
                    );
                }
                *holder = object(tracer.trace_object(reference(*holder)));
            }
        });
    }
}

// ---- The runtime ----

/// The heap; there is one in the process. `BARRIER` is the one that its plan needs, so that writes do not ask for it.
#[derive(Debug)]
pub(crate) struct Mmtk<const BARRIER: u8>(());

/// A heap that was set up, by its barrier.
#[derive(Debug)]
pub(crate) enum Set {
    /// Without one.
    None(Mmtk<NO_BARRIER>),
    /// With one that remembers objects.
    After(Mmtk<AFTER>),
    /// With one that takes a snapshot.
    Before(Mmtk<BEFORE>),
}

/// Sets the heap up. To be called once. `more` are options of mmtk, `name=value` and blanks between.
///
/// # Errors
/// If there is no such plan or mmtk does not take an option.
pub(crate) fn set_up(
    plan: &str,
    heap_bytes: usize,
    workers: usize,
    more: &str,
) -> Result<Set, String> {
    let plan =
        selector(plan).ok_or_else(|| format!("mmtk has no plan {plan:?}: {}", PLANS.join(", ")))?;
    let mut builder = MMTKBuilder::new_no_env_vars();
    let options = &mut builder.options;
    if !(options.plan.set(plan)
        && options.threads.set(workers)
        && options.gc_trigger.set(GCTriggerSelector::FixedHeapSize(heap_bytes))
        // Neither is used by any workload.
        && options.no_finalizer.set(true)
        && options.no_reference_types.set(true))
    {
        return Err(format!(
            "mmtk does not take a heap of {heap_bytes} bytes and {workers} workers"
        ));
    }
    if !more.is_empty() && !builder.set_options_bulk_by_str(more) {
        return Err(format!("mmtk does not take the options {more:?}"));
    }
    let mmtk: &'static MMTK<Vm> = Box::leak(mmtk::memory_manager::mmtk_init(&builder));
    if INSTANCE.set(mmtk).is_err() {
        return Err("mmtk is set up already".into());
    }
    mmtk.initialize_collection(VMThread::UNINITIALIZED);
    Ok(match constraints().barrier {
        BarrierSelector::NoBarrier => Set::None(Mmtk(())),
        BarrierSelector::ObjectBarrier => Set::After(Mmtk(())),
        BarrierSelector::SATBBarrier => Set::Before(Mmtk(())),
    })
}

impl<const BARRIER: u8> Runtime for Mmtk<BARRIER> {
    type Thread<'r> = MmtkThread<BARRIER>;

    fn attach(&self) -> Result<MmtkThread<BARRIER>, Full> {
        // From here on no pause begins until this thread stops.
        drop(enter(world()));
        let context = Box::into_raw(Box::new(Context {
            is_mutator: true,
            mutator: core::ptr::null_mut(),
            stack: Vec::with_capacity(1024),
            young_weak: Vec::new(),
        }));
        let mmtk = instance();
        let mutator = Box::into_raw(mmtk::memory_manager::bind_mutator(
            mmtk,
            VMMutatorThread(Context::thread(context)),
        ));
        // SAFETY: it was just made, and nobody knows it.
        unsafe { (*context).mutator = mutator };
        world().threads.push(context);
        let mapping = mmtk.get_plan().get_allocator_mapping();
        let default = mapping[AllocationSemantics::Default];
        let place = |selector| {
            mutator
                .cast::<u8>()
                .wrapping_add(Mutator::<Vm>::get_allocator_base_offset(selector))
        };
        // The header in front of MarkCompact's objects would be one more addition for all others.
        let bump = match AllocatorInfo::new::<Vm>(default) {
            AllocatorInfo::BumpPointer {
                bump_pointer_offset,
            } if !matches!(default, AllocatorSelector::MarkCompact(_))
                && constraints().max_non_los_default_alloc_bytes >= BUMP_LIMIT =>
            {
                mutator
                    .cast::<u8>()
                    .wrapping_add(bump_pointer_offset)
                    .cast()
            }
            _ => (&raw const NEVER).cast_mut(),
        };
        Ok(MmtkThread {
            context,
            mutator,
            bump,
            log_bits: match BARRIER {
                NO_BARRIER => core::ptr::null(),
                _ => Vm::GLOBAL_LOG_BIT_SPEC
                    .extract_side_spec()
                    .get_starting_address()
                    .to_ptr(),
            },
            kind: default,
            allocator: place(default),
            large: match mapping[AllocationSemantics::Los] {
                AllocatorSelector::None => core::ptr::null_mut(),
                selector => place(selector).cast(),
            },
            limit: constraints().max_non_los_default_alloc_bytes,
        })
    }
}

/// A bump pointer with nothing left, for plans that have none. It is never written to, since nothing fits.
static NEVER: BumpPointer = BumpPointer {
    cursor: Address::ZERO,
    limit: Address::ZERO,
};

/// A thread of [`Mmtk`].
#[derive(Debug)]
pub(crate) struct MmtkThread<const BARRIER: u8> {
    context: *mut Context,
    mutator: *mut Mutator<Vm>,
    /// Of the default allocator, in the mutator.
    bump: *mut BumpPointer,
    /// One bit for each 8 bytes of address space.
    log_bits: *const AtomicU8,
    /// The default allocator.
    kind: AllocatorSelector,
    allocator: *mut u8,
    /// That of large objects; null if all objects go to the default one.
    large: *mut LargeObjectAllocator<Vm>,
    /// The largest object of the default allocator.
    limit: usize,
}

impl<const BARRIER: u8> Drop for MmtkThread<BARRIER> {
    fn drop(&mut self) {
        // SAFETY: this thread is running, so there is no pause, and both were boxes.
        unsafe {
            mmtk::memory_manager::destroy_mutator(&mut *self.mutator);
            let mut world = world();
            world.threads.retain(|context| *context != self.context);
            let context = Box::from_raw(self.context);
            world.weak.extend(&context.young_weak);
            leave(&mut world);
            drop(Box::from_raw(self.mutator));
        }
    }
}

impl<const BARRIER: u8> MmtkThread<BARRIER> {
    #[inline(always)]
    fn stack(&self) -> &Vec<Option<Object>> {
        // SAFETY: while this thread runs the stack is its own.
        unsafe { &(*self.context).stack }
    }

    #[inline(always)]
    fn stack_mut(&mut self) -> &mut Vec<Option<Object>> {
        // SAFETY: as above.
        unsafe { &mut (*self.context).stack }
    }

    #[inline(always)]
    fn allocate(&mut self, references: usize, raw: usize) -> Result<Object, Full> {
        let bytes = layout::bytes(references, raw)?;
        // SAFETY: the bump pointer is this thread's while it runs, and what is between cursor and limit is zeroed and unused.
        unsafe {
            let start = (*self.bump).cursor;
            let end = start + bytes;
            let start = if bytes <= BUMP_LIMIT && end <= (*self.bump).limit {
                (*self.bump).cursor = end;
                NonNull::new_unchecked(start.to_mut_ptr())
            } else {
                self.allocate_slow(bytes)?
            };
            Ok(Object::format(start, references, raw))
        }
    }

    /// Memory from wherever the plan wants it.
    #[inline(never)]
    fn allocate_slow(&mut self, bytes: usize) -> Result<NonNull<u8>, Full> {
        self.poll();
        // SAFETY: the pointers are to the allocators of the mutator, of these types. (The indices of what mmtk gives are
        // checked by its `get_allocator_base_offset`.)
        let address = unsafe {
            if bytes > self.limit && !self.large.is_null() {
                let address = (*self.large).alloc(bytes, 8, 0);
                if !address.is_zero() {
                    let new = ObjectReference::from_raw_address_unchecked(address);
                    (*self.mutator).post_alloc(new, bytes, AllocationSemantics::Los);
                }
                address
            } else {
                match self.kind {
                    AllocatorSelector::BumpPointer(_) => {
                        (*self.allocator.cast::<BumpAllocator<Vm>>()).alloc(bytes, 8, 0)
                    }
                    AllocatorSelector::Immix(_) => {
                        (*self.allocator.cast::<ImmixAllocator<Vm>>()).alloc(bytes, 8, 0)
                    }
                    AllocatorSelector::FreeList(_) => {
                        (*self.allocator.cast::<FreeListAllocator<Vm>>()).alloc(bytes, 8, 0)
                    }
                    AllocatorSelector::MarkCompact(_) => {
                        let address =
                            (*self.allocator.cast::<MarkCompactAllocator<Vm>>()).alloc(bytes, 8, 0);
                        if !address.is_zero() {
                            // It finds its objects by bits that it sets here.
                            let new = ObjectReference::from_raw_address_unchecked(address);
                            (*self.mutator).post_alloc(new, bytes, AllocationSemantics::Default);
                        }
                        address
                    }
                    _ => (*self.mutator).alloc(bytes, 8, 0, AllocationSemantics::Default),
                }
            }
        };
        NonNull::new(address.to_mut_ptr()).ok_or(Full)
    }

    /// Is the object's log bit set? Then the barrier has something to do.
    #[inline(always)]
    fn unlogged(&self, object: Object) -> bool {
        let word = object.start().addr().get() >> 3;
        // SAFETY: plans with such a barrier have the bits of every object in memory.
        let byte = unsafe { (*self.log_bits.add(word >> 3)).load(Ordering::Relaxed) };
        byte >> (word & 7) & 1 != 0
    }

    #[cold]
    #[inline(never)]
    fn barrier(&mut self, object: Object, index: usize, value: Option<Object>) {
        let slot = SimpleSlot::from_address(Address::from_mut_ptr(object.slot(index).as_ptr()));
        // SAFETY: the mutator is this thread's while it runs.
        unsafe {
            (*self.mutator).barrier.object_reference_write_slow(
                reference(object),
                slot,
                value.map(reference),
            );
        }
    }

    fn request(&mut self) {
        // SAFETY: as above.
        let thread = unsafe { (*self.mutator).mutator_tls };
        instance().handle_user_collection_request(thread, true, true);
    }
}

impl<const BARRIER: u8> Thread for MmtkThread<BARRIER> {
    type Ref = Object;

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
        new.set_raw(0, to_word(self.root(referent)));
        // SAFETY: while this thread runs the list is its own.
        unsafe { (*self.context).young_weak.push(new) };
        Ok(new)
    }

    fn weak_get(&mut self, weak: Object) -> Option<Object> {
        let held = from_word(weak.raw(0));
        if BARRIER == BEFORE
            && let Some(held) = held
        {
            // SAFETY: the mutator is this thread's while it runs.
            unsafe { (*self.mutator).barrier.load_weak_reference(reference(held)) };
        }
        held
    }

    #[inline(always)]
    fn get(&self, object: Object, index: usize) -> Option<Object> {
        object.get(index)
    }

    #[inline(always)]
    fn set(&mut self, object: Object, index: usize, value: Option<Object>) {
        if BARRIER == BEFORE && self.unlogged(object) {
            self.barrier(object, index, value);
        }
        object.set(index, value);
        if BARRIER == AFTER && self.unlogged(object) {
            self.barrier(object, index, value);
        }
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
        // SAFETY: until the next call that may collect, as the traits say.
        unsafe { object.raw_slice() }
    }

    #[inline(always)]
    fn same(&self, a: Object, b: Object) -> bool {
        a == b
    }

    #[inline(always)]
    fn push(&mut self, value: Option<Object>) -> Root {
        let stack = self.stack_mut();
        stack.push(value);
        Root(stack.len() - 1)
    }

    #[inline(always)]
    fn root(&self, root: Root) -> Option<Object> {
        self.stack()[root.0]
    }

    #[inline(always)]
    fn set_root(&mut self, root: Root, value: Option<Object>) {
        self.stack_mut()[root.0] = value;
    }

    #[inline(always)]
    fn height(&self) -> usize {
        self.stack().len()
    }

    #[inline(always)]
    fn truncate(&mut self, height: usize) {
        self.stack_mut().truncate(height);
    }

    #[inline(always)]
    fn poll(&mut self) {
        if STOP.load(Ordering::Relaxed) {
            stop_here();
        }
    }

    fn collect(&mut self) {
        if !constraints().collects_garbage {
            return;
        }
        self.request();
        // A concurrent collection that was under way only came to its end by that.
        if BARRIER == BEFORE && LAST_KIND.load(Ordering::Relaxed) != 1 {
            self.request();
        }
    }

    fn outside<R>(&mut self, f: impl FnOnce() -> R) -> R {
        leave(&mut world());
        let result = f();
        drop(enter(world()));
        result
    }
}
