//! Why a program was not run, with the exit status for it.

use std::fmt;

/// A sentence for the user and the status to exit with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: u8,
    text: String,
}

impl Refusal {
    /// The command line or the environment asks for something that does not exist: status 2.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self {
            status: 2,
            text: text.into(),
        }
    }

    /// Something of ours is missing or failed: status 125, as `env` and `timeout` have it.
    pub(crate) fn ours(text: impl Into<String>) -> Self {
        Self {
            status: 125,
            text: text.into(),
        }
    }

    /// The program is there and cannot be run like this: status 126, as shells have it.
    pub(crate) fn unfit(text: impl Into<String>) -> Self {
        Self {
            status: 126,
            text: text.into(),
        }
    }

    /// There is no such program: status 127, as shells have it.
    pub(crate) fn missing(text: impl Into<String>) -> Self {
        Self {
            status: 127,
            text: text.into(),
        }
    }

    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        self.status
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
