//! The raw samples of a run, process by process.

use heapwright::Sample;
use heapwright_observe::profile::format::{self, Records};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A range of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where `start` is in the file.
    pub(super) offset: u64,
    /// The file, or what stands for one in brackets.
    pub(super) file: PathBuf,
}

/// A sample.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sampled {
    pub(super) bytes: u64,
    pub(super) kind: u64,
    /// How many objects it stands for.
    pub(super) weight: f64,
    /// From the inside out: addresses within the calls.
    pub(super) stack: Vec<u64>,
}

/// What a process wrote.
#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) unix_ns: u64,
    pub(super) begin_ns: u64,
    pub(super) end_ns: u64,
    pub(super) rate_bytes: u64,
    pub(super) samples: Vec<Sampled>,
    pub(super) ranges: Vec<Range>,
    /// All that was allocated, if the process came to its end.
    pub(super) allocated_bytes: Option<u64>,
    pub(super) lost: u64,
}

impl Process {
    /// The range around an address.
    pub(super) fn range(&self, address: u64) -> Option<usize> {
        // What was mapped later counts.
        self.ranges
            .iter()
            .rposition(|r| (r.start..r.end).contains(&address))
    }
}

/// Why a file is no raw profile.
pub(super) const NEWER: &str = "it was written by a newer version of the library";

/// Reads a file. What cannot be understood is left out, as the end of a file that was cut short.
pub(super) fn read(file: &[u8]) -> Result<BTreeMap<u64, Process>, &'static str> {
    let mut all: BTreeMap<u64, Process> = BTreeMap::new();
    for record in Records::of(file) {
        let Some(pid) = record.word(0) else { continue };
        let word = |n| record.word(n).unwrap_or(0);
        let process = all.entry(pid).or_default();
        match record.kind {
            format::BEGIN => {
                if word(1) > format::VERSION {
                    return Err(NEWER);
                }
                // A program may become another one, which begins anew with other mappings; or the number is used again.
                let name = String::from_utf8_lossy(record.text(5)).into_owned();
                process.name = name;
                if process.unix_ns == 0 {
                    process.unix_ns = word(2);
                    process.begin_ns = word(3);
                }
                process.rate_bytes = word(4);
            }
            format::MAPS => {
                if let Some(range) = range(&String::from_utf8_lossy(record.text(2)))
                    && !process.ranges.contains(&range)
                {
                    process.ranges.push(range);
                }
            }
            format::SAMPLE => {
                let size = |n| usize::try_from(word(n)).unwrap_or(usize::MAX);
                let kind = u8::try_from(word(5)).unwrap_or(u8::MAX);
                process.samples.push(Sampled {
                    bytes: word(3),
                    kind: word(5),
                    weight: Sample::new(size(3), size(4), kind).weight(),
                    // Return addresses: the call is before.
                    stack: record
                        .words_from(6)
                        .map(|pc| pc.saturating_sub(1))
                        .collect(),
                });
                process.end_ns = process.end_ns.max(word(1));
            }
            _ => {
                process.end_ns = process.end_ns.max(word(1));
                process.allocated_bytes = Some(word(2)).filter(|b| *b != 0);
                process.lost = word(3);
            }
        }
    }
    all.retain(|_, process| process.rate_bytes != 0);
    Ok(all)
}

/// A line of `/proc/PID/maps`.
fn range(line: &str) -> Option<Range> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let offset = words.nth(1)?;
    let file = words.nth(2)?.trim_start().trim_end_matches(" (deleted)");
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some(Range {
        start: number(start)?,
        end: number(end)?,
        offset: number(offset)?,
        file: PathBuf::from(file),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn lines_of_maps() {
        let line =
            "7f00-7fff r-xp 00001000 08:01 42                         /usr/lib/a b.so (deleted)";
        let wanted = Range {
            start: 0x7f00,
            end: 0x7fff,
            offset: 0x1000,
            file: PathBuf::from("/usr/lib/a b.so"),
        };
        assert_eq!(range(line), Some(wanted));
        let vdso = "7ff0-7ff1 r-xp 00000000 00:00 0                          [vdso]";
        assert_eq!(range(vdso).unwrap().file, PathBuf::from("[vdso]"));
        let code = "10-20 rwxp 00000000 00:00 0 ";
        assert_eq!(range(code).unwrap().file, PathBuf::new());
        assert_eq!(range("7f00-7fff r-xp"), None);
    }

    #[test]
    fn what_is_no_profile_has_nothing_in_it() {
        assert!(read(b"").unwrap().is_empty());
        assert!(read(b"anything else, HWPR included").unwrap().is_empty());
    }
}
