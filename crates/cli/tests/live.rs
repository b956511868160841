//! `heapwright run --listen`, `top` and `map` from outside: what a process on our libgc answers, whatever its clients do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod fixtures;

use fixtures::err;
use fixtures::listening::{Running, Runtime, program};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream
}

fn ask(stream: &mut BufReader<UnixStream>, request: &str) -> Value {
    stream
        .get_mut()
        .write_all(format!("{request}\n").as_bytes())
        .unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn collections_are_seen_as_they_come() {
    let runtime = Runtime::new("seen");
    let mut running = Running::start(&runtime, &["--listen"]);
    let pid = running.pid();
    let look = || runtime.json(&["top", "--once", "--json", &pid]);
    let first = look();
    assert_eq!(first["pid"].to_string(), pid);
    assert_eq!(
        (&first["plan"], &first["version"]),
        (&"marksweep".into(), &1.into())
    );
    running.tell("work");
    let second = look();
    for field in ["collections", "allocated_bytes", "at_ns", "process_cpu_ns"] {
        assert!(
            second[field].as_u64() > first[field].as_u64(),
            "{field}: {second}"
        );
    }
    let number = |v: &Value| v.as_u64().unwrap();
    let last = &second["last"][0];
    assert_eq!(last["number"], second["collections"]);
    assert!(number(&second["pauses"]["max_ns"]) >= number(&last["pause_ns"]));
    assert!(number(&second["heap_bytes"]) >= number(&second["free_bytes"]));
    assert_eq!(
        number(&second["causes"]["budget"]),
        number(&second["collections"])
    );
    // The only one is found without its number; a stdout that is no terminal gets it once.
    let done = runtime.output(&["top"]);
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(
        text.contains(&format!("listens (process {pid}), marksweep")),
        "{text}"
    );
    assert!(text.contains("budget"), "{text}");
    running.exit();
    assert!(runtime.sockets().is_empty());
}

#[test]
fn a_map_shows_what_is_used() {
    let runtime = Runtime::new("map");
    let mut running = Running::start(&runtime, &["--listen"]);
    running.tell("work");
    let pid = running.pid();
    let map = runtime.json(&["map", &pid, "--json"]);
    let spaces = map["space"].as_str().unwrap();
    assert!(spaces.matches('c').count() > 5, "{map}");
    assert_eq!(map["blocks"].as_u64().unwrap(), spaces.len() as u64);
    let snapshot = runtime.0.join("now.json");
    fs::write(&snapshot, map.to_string()).unwrap();
    for (source, colour) in [
        (pid.as_str(), "space"),
        (snapshot.to_str().unwrap(), "used"),
    ] {
        let done = runtime.output(&["map", source, "--colour", colour]);
        let text = String::from_utf8(done.stdout.clone()).unwrap();
        assert!(text.contains("collections, at"), "{text}{}", err(&done));
    }
    runtime.refused(&["map", program()], &["no picture of a heap"]);
    running.exit();
}

#[test]
fn a_recording_is_a_movie() {
    let runtime = Runtime::new("movie");
    let record = runtime.0.join("run.jsonl");
    let page = runtime.0.join("map.html");
    let [file, page] = [&record, &page].map(|p| p.to_str().unwrap().to_owned());
    // The command waits for it, and ends as it ends.
    let mut running = Running::start(&runtime, &["--record", &file]);
    (0..3).for_each(|_| drop(running.tell("work")));
    running.exit();
    let done = runtime.output(&["map", &file, "--json", "--html", &page]);
    let lines = String::from_utf8(done.stdout.clone()).unwrap();
    let pictures: Vec<Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert!(pictures.len() >= 4, "{lines}{}", err(&done));
    for pair in pictures.chunks(2) {
        assert_eq!(
            (&pair[0]["when"], &pair[1]["when"]),
            (&"before".into(), &"after".into())
        );
        assert_eq!(pair[0]["number"], pair[1]["number"]);
    }
    // What a collection leaves is less full than what it found.
    let fullness = |p: &Value| {
        let digits = heapwright_observe::picture::DIGITS;
        let used = p["used"].as_str().unwrap().bytes();
        used.map(|b| digits.iter().position(|d| *d == b).unwrap())
            .sum::<usize>()
    };
    assert!(fullness(&pictures[0]) > fullness(&pictures[1]), "{lines}");
    let html = fs::read_to_string(&page).unwrap();
    assert_eq!(
        html.matches("\"when\":\"after\"").count(),
        pictures.len() / 2
    );
}

#[test]
fn a_collection_and_a_dump_can_be_asked_for() {
    let runtime = Runtime::new("asked");
    let mut running = Running::start(&runtime, &["--listen"]);
    running.tell("work");
    let mut stream = BufReader::new(connect(&runtime.sockets()[0]));
    assert_eq!(ask(&mut stream, "collect")["type"], "collect");
    running.tell("work");
    let status = ask(&mut stream, "status");
    assert_eq!(status["causes"]["requested"], 1, "{status}");
    let dump = runtime.0.join("heap.hprof");
    let answer = ask(&mut stream, &format!("dump {}", dump.display()));
    assert_eq!(answer["type"], "dump", "{answer}");
    assert!(fs::read(&dump).unwrap().starts_with(b"JAVA PROFILE"));
    for (request, word) in [
        ("dump heap.hprof", "absolute"),
        ("dump /nonexistent/heap.hprof", "No such file"),
        ("dump /tmp/heap.txt", "hprof"),
        ("", "requests are"),
        ("status now", "requests are"),
    ] {
        let answer = ask(&mut stream, request);
        assert_eq!(answer["type"], "error");
        assert!(answer["text"].as_str().unwrap().contains(word), "{answer}");
    }
    running.exit();
}

#[test]
fn clients_that_misbehave_are_hung_up_on() {
    let runtime = Runtime::new("garbage");
    let mut running = Running::start(&runtime, &["--listen"]);
    let socket = runtime.sockets().remove(0);
    // A line that never ends.
    let mut endless = connect(&socket);
    let garbage = [0xffu8; 1000];
    assert!((0..10_000).any(|_| endless.write_all(&garbage).is_err()));
    // One that asks and does not read.
    let mut deaf = connect(&socket);
    deaf.set_write_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    assert!((0..1_000_000).any(|_| deaf.write_all(b"map\nstatus\n").is_err()));
    // More than there are places: the last are heard.
    let silent: Vec<UnixStream> = (0..30).map(|_| connect(&socket)).collect();
    let mut stream = BufReader::new(connect(&socket));
    assert_eq!(ask(&mut stream, "status")["type"], "status");
    running.tell("work");
    let open: usize = running.tell("sockets")[0].parse().unwrap();
    // Its own and eight clients'.
    assert!(open <= 9, "{open}");
    assert!(ask(&mut stream, "status")["collections"].as_u64() > Some(0));
    drop(silent);
    running.exit();
}

#[test]
fn the_child_of_a_fork_does_not_listen_and_leaves_the_socket() {
    let runtime = Runtime::new("fork");
    let mut running = Running::start(&runtime, &["--listen"]);
    let mut stream = BufReader::new(connect(&runtime.sockets()[0]));
    assert_eq!(ask(&mut stream, "status")["type"], "status");
    assert_eq!(running.tell("sockets"), ["2"]);
    // The child collects, too, and ends in order.
    assert_eq!(running.tell("fork"), ["0"]);
    assert_eq!(ask(&mut stream, "status")["type"], "status");
    assert_eq!(runtime.sockets().len(), 1);
    runtime.json(&["top", "--json", &running.pid()]);
    running.exit();
}

#[test]
fn a_program_ends_while_somebody_listens() {
    let runtime = Runtime::new("ends");
    let running = Running::start(&runtime, &["--listen"]);
    let mut stream = BufReader::new(connect(&runtime.sockets()[0]));
    assert_eq!(ask(&mut stream, "status")["type"], "status");
    let begun = Instant::now();
    running.exit();
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert!(runtime.sockets().is_empty());
}

#[test]
fn who_does_not_listen_is_named_and_what_is_stale_goes() {
    let runtime = Runtime::new("stale");
    runtime.refused(&["top"], &["no process listens", "heapwright run --listen"]);
    runtime.refused(&["map"], &["no process listens"]);
    let mut running = Running::start(&runtime, &["--listen"]);
    let pid = running.pid();
    let other = Running::start(&runtime, &["--listen"]);
    runtime.refused(&["top"], &["several processes", &pid, &other.pid()]);
    drop(other);
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    assert_eq!(runtime.sockets().len(), 2);
    runtime.refused(&["top", &pid], &["there is no process", &pid]);
    assert_eq!(runtime.sockets().len(), 1);
    runtime.refused(&["top"], &["no process listens"]);
    assert!(runtime.sockets().is_empty());
    let own = std::process::id().to_string();
    runtime.refused(
        &["top", &own],
        &["does not listen", "heapwright run --listen"],
    );
    runtime.refused(&["top", "/nonexistent.sock"], &["/nonexistent.sock"]);
    runtime.refused(&["top", &own, "--interval", "0"], &["0.05"]);
}

#[test]
fn a_socket_may_be_where_it_is_wanted_and_replaces_a_stale_one() {
    let runtime = Runtime::new("path");
    let path = runtime.0.join("here.sock");
    let flag = format!("--listen={}", path.display());
    for _ in 0..2 {
        let mut running = Running::start(&runtime, &[&flag]);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        runtime.json(&["top", "--json", path.to_str().unwrap()]);
        running.tell("work");
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        assert!(path.exists());
        runtime.refused(&["top", path.to_str().unwrap()], &["nobody listens there"]);
    }
    // What is no socket stays, and the program runs.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    Running::start(&runtime, &[&flag]).exit();
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    let long = format!("--listen=/{}", "x".repeat(200));
    runtime.refused(&["run", &long, "--", program()], &["107 bytes"]);
    runtime.refused(
        &["run", "--listen=/nonexistent/a.sock", "--", program()],
        &["no such directory"],
    );
}

#[test]
fn a_directory_that_others_may_use_is_refused() {
    let runtime = Runtime::new("open");
    let directory = runtime.0.join("heapwright");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    runtime.refused(&["run", "--listen", "--", program()], &["0700"]);
    // Nor does the library use it by itself, and the program runs.
    let lib = runtime
        .command(&["run", "--", program()])
        .env("HEAPWRIGHT_LISTEN", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(lib.status.code(), Some(1));
    assert!(runtime.sockets().is_empty());
}
