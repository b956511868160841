//! Finds the program, and says whether our library can be put under it.

use crate::elf::{self, Target};
use crate::loader::{LIBGC, Needs, Search};
use crate::refusal::Refusal;
use nix::unistd::{AccessFlags, eaccess};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A script may name a script as its interpreter; the kernel follows that a few times, and so do we.
const MOST_SCRIPTS: usize = 5;

/// Interpreters that are no libgc programs themselves and start others, which inherit our environment.
const STARTERS: &[&str] = &[
    "sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox", "env",
];

/// A program that may be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// `LD_LIBRARY_PATH` does not suffice: an rpath of the program leads to another libgc first.
    pub(crate) preload: bool,
}

/// Finds `name` as a shell does and examines it. With `force`, whether it uses libgc is not asked.
pub(crate) fn find(name: &OsStr, ours: Target, force: bool) -> Result<Program, Refusal> {
    let path = look_up(name)?;
    let (binary, starter) = interpreter(&path)?;
    let Some(binary) = binary else {
        return Ok(Program {
            path,
            preload: false,
        });
    };
    let preload = examine(&binary, ours, force || starter)?;
    Ok(Program { path, preload })
}

/// `name` itself if there is a slash in it, else the first executable file of that name in PATH.
fn look_up(name: &OsStr) -> Result<PathBuf, Refusal> {
    let shown = name.to_string_lossy();
    if name.is_empty() {
        return Err(Refusal::missing("the program's name is empty"));
    }
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return executable(&path).map(|()| path);
    }
    let dirs =
        std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    let mut unfit = None;
    for dir in dirs.as_bytes().split(|b| *b == b':') {
        let dir = if dir.is_empty() {
            Path::new(".")
        } else {
            Path::new(OsStr::from_bytes(dir))
        };
        let path = dir.join(name);
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(refusal) if path.is_file() => {
                unfit.get_or_insert(refusal);
            }
            Err(_) => {}
        }
    }
    Err(unfit.unwrap_or_else(|| {
        let here = if Path::new(name).is_file() {
            format!("; the one in this directory is ./{shown}")
        } else {
            String::new()
        };
        Refusal::missing(format!("{shown}: there is no such program in PATH{here}"))
    }))
}

fn executable(path: &Path) -> Result<(), Refusal> {
    let shown = path.display();
    let meta = fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Refusal::missing(format!("{shown}: there is no such file")),
        _ => Refusal::unfit(format!("{shown}: {e}")),
    })?;
    if meta.is_dir() {
        return Err(Refusal::unfit(format!("{shown} is a directory")));
    }
    if !meta.is_file() {
        return Err(Refusal::unfit(format!("{shown} is not a regular file")));
    }
    eaccess(path, AccessFlags::X_OK).map_err(|e| match e {
        nix::Error::EACCES => Refusal::unfit(format!(
            "{shown} is not executable for you (chmod +x makes it so)"
        )),
        other => Refusal::unfit(format!("{shown}: {}", other.desc())),
    })
}

/// The binary that the kernel starts for `path`: itself, or the interpreter of a script. `None`: nothing can be read of
/// it (a program may be executable without being readable). The flag says that the script's interpreter only starts
/// others.
fn interpreter(path: &Path) -> Result<(Option<PathBuf>, bool), Refusal> {
    let mut binary = path.to_owned();
    for _ in 0..MOST_SCRIPTS {
        let mut head = [0; 4096];
        let got = match File::open(&binary) {
            Ok(mut file) => file
                .read(&mut head)
                .map_err(|e| Refusal::unfit(format!("{}: {e}", binary.display())))?,
            Err(_) => return Ok((None, false)),
        };
        let head = &head[..got];
        if elf::is_elf(head) {
            let scripted = binary != path;
            return Ok((Some(binary.clone()), scripted && starts_others(&binary)));
        }
        let Some(line) = head.strip_prefix(b"#!") else {
            return Err(Refusal::unfit(format!(
                "{} is neither a program in ELF form nor a script that begins with #!",
                binary.display()
            )));
        };
        let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
        let mut words = line
            .split(|b| matches!(b, b' ' | b'\t' | b'\r'))
            .filter(|w| !w.is_empty());
        let Some(first) = words.next() else {
            return Err(Refusal::unfit(format!(
                "{}: no interpreter is named after #!",
                binary.display()
            )));
        };
        let mut next = PathBuf::from(OsString::from_vec(first.to_vec()));
        if next.file_name() == Some(OsStr::new("env"))
            && let Some(word) = words.find(|w| !w.starts_with(b"-") && !w.contains(&b'='))
        {
            next = look_up(OsStr::from_bytes(word))?;
        }
        executable(&next).map_err(|e| {
            Refusal::unfit(format!(
                "{}: its interpreter cannot be run: {e}",
                binary.display()
            ))
        })?;
        binary = next;
    }
    Err(Refusal::unfit(format!(
        "{}: the interpreters of the scripts have no end",
        path.display()
    )))
}

fn starts_others(binary: &Path) -> bool {
    let real = fs::canonicalize(binary).unwrap_or_else(|_| binary.to_owned());
    [binary, &real].iter().any(|p| {
        p.file_name()
            .and_then(OsStr::to_str)
            .is_some_and(|n| STARTERS.contains(&n))
    })
}

/// Does the file give its process capabilities? A file system without such attributes says no.
fn has_capabilities(binary: &Path) -> bool {
    matches!(xattr::get(binary, "security.capability"), Ok(Some(_)))
}

/// Whether the loader will take our library for this binary; the answer is whether it must be preloaded.
fn examine(binary: &Path, ours: Target, force: bool) -> Result<bool, Refusal> {
    let shown = binary.display();
    let meta = fs::metadata(binary).map_err(|e| Refusal::unfit(format!("{shown}: {e}")))?;
    let mode = meta.permissions().mode();
    let set = match (mode & 0o4000 != 0, mode & 0o2010 == 0o2010) {
        (true, _) => Some("set-uid"),
        (_, true) => Some("set-gid"),
        _ if has_capabilities(binary) => Some("a file with capabilities"),
        _ => None,
    };
    if let Some(set) = set {
        return Err(Refusal::unfit(format!(
            "{shown} is {set}: the loader takes no library paths from the environment for it, so it would run on its own libgc"
        )));
    }
    let object =
        elf::read(binary).map_err(|e| Refusal::unfit(format!("{shown} looks damaged: {e}")))?;
    if object.target != ours {
        return Err(Refusal::unfit(format!(
            "{shown} is built for {}, our libgc.so.1 for {}: they cannot be put together",
            object.target.name(),
            ours.name()
        )));
    }
    if !object.has_loader {
        return Err(Refusal::unfit(format!(
            "{shown} is statically linked: no library can be put under it. Link it dynamically (without -static) and try again"
        )));
    }
    match Search::from_env().needs(binary, object) {
        Needs::Libgc { rpath_wins } => Ok(rpath_wins),
        Needs::Nothing { .. } if force => Ok(false),
        Needs::Nothing { not_found } => {
            let blind = if not_found.is_empty() {
                String::new()
            } else {
                format!(" ({} could not be found, and may)", not_found.join(", "))
            };
            Err(Refusal::unfit(format!(
                "{shown} does not use libgc: neither it nor any of its libraries asks for {LIBGC}{blind}, so it would run as \
                 always. If it loads libgc later (dlopen), or starts a program that uses it, say --force"
            )))
        }
    }
}
