//! Heap dumps of a program: the flags, what can be said before it runs, and what has to be said after.

use crate::refusal::Refusal;
use clap::Args;
use heapwright::options::ENV_PREFIX;
use heapwright_observe::dump::{DumpFile, Format, Request, When, expand};
use std::env;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[derive(Args, Debug, Default)]
pub(crate) struct Dump {
    /// At exit, write all that lives in the heap to FILE: .hprof for Eclipse MAT and VisualVM, .heapsnapshot for Chrome's
    /// DevTools; %p in the name is the process's number
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
    /// The same when memory runs out (oom) or at a signal (signal:USR1); also a list, like oom,exit. %n in the name counts dumps
    #[arg(long, value_name = "WHEN=FILE")]
    dump_on: Vec<String>,
}

/// The name of the library's variable.
fn variable() -> String {
    format!("{ENV_PREFIX}DUMP")
}

/// The dumps that a program is to write.
#[derive(Debug)]
pub(crate) struct Dumps {
    requests: Vec<Request>,
    /// What was there before the program ran, by request.
    before: Vec<Option<Identity>>,
}

/// A file: its number and when it was written.
type Identity = (u64, SystemTime);

fn identity(file: &Path) -> Option<Identity> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.ino(), metadata.modified().ok()?))
}

impl Dump {
    /// What was asked for, on the command line or else in the environment, after a look whether it can be written.
    pub(crate) fn dumps(&self) -> Result<Dumps, Refusal> {
        let mut requests = Vec::new();
        if let Some(file) = &self.dump {
            let request = Request::new(vec![When::Exit], file);
            let wrong = |e| Refusal::usage(format!("--dump {}: {e}", file.display()));
            requests.push(request.map_err(wrong)?);
        }
        for text in &self.dump_on {
            let wrong = |e: String| Refusal::usage(format!("--dump-on {text}: {e}"));
            if !text.contains('=') {
                return Err(wrong("WHEN=FILE is wanted, like oom=heap.hprof".to_owned()));
            }
            requests.extend(Request::parse_all(text).map_err(|e| wrong(e.to_string()))?);
        }
        if let Some(text) = env::var_os(variable()).filter(|v| requests.is_empty() && !v.is_empty())
        {
            let wrong =
                |e: &str| Refusal::usage(format!("in the environment: {}: {e}", variable()));
            let text = text.to_str().ok_or_else(|| wrong("it is no text"))?;
            requests = Request::parse_all(text).map_err(|e| wrong(&e.to_string()))?;
        }
        for request in &mut requests {
            check(request)?;
        }
        Ok(Dumps {
            before: requests.iter().map(|r| identity(&r.file)).collect(),
            requests,
        })
    }
}

/// Sees that the dump of a run of `bench` can be written.
pub(crate) fn check_run(file: &Path, runs: usize) -> Result<(), Refusal> {
    let wrong = |e: String| Refusal::usage(format!("--dump {}: {e}", file.display()));
    if runs != 1 {
        return Err(wrong(format!(
            "one run can have a dump, and these are {runs}: name one workload, one --plan and one --heap"
        )));
    }
    let format = Format::of(file).map(drop);
    format.map_err(|e| wrong(e.to_string()))?;
    // It is removed again.
    let created = DumpFile::create(file).map(drop);
    created.map_err(|e| wrong(format!("it cannot be written: {e}")))
}

/// Sees that the file can be written, and makes its name absolute: the program may change its directory.
fn check(request: &mut Request) -> Result<(), Refusal> {
    let shown = request.file.display().to_string();
    let wrong =
        |e: io::Error| Refusal::usage(format!("a heap dump cannot be written to {shown}: {e}"));
    if shown.contains(';') {
        return Err(Refusal::usage(format!(
            "a heap dump cannot be written to {shown}: no ; may be in its name"
        )));
    }
    request.file = std::path::absolute(&request.file).map_err(wrong)?;
    // It is removed again.
    DumpFile::create(&request.file).map(drop).map_err(wrong)
}

impl Dumps {
    /// The variable that tells the library, if there is something to tell.
    pub(crate) fn variable(&self) -> Option<(String, String)> {
        let all: Vec<String> = self.requests.iter().map(Request::to_string).collect();
        (!all.is_empty()).then(|| (variable(), all.join(";")))
    }

    /// Is there something to say when the program has ended?
    pub(crate) fn at_exit(&self) -> bool {
        self.files().next().is_some()
    }

    /// Files that are to be there when the program has ended, of those whose names are known then.
    fn files(&self) -> impl Iterator<Item = (&Path, Option<Identity>)> {
        self.requests
            .iter()
            .zip(&self.before)
            .filter(|(r, _)| r.when.contains(&When::Exit))
            .map(|(r, before)| (r.file.as_path(), *before))
            .filter(|(f, _)| !f.to_string_lossy().contains("%n"))
    }

    /// Says on stderr which file is missing. `pid`: the program that has ended.
    pub(crate) fn report(&self, pid: u32) {
        for (file, before) in self.files() {
            let file = of_process(file, pid);
            let now = identity(&file);
            if now.is_some() && now != before {
                continue;
            }
            // Where stderr is closed, nobody is told.
            let _ = writeln!(
                io::stderr(),
                "heapwright: no heap dump was written to {}: the program did not end by exit, made no heap, or the file could not be \
                 written",
                file.display()
            );
        }
    }
}

/// The file's name for another process than this one.
fn of_process(file: &Path, pid: u32) -> PathBuf {
    file.to_str().map_or_else(
        || expand(file, 1),
        |text| text.replace("%p", &pid.to_string()).into(),
    )
}
