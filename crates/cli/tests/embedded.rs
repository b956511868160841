//! A heap that is embedded answers while it runs, as a program on libgc does: runs of `heapwright bench --listen`. And what is made of samples
//! that a program wrote by itself.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fixtures;

use fixtures::listening::Runtime;
use fixtures::{check_refused, clean, err};
use heapwright_bench::spec::Spec;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The path of a file in a directory.
fn path(directory: &Runtime, name: &str) -> String {
    directory.0.join(name).to_str().unwrap().to_owned()
}

/// A run as `heapwright bench --listen` starts it, but again and again; it ends with the test.
struct Bench(Child);

impl Bench {
    fn start(plan: &str, listen: &str) -> Self {
        let spec = Spec {
            listen: Some(listen.into()),
            iterations: usize::MAX,
            ..Spec::new("binarytrees", plan, 256 << 20)
        };
        let child = clean()
            .args(["bench-child", &serde_json::to_string(&spec).unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What it says, when it does.
fn status(
    directory: &Runtime,
    bench: &mut Bench,
    socket: &str,
    until: impl Fn(&Value) -> bool,
) -> Value {
    let begin = Instant::now();
    loop {
        assert_eq!(bench.0.try_wait().unwrap(), None, "it has ended");
        let done = directory.output(&["top", socket, "--json"]);
        if done.status.success() {
            let status = serde_json::from_slice(&done.stdout).unwrap();
            if until(&status) {
                return status;
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", err(&done));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_run_of_bench_answers() {
    let directory = Runtime::new("answers");
    for plan in ["genimmix", "concurrentimmix"] {
        let socket = path(&directory, plan);
        let mut bench = Bench::start(plan, &socket);
        let first = status(&directory, &mut bench, &socket, |s| {
            s["collections"].as_u64() > Some(2)
        });
        assert_eq!(first["plan"], plan);
        assert!(first["program"].as_str().unwrap().contains("binarytrees"));
        assert_eq!(first["limit_bytes"], 256 << 20);
        for name in ["heap_bytes", "live_bytes", "allocated_bytes", "pause_ns"] {
            assert!(first[name].as_u64() > Some(0), "{name}: {first}");
        }
        let allocated = first["allocated_bytes"].as_u64();
        status(&directory, &mut bench, &socket, |s| {
            s["allocated_bytes"].as_u64() > allocated
        });
        let map = directory.json(&["map", &socket, "--json"]);
        assert!(map["blocks"].as_u64() > Some(100), "{map}");
        let file = path(&directory, "heap.hprof");
        let taken = directory.json(&["dump", &socket, &file, "--json"]);
        assert!(taken["pause_ns"].as_u64() > Some(0));
        assert!(fs::read(&file).unwrap().starts_with(b"JAVA PROFILE"));
        fs::remove_file(&file).unwrap();
        for (file, words) in [
            ("heap.txt", ".heapsnapshot"),
            ("nothing/heap.hprof", "cannot be written"),
        ] {
            let refused = directory.output(&["dump", &socket, &path(&directory, file)]);
            check_refused(&refused, 2, &[words]);
        }
    }
}

#[test]
fn a_run_that_ends_leaves_no_socket_and_one_that_cannot_listen_is_refused() {
    let directory = Runtime::new("ends");
    let bench = |listen: &str| {
        directory.output(&[
            "bench", "list", "--plan", "immix", "--heap", "64m", "--scale", "0.01", listen,
        ])
    };
    let done = bench(&format!("--listen={}", path(&directory, "socket-%p")));
    assert!(done.status.success(), "{}", err(&done));
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 0);
    let refused = bench(&format!("--listen={}", path(&directory, "nothing/socket")));
    check_refused(&refused, 2, &["no such directory"]);
    // What is in the way stays.
    let taken = path(&directory, "file");
    fs::write(&taken, "text").unwrap();
    let failed = bench(&format!("--listen={taken}"));
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&failed.stdout).into_owned();
    assert!(said.contains("in use"), "{said}");
    assert_eq!(fs::read_to_string(&taken).unwrap(), "text");
}

#[test]
fn a_profile_is_made_of_samples() {
    let directory = Runtime::new("samples");
    let (samples, to) = (path(&directory, "samples"), path(&directory, "out.pb.gz"));
    // As a program with an embedded heap writes them; the command's own runs go the same way.
    let spec = Spec {
        scale: 0.05,
        profile: Some(format!("{samples},rate=16k").into()),
        ..Spec::new("binarytrees", "immix", 64 << 20)
    };
    let report = heapwright_bench::run(&spec);
    assert_eq!(report.why, None);
    let done = directory.output(&["profile", &samples, &to]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success() && said.contains(" samples"),
        "{said}{}",
        err(&done)
    );
    assert!(fs::read(&to).unwrap().starts_with(&[0x1f, 0x8b]));
    for (from, words) in [("nothing", "No such file"), ("wrong", "wrong: ")] {
        fs::write(path(&directory, "wrong"), "no samples at all").unwrap();
        let kept = fs::read(&to).unwrap();
        let refused = directory.output(&["profile", &path(&directory, from), &to]);
        check_refused(&refused, 2, &[words]);
        assert_eq!(fs::read(&to).unwrap(), kept);
    }
    assert!(Path::new(&samples).exists());
}
