//! Tables for people: one for each workload and heap, and at the end who was best.

use super::record::Sized;
use super::request::{Load, Request};
use super::summary::{End, Medians, Summary};

const MIB: f64 = 1024.0 * 1024.0;

/// One workload in one heap, on all plans.
#[derive(Debug)]
pub(crate) struct Block {
    load: Load,
    heap: Sized,
    rows: Vec<Summary>,
}

/// A column: two lines of heading, and how a cell is written.
struct Column {
    heads: [&'static str; 2],
    cell: fn(&Medians) -> Option<String>,
}

const COLUMNS: &[Column] = &[
    column("time", "s", |m| Some(format!("{:.3}", m.wall_s))),
    column("mutator", "s", |m| Some(format!("{:.3}", m.mutator_s))),
    column("collector", "s", |m| Some(format!("{:.3}", m.gc_s))),
    column("collections", "(full)", |m| {
        Some(format!("{:.0} ({:.0})", m.collections, m.full_collections))
    }),
    column("pause ms", "median", |m| m.pause_ms[0].map(short)),
    column("", "p99", |m| m.pause_ms[1].map(short)),
    column("", "max", |m| m.pause_ms[2].map(short)),
    column("resident", "peak MiB", |m| {
        Some(format!("{:.1}", m.peak_bytes / MIB))
    }),
    column("trace", "ns/object", |m| m.trace_ns.map(short)),
    column("operation us", "median", |m| micros(m, 0)),
    column("", "p99", |m| micros(m, 1)),
    column("", "p99.9", |m| micros(m, 2)),
    column("", "max", |m| micros(m, 3)),
];

const fn column(
    above: &'static str,
    below: &'static str,
    cell: fn(&Medians) -> Option<String>,
) -> Column {
    Column {
        heads: [above, below],
        cell,
    }
}

/// A measured number with three digits or more.
fn short(n: f64) -> String {
    match n {
        ..10.0 => format!("{n:.2}"),
        ..100.0 => format!("{n:.1}"),
        _ => format!("{n:.0}"),
    }
}

fn micros(m: &Medians, which: usize) -> Option<String> {
    m.operation_ns[which].map(|ns| short(ns / 1e3))
}

#[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / MIB)
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

impl Block {
    pub(crate) fn new(load: Load, heap: Sized, rows: Vec<Summary>) -> Self {
        Self { load, heap, rows }
    }

    /// The block with its title.
    pub(crate) fn text(&self, request: &Request) -> String {
        let heap = match (self.heap.bytes, self.heap.smallest) {
            (0, None) => "no limit".to_owned(),
            (bytes, None) => mib(bytes),
            (bytes, Some(smallest)) => format!(
                "{}: {} the smallest, {}",
                mib(bytes),
                self.heap.heap,
                mib(smallest)
            ),
        };
        let mut out = format!(
            "{}, scale {} (heap {heap}; {}, {}",
            self.load.info.name,
            self.load.scale,
            count(request.workers, "worker"),
            count(self.load.mutators, "mutator"),
        );
        if request.iterations > 1 {
            out += &format!("; medians of {} runs", request.iterations);
        }
        out + ")\n" + &self.grid() + "\n"
    }

    /// Columns in which no plan has anything are left out.
    fn grid(&self) -> String {
        let columns: Vec<&Column> = COLUMNS
            .iter()
            .filter(|c| {
                let heads_a_group = c.heads[0].starts_with("pause");
                heads_a_group
                    || self
                        .rows
                        .iter()
                        .filter_map(Summary::medians)
                        .any(|m| (c.cell)(m).is_some())
            })
            .collect();
        let mut lines = vec![
            Line::cells("", columns.iter().map(|c| c.heads[0].to_owned())),
            Line::cells("plan", columns.iter().map(|c| c.heads[1].to_owned())),
        ];
        lines.extend(self.rows.iter().map(|row| {
            match &row.end {
                End::Well(m) => Line::cells(
                    row.plan,
                    columns
                        .iter()
                        .map(|c| (c.cell)(m).unwrap_or_else(|| "-".to_owned())),
                ),
                End::Badly(why) => Line::Words(row.plan.to_owned(), why.clone()),
            }
        }));
        grid(&lines)
    }
}

/// A line of a grid: a name, then cells or a sentence.
enum Line {
    Cells(String, Vec<String>),
    Words(String, String),
}

impl Line {
    fn cells(name: impl Into<String>, cells: impl Iterator<Item = String>) -> Self {
        Self::Cells(name.into(), cells.collect())
    }

