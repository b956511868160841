//! Options and heaps.

use crate::mutator::Shell;
use crate::status::{Failure, fail, guard, hw_status};
use crate::table::{HW_OBJECT_MAP, Table, hw_object, hw_vm};
use core::ffi::{CStr, c_char};
use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use heapwright::{Heap, Options};
use hw_status::*;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The interface that a program was compiled for: the major number times 65536 plus the minor one. A library takes programs of its own major
/// number and of no higher minor one.
pub const HW_ABI_VERSION: u32 = 1;

/// How many mutators that were detached are kept, so that a second detach can be told.
const REMEMBERED: usize = 256;

/// Options, by name. Made by `hw_options_create`.
#[derive(Debug)]
pub struct hw_options(Options);

/// A heap. Several may live side by side, with plans of their own.
pub struct hw_heap {
    pub(crate) any: AnyHeap,
    pub(crate) shared: Arc<Shared>,
}

impl core::fmt::Debug for hw_heap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("hw_heap").finish_non_exhaustive()
    }
}

/// The core's heap, with an object map or without.
#[derive(Clone)]
pub(crate) enum AnyHeap {
    Plain(Heap<Table<false>>),
    Mapped(Heap<Table<true>>),
}

macro_rules! on_heap {
    ($any:expr, $heap:ident => $result:expr) => {
        match $any {
            $crate::heap::AnyHeap::Plain($heap) => $result,
            $crate::heap::AnyHeap::Mapped($heap) => $result,
        }
    };
}

/// What a heap, its runtime and its mutators share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    roots: Mutex<HashSet<usize>>,
    pub(crate) attached: AtomicUsize,
    /// The program destroyed the heap; a thread of the heap's own may have it a moment longer.
    pub(crate) gone: AtomicBool,
    retired: Mutex<VecDeque<Box<Shell>>>,
}

impl Shared {
    pub(crate) fn roots(&self) -> MutexGuard<'_, HashSet<usize>> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.clear();
    }

    /// Keeps what is left of a detached mutator for a while.
    pub(crate) fn retire(&self, shell: Box<Shell>) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.push_back(shell);
        if retired.len() > REMEMBERED {
            let _ = retired.pop_front();
        }
    }
}

/// The string behind a pointer of C's.
///
/// # Safety
/// Null, or a string.
pub(crate) unsafe fn text<'a>(what: &str, text: *const c_char) -> Result<&'a str, Failure> {
    if text.is_null() {
        return fail(HW_ERROR_ARGUMENT, format!("{what} is null"));
    }
    // SAFETY: the caller's promise.
    match unsafe { CStr::from_ptr(text) }.to_str() {
        Ok(text) => Ok(text),
        Err(_) => fail(HW_ERROR_ARGUMENT, format!("{what} is not UTF-8")),
    }
}

/// What is behind a pointer of C's.
///
/// # Safety
/// Null, or made by this library as such.
pub(crate) unsafe fn given<'a, T>(what: &str, pointer: *const T) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise.
    match unsafe { pointer.as_ref() } {
        Some(value) => Ok(value),
        None => fail(HW_ERROR_ARGUMENT, format!("{what} is null")),
    }
}

/// Where a result is to be written.
///
/// # Safety
/// Null, or writable.
pub(crate) unsafe fn place<'a, T>(what: &str, pointer: *mut T) -> Result<&'a mut T, Failure> {
    // SAFETY: the caller's promise.
    match unsafe { pointer.as_mut() } {
        Some(value) => Ok(value),
        None => fail(HW_ERROR_ARGUMENT, format!("{what} is null")),
    }
}

/// The interface that the library has: compare `HW_ABI_VERSION`.
#[unsafe(no_mangle)]
pub extern "C" fn hw_abi_version() -> u32 {
    HW_ABI_VERSION
}

/// The library's version, as `"0.1.0"`.
#[unsafe(no_mangle)]
pub extern "C" fn hw_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// New options, with the defaults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_options_create(options: *mut *mut hw_options) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let out = unsafe { place("options", options) }?;
        *out = Box::into_raw(Box::new(hw_options(Options::default())));
        Ok(())
    })
}

