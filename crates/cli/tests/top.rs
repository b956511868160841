//! `heapwright top` in a terminal: what is to be seen, what keys do, and that the terminal is left as it was found, however it ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod fixtures;

use fixtures::listening::{Running, Runtime};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use std::num::NonZeroU16;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What must happen happens by then, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

fn rows_and_columns(size: (u16, u16)) -> (NonZeroU16, NonZeroU16) {
    (
        NonZeroU16::new(size.0.max(1)).unwrap(),
        NonZeroU16::new(size.1.max(1)).unwrap(),
    )
}

/// A terminal with `heapwright top` in it.
struct Terminal {
    ours: OwnedFd,
    /// Stays open, so that its modes can be asked for when the command has ended.
    theirs: OwnedFd,
    modes: String,
    shown: vt100::Parser,
    top: Child,
}

impl Terminal {
    /// Rows and columns.
    fn start(runtime: &Runtime, size: (u16, u16), arguments: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
        let end = || Stdio::from(theirs.try_clone().unwrap());
        let command = runtime.command(&["top"]);
        // The terminal has to be the session's: else no size and no hang-up is told.
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program());
        session.args(command.get_args()).args(arguments);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        let (rows, columns) = rows_and_columns(size);
        let mut terminal = Self {
            modes: format!("{:?}", tcgetattr(&theirs).unwrap()),
            shown: vt100::Parser::new(rows, columns, 0),
            top: {
                resize(&ours, size);
                session.stdin(end()).stdout(end()).stderr(end());
                session.spawn().unwrap()
            },
            ours,
            theirs,
        };
        terminal.until("the other screen", |t| t.shown.screen().alternate_screen());
        terminal
    }

    fn text(&self) -> String {
        self.shown.screen().contents()
    }

    /// Takes what the command writes within a time. `false`: nothing.
    fn take(&mut self, within: Duration) -> bool {
        let mut ready = [PollFd::new(&self.ours, PollFlags::IN)];
        let within = Timespec::try_from(within).unwrap();
        if poll(&mut ready, Some(&within)).unwrap() == 0 {
            return false;
        }
        let mut bytes = [0; 4096];
        let n = rustix::io::read(&self.ours, &mut bytes).unwrap();
        self.shown.process(&bytes[..n]);
        true
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < PATIENCE, "{what}\n{}", self.text());
            self.take(Duration::from_millis(100));
        }
    }

    fn until_shown(&mut self, text: &str) {
        self.until(text, |t| t.text().contains(text));
    }

    fn press(&mut self, keys: &str) {
        rustix::io::write(&self.ours, keys.as_bytes()).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.top), signal).unwrap();
    }

    fn resize(&mut self, size: (u16, u16)) {
        // What was written for the old size is not shown in the new one.
        while self.take(Duration::ZERO) {}
        let (rows, columns) = rows_and_columns(size);
        self.shown = vt100::Parser::new(rows, columns, 0);
        resize(&self.ours, size);
    }

    /// The number after a word on the screen.
    fn number_after(&self, word: &str) -> Option<u64> {
        let text = self.text();
        let rest = text.split_once(word)?.1;
        rest.split_whitespace().next()?.parse().ok()
    }

    /// How it ended.
    fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        let status = loop {
            // Else it would wait for us to read.
            self.take(Duration::from_millis(20));
            if let Some(status) = self.top.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "it goes on\n{}", self.text());
        };
        while self.take(Duration::ZERO) {}
        status
    }

    /// It has ended well and left the terminal as it found it.
    fn is_restored(&mut self) {
        let status = self.ended();
        assert_eq!(status.code(), Some(0), "{status}\n{}", self.text());
        self.is_as_before();
    }

    fn is_as_before(&self) {
        assert!(!self.shown.screen().alternate_screen(), "{}", self.text());
        assert!(!self.shown.screen().hide_cursor(), "{}", self.text());
        assert_eq!(
            format!("{:?}", tcgetattr(&self.theirs).unwrap()),
            self.modes
        );
        assert!(!self.text().contains("panicked"), "{}", self.text());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.top.kill();
        let _ = self.top.wait();
    }
}

fn resize(terminal: &OwnedFd, (rows, columns): (u16, u16)) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

/// A program that has collected, and `top` that shows it.
fn started(name: &str) -> (Runtime, Running, Terminal) {
    let runtime = Runtime::new(name);
    let mut running = Running::start(&runtime, &["--listen"]);
    running.tell("work");
    let pid = running.pid();
    let terminal = Terminal::start(&runtime, (34, 110), &[&pid, "--interval", "0.05"]);
    (runtime, running, terminal)
}

