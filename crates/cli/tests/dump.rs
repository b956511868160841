//! Heap dumps of a C program with a known graph, on the real library, read by parsers that others wrote.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../../bench/tests/dumps/mod.rs"]
#[allow(dead_code, reason = "the machine's tests take the rest")]
mod dumps;
mod fixtures;

use dumps::{Hprof, snapshot};
use fixtures::{COMMAND, Fixtures, check_refused, clean, err};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;

/// What the program makes: nodes, each with a leaf.
const NODES: usize = 1000;
/// Their cells: 40 and 100 bytes, and one more so that a pointer to the end counts.
const NODE: usize = 48;
const LEAF: usize = 112;
const GARBAGE: usize = 208;
/// The table that is not collected has so many bytes, or more: those of a size class.
const TABLE: usize = 3208;

/// The program, linked with the library that cargo left beside the command.
fn program() -> &'static str {
    static BUILT: OnceLock<String> = OnceLock::new();
    BUILT.get_or_init(|| {
        let f = Fixtures::get();
        let beside = Path::new(COMMAND).parent().unwrap();
        let age = |p: &PathBuf| fs::metadata(p).and_then(|m| m.modified()).ok();
        let library = [beside.join("libgc.so"), beside.join("deps/libgc.so")]
            .into_iter()
            .max_by_key(age)
            .unwrap();
        let program = f.path("dumped");
        let library = library.to_str().unwrap();
        let source = fixtures::source("dumped.c");
        f.cc(&["-O1", "-pthread", "-o", &program, &source, library]);
        program
    })
}

/// A directory that is not there yet.
fn directory(name: &str) -> PathBuf {
    let directory = Fixtures::get().dir.join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory).unwrap();
    directory
}

fn run(flags: &[&str], arguments: &[&str]) -> Output {
    let mut command = clean();
    command.arg("run").args(flags).arg("--").arg(program());
    command.args(arguments).output().unwrap()
}

fn check_done(done: &Output) {
    assert_eq!(done.status.code(), Some(7), "{}", err(done));
    assert_eq!(String::from_utf8_lossy(&done.stdout), "done\n");
}

