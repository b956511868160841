//! References that are not plain: weak handles, weak maps, reference objects, ephemerons, finalizers.

use crate::heap::object;
use crate::mutator::{AnyMutator, hw_mutator, on_mutator};
use crate::status::{Failure, given, given_mut, guard, hw_status, hw_status::HW_INVALID};
use crate::vm::{CVm, hw_object};
use core::ffi::c_void;
use core::ptr;
use heapwright::{
    Ephemeron, FinalizerOrder, ObjectReference, Reference, ReferenceError, Strength, Weak, WeakMap,
};

/// How strongly a reference holds what it refers to: `HW_SOFT`, `HW_WEAK` or `HW_PHANTOM`.
pub type hw_strength = u32;
/// Until memory is wanted: the option `softrefs` says when.
pub const HW_SOFT: hw_strength = 0;
/// Not at all: it is cleared before finalizers are looked for.
pub const HW_WEAK: hw_strength = 1;
/// Not at all, and it is cleared only when finalizers do not reach it any more.
pub const HW_PHANTOM: hw_strength = 2;

fn strength_of(strength: hw_strength) -> Result<Strength, Failure> {
    match strength {
        HW_SOFT => Ok(Strength::Soft),
        HW_WEAK => Ok(Strength::Weak),
        HW_PHANTOM => Ok(Strength::Phantom),
        _ => Err(Failure(
            HW_INVALID,
            format!("strength {strength}: there are HW_SOFT, HW_WEAK and HW_PHANTOM"),
        )),
    }
}

fn given_back(o: Option<ObjectReference>) -> hw_object {
    o.map_or(ptr::null_mut(), |o| o.to_address().as_mut_ptr())
}

/// A handle, with either kind of heap.
#[derive(Debug)]
enum Either<A, B> {
    Plain(A),
    Mapped(B),
}

fn other_heap() -> Failure {
    Failure::from(ReferenceError::OtherHeap)
}

// ---- weak handles ----------------------------------------------------------------------------------------------------------

/// A weak handle to an object, for the program's own data. It may outlive its heap, and then refers to nothing.
#[derive(Debug)]
pub struct hw_weak(Either<Weak<CVm<false>>, Weak<CVm<true>>>);

/// Makes a weak handle to an object. Not a safepoint. Freed by [`hw_weak_free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_new(
    mutator: *mut hw_mutator,
    o: hw_object,
    strength: hw_strength,
    out: *mut *mut hw_weak,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (out, mutator) = unsafe { (given_mut(out, "out")?, given_mut(mutator, "mutator")) };
        *out = ptr::null_mut();
        let (o, strength) = (object(o)?, strength_of(strength)?);
        let weak = match &mut mutator?.any {
            AnyMutator::Plain(m) => Either::Plain(m.weak(o, strength)?),
            AnyMutator::Mapped(m) => Either::Mapped(m.weak(o, strength)?),
        };
        *out = Box::into_raw(Box::new(hw_weak(weak)));
        Ok(())
    })
}

/// The object; null if it is dead, the handle was cleared or is a phantom one, or the heap is gone. Not a safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_get(weak: *const hw_weak, mutator: *mut hw_mutator) -> hw_object {
    // SAFETY: the header's rules for pointers.
    let (weak, mutator) = unsafe { (weak.as_ref(), mutator.as_mut()) };
    given_back(match (weak.map(|w| &w.0), mutator.map(|m| &mut m.any)) {
        (Some(Either::Plain(w)), Some(AnyMutator::Plain(m))) => w.get(m),
        (Some(Either::Mapped(w)), Some(AnyMutator::Mapped(m))) => w.get(m),
        _ => None,
    })
}

/// Does it refer to nothing any more? Any thread. True for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_is_cleared(weak: *const hw_weak) -> bool {
    // SAFETY: the header's rules for pointers.
    unsafe { weak.as_ref() }.is_none_or(|w| match &w.0 {
        Either::Plain(w) => w.is_cleared(),
        Either::Mapped(w) => w.is_cleared(),
    })
}

/// Frees a handle; null is fine. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_free(weak: *mut hw_weak) {
    if !weak.is_null() {
        // SAFETY: made by `hw_weak_new`, and freed once (the header's rules).
        drop(unsafe { Box::from_raw(weak) });
    }
}

// ---- weak maps -------------------------------------------------------------------------------------------------------------

/// A map from objects, by identity, to objects that live as long as their keys do, and the map. Values may refer to their keys.
#[derive(Debug)]
pub struct hw_weak_map(Either<WeakMap<CVm<false>>, WeakMap<CVm<true>>>);

