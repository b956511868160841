//! What a comparison consists of, as its raw data have it.

use crate::bench::record::{Majority, Verdict};
use heapwright_bench::spec::Report;
use serde::{Deserialize, Serialize};

/// A whole comparison.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// When it began, UTC.
    pub(crate) date: String,
    /// The command line that made it.
    pub(crate) command: String,
    /// Of this command.
    pub(crate) version: String,
    pub(crate) machine: Machine,
    pub(crate) runs: u16,
    pub(crate) workers: usize,
    pub(crate) seed: u64,
    /// Minutes that it took.
    pub(crate) minutes: f64,
    pub(crate) cells: Vec<Cell>,
}

/// What it ran on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) system: String,
    /// One-minute load average when it began: other work on the machine makes all figures worse.
    pub(crate) load: f64,
}

/// One workload in one heap.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) workload: String,
    pub(crate) scale: f64,
    pub(crate) mutators: usize,
    /// As it was asked for, like `2x`.
    pub(crate) heap: String,
    pub(crate) heap_bytes: usize,
    pub(crate) smallest_heap_bytes: Option<usize>,
    pub(crate) runs: Vec<Run>,
}

/// One run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) contestant: String,
    pub(crate) turn: u16,
    pub(crate) status: Verdict,
    pub(crate) why: Option<String>,
    pub(crate) wall_s: f64,
    /// Of all threads, in user mode and in the kernel.
    pub(crate) cpu_s: f64,
    /// In pauses.
    pub(crate) gc_s: f64,
    pub(crate) collections: u64,
    pub(crate) longest_pause_ms: Option<f64>,
    pub(crate) peak_rss_bytes: u64,
    pub(crate) checksum: String,
}

/// The line that a peer writes, as far as it is used here.
#[derive(Debug, Deserialize)]
struct PeerLine {
    status: Verdict,
    why: Option<String>,
    wall_s: f64,
    user_s: f64,
    sys_s: f64,
    gc_s: f64,
    collections: u64,
    pause_ms: PeerPauses,
    peak_rss_bytes: u64,
    checksum: String,
}

#[derive(Debug, Deserialize)]
struct PeerPauses {
    max: Option<f64>,
}

impl Run {
    /// A run of a plan of ours.
    pub(crate) fn ours(contestant: &str, turn: u16, report: Report) -> Self {
        Self {
            contestant: contestant.to_owned(),
            turn,
            status: report.status.into(),
            why: report.why,
            wall_s: report.wall_s,
            cpu_s: report.user_s + report.sys_s,
            gc_s: report.gc_s,
            collections: report.collections,
            longest_pause_ms: report.pauses_ms.into_iter().max_by(f64::total_cmp),
            peak_rss_bytes: report.peak_rss_bytes,
            checksum: format!("{:016x}", report.checksum),
        }
    }

    /// A run of a peer, from its line, or from why there is none.
    pub(crate) fn peer(contestant: &str, turn: u16, line: Result<&str, String>) -> Self {
        let read = line.and_then(|text| {
            serde_json::from_str::<PeerLine>(text)
                .map_err(|e| format!("its line cannot be read: {e}"))
        });
        let base = Self {
            contestant: contestant.to_owned(),
            turn,
            ..Self::default()
        };
        match read {
            Ok(line) => Self {
                status: line.status,
                why: line.why,
                wall_s: line.wall_s,
                cpu_s: line.user_s + line.sys_s,
                gc_s: line.gc_s,
                collections: line.collections,
                longest_pause_ms: line.pause_ms.max,
                peak_rss_bytes: line.peak_rss_bytes,
                checksum: line.checksum,
                ..base
            },
            Err(why) => Self {
                status: Verdict::Failed,
                why: Some(why),
                ..base
            },
        }
    }
}

impl Cell {
    /// Runs must agree on the workload's answer, as those of `heapwright bench` must.
    pub(crate) fn judge(&mut self) {
        let ended = |r: &&Run| r.status == Verdict::Ok;
        let sums: Vec<&str> = self
            .runs
            .iter()
            .filter(ended)
            .map(|r| r.checksum.as_str())
            .collect();
        let Some(majority) = Majority::of(sums) else {
            return;
        };
        let verdicts: Vec<Option<String>> = self
            .runs
            .iter()
            .map(|r| majority.against(&r.checksum.as_str()).filter(|_| ended(&r)))
            .collect();
        for (run, why) in self.runs.iter_mut().zip(verdicts) {
            if why.is_some() {
                run.status = Verdict::Wrong;
                run.why = why;
            }
        }
    }

    /// The names of those who ran, each once, in order.
    pub(crate) fn contestants(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for run in &self.runs {
            if !names.contains(&run.contestant.as_str()) {
                names.push(&run.contestant);
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const LINE: &str = r#"{"workload": "graph", "plan": "mmtk-immix", "status": "ok", "why": null, "wall_s": 2.0,
        "user_s": 1.5, "sys_s": 0.25, "gc_s": 0.5, "collections": 7, "full_collections": 7, "pause_ms": {"min": 1.0, "p50": 2.0,
        "p95": 3.0, "p99": 3.0, "max": 3.5}, "allocated_bytes": 1, "peak_rss_bytes": 4096, "checksum": "00ff", "x": 1}"#;

    #[test]
    fn a_peers_line_is_read_and_a_broken_one_is_a_failure() {
        let run = Run::peer("mmtk-immix", 2, Ok(LINE));
        assert_eq!(run.status, Verdict::Ok);
        assert_eq!((run.cpu_s, run.longest_pause_ms), (1.75, Some(3.5)));
        let broken = Run::peer("mmtk-immix", 2, Ok("{\"status\": \"ok\""));
        assert_eq!(broken.status, Verdict::Failed);
        assert!(broken.why.unwrap().contains("cannot be read"));
        let none = Run::peer("boehm", 1, Err("ended by signal 11".to_owned()));
        assert_eq!(none.why.unwrap(), "ended by signal 11");
    }

    #[test]
    fn the_minority_is_wrong() {
        let run = |sum: &str| Run {
            checksum: sum.to_owned(),
            ..Run::default()
        };
        let mut cell = Cell {
            runs: vec![run("a"), run("b"), run("a")],
            ..Cell::default()
        };
        cell.judge();
        let verdicts: Vec<Verdict> = cell.runs.iter().map(|r| r.status).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Wrong, Verdict::Ok]);
        // Of two that differ nobody knows which is right.
        let mut two = Cell {
            runs: vec![run("a"), run("b")],
            ..Cell::default()
        };
        two.judge();
        assert!(two.runs.iter().all(|r| r.status == Verdict::Wrong));
    }
}
