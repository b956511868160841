//! One run is one process: this command again, with what to run as JSON, which answers with a line of JSON.

use super::args::Child;
use crate::output;
use crate::refusal::Refusal;
use crate::signals;
use heapwright_bench::spec::{Report, Spec, Status};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use signal_hook::iterator::Signals;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{self, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The name of the subcommand that carries out one run.
pub(crate) const SUBCOMMAND: &str = "bench-child";

/// Carries out one run in this process and prints the report.
pub(crate) fn run(child: &Child) -> Result<ExitCode, Refusal> {
    // If it cannot be had, a run may go on for a while after this command was killed.
    let _ = set_pdeathsig(Signal::SIGKILL);
    let spec: Spec = serde_json::from_str(&child.spec)
        .map_err(|e| Refusal::usage(format!("{SUBCOMMAND}: {e}")))?;
    output::put(&output::json(&heapwright_bench::run(&spec), false)?)
}

/// The signal by which the user ended the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interrupted(pub(crate) i32);

enum Event {
    /// The child closed its stdout or stderr.
    Closed,
    /// This process received a signal.
    Signal(i32),
}

enum Stop {
    Timeout,
    Signal(i32),
}

/// Starts processes, one after the other, and waits for them.
#[derive(Debug)]
pub(crate) struct Runner {
    sender: Sender<Event>,
    events: Receiver<Event>,
}

impl Runner {
    /// From now on, signals that would end this process end the run first.
    pub(crate) fn new() -> io::Result<Self> {
        let (sender, events) = channel();
        let ignored = signals::ignored();
        let ending = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .map(|s| s as i32)
            .into_iter()
            .filter(|s| ignored & (1 << (s - 1)) == 0);
        let mut arriving = Signals::new(ending)?;
        let tell = sender.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for number in arriving.forever() {
                    // Nobody listens any more: the process is about to end.
                    let _ = tell.send(Event::Signal(number));
                }
            })?;
        Ok(Self { sender, events })
    }

    /// One run, in a process that has ended when this returns.
    pub(crate) fn run(&mut self, spec: &Spec, limit: Duration) -> Result<Report, Interrupted> {
        let command = match command(spec) {
            Ok(command) => command,
            Err(e) => return Ok(failed(format!("it could not be started: {e}"))),
        };
        Ok(match self.run_command(command, limit)? {
            Ok(ended) => checked_report(&ended),
            Err(why) => failed(why),
        })
    }

    /// Runs any command to its end: what it said, or why there is nothing. Its output is taken, its input is empty.
    pub(crate) fn run_command(
        &mut self,
        mut command: Command,
        limit: Duration,
    ) -> Result<Result<Ended, String>, Interrupted> {
        while let Ok(event) = self.events.try_recv() {
            if let Event::Signal(number) = event {
                return Err(Interrupted(number));
            }
        }
        let started = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        match started {
            Ok(child) => self.wait(child, limit),
            Err(e) => Ok(Err(format!("it could not be started: {e}"))),
        }
    }

    fn wait(
        &self,
        mut child: process::Child,
        limit: Duration,
    ) -> Result<Result<Ended, String>, Interrupted> {
        let (said, complained) = match self.listen(&mut child) {
            Ok(readers) => readers,
            Err(e) => {
                end(&mut child);
                return Ok(Err(format!("there is no thread to listen to it: {e}")));
            }
        };
        let mut deadline = Instant::now() + limit;
        let mut open = 2;
        let mut stopped = None;
        while open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Closed) => open -= 1,
                Ok(Event::Signal(number)) => {
                    stopped = Some(Stop::Signal(number));
                    end(&mut child);
                }
                Err(RecvTimeoutError::Timeout) => {
                    stopped.get_or_insert(Stop::Timeout);
                    end(&mut child);
                    deadline = Instant::now() + limit;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = child.wait();
        let (said, complained) = (text(said), text(complained));
        match (stopped, status) {
            (Some(Stop::Signal(number)), _) => Err(Interrupted(number)),
            (Some(Stop::Timeout), _) => Ok(Err(format!(
                "it took longer than {:.0} s",
                limit.as_secs_f64().ceil()
            ))),
            // Ctrl-C reaches the whole group, and the child may be faster than we.
            (None, Ok(status)) if status.signal() == Some(Signal::SIGINT as i32) => {
                Err(Interrupted(Signal::SIGINT as i32))
            }
            (None, Ok(status)) => Ok(Ok(Ended {
                status,
                said,
                complained,
            })),
            (None, Err(e)) => Ok(Err(format!("it could not be waited for: {e}"))),
        }
    }

    /// Threads that read what the child says: a pipe that nobody reads would stop it.
    fn listen(&self, child: &mut process::Child) -> io::Result<(Reader, Reader)> {
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let said = self.reader(stdout)?;
        match self.reader(stderr) {
            Ok(complained) => Ok((said, complained)),
            Err(e) => {
                end(child);
                let _ = said.join();
                Err(e)
            }
        }
    }

    fn reader(&self, mut from: impl Read + Send + 'static) -> io::Result<Reader> {
        let tell = self.sender.clone();
        thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || {
                let mut all = Vec::new();
                // What was read until it failed is what there is.
                let _ = from.read_to_end(&mut all);
                let _ = tell.send(Event::Closed);
                all
            })
    }
}

