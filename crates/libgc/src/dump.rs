//! Heap dumps: `HEAPWRIGHT_DUMP` says when and where to ([`heapwright_observe::dump::Request`]); [`write()`] takes one now.
//!
//! The world is stopped only for as long as the kernel needs to fork. The child has the heap as it was at that moment, finds what lives as
//! a collection would, writes it, and ends; the program goes on meanwhile, and pays with copies of the pages that it writes to until then.
//! The child is made without a signal for its end, and without the C library knowing: neither `wait` nor a handler for `SIGCHLD` sees
//! it. It has one thread, takes no lock, does not call malloc, has no signal but those that it causes itself, and no file open but the
//! dump's. Where the system does not allow it, the dump is written with the world stopped.
//!
//! What goes wrong is an error for the caller and nothing for the program: there is no file then.
//!
//! Signals are answered by a thread of the library's own, which is started with the heap if there is a signal to wait for. In the child of
//! a fork there is none.

use crate::state::{self, BoehmHeap};
use crate::{alloc, roots, scavenge, stop, typed};
use core::ffi::{c_int, c_long, c_void};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use heapwright::Kind;
use heapwright_observe::dump::{self, Cells, DumpError, DumpFile, Extent, Format, Request, When};
use heapwright_os::{clock, futex_wait, futex_wake};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{self, Path};
use std::sync::OnceLock;

const VARIABLE: &str = "HEAPWRIGHT_DUMP";

/// What was asked for. Set once, with the heap.
static REQUESTS: OnceLock<Box<[Request]>> = OnceLock::new();
/// Memory has run out, and the dump was taken.
static RAN_OUT: AtomicBool = AtomicBool::new(false);
/// Signals that came: a bit for each. A futex is beside it.
static SIGNALS: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
static CAME: AtomicU32 = AtomicU32::new(0);
/// The process in which a dump is being taken; 0: in none. A futex. A child that was forked meanwhile finds its parent's number, and
/// nobody there who could take it away.
static TAKING: AtomicU32 = AtomicU32::new(0);

/// One dump at a time.
struct One;

impl One {
    fn take() -> Self {
        let me = std::process::id();
        loop {
            let other = TAKING.load(Ordering::Relaxed);
            if other == me {
                futex_wait(&TAKING, me, None);
            } else if TAKING
                .compare_exchange(other, me, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
            {
                return Self;
            }
        }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        TAKING.store(0, Ordering::Release);
        futex_wake(&TAKING, 1);
    }
}

/// How a dump went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// How long the world was stopped, in nanoseconds.
    #[allow(
        dead_code,
        reason = "for who asks on demand; the environment's have nobody to tell"
    )]
    pub(crate) pause_ns: u64,
    /// From the call to the whole file.
    #[allow(dead_code, reason = "as above")]
    pub(crate) took_ns: u64,
}

/// Reads the environment. Called once, when the heap is made.
pub(crate) fn init() {
    let Some(text) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) else {
        return;
    };
    // What is wrong is said by the `heapwright` command, before the program runs; here there is nobody to tell.
    let parsed = text.to_str().map(Request::parse_all);
    let Some(Ok(mut requests)) = parsed else {
        return;
    };
    for request in &mut requests {
        // The program may change its directory.
        if let Ok(absolute) = path::absolute(&request.file) {
            request.file = absolute;
        }
    }
    let when = |f: fn(&When) -> bool| requests.iter().flat_map(|r| &r.when).any(f);
    if when(|w| *w == When::Exit) {
        // If it cannot be registered there is no file: the same as one that cannot be written.
        // SAFETY: a function that lives as long as the library.
        let _ = unsafe { libc::atexit(at_exit) };
    }
    let signals = requests
        .iter()
        .flat_map(|r| &r.when)
        .filter_map(|w| match w {
            When::Signal(number) => Some(*number),
            _ => None,
        });
    let signals: Vec<c_int> = signals.collect();
    if REQUESTS.set(requests.into_boxed_slice()).is_ok()
        && !signals.is_empty()
        && scavenge::start("heapwright-dump", answer_signals)
    {
        signals.into_iter().for_each(handle);
    }
}

/// Takes the dumps that wait for something.
fn take(wanted: impl Fn(When) -> bool) {
    for request in REQUESTS.get().into_iter().flatten() {
        if request.when.iter().any(|w| wanted(*w)) {
            // There is nobody to tell.
            let _ = write(&request.file);
        }
    }
}

extern "C" fn at_exit() {
    take(|when| when == When::Exit);
}

/// Memory has run out. No lock is held.
pub(crate) fn out_of_memory() {
    // Who redirects malloc to this heap comes here again.
    if REQUESTS.get().is_some() && !RAN_OUT.swap(true, Ordering::Relaxed) {
        take(|when| when == When::OutOfMemory);
    }
}

/// Has a signal taken for a dump, unless the program has a handler for it already.
fn handle(signal: c_int) {
    // SAFETY: a struct for which zero is valid.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: writes what there is.
    let known = unsafe { libc::sigaction(signal, core::ptr::null(), &raw mut action) } == 0;
    if !known || ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction) {
        return;
    }
    let handler: extern "C" fn(c_int) = on_signal;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the set is empty; the handler is async-signal-safe.
    unsafe { libc::sigaction(signal, &raw const action, core::ptr::null_mut()) };
}

