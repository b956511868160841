//! Recordings: what a heap said while a program ran, read back. `heapwright_observe::record` writes them; docs/observing.md describes
//! the lines.
//!
//! A recording may be of any length: what is kept of it is bounded (`thin`), sums are exact. A line that cannot be read, such as one
//! that was cut when a disk was full or a process was killed, is counted and passed over.

mod digest;
mod mmu;
mod thin;

pub(crate) use digest::Digest;
pub(crate) use mmu::{WINDOWS_MS, utilisation};
pub(crate) use thin::Thin;

use crate::refusal::Refusal;
use heapwright_observe::record::VERSION;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Collections that are kept with all that is known of them.
const MOST_COLLECTIONS: usize = 20_000;
/// Pauses that are kept with beginning and length.
const MOST_PAUSES: usize = 1 << 22;
/// Stops of mutators, and returns of memory, that are kept.
const MOST_OTHERS: usize = 100_000;

/// Who is recorded.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Begin {
    pub(crate) version: u32,
    pub(crate) pid: u32,
    pub(crate) unix_ms: u64,
    pub(crate) program: String,
    pub(crate) plan: String,
    pub(crate) workers: u64,
}

/// A collection, in the words of the log line. What a recording does not say is 0.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Collection {
    pub(crate) number: u64,
    pub(crate) cause: String,
    pub(crate) kind: String,
    pub(crate) at_ns: u64,
    pub(crate) pause_ns: u64,
    pub(crate) stop_ns: u64,
    pub(crate) roots_ns: u64,
    pub(crate) closure_ns: u64,
    pub(crate) weak_ns: u64,
    pub(crate) verify_ns: u64,
    pub(crate) release_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) workers: u64,
    pub(crate) before_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) heap_bytes: u64,
    pub(crate) budget_bytes: u64,
    pub(crate) limit_bytes: u64,
    pub(crate) resident_bytes: u64,
    pub(crate) returned_bytes: u64,
    pub(crate) promoted_bytes: u64,
    pub(crate) copied_bytes: u64,
    pub(crate) pinned: u64,
    pub(crate) finalizable: u64,
    pub(crate) violations: u64,
    pub(crate) process_cpu_ns: u64,
    /// What workers did in it, part by part, if there were several.
    #[serde(skip)]
    pub(crate) shares: Vec<Share>,
}

impl Collection {
    /// The parts of the pause, named, in order.
    pub(crate) fn phases(&self) -> [(&'static str, u64); 6] {
        [
            ("stop", self.stop_ns),
            ("roots", self.roots_ns),
            ("closure", self.closure_ns),
            ("weak", self.weak_ns),
            ("verify", self.verify_ns),
            ("release", self.release_ns),
        ]
    }
}

/// What one worker did in one part of a collection.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Share {
    pub(crate) number: u64,
    pub(crate) part: String,
    pub(crate) worker: u64,
    pub(crate) at_ns: u64,
    pub(crate) ns: u64,
    pub(crate) busy_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) turns: u64,
    pub(crate) steals: u64,
}

/// A mutator was stopped.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Stop {
    pub(crate) thread: u64,
    pub(crate) at_ns: u64,
    pub(crate) ns: u64,
}

/// Something of so many bytes happened then.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Bytes {
    pub(crate) at_ns: u64,
    pub(crate) bytes: u64,
}

/// Objects of a size.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct Class {
    pub(crate) bytes: u64,
    pub(crate) objects: u64,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct End {
    pub(crate) at_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) peak_resident_bytes: u64,
    pub(crate) lost_lines: u64,
}

/// One line.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    Begin(Begin),
    Collection(Collection),
    Worker(Share),
    Stopped(Stop),
    Returned(Bytes),
    OutOfMemory(Bytes),
    Class(Class),
    End(End),
    /// Of a later version, or for another reader.
    #[serde(other)]
    Other,
}

/// A recording, as far as it is kept.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) begin: Begin,
    pub(crate) collections: Thin<Collection>,
    /// All pauses: beginning and length.
    pub(crate) pauses: Thin<(u64, u64)>,
    pub(crate) stops: Thin<Stop>,
    /// What went back to the system beside collections.
    pub(crate) returned: Thin<Bytes>,
    pub(crate) out_of_memory: Thin<Bytes>,
    pub(crate) classes: Vec<Class>,
    /// None: the process did not end in order.
    pub(crate) end: Option<End>,
    pub(crate) sums: digest::Sums,
    /// Lines that could not be read.
    pub(crate) unread: u64,
}

impl Recording {
    fn new(begin: Begin) -> Self {
        Self {
            begin,
            collections: Thin::new(MOST_COLLECTIONS, |c| c.pause_ns),
            pauses: Thin::new(MOST_PAUSES, |p| p.1),
            stops: Thin::new(MOST_OTHERS, |s| s.ns),
            returned: Thin::new(MOST_OTHERS, |r| r.bytes),
            out_of_memory: Thin::new(1000, |_| 0),
            classes: Vec::new(),
            end: None,
            sums: digest::Sums::default(),
            unread: 0,
        }
    }

