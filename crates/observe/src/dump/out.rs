//! Bytes on their way to a file, through a buffer that is not from malloc.

use core::fmt;
use heapwright_memory::MappedVec;
use heapwright_os::{OsError, real_port};
use std::io;

/// Bytes that are written at once.
const ROOM: usize = 64 << 10;

/// A buffer before a file. After an error nothing more is written, and [`Out::finish`] says what it was.
pub(super) struct Out<'w> {
    to: &'w mut dyn io::Write,
    buffer: MappedVec<u8>,
    used: usize,
    written: u64,
    error: Option<io::Error>,
}

impl<'w> Out<'w> {
    pub(super) fn new(to: &'w mut dyn io::Write) -> Result<Self, OsError> {
        Ok(Self {
            to,
            buffer: MappedVec::<u8>::zeros(real_port(), ROOM, c"heapwright dump")?,
            used: 0,
            written: 0,
            error: None,
        })
    }

    /// Nothing that comes will be written.
    pub(super) fn failed(&self) -> bool {
        self.error.is_some()
    }

    #[inline]
    pub(super) fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let free = &mut self.buffer.as_mut_slice()[self.used..];
            let now = bytes.len().min(free.len());
            free[..now].copy_from_slice(&bytes[..now]);
            self.used += now;
            bytes = &bytes[now..];
            if self.used == self.buffer.len() {
                self.flush();
            }
        }
    }

    /// A number in decimal digits.
    #[inline]
    pub(super) fn number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            // A digit.
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.put(&digits[at..]);
    }

    #[cold]
    fn flush(&mut self) {
        if self.error.is_none() {
            let bytes = &self.buffer.as_slice()[..self.used];
            match self.to.write_all(bytes) {
                Ok(()) => self.written += bytes.len() as u64,
                Err(e) => self.error = Some(e),
            }
        }
        self.used = 0;
    }

    /// Writes what is left: how many bytes there were in all.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.flush();
        match self.error {
            None => Ok(self.written),
            Some(e) => Err(e),
        }
    }
}

/// A short text on the stack. What does not fit is left out.
#[derive(Clone, Copy)]
pub(super) struct Text {
    bytes: [u8; 512],
    used: usize,
}

impl Text {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; 512],
            used: 0,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    pub(super) fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.used;
        let mut now = text.len().min(room);
        while !text.is_char_boundary(now) {
            now -= 1;
        }
        self.bytes[self.used..][..now].copy_from_slice(&text.as_bytes()[..now]);
        self.used += now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use core::fmt::Write;

    #[test]
    fn what_is_put_comes_out() {
        let mut all = Vec::new();
        let mut out = Out::new(&mut all).unwrap();
        let piece = [7; 1000];
        for _ in 0..200 {
            out.put(&piece);
        }
        for n in [0, 9, 10, 12_345, u64::MAX] {
            out.number(n);
            out.put(b" ");
        }
        let written = out.finish().unwrap();
        assert_eq!(written, all.len() as u64);
        assert_eq!(&all[..200_000], [7; 200_000]);
        assert_eq!(&all[200_000..], b"0 9 10 12345 18446744073709551615 ");
    }

    struct Full(usize);
    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let now = bytes.len().min(self.0);
            self.0 -= now;
            if now == 0 {
                return Err(io::Error::from_raw_os_error(28));
            }
            Ok(now)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_said_at_the_end() {
        let mut full = Full(100_000);
        let mut out = Out::new(&mut full).unwrap();
        for _ in 0..200 {
            out.put(&[0; 1000]);
        }
        assert!(out.failed());
        assert_eq!(out.finish().unwrap_err().raw_os_error(), Some(28));
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let mut text = Text::new();
        text.write_str(&"x".repeat(511)).unwrap();
        text.write_str("é").unwrap();
        assert_eq!(text.as_str().len(), 511);
    }
}
