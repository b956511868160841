//! What collecting costs, as far as it can be known from outside.
//!
//! Nobody knows what a program costs without memory management, since it does not run without. But it costs at most what is left of
//! any run when the time in pauses is taken away, and so at most the least of that over all contestants and heaps: the
//! *distilled* cost of the workload. What a contestant takes above that is at least its overhead (Cai, Blackburn, Bond,
//! Maas: "Distilling the real cost of production garbage collectors", 2022). The bound gets better with each contestant.
//!
//! The CPU time of a pause is counted as its length, that of one worker, times the part of its time in which the run had a processor. More
//! workers take more, which makes the distilled cost higher and the overhead lower: it remains a lower bound. Of memory, the distilled cost is the least peak of all.

use super::record::{Cell, Comparison, Run};
use crate::bench::record::{Verdict, median};

/// A median, with the least and the most of the runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    fn of(values: Vec<f64>) -> Option<Self> {
        Some(Self {
            least: values.iter().copied().min_by(f64::total_cmp)?,
            most: values.iter().copied().max_by(f64::total_cmp)?,
            median: median(values)?,
        })
    }
}

/// The three costs of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    Wall,
    Cpu,
    Memory,
}

impl Cost {
    pub(crate) const ALL: [Self; 3] = [Self::Wall, Self::Cpu, Self::Memory];

    /// What is measured, with its unit.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Wall => "wall s",
            Self::Cpu => "CPU s",
            Self::Memory => "peak MiB",
        }
    }

    /// What a run took of it: seconds, or MiB.
    #[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
    fn of(self, run: &Run) -> f64 {
        match self {
            Self::Wall => run.wall_s,
            Self::Cpu => run.cpu_s,
            Self::Memory => run.peak_rss_bytes as f64 / 1_048_576.0,
        }
    }

    /// What would be left of it without the pauses.
    fn without_pauses(self, run: &Run) -> f64 {
        match self {
            Self::Wall => (run.wall_s - run.gc_s).max(0.0),
            // Where others use the machine, a pause waits for a processor as the rest of the run does.
            Self::Cpu => {
                let part = run.cpu_s / run.wall_s.max(f64::MIN_POSITIVE);
                (run.cpu_s - run.gc_s * part.min(1.0)).max(0.0)
            }
            Self::Memory => self.of(run),
        }
    }
}

/// One contestant in one cell.
#[derive(Clone, Debug)]
pub(crate) struct Result {
    pub(crate) contestant: String,
    /// Why there are no figures.
    pub(crate) trouble: Option<String>,
    /// In the order of [`Cost::ALL`].
    pub(crate) costs: [Option<Spread>; 3],
    /// How many times the distilled cost that is, at least; in the order of [`Cost::ALL`].
    pub(crate) overhead: [Option<f64>; 3],
    pub(crate) collections: Option<f64>,
    pub(crate) longest_pause_ms: Option<f64>,
}

impl Result {
    fn of(cell: &Cell, contestant: &str, distilled: [Option<f64>; 3]) -> Self {
        let runs: Vec<&Run> = cell
            .runs
            .iter()
            .filter(|r| r.contestant == contestant)
            .collect();
        let worst = runs.iter().max_by_key(|r| r.status);
        let trouble = worst.filter(|r| r.status != Verdict::Ok).map(|r| {
            let why = r.why.as_deref().filter(|_| r.status.is_failure());
            why.map_or_else(
                || r.status.to_string(),
                |why| format!("{}: {why}", r.status),
            )
        });
        let well: Vec<&Run> = match trouble {
            None => runs,
            Some(_) => Vec::new(),
        };
        let costs = Cost::ALL.map(|cost| Spread::of(well.iter().map(|r| cost.of(r)).collect()));
        let mut overhead = [None; 3];
        for ((over, cost), least) in overhead.iter_mut().zip(costs).zip(distilled) {
            *over = cost
                .zip(least.filter(|l| *l > 0.0))
                .map(|(c, l)| c.median / l);
        }
        #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let collections = median(well.iter().map(|r| r.collections as f64).collect());
        Self {
            contestant: contestant.to_owned(),
            trouble,
            costs,
            overhead,
            collections,
            longest_pause_ms: median(well.iter().filter_map(|r| r.longest_pause_ms).collect()),
        }
    }

    /// The median of a cost.
    pub(crate) fn median(&self, cost: Cost) -> Option<f64> {
        self.costs[cost as usize].map(|s| s.median)
    }
}

/// The least of a workload's cost without pauses, over all contestants and heaps; of each contestant and heap the median counts,
/// so that no single lucky run decides.
fn distilled(comparison: &Comparison, workload: &str, cost: Cost) -> Option<f64> {
    let mut least: Option<f64> = None;
    for cell in comparison.cells.iter().filter(|c| c.workload == workload) {
        for contestant in cell.contestants() {
            let of = |r: &&Run| r.contestant == contestant;
            if cell.runs.iter().filter(of).any(|r| r.status != Verdict::Ok) {
                continue;
            }
            let left = cell.runs.iter().filter(of).map(|r| cost.without_pauses(r));
            if let Some(left) = median(left.collect())
                && least.is_none_or(|l| left < l)
            {
                least = Some(left);
            }
        }
    }
    least
}

