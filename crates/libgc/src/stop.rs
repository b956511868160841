//! Stopping and starting threads.
//!
//! The **stop number** is odd while the world is stopped. To stop it, the collector (which holds the heap's lock) makes
//! the number odd and sends the suspend signal to each live thread that is neither blocked nor parked; the handler writes
//! down the thread's registers and stack pointer, acknowledges with the number, and waits on the number until it changes.
//! A signal that is not acknowledged in time is sent again: the kernel may lose one that is pending already.
//!
//! | thread is                              | the handler                            | the collector counts on         |
//! |----------------------------------------|----------------------------------------|---------------------------------|
//! | running, or waiting for any lock       | acknowledges and waits                 | its acknowledgement             |
//! | in a section with `busy` set           | sets `stop_wanted` and returns         | [`stop_point`] when it leaves   |
//! | blocked (`GC_do_blocking`)             | is not called                          | the lock, taken on the way out  |
//! | parked (`GC_suspend_thread`)           | waits already                          | the resumer, who needs the lock |
//! | gone without a word                    | is not called                          | `ESRCH`: the record is freed    |
//!
//! The collector's own thread takes no signals while others are stopped: the client's handler might wait for a lock that one of
//! them holds. (Crystal's takes a spin lock. On the system's library such a program can stand still.) They come when the world has
//! started again. Those that the thread itself causes, as by a wrong address, come at once.
//!
//! The handler runs with all signals masked, on whatever stack the thread is on; it touches its record, two futexes and
//! nothing else, and preserves `errno`. Boehm's collector restarts threads by a second signal; here they wait on a futex,
//! so that signal's number is only reported.

use crate::config;
use crate::stack::{self, Registers};
use crate::state;
use crate::threads::{self, ThreadRecord};
use crate::tls;
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use heapwright::probes;
use heapwright_os::{clock, futex_wait, futex_wake};

/// The stop number: odd while the world is stopped or being stopped. A futex.
static STOP: AtomicU32 = AtomicU32::new(0);
/// How many threads have acknowledged the present stop. A futex.
static ACKNOWLEDGED: AtomicU32 = AtomicU32::new(0);

/// The signal mask of the thread that stops the world, as it was before: set while [`IS_MASKED`].
struct Mask(UnsafeCell<MaybeUninit<libc::sigset_t>>);

// SAFETY: only who holds the heap's lock uses it.
unsafe impl Sync for Mask {}

static MASK: Mask = Mask(UnsafeCell::new(MaybeUninit::uninit()));
static IS_MASKED: AtomicBool = AtomicBool::new(false);

/// Somebody wants to know when threads stop and go on.
static WATCHED: AtomicBool = AtomicBool::new(false);
/// When the world started the last time, if somebody wants to know.
static STARTED_NS: AtomicU64 = AtomicU64::new(0);

static SUSPEND_SIGNAL: AtomicI32 = AtomicI32::new(libc::SIGPWR);
static RESTART_SIGNAL: AtomicI32 = AtomicI32::new(libc::SIGXCPU);

/// The first wait for acknowledgements before signals are sent again; doubled each time.
const PATIENCE_NS: u64 = 1_000_000;
const PATIENCE_MAX_NS: u64 = 64_000_000;

/// `GC_EVENT_THREAD_SUSPENDED` and `GC_EVENT_THREAD_UNSUSPENDED`.
const EVENT_SUSPENDED: c_int = 10;
const EVENT_RESUMED: c_int = 11;

/// Installs the handler. Called once, when the heap is made.
pub(crate) fn init() {
    // SAFETY: a struct for which zero is valid.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_suspend;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO;
    // SAFETY: the set is initialised here; the handler is async-signal-safe. It can only fail for a signal that a client
    // chose and that cannot be caught; such a client cannot have threads stopped.
    unsafe {
        // All signals, the system's own included, which `sigfillset` leaves out: with the one for `pthread_cancel` a thread would
        // leave the handler, and the stop, by unwinding.
        (&raw mut action.sa_mask).write_bytes(0xff, 1);
        libc::sigaction(suspend_signal(), &raw const action, ptr::null_mut());
    }
}

/// Makes sure that the calling thread can be stopped.
pub(crate) fn unblock_signal() {
    // SAFETY: a set that is initialised before it is used.
    unsafe {
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, suspend_signal());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
    }
}

fn suspend_signal() -> c_int {
    SUSPEND_SIGNAL.load(Ordering::Relaxed)
}