fn read(file: &Path) -> Vec<u8> {
    fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// How many objects of a kind have so many bytes.
fn count(hprof: &Hprof, kind: &str, bytes: usize) -> usize {
    let is = |o: &&dumps::Object| o.kind == kind && o.bytes == bytes;
    hprof.objects.values().filter(is).count()
}

/// The list is there, whole and from the root that the program has, and the garbage is not.
fn check_list(hprof: &Hprof) {
    assert_eq!(count(hprof, "normal", NODE), NODES);
    assert_eq!(count(hprof, "atomic", LEAF), NODES);
    // A word that looks like a pointer may keep some.
    assert!(count(hprof, "normal", GARBAGE) < 20);
    assert_eq!(hprof.reachable().len(), hprof.objects.len());
    let is = |id: &u64, kind: &str, bytes| {
        let object = &hprof.objects[id];
        object.kind == kind && object.bytes == bytes
    };
    let node = |id: &u64| is(id, "normal", NODE);
    let next = |id: &u64| {
        hprof.objects[id]
            .references
            .iter()
            .copied()
            .find(|t| *t != 0 && node(t))
    };
    let followers: std::collections::BTreeSet<u64> = hprof
        .objects
        .keys()
        .filter(|id| node(id))
        .filter_map(next)
        .collect();
    let heads: Vec<u64> = hprof
        .objects
        .keys()
        .filter(|id| node(id) && !followers.contains(id))
        .copied()
        .collect();
    assert_eq!(heads.len(), 1);
    let mut at = Some(heads[0]);
    let mut length = 0;
    while let Some(id) = at {
        let leaves = hprof.objects[&id].references.iter();
        let leaves = leaves.filter(|t| **t != 0 && is(t, "atomic", LEAF)).count();
        assert_eq!(leaves, 1);
        length += 1;
        at = next(&id);
    }
    assert_eq!(length, NODES);
    // The table is larger than an instance, and its own root.
    let table = hprof
        .objects
        .iter()
        .find(|(_, o)| o.kind == "uncollectable");
    let (id, table) = table.unwrap();
    let by_table = table.references.contains(&heads[0]);
    assert!(by_table || hprof.roots.contains(&heads[0]));
    assert!(hprof.roots.contains(id) && table.array && (TABLE..4096).contains(&table.bytes));
    assert_eq!(table.references.iter().filter(|t| **t != 0).count(), 200);
}

#[test]
fn at_exit_a_known_graph_is_in_the_dump() {
    let directory = directory("at-exit");
    let file = directory.join("heap.hprof");
    let done = run(&["--dump", file.to_str().unwrap()], &[]);
    check_done(&done);
    assert_eq!(err(&done), "");
    check_list(&Hprof::parse(&read(&file)));
    let names: Vec<_> = fs::read_dir(&directory).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn a_snapshot_has_the_same_objects() {
    let file = directory("snapshot").join("heap.heapsnapshot");
    check_done(&run(&["--dump", file.to_str().unwrap()], &[]));
    let (census, retained, between) = snapshot(&read(&file));
    assert!(census["normal"].0 >= NODES && census["normal"].1 >= NODES * NODE);
    assert!(census["atomic"].0 >= NODES && census["atomic"].1 >= NODES * LEAF);
    let table = census["uncollectable"];
    assert!(table.0 == 1 && (TABLE..4096).contains(&table.1));
    let bytes: usize = census.values().map(|c| c.1).sum();
    assert_eq!(retained, bytes as u64);
    assert!(between >= NODES * 2 - 1 + 200);
}

#[test]
fn stacks_of_running_threads_are_roots() {
    let file = directory("threads").join("heap-%p.hprof");
    for _ in 0..5 {
        let done = run(&["--dump", file.to_str().unwrap()], &["threads"]);
        check_done(&done);
        assert_eq!(err(&done), "");
    }
    let written: Vec<_> = fs::read_dir(file.parent().unwrap()).unwrap().collect();
    assert_eq!(written.len(), 5);
    for file in written {
        let hprof = Hprof::parse(&read(&file.unwrap().path()));
        check_list(&hprof);
        let held = hprof
            .objects
            .iter()
            .filter(|(id, o)| (600..=640).contains(&o.bytes) && hprof.roots.contains(id));
        assert_eq!(held.count(), 3);
    }
}

#[test]
fn what_filled_the_heap_is_in_the_dump() {
    let directory = directory("oom");
    let file = directory.join("full.hprof");
    let request = format!("oom={}", file.display());
    let done = run(&["--max", "8m", "--dump-on", &request], &["oom"]);
    check_done(&done);
    let hprof = Hprof::parse(&read(&file));
    check_list(&hprof);
    let chain = hprof.objects.values().filter(|o| o.bytes > 10_000);
    assert!(chain.count() > 400);
}

#[test]
fn a_signal_has_it_written_while_the_program_runs() {
    let directory = directory("signal");
    let (file, last) = (directory.join("at-1.hprof"), directory.join("last.hprof"));
    let request = format!("signal:USR1={}", directory.join("at-%n.hprof").display());
    let flags = ["--dump-on", &request, "--dump", last.to_str().unwrap()];
    let done = run(&flags, &["signal", file.to_str().unwrap()]);
    check_done(&done);
    check_list(&Hprof::parse(&read(&file)));
    // The program has let go of the list; the table still has its nodes, and so all of them.
    check_list(&Hprof::parse(&read(&last)));
}

#[test]
fn children_of_forks_write_their_own_while_the_parent_takes_one() {
    let directory = directory("forks");
    let (own, shared) = (
        directory.join("own-%p.hprof"),
        directory.join("s.heapsnapshot"),
    );
    let request = format!("signal:USR1={}", shared.display());
    let flags = ["--dump", own.to_str().unwrap(), "--dump-on", &request];
    let done = run(&flags, &["forks"]);
    check_done(&done);
    assert_eq!(err(&done), "");
    let files: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    let dumps = files
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "hprof"));
    let mut count = 0;
    for file in dumps {
        check_list(&Hprof::parse(&read(file)));
        count += 1;
    }
    // Each child's and the program's.
    assert_eq!(count, 31, "{files:?}");
}

