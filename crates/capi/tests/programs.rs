//! C programs on the library, static and shared: the example, wrong uses, symbols; under valgrind where that is installed.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

#[path = "../../bench/tests/dumps/mod.rs"]
#[allow(dead_code, reason = "the machine's tests take the rest")]
mod dumps;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn out() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

fn run(command: &mut Command) -> Output {
    let done = command.output().unwrap();
    assert!(
        done.status.success(),
        "{command:?}: {}\n{}{}",
        done.status,
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    done
}

/// The static library, which cargo built with this test.
fn archive() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let file = tests.parent().unwrap().join("libheapwright_c.a");
    assert!(file.is_file(), "{}", file.display());
    file
}

const SYSTEM: [&str; 3] = ["-lpthread", "-ldl", "-lm"];

/// The shared library, linked from the static one with versions, as `heapwright install` does it.
fn shared() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let directory = out().join("shared");
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("libheapwright.so.0");
        run(Command::new("gcc")
            .args(["-shared", "-Wl,-soname,libheapwright.so.0", "-Wl,-z,now"])
            .arg(format!(
                "-Wl,--version-script={}",
                folder().join("heapwright.map").display()
            ))
            .arg("-Wl,--whole-archive")
            .arg(archive())
            .arg("-Wl,--no-whole-archive")
            .args(SYSTEM)
            .arg("-o")
            .arg(&file));
        let link = directory.join("libheapwright.so");
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink("libheapwright.so.0", &link).unwrap();
        directory
    })
}

