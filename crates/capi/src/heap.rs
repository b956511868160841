//! Heaps: made, asked, limited, freed.

use crate::mutator::MUTATORS;
use crate::options::hw_options;
use crate::status::{Done, Failure, given, given_mut, guard, hw_status, hw_status::*};
use crate::vm::{CVm, Findings, HW_ABI_VERSION, HW_OBJECT_MAP, hw_object, hw_vm, reference};
use core::fmt;
use core::ptr;
use heapwright::{Heap, Limits, ObjectReference, WildWord};
use heapwright_observe::Instruments;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A heap. All its functions may be called by any thread. It is freed, with all its memory, when it was given to [`hw_heap_free`] and the
/// last of its mutators has detached.
#[derive(Debug)]
pub struct hw_heap(
    pub(crate) AnyHeap,
    /// The heap's instruments.
    #[allow(dead_code, reason = "they end when it is dropped")]
    Box<dyn fmt::Debug>,
);

/// With an object map, or without.
#[derive(Clone, Debug)]
pub(crate) enum AnyHeap {
    Plain(Heap<CVm<false>>),
    Mapped(Heap<CVm<true>>),
}

/// Does the same on either kind.
macro_rules! on_heap {
    ($heap:expr, $name:ident => $do:expr) => {
        match &$heap {
            $crate::heap::AnyHeap::Plain($name) => $do,
            $crate::heap::AnyHeap::Mapped($name) => $do,
        }
    };
}
pub(crate) use on_heap;

/// Handles that are there: one that is given twice, or never was, is found out without looking at what it points to.
///
/// Nobody waits for anything else with its lock; who forks holds it.
pub(crate) struct Handles(Mutex<BTreeSet<usize>>);

/// The locks of all handles, for a fork.
#[derive(Debug)]
pub(crate) struct HandlesHeld(
    #[allow(dead_code, reason = "held until it is dropped")]
    [MutexGuard<'static, BTreeSet<usize>>; 2],
);

impl Handles {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeSet::new()))
    }

    fn all(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the locks of all handles.
    pub(crate) fn hold_all() -> HandlesHeld {
        HandlesHeld([HEAPS.all(), MUTATORS.all()])
    }

    pub(crate) fn add<T>(&self, handle: *mut T) -> *mut T {
        self.all().insert(handle.expose_provenance());
        handle
    }

    /// Forgets a handle: an error if it is not there.
    pub(crate) fn take<T>(&self, handle: *mut T, what: &str) -> Done {
        if handle.is_null() {
            return Err(Failure::null(what));
        }
        if self.all().remove(&handle.addr()) {
            Ok(())
        } else {
            Err(Failure(
                HW_GONE,
                format!("there is no such {what} any more"),
            ))
        }
    }
}

static HEAPS: Handles = Handles::new();

/// The interface that this library has: [`HW_ABI_VERSION`] of its own header.
#[unsafe(no_mangle)]
pub extern "C" fn hw_abi_version() -> u32 {
    HW_ABI_VERSION
}

fn check(vm: *const hw_vm) -> Result<hw_vm, Failure> {
    if vm.is_null() {
        return Err(Failure::null("vm"));
    }
    // SAFETY: the header's rules for pointers: at least the first two fields are there in every version.
    let (size, version) = unsafe { ((*vm).struct_size, (*vm).abi_version) };
    if version != HW_ABI_VERSION || size < hw_vm::FIRST_SIZE {
        return Err(Failure(
            HW_VERSION,
            format!(
                "the program was compiled with heapwright.h of interface {version} and a table of {size} bytes; this library has \
                 interface {HW_ABI_VERSION} and a table of {} bytes: compile it with the header that belongs to the library",
                size_of::<hw_vm>()
            ),
        ));
    }
    let vm = hw_vm::of(vm, size);
    for (is_there, name) in [
        (vm.size.is_some(), "size"),
        (vm.scan.is_some(), "scan"),
        (vm.thread_roots.is_some(), "thread_roots"),
    ] {
        if !is_there {
            return Err(Failure::null(&format!("the callback {name}")));
        }
    }
    if vm.flags & !HW_OBJECT_MAP != 0 {
        return Err(Failure(
            HW_INVALID,
            format!("flags {:#x}: there is only HW_OBJECT_MAP", vm.flags),
        ));
    }
    Ok(vm)
}

/// Makes a heap for a runtime. `options` may be null, for the defaults; they are copied. The heap is stored to `*out`; on failure that is
/// null.
///
/// `HW_VERSION`: the header is not this library's. `HW_INVALID`: a callback that is needed is null. `HW_BAD_OPTION`, `HW_SYSTEM`: options
/// that do not go together, no memory for the heap, or a file or socket of an instrument that cannot be had.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_heap_new(
    vm: *const hw_vm,
    options: *const hw_options,
    out: *mut *mut hw_heap,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (out, options) = unsafe { (given_mut(out, "out")?, options.as_ref()) };
        *out = ptr::null_mut();
        let vm = check(vm)?;
        let defaults = hw_options::default();
        let options = options.unwrap_or(&defaults);
        let heap = if vm.flags & HW_OBJECT_MAP != 0 {
            let (heap, watching) = build::<true>(vm, options)?;
            hw_heap(AnyHeap::Mapped(heap), watching)
        } else {
            let (heap, watching) = build::<false>(vm, options)?;
            hw_heap(AnyHeap::Plain(heap), watching)
        };
        *out = HEAPS.add(Box::into_raw(Box::new(heap)));
        Ok(())
    })
}

