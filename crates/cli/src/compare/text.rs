//! A comparison for people: tables in Markdown, which are read as they are and as a page.

use super::contestant::{is_ours, kin};
use super::distil::{Cost, Distilled, Result, Spread, distil, geometric_mean};
use super::record::Comparison;
use std::fmt::Write;

/// Differences below this are noise on most machines: nobody wins or loses by them.
const NOISE: f64 = 1.05;

/// All tables.
pub(crate) fn tables(comparison: &Comparison) -> String {
    let all = distil(comparison);
    let mut out = String::new();
    for distilled in &all {
        cell(&mut out, distilled);
    }
    overheads(&mut out, &all);
    kinship(&mut out, &all);
    losses(&mut out, &all);
    out
}

/// A page for the documentation.
pub(crate) fn page(comparison: &Comparison) -> String {
    let Comparison {
        date,
        command,
        version,
        machine,
        ..
    } = comparison;
    format!(
        "# The comparison\n\n\
         Heapwright {version} and other memory managers on the same workloads, made {date} by\n\n    {command}\n\n\
         on {processor}, {processors} processors, {memory:.1} GiB of memory, {system}, Linux {kernel}; load average at the \
         beginning {load:.2}; {minutes:.0} minutes.\n\n\
         Each run is a process of its own. In each cell all contestants take turns, {runs} times, with {workers} worker(s). Figures are \
         medians, with the least and the most in brackets; `x` is the overhead: how many times the distilled cost that is, at \
         least. The distilled cost of a workload is the least that any contestant in any heap takes without its pauses (Cai, Blackburn, Bond, \
         Maas: \"Distilling the real cost of production garbage collectors\", 2022); of memory, the least peak. malloc, jemalloc and \
         mimalloc have no heap size and ran in the first heap only. Differences below {noise:.0} % mean nothing here.\n\n{tables}",
        processor = machine.processor,
        processors = machine.processors,
        memory = gib(machine.memory_bytes),
        system = machine.system,
        kernel = machine.kernel,
        load = machine.load,
        minutes = comparison.minutes,
        runs = comparison.runs,
        workers = comparison.workers,
        noise = (NOISE - 1.0) * 100.0,
        tables = tables(comparison),
    )
}

#[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn spread(cost: Cost, s: Spread) -> String {
    let digits = usize::from(cost != Cost::Memory) * 2 + usize::from(cost == Cost::Memory);
    format!(
        "{:.digits$} ({:.digits$}-{:.digits$})",
        s.median, s.least, s.most
    )
}

/// One workload in one heap: who took what, the least CPU time first.
fn cell(out: &mut String, distilled: &Distilled<'_>) {
    let cell = distilled.cell;
    // Writing to a string cannot fail, here and below.
    let _ = write!(
        out,
        "## {} in {:.1} MiB ({}), scale {}, {} mutator(s)\n\nDistilled:",
        cell.workload,
        mib(cell.heap_bytes),
        cell.heap,
        cell.scale,
        cell.mutators
    );
    for (cost, least) in Cost::ALL.iter().zip(distilled.distilled) {
        let _ = write!(
            out,
            " {} {}{}",
            cost.title(),
            least.map_or("-".to_owned(), |l| format!("{l:.2}")),
            if *cost == Cost::Memory { ".\n\n" } else { "," }
        );
    }
    out.push_str("| contestant |");
    for cost in Cost::ALL {
        let _ = write!(out, " {} | x |", cost.title());
    }
    out.push_str(" collections | longest pause ms |\n|---|---|---|---|---|---|---|---|---|\n");
    let mut rows: Vec<&Result> = distilled.results.iter().collect();
    rows.sort_by(|a, b| {
        let key = |r: &Result| r.median(Cost::Cpu).unwrap_or(f64::INFINITY);
        key(a).total_cmp(&key(b))
    });
    for row in rows {
        let name = &row.contestant;
        let name = if is_ours(name) {
            format!("**{name}**")
        } else {
            name.clone()
        };
        let _ = write!(out, "| {name} |");
        if let Some(trouble) = &row.trouble {
            // A cell of a table is one line.
            let trouble = trouble.replace(['\n', '|'], " ");
            let _ = writeln!(out, " {trouble} | | | | | | | |");
            continue;
        }
        for (cost, over) in Cost::ALL.into_iter().zip(row.overhead) {
            let took = row.costs[cost as usize].map_or(String::new(), |s| spread(cost, s));
            let over = over.map_or(String::new(), |o| format!("{o:.2}"));
            let _ = write!(out, " {took} | {over} |");
        }
        let _ = writeln!(
            out,
            " {} | {} |",
            row.collections.map_or(String::new(), |n| format!("{n:.0}")),
            row.longest_pause_ms
                .map_or(String::new(), |ms| format!("{ms:.2}"))
        );
    }
    out.push('\n');
}

