//! `heapwright options`: the table of options, as text or JSON.

use crate::args::List;
use crate::output;
use crate::refusal::Refusal;
use heapwright::options::{ENV_PREFIX, PlanName, TABLE};
use serde::Serialize;
use std::process::ExitCode;

#[derive(Serialize)]
struct Row {
    name: &'static str,
    variable: String,
    default: &'static str,
    unit: &'static str,
    meaning: &'static str,
}

fn rows() -> Vec<Row> {
    TABLE
        .iter()
        .map(|r| Row {
            name: r.name,
            variable: format!("{ENV_PREFIX}{}", r.name.to_ascii_uppercase()),
            default: r.default,
            unit: r.unit,
            meaning: r.meaning,
        })
        .collect()
}

/// Prints the table to stdout.
pub(crate) fn print(list: &List) -> Result<ExitCode, Refusal> {
    output::put(&if list.json {
        output::json(&rows(), true)?
    } else {
        text()
    })
}

fn text() -> String {
    let rows = rows();
    let name = rows.iter().map(|r| r.name.len()).max().unwrap_or(0);
    let default = rows
        .iter()
        .map(|r| r.default.len())
        .max()
        .unwrap_or(0)
        .max("default".len());
    let unit = rows.iter().map(|r| r.unit.len()).max().unwrap_or(0);
    let mut out = format!(
        "{:name$}  {:default$}  {:unit$}  meaning\n",
        "name", "default", "unit"
    );
    for r in &rows {
        out += &format!(
            "{:name$}  {:default$}  {:unit$}  {}\n",
            r.name, r.default, r.unit, r.meaning
        );
    }
    out += "\nIn the environment: HEAPWRIGHT_ and the name in capitals, like HEAPWRIGHT_MAX=2g.\nPlans:\n";
    for plan in PlanName::ALL {
        out += &format!("  {:name$}  {}\n", plan.name(), plan.about());
    }
    out
}
