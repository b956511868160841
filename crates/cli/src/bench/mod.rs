//! `heapwright bench`: workloads on plans.
//!
//! `args` and `request` say what is to run, `smallest` in how large a heap, `child` runs it in a process of its own,
//! `record` is what is known of a run, and `summary` and `table` are for people.

pub(crate) mod args;
mod cache;
pub(crate) mod child;
mod observe;
pub(crate) mod progress;
pub(crate) mod record;
pub(crate) mod request;
pub(crate) mod smallest;
mod summary;
mod table;

use crate::output;
use crate::profile::Target;
use crate::refusal::Refusal;
use args::Bench;
use child::{Interrupted, Runner};
use heapwright_bench::spec::{Report, Spec, Status};
use observe::Observer;
use progress::Progress;
use record::{Record, Sized, judge};
use request::{Heap, Load, Request, multiple};
use smallest::Smallest;
use std::ffi::OsString;
use std::process::ExitCode;
use summary::Summary;
use table::Block;

/// Why no more is run.
enum Stop {
    Interrupted(Interrupted),
    /// Nobody reads our stdout any more.
    Unread,
    Refused(Refusal),
}

impl From<Interrupted> for Stop {
    fn from(by: Interrupted) -> Self {
        Self::Interrupted(by)
    }
}

/// Carries out `heapwright bench`.
pub(crate) fn run(bench: &Bench) -> Result<ExitCode, Refusal> {
    let request = bench.request()?;
    let profile = bench.profile.target()?;
    let runner =
        Runner::new().map_err(|e| Refusal::ours(format!("cannot prepare for signals: {e}")))?;
    let observer = Observer::of(&request)?;
    let mut session = Session {
        observer,
        progress: Progress::new(request.runs()),
        request,
        runner,
        smallest: Smallest::new(),
        blocks: Vec::new(),
        failed: false,
        profile: profile.as_ref().map(Target::request),
    };
    let done = session.all();
    session.progress.end();
    // What was run is in it even if the rest is not.
    let mut made = session.observer.finish();
    if let Some(trouble) = profile.and_then(|p| p.tell("bench", session.request.json)) {
        made = made.and(Err(trouble));
    }
    match done {
        Ok(()) if made.is_err() => made.map(|()| ExitCode::SUCCESS),
        Ok(()) if session.failed => Ok(ExitCode::FAILURE),
        Ok(()) | Err(Stop::Unread) => Ok(ExitCode::SUCCESS),
        Err(Stop::Refused(refusal)) => Err(refusal),
        Err(Stop::Interrupted(Interrupted(signal))) => {
            let _ = signal_hook::low_level::emulate_default_handler(signal);
            Ok(ExitCode::from(
                u8::try_from(128 + signal).unwrap_or(u8::MAX),
            ))
        }
    }
}

/// The runs of one workload.
#[derive(Default)]
struct Runs {
    heaps: Vec<Sized>,
    records: Vec<Record>,
}

impl Runs {
    fn of(&self, plan: &str, heap: &Sized) -> Vec<&Record> {
        let name = heap.heap.to_string();
        let of_both = |r: &&Record| r.plan == plan && r.heap == name;
        self.records.iter().filter(of_both).collect()
    }
}

struct Session {
    observer: Observer,
    request: Request,
    runner: Runner,
    smallest: Smallest,
    progress: Progress,
    blocks: Vec<Block>,
    failed: bool,
    /// What runs are to do about a profile.
    profile: Option<OsString>,
}

impl Session {
    fn all(&mut self) -> Result<(), Stop> {
        for load in self.request.loads.clone() {
            let mut runs = Runs::default();
            let done = self.load(&load, &mut runs);
            // What was run is shown even if the rest will not be.
            self.show(&load, runs)?;
            done?;
        }
        if self.request.json {
            return Ok(());
        }
        self.write(&table::best(&self.blocks))
    }

    /// One workload in all heaps.
    fn load(&mut self, load: &Load, runs: &mut Runs) -> Result<(), Interrupted> {
        for heap in self.request.heaps.clone() {
            let (sized, trouble) = self.size(load, heap)?;
            runs.heaps.push(sized);
            for iteration in 1..=self.request.iterations {
                for plan in self.request.plans.clone() {
                    self.progress
                        .say(format!("{} {heap} on {}", load.info.name, plan.name));
                    let report = match &trouble {
                        None => {
                            let spec = Spec {
                                profile: self.profile.clone(),
                                record: self.observer.file(load, plan, &sized, iteration),
                                log: self.observer.log(),
                                listen: self.observer.listen(),
                                ..self.request.spec(load, plan, sized.bytes)
                            };
                            let report = self.runner.run(&spec, self.request.timeout)?;
                            self.observer.show_log(&self.progress);
                            report
                        }
                        Some(why) => Report::ended(Status::Failed, why),
                    };
                    let new = Record::new(&self.request, load, plan, &sized, iteration, report);
                    runs.records.push(new);
                    self.progress.step();
                }
            }
        }
        Ok(())
    }

    /// The heap in bytes, and why nothing can be run if that cannot be found.
    fn size(&mut self, load: &Load, heap: Heap) -> Result<(Sized, Option<String>), Interrupted> {
        let (bytes, smallest, trouble) = match heap {
            Heap::Bytes(bytes) => (bytes, None, None),
            Heap::Times(times) => {
                let say = |what| self.progress.say(what);
                let (seed, timeout) = (self.request.seed, self.request.timeout);
                match self
                    .smallest
                    .find(&mut self.runner, load, seed, timeout, say)?
                {
                    Ok(smallest) => (multiple(smallest, times), Some(smallest), None),
                    Err(why) => {
                        let why = format!("the smallest heap was not found: {why}");
                        (0, None, Some(why))
                    }
                }
            }
        };
        let sized = Sized {
            heap,
            bytes,
            smallest,
        };
        Ok((sized, trouble))
    }

    /// Compares the checksums of one workload's runs, and prints what came of them.
    fn show(&mut self, load: &Load, mut runs: Runs) -> Result<(), Stop> {
        judge(&mut runs.records);
        self.failed |= runs.records.iter().any(|r| r.status.is_failure());
        let mut text = String::new();
        if self.request.json {
            for record in &runs.records {
                text += &output::json(record, false).map_err(Stop::Refused)?;
            }
        }
        for heap in &runs.heaps {
            let rows = self.request.plans.iter();
            let rows: Vec<Summary> = rows
                .filter_map(|plan| Summary::of(&runs.of(plan.name, heap)))
                .collect();
            if rows.is_empty() {
                // Interrupted before the first run.
                continue;
            }
            self.observer.add(load, heap, &rows);
            if !self.request.json {
                let block = Block::new(*load, *heap, rows);
                text += &block.text(&self.request);
                self.blocks.push(block);
            }
        }
        let dumps = runs.records.iter().filter_map(|r| r.dump);
        for dump in dumps.filter(|_| !self.request.json) {
            text += &format!(
                "heap dump: {} objects with {:.1} MiB, a file of {:.1} MiB, {:.0} ms with the world stopped\n\n",
                dump.objects,
                dump.object_bytes as f64 / f64::from(1 << 20),
                dump.file_bytes as f64 / f64::from(1 << 20),
                dump.took_ms
            );
        }
        self.write(&text)
    }

    fn write(&self, text: &str) -> Result<(), Stop> {
        match self.progress.aside(|| output::write(text)) {
            Ok(flow) if flow.is_continue() => Ok(()),
            Ok(_) => Err(Stop::Unread),
            Err(refusal) => Err(Stop::Refused(refusal)),
        }
    }
}
