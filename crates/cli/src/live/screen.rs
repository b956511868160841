//! What `heapwright top` shows.

use super::{Last, Status};
use crate::summary::size;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Row, Table};
use std::collections::VecDeque;

/// Looks that are kept for the curves.
const KEPT: usize = 600;
/// Collections that are listed.
const LISTED: usize = 10;

/// All that was seen.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    seen: VecDeque<Status>,
    paused: bool,
    /// What a key led to.
    pub(crate) message: String,
    none: Status,
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Rates {
    /// Bytes a second.
    allocated: f64,
    /// The collector's part of the CPU time of the process.
    collector: f64,
}

impl Rates {
    fn between(before: &Status, now: &Status) -> Self {
        let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
        let more = |f: fn(&Status) -> u64| f(now).saturating_sub(f(before));
        let ns = more(|s| s.at_ns);
        Self {
            allocated: ratio(more(|s| s.allocated_bytes), ns) * 1e9,
            collector: ratio(more(|s| s.collector_cpu_ns), more(|s| s.process_cpu_ns)).min(1.0),
        }
    }
}

impl Screen {
    /// One more look. While it is paused, it is dropped.
    pub(crate) fn add(&mut self, status: Status) {
        if self.paused {
            return;
        }
        if self.seen.len() == KEPT {
            self.seen.pop_front();
        }
        self.seen.push_back(status);
    }

    pub(crate) fn pause(&mut self) {
        self.paused = !self.paused;
    }

    /// The last look.
    pub(crate) fn now(&self) -> &Status {
        self.seen.back().unwrap_or(&self.none)
    }

    /// Of the last second or so; from the begin if there was one look.
    fn rates(&self) -> Rates {
        let now = self.now();
        let is_old = |s: &&Status| now.at_ns.saturating_sub(s.at_ns) >= 1_000_000_000;
        let before = self.seen.iter().rev().find(is_old);
        let before = before.or(self.seen.front().filter(|_| self.seen.len() > 1));
        Rates::between(before.unwrap_or(&Status::default()), now)
    }
}

fn seconds(ns: u64) -> String {
    format!("{:.1} s", ns as f64 / 1e9)
}

fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{:.1} us", ns as f64 / 1e3),
        10_000..1_000_000 => format!("{:.0} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

fn name(status: &Status) -> &str {
    status.program.rsplit('/').next().unwrap_or_default()
}

fn heading(status: &Status) -> String {
    let workers = if status.workers == 1 {
        "worker"
    } else {
        "workers"
    };
    format!(
        "{} (process {}), {}, {} {workers}, {}",
        name(status),
        status.pid,
        status.plan,
        status.workers,
        seconds(status.at_ns)
    )
}

/// The numbers that stand at the top: what they are called, and what they are.
fn facts(status: &Status, rates: Rates) -> Vec<(&'static str, String)> {
    let limit = match status.limit_bytes {
        0 => "none".to_owned(),
        bytes => size(bytes),
    };
    let causes: Vec<String> = status
        .causes
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(cause, n)| format!("{n} {cause}"))
        .collect();
    let mut collections = status.collections.to_string();
    if !causes.is_empty() {
        collections += &format!(" ({})", causes.join(", "));
    }
    let mut facts = vec![
        (
            "heap",
            format!(
                "{} (free {}, peak {}, limit {limit})",
                size(status.heap_bytes),
                size(status.free_bytes),
                size(status.peak_heap_bytes)
            ),
        ),
        (
            "live",
            format!("{} at the last collection", size(status.live_bytes)),
        ),
        (
            "resident",
            format!(
                "{} (returned {} so far)",
                size(status.resident_bytes),
                size(status.returned_bytes)
            ),
        ),
        (
            "allocation",
            format!(
                "{}/s (all in all {})",
                size(rates.allocated as u64),
                size(status.allocated_bytes)
            ),
        ),
        ("collections", collections),
        (
            "collector",
            format!(
                "{:.1} % of the CPU time (all in all {:.1} %)",
                rates.collector * 100.0,
                Rates::between(&Status::default(), status).collector * 100.0
            ),
        ),
    ];
    if status.out_of_memory > 0 {
        facts.push(("failed", format!("{} allocations", status.out_of_memory)));
    }
    facts
}

