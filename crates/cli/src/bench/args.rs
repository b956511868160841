//! The command line of `heapwright bench`, and what it asks for.

use super::observe::Wanted;
use super::request::{Heap, Load, Request, TOUR, find_plan, find_workload};
use crate::dump;
use crate::listen::Listen;
use crate::profile::ProfileArgs;
use crate::refusal::Refusal;
use clap::{Args, ValueEnum};
use heapwright::plan;
use heapwright_bench::workload;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// The text under `heapwright bench --help`.
fn help() -> String {
    let width = workload::ALL.iter().map(|w| w.name.len()).max();
    let workloads: String = workload::ALL
        .iter()
        .map(|w| format!("  {:1$}  {2}\n", w.name, width.unwrap_or(0), w.about))
        .collect();
    let tour: Vec<&str> = TOUR.iter().map(|(name, _)| *name).collect();
    let plans: Vec<&str> = plan::ALL.iter().map(|p| p.name).collect();
    format!(
        "\
Workloads (without any: {} at a reduced scale):
{workloads}
Plans (`heapwright plans` says what they are): {}

3x is three times the smallest heap in which the workload lives under marksweep. It is found by trying, which takes \
some ten runs, and remembered in the cache directory ($XDG_CACHE_HOME or ~/.cache).

Each run has a process of its own. The workload computes a checksum over what it has in the heap: a run whose checksum \
is not that of the others is reported as wrong. The collector's time is the time in pauses, the mutator's the rest.

Exit status: 0: all ran (not to fit into the heap is a result, too); 1: a run failed or was wrong; 2: a wrong option; \
125: the results could not be written.

Examples:
  heapwright bench                                    a tour of all plans, in two minutes
  heapwright bench gcbench --plan marksweep,semispace two plans, one workload at full size
  heapwright bench graph --heap 1.5x,2x,4x            with less and with more room
  heapwright bench lru --heap 64m --mutators 4        a heap of 64 MiB, four threads
  heapwright bench all --scale 0.01 --verify          small, and checked at each collection
  heapwright bench churn --iterations 5 --json        five runs of each plan, as JSON
  heapwright bench --heap 1.5x,2x,4x --report out.html the tour as a page with charts
  heapwright bench lru --plan immix --trace out.json  a timeline of one run
  heapwright bench lru --plan immix --listen          and `heapwright top` while it runs
  heapwright bench gcbench --plan immix --heap 256m --dump heap.hprof
                                                      what is in the heap at the end
  heapwright bench strings --plan immix --profile out.pb.gz
                                                      where it allocates, for `go tool pprof`",
        tour.join(", "),
        plans.join(", ")
    )
}

/// Where plans keep what they know about an object.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Metadata {
    Header,
    #[default]
    Side,
}

#[derive(Args, Debug)]
#[command(after_help = help())]
pub(crate) struct Bench {
    /// What to run, or `all`
    #[arg(value_name = "WORKLOAD", value_delimiter = ',')]
    workloads: Vec<String>,
    /// On which plans
    #[arg(
        long,
        value_name = "PLAN,...|all",
        value_delimiter = ',',
        default_value = "all"
    )]
    plan: Vec<String>,
    /// In how large heaps: sizes like 64m, or times the smallest possible like 1.5x; 0: without a limit
    #[arg(
        long,
        value_name = "SIZE|Nx,...",
        value_delimiter = ',',
        default_value = "3x"
    )]
    heap: Vec<String>,
    /// Threads that collect [default: the processors, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
    /// Threads that run the workload, where it can have several
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    mutators: u16,
    /// Runs of each; the table shows medians
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1000))]
    iterations: u16,
    /// Multiplies the amount of work [default: 1; for the tour, less]
    #[arg(long, value_name = "F", value_parser = scale)]
    scale: Option<f64>,
    /// Seed of what is random in a workload
    #[arg(long, value_name = "S", default_value = "1")]
    seed: u64,
    /// Check the whole heap after each collection (slow)
    #[arg(long)]
    verify: bool,
    /// Where plans keep what they know about an object: in its header, or in a table at the side
    #[arg(long, value_name = "WHERE", value_enum, default_value = "side")]
    metadata: Metadata,
    /// A run that takes longer has failed
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = clap::value_parser!(u32).range(1..))]
    timeout: u32,
    /// At the end of the workload, or when its memory runs out, write all that lives in the heap to FILE: .hprof for Eclipse MAT and
    /// VisualVM, .heapsnapshot for Chrome's DevTools. For one workload on one plan in one heap; the dump's time counts
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    /// Make a page with charts of all runs, as one HTML file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write a timeline for ui.perfetto.dev and chrome://tracing, as JSON; of a single run
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Keep recordings of the runs there, for `heapwright report`: WORKLOAD-PLAN-HEAP.jsonl
    #[arg(long, value_name = "DIRECTORY")]
    record: Option<PathBuf>,
    /// One line for each collection, on stderr or appended to a file: FILE, or gc[,phases][,json][=FILE]
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "stderr")]
    log: Option<String>,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    pub(super) profile: ProfileArgs,
    /// One line of JSON for each run instead of the table
    #[arg(long)]
    json: bool,
}

