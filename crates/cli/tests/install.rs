//! `heapwright install` and `uninstall` from outside, with the library that cargo built.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod fixtures;

use fixtures::{check_refused, clean, err, out};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = r#"
#include <stddef.h>
#include <stdio.h>
extern void *GC_malloc(size_t);
extern unsigned GC_get_version(void);
int main(void) {
  char *text = GC_malloc(100);
  puts(text[99] == 0 && GC_get_version() >> 16 == 8 ? "ran" : "wrong");
  return 0;
}
"#;

/// A prefix of the test's own, which does not exist yet.
fn prefix(name: &str) -> PathBuf {
    let prefix = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("install-{name}"));
    let _ = fs::remove_dir_all(&prefix);
    prefix
}

/// The flags of the installed file for pkg-config, with its variables replaced.
fn flags(prefix: &Path) -> Vec<String> {
    let text = fs::read_to_string(prefix.join("lib/heapwright/pkgconfig/bdw-gc.pc")).unwrap();
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut flags = Vec::new();
    for line in text.lines() {
        let mut line = line.to_owned();
        for (name, value) in &variables {
            line = line.replace(&format!("${{{name}}}"), value);
        }
        if let Some(libs) = line.strip_prefix("Libs: ") {
            flags = libs.split_whitespace().map(str::to_owned).collect();
        } else if let Some((name, value)) = line.split_once('=') {
            variables.push((name.to_owned(), value.to_owned()));
        }
    }
    flags
}

#[test]
fn what_is_installed_runs_builds_and_goes_away_again() {
    let prefix = prefix("whole");
    let shown = prefix.to_str().unwrap();
    for _ in 0..2 {
        // The second time over the first.
        let done = clean()
            .args(["install", "--prefix", shown])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", err(&done));
        assert!(out(&done).contains("LD_LIBRARY_PATH="));
    }
    let source = prefix.join("program.c");
    fs::write(&source, PROGRAM).unwrap();
    let program = prefix.join("program");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let built = Command::new(compiler)
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .args(flags(&prefix))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", err(&built));
    let alone = Command::new(&program).output().unwrap();
    assert_eq!(out(&alone), "ran\n");
    // By the installed command, which finds the installed library.
    let run = Command::new(prefix.join("bin/heapwright"))
        .args(["run", "--summary", "--"])
        .arg(&program)
        .output()
        .unwrap();
    assert_eq!(out(&run), "ran\n");
    assert!(err(&run).contains("marksweep"), "{}", err(&run));

    fs::remove_file(&program).unwrap();
    fs::remove_file(&source).unwrap();
    // What was built for C is there, too, and the example runs on it.
    let for_c = prefix.join("lib/pkgconfig/heapwright.pc").exists();
    if for_c {
        c_example(&prefix);
    }
    let gone = clean()
        .args(["uninstall", "--json", "--prefix", shown])
        .output()
        .unwrap();
    let report: Value = serde_json::from_str(&out(&gone)).unwrap();
    assert_eq!(
        report["files"].as_array().unwrap().len(),
        if for_c { 9 } else { 4 }
    );
    assert_eq!(fs::read_dir(&prefix).unwrap().count(), 0);
    check_refused(
        &clean()
            .args(["uninstall", "--prefix", shown])
            .output()
            .unwrap(),
        125,
        &["nothing of Heapwright is installed"],
    );
}

/// Builds the example of the C interface with the installed header and library, as pkg-config's file says, and runs it.
fn c_example(prefix: &Path) {
    let text = fs::read_to_string(prefix.join("lib/pkgconfig/heapwright.pc")).unwrap();
    let at = |name: &str| prefix.join(name).display().to_string();
    let wanted = text
        .lines()
        .filter(|l| l.starts_with("Libs:") || l.starts_with("Cflags:"))
        .flat_map(|l| l.split_whitespace().skip(1))
        .map(|w| {
            w.replace("${libdir}", &at("lib"))
                .replace("${includedir}", &at("include"))
        });
    let program = prefix.join("lisp");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../capi/examples/lisp.c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let built = Command::new(compiler)
        .arg("-o")
        .arg(&program)
        .arg(source)
        .args(wanted.collect::<Vec<_>>())
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", err(&built));
    let done = Command::new(&program).output().unwrap();
    assert!(out(&done).contains("2: 125250"));
    fs::remove_file(&program).unwrap();
}

#[test]
fn the_report_is_json_where_asked_for() {
    let prefix = prefix("json");
    let done = clean()
        .args(["install", "--json", "--prefix", prefix.to_str().unwrap()])
        .output()
        .unwrap();
    let report: Value = serde_json::from_str(&out(&done)).unwrap();
    for file in report["files"].as_array().unwrap() {
        assert!(fs::exists(file.as_str().unwrap()).unwrap(), "{file}");
    }
    let again = flags(&prefix).join(" ");
    assert!(again.contains("-lgc") && again.contains("lib/heapwright"));
}

#[test]
fn a_prefix_that_cannot_be_is_refused() {
    let file = prefix("file");
    fs::write(&file, "").unwrap();
    for (prefix, status, words) in [
        (file.to_str().unwrap(), 2, "that is a file"),
        ("/proc/no such", 2, "without spaces"),
        ("/proc/heapwright", 125, "cannot write /proc/heapwright"),
    ] {
        let done = clean()
            .args(["install", "--prefix", prefix])
            .output()
            .unwrap();
        check_refused(&done, status, &[words]);
    }
}
