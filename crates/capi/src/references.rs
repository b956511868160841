//! References that are not plain: weak handles, weak maps, ephemerons, finalizers. docs/references.md has their semantics.

use crate::heap::{Shared, given, place};
use crate::mutator::{AnyMutator, hw_mutator, object, on_mutator, with};
use crate::status::{Failure, fail, guard, guard_value, hw_status};
use crate::table::{Table, hw_object, raw};
use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::Ordering;
use heapwright::{Ephemeron, FinalizerOrder, Strength, Weak, WeakMap};
use hw_status::*;
use std::sync::Arc;

/// For `hw_weak_create`: held until memory is wanted.
pub const HW_SOFT: u32 = 0;
/// For `hw_weak_create`: not held, and cleared before finalizers run.
pub const HW_WEAK: u32 = 1;
/// For `hw_weak_create`: not held, cleared when no finalizer reaches the object any more; never gives the object.
pub const HW_PHANTOM: u32 = 2;

/// For `hw_add_finalizer`: all that die together are finalized together, as in Java.
pub const HW_TOGETHER: u32 = 0;
/// For `hw_add_finalizer`: one after the other; what one reaches waits for it.
pub const HW_IN_ORDER: u32 = 1;

enum AnyWeak {
    Plain(Weak<Table<false>>),
    Mapped(Weak<Table<true>>),
}

enum AnyMap {
    Plain(WeakMap<Table<false>>),
    Mapped(WeakMap<Table<true>>),
}

/// A handle that does not keep its object alive. May outlive its heap, and then refers to nothing.
pub struct hw_weak(AnyWeak, Arc<Shared>);

/// A map from objects, by identity, to objects that live as long as their keys. May outlive its heap, and then is empty.
pub struct hw_weak_map(AnyMap, Arc<Shared>);

impl core::fmt::Debug for hw_weak {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("hw_weak").finish_non_exhaustive()
    }
}

impl core::fmt::Debug for hw_weak_map {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("hw_weak_map").finish_non_exhaustive()
    }
}

fn other_heap<T>() -> Result<T, Failure> {
    fail(HW_ERROR_ARGUMENT, "the mutator is of another heap")
}

/// A weak handle to an object: `HW_SOFT`, `HW_WEAK` or `HW_PHANTOM`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_create(
    mutator: *mut hw_mutator,
    target: hw_object,
    strength: u32,
    weak: *mut *mut hw_weak,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let out = unsafe { place("weak", weak) }?;
        *out = null_mut();
        let target = object(target)?;
        let Some(strength) = Strength::ALL.get(strength as usize).copied() else {
            return fail(
                HW_ERROR_ARGUMENT,
                format!("{strength} is no strength: HW_SOFT, HW_WEAK, HW_PHANTOM"),
            );
        };
        // SAFETY: as above.
        let (made, shared) = unsafe {
            with(mutator, |any| {
                let shared = on_mutator!(&*any, m => Arc::clone(&m.vm().shared));
                let made = match any {
                    AnyMutator::Plain(m) => AnyWeak::Plain(m.weak(target, strength)?),
                    AnyMutator::Mapped(m) => AnyWeak::Mapped(m.weak(target, strength)?),
                };
                Ok((made, shared))
            })
        }?;
        *out = Box::into_raw(Box::new(hw_weak(made, shared)));
        Ok(())
    })
}

/// The object of a weak handle; null if it was cleared, or on an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_get(mutator: *mut hw_mutator, weak: *const hw_weak) -> hw_object {
    guard_value(null_mut(), || {
        // SAFETY: the header's rules for pointers.
        let weak = unsafe { given("weak", weak) }?;
        // SAFETY: as above.
        unsafe {
            with(mutator, |any| {
                let found = match (any, &weak.0) {
                    (AnyMutator::Plain(m), AnyWeak::Plain(w)) => w.get(m),
                    (AnyMutator::Mapped(m), AnyWeak::Mapped(w)) => w.get(m),
                    _ => return other_heap(),
                };
                Ok(found.map_or(null_mut(), raw))
            })
        }
    })
}

