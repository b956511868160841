//! The interface as C programs use it: each program in `abi/` is compiled against Boehm's own headers and run on our
//! library, plainly, with the verifier, with a collection every so many allocations, and with two workers and poisoned free
//! memory.
//!
//! The stock library passes `threads`, `signals`, `forks`, `forks_by_hand`, `finalizers`, `kinds`, `shadow`, `environment` and
//! `cplusplus` too, as run by hand. The others
//! ask for more than it defines: alignments above a page, wrong frees that do no harm, a heap that lives on at its limit.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may run.
const LIMIT: Duration = Duration::from_secs(100);

/// The directory of the library under test, under the name that programs ask for.
fn library() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let profile = deps.parent().unwrap().parent().unwrap();
    // One is from `cargo build`, one from the build of the tests: the newer one is of this source.
    let age = |path: &PathBuf| fs::metadata(path).and_then(|m| m.modified()).ok();
    let (name, built) = [
        ("built", profile.join("libgc.so")),
        ("deps", profile.join("deps/libgc.so")),
    ]
    .into_iter()
    .max_by_key(|(_, path)| age(path))
    .filter(|(_, path)| path.exists())
    .expect("cargo builds libgc.so for the tests of its crate");
    // Builds of both profiles may have been tested here.
    let dir = work()
        .join("lib")
        .join(profile.file_name().unwrap())
        .join(name);
    fs::create_dir_all(&dir).unwrap();
    let link = dir.join("libgc.so.1");
    // Several tests may do this at once: what is there is the same.
    let _ = std::os::unix::fs::symlink(&built, &link);
    assert_eq!(
        fs::canonicalize(&link).unwrap(),
        fs::canonicalize(&built).unwrap()
    );
    dir
}

fn work() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("abi")
}

fn compile(name: &str, flags: &[&str]) -> PathBuf {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut compiler = Command::new(compiler);
    compiler.arg("-std=gnu11");
    compile_by(compiler, &format!("{name}.c"), name, flags)
}

/// Compiles a source of this directory to a program.
fn compile_by(mut compiler: Command, source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/abi")
        .join(source);
    let program = work().join(name);
    fs::create_dir_all(work()).unwrap();
    let done = compiler
        .args(["-O1", "-g", "-Wall", "-Werror", "-pthread", "-o"])
        .arg(&program)
        .arg(path)
        .args(flags)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{name} does not compile (the headers are those of the package libgc-dev): {}",
        String::from_utf8_lossy(&done.stderr)
    );
    program
}

fn run(program: &Path, arguments: &[&str], settings: &[(&str, &str)]) {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LD_LIBRARY_PATH", library())
        .envs(settings.iter().copied())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut said = String::new();
    let _ = child.stderr.take().unwrap().read_to_string(&mut said);
    let what = format!("{} {arguments:?} with {settings:?}", program.display());
    let status = status.unwrap_or_else(|| panic!("{what} did not end in {LIMIT:?}: {said}"));
    assert!(status.success(), "{what}: {status}\n{said}");
    assert!(!said.contains("violation"), "{what}: {said}");
}

/// All the ways of running a program; a collection each `stress` allocations.
fn every_way(program: &Path, arguments: &[&str], stress: &str) {
    for settings in [
        &[][..],
        &[("HEAPWRIGHT_VERIFY", "1")],
        &[("HEAPWRIGHT_STRESS", stress)],
        // A plan that cannot serve words is passed over.
        &[
            ("HEAPWRIGHT_WORKERS", "2"),
            ("HEAPWRIGHT_VERIFY", "1"),
            ("HEAPWRIGHT_POISON", "1"),
            ("HEAPWRIGHT_YIELDS", "100"),
            ("HEAPWRIGHT_PLAN", "immix"),
        ],
    ] {
        run(program, arguments, settings);
    }
}

fn program(name: &str, stress: &str) {
    let library = library().join("libgc.so.1");
    every_way(&compile(name, &[library.to_str().unwrap()]), &[], stress);
}