/// Does the same on a map and a mutator of the same kind.
macro_rules! on_map {
    ($map:expr, $mutator:expr, $w:ident, $m:ident => $do:expr) => {
        match (&$map.0, &mut $mutator.any) {
            (Either::Plain($w), AnyMutator::Plain($m)) => Ok($do),
            (Either::Mapped($w), AnyMutator::Mapped($m)) => Ok($do),
            _ => Err(other_heap()),
        }
    };
}

/// Makes a map. Freed by [`hw_weak_map_free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_map_new(
    mutator: *mut hw_mutator,
    out: *mut *mut hw_weak_map,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (out, mutator) = unsafe { (given_mut(out, "out")?, given_mut(mutator, "mutator")) };
        *out = ptr::null_mut();
        let map = match &mut mutator?.any {
            AnyMutator::Plain(m) => Either::Plain(m.weak_map()?),
            AnyMutator::Mapped(m) => Either::Mapped(m.weak_map()?),
        };
        *out = Box::into_raw(Box::new(hw_weak_map(map)));
        Ok(())
    })
}

/// Enters a value. The one that was there before is stored to `*before`, null if there was none; `before` may be null. Not a safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_map_set(
    map: *mut hw_weak_map,
    mutator: *mut hw_mutator,
    key: hw_object,
    value: hw_object,
    before: *mut hw_object,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (map, mutator, before) = unsafe {
            (
                given(map, "map")?,
                given_mut(mutator, "mutator")?,
                before.as_mut(),
            )
        };
        let (key, value) = (object(key)?, object(value)?);
        let old = on_map!(map, mutator, w, m => w.insert(m, key, value)?)?;
        if let Some(before) = before {
            *before = given_back(old);
        }
        Ok(())
    })
}

/// The value of a key; null if there is none. Not a safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_map_get(
    map: *const hw_weak_map,
    mutator: *mut hw_mutator,
    key: hw_object,
) -> hw_object {
    // SAFETY: the header's rules for pointers.
    let (map, mutator) = unsafe { (map.as_ref(), mutator.as_mut()) };
    let (Some(map), Some(mutator), Ok(key)) = (map, mutator, object(key)) else {
        return ptr::null_mut();
    };
    let found: Result<_, Failure> = on_map!(map, mutator, w, m => w.get(m, key));
    given_back(found.ok().flatten())
}

/// Takes an entry out: its value, null if there was none. Not a safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_map_remove(
    map: *mut hw_weak_map,
    mutator: *mut hw_mutator,
    key: hw_object,
) -> hw_object {
    // SAFETY: the header's rules for pointers.
    let (map, mutator) = unsafe { (map.as_ref(), mutator.as_mut()) };
    let (Some(map), Some(mutator), Ok(key)) = (map, mutator, object(key)) else {
        return ptr::null_mut();
    };
    let found: Result<_, Failure> = on_map!(map, mutator, w, m => w.remove(m, key));
    given_back(found.ok().flatten())
}

/// How many entries a map has, with those whose keys died since the last collection. 0 for null. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_map_count(map: *const hw_weak_map) -> usize {
    // SAFETY: the header's rules for pointers.
    unsafe { map.as_ref() }.map_or(0, |map| match &map.0 {
        Either::Plain(w) => w.len(),
        Either::Mapped(w) => w.len(),
    })
}

/// Frees a map; null is fine. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_weak_map_free(map: *mut hw_weak_map) {
    if !map.is_null() {
        // SAFETY: made by `hw_weak_map_new`, and freed once (the header's rules).
        drop(unsafe { Box::from_raw(map) });
    }
}

// ---- objects of the runtime that refer in other ways ---------------------------------------------------------------------------

/// Registers a reference object: `holder` has a slot, `slot` bytes from its beginning, that does not keep alive what it refers to. `scan` does
/// not report the slot. `queued`: when it is cleared, the holder is queued for [`hw_next_cleared`]. Read it by [`hw_read_reference`]. Not a
/// safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_add_reference(
    mutator: *mut hw_mutator,
    holder: hw_object,
    strength: hw_strength,
    slot: u32,
    queued: bool,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let mutator = unsafe { given_mut(mutator, "mutator")? };
        let reference = plain(object(holder)?, strength_of(strength)?, slot, queued);
        // SAFETY: the caller's promise, in the header.
        Ok(on_mutator!(mutator, m => unsafe { m.add_reference(&reference) })?)
    })
}

fn plain(holder: ObjectReference, strength: Strength, slot: u32, queued: bool) -> Reference {
    Reference {
        strength,
        queued,
        ..Reference::weak(holder, slot)
    }
}

/// What a reference object refers to; null if it was cleared. Not a safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_read_reference(
    mutator: *mut hw_mutator,
    holder: hw_object,
    strength: hw_strength,
    slot: u32,
) -> hw_object {
    // SAFETY: the header's rules for pointers.
    let mutator = unsafe { mutator.as_mut() };
    let (Some(mutator), Ok(holder), Ok(strength)) =
        (mutator, object(holder), strength_of(strength))
    else {
        return ptr::null_mut();
    };
    let reference = plain(holder, strength, slot, false);
    // SAFETY: the caller's promise, in the header.
    given_back(on_mutator!(mutator, m => unsafe { m.referent(&reference) }))
}

