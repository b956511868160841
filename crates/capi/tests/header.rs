//! `heapwright.h` is what cbindgen makes of the sources, and C and C++ compilers take it without a word.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The header, made anew.
fn made() -> String {
    let mut config = cbindgen::Config::from_file(folder().join("cbindgen.toml")).unwrap();
    config.trailer = Some(fs::read_to_string(folder().join("include/fast_path.h")).unwrap());
    let bindings = cbindgen::Builder::new()
        .with_crate(folder())
        .with_config(config)
        .generate()
        .unwrap();
    let mut out = Vec::new();
    bindings.write(&mut out);
    // Names of Rust's documentation mean nothing in C.
    let text = String::from_utf8(out).unwrap();
    let is_link = |line: &str| line.trim_start().starts_with("[`") && line.contains("`]: ");
    let lines: Vec<&str> = text.lines().filter(|line| !is_link(line)).collect();
    // An empty line before links that are gone.
    (lines.join("\n") + "\n")
        .replace("\n\n */", "\n */")
        .replace("[`", "")
        .replace("`](crate::hw_external_allocated)", "")
        .replace("`]", "")
        .replace('`', "")
}

/// `HEAPWRIGHT_BLESS=1 cargo test -p heapwright-capi --test header` writes it anew.
#[test]
fn the_header_is_that_of_the_sources() {
    let file = folder().join("include/heapwright.h");
    let made = made();
    if std::env::var_os("HEAPWRIGHT_BLESS").is_some() {
        fs::write(&file, &made).unwrap();
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == made,
        "include/heapwright.h is not that of the sources: HEAPWRIGHT_BLESS=1 cargo test -p heapwright-capi --test header writes it"
    );
}

#[test]
fn compilers_take_it_without_a_word() {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let source = out.join("includes.c");
    fs::write(
        &source,
        "#include \"heapwright.h\"\nint main(void) { return 0; }\n",
    )
    .unwrap();
    for (compiler, language) in [
        ("gcc", "-std=c11"),
        ("gcc", "-std=c17"),
        ("g++", "-std=c++17"),
    ] {
        let kind = if compiler == "g++" { "c++" } else { "c" };
        let done = Command::new(compiler)
            .args([
                language,
                "-Wall",
                "-Wextra",
                "-Wpedantic",
                "-Werror",
                "-O2",
                "-c",
                "-x",
                kind,
            ])
            .arg("-I")
            .arg(folder().join("include"))
            .arg("-o")
            .arg(out.join(format!("includes-{kind}{language}.o")))
            .arg(&source)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success() && said.is_empty(),
            "{compiler} {language}: {said}"
        );
    }
}