fn pauses(status: &Status) -> [(&'static str, u64); 5] {
    let p = &status.pauses;
    [
        ("50 %", p.p50_ns),
        ("90 %", p.p90_ns),
        ("99 %", p.p99_ns),
        ("99.9 %", p.p999_ns),
        ("longest", p.max_ns),
    ]
}

const COLUMNS: [&str; 7] = ["number", "at", "cause", "kind", "pause", "before", "live"];
const WIDTHS: [u16; 7] = [8, 9, 10, 5, 9, 9, 9];

fn columns(last: &Last) -> [String; 7] {
    [
        last.number.to_string(),
        seconds(last.at_ns),
        last.cause.clone(),
        last.kind.clone(),
        time(last.pause_ns),
        size(last.before_bytes),
        size(last.live_bytes),
    ]
}

/// All of it as text, for who looks once.
pub(crate) fn text(status: &Status) -> String {
    let mut text = heading(status) + "\n\n";
    for (name, value) in facts(status, Rates::between(&Status::default(), status)) {
        text += &format!("{name:<12} {value}\n");
    }
    let pauses: Vec<String> = pauses(status)
        .iter()
        .map(|(name, ns)| format!("{name} {}", time(*ns)))
        .collect();
    text += &format!("{:<12} {}\n", "pauses", pauses.join(", "));
    if !status.last.is_empty() {
        let row = |cells: [&str; 7]| {
            let padded: Vec<String> = (cells.iter().zip(WIDTHS))
                .map(|(c, w)| format!("{c:<w$}", w = usize::from(w)))
                .collect();
            padded.join(" ").trim_end().to_owned() + "\n"
        };
        text += &format!("\n{}", row(COLUMNS));
        for last in status.last.iter().take(LISTED) {
            text += &row(columns(last).each_ref().map(String::as_str));
        }
    }
    text
}

/// Draws the screen, whatever its size.
pub(crate) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let status = screen.now();
    let facts = facts(status, screen.rates());
    let [head, top, middle, bottom, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(facts.len() as u16 + 1),
        Constraint::Min(5),
        Constraint::Length(LISTED as u16 + 3),
        Constraint::Length(1),
    ])
    .areas(frame.area());

    let title = Line::from(vec![
        " heapwright top ".bold().reversed(),
        Span::raw(" "),
        heading(status).into(),
    ]);
    frame.render_widget(title, head);
    let lines: Vec<Line<'_>> = facts
        .into_iter()
        .map(|(name, value)| Line::from(vec![format!("{name:>12}  ").dim(), value.into()]))
        .collect();
    frame.render_widget(Paragraph::new(lines), top);
    let [heap, rate] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(middle);
    curves(frame, heap, " heap (cyan), live (green) ", screen, false);
    curves(frame, rate, " allocation a second ", screen, true);

    let [table, distribution] =
        Layout::horizontal([Constraint::Min(40), Constraint::Length(24)]).areas(bottom);
    let rows = status
        .last
        .iter()
        .take(LISTED)
        .map(|l| Row::new(columns(l)));
    let last = Table::new(rows, WIDTHS)
        .header(Row::new(COLUMNS).style(Style::new().add_modifier(Modifier::DIM)))
        .block(Block::bordered().title(" last collections "));
    frame.render_widget(last, table);
    let lines: Vec<Line<'_>> = pauses(status)
        .iter()
        .map(|(name, ns)| format!("{name:>8}  {:>10}", time(*ns)).into())
        .collect();
    let percentiles = Paragraph::new(lines).block(Block::bordered().title(" pauses "));
    frame.render_widget(percentiles, distribution);

    let keys = if screen.paused {
        " q end   p go on   c collect   PAUSED "
    } else {
        " q end   p pause   c collect "
    };
    let foot_line = Line::from(vec![
        keys.reversed(),
        Span::raw(" "),
        screen.message.as_str().dim(),
    ]);
    frame.render_widget(foot_line, foot);
}

