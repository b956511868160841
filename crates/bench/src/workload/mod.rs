//! Workloads: programs with an answer.
//!
//! Each runs on any [`Runtime`], with several threads where that makes sense, and ends with a checksum that depends on every
//! object having survived intact: the same seed and scale give the same checksum on every runtime, with every number of
//! mutators.
//!
//! [`run`] runs one of [`ALL`] by its name.

mod allocation;
mod binarytrees;
mod checksum;
mod churn;
mod fragment;
mod gcbench;
mod graph;
mod histogram;
mod large;
mod list;
mod lru;
mod random;
mod slices;
mod strings;
mod tree;
mod weak;

pub use histogram::Histogram;
pub use random::{Random, mix};

use crate::runtime::{Full, Runtime, Thread};

/// What a workload is told.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Multiplies the amount of work; 1.0 is the size of the comparison, tests use less.
    pub scale: f64,
    /// Seed of what is random.
    pub seed: u64,
    /// Threads, for workloads that have several.
    pub mutators: usize,
    /// Size of an object of `alloc`, its header of 8 bytes included.
    pub object_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            scale: 1.0,
            seed: 1,
            mutators: 1,
            object_bytes: 24,
        }
    }
}

impl Settings {
    /// `base` at scale 1, less or more at other scales, never less than `floor`.
    fn count(&self, base: usize, floor: usize) -> usize {
        ((base as f64 * self.scale) as usize).max(floor)
    }

    /// The depth of trees that have about `scale` times as many nodes as those of depth `base`.
    fn depth(&self, base: u32) -> u32 {
        let depth = f64::from(base) + self.scale.max(f64::MIN_POSITIVE).log2().round();
        depth.clamp(6.0, 40.0) as u32
    }
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Depends on every object that is to survive.
    pub checksum: u64,
    /// Bytes that the program asked for, headers not counted.
    pub allocated_bytes: u64,
    /// Objects that the last full collection of `graph` traced; 0 elsewhere.
    pub traced_objects: u64,
    /// Nanoseconds of the 50th, 99th and 99.9th percentile of an operation and of the slowest one, where operations are timed.
    pub operation_ns: Option<[u64; 4]>,
}

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// It runs with several threads if asked to.
    pub threads: bool,
    /// It uses weak references.
    pub weak: bool,
}

const fn info(name: &'static str, about: &'static str) -> Info {
    Info {
        name,
        about,
        threads: false,
        weak: false,
    }
}

/// All workloads.
pub const ALL: [Info; 13] = [
    info(
        "gcbench",
        "trees of many lifetimes beside a long-lived one (Ellis, Kovac, Boehm)",
    ),
    info(
        "binarytrees",
        "many short-lived binary trees (Computer Language Benchmarks Game)",
    ),
    Info {
        threads: true,
        ..info("mtgcbench", "gcbench on every thread at once")
    },
    info(
        "graph",
        "full collections of a graph with random references",
    ),
    info(
        "graphseq",
        "full collections of a graph with references to neighbours in memory",
    ),
    info(
        "lru",
        "a cache of strings that evicts the least recently used; operations are timed",
    ),
    info("alloc", "small objects that die at once"),
    info("large", "objects of 64 KiB to 4 MiB, few of which live"),
    info("list", "a collection of a very long linked list"),
    info(
        "fragment",
        "survivors spread over all memory, then larger objects",
    ),
    Info {
        threads: true,
        ..info(
            "churn",
            "random reads and writes in a graph that is renewed all the time",
        )
    },
    info(
        "strings",
        "strings built, concatenated, cut, hashed and kept",
    ),
    Info {
        weak: true,
        ..info("weak", "weak references to objects half of which live")
    },
];

/// The checksum when a reference that must be there was missing.
pub const LOST: u64 = 0x1057_1057_1057_1057;

/// Why a workload ends early.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The heap is full.
    Full,
    /// A reference that the program has stored is not there.
    Lost,
}

impl From<Full> for Fault {
    #[inline]
    fn from(_: Full) -> Fault {
        Fault::Full
    }
}

/// A reference that must be there.
#[inline(always)]
fn there<T>(reference: Option<T>) -> Result<T, Fault> {
    reference.ok_or(Fault::Lost)
}

/// How many short operations a loop may do from one poll to the next; a power of two.
const POLL: usize = 1 << 10;

/// Runs `work` on the calling thread.
fn alone<'r, R: Runtime>(
    runtime: &'r R,
    work: impl FnOnce(&mut R::Thread<'r>) -> Result<Outcome, Fault>,
) -> Result<Outcome, Fault> {
    let mut thread = runtime.attach()?;
    work(&mut thread)
}

/// Runs `work` on `mutators` threads. All do the same, so that all must have the same checksum: it is that of one of
/// them. The allocated bytes are those of all.
fn together<'r, R: Runtime>(
    runtime: &'r R,
    mutators: usize,
    work: impl Fn(&mut R::Thread<'r>) -> Result<Outcome, Fault> + Sync,
) -> Result<Outcome, Fault> {
    if mutators <= 1 {
        return alone(runtime, work);
    }
    let results: Vec<Result<Outcome, Fault>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..mutators)
            .map(|_| scope.spawn(|| alone(runtime, &work)))
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(result) => result,
                Err(payload) => std::panic::resume_unwind(payload),
            })
            .collect()
    });
    let mut sum: Option<Outcome> = None;
    for result in results {
        let outcome = result?;
        match &mut sum {
            None => sum = Some(outcome),
            Some(sum) => {
                if sum.checksum != outcome.checksum {
                    sum.checksum = mix(sum.checksum ^ LOST);
                }
                sum.allocated_bytes += outcome.allocated_bytes;
            }
        }
    }
    Ok(sum.unwrap_or_default())
}

/// Runs the workload `name`. `None` if there is none of that name.
///
/// The calling thread must not be attached to the runtime.
pub fn run<R: Runtime>(
    name: &str,
    runtime: &R,
    settings: &Settings,
) -> Option<Result<Outcome, Full>> {
    let mutators = settings.mutators;
    let outcome = match name {
        "gcbench" => alone(runtime, |t| gcbench::run(t, settings, 18)),
        "binarytrees" => alone(runtime, |t| binarytrees::run(t, settings)),
        "mtgcbench" => together(runtime, mutators, |t| gcbench::run(t, settings, 17)),
        "graph" => alone(runtime, |t| graph::run(t, settings, graph::random)),
        "graphseq" => alone(runtime, |t| graph::run(t, settings, graph::neighbour)),
        "lru" => alone(runtime, |t| lru::run(t, settings)),
        "alloc" => alone(runtime, |t| allocation::run(t, settings)),
        "large" => alone(runtime, |t| large::run(t, settings)),
        "list" => alone(runtime, |t| list::run(t, settings)),
        "fragment" => alone(runtime, |t| fragment::run(t, settings)),
        "churn" => together(runtime, mutators, |t| churn::run(t, settings)),
        "strings" => alone(runtime, |t| strings::run(t, settings)),
        "weak" => alone(runtime, |t| weak::run(t, settings)),
        _ => return None,
    };
    Some(match outcome {
        Ok(outcome) => Ok(outcome),
        Err(Fault::Full) => Err(Full),
        Err(Fault::Lost) => Ok(Outcome {
            checksum: LOST,
            ..Outcome::default()
        }),
    })
}

/// The root's reference, which must be there.
#[inline(always)]
fn at<T: Thread>(t: &T, root: crate::runtime::Root) -> Result<T::Ref, Fault> {
    there(t.root(root))
}
