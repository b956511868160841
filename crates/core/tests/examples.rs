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

/// The crates below and beside, and what in them has no example.
const OTHERS: &[(&str, &[&str], &str)] = &[
    (
        "address",
        &["Block", "Chunk", "Line", "Page"],
        "`Unit`, which they implement",
    ),
    (
        "os",
        &[
            "FaultPlan",
            "Memory",
            "Op",
            "OsError",
            "Pressure",
            "SystemPort",
        ],
        "`FaultyPort`, `Machine`, `Port`",
    ),
    (
        "memory",
        &[
            "Addresses",
            "ChunkState",
            "Entry",
            "FragmentedMapper",
            "MapError",
            "Scope",
            "SideMemory",
            "SideMetadataSpec",
        ],
        "`Mmapper`, `SideLayout`, `SideTable`",
    ),
    (
        "work",
        &[
            "Config",
            "Delay",
            "Panic",
            "Phase",
            "PhaseError",
            "StartCause",
            "StartError",
            "Worker",
        ],
        "`Pool`",
    ),
    ("signals", &["SignalError"], "`SignalWorld`"),
];

/// Types and traits that a crate's root exports or has.
fn exported(root: &str) -> BTreeSet<String> {
    let used = root
        .split("pub use ")
        .skip(1)
        .filter(|u| !u.starts_with("heapwright_"))
        .flat_map(|u| {
            u.split(';')
                .next()
                .unwrap_or_default()
                .split(|c: char| !c.is_alphanumeric() && c != '_')
        })
        // Neither functions and modules nor constants.
        .filter(|name| name.chars().next().is_some_and(char::is_uppercase))
        .filter(|name| name.chars().any(char::is_lowercase))
        .map(str::to_owned);
    used.chain(defined(root).into_iter().map(|(name, _)| name))
        .collect()
}

/// What a crate exports has an example or is in the list, and what is in the list has none. Gives how many there are.
fn check(name: &str, without: &[&str], wrong: &mut Vec<String>) -> usize {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(name)
        .join("src");
    let exported = exported(&fs::read_to_string(source.join("lib.rs")).unwrap());
    let mut paths = Vec::new();
    files(&source, &mut paths);
    let all: Vec<(String, bool)> = paths
        .iter()
        .flat_map(|path| defined(&fs::read_to_string(path).unwrap()))
        .collect();
    let has = |name: &str| all.iter().any(|(n, example)| n == name && *example);
    for item in &exported {
        if !has(item) && !without.contains(&item.as_str()) {
            wrong.push(format!("{name}: {item} has no example"));
        }
    }
    for item in without {
        if !exported.contains(*item) {
            wrong.push(format!("{name}: {item} is not exported"));
        } else if has(item) {
            wrong.push(format!("{name}: {item} has an example by now"));
        }
    }
    exported.len()
}

#[test]
fn what_the_crates_export_has_an_example() {
    let mut wrong = Vec::new();
    let without: Vec<&str> = WITHOUT.iter().flat_map(|(n, _)| *n).copied().collect();
    assert!(check("core", &without, &mut wrong) > 60);
    for (name, without, _) in OTHERS {
        let count = check(name, without, &mut wrong);
        assert!(count > without.len(), "{name}: {count}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Methods that no example calls.
const NOT_CALLED: &[(&[&str], &str)] = &[
    (&["child"], "`Fork`: it is for those who cannot drop it"),
    (&["enter_object", "record"], "`FastPath`: generated code"),
    (&["kept"], "`Living`: for writers of heap dumps"),
    (
        &["limits", "machine", "port", "strength"],
        "they give or take what they are called",
    ),
    (&["read_weakly"], "`Mutator::referent` does it"),
    (&["sampler"], "docs/profiling.md"),
];

/// The lines of code in a file's documentation.
fn code_of_examples(text: &str) -> String {
    let mut code = String::new();
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim_start();
        let Some(line) = line.strip_prefix("///").or(line.strip_prefix("//!")) else {
            inside = false;
            continue;
        };
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside {
            code += line;
            code.push('\n');
        }
    }
    code
}

/// Public methods that a file defines.
fn methods(text: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let rest = line.strip_prefix("    pub ")?;
        let rest = rest.strip_prefix("const ").unwrap_or(rest);
        let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
        let rest = rest.strip_prefix("fn ")?;
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
        Some(rest[..end].to_owned())
    };
    text.lines().filter_map(name).collect()
}

/// Does the code call a method of that name?
fn calls(code: &str, name: &str) -> bool {
    [".", "::"].iter().any(|before| {
        let called = format!("{before}{name}(");
        code.contains(&called)
    })
}

#[test]
fn every_method_of_a_heap_is_called_in_an_example() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&source, &mut paths);
    let code: String = paths
        .iter()
        .map(|path| code_of_examples(&fs::read_to_string(path).unwrap()))
        .collect();
    let mut of_heaps = Vec::new();
    files(&source.join("heap/objects"), &mut of_heaps);
    let methods: BTreeSet<String> = of_heaps
        .iter()
        .flat_map(|path| methods(&fs::read_to_string(path).unwrap()))
        .collect();
    assert!(methods.len() > 60, "{methods:?}");
    let excused: Vec<&str> = NOT_CALLED.iter().flat_map(|(n, _)| *n).copied().collect();
    let wrong: Vec<&String> = methods
        .iter()
        .filter(|name| calls(&code, name) == excused.contains(&name.as_str()))
        .collect();
    assert!(
        wrong.is_empty(),
        "in no example, or in one though the list says not: {wrong:?}"
    );
    let stale: Vec<&&str> = excused.iter().filter(|n| !methods.contains(**n)).collect();
    assert!(stale.is_empty(), "there is no method {stale:?}");
}

#[test]
fn an_example_is_seen_where_it_is_and_nowhere_else() {
    let text = "/// A.\n/// ```\n/// ```\npub struct A;\n\n/// B.\n#[derive(Debug)]\npub unsafe trait B {}\n";
    assert_eq!(
        defined(text),
        [("A".to_owned(), true), ("B".to_owned(), false)]
    );
    let text = "    /// A.\n    /// ```\n    /// a.go(1);\n    /// ```\n    /// b.stay()\n    pub unsafe fn go(n: u8) {}\n    fn no() {}\n";
    let code = code_of_examples(text);
    assert!(calls(&code, "go") && !calls(&code, "stay") && !calls(&code, "g"));
    assert_eq!(methods(text), BTreeSet::from(["go".to_owned()]));
}
