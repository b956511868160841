//! When dumps are taken of a program that was not written for them, and where they go: what `HEAPWRIGHT_DUMP` says.
//!
//! ```text
//! requests = request *( ";" request )
//! request  = [ when *( "," when ) "=" ] file
//! when     = "exit" / "oom" / "signal:" ( name / number )
//! ```
//!
//! Without `when` it is at exit. A file's name ends in an extension of [`Format`]; in it, `%p` is the number of the process, and `%n` how many
//! dumps it has begun. What stands before `=` and is no list of `when` belongs to the file's name.

use super::{Format, UnknownFormat};
use core::fmt;
use std::path::{Path, PathBuf};

/// What a dump waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum When {
    /// The program calls `exit`, or returns from `main`.
    Exit,
    /// Memory has run out, for the first time, and the program is about to be told.
    OutOfMemory,
    /// A signal, every time.
    Signal(i32),
}

/// Dumps into one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When.
    pub when: Vec<When>,
    /// Where: with `%p` and `%n` as they were given.
    pub file: PathBuf,
    /// In which format.
    pub format: Format,
}

/// Why a request is none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WrongRequest {
    /// There is no signal of that name or number, or it cannot be had.
    Signal(String),
    /// The file's name says no format.
    Format(UnknownFormat),
    /// It has no file's name.
    NoFile,
}

impl fmt::Display for WrongRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(name) => write!(
                f,
                "signal:{name}: a signal that a program may handle and that stops no thread is wanted, like signal:USR1"
            ),
            Self::Format(e) => e.fmt(f),
            Self::NoFile => f.write_str(
                "a file is wanted, like exit=heap-%p.hprof; before = may stand exit, oom or signal:USR1, with commas between them",
            ),
        }
    }
}

impl core::error::Error for WrongRequest {}

impl From<UnknownFormat> for WrongRequest {
    fn from(e: UnknownFormat) -> Self {
        Self::Format(e)
    }
}

/// Signals that have names here: those that programs leave alone, mostly. By their numbers, all others that can be handled.
const SIGNALS: [(&str, i32); 8] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("USR1", 10),
    ("USR2", 12),
    ("TERM", 15),
    ("URG", 23),
    ("WINCH", 28),
];

/// Those that cannot be handled, that a thread causes by what it does, and that the collector stops threads with.
const NOT_THESE: [i32; 11] = [4, 5, 6, 7, 8, 9, 11, 19, 24, 30, 31];

fn signal(text: &str) -> Result<i32, WrongRequest> {
    let named = SIGNALS
        .iter()
        .find(|(name, _)| text.strip_prefix("SIG").unwrap_or(text) == *name)
        .map(|(_, number)| *number);
    let number = named.or_else(|| text.parse().ok());
    number
        .filter(|n| (1..=64).contains(n) && !NOT_THESE.contains(n) && !(32..=34).contains(n))
        .ok_or_else(|| WrongRequest::Signal(text.to_owned()))
}

fn when(text: &str) -> Option<Result<When, WrongRequest>> {
    match text {
        "exit" => Some(Ok(When::Exit)),
        "oom" => Some(Ok(When::OutOfMemory)),
        _ => Some(signal(text.strip_prefix("signal:")?).map(When::Signal)),
    }
}

impl Request {
    /// A request for when it is to be and a file.
    ///
    /// # Errors
    /// If the file's name says no format.
    pub fn new(when: Vec<When>, file: &Path) -> Result<Self, WrongRequest> {
        if file.as_os_str().is_empty() {
            return Err(WrongRequest::NoFile);
        }
        Ok(Self {
            when,
            format: Format::of(file)?,
            file: file.to_owned(),
        })
    }

    fn parse(text: &str) -> Result<Self, WrongRequest> {
        if let Some((list, file)) = text.split_once('=')
            && let Some(list) = list.split(',').map(when).collect::<Option<Vec<_>>>()
        {
            let when = list.into_iter().collect::<Result<_, _>>()?;
            return Self::new(when, Path::new(file));
        }
        Self::new(vec![When::Exit], Path::new(text))
    }

    /// All requests of a text.
    ///
    /// # Errors
    /// The first one that is none.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, WrongRequest> {
        text.split(';').map(Self::parse).collect()
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, when) in self.when.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            match when {
                When::Exit => f.write_str("exit")?,
                When::OutOfMemory => f.write_str("oom")?,
                When::Signal(number) => write!(f, "signal:{number}")?,
            }
        }
        write!(f, "={}", self.file.display())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn requests_are_read_and_written() {
        for (text, again) in [
            ("a.hprof", "exit=a.hprof"),
            ("oom=/x/%p.hprof", "oom=/x/%p.hprof"),
            ("exit,oom=a.heapsnapshot", "exit,oom=a.heapsnapshot"),
            ("signal:USR1=a.hprof", "signal:10=a.hprof"),
            ("signal:SIGUSR2,exit=a=b.hprof", "signal:12,exit=a=b.hprof"),
            ("a=b.hprof", "exit=a=b.hprof"),
        ] {
            let all = Request::parse_all(text).unwrap();
            assert_eq!(all.len(), 1);
            assert_eq!(all[0].to_string(), again);
            assert_eq!(Request::parse_all(again).unwrap(), all);
        }
        let two = Request::parse_all("exit=a.hprof;oom=b.heapsnapshot").unwrap();
        assert_eq!(two[0].when, [When::Exit]);
        assert_eq!(two[1].format, Format::HeapSnapshot);
        for (text, word) in [
            ("", "a file is wanted"),
            ("exit=", "a file is wanted"),
            ("oom=a.txt", ".hprof"),
            ("a.hprof;b", ".heapsnapshot"),
            ("signal:NOPE=a.hprof", "USR1"),
            ("signal:9=a.hprof", "USR1"),
            ("signal:30=a.hprof", "USR1"),
            ("signal:0=a.hprof", "USR1"),
        ] {
            let error = Request::parse_all(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
