//! Allocation profiles of a C program and of workloads, read by the messages that others made of pprof's own description.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod fixtures;

use fixtures::{COMMAND, Fixtures, check_refused, clean, err, out};
use flate2::read::GzDecoder;
use pprof::protos::{Function, Location, Message as _, Profile};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;

struct Programs {
    program: String,
    library: String,
}

/// The program, linked with the library that cargo left beside the command, and a library that it loads.
fn programs() -> &'static Programs {
    static BUILT: OnceLock<Programs> = OnceLock::new();
    BUILT.get_or_init(|| {
        let f = Fixtures::get();
        let beside = Path::new(COMMAND).parent().unwrap();
        let age = |p: &PathBuf| fs::metadata(p).and_then(|m| m.modified()).ok();
        let ours = [beside.join("libgc.so"), beside.join("deps/libgc.so")]
            .into_iter()
            .max_by_key(age)
            .unwrap();
        let ours = ours.to_str().unwrap();
        let source = fixtures::source("profiled.c");
        let (program, library) = (f.path("profiled"), f.path("libloaded.so"));
        let common = ["-O1", "-g", "-pthread", &source, ours, "-ldl", "-o"];
        f.cc(&[&common[..], &[&program]].concat());
        f.cc(&[&common[..], &[&library, "-shared", "-fPIC", "-DLIBRARY"]].concat());
        Programs { program, library }
    })
}

fn run(flags: &[&str], arguments: &[&str]) -> Output {
    let mut command = clean();
    command.arg("run").args(flags).arg("--");
    command.arg(&programs().program).args(arguments);
    command.output().unwrap()
}

/// A profile by function names.
struct Seen {
    profile: Profile,
}

impl Seen {
    fn read(file: &Path) -> Self {
        let mut bytes = Vec::new();
        GzDecoder::new(File::open(file).unwrap())
            .read_to_end(&mut bytes)
            .unwrap();
        let profile = Profile::decode(&*bytes).unwrap();
        let seen = Self { profile };
        seen.check();
        seen
    }

    fn text(&self, number: i64) -> &str {
        &self.profile.string_table[usize::try_from(number).unwrap()]
    }

    /// What every reader relies on.
    fn check(&self) {
        let p = &self.profile;
        assert_eq!(p.string_table[0], "");
        let types: Vec<_> = p
            .sample_type
            .iter()
            .map(|t| (self.text(t.ty), self.text(t.unit)))
            .collect();
        assert_eq!(
            types,
            [("alloc_objects", "count"), ("alloc_space", "bytes")]
        );
        let period = p.period_type.as_ref().unwrap();
        assert_eq!(
            (self.text(period.ty), self.text(period.unit)),
            ("space", "bytes")
        );
        assert_eq!(self.text(p.default_sample_type), "alloc_space");
        let locations: HashMap<u64, &Location> = p.location.iter().map(|l| (l.id, l)).collect();
        assert_eq!(locations.len(), p.location.len());
        let functions: HashMap<u64, &Function> = p.function.iter().map(|f| (f.id, f)).collect();
        let mappings: Vec<u64> = p.mapping.iter().map(|m| m.id).collect();
        for sample in &p.sample {
            assert_eq!(sample.value.len(), 2);
            assert!(sample.value.iter().all(|v| *v > 0));
            assert!(!sample.location_id.is_empty());
            assert!(
                sample
                    .location_id
                    .iter()
                    .all(|id| locations.contains_key(id))
            );
        }
        for location in &p.location {
            assert!(location.id != 0 && location.address != 0);
            assert!(location.mapping_id == 0 || mappings.contains(&location.mapping_id));
            assert!(
                location
                    .line
                    .iter()
                    .all(|l| functions.contains_key(&l.function_id))
            );
        }
        for mapping in &p.mapping {
            assert!(mapping.memory_start < mapping.memory_limit);
        }
    }

    fn function(&self, id: u64) -> &Function {
        self.profile.function.iter().find(|f| f.id == id).unwrap()
    }

    /// The names of a location's functions, what is inlined first.
    fn names(&self, id: u64) -> Vec<&str> {
        let location = self.profile.location.iter().find(|l| l.id == id).unwrap();
        let name = |l: &pprof::protos::Line| self.text(self.function(l.function_id).name);
        location.line.iter().map(name).collect()
    }

    /// Bytes by the function that allocated them, the most first.
    fn top(&self) -> Vec<(String, f64)> {
        let mut sums: HashMap<String, f64> = HashMap::new();
        for sample in &self.profile.sample {
            let names = self.names(sample.location_id[0]);
            let name = names.first().copied().unwrap_or("?").to_owned();
            *sums.entry(name).or_default() += sample.value[1] as f64;
        }
        let mut top: Vec<_> = sums.into_iter().collect();
        top.sort_by(|a, b| b.1.total_cmp(&a.1));
        top
    }