#[test]
fn the_screen_shows_the_heap_and_keys_do_what_it_says() {
    let (_runtime, mut running, mut terminal) = started("screen");
    let heading = format!(
        "heapwright top  listens (process {}), marksweep",
        running.pid()
    );
    terminal.until_shown(&heading);
    // The last line that is drawn.
    terminal.until_shown(" q end   p pause   c collect ");
    let text = terminal.text();
    for word in [
        "heap  ",
        "free ",
        "limit ",
        "live  ",
        "resident  ",
        "allocation  ",
        "budget",
        "of the CPU time",
        " heap (cyan), live (green) ",
        " allocation a second ",
        " last collections ",
        " pauses ",
        "longest  ",
        "99.9 %",
    ] {
        assert!(text.contains(word), "{word}\n{text}");
    }
    assert!(terminal.shown.screen().hide_cursor());
    assert_ne!(
        format!("{:?}", tcgetattr(&terminal.theirs).unwrap()),
        terminal.modes
    );

    // It stops, and what happens meanwhile is not shown; then it is.
    let collections = |t: &Terminal| t.number_after("collections  ");
    let before = collections(&terminal).unwrap();
    terminal.press("p");
    terminal.until_shown("PAUSED");
    running.tell("work");
    let paused = terminal.text();
    for _ in 0..10 {
        terminal.take(Duration::from_millis(50));
    }
    assert_eq!(terminal.text(), paused);
    terminal.press("p");
    terminal.until("more collections", |t| collections(t) > Some(before));
    terminal.until("no word of it", |t| !t.text().contains("PAUSED"));

    assert!(!terminal.text().contains("requested"));
    terminal.press("c");
    terminal.until_shown("a collection was asked for");
    running.tell("work");
    terminal.until_shown("1 requested");

    terminal.press("q");
    terminal.is_restored();
    running.exit();
}

#[test]
fn the_terminal_is_restored_by_keys_and_signals() {
    let (runtime, running, first) = started("signals");
    drop(first);
    let pid = running.pid();
    type End = fn(&mut Terminal);
    let enders: [(&str, End); 6] = [
        ("q", |t| t.press("q")),
        ("Escape", |t| t.press("\x1b")),
        ("Ctrl-C", |t| t.press("\x03")),
        ("SIGINT", |t| t.signal(Signal::INT)),
        ("SIGTERM", |t| t.signal(Signal::TERM)),
        ("SIGHUP", |t| t.signal(Signal::HUP)),
    ];
    for (name, end) in enders {
        let mut terminal = Terminal::start(&runtime, (24, 80), &[&pid]);
        terminal.until_shown("q end");
        end(&mut terminal);
        let status = terminal.ended();
        assert_eq!(status.code(), Some(0), "{name}: {status}");
        terminal.is_as_before();
    }
    running.exit();
}

#[test]
fn it_ends_when_its_terminal_does() {
    let (_runtime, running, mut terminal) = started("hangup");
    terminal.until_shown("q end");
    // The window is closed: the system hangs up.
    let Terminal { ours, top, .. } = &mut terminal;
    let nothing = std::fs::File::open("/dev/null").unwrap();
    drop(std::mem::replace(ours, nothing.into()));
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = top.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE, "it goes on");
        std::thread::sleep(Duration::from_millis(20));
    };
    // In order or with what failed; not by a panic, whose status is 101, or an abort.
    assert!(matches!(status.code(), Some(0 | 125)), "{status}");
    running.exit();
}

#[test]
fn any_size_is_drawn_and_what_is_drawn_again_is_whole() {
    let (_runtime, running, mut terminal) = started("sizes");
    terminal.until_shown("q end");
    for size in [
        (3, 10),
        (1, 1),
        (24, 80),
        (0, 0),
        (2, 200),
        (60, 3),
        (34, 110),
    ] {
        terminal.resize(size);
        if size.0 > 20 && size.1 > 20 {
            // All of it, though much of it is what it was.
            terminal.until_shown("heapwright top");
            terminal.until_shown("resident");
            terminal.until_shown(" last collections ");
            terminal.until_shown("q end");
        } else if size.0 > 0 {
            terminal.until("something", |t| !t.text().trim().is_empty());
        }
    }
    terminal.press("q");
    terminal.is_restored();
    running.exit();
}

#[test]
fn it_says_when_the_process_ends() {
    let (runtime, running, mut terminal) = started("ended");
    terminal.until_shown("q end");
    let pid = running.pid();
    running.exit();
    terminal.is_restored();
    let said = format!("process {pid} has ended");
    assert!(terminal.text().contains(&said), "{}", terminal.text());

    let mut running = Running::start(&runtime, &["--listen"]);
    let pid = running.pid();
    let mut terminal = Terminal::start(&runtime, (24, 80), &[&pid]);
    terminal.until_shown("q end");
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    terminal.is_restored();
    let said = format!("process {pid} has ended");
    assert!(terminal.text().contains(&said), "{}", terminal.text());
}

#[test]
fn it_says_when_the_process_does_not_answer() {
    let (_runtime, running, mut terminal) = started("stopped");
    terminal.until_shown("q end");
    let process = Pid::from_child(&running.child);
    kill_process(process, Signal::STOP).unwrap();
    let status = terminal.ended();
    kill_process(process, Signal::CONT).unwrap();
    assert_eq!(status.code(), Some(125), "{status}");
    terminal.is_as_before();
    let said = format!("process {}: no answer within 5 s", running.pid());
    assert!(terminal.text().contains(&said), "{}", terminal.text());
    running.exit();
}

#[test]
fn a_stdout_that_is_closed_is_no_terminal() {
    let runtime = Runtime::new("closed");
    let running = Running::start(&runtime, &["--listen"]);
    let command = runtime.command(&["top"]);
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "exec \"$0\" top \"$1\" >&-",
        fixtures::COMMAND,
        &running.pid(),
    ]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let done = shell.output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    running.exit();
}
