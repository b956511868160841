//! Roots outside of stacks: the writable data of loaded objects, ranges that the client adds, and its callback.
//!
//! - **Loaded objects** are asked for while the world is stopped, with the loader's lock held from before: of each object
//!   the writable segments, less what is read-only after relocation, less this library's own. The list is kept as long
//!   as the loader's counts of added and removed objects stay the same. Another thread may be about to unload an object: it waits
//!   for that lock, or has done so.
//! - **Added** ranges stay until they are removed. **Excluded** ranges are cut out of both.
//! - The **callback** in [`GC_push_other_roots`] is called last, with the world stopped; its first value reports the
//!   stacks of all threads, and a client that replaces it calls the old one too.
//!
//! Static data follow the rule for objects, not the one for stacks: with `GC_all_interior_pointers` off, only pointers to
//! the start of an object or to a registered displacement count. All lists are changed with the heap's lock held.

use crate::readable;
use crate::stack;
use crate::state;
use core::cell::UnsafeCell;
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};
use heapwright::{Address, WordVisitor};
use heapwright_memory::MappedVec;
use heapwright_os::{OsError, real_port};

/// A range of addresses, word-aligned inwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    start: usize,
    end: usize,
}

/// The most ranges of one list: far above what programs have, and only address space until it is used.
const MAX_RANGES: usize = 1 << 15;

/// The lists. Made with the heap; used with the heap's lock held.
struct Lists {
    added: MappedVec<Range>,
    excluded: MappedVec<Range>,
    loaded: MappedVec<Range>,
    /// The loader's counts when `loaded` was made.
    counts: Option<(u64, u64)>,
}

struct Guarded(UnsafeCell<Option<Lists>>);

// SAFETY: reached only through `lists`, whose callers hold the heap's lock.
unsafe impl Sync for Guarded {}

static LISTS: Guarded = Guarded(UnsafeCell::new(None));

/// Not 0: data of loaded objects are no roots. Read at each collection.
#[unsafe(no_mangle)]
pub static GC_no_dls: AtomicI32 = AtomicI32::new(0);

/// A client's procedure that reports roots by `GC_push_all` and the like.
pub type GC_push_other_roots_proc = unsafe extern "C-unwind" fn();
/// Decides whether a segment of a loaded object is a root: file name, start, bytes.
pub type GC_has_static_roots_func =
    unsafe extern "C-unwind" fn(*const c_char, *mut c_void, usize) -> c_int;

/// The procedure that reports further roots, stacks included. Clients may store their own, which calls the old one. Null
/// is none.
#[unsafe(no_mangle)]
pub static GC_push_other_roots: AtomicPtr<c_void> = AtomicPtr::new(push_stacks as *mut c_void);

/// A [`GC_has_static_roots_func`] or null.
static HAS_STATIC_ROOTS: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Makes the lists. Called once, when the heap is made, before any other thread can use them.
pub(crate) fn init() -> Result<(), OsError> {
    let lists = Lists {
        added: MappedVec::new(real_port(), MAX_RANGES, c"heapwright added roots")?,
        excluded: MappedVec::new(real_port(), MAX_RANGES, c"heapwright excluded roots")?,
        loaded: MappedVec::new(real_port(), MAX_RANGES, c"heapwright static roots")?,
        counts: None,
    };
    // SAFETY: before the heap is published: nobody else has a reference.
    unsafe { *LISTS.0.get() = Some(lists) };
    Ok(())
}

/// The lists. The heap's lock is held, and no other reference to them is in use: no function here calls another while
/// it has them, nor a client.
#[allow(
    clippy::mut_from_ref,
    reason = "the heap's lock makes it exclusive, as the one caller at a time promises"
)]
fn lists() -> Option<&'static mut Lists> {
    // SAFETY: as above.
    unsafe { (*LISTS.0.get()).as_mut() }
}

/// Bytes of the static roots that the last collection saw. Heap lock held.
pub(crate) fn static_bytes() -> usize {
    lists().map_or(0, |lists| {
        lists
            .loaded
            .as_slice()
            .iter()
            .map(|r| r.end - r.start)
            .sum()
    })
}