    fn bytes(&self) -> f64 {
        self.profile.sample.iter().map(|s| s.value[1] as f64).sum()
    }

    /// The values of a label.
    fn labels(&self, key: &str) -> Vec<String> {
        let labels = self.profile.sample.iter().flat_map(|s| &s.label);
        let mut all: Vec<String> = labels
            .filter(|l| self.text(l.key) == key)
            .map(|l| self.text(l.str).to_owned())
            .collect();
        all.sort();
        all.dedup();
        all
    }
}

fn file(name: &str) -> PathBuf {
    let file = Fixtures::get().dir.join(name);
    let _ = fs::remove_file(&file);
    file
}

/// How many samples were taken, as the command says.
fn samples(done: &Output) -> f64 {
    let said = err(done);
    let words = said
        .lines()
        .find_map(|l| l.strip_prefix("heapwright: profile: "));
    let count = words.unwrap_or_else(|| panic!("{said}")).split(' ').next();
    count.unwrap().parse().unwrap()
}

/// Runs the program, and checks that the estimate is as near to the truth as the number of samples promises.
fn profile(name: &str, flags: &[&str], arguments: &[&str]) -> (Seen, f64) {
    let file = file(name);
    let flags = [
        &["--profile", file.to_str().unwrap(), "--profile-rate", "16k"],
        flags,
    ]
    .concat();
    let done = run(&flags, arguments);
    let truth: f64 = out(&done)
        .trim()
        .lines()
        .next_back()
        .unwrap()
        .parse()
        .unwrap();
    let seen = Seen::read(&file);
    let (samples, estimate) = (samples(&done), seen.bytes());
    assert!(samples >= 100.0, "{samples}");
    // The standard error is about 1 in the root of their number, somewhat more where the rate has changed.
    let within = 7.0 / samples.sqrt();
    assert!(
        (estimate / truth - 1.0).abs() < within,
        "{estimate} {truth} {samples}"
    );
    (seen, samples)
}

#[test]
fn the_function_that_allocates_most_is_on_top() {
    let (seen, samples) = profile("plain.pb.gz", &[], &["plain"]);
    let top = seen.top();
    assert_eq!(top[0].0, "hot", "{top:?}");
    let share = top[0].1 / seen.bytes();
    // 320 of 384 bytes, and 5 for the large ones.
    assert!((share - 0.82).abs() < 5.0 / samples.sqrt(), "{share}");
    assert_eq!(top[1].0, "warm", "{top:?}");
    let hot = seen
        .profile
        .function
        .iter()
        .find(|f| seen.text(f.name) == "hot")
        .unwrap();
    assert!(seen.text(hot.filename).ends_with("profiled.c"));
    assert!(seen.profile.location.iter().any(|l| {
        l.line
            .iter()
            .any(|l| l.function_id == hot.id && l.line > 20)
    }));
    // Up to the beginning.
    let whole = seen.profile.sample.iter().filter(|s| {
        let names: Vec<&str> = s
            .location_id
            .iter()
            .flat_map(|id| seen.names(*id))
            .collect();
        names.contains(&"work") && names.contains(&"main")
    });
    assert_eq!(whole.count(), seen.profile.sample.len());
    assert_eq!(seen.labels("kind"), ["atomic", "normal"]);
    assert_eq!(seen.profile.period, 16 << 10);
    let mapping = &seen.profile.mapping[0];
    assert!(seen.text(mapping.filename).ends_with("/profiled"));
    let build = seen.text(mapping.build_id);
    assert!(build.is_empty() || build.len() >= 16, "{build}");
    assert!(
        seen.profile
            .mapping
            .iter()
            .all(|m| !seen.text(m.filename).contains("libgc"))
    );
}

#[test]
fn threads_children_and_libraries_that_come_later_are_seen() {
    let (seen, _) = profile("threads.pb.gz", &[], &["threads", "70000"]);
    assert_eq!(seen.top()[0].0, "hot");
    let (seen, _) = profile(
        "loaded.pb.gz",
        &[],
        &["loaded", "200000", &programs().library],
    );
    assert_eq!(seen.top()[0].0, "loaded", "{:?}", seen.top());
    // The parent says what it allocated; its child did half of that once more.
    let file = file("fork.pb.gz");
    let done = run(
        &["--profile", file.to_str().unwrap(), "--profile-rate", "16k"],
        &["fork"],
    );
    let _ = out(&done);
    let seen = Seen::read(&file);
    let processes = seen.labels("process");
    assert_eq!(processes.len(), 2, "{processes:?}");
    assert!(processes.iter().all(|p| p.starts_with("profiled [")));
    assert_eq!(seen.top()[0].0, "hot");
}

