//! Options of a heap, by name.

use crate::status::{Failure, given, given_mut, guard, hw_status, text};
use core::ffi::{CStr, c_char};
use core::ptr;
use heapwright::{Options, PlanName, options};
use heapwright_observe::{Wanted, instruments};
use std::ffi::{CString, OsStr};
use std::sync::LazyLock;

/// The options of a heap that is to be made, and the instruments that watch it. One thread at a time.
#[derive(Debug, Default)]
pub struct hw_options {
    pub(crate) heap: Options,
    pub(crate) wanted: Wanted,
}

/// One option, for lists. The strings live as long as the process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hw_option {
    /// Its name for [`hw_options_set`].
    pub name: *const c_char,
    /// Its default, as it would be set.
    pub value: *const c_char,
    /// What values look like.
    pub values: *const c_char,
    /// One sentence.
    pub meaning: *const c_char,
}

/// The defaults. Freed by [`hw_options_free`].
#[unsafe(no_mangle)]
pub extern "C" fn hw_options_new() -> *mut hw_options {
    Box::into_raw(Box::default())
}

/// Frees options; null is fine. Heaps that were made with them go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_options_free(options: *mut hw_options) {
    if !options.is_null() {
        // SAFETY: made by `hw_options_new`, and freed once (the header's rules).
        drop(unsafe { Box::from_raw(options) });
    }
}

/// Something of the options by its name.
///
/// # Safety
/// The header's rules for pointers.
unsafe fn setting<'a>(
    options: *mut hw_options,
    name: *const c_char,
    value: *const c_char,
) -> Result<(&'a mut hw_options, &'a str, &'a str), Failure> {
    // SAFETY: the caller's promise.
    unsafe {
        Ok((
            given_mut(options, "options")?,
            text(name, "name")?,
            text(value, "value")?,
        ))
    }
}

/// Sets an option by its name, as [`hw_option_at`] lists them: `plan` to `genimmix`, `max` to `64m`. [`HW_BAD_OPTION`] if there is no such
/// option, or it does not take the value: the message says what there is.
///
/// [`HW_BAD_OPTION`]: hw_status::HW_BAD_OPTION
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_options_set(
    options: *mut hw_options,
    name: *const c_char,
    value: *const c_char,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (options, name, value) = unsafe { setting(options, name, value)? };
        Ok(options.heap.set(name, value)?)
    })
}

/// Has a heap watched by an instrument, by its name, as [`hw_instrument_at`] lists them: `log` on `gc,phases=gc.log`, `record` in `run.jsonl`. In
/// names of files, `%p` is the number of the process. Files and sockets are opened when the heap is made; recordings and profiles end, and
/// nobody listens any more, when the heap is given to [`hw_heap_free`]. [`HW_BAD_OPTION`] if there is no such instrument, or the value is wrong.
///
/// [`HW_BAD_OPTION`]: hw_status::HW_BAD_OPTION
/// [`hw_heap_free`]: crate::hw_heap_free
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_options_watch(
    options: *mut hw_options,
    name: *const c_char,
    value: *const c_char,
) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let (options, name, value) = unsafe { setting(options, name, value)? };
        Ok(options.wanted.set(name, OsStr::new(value))?)
    })
}

/// Takes the options that the environment has as `HEAPWRIGHT_PLAN`, `HEAPWRIGHT_MAX` and so on, and the instruments that it has as
/// `HEAPWRIGHT_LOG`, `HEAPWRIGHT_RECORD` and so on; others become the defaults. On failure all stay as they were.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_options_from_environment(options: *mut hw_options) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let options = unsafe { given_mut(options, "options")? };
        *options = hw_options {
            heap: Options::from_env()?,
            wanted: Wanted::from_env()?,
        };
        Ok(())
    })
}

static STRINGS: LazyLock<Vec<[CString; 4]>> = LazyLock::new(|| {
    let c = |text: &str| CString::new(text).unwrap_or_default();
    options::TABLE
        .iter()
        .map(|row| [c(row.name), c(row.default), c(row.unit), c(row.meaning)])
        .collect()
});

/// Option number `index`, from 0 on: false if there are not so many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_option_at(index: usize, out: *mut hw_option) -> bool {
    // SAFETY: the header's rules for pointers.
    unsafe { row(&STRINGS, index, out) }
}

static INSTRUMENTS: LazyLock<Vec<[CString; 4]>> = LazyLock::new(|| {
    let c = |text: &str| CString::new(text).unwrap_or_default();
    instruments::TABLE
        .iter()
        .map(|row| [c(row.name), c(""), c(row.values), c(row.meaning)])
        .collect()
});

/// Instrument number `index`, from 0 on, for [`hw_options_watch`]: false if there are not so many. Their default is to be off: an empty
/// string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_instrument_at(index: usize, out: *mut hw_option) -> bool {
    // SAFETY: the header's rules for pointers.
    unsafe { row(&INSTRUMENTS, index, out) }
}

/// # Safety
/// `out` is null or may be written to.
unsafe fn row(table: &'static [[CString; 4]], index: usize, out: *mut hw_option) -> bool {
    let Some([name, value, values, meaning]) = table.get(index) else {
        return false;
    };
    // SAFETY: the caller's promise.
    if let Some(out) = unsafe { out.as_mut() } {
        *out = hw_option {
            name: name.as_ptr(),
            value: value.as_ptr(),
            values: values.as_ptr(),
            meaning: meaning.as_ptr(),
        };
    }
    true
}

static PLANS: LazyLock<Vec<CString>> = LazyLock::new(|| {
    PlanName::ALL
        .iter()
        .map(|plan| CString::new(plan.name()).unwrap_or_default())
        .collect()
});

/// The name of plan number `index`, from 0 on; null if there are not so many.
#[unsafe(no_mangle)]
pub extern "C" fn hw_plan_at(index: usize) -> *const c_char {
    PLANS.get(index).map_or(ptr::null(), |name| name.as_ptr())
}

/// The plan that the options name. Lives as long as the process; null if `options` is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_options_plan(options: *const hw_options) -> *const c_char {
    // SAFETY: the header's rules for pointers.
    let chosen: Result<&hw_options, Failure> = unsafe { given(options, "options") };
    chosen.map_or(ptr::null(), |options| {
        let name = options.heap.plan.name();
        let found = PLANS.iter().find(|p| p.as_bytes() == name.as_bytes());
        found.map_or(ptr::null(), |p: &CString| CStr::as_ptr(p))
    })
}