    /// Reads a recording. Of several in one file, the last.
    pub(crate) fn read(file: &Path) -> Result<Self, Refusal> {
        let mut recording: Option<Self> = None;
        let mut shares: Vec<Share> = Vec::new();
        let unread = each(file, |line| {
            if let Line::Begin(begin) = line {
                recording = Some(Self::new(begin));
                return Ok(());
            }
            let Some(r) = &mut recording else {
                return Ok(());
            };
            match line {
                Line::Collection(mut c) => {
                    c.shares = std::mem::take(&mut shares);
                    c.shares.retain(|s| s.number == c.number);
                    r.sums.add(&c);
                    r.pauses.push((c.at_ns, c.pause_ns));
                    r.collections.push(c);
                }
                Line::Worker(share) => shares.push(share),
                Line::Stopped(stop) => r.stops.push(stop),
                Line::Returned(returned) => {
                    r.sums.returned_bytes += returned.bytes;
                    r.returned.push(returned);
                }
                Line::OutOfMemory(asked) => r.out_of_memory.push(asked),
                Line::Class(class) => r.classes.push(class),
                Line::End(end) => r.end = Some(end),
                Line::Begin(_) | Line::Other => {}
            }
            Ok(())
        })?;
        let mut recording = recording.ok_or_else(|| {
            Refusal::usage(format!(
                "{}: it is no recording: no line says who is recorded",
                file.display()
            ))
        })?;
        recording.unread = unread;
        Ok(recording)
    }

    /// When it ended, as far as is known.
    pub(crate) fn end_ns(&self) -> u64 {
        self.end
            .map_or(self.sums.last_ns, |e| e.at_ns.max(self.sums.last_ns))
    }
}

/// Calls `visit` for each line that can be read, in order; the number of others.
pub(crate) fn each(
    file: &Path,
    mut visit: impl FnMut(Line) -> Result<(), Refusal>,
) -> Result<u64, Refusal> {
    let wrong = |e: &dyn std::fmt::Display| Refusal::usage(format!("{}: {e}", file.display()));
    let mut reader = BufReader::with_capacity(1 << 16, File::open(file).map_err(|e| wrong(&e))?);
    let (mut bytes, mut unread) = (Vec::new(), 0);
    loop {
        bytes.clear();
        // No line of a recording is longer; what has none is not read into memory whole.
        let limited = &mut std::io::Read::take(&mut reader, 1 << 20);
        if limited
            .read_until(b'\n', &mut bytes)
            .map_err(|e| wrong(&e))?
            == 0
        {
            return Ok(unread);
        }
        match serde_json::from_slice::<Line>(&bytes) {
            Ok(Line::Begin(begin)) if begin.version > VERSION => {
                return Err(wrong(&format_args!(
                    "it is of version {}, and this command knows {VERSION}: a newer one is needed",
                    begin.version
                )));
            }
            Ok(line) => visit(line)?,
            Err(_) => unread += 1,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::io::Write;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A recording with so many collections, one each 10 ms, which took 1 ms, and each tenth 5 ms.
    pub(crate) fn written(name: &str, collections: u64, rest: &str) -> std::path::PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("heapwright-{name}-{}-{number}.jsonl", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut file = std::io::BufWriter::new(File::create(&path).unwrap());
        writeln!(
            file,
            r#"{{"type":"begin","version":1,"pid":7,"program":"x","plan":"immix","workers":2}}"#
        )
        .unwrap();
        for n in 1..=collections {
            let pause = if n % 10 == 0 { 5_000_000 } else { 1_000_000 };
            let kind = if n % 4 == 0 { "full" } else { "young" };
            for worker in 0..2 {
                writeln!(file, r#"{{"type":"worker","number":{n},"part":"closure","worker":{worker},"at_ns":{},"ns":900000,"busy_ns":800000,"cpu_ns":700000,"turns":1,"steals":{worker}}}"#, n * 10_000_000 + 1000).unwrap();
            }
            writeln!(file, r#"{{"type":"collection","number":{n},"cause":"budget","kind":"{kind}","at_ns":{},"pause_ns":{pause},"stop_ns":1000,"roots_ns":2000,"closure_ns":900000,"cpu_ns":{pause},"workers":2,"before_bytes":2000000,"live_bytes":1000000,"heap_bytes":1500000,"resident_bytes":3000000,"process_cpu_ns":{}}}"#, n * 10_000_000, n * 10_000_000).unwrap();
        }
        write!(file, "{rest}").unwrap();
        path
    }

    #[test]
    fn is_read_as_it_was_written_whatever_comes_at_its_end() {
        for rest in ["", "{\"type\":\"coll", "{\"type\":\"later\"}\n\u{0}\n{}\n"] {
            let path = written("read", 100, rest);
            let r = Recording::read(&path).unwrap();
            std::fs::remove_file(path).unwrap();
            assert_eq!(r.collections.kept().len(), 100);
            assert_eq!(r.begin.plan, "immix");
            assert_eq!(r.collections.kept()[3].shares[1].steals, 1);
            assert_eq!(r.sums.kinds["full"], 25);
            assert!(r.end.is_none());
            assert_eq!(
                r.unread,
                rest.lines().count() as u64 - u64::from(rest.contains("later"))
            );
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let path = written("none", 0, "");
        std::fs::write(&path, "{}\n").unwrap();
        assert_eq!(Recording::read(&path).unwrap_err().status(), 2);
        std::fs::write(&path, "{\"type\":\"begin\",\"version\":9}\n").unwrap();
        assert!(
            Recording::read(&path)
                .unwrap_err()
                .to_string()
                .contains("newer")
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Recording::read(&path).unwrap_err().status(), 2);
    }

    #[test]
    fn a_long_one_is_kept_in_part_and_its_longest_pauses_are_kept() {
        let path = written("long", 50_000, "");
        let r = Recording::read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(r.sums.collections, 50_000);
        assert!(r.collections.kept().len() <= MOST_COLLECTIONS);
        let long = r
            .collections
            .kept()
            .iter()
            .filter(|c| c.pause_ns == 5_000_000)
            .count();
        assert_eq!(long, 5000);
        assert_eq!(r.pauses.kept().len(), 50_000);
    }
}
