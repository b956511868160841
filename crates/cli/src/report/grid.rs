//! What the page of many runs shows: workloads, in heaps of several sizes, on plans and peers.

use super::run::RunData;
use serde::Serialize;

/// One plan or peer with one workload in one heap: medians. Times in seconds, pauses in milliseconds, sizes in bytes.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Point {
    pub(crate) workload: String,
    pub(crate) who: String,
    /// As it was asked for, like `2x`.
    pub(crate) heap: String,
    /// 0: without a limit.
    pub(crate) heap_bytes: usize,
    pub(crate) ok: bool,
    pub(crate) why: Option<String>,
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
    pub(crate) memory: f64,
    pub(crate) pause: Option<f64>,
    pub(crate) collections: f64,
    /// What it took, as a multiple of the distilled cost of the workload.
    pub(crate) over_wall: Option<f64>,
    pub(crate) over_cpu: Option<f64>,
    pub(crate) over_memory: Option<f64>,
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Grid {
    kind: &'static str,
    pub(crate) about: String,
    workloads: Vec<String>,
    contestants: Vec<String>,
    pub(crate) peers: Vec<String>,
    overheads: bool,
    points: Vec<Point>,
    pub(crate) runs: Vec<RunData>,
}

impl Grid {
    pub(crate) fn of(about: String, points: Vec<Point>) -> Self {
        let names = |name: fn(&Point) -> &String| {
            let mut all: Vec<String> = Vec::new();
            for point in &points {
                if !all.contains(name(point)) {
                    all.push(name(point).clone());
                }
            }
            all
        };
        Self {
            kind: "grid",
            about,
            workloads: names(|p| &p.workload),
            contestants: names(|p| &p.who),
            peers: Vec::new(),
            overheads: points.iter().any(|p| p.over_wall.is_some()),
            runs: Vec::new(),
            points,
        }
    }
}