    fn name(&self) -> &str {
        match self {
            Self::Cells(name, _) | Self::Words(name, _) => name,
        }
    }

    fn width(&self, column: usize) -> usize {
        match self {
            Self::Cells(_, cells) => cells.get(column).map_or(0, |c| c.chars().count()),
            Self::Words(..) => 0,
        }
    }
}

/// Names to the left, cells to the right.
fn grid(lines: &[Line]) -> String {
    let names = lines.iter().map(|l| l.name().len()).max().unwrap_or(0);
    let mut out = String::new();
    for line in lines {
        let mut text = format!("  {:names$}", line.name());
        match line {
            Line::Words(_, words) => text += &format!("  {words}"),
            Line::Cells(_, cells) => {
                for (at, cell) in cells.iter().enumerate() {
                    let width = lines.iter().map(|l| l.width(at)).max().unwrap_or(0);
                    text += &format!("  {cell:>width$}");
                }
            }
        }
        out += text.trim_end();
        out.push('\n');
    }
    out
}

/// What a plan can be best at: the number, and how it is written.
struct Merit {
    name: &'static str,
    value: fn(&Medians) -> Option<f64>,
    text: fn(f64) -> String,
}

const MERITS: [Merit; 3] = [
    Merit {
        name: "least time",
        value: |m| Some(m.wall_s),
        text: |s| format!("{s:.3} s"),
    },
    Merit {
        name: "least memory",
        value: |m| Some(m.peak_bytes),
        text: |b| format!("{:.1} MiB", b / MIB),
    },
    Merit {
        name: "shortest pauses",
        value: |m| m.pause_ms[2],
        text: |ms| format!("{} ms at most", short(ms)),
    },
];

/// Which plan was best at what; nothing where there was no contest.
pub(crate) fn best(blocks: &[Block]) -> String {
    let mut rows = vec![[""; 4].map(str::to_owned)];
    for (head, merit) in rows
        .iter_mut()
        .flat_map(|r| r.iter_mut().skip(1))
        .zip(&MERITS)
    {
        merit.name.clone_into(head);
    }
    for block in blocks {
        let ran = block.rows.iter().filter(|r| r.medians().is_some());
        if ran.count() < 2 {
            continue;
        }
        let [time, memory, pause] = MERITS.each_ref().map(|m| winner(block, m));
        let name = format!("{} {}", block.load.info.name, block.heap.heap);
        rows.push([name, time, memory, pause]);
    }
    if rows.len() < 2 {
        return String::new();
    }
    let mut out = "Best:\n".to_owned();
    for row in &rows {
        let mut text = String::new();
        for (at, cell) in row.iter().enumerate() {
            let width = rows
                .iter()
                .map(|r| r[at].chars().count())
                .max()
                .unwrap_or(0);
            text += &format!("  {cell:width$}");
        }
        out += text.trim_end();
        out.push('\n');
    }
    out
}

fn winner(block: &Block, merit: &Merit) -> String {
    let mut found: Option<(f64, &str)> = None;
    for row in &block.rows {
        if let Some(value) = row.medians().and_then(merit.value)
            && found.is_none_or(|(least, _)| value < least)
        {
            found = Some((value, row.plan));
        }
    }
    found.map_or_else(
        || "-".to_owned(),
        |(value, plan)| format!("{plan} {}", (merit.text)(value)),
    )
}
