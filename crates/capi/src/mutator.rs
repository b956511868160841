//! Mutators: attach, allocate, write, collect.

use crate::heap::{AnyHeap, Shared, given, hw_heap, on_heap, place};
use crate::status::{Failure, fail, guard, guard_value, hw_status};
use crate::table::{Roots, Table, Thread, hw_object, raw, reference};
use core::cell::{Cell, UnsafeCell};
use core::ffi::c_void;
use core::ptr::{null, null_mut};
use core::sync::atomic::Ordering;
use heapwright::alloc::{After, Cursor};
use heapwright::{Address, FastPath, Limits, Mutator, ObjectReference, WildWord};
use hw_status::*;
use std::sync::Arc;

/// A size class of the fast path.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hw_size_class {
    /// Bytes of a cell.
    pub bytes: u16,
    /// Its number.
    pub number: u16,
}

/// A mutator: what allocates, by one thread at a time. The fields are for the inline functions of the header, and for code generators; they do
/// not change until it is detached.
#[repr(C)]
#[derive(Debug)]
pub struct hw_mutator {
    /// The largest request that is allocated inline, in bytes; 0: none is.
    pub most: usize,
    /// Of plans that bump: the cursor, with the limit behind it. Of those with size classes: where the address of the runs is.
    pub cursor: *mut usize,
    /// Null for plans that bump; else the class of a request, by its words (or, with `HW_OBJECT_MAP`, its pairs of words).
    pub classes: *const hw_size_class,
    /// What becomes the first word of a new object.
    pub header: *const usize,
    /// Not 0: call `hw_poll`.
    pub interrupt: *const u32,
    /// Not 0: call `hw_before_write`.
    pub barrier: *const u8,
    /// The run of class 0, in bytes from the runs.
    pub first: u32,
    /// From one run to the next, in bytes.
    pub stride: u32,
    /// Requests are rounded up to multiples of 1 << `align`.
    pub align: u32,
    /// 0.
    pub reserved: u32,
}

/// With an object map or without.
#[derive(Debug)]
pub(crate) enum AnyMutator {
    Plain(Mutator<Table<false>>),
    Mapped(Mutator<Table<true>>),
}

macro_rules! on_mutator {
    ($any:expr, $mutator:ident => $result:expr) => {
        match $any {
            $crate::mutator::AnyMutator::Plain($mutator) => $result,
            $crate::mutator::AnyMutator::Mapped($mutator) => $result,
        }
    };
}

/// A mutator with what C does not see.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Shell {
    face: UnsafeCell<hw_mutator>,
    /// None: detached.
    any: UnsafeCell<Option<AnyMutator>>,
    /// A function of the library has the mutator now.
    busy: Cell<bool>,
    shared: Arc<Shared>,
}

// SAFETY: used by one thread at a time (the header's rule); what is kept of a detached one is only looked at.
unsafe impl Send for Shell {}

static NO_HEADER: usize = 0;
static NO_INTERRUPT: u32 = 0;
/// A detached mutator asks the library about each write, which refuses.
static ALWAYS: u8 = 1;

fn face(fast: &FastPath, record: Address) -> hw_mutator {
    let at = |offset: usize| record.add(offset);
    let mut face = no_face();
    face.align = fast.align.trailing_zeros();
    face.interrupt = at(fast.interrupt).as_ptr();
    face.barrier = at(fast.barrier).as_ptr();
    match fast.cursor {
        Cursor::Record { offset } => face.cursor = at(offset).as_ptr::<usize>().cast_mut(),
        Cursor::Runs {
            runs,
            first,
            stride,
            classes,
        } => {
            face.cursor = at(runs).as_ptr::<usize>().cast_mut();
            face.first = first as u32;
            face.stride = stride as u32;
            face.classes = classes.as_ptr().cast();
        }
    }
    face.most = match fast.after {
        After::Nothing => fast.most,
        After::StoreHeader { offset } => {
            face.header = at(offset).as_ptr();
            fast.most
        }
        // By a call, which does all of it.
        After::Enter => 0,
    };
    face
}

/// Of a detached mutator: everything is a call.
fn no_face() -> hw_mutator {
    hw_mutator {
        most: 0,
        cursor: null_mut(),
        classes: null(),
        header: &raw const NO_HEADER,
        interrupt: &raw const NO_INTERRUPT,
        barrier: &raw const ALWAYS,
        first: 0,
        stride: 0,
        align: 3,
        reserved: 0,
    }
}

/// # Safety
/// Null, or a mutator that was detached not too long ago, or one that is attached.
unsafe fn shell<'a>(mutator: *mut hw_mutator) -> Result<&'a Shell, Failure> {
    // SAFETY: the caller's promise; the face is the shell's first field.
    unsafe { given("mutator", mutator.cast::<Shell>()) }
}