/// The contestants' overheads over all cells.
fn overheads(out: &mut String, all: &[Distilled<'_>]) {
    let mut rows: Vec<(f64, String)> = Vec::new();
    for name in names(all) {
        let mut line = format!("| {name} |");
        let mut cpu = f64::INFINITY;
        let mut cells = 0;
        for cost in Cost::ALL {
            let of: Vec<f64> = all
                .iter()
                .filter_map(|d| d.result(&name)?.overhead[cost as usize])
                .collect();
            cells = of.len();
            let mean = geometric_mean(&of);
            let _ = write!(
                line,
                " {} |",
                mean.map_or(String::new(), |m| format!("{m:.2}"))
            );
            if cost == Cost::Cpu {
                cpu = mean.unwrap_or(cpu);
            }
        }
        let _ = write!(line, " {cells} of {} |", all.len());
        rows.push((cpu, line));
    }
    if rows.is_empty() {
        return;
    }
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    out.push_str(
        "## Overhead over the distilled cost\n\nGeometric means over the cells in which the contestant came to an end, at least:\n\n\
         | contestant | wall | CPU | memory | cells |\n|---|---|---|---|---|\n",
    );
    for (_, line) in rows {
        out.push_str(&line);
        out.push('\n');
    }
    out.push('\n');
}

/// All contestants, each once.
fn names(all: &[Distilled<'_>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for result in all.iter().flat_map(|d| &d.results) {
        if !names.contains(&result.contestant) {
            names.push(result.contestant.clone());
        }
    }
    names
}

/// Ours and theirs of the same kind.
fn kinship(out: &mut String, all: &[Distilled<'_>]) {
    let pairs: Vec<(&str, String)> = names(all)
        .into_iter()
        .filter_map(|peer| kin(&peer).map(|ours| (ours, peer)))
        .collect();
    let mut rows = String::new();
    for (ours, peer) in &pairs {
        let mut line = format!("| {ours} : {peer} |");
        let mut cells = 0;
        for cost in Cost::ALL {
            let of: Vec<f64> = all
                .iter()
                .filter_map(|d| ratio(d, ours, peer, cost))
                .collect();
            cells = of.len();
            let mean = geometric_mean(&of);
            let _ = write!(
                line,
                " {} |",
                mean.map_or(String::new(), |m| format!("{m:.2}"))
            );
        }
        if cells > 0 {
            let _ = writeln!(rows, "{line} {cells} |");
        }
    }
    if !rows.is_empty() {
        let _ = write!(
            out,
            "## Plans of the same kind\n\nOurs : theirs, below 1 ours is better; geometric means over the cells in which both came to an end.\n\n\
             | pair | wall | CPU | memory | cells |\n|---|---|---|---|---|\n{rows}\n"
        );
    }
}

fn ratio(d: &Distilled<'_>, ours: &str, peer: &str, cost: Cost) -> Option<f64> {
    let of = |name| d.result(name)?.median(cost);
    Some(of(ours)? / of(peer).filter(|v| *v > 0.0)?)
}

/// The cells in which we are behind.
fn losses(out: &mut String, all: &[Distilled<'_>]) {
    let has_peers = names(all).iter().any(|n| !is_ours(n));
    if !has_peers {
        return;
    }
    let mut lines = String::new();
    let mut cells = 0;
    for d in all {
        let name = format!("{} {}", d.cell.workload, d.cell.heap);
        for cost in Cost::ALL {
            let best = |ours: bool| {
                d.results
                    .iter()
                    .filter(|r| is_ours(&r.contestant) == ours)
                    .filter_map(|r| Some((r.median(cost)?, r.contestant.as_str())))
                    .min_by(|a, b| a.0.total_cmp(&b.0))
            };
            let (Some((ours, mine)), Some((theirs, other))) = (best(true), best(false)) else {
                continue;
            };
            cells += 1;
            if ours > theirs * NOISE {
                let _ = writeln!(
                    lines,
                    "- {name}, {}: our best is {mine} with {ours:.2}; {other} takes {theirs:.2} ({:.2} times less).",
                    cost.title(),
                    ours / theirs
                );
            }
        }
        for result in &d.results {
            let Some(ours) = kin(&result.contestant) else {
                continue;
            };
            for cost in Cost::ALL {
                if let Some(q) = ratio(d, ours, &result.contestant, cost)
                    && q > NOISE
                {
                    let _ = writeln!(
                        lines,
                        "- {name}, {}: {ours} takes {q:.2} times what {} takes.",
                        cost.title(),
                        result.contestant
                    );
                }
            }
        }
    }
    out.push_str("## Where we lose\n\n");
    if lines.is_empty() {
        let _ = writeln!(
            out,
            "Nowhere by more than the noise, in {cells} comparisons of the best with the best."
        );
    } else {
        out.push_str(&lines);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::record::{Cell, Run};
    use super::*;
    use crate::bench::record::Verdict;

    fn run(contestant: &str, wall_s: f64, mib: u64) -> Run {
        Run {
            contestant: contestant.to_owned(),
            wall_s,
            cpu_s: wall_s,
            gc_s: wall_s / 2.0,
            longest_pause_ms: Some(1.5),
            peak_rss_bytes: mib << 20,
            ..Run::default()
        }
    }

    fn comparison(runs: Vec<Run>) -> Comparison {
        Comparison {
            command: "heapwright compare lru".to_owned(),
            cells: vec![Cell {
                workload: "lru".to_owned(),
                heap: "2x".to_owned(),
                runs,
                ..Cell::default()
            }],
            ..Comparison::default()
        }
    }

    #[test]
    fn it_says_plainly_where_we_lose() {
        let text = page(&comparison(vec![
            run("immix", 2.0, 50),
            run("mmtk-immix", 1.0, 100),
            run("malloc", 0.5, 49),
        ]));
        assert!(text.contains("lru 2x, CPU s: our best is immix with 2.00; malloc takes 0.50"));
        assert!(text.contains("lru 2x, wall s: immix takes 2.00 times what mmtk-immix takes"));
        // Two hundredths are noise.
        assert!(!text.contains("peak MiB: our best"), "{text}");
        assert!(text.contains("| immix : mmtk-immix | 2.00 | 2.00 | 0.50 | 1 |"));
        assert!(text.contains("heapwright compare lru"));
        assert!(
            text.contains("| **immix** | 2.00 (2.00-2.00) | 8.00 |"),
            "{text}"
        );
    }

    #[test]
    fn where_nobody_is_better_it_says_so() {
        let text = tables(&comparison(vec![
            run("immix", 1.0, 50),
            run("boehm", 2.0, 60),
        ]));
        assert!(text.contains("Nowhere by more than the noise, in 3 comparisons"));
        let text = tables(&comparison(vec![run("immix", 1.0, 50)]));
        assert!(!text.contains("Where we lose"));
    }

    #[test]
    fn who_did_not_end_well_is_shown_with_the_reason() {
        let mut bad = run("mmtk-semispace", 1.0, 1);
        bad.status = Verdict::Failed;
        bad.why = Some("ended by\nsignal 6 | x".to_owned());
        let mut full = run("mmtk-gencopy", 1.0, 1);
        full.status = Verdict::OutOfMemory;
        full.why = Some("out of memory".to_owned());
        let text = tables(&comparison(vec![run("immix", 1.0, 50), bad, full]));
        assert!(text.contains("| mmtk-semispace | FAILED: ended by signal 6   x | | | | | | | |"));
        assert!(text.contains("| mmtk-gencopy | out of memory | | | | | | | |"));
    }
}
