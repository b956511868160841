//! What is told about collections, when somebody asks: a line for each, and statistics at the end.
//!
//! - `HEAPWRIGHT_LOG`: one line for each collection; what it may say is in [`heapwright_observe::log`]. `%p` in the file's name is the
//!   process's number, and the child of a fork then has a file of its own.
//! - `GC_PRINT_STATS`, `GC_PRINT_VERBOSE_STATS`: the same lines go to where log messages go, which `GC_LOG_FILE` names.
//! - `HEAPWRIGHT_STATS_DIR`: at exit, `<directory>/<process id>.json` is written. A file that cannot be written is given
//!   up silently.
//!
//! Without these nothing is printed or kept but a few sums. The sums are changed with the heap's lock held.

use crate::{config, misc, state};
use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::fmt::Write;
use core::sync::atomic::{AtomicI32, Ordering};
use heapwright::{Cause, CollectionStats, Event, Listener};
use heapwright_memory::MappedVec;
use heapwright_observe::line::{self, Line};
use heapwright_observe::log::{self, Form, Logger};
use heapwright_observe::record::differs_by_process;
use heapwright_os::{clock, limits, real_port};
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The most pauses that are kept for the percentiles.
const MAX_PAUSES: usize = 1 << 24;

const LOG_VARIABLE: &str = "HEAPWRIGHT_LOG";

/// Where lines go that libgc's own variables ask for; negative: nowhere.
static LOG: AtomicI32 = AtomicI32::new(-1);

#[derive(Default)]
struct Tally {
    /// What `HEAPWRIGHT_LOG` asks for.
    log: Option<Logger>,
    /// When the heap was made, for the times in the log.
    born_ns: u64,
    collections: u64,
    causes: [u64; Cause::ALL.len()],
    pause_total_ns: u64,
    pause_max_ns: u64,
    pause_min_ns: u64,
    cpu_ns: u64,
    peak_heap_bytes: usize,
    violations: u64,
    /// Every pause, if statistics are wanted.
    pauses: Option<MappedVec<u64>>,
    directory: Option<PathBuf>,
    option_error: Option<String>,
}

struct Guarded(UnsafeCell<Option<Tally>>);

// SAFETY: reached only through `tally`, whose callers hold the heap's lock.
unsafe impl Sync for Guarded {}

static TALLY: Guarded = Guarded(UnsafeCell::new(None));

/// The sums. The heap's lock is held and no other reference to them is in use: no function here calls another meanwhile.
#[allow(
    clippy::mut_from_ref,
    reason = "the heap's lock makes it exclusive, as the one caller at a time promises"
)]
fn tally() -> Option<&'static mut Tally> {
    // SAFETY: as above.
    unsafe { (*TALLY.0.get()).as_mut() }
}

/// Reads the environment. Called once, when the heap is made, before anybody else can use it.
pub(crate) fn init(option_error: Option<String>) {
    if let Some(path) = std::env::var_os("GC_LOG_FILE").filter(|v| !v.is_empty()) {
        let fd = open_log(path.into_vec());
        if fd >= 0 {
            misc::GC_set_log_fd(fd);
            if !config::is_on("GC_ONLY_LOG_TO_FILE").unwrap_or(false) {
                misc::write_to(fd);
            }
        }
    }
    let is_set = |name| std::env::var_os(name).is_some();
    let log = logger();
    if log.is_some() {
        // Once is enough.
    } else if is_set("GC_PRINT_STATS") || is_set("GC_PRINT_VERBOSE_STATS") {
        LOG.store(misc::log_fd(), Ordering::Relaxed);
    } else if is_set("GC_DUMP_REGULARLY") {
        LOG.store(misc::output_fd(), Ordering::Relaxed);
    }
    let directory = std::env::var_os("HEAPWRIGHT_STATS_DIR")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from);
    let pauses = directory
        .as_ref()
        .and_then(|_| MappedVec::new(real_port(), MAX_PAUSES, c"heapwright pauses").ok());
    if directory.is_some() {
        // If it cannot be registered there is no file: the same as one that cannot be written.
        // SAFETY: a function that lives as long as the library.
        let _ = unsafe { libc::atexit(at_exit) };
    }
    let tally = Tally {
        log,
        born_ns: clock::monotonic_ns(),
        pauses,
        directory,
        option_error,
        ..Tally::default()
    };
    // SAFETY: before the heap is published: nobody else has a reference.
    unsafe { *TALLY.0.get() = Some(tally) };
}

