//! What the loader reads of an ELF file: class, machine, interpreter, and the strings of the dynamic section.
//!
//! Files are read in the few pieces that are needed: a compiler's binary can have a hundred megabytes. All numbers in
//! the file are taken as an enemy's: each is checked, and what does not fit is an error.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Object {
    /// `e_machine`, and whether the file is 64 bits wide and little-endian: objects mix only where all three agree.
    pub(crate) target: Target,
    /// `PT_INTERP` is there: a loader starts the program.
    pub(crate) has_loader: bool,
    /// `DT_NEEDED`, in order.
    pub(crate) needed: Vec<String>,
    /// `DT_SONAME`.
    pub(crate) soname: Option<String>,
    /// `DT_RPATH`, split at colons; empty where there is a `DT_RUNPATH`, as the loader has it.
    pub(crate) rpath: Vec<String>,
    /// `DT_RUNPATH`, split at colons.
    pub(crate) runpath: Option<Vec<String>>,
}

/// For which machine a file was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Target {
    machine: u16,
    wide: bool,
    little: bool,
}

impl Target {
    /// A name for messages.
    pub(crate) fn name(self) -> String {
        let machine = match self.machine {
            3 => "i386",
            8 => "mips",
            20 | 21 => "powerpc",
            22 => "s390",
            40 => "arm",
            62 => "x86-64",
            183 => "aarch64",
            243 => "riscv",
            258 => "loongarch",
            other => return format!("machine {other}, {} bits", if self.wide { 64 } else { 32 }),
        };
        format!("{machine}, {} bits", if self.wide { 64 } else { 32 })
    }
}

/// Larger tables than any real program has are taken as damage.
const MOST_HEADERS: usize = 4096;
const MOST_ENTRIES: usize = 1 << 16;
const LONGEST_STRING: usize = 1 << 16;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_SONAME: u64 = 14;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// Whether the file starts as an ELF file does.
pub(crate) fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
}

