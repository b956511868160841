//! `heapwright.h` is what cbindgen makes of this crate.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;

/// Set to write the header instead of comparing it.
const VARIABLE: &str = "HEAPWRIGHT_WRITE_HEADER";

#[test]
fn the_header_is_up_to_date() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(crate_dir.join(file)).unwrap();
    let config = cbindgen::Config::from_file(crate_dir.join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in ["status", "table", "heap", "mutator", "references"] {
        builder = builder.with_src(crate_dir.join(format!("src/{file}.rs")));
    }
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = String::from_utf8(made).unwrap();
    // The inline part goes inside of the include guard.
    let end = made.rfind("#endif").unwrap();
    let made = format!(
        "{}{}\n{}",
        &made[..end],
        read("include/inline.h"),
        &made[end..]
    );
    let file = crate_dir.join("include/heapwright.h");
    if std::env::var_os(VARIABLE).is_some() {
        std::fs::write(&file, &made).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).is_ok_and(|old| old == made),
        "include/heapwright.h is not what cbindgen makes: {VARIABLE}=1 cargo test -p heapwright-capi --test header"
    );
}
