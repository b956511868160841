//! The command line.

use crate::bench::args::{Bench, Child};
use crate::bench::child::SUBCOMMAND;
use crate::compare::args::Compare;
use crate::dump::Dump;
use crate::listen::Listen;
use crate::live::Top;
use crate::map::Map;
use crate::profile::ProfileArgs;
use crate::refusal::Refusal;
use crate::reports::{Outputs, Report};
use clap::{Args, Parser, Subcommand};
use heapwright::Options;
use heapwright_observe::log;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  heapwright run -- guile program.scm            run Guile on our heap
  heapwright run --summary -- ./program 18       and say at the end what the heap did
  heapwright run --log -- crystal build app.cr   one line for each collection
  heapwright run --report out.html -- guile a.scm
                                                 and make a page with charts of it
  heapwright run --max 512m -- guile big.scm     no more than 512 MiB of heap
  heapwright run --verify --stress 1000 -- ./program
                                                 a collection at every 1000th allocation, each checked
  heapwright run --profile out.pb.gz -- ./program
                                                 where the program allocates, for `go tool pprof`
  heapwright run --listen -- ./server            then `heapwright top` and `heapwright map` show its heap
  heapwright options                             every option of a heap, with its default
  heapwright plans                               what plans there are and what they can do
  heapwright bench                               a tour: five workloads on all plans, in two minutes
  heapwright bench graph --heap 2x,4x            one workload, with less and with more room
  heapwright compare gcbench --with immix,mmtk-immix,boehm
                                                 one workload, beside other memory managers
  heapwright install --prefix ~/.local           the command and the library, beside the system's";

const RUN_EXAMPLES: &str = "\
Every option can also be given in the environment: HEAPWRIGHT_PLAN, HEAPWRIGHT_MAX and so on (`heapwright options`
lists them); the command line wins. The program gets our libgc.so.1 by LD_LIBRARY_PATH, so that what it starts uses it
too. HEAPWRIGHT_LIB names another library file than the one beside this command.

Exit status: the program's; if it ended by a signal, this command ends by the same one. 2: a wrong option; 125: our
library was not found; 126: the program cannot be run on it (the message says why); 127: there is no such program.

Examples:
  heapwright run -- guile program.scm
  heapwright run --summary --workers 2 -- ./program 18
  heapwright run --log=gc.log --plan marksweep -- crystal build app.cr
  heapwright run --log=gc,phases,json=gc.jsonl -- guile program.scm
  heapwright run --report out.html --trace out.json -- guile program.scm
  heapwright run --listen -- ./server             then: heapwright top
  heapwright run --dump heap.hprof -- ./program
  heapwright run --dump-on oom=heap-%p.heapsnapshot --max 64m -- ./program
  heapwright run --option growth=50 --verify -- ./program";

const INSTALL_EXAMPLES: &str = "\
The system's libgc stays as it is: only programs that are told to take ours, by `heapwright run` or LD_LIBRARY_PATH.

Examples:
  heapwright install --prefix ~/.local
  heapwright install --prefix /opt/heapwright
  heapwright uninstall --prefix /opt/heapwright";

