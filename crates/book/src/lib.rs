//! The book: the pages in `docs/`, whose first page is `docs/introduction.md`.
//!
//! `cargo run -p heapwright-book` builds it into `target/book`. The page of the options is made from the one table of options
//! ([`options_page`]), and a test of this crate says so when it is not. Rust code on the pages that explain is run as tests of this
//! crate's documentation; code that is included comes from files that are tested where they are.

use core::fmt::Write;
use heapwright::options::{ENV_PREFIX, TABLE};
use mdbook_driver::MDBook;
use std::path::{Path, PathBuf};

/// The directory of the project.
#[must_use]
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Builds the book into a directory.
///
/// # Errors
/// What mdBook says: a chapter or an included file that is not there, a directory that cannot be written.
pub fn build(into: &Path) -> Result<(), Box<dyn core::error::Error>> {
    let mut book = MDBook::load(project())?;
    book.config.build.build_dir = into.to_owned();
    book.build()?;
    Ok(())
}

/// The page that lists the options.
#[must_use]
pub fn options_page() -> String {
    let mut page = String::from(
        "# Options\n\n\
         This page is made from the one table of options (`crates/core/src/options.rs`); `heapwright options` prints the same.\n\n\
         An option is set in code by `Options::set(name, value)`, by its field, by `--option name=value` of `heapwright run` and \
         `heapwright bench`, and by an environment variable. The command line wins over the environment. What does not exist, or \
         has a wrong value, is refused with a sentence that says what there is.\n\n\
         | option | environment | default | values | meaning |\n|---|---|---|---|---|\n",
    );
    for row in TABLE {
        let cell = |text: &str| text.replace('|', "\\|");
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | `{ENV_PREFIX}{}` | `{}` | {} | {} |",
            row.name,
            row.name.to_uppercase(),
            row.default,
            cell(row.unit),
            cell(row.meaning)
        );
    }
    page
}

/// Rust code on the pages: each block is a test.
#[cfg(doctest)]
macro_rules! tested {
    ($($name:ident = $file:literal),*) => {
        $(#[doc = include_str!(concat!("../../../docs/", $file))] mod $name {})*
    };
}

#[cfg(doctest)]
tested!(
    introduction = "introduction.md",
    bind_a_vm = "bind-a-vm.md",
    write_a_plan = "write-a-plan.md",
    tuning = "tuning.md",
    debugging = "debugging.md",
    for_mmtk_users = "for-mmtk-users.md"
);