#[test]
fn a_disk_that_is_full_is_the_commands_matter() {
    let directory = directory("small-disk");
    let file = directory.join("heap.hprof");
    let done = run(&["--dump", file.to_str().unwrap()], &["small-disk"]);
    check_done(&done);
    assert!(
        err(&done).contains("no heap dump was written to"),
        "{}",
        err(&done)
    );
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    // One that was there before is not taken for a new one.
    fs::write(&file, "old").unwrap();
    let done = run(&["--dump", file.to_str().unwrap()], &["killed"]);
    assert!(
        err(&done).contains("no heap dump was written to"),
        "{}",
        err(&done)
    );
    assert_eq!(read(&file), b"old");
}

#[test]
fn what_cannot_be_written_is_said_before_the_program_runs() {
    let inside = |name: &str| format!("{}/{name}", directory("refused").display());
    for (flag, value, words) in [
        ("--dump", inside("heap.txt"), [".hprof", "--dump"]),
        (
            "--dump",
            inside("no/heap.hprof"),
            ["no/heap.hprof", "cannot be written"],
        ),
        ("--dump", inside("a;b.hprof"), ["a;b.hprof", "no ;"]),
        ("--dump-on", inside("heap.hprof"), ["WHEN=FILE", "oom="]),
        (
            "--dump-on",
            "signal:KILL=a.hprof".to_owned(),
            ["signal:KILL", "USR1"],
        ),
        ("--dump-on", "oom=".to_owned(), ["oom=", "a file is wanted"]),
        ("--dump", "/".to_owned(), ["--dump", ".heapsnapshot"]),
    ] {
        check_refused(&run(&[flag, &value], &[]), 2, &words);
    }
    let environment = clean()
        .env("HEAPWRIGHT_DUMP", "when=heap")
        .args(["run", program()])
        .output()
        .unwrap();
    check_refused(&environment, 2, &["HEAPWRIGHT_DUMP", ".hprof"]);
}

fn bench(arguments: &str) -> Output {
    let mut command = clean();
    command.arg("bench").args(arguments.split_whitespace());
    command.output().unwrap()
}

#[test]
fn a_workload_has_its_heap_dumped_at_its_end_and_when_it_is_full() {
    let directory = directory("bench");
    let file = directory.join("end.hprof");
    let line = format!(
        "gcbench --plan immix --heap 64m --scale 0.05 --dump {}",
        file.display()
    );
    let done = bench(&line);
    assert!(done.status.success(), "{}", err(&done));
    assert!(String::from_utf8_lossy(&done.stdout).contains("heap dump: "));
    let hprof = Hprof::parse(&read(&file));
    // The tree that lives to the end, and the array of numbers.
    assert!(hprof.objects.len() > 1000, "{}", hprof.objects.len());
    assert_eq!(hprof.reachable().len(), hprof.objects.len());

    let file = directory.join("full.heapsnapshot");
    let line = format!(
        "list --plan semispace --heap 2m --json --dump {}",
        file.display()
    );
    let done = bench(&line);
    assert!(done.status.success(), "{}", err(&done));
    let record: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(record["status"], "out-of-memory");
    let (census, ..) = snapshot(&read(&file));
    let objects: usize = census.values().map(|c| c.0).sum();
    assert_eq!(record["dump"]["objects"], objects);
    assert!(objects > 1000);

    let two = format!("gcbench --dump {}", file.display());
    check_refused(&bench(&two), 2, &["one run", "--plan"]);
    let nowhere = "gcbench --plan immix --heap 64m --dump /no/where.hprof";
    check_refused(
        &bench(nowhere),
        2,
        &["/no/where.hprof", "cannot be written"],
    );
    let wrong = "gcbench --plan immix --heap 64m --dump x.dump";
    check_refused(&bench(wrong), 2, &["x.dump", ".heapsnapshot"]);
}
