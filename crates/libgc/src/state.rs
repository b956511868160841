//! The one heap of the process, and how it is made.
//!
//! The heap is made by the first call that needs one: `GC_init`, an allocation in a constructor that runs before `main`,
//! or a registration. One thread makes it, others that come meanwhile wait. If it cannot be made (there is no address
//! space), the call fails as if memory had run out, and the next one tries again.

use crate::vm::BoehmVm;
use crate::{config, ears, fork, live, profile, report, roots, stack, stop, threads};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_uint, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use heapwright::{KindTraits, Options, WordHeap};
use heapwright_os::{RawLock, real_port};

/// The heap's type.
pub(crate) type BoehmHeap = WordHeap<BoehmVm>;

/// The kinds that are there from the start, by Boehm's numbers: atomic, normal, uncollectable, typed, and uncollectable
/// atomic. `GC_new_kind` adds more.
pub(crate) const KINDS: &[KindTraits] = &[
    KindTraits {
        leaf: true,
        zeroed: false,
        collectable: true,
        conservative: false,
    },
    KindTraits {
        leaf: false,
        zeroed: true,
        collectable: true,
        conservative: true,
    },
    KindTraits {
        leaf: false,
        zeroed: true,
        collectable: false,
        conservative: true,
    },
    KindTraits {
        leaf: false,
        zeroed: true,
        collectable: true,
        conservative: false,
    },
    KindTraits {
        leaf: true,
        zeroed: false,
        collectable: false,
        conservative: false,
    },
];

struct Slot(UnsafeCell<MaybeUninit<BoehmHeap>>);

// SAFETY: written once, by the thread that holds `MAKING`, before `READY` is set; read only after that. The heap is Sync.
unsafe impl Sync for Slot {}

static HEAP: Slot = Slot(UnsafeCell::new(MaybeUninit::uninit()));
/// 1 once the heap is there.
static READY: AtomicU32 = AtomicU32::new(0);
/// Held by the thread that makes the heap.
static MAKING: RawLock = RawLock::new();
/// Its number, so that a call from within (a client's malloc that calls us) fails instead of waiting for itself.
static MAKER: AtomicI32 = AtomicI32::new(0);

/// How many collections there were.
#[unsafe(no_mangle)]
pub static GC_gc_no: AtomicUsize = AtomicUsize::new(0);

/// How many threads mark beside the collecting one.
#[unsafe(no_mangle)]
pub static GC_parallel: AtomicI32 = AtomicI32::new(0);

/// No object lies below this address. Clients compare inline.
#[unsafe(no_mangle)]
pub static GC_least_plausible_heap_addr: AtomicPtr<c_void> =
    AtomicPtr::new(ptr::without_provenance_mut(usize::MAX));

/// No object lies above this address. Clients compare inline.
#[unsafe(no_mangle)]
pub static GC_greatest_plausible_heap_addr: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// The number of markers that [`GC_set_markers_count`] asked for; 0: the options decide.
static MARKERS: AtomicUsize = AtomicUsize::new(0);

/// The heap; made if there is none. `None` if that is impossible.
#[inline]
pub(crate) fn heap() -> Option<&'static BoehmHeap> {
    heap_if_ready().or_else(make)
}

/// The heap if there is one.
#[inline]
pub(crate) fn heap_if_ready() -> Option<&'static BoehmHeap> {
    // SAFETY: ready.
    heap_is_ready().then(|| unsafe { heap_unchecked() })
}

/// Is there a heap?
#[inline]
pub(crate) fn heap_is_ready() -> bool {
    READY.load(Ordering::Acquire) != 0
}

/// The heap.
///
/// # Safety
/// It must be there: the caller saw [`heap_is_ready`], or is a registered thread.
#[inline(always)]
pub(crate) unsafe fn heap_unchecked() -> &'static BoehmHeap {
    // SAFETY: written before `READY` was set, and never again.
    unsafe { (*HEAP.0.get()).assume_init_ref() }
}

