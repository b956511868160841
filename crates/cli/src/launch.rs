//! Starts the program with our library under it: becomes it where nothing is to be said afterwards, else waits for it.

use crate::args::Run;
use crate::dump::Dumps;
use crate::library::{self, Library};
use crate::loader::LIBGC;
use crate::output;
use crate::profile::{self, Target};
use crate::program::{self, Program};
use crate::recording::Digest;
use crate::refusal::Refusal;
use crate::reports::Recordings;
use crate::signals::Forwarding;
use crate::summary::{Outcome, StatsDirectory};
use heapwright::Options;
use heapwright::options::ENV_PREFIX;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Instant;

/// Carries out `heapwright run`.
pub(crate) fn run(run: &Run) -> Result<ExitCode, Refusal> {
    let log = run.log()?;
    let settings = run.heap_options()?;
    let dumps = run.dump.dumps()?;
    check_environment()?;
    let Some((name, arguments)) = run.command.split_first() else {
        return Err(Refusal::usage("no program is named"));
    };
    let library = library::find()?;
    let program = program::find(name, library.target, run.force)?;
    let profile = run.profile.target()?;

    let mut command = Command::new(&program.path);
    command.arg0(name).args(arguments);
    put_under(&mut command, &library, &program);
    for (name, value) in settings {
        command.env(format!("{ENV_PREFIX}{}", name.to_ascii_uppercase()), value);
    }
    if let Some(log) = &log {
        command.env(format!("{ENV_PREFIX}LOG"), &log.value);
        if let Some(file) = &log.file {
            output::writable(file)?;
        }
    }
    run.outputs.check()?;
    command.envs(dumps.variable());
    command.envs(run.listen.variable()?);
    if let Some(profile) = &profile {
        command.env(format!("{ENV_PREFIX}PROFILE"), profile.request());
    }
    if dumps.at_exit() || is_told(run) || profile.is_some() {
        supervise(command, run, name, &dumps, profile)
    } else {
        Err(failed(name, &command.exec()))
    }
}

/// Is anything to be said of the run?
fn is_told(run: &Run) -> bool {
    run.log.is_some() || run.summary || run.json || run.outputs.any()
}

/// What is in the environment already must be right too: the library below could not say so.
fn check_environment() -> Result<(), Refusal> {
    let ours = env::vars_os().filter(|(k, _)| k.to_string_lossy().starts_with(ENV_PREFIX));
    let text = |s: OsString| s.to_string_lossy().into_owned();
    let checked = match Options::from_vars_lenient(ours.map(|(k, v)| (text(k), text(v)))) {
        (_, Some(error)) => Err(error),
        (options, None) => options.check_for_words().map_err(|mut e| {
            e.name = format!("{ENV_PREFIX}PLAN");
            e
        }),
    };
    checked.map_err(|error| Refusal::usage(format!("in the environment: {error}")))?;
    profile::check_environment()
}

/// Puts our directory in front of the loader's list, and our library before all others where the list comes too late.
fn put_under(command: &mut Command, library: &Library, program: &Program) {
    command.env(
        "LD_LIBRARY_PATH",
        in_front(
            library.directory.as_os_str(),
            env::var_os("LD_LIBRARY_PATH"),
        ),
    );
    if program.preload {
        let file = library.directory.join(LIBGC);
        command.env(
            "LD_PRELOAD",
            in_front(file.as_os_str(), env::var_os("LD_PRELOAD")),
        );
    }
}

fn in_front(first: &OsStr, rest: Option<OsString>) -> OsString {
    let mut list = first.to_owned();
    if let Some(rest) = rest.filter(|r| !r.is_empty()) {
        list.push(":");
        list.push(rest);
    }
    list
}

fn failed(name: &OsStr, error: &io::Error) -> Refusal {
    let text = format!("{}: {error}", name.to_string_lossy());
    if error.kind() == io::ErrorKind::NotFound {
        Refusal::missing(text)
    } else {
        Refusal::unfit(text)
    }
}

/// Starts the program, passes signals on, waits, and says what happened.
fn supervise(
    mut command: Command,
    run: &Run,
    name: &OsStr,
    dumps: &Dumps,
    profile: Option<Target>,
) -> Result<ExitCode, Refusal> {
    let stats = StatsDirectory::new()
        .map_err(|e| Refusal::ours(format!("no directory for statistics can be made: {e}")))?;
    command.env(format!("{ENV_PREFIX}STATS_DIR"), stats.path());
    let recordings = Recordings::beside(&run.outputs, stats.path())?;
    if is_told(run) {
        command.env(format!("{ENV_PREFIX}RECORD"), recordings.pattern());
    }
    let ours = |e: io::Error| Refusal::ours(format!("cannot pass signals on: {e}"));
    let forwarding = Forwarding::prepare().map_err(ours)?;
    let started = Instant::now();
    let mut child = command.spawn().map_err(|e| failed(name, &e))?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
    let receiver = match forwarding.to(pid) {
        Ok(receiver) => receiver,
        Err(e) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(ours(e));
        }
    };
    // First wait without reaping: as long as it is not reaped, its number is nobody else's.
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
        == Err(nix::Error::EINTR)
    {}
    receiver.stop();
    let status = child
        .wait()
        .map_err(|e| Refusal::ours(format!("cannot wait for {}: {e}", name.to_string_lossy())))?;
    let wall = started.elapsed();
    let (recording, mut troubles) = recordings.finish(&run.outputs, child.id(), name);
    let digest = recording.as_ref().map(Digest::of);
    let outcome = Outcome::collect(&stats, name, child.id(), status, wall, digest);
    drop(stats);
    dumps.report(child.id());
    if run.log()?.is_some() || run.summary || run.json {
        outcome.report(run.json, run.log()?.as_ref(), run.summary);
    }
    troubles.extend(profile.and_then(|p| p.tell(&command_line(&run.command), run.json)));
    for trouble in &troubles {
        crate::complain(trouble);
    }
    // What was asked for is not there: that is said by the status, unless the program has something to say by its own.
    match troubles.first() {
        Some(trouble) if status.success() => Ok(ExitCode::from(trouble.status())),
        _ => Ok(end_like(status)),
    }
}

fn command_line(words: &[OsString]) -> String {
    let words: Vec<_> = words.iter().map(|w| w.to_string_lossy()).collect();
    words.join(" ")
}

/// Ends as the program ended: with its status, or by the same signal.
fn end_like(status: ExitStatus) -> ExitCode {
    if let Some(number) = status.signal() {
        if let Ok(signal) = Signal::try_from(number) {
            // The program has dumped its core, if any; ours is of no interest.
            let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
            if signal == Signal::SIGKILL {
                let _ = raise(signal);
            } else {
                let _ = signal_hook::low_level::emulate_default_handler(number);
            }
        }
        return ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX));
    }
    ExitCode::from(
        status
            .code()
            .and_then(|c| u8::try_from(c).ok())
            .unwrap_or(u8::MAX),
    )
}