#[test]
fn sizes_from_nothing_to_absurd() {
    program("sizes", "200");
}

#[test]
fn what_is_freed_wrongly_does_no_harm() {
    program("free", "200");
}

#[test]
fn at_the_limit_the_client_is_asked_and_then_null_given() {
    program("limit", "5000");
}

/// What `environment` says with a variable of the environment; its own argument is the number in the value.
fn with_variable(program: &Path, name: &str, value: &str) -> String {
    let done = Command::new(program)
        .args([name, value.trim_end_matches(['k', 'M'])])
        .env("LD_LIBRARY_PATH", library())
        .env(name, value)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{name}={value}: {said}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn variables_of_the_environment_do_what_boehms_documentation_says() {
    let library = library().join("libgc.so.1");
    let program = compile("environment", &[library.to_str().unwrap()]);
    for (name, value) in [
        ("GC_INITIAL_HEAP_SIZE", "64M"),
        ("GC_MAXIMUM_HEAP_SIZE", "32M"),
        ("GC_DONT_GC", "1"),
        ("GC_MARKERS", "4"),
        ("GC_MARKERS", "1"),
        ("GC_NPROCS", "3"),
        ("GC_FULL_FREQUENCY", "7"),
        ("GC_PAUSE_TIME_TARGET", "9"),
        ("GC_USE_ENTIRE_HEAP", "1"),
        ("GC_USE_ENTIRE_HEAP", "0"),
        ("GC_FORCE_UNMAP_ON_GCOLLECT", "1"),
        ("GC_FORCE_UNMAP_ON_GCOLLECT", "0"),
        ("GC_ALL_INTERIOR_POINTERS", "0"),
        ("GC_FIND_LEAK", "1"),
        ("GC_ENABLE_INCREMENTAL", "1"),
        ("GC_RETRY_SIGNALS", "0"),
        ("GC_TRACE", "1"),
    ] {
        with_variable(&program, name, value);
    }
    // The larger the divisor, the more collections.
    let collections = |divisor| -> u64 {
        let said = with_variable(&program, "GC_FREE_SPACE_DIVISOR", divisor);
        said.trim().parse().unwrap()
    };
    assert!(collections("30") >= 2 * collections("1"));
}

#[test]
fn a_log_file_has_what_is_printed_or_the_log_alone() {
    let library = library().join("libgc.so.1");
    let program = compile("environment", &[library.to_str().unwrap()]);
    for (only_log, name) in [("0", "all.log"), ("1", "only.log")] {
        let file = work().join(name);
        let _ = fs::remove_file(&file);
        let done = Command::new(&program)
            .env("LD_LIBRARY_PATH", crate::library())
            .env("GC_PRINT_STATS", "1")
            .env("GC_LOG_FILE", &file)
            .env("GC_ONLY_LOG_TO_FILE", only_log)
            .output()
            .unwrap();
        assert!(done.status.success());
        let log = fs::read_to_string(&file).unwrap();
        let output = String::from_utf8(done.stdout).unwrap();
        let errors = String::from_utf8(done.stderr).unwrap();
        assert!(
            log.contains("gc number=1 ") && log.contains("to log\n"),
            "{log}"
        );
        let (inside, outside) = if only_log == "0" {
            (&log, String::new())
        } else {
            assert!(!log.contains("to output"), "{log}");
            (&output, errors.clone())
        };
        assert!(
            inside.contains("to output\n") && inside.contains("collections: 1\n"),
            "{inside}"
        );
        assert_eq!(outside.contains("to errors\n"), only_log == "1");
    }
}

#[test]
fn memory_that_died_goes_back_though_the_program_sleeps() {
    let library = library().join("libgc.so.1");
    let program = compile("returned", &[library.to_str().unwrap()]);
    run(&program, &[], &[]);
    run(
        &program,
        &[],
        &[("HEAPWRIGHT_POISON", "1"), ("HEAPWRIGHT_VERIFY", "1")],
    );
}

#[test]
fn threads_of_every_origin_may_allocate_block_and_end() {
    program("threads", "1000");
}

#[test]
fn a_storm_of_signals_disturbs_nothing() {
    program("signals", "5000");
}

#[test]
fn handlers_wait_until_the_world_runs() {
    program("handlers", "5000");
}

#[test]
fn a_child_of_a_threaded_program_has_a_heap() {
    program("forks", "5000");
}

#[test]
fn a_client_may_handle_fork_by_itself() {
    program("forks_by_hand", "5000");
}

#[test]
fn debians_libraries_for_cplusplus_work_on_ours() {
    let library = library().join("libgc.so.1");
    for (name, flags) in [
        ("gccpp", &["-lgccpp", "-DCLEANUP"][..]),
        ("gctba", &["-lgctba"][..]),
    ] {
        let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
        let flags = [flags, &[library.to_str().unwrap()]].concat();
        let program = compile_by(Command::new(compiler), "cplusplus.cc", name, &flags);
        every_way(&program, &[], "1000");
    }
}

#[test]
fn finalizers_run_once_in_order_and_links_vanish() {
    program("finalizers", "20");
}

#[test]
fn kinds_descriptors_and_procedures_say_what_is_scanned() {
    program("kinds", "100");
}

#[test]
fn roots_are_where_the_interface_says() {
    let library = library().join("libgc.so.1");
    let loaded = compile("library", &["-shared", "-fPIC"]);
    let program = compile("roots", &[library.to_str().unwrap(), "-ldl"]);
    every_way(&program, &[loaded.to_str().unwrap()], "5000");
}

#[test]
fn a_random_graph_stays_what_it_was() {
    let library = library().join("libgc.so.1");
    let program = compile("shadow", &[library.to_str().unwrap()]);
    for seed in ["1", "2", "3"] {
        every_way(&program, &[seed], "50");
    }
}

/// The symbols that a library defines for others, with the sizes of data.
fn symbols(library: &Path) -> BTreeMap<String, Option<u64>> {
    let done = Command::new("nm")
        .args(["-D", "-S", "--defined-only"])
        .arg(library)
        .output()
        .unwrap();
    assert!(done.status.success(), "nm {}", library.display());
    let text = String::from_utf8(done.stdout).unwrap();
    let symbol = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [_, _, "T" | "W", name] => Some((name.to_owned(), None)),
            [_, size, _, name] => {
                let size = u64::from_str_radix(size, 16).unwrap();
                Some((name.to_owned(), Some(size)))
            }
            // The linker's marks of the ends of sections.
            _ => None,
        }
    };
    text.lines().filter_map(symbol).collect()
}

#[test]
fn each_symbol_of_the_stock_library_is_there_and_in_the_table() {
    let ours = symbols(&library().join("libgc.so.1"));
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/libgc.md");
    let table = fs::read_to_string(table).unwrap();
    let rows: BTreeMap<&str, &str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .collect();
    let exported: Vec<&str> = ours.keys().map(String::as_str).collect();
    let described: Vec<&str> = rows.keys().copied().collect();
    assert_eq!(exported, described);
    for (name, rest) in &rows {
        let status = rest.split(" | ").next().unwrap();
        let known = ["whole", "degraded", "stored", "no effect"];
        assert!(known.contains(&status), "{name}: {status}");
    }
    // The library of the system, where the compiler finds it.
    let found = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
        .arg("-print-file-name=libgc.so.1")
        .output()
        .unwrap();
    let stock = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim());
    // Without one there is nothing to compare with.
    if !stock.is_absolute() {
        return;
    }
    let stock = symbols(&stock);
    assert!(stock.len() > 250, "{}", stock.len());
    for (name, size) in &stock {
        let Some(our_size) = ours.get(name) else {
            panic!("{name} is missing");
        };
        // Programs copy data of the size that they saw when they were linked.
        assert_eq!(size, our_size, "{name}");
    }
}
