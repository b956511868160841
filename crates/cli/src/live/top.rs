//! `heapwright top`: a process's heap, looked at while it runs.

use super::screen::{Screen, draw, text};
use super::{Connection, status};
use crate::output;
use crate::refusal::Refusal;
use clap::Args;
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
The program has to listen: it was started by `heapwright run --listen`, or has HEAPWRIGHT_LISTEN=1 in its environment. Without a
number, the only process that listens is taken. Keys: q ends, p stops and goes on, c has the heap collected.

Examples:
  heapwright top
  heapwright top 1234 --interval 0.2
  heapwright top 1234 --once
  heapwright top --json";

/// The command line of `heapwright top`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Top {
    /// The number of the process, or the path of its socket
    #[arg(value_name = "PID")]
    whom: Option<OsString>,
    /// Say once what there is, and end; so does a stdout that is no terminal
    #[arg(long)]
    once: bool,
    /// Say it once, as JSON
    #[arg(long)]
    json: bool,
    /// Seconds between two looks, from 0.05 on
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = interval)]
    interval: f64,
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.05 to 3600 is wanted".to_owned()),
    }
}

/// Carries out `heapwright top`.
pub(crate) fn run(top: &Top) -> Result<ExitCode, Refusal> {
    let mut connection = Connection::to(top.whom.as_ref())?;
    let first = connection.ask_now("status")?;
    if top.json {
        status(&first)?;
        return output::put(&first);
    }
    if top.once || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return output::put(&text(&status(&first)?));
    }
    let mut screen = Screen::default();
    screen.add(status(&first)?);
    let end = watch(
        &mut screen,
        &mut connection,
        Duration::from_secs_f64(top.interval),
    )?;
    match end {
        End::Asked => Ok(ExitCode::SUCCESS),
        End::Gone => output::put(&format!("process {} has ended\n", screen.now().pid)),
    }
}

/// Why it ended.
enum End {
    Asked,
    Gone,
}

fn watch(
    screen: &mut Screen,
    connection: &mut Connection,
    interval: Duration,
) -> Result<End, Refusal> {
    let failed = |e: io::Error| Refusal::ours(format!("the terminal cannot be used: {e}"));
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&ended)).map_err(failed)?;
    }
    // Restores the terminal when this panics, too.
    let mut terminal = ratatui::try_init().map_err(|e| {
        let _ = ratatui::try_restore();
        failed(e)
    })?;
    let mut watching = || -> Result<End, Refusal> {
        let mut next = Instant::now() + interval;
        loop {
            terminal.draw(|frame| draw(frame, screen)).map_err(failed)?;
            let rest = next.saturating_duration_since(Instant::now());
            // A signal must be seen soon.
            if event::poll(rest.min(Duration::from_millis(200))).map_err(failed)? {
                let event = event::read().map_err(failed)?;
                if let Event::Key(key) = event
                    && pressed(key, screen, connection)?.is_break()
                {
                    return Ok(End::Asked);
                }
            }
            if ended.load(Ordering::Relaxed) {
                return Ok(End::Asked);
            }
            if Instant::now() >= next {
                next = Instant::now() + interval;
                match connection.ask("status")? {
                    Some(line) => screen.add(status(&line)?),
                    None => return Ok(End::Gone),
                }
            }
        }
    };
    let end = watching();
    let restored = terminal.show_cursor();
    if ratatui::try_restore().and(restored).is_err() {
        // It was hung up, and needs not be restored. What is dropped would complain of it on the same terminal, and panic.
        std::mem::forget(terminal);
    }
    end
}

fn pressed(
    key: KeyEvent,
    screen: &mut Screen,
    connection: &mut Connection,
) -> Result<ControlFlow<()>, Refusal> {
    if key.kind == KeyEventKind::Release {
        return Ok(ControlFlow::Continue(()));
    }
    let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Ok(ControlFlow::Break(())),
        KeyCode::Char('c') if with_control => return Ok(ControlFlow::Break(())),
        KeyCode::Char('p') => screen.pause(),
        KeyCode::Char('c') => {
            // Who has ended is noticed at the next look.
            screen.message = match connection.ask("collect") {
                Ok(_) => "a collection was asked for".to_owned(),
                Err(e) => e.to_string(),
            };
        }
        _ => {}
    }
    Ok(ControlFlow::Continue(()))
}