/// Runs programs that use the Boehm collector (libgc) on a Heapwright heap, unmodified, and measures its plans.
#[derive(Parser, Debug)]
#[command(name = "heapwright", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Command {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Action {
    /// Run a program with our libgc.so.1 under it
    Run(Run),
    /// List the options of a heap: name, default, unit, meaning
    Options(List),
    /// List the plans: name, abilities, meaning
    Plans(List),
    /// Measure plans with workloads: time, pauses, memory
    Bench(Bench),
    /// Measure our plans and other memory managers on the same workloads, side by side
    Compare(Compare),
    /// Make a report, a timeline or a summary of a recording
    Report(Report),
    /// Watch the heap of a process that listens
    Top(Top),
    /// Have a process that listens write a heap dump
    Dump(crate::live::Dump),
    /// Make a profile for pprof of the samples that a program wrote
    Profile(crate::profile::Convert),
    /// Show a heap block by block: of a process that listens, or of a recording
    Map(Map),
    /// Put this command and its libgc.so.1 under a directory, beside the system's
    Install(Install),
    /// Remove what `install` put there
    Uninstall(Uninstall),
    /// One run of `bench`
    #[command(name = SUBCOMMAND, hide = true)]
    BenchChild(Child),
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// Print it as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = INSTALL_EXAMPLES)]
pub(crate) struct Install {
    /// Where: the command goes into PREFIX/bin, the library into PREFIX/lib/heapwright
    #[arg(long, value_name = "PREFIX")]
    pub(crate) prefix: PathBuf,
    /// Say as JSON what was installed
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Uninstall {
    /// The directory that was given to `install`
    #[arg(long, value_name = "PREFIX")]
    pub(crate) prefix: PathBuf,
    /// Say as JSON what was removed
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct Run {
    /// How memory is given out and how the living are found
    #[arg(long, value_name = "PLAN")]
    plan: Option<String>,
    /// What may be allocated before the first collection, like 64m
    #[arg(long, value_name = "SIZE")]
    heap: Option<String>,
    /// The heap's limit, like 2g; when it is reached, allocation fails as libgc's does
    #[arg(long, value_name = "SIZE")]
    max: Option<String>,
    /// How many threads mark
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// Check the whole heap after each collection (slow)
    #[arg(long)]
    verify: bool,
    /// Collect at every Nth allocation (very slow)
    #[arg(long, value_name = "N")]
    stress: Option<String>,
    /// Set any other option of `heapwright options`
    #[arg(short, long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// One line for each collection, on stderr or appended to a file, and a summary at the end:
    /// FILE, or gc[,phases][,json][=FILE]
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "stderr")]
    pub(crate) log: Option<OsString>,
    #[command(flatten)]
    pub(crate) outputs: Outputs,
    /// At the end, say on stderr: collections, pauses, utilisation, heap, resident memory, time
    #[arg(long)]
    pub(crate) summary: bool,
    /// The summary as one line of JSON, on stderr
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) dump: Dump,
    #[command(flatten)]
    pub(crate) profile: ProfileArgs,
    #[command(flatten)]
    pub(crate) listen: Listen,
    /// Run the program even if it does not seem to use libgc (it may load it later)
    #[arg(long)]
    pub(crate) force: bool,
    /// The program and its arguments
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// What lines `--log` asks for, and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    /// As the library reads it.
    pub(crate) value: OsString,
    pub(crate) json: bool,
    /// None: the standard error stream.
    pub(crate) file: Option<PathBuf>,
}

