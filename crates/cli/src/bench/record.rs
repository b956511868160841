//! What is known of a run, as one line of JSON has it.

use super::args::Metadata;
use super::request::{Heap, Load, Request};
use heapwright::plan::PlanInfo;
use heapwright_bench::spec::{Dumped, Report, Status};
use serde::{Serialize, Serializer};
use std::fmt;

/// How a run ended, as the command sees it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    #[default]
    Ok,
    Refused,
    OutOfMemory,
    Failed,
    /// Its checksum is not that of the others.
    Wrong,
}

impl Verdict {
    /// Does the command fail because of it?
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Wrong)
    }
}

impl From<Status> for Verdict {
    fn from(status: Status) -> Self {
        match status {
            Status::Ok => Self::Ok,
            Status::OutOfMemory => Self::OutOfMemory,
            Status::Refused => Self::Refused,
            Status::Failed => Self::Failed,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::OutOfMemory => "out of memory",
            Self::Failed => "FAILED",
            Self::Wrong => "WRONG",
        })
    }
}

/// A heap whose size in bytes is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sized {
    pub(crate) heap: Heap,
    pub(crate) bytes: usize,
    /// The smallest in which the workload lives, if it was asked for.
    pub(crate) smallest: Option<usize>,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) workload: &'static str,
    pub(crate) plan: &'static str,
    pub(crate) heap: String,
    heap_bytes: usize,
    smallest_heap_bytes: Option<usize>,
    workers: usize,
    mutators: usize,
    iteration: u16,
    scale: f64,
    seed: u64,
    metadata: &'static str,
    verify: bool,
    pub(crate) status: Verdict,
    pub(crate) why: Option<String>,
    pub(crate) wall_s: f64,
    pub(crate) user_s: f64,
    pub(crate) sys_s: f64,
    pub(crate) gc_s: f64,
    pub(crate) collections: u64,
    pub(crate) full_collections: u64,
    pub(crate) pause_ms: Pauses,
    allocated_bytes: u64,
    pub(crate) peak_rss_bytes: u64,
    /// In hexadecimal: not every reader of JSON has integers of 64 bits.
    #[serde(serialize_with = "hexadecimal")]
    pub(crate) checksum: u64,
    violations: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_ns_per_object: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dump: Option<Dumped>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operation_ns: Option<Operation>,
}

/// Of all pauses of a run; nothing where there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Pauses {
    min: Option<f64>,
    pub(crate) p50: Option<f64>,
    p95: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// How long an operation of the workload took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Operation {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn hexadecimal<S: Serializer>(n: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{n:016x}"))
}

impl Record {
    pub(crate) fn new(
        request: &Request,
        load: &Load,
        plan: &'static PlanInfo,
        heap: &Sized,
        iteration: u16,
        report: Report,
    ) -> Self {
        Self {
            workload: load.info.name,
            plan: plan.name,
            heap: heap.heap.to_string(),
            heap_bytes: heap.bytes,
            smallest_heap_bytes: heap.smallest,
            workers: request.workers,
            dump: report.dump,
            mutators: load.mutators,
            iteration,
            scale: load.scale,
            seed: request.seed,
            metadata: match request.metadata {
                Metadata::Header => "header",
                Metadata::Side => "side",
            },
            verify: request.verify,
            status: report.status.into(),
            // The last pause of a plan that marks while the program runs has little of the tracing.
            trace_ns_per_object: trace_ns(&report).filter(|_| !plan.concurrent),
            why: report.why,
            wall_s: report.wall_s,
            user_s: report.user_s,
            sys_s: report.sys_s,
            gc_s: report.gc_s,
            collections: report.collections,
            full_collections: report.full_collections,
            pause_ms: Pauses::of(report.pauses_ms),
            allocated_bytes: report.allocated_bytes,
            peak_rss_bytes: report.peak_rss_bytes,
            checksum: report.checksum,
            violations: report.violations,
            operation_ns: report.operation_ns.map(|[p50, p99, p999, max]| Operation {
                p50,
                p99,
                p999,
                max,
            }),
        }
    }
}

/// The workload ends with a full collection whose objects it counts.
#[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 objects")]
fn trace_ns(report: &Report) -> Option<f64> {
    let last = report
        .pauses_ms
        .last()
        .filter(|_| report.traced_objects > 0);
    last.map(|ms| ms * 1e6 / report.traced_objects as f64)
}

impl Pauses {
    fn of(mut pauses: Vec<f64>) -> Self {
        pauses.sort_by(f64::total_cmp);
        let part = |percent| percentile(&pauses, percent);
        Self {
            min: part(0),
            p50: part(50),
            p95: part(95),
            p99: part(99),
            max: part(100),
        }
    }
}

/// The least value that so many percent of the sorted list do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The middle of the list, or the mean of the two in the middle.
pub(crate) fn median(mut list: Vec<f64>) -> Option<f64> {
    list.sort_by(f64::total_cmp);
    let high = *list.get(list.len() / 2)?;
    let low = *list.get(list.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(low, high))
}

