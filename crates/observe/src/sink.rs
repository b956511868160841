//! Where lines go: a file that is appended to, or a stream that is open already.

use crate::line::{LINE, Line};
use core::sync::atomic::{AtomicU64, Ordering};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// See the module. Whoever has it writes whole lines, from any thread, each by one system call that leaves errno alone and
/// allocates nothing.
#[derive(Debug)]
pub struct Sink {
    target: Target,
    /// The size that the process may make a file, in bytes. To pass it would end the process by a signal (SIGXFSZ).
    largest: Option<u64>,
    /// Lines that did not get through: the disk is full, or nobody reads any more.
    lost: AtomicU64,
}

#[derive(Debug)]
enum Target {
    File(OwnedFd),
    /// The standard error stream, which belongs to the program.
    Stderr,
}

impl Sink {
    /// A file that is made if need be, and appended to. It is closed in programs that this one becomes.
    ///
    /// # Errors
    /// As the system says.
    pub fn append(path: &CStr) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?;
        Ok(Self::to(Target::File(file)))
    }

    /// The standard error stream.
    #[must_use]
    pub fn stderr() -> Self {
        Self::to(Target::Stderr)
    }

    fn to(target: Target) -> Self {
        Self {
            target,
            largest: getrlimit(Resource::Fsize).current,
            lost: AtomicU64::new(0),
        }
    }

    /// Writes a line. What does not get through is lost, and counted.
    pub fn send(&self, line: &mut Line) {
        self.send_bytes(line.ended());
    }

    /// The same, of a line that ends with its newline and may be longer.
    pub fn send_bytes(&self, bytes: &[u8]) {
        let to = match &self.target {
            Target::File(file) => file.as_fd(),
            Target::Stderr => rustix::stdio::stderr(),
        };
        let written = match self.largest {
            Some(most) if is_full(to, most, bytes.len()) => Ok(0),
            _ => rustix::io::write(to, bytes),
        };
        if written != Ok(bytes.len()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Is there no room for a line below the largest size?
fn is_full(file: BorrowedFd<'_>, most: u64, more: usize) -> bool {
    // What has no size, a pipe or a terminal, says 0.
    let size = rustix::fs::fstat(file).map_or(0, |s| s.st_size);
    u64::try_from(size).unwrap_or(0) + more.max(LINE) as u64 > most
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn sink_at(path: &std::path::Path) -> Sink {
        let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        Sink::append(&path).unwrap()
    }

    #[test]
    fn lines_are_appended_whole_from_several_threads() {
        let path = std::env::temp_dir().join(format!("heapwright-sink-{}", std::process::id()));
        let sink = sink_at(&path);
        std::thread::scope(|s| {
            for name in ["one", "two"] {
                let sink = &sink;
                s.spawn(move || {
                    for n in 0..500 {
                        sink.send(
                            Line::default().put(format_args!("{name} {n} {}", "x".repeat(n))),
                        );
                    }
                });
            }
        });
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for name in ["one", "two"] {
            let numbers = text.lines().filter_map(|l| l.strip_prefix(name));
            let numbers = numbers.map(|l| {
                l.split_whitespace()
                    .next()
                    .unwrap()
                    .parse::<usize>()
                    .unwrap()
            });
            assert!(numbers.eq(0..500));
        }
        assert_eq!((text.lines().count(), sink.lost()), (1000, 0));
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let sink = sink_at(std::path::Path::new("/dev/full"));
        sink.send(Line::default().put(format_args!("x")));
        sink.send(Line::default().put(format_args!("y")));
        assert_eq!(sink.lost(), 2);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_an_error() {
        assert!(Sink::append(c"/nonexistent/directory/file").is_err());
    }
}
