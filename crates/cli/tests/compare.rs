//! `heapwright compare` from outside, with a command that stands for the peers: mmtk takes minutes to build.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod fixtures;

use fixtures::{check_refused, clean, err, out};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory of its own, empty at first.
fn directory(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("compare-{name}"));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// Peers that answer with a checksum that is given, after they noted what they were told.
fn peers(directory: &Path, checksum: &str) -> PathBuf {
    let file = directory.join("peers");
    let log = directory.join("told");
    let line = r#"{\"status\": \"ok\", \"why\": null, \"wall_s\": 2.5, \"user_s\": 2.0, \"sys_s\": 0.5, \"gc_s\": 1.0, \"collections\": 3, \"pause_ms\": {\"max\": 4.5}, \"peak_rss_bytes\": 1048576, \"checksum\": \"SUM\"}"#;
    let script = format!(
        "#!/bin/sh\n\
         if [ \"$1\" = --list ]; then printf 'peers:\\n  mmtk-immix\\n  boehm\\n  malloc\\nworkloads:\\n  gcbench  trees\\n'; exit; fi\n\
         echo \"$@\" >> {}\n\
         case \"$3\" in boehm) echo broken >&2; exit 3;; esac\n\
         echo \"{}\"\n",
        log.display(),
        line.replace("SUM", checksum)
    );
    // By another process: a child that is forked meanwhile would hold the file open for writing.
    let source = directory.join("script");
    fs::write(&source, script).unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o755)).unwrap();
    let copied = Command::new("cp")
        .arg("-p")
        .arg(&source)
        .arg(&file)
        .status();
    assert!(copied.unwrap().success());
    file
}

fn compare(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = clean();
    command
        .arg("compare")
        .args(arguments)
        .env("XDG_CACHE_HOME", directory);
    command.output().unwrap()
}