#[test]
fn what_a_killed_program_did_is_there() {
    let file = file("killed.pb.gz");
    let done = run(
        &["--profile", file.to_str().unwrap(), "--profile-rate", "16k"],
        &["killed"],
    );
    assert_eq!(done.status.code(), None, "{}", err(&done));
    assert_eq!(Seen::read(&file).top()[0].0, "hot");
}

#[test]
fn a_program_does_not_notice_a_full_disk_or_that_it_closed_the_file() {
    let plain = out(&run(&[], &["plain", "20000"]));
    let mut full = clean();
    full.args(["run", "--", &programs().program, "plain", "20000"])
        .env("HEAPWRIGHT_PROFILE", "/dev/full,rate=1k");
    assert_eq!(out(&full.output().unwrap()), plain);
    // The numbers of files that it closed are those of files that it opens.
    let (own, profile) = (file("own"), file("closed.pb.gz"));
    let flags = [
        "--profile",
        profile.to_str().unwrap(),
        "--profile-rate",
        "1k",
    ];
    let done = run(&flags, &["closed", "50000", own.to_str().unwrap()]);
    assert!(out(&done).starts_with("0 bytes of others\n"));
    assert_eq!(fs::metadata(&own).unwrap().len(), 0);
    assert!(err(&done).contains("more were lost") || samples(&done) > 0.0);
}

#[test]
fn the_raw_file_is_bounded_and_may_be_asked_for_by_hand() {
    let raw = file("by-hand");
    let mut command = clean();
    let value = format!("{},rate=1k,limit=64k", raw.display());
    command
        .args(["run", "--", &programs().program, "plain"])
        .env("HEAPWRIGHT_PROFILE", value);
    let _ = out(&command.output().unwrap());
    let length = fs::metadata(&raw).unwrap().len();
    assert!((20 << 10..66 << 10).contains(&length), "{length}");
}

#[test]
fn what_cannot_be_written_is_said_before_the_run() {
    let touched = file("touched");
    let done = run(
        &["--profile", "/nonexistent/x.pb.gz"],
        &["closed", "1", touched.to_str().unwrap()],
    );
    check_refused(&done, 125, &["--profile", "/nonexistent/x.pb.gz"]);
    assert!(!touched.exists());
    let file = file("rate.pb.gz");
    let flags = [
        "--profile",
        file.to_str().unwrap(),
        "--profile-rate",
        "often",
    ];
    check_refused(&run(&flags, &[]), 2, &["--profile-rate", "64k"]);
    let done = run(&["--profile-rate", "1m"], &[]);
    assert!(!done.status.success() && err(&done).contains("--profile"));
    let mut command = clean();
    command.args(["run", "--", &programs().program]);
    let done = command
        .env("HEAPWRIGHT_PROFILE", "x,rate=0")
        .output()
        .unwrap();
    check_refused(&done, 2, &["HEAPWRIGHT_PROFILE", "rate=0"]);
}

#[test]
fn json_stays_one_line() {
    let file = file("json.pb.gz");
    let done = run(
        &["--json", "--profile", file.to_str().unwrap()],
        &["plain", "1000"],
    );
    let _ = out(&done);
    assert_eq!(err(&done).lines().count(), 1, "{}", err(&done));
    let _ = Seen::read(&file);
}

#[test]
fn workloads_of_the_embedded_machine_can_be_profiled() {
    let file = file("bench.pb.gz");
    let mut command = clean();
    command.args([
        "bench",
        "strings",
        "--plan",
        "immix,marksweep",
        "--heap",
        "64m",
        "--scale",
        "0.05",
        "--profile",
    ]);
    command.arg(&file).args(["--profile-rate", "16k"]);
    let done = command.output().unwrap();
    let _ = out(&done);
    assert!(samples(&done) > 50.0);
    let seen = Seen::read(&file);
    let processes = seen.labels("process");
    assert_eq!(processes.len(), 2, "{processes:?}");
    assert!(
        processes
            .iter()
            .any(|p| p.starts_with("strings on immix ["))
    );
    let top = seen.top();
    let file_of = |name: &str| {
        let function = seen
            .profile
            .function
            .iter()
            .find(|f| seen.text(f.name) == name);
        seen.text(function.unwrap().filename).to_owned()
    };
    // Functions of the workload, not of the heap.
    assert!(
        file_of(&top[0].0).ends_with("workload/strings.rs"),
        "{top:?}"
    );
}
