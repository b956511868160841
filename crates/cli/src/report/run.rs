//! What the page of one run shows.

use crate::map::MapData;
use crate::recording::{Class, Digest, Recording, utilisation};
use serde::Serialize;
use std::collections::BTreeMap;

/// How much of a run is shown: a page must stay small.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fineness {
    /// Collections.
    pub(crate) collections: usize,
}

impl Fineness {
    /// For a page of one run.
    pub(crate) const ONE: Self = Self { collections: 4000 };

    /// For each of so many runs on one page.
    pub(crate) fn of_many(runs: usize) -> Self {
        let all = 40_000;
        Self {
            collections: (all / runs.max(1)).clamp(50, Self::ONE.collections),
        }
    }
}

/// In columns: a page with thousands of collections stays below a megabyte. Times in milliseconds, sizes in bytes.
#[derive(Clone, Debug, Default, Serialize)]
struct Columns {
    number: Vec<u64>,
    cause: Vec<usize>,
    kind: Vec<usize>,
    at: Vec<f64>,
    pause: Vec<f64>,
    phases: Vec<Vec<f64>>,
    before: Vec<u64>,
    live: Vec<u64>,
    heap: Vec<u64>,
    limit: Vec<u64>,
    resident: Vec<u64>,
    promoted: Vec<u64>,
    pinned: Vec<u64>,
    finalizable: Vec<u64>,
}

/// A worker in all collections that are kept.
#[derive(Clone, Debug, Default, Serialize)]
struct WorkerSums {
    worker: u64,
    /// Milliseconds of CPU time, part by part.
    cpu: Vec<f64>,
    /// CPU time as a part of the time that shared parts took.
    busy_part: f64,
    turns: u64,
    steals: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
struct ThreadSums {
    thread: u64,
    stops: u64,
    total: f64,
    longest: f64,
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunData {
    kind: &'static str,
    pub(crate) name: String,
    pub(crate) about: String,
    digest: Digest,
    causes: Vec<String>,
    kinds: Vec<String>,
    phases: Vec<&'static str>,
    parts: Vec<String>,
    collections: Columns,
    /// Not all collections are shown.
    thinned: bool,
    /// Of how many pauses one is longer, and how long it is in milliseconds.
    percentiles: Vec<(f64, f64)>,
    mmu: Vec<(f64, f64)>,
    workers: Vec<WorkerSums>,
    threads: Vec<ThreadSums>,
    /// Seconds, and bytes that went back until then.
    returned: Vec<(f64, u64)>,
    classes: Vec<(u64, u64)>,
    /// Pictures of the heap, in a page of one run.
    pub(crate) map: Option<MapData>,
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a run's nanoseconds are below 2^53"
)]
fn ms(ns: u64) -> f64 {
    // A page has no use for more digits.
    (ns as f64 / 1000.0).round() / 1000.0
}

/// The place of a name in a list, to which it is added if need be.
fn place(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|n| n == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

impl RunData {
    pub(crate) fn of(recording: &Recording, name: &str, fineness: Fineness) -> Self {
        let begin = &recording.begin;
        let date = std::time::UNIX_EPOCH + std::time::Duration::from_millis(begin.unix_ms);
        let mut data = Self {
            kind: "run",
            name: name.to_owned(),
            about: format!(
                "{}, process {}, {}, up to {} workers, on {}",
                begin.program,
                begin.pid,
                begin.plan,
                begin.workers,
                humantime::format_rfc3339_seconds(date)
            ),
            digest: Digest::of(recording),
            causes: Vec::new(),
            kinds: Vec::new(),
            phases: Vec::new(),
            parts: Vec::new(),
            collections: Columns::default(),
            thinned: false,
            percentiles: percentiles(recording),
            mmu: mmu(recording),
            workers: Vec::new(),
            threads: threads(recording),
            returned: returned(recording, fineness),
            classes: recording
                .classes
                .iter()
                .map(|Class { bytes, objects }| (*bytes, *objects))
                .collect(),
            map: None,
        };
        if recording.end.is_none() {
            data.about += "; it did not end in order, and this is what was written until then";
        }
        if recording.unread > 0 {
            data.about += &format!("; {} lines could not be read", recording.unread);
        }
        data.fill(recording, fineness);
        data
    }

    fn fill(&mut self, recording: &Recording, fineness: Fineness) {
        let kept = recording.collections.kept();
        let mut shown = crate::recording::Thin::new(
            fineness.collections,
            |c: &&crate::recording::Collection| c.pause_ns,
        );
        kept.iter().for_each(|c| shown.push(c));
        self.thinned = !shown.is_whole() || !recording.collections.is_whole();
        let columns = &mut self.collections;
        for c in shown.kept() {
            columns.number.push(c.number);
            columns.cause.push(place(&mut self.causes, &c.cause));
            columns.kind.push(place(&mut self.kinds, &c.kind));
            columns.at.push(ms(c.at_ns));
            columns.pause.push(ms(c.pause_ns));
            columns
                .phases
                .push(c.phases().iter().map(|(_, ns)| ms(*ns)).collect());
            columns.before.push(c.before_bytes);
            columns.live.push(c.live_bytes);
            columns.heap.push(c.heap_bytes);
            columns.limit.push(c.limit_bytes);
            columns.resident.push(c.resident_bytes);
            columns.promoted.push(c.promoted_bytes);
            columns.pinned.push(c.pinned);
            columns.finalizable.push(c.finalizable);
        }
        self.phases = crate::recording::Collection::default()
            .phases()
            .iter()
            .map(|(n, _)| *n)
            .collect();
        let mut sums: BTreeMap<u64, (BTreeMap<usize, u64>, u64, u64, u64)> = BTreeMap::new();
        // How long the shared parts of collections took, from the first worker's coming to the last's going.
        let mut shared = 0;
        for c in kept {
            let mut parts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
            for s in &c.shares {
                let sum = sums.entry(s.worker).or_default();
                *sum.0.entry(place(&mut self.parts, &s.part)).or_default() += s.cpu_ns;
                sum.1 += s.cpu_ns;
                sum.2 += s.turns;
                sum.3 += s.steals;
                let part = parts.entry(&s.part).or_insert((s.at_ns, 0));
                part.0 = part.0.min(s.at_ns);
                part.1 = part.1.max(s.at_ns + s.ns);
            }
            shared += parts
                .values()
                .map(|(from, to)| to.saturating_sub(*from))
                .sum::<u64>();
        }
        let parts = self.parts.len();
        self.workers = sums
            .into_iter()
            .map(|(worker, (cpu, all, turns, steals))| WorkerSums {
                worker,
                cpu: (0..parts)
                    .map(|p| ms(cpu.get(&p).copied().unwrap_or(0)))
                    .collect(),
                busy_part: (ms(all) / ms(shared).max(1e-6)).min(1.0),
                turns,
                steals,
            })
            .collect();
    }
}

/// The distribution of pauses, at points that lie evenly on a logarithmic scale of how rare a longer one is.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ranks"
)]
fn percentiles(recording: &Recording) -> Vec<(f64, f64)> {
    let mut ns: Vec<u64> = recording.pauses.kept().iter().map(|p| p.1).collect();
    ns.sort_unstable();
    let Some(last) = ns.last() else {
        return Vec::new();
    };
    let count = ns.len() as f64;
    let mut points: Vec<(f64, f64)> = Vec::new();
    let steps = (count.log10() * 40.0).ceil() as i32;
    for step in 0..=steps {
        let one_of = 10f64.powf(f64::from(step) / 40.0).min(count);
        let rank = ((1.0 - 1.0 / one_of) * count) as usize;
        points.push((one_of, ms(ns[rank.min(ns.len() - 1)])));
    }
    points.push((count, ms(*last)));
    points
}