impl Run {
    /// The options of the heap that were given on the command line, checked one by one.
    pub(crate) fn heap_options(&self) -> Result<Vec<(String, String)>, Refusal> {
        let mut given: Vec<(&str, &str)> = Vec::new();
        let named = [
            ("plan", &self.plan),
            ("heap", &self.heap),
            ("max", &self.max),
            ("workers", &self.workers),
            ("stress", &self.stress),
        ];
        given.extend(
            named
                .iter()
                .filter_map(|(name, value)| value.as_deref().map(|v| (*name, v))),
        );
        if self.verify {
            given.push(("verify", "1"));
        }
        for pair in &self.options {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(Refusal::usage(format!(
                    "--option {pair}: NAME=VALUE is wanted, like growth=50"
                )));
            };
            given.push((name, value));
        }
        let mut checked = Options::default();
        for (name, value) in &given {
            checked
                .set(name, value)
                .map_err(|e| Refusal::usage(e.to_string()))?;
        }
        checked
            .check_for_words()
            .map_err(|e| Refusal::usage(e.to_string()))?;
        Ok(given
            .into_iter()
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect())
    }

    /// Whether and where collections are logged. A file's name is made absolute: the program may change its directory.
    pub(crate) fn log(&self) -> Result<Option<Log>, Refusal> {
        let Some(spec) = &self.log else {
            return Ok(None);
        };
        let (form, file) = log::parse(spec.as_bytes());
        let Some(file) = file else {
            return Ok(Some(Log {
                value: spec.clone(),
                json: form.json,
                file: None,
            }));
        };
        let words = &spec.as_bytes()[..spec.len() - file.len()];
        let file = Path::new(OsStr::from_bytes(file));
        let absolute = std::path::absolute(file)
            .map_err(|e| Refusal::usage(format!("--log={}: {e}", file.display())))?;
        let mut value = OsStr::from_bytes(words).to_owned();
        value.push(&absolute);
        Ok(Some(Log {
            value,
            json: form.json,
            file: Some(absolute),
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use clap::CommandFactory;

    fn run(line: &str) -> Run {
        let words = ["heapwright", "run"]
            .into_iter()
            .chain(line.split_whitespace());
        match Command::try_parse_from(words).unwrap().action {
            Action::Run(run) => run,
            _ => unreachable!(),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Command::command().debug_assert();
    }

    /// The lines of the project's pages that call this command.
    fn lines_of_pages() -> Vec<String> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut pages = vec![project.join("README.md"), project.join("peers/README.md")];
        for entry in std::fs::read_dir(project.join("docs")).unwrap() {
            pages.push(entry.unwrap().path());
        }
        let mut found = Vec::new();
        for page in pages
            .iter()
            .filter(|p| p.extension().is_some_and(|e| e == "md"))
        {
            let text = std::fs::read_to_string(page).unwrap();
            // A command that goes on in the next line is one.
            for line in text.replace("\\\n", " ").lines() {
                let line = line.trim().trim_start_matches("target/release/");
                if line.starts_with("heapwright ") && !line.contains("...") {
                    found.push(line.split(" #").next().unwrap_or_default().to_owned());
                }
            }
        }
        assert!(found.len() > 10, "{found:?}");
        found
    }

    #[test]
    fn what_the_pages_say_is_understood() {
        let wrong: Vec<String> = lines_of_pages()
            .into_iter()
            .filter(|line| {
                let words = line.split_whitespace().take_while(|w| *w != "|");
                Command::try_parse_from(words)
                    .is_err_and(|e| e.kind() != clap::error::ErrorKind::DisplayHelp)
            })
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn what_follows_the_program_is_the_programs() {
        let r = run("--verify guile --verify -- x");
        assert!(r.verify);
        assert_eq!(r.command, ["guile", "--verify", "--", "x"]);
        assert_eq!(run("-- guile -s").command, ["guile", "-s"]);
    }

    #[test]
    fn log_takes_a_file_only_with_an_equals_sign() {
        let log = |line: &str| {
            let log = run(line).log().unwrap().unwrap();
            let file = log.file.map(|f| f.to_str().unwrap().to_owned());
            (log.value.to_str().unwrap().to_owned(), log.json, file)
        };
        let file = |value: &str, json, f: &str| (value.to_owned(), json, Some(f.to_owned()));
        assert_eq!(log("--log guile"), ("stderr".to_owned(), false, None));
        assert_eq!(
            log("--log=gc,json guile"),
            ("gc,json".to_owned(), true, None)
        );
        assert_eq!(log("--log=/x/y guile"), file("/x/y", false, "/x/y"));
        assert_eq!(
            log("--log=gc,json,phases=/x/y=z guile"),
            file("gc,json,phases=/x/y=z", true, "/x/y=z")
        );
        let relative = std::env::current_dir().unwrap().join("z");
        let relative = relative.to_str().unwrap();
        assert_eq!(
            log("--log=gc=z guile"),
            file(&format!("gc={relative}"), false, relative)
        );
        assert_eq!(run("guile").log().unwrap(), None);
    }

    #[test]
    fn options_are_checked_before_anything_runs() {
        let given = run("--plan nogc --max 1g -o growth=50 guile")
            .heap_options()
            .unwrap();
        let wanted = [("plan", "nogc"), ("max", "1g"), ("growth", "50")];
        assert_eq!(given, wanted.map(|(n, v)| (n.to_owned(), v.to_owned())));
        for (line, word) in [
            ("--plan best guile", "marksweep"),
            ("--plan immix guile", "there are: nogc, marksweep"),
            ("--max much guile", "64k"),
            ("--workers 0 guile", "1 to 64"),
            ("-o x=1 guile", "workers"),
            ("-o growth guile", "NAME=VALUE"),
        ] {
            let e = run(line).heap_options().unwrap_err();
            assert_eq!(e.status(), 2);
            assert!(e.to_string().contains(word), "{e}");
        }
    }
}
