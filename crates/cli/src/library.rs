//! Finds our library, and a directory in which it has the name that programs ask for.

use crate::elf::{self, Target};
use crate::loader::LIBGC;
use crate::refusal::Refusal;
use nix::unistd::geteuid;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

/// Names another library file (or the directory it is in) than the one beside the command.
pub(crate) const VARIABLE: &str = "HEAPWRIGHT_LIB";

/// Our library, ready to be put under a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Library {
    /// A directory that holds it as `libgc.so.1`, fit for LD_LIBRARY_PATH.
    pub(crate) directory: PathBuf,
    /// The machine it is built for.
    pub(crate) target: Target,
}

/// Finds the library: `HEAPWRIGHT_LIB`; beside this command, as cargo leaves it; `../lib/heapwright`, as installed.
pub(crate) fn find() -> Result<Library, Refusal> {
    let (file, target) = examined()?;
    Ok(Library {
        directory: directory(&file)?,
        target,
    })
}

/// Finds the library's file, and sees that it is one that programs would take.
pub(crate) fn find_file() -> Result<PathBuf, Refusal> {
    examined().map(|(file, _)| file)
}

fn examined() -> Result<(PathBuf, Target), Refusal> {
    let file = match std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
        Some(named) => named_library(Path::new(&named))?,
        None => beside()?,
    };
    let shown = file.display();
    let object = elf::read(&file).map_err(|e| Refusal::ours(format!("{shown}: {e}")))?;
    if object.soname.as_deref() != Some(LIBGC) {
        let name = object.soname.unwrap_or_else(|| "nothing".to_owned());
        return Err(Refusal::ours(format!(
            "{shown} calls itself {name}, not {LIBGC}: programs would not take it"
        )));
    }
    Ok((file, object.target))
}

fn named_library(named: &Path) -> Result<PathBuf, Refusal> {
    let found = if named.is_dir() {
        newest([named.join(LIBGC), named.join("libgc.so")])
    } else {
        newest([named.to_owned()])
    };
    let file = found.ok_or_else(|| {
        Refusal::ours(format!(
            "{VARIABLE}={}: there is no libgc there",
            named.display()
        ))
    })?;
    std::path::absolute(&file).map_err(|e| Refusal::ours(format!("{}: {e}", file.display())))
}

fn beside() -> Result<PathBuf, Refusal> {
    let exe = std::env::current_exe().and_then(fs::canonicalize);
    let exe = exe.map_err(|e| {
        Refusal::ours(format!(
            "cannot find out where this command is ({e}); {VARIABLE} can name the library"
        ))
    })?;
    let dir = exe.parent().unwrap_or(Path::new("/"));
    // Cargo builds it into deps/ and, not always, links it one level up: the newer one is the current one.
    let built = newest([dir.join("libgc.so"), dir.join("deps/libgc.so")]);
    let installed =
        || newest(["libgc.so.1", "libgc.so"].map(|n| dir.join("../lib/heapwright").join(n)));
    built.or_else(installed).and_then(|f| fs::canonicalize(f).ok()).ok_or_else(|| {
        Refusal::ours(format!(
            "our libgc.so is neither beside this command ({}) nor in ../lib/heapwright; `cargo build --release` builds both, and \
             {VARIABLE} can name another place",
            dir.display()
        ))
    })
}

/// The regular file changed last; of equals the first.
fn newest<const N: usize>(files: [PathBuf; N]) -> Option<PathBuf> {
    let mut best: Option<(std::time::SystemTime, PathBuf)> = None;
    for file in files {
        let Ok(meta) = fs::metadata(&file) else {
            continue;
        };
        let Ok(changed) = meta.modified() else {
            continue;
        };
        if meta.is_file() && best.as_ref().is_none_or(|(time, _)| changed > *time) {
            best = Some((changed, file));
        }
    }
    best.map(|(_, file)| file)
}

/// The library's own directory where `libgc.so.1` in it is the library; else a private one of ours with a link.
fn directory(file: &Path) -> Result<PathBuf, Refusal> {
    let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    if let Some(own) = file.parent()
        && fit_for_a_list(own)
        && let (Ok(link), Ok(meta)) = (fs::metadata(own.join(LIBGC)), fs::metadata(file))
        && same(&link, &meta)
    {
        return Ok(own.to_owned());
    }
    let mut last = String::from("no place for it is known");
    for base in private_places() {
        match link_in(&base, file) {
            Ok(dir) => return Ok(dir),
            Err(e) => last = format!("{}: {e}", base.display()),
        }
    }
    Err(Refusal::ours(format!(
        "cannot make a link {LIBGC} to {} in a private directory ({last})",
        file.display()
    )))
}

