//! The C interface from C: installed by its script, compiled by gcc against the shared and the static library, and run.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const LISP: &str = "\
semispace  #<closure fib>
semispace  #<closure range>
semispace  6765
semispace  (12 11 10 9 8 7 6 5 4 3 2 1)
semispace  (1 #<closure fib>)
semispace  names before: 2
semispace  names after: 0
semispace  collected: more than once
genimmix   #<closure fib>
genimmix   #<closure range>
genimmix   6765
genimmix   (12 11 10 9 8 7 6 5 4 3 2 1)
genimmix   (1 #<closure fib>)
genimmix   names before: 2
genimmix   names after: 0
genimmix   collected: more than once
";

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn done(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The archive that cargo built with this test: beside it, with a hash in its name.
fn archive() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let built = exe.parent().unwrap().read_dir().unwrap();
    built
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("libheapwright_capi") && name.ends_with(".a")
        })
        .max_by_key(|path| path.metadata().unwrap().modified().unwrap())
        .expect("cargo builds the archive")
}

/// Where the interface is installed, once for all tests.
fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("capi");
        let _ = std::fs::remove_dir_all(&prefix);
        done(
            Command::new("bash")
                .arg(here("install.sh"))
                .args(["--prefix", prefix.to_str().unwrap()])
                .arg("--archive")
                .arg(archive()),
        );
        prefix
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Library {
    Shared,
    Static,
}

/// Compiles a program with all warnings as errors.
fn compile(source: &str, name: &str, library: Library) -> PathBuf {
    let lib = prefix().join("lib");
    let program = prefix().join(name);
    let mut gcc = Command::new("gcc");
    gcc.args([
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
        "-O2",
        "-g",
    ])
    .arg(here(source))
    .arg("-o")
    .arg(&program);
    match library {
        Library::Shared => {
            // As a program's build would ask for them.
            let flags = done(
                Command::new("pkg-config")
                    .env("PKG_CONFIG_PATH", lib.join("pkgconfig"))
                    .args(["--cflags", "--libs", "heapwright"]),
            );
            gcc.args(text(&flags.stdout).split_whitespace())
                .arg(format!("-Wl,-rpath,{}", lib.display()))
                .arg("-lpthread");
        }
        Library::Static => {
            gcc.arg("-I")
                .arg(prefix().join("include"))
                .arg(lib.join("libheapwright.a"))
                .args(["-lgcc_s", "-lpthread", "-ldl", "-lm"]);
        }
    }
    done(&mut gcc);
    program
}

#[test]
fn the_lisp_runs_on_two_heaps_with_either_library() {
    for (library, name) in [(Library::Shared, "lisp"), (Library::Static, "lisp-static")] {
        let program = compile("examples/lisp.c", name, library);
        let output = done(&mut Command::new(program));
        assert_eq!(text(&output.stdout), LISP);
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn the_lisp_is_small() {
    let source = std::fs::read_to_string(here("examples/lisp.c")).unwrap();
    assert!(source.lines().count() < 300);
}

#[test]
fn bad_input_has_defined_answers_and_all_plans_work() {
    for (library, name) in [(Library::Shared, "bad"), (Library::Static, "bad-static")] {
        let program = compile("tests/bad_input.c", name, library);
        let output = done(&mut Command::new(program));
        assert_eq!(text(&output.stdout), "ok\n");
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn valgrind_finds_no_error_and_no_leak_in_the_lisp() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        // ci/install.sh installs it where that is allowed.
        return;
    }
    let program = compile("examples/lisp.c", "lisp-valgrind", Library::Shared);
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["-q", "--error-exitcode=9", "--leak-check=full"])
        .args(["--errors-for-leak-kinds=definite"])
        .arg(program)
        .arg("8");
    let output = done(&mut valgrind);
    assert!(text(&output.stdout).contains("names after: 0"));
}

#[test]
fn the_header_is_good_c11_and_cpp17() {
    let source = prefix().join("only.c");
    std::fs::write(
        &source,
        "#include <heapwright.h>\nint main(void) { return 0; }\n",
    )
    .unwrap();
    for (compiler, language, standard) in [("gcc", "c", "c11"), ("g++", "c++", "c++17")] {
        done(
            Command::new(compiler)
                .args(["-x", language, &format!("-std={standard}"), "-fsyntax-only"])
                .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
                .arg(prefix().join("include"))
                .arg(&source),
        );
    }
}

/// Each symbol that the library shows, with its version.
fn symbols() -> Vec<String> {
    let library = prefix().join("lib/libheapwright.so");
    let nm = done(
        Command::new("nm")
            .args(["-D", "--defined-only"])
            .arg(library),
    );
    text(&nm.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2).map(str::to_owned))
        .filter(|symbol| symbol != "HEAPWRIGHT_0.1")
        .collect()
}

#[test]
fn only_functions_of_the_header_are_visible_and_all_have_a_version() {
    let header = std::fs::read_to_string(here("include/heapwright.h")).unwrap();
    let symbols = symbols();
    for symbol in &symbols {
        let name = symbol.strip_suffix("@@HEAPWRIGHT_0.1");
        assert!(
            name.is_some_and(|n| header.contains(&format!("{n}("))),
            "{symbol}"
        );
    }
    let source = ["status", "table", "heap", "mutator", "references"];
    let wanted: usize = source
        .iter()
        .map(|file| std::fs::read_to_string(here(&format!("src/{file}.rs"))).unwrap())
        .map(|text| text.matches("#[unsafe(no_mangle)]").count())
        .sum();
    assert_eq!(symbols.len(), wanted);
}

#[test]
fn the_install_step_says_what_is_wrong() {
    for (arguments, says) in [
        (vec!["--prefix", "relative"], "an absolute path is wanted"),
        (
            vec!["--prefix", "/a b"],
            "pkg-config cannot give such a path",
        ),
        (
            vec!["--prefix", "/tmp", "--archive", "/nothing.a"],
            "there is no such archive",
        ),
        (vec!["--what", "x"], "--prefix DIR"),
    ] {
        let output = Command::new("bash")
            .arg(here("install.sh"))
            .args(&arguments)
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert!(
            text(&output.stderr).contains(says),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
    }
}
