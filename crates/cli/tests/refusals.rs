//! What `heapwright` refuses, with which status, and that it says what would help.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod fixtures;

use fixtures::{COMMAND, Fixtures, check_refused, clean, out};
use std::fs;
use std::process::Command;

#[test]
fn wrong_options_say_what_is_allowed() {
    let f = Fixtures::get();
    let p = f.path("program");
    for (option, value, word) in [
        ("--plan", "best", "marksweep"),
        ("--heap", "big", "64k"),
        ("--max", "-", "64k"),
        ("--workers", "0", "1 to 64"),
        ("--stress", "often", "whole number"),
        ("--option", "growth", "NAME=VALUE"),
        ("--option", "grow=1", "growth"),
    ] {
        f.refused(&[option, value, &p], 2, &[word]);
    }
    f.refused(&["--no-such", &p], 2, &["--no-such", "Usage"]);
    f.refused::<&str>(&[], 2, &["PROGRAM"]);
    let environment = f
        .command()
        .env("HEAPWRIGHT_WORKERS", "many")
        .arg(&p)
        .output()
        .unwrap();
    check_refused(&environment, 2, &["HEAPWRIGHT_WORKERS", "1 to 64"]);
    let environment = f
        .command()
        .env("HEAPWRIGHT_PLAN", "immix")
        .arg(&p)
        .output()
        .unwrap();
    check_refused(&environment, 2, &["HEAPWRIGHT_PLAN", "nogc, marksweep"]);
    let environment = f
        .command()
        .env("HEAPWRIGHT_WORKER", "2")
        .arg(&p)
        .output()
        .unwrap();
    check_refused(&environment, 2, &["HEAPWRIGHT_WORKER", "workers"]);
}

#[test]
fn help_and_the_table_are_there() {
    let help = out(&clean().arg("--help").output().unwrap());
    assert!(help.contains("Examples:") && help.contains("guile"));
    let help = out(&clean().args(["run", "--help"]).output().unwrap());
    assert!(help.contains("Exit status") && help.contains("--stress"));
    let table = out(&clean().arg("options").output().unwrap());
    assert!(table.contains("workers") && table.contains("HEAPWRIGHT_MAX"));
    let json = out(&clean().args(["options", "--json"]).output().unwrap());
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(
        rows.as_array()
            .unwrap()
            .iter()
            .any(|r| r["variable"] == "HEAPWRIGHT_PLAN" && r["default"] == "marksweep")
    );
}

#[test]
fn refuses_what_is_not_there_or_not_executable() {
    let f = Fixtures::get();
    f.refused(&["no-such-program"], 127, &["no-such-program", "PATH"]);
    f.refused(&["/no/such/program"], 127, &["/no/such/program"]);
    f.refused(&[""], 127, &["empty"]);
    f.refused(&[&f.path("bare")], 126, &["directory"]);
    f.refused(&["/dev/null"], 126, &["regular"]);
    f.refused(
        &[&f.executable("plain", b"x", 0o644)],
        126,
        &["not executable", "chmod"],
    );
    f.refused(&[&f.executable("text", b"x", 0o755)], 126, &["neither"]);
    f.refused(&[&f.executable("nothing", b"", 0o755)], 126, &["neither"]);
    let here = f
        .command()
        .current_dir(&f.dir)
        .env("PATH", "/nowhere")
        .arg("program")
        .output()
        .unwrap();
    check_refused(&here, 127, &["./program"]);
}

#[test]
fn refuses_set_uid_and_set_gid() {
    let f = Fixtures::get();
    let image = fs::read(f.path("program")).unwrap();
    f.refused(
        &[&f.executable("set-uid", &image, 0o4755)],
        126,
        &["set-uid", "loader"],
    );
    f.refused(
        &[&f.executable("set-gid", &image, 0o2755)],
        126,
        &["set-gid"],
    );
    f.refused(
        &["--force", &f.executable("set-uid-2", &image, 0o4755)],
        126,
        &["set-uid"],
    );
    let script = f.executable(
        "set-uid-script",
        format!("#!{} name\n", f.path("set-uid")).as_bytes(),
        0o755,
    );
    f.refused(&[script], 126, &["set-uid"]);
}

