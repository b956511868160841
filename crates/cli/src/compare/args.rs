//! The command line of `heapwright compare`.

use crate::bench::args::unique;
use crate::bench::request::{Heap, Load, find_workload};
use crate::refusal::Refusal;
use clap::Args;
use heapwright_bench::workload;
use std::path::PathBuf;

const HELP: &str = "\
Contestants are our plans (`heapwright plans`) and the peers, which are built by themselves since they take minutes:
  cargo build --release --manifest-path peers/Cargo.toml
These are mmtk with each of its plans (mmtk-immix and so on), Boehm's collector (boehm), malloc, jemalloc and mimalloc. Without
--with all take part, but plans that do not collect.

In each cell, which is a workload in a heap of a certain size, all contestants take turns, each run in a process of its own, so that what
else the machine does falls on all alike. The table has medians. The overhead is over the distilled cost: the least that any
contestant in any heap takes without its pauses, which no program can be said to need less than. malloc and its like have
no heap size: they run once a turn, in the first heap.

The raw data of all runs are kept if --raw names a file, after each cell, and --from makes the tables and pages of them anew.

Exit status: 0: all ran (not to fit into the heap is a result, too); 1: a run failed or was wrong; 2: a wrong option; 125: the
results could not be written.

Examples:
  heapwright compare gcbench --with immix,mmtk-immix,boehm,malloc
  heapwright compare gcbench,lru --heap 1.5x,2x,3x,6x --raw runs.json --markdown results.md
  heapwright compare gcbench:4,binarytrees,graph:2 --runs 3         what ends soon gets more to do
  heapwright compare --from runs.json --markdown results.md --report results.html
  heapwright compare graph --with semispace,immix --scale 0.1 --runs 3        only ours: no peers needed";

/// What runs if nothing is named.
const LOADS: [&str; 6] = [
    "gcbench",
    "binarytrees",
    "graph",
    "lru",
    "churn",
    "fragment",
];

#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Compare {
    /// What to run, or `all`; with a scale of its own, like gcbench:3 [default: gcbench,binarytrees,graph,lru,churn,fragment]
    #[arg(value_name = "WORKLOAD[:F]", value_delimiter = ',')]
    workloads: Vec<String>,
    /// Who takes part
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) with: Vec<String>,
    /// In how large heaps: sizes like 64m, or times the smallest possible like 1.5x
    #[arg(
        long,
        value_name = "SIZE|Nx,...",
        value_delimiter = ',',
        default_value = "1.5x,2x,3x,6x"
    )]
    heap: Vec<String>,
    /// Runs of each contestant in each cell
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) runs: u16,
    /// Threads that collect
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,
    /// Threads that run the workload, where it can have several
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    mutators: u16,
    /// Multiplies the amount of work
    #[arg(long, value_name = "F", default_value = "1", value_parser = crate::bench::args::scale)]
    scale: f64,
    /// Seed of what is random in a workload
    #[arg(long, value_name = "S", default_value = "1")]
    pub(crate) seed: u64,
    /// A run that takes longer has failed
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) timeout: u32,
    /// The command with the peers [default: HEAPWRIGHT_PEERS, or peers/target/release/peers]
    #[arg(long, value_name = "FILE")]
    pub(crate) peers: Option<PathBuf>,
    /// Keep the raw data of all runs there, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) raw: Option<PathBuf>,
    /// Run nothing: take the raw data of an earlier comparison
    #[arg(long, value_name = "FILE", conflicts_with_all = ["raw", "with", "workloads"])]
    pub(crate) from: Option<PathBuf>,
    /// Write the tables there, as a page in Markdown, instead of to stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Write a page with charts there, as one HTML file
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// The raw data as JSON on stdout, instead of the tables
    #[arg(long)]
    pub(crate) json: bool,
}

impl Compare {
    pub(crate) fn loads(&self) -> Result<Vec<Load>, Refusal> {
        let mut names: Vec<&str> = self.workloads.iter().map(String::as_str).collect();
        if names.is_empty() {
            names.extend(LOADS);
        }
        let mut found = Vec::new();
        for name in names {
            let (name, scale) = match name.split_once(':') {
                None => (name, self.scale),
                Some((name, times)) => {
                    let scale = crate::bench::args::scale(times);
                    (
                        name,
                        scale.map_err(|e| Refusal::usage(format!("{name}:{times}: {e}")))?,
                    )
                }
            };
            let load = |info| Load::new(info, scale, usize::from(self.mutators));
            match name {
                "all" => found.extend(workload::ALL.map(load)),
                name => found.push(load(find_workload(name)?)),
            }
        }
        Ok(unique(found, |a, b| a.info.name == b.info.name))
    }

    pub(crate) fn heaps(&self) -> Result<Vec<Heap>, Refusal> {
        let mut heaps = Vec::new();
        for heap in &self.heap {
            heaps.push(match heap.parse::<Heap>().map_err(Refusal::usage)? {
                Heap::Bytes(0) => {
                    return Err(Refusal::usage(
                        "--heap 0: mmtk and others need a limit, like 3x",
                    ));
                }
                heap => heap,
            });
        }
        Ok(unique(heaps, PartialEq::eq))
    }
}
