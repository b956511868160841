//! `heapwright compare`: our plans and the peers on the same workloads, in turn.
//!
//! `contestant` says who takes part, `record` is what is measured and kept, `distil` what follows from it, `text` the tables
//! for people.

pub(crate) mod args;
mod contestant;
mod distil;
mod grid;
mod machine;
mod record;
mod text;

use crate::bench::child::{Interrupted, Runner};
use crate::bench::progress::Progress;
use crate::bench::record::Verdict;
use crate::bench::request::{Heap, Load, multiple};
use crate::bench::smallest::Smallest;
use crate::output;
use crate::refusal::Refusal;
use args::Compare;
use contestant::{Contestant, Peers};
use heapwright_bench::spec::Spec;
use record::{Cell, Comparison, Machine, Run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

/// Carries out `heapwright compare`.
pub(crate) fn run(compare: &Compare) -> Result<ExitCode, Refusal> {
    // Said before the runs, which may take hours.
    for file in [&compare.raw, &compare.markdown, &compare.report]
        .into_iter()
        .flatten()
    {
        output::writable(file)?;
    }
    if let Some(file) = &compare.from {
        let comparison = read(file)?;
        return finish(compare, &comparison);
    }
    let (loads, heaps) = (compare.loads()?, compare.heaps()?);
    let mut runner =
        Runner::new().map_err(|e| Refusal::ours(format!("cannot prepare for signals: {e}")))?;
    let find = || Peers::find(compare.peers.as_deref(), &mut runner);
    let (contestants, peers) = contestant::chosen(&compare.with, find)?;
    let mut session = Session {
        progress: Progress::new(
            loads.len() * heaps.len() * contestants.len() * usize::from(compare.runs),
        ),
        comparison: Comparison {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            command: output::command_line(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: Machine::this(),
            runs: compare.runs,
            workers: usize::from(compare.workers),
            seed: compare.seed,
            ..Comparison::default()
        },
        compare,
        contestants,
        peers: peers.map(|p| p.file().to_owned()),
        runner,
        smallest: Smallest::new(),
        begin: Instant::now(),
    };
    let done = session.all(&loads, &heaps);
    session.progress.end();
    match done {
        Ok(()) => finish(compare, &session.comparison),
        Err(Stop::Refused(refusal)) => Err(refusal),
        Err(Stop::Interrupted(Interrupted(signal))) => {
            // What was run is shown even if the rest will not be.
            finish(compare, &session.comparison)?;
            let _ = signal_hook::low_level::emulate_default_handler(signal);
            Ok(ExitCode::from(
                u8::try_from(128 + signal).unwrap_or(u8::MAX),
            ))
        }
    }
}

/// Why no more is run.
enum Stop {
    Interrupted(Interrupted),
    Refused(Refusal),
}

impl From<Interrupted> for Stop {
    fn from(by: Interrupted) -> Self {
        Self::Interrupted(by)
    }
}

struct Session<'a> {
    compare: &'a Compare,
    contestants: Vec<Contestant>,
    /// The command with the peers.
    peers: Option<PathBuf>,
    runner: Runner,
    smallest: Smallest,
    progress: Progress,
    comparison: Comparison,
    begin: Instant,
}

impl Session<'_> {
    fn all(&mut self, loads: &[Load], heaps: &[Heap]) -> Result<(), Stop> {
        for load in loads {
            for (at, heap) in heaps.iter().enumerate() {
                let cell = self.cell(load, *heap, at == 0)?;
                self.comparison.cells.push(cell);
                self.comparison.minutes = self.begin.elapsed().as_secs_f64() / 60.0;
                if let Some(file) = &self.compare.raw {
                    let text = output::json(&self.comparison, true).map_err(Stop::Refused)?;
                    output::write_file(file, text.as_bytes()).map_err(Stop::Refused)?;
                }
            }
        }
        Ok(())
    }

    /// All contestants on one workload in one heap, in turn.
    fn cell(&mut self, load: &Load, heap: Heap, first: bool) -> Result<Cell, Stop> {
        let timeout = Duration::from_secs(self.compare.timeout.into());
        let (bytes, smallest) = match heap {
            Heap::Bytes(bytes) => (bytes, None),
            Heap::Times(times) => {
                let say = |what| self.progress.say(what);
                let seed = self.compare.seed;
                let found = self
                    .smallest
                    .find(&mut self.runner, load, seed, timeout, say)?;
                let smallest = found.map_err(|why| {
                    Stop::Refused(Refusal::ours(format!(
                        "{}: the smallest heap was not found: {why}",
                        load.info.name
                    )))
                })?;
                (multiple(smallest, times), Some(smallest))
            }
        };
        let mut cell = Cell {
            workload: load.info.name.to_owned(),
            scale: load.scale,
            mutators: load.mutators,
            heap: heap.to_string(),
            heap_bytes: bytes,
            smallest_heap_bytes: smallest,
            runs: Vec::new(),
        };
        for turn in 1..=self.compare.runs {
            for contestant in self.contestants.clone() {
                let name = contestant.name();
                self.progress
                    .say(format!("{} {heap} on {name}", load.info.name));
                let before = cell.runs.iter().rfind(|r| r.contestant == name);
                // What did not work once does not get better.
                let hopeless = before.is_some_and(|r| r.status != Verdict::Ok);
                if !(hopeless || contestant.is_unlimited() && !first) {
                    let run = self.run(&contestant, turn, load, bytes, timeout)?;
                    cell.runs.push(run);
                }
                self.progress.step();
            }
        }
        cell.judge();
        Ok(cell)
    }

    fn run(
        &mut self,
        contestant: &Contestant,
        turn: u16,
        load: &Load,
        heap_bytes: usize,
        timeout: Duration,
    ) -> Result<Run, Interrupted> {
        let name = contestant.name();
        let Contestant::Peer(_) = contestant else {
            let spec = Spec {
                workers: usize::from(self.compare.workers),
                ..load.spec(name, heap_bytes, self.compare.seed)
            };
            return Ok(Run::ours(name, turn, self.runner.run(&spec, timeout)?));
        };
        let mut command = Command::new(self.peers.as_deref().unwrap_or(Path::new("peers")));
        command.arg(load.info.name).args(["--peer", name]);
        for (option, value) in [
            ("--heap", heap_bytes.to_string()),
            ("--workers", self.compare.workers.to_string()),
            ("--mutators", load.mutators.to_string()),
            ("--scale", load.scale.to_string()),
            ("--seed", self.compare.seed.to_string()),
        ] {
            command.args([option, &value]);
        }
        let ended = self.runner.run_command(command, timeout)?;
        let line = match &ended {
            // A peer that fails says so in its line, where it can.
            Ok(ended) if ended.said.trim_start().starts_with('{') => {
                Ok(ended.said.lines().next_back().unwrap_or_default())
            }
            Ok(ended) => ended.last_line(),
            Err(why) => Err(why.clone()),
        };
        Ok(Run::peer(name, turn, line))
    }
}

/// Shows or writes what came of it.
fn finish(compare: &Compare, comparison: &Comparison) -> Result<ExitCode, Refusal> {
    if let Some(file) = &compare.markdown {
        output::write_file(file, text::page(comparison).as_bytes())?;
    }
    if let Some(file) = &compare.report {
        let title = format!("heapwright compare, {}", comparison.date);
        let page = crate::report::page(&title, &grid::grid(comparison))?;
        output::write_file(file, page.as_bytes())?;
    }
    if compare.json {
        output::put(&output::json(comparison, true)?)?;
    } else if compare.markdown.is_none() && compare.report.is_none() {
        output::put(&text::tables(comparison))?;
    }
    let runs = comparison.cells.iter().flat_map(|c| &c.runs);
    let failed = runs.filter(|r| r.status.is_failure()).count();
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn read(file: &Path) -> Result<Comparison, Refusal> {
    let wrong = |e: &dyn std::fmt::Display| Refusal::usage(format!("{}: {e}", file.display()));
    let text = fs::read_to_string(file).map_err(|e| wrong(&e))?;
    serde_json::from_str(&text).map_err(|e| wrong(&e))
}
