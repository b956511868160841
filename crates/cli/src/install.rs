//! `heapwright install`: puts the command and the library under a prefix, beside the system's libgc and not over it.
//!
//! | file | what it is |
//! |---|---|
//! | `bin/heapwright` | this command, which finds the library in `../lib/heapwright` |
//! | `lib/heapwright/libgc.so.1` | the library, for `LD_LIBRARY_PATH` |
//! | `lib/heapwright/libgc.so` | a link to it, for the linker |
//! | `lib/heapwright/pkgconfig/bdw-gc.pc` | the flags to build a program against it, for `PKG_CONFIG_PATH` |
//!
//! What is for C programs is in [`crate::install_c`].
//!
//! Files are written under another name and renamed, so that programs that run on an older library go on doing so.

use crate::args::{Install, Uninstall};
use crate::install_c;
use crate::library;
use crate::loader::LIBGC;
use crate::output;
use crate::refusal::Refusal;
use serde::Serialize;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const COMMAND: &str = "bin/heapwright";
const DIRECTORY: &str = "lib/heapwright";
const FOR_THE_LINKER: &str = "lib/heapwright/libgc.so";
const FLAGS: &str = "lib/heapwright/pkgconfig/bdw-gc.pc";
/// The interface that the library has: that of this version of Boehm's collector.
const INTERFACE: &str = "8.2.2";

#[derive(Serialize)]
struct Done {
    prefix: PathBuf,
    files: Vec<PathBuf>,
}

/// All files, with the library's as the second.
fn files() -> [PathBuf; 4] {
    let library = format!("{DIRECTORY}/{LIBGC}");
    [COMMAND, &library, FOR_THE_LINKER, FLAGS].map(PathBuf::from)
}

/// Installs.
pub(crate) fn install(install: &Install) -> Result<ExitCode, Refusal> {
    let prefix = absolute(&install.prefix)?;
    let library = library::find_file()?;
    let exe = std::env::current_exe()
        .and_then(fs::canonicalize)
        .map_err(|e| Refusal::ours(format!("cannot find out where this command is ({e})")))?;
    let [command, shared, link, flags] = files().map(|file| prefix.join(file));
    let text = flags_file(&prefix)?;
    put(&command, |to| copy(&exe, to))?;
    put(&shared, |to| copy(&library, to))?;
    put(&link, |to| symlink(LIBGC, to))?;
    put(&flags, |to| fs::write(to, &text))?;
    let mut files = [command, shared, link, flags].to_vec();
    files.extend(install_c::install(&exe, &prefix)?);
    let done = Done { prefix, files };
    if install.json {
        return output::put(&output::json(&done, true)?);
    }
    output::put(&explain(&done))
}

/// Removes what [`install`] wrote, and directories that are empty after it.
pub(crate) fn uninstall(uninstall: &Uninstall) -> Result<ExitCode, Refusal> {
    let prefix = absolute(&uninstall.prefix)?;
    let mut removed = Vec::new();
    let all = files()
        .into_iter()
        .chain(install_c::files().map(PathBuf::from));
    for file in all.map(|file| prefix.join(file)) {
        match fs::remove_file(&file) {
            Ok(()) => removed.push(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(cannot("remove", &file, &e)),
        }
    }
    if removed.is_empty() {
        return Err(Refusal::ours(format!(
            "nothing of Heapwright is installed under {}",
            prefix.display()
        )));
    }
    // A directory with other files in it stays.
    let directories = [
        "lib/heapwright/pkgconfig",
        DIRECTORY,
        "lib/pkgconfig",
        "lib",
        "include",
        "bin",
    ];
    for directory in directories {
        let _ = fs::remove_dir(prefix.join(directory));
    }
    if uninstall.json {
        let files = removed;
        return output::put(&output::json(&Done { prefix, files }, true)?);
    }
    let lines = removed
        .iter()
        .map(|file| format!("removed {}\n", file.display()));
    output::put(&lines.collect::<String>())
}

fn absolute(prefix: &Path) -> Result<PathBuf, Refusal> {
    let prefix = std::path::absolute(prefix)
        .map_err(|e| Refusal::usage(format!("--prefix {}: {e}", prefix.display())))?;
    if prefix.is_file() {
        return Err(Refusal::usage(format!(
            "--prefix {}: that is a file; a directory is wanted, which need not exist",
            prefix.display()
        )));
    }
    Ok(prefix)
}

fn cannot(what: &str, file: &Path, e: &io::Error) -> Refusal {
    let hint = if e.kind() == io::ErrorKind::PermissionDenied {
        "; a prefix of your own needs no rights: --prefix ~/.local"
    } else {
        ""
    };
    Refusal::ours(format!("cannot {what} {} ({e}){hint}", file.display()))
}

/// Makes a file under another name, and then has it take its place.
pub(crate) fn put(file: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Refusal> {
    let fresh = file.with_extension("new");
    let made = || -> io::Result<()> {
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        match fs::remove_file(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        make(&fresh)?;
        fs::rename(&fresh, file)
    };
    made().map_err(|e| {
        let _ = fs::remove_file(&fresh);
        cannot("write", file, &e)
    })
}

pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    fs::set_permissions(to, Permissions::from_mode(0o755))
}

/// The file for pkg-config. The headers are those of Boehm's collector: the system's.
fn flags_file(prefix: &Path) -> Result<String, Refusal> {
    let shown = prefix.to_str().filter(|p| {
        !p.chars()
            .any(|c| c.is_whitespace() || matches!(c, '$' | '#' | '"' | '\'' | '\\'))
    });
    let Some(prefix) = shown else {
        return Err(Refusal::usage(format!(
            "--prefix {}: pkg-config cannot give such a path; one without spaces, quotes, $, # and \\ is wanted",
            prefix.display()
        )));
    };
    Ok(format!(
        "prefix={prefix}\n\
         libdir=${{prefix}}/{DIRECTORY}\n\
         includedir=/usr/include\n\
         \n\
         Name: Heapwright libgc\n\
         Description: Boehm's interface on a Heapwright heap\n\
         Version: {INTERFACE}\n\
         Libs: -L${{libdir}} -Wl,-rpath,${{libdir}} -lgc -lpthread -ldl\n\
         Cflags: -I${{includedir}}\n"
    ))
}

fn explain(done: &Done) -> String {
    let mut text = String::new();
    for file in &done.files {
        text += &format!("installed {}\n", file.display());
    }
    let prefix = done.prefix.display();
    text + &format!(
        "\nRun a program on it:            {prefix}/{COMMAND} run -- guile prog.scm\n\
             or without the command:         LD_LIBRARY_PATH={prefix}/{DIRECTORY} guile prog.scm\n\
             Build a program against it:     cc prog.c $(PKG_CONFIG_PATH={prefix}/{DIRECTORY}/pkgconfig pkg-config --cflags --libs bdw-gc)\n\
             (with the headers of Boehm's collector, in Debian's package libgc-dev)\n{c}",
        c = if done.files.len() > files().len() {
            format!(
                "Your own runtime in C:          cc prog.c $(PKG_CONFIG_PATH={prefix}/lib/pkgconfig pkg-config --cflags --libs heapwright)\n"
            )
        } else {
            "The C interface was not built: cargo build --release -p heapwright-capi, and install again\n".to_owned()
        }
    )
}
