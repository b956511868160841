//! Recordings, pages, timelines and summaries, from outside: of a program on our libgc, and of `heapwright bench`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod fixtures;

use fixtures::{Fixtures, check_refused, clean, err, out};
use serde_json::Value;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A program that allocates, to be run on the library that cargo left beside the command.
fn program() -> &'static str {
    static BUILT: OnceLock<String> = OnceLock::new();
    BUILT.get_or_init(|| {
        let f = Fixtures::get();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/allocates.c");
        f.cc(&[
            "-O1",
            "-o",
            "allocates",
            source,
            "-Wl,--no-as-needed",
            "stock/libgc.so.1",
        ]);
        f.path("allocates")
    })
}

/// 61 trees, of 2^14 - 1 nodes but one.
const ANSWER: &str = "1015747\n";

fn run() -> Command {
    let mut command = clean();
    command.arg("run");
    command
}

/// What the program wrote, however it ended.
fn said(done: &Output) -> String {
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn file(name: &str) -> PathBuf {
    let path = PathBuf::from(Fixtures::get().path(name));
    let _ = fs::remove_file(&path);
    path
}

/// The data of a page.
fn data(page: &str) -> Value {
    let from = page.split_once("id=\"data\">").unwrap().1;
    serde_json::from_str(from.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn page_timeline_recording_and_summary_say_the_same() {
    let [page, trace, record] = ["a.html", "a.json", "a.jsonl"].map(file);
    let done = run()
        .arg("--json")
        .arg("--report")
        .arg(&page)
        .arg("--trace")
        .arg(&trace)
        .arg("--record")
        .arg(&record)
        .args(["--", program()])
        .output()
        .unwrap();
    assert_eq!(out(&done), ANSWER);
    let summary: Value = serde_json::from_str(&err(&done)).unwrap();
    let digest = &summary["heap"]["digest"];
    let collections = digest["collections"].as_u64().unwrap();
    assert!(collections > 3, "{summary}");
    assert_eq!(summary["heap"]["collections"], collections);
    let lines = fs::read_to_string(&record).unwrap();
    let of_type = |name: &str| {
        let lines = lines
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap());
        lines.filter(|l| l["type"] == name).collect::<Vec<_>>()
    };
    assert_eq!(of_type("collection").len() as u64, collections);
    // Most of what lives at the end are nodes of one tree.
    let objects = of_type("class").iter().map(|c| c["objects"].as_u64()).max();
    let nodes = objects.unwrap();
    assert!(nodes.unwrap() >= (1 << 15) - 1);
    let shown = data(&fs::read_to_string(&page).unwrap());
    assert_eq!(
        shown["collections"]["at"].as_array().unwrap().len() as u64,
        collections
    );
    assert_eq!(&shown["digest"], digest);
    let frames = shown["map"]["frames"].as_array().unwrap();
    assert!(frames.len() >= 2, "before and after a collection");
    assert_eq!(
        shown["classes"].as_array().unwrap().len(),
        of_type("class").len()
    );
    let events: Vec<Value> = serde_json::from_str(&fs::read_to_string(&trace).unwrap()).unwrap();
    let slices = events
        .iter()
        .filter(|e| e["ph"] == "X" && e["args"]["cause"].is_string());
    assert_eq!(slices.count() as u64, collections);
    // The same again, of the recording.
    let again = file("again.html");
    let done = clean()
        .arg("report")
        .arg(&record)
        .arg("--html")
        .arg(&again)
        .output()
        .unwrap();
    assert!(done.status.success());
    assert_eq!(
        data(&fs::read_to_string(&again).unwrap())["digest"],
        *digest
    );
    let done = clean().arg("report").arg(&record).output().unwrap();
    assert!(
        out(&done).contains(&format!("{collections} full")),
        "{}",
        out(&done)
    );
}

#[test]
fn a_file_that_cannot_be_written_is_said_before_the_run() {
    let nowhere = "/nonexistent/file";
    let bench = |arguments: &[&str]| clean().arg("bench").args(arguments).output().unwrap();
    for option in ["--report", "--trace", "--record"] {
        let done = run()
            .args([option, nowhere, "--", program()])
            .output()
            .unwrap();
        check_refused(&done, 2, &[nowhere, "cannot be written"]);
    }
    let log = format!("--log=gc,json={nowhere}");
    let done = run().args([&log, "--", program()]).output().unwrap();
    check_refused(&done, 2, &[nowhere, "cannot be written"]);
    check_refused(&bench(&["lru", "--report", nowhere]), 2, &[nowhere]);
    check_refused(
        &bench(&["lru", "--record", "/dev/null/x"]),
        2,
        &["/dev/null/x"],
    );
    check_refused(&bench(&["lru", &log]), 2, &[nowhere]);
    check_refused(&bench(&["lru", "--trace", "x.json"]), 2, &["single run"]);
}

#[test]
fn a_killed_program_leaves_what_was_written_until_then() {
    let [page, trace] = ["killed.html", "killed.json"].map(file);
    let done = run()
        .arg("--summary")
        .arg("--report")
        .arg(&page)
        .arg("--trace")
        .arg(&trace)
        .args(["--", program(), "killed"])
        .output()
        .unwrap();
    assert_eq!(done.status.signal(), Some(9));
    assert_eq!(said(&done), ANSWER);
    assert!(err(&done).contains("collections"), "{}", err(&done));
    let shown = data(&fs::read_to_string(&page).unwrap());
    assert!(
        shown["about"]
            .as_str()
            .unwrap()
            .contains("did not end in order")
    );
    assert!(shown["digest"]["collections"].as_u64().unwrap() > 3);
    assert!(serde_json::from_str::<Value>(&fs::read_to_string(&trace).unwrap()).is_ok());
}

#[test]
fn a_child_of_a_fork_ends_its_recording_once() {
    let directory = PathBuf::from(Fixtures::get().path("forks"));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let record = directory.join("r.jsonl");
    let done = run()
        .arg("--record")
        .arg(&record)
        .arg(format!("--log=gc={}.%p", Fixtures::get().path("forks.log")))
        .args(["--", program(), "forks"])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", err(&done));
    let files: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(
            text.matches("\"type\":\"end\"").count(),
            1,
            "{}",
            file.display()
        );
        // The log has a file for each of them as well: the same collections.
        let process = file.extension().filter(|e| *e != "jsonl");
        if let Some(process) = process.and_then(|e| e.to_str()) {
            let log = Fixtures::get().path(&format!("forks.log.{process}"));
            let lines = fs::read_to_string(log).unwrap().lines().count();
            assert_eq!(lines, text.matches("\"type\":\"collection\"").count());
            fs::remove_file(Fixtures::get().path(&format!("forks.log.{process}"))).unwrap();
        }
    }
}

#[test]
fn a_file_that_may_not_grow_does_not_disturb_the_program() {
    let (record, log) = (file("small.jsonl"), file("small.log"));
    // Two blocks of 1024 bytes; past that the kernel sends a signal that ends the process.
    let script = "ulimit -f 2; exec \"$@\"";
    let limited = |command: Command| {
        let mut shell = Command::new("bash");
        shell
            .args(["-c", script, "bash"])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.output().unwrap()
    };
    let mut command = run();
    command
        .arg("--record")
        .arg(&record)
        .arg(format!("--log=gc,phases={}", log.display()))
        .args(["--", program(), "3"]);
    let done = limited(command);
    assert_eq!(
        (said(&done).as_str(), done.status.code()),
        (ANSWER, Some(3)),
        "{}",
        err(&done)
    );
    for file in [record, log] {
        let lines = fs::read_to_string(&file).unwrap();
        assert!(lines.len() <= 2048 && lines.lines().count() >= 1);
    }
}

#[test]
fn a_program_that_leaves_no_recording_is_said() {
    let page = file("none.html");
    let done = run()
        .arg("--force")
        .arg("--report")
        .arg(&page)
        .args(["--", "/bin/true"])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(125));
    assert!(err(&done).contains("left no recording"), "{}", err(&done));
    assert!(!page.exists());
}

