//! The log line: what `HEAPWRIGHT_LOG` may say, and how a collection is written. The grammar is in docs/observing.md.
//!
//! Put together in a buffer on the stack: it is written by the collecting thread with the heap's lock held.

use core::ffi::c_int;
use core::fmt::{self, Write};
use heapwright::CollectionStats;

/// Room for the longest line: all fields, each with the largest number.
const LINE: usize = 1024;

/// What is written for each collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Form {
    /// The parts of the pause too.
    pub(crate) phases: bool,
    /// An object of JSON instead of words.
    pub(crate) json: bool,
}

impl Form {
    /// Words, with all fields.
    pub(crate) const ALL: Self = Self {
        phases: true,
        json: false,
    };
}

/// `gc[,phases][,json][=FILE]`: the form, and the file, if one is named. `stderr` is `gc,phases`; whatever is neither
/// is the path of a file.
pub(crate) fn parse(value: &[u8]) -> (Form, Option<&[u8]>) {
    if value == b"stderr" {
        return (Form::ALL, None);
    }
    let mut halves = value.splitn(2, |b| *b == b'=');
    let words = halves.next().unwrap_or_default();
    let file = halves.next().filter(|f| !f.is_empty());
    let mut form = Form::default();
    for (i, word) in words.split(|b| *b == b',').enumerate() {
        match word {
            b"gc" if i == 0 => {}
            b"phases" if i > 0 => form.phases = true,
            b"json" if i > 0 => form.json = true,
            _ => return (Form::ALL, Some(value)),
        }
    }
    (form, file)
}

