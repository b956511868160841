//! A client's function in a variable: what setters store, getters return, and the collector calls.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicPtr, Ordering};

/// A function pointer that may be absent, in a variable as C has it: eight bytes, null is none. Clients write to exported
/// ones directly.
#[repr(transparent)]
pub struct Callback<F>(AtomicPtr<c_void>, PhantomData<fn() -> F>);

impl<F> core::fmt::Debug for Callback<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Callback").field(&self.0).finish()
    }
}

/// Types of which a [`Callback`] can be: pointers to functions.
///
/// # Safety
/// The type is a pointer to a function.
pub unsafe trait Function: Copy {}

macro_rules! functions {
    ($($argument:ident),*) => {
        // SAFETY: it is one.
        unsafe impl<R, $($argument),*> Function for unsafe extern "C-unwind" fn($($argument),*) -> R {}
    };
}
functions!();
functions!(A);
functions!(A, B);
functions!(A, B, C);
functions!(A, B, C, D);

impl<F: Function> Callback<F> {
    /// No function.
    #[allow(
        clippy::declare_interior_mutable_const,
        reason = "each use makes a place of its own"
    )]
    pub(crate) const NONE: Self = Self(AtomicPtr::new(core::ptr::null_mut()), PhantomData);

    /// A function to begin with.
    ///
    /// # Safety
    /// `function` is an `F`.
    pub(crate) const unsafe fn first(function: *mut c_void) -> Self {
        Self(AtomicPtr::new(function), PhantomData)
    }

    /// The function that is stored.
    #[inline]
    pub(crate) fn get(&self) -> Option<F> {
        const { assert!(size_of::<Option<F>>() == size_of::<*mut c_void>()) };
        let function = self.0.load(Ordering::Acquire);
        // SAFETY: null or the function that was stored by `set`, `first` or, in an exported variable, a client that follows
        // the variable's type; `Option` of a pointer to a function has null for `None`.
        unsafe { core::mem::transmute_copy::<*mut c_void, Option<F>>(&function) }
    }

    /// Stores a function, or none.
    pub(crate) fn set(&self, function: Option<F>) {
        // SAFETY: as in `get`, the other way round.
        let function = unsafe { core::mem::transmute_copy::<Option<F>, *mut c_void>(&function) };
        self.0.store(function, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C-unwind" fn twice(n: i32) -> i32 {
        2 * n
    }

    #[test]
    fn what_is_stored_can_be_called() {
        let callback = Callback::<unsafe extern "C-unwind" fn(i32) -> i32>::NONE;
        assert!(callback.get().is_none());
        callback.set(Some(twice));
        // SAFETY: the function above.
        assert_eq!(callback.get().map(|f| unsafe { f(21) }), Some(42));
        callback.set(None);
        assert!(callback.get().is_none());
    }
}