#[test]
fn what_is_no_recording_is_refused() {
    let text = file("text.jsonl");
    fs::write(&text, "hello\n").unwrap();
    let done = clean().arg("report").arg(&text).output().unwrap();
    check_refused(&done, 2, &["no recording"]);
    let done = clean().args(["report", "/nonexistent"]).output().unwrap();
    check_refused(&done, 2, &["/nonexistent"]);
}

#[test]
fn runs_of_bench_are_a_page_with_each_of_them() {
    let page = file("bench.html");
    let directory = Fixtures::get().path("recordings");
    let done = clean()
        .args([
            "bench",
            "gcbench",
            "--scale",
            "0.01",
            "--plan",
            "immix,semispace,genimmix",
        ])
        .args([
            "--heap",
            "8m,16m",
            "--workers",
            "2",
            "--json",
            "--record",
            &directory,
            "--report",
        ])
        .arg(&page)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", err(&done));
    let runs: Vec<Value> = out(&done)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let shown = data(&fs::read_to_string(&page).unwrap());
    assert_eq!(shown["points"].as_array().unwrap().len(), 6);
    assert_eq!(shown["runs"].as_array().unwrap().len(), 6);
    let mut pictures = 0;
    for (run, told) in shown["runs"].as_array().unwrap().iter().zip(&runs) {
        let name = run["name"].as_str().unwrap();
        let wanted = format!(
            "gcbench-{}-{}",
            told["plan"].as_str().unwrap(),
            told["heap"].as_str().unwrap()
        );
        assert_eq!(name, wanted);
        assert_eq!(run["digest"]["collections"], told["collections"], "{name}");
        let record =
            fs::read_to_string(PathBuf::from(&directory).join(format!("{name}.jsonl"))).unwrap();
        assert!(record.contains("\"type\":\"end\""), "{name}");
        pictures += record.matches("\"type\":\"map\"").count();
        assert!(!run["classes"].as_array().unwrap().is_empty(), "{name}");
    }
    // Not of each run: they are made only as far as they take little of its time.
    assert!(pictures >= 2);
}

#[test]
fn the_log_line_and_the_timeline_of_a_run_of_bench() {
    let trace = file("one.json");
    let done = clean()
        .args([
            "bench", "gcbench", "--scale", "0.01", "--plan", "immix", "--heap", "8m", "--json",
        ])
        .args(["--log=gc,json", "--trace"])
        .arg(&trace)
        .output()
        .unwrap();
    let run: Value = serde_json::from_str(&out(&done)).unwrap();
    let collections = run["collections"].as_u64().unwrap();
    assert!(collections > 0);
    assert_eq!(err(&done).lines().count() as u64, collections);
    for line in err(&done).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(
            line["pause_ns"].as_u64().unwrap() > 0 && line["limit_bytes"] == 8 << 20,
            "{line}"
        );
    }
    let events: Vec<Value> = serde_json::from_str(&fs::read_to_string(&trace).unwrap()).unwrap();
    let slices = events
        .iter()
        .filter(|e| e["ph"] == "X" && e["args"]["cause"].is_string());
    assert_eq!(slices.count() as u64, collections);
}