/// One line, which ends with a newline when it is sent.
pub(crate) struct Line {
    bytes: [u8; LINE],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The last byte is for the newline.
        let room = self.bytes.len() - 1 - self.len;
        let n = text.len().min(room);
        self.bytes[self.len..self.len + n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        if n == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

impl Line {
    /// The line of a collection. `born_ns`: when the heap was made; `resident_bytes`: what the process has in memory.
    pub(crate) fn new(
        stats: &CollectionStats,
        form: Form,
        born_ns: u64,
        resident_bytes: usize,
    ) -> Self {
        let mut line = Self {
            bytes: [0; LINE],
            len: 0,
        };
        // Every line has room: a test writes the longest.
        let _ = line.fill(stats, form, born_ns, resident_bytes);
        line
    }

    fn fill(
        &mut self,
        stats: &CollectionStats,
        form: Form,
        born_ns: u64,
        resident_bytes: usize,
    ) -> fmt::Result {
        let kind = if stats.full { "full" } else { "young" };
        let at = stats.start_ns.saturating_sub(born_ns);
        if form.json {
            write!(self, "{{\"number\":{}", stats.number)?;
            write!(
                self,
                ",\"cause\":\"{}\",\"kind\":\"{kind}\"",
                stats.cause.name()
            )?;
        } else {
            write!(
                self,
                "heapwright: gc number={} cause={} kind={kind}",
                stats.number,
                stats.cause.name()
            )?;
        }
        self.number(form, "at_ns", at)?;
        self.number(form, "pause_ns", stats.pause_ns)?;
        if form.phases {
            self.number(form, "stop_ns", stats.stop_ns)?;
            self.number(form, "mark_ns", stats.mark_ns)?;
            self.number(form, "weak_ns", stats.weak_ns)?;
            self.number(form, "verify_ns", stats.verify_ns)?;
            self.number(form, "release_ns", stats.sweep_ns)?;
        }
        self.number(form, "cpu_ns", stats.cpu_ns)?;
        for (name, value) in [
            ("workers", stats.workers),
            ("before_bytes", stats.before_bytes),
            ("live_bytes", stats.live_bytes),
            ("heap_bytes", stats.heap_bytes),
            ("resident_bytes", resident_bytes),
            ("returned_bytes", stats.returned_bytes),
            ("violations", stats.violations),
        ] {
            self.number(form, name, value as u64)?;
        }
        if form.json {
            self.write_char('}')?;
        }
        Ok(())
    }

    fn number(&mut self, form: Form, name: &str, value: u64) -> fmt::Result {
        if form.json {
            write!(self, ",\"{name}\":{value}")
        } else {
            write!(self, " {name}={value}")
        }
    }

    /// Writes it, errno unchanged. What does not fit on a full disk is lost: the program goes on.
    pub(crate) fn send(&mut self, fd: c_int) {
        self.bytes[self.len] = b'\n';
        // SAFETY: the calling thread's errno, which an allocation must not change; a buffer of our own.
        unsafe {
            let errno = *libc::__errno_location();
            libc::write(fd, self.bytes.as_ptr().cast(), self.len + 1);
            *libc::__errno_location() = errno;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn text(stats: &CollectionStats, form: Form) -> String {
        let line = Line::new(stats, form, 0, usize::MAX);
        String::from_utf8(line.bytes[..line.len].to_vec()).unwrap()
    }

    fn longest() -> CollectionStats {
        CollectionStats {
            number: u64::MAX,
            cause: heapwright::Cause::Concurrent,
            start_ns: u64::MAX,
            pause_ns: u64::MAX,
            stop_ns: u64::MAX,
            mark_ns: u64::MAX,
            weak_ns: u64::MAX,
            verify_ns: u64::MAX,
            sweep_ns: u64::MAX,
            cpu_ns: u64::MAX,
            before_bytes: usize::MAX,
            live_bytes: usize::MAX,
            heap_bytes: usize::MAX,
            returned_bytes: usize::MAX,
            workers: usize::MAX,
            violations: usize::MAX,
            ..CollectionStats::default()
        }
    }

    #[test]
    fn what_the_variable_may_say() {
        let form = |phases, json| Form { phases, json };
        for (value, wanted) in [
            ("gc", (form(false, false), None)),
            ("gc,phases", (form(true, false), None)),
            ("gc,json,phases", (form(true, true), None)),
            ("gc=a=b", (form(false, false), Some("a=b"))),
            ("gc,json=/x/y", (form(false, true), Some("/x/y"))),
            ("gc=", (form(false, false), None)),
            ("stderr", (Form::ALL, None)),
            ("/x/y", (Form::ALL, Some("/x/y"))),
            ("gc,phase", (Form::ALL, Some("gc,phase"))),
            ("json", (Form::ALL, Some("json"))),
        ] {
            let (form, file) = parse(value.as_bytes());
            assert_eq!((form, file), (wanted.0, wanted.1.map(str::as_bytes)));
        }
    }

    /// The fields of a line of words, read by the grammar of the page: words of `name=value` after the head.
    fn fields(line: &str) -> Vec<(String, String)> {
        line.strip_prefix("heapwright: gc ")
            .unwrap()
            .split(' ')
            .map(|word| word.split_once('=').unwrap())
            .inspect(|(name, value)| {
                assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
                let word = ["cause", "kind"].contains(name);
                assert!(word != value.parse::<u64>().is_ok(), "{name}={value}");
            })
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn the_longest_lines_are_whole_and_both_forms_say_the_same() {
        for phases in [false, true] {
            let words = fields(&text(
                &longest(),
                Form {
                    phases,
                    json: false,
                },
            ));
            assert_eq!(words.last().unwrap().0, "violations");
            assert_eq!(words.len(), if phases { 18 } else { 13 });
            let json = text(&longest(), Form { phases, json: true });
            let object = words.iter().map(|(name, value)| {
                if value.parse::<u64>().is_ok() {
                    format!("\"{name}\":{value}")
                } else {
                    format!("\"{name}\":\"{value}\"")
                }
            });
            let object: Vec<String> = object.collect();
            assert_eq!(json, format!("{{{}}}", object.join(",")));
        }
    }

    #[test]
    fn the_page_names_every_field() {
        let page = include_str!("../../../docs/observing.md");
        for (name, _) in fields(&text(&longest(), Form::ALL)) {
            assert!(page.contains(&format!("| `{name}` |")), "{name}");
        }
    }

    #[test]
    fn a_full_disk_leaves_errno_alone() {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let mut line = Line::new(&longest(), Form::ALL, 0, 0);
        // SAFETY: this thread's errno.
        unsafe { *libc::__errno_location() = 77 };
        line.send(std::os::fd::AsRawFd::as_raw_fd(&file));
        // SAFETY: as above.
        assert_eq!(unsafe { *libc::__errno_location() }, 77);
    }
}