/// Gives `steps` the mutator, which nobody else has meanwhile: callbacks that come back to it are refused.
///
/// # Safety
/// As for [`shell`], and only one thread uses it.
pub(crate) unsafe fn with<R>(
    mutator: *mut hw_mutator,
    steps: impl FnOnce(&mut AnyMutator) -> Result<R, Failure>,
) -> Result<R, Failure> {
    struct Free<'a>(&'a Cell<bool>);
    impl Drop for Free<'_> {
        fn drop(&mut self) {
            self.0.set(false);
        }
    }
    // SAFETY: the caller's promise.
    let shell = unsafe { shell(mutator) }?;
    if shell.busy.replace(true) {
        return fail(
            HW_ERROR_BUSY,
            "the mutator is in use: a callback of the heap must not use it, nor a function that runs outside of the heap",
        );
    }
    let _free = Free(&shell.busy);
    // SAFETY: `busy` was not set, so no other reference is there.
    match unsafe { &mut *shell.any.get() } {
        Some(any) => steps(any),
        None => fail(HW_ERROR_DETACHED, "the mutator is detached"),
    }
}

/// An object that was handed over.
pub(crate) fn object(object: hw_object) -> Result<ObjectReference, Failure> {
    match reference(object) {
        Some(object) if object.to_address().as_usize().is_multiple_of(8) => Ok(object),
        Some(_) => fail(
            HW_ERROR_ARGUMENT,
            "the object's address is no multiple of 8",
        ),
        None => fail(HW_ERROR_ARGUMENT, "the object is null"),
    }
}

/// Attaches a mutator. `thread` is the program's own, for `hw_vm.thread_roots`. The mutator is inside of the heap: collections wait for it, until
/// it allocates, polls (`hw_poll`), or goes outside (`hw_outside`). It may be handed from thread to thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_attach(
    heap: *mut hw_heap,
    thread: *mut c_void,
    mutator: *mut *mut hw_mutator,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (heap, out) = unsafe { (given("heap", heap)?, place("mutator", mutator)?) };
        *out = null_mut();
        let roots = Roots {
            thread: Thread(thread),
            stack: Vec::new(),
        };
        let any = match &heap.any {
            AnyHeap::Plain(heap) => AnyMutator::Plain(heap.attach(roots)?),
            AnyHeap::Mapped(heap) => AnyMutator::Mapped(heap.attach(roots)?),
        };
        let face = on_mutator!(&any, m => face(&m.fast_path(), m.record()));
        heap.shared.attached.fetch_add(1, Ordering::AcqRel);
        let shell = Shell {
            face: UnsafeCell::new(face),
            any: UnsafeCell::new(Some(any)),
            busy: Cell::new(false),
            shared: Arc::clone(&heap.shared),
        };
        *out = Box::into_raw(Box::new(shell)).cast();
        Ok(())
    })
}

/// Detaches a mutator and sets the pointer to null. Null is `HW_ERROR_DETACHED`: it was detached before. So is a copy of the pointer, as long as
/// its heap is there and at most 256 more mutators were detached since; later it must not be used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_detach(mutator: *mut *mut hw_mutator) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let pointer = unsafe { place("mutator", mutator) }?;
        if pointer.is_null() {
            return fail(HW_ERROR_DETACHED, "the mutator is detached");
        }
        // SAFETY: as above.
        let shell = unsafe { shell(*pointer) }?;
        if shell.busy.get() {
            return fail(
                HW_ERROR_BUSY,
                "the mutator is in use: it cannot be detached by a callback",
            );
        }
        // SAFETY: not busy: nobody has a reference.
        let Some(any) = (unsafe { &mut *shell.any.get() }).take() else {
            *pointer = null_mut();
            return fail(HW_ERROR_DETACHED, "the mutator is detached");
        };
        // SAFETY: as above.
        unsafe { *shell.face.get() = no_face() };
        drop(any);
        let shared = Arc::clone(&shell.shared);
        // SAFETY: made by `hw_attach`; it goes to those that are remembered once, as `any` was there.
        shared.retire(unsafe { Box::from_raw(pointer.cast::<Shell>()) });
        *pointer = null_mut();
        shared.attached.fetch_sub(1, Ordering::AcqRel);
        Ok(())
    })
}

/// What `hw_alloc` calls when the inline part does not do. Any size: at least 16 bytes are taken. Zeroed. May collect. Null if there is no room:
/// `hw_last_status` says why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_alloc_slow(mutator: *mut hw_mutator, bytes: usize) -> hw_object {
    guard_value(null_mut(), || {
        // SAFETY: the header's rules for pointers.
        unsafe {
            with(mutator, |any| {
                Ok(raw(on_mutator!(any, m => m.alloc(bytes))?))
            })
        }
    })
}

