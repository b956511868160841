//! The tests that pages of semantics name beside their sentences are there.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;

/// The tests that a page names as `` `file::test` ``.
fn named(page: &str) -> Vec<(String, String)> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|name| {
            let (file, test) = name.split_once("::")?;
            let plain =
                |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            (plain(file) && plain(test) && file != "heapwright_os")
                .then(|| (file.to_owned(), test.to_owned()))
        })
        .collect()
}

#[test]
fn each_test_that_the_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../../docs/embedding.md")).unwrap();
    let named = named(&page);
    assert!(named.len() >= 20, "{}", named.len());
    for (file, test) in named {
        let text = fs::read_to_string(root.join(format!("tests/{file}.rs"))).unwrap_or_default();
        assert!(
            text.contains(&format!("#[test]\nfn {test}()")),
            "docs/embedding.md names {file}::{test}, which is not there"
        );
    }
}

#[test]
fn a_name_that_is_wrong_is_found() {
    assert_eq!(
        named("as `fork::gone` says, `Vm::roots`, `heapwright_os::at_fork`, and `max`"),
        [("fork".to_owned(), "gone".to_owned())]
    );
}
