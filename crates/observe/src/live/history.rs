//! What a heap told so far, in a fixed amount of memory.

use crate::out::Out;
use crate::picture::Ages;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use heapwright::{Cause, CollectionStats, Event, ForkStep, HeapMap, Listener};
use heapwright_os::{clock, limits};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Collections that are told one by one.
const LAST: usize = 16;
/// Pauses are counted by powers of two, each divided into so many parts: percentiles are at most 1/16 too high.
const PARTS: usize = 16;
const PLACES: usize = 61 * PARTS;

/// A listener that remembers the last collections and sums of all.
#[derive(Debug)]
pub struct History {
    program: String,
    plan: &'static str,
    workers: usize,
    born_ns: u64,
    sums: Mutex<Sums>,
    ages: Mutex<Option<Ages>>,
    returned: AtomicU64,
    out_of_memory: AtomicU64,
    /// This is the child of a fork, in which nobody asks.
    off: AtomicBool,
}

#[derive(Debug)]
struct Sums {
    collections: u64,
    causes: [u64; Cause::ALL.len()],
    pause_ns: u64,
    pause_max_ns: u64,
    cpu_ns: u64,
    peak_heap_bytes: usize,
    pauses: [u32; PLACES],
    last: [CollectionStats; LAST],
}

/// Where a pause is counted.
fn place(ns: u64) -> usize {
    let ns = ns.max(PARTS as u64);
    let power = ns.ilog2() as usize;
    let part = (ns >> (power - 4)) as usize % PARTS;
    (power - 4) * PARTS + part
}

/// The longest pause that is counted there.
fn longest_at(place: usize) -> u64 {
    let (power, part) = (place / PARTS + 4, place % PARTS);
    let next = ((PARTS + part + 1) as u128) << (power - 4);
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

impl Sums {
    fn new() -> Self {
        Self {
            collections: 0,
            causes: [0; Cause::ALL.len()],
            pause_ns: 0,
            pause_max_ns: 0,
            cpu_ns: 0,
            peak_heap_bytes: 0,
            pauses: [0; PLACES],
            last: [CollectionStats::default(); LAST],
        }
    }

    fn add(&mut self, stats: &CollectionStats) {
        self.last[self.collections as usize % LAST] = *stats;
        self.collections += 1;
        self.causes[stats.cause.index()] += 1;
        self.pause_ns += stats.pause_ns;
        self.pause_max_ns = self.pause_max_ns.max(stats.pause_ns);
        self.cpu_ns += stats.cpu_ns;
        self.peak_heap_bytes = self.peak_heap_bytes.max(stats.heap_bytes);
        let count = &mut self.pauses[place(stats.pause_ns)];
        *count = count.saturating_add(1);
    }

    /// The pause that so many thousandths of all do not exceed.
    fn percentile(&self, thousandths: u64) -> u64 {
        let wanted = (self.collections * thousandths).div_ceil(1000);
        let mut seen = 0;
        for (place, count) in self.pauses.iter().enumerate() {
            seen += u64::from(*count);
            if *count > 0 && seen >= wanted {
                return longest_at(place).min(self.pause_max_ns);
            }
        }
        self.pause_max_ns
    }

    /// The last collections, the newest first.
    fn newest(&self) -> impl Iterator<Item = &CollectionStats> {
        let kept = self.collections.min(LAST as u64);
        (1..=kept).map(|back| &self.last[(self.collections - back) as usize % LAST])
    }
}

impl History {
    /// Of a heap that begins.
    #[must_use]
    pub fn new(program: &str, plan: &'static str, workers: usize) -> Self {
        Self {
            program: program.to_owned(),
            plan,
            workers,
            born_ns: clock::monotonic_ns(),
            sums: Mutex::new(Sums::new()),
            ages: Mutex::new(Ages::new().ok()),
            returned: AtomicU64::new(0),
            out_of_memory: AtomicU64::new(0),
            off: AtomicBool::new(false),
        }
    }

    // Held for a moment, by threads that nobody stops meanwhile: the one that collects, and the server's.
    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the heap's blocks have been in use; taken after the heap's lock.
    pub(super) fn with_ages(&self, f: impl FnOnce(&mut Ages)) {
        let mut ages = self.ages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ages) = &mut *ages {
            f(ages);
        }
    }

    pub(super) fn elapsed_ns(&self) -> u64 {
        clock::monotonic_ns().saturating_sub(self.born_ns)
    }

    pub(super) fn collections(&self) -> u64 {
        self.sums().collections
    }

    /// The answer to `status`.
    pub(super) fn status(&self, using: &super::Using, out: &mut Out) {
        out.put(format_args!(
            "{{\"type\":\"status\",\"version\":{},\"pid\":{},\"program\":",
            super::VERSION,
            std::process::id()
        ));
        out.string(&self.program);
        out.put(format_args!(
            ",\"plan\":\"{}\",\"workers\":{}",
            self.plan, self.workers
        ));
        let sums = self.sums();
        for (name, value) in [
            ("at_ns", self.elapsed_ns()),
            ("heap_bytes", using.heap_bytes as u64),
            ("free_bytes", using.free_bytes as u64),
            ("live_bytes", using.live_bytes as u64),
            ("limit_bytes", using.limit_bytes as u64),
            ("allocated_bytes", using.allocated_bytes),
            (
                "peak_heap_bytes",
                sums.peak_heap_bytes.max(using.heap_bytes) as u64,
            ),
            ("resident_bytes", limits::resident_bytes() as u64),
            ("returned_bytes", self.returned.load(Ordering::Relaxed)),
            ("out_of_memory", self.out_of_memory.load(Ordering::Relaxed)),
            ("process_cpu_ns", clock::process_cpu_ns()),
            ("collector_cpu_ns", sums.cpu_ns),
            ("collections", sums.collections),
            ("pause_ns", sums.pause_ns),
        ] {
            out.put(format_args!(",\"{name}\":{value}"));
        }
        out.put(format_args!(",\"causes\":{{"));
        for (i, cause) in Cause::ALL.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            out.put(format_args!("{comma}\"{cause}\":{}", sums.causes[i]));
        }
        out.put(format_args!("}},\"pauses\":{{"));
        for (name, thousandths) in [("p50", 500), ("p90", 900), ("p99", 990), ("p999", 999)] {
            out.put(format_args!(
                "\"{name}_ns\":{},",
                sums.percentile(thousandths)
            ));
        }
        out.put(format_args!(
            "\"max_ns\":{}}},\"last\":[",
            sums.pause_max_ns
        ));
        for (i, stats) in sums.newest().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            out.put(format_args!(
                "{comma}{{\"number\":{},\"cause\":\"{}\",\"kind\":\"{}\"",
                stats.number,
                stats.cause,
                stats.kind()
            ));
            for (name, value) in [
                ("at_ns", stats.start_ns.saturating_sub(self.born_ns)),
                ("pause_ns", stats.pause_ns),
                ("cpu_ns", stats.cpu_ns),
                ("before_bytes", stats.before_bytes as u64),
                ("live_bytes", stats.live_bytes as u64),
                ("heap_bytes", stats.heap_bytes as u64),
                ("returned_bytes", stats.returned_bytes as u64),
            ] {
                out.put(format_args!(",\"{name}\":{value}"));
            }
            out.put(format_args!("}}"));
        }
        out.put(format_args!("]}}\n"));
    }

    fn aged(&self, map: &dyn HeapMap) {
        self.with_ages(|ages| ages.collected(map));
    }
}

