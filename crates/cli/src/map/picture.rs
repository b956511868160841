//! Pictures of heaps, read back: `heapwright_observe::picture` draws them.

use crate::refusal::Refusal;
use heapwright::BlockSpace;
use heapwright_observe::picture::{DIGITS, LETTERS};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// The most pictures of a page: it stays below 10 MB.
const MOST: usize = 240;
/// The longest line that is read.
const LONGEST: u64 = 1 << 20;

/// A picture, as it is in a recording or an answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Picture {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The collection before or after which it was made, or the last.
    pub(crate) number: u64,
    /// `before`, `after`, or `now`.
    pub(crate) when: String,
    pub(crate) at_ns: u64,
    pub(crate) block_bytes: u64,
    pub(crate) blocks: u64,
    pub(crate) per_cell: u64,
    pub(crate) space: String,
    pub(crate) used: String,
    pub(crate) age: String,
    pub(crate) pins: String,
    pub(crate) holes: String,
}

/// The number that a character stands for.
pub(crate) fn number(digit: u8) -> usize {
    DIGITS.iter().position(|d| *d == digit).unwrap_or(0)
}

/// The space that a letter stands for.
pub(crate) fn space(letter: u8) -> BlockSpace {
    let index = LETTERS.iter().position(|l| *l == letter);
    index.map_or(BlockSpace::Free, |i| BlockSpace::ALL[i])
}

impl Picture {
    /// A picture from its line; none if it is no picture, or not whole.
    pub(crate) fn of(line: &[u8]) -> Option<Self> {
        let picture: Self = serde_json::from_slice(line).ok()?;
        let cells = picture.space.len();
        let columns = [&picture.used, &picture.age, &picture.pins, &picture.holes];
        let whole = columns.iter().all(|c| c.len() == cells)
            && picture.per_cell > 0
            && picture.blocks.div_ceil(picture.per_cell) == cells as u64;
        (picture.kind == "map" && whole).then_some(picture)
    }

    /// The pictures of a recording, or of a file that has nothing else; of many, some, in pairs.
    pub(crate) fn read(file: &Path) -> Result<Vec<Self>, Refusal> {
        let wrong = |e: &dyn std::fmt::Display| Refusal::usage(format!("{}: {e}", file.display()));
        let mut reader = BufReader::new(File::open(file).map_err(|e| wrong(&e))?);
        let (mut pictures, mut bytes) = (Vec::new(), Vec::new());
        loop {
            bytes.clear();
            let limited = &mut reader.by_ref().take(LONGEST);
            if limited
                .read_until(b'\n', &mut bytes)
                .map_err(|e| wrong(&e))?
                == 0
            {
                return Ok(thinned(pictures));
            }
            pictures.extend(Self::of(&bytes));
            // A file may be of any length.
            if pictures.len() > 8 * MOST {
                pictures = thinned(pictures);
            }
        }
    }
}

/// Leaves out every second collection until it is few enough; the last stays.
fn thinned(mut pictures: Vec<Picture>) -> Vec<Picture> {
    while pictures.len() > MOST {
        let mut numbers: Vec<u64> = pictures.iter().map(|p| p.number).collect();
        numbers.dedup();
        let kept: Vec<u64> = numbers.iter().rev().step_by(2).copied().collect();
        if kept.len() == numbers.len() {
            pictures.drain(..pictures.len() - MOST);
        }
        pictures.retain(|p| kept.contains(&p.number));
    }
    pictures
}

/// What the view in a page is given.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MapData {
    digits: String,
    letters: String,
    spaces: Vec<&'static str>,
    frames: Vec<Picture>,
}

impl MapData {
    pub(crate) fn of(frames: Vec<Picture>) -> Self {
        Self {
            digits: String::from_utf8_lossy(DIGITS).into_owned(),
            letters: String::from_utf8_lossy(LETTERS).into_owned(),
            spaces: BlockSpace::ALL.iter().map(|s| s.name()).collect(),
            frames,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    pub(crate) fn picture() -> Picture {
        Picture {
            kind: "map".to_owned(),
            number: 7,
            when: "after".to_owned(),
            at_ns: 1_500_000_000,
            block_bytes: 32768,
            blocks: 10,
            per_cell: 2,
            space: "ciL.-".to_owned(),
            used: "_W_00".to_owned(),
            age: "12300".to_owned(),
            pins: "0V000".to_owned(),
            holes: "03000".to_owned(),
        }
    }

    #[test]
    fn what_is_not_a_whole_picture_is_none() {
        let line = |p: &Picture| serde_json::to_vec(p).unwrap();
        assert!(Picture::of(&line(&picture())).is_some());
        for broken in [
            Picture {
                used: "_".to_owned(),
                ..picture()
            },
            Picture {
                per_cell: 0,
                ..picture()
            },
            Picture {
                blocks: 11,
                ..picture()
            },
            Picture {
                kind: "end".to_owned(),
                ..picture()
            },
        ] {
            assert!(Picture::of(&line(&broken)).is_none(), "{broken:?}");
        }
        let whole = line(&picture());
        assert!(Picture::of(&whole[..whole.len() - 1]).is_none());
    }

    #[test]
    fn of_many_pictures_some_pairs_are_kept_and_the_last() {
        let mut many = Vec::new();
        for number in 1..=1000 {
            for when in ["before", "after"] {
                many.push(Picture {
                    number,
                    when: when.to_owned(),
                    ..picture()
                });
            }
        }
        let few = thinned(many);
        assert!((MOST / 2..=MOST).contains(&few.len()), "{}", few.len());
        assert_eq!(few.last().unwrap().number, 1000);
        for pair in few.chunks(2) {
            assert_eq!(pair[0].number, pair[1].number);
            assert_eq!((&*pair[0].when, &*pair[1].when), ("before", "after"));
        }
        // All of the same moment.
        assert_eq!(thinned(vec![picture(); 3 * MOST]).len(), MOST);
    }
}
