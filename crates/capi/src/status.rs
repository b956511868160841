//! What functions answer, and the message of the last failure.

use core::cell::RefCell;
use core::ffi::{CStr, c_char};
use heapwright::{
    AllocError, ForkError, HeapError, LimitError, OptionError, PinError, ReferenceError,
};
use heapwright_observe::InstrumentError;
use heapwright_observe::dump::DumpError;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a function answers. [`hw_last_error`] says more.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum hw_status {
    /// It is done.
    HW_OK = 0,
    /// Collecting did not make enough room. The heap is unharmed.
    HW_OUT_OF_MEMORY = 1,
    /// A null pointer, or a value that makes no sense. Nothing was changed.
    HW_INVALID = 2,
    /// There is no such option, or it does not take the value.
    HW_BAD_OPTION = 3,
    /// The header that the program was compiled with is not of this library.
    HW_VERSION = 4,
    /// The system refused: memory, addresses, a thread.
    HW_SYSTEM = 5,
    /// The object has no pin that could be taken back.
    HW_NOT_PINNED = 6,
    /// A handle that is not there any more: freed or detached before.
    HW_GONE = 7,
    /// The heap was made without what this needs.
    HW_UNSUPPORTED = 8,
    /// An error of the library's own. Please report it.
    HW_INTERNAL = 9,
    /// Not while a collection calls: by a callback of one.
    HW_IN_COLLECTION = 10,
}
use hw_status::*;

thread_local! {
    static LAST: RefCell<CString> = RefCell::new(CString::default());
}

/// A failure: its kind, and the message for people.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) hw_status, pub(crate) String);

pub(crate) type Done = Result<(), Failure>;

impl Failure {
    pub(crate) fn null(what: &str) -> Self {
        Self(HW_INVALID, format!("{what} is null"))
    }
}

macro_rules! failure {
    ($($error:ty => $status:expr),*) => {
        $(impl From<$error> for Failure {
            fn from(e: $error) -> Self {
                let status: fn(&$error) -> hw_status = $status;
                Self(status(&e), e.to_string())
            }
        })*
    };
}

failure!(
    OptionError => |_| HW_BAD_OPTION,
    LimitError => |_| HW_INVALID,
    ForkError => |_| HW_IN_COLLECTION,
    PinError => |_| HW_NOT_PINNED,
    ReferenceError => |e| match e {
        ReferenceError::NoMemory => HW_OUT_OF_MEMORY,
        _ => HW_INVALID,
    },
    AllocError => |e| match e {
        AllocError::OutOfMemory { .. } => HW_OUT_OF_MEMORY,
        AllocError::Unsatisfiable { .. } => HW_INVALID,
        _ => HW_SYSTEM,
    },
    HeapError => |e| match e {
        HeapError::Option(_) => HW_BAD_OPTION,
        _ => HW_SYSTEM,
    },
    InstrumentError => |e| match e {
        InstrumentError::Open(..) => HW_SYSTEM,
        _ => HW_BAD_OPTION,
    },
    DumpError => |e| match e {
        DumpError::Memory(_) => HW_OUT_OF_MEMORY,
        DumpError::Format(_) => HW_INVALID,
        DumpError::NotAll => HW_UNSUPPORTED,
        _ => HW_SYSTEM,
    }
);

/// Runs what a function does: an error becomes its status, and the message is kept; a panic is [`HW_INTERNAL`].
pub(crate) fn guard(run: impl FnOnce() -> Done) -> hw_status {
    // What is half done after a panic is the library's own; it says so and nobody is told that it worked.
    let done = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(Failure(
            HW_INTERNAL,
            "an error in the library, which printed where".to_owned(),
        ))
    });
    match done {
        Ok(()) => HW_OK,
        Err(Failure(status, message)) => {
            let message = CString::new(message).unwrap_or_default();
            LAST.with(|last| *last.borrow_mut() = message);
            status
        }
    }
}

/// The value at a pointer that C gave.
///
/// # Safety
/// It is null, or points to a value that lives as long as the reference is used and that nobody changes meanwhile.
pub(crate) unsafe fn given<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| Failure::null(what))
}

/// As [`given`], to change it.
///
/// # Safety
/// As [`given`], and nobody else uses the value meanwhile.
pub(crate) unsafe fn given_mut<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_mut() }.ok_or_else(|| Failure::null(what))
}

/// A string that C gave.
///
/// # Safety
/// It is null, or a string with a zero at its end that lives as long as the reference is used.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if pointer.is_null() {
        return Err(Failure::null(what));
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(pointer) }
        .to_str()
        .map_err(|_| Failure(HW_INVALID, format!("{what} is not UTF-8")))
}

/// The message of the last call on this thread that failed; empty if none has. Good until the next call that fails.
#[unsafe(no_mangle)]
pub extern "C" fn hw_last_error() -> *const c_char {
    LAST.with(|last| last.borrow().as_ptr())
}

/// A status in a few words, such as "out of memory".
#[unsafe(no_mangle)]
pub extern "C" fn hw_status_name(status: u32) -> *const c_char {
    const NAMES: [&CStr; 11] = [
        c"ok",
        c"out of memory",
        c"invalid",
        c"bad option",
        c"wrong version",
        c"refused by the system",
        c"not pinned",
        c"gone",
        c"unsupported",
        c"internal error",
        c"in a collection",
    ];
    let name = usize::try_from(status).ok().and_then(|n| NAMES.get(n));
    name.copied().unwrap_or(c"unknown").as_ptr()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_not_more() {
        let status = guard(|| panic!("on purpose"));
        assert_eq!(status, HW_INTERNAL);
        // SAFETY: a string of this thread.
        let said = unsafe { CStr::from_ptr(hw_last_error()) };
        assert!(said.to_str().unwrap().contains("in the library"));
        assert_eq!(guard(|| Ok(())), HW_OK);
    }
}
