//! `heapwright plans`: the plans and what they can do, as text or JSON.

use crate::args::List;
use crate::output;
use crate::refusal::Refusal;
use heapwright::plan::{ALL, PlanInfo};
use serde::Serialize;
use std::process::ExitCode;

#[derive(Serialize)]
struct Row {
    name: &'static str,
    about: &'static str,
    moves: bool,
    non_moving: bool,
    generational: bool,
    concurrent: bool,
    ambiguous_roots: bool,
    pins: bool,
}

impl From<&PlanInfo> for Row {
    fn from(plan: &PlanInfo) -> Self {
        Self {
            name: plan.name,
            about: plan.about,
            moves: plan.moves,
            non_moving: plan.non_moving,
            generational: plan.generational,
            concurrent: plan.concurrent,
            ambiguous_roots: plan.ambiguous_roots,
            pins: plan.pins,
        }
    }
}

impl Row {
    /// What it can do, in the order of [`HEADS`].
    fn marks(&self) -> [bool; 5] {
        [
            self.moves,
            self.generational,
            self.concurrent,
            self.ambiguous_roots,
            self.pins,
        ]
    }
}

const HEADS: [&str; 5] = ["moves", "generations", "concurrent", "ambiguous", "pins"];

const LEGEND: &str = "
moves        objects change their place (of immix, stickyimmix and concurrentimmix not with HEAPWRIGHT_EVACUATE=never)
generations  young objects are collected more often than old ones
concurrent   collects while the program runs
ambiguous    takes roots that may or may not be references
pins         an object can be told to keep its place

`heapwright bench --plan NAME,...` measures them.
";

/// Prints the plans to stdout.
pub(crate) fn print(list: &List) -> Result<ExitCode, Refusal> {
    let rows: Vec<Row> = ALL.iter().map(Row::from).collect();
    output::put(&if list.json {
        output::json(&rows, true)?
    } else {
        text(&rows)
    })
}

fn text(rows: &[Row]) -> String {
    let names = rows.iter().map(|r| r.name.len()).max().unwrap_or(0);
    let mut out = format!("{:names$}  ", "plan");
    for head in HEADS {
        out += &format!("{head}  ");
    }
    out += "about\n";
    for row in rows {
        out += &format!("{:names$}  ", row.name);
        for (head, has) in HEADS.iter().zip(row.marks()) {
            out += &format!(
                "{:width$}  ",
                if has { "yes" } else { "-" },
                width = head.len()
            );
        }
        out += &format!("{}\n", row.about);
    }
    out + LEGEND
}
