//! What a client that debugs is told: objects that leak, and objects that were written behind.
//!
//! *Leaks*: where the client said that it frees all that it allocates (`GC_set_find_leak`, `GC_FIND_LEAK`), an object that is
//! unreachable when a collection has marked is a leak. They are all kept; up to [`MOST_LEAKS`] of each collection are printed on
//! standard error and freed once no lock is held, the others' turn comes with the next. Such a program collects when it
//! ends. *Damage*: once there are objects with debugging headers (module [`crate::debug`]), each collection looks at the marks
//! at their ends.
//!
//! With `GC_FINDLEAK_DELAY_FREE` set, an object with a header that the client frees is filled and left to the next collection,
//! which tells it from a leak, and tells a write to it. With `GC_ABORT_ON_LEAK` set, the process ends after the report.

use crate::alloc::{ATOMIC, ATOMIC_UNCOLLECTABLE, GC_free, NORMAL, UNCOLLECTABLE, pointer};
use crate::debug::{self, Found};
use crate::misc::Out;
use crate::table::{Guarded, Queue};
use crate::{config, state};
use core::ffi::{CStr, c_char, c_int};
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};
use heapwright::{Cell, Closure, Kind};

/// So many leaks are kept and printed by each collection.
const MOST_LEAKS: usize = 40;
/// So many damaged objects are printed by each collection.
const MOST_DAMAGED: usize = 20;

/// A damaged object and the place of the damage.
#[derive(Clone, Copy)]
struct Damaged {
    cell: usize,
    place: usize,
}

struct Faults {
    leaks: Queue<usize>,
    damaged: Queue<Damaged>,
}

static FAULTS: Guarded<Faults> = Guarded::new(Faults {
    leaks: Queue::NEW,
    damaged: Queue::NEW,
});
/// There is something to print.
static DUE: AtomicBool = AtomicBool::new(false);
/// A thread is printing.
static PRINTING: AtomicBool = AtomicBool::new(false);

/// The heap was just made. Reads the environment, and has a program that looks for leaks collect at its end.
pub(crate) fn init() {
    let is_set = |name| std::env::var_os(name).is_some();
    if is_set("GC_FIND_LEAK") {
        config::GC_set_find_leak(1);
    }
    if is_set("GC_FINDLEAK_DELAY_FREE") {
        debug::delay_free();
    }
    if config::GC_get_find_leak() != 0 {
        extern "C" fn at_exit() {
            if config::GC_get_find_leak() != 0 {
                crate::alloc::GC_gcollect();
            }
        }
        // If there is no room for it, leaks of the program's end are not told.
        // SAFETY: a function of this library, which programs do not unload while they end.
        unsafe { libc::atexit(at_exit) };
    }
}

/// Looks for both. World stopped, heap lock held, after finalizers and links.
pub(crate) fn find<C: Closure>(closure: &mut C) {
    let leaks = config::GC_get_find_leak() != 0;
    let damage = debug::is_started();
    let Some(heap) = state::heap_if_ready().filter(|_| leaks || damage) else {
        return;
    };
    // SAFETY: the collecting thread holds the lock, all others are stopped.
    let faults = unsafe { FAULTS.held() };
    // Without memory for the lists nothing is told.
    let room =
        faults.leaks.reserve(MOST_LEAKS).is_ok() && faults.damaged.reserve(MOST_DAMAGED).is_ok();
    if !room {
        return;
    }
    let (old_leaks, old_damaged) = (faults.leaks.len(), faults.damaged.len());
    heap.for_each_allocated(|cell| {
        let found = if damage {
            debug::look(cell)
        } else {
            Found::Plain
        };
        let place = match found {
            Found::Damaged(place) => Some(place),
            Found::FreedAndWritten(place) => Some(place),
            Found::Plain | Found::Whole | Found::Freed => None,
        };
        if let Some(place) = place
            && faults.damaged.len() < old_damaged + MOST_DAMAGED
        {
            faults.damaged.push(Damaged {
                cell: cell.start.as_usize(),
                place,
            });
            debug::forget(cell);
            // It stays until it was printed.
            closure.mark_unscanned(cell.start);
        }
        if matches!(found, Found::Freed | Found::FreedAndWritten(_)) {
            return;
        }
        if leaks {
            let leaked = closure.mark_unscanned(cell.start);
            if leaked && faults.leaks.len() < old_leaks + MOST_LEAKS {
                faults.leaks.push(cell.start.as_usize());
            }
        } else if found == Found::Whole && !closure.is_marked(cell.start) {
            // Its memory may go to an object without a header.
            debug::forget(cell);
        }
    });
    if faults.leaks.len() + faults.damaged.len() != 0 {
        DUE.store(true, Ordering::Release);
    }
}