/// Runs `f` on the lists with the heap's lock held.
fn with_lists(f: impl FnOnce(&mut Lists)) {
    let Some(heap) = state::heap() else { return };
    heap.lock();
    if let Some(lists) = lists() {
        f(lists);
    }
    heap.unlock();
}

/// `[start, end)` with both rounded inwards to words; `None` if nothing is left.
fn inward(start: usize, end: usize) -> Option<Range> {
    let start = start.checked_add(7)? & !7;
    let end = end & !7;
    (start < end).then_some(Range { start, end })
}

/// Brings the list of loaded objects up to date and stops the world by `stop`, such that no object is unloaded between the two:
/// both are done within a callback of the loader, during which it keeps others from unloading. A thread that is unloading waits
/// for the loader's lock then, or is done. Heap lock held.
pub(crate) fn hold_while(mut stop: fn()) {
    if GC_no_dls.load(Ordering::Relaxed) != 0 {
        update();
    } else if !still_as_at_fork() {
        // SAFETY: the callback's contract is that of `dl_iterate_phdr`; it gets our function.
        let called = unsafe { libc::dl_iterate_phdr(Some(held), (&raw mut stop).cast()) };
        if called != 0 {
            return;
        }
        update();
    }
    stop();
}

/// In a child after `fork`: what [`chain`] gave then; 0 elsewhere.
static AT_FORK: AtomicUsize = AtomicUsize::new(0);

/// In a child: the list was freed of what cannot be read.
static LOOKED_AT: AtomicBool = AtomicBool::new(false);

/// Before `fork`, heap lock held: brings the list up to date, for the child.
pub(crate) fn before_fork() {
    if GC_no_dls.load(Ordering::Relaxed) == 0 && !still_as_at_fork() {
        update();
    }
}

/// In the child. A thread that is not there any more may have held the loader's lock, which nobody releases then.
pub(crate) fn in_child() {
    AT_FORK.store(chain(), Ordering::Relaxed);
    LOOKED_AT.store(false, Ordering::Relaxed);
}

/// Is this a child in which nothing was loaded or unloaded since `fork`? Then the list holds, and the loader need not be asked. Once
/// something was, its lock is known to work.
fn still_as_at_fork() -> bool {
    let then = AT_FORK.load(Ordering::Relaxed);
    if then == 0 {
        return false;
    }
    if chain() == then {
        if !LOOKED_AT.swap(true, Ordering::Relaxed) {
            drop_unmapped();
        }
        return true;
    }
    AT_FORK.store(0, Ordering::Relaxed);
    false
}

/// Takes from the list what cannot be read: another thread of the parent was unloading it at the moment of the fork.
fn drop_unmapped() {
    let Some(lists) = lists() else { return };
    let mut kept = 0;
    for at in 0..lists.loaded.as_slice().len() {
        let range = lists.loaded.as_slice()[at];
        let (start, end) = (Address::new(range.start), Address::new(range.end));
        if readable::readable_end(start, end) == end {
            lists.loaded.as_mut_slice()[kept] = range;
            kept += 1;
        }
    }
    while lists.loaded.as_slice().len() > kept {
        let _ = lists.loaded.pop();
    }
}

/// A number for the chain of loaded objects, as debuggers see it; never 0. Takes no lock.
fn chain() -> usize {
    #[repr(C)]
    struct Object {
        base: usize,
        name: *const c_char,
        dynamic: *const c_void,
        next: *const Object,
        previous: *const Object,
    }
    #[repr(C)]
    struct Debug {
        version: c_int,
        first: *const Object,
    }
    unsafe extern "C" {
        #[link_name = "_r_debug"]
        static LOADED: Debug;
    }
    // SAFETY: the loader's record for debuggers, whose beginning is the same in all versions; read as it may change.
    let mut at = unsafe { (&raw const LOADED.first).read_volatile() };
    let mut sum = 1usize;
    while !at.is_null() {
        sum = sum.wrapping_mul(31).wrapping_add(at.addr());
        // SAFETY: an entry of the chain. In a child, nobody but a thread of its own takes it away, which `dlclose`s then what
        // was loaded before the fork, while another collects for the first time since: left to the client.
        at = unsafe { (&raw const (*at).next).read_volatile() };
    }
    sum | 1
}

