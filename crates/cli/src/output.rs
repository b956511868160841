//! What goes to stdout.

use crate::refusal::Refusal;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

/// Writes to stdout. Breaks off if nobody reads it any more.
pub(crate) fn write(text: &str) -> Result<ControlFlow<()>, Refusal> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        // The reader has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(e) => Err(Refusal::ours(format!("cannot write to stdout: {e}"))),
    }
}

/// Writes all that a command has to say.
pub(crate) fn put(text: &str) -> Result<ExitCode, Refusal> {
    write(text).map(|_| ExitCode::SUCCESS)
}

/// A value as JSON: on one line, or indented.
pub(crate) fn json(value: &impl serde::Serialize, indented: bool) -> Result<String, Refusal> {
    let text = if indented {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    text.map(|t| t + "\n")
        .map_err(|e| Refusal::ours(e.to_string()))
}