impl Listener for History {
    fn event(&self, event: Event<'_>) {
        if self.off.load(Ordering::Relaxed) {
            return;
        }
        match event {
            Event::Collected(stats) => {
                self.returned
                    .fetch_add(stats.returned_bytes as u64, Ordering::Relaxed);
                self.sums().add(stats);
            }
            Event::Map {
                after: true, map, ..
            } => self.aged(map),
            Event::Returned { bytes, .. } => {
                self.returned.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Event::OutOfMemory { .. } => {
                self.out_of_memory.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    fn wants_map(&self) -> bool {
        !self.off.load(Ordering::Relaxed)
    }

    fn fork(&self, step: ForkStep) {
        // The thread that answers may have had one of the locks.
        if step == ForkStep::Child {
            self.off.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_counted_within_a_sixteenth() {
        for ns in (0..2000).chain([1 << 20, (1 << 40) - 1, 1 << 40, u64::MAX - 1, u64::MAX]) {
            let longest = longest_at(place(ns));
            assert!(place(ns) < PLACES);
            assert!(longest >= ns && longest - ns <= (ns / 16).max(16), "{ns}");
            assert!(place(ns) == 0 || longest_at(place(ns) - 1) < ns.max(16));
        }
    }

    #[test]
    fn percentiles_and_the_last_collections_are_those_of_what_came() {
        let mut sums = Sums::new();
        assert_eq!((sums.percentile(500), sums.newest().count()), (0, 0));
        for number in 1..=1000 {
            sums.add(&CollectionStats {
                number,
                pause_ns: number * 1000,
                ..CollectionStats::default()
            });
        }
        for (thousandths, wanted) in [(500, 500_000), (900, 900_000), (999, 999_000)] {
            let is = sums.percentile(thousandths);
            assert!((wanted..=wanted + wanted / 16).contains(&is), "{is}");
        }
        assert_eq!(sums.percentile(1000), 1_000_000);
        let newest: Vec<u64> = sums.newest().map(|s| s.number).collect();
        assert_eq!(newest, (985..=1000).rev().collect::<Vec<_>>());
    }
}
