//! What is said at the end: collections, pauses, peak heap, peak resident memory, time.

use crate::args::Log;
use crate::recording::Digest;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

/// A private directory in which each process that runs on our library leaves a file; gone with the value.
#[derive(Debug)]
pub(crate) struct StatsDirectory(PathBuf);

impl StatsDirectory {
    pub(crate) fn new() -> io::Result<Self> {
        let base = std::path::absolute(std::env::temp_dir())?;
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        for n in 0..100u128 {
            let dir = base.join(format!(
                "heapwright-stats-{}-{:x}",
                std::process::id(),
                since + n
            ));
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => return Ok(Self(dir)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for StatsDirectory {
    fn drop(&mut self) {
        // If it cannot be removed, it is small and in the directory for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One process's file. The library may write more; what it leaves out counts as zero.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HeapStats {
    /// The plan's name.
    plan: String,
    /// Threads that marked.
    workers: u64,
    /// Collections.
    collections: u64,
    /// Pauses of all collections.
    pause_ns: Pauses,
    /// The most memory that the heap held at once, in bytes.
    peak_heap_bytes: u64,
    /// The most memory that the process had resident, in bytes; 0 where it is not known.
    peak_resident_bytes: u64,
    /// All that was ever allocated, in bytes.
    allocated_bytes: u64,
    /// What the verifier found.
    violations: u64,
    /// What its recording comes to.
    #[serde(skip_deserializing)]
    digest: Option<Digest>,
}

/// Pauses in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Pauses {
    total: u64,
    p50: u64,
    p95: u64,
    max: u64,
}

impl HeapStats {
    fn of(digest: &Digest) -> Self {
        Self {
            plan: digest.plan.clone(),
            workers: digest.workers,
            collections: digest.collections,
            pause_ns: Pauses {
                total: digest.pause_ns.total,
                p50: digest.pause_ns.p50,
                p95: digest.pause_ns.p99,
                max: digest.pause_ns.max,
            },
            peak_heap_bytes: digest.peak_heap_bytes,
            peak_resident_bytes: digest.peak_resident_bytes,
            violations: digest.violations,
            digest: Some(digest.clone()),
            ..Self::default()
        }
    }
}

/// How the program ended and what it used.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    program: String,
    /// Its exit status, if it ended by itself.
    status: Option<i32>,
    /// The signal that ended it.
    signal: Option<i32>,
    wall_seconds: f64,
    user_seconds: f64,
    system_seconds: f64,
    /// Of the largest of its processes.
    peak_resident_bytes: u64,
    /// Of the program itself.
    heap: Option<HeapStats>,
    /// Processes that it started and that ran on our library.
    others: u64,
    others_collections: u64,
    /// Of all processes.
    violations: u64,
}

impl Outcome {
    /// Reads the files and the resource usage of the ended program.
    pub(crate) fn collect(
        dir: &StatsDirectory,
        name: &OsStr,
        pid: u32,
        status: ExitStatus,
        wall: Duration,
        digest: Option<Digest>,
    ) -> Self {
        // A process that was killed has left a recording, and nothing else.
        let mut heap = digest.as_ref().map(HeapStats::of);
        let (mut others, mut others_collections, mut violations) = (0, 0, 0);
        for file in fs::read_dir(dir.path()).into_iter().flatten().flatten() {
            let Some(stats) = fs::read(file.path())
                .ok()
                .and_then(|b| serde_json::from_slice::<HeapStats>(&b).ok())
            else {
                continue;
            };
            violations += stats.violations;
            let digest = digest.clone();
            if file.file_name().to_str() == Some(&format!("{pid}.json")) {
                heap = Some(HeapStats { digest, ..stats });
            } else {
                others += 1;
                others_collections += stats.collections;
            }
        }
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).ok();
        let seconds = |time: Option<TimeVal>| {
            time.map_or(0.0, |t| {
                Duration::from_micros(t.num_microseconds().unsigned_abs()).as_secs_f64()
            })
        };
        Self {
            program: name.to_string_lossy().into_owned(),
            status: status.code(),
            signal: status.signal(),
            wall_seconds: wall.as_secs_f64(),
            user_seconds: seconds(usage.as_ref().map(|u| u.user_time())),
            system_seconds: seconds(usage.as_ref().map(|u| u.system_time())),
            peak_resident_bytes: usage.map_or(0, |u| u.max_rss().unsigned_abs() * 1024),
            heap,
            others,
            others_collections,
            violations,
        }
    }

    /// To stderr; with a log file and no other wish, to that file.
    pub(crate) fn report(&self, json: bool, log: Option<&Log>, summary: bool) {
        // What reads the lines of a log in JSON reads the summary as well.
        let as_json = json || !summary && log.is_some_and(|l| l.json);
        let text = if as_json {
            serde_json::to_string(self).map_or_else(|e| e.to_string(), |t| t + "\n")
        } else {
            self.text()
        };
        // Nothing more can be done where neither place takes it: the program's status must still come through.
        let _ = match log {
            Some(Log {
                file: Some(file), ..
            }) if !summary && !json => OpenOptions::new()
                .append(true)
                .create(true)
                .open(file)
                .and_then(|mut f| f.write_all(text.as_bytes())),
            _ => io::stderr().write_all(text.as_bytes()),
        };
    }

    fn text(&self) -> String {
        let mut out = String::new();
        match &self.heap {
            Some(h) => {
                let workers = if h.workers == 1 {
                    "1 worker".to_owned()
                } else {
                    format!("{} workers", h.workers)
                };
                let _ = writeln!(
                    out,
                    "heapwright: {} ({}, {workers}); pauses: median {}, longest {}, {} in all",
                    count(h.collections, "collection"),
                    h.plan,
                    time(h.pause_ns.p50),
                    time(h.pause_ns.max),
                    time(h.pause_ns.total),
                );
                if let Some(digest) = h.digest.as_ref().filter(|d| d.collections > 0) {
                    out += &details(digest);
                }
                let resident = if h.peak_resident_bytes > 0 {
                    h.peak_resident_bytes
                } else {
                    self.peak_resident_bytes
                };
                let _ = write!(
                    out,
                    "heapwright: peak heap {}, peak resident memory {}; ",
                    size(h.peak_heap_bytes),
                    size(resident)
                );
            }
            None => {
                let why = match self.signal {
                    Some(signal) => format!("it was ended by signal {signal}"),
                    None => "it ended without leaving any: by _exit or another program in its place, or it never used libgc".to_owned(),
                };
                let _ = writeln!(
                    out,
                    "heapwright: no statistics of {} itself: {why}",
                    self.program
                );
                let _ = write!(
                    out,
                    "heapwright: peak resident memory {}; ",
                    size(self.peak_resident_bytes)
                );
            }
        }
        let _ = writeln!(
            out,
            "{:.2} s, CPU {:.2} s (user {:.2} s, system {:.2} s)",
            self.wall_seconds,
            self.user_seconds + self.system_seconds,
            self.user_seconds,
            self.system_seconds
        );
        if self.others > 0 {
            let _ = writeln!(
                out,
                "heapwright: {} that it started ran on this heap too, with {}",
                count(self.others, "process"),
                count(self.others_collections, "collection")
            );
        }
        if self.violations > 0 {
            let _ = writeln!(
                out,
                "heapwright: the verifier found {}",
                count(self.violations, "violation")
            );
        }
        out
    }
}

/// What the recording knows beyond the sums.
pub(crate) fn details(digest: &Digest) -> String {
    let mut out = String::new();
    let named = |counts: &std::collections::BTreeMap<String, u64>| {
        let words: Vec<String> = counts
            .iter()
            .map(|(name, n)| format!("{n} {name}"))
            .collect();
        words.join(", ")
    };
    let pauses = &digest.pause_ns;
    let _ = writeln!(
        out,
        "heapwright: {}; asked for by: {}; pauses: 90 % within {}, 99 % within {}, 99.9 % within {}",
        named(&digest.kinds),
        named(&digest.causes),
        time(pauses.p90),
        time(pauses.p99),
        time(pauses.p999)
    );
    let [one, ten, hundred] = digest.mmu.map(|part| part * 100.0);
    let _ = writeln!(
        out,
        "heapwright: the program ran at least {one:.0} % of any 1 ms, {ten:.0} % of any 10 ms, {hundred:.0} % of any 100 ms; collecting took {:.1} % of the CPU time",
        digest.gc_cpu_share * 100.0
    );
    let _ = writeln!(
        out,
        "heapwright: heap {} in the mean, {} at most; {} went back to the system",
        size(digest.mean_heap_bytes),
        size(digest.peak_heap_bytes),
        size(digest.returned_bytes)
    );
    out
}

fn count(n: u64, what: &str) -> String {
    let plural = if what.ends_with('s') { "es" } else { "s" };
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}{plural}")
    }
}

