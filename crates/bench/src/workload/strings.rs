//! `strings`: text as scripting languages have it.
//!
//! A table of strings; operations build a new one from a number, concatenate two, cut a piece out of one, join some through
//! a rope (a tree of concatenations that is flattened at the end), or hash one. The result replaces a string of the table.
//! Strings are objects of raw bytes only, of 1 to 4096 bytes; they are copied, not shared.

use super::checksum::Checksum;
use super::random::{Random, below, mix};
use super::slices::Slices;
use super::{Fault, Outcome, POLL, Settings, at, there};
use crate::runtime::Thread;

/// No string is longer.
const LONGEST: usize = 4096;
/// A rope has no more leaves.
const LEAVES: usize = 5;
const ROPE_BYTES: u64 = 24;

/// Copies bytes from one string to another.
#[inline]
fn copy<T: Thread>(t: &mut T, from: T::Ref, start: usize, to: T::Ref, place: usize, length: usize) {
    let mut buffer = [0; 256];
    let mut done = 0;
    while done < length {
        let piece = (length - done).min(buffer.len());
        let buffer = &mut buffer[..piece];
        buffer.copy_from_slice(&t.raw_slice(from)[start + done..][..piece]);
        t.raw_slice(to)[place + done..][..piece].copy_from_slice(buffer);
        done += piece;
    }
}

/// Writes a number in decimal, again and again until the bytes are full.
#[inline]
fn write_number(bytes: &mut [u8], number: u64) {
    let mut rest = number;
    for byte in bytes {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            rest = number;
        }
    }
}

struct Table {
    strings: Slices,
    allocated_bytes: u64,
}

impl Table {
    #[inline]
    fn get<T: Thread>(&self, t: &T, index: usize) -> Result<T::Ref, Fault> {
        there(self.strings.get(t, index)?)
    }

    /// Replaces a string.
    #[inline]
    fn put<T: Thread>(&self, t: &mut T, index: usize, string: T::Ref) -> Result<(), Fault> {
        if T::MANUAL
            && let Some(old) = self.strings.get(t, index)?
        {
            t.dispose(old);
        }
        self.strings.set(t, index, Some(string))
    }

    /// Allocates a string. May collect.
    #[inline]
    fn string<T: Thread>(&mut self, t: &mut T, length: usize) -> Result<T::Ref, Fault> {
        self.allocated_bytes += length as u64;
        Ok(t.bytes(length)?)
    }

    /// A string of 8 to 64 digits.
    fn build<T: Thread>(&mut self, t: &mut T, number: u64, to: usize) -> Result<(), Fault> {
        let string = self.string(t, 8 + (number % 57) as usize)?;
        write_number(t.raw_slice(string), number);
        self.put(t, to, string)
    }

    fn concatenate<T: Thread>(
        &mut self,
        t: &mut T,
        a: usize,
        b: usize,
        to: usize,
    ) -> Result<(), Fault> {
        let length_a = t.raw_bytes(self.get(t, a)?);
        let length_b = t.raw_bytes(self.get(t, b)?).min(LONGEST - length_a);
        let string = self.string(t, length_a + length_b)?;
        let (a, b) = (self.get(t, a)?, self.get(t, b)?);
        copy(t, a, 0, string, 0, length_a);
        copy(t, b, 0, string, length_a, length_b);
        self.put(t, to, string)
    }

    /// A piece of a string, at least one byte of it.
    fn cut<T: Thread>(&mut self, t: &mut T, a: usize, bits: u64, to: usize) -> Result<(), Fault> {
        let length = t.raw_bytes(self.get(t, a)?);
        let start = below(bits, length);
        let piece = 1 + below(bits << 32, length - start);
        let string = self.string(t, piece)?;
        let a = self.get(t, a)?;
        copy(t, a, start, string, 0, piece);
        self.put(t, to, string)
    }

    /// Joins strings: a rope first, then a string of it. The rope leans to the left: the left part of a node is a node or
    /// the first string, its right part is a string, its raw word is the length.
    fn join<T: Thread>(
        &mut self,
        t: &mut T,
        random: &mut Random,
        leaves: usize,
        to: usize,
    ) -> Result<(), Fault> {
        let table = self.strings.len();
        let first = self.get(t, random.below(table))?;
        let mut length = t.raw_bytes(first);
        let rope = t.push(Some(first));
        for _ in 1..leaves {
            let node = t.object(2, 8)?;
            let right = self.get(t, random.below(table))?;
            length += t.raw_bytes(right);
            t.set_raw(node, 0, length as u64);
            let left = t.root(rope);
            t.set(node, 0, left);
            t.set(node, 1, Some(right));
            t.set_root(rope, Some(node));
        }
        self.allocated_bytes += ROPE_BYTES * (leaves as u64 - 1);

        let length = length.min(LONGEST);
        let string = self.string(t, length)?;
        let mut node = at(t, rope)?;
        while t.references(node) != 0 {
            let left = there(t.get(node, 0))?;
            let right = there(t.get(node, 1))?;
            let start = t.raw(node, 0) as usize - t.raw_bytes(right);
            if start < length {
                let piece = t.raw_bytes(right).min(length - start);
                copy(t, right, 0, string, start, piece);
            }
            t.dispose(node);
            node = left;
        }
        let piece = t.raw_bytes(node).min(length);
        copy(t, node, 0, string, 0, piece);
        t.truncate(rope.0);
        self.put(t, to, string)
    }
}

/// Runs it.
pub(super) fn run<T: Thread>(t: &mut T, settings: &Settings) -> Result<Outcome, Fault> {
    let count = settings.count(50_000, 256);
    let operations = settings.count(6_000_000, 8192);
    let mut random = Random::new(settings.seed);
    let mut sum = Checksum::new();
    let bottom = t.height();
    let strings = Slices::new(t, count)?;
    let mut table = Table {
        allocated_bytes: strings.bytes(),
        strings,
    };
    for index in 0..count {
        table.build(t, random.next(), index)?;
    }

    for operation in 0..operations {
        if operation.is_multiple_of(POLL / 16) {
            t.poll();
        }
        let bits = random.next();
        let to = below(bits, count);
        match bits % 16 {
            0..7 => table.build(t, mix(bits), to)?,
            7..10 => {
                let (a, b) = (random.below(count), random.below(count));
                table.concatenate(t, a, b, to)?;
            }
            10..12 => table.cut(t, random.below(count), mix(bits), to)?,
            12..13 => {
                let leaves = 2 + (bits >> 4) as usize % (LEAVES - 1);
                table.join(t, &mut random, leaves, to)?;
            }
            _ => {
                let string = table.get(t, to)?;
                sum.add_bytes(t.raw_slice(string));
            }
        }
    }

    for index in 0..count {
        if index.is_multiple_of(POLL / 16) {
            t.poll();
        }
        let string = table.get(t, index)?;
        sum.add(t.raw_bytes(string) as u64);
        sum.add_bytes(t.raw_slice(string));
    }
    table.strings.dispose(t)?;
    t.finish(bottom);
    Ok(Outcome {
        checksum: sum.finish(),
        allocated_bytes: table.allocated_bytes,
        ..Outcome::default()
    })
}