/// 1: the handle refers to nothing any more, or is null. Any thread; also for phantom ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_is_cleared(weak: *const hw_weak) -> i32 {
    guard_value(1, || {
        // SAFETY: the header's rules for pointers.
        let weak = unsafe { given("weak", weak) }?;
        if weak.1.gone.load(Ordering::Acquire) {
            return Ok(1);
        }
        Ok(match &weak.0 {
            AnyWeak::Plain(w) => w.is_cleared(),
            AnyWeak::Mapped(w) => w.is_cleared(),
        }
        .into())
    })
}

/// Frees a handle and sets the pointer to null, which is also fine to give.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_destroy(weak: *mut *mut hw_weak) -> hw_status {
    // SAFETY: the header's rules for pointers.
    guard(|| unsafe { free("weak", weak) })
}

/// # Safety
/// A pointer to a box of this library's, or to null.
unsafe fn free<T>(what: &str, pointer: *mut *mut T) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    let pointer = unsafe { place(what, pointer) }?;
    let old = core::mem::replace(pointer, null_mut());
    if !old.is_null() {
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(old) });
    }
    Ok(())
}

/// A new weak map.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_map_create(
    mutator: *mut hw_mutator,
    map: *mut *mut hw_weak_map,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let out = unsafe { place("map", map) }?;
        *out = null_mut();
        // SAFETY: as above.
        let (made, shared) = unsafe {
            with(mutator, |any| {
                let shared = on_mutator!(&*any, m => Arc::clone(&m.vm().shared));
                let made = match any {
                    AnyMutator::Plain(m) => AnyMap::Plain(m.weak_map()?),
                    AnyMutator::Mapped(m) => AnyMap::Mapped(m.weak_map()?),
                };
                Ok((made, shared))
            })
        }?;
        *out = Box::into_raw(Box::new(hw_weak_map(made, shared)));
        Ok(())
    })
}

/// Enters a value, in the place of the one that was there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_map_insert(
    mutator: *mut hw_mutator,
    map: *const hw_weak_map,
    key: hw_object,
    value: hw_object,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let map = unsafe { given("map", map) }?;
        let (key, value) = (object(key)?, object(value)?);
        // SAFETY: as above.
        unsafe {
            with(mutator, |any| {
                match (any, &map.0) {
                    (AnyMutator::Plain(m), AnyMap::Plain(map)) => {
                        let _ = map.insert(m, key, value)?;
                    }
                    (AnyMutator::Mapped(m), AnyMap::Mapped(map)) => {
                        let _ = map.insert(m, key, value)?;
                    }
                    _ => return other_heap(),
                }
                Ok(())
            })
        }
    })
}

/// The value of a key; null if there is none, or on an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_map_get(
    mutator: *mut hw_mutator,
    map: *const hw_weak_map,
    key: hw_object,
) -> hw_object {
    guard_value(null_mut(), || {
        // SAFETY: the header's rules for pointers.
        let map = unsafe { given("map", map) }?;
        let key = object(key)?;
        // SAFETY: as above.
        unsafe {
            with(mutator, |any| {
                let found = match (any, &map.0) {
                    (AnyMutator::Plain(m), AnyMap::Plain(map)) => map.get(m, key),
                    (AnyMutator::Mapped(m), AnyMap::Mapped(map)) => map.get(m, key),
                    _ => return other_heap(),
                };
                Ok(found.map_or(null_mut(), raw))
            })
        }
    })
}

/// Takes an entry out: its value, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_map_remove(
    mutator: *mut hw_mutator,
    map: *const hw_weak_map,
    key: hw_object,
) -> hw_object {
    guard_value(null_mut(), || {
        // SAFETY: the header's rules for pointers.
        let map = unsafe { given("map", map) }?;
        let key = object(key)?;
        // SAFETY: as above.
        unsafe {
            with(mutator, |any| {
                let found = match (any, &map.0) {
                    (AnyMutator::Plain(m), AnyMap::Plain(map)) => map.remove(m, key),
                    (AnyMutator::Mapped(m), AnyMap::Mapped(map)) => map.remove(m, key),
                    _ => return other_heap(),
                };
                Ok(found.map_or(null_mut(), raw))
            })
        }
    })
}