/// The checksum that our plans come to.
fn right(directory: &Path) -> String {
    let done = compare(
        directory,
        &[
            "gcbench", "--scale", "0.02", "--with", "immix", "--heap", "32m", "--runs", "1",
            "--json",
        ],
    );
    assert_eq!(done.status.code(), Some(0), "{}", err(&done));
    let all: Value = serde_json::from_str(&out(&done)).unwrap();
    all["cells"][0]["runs"][0]["checksum"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn ours_and_peers_take_turns_and_the_raw_data_make_the_same_page_again() {
    let dir = directory("turns");
    let peers = peers(&dir, &right(&dir));
    let (raw, page) = (dir.join("raw.json"), dir.join("page.md"));
    let [peers, raw, page] = [&peers, &raw, &page].map(|p| p.to_str().unwrap().to_owned());
    let arguments = [
        "gcbench",
        "--scale",
        "0.02",
        "--with",
        "immix,mmtk-immix,malloc",
        "--heap",
        "32m,64m",
        "--runs",
        "2",
        "--seed",
        "1",
        "--workers",
        "2",
        "--peers",
        &peers,
        "--raw",
        &raw,
        "--markdown",
        &page,
    ];
    let done = compare(&dir, &arguments);
    assert_eq!(done.status.code(), Some(0), "{}", err(&done));
    assert_eq!(out(&done), "");
    let all: Value = serde_json::from_str(&fs::read_to_string(&raw).unwrap()).unwrap();
    let ran = |cell: usize| -> Vec<String> {
        let runs = all["cells"][cell]["runs"].as_array().unwrap();
        let name = |r: &Value| format!("{} {}", r["contestant"].as_str().unwrap(), r["turn"]);
        runs.iter().map(name).collect()
    };
    assert_eq!(
        ran(0),
        [
            "immix 1",
            "mmtk-immix 1",
            "malloc 1",
            "immix 2",
            "mmtk-immix 2",
            "malloc 2"
        ]
    );
    // malloc has no heap: the second one would be the same again.
    assert_eq!(
        ran(1),
        ["immix 1", "mmtk-immix 1", "immix 2", "mmtk-immix 2"]
    );
    assert!(all["machine"]["processors"].as_u64().unwrap() > 0);
    assert!(all["date"].as_str().unwrap().starts_with("20"));
    let told = fs::read_to_string(dir.join("told")).unwrap();
    assert_eq!(
        told.lines().next().unwrap(),
        "gcbench --peer mmtk-immix --heap 33554432 --workers 2 --mutators 1 --scale 0.02 --seed 1"
    );
    let text = fs::read_to_string(&page).unwrap();
    for words in [
        "heapwright compare gcbench --scale 0.02",
        "## gcbench in 32.0 MiB (32m)",
        "| mmtk-immix | 2.50 (2.50-2.50) |",
        "| immix : mmtk-immix |",
        "## Where we lose",
        "peak MiB: our best is immix with",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let again = dir.join("again.md");
    let done = compare(
        &dir,
        &["--from", &raw, "--markdown", again.to_str().unwrap()],
    );
    assert_eq!(done.status.code(), Some(0), "{}", err(&done));
    assert_eq!(fs::read_to_string(&again).unwrap(), text);
}

#[test]
fn a_peer_that_fails_is_not_run_again_and_a_wrong_answer_is_seen() {
    let dir = directory("fails");
    let peers = peers(&dir, "0123456789abcdef");
    let done = compare(
        &dir,
        &[
            "gcbench",
            "--scale",
            "0.02",
            "--with",
            "immix,stickyimmix,boehm,mmtk-immix",
            "--heap",
            "32m",
            "--runs",
            "3",
            "--peers",
            peers.to_str().unwrap(),
        ],
    );
    assert_eq!(done.status.code(), Some(1));
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    assert!(
        text.contains("| boehm | FAILED: exit status: 3: broken |"),
        "{text}"
    );
    assert!(
        text.contains("| mmtk-immix | WRONG: checksum 0123456789abcdef"),
        "{text}"
    );
    let told = fs::read_to_string(dir.join("told")).unwrap();
    assert_eq!(told.lines().filter(|l| l.contains("boehm")).count(), 1);
}

#[test]
fn what_cannot_be_is_refused_before_anything_runs() {
    let dir = directory("refused");
    let nowhere = dir.join("none");
    let nowhere = nowhere.to_str().unwrap();
    let refused = |arguments: &[&str], words: &[&str]| {
        check_refused(&compare(&dir, arguments), 2, words);
    };
    refused(
        &["--peers", nowhere],
        &[
            nowhere,
            "cargo build --release --manifest-path peers/Cargo.toml",
        ],
    );
    refused(
        &["gcbench", "--with", "hoard", "--peers", nowhere],
        &["there is no"],
    );
    refused(&["gcbensh", "--with", "immix"], &["gcbensh", "gcbench"]);
    refused(
        &["gcbench", "--with", "immix", "--heap", "0"],
        &["need a limit"],
    );
    refused(
        &["gcbench", "--with", "immix", "--raw", "/nowhere/x"],
        &["/nowhere/x", "written"],
    );
    refused(
        &["gcbench", "--with", "immix", "--markdown", "/nowhere/x"],
        &["/nowhere/x"],
    );
    refused(&["--from", nowhere], &[nowhere, "No such file"]);
    let broken = dir.join("broken");
    fs::write(&broken, "{").unwrap();
    refused(&["--from", broken.to_str().unwrap()], &["broken", "EOF"]);
}

#[test]
fn a_full_disk_is_said_and_costs_no_file() {
    let dir = directory("full");
    let done = compare(
        &dir,
        &[
            "gcbench",
            "--scale",
            "0.02",
            "--with",
            "immix",
            "--heap",
            "32m",
            "--runs",
            "1",
            "--raw",
            "/dev/full",
        ],
    );
    assert_eq!(done.status.code(), Some(125), "{}", err(&done));
    assert!(err(&done).contains("/dev/full"));
    assert!(Path::new("/dev/full").exists());
}

#[test]
fn the_page_of_results_is_that_of_the_raw_data() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");
    let page = format!("{}/results.md", env!("CARGO_TARGET_TMPDIR"));
    let done = clean()
        .args(["compare", "--from", &format!("{docs}/results.json")])
        .args(["--markdown", &page])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", err(&done));
    let made = fs::read_to_string(&page).unwrap();
    assert!(made == fs::read_to_string(format!("{docs}/results.md")).unwrap());
}

#[test]
fn a_workload_may_have_a_scale_of_its_own() {
    let dir = directory("scales");
    let done = compare(
        &dir,
        &[
            "gcbench:0.02,list",
            "--scale",
            "0.01",
            "--with",
            "immix",
            "--heap",
            "32m",
            "--runs",
            "1",
            "--json",
        ],
    );
    assert_eq!(done.status.code(), Some(0), "{}", err(&done));
    let all: Value = serde_json::from_str(&out(&done)).unwrap();
    let scales = all["cells"].as_array().unwrap();
    let scales: Vec<_> = scales
        .iter()
        .map(|c| (&c["workload"], &c["scale"]))
        .collect();
    assert_eq!(
        scales,
        [
            (&"gcbench".into(), &0.02.into()),
            (&"list".into(), &0.01.into())
        ]
    );
    for (wrong, words) in [("gcbench:much", "gcbench:much"), ("nothing:2", "nothing")] {
        let refused = compare(&dir, &[wrong, "--with", "immix"]);
        check_refused(&refused, 2, &[words]);
    }
}