/// For the first loaded object, which is to be the only one: the loader's lock is held by this thread, and may be taken again.
unsafe extern "C" fn held(_: *mut libc::dl_phdr_info, _: usize, stop: *mut c_void) -> c_int {
    update();
    // SAFETY: the pointer that `hold_while` gave.
    unsafe { (*stop.cast::<fn()>())() };
    1
}

/// Brings the list of loaded objects up to date. Heap lock held.
fn update() {
    let Some(lists) = lists() else { return };
    if GC_no_dls.load(Ordering::Relaxed) != 0 {
        lists.loaded.clear();
        lists.counts = None;
        return;
    }
    let mut walk = Walk {
        lists,
        own: (&raw const LISTS).addr(),
        first: true,
        filter: has_static_roots(),
        failed: false,
    };
    // SAFETY: the callback's contract is that of `dl_iterate_phdr`; it gets our `Walk`.
    unsafe { libc::dl_iterate_phdr(Some(object), (&raw mut walk).cast()) };
    if walk.failed {
        // Not all were stored: try again at the next collection.
        walk.lists.counts = None;
    }
}

fn has_static_roots() -> Option<GC_has_static_roots_func> {
    let f = HAS_STATIC_ROOTS.load(Ordering::Relaxed);
    // SAFETY: null or the function that was stored; `Option` of a function has null for `None`.
    unsafe { core::mem::transmute::<*mut c_void, Option<GC_has_static_roots_func>>(f) }
}

struct Walk<'a> {
    lists: &'a mut Lists,
    /// An address in this library.
    own: usize,
    first: bool,
    filter: Option<GC_has_static_roots_func>,
    failed: bool,
}