/// Stretches from a tenth of a millisecond to the whole run, and the least utilisation in them.
fn mmu(recording: &Recording) -> Vec<(f64, f64)> {
    let end = recording.end_ns();
    let pauses = recording.pauses.kept();
    let mut points = Vec::new();
    let mut window = 100_000u64;
    while window < end && points.len() < 80 {
        points.push((ms(window), utilisation(pauses, end, window)));
        window += (window / 5).max(1);
    }
    points.push((ms(end.max(1)), utilisation(pauses, end, end)));
    points
}

fn threads(recording: &Recording) -> Vec<ThreadSums> {
    let mut sums: BTreeMap<u64, ThreadSums> = BTreeMap::new();
    for stop in recording.stops.kept() {
        let sum = sums.entry(stop.thread).or_default();
        sum.thread = stop.thread;
        sum.stops += 1;
        sum.total += ms(stop.ns);
        sum.longest = sum.longest.max(ms(stop.ns));
    }
    let mut all: Vec<ThreadSums> = sums.into_values().collect();
    all.sort_by(|a, b| b.total.total_cmp(&a.total));
    all.truncate(20);
    all
}

fn returned(recording: &Recording, fineness: Fineness) -> Vec<(f64, u64)> {
    let beside = recording.returned.kept().iter().map(|r| (r.at_ns, r.bytes));
    let within = recording.collections.kept().iter();
    let within = within
        .filter(|c| c.returned_bytes > 0)
        .map(|c| (c.at_ns, c.returned_bytes));
    let mut all: Vec<(u64, u64)> = beside.chain(within).collect();
    all.sort_unstable();
    let mut sum = 0;
    let mut points = crate::recording::Thin::new(fineness.collections, |p: &(f64, u64)| p.1);
    for (at, bytes) in all {
        sum += bytes;
        points.push((ms(at) / 1000.0, sum));
    }
    points.kept().to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::recording::tests::written;

    fn data(collections: u64, rest: &str) -> RunData {
        let path = written("run-data", collections, rest);
        let recording = Recording::read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        RunData::of(&recording, "x", Fineness::ONE)
    }

    #[test]
    fn a_long_run_makes_a_small_page() {
        let long = data(100_000, "");
        assert!(long.thinned && long.collections.at.len() <= 4000);
        assert_eq!(long.digest.collections, 100_000);
        let text = serde_json::to_string(&long).unwrap();
        assert!(text.len() < 2 << 20, "{}", text.len());
    }

    #[test]
    fn curves_begin_and_end_where_they_must() {
        let some = data(
            100,
            "{\"type\":\"returned\",\"at_ns\":5,\"bytes\":10}\n{\"type\":\"returned\",\"at_ns\":9,\"bytes\":1}\n",
        );
        assert_eq!(some.percentiles.first(), Some(&(1.0, 1.0)));
        assert_eq!(some.percentiles.last(), Some(&(100.0, 5.0)));
        assert!(
            some.percentiles
                .is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1)
        );
        assert!(some.mmu.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1 + 0.05));
        assert_eq!(some.returned.last().unwrap().1, 11);
        assert_eq!(some.workers.len(), 2);
        assert!((some.workers[0].busy_part - 700.0 / 900.0).abs() < 1e-3);
        assert_eq!(some.workers[1].steals, 100);
    }

    #[test]
    fn a_run_without_collections_is_a_page_too() {
        let none = data(0, "");
        assert!(none.percentiles.is_empty() && none.collections.at.is_empty());
        assert!(none.about.contains("did not end in order"));
    }
}