/// Sets an option by its name, as `"plan"` to `"immix"` or `"max"` to `"64m"`. The names are in the guide; the message of an error lists what
/// is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_options_set(
    options: *mut hw_options,
    name: *const c_char,
    value: *const c_char,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let options = unsafe { place("options", options) }?;
        // SAFETY: as above.
        let (name, value) = unsafe { (text("name", name)?, text("value", value)?) };
        Ok(options.0.set(name, value)?)
    })
}

/// Frees options and sets the pointer to null. Null is fine. Heaps that were made with them do not need them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_options_destroy(options: *mut *mut hw_options) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let pointer = unsafe { place("options", options) }?;
        let old = core::mem::replace(pointer, core::ptr::null_mut());
        if !old.is_null() {
            // SAFETY: made by `hw_options_create`, and nobody has it any more.
            drop(unsafe { Box::from_raw(old) });
        }
        Ok(())
    })
}

/// Reads a table of a program that may have been compiled with an older header.
///
/// # Safety
/// It has as many bytes as its first field says.
unsafe fn read_table(vm: *const hw_vm) -> Result<hw_vm, Failure> {
    // SAFETY: the caller's promise; the first field is there in all versions.
    let given = unsafe { given("vm", vm.cast::<usize>()) }.copied()?;
    // What the first version had.
    let least = offset_of!(hw_vm, scan) + size_of::<usize>();
    if given < least {
        return fail(
            HW_ERROR_ARGUMENT,
            format!("hw_vm.struct_size is {given}, less than {least}; hw_vm_init sets it"),
        );
    }
    if given > size_of::<hw_vm>() {
        return fail(
            HW_ERROR_VERSION,
            format!(
                "hw_vm.struct_size is {given}, more than the {} that this library knows: the header is newer than the library",
                size_of::<hw_vm>()
            ),
        );
    }
    let mut copy = core::mem::MaybeUninit::<hw_vm>::zeroed();
    // SAFETY: `given` bytes are there, and no more than the copy has; zeros are a table: null pointers and numbers.
    let copy = unsafe {
        core::ptr::copy_nonoverlapping(vm.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), given);
        copy.assume_init()
    };
    for (name, is_null) in [("size", copy.size.is_none()), ("scan", copy.scan.is_none())] {
        if is_null {
            return fail(
                HW_ERROR_CALLBACK,
                format!("hw_vm.{name} is null; it must be there"),
            );
        }
    }
    if copy.flags & !HW_OBJECT_MAP != 0 || copy.reserved != 0 {
        return fail(
            HW_ERROR_ARGUMENT,
            format!(
                "hw_vm.flags is {:#x} and reserved {}; known is HW_OBJECT_MAP",
                copy.flags, copy.reserved
            ),
        );
    }
    Ok(copy)
}

/// What `hw_heap_create` calls, with the version of its header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_heap_create_versioned(
    abi: u32,
    vm: *const hw_vm,
    options: *const hw_options,
    heap: *mut *mut hw_heap,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let out = unsafe { place("heap", heap) }?;
        *out = core::ptr::null_mut();
        if abi >> 16 != HW_ABI_VERSION >> 16 || abi > HW_ABI_VERSION {
            let both = |v: u32| format!("{}.{}", v >> 16, v & 0xffff);
            return fail(
                HW_ERROR_VERSION,
                format!(
                    "the program was compiled for interface {}, and the library has {}; compile it with the library's own heapwright.h",
                    both(abi),
                    both(HW_ABI_VERSION)
                ),
            );
        }
        // SAFETY: as above.
        let vm = unsafe { read_table(vm) }?;
        // SAFETY: as above; null is for the defaults.
        let options = unsafe { options.as_ref() }.map_or_else(Options::default, |o| o.0.clone());
        let shared = Arc::new(Shared::default());
        let any = if vm.flags & HW_OBJECT_MAP == 0 {
            let table = Table::<false> {
                vm,
                shared: Arc::clone(&shared),
            };
            AnyHeap::Plain(
                Heap::<Table<false>>::builder()
                    .options(options)
                    .build(table)?,
            )
        } else {
            let table = Table::<true> {
                vm,
                shared: Arc::clone(&shared),
            };
            AnyHeap::Mapped(
                Heap::<Table<true>>::builder()
                    .options(options)
                    .build(table)?,
            )
        };
        *out = Box::into_raw(Box::new(hw_heap { any, shared }));
        Ok(())
    })
}

