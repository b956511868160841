//! `heapwright plans` and `heapwright bench` from outside.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod fixtures;

use fixtures::{check_refused, clean, err, out};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The command with a cache of its own, empty at first.
fn bench(cache: &str) -> Command {
    let directory = cache_directory(cache);
    let _ = fs::remove_dir_all(&directory);
    let mut command = clean();
    command.arg("bench").env("XDG_CACHE_HOME", directory);
    command
}

fn cache_directory(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cache-{name}"))
}

fn lines(done: &Output) -> Vec<Value> {
    out(done)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

fn plan_names() -> Vec<String> {
    let done = clean().args(["plans", "--json"]).output().unwrap();
    let plans: Value = serde_json::from_str(&out(&done)).unwrap();
    let name = |p: &Value| p["name"].as_str().unwrap().to_owned();
    plans.as_array().unwrap().iter().map(name).collect()
}

#[test]
fn plans_are_listed_as_text_and_as_json() {
    let names = plan_names();
    assert!(names.iter().any(|n| n == "marksweep"));
    assert!(names.iter().any(|n| n == "nogc"));
    let text = out(&clean().arg("plans").output().unwrap());
    for name in names {
        assert!(text.lines().any(|l| l.starts_with(&name)), "{name}");
    }
    let plans = out(&clean().args(["plans", "--json"]).output().unwrap());
    let plans: Value = serde_json::from_str(&plans).unwrap();
    for plan in plans.as_array().unwrap() {
        assert!(!plan["about"].as_str().unwrap().is_empty());
        for key in [
            "moves",
            "non_moving",
            "generational",
            "concurrent",
            "ambiguous_roots",
            "pins",
        ] {
            assert!(plan[key].is_boolean(), "{key}");
        }
    }
}

#[test]
fn what_does_not_exist_is_refused_with_what_does() {
    let refused = |arguments: &[&str], words: &[&str]| {
        let done = bench("refused").args(arguments).output().unwrap();
        check_refused(&done, 2, words);
    };
    refused(&["gcbensh"], &["gcbensh", "gcbench", "churn"]);
    refused(&["--plan", "fastest"], &["fastest", "marksweep", "nogc"]);
    refused(&["--plan", "marksweep,fastest"], &["fastest", "nogc"]);
    refused(&["--heap", "huge"], &["huge", "64m", "3x"]);
    refused(&["--heap", "0x"], &["0x", "3x"]);
    refused(&["--metadata", "table"], &["table", "header", "side"]);
    refused(&["--scale", "0"], &["above 0"]);
    refused(&["--workers", "0"], &["1..=64"]);
    refused(&["--sclae", "1"], &["--sclae", "--scale"]);
    let done = clean().args(["bench-child", "{}"]).output().unwrap();
    check_refused(&done, 2, &["workload"]);
}

#[test]
fn help_has_examples_and_names() {
    let help = out(&clean().args(["bench", "--help"]).output().unwrap());
    for word in ["Examples:", "binarytrees", "marksweep", "Exit status"] {
        assert!(help.contains(word), "{word}");
    }
    let all = out(&clean().arg("--help").output().unwrap());
    assert!(all.contains("bench") && !all.contains("bench-child"));
}

#[test]
fn a_line_for_each_run_has_all_that_was_measured() {
    let done = bench("lines")
        .args("--scale 0.002 gcbench --heap 64m --plan marksweep,semispace --json".split(' '))
        .output()
        .unwrap();
    let lines = lines(&done);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["plan"], "marksweep");
    assert_eq!(lines[1]["plan"], "semispace");
    for line in &lines {
        for key in [
            "workload",
            "plan",
            "heap_bytes",
            "workers",
            "mutators",
            "status",
            "wall_s",
            "user_s",
            "sys_s",
            "gc_s",
            "collections",
            "full_collections",
            "allocated_bytes",
            "peak_rss_bytes",
            "checksum",
        ] {
            assert!(!line[key].is_null(), "{key} is not in {line}");
        }
        let pauses = line["pause_ms"].as_object().unwrap();
        for key in ["min", "p50", "p95", "p99", "max"] {
            assert!(pauses.contains_key(key), "{key} is not in {line}");
        }
        assert_eq!(line["status"], "ok");
        assert_eq!(line["heap_bytes"], 64 << 20);
        assert!(line["wall_s"].as_f64().unwrap() > 0.0);
        assert!(line["peak_rss_bytes"].as_u64().unwrap() > 1 << 19);
    }
    assert_eq!(lines[0]["checksum"], lines[1]["checksum"]);
    // No terminal, no bar.
    assert_eq!(err(&done), "");
}

#[test]
fn graphs_are_traced_and_operations_timed() {
    let done = bench("special")
        .args("--scale 0.002 graph lru --heap 256m --plan marksweep --json".split(' '))
        .output()
        .unwrap();
    let lines = lines(&done);
    assert!(lines[0]["trace_ns_per_object"].as_f64().unwrap() > 0.0);
    for key in ["p50", "p99", "p999", "max"] {
        assert!(lines[1]["operation_ns"][key].is_u64(), "{key}");
    }
}

