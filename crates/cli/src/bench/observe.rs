//! What is made of the runs beside the table: recordings, and pages and timelines of them.

use super::progress::Progress;
use super::record::Sized;
use super::request::{Load, Request};
use super::summary::{End, Summary};
use crate::output;
use crate::recording::Recording;
use crate::refusal::Refusal;
use crate::report::{Fineness, Grid, Point, RunData, page};
use crate::reports::timeline;
use crate::summary::StatsDirectory;
use heapwright::plan::PlanInfo;
use heapwright_observe::log;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the user wants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) report: Option<PathBuf>,
    pub(crate) trace: Option<PathBuf>,
    pub(crate) record: Option<PathBuf>,
    pub(crate) log: Option<String>,
    pub(crate) listen: Option<PathBuf>,
}

/// Where runs are recorded, and what comes of it.
#[derive(Debug)]
pub(crate) struct Observer {
    wanted: Wanted,
    command: String,
    /// Names of runs, and their recordings.
    recordings: Vec<(String, PathBuf)>,
    points: Vec<Point>,
    /// Goes away with its recordings, if nobody wants to keep them.
    passing: Option<StatsDirectory>,
}

impl Observer {
    /// What cannot be written is said before the runs.
    pub(crate) fn of(request: &Request) -> Result<Self, Refusal> {
        let wanted = request.wanted.clone();
        for file in [&wanted.report, &wanted.trace].into_iter().flatten() {
            output::writable(file)?;
        }
        let log_file = wanted
            .log
            .as_deref()
            .and_then(|l| log::parse(l.as_bytes()).1);
        if let Some(file) = log_file {
            output::writable(Path::new(OsStr::from_bytes(file)))?;
        }
        if wanted.trace.is_some() && request.runs() != 1 {
            return Err(Refusal::usage(format!(
                "--trace is of a single run, and these are {}: name one workload, one --plan and one --heap",
                request.runs()
            )));
        }
        let logs_here =
            matches!(&wanted.log, Some(spec) if log::parse(spec.as_bytes()).1.is_none());
        let mut passing = None;
        if let Some(directory) = &wanted.record {
            fs::create_dir_all(directory)
                .map_err(|e| Refusal::usage(format!("--record {}: {e}", directory.display())))?;
            output::writable(&directory.join("try.jsonl"))?;
        }
        if logs_here
            || wanted.record.is_none() && (wanted.report.is_some() || wanted.trace.is_some())
        {
            let made = StatsDirectory::new();
            passing = Some(made.map_err(|e| {
                Refusal::ours(format!("no directory for recordings can be made: {e}"))
            })?);
        }
        Ok(Self {
            wanted,
            command: output::command_line(),
            recordings: Vec::new(),
            points: Vec::new(),
            passing,
        })
    }

    /// The log line that is wanted. What is for the standard error stream goes into a file first: the run's own stream is read for
    /// what it says when it fails.
    pub(crate) fn log(&self) -> Option<String> {
        let spec = self.wanted.log.as_ref()?;
        let Some(file) = self.log_file() else {
            return Some(spec.clone());
        };
        let words = match spec.as_str() {
            "stderr" => "gc,phases",
            words => words,
        };
        Some(format!(
            "{}={}",
            words.trim_end_matches('='),
            output::literal(&file).display()
        ))
    }

    /// Where runs are to listen.
    pub(crate) fn listen(&self) -> Option<PathBuf> {
        self.wanted.listen.clone()
    }

    fn log_file(&self) -> Option<PathBuf> {
        let spec = self.wanted.log.as_ref()?;
        let here = log::parse(spec.as_bytes()).1.is_none();
        let passing = self.passing.as_ref().filter(|_| here)?;
        Some(passing.path().join("log"))
    }

    /// After a run: its lines, to the standard error stream.
    pub(crate) fn show_log(&self, progress: &Progress) {
        if let Some(file) = self.log_file() {
            let lines = fs::read(&file).unwrap_or_default();
            let _ = fs::remove_file(&file);
            // Nobody reads them any more, or all do.
            let _ = progress.aside(|| io::stderr().write_all(&lines));
        }
    }

    /// Where a run is to be recorded: the first of each kind. A name in which nothing is replaced.
    pub(crate) fn file(
        &mut self,
        load: &Load,
        plan: &PlanInfo,
        heap: &Sized,
        iteration: u16,
    ) -> Option<PathBuf> {
        let directory = match (&self.wanted.record, &self.passing) {
            (Some(directory), _) => directory.as_path(),
            (None, Some(passing)) => passing.path(),
            (None, None) => return None,
        };
        if iteration != 1 {
            return None;
        }
        let name = format!("{}-{}-{}", load.info.name, plan.name, heap.heap);
        let file = directory.join(format!("{name}.jsonl"));
        // It is appended to.
        let _ = fs::remove_file(&file);
        let literal = output::literal(&file).into();
        self.recordings.push((name, file));
        Some(literal)
    }

    /// The medians of a workload in a heap.
    pub(crate) fn add(&mut self, load: &Load, heap: &Sized, rows: &[Summary]) {
        for row in rows {
            let mut point = Point {
                workload: load.info.name.to_owned(),
                who: row.plan.to_owned(),
                heap: heap.heap.to_string(),
                heap_bytes: heap.bytes,
                ..Point::default()
            };
            match &row.end {
                End::Badly(why) => point.why = Some(why.clone()),
                End::Well(m) => {
                    point.ok = true;
                    point.wall = m.wall_s;
                    point.cpu = m.cpu_s;
                    point.memory = m.peak_bytes;
                    point.pause = m.pause_ms[2];
                    point.collections = m.collections;
                }
            }
            self.points.push(point);
        }
    }

    /// After all runs: makes what is wanted.
    pub(crate) fn finish(self) -> Result<(), Refusal> {
        if let Some(to) = &self.wanted.trace {
            for (_, file) in self.recordings.iter().filter(|(_, f)| f.exists()) {
                timeline(file, to)?;
            }
        }
        let Some(to) = &self.wanted.report else {
            return Ok(());
        };
        let fineness = Fineness::of_many(self.recordings.len());
        let mut grid = Grid::of(self.command, self.points);
        for (name, file) in self.recordings.iter().filter(|(_, f)| f.exists()) {
            // A run that failed before it had a heap has none.
            if let Ok(recording) = Recording::read(file) {
                grid.runs.push(RunData::of(&recording, name, fineness));
            }
        }
        output::write_file(to, page("heapwright bench", &grid)?.as_bytes())
    }
}