extern "C" fn on_suspend(_signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: a registered thread's record is never unmapped; null if the thread is not registered.
    let Some(record) = (unsafe { tls::current().as_ref() }) else {
        return;
    };
    if record.runs.busy.load(Ordering::Relaxed) != 0 {
        record.runs.stop_wanted.store(1, Ordering::Relaxed);
        return;
    }
    // SAFETY: the calling thread's errno.
    let errno = unsafe { *libc::__errno_location() };
    park(record, context.addr(), interrupted_sp(context));
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// The stack pointer of the interrupted code.
fn interrupted_sp(context: *mut c_void) -> usize {
    let context: *const libc::ucontext_t = context.cast();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel gave the handler its signal frame's context.
    let sp = unsafe { (*context).uc_mcontext.gregs[libc::REG_RSP as usize] } as usize;
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    let sp = unsafe { (*context).uc_mcontext.sp } as usize;
    sp
}

/// The general registers of a thread that was stopped by a signal.
pub(crate) fn registers_of(record: &ThreadRecord) -> Option<&[usize]> {
    let context: *const libc::ucontext_t =
        ptr::with_exposed_provenance(record.context.load(Ordering::Relaxed));
    if context.is_null() || record.blocked.load(Ordering::Relaxed) != 0 {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the signal frame of a thread that is stopped in its handler.
    let registers = unsafe {
        let registers = &raw const (*context).uc_mcontext.gregs;
        core::slice::from_raw_parts(registers.cast::<usize>(), (*registers).len())
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    let registers = unsafe {
        let registers = &raw const (*context).uc_mcontext.regs;
        core::slice::from_raw_parts(registers.cast::<usize>(), (*registers).len())
    };
    Some(registers)
}

/// Waits as long as the world is stopped or the thread is suspended. The thread is where `context` (or, if that is 0,
/// its frames from `sp` on) describes it.
fn park(record: &ThreadRecord, context: usize, sp: usize) {
    loop {
        let stop = STOP.load(Ordering::Acquire);
        let suspended = record.suspended.load(Ordering::Acquire);
        if stop & 1 != 0 {
            // Only the outermost wait describes the thread: a signal that is sent again finds it acknowledged.
            if record.acknowledged.load(Ordering::Relaxed) != stop {
                record.context.store(context, Ordering::Relaxed);
                record.stack_pointer.store(sp, Ordering::Relaxed);
                if WATCHED.load(Ordering::Relaxed) {
                    record
                        .stopped_ns
                        .store(clock::monotonic_ns(), Ordering::Relaxed);
                }
                record.acknowledged.store(stop, Ordering::Relaxed);
                ACKNOWLEDGED.fetch_add(1, Ordering::Release);
                futex_wake(&ACKNOWLEDGED, 1);
            }
            probes::mutator_stop();
            futex_wait(&STOP, stop, None);
            probes::mutator_resume();
        } else if suspended & 1 != 0 {
            // The number, not a flag: resumed and suspended again before it wakes, the thread answers again.
            if record.parked.load(Ordering::Relaxed) != suspended {
                record.context.store(context, Ordering::Relaxed);
                record.stack_pointer.store(sp, Ordering::Relaxed);
                record.parked.store(suspended, Ordering::Release);
                futex_wake(&record.parked, 1);
            }
            futex_wait(&record.suspended, suspended, None);
        } else {
            return;
        }
    }
}

/// The calling thread left a section in which a stop came: does what the handler would have done.
#[inline(never)]
pub(crate) fn stop_point() {
    let Some(record) = threads::current() else {
        return;
    };
    // Cleared before looking at the number: a stop that begins later signals again.
    record.runs.stop_wanted.store(0, Ordering::Relaxed);
    core::sync::atomic::fence(Ordering::SeqCst);
    let mut registers: Registers = [0; 16];
    let sp = stack::spill(&mut registers);
    core::hint::black_box(&mut registers);
    park(record, 0, sp);
    core::hint::black_box(&mut registers);
}

/// Is this thread one that must be signalled and waited for?
fn must_stop(record: &ThreadRecord, me: *mut ThreadRecord) -> bool {
    record.state.load(Ordering::Relaxed) == threads::LIVE
        && !ptr::eq(record, me)
        && record.blocked.load(Ordering::Relaxed) == 0
        && !is_parked(record)
}

/// Does the thread wait for [`GC_resume_thread`] in the handler? Heap lock held.
fn is_parked(record: &ThreadRecord) -> bool {
    let suspended = record.suspended.load(Ordering::Relaxed);
    suspended & 1 != 0 && record.parked.load(Ordering::Acquire) == suspended
}

/// Sends the suspend signal. A thread that is gone without having been unregistered is forgotten; false then.
fn signal(record: &ThreadRecord) -> bool {
    // SAFETY: signals a thread of this process by its number.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_tgkill,
            libc::getpid(),
            record.tid.load(Ordering::Relaxed),
            suspend_signal(),
        )
    };
    // SAFETY: the calling thread's errno.
    if sent != 0 && unsafe { *libc::__errno_location() } == libc::ESRCH {
        record.state.store(threads::FREE, Ordering::Release);
        return false;
    }
    // Other errors (the queue of signals is full) are temporary: it is sent again later.
    true
}

/// Has signals to the calling thread wait, if they do not yet. Heap lock held.
fn mask() {
    /// What a thread causes by what it does: blocked, it would end the process without asking its handler.
    const OWN: [c_int; 7] = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGSYS,
        libc::SIGABRT,
    ];
    if IS_MASKED.load(Ordering::Relaxed) {
        return;
    }
    let mut most = MaybeUninit::uninit();
    // SAFETY: the set is initialised before it is used; `MASK` is the caller's, who holds the heap's lock.
    let failed = unsafe {
        libc::sigfillset(most.as_mut_ptr());
        for signal in OWN {
            libc::sigdelset(most.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, most.as_ptr(), MASK.0.get().cast())
    };
    IS_MASKED.store(failed == 0, Ordering::Relaxed);
}

/// Undoes [`mask`]. Heap lock held.
fn unmask() {
    if IS_MASKED.swap(false, Ordering::Relaxed) {
        // SAFETY: `mask` has written it; the lock as there.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, MASK.0.get().cast(), ptr::null_mut()) };
    }
}

/// Stops all live threads but the caller. Heap lock held.
pub(crate) fn stop_world() {
    let me = tls::current();
    ACKNOWLEDGED.store(0, Ordering::Relaxed);
    let stop = STOP.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
    let mut wanted = 0u32;
    threads::each(|record| {
        if !must_stop(record, me) {
            return;
        }
        mask();
        if signal(record) {
            wanted += 1;
            config::thread_event(EVENT_SUSPENDED, record.pthread.load(Ordering::Relaxed));
        }
    });
    let mut patience = PATIENCE_NS;
    let mut deadline = clock::monotonic_ns() + if wanted == 0 { 0 } else { patience };
    loop {
        let seen = ACKNOWLEDGED.load(Ordering::Acquire);
        if seen >= wanted {
            return;
        }
        let now = clock::monotonic_ns();
        if now < deadline {
            futex_wait(&ACKNOWLEDGED, seen, Some(deadline - now));
            continue;
        }
        patience = (patience * 2).min(PATIENCE_MAX_NS);
        deadline = now + patience;
        threads::each(|record| {
            if must_stop(record, me)
                && record.acknowledged.load(Ordering::Relaxed) != stop
                && !signal(record)
            {
                wanted -= 1;
            }
        });
    }
}

/// Lets them run again. Heap lock held.
pub(crate) fn start_world() {
    if WATCHED.load(Ordering::Relaxed) {
        STARTED_NS.store(clock::monotonic_ns(), Ordering::Relaxed);
    }
    let stop = STOP.fetch_add(1, Ordering::SeqCst);
    if ACKNOWLEDGED.load(Ordering::Relaxed) == 0 {
        unmask();
        return;
    }
    futex_wake(&STOP, u32::MAX >> 1);
    threads::each(|record| {
        if record.state.load(Ordering::Relaxed) == threads::LIVE
            && record.acknowledged.load(Ordering::Relaxed) == stop
        {
            config::thread_event(EVENT_RESUMED, record.pthread.load(Ordering::Relaxed));
        }
    });
    unmask();
}

/// Has the times be noted at which threads stop and go on.
pub(crate) fn watch(on: bool) {
    WATCHED.store(on, Ordering::Relaxed);
}

/// The threads that the last stop stopped: number, when it stopped, when the world started again. Heap lock held, world running.
pub(crate) fn each_stopped(mut visit: impl FnMut(u64, u64, u64)) {
    // The number is even again.
    let stop = STOP.load(Ordering::Relaxed).wrapping_sub(1);
    threads::each(|record| {
        let live = record.state.load(Ordering::Relaxed) == threads::LIVE;
        if live && record.acknowledged.load(Ordering::Relaxed) == stop {
            let thread = record.tid.load(Ordering::Relaxed).unsigned_abs();
            let stopped_ns = record.stopped_ns.load(Ordering::Relaxed);
            visit(
                u64::from(thread),
                stopped_ns,
                STARTED_NS.load(Ordering::Relaxed),
            );
        }
    });
}

/// In the child of a fork: nobody is stopped, whatever the parent did.
pub(crate) fn after_fork() {
    let stop = STOP.load(Ordering::Relaxed);
    STOP.store(stop.wrapping_add(stop & 1), Ordering::Relaxed);
    ACKNOWLEDGED.store(0, Ordering::Relaxed);
    unmask();
}

/// The signal that stops threads.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_suspend_signal() -> c_int {
    suspend_signal()
}

