//! A bar on stderr, if that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};
use std::time::Duration;

/// Rarely: drawing takes time from what is measured.
const REDRAW: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(runs: usize) -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let runs = u64::try_from(runs).ok();
        let bar = ProgressBar::with_draw_target(runs, ProgressDrawTarget::stderr_with_hz(2));
        let style = ProgressStyle::with_template(
            "{bar:24} {pos}/{len} runs, {elapsed}, {eta} left  {wide_msg}",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(REDRAW);
        Self(bar)
    }

    /// Says what goes on.
    pub(crate) fn say(&self, what: String) {
        self.0.set_message(what);
    }

    /// One run is done.
    pub(crate) fn step(&self) {
        self.0.inc(1);
    }

    /// Does something that writes to the terminal.
    pub(crate) fn aside<T>(&self, act: impl FnOnce() -> T) -> T {
        self.0.suspend(act)
    }

    /// Removes the bar.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}