/// Frees a heap with all its objects, and sets the pointer to null, which is also fine to give. `HW_ERROR_BUSY` as long as a mutator is attached:
/// nothing is freed then. Weak handles and maps may be destroyed later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_heap_destroy(heap: *mut *mut hw_heap) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let pointer = unsafe { place("heap", heap) }?;
        // SAFETY: as above.
        let Some(inside) = (unsafe { pointer.as_ref() }) else {
            return Ok(());
        };
        let attached = inside.shared.attached.load(Ordering::Acquire);
        if attached != 0 {
            return fail(
                HW_ERROR_BUSY,
                format!("{attached} mutators are attached; detach them first"),
            );
        }
        let old = core::mem::replace(pointer, core::ptr::null_mut());
        // SAFETY: made by `hw_heap_create`, and nobody uses it any more.
        let heap = unsafe { Box::from_raw(old) };
        // These refer to what holds them.
        heap.shared.forget();
        heap.shared.gone.store(true, Ordering::Release);
        Ok(())
    })
}

/// A variable of the program that holds a reference or null is a root, until `hw_remove_root`. Any thread. `HW_ERROR_ARGUMENT` if it is one
/// already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_add_root(heap: *mut hw_heap, slot: *mut hw_object) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (heap, slot) = unsafe { (given("heap", heap)?, given("slot", slot)?) };
        if heap.shared.roots().insert(core::ptr::from_ref(slot).addr()) {
            return Ok(());
        }
        fail(HW_ERROR_ARGUMENT, "the slot is a root already")
    })
}

/// Takes such a root back. `HW_ERROR_ARGUMENT` if it is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_remove_root(heap: *mut hw_heap, slot: *mut hw_object) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let heap = unsafe { given("heap", heap) }?;
        if heap.shared.roots().remove(&slot.addr()) {
            return Ok(());
        }
        fail(HW_ERROR_ARGUMENT, "the slot is no root")
    })
}

/// What a heap uses: see `hw_get_usage`. Bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct hw_usage {
    /// Blocks and large objects in use.
    pub used_bytes: usize,
    /// What may be in use before the heap is collected.
    pub limit_bytes: usize,
    /// What lived after the last collection.
    pub live_bytes: usize,
    /// What `hw_external_allocated` reported, less what was freed.
    pub external_bytes: usize,
    /// Handed to mutators since the heap was made, of those that are detached.
    pub allocated_bytes: u64,
    /// Collections so far.
    pub collections: u64,
    /// Those that traced everything.
    pub full_collections: u64,
    /// Limits in force; 0: none.
    pub soft_limit: usize,
    /// See `soft_limit`.
    pub hard_limit: usize,
}

/// What a heap uses. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_get_usage(heap: *const hw_heap, usage: *mut hw_usage) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (heap, out) = unsafe { (given("heap", heap)?, place("usage", usage)?) };
        let (u, limits) = on_heap!(&heap.any, h => (h.usage(), h.limits()));
        *out = hw_usage {
            used_bytes: u.used_bytes,
            limit_bytes: u.limit_bytes,
            live_bytes: u.live_bytes,
            external_bytes: u.external_bytes,
            allocated_bytes: u.allocated_bytes,
            collections: u.collections,
            full_collections: u.full_collections,
            soft_limit: limits.soft,
            hard_limit: limits.hard,
        };
        Ok(())
    })
}

pub(crate) use on_heap;