#[test]
#[allow(clippy::print_stdout, reason = "says that it was skipped")]
fn refuses_files_with_capabilities() {
    let f = Fixtures::get();
    let image = fs::read(f.path("program")).unwrap();
    let program = f.executable("capable", &image, 0o755);
    // Version 2 of the attribute, with CAP_NET_BIND_SERVICE permitted and effective.
    let value = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if let Err(e) = xattr::set(&program, "security.capability", &value) {
        // Only root may, and not on every file system.
        println!("skipped: {e}");
        return;
    }
    f.refused(&[program], 126, &["capabilities", "loader"]);
}

#[test]
fn refuses_static_foreign_and_damaged_binaries() {
    let f = Fixtures::get();
    fs::write(f.path("static.c"), "int main(void) { return 0; }").unwrap();
    f.cc(&["-static", "-o", "static", "static.c"]);
    f.refused(&[f.path("static")], 126, &["statically linked"]);
    f.cc(&["-static-pie", "-fPIE", "-o", "static-pie", "static.c"]);
    f.refused(
        &["--force", &f.path("static-pie")],
        126,
        &["statically linked"],
    );
    let image = fs::read(f.path("program")).unwrap();
    let mut foreign = image.clone();
    foreign[18] = 22;
    f.refused(
        &[f.executable("foreign", &foreign, 0o755)],
        126,
        &["s390", "libgc.so.1"],
    );
    f.refused(
        &[f.executable("cut", &image[..100], 0o755)],
        126,
        &["damaged"],
    );
}

#[test]
fn refuses_a_program_without_libgc_unless_forced() {
    let f = Fixtures::get();
    f.refused(&["/bin/true"], 126, &["does not use libgc", "--force"]);
    assert_eq!(out(&f.run(&["--force", "/bin/true"])), "");
    fs::write(
        f.path("unknown.c"),
        "int f(void); int main(void) { return f(); }",
    )
    .unwrap();
    fs::write(f.path("gone.c"), "int f(void) { return 0; }").unwrap();
    f.cc(&["-shared", "-fPIC", "-o", "libgone.so", "gone.c"]);
    f.cc(&[
        "-o",
        "unknown",
        "unknown.c",
        "libgone.so",
        "-Wl,-soname,x",
        "-L.",
        "-Wl,-rpath,/nowhere",
    ]);
    let done = f
        .command()
        .current_dir("/")
        .arg(f.path("unknown"))
        .output()
        .unwrap();
    check_refused(&done, 126, &["libgone.so"]);
}

#[test]
fn the_library_is_looked_for_and_its_absence_said() {
    let f = Fixtures::get();
    let p = f.path("program");
    let with = |lib: &str| {
        clean()
            .env("HEAPWRIGHT_LIB", lib)
            .args(["run", &p])
            .output()
            .unwrap()
    };
    check_refused(
        &with("/no/such/libgc.so"),
        125,
        &["HEAPWRIGHT_LIB=/no/such/libgc.so"],
    );
    check_refused(&with("/etc/passwd"), 125, &["/etc/passwd"]);
    check_refused(&with(&p), 125, &["calls itself nothing"]);
    assert_eq!(out(&with(&f.path("ours"))), "ours\n");
    // A copy of the command with nothing beside it, then with an installed library.
    fs::create_dir_all(f.path("prefix/bin")).unwrap();
    fs::create_dir_all(f.path("prefix/lib/heapwright")).unwrap();
    let copy = f.path("prefix/bin/heapwright");
    assert!(
        Command::new("cp")
            .arg(COMMAND)
            .arg(&copy)
            .status()
            .unwrap()
            .success()
    );
    let moved = || {
        Command::new(&copy)
            .env_remove("HEAPWRIGHT_LIB")
            .args(["run", &p])
            .output()
            .unwrap()
    };
    check_refused(&moved(), 125, &["lib/heapwright", "HEAPWRIGHT_LIB"]);
    fs::copy(
        f.path("ours/libgc.so.1"),
        f.path("prefix/lib/heapwright/libgc.so.1"),
    )
    .unwrap();
    assert_eq!(out(&moved()), "ours\n");
}
