//! The log line: what `HEAPWRIGHT_LOG` may say, and how a collection is written. The grammar is in docs/observing.md.

use crate::line::Line;
use crate::record::file_of_process;
use crate::sink::Sink;
use heapwright::{CollectionStats, Event, Listener};
use heapwright_os::{clock, limits};
use std::io;

/// What is written for each collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// The parts of the pause too.
    pub phases: bool,
    /// An object of JSON instead of words.
    pub json: bool,
}

impl Form {
    /// Words, with all fields.
    pub const ALL: Self = Self {
        phases: true,
        json: false,
    };
}

/// `gc[,phases][,json][=FILE]`: the form, and the file, if one is named. `stderr` is `gc,phases`; whatever is neither
/// is the path of a file.
#[must_use]
pub fn parse(value: &[u8]) -> (Form, Option<&[u8]>) {
    if value == b"stderr" {
        return (Form::ALL, None);
    }
    let mut halves = value.splitn(2, |b| *b == b'=');
    let words = halves.next().unwrap_or_default();
    let file = halves.next().filter(|f| !f.is_empty());
    let mut form = Form::default();
    for (i, word) in words.split(|b| *b == b',').enumerate() {
        match word {
            b"gc" if i == 0 => {}
            b"phases" if i > 0 => form.phases = true,
            b"json" if i > 0 => form.json = true,
            _ => return (Form::ALL, Some(value)),
        }
    }
    (form, file)
}

/// The fields of a collection, in the order of the page: words, then numbers. `born_ns`: when the heap was made; `resident_bytes`:
/// what the process has in memory.
pub(crate) fn numbers(
    stats: &CollectionStats,
    phases: bool,
    born_ns: u64,
    resident_bytes: usize,
    mut put: impl FnMut(&str, u64),
) {
    put("at_ns", stats.start_ns.saturating_sub(born_ns));
    put("pause_ns", stats.pause_ns);
    if phases {
        put("stop_ns", stats.stop_ns);
        put("roots_ns", stats.roots_ns);
        put("closure_ns", stats.mark_ns.saturating_sub(stats.roots_ns));
        put("weak_ns", stats.weak_ns);
        put("verify_ns", stats.verify_ns);
        put("release_ns", stats.sweep_ns);
    }
    put("cpu_ns", stats.cpu_ns);
    for (name, value) in [
        ("workers", stats.workers),
        ("before_bytes", stats.before_bytes),
        ("live_bytes", stats.live_bytes),
        ("heap_bytes", stats.heap_bytes),
        ("budget_bytes", stats.budget_bytes),
        ("limit_bytes", stats.limit_bytes),
        ("resident_bytes", resident_bytes),
        ("returned_bytes", stats.returned_bytes),
        ("promoted_bytes", stats.promoted_bytes),
        ("pinned", stats.pinned),
        ("finalizable", stats.finalizable),
        ("violations", stats.violations),
    ] {
        put(name, value as u64);
    }
}

/// The line of a collection.
#[must_use]
pub fn line(stats: &CollectionStats, form: Form, born_ns: u64, resident_bytes: usize) -> Line {
    let mut line = Line::default();
    let (number, cause, kind) = (stats.number, stats.cause.name(), stats.kind());
    if form.json {
        line.put(format_args!(
            "{{\"number\":{number},\"cause\":\"{cause}\",\"kind\":\"{kind}\""
        ));
    } else {
        line.put(format_args!(
            "heapwright: gc number={number} cause={cause} kind={kind}"
        ));
    }
    numbers(
        stats,
        form.phases,
        born_ns,
        resident_bytes,
        |name, value| {
            if form.json {
                line.put(format_args!(",\"{name}\":{value}"));
            } else {
                line.put(format_args!(" {name}={value}"));
            }
        },
    );
    if form.json {
        line.put(format_args!("}}"));
    }
    line
}

/// Writes the line of each collection, for a heap that is embedded.
///
/// ```
/// use heapwright::CollectionStats;
/// use heapwright_observe::log::{self, Form};
///
/// let stats = CollectionStats {
///     number: 1,
///     full: true,
///     pause_ns: 1200,
///     ..CollectionStats::default()
/// };
/// let line = log::line(&stats, Form::default(), 0, 0);
/// assert!(line.text().starts_with("heapwright: gc number=1 cause=budget kind=full at_ns=0 pause_ns=1200"));
/// ```
#[derive(Debug)]
pub struct Logger {
    form: Form,
    sink: Sink,
    born_ns: u64,
}