/// As `hw_alloc`, for an object that never moves, in every plan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_alloc_unmoving(mutator: *mut hw_mutator, bytes: usize) -> hw_object {
    guard_value(null_mut(), || {
        // SAFETY: the header's rules for pointers.
        unsafe {
            with(mutator, |any| {
                Ok(raw(on_mutator!(any, m => m.alloc_unmoving(bytes))?))
            })
        }
    })
}

/// As `hw_alloc`, for an object that lives as long as the heap, and never moves.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_alloc_immortal(mutator: *mut hw_mutator, bytes: usize) -> hw_object {
    guard_value(null_mut(), || {
        // SAFETY: the header's rules for pointers.
        unsafe {
            with(mutator, |any| {
                Ok(raw(on_mutator!(any, m => m.alloc_immortal(bytes))?))
            })
        }
    })
}

/// What `hw_poll` calls when a collection waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_poll_slow(mutator: *mut hw_mutator) -> hw_status {
    // SAFETY: the header's rules for pointers.
    guard(|| unsafe {
        with(mutator, |any| {
            on_mutator!(any, m => m.poll());
            Ok(())
        })
    })
}

/// What `hw_write` calls when there is a barrier. `slot` is the field that is about to be written; null: any number of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_before_write(
    mutator: *mut hw_mutator,
    holder: hw_object,
    slot: *mut hw_object,
) -> hw_status {
    guard(|| {
        let holder = object(holder)?;
        let slot = (!slot.is_null()).then(|| Address::from_ptr(slot.cast_const()));
        // SAFETY: the header's rules for pointers.
        unsafe {
            with(mutator, |any| {
                on_mutator!(any, m => m.before_write(holder, slot));
                Ok(())
            })
        }
    })
}

/// A variable of the calling function is a root until `hw_pop_roots`. It holds a reference or null, and is not pushed twice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_push_root(mutator: *mut hw_mutator, slot: *mut hw_object) -> hw_status {
    guard(|| {
        if slot.is_null() {
            return fail(HW_ERROR_ARGUMENT, "slot is null");
        }
        // SAFETY: the header's rules for pointers.
        unsafe {
            with(mutator, |any| {
                let stack = on_mutator!(any, m => &mut m.thread().stack);
                if stack.try_reserve(1).is_err() {
                    return fail(HW_ERROR_MEMORY, "there is no memory for one more root");
                }
                stack.push(slot.addr());
                Ok(())
            })
        }
    })
}

/// The `count` roots that were pushed last are none any more. `HW_ERROR_ARGUMENT` if there are fewer: then all stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_pop_roots(mutator: *mut hw_mutator, count: usize) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        unsafe {
            with(mutator, |any| {
                let stack = on_mutator!(any, m => &mut m.thread().stack);
                match stack.len().checked_sub(count) {
                    Some(left) => {
                        stack.truncate(left);
                        Ok(())
                    }
                    None => fail(
                        HW_ERROR_ARGUMENT,
                        format!("{count} roots to pop, and {} are there", stack.len()),
                    ),
                }
            })
        }
    })
}

/// For `hw_collect`: what the plan thinks is due.
pub const HW_COLLECT_YOUNG: u32 = 0;
/// For `hw_collect`: everything.
pub const HW_COLLECT_FULL: u32 = 1;
/// For `hw_collect`: begins a collection that goes on while mutators run, in plans that have such; in others as `HW_COLLECT_YOUNG`.
pub const HW_COLLECT_BACKGROUND: u32 = 2;
/// For `hw_collect`: everything, and free memory goes back to the system.
pub const HW_COLLECT_RELEASE: u32 = 3;

/// Collects now. A plan that never collects does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_collect(mutator: *mut hw_mutator, how: u32) -> hw_status {
    guard(|| {
        if how > HW_COLLECT_RELEASE {
            return fail(
                HW_ERROR_ARGUMENT,
                format!("{how} is no way to collect: HW_COLLECT_YOUNG to HW_COLLECT_RELEASE"),
            );
        }
        // SAFETY: the header's rules for pointers.
        unsafe {
            with(mutator, |any| {
                on_mutator!(any, m => match how {
                    HW_COLLECT_YOUNG => { let _ = m.collect_young(); },
                    HW_COLLECT_FULL => { let _ = m.collect(); },
                    HW_COLLECT_BACKGROUND => m.collect_in_background(),
                    _ => { let _ = m.release_memory(); },
                });
                Ok(())
            })
        }
    })
}

