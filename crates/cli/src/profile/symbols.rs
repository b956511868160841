//! Names of functions, by what compilers leave in files.

use super::raw::Range;
use addr2line::Loader;
use object::{Object, ObjectSegment};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A function at an address, perhaps inlined into the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Frame {
    pub(super) name: String,
    /// As the linker knows it.
    pub(super) system_name: String,
    pub(super) file: String,
    pub(super) line: u32,
}

/// A file with code.
struct Code {
    loader: Option<Loader>,
    /// Of each part: where it is in the file, how long it is there, and its address.
    segments: Vec<(u64, u64, u64)>,
    build_id: String,
}

/// All files that were looked at.
#[derive(Default)]
pub(super) struct Symbols(HashMap<PathBuf, Code>);

impl Symbols {
    fn code(&mut self, file: &Path) -> &Code {
        self.0
            .entry(file.to_owned())
            .or_insert_with(|| Code::read(file))
    }

    /// The identity of a file's build in hexadecimal digits; empty if it has none.
    pub(super) fn build_id(&mut self, file: &Path) -> String {
        self.code(file).build_id.clone()
    }

    /// The functions at an address of a range, what is inlined first; empty if nothing is known.
    pub(super) fn at(&mut self, range: &Range, address: u64) -> Vec<Frame> {
        let code = self.code(&range.file);
        let in_file = address - range.start + range.offset;
        let segment = code
            .segments
            .iter()
            .find(|(offset, bytes, _)| (*offset..offset + bytes).contains(&in_file));
        let (Some(loader), Some((offset, _, start))) = (&code.loader, segment) else {
            return Vec::new();
        };
        frames(loader, in_file - offset + start)
    }
}

impl Code {
    fn read(file: &Path) -> Self {
        let mut code = Self {
            loader: None,
            segments: Vec::new(),
            build_id: String::new(),
        };
        // Not of devices, and not of what stands in brackets.
        if !file.is_absolute() || !fs::metadata(file).is_ok_and(|m| m.is_file()) {
            return code;
        }
        let Ok(bytes) = fs::read(file) else {
            return code;
        };
        if let Ok(object) = object::File::parse(&*bytes) {
            code.segments = object
                .segments()
                .map(|s| (s.file_range().0, s.file_range().1, s.address()))
                .collect();
            if let Ok(Some(id)) = object.build_id() {
                code.build_id = id.iter().map(|b| format!("{b:02x}")).collect();
            }
            // Distributions put what is stripped elsewhere.
            code.loader = separate(&code.build_id)
                .and_then(|file| Loader::new(file).ok())
                .or_else(|| Loader::new(file).ok());
        }
        code
    }
}

/// Where debug information of a build is installed, if it is.
fn separate(build_id: &str) -> Option<PathBuf> {
    let (first, rest) = build_id.split_at_checked(2)?;
    let file = PathBuf::from(format!("/usr/lib/debug/.build-id/{first}/{rest}.debug"));
    file.is_file().then_some(file)
}

fn frames(loader: &Loader, address: u64) -> Vec<Frame> {
    let mut found = Vec::new();
    if let Ok(mut frames) = loader.find_frames(address) {
        while let Ok(Some(frame)) = frames.next() {
            let Some(function) = frame.function else {
                continue;
            };
            let Ok(system_name) = function.raw_name() else {
                continue;
            };
            let place = frame.location;
            found.push(Frame {
                name: plain(&function.demangle().unwrap_or(Cow::Borrowed(&*system_name))),
                system_name: system_name.to_string(),
                file: place
                    .as_ref()
                    .and_then(|p| p.file)
                    .unwrap_or_default()
                    .to_owned(),
                line: place.and_then(|p| p.line).unwrap_or(0),
            });
        }
    }
    if let Some(symbol) = loader.find_symbol(address) {
        let name = plain(&addr2line::demangle_auto(Cow::Borrowed(symbol), None));
        match found.last_mut() {
            // Rust leaves the path of a function out of tables of lines.
            Some(outermost) if names_the_same(&name, &outermost.name) => {
                (outermost.name, outermost.system_name) = (name, symbol.to_owned());
            }
            Some(_) => {}
            None => found.push(Frame {
                name,
                system_name: symbol.to_owned(),
                ..Frame::default()
            }),
        }
    }
    found
}

/// Is `short` the last part of a path, but for parameters of types?
fn names_the_same(path: &str, short: &str) -> bool {
    let short = short.split('<').next().unwrap_or_default();
    !short.is_empty() && !short.contains("::") && path.contains(&format!("::{short}"))
}

/// A name without the hash that Rust puts behind it.
fn plain(name: &str) -> String {
    match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            name.to_owned()
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn this_test_is_found_by_its_address() {
        let address = this_test_is_found_by_its_address as *const () as u64 + 1;
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let exe = std::env::current_exe().unwrap();
        let range = maps
            .lines()
            .filter(|l| l.contains(" r-xp ") && l.ends_with(exe.to_str().unwrap()))
            .find_map(|l| {
                let (range, rest) = l.split_once(" r-xp ")?;
                let (start, end) = range.split_once('-')?;
                let number = |t| u64::from_str_radix(t, 16).unwrap();
                let range = Range {
                    start: number(start),
                    end: number(end),
                    offset: number(rest.split(' ').next()?),
                    file: exe.clone(),
                };
                (range.start..range.end).contains(&address).then_some(range)
            })
            .unwrap();
        let mut symbols = Symbols::default();
        let frames = symbols.at(&range, address);
        let last = frames.last().unwrap();
        assert!(
            last.name.ends_with("this_test_is_found_by_its_address"),
            "{frames:?}"
        );
        assert!(
            last.file.ends_with("symbols.rs") && last.line > 100,
            "{frames:?}"
        );
        assert!(symbols.build_id(&exe).len() >= 16);
        assert_eq!(
            symbols.at(
                &Range {
                    file: "[vdso]".into(),
                    ..range
                },
                address
            ),
            []
        );
    }

    #[test]
    fn paths_are_taken_from_symbols() {
        assert!(names_the_same("a::b::walk", "walk"));
        assert!(names_the_same("a::b::walk::<a::T>", "walk<a::T>"));
        assert!(!names_the_same("make.constprop.0", "make"));
        assert!(!names_the_same("a::walk", "a::walk"));
        assert!(!names_the_same("a::walk", "<T as X>"));
    }

    #[test]
    fn hashes_are_left_out() {
        assert_eq!(plain("a::b::h0123456789abcdef"), "a::b");
        assert_eq!(plain("a::b::hash"), "a::b::hash");
    }
}
