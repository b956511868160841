//! `heapwright run --listen` and `heapwright bench --listen`: the program answers `heapwright top` and `heapwright map`.

use crate::refusal::Refusal;
use clap::Args;
use heapwright::options::ENV_PREFIX;
use heapwright_observe::live::directory;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The longest path of a socket.
const LONGEST: usize = 107;

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Listen {
    /// Let the program, or each run, answer `heapwright top` and `heapwright map`, over a socket for this user only; PATH is where, with %p for the
    /// process's number
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    listen: Option<PathBuf>,
}

impl Listen {
    /// What the library is told, after a look whether a socket can be there.
    pub(crate) fn variable(&self) -> Result<Option<(String, OsString)>, Refusal> {
        let value = self.value()?;
        Ok(value.map(|value| (format!("{ENV_PREFIX}LISTEN"), value)))
    }

    /// Where it is to listen, as the variable says it.
    pub(crate) fn value(&self) -> Result<Option<OsString>, Refusal> {
        let Some(listen) = &self.listen else {
            return Ok(None);
        };
        if listen.as_os_str() == "1" {
            directory().map_err(|e| Refusal::usage(format!("--listen: {e}")))?;
            return Ok(Some("1".into()));
        }
        let wrong = |e: &str| Refusal::usage(format!("--listen={}: {e}", listen.display()));
        let path = std::path::absolute(listen).map_err(|e| wrong(&e.to_string()))?;
        if path.as_os_str().as_bytes().len() > LONGEST {
            return Err(wrong(&format!(
                "the path of a socket has {LONGEST} bytes at most"
            )));
        }
        if !path.parent().is_some_and(|p| p.is_dir()) {
            return Err(wrong("there is no such directory"));
        }
        Ok(Some(path.into_os_string()))
    }
}