/// One loaded object.
unsafe extern "C" fn object(
    info: *mut libc::dl_phdr_info,
    size: usize,
    walk: *mut c_void,
) -> c_int {
    // SAFETY: `dl_iterate_phdr` gives an object's description and what it was given above.
    let (info, walk) = unsafe { (&*info, &mut *walk.cast::<Walk<'_>>()) };
    if walk.first {
        walk.first = false;
        let counted = size >= core::mem::offset_of!(libc::dl_phdr_info, dlpi_tls_modid);
        let counts = counted.then_some((info.dlpi_adds, info.dlpi_subs));
        if counts.is_some() && counts == walk.lists.counts {
            return 1;
        }
        walk.lists.counts = counts;
        walk.lists.loaded.clear();
    }
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the object's program headers, which stay mapped during the call.
    let headers =
        unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let base = info.dlpi_addr as usize;
    let place = |h: &libc::Elf64_Phdr| {
        let start = base.wrapping_add(h.p_vaddr as usize);
        (start, start.wrapping_add(h.p_memsz as usize))
    };
    // SAFETY: null or the object's name.
    let main = info.dlpi_name.is_null() || unsafe { *info.dlpi_name } == 0;
    let segments = || headers.iter().filter(|h| h.p_type == libc::PT_LOAD);
    if !main
        && segments()
            .map(place)
            .any(|(start, end)| (start..end).contains(&walk.own))
    {
        return 0;
    }
    let relro = headers
        .iter()
        .find(|h| h.p_type == libc::PT_GNU_RELRO)
        .map(place);
    for (start, end) in segments()
        .filter(|h| h.p_flags & libc::PF_W != 0)
        .map(place)
    {
        // SAFETY: the client's function, called as the interface says: heap lock held.
        if walk.filter.is_some_and(|wanted| unsafe {
            wanted(
                info.dlpi_name,
                ptr::with_exposed_provenance_mut(start),
                end.wrapping_sub(start),
            ) == 0
        }) {
            continue;
        }
        let (cut_start, cut_end) = relro.unwrap_or((end, end));
        let before = inward(start, end.min(cut_start.max(start)));
        let after = inward(start.max(cut_end.min(end)), end);
        let parts = if cut_start >= end || cut_end <= start {
            [inward(start, end), None]
        } else {
            [before, after]
        };
        for part in parts.into_iter().flatten() {
            walk.failed |= walk.lists.loaded.push(part).is_err();
        }
    }
    0
}

/// Reports all roots of this module and, by way of the callback, the stacks. World stopped, heap lock held.
pub(crate) fn report<T: WordVisitor>(visit: &mut T) {
    if let Some(lists) = lists() {
        for list in [&lists.loaded, &lists.added] {
            for range in list.as_slice() {
                without(*range, lists.excluded.as_slice(), &mut |r| {
                    // SAFETY: the writable segment of an object that is loaded (nobody could unload it since: see
                    // `hold_while`), or what the client promised to be readable.
                    unsafe { visit.field_range(Address::new(r.start), Address::new(r.end)) };
                });
            }
        }
    }
    let procedure = GC_push_other_roots.load(Ordering::Acquire);
    // SAFETY: null or the function that was stored; `Option` of a function has null for `None`.
    let procedure =
        unsafe { core::mem::transmute::<*mut c_void, Option<GC_push_other_roots_proc>>(procedure) };
    if let Some(procedure) = procedure {
        let mut pusher = Pusher::new(visit);
        PUSHER.store(&raw mut pusher, Ordering::Release);
        // SAFETY: the client's procedure, called as the interface says: world stopped, heap lock held.
        unsafe { procedure() };
        PUSHER.store(ptr::null_mut(), Ordering::Release);
    }
}

/// The parts of `range` that are in none of `holes`, in ascending order.
fn without(range: Range, holes: &[Range], each: &mut impl FnMut(Range)) {
    let Some((hole, rest)) = holes.split_first() else {
        return each(range);
    };
    if hole.end <= range.start || range.end <= hole.start {
        return without(range, rest, each);
    }
    if let Some(before) = inward(range.start, hole.start) {
        without(before, rest, each);
    }
    if let Some(after) = inward(hole.end, range.end) {
        without(after, rest, each);
    }
}

/// The collector's visitor in a form that C functions can reach.
struct Pusher {
    visit: *mut c_void,
    stacks: unsafe fn(*mut c_void),
    root_range: unsafe fn(*mut c_void, Address, Address),
    field_range: unsafe fn(*mut c_void, Address, Address),
    mark: unsafe fn(*mut c_void, Address) -> bool,
    is_marked: unsafe fn(*mut c_void, Address) -> bool,
}

/// Set while the callback runs.
static PUSHER: AtomicPtr<Pusher> = AtomicPtr::new(ptr::null_mut());

impl Pusher {
    fn new<T: WordVisitor>(visit: &mut T) -> Self {
        /// The visitor behind the pointer.
        ///
        /// # Safety
        /// `visit` must be the pointer that a `Pusher` of the same `T` was made of, while it is in use.
        unsafe fn of<'a, T>(visit: *mut c_void) -> &'a mut T {
            // SAFETY: the caller's promise.
            unsafe { &mut *visit.cast::<T>() }
        }
        Self {
            visit: ptr::from_mut(visit).cast(),
            // SAFETY: called with `visit` of this value only, see `with_pusher`.
            stacks: |v| stack::push_all(unsafe { of::<T>(v) }),
            // SAFETY: as above; the range by the caller's promise.
            root_range: |v, a, b| unsafe { of::<T>(v).root_range(a, b) },
            // SAFETY: as above; the range by the caller's promise.
            field_range: |v, a, b| unsafe { of::<T>(v).field_range(a, b) },
            // SAFETY: as for `stacks`.
            mark: |v, a| unsafe { of::<T>(v) }.mark_unscanned(a),
            // SAFETY: as for `stacks`.
            is_marked: |v, a| unsafe { of::<T>(v) }.is_marked(a),
        }
    }
}

/// Runs `f` on the collector's visitor while the callback runs on this thread; `None` at any other time.
fn with_pusher<R>(f: impl FnOnce(&Pusher) -> R) -> Option<R> {
    // SAFETY: null, or in the frame of `report`, which is on the stack of the calling thread: all others are stopped.
    unsafe { PUSHER.load(Ordering::Acquire).as_ref() }.map(f)
}

/// The first value of [`GC_push_other_roots`].
unsafe extern "C-unwind" fn push_stacks() {
    // SAFETY: the visitor of the same pusher.
    let _ = with_pusher(|p| unsafe { (p.stacks)(p.visit) });
}

/// Reports the words in `[bottom, top)` by the rule for objects. Only within the callback; without effect elsewhere.
///
/// # Safety
/// The range must be readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn GC_push_all(bottom: *mut c_void, top: *mut c_void) {
    if let Some(r) = inward(bottom.addr(), top.addr()) {
        // SAFETY: the visitor of the same pusher; the caller's promise.
        let _ = with_pusher(|p| unsafe {
            (p.field_range)(p.visit, Address::new(r.start), Address::new(r.end))
        });
    }
}

/// Reports the words in `[bottom, top)` by the rule for stacks. Only within the callback; without effect elsewhere.
///
/// # Safety
/// The range must be readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn GC_push_all_eager(bottom: *mut c_void, top: *mut c_void) {
    if let Some(r) = inward(bottom.addr(), top.addr()) {
        // SAFETY: the visitor of the same pusher; the caller's promise.
        let _ = with_pusher(|p| unsafe {
            (p.root_range)(p.visit, Address::new(r.start), Address::new(r.end))
        });
    }
}