/// What the environment asks for. A file that cannot be opened is given up.
fn logger() -> Option<Logger> {
    let value = std::env::var_os(LOG_VARIABLE).filter(|v| !v.is_empty())?;
    Logger::open(&value.into_vec()).ok()
}

fn open_log(path: Vec<u8>) -> c_int {
    let Ok(path) = CString::new(path) else {
        return -1;
    };
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_CLOEXEC;
    // SAFETY: a terminated path.
    unsafe { libc::open(path.as_ptr(), flags, 0o644) }
}

/// One collection ended. Heap lock held, world running.
pub(crate) fn collected(stats: &CollectionStats) {
    let Some(tally) = tally() else { return };
    tally.collections += 1;
    if let Some(count) = tally.causes.get_mut(stats.cause.index()) {
        *count += 1;
    }
    tally.pause_total_ns += stats.pause_ns;
    tally.pause_max_ns = tally.pause_max_ns.max(stats.pause_ns);
    tally.pause_min_ns = if tally.collections == 1 {
        stats.pause_ns
    } else {
        tally.pause_min_ns.min(stats.pause_ns)
    };
    tally.cpu_ns += stats.cpu_ns;
    tally.violations += stats.violations as u64;
    tally.peak_heap_bytes = tally
        .peak_heap_bytes
        .max(stats.heap_bytes + stats.returned_bytes);
    if let Some(pauses) = &mut tally.pauses {
        let _ = pauses.push(stats.pause_ns);
    }
    tally.log.event(Event::Collected(stats));
    let fd = LOG.load(Ordering::Relaxed);
    if fd >= 0 {
        let resident = limits::resident_bytes();
        let mut line = log::line(stats, Form::ALL, tally.born_ns, resident);
        send(fd, &mut line);
    }
}

/// Writes a line, errno unchanged. What does not fit on a full disk is lost: the program goes on.
fn send(fd: c_int, line: &mut Line) {
    let bytes = line.ended();
    // SAFETY: the calling thread's errno, which an allocation must not change; a buffer of our own.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(fd, bytes.as_ptr().cast(), bytes.len());
        *libc::__errno_location() = errno;
    }
}

/// In the child of a fork: its statistics are of its own collections. Heap lock held, or just reset: no other thread.
pub(crate) fn after_fork() {
    if let Some(tally) = tally() {
        let mut pauses = tally.pauses.take();
        if let Some(pauses) = &mut pauses {
            pauses.clear();
        }
        let own = std::env::var_os(LOG_VARIABLE).is_some_and(|v| differs_by_process(&v.into_vec()));
        *tally = Tally {
            log: if own { logger() } else { tally.log.take() },
            born_ns: tally.born_ns,
            pauses,
            directory: tally.directory.take(),
            option_error: tally.option_error.take(),
            ..Tally::default()
        };
    }
}

extern "C" fn at_exit() {
    let Some(heap) = state::heap_if_ready() else {
        return;
    };
    let usage = heap.usage();
    heap.lock();
    let written = tally().and_then(|tally| {
        // SAFETY: no precondition.
        let pid = unsafe { libc::getpid() };
        let path = tally.directory.as_ref()?.join(format!("{pid}.json"));
        tally.peak_heap_bytes = tally.peak_heap_bytes.max(usage.heap_bytes);
        Some((path, json(tally, pid, heap.options(), &usage)))
    });
    heap.unlock();
    if let Some((path, text)) = written {
        let _ = std::fs::write(path, text);
    }
}

