//! USDT probes: points at which tools of the system (bpftrace, perf, SystemTap, gdb) can watch a heap, whatever listens in the
//! process. Each is one `nop` and a note in the file that says where it is and where its arguments are; while nobody watches, the
//! arguments are put into registers, and that is all. docs/profiling.md lists them.
//!
//! A heap has them at the points where it tells its events, and between the parts of a collection.

use crate::event::{Cause, CollectionStats};

macro_rules! probes {
    ($($(#[$about:meta])* $function:ident($($argument:ident),*) = $name:ident;)*) => {
        $(
            $(#[$about])*
            #[inline(always)]
            pub fn $function($($argument: u64),*) {
                // Miri and loom have no machine code.
                #[cfg(all(target_os = "linux", not(miri), not(loom)))]
                probe::probe!(heapwright, $name, $($argument),*);
                #[cfg(not(all(target_os = "linux", not(miri), not(loom))))]
                let _ = ($($argument,)*);
            }
        )*
    };
}

probes! {
    /// `gc__request(cause)`: a thread is about to stop the world. If several are, one of them collects. Causes are numbered as in
    /// [`Cause::index`].
    request(cause) = gc__request;
    /// `gc__begin(number, cause, before_bytes)`: the world is stopped, and a collection begins.
    begin(number, cause, before_bytes) = gc__begin;
    /// `gc__roots(number)`: the roots were looked at. Where several workers share them, each tells when it is done.
    roots(number) = gc__roots;
    /// `gc__closure(number, ns)`: all that lives was found.
    closure(number, ns) = gc__closure;
    /// `gc__weak(number, ns)`: weak references and finalizers were processed.
    weak(number, ns) = gc__weak;
    /// `gc__sweep(number, ns)`: what is free was found. In heaps of words the world runs again before.
    sweep(number, ns) = gc__sweep;
    /// `gc__end(number, pause_ns, before_bytes, live_bytes)`: the world runs again, and the collection has ended.
    end(number, pause_ns, before_bytes, live_bytes) = gc__end;
    /// `memory__returned(bytes)`: so many bytes went back to the system, in a collection or beside one.
    returned(bytes) = memory__returned;
    /// `out__of__memory(bytes)`: an allocation of so many bytes fails.
    out_of_memory(bytes) = out__of__memory;
    /// `mutator__stop()`: the calling thread stops for a collection.
    mutator_stop() = mutator__stop;
    /// `mutator__resume()`: it goes on.
    mutator_resume() = mutator__resume;
    /// `alloc__sample(bytes, mean_bytes)`: an object was sampled, if the heap has a sampler.
    sample(bytes, mean_bytes) = alloc__sample;
}

/// [`request`].
#[inline(always)]
pub(crate) fn requested(cause: Cause) {
    request(cause.index() as u64);
}

/// [`begin`].
#[inline(always)]
pub(crate) fn begun(stats: &CollectionStats) {
    begin(
        stats.number,
        stats.cause.index() as u64,
        stats.before_bytes as u64,
    );
}

/// [`end`], and [`returned`] if it gave memory back.
#[inline(always)]
pub(crate) fn ended(stats: &CollectionStats) {
    if stats.returned_bytes != 0 {
        returned(stats.returned_bytes as u64);
    }
    end(
        stats.number,
        stats.pause_ns,
        stats.before_bytes as u64,
        stats.live_bytes as u64,
    );
}
