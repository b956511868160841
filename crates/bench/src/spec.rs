//! What to run and what came of it: the words between the command and the process that it starts for each run.

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;

/// One run.
///
/// ```
/// use heapwright_bench::spec::{Spec, Status};
///
/// let spec = Spec {
///     scale: 0.001,
///     verify: true,
///     ..Spec::new("gcbench", "genimmix", 16 << 20)
/// };
/// let report = heapwright_bench::run(&spec);
/// assert_eq!((report.status, report.violations), (Status::Ok, 0));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The workload's name.
    pub workload: String,
    /// The plan's name.
    pub plan: String,
    /// The heap's limit in bytes; 0: none.
    pub heap_bytes: usize,
    /// Threads that collect.
    pub workers: usize,
    /// Threads that run the workload, where it has several.
    pub mutators: usize,
    /// Multiplies the amount of work.
    pub scale: f64,
    /// Seed of what is random.
    pub seed: u64,
    /// How often the workload runs in this process. The command says 1 and starts a process for each repetition.
    pub iterations: usize,
    /// The heap is checked after each collection.
    pub verify: bool,
    /// What the plan knows about an object stands in the object's header, not in a side table.
    pub header: bool,
    /// Shadow stacks are reported as words that may be references.
    #[serde(default)]
    pub ambiguous: bool,
    /// Collect at every nth allocation; 0: never.
    #[serde(default)]
    pub stress: usize,
    /// The nursery of plans that have one, in bytes; 0: the plan decides.
    #[serde(default)]
    pub nursery_bytes: usize,
    /// The size of an object in bytes, for workloads that can have it chosen; 0: their own.
    pub object_bytes: usize,
    /// Where a heap dump is to be written, of the end of the workload or of the moment when memory runs out.
    #[serde(default)]
    pub dump: Option<PathBuf>,
    /// The file that all that the heap does is recorded in.
    #[serde(default)]
    pub record: Option<PathBuf>,
    /// What the log line is to look like and where it goes, as `HEAPWRIGHT_LOG` says it.
    #[serde(default)]
    pub log: Option<String>,
    /// The path of a socket at which the run answers, or 1 for the usual one.
    #[serde(default)]
    pub listen: Option<PathBuf>,
    /// Further options of the heap: names and values.
    #[serde(default)]
    pub options: Vec<(String, String)>,
    /// Where samples of allocations go, as the variable `HEAPWRIGHT_PROFILE` says it.
    #[serde(default)]
    pub profile: Option<OsString>,
}

impl Spec {
    /// One run with one worker and one thread, at full size, and nothing out of the ordinary. `heap_bytes`: 0 for no limit.
    #[must_use]
    pub fn new(workload: &str, plan: &str, heap_bytes: usize) -> Self {
        Self {
            workload: workload.to_owned(),
            plan: plan.to_owned(),
            heap_bytes,
            workers: 1,
            mutators: 1,
            scale: 1.0,
            seed: 1,
            iterations: 1,
            verify: false,
            header: false,
            ambiguous: false,
            stress: 0,
            nursery_bytes: 0,
            object_bytes: 0,
            dump: None,
            record: None,
            listen: None,
            log: None,
            options: Vec::new(),
            profile: None,
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The workload came to its end.
    #[default]
    Ok,
    /// It did not fit into the heap.
    OutOfMemory,
    /// The plan cannot do what was asked.
    Refused,
    /// Anything else.
    Failed,
}

/// A heap dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dumped {
    /// Objects in it.
    pub objects: u64,
    /// Their bytes in the heap.
    pub object_bytes: u64,
    /// References between them.
    pub references: u64,
    /// The file's bytes.
    pub file_bytes: u64,
    /// Milliseconds that it took, with the world stopped.
    pub took_ms: f64,
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How it ended.
    pub status: Status,
    /// Why it did not end well.
    pub why: Option<String>,
    /// Seconds from the workload's start to its end.
    pub wall_s: f64,
    /// Seconds of processor time in user mode, of all threads.
    pub user_s: f64,
    /// Seconds of processor time in the kernel, of all threads.
    pub sys_s: f64,
    /// Seconds in pauses.
    pub gc_s: f64,
    /// Collections.
    pub collections: u64,
    /// Those of them that looked at the whole heap.
    pub full_collections: u64,
    /// Each pause in milliseconds, in the order in which they happened.
    pub pauses_ms: Vec<f64>,
    /// Bytes that the workload asked for.
    pub allocated_bytes: u64,
    /// The most memory that the process had resident, in bytes.
    pub peak_rss_bytes: u64,
    /// The workload's answer.
    pub checksum: u64,
    /// Objects that the last full collection traced, where the workload counts them. The last pause is that collection's.
    pub traced_objects: u64,
    /// Nanoseconds of the 50th, 99th and 99.9th percentile of an operation and of the slowest one, where they are timed.
    pub operation_ns: Option<[u64; 4]>,
    /// What the verifier found.
    pub violations: u64,
    /// The heap dump that was asked for.
    #[serde(default)]
    pub dump: Option<Dumped>,
}

impl Report {
    /// The report of a run that has nothing to report but its end.
    #[must_use]
    pub fn ended(status: Status, why: impl Into<String>) -> Self {
        Self {
            status,
            why: Some(why.into()),
            ..Self::default()
        }
    }
}