type Reader = JoinHandle<Vec<u8>>;

/// A process that came to an end by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// On stdout.
    pub(crate) said: String,
    /// On stderr.
    pub(crate) complained: String,
}

impl Ended {
    /// The last line that it said, or why that does not count.
    pub(crate) fn last_line(&self) -> Result<&str, String> {
        if let Some(number) = self.status.signal() {
            let name = Signal::try_from(number).map_or("unknown", Signal::as_str);
            let hint = if number == Signal::SIGKILL as i32 {
                "; the system may have been out of memory"
            } else {
                ""
            };
            return Err(self.with_words(format!("ended by signal {number} ({name}){hint}")));
        }
        if !self.status.success() {
            return Err(self.with_words(self.status.to_string()));
        }
        Ok(self.said.lines().next_back().unwrap_or_default())
    }

    /// Adds the first of what it said on stderr, on one line.
    pub(crate) fn with_words(&self, mut why: String) -> String {
        let mut words = self
            .complained
            .lines()
            .map(str::trim)
            .take_while(|l| *l != "stack backtrace:")
            .filter(|l| !l.is_empty() && !l.starts_with("note:"))
            .take(3)
            .peekable();
        if words.peek().is_some() {
            why += ": ";
            why.extend(words.collect::<Vec<_>>().join(" ").chars().take(300));
        }
        why
    }
}

fn command(spec: &Spec) -> io::Result<Command> {
    // Not the path: a build may have put another command there in the meantime.
    let this = Path::new("/proc/self/exe");
    let mut command = if this.exists() {
        Command::new(this)
    } else {
        Command::new(std::env::current_exe()?)
    };
    command
        .arg0("heapwright")
        .arg(SUBCOMMAND)
        .arg(serde_json::to_string(spec)?);
    Ok(command)
}

fn end(child: &mut process::Child) {
    // If it has ended, that is what was wanted.
    let _ = child.kill();
    let _ = child.wait();
}

fn text(reader: Reader) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

/// What the ended child reported, or why it did not.
fn checked_report(ended: &Ended) -> Report {
    match ended.last_line().map(serde_json::from_str::<Report>) {
        Ok(Ok(report)) => checked(report),
        Ok(Err(e)) => failed(ended.with_words(format!("its report cannot be read: {e}"))),
        Err(why) => failed(why),
    }
}

/// What the verifier found is a failure.
fn checked(mut report: Report) -> Report {
    if report.violations > 0 && report.status == Status::Ok {
        report.status = Status::Failed;
        let found = format!("the verifier found {} violations", report.violations);
        report.why.get_or_insert(found);
    }
    report
}

fn failed(why: String) -> Report {
    Report::ended(Status::Failed, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: ExitStatus, said: &str, complained: &str) -> Report {
        checked_report(&Ended {
            status,
            said: said.to_owned(),
            complained: complained.to_owned(),
        })
    }

    #[test]
    fn the_end_of_a_child_is_read() {
        let report = read(ExitStatus::from_raw(11), "", "one\n\nnote: x\ntwo\n");
        assert_eq!(report.status, Status::Failed);
        let why = report.why.as_deref();
        assert_eq!(why, Some("ended by signal 11 (SIGSEGV): one two"));
        for (status, said, part) in [
            (9, "", "out of memory"),
            (0x200, "", "exit status: 2"),
            (0, "", "cannot be read"),
            (0, "{\"status\":\"ok\"}", "wall_s"),
        ] {
            let why = read(ExitStatus::from_raw(status), said, "").why;
            assert!(why.is_some_and(|w| w.contains(part)), "{part}");
        }
    }

    #[test]
    fn violations_are_a_failure() {
        let violated = Report {
            violations: 2,
            ..Report::default()
        };
        let report = serde_json::to_string(&violated).unwrap_or_default();
        assert!(report.contains("\"ok\""));
        let read = read(ExitStatus::from_raw(0), &report, "");
        assert_eq!(read.status, Status::Failed);
        assert!(read.why.is_some_and(|w| w.contains("2 violations")));
    }
}