/// As [`GC_push_all`], whatever `all` is: no page is known to be clean.
///
/// # Safety
/// The range must be readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn GC_push_conditional(bottom: *mut c_void, top: *mut c_void, _all: c_int) {
    // SAFETY: the caller's promise.
    unsafe { GC_push_all(bottom, top) }
}

/// The structures of finalization are reported at each collection anyway.
#[unsafe(no_mangle)]
pub extern "C" fn GC_push_finalizer_structures() {}

/// Marks the object that starts here without scanning it. Only within the callback; without effect elsewhere.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_mark_bit(object: *const c_void) {
    // SAFETY: the visitor of the same pusher.
    let _ = with_pusher(|p| unsafe { (p.mark)(p.visit, Address::from_ptr(object)) });
}

/// Is the object that starts here marked? Within the callback; elsewhere, is it allocated: marks do not outlive a
/// collection, and what is allocated survived the last one or came after it.
#[unsafe(no_mangle)]
pub extern "C" fn GC_is_marked(object: *const c_void) -> c_int {
    let start = Address::from_ptr(object);
    // SAFETY: the visitor of the same pusher.
    let marked = with_pusher(|p| unsafe { (p.is_marked)(p.visit, start) });
    let is_alive = || {
        state::heap_if_ready().is_some_and(|heap| heap.is_allocated(start))
            && !crate::disclaim::is_being_asked(start)
    };
    c_int::from(marked.unwrap_or_else(is_alive))
}

/// A mark cannot be taken back: the object is merely kept until the next collection.
#[unsafe(no_mangle)]
pub extern "C" fn GC_clear_mark_bit(_object: *const c_void) {}

/// The procedure that reports further roots.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_push_other_roots() -> *mut c_void {
    GC_push_other_roots.load(Ordering::Acquire)
}

/// Sets the procedure that reports further roots; it should call the old one. Null is none.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_push_other_roots(procedure: *mut c_void) {
    GC_push_other_roots.store(procedure, Ordering::Release);
}

/// Are data of loaded objects no roots?
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_no_dls() -> c_int {
    GC_no_dls.load(Ordering::Relaxed)
}

/// Not 0: data of loaded objects are no roots.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_no_dls(off: c_int) {
    GC_no_dls.store(off, Ordering::Relaxed);
}