#[test]
fn the_table_has_a_row_for_each_plan() {
    let done = bench("table")
        .args("--scale 0.002 gcbench --heap 64m,128m".split(' '))
        .output()
        .unwrap();
    let text = out(&done);
    for name in plan_names() {
        let rows = text.lines().filter(|l| l.trim_start().starts_with(&name));
        assert!(rows.count() >= 2, "{name} is not twice in\n{text}");
    }
    for part in ["64.0 MiB", "128.0 MiB", "collections", "peak", "Best:"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn iterations_are_interleaved_and_their_medians_shown() {
    let words = "--scale 0.002 gcbench --heap 64m --plan marksweep,nogc --iterations 3";
    let done = bench("iterations")
        .args(words.split(' '))
        .arg("--json")
        .output()
        .unwrap();
    let order: Vec<_> = lines(&done)
        .iter()
        .map(|l| (l["iteration"].as_u64(), l["plan"].to_string()))
        .collect();
    assert_eq!(order.len(), 6);
    for n in 0..3 {
        assert_eq!(order[2 * n], (Some(n as u64 + 1), "\"marksweep\"".into()));
        assert_eq!(order[2 * n + 1], (Some(n as u64 + 1), "\"nogc\"".into()));
    }
    let table = bench("iterations").args(words.split(' ')).output().unwrap();
    assert!(out(&table).contains("medians of 3 runs"));
}

#[test]
fn not_to_fit_is_a_result() {
    let small = |more: &[&str]| {
        bench("small")
            .args("--scale 0.02 binarytrees --heap 128k --plan marksweep".split(' '))
            .args(more)
            .output()
            .unwrap()
    };
    let lines = lines(&small(&["--json"]));
    assert_eq!(lines[0]["status"], "out-of-memory");
    assert!(out(&small(&[])).contains("out of memory"));
}

#[test]
fn little_address_space_is_enough() {
    // Two gibibytes: nothing is reserved but a small multiple of the heap's limit.
    let done = Command::new("sh")
        .arg("-c")
        .arg("ulimit -v 2097152 && exec \"$0\" bench gcbench --plan all --heap 64m --scale 0.05 --workers 2 --json")
        .arg(env!("CARGO_BIN_EXE_heapwright"))
        .env("XDG_CACHE_HOME", cache_directory("ulimit"))
        .output()
        .unwrap();
    let lines = lines(&done);
    assert_eq!(lines.len(), plan_names().len());
    for line in lines {
        let plan = line["plan"].as_str().unwrap().to_owned();
        // PageProtect takes a page for each object, and never uses one again; NoGC never collects.
        let expected = ["pageprotect", "nogc"].contains(&plan.as_str());
        assert!(line["status"] == "ok" || expected, "{line}");
    }
}

#[test]
fn what_takes_too_long_has_failed() {
    let done = bench("timeout")
        .args("alloc --scale 100000 --heap 64m --plan marksweep --timeout 1 --json".split(' '))
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", err(&done));
    let line: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(line["status"], "failed");
    assert!(line["why"].as_str().unwrap().contains("longer than 1 s"));
}

#[test]
fn the_smallest_heap_is_found_and_remembered() {
    let run = |mut command: Command| {
        let words = "--scale 0.002 gcbench --heap 2x,4x --plan marksweep --json";
        lines(&command.args(words.split(' ')).output().unwrap())
    };
    let first = run(bench("smallest"));
    let smallest = first[0]["smallest_heap_bytes"].as_u64().unwrap();
    assert!(smallest > 0);
    assert_eq!(first[0]["heap_bytes"], smallest * 2);
    assert_eq!(first[1]["heap_bytes"], smallest * 4);
    assert_eq!(first[0]["status"], "ok");

    let directory = cache_directory("smallest");
    let file = directory.join("heapwright/smallest-heaps.json");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("gcbench scale=0.002"), "{text}");
    let other = smallest + (1 << 20);
    fs::write(
        &file,
        text.replace(&smallest.to_string(), &other.to_string()),
    )
    .unwrap();
    let again = || {
        let mut command = clean();
        command.arg("bench").env("XDG_CACHE_HOME", &directory);
        command
    };
    assert_eq!(run(again())[0]["smallest_heap_bytes"], other);

    fs::write(&file, "damaged").unwrap();
    assert_eq!(run(again())[0]["status"], "ok");
    // Nowhere to write to.
    let mut nowhere = bench("nowhere");
    nowhere.env("XDG_CACHE_HOME", "/dev/null");
    assert_eq!(run(nowhere)[0]["status"], "ok");
}

#[test]
fn a_signal_ends_it_and_its_child() {
    let mut command = bench("interrupt")
        .args("alloc --scale 100000 --heap 64m --plan marksweep".split(' '))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = command.id();
    let children = format!("/proc/{id}/task/{id}/children");
    let begin = Instant::now();
    let child = loop {
        let text = fs::read_to_string(&children).unwrap_or_default();
        if let Some(child) = text.split_whitespace().next() {
            break child.to_owned();
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "no child");
        std::thread::sleep(Duration::from_millis(10));
    };
    // Not SIGINT: what starts tests in the background may have it ignored, and then the command ignores it too.
    kill(Pid::from_raw(i32::try_from(id).unwrap()), Signal::SIGTERM).unwrap();
    let status = command.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::SIGTERM as i32));
    assert!(!PathBuf::from(format!("/proc/{child}")).exists());
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let mut command = bench("pipe")
        .args("gcbench churn lru --scale 0.002 --heap 256m --plan marksweep --json".split(' '))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(command.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("gcbench"));
    let done = command.wait_with_output().unwrap();
    assert_eq!((done.status.code(), err(&done)), (Some(0), String::new()));
}
