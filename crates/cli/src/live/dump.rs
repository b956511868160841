//! `heapwright dump`: has a process that listens write a heap dump.

use super::Connection;
use crate::output;
use crate::refusal::Refusal;
use clap::Args;
use heapwright_observe::dump::Format;
use serde::Deserialize;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
The program has to listen: it was started by `heapwright run --listen`, or has HEAPWRIGHT_LISTEN=1 in its environment. It writes the file \
itself: on libgc a copy of it does, and the program stands still for a moment; a program with a heap of ours embedded stands still until the dump \
is whole. `heapwright run --dump-on` has dumps written at a signal, or when memory runs out.

Examples:
  heapwright dump 1234 heap.hprof              for Eclipse MAT and VisualVM
  heapwright dump 1234 heap.heapsnapshot       for Chrome's DevTools";

/// The command line of `heapwright dump`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Dump {
    /// The number of the process, or the path of its socket
    #[arg(value_name = "PID")]
    whom: OsString,
    /// Where the dump goes: .hprof or .heapsnapshot; %p in it is the process's number
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Say it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Answer {
    pause_ns: u64,
}

/// Carries out `heapwright dump`.
pub(crate) fn run(dump: &Dump) -> Result<ExitCode, Refusal> {
    let wrong = |e: &dyn std::fmt::Display| Refusal::usage(format!("{}: {e}", dump.file.display()));
    Format::of(&dump.file).map_err(|e| wrong(&e))?;
    let file = std::path::absolute(&dump.file).map_err(|e| wrong(&e))?;
    let path = file.to_str().filter(|p| !p.contains('\n'));
    let path = path.ok_or_else(|| wrong(&"the name is to be one line of UTF-8"))?;
    output::writable(&file)?;
    let mut connection = Connection::to(Some(&dump.whom))?;
    connection.be_patient()?;
    let line = connection.ask_now(&format!("dump {path}"))?;
    if dump.json {
        return output::put(&line);
    }
    let answer: Answer = serde_json::from_str(&line)
        .map_err(|e| Refusal::ours(format!("the answer is not understood: {e}")))?;
    output::put(&format!(
        "{}: written; the program stood still for {:.0} ms\n",
        dump.file.display(),
        answer.pause_ns as f64 / 1e6
    ))
}