/// The loader splits lists at colons and semicolons, LD_PRELOAD's at spaces too, and replaces tokens that begin with $.
fn fit_for_a_list(dir: &Path) -> bool {
    dir.is_absolute()
        && !dir
            .as_os_str()
            .as_bytes()
            .iter()
            .any(|b| matches!(b, b':' | b';' | b' ' | b'\t' | b'\n' | b'$'))
}

fn private_places() -> Vec<PathBuf> {
    let from = |variable: &str, rest: &str| {
        std::env::var_os(variable)
            .filter(|v| !v.is_empty())
            .map(|v| Path::new(&v).join(rest))
    };
    let shared = PathBuf::from(format!("/tmp/heapwright-{}", geteuid()));
    [
        from("XDG_CACHE_HOME", "heapwright"),
        from("HOME", ".cache/heapwright"),
        from("XDG_RUNTIME_DIR", "heapwright"),
        Some(shared),
    ]
    .into_iter()
    .flatten()
    .filter(|place| fit_for_a_list(place))
    .collect()
}

/// Makes `base/<hash of the library's path>/libgc.so.1`. Each of these directories must be ours, and nobody else's to
/// write in: who can write there can run code as us.
fn link_in(base: &Path, file: &Path) -> io::Result<PathBuf> {
    let hash = file
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
        });
    let dir = base.join(format!("{hash:016x}"));
    if let Some(above) = base.parent()
        && !above.exists()
    {
        private_directory(above)?;
    }
    private_directory(base)?;
    private_directory(&dir)?;
    let link = dir.join(LIBGC);
    if fs::read_link(&link).is_ok_and(|to| to == file) {
        return Ok(dir);
    }
    // Another one of us may do the same now: the rename makes either's link whole.
    let new = dir.join(format!("{LIBGC}.{}", std::process::id()));
    let _ = fs::remove_file(&new);
    symlink(file, &new)?;
    fs::rename(&new, &link)?;
    Ok(dir)
}

fn private_directory(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let meta = fs::symlink_metadata(dir)?;
    if !meta.is_dir() {
        return Err(io::Error::other("something else is there"));
    }
    if meta.uid() != geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        return Err(io::Error::other("others may write there"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn scratch(name: &str) -> PathBuf {
        let dir =
            std::env::temp_dir().join(format!("heapwright-library-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        DirBuilder::new().mode(0o700).create(&dir).unwrap();
        dir
    }

    #[test]
    fn a_link_is_made_once_and_follows_the_library() {
        let dir = scratch("link");
        let file = dir.join("libgc.so");
        fs::write(&file, "x").unwrap();
        let base = dir.join("cache");
        let first = link_in(&base, &file).unwrap();
        assert_eq!(fs::read_link(first.join(LIBGC)).unwrap(), file);
        assert_eq!(link_in(&base, &file).unwrap(), first);
        fs::remove_file(first.join(LIBGC)).unwrap();
        symlink("/elsewhere", first.join(LIBGC)).unwrap();
        assert_eq!(link_in(&base, &file).unwrap(), first);
        assert_eq!(fs::read_link(first.join(LIBGC)).unwrap(), file);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_in_or_a_link_is_not_used() {
        let dir = scratch("foreign");
        let base = dir.join("cache");
        fs::create_dir(&base).unwrap();
        fs::set_permissions(&base, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(link_in(&base, &dir.join("libgc.so")).is_err());
        fs::remove_dir(&base).unwrap();
        symlink(&dir, &base).unwrap();
        assert!(link_in(&base, &dir.join("libgc.so")).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_newer_of_two_builds_is_taken() {
        let dir = scratch("newer");
        let (old, new) = (dir.join("a"), dir.join("b"));
        fs::write(&old, "").unwrap();
        fs::write(&new, "").unwrap();
        let earlier = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        fs::File::options()
            .write(true)
            .open(&old)
            .unwrap()
            .set_modified(earlier)
            .unwrap();
        assert_eq!(newest([old.clone(), new.clone()]), Some(new));
        assert_eq!(newest([dir.join("none"), old.clone()]), Some(old));
        assert_eq!(newest([dir.join("none")]), None);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn lists_have_separators_and_tokens() {
        assert!(fit_for_a_list(Path::new("/a/b.c")));
        for bad in ["/a:b", "/a b", "/a;b", "/$ORIGIN", "relative"] {
            assert!(!fit_for_a_list(Path::new(bad)));
        }
    }
}
