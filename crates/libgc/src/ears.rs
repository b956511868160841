//! What the library's heap tells, when somebody asks: `HEAPWRIGHT_RECORD=FILE` has all of it written to a file, as
//! [`heapwright_observe::record`] describes; `%p` in its name is the process's number. The child of a fork writes to a file of its own
//! if there is a `%p` in the name, else nothing.
//!
//! The heap has a listener only if the recording, the log or statistics are wanted.

use crate::state::BoehmHeap;
use crate::{live, stop};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use heapwright::{Event, Listener, MutatorStop};
use heapwright_observe::record::{Subject, differs_by_process, file_of_process};
use heapwright_observe::{Recorder, Sizes};
use std::os::unix::ffi::OsStringExt;

const VARIABLE: &str = "HEAPWRIGHT_RECORD";

/// Null: nothing is recorded. Leaked: exit handlers and other threads may still use it.
static RECORDER: AtomicPtr<Recorder> = AtomicPtr::new(ptr::null_mut());

/// The exit handler is registered.
static REGISTERED: AtomicBool = AtomicBool::new(false);

fn recorder() -> Option<&'static Recorder> {
    // SAFETY: null, or leaked by `begin`.
    unsafe { RECORDER.load(Ordering::Acquire).as_ref() }
}

/// The heap's listener.
#[derive(Debug)]
pub(crate) struct Ears(());

/// A listener, if anything that the environment says needs one.
pub(crate) fn wanted() -> Option<Ears> {
    let names = [
        "HEAPWRIGHT_LOG",
        "HEAPWRIGHT_STATS_DIR",
        VARIABLE,
        live::VARIABLE,
    ];
    let is_set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    names.into_iter().any(is_set).then_some(Ears(()))
}

impl Listener for Ears {
    fn event(&self, event: Event<'_>) {
        live::event(event);
        let Some(recorder) = recorder() else {
            return;
        };
        if let Event::Collected(_) = event {
            stop::each_stopped(|thread, stopped_ns, resumed_ns| {
                recorder.event(Event::MutatorStopped(&MutatorStop {
                    thread,
                    stopped_ns,
                    resumed_ns,
                }));
            });
        }
        recorder.event(event);
    }

    fn wants_details(&self) -> bool {
        true
    }

    fn wants_map(&self) -> bool {
        live::is_on() || recorder().is_some_and(Listener::wants_map)
    }
}

/// Begins the recording, if one is wanted. Called once, when the heap is made. A file that cannot be opened is given up.
pub(crate) fn begin(heap: &BoehmHeap) {
    let Some(pattern) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) else {
        return;
    };
    let program = std::env::current_exe().unwrap_or_default();
    let subject = Subject {
        program: &program.to_string_lossy(),
        plan: heap.options().plan.name(),
        workers: heap.options().most_workers(),
    };
    let begun = file_of_process(&pattern.into_vec())
        .and_then(|file| Recorder::begin(&file, &subject).ok())
        .map_or(ptr::null_mut(), |r| Box::into_raw(Box::new(r)));
    stop::watch(!begun.is_null());
    RECORDER.store(begun, Ordering::Release);
    // The child of a fork has its parent's exit handlers.
    if !begun.is_null() && !REGISTERED.swap(true, Ordering::Relaxed) {
        // If it cannot be registered the recording has no end, as that of a process that was killed.
        // SAFETY: a function that lives as long as the library.
        let _ = unsafe { libc::atexit(at_exit) };
    }
}

/// In the child of a fork, which has one thread.
pub(crate) fn after_fork(heap: &BoehmHeap) {
    if recorder().is_none() {
        return;
    }
    // What belongs to the parent is not touched: its thread may have been anywhere.
    RECORDER.store(ptr::null_mut(), Ordering::Release);
    if std::env::var_os(VARIABLE).is_some_and(|v| differs_by_process(&v.into_vec())) {
        begin(heap);
    }
}

extern "C" fn at_exit() {
    let (Some(recorder), Some(heap)) = (recorder(), crate::state::heap_if_ready()) else {
        return;
    };
    let mut sizes = Sizes::default();
    heap.lock();
    heap.count_allocated(|bytes, cells| sizes.add(bytes, cells));
    heap.unlock();
    sizes.each(|bytes, objects| recorder.class(bytes, objects));
    recorder.end(heap.usage().allocated_total);
}
