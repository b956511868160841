//! The file of raw samples: what is written and how it is read.
//!
//! A record is a header of 8 bytes (`HWPR`, the kind as 16 bits, the number of words as 16 bits) and so many words of 64 bits, all in the
//! machine's order of bytes. The first word is the process. A reader looks for the next header where there is none: a write that
//! was cut short loses one record.
//!
//! | kind | words after the process |
//! |---|---|
//! | [`BEGIN`] | version, time (Unix, ns), time (monotonic, ns), rate in bytes, name |
//! | [`MAPS`] | number of the list, a part of `/proc/self/maps` (whole lines) |
//! | [`SAMPLE`] | time (monotonic, ns), thread, bytes, mean distance of points in bytes, kind, return addresses from the inside out |
//! | [`END`] | time (monotonic, ns), bytes that were allocated in all, samples that were lost |
//!
//! A text is its length in bytes and so many bytes, filled up to whole words.

/// A process begins.
pub const BEGIN: u16 = 1;
/// What is mapped where.
pub const MAPS: u16 = 2;
/// A sample.
pub const SAMPLE: u16 = 3;
/// A process ends in order.
pub const END: u16 = 4;
/// What the first record says.
pub const VERSION: u64 = 1;
/// How every record begins.
pub const MAGIC: [u8; 4] = *b"HWPR";

/// The most words of a record.
pub(super) const MOST_WORDS: usize = 160;

/// A record on the stack.
#[derive(Debug)]
pub struct Record {
    bytes: [u8; 8 + MOST_WORDS * 8],
    words: usize,
}

impl Record {
    /// An empty record.
    #[must_use]
    pub(super) fn new(kind: u16) -> Self {
        let mut bytes = [0; 8 + MOST_WORDS * 8];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        Self { bytes, words: 0 }
    }

    /// Adds a word: false if there is no room.
    pub(super) fn word(&mut self, word: u64) -> bool {
        self.put(word.to_ne_bytes())
    }

    fn put(&mut self, word: [u8; 8]) -> bool {
        if self.words == MOST_WORDS {
            return false;
        }
        let at = 8 + self.words * 8;
        self.bytes[at..at + 8].copy_from_slice(&word);
        self.words += 1;
        self.bytes[6..8].copy_from_slice(&(self.words as u16).to_ne_bytes());
        true
    }

    /// Adds a text, as far as there is room.
    pub(super) fn text(&mut self, text: &[u8]) {
        let room = (MOST_WORDS - self.words).saturating_sub(1) * 8;
        let text = &text[..text.len().min(room)];
        self.word(text.len() as u64);
        for part in text.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.put(word);
        }
    }

    /// What is to be written.
    #[must_use]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..8 + self.words * 8]
    }
}

/// A record that was read.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a> {
    /// Its kind.
    pub kind: u16,
    words: &'a [u8],
}

impl<'a> Read<'a> {
    /// A word by its number; the process is 0.
    #[must_use]
    pub fn word(&self, index: usize) -> Option<u64> {
        let bytes = self.words.get(index * 8..index * 8 + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    }

    /// The words from a number on.
    pub fn words_from(&self, index: usize) -> impl Iterator<Item = u64> + use<'a> {
        let words = self.words.get(index * 8..).unwrap_or_default();
        words
            .chunks_exact(8)
            .filter_map(|w| Some(u64::from_ne_bytes(w.try_into().ok()?)))
    }

    /// The text at a number.
    #[must_use]
    pub fn text(&self, index: usize) -> &'a [u8] {
        let length = self.word(index).unwrap_or(0);
        let rest = self.words.get(index * 8 + 8..).unwrap_or_default();
        rest.get(..usize::try_from(length).unwrap_or(usize::MAX))
            .unwrap_or(rest)
    }
}

/// The records of a file, and what is between them left out.
#[derive(Clone, Debug)]
pub struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    /// Of the contents of a file.
    #[must_use]
    pub fn of(file: &'a [u8]) -> Self {
        Self(file)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Read<'a>;

    fn next(&mut self) -> Option<Read<'a>> {
        loop {
            let at = self.0.windows(4).position(|w| w == MAGIC)?;
            let record = &self.0[at..];
            let number = |from: usize| {
                let bytes = record.get(from..from + 2)?;
                Some(u16::from_ne_bytes(bytes.try_into().ok()?))
            };
            let (kind, words) = (number(4)?, number(6)?);
            let end = 8 + usize::from(words) * 8;
            let follows = record.get(end..end + 4).is_none_or(|next| next == MAGIC);
            let whole = record.len() >= end && (record.len() < end + 4 || follows);
            if whole && (BEGIN..=END).contains(&kind) && usize::from(words) <= MOST_WORDS {
                self.0 = &record[end..];
                return Some(Read {
                    kind,
                    words: &record[8..end],
                });
            }
            self.0 = &record[4..];
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn sample(n: u64) -> Record {
        let mut record = Record::new(SAMPLE);
        record.word(n);
        record.word(n + 1);
        record.text(b"some text");
        record
    }

    #[test]
    fn what_is_written_is_read() {
        let mut file = sample(1).bytes().to_vec();
        file.extend(sample(5).bytes());
        let read: Vec<Read<'_>> = Records::of(&file).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].kind, read[1].word(0)), (SAMPLE, Some(5)));
        assert_eq!(read[1].text(2), b"some text");
        assert_eq!(read[1].words_from(0).take(2).collect::<Vec<_>>(), [5, 6]);
        assert_eq!(read[1].word(9), None);
    }

    #[test]
    fn a_record_that_was_cut_short_is_left_out() {
        for cut in 0..sample(1).bytes().len() {
            let mut file = sample(1).bytes()[..cut].to_vec();
            file.extend(sample(5).bytes());
            file.extend(sample(7).bytes());
            let numbers: Vec<_> = Records::of(&file).map(|r| r.word(0).unwrap()).collect();
            assert_eq!(numbers, [5, 7], "{cut}");
            // And at the end of the file.
            let mut file = sample(5).bytes().to_vec();
            file.extend(&sample(1).bytes()[..cut]);
            assert_eq!(Records::of(&file).count(), 1, "{cut}");
        }
    }

    #[test]
    fn a_record_takes_what_it_has_room_for() {
        let mut record = Record::new(MAPS);
        while record.word(3) {}
        record.text(b"no room");
        assert_eq!(record.bytes().len(), 8 + MOST_WORDS * 8);
        let file = record.bytes().to_vec();
        assert_eq!(Records::of(&file).count(), 1);
        assert_eq!(Records::of(b"HWPRHWPR anything").count(), 0);
    }
}