/// One workload in one heap, with what each contestant took.
#[derive(Clone, Debug)]
pub(crate) struct Distilled<'a> {
    pub(crate) cell: &'a Cell,
    pub(crate) results: Vec<Result>,
    /// In the order of [`Cost::ALL`].
    pub(crate) distilled: [Option<f64>; 3],
}

impl Distilled<'_> {
    pub(crate) fn result(&self, contestant: &str) -> Option<&Result> {
        self.results.iter().find(|r| r.contestant == contestant)
    }
}

/// All cells, analysed.
pub(crate) fn distil(comparison: &Comparison) -> Vec<Distilled<'_>> {
    let cells = comparison.cells.iter();
    cells
        .map(|cell| {
            let least = Cost::ALL.map(|cost| distilled(comparison, &cell.workload, cost));
            let names = cell.contestants();
            Distilled {
                cell,
                results: names
                    .into_iter()
                    .map(|name| Result::of(cell, name, least))
                    .collect(),
                distilled: least,
            }
        })
        .collect()
}

/// The geometric mean; nothing of nothing.
#[allow(clippy::cast_precision_loss, reason = "few")]
pub(crate) fn geometric_mean(values: &[f64]) -> Option<f64> {
    let logs: f64 = values.iter().map(|v| v.ln()).sum();
    (!values.is_empty()).then(|| (logs / values.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn run(contestant: &str, wall_s: f64, gc_s: f64, mib: u64) -> Run {
        Run {
            contestant: contestant.to_owned(),
            wall_s,
            cpu_s: wall_s * 1.5,
            gc_s,
            peak_rss_bytes: mib << 20,
            ..Run::default()
        }
    }

    fn cell(heap: &str, runs: Vec<Run>) -> Cell {
        Cell {
            workload: "graph".to_owned(),
            heap: heap.to_owned(),
            runs,
            ..Cell::default()
        }
    }

    #[test]
    fn the_distilled_cost_is_the_least_of_all_heaps_without_pauses() {
        let comparison = Comparison {
            cells: vec![
                cell(
                    "1x",
                    vec![
                        run("a", 3.0, 2.0, 10),
                        run("b", 4.0, 1.0, 8),
                        run("a", 3.0, 1.9, 10),
                    ],
                ),
                cell("3x", vec![run("a", 2.0, 0.5, 30), run("b", 2.2, 0.0, 20)]),
            ],
            ..Comparison::default()
        };
        let all = distil(&comparison);
        // The median of 1.0 and 1.1.
        let least = all[0].distilled;
        assert!((least[0].unwrap() - 1.05).abs() < 1e-9, "{least:?}");
        assert_eq!(least[2], Some(8.0));
        assert_eq!(all[1].distilled, least);
        let a = all[0].result("a").unwrap();
        assert!((a.overhead[0].unwrap() - 3.0 / 1.05).abs() < 1e-9);
        assert_eq!(a.overhead[2], Some(1.25));
        // No overhead is below that of the one who defines it.
        for d in &all {
            for r in &d.results {
                assert!(r.overhead.iter().all(|o| o.unwrap() >= 1.0 - 1e-9), "{r:?}");
            }
        }
    }

    #[test]
    fn a_pause_that_waits_for_a_processor_is_no_cpu_time() {
        // It had a processor for half of the time, and paused for all but a second.
        let busy = Run {
            cpu_s: 2.0,
            ..run("immix", 4.0, 3.0, 1)
        };
        assert_eq!(Cost::Cpu.without_pauses(&busy), 0.5);
        assert_eq!(Cost::Wall.without_pauses(&busy), 1.0);
        assert_eq!(Cost::Cpu.without_pauses(&Run::default()).max(0.0), 0.0);
    }

    #[test]
    fn who_failed_once_has_no_figures_and_defines_nothing() {
        let mut bad = run("b", 0.1, 0.0, 1);
        bad.status = Verdict::Wrong;
        bad.why = Some("checksum".to_owned());
        let comparison = Comparison {
            cells: vec![cell(
                "1x",
                vec![run("a", 2.0, 1.0, 4), bad, run("b", 0.1, 0.0, 1)],
            )],
            ..Comparison::default()
        };
        let all = distil(&comparison);
        assert_eq!(all[0].distilled[0], Some(1.0));
        let b = all[0].result("b").unwrap();
        assert_eq!(b.costs, [None; 3]);
        assert!(b.trouble.as_deref().unwrap().contains("checksum"));
        assert_eq!(geometric_mean(&[]), None);
        assert!((geometric_mean(&[2.0, 8.0]).unwrap() - 4.0).abs() < 1e-9);
    }
}
