//! Processes that listen: which there are, and what they answer. `heapwright_observe::live` is the other end.

mod dump;
mod screen;
mod top;

pub(crate) use dump::{Dump, run as dump};
pub(crate) use top::{Top, run as top};

use crate::refusal::Refusal;
use heapwright_observe::live::{VERSION, check_directory, directories, directory, socket_of};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How to have a program listen.
const HOW: &str =
    "have it listen with `heapwright run --listen -- PROGRAM`, or HEAPWRIGHT_LISTEN=1";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer.
const LONGEST: u64 = 1 << 20;

/// A collection in a status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Last {
    pub(crate) number: u64,
    pub(crate) cause: String,
    pub(crate) kind: String,
    pub(crate) at_ns: u64,
    pub(crate) pause_ns: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) before_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) heap_bytes: u64,
    pub(crate) returned_bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pauses {
    pub(crate) p50_ns: u64,
    pub(crate) p90_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    pub(crate) max_ns: u64,
}

/// What a heap does now. What it does not say is 0.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) version: u32,
    pub(crate) pid: u32,
    pub(crate) program: String,
    pub(crate) plan: String,
    pub(crate) workers: u64,
    pub(crate) at_ns: u64,
    pub(crate) heap_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) limit_bytes: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) peak_heap_bytes: u64,
    pub(crate) resident_bytes: u64,
    pub(crate) returned_bytes: u64,
    pub(crate) out_of_memory: u64,
    pub(crate) process_cpu_ns: u64,
    pub(crate) collector_cpu_ns: u64,
    pub(crate) collections: u64,
    pub(crate) pause_ns: u64,
    pub(crate) causes: BTreeMap<String, u64>,
    pub(crate) pauses: Pauses,
    pub(crate) last: Vec<Last>,
}

/// A process, or the path of a socket.
#[derive(Clone, Debug)]
enum Whom {
    Process(u32),
    Path(PathBuf),
}

impl Whom {
    fn of(text: &OsStr) -> Self {
        match text.to_str().and_then(|t| t.parse().ok()) {
            Some(process) => Self::Process(process),
            None => Self::Path(text.into()),
        }
    }
}

/// Is it a number of a process or a socket, and not a file?
pub(crate) fn is_process(text: &OsStr) -> bool {
    match Whom::of(text) {
        // A file of that name can be given as ./1234.
        Whom::Process(_) => true,
        Whom::Path(path) => fs::metadata(path).is_ok_and(|m| m.file_type().is_socket()),
    }
}

/// A connection to a process that listens.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<UnixStream>,
    name: String,
}

fn connect(path: &Path, name: String) -> io::Result<Connection> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(Connection {
        stream: BufReader::new(stream),
        name,
    })
}

/// Directories for sockets that are ours.
fn ours() -> impl Iterator<Item = PathBuf> {
    let all = directories().into_iter();
    all.filter(|d| check_directory(d).is_ok())
}