/// Prints what there is to print. No lock is held.
#[inline(always)]
pub(crate) fn print_due() {
    if DUE.load(Ordering::Relaxed) {
        print();
    }
}

#[cold]
#[inline(never)]
fn print() {
    let Some(heap) = state::heap_if_ready() else {
        return;
    };
    if PRINTING.swap(true, Ordering::Acquire) {
        return;
    }
    DUE.store(false, Ordering::Relaxed);
    let (leaks, damaged) = FAULTS.with(heap, |f| (f.leaks.len(), f.damaged.len()));
    let mut out = Out {
        fd: crate::misc::error_fd(),
    };
    // What cannot be written is lost: there is nobody else to tell.
    if damaged != 0 {
        let _ = writeln!(
            out,
            "GC_check_heap_block: found {damaged} smashed heap objects:"
        );
        for _ in 0..damaged {
            if let Some(fault) = FAULTS.with(heap, |f| f.damaged.pop()) {
                let _ = damage_line(&mut out, fault);
            }
        }
    }
    if leaks != 0 {
        let _ = writeln!(out, "Found {leaks} leaked objects:");
        for _ in 0..leaks {
            if let Some(object) = FAULTS.with(heap, |f| f.leaks.pop()) {
                let _ = leak_line(&mut out, object);
                GC_free(pointer(object));
            }
        }
    }
    PRINTING.store(false, Ordering::Release);
    if std::env::var_os("GC_ABORT_ON_LEAK").is_some() {
        config::abort(c"Leaked or smashed objects encountered");
    }
}

/// A terminated text of the client's that a header points to.
fn text(file: usize) -> &'static str {
    let file: *const c_char = core::ptr::with_exposed_provenance(file);
    if file.is_null() {
        return "?";
    }
    // SAFETY: the text that the client gave with the allocation, which is a literal.
    unsafe { CStr::from_ptr(file) }.to_str().unwrap_or("?")
}

fn damage_line(out: &mut Out, fault: Damaged) -> core::fmt::Result {
    let (object, [file, line, bytes]) = debug::describe(fault.cell);
    writeln!(
        out,
        " {:#x} in or near object at {object:#x} ({}:{line}, sz= {bytes})",
        fault.place,
        text(file)
    )
}

fn leak_line(out: &mut Out, cell: usize) -> core::fmt::Result {
    let Some(Cell { kind, bytes, .. }) = crate::alloc::cell_at(pointer(cell)) else {
        return Ok(());
    };
    if !debug::has_header(cell) {
        return writeln!(out, "{cell:#x} (sz<= {bytes}, {})", name(kind));
    }
    let (object, [file, line, bytes]) = debug::describe(cell);
    let kind = name(kind);
    writeln!(
        out,
        "{object:#x} ({}:{line}, sz= {bytes}, {kind})",
        text(file)
    )
}

/// What Boehm's library calls a kind.
fn name(kind: Kind) -> KindName {
    KindName(kind)
}

struct KindName(Kind);

impl core::fmt::Display for KindName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            ATOMIC => f.write_str("PTRFREE"),
            NORMAL => f.write_str("NORMAL"),
            UNCOLLECTABLE => f.write_str("UNCOLLECTABLE"),
            ATOMIC_UNCOLLECTABLE => f.write_str("ATOMIC_UNCOLLECTABLE"),
            Kind(other) => write!(f, "kind= {}", c_int::from(other)),
        }
    }
}