fn json(
    tally: &mut Tally,
    pid: c_int,
    options: &heapwright::Options,
    usage: &heapwright::Usage,
) -> String {
    let mut out = String::with_capacity(1024);
    let program = std::env::current_exe()
        .map(|p| p.to_string_lossy().into_owned())
        .unwrap_or_default();
    let pauses: &mut [u64] = tally
        .pauses
        .as_mut()
        .map_or(&mut [], MappedVec::as_mut_slice);
    pauses.sort_unstable();
    let _ = write!(
        out,
        "{{\"version\":1,\"pid\":{pid},\"program\":{},\"plan\":{}",
        quoted(&program),
        quoted(options.plan.name())
    );
    let _ = write!(
        out,
        ",\"workers\":{},\"collections\":{},\"causes\":{{",
        options.most_workers(),
        tally.collections
    );
    for (i, cause) in Cause::ALL.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(
            out,
            "{comma}{}:{}",
            quoted(cause.name()),
            tally.causes[cause.index()]
        );
    }
    let _ = write!(
        out,
        "}},\"pause_ns\":{{\"total\":{},\"min\":{},\"p50\":{},\"p95\":{},\"max\":{}}}",
        tally.pause_total_ns,
        tally.pause_min_ns,
        percentile(pauses, 50),
        percentile(pauses, 95),
        tally.pause_max_ns
    );
    let _ = write!(
        out,
        ",\"peak_heap_bytes\":{},\"heap_bytes\":{},\"allocated_bytes\":{},\"live_bytes\":{},\"peak_resident_bytes\":{}",
        tally.peak_heap_bytes,
        usage.heap_bytes,
        usage.allocated_total,
        usage.live_bytes,
        limits::peak_resident_bytes()
    );
    let _ = write!(
        out,
        ",\"violations\":{},\"gc_cpu_ns\":{},\"cpu_ns\":{},\"option_error\":{}}}",
        tally.violations,
        tally.cpu_ns,
        clock::process_cpu_ns(),
        tally
            .option_error
            .as_deref()
            .map_or_else(|| String::from("null"), quoted)
    );
    out.push('\n');
    out
}

/// The smallest value that `percent` of the sorted values do not exceed; 0 if there are none.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    line::quote(text, |part| {
        let _ = out.write_fmt(part);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        assert_eq!(percentile(&[], 50), 0);
        assert_eq!(percentile(&[7], 50), 7);
        assert_eq!(percentile(&[1, 2, 3, 4], 50), 2);
        assert_eq!(percentile(&[1, 2, 3, 4], 95), 4);
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 95), 95);
    }

    #[test]
    fn a_full_disk_leaves_errno_alone() {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("a device of every Linux");
        // SAFETY: this thread's errno.
        unsafe { *libc::__errno_location() = 77 };
        let stats = CollectionStats::default();
        send(
            std::os::fd::AsRawFd::as_raw_fd(&file),
            &mut log::line(&stats, Form::ALL, 0, 0),
        );
        // SAFETY: as above.
        assert_eq!(unsafe { *libc::__errno_location() }, 77);
    }

    #[test]
    fn strings_are_quoted() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
    }

    #[test]
    fn statistics_are_one_object() {
        let mut tally = Tally {
            collections: 2,
            option_error: Some(String::from("no")),
            ..Tally::default()
        };
        let text = json(
            &mut tally,
            12,
            &heapwright::Options::default(),
            &heapwright::Usage::default(),
        );
        assert!(text.starts_with("{\"version\":1,\"pid\":12,"));
        assert!(text.contains("\"causes\":{\"budget\":0,\"limit\":0,"));
        assert!(text.ends_with("\"option_error\":\"no\"}\n"));
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
