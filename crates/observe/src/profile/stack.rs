//! The stack of the calling thread, by the unwinder that the language's own exceptions use. It finds its way by the tables that
//! compilers write for every function, so that no frame pointers are needed; code without such tables ends the walk.

#![allow(unsafe_code, reason = "the unwinder's interface is in C")]

use core::ffi::{c_int, c_void};

#[repr(C)]
struct Context {
    _opaque: [u8; 0],
}

type Step = extern "C" fn(*mut Context, *mut c_void) -> c_int;

/// `_URC_NO_REASON` and `_URC_END_OF_STACK`.
const ON: c_int = 0;
const ENOUGH: c_int = 5;

// In the library that Rust's standard library links for panics.
unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(step: Step, argument: *mut c_void) -> c_int;
    fn _Unwind_GetIP(context: *mut Context) -> usize;
}

/// Visits the return addresses, from the inside out, until `visit` has enough. It may take the loader's lock, so a thread is not to
/// be stopped for good meanwhile.
pub(super) fn walk<F: FnMut(usize) -> bool>(mut visit: F) {
    extern "C" fn step<F: FnMut(usize) -> bool>(
        context: *mut Context,
        argument: *mut c_void,
    ) -> c_int {
        // SAFETY: the unwinder gives its own context.
        let pc = unsafe { _Unwind_GetIP(context) };
        // SAFETY: what was passed below, and nobody else uses it.
        let visit = unsafe { &mut *argument.cast::<F>() };
        if pc != 0 && visit(pc) { ON } else { ENOUGH }
    }
    // SAFETY: the callback does what the interface says, and does not unwind.
    unsafe { _Unwind_Backtrace(step::<F>, (&raw mut visit).cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn deep(n: usize) -> usize {
        if n > 0 {
            return core::hint::black_box(deep(n - 1)) + 1;
        }
        let mut frames = 0;
        walk(|_| {
            frames += 1;
            true
        });
        frames
    }

    #[test]
    fn frames_are_found_and_the_walk_can_be_ended() {
        let (shallow, deeper) = (deep(0), deep(20));
        assert!(shallow > 3);
        assert_eq!(deeper, shallow + 20 + 20);
        let mut frames = 0;
        walk(|pc| {
            assert_ne!(pc, 0);
            frames += 1;
            frames < 3
        });
        assert_eq!(frames, 3);
    }
}