/// One run, for the process that carries it out.
#[derive(Args, Debug)]
pub(crate) struct Child {
    /// What to run, as JSON
    #[arg(value_name = "SPEC")]
    pub(crate) spec: String,
}

impl Bench {
    /// What is asked for, with all names looked up.
    pub(crate) fn request(&self) -> Result<Request, Refusal> {
        let mut plans = Vec::new();
        for name in &self.plan {
            let found = match name.as_str() {
                "all" => plan::ALL.iter().collect(),
                name => vec![find_plan(name)?],
            };
            plans.extend(found);
        }
        let mut heaps = Vec::new();
        for heap in &self.heap {
            heaps.push(heap.parse::<Heap>().map_err(Refusal::usage)?);
        }
        let default = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let request = Request {
            loads: self.loads()?,
            plans: unique(plans, |a, b| a.name == b.name),
            heaps: unique(heaps, PartialEq::eq),
            dump: self.dump.clone(),
            workers: self.workers.map_or_else(|| default().min(4), usize::from),
            iterations: self.iterations,
            seed: self.seed,
            verify: self.verify,
            metadata: self.metadata,
            timeout: Duration::from_secs(self.timeout.into()),
            json: self.json,
            wanted: Wanted {
                report: self.report.clone(),
                trace: self.trace.clone(),
                record: self.record.clone(),
                log: self.log.clone(),
                listen: self.listen.value()?.map(PathBuf::from),
            },
        };
        if let Some(file) = &request.dump {
            dump::check_run(file, request.runs())?;
        }
        Ok(request)
    }

    fn loads(&self) -> Result<Vec<Load>, Refusal> {
        let mutators = usize::from(self.mutators);
        if self.workloads.is_empty() {
            return TOUR
                .iter()
                .map(|(name, scale)| {
                    let scale = self.scale.unwrap_or(*scale);
                    find_workload(name).map(|info| Load::new(info, scale, mutators))
                })
                .collect();
        }
        let mut found = Vec::new();
        for name in &self.workloads {
            match name.as_str() {
                "all" => found.extend(workload::ALL),
                name => found.push(find_workload(name)?),
            }
        }
        let scale = self.scale.unwrap_or(1.0);
        Ok(unique(found, |a, b| a.name == b.name)
            .into_iter()
            .map(|info| Load::new(info, scale, mutators))
            .collect())
    }
}

/// The list without what is in it twice.
pub(crate) fn unique<T>(list: Vec<T>, same: impl Fn(&T, &T) -> bool) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for new in list {
        if !kept.iter().any(|old| same(old, &new)) {
            kept.push(new);
        }
    }
    kept
}

pub(crate) fn scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(f) if f > 0.0 && f <= 1e6 => Ok(f),
        _ => Err("a number above 0 is wanted, like 0.1".to_owned()),
    }
}