impl Logger {
    /// As a value of `HEAPWRIGHT_LOG` says: see [`parse`]; `%p` in the file's name is the number of the process.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(value: &[u8]) -> io::Result<Self> {
        let (form, file) = parse(value);
        let sink = match file {
            None => Sink::stderr(),
            Some(file) => {
                let path = file_of_process(file).ok_or(io::ErrorKind::InvalidInput)?;
                Sink::append(&path)?
            }
        };
        Ok(Self::new(form, sink))
    }

    /// Times in the lines are from now on.
    #[must_use]
    pub fn new(form: Form, sink: Sink) -> Self {
        Self {
            form,
            sink,
            born_ns: clock::monotonic_ns(),
        }
    }
}

impl Listener for Logger {
    fn event(&self, event: Event<'_>) {
        if let Event::Collected(stats) = event {
            let resident = limits::resident_bytes();
            self.sink
                .send(&mut line(stats, self.form, self.born_ns, resident));
        }
    }

    fn wants_details(&self) -> bool {
        true
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn text(stats: &CollectionStats, form: Form) -> String {
        let line = line(stats, form, 0, usize::MAX);
        assert!(!line.is_cut());
        line.text().to_owned()
    }

    /// The longest numbers and words that there can be.
    pub(crate) fn longest() -> CollectionStats {
        CollectionStats {
            number: u64::MAX,
            cause: heapwright::Cause::Concurrent,
            begins: true,
            start_ns: u64::MAX,
            pause_ns: u64::MAX,
            stop_ns: u64::MAX,
            mark_ns: u64::MAX,
            roots_ns: u64::MAX / 2,
            weak_ns: u64::MAX,
            verify_ns: u64::MAX,
            sweep_ns: u64::MAX,
            cpu_ns: u64::MAX,
            before_bytes: usize::MAX,
            live_bytes: usize::MAX,
            heap_bytes: usize::MAX,
            limit_bytes: usize::MAX,
            budget_bytes: usize::MAX,
            returned_bytes: usize::MAX,
            promoted_bytes: usize::MAX,
            pinned: usize::MAX,
            finalizable: usize::MAX,
            workers: usize::MAX,
            violations: usize::MAX,
            ..CollectionStats::default()
        }
    }

    #[test]
    fn what_the_variable_may_say() {
        let form = |phases, json| Form { phases, json };
        for (value, wanted) in [
            ("gc", (form(false, false), None)),
            ("gc,phases", (form(true, false), None)),
            ("gc,json,phases", (form(true, true), None)),
            ("gc=a=b", (form(false, false), Some("a=b"))),
            ("gc,json=/x/y", (form(false, true), Some("/x/y"))),
            ("gc=", (form(false, false), None)),
            ("stderr", (Form::ALL, None)),
            ("/x/y", (Form::ALL, Some("/x/y"))),
            ("gc,phase", (Form::ALL, Some("gc,phase"))),
            ("json", (Form::ALL, Some("json"))),
        ] {
            let (form, file) = parse(value.as_bytes());
            assert_eq!((form, file), (wanted.0, wanted.1.map(str::as_bytes)));
        }
    }

    /// The fields of a line of words, read by the grammar of the page: words of `name=value` after the head.
    fn fields(line: &str) -> Vec<(String, String)> {
        line.strip_prefix("heapwright: gc ")
            .unwrap()
            .split(' ')
            .map(|word| word.split_once('=').unwrap())
            .inspect(|(name, value)| {
                assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
                let word = ["cause", "kind"].contains(name);
                assert!(word != value.parse::<u64>().is_ok(), "{name}={value}");
            })
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn the_longest_lines_are_whole_and_both_forms_say_the_same() {
        for phases in [false, true] {
            let words = fields(&text(
                &longest(),
                Form {
                    phases,
                    json: false,
                },
            ));
            assert_eq!(words.last().unwrap().0, "violations");
            assert_eq!(words.len(), if phases { 24 } else { 18 });
            let json = text(&longest(), Form { phases, json: true });
            let object = words.iter().map(|(name, value)| {
                if value.parse::<u64>().is_ok() {
                    format!("\"{name}\":{value}")
                } else {
                    format!("\"{name}\":\"{value}\"")
                }
            });
            let object: Vec<String> = object.collect();
            assert_eq!(json, format!("{{{}}}", object.join(",")));
        }
    }

    #[test]
    fn the_page_names_every_field() {
        let page = include_str!("../../../docs/observing.md");
        for (name, _) in fields(&text(&longest(), Form::ALL)) {
            assert!(page.contains(&format!("| `{name}` |")), "{name}");
        }
    }
}