/// Compiles a program against the static library, and against the shared one.
/// `name`: a test's own, since they run at the same time.
fn programs(source: &str, name: &str) -> [PathBuf; 2] {
    let compile = |kind: &str| {
        let file = out().join(format!("{name}-{kind}"));
        let mut command = Command::new("gcc");
        command
            .args(["-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&file)
            .arg("-I")
            .arg(folder().join("include"))
            .arg(folder().join(source));
        if kind == "static" {
            command.arg(archive()).args(SYSTEM);
        } else {
            command
                .arg("-L")
                .arg(shared())
                .arg(format!("-Wl,-rpath,{}", shared().display()))
                .args(["-lheapwright", "-lpthread"]);
        }
        run(&mut command);
        file
    };
    ["static", "shared"].map(compile)
}

#[test]
fn wrong_uses_have_their_answers() {
    for program in programs("tests/misuse.c", "misuse") {
        let done = run(&mut Command::new(program));
        assert_eq!(
            String::from_utf8_lossy(&done.stdout),
            "0 failures, 0 broken heaps\n"
        );
    }
}

/// Forks from a mutator and by handlers of the C library, with threads that allocate and handles that come and go; wrong uses.
#[test]
fn a_program_forks_and_the_child_has_a_working_heap() {
    for program in programs("tests/fork.c", "fork") {
        let done = run(&mut Command::new(program));
        assert_eq!(
            String::from_utf8_lossy(&done.stdout),
            "0 failures, 0 broken heaps\n"
        );
    }
}

/// Dumps in each format, when asked and when the heap is full, have the types that the program gives names to.
#[test]
fn a_program_dumps_its_heap() {
    for (kind, program) in programs("tests/dump.c", "dump").into_iter().enumerate() {
        let folder = out().join(format!("dump-{kind}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let files = ["asked.hprof", "named otherwise", "full.hprof"].map(|f| folder.join(f));
        let done = run(Command::new(program).args(&files));
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        let nodes = said.strip_prefix("0 failures, ").expect(&said);
        let nodes: usize = nodes.split(' ').next().unwrap().parse().unwrap();
        let read = |file: &PathBuf| fs::read(file).unwrap();
        let census = dumps::Hprof::parse(&read(&files[0])).census();
        let names: Vec<&String> = census.keys().collect();
        assert_eq!(names, ["leaf \"quoted\"", "node"]);
        assert_eq!(census["node"], (100, 3200));
        // 104 bytes: the size that the program says is rounded up.
        assert_eq!(census["leaf \"quoted\""], (100, 10_400));
        let (census, ..) = dumps::snapshot(&read(&files[1]));
        assert_eq!(census["node"], (100, 3200));
        assert_eq!(census["leaf \"quoted\""].0, 100);
        let full = dumps::Hprof::parse(&read(&files[2])).census();
        assert_eq!(full["node"].0, nodes);
        assert!(nodes > 5000 && full["leaf \"quoted\""].0 + 1 >= nodes);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
    }
}

/// The instruments write what they are to write, a heap that listens answers, and the child of a fork leaves all of it to its parent.
#[test]
fn a_program_has_its_heaps_watched() {
    for (kind, program) in programs("tests/watch.c", "watch").into_iter().enumerate() {
        // Paths of sockets are short.
        let folder = std::env::temp_dir().join(format!("hw-watch-{kind}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let files = ["log", "record", "socket", "samples", "full.hprof"].map(|f| folder.join(f));
        let done = run(Command::new(program)
            .args(&files)
            .env("HEAPWRIGHT_LISTEN", folder.join("other"))
            .env("HEAPWRIGHT_RECORD", folder.join("other-record")));
        assert_eq!(String::from_utf8_lossy(&done.stdout), "0 failures\n");
        let lines = |file: &Path| {
            let text = fs::read_to_string(file).unwrap();
            text.lines()
                .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap())
                .collect::<Vec<_>>()
        };
        let log = lines(&files[0]);
        assert!(log.len() >= 3 && log.iter().all(|l| l["kind"] == "full"));
        let record = lines(&files[1]);
        let of = |kind: &str| record.iter().filter(|l| l["type"] == kind).count();
        // The child's collection is in the log, which both write, and not in the recording.
        assert_eq!(
            (of("begin"), of("collection"), of("end")),
            (1, log.len() - 1, 1)
        );
        assert!(of("map") > 0 && of("out_of_memory") > 0);
        let classes: Vec<_> = record.iter().filter(|l| l["type"] == "class").collect();
        assert_eq!(classes.len(), 1, "what lived at the end: {classes:?}");
        assert_eq!(
            (&classes[0]["bytes"], &classes[0]["objects"]),
            (&16.into(), &10.into())
        );
        assert!(fs::metadata(&files[3]).unwrap().len() > 1000);
        let full = dumps::Hprof::parse(&fs::read(&files[4]).unwrap()).census();
        assert!(full.values().next().unwrap().0 > 10_000);
        // Two heaps had it, one after the other.
        assert_eq!(lines(&folder.join("other-record")).len(), 4);
        fs::remove_dir_all(&folder).unwrap();
    }
}

/// What the example prints for each of its two heaps.
const VALUES: [&str; 7] = [
    "<closure>",
    "46368",
    "<closure>",
    "<closure>",
    "125250",
    "(forgotten symbols)",
    "(8 7 6 5 4 3 2 1)",
];

#[test]
fn the_example_runs_on_every_plan_and_forgets_symbols() {
    let programs = programs("examples/lisp.c", "lisp");
    let lines = fs::read_to_string(folder().join("examples/lisp.c")).unwrap();
    assert!(lines.lines().count() < 300);
    for (first, second) in [
        ("genimmix", "marksweep"),
        ("semispace", "markcompact"),
        ("immix", "gencopy"),
        ("stickyimmix", "stickymarksweep"),
        ("concurrentimmix", "immix"),
    ] {
        for (program, verify) in [(&programs[0], "1"), (&programs[1], "0")] {
            let done = run(Command::new(program)
                .args([first, second])
                .env("HEAPWRIGHT_VERIFY", verify));
            let said = String::from_utf8_lossy(&done.stdout).into_owned();
            for heap in ["1", "2"] {
                let of: Vec<&str> = said
                    .lines()
                    .filter_map(|l| l.strip_prefix(heap)?.strip_prefix(": "))
                    .collect();
                assert_eq!(of[..VALUES.len()], VALUES, "{first} {second}: {said}");
                // Those that a program or a function mentions: the two that were only quoted are gone.
                assert_eq!(of[VALUES.len()], "17 symbols are left, many collections");
            }
        }
    }
    let done = Command::new(&programs[0]).arg("fastest").output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("genimmix"));
}

#[test]
fn the_shared_library_shows_its_functions_only_and_with_versions() {
    let done = run(Command::new("nm")
        .args(["-D", "--defined-only", "--with-symbol-versions"])
        .arg(shared().join("libheapwright.so.0")));
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let header = fs::read_to_string(folder().join("include/heapwright.h")).unwrap();
    let mut functions = 0;
    for line in said.lines() {
        let symbol = line.split_whitespace().last().unwrap();
        if symbol.starts_with("HEAPWRIGHT_0.1") {
            continue;
        }
        let (name, version) = symbol.split_once("@@").unwrap_or((symbol, ""));
        assert!(name.starts_with("hw_"), "{line}");
        assert_eq!(version, "HEAPWRIGHT_0.1", "{line}");
        assert!(
            header.contains(&format!("{name}(")),
            "{name} is not in the header"
        );
        functions += 1;
    }
    assert!(functions > 40, "{said}");
}

/// The example once more, small, with every access checked. The heap's own memory comes from the system and is always defined.
#[test]
fn valgrind_finds_nothing() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("valgrind is not installed: not run");
        return;
    }
    let [program, _] = programs("examples/lisp.c", "checked");
    run(Command::new("valgrind")
        .args([
            "--error-exitcode=9",
            "--quiet",
            "--leak-check=full",
            "--errors-for-leak-kinds=definite",
        ])
        .arg(program)
        .args(["semispace", "immix"])
        .env("HEAPWRIGHT_WORKERS", "1"));
}
