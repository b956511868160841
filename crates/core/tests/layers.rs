//! The layers of ARCHITECTURE.md hold: which crate may depend on which, and which module of the core uses which.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

/// A crate's folder and the crates of ours that it may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("address", &[]),
    ("os", &["heapwright-address"]),
    ("memory", &["heapwright-address", "heapwright-os"]),
    ("work", &[]),
    (
        "core",
        &[
            "heapwright-address",
            "heapwright-os",
            "heapwright-memory",
            "heapwright-work",
        ],
    ),
    (
        "libgc",
        &[
            "heapwright",
            "heapwright-address",
            "heapwright-os",
            "heapwright-memory",
            "heapwright-observe",
        ],
    ),
    (
        "observe",
        &["heapwright", "heapwright-os", "heapwright-memory"],
    ),
    ("signals", &["heapwright", "heapwright-os"]),
    ("bench", &["heapwright", "heapwright-observe"]),
    ("capi", &["heapwright", "heapwright-observe"]),
    ("book", &["heapwright"]),
    (
        "cli",
        &[
            "heapwright",
            "heapwright-bench",
            "heapwright-libgc",
            "heapwright-observe",
            "heapwright-os",
        ],
    ),
];

/// Who may say `libc`.
const SAY_LIBC: &[&str] = &["os", "observe", "signals", "libgc", "bench", "cli"];

/// Modules of the core: each uses only those before it.
const MODULES: &[&str] = &[
    "primitive",
    "bugs",
    "error",
    "map",
    "event",
    "probes",
    "options",
    "alloc",
    "vm",
    "space",
    "verify",
    "collect",
    "plan",
    "stats",
    "heap",
    "example",
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names in a manifest's `[dependencies]`.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            names.push(line.split(['.', '=', ' ']).next().unwrap().to_owned());
        }
    }
    names
}

fn wrong_dependency(folder: &str, manifest: &str) -> Option<String> {
    let (_, allowed) = CRATES.iter().find(|(name, _)| *name == folder)?;
    dependencies(manifest).into_iter().find(|d| {
        (d.starts_with("heapwright") && !allowed.contains(&d.as_str()))
            || (matches!(d.as_str(), "libc" | "rustix" | "nix") && !SAY_LIBC.contains(&folder))
    })
}

/// The first use in `text`, a file of `module`, of a module that does not stand before it.
fn wrong_use(module: &str, text: &str) -> Option<String> {
    let rank = |name: &str| MODULES.iter().position(|m| *m == name);
    let own = rank(module).unwrap_or_else(|| panic!("module {module} has no place in the list"));
    let code = text
        .lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => list
                .split('}')
                .next()
                .unwrap()
                .split(',')
                .map(str::trim)
                .collect(),
            None => vec![rest],
        };
        for name in names {
            let name: String = name
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if rank(&name).is_some_and(|r| r > own) {
                return Some(name);
            }
        }
    }
    None
}

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

#[test]
fn crates_depend_only_downwards() {
    let mut seen = 0;
    for entry in fs::read_dir(workspace().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(
            CRATES.iter().any(|(n, _)| *n == name),
            "crate {name} has no place in the list"
        );
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert_eq!(
            wrong_dependency(&name, &manifest),
            None,
            "in crates/{name}/Cargo.toml"
        );
        seen += 1;
    }
    assert_eq!(seen, CRATES.len());
}

#[test]
fn modules_of_the_core_use_only_what_is_before_them() {
    let source = workspace().join("crates/core/src");
    let mut found = Vec::new();
    files(&source, &mut found);
    assert!(found.len() > 15);
    for path in found {
        let relative = path.strip_prefix(&source).unwrap();
        if relative == Path::new("lib.rs") {
            continue;
        }
        let module = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(wrong_use(module, &text), None, "in {}", relative.display());
        if module == "plan" {
            assert!(
                text.contains("#![forbid(unsafe_code)]"),
                "in {}",
                relative.display()
            );
        }
    }
}

#[test]
fn the_checks_find_what_is_wrong() {
    assert_eq!(
        wrong_dependency("memory", "[dependencies]\nheapwright-work.workspace = true"),
        Some("heapwright-work".into())
    );
    assert_eq!(
        wrong_dependency("core", "[dependencies]\nlibc = \"0.2\""),
        Some("libc".into())
    );
    assert_eq!(
        wrong_dependency("core", "[dependencies]\n[dev-dependencies]\nlibc = \"0.2\""),
        None
    );
    assert_eq!(
        wrong_use("space", "use crate::heap::WordHeap;"),
        Some("heap".into())
    );
    assert_eq!(
        wrong_use("alloc", "use crate::{error::X, plan::Y};"),
        Some("plan".into())
    );
    assert_eq!(
        wrong_use("heap", "// crate::nothing\nuse crate::plan::Y;"),
        None
    );
    assert_eq!(
        wrong_use("error", "// crate::heap is fine in a comment"),
        None
    );
}
