//! The instruments of an embedded heap. `crates/capi/tests/watch.c` and `crates/cli/tests/embedded.rs` have them in use.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use heapwright::Heap;
use heapwright::example::{Pairs, push};
use heapwright_observe::{InstrumentError, Instruments, Wanted, Watching};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A name of its own in the directory for such, short enough for a socket.
fn place(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("hw-{}-{name}", std::process::id()))
}

fn watched(settings: &[(&str, &Path)]) -> Result<(Heap<Pairs>, Watching<Pairs>), InstrumentError> {
    let mut wanted = Wanted::default();
    for (name, value) in settings {
        wanted.set(name, value.as_os_str())?;
    }
    let options = Pairs::options("immix").unwrap();
    let instruments = Instruments::begin(&wanted, "test", &options)?;
    let heap = Heap::<Pairs>::builder()
        .options(options)
        .listener(Box::new(instruments.listener()))
        .build(Pairs)
        .unwrap();
    let watching = instruments.watch(&heap)?;
    Ok((heap, watching))
}

fn send(socket: &Path, request: &str) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(socket).unwrap();
    writeln!(stream, "{request}").unwrap();
    BufReader::new(stream)
}

fn answer(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line
}

/// The server waits for a mutator to stop, whose thread ends the server.
#[test]
fn who_ends_it_does_not_wait_for_a_dump_that_waits_for_it() {
    let (socket, file) = (place("parting"), place("parting.hprof"));
    let (heap, watching) = watched(&[("listen", &socket)]).unwrap();
    let mut mutator = heap.attach(Vec::new()).unwrap();
    push(&mut mutator, 1).unwrap();
    let mut client = send(&socket, &format!("dump {}", file.display()));
    // Until it is written in part it has another name.
    let begin = Instant::now();
    let begun = || {
        let entries = std::fs::read_dir(std::env::temp_dir()).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        entries
            .flatten()
            .any(|e| e.file_name().to_str().is_some_and(|n| n.starts_with(&name)))
    };
    while !begun() {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(watching);
    assert!(!socket.exists());
    // The dump is taken when the mutator stops, and whoever asked for it hears of that.
    mutator.outside(|| {
        assert!(answer(&mut client).contains("\"type\":\"dump\""));
    });
    assert!(std::fs::read(&file).unwrap().starts_with(b"JAVA PROFILE"));
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn two_heaps_cannot_have_one_socket_and_the_first_goes_on() {
    let (socket, record) = (place("two"), place("two.jsonl"));
    let (heap, watching) = watched(&[("listen", &socket), ("record", &record)]).unwrap();
    let written = || std::fs::read_to_string(&record).unwrap();
    let before = written();
    let refused = watched(&[("listen", &socket), ("record", &record)]).unwrap_err();
    assert!(
        matches!(refused, InstrumentError::Open("listen", ..)),
        "{refused}"
    );
    assert_eq!(written(), before);
    let status = answer(&mut send(&socket, "status"));
    assert!(status.contains("\"program\":\"test\""), "{status}");
    drop((watching, heap));
    assert!(written().contains("\"type\":\"end\""));
    std::fs::remove_file(&record).unwrap();
    // The place is free again.
    drop(watched(&[("listen", &socket)]).unwrap());
    assert!(!socket.exists());
}

#[test]
fn what_is_wrong_is_said() {
    for (name, value, words) in [
        ("telescope", "1", "log, record, listen, profile, dump"),
        ("log", "", "stderr or a file"),
        ("record", "", "a file is wanted"),
        ("listen", "", "1 or a path"),
        ("profile", "x,rate=0", "rate"),
        ("dump", "exit=x.hprof", "oom=FILE"),
        ("dump", "oom=x.txt", ".heapsnapshot"),
        ("record", "/nonexistent/file", "record: /nonexistent/file"),
        ("log", "gc=/nonexistent/log", "log: /nonexistent/log"),
        (
            "listen",
            "/nonexistent/socket",
            "listen: /nonexistent/socket",
        ),
        (
            "profile",
            "/nonexistent/samples",
            "profile: /nonexistent/samples",
        ),
    ] {
        let refused = watched(&[(name, Path::new(value))])
            .map(|_| ())
            .unwrap_err();
        assert!(
            refused.to_string().contains(words),
            "{name} {value}: {refused}"
        );
    }
}
