//! What is to be measured.

use super::args::Metadata;
use super::observe::Wanted;
use crate::refusal::Refusal;
use heapwright::options;
use heapwright::plan::{self, PlanInfo};
use heapwright_bench::spec::Spec;
use heapwright_bench::workload::{self, Info};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What runs if nothing is named, with the scale: a part of a second for each run.
pub(crate) const TOUR: [(&str, f64); 5] = [
    ("gcbench", 0.25),
    ("binarytrees", 0.25),
    ("graph", 0.25),
    ("lru", 0.25),
    ("churn", 0.5),
];

/// A workload in the size in which it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) info: Info,
    pub(crate) scale: f64,
    pub(crate) mutators: usize,
}

impl Load {
    /// A workload of one thread gets one, whatever was asked for.
    pub(crate) fn new(info: Info, scale: f64, mutators: usize) -> Self {
        let mutators = if info.threads { mutators } else { 1 };
        Self {
            info,
            scale,
            mutators,
        }
    }
}

impl Load {
    /// What the process of one run is told: one worker, and nothing out of the ordinary.
    pub(crate) fn spec(&self, plan: &str, heap_bytes: usize, seed: u64) -> Spec {
        Spec {
            mutators: self.mutators,
            scale: self.scale,
            seed,
            ..Spec::new(self.info.name, plan, heap_bytes)
        }
    }
}

/// How large a heap is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Heap {
    /// So many bytes; 0: no limit.
    Bytes(usize),
    /// Times the smallest heap in which the workload lives.
    Times(f64),
}

impl FromStr for Heap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("--heap {text}: a size is wanted, like 64m, or times the smallest, like 3x");
        match text.strip_suffix(['x', 'X']) {
            Some(times) => match times.parse::<f64>() {
                Ok(n) if n > 0.0 && n <= 1e6 => Ok(Self::Times(n)),
                _ => Err(wrong()),
            },
            None => options::size(text).map(Self::Bytes).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(0) => f.write_str("no limit"),
            Self::Bytes(n) => {
                let unit = [(30, "g"), (20, "m"), (10, "k")]
                    .into_iter()
                    .find(|(shift, _)| n % (1 << shift) == 0);
                let (shift, letter) = unit.unwrap_or((0, ""));
                write!(f, "{}{letter}", n >> shift)
            }
            Self::Times(n) => write!(f, "{n}x"),
        }
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) loads: Vec<Load>,
    pub(crate) plans: Vec<&'static PlanInfo>,
    pub(crate) heaps: Vec<Heap>,
    pub(crate) workers: usize,
    pub(crate) iterations: u16,
    pub(crate) seed: u64,
    pub(crate) verify: bool,
    pub(crate) metadata: Metadata,
    pub(crate) timeout: Duration,
    pub(crate) json: bool,
    /// Where the heap dump of the only run goes.
    pub(crate) dump: Option<PathBuf>,
    /// Beside the table.
    pub(crate) wanted: Wanted,
}

impl Request {
    /// How many runs that is.
    pub(crate) fn runs(&self) -> usize {
        self.loads.len() * self.heaps.len() * self.plans.len() * usize::from(self.iterations)
    }

    /// What the process of one run is told.
    pub(crate) fn spec(&self, load: &Load, plan: &PlanInfo, heap_bytes: usize) -> Spec {
        Spec {
            workers: self.workers,
            verify: self.verify,
            header: self.metadata == Metadata::Header,
            dump: self.dump.clone(),
            ..load.spec(plan.name, heap_bytes, self.seed)
        }
    }
}

/// So many times a size, in whole pages.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a heap need not be exact to the byte, and the conversion saturates"
)]
pub(crate) fn multiple(size: usize, times: f64) -> usize {
    ((size as f64 * times) as usize).saturating_add(4095) & !4095
}

/// The workload of that name.
pub(crate) fn find_workload(name: &str) -> Result<Info, Refusal> {
    let found = workload::ALL.into_iter().find(|w| w.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = workload::ALL.iter().map(|w| w.name).collect();
        Refusal::usage(format!(
            "there is no workload {name}; there are: {}, and all",
            names.join(", ")
        ))
    })
}

/// The plan of that name.
pub(crate) fn find_plan(name: &str) -> Result<&'static PlanInfo, Refusal> {
    let found = plan::ALL.iter().find(|p| p.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = plan::ALL.iter().map(|p| p.name).collect();
        Refusal::usage(format!(
            "there is no plan {name}; there are: {}, and all",
            names.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn heaps_are_sizes_or_multiples() {
        for (text, heap) in [
            ("64m", Heap::Bytes(64 << 20)),
            ("3x", Heap::Times(3.0)),
            ("1.5x", Heap::Times(1.5)),
            ("0", Heap::Bytes(0)),
            ("1000", Heap::Bytes(1000)),
        ] {
            assert_eq!(text.parse::<Heap>(), Ok(heap));
            let shown = heap.to_string();
            assert!(shown == text || shown == "no limit", "{shown}");
        }
        for text in ["", "x", "0x", "-1x", "infx", "nanx", "64q", "2 x y"] {
            let e = text.parse::<Heap>().unwrap_err();
            assert!(e.contains("64m") && e.contains("3x"), "{e}");
        }
    }

    #[test]
    fn the_tour_runs_what_exists() {
        for (name, _) in TOUR {
            assert!(find_workload(name).is_ok(), "{name}");
        }
        for error in [
            find_workload("none").unwrap_err(),
            find_plan("none").map(|p| p.name).unwrap_err(),
        ] {
            assert_eq!(error.status(), 2);
            assert!(error.to_string().contains("there are: "));
        }
    }
}