/// Takes the next reference object that was cleared and asked to be queued: true, and it is stored to `*holder`. Not a safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_next_cleared(mutator: *mut hw_mutator, holder: *mut hw_object) -> bool {
    // SAFETY: the header's rules for pointers.
    let (Some(mutator), Some(holder)) = (unsafe { mutator.as_mut() }, unsafe { holder.as_mut() })
    else {
        return false;
    };
    let next = on_mutator!(mutator, m => m.next_cleared());
    next.map(|cleared| *holder = cleared.holder.to_address().as_mut_ptr())
        .is_some()
}

/// Registers an ephemeron: `holder` has two slots that `scan` does not report; what the one at `value` refers to is kept as long as the
/// holder lives and what the one at `key` refers to does. Offsets in bytes from its beginning. Not a safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_add_ephemeron(
    mutator: *mut hw_mutator,
    holder: hw_object,
    key: u32,
    value: u32,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let mutator = unsafe { given_mut(mutator, "mutator")? };
        let holder = object(holder)?;
        let ephemeron = Ephemeron { holder, key, value };
        // SAFETY: the caller's promise, in the header.
        Ok(on_mutator!(mutator, m => unsafe { m.add_ephemeron(&ephemeron) })?)
    })
}

/// Reads an ephemeron: true, and key and value are stored to `*key_out` and `*value_out`; false if the key is dead, or there is none. Not a
/// safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_read_ephemeron(
    mutator: *mut hw_mutator,
    holder: hw_object,
    key: u32,
    value: u32,
    key_out: *mut hw_object,
    value_out: *mut hw_object,
) -> bool {
    // SAFETY: the header's rules for pointers.
    let (mutator, key_out, value_out) =
        unsafe { (mutator.as_mut(), key_out.as_mut(), value_out.as_mut()) };
    let (Some(mutator), Some(key_out), Some(value_out), Ok(holder)) =
        (mutator, key_out, value_out, object(holder))
    else {
        return false;
    };
    let ephemeron = Ephemeron { holder, key, value };
    // SAFETY: the caller's promise, in the header.
    let read = on_mutator!(mutator, m => unsafe { m.ephemeron(&ephemeron) });
    let Some((key, value)) = read else {
        return false;
    };
    *key_out = given_back(Some(key));
    *value_out = given_back(value);
    true
}

// ---- finalizers ------------------------------------------------------------------------------------------------------------

/// In which order objects become finalizable that die together: `HW_TOGETHER` or `HW_REGISTRATION`.
pub type hw_finalizer_order = u32;
/// All at once, as in Java: also those that others of them reach.
pub const HW_TOGETHER: hw_finalizer_order = 0;
/// One after the other, as they were registered.
pub const HW_REGISTRATION: hw_finalizer_order = 1;

/// Registers a finalizer: when nothing reaches the object any more, it is queued for [`hw_next_finalizable`], and kept alive until it is taken
/// from there. `token` comes back with it. Not a safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_add_finalizer(
    mutator: *mut hw_mutator,
    o: hw_object,
    order: hw_finalizer_order,
    token: *mut c_void,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let mutator = unsafe { given_mut(mutator, "mutator")? };
        let o = object(o)?;
        let order = match order {
            HW_TOGETHER => FinalizerOrder::Together,
            HW_REGISTRATION => FinalizerOrder::Registration,
            _ => {
                return Err(Failure(
                    HW_INVALID,
                    format!("order {order}: there are HW_TOGETHER and HW_REGISTRATION"),
                ));
            }
        };
        let token = token.expose_provenance();
        Ok(on_mutator!(mutator, m => m.add_finalizer(o, order, token))?)
    })
}

/// Takes the next object that is to be finalized: true, and it is stored to `*o`, and its token to `*token`. It may be registered again. Not a
/// safepoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_next_finalizable(
    mutator: *mut hw_mutator,
    o: *mut hw_object,
    token: *mut *mut c_void,
) -> bool {
    // SAFETY: the header's rules for pointers.
    let (mutator, o, token) = unsafe { (mutator.as_mut(), o.as_mut(), token.as_mut()) };
    let (Some(mutator), Some(o)) = (mutator, o) else {
        return false;
    };
    let Some(next) = on_mutator!(mutator, m => m.next_finalizable()) else {
        return false;
    };
    *o = next.object.to_address().as_mut_ptr();
    if let Some(token) = token {
        *token = ptr::with_exposed_provenance_mut(next.token);
    }
    true
}
