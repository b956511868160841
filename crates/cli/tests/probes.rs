//! The probes are in the files that are built, where tools look for them, and docs/profiling.md says what they are.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use object::{Object, ObjectSection};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const COMMAND: &str = env!("CARGO_BIN_EXE_heapwright");

/// A word of four bytes.
fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// The probes of a file: how many arguments each has, by provider and name.
fn probes(file: &Path) -> BTreeMap<(String, String), usize> {
    let bytes = fs::read(file).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let text = file.section_by_name(".text").unwrap();
    let code = text.address()..text.address() + text.size();
    assert!(file.section_by_name(".stapsdt.base").is_some());
    let section = file.section_by_name(".note.stapsdt").unwrap();
    let notes = section.data().unwrap();
    let mut found: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut at = 0;
    while at < notes.len() {
        // SystemTap's description of the format: sizes, type, name, and three addresses before three texts.
        let (name, length) = (word(notes, at), word(notes, at + 4));
        assert_eq!(
            (word(notes, at + 8), &notes[at + 12..at + 20]),
            (3, &b"stapsdt\0"[..])
        );
        assert_eq!(name, 8);
        let description = &notes[at + 20..at + 20 + length];
        let place = u64::from_ne_bytes(description[..8].try_into().unwrap());
        // A function that nobody calls is left out when a program is linked, and its note stays.
        let left_out = !code.contains(&place);
        // Nobody has to be counted: there is no semaphore.
        assert_eq!(description[16..24], [0; 8]);
        let mut texts = description[24..].split(|b| *b == 0);
        let mut text = || String::from_utf8(texts.next().unwrap().to_vec()).unwrap();
        let key = (text(), text());
        let arguments = text();
        assert!(
            arguments.split_whitespace().all(|a| a.starts_with("-8@")),
            "{arguments}"
        );
        let count = arguments.split_whitespace().count();
        if !left_out {
            assert_eq!(*found.entry(key).or_insert(count), count);
        }
        at += 20 + length.next_multiple_of(4);
    }
    found
}

/// The probes of the page: names and how many arguments they have.
fn documented() -> BTreeMap<String, usize> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/profiling.md");
    let page = fs::read_to_string(page).unwrap();
    let row = |line: &str| {
        let call = line.strip_prefix("| `")?.split('`').next()?;
        let (name, arguments) = call.strip_suffix(')')?.split_once('(')?;
        let count = arguments.split(", ").filter(|a| !a.is_empty()).count();
        name.contains("__").then(|| (name.to_owned(), count))
    };
    page.lines().filter_map(row).collect()
}

fn of_provider(file: &Path) -> BTreeMap<String, usize> {
    let all = probes(file).into_iter();
    all.filter_map(|((provider, name), count)| (provider == "heapwright").then_some((name, count)))
        .collect()
}

#[test]
fn the_library_has_the_probes_of_the_page() {
    let beside = Path::new(COMMAND).parent().unwrap();
    let age = |p: &PathBuf| fs::metadata(p).and_then(|m| m.modified()).ok();
    let library = [beside.join("libgc.so"), beside.join("deps/libgc.so")]
        .into_iter()
        .max_by_key(age)
        .unwrap();
    let page = documented();
    assert!(page.len() >= 12, "{page:?}");
    assert_eq!(of_provider(&library), page);
}

#[test]
fn heaps_of_objects_have_the_same() {
    let names = |of: BTreeMap<String, usize>| of.into_keys().collect::<BTreeSet<_>>();
    assert_eq!(names(of_provider(Path::new(COMMAND))), names(documented()));
}
