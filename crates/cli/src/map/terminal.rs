//! A picture of a heap in the terminal.

use super::Colour;
use super::picture::{Picture, number, space};
use crate::summary::size;
use heapwright::BlockSpace;
use heapwright_observe::picture::LETTERS;
use std::fmt::Write;

/// The columns before the cells, which say how far from the begin of the heap they are.
const MARGIN: usize = 10;
/// From little to much, without colours.
const SHADES: &[u8; 8] = b".:-=+*#@";
/// The same in colours of the terminal.
const RAMP: [u8; 8] = [239, 60, 61, 68, 73, 114, 185, 220];

/// The colour of a space.
const fn hue(space: BlockSpace) -> u8 {
    match space {
        BlockSpace::Free => 244,
        BlockSpace::Cells => 39,
        BlockSpace::Large => 208,
        BlockSpace::Nursery => 112,
        BlockSpace::Copy => 80,
        BlockSpace::Immix => 170,
        BlockSpace::Compact => 221,
        // And what is returned.
        _ => 236,
    }
}

/// Where a number from 0 to 63 stands in a row of eight; few are told apart better than many.
fn step(number: usize, colour: Colour) -> usize {
    match (number, colour) {
        (0, _) => 0,
        (n, Colour::Age | Colour::Holes) => (n.ilog2() as usize + 1).min(7),
        (n, _) => (n * 7).div_ceil(63),
    }
}

/// A picture with a heading and a legend, in so many columns.
pub(crate) fn drawn(picture: &Picture, colour: Colour, columns: usize, colours: bool) -> String {
    let mut text = heading(picture);
    let width = columns.saturating_sub(MARGIN).clamp(16, 128);
    let width = width - width % 8;
    let strip = match colour {
        Colour::Space | Colour::Used => &picture.used,
        Colour::Age => &picture.age,
        Colour::Pins => &picture.pins,
        Colour::Holes => &picture.holes,
    };
    let cell_bytes = picture.per_cell * picture.block_bytes;
    let spaces = picture.space.as_bytes();
    for (row, letters) in spaces.chunks(width).enumerate() {
        let first = row * width;
        let _ = write!(text, "{:>9} ", size(first as u64 * cell_bytes));
        let mut painted = None;
        for (index, letter) in letters.iter().enumerate() {
            let whose = space(*letter);
            let step = step(
                strip
                    .as_bytes()
                    .get(first + index)
                    .map_or(0, |d| number(*d)),
                colour,
            );
            let by_space = colour == Colour::Space || !whose.is_used();
            let hue = if by_space { hue(whose) } else { RAMP[step] };
            if colours && painted != Some(hue) {
                let _ = write!(text, "\x1b[38;5;{hue}m");
                painted = Some(hue);
            }
            text.push(match (whose, colours) {
                (BlockSpace::Returned, _) => '\u{b7}',
                (_, true) => '\u{2588}',
                (_, false) if by_space => char::from(*letter),
                (_, false) => char::from(SHADES[step]),
            });
        }
        text += if colours { "\x1b[0m\n" } else { "\n" };
    }
    text + &legend(picture, colour, colours)
}

fn heading(picture: &Picture) -> String {
    let when = match picture.when.as_str() {
        "before" => format!("before collection {}", picture.number),
        "after" => format!("after collection {}", picture.number),
        _ => format!("now, after {} collections", picture.number),
    };
    let cells = match picture.per_cell {
        1 => format!("a character is a block of {}", size(picture.block_bytes)),
        n => format!(
            "a character is {n} blocks, {}",
            size(n * picture.block_bytes)
        ),
    };
    format!(
        "{} {when}, at {:.2} s; {cells}\n",
        size(picture.blocks * picture.block_bytes),
        picture.at_ns as f64 / 1e9
    )
}

/// What the colours mean, and how much there is of each.
fn legend(picture: &Picture, colour: Colour, colours: bool) -> String {
    let swatch = |hue: u8, plain: char| match colours {
        true => format!("\x1b[38;5;{hue}m\u{2588}\x1b[0m"),
        false => plain.to_string(),
    };
    if colour == Colour::Space {
        let mut parts = Vec::new();
        for (letter, whose) in LETTERS.iter().zip(BlockSpace::ALL) {
            let cells = picture.space.bytes().filter(|l| l == letter).count() as u64;
            if cells > 0 {
                let plain = match whose {
                    BlockSpace::Returned => '\u{b7}',
                    _ => char::from(*letter),
                };
                let bytes = cells * picture.per_cell * picture.block_bytes;
                parts.push(format!(
                    "{} {} {}",
                    swatch(hue(whose), plain),
                    whose.name(),
                    size(bytes)
                ));
            }
        }
        return parts.join("   ") + "\n";
    }
    let ends = match colour {
        Colour::Used => ("nearly empty", "full"),
        Colour::Age => ("new", "63 collections old or more"),
        Colour::Pins => ("nothing is pinned", "all blocks are"),
        _ => ("no hole", "63 holes or more"),
    };
    let ramp: String = (0..8)
        .map(|i| swatch(RAMP[i], char::from(SHADES[i])))
        .collect();
    format!(
        "{}: {ramp} {}   {} free   {} returned\n",
        ends.0,
        ends.1,
        swatch(hue(BlockSpace::Free), '.'),
        '\u{b7}'
    )
}

#[cfg(test)]
mod tests {
    use super::super::picture::tests::picture;
    use super::*;

    #[test]
    fn each_mode_has_its_legend_and_the_cells_in_order() {
        for (colour, cells, word) in [
            (Colour::Space, "ciL.\u{b7}", "i immix 64 KiB"),
            (Colour::Used, "@+@.\u{b7}", "nearly empty: .:-=+*#@ full"),
            (Colour::Age, ":--.\u{b7}", "collections old"),
            (Colour::Pins, ".+..\u{b7}", "nothing is pinned"),
            (Colour::Holes, ".-..\u{b7}", "no hole"),
        ] {
            let text = drawn(&picture(), colour, 80, false);
            assert!(
                text.starts_with("320 KiB after collection 7, at 1.50 s"),
                "{text}"
            );
            assert!(text.contains(&format!("    0 KiB {cells}\n")), "{text}");
            assert!(text.contains(word), "{text}");
            let coloured = drawn(&picture(), colour, 80, true);
            assert!(coloured.contains("\x1b[38;5;") && coloured.ends_with('\n'));
        }
    }

    #[test]
    fn rows_fit_in_the_terminal() {
        let wide = Picture {
            blocks: 4096,
            per_cell: 1,
            space: "c".repeat(4096),
            used: "_".repeat(4096),
            ..picture()
        };
        for columns in [0, 30, 80, 200] {
            let text = drawn(&wide, Colour::Space, columns, false);
            let longest = text.lines().skip(1).map(|l| l.chars().count()).max();
            assert!(longest <= Some(columns.max(26)), "{longest:?}");
            let cells = text.lines().filter(|l| l.ends_with("cc"));
            assert_eq!(cells.map(|l| l.matches('c').count()).sum::<usize>(), 4096);
        }
    }
}
