//! What goes to stdout and to files.

use crate::refusal::Refusal;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
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

/// A path for variables in which `%p` is replaced: here nothing is.
pub(crate) fn literal(path: &Path) -> OsString {
    let mut name = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        name.extend(std::iter::repeat_n(*byte, 1 + usize::from(*byte == b'%')));
    }
    OsString::from_vec(name)
}

/// A file that cannot be written is said at once. One that is there keeps its contents until there are new ones.
pub(crate) fn writable(file: &Path) -> Result<(), Refusal> {
    let is_new = !file.exists();
    File::options()
        .append(true)
        .create(true)
        .open(file)
        .map_err(|e| Refusal::usage(format!("{}: it cannot be written: {e}", file.display())))?;
    if is_new {
        // Nothing is lost if it stays: it is empty.
        let _ = fs::remove_file(file);
    }
    Ok(())
}

/// Writes a file, or leaves it as it was.
pub(crate) fn write_file(file: &Path, bytes: &[u8]) -> Result<(), Refusal> {
    let failed = |e| Refusal::ours(format!("{}: {e}", file.display()));
    if file.exists() && !file.is_file() {
        // A pipe or a device.
        return fs::write(file, bytes).map_err(failed);
    }
    // Not half a file in the place of a whole one, should the disk be full.
    let new = file.with_extension(format!("new-{}", std::process::id()));
    fs::write(&new, bytes)
        .and_then(|()| fs::rename(&new, file))
        .map_err(|e| {
            let _ = fs::remove_file(&new);
            failed(e)
        })
}

/// The command line as a person would type it.
pub(crate) fn command_line() -> String {
    let words = std::env::args().skip(1);
    let quoted = words.map(|w| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,/:+%".contains(c);
        if !w.is_empty() && w.chars().all(plain) {
            w
        } else {
            format!("'{}'", w.replace('\'', "'\\''"))
        }
    });
    ["heapwright".to_owned()]
        .into_iter()
        .chain(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}
