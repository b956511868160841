//! What a run's collections come to.

use super::{Collection, Recording, WINDOWS_MS, utilisation};
use serde::Serialize;
use std::collections::BTreeMap;

/// Sums over all collections, exact however long the recording is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) collections: u64,
    pub(crate) kinds: BTreeMap<String, u64>,
    pub(crate) causes: BTreeMap<String, u64>,
    pub(crate) pause_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) process_cpu_ns: u64,
    pub(crate) violations: u64,
    pub(crate) returned_bytes: u64,
    pub(crate) peak_heap_bytes: u64,
    pub(crate) peak_resident_bytes: u64,
    /// When the last collection ended.
    pub(crate) last_ns: u64,
    /// The heap's size after the last collection, and its integral over the time until then.
    heap_bytes: u64,
    byte_ns: u128,
}

impl Sums {
    pub(super) fn add(&mut self, c: &Collection) {
        self.collections += 1;
        *self.kinds.entry(c.kind.clone()).or_default() += 1;
        *self.causes.entry(c.cause.clone()).or_default() += 1;
        self.pause_ns += c.pause_ns;
        self.cpu_ns += c.cpu_ns;
        self.process_cpu_ns = self.process_cpu_ns.max(c.process_cpu_ns);
        self.violations += c.violations;
        self.returned_bytes += c.returned_bytes;
        let peak = c.before_bytes.max(c.heap_bytes + c.returned_bytes);
        self.peak_heap_bytes = self.peak_heap_bytes.max(peak);
        self.peak_resident_bytes = self.peak_resident_bytes.max(c.resident_bytes);
        // Between two collections the heap grows from one's end to the other's beginning: the mean of both.
        let end = c.at_ns + c.pause_ns;
        let mean = u128::from(self.heap_bytes + c.before_bytes) / 2;
        self.byte_ns += mean * u128::from(end.saturating_sub(self.last_ns));
        self.last_ns = self.last_ns.max(end);
        self.heap_bytes = c.heap_bytes;
    }

    fn mean_heap_bytes(&self, end_ns: u64) -> u64 {
        let rest = u128::from(end_ns.saturating_sub(self.last_ns)) * u128::from(self.heap_bytes);
        let mean = (self.byte_ns + rest).checked_div(u128::from(end_ns.max(self.last_ns)));
        mean.and_then(|m| u64::try_from(m).ok()).unwrap_or(0)
    }
}

/// Percentiles of pauses, in nanoseconds: values that occurred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Pauses {
    pub(crate) total: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Pauses {
    /// Of pauses in any order, whose sum is `total`.
    pub(crate) fn of(mut ns: Vec<u64>, total: u64) -> Self {
        ns.sort_unstable();
        let part = |per_mille: usize| {
            let rank = (ns.len() * per_mille).div_ceil(1000);
            ns.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        Self {
            total,
            p50: part(500),
            p90: part(900),
            p99: part(990),
            p999: part(999),
            max: part(1000),
        }
    }
}

/// What a run's collections come to.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Digest {
    pub(crate) plan: String,
    /// The most that the heap may have.
    pub(crate) workers: u64,
    pub(crate) collections: u64,
    /// How many of each kind.
    pub(crate) kinds: BTreeMap<String, u64>,
    /// How many for each cause.
    pub(crate) causes: BTreeMap<String, u64>,
    pub(crate) pause_ns: Pauses,
    /// Minimum mutator utilisation in stretches of 1, 10 and 100 ms, from 0 to 1.
    pub(crate) mmu: [f64; WINDOWS_MS.len()],
    /// CPU time of collections, all workers.
    pub(crate) gc_cpu_ns: u64,
    /// The part of the process's CPU time that it is.
    pub(crate) gc_cpu_share: f64,
    pub(crate) peak_heap_bytes: u64,
    /// The mean over time.
    pub(crate) mean_heap_bytes: u64,
    pub(crate) peak_resident_bytes: u64,
    pub(crate) returned_bytes: u64,
    /// 0: not known.
    pub(crate) allocated_bytes: u64,
    pub(crate) wall_ns: u64,
    pub(crate) violations: u64,
}

impl Digest {
    #[allow(clippy::cast_precision_loss, reason = "a part of a whole")]
    pub(crate) fn of(recording: &Recording) -> Self {
        let (sums, end) = (&recording.sums, recording.end.unwrap_or_default());
        let pauses = recording.pauses.kept();
        let end_ns = recording.end_ns();
        let cpu = end.cpu_ns.max(sums.process_cpu_ns);
        Self {
            plan: recording.begin.plan.clone(),
            workers: recording.begin.workers,
            collections: sums.collections,
            kinds: sums.kinds.clone(),
            causes: sums.causes.clone(),
            pause_ns: Pauses::of(pauses.iter().map(|p| p.1).collect(), sums.pause_ns),
            mmu: WINDOWS_MS.map(|ms| utilisation(pauses, end_ns, ms * 1_000_000)),
            gc_cpu_ns: sums.cpu_ns,
            gc_cpu_share: if cpu == 0 {
                0.0
            } else {
                sums.cpu_ns as f64 / cpu as f64
            },
            peak_heap_bytes: sums.peak_heap_bytes,
            mean_heap_bytes: sums.mean_heap_bytes(end_ns),
            peak_resident_bytes: sums.peak_resident_bytes.max(end.peak_resident_bytes),
            returned_bytes: sums.returned_bytes,
            allocated_bytes: end.allocated_bytes,
            wall_ns: end_ns,
            violations: sums.violations,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::tests::written;
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        assert_eq!(Pauses::of(vec![], 0), Pauses::default());
        let pauses = Pauses::of((1..=1000).rev().collect(), 500_500);
        assert_eq!(
            (pauses.p50, pauses.p90, pauses.p99, pauses.p999, pauses.max),
            (500, 900, 990, 999, 1000)
        );
    }

    #[test]
    fn a_run_comes_to_what_it_says() {
        let end = r#"{"type":"returned","at_ns":1005000000,"bytes":4096}
{"type":"end","at_ns":1010000000,"cpu_ns":1400000000,"allocated_bytes":99,"peak_resident_bytes":4000000}
"#;
        let path = written("digest", 100, end);
        let recording = Recording::read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let d = Digest::of(&recording);
        assert_eq!(
            (d.collections, d.kinds["young"], d.causes["budget"]),
            (100, 75, 100)
        );
        assert_eq!(
            (d.pause_ns.p50, d.pause_ns.p90, d.pause_ns.p99),
            (1_000_000, 1_000_000, 5_000_000)
        );
        assert_eq!((d.pause_ns.total, d.gc_cpu_ns), (140_000_000, 140_000_000));
        // 5 ms in the worst 10, and in the worst 100 one such and nine of 1 ms.
        assert_eq!(d.mmu[0], 0.0);
        assert!(
            (d.mmu[1] - 0.5).abs() < 1e-9 && (d.mmu[2] - 0.86).abs() < 1e-9,
            "{:?}",
            d.mmu
        );
        assert!((d.gc_cpu_share - 0.1).abs() < 1e-9);
        assert_eq!(
            (d.peak_heap_bytes, d.peak_resident_bytes),
            (2_000_000, 4_000_000)
        );
        assert_eq!((d.returned_bytes, d.allocated_bytes), (4096, 99));
        assert!(
            (1_700_000..1_760_000).contains(&d.mean_heap_bytes),
            "{}",
            d.mean_heap_bytes
        );
    }
}
