//! What is mapped where: written again when code runs that was not there the last time.

use super::format::{self, Record};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use rustix::fs::{Mode, OFlags};

/// Ranges of code that are remembered.
const RANGES: usize = 1024;
/// Bytes of text in one record: it is kept whole by one system call.
const PART: usize = (format::MOST_WORDS - 4) * 8;
/// The longest line that is read.
const BUFFER: usize = 8192;

/// Ranges of addresses that hold code, as far as they were written down. They are only ever added.
#[derive(Debug)]
pub(super) struct Maps {
    ranges: [(AtomicUsize, AtomicUsize); RANGES],
    count: AtomicUsize,
    /// Somebody reads the list. Whoever comes then leaves it to them: a thread that was stopped may be the one.
    busy: AtomicBool,
    lists: AtomicU64,
    /// Addresses that were in no range, and how many of them it takes until the list is read again: twice as many each time.
    misses: AtomicU64,
    patience: AtomicU64,
}

impl Default for Maps {
    fn default() -> Self {
        Self {
            ranges: [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; RANGES],
            count: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            lists: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            patience: AtomicU64::new(1),
        }
    }
}

impl Maps {
    /// Is the address in a range that was written down?
    pub(super) fn knows(&self, pc: usize) -> bool {
        let count = self.count.load(Ordering::Acquire).min(RANGES);
        self.ranges[..count].iter().any(|(start, end)| {
            (start.load(Ordering::Relaxed)..end.load(Ordering::Relaxed)).contains(&pc)
        })
    }

    /// An address was in no range. The code of a compiler at run time is in ranges that come and go.
    pub(super) fn missed(&self, send: impl FnMut(&Record), pid: u64) {
        let misses = self.misses.fetch_add(1, Ordering::Relaxed) + 1;
        let patience = self.patience.load(Ordering::Relaxed);
        if misses >= patience {
            self.misses.store(0, Ordering::Relaxed);
            self.patience
                .store(patience.saturating_mul(2), Ordering::Relaxed);
            self.write(send, pid);
        }
    }

    /// Writes the list, and remembers it.
    pub(super) fn write(&self, mut send: impl FnMut(&Record), pid: u64) {
        if self.busy.swap(true, Ordering::Acquire) {
            return;
        }
        let list = self.lists.fetch_add(1, Ordering::Relaxed);
        each_line(|line| {
            let mut record = Record::new(format::MAPS);
            record.word(pid);
            record.word(list);
            record.text(&line[..line.len().min(PART)]);
            if let Some((start, end)) = code(line) {
                self.add(start, end);
                send(&record);
            }
        });
        self.busy.store(false, Ordering::Release);
    }

    /// Whoever read the list in the parent is not in the child.
    pub(super) fn after_fork(&self) {
        self.busy.store(false, Ordering::Relaxed);
    }

    fn add(&self, start: usize, end: usize) {
        let count = self.count.load(Ordering::Relaxed);
        if count < RANGES && !(self.knows(start) && self.knows(end - 1)) {
            self.ranges[count].0.store(start, Ordering::Relaxed);
            self.ranges[count].1.store(end, Ordering::Relaxed);
            self.count.store(count + 1, Ordering::Release);
        }
    }
}

/// The range of a line that holds code.
fn code(line: &[u8]) -> Option<(usize, usize)> {
    let line = core::str::from_utf8(line.get(..line.len().min(60))?).ok();
    let mut words = line?.split(' ');
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let range = (number(start)?, number(end)?);
    (words.next()?.as_bytes().get(2) == Some(&b'x') && range.0 < range.1).then_some(range)
}

/// Visits the lines of `/proc/self/maps`, without a vector.
fn each_line(mut visit: impl FnMut(&[u8])) {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(c"/proc/self/maps", flags, Mode::empty()) else {
        return;
    };
    let mut buffer = [0; BUFFER];
    let mut held = 0;
    while let Ok(read) = rustix::io::read(&file, &mut buffer[held..]) {
        if read == 0 {
            break;
        }
        held += read;
        let mut from = 0;
        while let Some(length) = buffer[from..held].iter().position(|b| *b == b'\n') {
            visit(&buffer[from..from + length]);
            from += length + 1;
        }
        buffer.copy_within(from..held, 0);
        held -= from;
        if held == buffer.len() {
            // A line that is longer than any path.
            held = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_programs_code_is_known_once_it_is_written_down() {
        let maps = Maps::default();
        let here = this_programs_code_is_known_once_it_is_written_down as *const () as usize;
        assert!(!maps.knows(here));
        let mut records = 0;
        maps.write(|_| records += 1, 1);
        assert!(records > 3 && maps.knows(here) && !maps.knows(0));
        assert!(!maps.knows((&raw const maps).addr()));
        // What is not there is looked for more and more rarely.
        let mut lists = 0;
        for _ in 0..1000 {
            let mut wrote = false;
            maps.missed(|_| wrote = true, 1);
            lists += u32::from(wrote);
        }
        assert!((5..15).contains(&lists), "{lists}");
    }

    #[test]
    fn lines_are_understood() {
        let line = b"7f00-7fff r-xp 00001000 08:01 42       /usr/lib/a b.so (deleted)";
        assert_eq!(code(line), Some((0x7f00, 0x7fff)));
        assert_eq!(code(b"7f00-7fff rw-p 00001000 08:01 42 /x"), None);
        assert_eq!(code(b""), None);
        assert_eq!(code(b"zz"), None);
    }
}