/// Reads what the loader would.
pub(crate) fn read(path: &Path) -> io::Result<Object> {
    parse(&File::open(path)?)
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A source of bytes at offsets, so that tests need no files.
trait Source {
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Reads at most the buffer's length and says how much there was.
    fn some(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl Source for File {
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
    fn some(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(buffer, offset)
    }
}

/// Numbers out of bytes, in the file's order and width.
struct Reader {
    target: Target,
}

impl Reader {
    fn number(&self, bytes: &[u8], at: usize, width: usize) -> io::Result<u64> {
        let field = at
            .checked_add(width)
            .and_then(|end| bytes.get(at..end))
            .ok_or_else(|| damaged("a header is cut off"))?;
        let push = |n: u64, b: &u8| n << 8 | u64::from(*b);
        Ok(if self.target.little {
            field.iter().rev().fold(0, push)
        } else {
            field.iter().fold(0, push)
        })
    }

    fn index(&self, bytes: &[u8], at: usize, width: usize) -> io::Result<usize> {
        usize::try_from(self.number(bytes, at, width)?)
            .map_err(|_| damaged("a number is too large"))
    }
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    bytes: u64,
}

fn parse(file: &impl Source) -> io::Result<Object> {
    let mut head = [0; 64];
    let got = file.some(&mut head, 0)?;
    if got < 52 || !is_elf(&head) {
        return Err(damaged("this is no ELF file"));
    }
    let wide = match head[4] {
        1 => false,
        2 => true,
        _ => return Err(damaged("its class is neither 32 nor 64 bits")),
    };
    let little = match head[5] {
        1 => true,
        2 => false,
        _ => return Err(damaged("its byte order is unknown")),
    };
    let mut r = Reader {
        target: Target {
            machine: 0,
            wide,
            little,
        },
    };
    r.target.machine =
        u16::try_from(r.number(&head, 18, 2)?).map_err(|_| damaged("its machine is unknown"))?;
    let (table, size, count) = if wide {
        (
            r.number(&head, 32, 8)?,
            r.index(&head, 54, 2)?,
            r.index(&head, 56, 2)?,
        )
    } else {
        (
            r.number(&head, 28, 4)?,
            r.index(&head, 42, 2)?,
            r.index(&head, 44, 2)?,
        )
    };
    let segments = segments(file, &r, table, size, count)?;
    let mut object = Object {
        target: r.target,
        has_loader: segments.iter().any(|s| s.kind == PT_INTERP),
        ..Object::default()
    };
    if let Some(dynamic) = segments.iter().find(|s| s.kind == PT_DYNAMIC) {
        read_dynamic(file, &r, dynamic, &segments, &mut object)?;
    }
    Ok(object)
}

fn segments(
    file: &impl Source,
    r: &Reader,
    table: u64,
    size: usize,
    count: usize,
) -> io::Result<Vec<Segment>> {
    let least = if r.target.wide { 56 } else { 32 };
    if count == 0 {
        return Ok(Vec::new());
    }
    if count > MOST_HEADERS || !(least..=256).contains(&size) {
        return Err(damaged("its program headers make no sense"));
    }
    let mut bytes = vec![0; count * size];
    file.fill(&mut bytes, table)?;
    bytes
        .chunks_exact(size)
        .map(|h| {
            let kind = u32::try_from(r.number(h, 0, 4)?)
                .map_err(|_| damaged("a segment's type is too large"))?;
            Ok(if r.target.wide {
                Segment {
                    kind,
                    offset: r.number(h, 8, 8)?,
                    address: r.number(h, 16, 8)?,
                    bytes: r.number(h, 32, 8)?,
                }
            } else {
                Segment {
                    kind,
                    offset: r.number(h, 4, 4)?,
                    address: r.number(h, 8, 4)?,
                    bytes: r.number(h, 16, 4)?,
                }
            })
        })
        .collect()
}

fn read_dynamic(
    file: &impl Source,
    r: &Reader,
    dynamic: &Segment,
    segments: &[Segment],
    object: &mut Object,
) -> io::Result<()> {
    let word = if r.target.wide { 8 } else { 4 };
    let bytes = usize::try_from(dynamic.bytes).unwrap_or(usize::MAX);
    if bytes / (2 * word) > MOST_ENTRIES {
        return Err(damaged("its dynamic section is too large"));
    }
    let mut table = vec![0; bytes];
    file.fill(&mut table, dynamic.offset)?;
    let mut entries = Vec::new();
    for entry in table.chunks_exact(2 * word) {
        let (tag, value) = (r.number(entry, 0, word)?, r.number(entry, word, word)?);
        if tag == DT_NULL {
            break;
        }
        entries.push((tag, value));
    }
    let value = |wanted: u64| {
        entries
            .iter()
            .find(|(tag, _)| *tag == wanted)
            .map(|(_, value)| *value)
    };
    let Some(address) = value(DT_STRTAB) else {
        return Ok(());
    };
    let strings = segments
        .iter()
        .filter(|s| s.kind == PT_LOAD)
        .find_map(|s| {
            address
                .checked_sub(s.address)
                .filter(|d| *d < s.bytes)
                .and_then(|d| s.offset.checked_add(d))
        })
        .ok_or_else(|| damaged("its string table lies in no segment"))?;
    let limit = value(DT_STRSZ).unwrap_or(u64::MAX);
    let string = |offset: u64| string(file, strings, offset, limit);
    for (tag, offset) in &entries {
        match *tag {
            DT_NEEDED => object.needed.push(string(*offset)?),
            DT_SONAME => object.soname = Some(string(*offset)?),
            DT_RPATH => object.rpath = split(&string(*offset)?),
            DT_RUNPATH => object.runpath = Some(split(&string(*offset)?)),
            _ => {}
        }
    }
    if object.runpath.is_some() {
        object.rpath.clear();
    }
    Ok(())
}

fn split(paths: &str) -> Vec<String> {
    paths
        .split(':')
        .map(|p| if p.is_empty() { "." } else { p }.to_owned())
        .collect()
}

fn string(file: &impl Source, table: u64, offset: u64, limit: u64) -> io::Result<String> {
    let at = table
        .checked_add(offset)
        .filter(|_| offset < limit)
        .ok_or_else(|| damaged("a string lies outside its table"))?;
    let mut text = Vec::new();
    let mut piece = [0; 256];
    loop {
        let read_at = at
            .checked_add(text.len() as u64)
            .ok_or_else(|| damaged("a string lies outside its table"))?;
        let got = file.some(&mut piece, read_at)?;
        let piece = &piece[..got];
        if let Some(end) = piece.iter().position(|b| *b == 0) {
            text.extend_from_slice(&piece[..end]);
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        text.extend_from_slice(piece);
        if piece.is_empty() || text.len() > LONGEST_STRING {
            return Err(damaged("a string has no end"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    impl Source for Vec<u8> {
        fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            if self.some(buffer, offset)? == buffer.len() {
                Ok(())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        }
        fn some(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let from = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(self.len());
            let n = buffer.len().min(self.len() - from);
            buffer[..n].copy_from_slice(&self[from..from + n]);
            Ok(n)
        }
    }

    /// A file with a load segment over everything, a dynamic section and the strings given.
    fn image(entries: &[(u64, &str)]) -> Vec<u8> {
        let mut strings = vec![0u8];
        let mut table = Vec::new();
        let headers = 64 + 3 * 56;
        for (tag, text) in entries {
            table.push((*tag, strings.len() as u64));
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
        }
        let at = headers + (table.len() + 3) * 16;
        table.extend([
            (DT_STRTAB, 0x1000 + at as u64),
            (DT_STRSZ, strings.len() as u64),
            (DT_NULL, 0),
        ]);
        let total = (at + strings.len()) as u64;
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(64, 0);
        file[18] = 62;
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[54] = 56;
        file[56] = 3;
        for (kind, offset, address, bytes) in [
            (PT_INTERP, 0, 0, 0),
            (PT_LOAD, 0, 0x1000, total),
            (
                PT_DYNAMIC,
                headers as u64,
                0x1000 + headers as u64,
                table.len() as u64 * 16,
            ),
        ] {
            let mut h = vec![0u8; 56];
            h[..4].copy_from_slice(&kind.to_le_bytes());
            h[8..16].copy_from_slice(&u64::to_le_bytes(offset));
            h[16..24].copy_from_slice(&u64::to_le_bytes(address));
            h[32..40].copy_from_slice(&u64::to_le_bytes(bytes));
            file.extend(h);
        }
        for (tag, value) in table {
            file.extend(tag.to_le_bytes());
            file.extend(value.to_le_bytes());
        }
        file.extend(strings);
        file
    }

    #[test]
    fn reads_what_the_loader_reads() {
        let file = image(&[
            (DT_NEEDED, "libgc.so.1"),
            (DT_NEEDED, "libc.so.6"),
            (DT_SONAME, "me"),
            (DT_RPATH, "/a::/b"),
        ]);
        let o = parse(&file).unwrap();
        assert_eq!(o.needed, ["libgc.so.1", "libc.so.6"]);
        assert_eq!(o.soname.as_deref(), Some("me"));
        assert_eq!(o.rpath, ["/a", ".", "/b"]);
        assert!(o.has_loader && o.runpath.is_none());
        assert_eq!(o.target.name(), "x86-64, 64 bits");
    }

    #[test]
    fn a_runpath_makes_the_rpath_void() {
        let o = parse(&image(&[(DT_RPATH, "/a"), (DT_RUNPATH, "/b")])).unwrap();
        assert!(o.rpath.is_empty());
        assert_eq!(o.runpath.unwrap(), ["/b"]);
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_an_error_or_an_object() {
        let file = image(&[(DT_NEEDED, "libgc.so.1"), (DT_RUNPATH, "/x:/y")]);
        for n in 0..file.len() {
            let _ = parse(&file[..n].to_vec());
            for b in [0, 1, 0x7f, 0x80, 0xff] {
                let mut other = file.clone();
                other[n] = b;
                let _ = parse(&other);
            }
        }
        assert!(parse(&file[..40].to_vec()).is_err());
        assert!(parse(&b"#!/bin/sh\n".to_vec()).is_err());
    }

    #[test]
    fn reads_this_test_itself() {
        let o = read(&std::env::current_exe().unwrap()).unwrap();
        assert!(o.has_loader);
        assert!(
            o.needed.iter().any(|n| n.starts_with("libc.so")),
            "{:?}",
            o.needed
        );
    }
}