/// Nanoseconds in the unit that leaves one to four digits before the point.
fn time(ns: u64) -> String {
    let d = Duration::from_nanos(ns);
    match ns {
        0..10_000_000 => format!("{:.2} ms", d.as_secs_f64() * 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} ms", d.as_secs_f64() * 1e3),
        _ => format!("{:.1} s", d.as_secs_f64()),
    }
}

pub(crate) fn size(bytes: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", bytes / unit, bytes % unit * 10 / unit);
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes / 1024),
        0x10_0000..0x4000_0000 => format!("{} MiB", tenths(0x10_0000)),
        _ => format!("{} GiB", tenths(0x4000_0000)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_library_s_file_may_say_less_or_more() {
        let some: HeapStats =
            serde_json::from_str(r#"{"collections":3,"pause_ns":{"p50":7},"later":[1]}"#).unwrap();
        assert_eq!(
            (some.collections, some.pause_ns.p50, some.pause_ns.max),
            (3, 7, 0)
        );
    }

    #[test]
    fn reads_as_a_sentence() {
        let dir = StatsDirectory::new().unwrap();
        let file = r#"{"plan":"marksweep","workers":1,"collections":1,"pause_ns":{"total":2500000,"p50":2500000,"max":2500000},
            "peak_heap_bytes":36700160,"peak_resident_bytes":47185920}"#;
        fs::write(dir.path().join("7.json"), file).unwrap();
        fs::write(
            dir.path().join("8.json"),
            r#"{"collections":4,"violations":2}"#,
        )
        .unwrap();
        fs::write(dir.path().join("9.json"), "{").unwrap();
        let outcome = Outcome::collect(
            &dir,
            OsStr::new("x"),
            7,
            ExitStatus::from_raw(0),
            Duration::from_millis(1500),
            None,
        );
        let text = outcome.text();
        for part in [
            "1 collection (marksweep, 1 worker); pauses: median 2.50 ms, longest 2.50 ms, 2.50 ms in all",
            "peak heap 35.0 MiB, peak resident memory 45.0 MiB; 1.50 s",
            "1 process that it started ran on this heap too, with 4 collections",
            "2 violations",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        let path = dir.path().to_owned();
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn sizes_and_times_have_fitting_units() {
        assert_eq!(
            [size(5 << 10), size(3 << 19), size(5 << 29)],
            ["5 KiB", "1.5 MiB", "2.5 GiB"]
        );
        assert_eq!(
            [time(1_234_567), time(12_345_678), time(12_345_678_901)],
            ["1.23 ms", "12.3 ms", "12.3 s"]
        );
    }
}