/// A heap, and what watches it until that is dropped.
fn build<const MAP: bool>(
    vm: hw_vm,
    options: &hw_options,
) -> Result<(Heap<CVm<MAP>>, Box<dyn fmt::Debug>), Failure> {
    let program = std::env::current_exe().unwrap_or_default();
    let instruments =
        Instruments::begin(&options.wanted, &program.to_string_lossy(), &options.heap)?;
    let mut builder = Heap::<CVm<MAP>>::builder()
        .options(options.heap.clone())
        .listener(Box::new((Findings(vm), instruments.listener())));
    if let Some(sampler) = instruments.sampler() {
        builder = builder.sampler(sampler);
    }
    let heap = builder.build(CVm(vm))?;
    let watching = instruments.watch(&heap)?;
    Ok((heap, Box::new(watching)))
}

/// Gives a heap back. `HW_GONE` if it was given back before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_heap_free(heap: *mut hw_heap) -> hw_status {
    guard(|| {
        HEAPS.take(heap, "heap")?;
        // SAFETY: made by `hw_heap_new`, and taken out of the list of those just now, by this call alone.
        drop(unsafe { Box::from_raw(heap) });
        Ok(())
    })
}

/// What a heap uses, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct hw_usage {
    /// Blocks and large objects in use.
    pub used_bytes: usize,
    /// What may be in use before the heap is collected.
    pub limit_bytes: usize,
    /// What lived after the last collection, as far as the plan knows.
    pub live_bytes: usize,
    /// Free memory that the heap holds.
    pub idle_bytes: usize,
    /// What the runtime reported by [`hw_external_allocated`](crate::hw_external_allocated).
    pub external_bytes: usize,
    /// What went back to the system so far.
    pub returned_bytes: usize,
    /// Handed to mutators since the heap was made, in the units in which they take memory.
    pub allocated_bytes: u64,
    /// Collections.
    pub collections: u64,
    /// Those of them that traced everything.
    pub full_collections: u64,
}

/// Tells what a heap uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_heap_usage(heap: *const hw_heap, out: *mut hw_usage) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (heap, out) = unsafe { (given(heap, "heap")?, given_mut(out, "out")?) };
        let usage = on_heap!(heap.0, h => h.usage());
        *out = hw_usage {
            used_bytes: usage.used_bytes,
            limit_bytes: usage.limit_bytes,
            live_bytes: usage.live_bytes,
            idle_bytes: usage.idle_bytes,
            external_bytes: usage.external_bytes,
            returned_bytes: usage.returned_bytes,
            allocated_bytes: usage.allocated_bytes,
            collections: usage.collections,
            full_collections: usage.full_collections,
        };
        Ok(())
    })
}

/// Changes the limits, in bytes; 0: none. Above the soft one the heap collects harder, the hard one it does not pass. `HW_INVALID` if the
/// soft one is above the hard one, or that below what is in use; the old ones then stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_heap_set_limits(
    heap: *mut hw_heap,
    soft: usize,
    hard: usize,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let heap = unsafe { given(heap, "heap")? };
        Ok(on_heap!(heap.0, h => h.set_limits(Limits { soft, hard }))?)
    })
}

/// Gives free memory back to the system, now: how many bytes. 0 also if `heap` is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_heap_release_memory(heap: *mut hw_heap) -> usize {
    // SAFETY: the header's rules for pointers.
    unsafe { heap.as_ref() }.map_or(0, |heap| on_heap!(heap.0, h => h.release_memory()))
}

/// The runtime gave memory back that it had reported by [`hw_external_allocated`](crate::hw_external_allocated).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_external_freed(heap: *mut hw_heap, bytes: usize) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let heap = unsafe { given(heap, "heap")? };
        on_heap!(heap.0, h => h.external_freed(bytes));
        Ok(())
    })
}

pub(crate) fn object(object: hw_object) -> Result<ObjectReference, Failure> {
    reference(object).ok_or_else(|| Failure::null("object"))
}

/// Keeps an object where it is until [`hw_unpin`] was called as often. It is not kept alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_pin(heap: *mut hw_heap, o: hw_object) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let heap = unsafe { given(heap, "heap")? };
        let o = object(o)?;
        on_heap!(heap.0, h => h.pin_counted(o));
        Ok(())
    })
}

/// Takes one [`hw_pin`] back. `HW_NOT_PINNED` if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_unpin(heap: *mut hw_heap, o: hw_object) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let heap = unsafe { given(heap, "heap")? };
        let o = object(o)?;
        on_heap!(heap.0, h => h.unpin(o))?;
        Ok(())
    })
}

/// Keeps an object where it is as long as it lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_pin_for_ever(heap: *mut hw_heap, o: hw_object) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let heap = unsafe { given(heap, "heap")? };
        let o = object(o)?;
        on_heap!(heap.0, h => h.pin_for_ever(o));
        Ok(())
    })
}

/// The object that an address lies in; null if it lies in none, or the heap has no object map. Any bit pattern.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_object_around(heap: *const hw_heap, word: usize) -> hw_object {
    // SAFETY: the header's rules for pointers.
    let found = match unsafe { heap.as_ref() }.map(|h| &h.0) {
        Some(AnyHeap::Mapped(h)) => h.object_around(WildWord::new(word)),
        _ => None,
    };
    found.map_or(ptr::null_mut(), |o| o.to_address().as_mut_ptr())
}

/// Is this the address of an object? False if the heap has no object map. Any bit pattern.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_is_object(heap: *const hw_heap, word: usize) -> bool {
    // SAFETY: the header's rules for pointers.
    match unsafe { heap.as_ref() }.map(|h| &h.0) {
        Some(AnyHeap::Mapped(h)) => h.is_object(WildWord::new(word)),
        _ => false,
    }
}