#[cold]
#[inline(never)]
fn make() -> Option<&'static BoehmHeap> {
    // SAFETY: no precondition.
    let me = unsafe { libc::gettid() };
    if MAKER.load(Ordering::Relaxed) == me {
        return None;
    }
    MAKING.lock();
    MAKER.store(me, Ordering::Relaxed);
    let made = heap_if_ready().or_else(|| {
        let heap = build()?;
        // All that others may use is in place.
        READY.store(1, Ordering::Release);
        config::init(heap);
        publish_bounds(heap);
        crate::dump::init();
        live::start();
        let _ = threads::attach(heap, None);
        Some(heap)
    });
    MAKER.store(0, Ordering::Relaxed);
    MAKING.unlock();
    made
}

/// Builds the heap in its place, and all that belongs to it. Once; after a failure, again from the start.
fn build() -> Option<&'static BoehmHeap> {
    roots::init().ok()?;
    let (mut options, wrong) = options_from_environment();
    let markers = MARKERS.load(Ordering::Relaxed);
    if markers != 0 {
        options.workers = markers.min(64);
    }
    let workers = options.most_workers();
    let mut builder = BoehmHeap::builder()
        .options(options)
        .kinds(KINDS)
        .port(real_port());
    if let Some(ears) = ears::wanted() {
        builder = builder.listener(Box::new(ears));
    }
    if let Some(profile) = profile::begin() {
        builder = builder.sampler(Box::new(profile));
    }
    let heap = builder.build(BoehmVm::new()).ok()?;
    // SAFETY: `MAKING` is held and the heap is not ready: nobody else has a reference.
    let heap = unsafe { (*HEAP.0.get()).write(heap) };
    GC_parallel.store(
        c_int::try_from(workers.saturating_sub(1)).unwrap_or(0),
        Ordering::Relaxed,
    );
    stack::init();
    stop::init();
    threads::make_exit_key();
    fork::init();
    ears::begin(heap);
    live::begin(heap);
    report::init(wrong.map(|e| e.to_string()));
    Some(heap)
}

/// The options of the environment; wrong ones are passed over, and the first is returned.
fn options_from_environment() -> (Options, Option<heapwright::OptionError>) {
    // Names and values that are no text cannot be ours.
    let text = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let (mut options, mut wrong) = Options::from_vars_lenient(text);
    // Boehm's own variables count where ours say nothing.
    if std::env::var_os("HEAPWRIGHT_WORKERS").is_none() {
        let markers = ["GC_MARKERS", "GC_NPROCS"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok()?.trim().parse().ok())
            .filter(|n| (1..=64).contains(n));
        options.workers = markers.unwrap_or(options.workers);
    }
    if let Err(mut error) = options.check_for_words() {
        options.plan = Options::default().plan;
        error.name = "HEAPWRIGHT_PLAN".to_owned();
        wrong.get_or_insert(error);
    }
    (options, wrong)
}

/// Tells clients where objects can be.
pub(crate) fn publish_bounds(heap: &BoehmHeap) {
    let (low, high) = heap.bounds();
    GC_least_plausible_heap_addr.store(low.as_mut_ptr(), Ordering::Relaxed);
    GC_greatest_plausible_heap_addr.store(high.as_mut_ptr(), Ordering::Relaxed);
}

/// Makes the heap. May be called again.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_init() {
    let _ = threads::mutator();
}

/// Is there a heap?
#[unsafe(no_mangle)]
pub extern "C" fn GC_is_init_called() -> c_int {
    c_int::from(heap_is_ready())
}

/// The end of use. The heap stays as it is: objects may still be used by what runs at exit.
#[unsafe(no_mangle)]
pub extern "C" fn GC_deinit() {}

/// How many collections there were.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_gc_no() -> usize {
    GC_gc_no.load(Ordering::Relaxed)
}

/// How many threads mark beside the collecting one.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_parallel() -> c_int {
    GC_parallel.load(Ordering::Relaxed)
}

/// How many threads mark; without effect once the heap is made. 0: the options decide.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_markers_count(markers: c_uint) {
    if !heap_is_ready() {
        MARKERS.store(markers as usize, Ordering::Relaxed);
    }
}
