//! The runs of one plan, with a workload and a heap, put together: medians.

use super::record::{Record, Verdict, median};

/// What a row of the table says.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) plan: &'static str,
    pub(crate) end: End,
}

/// The medians, or why there are none.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Well(Medians),
    Badly(String),
}

/// Medians over runs that all ended well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Medians {
    pub(crate) wall_s: f64,
    pub(crate) cpu_s: f64,
    pub(crate) mutator_s: f64,
    pub(crate) gc_s: f64,
    pub(crate) collections: f64,
    pub(crate) full_collections: f64,
    /// Median, 99th percentile and the longest.
    pub(crate) pause_ms: [Option<f64>; 3],
    pub(crate) peak_bytes: f64,
    pub(crate) trace_ns: Option<f64>,
    /// 50th, 99th and 99.9th percentile and the longest.
    pub(crate) operation_ns: [Option<f64>; 4],
}

impl Summary {
    /// Of the runs of one plan; there is at least one.
    pub(crate) fn of(runs: &[&Record]) -> Option<Self> {
        let worst = runs.iter().max_by_key(|r| r.status)?;
        let end = if worst.status == Verdict::Ok {
            End::Well(Medians::of(runs)?)
        } else {
            End::Badly(complaint(runs, worst))
        };
        Some(Self {
            plan: worst.plan,
            end,
        })
    }

    pub(crate) fn medians(&self) -> Option<&Medians> {
        match &self.end {
            End::Well(medians) => Some(medians),
            End::Badly(_) => None,
        }
    }
}

fn complaint(runs: &[&Record], worst: &Record) -> String {
    let mut text = worst.status.to_string();
    let as_bad = runs.iter().filter(|r| r.status == worst.status).count();
    if as_bad < runs.len() {
        text += &format!(" in {as_bad} of {} runs", runs.len());
    }
    match &worst.why {
        Some(why) if worst.status != Verdict::OutOfMemory => text + ": " + why,
        _ => text,
    }
}

impl Medians {
    #[allow(
        clippy::cast_precision_loss,
        reason = "counts and sizes are far below 2^52"
    )]
    fn of(runs: &[&Record]) -> Option<Self> {
        let some = |value: &dyn Fn(&Record) -> Option<f64>| {
            median(runs.iter().filter_map(|r| value(r)).collect())
        };
        let operation = |value: &dyn Fn(&super::record::Operation) -> u64| {
            some(&|r| r.operation_ns.as_ref().map(|o| value(o) as f64))
        };
        Some(Self {
            wall_s: some(&|r| Some(r.wall_s))?,
            cpu_s: some(&|r| Some(r.user_s + r.sys_s))?,
            mutator_s: some(&|r| Some((r.wall_s - r.gc_s).max(0.0)))?,
            gc_s: some(&|r| Some(r.gc_s))?,
            collections: some(&|r| Some(r.collections as f64))?,
            full_collections: some(&|r| Some(r.full_collections as f64))?,
            pause_ms: [
                some(&|r| r.pause_ms.p50),
                some(&|r| r.pause_ms.p99),
                some(&|r| r.pause_ms.max),
            ],
            peak_bytes: some(&|r| Some(r.peak_rss_bytes as f64))?,
            trace_ns: some(&|r| r.trace_ns_per_object),
            operation_ns: [
                operation(&|o| o.p50),
                operation(&|o| o.p99),
                operation(&|o| o.p999),
                operation(&|o| o.max),
            ],
        })
    }
}