/// Adds a range of roots, rounded inwards to words. Without effect if there is no memory for the list.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_add_roots(low: *mut c_void, high: *mut c_void) {
    let Some(mut new) = inward(low.addr(), high.addr()) else {
        return;
    };
    with_lists(|lists| {
        // Ranges that touch the new one become part of it.
        let mut i = 0;
        while let Some(old) = lists.added.as_slice().get(i).copied() {
            if old.start <= new.end && new.start <= old.end {
                new = Range {
                    start: old.start.min(new.start),
                    end: old.end.max(new.end),
                };
                let _ = lists.added.swap_remove(i);
                i = 0;
            } else {
                i += 1;
            }
        }
        let _ = lists.added.push(new);
    });
}

/// Removes the ranges that lie wholly in `[low, high)`.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_remove_roots(low: *mut c_void, high: *mut c_void) {
    let Some(gone) = inward(low.addr(), high.addr()) else {
        return;
    };
    with_lists(|lists| {
        let mut i = 0;
        while let Some(old) = lists.added.as_slice().get(i) {
            if gone.start <= old.start && old.end <= gone.end {
                let _ = lists.added.swap_remove(i);
            } else {
                i += 1;
            }
        }
    });
}

/// Removes all ranges. Data of loaded objects are found again at the next collection unless [`GC_no_dls`] is set.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_clear_roots() {
    with_lists(|lists| {
        lists.added.clear();
        lists.loaded.clear();
        lists.counts = None;
    });
}

/// Takes a range out of all roots but stacks, rounded outwards to words.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_exclude_static_roots(low: *mut c_void, high: *mut c_void) {
    let (start, end) = (low.addr() & !7, high.addr().saturating_add(7) & !7);
    if start < end {
        with_lists(|lists| {
            let _ = lists.excluded.push(Range { start, end });
        });
    }
}

/// Forgets what [`GC_exclude_static_roots`] excluded.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_clear_exclusion_table() {
    with_lists(|lists| lists.excluded.clear());
}

/// Was this address in the data of a loaded object at the last collection?
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_is_tmp_root(at: *mut c_void) -> c_int {
    let at = at.addr();
    let mut found = false;
    with_lists(|lists| {
        found = lists
            .loaded
            .as_slice()
            .iter()
            .any(|r| (r.start..r.end).contains(&at))
    });
    c_int::from(found)
}

/// Sets the function that is asked about each writable segment of each loaded object, with the heap's lock held. Null:
/// all are roots.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_register_has_static_roots_callback(wanted: *mut c_void) {
    HAS_STATIC_ROOTS.store(wanted, Ordering::Relaxed);
    with_lists(|lists| lists.counts = None);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(range: (usize, usize), holes: &[(usize, usize)]) -> Vec<(usize, usize)> {
        let holes: Vec<Range> = holes
            .iter()
            .map(|&(start, end)| Range { start, end })
            .collect();
        let mut out = Vec::new();
        without(
            Range {
                start: range.0,
                end: range.1,
            },
            &holes,
            &mut |r| out.push((r.start, r.end)),
        );
        out
    }

    #[test]
    fn excluded_ranges_are_cut_out() {
        assert_eq!(parts((64, 128), &[]), [(64, 128)]);
        assert_eq!(parts((64, 128), &[(0, 64), (128, 256)]), [(64, 128)]);
        assert_eq!(parts((64, 128), &[(0, 256)]), []);
        assert_eq!(
            parts((64, 128), &[(80, 88), (96, 104)]),
            [(64, 80), (88, 96), (104, 128)]
        );
        assert_eq!(
            parts((64, 128), &[(96, 104), (0, 80)]),
            [(80, 96), (104, 128)]
        );
        assert_eq!(parts((64, 128), &[(120, 256)]), [(64, 120)]);
    }

    #[test]
    fn ranges_are_rounded_inwards() {
        assert_eq!(inward(1, 17), Some(Range { start: 8, end: 16 }));
        assert_eq!(inward(1, 15), None);
        assert_eq!(inward(usize::MAX - 3, usize::MAX), None);
        assert_eq!(inward(16, 8), None);
    }
}
