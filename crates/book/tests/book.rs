//! The book builds, its links lead somewhere, and the page of the options is that of the table.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use heapwright_book::{build, options_page, project};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// All pages of the project.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![project()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let hidden = name.starts_with('.') && name != ".ci";
            if path.is_dir() && !hidden && name != "target" && name != "node_modules" {
                folders.push(path);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() > 10);
    found
}

/// The anchor that a heading gets: as mdBook and code hosts make it.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// The destinations of a page's links and pictures, and the anchors of its headings.
fn links_and_anchors(text: &str) -> (Vec<String>, BTreeSet<String>) {
    let (mut links, mut anchors) = (Vec::new(), BTreeSet::new());
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                links.push(dest_url.into_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                if let Some(h) = heading.take() {
                    anchors.insert(anchor(&h));
                }
            }
            Event::Text(t) | Event::Code(t) => {
                if let Some(h) = &mut heading {
                    h.push_str(&t);
                }
            }
            _ => {}
        }
    }
    (links, anchors)
}

#[test]
fn it_builds_and_every_page_is_in_it() {
    let into = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("book");
    let _ = fs::remove_dir_all(&into);
    build(&into).unwrap();
    assert!(into.join("index.html").is_file());
    let contents = fs::read_to_string(project().join("docs/SUMMARY.md")).unwrap();
    for page in fs::read_dir(project().join("docs")).unwrap() {
        let name = page.unwrap().file_name().into_string().unwrap();
        let Some(stem) = name.strip_suffix(".md").filter(|s| *s != "SUMMARY") else {
            continue;
        };
        assert!(
            contents.contains(&format!("({name})")),
            "{name} is not in SUMMARY.md"
        );
        let html = fs::read_to_string(into.join(format!("{stem}.html"))).unwrap();
        // An include that was not found stays as it was written.
        assert!(!html.contains("{{#"), "{name}: an include is left");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links_and_anchors(&text).0 {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, place) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            let is_there = target.exists()
                && (place.is_empty() || target.extension().is_none_or(|e| e != "md") || {
                    let text = fs::read_to_string(&target).unwrap();
                    links_and_anchors(&text).1.contains(place)
                });
            if !is_there {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `HEAPWRIGHT_BLESS=1 cargo test -p heapwright-book` writes the page anew.
#[test]
fn the_page_of_options_is_that_of_the_table() {
    let file = project().join("docs/options.md");
    if std::env::var_os("HEAPWRIGHT_BLESS").is_some() {
        fs::write(&file, options_page()).unwrap();
    }
    let page = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        page == options_page(),
        "docs/options.md is not that of the table: HEAPWRIGHT_BLESS=1 cargo test -p heapwright-book writes it"
    );
}

/// Is that a file of the project? Named from the root, from `crates`, from a crate without its `src`, or from the core's `src`.
fn is_file_of_ours(name: &str) -> bool {
    let crates = project().join("crates");
    let in_crate = name
        .split_once('/')
        .is_some_and(|(krate, rest)| crates.join(krate).join("src").join(rest).is_file());
    in_crate
        || [project(), crates.clone(), crates.join("core/src")]
            .iter()
            .any(|from| from.join(name).is_file())
}

/// The sources that pages name are there.
#[test]
fn files_that_the_pages_name_exist() {
    let (mut wrong, mut names) = (Vec::new(), 0);
    let docs = project().join("docs");
    let top = ["README.md", "ARCHITECTURE.md"].map(|name| project().join(name));
    for page in pages()
        .into_iter()
        .filter(|p| p.starts_with(&docs) || top.contains(p))
    {
        let text = fs::read_to_string(&page).unwrap();
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            let Event::Code(code) = event else { continue };
            if code.contains([' ', '*', '<', '{']) {
                continue;
            }
            let in_project = ["crates/", "ci/", "programs/", "peers/"]
                .iter()
                .any(|p| code.starts_with(p));
            // A heading of that page is a file of MMTk's.
            let is_source =
                code.ends_with(".rs") && code.len() > 3 && &*code != "memory_manager.rs";
            names += usize::from(in_project || is_source);
            let is_there = match (in_project, is_source) {
                (true, _) => project().join(Path::new(&*code)).exists(),
                (_, true) => is_file_of_ours(&code),
                _ => true,
            };
            if !is_there {
                wrong.push(format!("{}: {code}", page.display()));
            }
        }
    }
    assert!(names > 100, "{names}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_file_is_found_by_each_of_its_names_and_no_other() {
    for name in [
        "crates/core/src/plan/immix.rs",
        "core/src/plan/immix.rs",
        "core/plan/immix.rs",
        "plan/immix.rs",
        "bugs.rs",
        "os/machine.rs",
    ] {
        assert!(is_file_of_ours(name), "{name}");
    }
    for name in ["immix.rs", "machine.rs", "plan/immx.rs", "os/immix.rs"] {
        assert!(!is_file_of_ours(name), "{name}");
    }
}

/// All sources of crates, one after the other.
fn sources(folders: &[&str]) -> String {
    let mut text = String::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|f| project().join(f)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                text += &fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

/// Is there something of that kind and exactly that name?
fn defines(sources: &str, kinds: &[&str], name: &str) -> bool {
    kinds.iter().any(|kind| {
        let wanted = format!("{kind}{name}");
        sources.match_indices(&wanted).any(|(at, found)| {
            let after = sources[at + found.len()..].chars().next();
            after.is_none_or(|c| !c.is_alphanumeric() && c != '_')
        })
    })
}

/// What ARCHITECTURE.md calls `Type::function` is there.
#[test]
fn functions_that_the_architecture_names_exist() {
    let sources = sources(&["crates"]);
    let page = fs::read_to_string(project().join("ARCHITECTURE.md")).unwrap();
    let (mut wrong, mut names) = (Vec::new(), 0);
    for event in Parser::new_ext(&page, Options::ENABLE_TABLES) {
        let Event::Code(code) = event else { continue };
        let Some((of, what)) = code.split_once("::") else {
            continue;
        };
        names += 1;
        let of_ours = defines(&sources, &["struct ", "enum ", "trait "], of);
        let is_there = defines(&sources, &["fn ", "const "], what)
            || sources.contains(&format!("    {what},\n"));
        if !(of_ours && is_there) {
            wrong.push(code.to_string());
        }
    }
    assert!(names > 15, "{names}");
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// What a runtime calls or implements of MMTk has a row in the page for its users. The list is of mmtk-core 0.33:
/// `memory_manager.rs`, `MMTK`, `MMTKBuilder`, `Mutator`, `MutatorContext`, the traits of `vm`, `ObjectReference`, and the options.
#[test]
fn every_function_of_mmtks_interface_has_a_row() {
    let page = fs::read_to_string(project().join("docs/for-mmtk-users.md")).unwrap();
    let rows: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|row| row.split('|').next())
        .flat_map(|left| left.split('`').skip(1).step_by(2))
        .flat_map(|name| name.split("::"))
        .collect();
    let list = include_str!("mmtk_0_33.txt");
    let names: Vec<&str> = list.lines().filter(|l| !l.starts_with('#')).collect();
    assert!(names.len() > 200, "{}", names.len());
    let missing: Vec<&&str> = names.iter().filter(|n| !rows.contains(**n)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Whatever the page for users of MMTk says we have is there.
#[test]
fn what_mmtks_functions_map_to_exists() {
    let page = fs::read_to_string(project().join("docs/for-mmtk-users.md")).unwrap();
    let sources = sources(&["crates/core/src", "crates/address/src"]);
    let (mut wrong, mut names) = (Vec::new(), 0);
    for row in page
        .lines()
        .filter(|l| l.starts_with("| ") && !l.starts_with("|---"))
    {
        let ours = row.rsplit('|').nth(1).unwrap();
        // What stands between pairs of backticks.
        for name in ours.split('`').skip(1).step_by(2) {
            for part in name.split("::") {
                names += 1;
                let kinds = ["fn ", "struct ", "trait ", "enum ", "const ", "type "];
                let is_there = defines(&sources, &kinds, part)
                    || sources.contains(&format!("    {part},\n"))
                    || sources.contains(&format!("    {part} {{\n"))
                    || sources.contains(&format!("name: \"{part}\""))
                    || sources.contains(&format!("\"{part}\""))
                    || project()
                        .join("crates")
                        .join(part.trim_start_matches("heapwright-"))
                        .is_dir();
                if !is_there {
                    wrong.push(format!("{name} in {row}"));
                }
            }
        }
    }
    assert!(names > 80, "{names}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