/// How many entries there are, with those whose keys died since the last collection. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_map_count(map: *const hw_weak_map) -> usize {
    guard_value(0, || {
        // SAFETY: the header's rules for pointers.
        let map = unsafe { given("map", map) }?;
        if map.1.gone.load(Ordering::Acquire) {
            return Ok(0);
        }
        Ok(match &map.0 {
            AnyMap::Plain(map) => map.len(),
            AnyMap::Mapped(map) => map.len(),
        })
    })
}

/// Frees a map and sets the pointer to null, which is also fine to give.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_map_destroy(map: *mut *mut hw_weak_map) -> hw_status {
    // SAFETY: the header's rules for pointers.
    guard(|| unsafe { free("map", map) })
}

/// Registers an ephemeron: `holder` has a key and a value in the words at these offsets, in bytes, which `hw_vm.scan` does not report. The value
/// is kept while holder and key live; both words become null when the key dies. `HW_ERROR_ARGUMENT` if an offset is 0 or no multiple of 8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_add_ephemeron(
    mutator: *mut hw_mutator,
    holder: hw_object,
    key: u32,
    value: u32,
) -> hw_status {
    guard(|| {
        let holder = object(holder)?;
        if [key, value]
            .iter()
            .any(|offset| *offset == 0 || !offset.is_multiple_of(8))
            || key == value
        {
            return fail(
                HW_ERROR_ARGUMENT,
                "offsets are multiples of 8, not 0, and differ",
            );
        }
        let ephemeron = Ephemeron { holder, key, value };
        // SAFETY: the header's rules: the words are in the object, and registered once.
        unsafe {
            with(mutator, |any| {
                Ok(on_mutator!(any, m => m.add_ephemeron(&ephemeron))?)
            })
        }
    })
}

/// When nothing reaches the object any more, it is queued for `hw_next_finalizable`, with the token, and lives until it is taken from there.
/// `order` is `HW_TOGETHER` or `HW_IN_ORDER`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_add_finalizer(
    mutator: *mut hw_mutator,
    target: hw_object,
    order: u32,
    token: usize,
) -> hw_status {
    guard(|| {
        let target = object(target)?;
        let order = match order {
            HW_TOGETHER => FinalizerOrder::Together,
            HW_IN_ORDER => FinalizerOrder::Registration,
            _ => {
                return fail(
                    HW_ERROR_ARGUMENT,
                    format!("{order} is no order: HW_TOGETHER, HW_IN_ORDER"),
                );
            }
        };
        // SAFETY: the header's rules for pointers.
        unsafe {
            with(mutator, |any| {
                Ok(on_mutator!(any, m => m.add_finalizer(target, order, token))?)
            })
        }
    })
}

/// Takes the next object that is to be finalized: null if there is none. `token` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_next_finalizable(
    mutator: *mut hw_mutator,
    token: *mut usize,
) -> hw_object {
    guard_value(null_mut(), || {
        // SAFETY: the header's rules for pointers.
        let next = unsafe {
            with(mutator, |any| {
                Ok(on_mutator!(any, m => m.next_finalizable()))
            })
        }?;
        let Some(next) = next else {
            return Ok(null_mut());
        };
        // SAFETY: as above.
        if let Some(out) = unsafe { token.as_mut() } {
            *out = next.token;
        }
        Ok(raw(next.object))
    })
}

/// Calls `finalize` for at most `most` objects that are to be finalized: how many it was. `finalize` may do all that a mutator may, also
/// allocate, register finalizers, and keep the object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_run_finalizers(
    mutator: *mut hw_mutator,
    most: usize,
    finalize: Option<
        unsafe extern "C" fn(
            arg: *mut c_void,
            mutator: *mut hw_mutator,
            object: hw_object,
            token: usize,
        ),
    >,
    arg: *mut c_void,
) -> usize {
    guard_value(0, || {
        let Some(finalize) = finalize else {
            return fail(HW_ERROR_CALLBACK, "finalize is null");
        };
        let mut count = 0;
        while count < most {
            let mut token = 0;
            // SAFETY: the header's rules for pointers.
            let next = unsafe { hw_next_finalizable(mutator, &raw mut token) };
            if next.is_null() {
                break;
            }
            count += 1;
            // SAFETY: the program's function; nothing of the mutator is borrowed meanwhile.
            unsafe { finalize(arg, mutator, next, token) };
        }
        Ok(count)
    })
}