/// Chooses the signal that stops threads; without effect once the heap is made.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_suspend_signal(signal: c_int) {
    if !state::heap_is_ready() {
        SUSPEND_SIGNAL.store(signal, Ordering::Relaxed);
    }
}

/// The signal that Boehm's collector restarts threads with. Reported so that clients keep it free; not used.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_thr_restart_signal() -> c_int {
    RESTART_SIGNAL.load(Ordering::Relaxed)
}

/// Sets what [`GC_get_thr_restart_signal`] reports; without effect once the heap is made.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_thr_restart_signal(signal: c_int) {
    if !state::heap_is_ready() {
        RESTART_SIGNAL.store(signal, Ordering::Relaxed);
    }
}

/// Takes the heap's lock and stops the world until [`GC_start_world_external`].
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_stop_world_external() {
    if let Some((heap, _)) = threads::mutator() {
        heap.lock();
        stop_world();
    }
}

/// Ends what [`GC_stop_world_external`] began; to be called by the same thread.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_start_world_external() {
    if let Some((heap, _)) = threads::mutator() {
        start_world();
        heap.unlock();
    }
}

/// The states of threads that can be suspended.
const KNOWN: &[u32] = &[threads::LIVE, threads::FINISHED];

/// Suspends a registered thread until [`GC_resume_thread`]; returns when it is suspended. A thread may suspend itself.
/// Nothing happens for a thread that is not registered or suspended already; one that has ended and was not joined counts as
/// suspended from then on.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_suspend_thread(thread: libc::pthread_t) {
    let Some((heap, _)) = threads::mutator() else {
        return;
    };
    heap.lock();
    let found =
        threads::by_pthread(thread, KNOWN).filter(|r| r.suspended.load(Ordering::Relaxed) & 1 == 0);
    let Some(record) = found else {
        heap.unlock();
        return;
    };
    let before = record.parked.load(Ordering::Relaxed);
    record.suspended.fetch_add(1, Ordering::SeqCst);
    if record.state.load(Ordering::Relaxed) != threads::LIVE {
        heap.unlock();
        return;
    }
    if ptr::eq(record, tls::current()) {
        heap.unlock();
        stop_point();
        return;
    }
    let mut patience = PATIENCE_NS;
    while must_stop(record, tls::current()) {
        if !signal(record) {
            break;
        }
        // The lock is held, so that the thread can neither end nor be taken for running by a stop; it needs no lock to
        // park.
        futex_wait(&record.parked, before, Some(patience));
        patience = (patience * 2).min(PATIENCE_MAX_NS);
    }
    heap.unlock();
}

/// Lets a thread run again that [`GC_suspend_thread`] suspended.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_resume_thread(thread: libc::pthread_t) {
    let Some((heap, _)) = threads::mutator() else {
        return;
    };
    heap.lock();
    let found = threads::by_pthread(thread, KNOWN);
    if let Some(record) = found.filter(|r| r.suspended.load(Ordering::Relaxed) & 1 != 0) {
        // From here on a stop signals it and waits for it, wherever it is on its way out.
        record.suspended.fetch_add(1, Ordering::SeqCst);
        futex_wake(&record.suspended, u32::MAX >> 1);
    }
    heap.unlock();
}

/// Is the thread suspended by [`GC_suspend_thread`]?
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_is_thread_suspended(thread: libc::pthread_t) -> c_int {
    let Some((heap, _)) = threads::mutator() else {
        return 0;
    };
    heap.lock();
    let suspended = threads::by_pthread(thread, KNOWN)
        .is_some_and(|r| r.suspended.load(Ordering::Relaxed) & 1 != 0);
    heap.unlock();
    c_int::from(suspended)
}

/// What `GC_start_mark_threads` asks for is the heap's own affair: its workers start with the first collection.
#[unsafe(no_mangle)]
pub extern "C" fn GC_start_mark_threads() {}
