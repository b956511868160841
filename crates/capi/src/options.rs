//! Options of a heap, by name.

use crate::status::{Failure, given, given_mut, guard, hw_status, text};
use core::ffi::{CStr, c_char};
use core::ptr;
use heapwright::{Options, PlanName, options};
use std::ffi::CString;
use std::sync::LazyLock;

/// The options of a heap that is to be made. One thread at a time.
#[derive(Debug, Default)]
pub struct hw_options(pub(crate) Options);

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
        let (options, name, value) = unsafe {
            (
                given_mut(options, "options")?,
                text(name, "name")?,
                text(value, "value")?,
            )
        };
        Ok(options.0.set(name, value)?)
    })
}

/// Takes the options that the environment has as `HEAPWRIGHT_PLAN`, `HEAPWRIGHT_MAX` and so on; others become the defaults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_options_from_environment(options: *mut hw_options) -> hw_status {
    guard(|| {
        // SAFETY: the header's rules for pointers.
        let options = unsafe { given_mut(options, "options")? };
        options.0 = Options::from_env()?;
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
    let Some([name, value, values, meaning]) = STRINGS.get(index) else {
        return false;
    };
    // SAFETY: the header's rules for pointers.
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
        let name = options.0.plan.name();
        let found = PLANS.iter().find(|p| p.as_bytes() == name.as_bytes());
        found.map_or(ptr::null(), |p: &CString| CStr::as_ptr(p))
    })
}