/// Calls `work(arg)` outside of the heap: for what may take long, as a read or a lock. Collections do not wait for it. `work` uses neither the
/// mutator nor references.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_outside(
    mutator: *mut hw_mutator,
    work: Option<unsafe extern "C" fn(arg: *mut c_void)>,
    arg: *mut c_void,
) -> hw_status {
    guard(|| {
        let Some(work) = work else {
            return fail(HW_ERROR_CALLBACK, "work is null");
        };
        // SAFETY: the header's rules for pointers; the program's function.
        unsafe {
            with(mutator, |any| {
                on_mutator!(any, m => m.outside(|| work(arg)));
                Ok(())
            })
        }
    })
}

/// Changes the limits, in bytes; 0: as the system has them. Collects first if more is in use than `hard`. `HW_ERROR_LIMIT` if then still more
/// lives: the old limits stay in force.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_set_limits(
    mutator: *mut hw_mutator,
    soft: usize,
    hard: usize,
) -> hw_status {
    // SAFETY: the header's rules for pointers.
    guard(|| unsafe {
        with(mutator, |any| {
            Ok(on_mutator!(any, m => m.set_limits(Limits { soft, hard }))?)
        })
    })
}

/// The program took so many bytes by `malloc` or elsewhere for an object: they count towards the next collection.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_external_allocated(
    mutator: *mut hw_mutator,
    bytes: usize,
) -> hw_status {
    // SAFETY: the header's rules for pointers.
    guard(|| unsafe {
        with(mutator, |any| {
            on_mutator!(any, m => m.external_allocated(bytes));
            Ok(())
        })
    })
}

/// It gave them back. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_external_freed(heap: *mut hw_heap, bytes: usize) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let heap = unsafe { given("heap", heap) }?;
        on_heap!(&heap.any, h => h.external_freed(bytes));
        Ok(())
    })
}

/// Keeps an object where it is, until `hw_unpin` was called as often. It is not kept alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_pin(mutator: *mut hw_mutator, pinned: hw_object) -> hw_status {
    guard(|| {
        let pinned = object(pinned)?;
        // SAFETY: the header's rules for pointers.
        unsafe {
            with(mutator, |any| {
                on_mutator!(any, m => m.heap().pin_counted(pinned));
                Ok(())
            })
        }
    })
}

/// Takes one pin back. `HW_ERROR_NOT_PINNED` if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_unpin(mutator: *mut hw_mutator, pinned: hw_object) -> hw_status {
    guard(|| {
        let pinned = object(pinned)?;
        // SAFETY: the header's rules for pointers.
        unsafe {
            with(mutator, |any| {
                on_mutator!(any, m => m.heap().unpin(pinned))?;
                Ok(())
            })
        }
    })
}

/// A number that stays the same as long as the object lives, wherever it moves. Two objects may have the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_identity_hash(
    mutator: *mut hw_mutator,
    of: hw_object,
    hash: *mut usize,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (of, out) = (object(of)?, unsafe { place("hash", hash) }?);
        // SAFETY: as above.
        unsafe {
            with(mutator, |any| {
                *out = on_mutator!(any, m => m.identity_hash(of));
                Ok(())
            })
        }
    })
}

/// Calls `visit` for every object, with the world stopped; also for those that died since the last collection. `visit` uses no mutator.
/// `HW_ERROR_UNSUPPORTED` without `HW_OBJECT_MAP`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_for_each_object(
    mutator: *mut hw_mutator,
    visit: Option<unsafe extern "C" fn(arg: *mut c_void, object: hw_object)>,
    arg: *mut c_void,
) -> hw_status {
    guard(|| {
        let Some(visit) = visit else {
            return fail(HW_ERROR_CALLBACK, "visit is null");
        };
        // SAFETY: the header's rules for pointers; the program's function.
        unsafe {
            with(mutator, |any| match any {
                AnyMutator::Plain(_) => fail(
                    HW_ERROR_UNSUPPORTED,
                    "the heap was made without HW_OBJECT_MAP",
                ),
                AnyMutator::Mapped(m) => {
                    m.for_each_object(&mut |object| visit(arg, raw(object)));
                    Ok(())
                }
            })
        }
    })
}

/// The object at or around an address, or null if there is none. `HW_ERROR_UNSUPPORTED` without `HW_OBJECT_MAP`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_object_at(
    mutator: *mut hw_mutator,
    address: usize,
    found: *mut hw_object,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let out = unsafe { place("found", found) }?;
        // SAFETY: as above.
        unsafe {
            with(mutator, |any| match any {
                AnyMutator::Plain(_) => fail(
                    HW_ERROR_UNSUPPORTED,
                    "the heap was made without HW_OBJECT_MAP",
                ),
                AnyMutator::Mapped(m) => {
                    *out = m
                        .heap()
                        .object_around(WildWord::new(address))
                        .map_or(null_mut(), raw);
                    Ok(())
                }
            })
        }
    })
}

pub(crate) use on_mutator;
