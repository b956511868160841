//! The tests that pages of semantics name beside their sentences are there.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;

/// A test that a page names as `` `file::test` ``, or `` `signals::file::test` `` where it is that crate's.
type Named = (Option<&'static str>, String, String);

fn named(page: &str) -> Vec<Named> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|name| {
            let (folder, name) = match name.strip_prefix("signals::") {
                Some(rest) => (Some("signals"), rest),
                None => (None, name),
            };
            let (file, test) = name.split_once("::")?;
            let plain =
                |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            (plain(file) && plain(test) && file != "heapwright_os")
                .then(|| (folder, file.to_owned(), test.to_owned()))
        })
        .collect()
}

#[test]
fn each_test_that_the_page_names_is_there() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(crates.join("../docs/embedding.md")).unwrap();
    let named = named(&page);
    assert!(named.len() >= 20, "{}", named.len());
    for (folder, file, test) in named {
        let is_in = |folder: &str| {
            let text = fs::read_to_string(crates.join(format!("{folder}/tests/{file}.rs")));
            let wanted = format!("#[test]\nfn {test}()");
            text.is_ok_and(|text| text.contains(&wanted))
        };
        let there = folder.map_or_else(|| is_in("core") || is_in("signals"), is_in);
        assert!(
            there,
            "docs/embedding.md names {file}::{test}, which is not there"
        );
    }
}

#[test]
fn a_name_that_is_wrong_is_found() {
    assert_eq!(
        named(
            "as `fork::gone` says, `signals::threads`, `signals::a::b`, `Vm::roots`, `heapwright_os::at_fork`, and `max`"
        ),
        [
            (None, "fork".to_owned(), "gone".to_owned()),
            (Some("signals"), "a".to_owned(), "b".to_owned())
        ]
    );
}
