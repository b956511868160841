//! What outsiders use has an example that runs.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What has none, and where it is seen at work instead.
const WITHOUT: &[(&[&str], &str)] = &[
    (
        &[
            "AllocError",
            "LimitError",
            "HeapError",
            "ForkError",
            "FreeError",
            "OptionError",
            "PinError",
            "ReferenceError",
        ],
        "errors: what gives one says when; `Limits` and `Options` show two",
    ),
    (
        &["Cause", "Part", "MutatorStop", "WorkerStats", "Violation"],
        "what events consist of: `Event`, `Listener`, `CollectionStats`",
    ),
    (
        &[
            "Decay",
            "Evacuate",
            "SizingChoice",
            "Soft",
            "Metadata",
            "Measured",
        ],
        "values of options and constants: `Options`, `SizingPolicy`, `Vm`",
    ),
    (
        &["Cleared", "Finalizable"],
        "what queues give: `Reference`, `FinalizerOrder`",
    ),
    (&["Pinned"], "`PinGuard`"),
    (&["BlockSpace", "MapBlock"], "`HeapMap`"),
    (&["RootOrigin", "Living"], "`Frozen`"),
    (
        &[
            "TypeId",
            "SlotFormat",
            "SlotVisitor",
            "RootVisitor",
            "WeakLookup",
            "WeakVisitor",
            "WordSlots",
        ],
        "`Vm`, `TaggedSlots`",
    ),
    (
        &[
            "Cell",
            "Closure",
            "Kind",
            "KindTraits",
            "LocalRuns",
            "Usage",
            "WordBuilder",
            "WordStep",
            "WordVisitor",
            "WordVm",
            "WordRoot",
            "WordView",
        ],
        "`WordHeap`",
    ),
    (&["Sample", "Sampler"], "docs/profiling.md"),
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Types and traits that are defined in a file, and whether their documentation has an example.
fn defined(text: &str) -> Vec<(String, bool)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(rest) = line.strip_prefix("pub ") else {
            continue;
        };
        let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
        let named = ["struct ", "enum ", "trait "]
            .iter()
            .find_map(|k| rest.strip_prefix(k));
        let Some(named) = named else { continue };
        let name: String = named.chars().take_while(|c| c.is_alphanumeric()).collect();
        let above = lines[..at].iter().rev();
        let mut documentation = above.take_while(|l| !l.is_empty() && !l.starts_with('}'));
        found.push((name, documentation.any(|l| l.starts_with("/// ```"))));
    }
    found
}

#[test]
fn what_the_crate_exports_has_an_example() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let root = fs::read_to_string(source.join("lib.rs")).unwrap();
    let exported: BTreeSet<String> = root
        .split("pub use ")
        .skip(1)
        .filter(|u| !u.starts_with("heapwright_"))
        .flat_map(|u| {
            u.split(';')
                .next()
                .unwrap_or_default()
                .split(|c: char| !c.is_alphanumeric())
        })
        .filter(|name| name.chars().next().is_some_and(char::is_uppercase))
        // Constants.
        .filter(|name| name.chars().any(char::is_lowercase))
        .map(str::to_owned)
        .collect();
    assert!(exported.len() > 60, "{exported:?}");
    let mut paths = Vec::new();
    files(&source, &mut paths);
    let all: Vec<(String, bool)> = paths
        .iter()
        .flat_map(|path| defined(&fs::read_to_string(path).unwrap()))
        .collect();
    let excused = |name: &str| WITHOUT.iter().any(|(names, _)| names.contains(&name));
    let has = |name: &String| all.iter().any(|(n, example)| n == name && *example);
    let missing: Vec<&String> = exported.iter().filter(|n| !has(n) && !excused(n)).collect();
    assert!(missing.is_empty(), "without an example: {missing:?}");
    for name in WITHOUT.iter().flat_map(|(names, _)| *names) {
        let name = (*name).to_owned();
        assert!(exported.contains(&name), "{name} is not exported");
        assert!(!has(&name), "{name} has an example by now");
    }
}

#[test]
fn an_example_is_seen_where_it_is_and_nowhere_else() {
    let text = "/// A.\n/// ```\n/// ```\npub struct A;\n\n/// B.\n#[derive(Debug)]\npub unsafe trait B {}\n";
    assert_eq!(
        defined(text),
        [("A".to_owned(), true), ("B".to_owned(), false)]
    );
}
