//! What `HEAPWRIGHT_PROFILE` may say.

use heapwright::options::size;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The rate where none is given: one sample for so many bytes on average.
pub const DEFAULT_RATE_BYTES: usize = 512 << 10;
/// The most bytes that a process writes where nothing else is said.
pub const DEFAULT_LIMIT_BYTES: u64 = 64 << 20;

/// What is to be profiled and where it goes: `FILE[,rate=SIZE][,limit=SIZE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Appended to; `%p` in its name is the number of the process.
    pub file: PathBuf,
    /// The mean distance of samples, in bytes that are allocated.
    pub rate_bytes: usize,
    /// The most bytes that a process writes. Samples come the more rarely the nearer it is.
    pub limit_bytes: u64,
}

impl Request {
    /// To a file, with what is usual.
    #[must_use]
    pub fn to(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            rate_bytes: DEFAULT_RATE_BYTES,
            limit_bytes: DEFAULT_LIMIT_BYTES,
        }
    }

    /// Reads the variable's value.
    ///
    /// # Errors
    /// If a number is wrong or there is no file: what is, in a sentence.
    pub fn parse(value: &OsStr) -> Result<Self, String> {
        let mut bytes = value.as_bytes();
        let mut request = Self::to("");
        while let Some(comma) = bytes.iter().rposition(|b| *b == b',') {
            let word = String::from_utf8_lossy(&bytes[comma + 1..]);
            let number = |text| match size(text) {
                Ok(0) => Err(format!("{word}: it must not be 0")),
                Ok(number) => Ok(number),
                Err(why) => Err(format!("{word}: {why}")),
            };
            if let Some(text) = word.strip_prefix("rate=") {
                request.rate_bytes = number(text)?;
            } else if let Some(text) = word.strip_prefix("limit=") {
                request.limit_bytes = number(text)? as u64;
            } else {
                break;
            }
            bytes = &bytes[..comma];
        }
        if bytes.is_empty() {
            return Err(String::from("FILE[,rate=SIZE][,limit=SIZE] is wanted"));
        }
        request.file = PathBuf::from(OsStr::from_bytes(bytes));
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn parse(text: &str) -> Result<Request, String> {
        Request::parse(OsStr::new(text))
    }

    #[test]
    fn a_file_and_what_is_said_of_it() {
        assert_eq!(parse("a.raw").unwrap(), Request::to("a.raw"));
        let wanted = Request {
            rate_bytes: 64 << 10,
            limit_bytes: 1 << 20,
            ..Request::to("a,b.raw")
        };
        assert_eq!(parse("a,b.raw,rate=64k,limit=1m").unwrap(), wanted);
        assert_eq!(parse("a,b.raw,limit=1m,rate=64k").unwrap(), wanted);
    }

    #[test]
    fn wrong_values_are_named() {
        for (text, part) in [
            ("", "is wanted"),
            (",rate=1k", "is wanted"),
            ("x,rate=0", "must not be 0"),
            ("x,rate=often", "rate=often"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
