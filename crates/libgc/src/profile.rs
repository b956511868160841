//! The allocation profile: `HEAPWRIGHT_PROFILE=FILE[,rate=SIZE][,limit=SIZE]` has the stacks of sampled allocations written to a
//! file, as [`heapwright_observe::profile`] describes. `heapwright run --profile` makes a profile for pprof of it.
//!
//! A value that is wrong, and a file that cannot be opened, are given up: the command checks both before.

use crate::state;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use heapwright_observe::profile::{Profile, Request, Shared};
use std::sync::Arc;

const VARIABLE: &str = "HEAPWRIGHT_PROFILE";

/// Null: there is no profile. Never freed: threads and exit handlers use it to the end.
static PROFILE: AtomicPtr<Profile> = AtomicPtr::new(ptr::null_mut());

fn profile() -> Option<&'static Profile> {
    // SAFETY: null, or leaked by `begin`.
    unsafe { PROFILE.load(Ordering::Acquire).as_ref() }
}

/// Begins the profile if one is wanted, for the heap that is about to be built.
pub(crate) fn begin() -> Option<Shared> {
    let value = std::env::var_os(VARIABLE).filter(|v| !v.is_empty())?;
    let request = Request::parse(&value).ok()?;
    let program = std::env::current_exe().unwrap_or_default();
    let profile = Profile::begin(&request, &program.to_string_lossy()).ok()?;
    PROFILE.store(
        Arc::into_raw(Arc::clone(&profile)).cast_mut(),
        Ordering::Release,
    );
    // If it cannot be registered the profile has no end, as that of a process that was killed.
    // SAFETY: a function that lives as long as the library.
    let _ = unsafe { libc::atexit(at_exit) };
    Some(Shared(profile))
}

/// In the child of a fork, which has one thread.
pub(crate) fn after_fork() {
    if let Some(profile) = profile() {
        profile.after_fork();
    }
}

extern "C" fn at_exit() {
    if let (Some(profile), Some(heap)) = (profile(), state::heap_if_ready()) {
        profile.end(heap.usage().allocated_total);
    }
}
