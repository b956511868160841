//! Text that is longer than a line, in memory that is mapped once and does not come from malloc.

use crate::line::quote;
use core::fmt::{self, Write};
use heapwright_memory::MappedVec;
use heapwright_os::{OsError, real_port};

/// Room for the longest answer: a map.
pub(crate) const ROOM: usize = 64 << 10;

/// A text of at most [`ROOM`] bytes. What does not fit is left out.
#[derive(Debug)]
pub(crate) struct Out(MappedVec<u8>);

impl Out {
    pub(crate) fn new() -> Result<Self, OsError> {
        let mut bytes = MappedVec::new(real_port(), ROOM, c"heapwright answers")?;
        bytes.reserve(ROOM)?;
        Ok(Self(bytes))
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    pub(crate) fn push(&mut self, byte: u8) {
        if self.0.len() < ROOM {
            let _ = self.0.push(byte);
        }
    }

    pub(crate) fn put(&mut self, text: fmt::Arguments<'_>) -> &mut Self {
        // `write_str` does not fail.
        let _ = self.write_fmt(text);
        self
    }

    /// A JSON string, with its quotation marks.
    pub(crate) fn string(&mut self, text: &str) -> &mut Self {
        quote(text, |part| {
            self.put(part);
        });
        self
    }
}

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|b| self.push(b));
        Ok(())
    }
}
