//! A line of text or JSON, put together on the stack.

use core::fmt::{self, Write};

/// Room for the longest line.
pub const LINE: usize = 1536;

/// One line, which ends with a newline when it is taken out. What does not fit is left out.
#[derive(Debug)]
pub struct Line {
    bytes: [u8; LINE],
    len: usize,
    /// Something did not fit.
    cut: bool,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; LINE],
            len: 0,
            cut: false,
        }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The last byte is for the newline.
        let room = LINE - 1 - self.len;
        if text.len() > room {
            self.cut = true;
            return Err(fmt::Error);
        }
        self.bytes[self.len..self.len + text.len()].copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

impl Line {
    /// Adds text; nothing if it does not fit.
    pub fn put(&mut self, text: fmt::Arguments<'_>) -> &mut Self {
        let before = self.len;
        if self.write_fmt(text).is_err() {
            self.len = before;
        }
        self
    }

    /// Adds a JSON string, with its quotation marks.
    pub fn string(&mut self, text: &str) -> &mut Self {
        quote(text, |part| {
            self.put(part);
        });
        self
    }

    /// Did something not fit?
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// What was put in.
    #[must_use]
    pub fn text(&self) -> &str {
        // Only whole strings were copied.
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    /// The line, with its newline.
    pub fn ended(&mut self) -> &[u8] {
        self.bytes[self.len] = b'\n';
        &self.bytes[..=self.len]
    }
}

/// A JSON string, with its quotation marks, part by part.
pub fn quote(text: &str, mut put: impl FnMut(fmt::Arguments<'_>)) {
    put(format_args!("\""));
    for c in text.chars() {
        match c {
            '"' | '\\' => put(format_args!("\\{c}")),
            c if u32::from(c) < 0x20 => put(format_args!("\\u{:04x}", u32::from(c))),
            c => put(format_args!("{c}")),
        }
    }
    put(format_args!("\""));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_whole() {
        let mut line = Line::default();
        line.put(format_args!("{}", "x".repeat(LINE - 3)));
        line.put(format_args!("ab{}", "c"));
        assert!(line.is_cut());
        assert_eq!(line.text().len(), LINE - 3);
        line.put(format_args!("ab"));
        assert!(line.text().ends_with("xab"));
        assert_eq!(line.ended().len(), LINE);
        assert_eq!(line.ended().last(), Some(&b'\n'));
    }

    #[test]
    fn strings_are_quoted() {
        let mut line = Line::default();
        line.string("a\"b\\c\n\u{e9}");
        assert_eq!(line.text(), "\"a\\\"b\\\\c\\u000a\u{e9}\"");
    }
}
