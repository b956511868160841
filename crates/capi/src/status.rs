//! Statuses, the last error of a thread, and the border that panics do not cross.

use core::cell::RefCell;
use core::ffi::c_char;
use heapwright::{AllocError, HeapError, LimitError, OptionError, PinError, ReferenceError};
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a function answers. `HW_OK` is 0; after anything else `hw_last_error()` has a sentence.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum hw_status {
    /// It was done.
    HW_OK = 0,
    /// A null pointer, or a value that is not allowed. Nothing was changed.
    HW_ERROR_ARGUMENT = 1,
    /// A callback that must be there is null. No heap was made.
    HW_ERROR_CALLBACK = 2,
    /// The program was compiled with the header of another version than the library's.
    HW_ERROR_VERSION = 3,
    /// There is no such option, or it does not take the value.
    HW_ERROR_OPTION = 4,
    /// The heap is full, also after collecting. It is unharmed.
    HW_ERROR_MEMORY = 5,
    /// The operating system refused memory, addresses or a thread.
    HW_ERROR_SYSTEM = 6,
    /// The plan, or the heap as it was made, cannot do this.
    HW_ERROR_UNSUPPORTED = 7,
    /// The mutator is detached already.
    HW_ERROR_DETACHED = 8,
    /// Not now: mutators are attached, or the call came from a callback in which it is not allowed.
    HW_ERROR_BUSY = 9,
    /// More is in use than the limit allows, or limits contradict each other. The old ones are in force.
    HW_ERROR_LIMIT = 10,
    /// The object has no pin that could be taken back.
    HW_ERROR_NOT_PINNED = 11,
    /// An error of the library's own. The heap should not be used any more.
    HW_ERROR_INTERNAL = 12,
}

use hw_status::*;

/// An error on its way to C.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: hw_status,
    pub(crate) message: String,
}

pub(crate) fn fail<T>(status: hw_status, message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure {
        status,
        message: message.into(),
    })
}

impl Failure {
    fn of(status: hw_status, error: &dyn core::fmt::Display) -> Self {
        Self {
            status,
            message: error.to_string(),
        }
    }
}

impl From<AllocError> for Failure {
    fn from(e: AllocError) -> Self {
        let status = match e {
            AllocError::Os(_) => HW_ERROR_SYSTEM,
            _ => HW_ERROR_MEMORY,
        };
        Self::of(status, &e)
    }
}

impl From<HeapError> for Failure {
    fn from(e: HeapError) -> Self {
        let status = match e {
            HeapError::Option(_) => HW_ERROR_OPTION,
            HeapError::Plan { .. } => HW_ERROR_UNSUPPORTED,
            _ => HW_ERROR_SYSTEM,
        };
        Self::of(status, &e)
    }
}

impl From<OptionError> for Failure {
    fn from(e: OptionError) -> Self {
        Self::of(HW_ERROR_OPTION, &e)
    }
}

impl From<LimitError> for Failure {
    fn from(e: LimitError) -> Self {
        Self::of(HW_ERROR_LIMIT, &e)
    }
}

impl From<PinError> for Failure {
    fn from(e: PinError) -> Self {
        Self::of(HW_ERROR_NOT_PINNED, &e)
    }
}

impl From<ReferenceError> for Failure {
    fn from(e: ReferenceError) -> Self {
        let status = match e {
            ReferenceError::OtherHeap => HW_ERROR_ARGUMENT,
            _ => HW_ERROR_MEMORY,
        };
        Self::of(status, &e)
    }
}

thread_local! {
    static LAST: RefCell<(hw_status, CString)> = RefCell::new((HW_OK, CString::default()));
}

fn note(failure: Failure) -> hw_status {
    let text = CString::new(failure.message.replace('\0', " ")).unwrap_or_default();
    // A thread that ends has no place for it any more: the status still says what happened.
    let _ = LAST.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            *last = (failure.status, text);
        }
    });
    failure.status
}

/// Runs what a function does. A panic becomes `HW_ERROR_INTERNAL`.
pub(crate) fn guard(steps: impl FnOnce() -> Result<(), Failure>) -> hw_status {
    match catch_unwind(AssertUnwindSafe(steps)) {
        Ok(Ok(())) => HW_OK,
        Ok(Err(failure)) => note(failure),
        Err(_) => note(internal()),
    }
}

/// The same for functions that answer with something else: `otherwise` if it failed.
pub(crate) fn guard_value<T>(otherwise: T, steps: impl FnOnce() -> Result<T, Failure>) -> T {
    match catch_unwind(AssertUnwindSafe(steps)) {
        Ok(Ok(value)) => value,
        Ok(Err(failure)) => {
            let _ = note(failure);
            otherwise
        }
        Err(_) => {
            let _ = note(internal());
            otherwise
        }
    }
}

fn internal() -> Failure {
    Failure {
        status: HW_ERROR_INTERNAL,
        message: String::from("an error inside of the library; please report it"),
    }
}

/// What went wrong in the calling thread's last call that failed: a sentence, or the empty string. Never null. Good until the next call
/// of this thread that fails. Calls that succeed leave it as it is.
#[unsafe(no_mangle)]
pub extern "C" fn hw_last_error() -> *const c_char {
    LAST.try_with(|last| {
        last.try_borrow()
            .map_or(c"".as_ptr(), |last| last.1.as_ptr())
    })
    .unwrap_or(c"".as_ptr())
}

/// The status of the calling thread's last call that failed: for functions that answer with something else, as `hw_alloc`.
#[unsafe(no_mangle)]
pub extern "C" fn hw_last_status() -> hw_status {
    LAST.try_with(|last| last.try_borrow().map_or(HW_OK, |last| last.0))
        .unwrap_or(HW_OK)
}

/// A name of a status, as `"HW_ERROR_MEMORY"`. Never null; the string is good for ever. Any number may be asked for.
#[unsafe(no_mangle)]
pub extern "C" fn hw_status_name(status: i32) -> *const c_char {
    let name = match status {
        0 => c"HW_OK",
        1 => c"HW_ERROR_ARGUMENT",
        2 => c"HW_ERROR_CALLBACK",
        3 => c"HW_ERROR_VERSION",
        4 => c"HW_ERROR_OPTION",
        5 => c"HW_ERROR_MEMORY",
        6 => c"HW_ERROR_SYSTEM",
        7 => c"HW_ERROR_UNSUPPORTED",
        8 => c"HW_ERROR_DETACHED",
        9 => c"HW_ERROR_BUSY",
        10 => c"HW_ERROR_LIMIT",
        11 => c"HW_ERROR_NOT_PINNED",
        12 => c"HW_ERROR_INTERNAL",
        _ => c"unknown status",
    };
    name.as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::panic, reason = "the test is about it")]
    fn a_panic_is_an_error_and_not_more() {
        assert_eq!(guard(|| panic!("inside")), HW_ERROR_INTERNAL);
        assert_eq!(hw_last_status(), HW_ERROR_INTERNAL);
        assert_eq!(guard_value(7, || panic!("inside")), 7);
        assert_eq!(guard(|| fail(HW_ERROR_BUSY, "a\0b")), HW_ERROR_BUSY);
        // SAFETY: a string, good until the next failure.
        let text = unsafe { core::ffi::CStr::from_ptr(hw_last_error()) };
        assert_eq!(text, c"a b");
        assert_eq!(guard(|| Ok(())), HW_OK);
        assert_eq!(hw_last_status(), HW_ERROR_BUSY);
    }
}
