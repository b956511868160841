//! What a run leaves behind: its pauses, what it used of the machine, and the line that says so.

use core::fmt::Write;
use heapwright_bench::workload::{Outcome, Settings};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A pause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    /// How long.
    pub time: Duration,
    /// A collection ended with it. (A concurrent one has a pause before that.)
    pub ends: bool,
    /// That collection looked at the whole heap.
    pub full: bool,
}

static PAUSES: Mutex<Vec<Pause>> = Mutex::new(Vec::new());

/// Notes a pause.
pub(crate) fn pause(pause: Pause) {
    PAUSES.lock().unwrap_or_else(|e| e.into_inner()).push(pause);
}

/// All pauses so far, in their order.
pub(crate) fn pauses() -> Vec<Pause> {
    PAUSES.lock().unwrap_or_else(|e| e.into_inner()).clone()
}

/// The clock and what the process used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    clock: Instant,
    user: f64,
    system: f64,
}

impl Reading {
    /// Now.
    pub(crate) fn now() -> Self {
        // SAFETY: all zeros is a valid value of that type.
        let mut used: libc::rusage = unsafe { core::mem::zeroed() };
        // SAFETY: it points to a value of the right type.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut used) };
        let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
        Self {
            clock: Instant::now(),
            user: seconds(used.ru_utime),
            system: seconds(used.ru_stime),
        }
    }
}

/// The most memory that the process had resident, in bytes. Not `ru_maxrss`, which starts at that of the process that
/// started this one.
fn peak_rss() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
            line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map_or(0, |kib| kib * 1024)
}

/// A run, for its line.
#[derive(Clone, Debug)]
pub(crate) struct Line<'a> {
    /// The workload's name.
    pub workload: &'a str,
    /// The peer's name.
    pub peer: &'a str,
    /// The heap's limit.
    pub heap_bytes: usize,
    /// Threads that collect.
    pub workers: usize,
    /// What the workload was told.
    pub settings: Settings,
    /// `ok`, `out-of-memory` or `failed`.
    pub status: &'a str,
    /// Why it did not end well.
    pub why: Option<String>,
    /// When the workload started.
    pub from: Reading,
    /// The workload's answer, if it came to an end.
    pub outcome: Option<Outcome>,
}

impl Line<'_> {
    /// The line, as JSON.
    #[must_use]
    pub(crate) fn json(&self) -> String {
        let to = Reading::now();
        let pauses = pauses();
        let full: Vec<f64> = pauses
            .iter()
            .filter(|p| p.full && p.ends)
            .map(|p| p.time.as_secs_f64())
            .collect();
        let mut sorted: Vec<f64> = pauses.iter().map(|p| p.time.as_secs_f64() * 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (sorted.len() as f64 * share).ceil() as usize;
            sorted
                .get(rank.max(1) - 1)
                .map_or("null".into(), |ms| format!("{ms:.6}"))
        };
        let outcome = self.outcome.clone().unwrap_or_default();
        // Of the last three, where there are so many: the first one finds everything in a nursery.
        let mut last = full
            .get(full.len().saturating_sub(3)..)
            .unwrap_or_default()
            .to_vec();
        last.sort_by(f64::total_cmp);
        let trace = last
            .get(last.len() / 2)
            .filter(|_| outcome.traced_objects > 0)
            .map_or("null".into(), |s| {
                format!("{:.3}", s * 1e9 / outcome.traced_objects as f64)
            });
        let operations = outcome
            .operation_ns
            .map_or("null".into(), |[p50, p99, p999, max]| {
                format!(r#"{{"p50": {p50}, "p99": {p99}, "p999": {p999}, "max": {max}}}"#)
            });
        let mut json = String::new();
        // Writing to a string cannot fail.
        let _ = write!(
            json,
            concat!(
                r#"{{"workload": {}, "plan": {}, "heap_bytes": {}, "workers": {}, "mutators": {}, "scale": {}, "seed": {}, "status": {}, "why": {}, "#,
                r#""wall_s": {:.6}, "user_s": {:.6}, "sys_s": {:.6}, "gc_s": {:.6}, "collections": {}, "full_collections": {}, "#,
                r#""pause_ms": {{"min": {}, "p50": {}, "p95": {}, "p99": {}, "max": {}}}, "allocated_bytes": {}, "#,
                r#""peak_rss_bytes": {}, "checksum": "{:016x}", "traced_objects": {}, "trace_ns_per_object": {}, "operation_ns": {}}}"#
            ),
            quoted(self.workload),
            quoted(self.peer),
            self.heap_bytes,
            self.workers,
            self.settings.mutators,
            self.settings.scale,
            self.settings.seed,
            quoted(self.status),
            self.why.as_deref().map_or("null".into(), quoted),
            to.clock.duration_since(self.from.clock).as_secs_f64(),
            to.user - self.from.user,
            to.system - self.from.system,
            pauses
                .iter()
                .map(|p| p.time)
                .sum::<Duration>()
                .as_secs_f64(),
            pauses.iter().filter(|p| p.ends).count(),
            full.len(),
            at(0.0),
            at(0.5),
            at(0.95),
            at(0.99),
            at(1.0),
            outcome.allocated_bytes,
            peak_rss(),
            outcome.checksum,
            outcome.traced_objects,
            trace,
            operations,
        );
        json
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
