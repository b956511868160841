//! The library's heap answers, if somebody asks: `HEAPWRIGHT_LISTEN=1` has the process listen at its place in the directory for
//! sockets, `HEAPWRIGHT_LISTEN=PATH` at that path, in which `%p` is the process's number. [`heapwright_observe::live`] has the answers.
//!
//! The thread is the library's own: it has all signals blocked, is not one of the client's threads, and takes the heap's lock for
//! moments. The child of a fork does not listen, and closes what it inherited. A socket that cannot be opened is given up.

use crate::state::{self, BoehmHeap};
use crate::{dump, scavenge};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use heapwright::{Event, HeapMap, Listener};
use heapwright_observe::live::{History, Server, Source, Using, socket_for};
use std::path::{Path, PathBuf};

pub(crate) const VARIABLE: &str = "HEAPWRIGHT_LISTEN";

struct Live {
    history: History,
    server: Server,
}

/// Null: nobody listens. Leaked: the thread uses it.
static LIVE: AtomicPtr<Live> = AtomicPtr::new(ptr::null_mut());
/// The process that listens.
static PROCESS: AtomicU32 = AtomicU32::new(0);

fn live() -> Option<&'static Live> {
    // SAFETY: null, or leaked by `begin`.
    unsafe { LIVE.load(Ordering::Acquire).as_ref() }
}

/// Is the heap to be listened to?
pub(crate) fn is_on() -> bool {
    live().is_some()
}

/// The heap tells something.
pub(crate) fn event(event: Event<'_>) {
    if let Some(live) = live() {
        live.history.event(event);
    }
}

fn path() -> Option<PathBuf> {
    let wanted = std::env::var_os(VARIABLE).filter(|v| !v.is_empty() && v != "0")?;
    socket_for(&wanted).ok()
}

/// Opens the socket, if one is wanted. Called once, before the heap is published.
pub(crate) fn begin(heap: &BoehmHeap) {
    let Some(path) = path() else {
        return;
    };
    let Ok(server) = Server::open(&path) else {
        return;
    };
    let program = std::env::current_exe().unwrap_or_default();
    let options = heap.options();
    let history = History::new(
        &program.to_string_lossy(),
        options.plan.name(),
        options.most_workers(),
    );
    LIVE.store(
        Box::into_raw(Box::new(Live { history, server })),
        Ordering::Release,
    );
    PROCESS.store(std::process::id(), Ordering::Relaxed);
    // If it cannot be registered the socket stays, as that of a process that was killed.
    // SAFETY: a function that lives as long as the library.
    let _ = unsafe { libc::atexit(at_exit) };
}

/// Starts the thread. Called once, when the heap is there.
pub(crate) fn start() {
    if let Some(live) = live()
        && !scavenge::start("heapwright-live", serve)
    {
        live.server.remove();
        LIVE.store(ptr::null_mut(), Ordering::Release);
    }
}

fn serve() {
    if let Some(live) = live() {
        live.server.serve(&live.history, &Heap);
    }
}

/// Before a fork.
pub(crate) fn before_fork() {
    if let Some(live) = live() {
        live.server.descriptors().lock();
    }
}

/// After it, in the parent.
pub(crate) fn after_fork_parent() {
    if let Some(live) = live() {
        live.server.descriptors().unlock();
    }
}

/// After it, in the child, which has no such thread.
pub(crate) fn after_fork_child() {
    let Some(live) = live() else {
        return;
    };
    // What else belongs to the parent is not touched: its thread may have been anywhere.
    LIVE.store(ptr::null_mut(), Ordering::Release);
    // SAFETY: as the function says; the server is leaked.
    unsafe { live.server.descriptors().close() };
}

extern "C" fn at_exit() {
    if let Some(live) = live()
        && PROCESS.load(Ordering::Relaxed) == std::process::id()
    {
        live.server.remove();
    }
}

/// What the server asks of the library's heap.
struct Heap;

impl Source for Heap {
    fn using(&self) -> Using {
        let Some(heap) = state::heap_if_ready() else {
            return Using::default();
        };
        let usage = heap.usage();
        Using {
            heap_bytes: usage.heap_bytes,
            free_bytes: usage.free_bytes,
            live_bytes: usage.live_bytes,
            limit_bytes: heap.max(),
            allocated_bytes: usage.allocated_total,
        }
    }

    fn map(&self, look: &mut dyn FnMut(&dyn HeapMap)) {
        if let Some(heap) = state::heap_if_ready() {
            heap.map(look);
        }
    }

    fn collect(&self) -> bool {
        // This thread is not one that may collect.
        state::heap_if_ready().is_some_and(|heap| heap.ask_for_collection())
    }

    fn dump(&self, file: &Path) -> Result<u64, Option<String>> {
        let taken = dump::write(file).map_err(|e| Some(e.to_string()))?;
        Ok(taken.pause_ns)
    }
}
