//! A comparison as the page of a report.

use super::contestant::is_ours;
use super::distil::{Cost, distil};
use super::record::Comparison;
use crate::report::{Grid, Point};

/// All cells and contestants, with medians.
#[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
pub(crate) fn grid(comparison: &Comparison) -> Grid {
    let mut points = Vec::new();
    let mut peers: Vec<String> = Vec::new();
    for distilled in distil(comparison) {
        for result in &distilled.results {
            let median = |cost| result.median(cost);
            let [over_wall, over_cpu, over_memory] = result.overhead;
            if !is_ours(&result.contestant) && !peers.contains(&result.contestant) {
                peers.push(result.contestant.clone());
            }
            points.push(Point {
                workload: distilled.cell.workload.clone(),
                who: result.contestant.clone(),
                heap: distilled.cell.heap.clone(),
                heap_bytes: distilled.cell.heap_bytes,
                ok: result.trouble.is_none() && median(Cost::Wall).is_some(),
                why: result.trouble.clone(),
                wall: median(Cost::Wall).unwrap_or(0.0),
                cpu: median(Cost::Cpu).unwrap_or(0.0),
                memory: median(Cost::Memory).unwrap_or(0.0) * 1_048_576.0,
                pause: result.longest_pause_ms,
                collections: result.collections.unwrap_or(0.0),
                over_wall,
                over_cpu,
                over_memory,
            });
        }
    }
    let machine = &comparison.machine;
    let about = format!(
        "{}. {} runs of each, {} worker(s), {} processors ({}), {}. Medians; the raw data have all runs.",
        comparison.command,
        comparison.runs,
        comparison.workers,
        machine.processors,
        machine.processor,
        machine.system,
    );
    let mut grid = Grid::of(about, points);
    grid.peers = peers;
    grid
}

#[cfg(test)]
mod tests {
    use super::super::record::{Cell, Run};
    use super::*;

    #[test]
    fn peers_are_marked_and_trouble_is_said() {
        let run = |contestant: &str, wall_s: f64, status| Run {
            contestant: contestant.to_owned(),
            turn: 1,
            wall_s,
            cpu_s: wall_s,
            peak_rss_bytes: 1 << 20,
            status,
            ..Run::default()
        };
        use crate::bench::record::Verdict;
        let comparison = Comparison {
            cells: vec![Cell {
                workload: "graph".to_owned(),
                heap: "2x".to_owned(),
                heap_bytes: 64,
                runs: vec![
                    run("immix", 1.0, Verdict::Ok),
                    run("boehm", 2.0, Verdict::Ok),
                    run("semispace", 0.0, Verdict::OutOfMemory),
                ],
                ..Cell::default()
            }],
            ..Comparison::default()
        };
        let grid = grid(&comparison);
        assert_eq!(grid.peers, ["boehm"]);
        let json = serde_json::to_value(&grid).unwrap_or_default();
        let points = json["points"].as_array().cloned().unwrap_or_default();
        let oks: Vec<bool> = points.iter().filter_map(|p| p["ok"].as_bool()).collect();
        assert_eq!(oks, [true, true, false]);
        assert_eq!(points[1]["over_wall"], 2.0);
        assert_eq!(points[0]["memory"], 1_048_576.0);
    }
}