/// The checksum that most runs have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Majority<T> {
    right: T,
    /// Another one has as many: nobody knows who is right.
    contested: bool,
}

impl<T: Ord + Copy> Majority<T> {
    /// Of the checksums of the runs that came to their end; nothing of none.
    pub(crate) fn of(mut sums: Vec<T>) -> Option<Self> {
        sums.sort_unstable();
        let mut counts: Vec<(usize, T)> = sums
            .chunk_by(|a, b| a == b)
            .filter_map(|same| Some((same.len(), *same.first()?)))
            .collect();
        counts.sort_unstable();
        let (most, right) = counts.pop()?;
        let contested = counts.last().is_some_and(|(n, _)| *n == most);
        Some(Self { right, contested })
    }
}

impl<T: Ord + fmt::Display> Majority<T> {
    /// Why a run with this checksum is wrong, if it is.
    pub(crate) fn against(&self, sum: &T) -> Option<String> {
        if self.contested {
            Some(format!("checksum {sum}, and the runs do not agree on any"))
        } else if *sum != self.right {
            Some(format!("checksum {sum}, and {} with most", self.right))
        } else {
            None
        }
    }
}

/// A checksum as people read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sum(u64);

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Runs of one workload must agree: where most have one checksum, the others are wrong; where no checksum has most, all are.
pub(crate) fn judge(records: &mut [Record]) {
    let ended = |r: &&mut Record| r.status == Verdict::Ok;
    let sums = records.iter_mut().filter(ended).map(|r| Sum(r.checksum));
    let Some(majority) = Majority::of(sums.collect()) else {
        return;
    };
    for r in records.iter_mut().filter(ended) {
        if let Some(why) = majority.against(&Sum(r.checksum)) {
            r.status = Verdict::Wrong;
            r.why = Some(why);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::bench::request::find_workload;
    use heapwright::plan;
    use std::time::Duration;

    pub(crate) fn record(plan: &'static PlanInfo, report: Report) -> Record {
        let load = Load::new(find_workload("gcbench").unwrap(), 0.5, 1);
        let request = Request {
            loads: vec![load],
            plans: plan::ALL.iter().collect(),
            heaps: vec![Heap::Times(3.0)],
            workers: 2,
            iterations: 1,
            seed: 1,
            verify: false,
            metadata: Metadata::Side,
            timeout: Duration::from_secs(1),
            json: false,
            dump: None,
            wanted: super::super::observe::Wanted::default(),
        };
        let heap = Sized {
            heap: Heap::Times(3.0),
            bytes: 3 << 20,
            smallest: Some(1 << 20),
        };
        Record::new(&request, &load, plan, &heap, 1, report)
    }

    fn summed(checksum: u64) -> Record {
        let report = Report {
            checksum,
            ..Report::default()
        };
        record(&plan::ALL[0], report)
    }

    #[test]
    fn percentiles_are_values_of_the_list() {
        let list: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let p = Pauses::of(list);
        assert_eq!(
            [p.min, p.p50, p.p95, p.p99, p.max],
            [1.0, 50.0, 95.0, 99.0, 100.0].map(Some)
        );
        assert_eq!(Pauses::of(vec![7.0]).p99, Some(7.0));
        assert_eq!(Pauses::of(Vec::new()), Pauses::default());
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![1.0, 2.0]), Some(1.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn the_minority_is_wrong() {
        let verdicts = |sums: &[u64]| {
            let mut records: Vec<Record> = sums.iter().map(|s| summed(*s)).collect();
            judge(&mut records);
            records.iter().map(|r| r.status).collect::<Vec<_>>()
        };
        use Verdict::{Ok, Wrong};
        assert_eq!(verdicts(&[7, 7]), [Ok, Ok]);
        assert_eq!(verdicts(&[7, 8, 7]), [Ok, Wrong, Ok]);
        assert_eq!(verdicts(&[7, 8]), [Wrong, Wrong]);
        assert_eq!(verdicts(&[7]), [Ok]);
        let mut failed = [summed(1), summed(2), summed(2)];
        failed[0].status = Verdict::OutOfMemory;
        judge(&mut failed);
        assert_eq!(failed[0].status, Verdict::OutOfMemory);
        assert_eq!(failed[1].status, Ok);
    }

    #[test]
    fn a_line_has_all_keys() {
        let plan = plan::ALL.iter().find(|p| !p.concurrent).unwrap();
        let report = Report {
            pauses_ms: vec![1.0, 2.0],
            checksum: u64::MAX,
            traced_objects: 1000,
            operation_ns: Some([1, 2, 3, 4]),
            ..Report::default()
        };
        let line = serde_json::to_value(record(plan, report)).unwrap();
        assert_eq!(line["status"], "ok");
        assert_eq!(line["checksum"], "ffffffffffffffff");
        assert_eq!(line["trace_ns_per_object"], 2000.0);
        assert_eq!(line["operation_ns"]["p999"], 3);
        assert_eq!(line["pause_ms"]["max"], 2.0);
        assert_eq!(line["heap"], "3x");
    }
}
