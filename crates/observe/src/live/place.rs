//! Where sockets are: in a directory that is only ours.

use crate::record::file_of_process;
use rustix::fs::Mode;
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a directory is not used.
#[derive(Debug)]
pub enum NotOurs {
    /// It is not a directory, or a link to one.
    NoDirectory(PathBuf),
    /// Somebody else's, or others may use it.
    Open(PathBuf),
    /// It cannot be made or looked at.
    System(PathBuf, io::Error),
}

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDirectory(path) => {
                write!(f, "{} is in the way: it is no directory", path.display())
            }
            Self::Open(path) => write!(
                f,
                "{} is not ours alone: it must belong to this user and have mode 0700",
                path.display()
            ),
            Self::System(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for NotOurs {}

/// The directories in which sockets may be, the one that is used first: `heapwright` in `XDG_RUNTIME_DIR`, if that is set and there,
/// and one in `/tmp`.
#[must_use]
pub fn directories() -> Vec<PathBuf> {
    let mut all = Vec::with_capacity(2);
    if let Some(runtime) = std::env::var_os("XDG_RUNTIME_DIR") {
        let runtime = PathBuf::from(runtime);
        if runtime.is_absolute() && runtime.is_dir() {
            all.push(runtime.join("heapwright"));
        }
    }
    let user = rustix::process::geteuid().as_raw();
    all.push(PathBuf::from(format!("/tmp/heapwright-{user}")));
    all
}

/// Is it a directory, ours, and closed to others?
///
/// # Errors
/// If not.
pub fn check_directory(path: &Path) -> Result<(), NotOurs> {
    let system = |e: io::Error| NotOurs::System(path.to_owned(), e);
    // What a link leads to is not looked at.
    let found = path.symlink_metadata().map_err(system)?;
    if !found.is_dir() {
        return Err(NotOurs::NoDirectory(path.to_owned()));
    }
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    if !ours || found.mode() & 0o077 != 0 {
        return Err(NotOurs::Open(path.to_owned()));
    }
    Ok(())
}

/// The directory for sockets, made if need be.
///
/// # Errors
/// If it cannot be made, or is not ours alone.
pub fn directory() -> Result<PathBuf, NotOurs> {
    let path = directories().swap_remove(0);
    match rustix::fs::mkdir(&path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(NotOurs::System(path, e.into())),
    }
    check_directory(&path)?;
    Ok(path)
}

/// Where a process listens if no other place was asked for.
#[must_use]
pub fn socket_of(directory: &Path, process: u32) -> PathBuf {
    directory.join(format!("{process}.sock"))
}

/// Where a process listens that is told to as `HEAPWRIGHT_LISTEN` says it: `1` is its place in the directory for sockets, anything else a
/// path, in which `%p` is its number.
///
/// # Errors
/// As [`directory`], and if the path has a zero byte.
pub fn socket_for(value: &OsStr) -> Result<PathBuf, NotOurs> {
    if value == "1" {
        return Ok(socket_of(&directory()?, std::process::id()));
    }
    let path = file_of_process(value.as_bytes());
    let path = path.map(|p| PathBuf::from(OsString::from_vec(p.into_bytes())));
    path.ok_or_else(|| NotOurs::System(value.into(), io::ErrorKind::InvalidInput.into()))
}

/// Is somebody listening there? Else a socket that is there is left from a process that was killed.
pub(super) fn is_alive(path: &Path) -> bool {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    // Without waiting: who listens may be busy.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let (Ok(socket), Ok(address)) = (socket, SocketAddrUnix::new(path)) else {
        return false;
    };
    !matches!(
        rustix::net::connect(&socket, &address),
        Err(Errno::CONNREFUSED | Errno::NOENT)
    )
}

/// Does the file at the path, which is no link, belong to us and is it a socket?
pub(super) fn is_our_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.symlink_metadata()
        .is_ok_and(|m| m.file_type().is_socket() && m.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn only_a_directory_that_is_ours_alone_is_used() {
        let base = std::env::temp_dir().join(format!("heapwright-place-{}", std::process::id()));
        std::fs::create_dir(&base).unwrap();
        let set = |mode| {
            std::fs::set_permissions(&base, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(0o700);
        check_directory(&base).unwrap();
        for open in [0o755, 0o710, 0o701, 0o777] {
            set(open);
            assert!(matches!(check_directory(&base), Err(NotOurs::Open(_))));
        }
        set(0o700);
        let link = base.join("link");
        symlink(&base, &link).unwrap();
        assert!(matches!(
            check_directory(&link),
            Err(NotOurs::NoDirectory(_))
        ));
        let file = base.join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(
            check_directory(&file),
            Err(NotOurs::NoDirectory(_))
        ));
        assert!(matches!(
            check_directory(&base.join("nothing")),
            Err(NotOurs::System(..))
        ));
        std::fs::remove_dir_all(&base).unwrap();
    }
}