/// The processes that listen in the directories for it. Sockets of processes that were killed are removed.
pub(crate) fn listening() -> Vec<u32> {
    let mut found = Vec::new();
    for directory in ours() {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        for path in entries.map(|e| e.path()) {
            let is_socket = path.extension().is_some_and(|e| e == "sock");
            let stem = path.file_stem().and_then(OsStr::to_str);
            let Some(process) = stem.and_then(|s| s.parse().ok()).filter(|_| is_socket) else {
                continue;
            };
            match UnixStream::connect(&path) {
                Ok(_) => found.push(process),
                Err(e) => forget(&path, &e),
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Removes the socket of a process that was killed.
fn forget(path: &Path, error: &io::Error) {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        let _ = fs::remove_file(path);
    }
}

impl Connection {
    /// To a process or a path; to the only one that listens, if none is named.
    pub(crate) fn to(whom: Option<&OsString>) -> Result<Self, Refusal> {
        match whom.map(|w| Whom::of(w)) {
            Some(Whom::Process(process)) => Self::to_process(process),
            Some(Whom::Path(path)) => connect(&path, path.display().to_string())
                .map_err(|e| Refusal::usage(format!("{}: {}", path.display(), why(&e)))),
            None => match listening()[..] {
                [process] => Self::to_process(process),
                [] => Err(Refusal::usage(format!("no process listens: {HOW}"))),
                ref several => {
                    let mut text = "several processes listen; name one of them:".to_owned();
                    for process in several {
                        text += &format!("\n  {process}  {}", program_of(*process));
                    }
                    Err(Refusal::usage(text))
                }
            },
        }
    }

    fn to_process(process: u32) -> Result<Self, Refusal> {
        let name = format!("process {process}");
        for directory in ours() {
            let path = socket_of(&directory, process);
            match connect(&path, name.clone()) {
                Ok(connection) => return Ok(connection),
                Err(e) => forget(&path, &e),
            }
        }
        let refused = Refusal::usage;
        let Ok(found) = fs::metadata(format!("/proc/{process}")) else {
            return Err(refused(format!("there is no process {process}")));
        };
        if found.uid() != nix::unistd::geteuid().as_raw() {
            return Err(refused(format!(
                "process {process} is another user's: only that user can look at it"
            )));
        }
        // The directory may be what is wrong.
        if let Err(e) = directory() {
            return Err(refused(format!("process {process} cannot be reached: {e}")));
        }
        Err(refused(format!(
            "process {process} ({}) does not listen: {HOW}",
            program_of(process)
        )))
    }

    /// What is asked next may take as long as it wants.
    pub(crate) fn be_patient(&self) -> Result<(), Refusal> {
        let set = self.stream.get_ref().set_read_timeout(None);
        set.map_err(|e| Refusal::ours(format!("{}: {e}", self.name)))
    }

    /// The answer to a request: a line of JSON. `None`: the process has ended, or hung up.
    pub(crate) fn ask(&mut self, request: &str) -> Result<Option<String>, Refusal> {
        let mut bytes = Vec::new();
        let sent = self
            .stream
            .get_mut()
            .write_all(format!("{request}\n").as_bytes());
        let heard = sent.and_then(|()| {
            let limited = &mut self.stream.by_ref().take(LONGEST);
            limited.read_until(b'\n', &mut bytes)
        });
        match heard {
            Ok(_) if bytes.last() == Some(&b'\n') => {}
            Ok(_) => return Ok(None),
            Err(e) if is_end(&e) => return Ok(None),
            Err(e) => return Err(Refusal::ours(format!("{}: {}", self.name, why(&e)))),
        }
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "type")]
            kind: String,
            #[serde(default)]
            text: String,
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match serde_json::from_str::<Answer>(&text) {
            Ok(answer) if answer.kind == "error" => {
                Err(Refusal::ours(format!("{}: {}", self.name, answer.text)))
            }
            Ok(_) => Ok(Some(text)),
            Err(e) => Err(Refusal::ours(format!(
                "{}: the answer is not understood: {e}",
                self.name
            ))),
        }
    }

    /// The same, of a process that has not ended.
    pub(crate) fn ask_now(&mut self, request: &str) -> Result<String, Refusal> {
        self.ask(request)?
            .ok_or_else(|| Refusal::ours(format!("{} has just ended", self.name)))
    }
}

/// A status, from its line.
pub(crate) fn status(line: &str) -> Result<Status, Refusal> {
    let status: Status = serde_json::from_str(line)
        .map_err(|e| Refusal::ours(format!("the answer is not understood: {e}")))?;
    if status.version > VERSION {
        return Err(Refusal::ours(format!(
            "the process answers in version {}, and this command knows {VERSION}: a newer one is needed",
            status.version
        )));
    }
    Ok(status)
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there any more".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} s", PATIENCE.as_secs())
        }
        _ => error.to_string(),
    }
}

/// What a process runs, as the system says.
fn program_of(process: u32) -> String {
    fs::read_to_string(format!("/proc/{process}/comm"))
        .map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}
