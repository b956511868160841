//! Runs a workload on another memory manager and writes one line of JSON.

mod boehm;
mod layout;
mod manual;
mod mmtk;
mod record;

use heapwright_bench::runtime::{Full, Runtime};
use heapwright_bench::workload::{self, Outcome, Settings};
use record::{Line, Reading};
use std::io::Write;
use std::process::ExitCode;
use std::sync::OnceLock;

const HELP: &str = "\
Runs one of Heapwright's workloads on another memory manager and writes one line of JSON, with the names that
`heapwright bench --json` has.

    peers WORKLOAD --peer PEER [--heap BYTES] [--workers N] [--mutators N] [--scale F] [--seed S] [...]
    peers --list

  --peer PEER     mmtk-PLAN, boehm, jemalloc, mimalloc or malloc; --list has them all, and the workloads
  --heap BYTES    the heap's limit; k, m and g are understood (default: 1g). malloc and its like have none
  --workers N     threads that collect (default: 1). malloc and its like have none
  --mutators N    threads that run the workload, where it has several (default: 1)
  --scale F       multiplies the amount of work (default: 1)
  --seed S        seed of what is random (default: 1)
  --object-bytes N
                  size of an object of the workload alloc (default: 24)
  --mmtk OPTIONS  options of mmtk, such as \"nursery=Fixed:4194304 immix_always_defrag=true\"

Ends with 0 if there is a line, also if that says out-of-memory; with 1 if the run failed; with 2 if the words are wrong.
";

/// What the words said.
#[derive(Clone, Debug)]
struct Run {
    workload: String,
    peer: String,
    heap_bytes: usize,
    workers: usize,
    settings: Settings,
    mmtk: String,
    from: Option<Reading>,
}

impl Run {
    fn line<'a>(
        &'a self,
        status: &'a str,
        why: Option<String>,
        outcome: Option<Outcome>,
    ) -> Line<'a> {
        Line {
            workload: &self.workload,
            peer: &self.peer,
            heap_bytes: self.heap_bytes,
            workers: self.workers,
            settings: self.settings,
            status,
            why,
            from: self.from.unwrap_or_else(Reading::now),
            outcome,
        }
    }

    fn on<R: Runtime>(mut self, runtime: &R) -> ExitCode {
        self.from = Some(Reading::now());
        // A collector's thread that panics takes the process with it, and says so.
        static FAILED: OnceLock<Run> = OnceLock::new();
        let _ = FAILED.set(self.clone());
        std::panic::set_hook(Box::new(|info| {
            if let Some(run) = FAILED.get() {
                let said = info.payload();
                let why = said.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let why = why.or_else(|| said.downcast_ref::<String>().cloned());
                say(&run.line("failed", why, None).json());
            }
            std::process::exit(1);
        }));
        match workload::run(&self.workload, runtime, &self.settings) {
            None => wrong(&format!("there is no workload {:?}", self.workload)),
            Some(Ok(outcome)) => say(&self.line("ok", None, Some(outcome)).json()),
            Some(Err(Full)) => say(&self
                .line("out-of-memory", Some(Full.to_string()), None)
                .json()),
        }
    }
}

/// Writes a line to standard output.
fn say(line: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Says what is wrong with the words.
fn wrong(why: &str) -> ExitCode {
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "peers: {why}; peers --help explains");
    ExitCode::from(2)
}

/// A number of bytes.
fn size(text: &str) -> Option<usize> {
    let shift = match text.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => 10,
        b'm' => 20,
        b'g' => 30,
        _ => return text.parse().ok(),
    };
    text.get(..text.len() - 1)?
        .parse::<usize>()
        .ok()?
        .checked_mul(1 << shift)
}

fn parse(words: impl Iterator<Item = String>) -> Result<Run, String> {
    let mut run = Run {
        workload: String::new(),
        peer: String::new(),
        heap_bytes: 1 << 30,
        workers: 1,
        settings: Settings::default(),
        mmtk: String::new(),
        from: None,
    };
    let mut words = words;
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            if !run.workload.is_empty() {
                return Err(format!("one workload at a time, not also {word:?}"));
            }
            run.workload = word;
            continue;
        }
        let value = words
            .next()
            .ok_or_else(|| format!("{word} wants a value"))?;
        let bad = || format!("{word} does not take {value:?}");
        match word.as_str() {
            "--peer" => run.peer = value,
            "--heap" => run.heap_bytes = size(&value).filter(|bytes| *bytes > 0).ok_or_else(bad)?,
            "--workers" => run.workers = value.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?,
            "--mutators" => {
                run.settings.mutators = value.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?
            }
            "--scale" => {
                run.settings.scale = value.parse().ok().filter(|f| *f > 0.0).ok_or_else(bad)?
            }
            "--seed" => run.settings.seed = value.parse().map_err(|_| bad())?,
            "--object-bytes" => {
                run.settings.object_bytes =
                    value.parse().ok().filter(|n| *n >= 8).ok_or_else(bad)?;
            }
            "--mmtk" => run.mmtk = value,
            _ => return Err(format!("there is no option {word}")),
        }
    }
    if run.workload.is_empty() {
        return Err("which workload?".into());
    }
    let Some(info) = workload::ALL.iter().find(|info| info.name == run.workload) else {
        return Err(format!("there is no workload {:?}", run.workload));
    };
    if !info.threads {
        run.settings.mutators = 1;
    }
    Ok(run)
}

fn list() -> ExitCode {
    let mut text = String::from("peers:\n");
    for plan in mmtk::PLANS {
        text += &format!("  mmtk-{plan}\n");
    }
    text += "  boehm\n  jemalloc\n  mimalloc\n  malloc\nworkloads:";
    for info in workload::ALL {
        text += &format!("\n  {:<16}{}", info.name, info.about);
    }
    say(&text)
}

fn main() -> ExitCode {
    let first = std::env::args().nth(1);
    match first.as_deref() {
        None | Some("--help" | "-h") => return say(HELP.trim_end()),
        Some("--list") => return list(),
        _ => {}
    }
    let run = match parse(std::env::args().skip(1)) {
        Ok(run) => run,
        Err(why) => return wrong(&why),
    };
    match run.peer.as_str() {
        "" => wrong("which peer?"),
        "boehm" => {
            let runtime = boehm::Boehm::new(run.heap_bytes, run.workers);
            run.on(&runtime)
        }
        "jemalloc" => run.on(&manual::Manual::new(tikv_jemallocator::Jemalloc)),
        "mimalloc" => run.on(&manual::Manual::new(mimalloc::MiMalloc)),
        "malloc" => run.on(&manual::Manual::new(std::alloc::System)),
        peer => {
            let Some(plan) = peer.strip_prefix("mmtk-") else {
                return wrong(&format!("there is no peer {peer:?}"));
            };
            match mmtk::set_up(plan, run.heap_bytes, run.workers, &run.mmtk) {
                Ok(mmtk::Set::None(runtime)) => run.on(&runtime),
                Ok(mmtk::Set::After(runtime)) => run.on(&runtime),
                Ok(mmtk::Set::Before(runtime)) => run.on(&runtime),
                Err(why) => wrong(&why),
            }
        }
    }
}