/// Curves over time: the heap's size, or how much is allocated.
fn curves(frame: &mut Frame<'_>, area: Rect, title: &str, screen: &Screen, rate: bool) {
    let at = |s: &Status| s.at_ns as f64 / 1e9;
    let curve = |f: fn(&Status) -> u64| -> Vec<(f64, f64)> {
        screen.seen.iter().map(|s| (at(s), f(s) as f64)).collect()
    };
    let mut data: Vec<(Vec<(f64, f64)>, Color)> = Vec::new();
    if rate {
        let pairs = screen.seen.iter().zip(screen.seen.iter().skip(1));
        let rates = pairs.map(|(a, b)| (at(b), Rates::between(a, b).allocated));
        data.push((rates.collect(), Color::Yellow));
    } else {
        data.push((curve(|s| s.heap_bytes), Color::Cyan));
        data.push((curve(|s| s.live_bytes), Color::Green));
    }
    let most = data
        .iter()
        .flat_map(|(d, _)| d)
        .map(|(_, y)| *y)
        .fold(1.0, f64::max);
    let first = screen.seen.front().map_or(0.0, at);
    let last = screen.seen.back().map_or(1.0, at).max(first + 1.0);
    let sets = data
        .iter()
        .map(|(points, color)| {
            Dataset::default()
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(Style::new().fg(*color))
                .data(points)
        })
        .collect();
    let chart = Chart::new(sets)
        .block(Block::bordered().title(title))
        .x_axis(
            Axis::default()
                .bounds([first, last])
                .labels([format!("{first:.0} s"), format!("{last:.0} s")]),
        )
        .y_axis(
            Axis::default()
                .bounds([0.0, most * 1.05])
                .labels(["0".to_owned(), size(most as u64)]),
        );
    frame.render_widget(chart, area);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn canned(second: u64) -> Status {
        let last = |number: u64| Last {
            number,
            cause: "budget".to_owned(),
            kind: "full".to_owned(),
            at_ns: number * 10_000_000,
            pause_ns: 1_250_000,
            before_bytes: 48 << 20,
            live_bytes: 20 << 20,
            ..Last::default()
        };
        Status {
            version: 1,
            pid: 1234,
            program: "/usr/bin/guile-3.0".to_owned(),
            plan: "marksweep".to_owned(),
            workers: 2,
            at_ns: second * 1_000_000_000,
            heap_bytes: (32 + 8 * (second % 3)) << 20,
            free_bytes: 5 << 20,
            live_bytes: 20 << 20,
            limit_bytes: 1 << 30,
            allocated_bytes: second * (100 << 20),
            peak_heap_bytes: 48 << 20,
            resident_bytes: 60 << 20,
            process_cpu_ns: second * 1_000_000_000,
            collector_cpu_ns: second * 50_000_000,
            collections: 12,
            causes: [("budget".to_owned(), 11), ("requested".to_owned(), 1)].into(),
            pauses: super::super::Pauses {
                p50_ns: 1_000_000,
                p90_ns: 1_200_000,
                p99_ns: 3_000_000,
                p999_ns: 3_000_000,
                max_ns: 3_100_000,
            },
            last: (0..12).map(|i| last(12 - i)).collect(),
            ..Status::default()
        }
    }

    fn drawn(screen: &Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
        terminal.backend().to_string()
    }

    fn screen() -> Screen {
        let mut screen = Screen::default();
        (1..=30).for_each(|s| screen.add(canned(s)));
        screen
    }

    #[test]
    fn the_screen_says_what_the_status_says() {
        let text = drawn(&screen(), 100, 32);
        for line in [
            " heapwright top  guile-3.0 (process 1234), marksweep, 2 workers, 30.0 s",
            "        heap  32.0 MiB (free 5.0 MiB, peak 48.0 MiB, limit 1.0 GiB)",
            "        live  20.0 MiB at the last collection",
            "    resident  60.0 MiB (returned 0 KiB so far)",
            "  allocation  100.0 MiB/s (all in all 2.9 GiB)",
            " collections  12 (11 budget, 1 requested)",
            "   collector  5.0 % of the CPU time (all in all 5.0 %)",
            "number   at        cause      kind  pause     before    live",
            "12       0.1 s     budget     full  1.25 ms   48.0 MiB  20.0 MiB",
            "  99.9 %     3.00 ms",
            " q end   p pause   c collect ",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        // Ten collections of the twelve, and curves.
        assert_eq!(text.matches("1.25 ms").count(), LISTED);
        assert!(
            text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)),
            "{text}"
        );
    }

    #[test]
    fn any_size_can_be_drawn_and_nothing_is_needed() {
        for (width, height) in [(1, 1), (10, 3), (40, 10), (80, 24), (300, 100)] {
            drawn(&screen(), width, height);
            drawn(&Screen::default(), width, height);
        }
    }

    #[test]
    fn a_paused_screen_stays_and_says_so() {
        let mut screen = screen();
        screen.pause();
        screen.add(canned(40));
        assert_eq!(screen.now().at_ns, 30_000_000_000);
        assert!(drawn(&screen, 100, 32).contains("PAUSED"));
        screen.pause();
        screen.add(canned(40));
        assert_eq!(screen.now().at_ns, 40_000_000_000);
    }

    #[test]
    fn text_has_the_same_numbers() {
        let text = text(&canned(2));
        assert!(text.starts_with("guile-3.0 (process 1234), marksweep, 2 workers, 2.0 s\n"));
        assert!(
            text.contains("allocation   100.0 MiB/s (all in all 200.0 MiB)\n"),
            "{text}"
        );
        assert!(
            text.contains("pauses       50 % 1.00 ms, 90 % 1.20 ms, 99 % 3.00 ms"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2 + 7 + 2 + LISTED);
    }
}
