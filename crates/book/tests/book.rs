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

/// The sources that pages name are there.
#[test]
fn files_that_the_pages_name_exist() {
    let mut wrong = Vec::new();
    for page in pages()
        .into_iter()
        .filter(|p| p.starts_with(project().join("docs")))
    {
        let text = fs::read_to_string(&page).unwrap();
        for event in Parser::new(&text) {
            let Event::Code(code) = event else { continue };
            let is_path = ["crates/", "ci/", "programs/", "peers/"]
                .iter()
                .any(|p| code.starts_with(p))
                && !code.contains([' ', '*', '<', '{']);
            if is_path && !project().join(Path::new(&*code)).exists() {
                wrong.push(format!("{}: {code}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whatever the page for users of MMTk says we have is there.
#[test]
fn what_mmtks_functions_map_to_exists() {
    let page = fs::read_to_string(project().join("docs/for-mmtk-users.md")).unwrap();
    let mut sources = String::new();
    let mut folders = vec![project().join("crates/core/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
    }
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
                let is_there = ["fn ", "struct ", "trait ", "enum ", "const ", "type "]
                    .iter()
                    .any(|kind| {
                        sources
                            .match_indices(&format!("{kind}{part}"))
                            .any(|(at, found)| {
                                let after = sources[at + found.len()..].chars().next();
                                after.is_none_or(|c| !c.is_alphanumeric() && c != '_')
                            })
                    })
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