extern "C" fn on_signal(signal: c_int) {
    let bit = signal as usize;
    if let Some(word) = SIGNALS.get(bit / 32) {
        word.fetch_or(1 << (bit % 32), Ordering::Release);
        CAME.fetch_add(1, Ordering::Release);
        futex_wake(&CAME, 1);
    }
}

/// The life of the thread that waits for signals.
fn answer_signals() {
    let mut seen = 0;
    loop {
        futex_wait(&CAME, seen, None);
        seen = CAME.load(Ordering::Acquire);
        for (index, word) in SIGNALS.iter().enumerate() {
            let mut bits = word.swap(0, Ordering::Acquire);
            while bits != 0 {
                let signal = index * 32 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                take(|when| when == When::Signal(signal as c_int));
            }
        }
    }
}

/// Takes a dump into a file now, in the format that its name says; see [`heapwright_observe::dump::expand`] for `%p` and `%n`. By any thread
/// that holds no lock of the heap; returns when the file is whole.
///
/// # Errors
/// If the name says no format, or the file cannot be written. There is none then, and the heap is as it was.
pub(crate) fn write(path: &Path) -> Result<Taken, DumpError> {
    let start = clock::monotonic_ns();
    let format = Format::of(path)?;
    let Some(heap) = state::heap_if_ready() else {
        return Err(io::Error::from(io::ErrorKind::NotFound).into());
    };
    let _one = One::take();
    let mut file = DumpFile::create(path)?;
    heap.lock();
    let stopped = clock::monotonic_ns();
    roots::hold_while(stop::stop_world);
    let child = fork();
    if child == 0 {
        in_child(heap, format, file.file());
    }
    let here = (child < 0).then(|| write_stopped(heap, format, file.file()));
    stop::start_world();
    let pause_ns = clock::monotonic_ns() - stopped;
    heap.unlock();
    match here {
        Some(result) => result?,
        None => wait(child)?,
    }
    file.finish()?;
    Ok(Taken {
        pause_ns,
        took_ns: clock::monotonic_ns() - start,
    })
}

/// Writes what lives. Heap lock held, world stopped; or in a process that was forked so.
fn write_stopped(heap: &BoehmHeap, format: Format, file: &mut File) -> Result<(), DumpError> {
    // SAFETY: the caller's promise.
    let view = unsafe { heap.view() };
    let mut cells = Cells::new(view, name_of_kind);
    dump::write(&mut cells, Extent::Reachable, format, file).map(|_| ())
}

/// A copy of this process with the calling thread only, which nobody is told of when it ends; 0 in it, negative if there is none.
fn fork() -> c_long {
    let no: *mut c_void = core::ptr::null_mut();
    // SAFETY: no memory is shared and no stack given: a fork. The child calls nothing that relies on what the C library does in its
    // own `fork`.
    unsafe { libc::syscall(libc::SYS_clone, 0 as c_long, no, no, no, no) }
}

/// The child's life.
fn in_child(heap: &BoehmHeap, format: Format, file: &mut File) -> ! {
    let fd = file.as_raw_fd();
    close_all_but(fd);
    let status = match write_stopped(heap, format, file) {
        Ok(()) => 0,
        Err(DumpError::Write(e)) => e.raw_os_error().unwrap_or(libc::EIO),
        Err(DumpError::Memory(e)) => e.errno,
        Err(_) => libc::EIO,
    };
    // SAFETY: ends this process and runs nothing of the program's.
    unsafe { libc::_exit(status) }
}

/// Closes what the program has open: who waits for the end of a pipe is not to wait for the dump.
fn close_all_but(fd: c_int) {
    let close = |first: c_int, last: c_int| {
        if first <= last {
            // Where the system has no such call, the files stay open until the dump is written.
            // SAFETY: closes files of this process, which uses none of them.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    };
    close(0, fd - 1);
    close(fd + 1, c_int::MAX);
}

/// Waits until the child has ended.
fn wait(child: c_long) -> Result<(), DumpError> {
    let mut status = 0;
    loop {
        // SAFETY: waits for a child of this process's; the status is written.
        let ended = unsafe { libc::waitpid(child as c_int, &raw mut status, libc::__WCLONE) };
        if ended >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error.into());
        }
    }
    match libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno).into()),
        None => Err(io::Error::other("the process that wrote it was killed").into()),
    }
}

/// What kinds are called in a dump.
fn name_of_kind(kind: Kind, put: &mut dyn FnMut(&str)) {
    const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let known = match kind {
        alloc::ATOMIC => "atomic",
        alloc::NORMAL => "normal",
        alloc::UNCOLLECTABLE => "uncollectable",
        alloc::TYPED => "typed",
        alloc::ATOMIC_UNCOLLECTABLE => "atomic uncollectable",
        kind if typed::is_array(kind) => "typed array",
        Kind(number) => {
            put("kind ");
            put(DIGITS[usize::from(number / 10 % 10)]);
            put(DIGITS[usize::from(number % 10)]);
            return;
        }
    };
    put(known);
}
