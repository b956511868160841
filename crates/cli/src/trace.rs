//! A recording as a timeline, for ui.perfetto.dev and chrome://tracing: JSON in the trace event format, as an array.
//!
//! It is written line by line as the recording is read, so its length costs no memory. An array may lack its end: one that was cut
//! short opens.

use crate::recording::{self, Begin, Collection, Line, Share};
use crate::refusal::Refusal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

/// The track of collections; workers and threads have those behind it.
const COLLECTIONS: u64 = 0;

/// Writes all that the recording in `file` has to `out`.
pub(crate) fn write(file: &Path, out: &mut dyn Write) -> Result<(), Refusal> {
    let mut timeline = Timeline {
        out,
        pid: 0,
        named: BTreeSet::new(),
        first: true,
    };
    recording::each(file, |line| {
        timeline
            .line(line)
            .map_err(|e| Refusal::ours(format!("the timeline cannot be written: {e}")))
    })?;
    timeline
        .out
        .write_all(b"\n]\n")
        .and_then(|()| timeline.out.flush())
        .map_err(|e| Refusal::ours(format!("the timeline cannot be written: {e}")))
}

struct Timeline<'a> {
    out: &'a mut dyn Write,
    pid: u32,
    /// Tracks that have a name.
    named: BTreeSet<u64>,
    first: bool,
}

/// Nanoseconds as the format has times: microseconds.
#[allow(
    clippy::cast_precision_loss,
    reason = "a run's nanoseconds are below 2^53"
)]
fn micros(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

impl Timeline<'_> {
    fn line(&mut self, line: Line) -> std::io::Result<()> {
        match line {
            Line::Begin(begin) => self.begin(&begin),
            Line::Collection(c) => self.collection(&c),
            Line::Worker(share) => self.worker(&share),
            Line::Stopped(stop) => {
                let name = format!("thread {}", stop.thread);
                let track = 1000 + stop.thread;
                self.name(track, &name)?;
                self.slice(track, "stopped", stop.at_ns, stop.ns, json!({}))
            }
            Line::Returned(r) => {
                let what = json!({ "bytes": r.bytes });
                self.instant("memory returned", r.at_ns, what)
            }
            Line::OutOfMemory(asked) => {
                let what = json!({ "requested": asked.bytes });
                self.instant("out of memory", asked.at_ns, what)
            }
            Line::End(end) => self.instant("end", end.at_ns, json!({})),
            Line::Class(_) | Line::Other => Ok(()),
        }
    }

    fn begin(&mut self, begin: &Begin) -> std::io::Result<()> {
        self.pid = begin.pid;
        self.named.clear();
        let name = format!("{} on {}", begin.program, begin.plan);
        self.put(
            &json!({"ph": "M", "pid": begin.pid, "name": "process_name", "args": {"name": name}}),
        )?;
        self.name(COLLECTIONS, "collections")
    }

    fn collection(&mut self, c: &Collection) -> std::io::Result<()> {
        let name = format!("{} ({})", c.kind, c.cause);
        let facts = json!({
            "number": c.number, "cause": c.cause, "kind": c.kind, "workers": c.workers, "cpu_us": micros(c.cpu_ns),
            "before_bytes": c.before_bytes, "live_bytes": c.live_bytes, "heap_bytes": c.heap_bytes,
            "returned_bytes": c.returned_bytes, "promoted_bytes": c.promoted_bytes, "copied_bytes": c.copied_bytes,
            "pinned": c.pinned, "finalizable": c.finalizable, "violations": c.violations,
        });
        self.slice(COLLECTIONS, &name, c.at_ns, c.pause_ns, facts)?;
        let (mut at, end) = (c.at_ns, c.at_ns + c.pause_ns);
        for (name, ns) in c.phases() {
            // What is released when the world runs again follows the pause.
            let start = if name == "release" && at + ns > end {
                end
            } else {
                at
            };
            if ns > 0 {
                self.slice(COLLECTIONS, name, start, ns, json!({}))?;
            }
            at = start + ns;
        }
        for (counter, bytes) in [
            ("live", c.live_bytes),
            ("heap", c.heap_bytes),
            ("resident", c.resident_bytes),
        ] {
            self.put(&json!({"ph": "C", "pid": self.pid, "ts": micros(end), "name": counter, "args": {"bytes": bytes}}))?;
        }
        Ok(())
    }

    fn worker(&mut self, share: &Share) -> std::io::Result<()> {
        let track = 1 + share.worker;
        self.name(track, &format!("worker {}", share.worker))?;
        let facts = json!({
            "collection": share.number, "busy_us": micros(share.busy_ns), "cpu_us": micros(share.cpu_ns),
            "turns": share.turns, "steals": share.steals,
        });
        self.slice(track, &share.part, share.at_ns, share.ns, facts)
    }

    fn name(&mut self, track: u64, name: &str) -> std::io::Result<()> {
        if !self.named.insert(track) {
            return Ok(());
        }
        let name = json!({"ph": "M", "pid": self.pid, "tid": track, "name": "thread_name", "args": {"name": name}});
        self.put(&name)?;
        // In the order of their numbers.
        let order = json!({"ph": "M", "pid": self.pid, "tid": track, "name": "thread_sort_index", "args": {"sort_index": track}});
        self.put(&order)
    }

    fn slice(
        &mut self,
        track: u64,
        name: &str,
        at: u64,
        ns: u64,
        args: Value,
    ) -> std::io::Result<()> {
        self.put(&json!({
            "ph": "X", "pid": self.pid, "tid": track, "ts": micros(at), "dur": micros(ns), "cat": "gc", "name": name,
            "args": args,
        }))
    }

    fn instant(&mut self, name: &str, at: u64, args: Value) -> std::io::Result<()> {
        self.put(&json!({
            "ph": "i", "pid": self.pid, "tid": COLLECTIONS, "ts": micros(at), "s": "p", "cat": "gc", "name": name,
            "args": args,
        }))
    }

    fn put(&mut self, event: &Value) -> std::io::Result<()> {
        let before = if self.first { "[\n" } else { ",\n" };
        self.first = false;
        write!(self.out, "{before}{event}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::recording::tests::written;

    #[test]
    fn every_collection_worker_and_stop_is_a_slice() {
        let rest = r#"{"type":"stopped","thread":77,"at_ns":10000500,"ns":900000}
{"type":"returned","at_ns":20000000,"bytes":4096}
"#;
        let path = written("trace", 20, rest);
        let mut out = Vec::new();
        write(&path, &mut out).unwrap();
        std::fs::remove_file(path).unwrap();
        let events: Vec<Value> = serde_json::from_slice(&out).unwrap();
        let count = |name: &str| {
            events
                .iter()
                .filter(|e| e["name"] == name && e["ph"] == "X")
                .count()
        };
        assert_eq!(
            (
                count("full (budget)"),
                count("young (budget)"),
                count("stopped")
            ),
            (5, 15, 1)
        );
        // Of the collections, and of two workers each.
        assert_eq!(count("closure"), 20 + 2 * 20);
        // Phases lie in their collection.
        let inside = |e: &&Value| e["tid"] == COLLECTIONS && e["ph"] == "X";
        let mut end = 0.0;
        for e in events.iter().filter(inside) {
            let (at, ns) = (e["ts"].as_f64().unwrap(), e["dur"].as_f64().unwrap());
            if e["cat"] == "gc" && e["name"].as_str().unwrap().contains('(') {
                assert!(at >= end);
                end = at + ns;
            } else {
                assert!(at + ns <= end + 1e-6);
            }
        }
    }
}
