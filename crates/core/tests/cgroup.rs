//! A heap in a real control group with a limit, where the machine lets a test make one. Elsewhere the test says so, and
//! `sizing.rs` has the same with simulated files.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod lists;

use heapwright::{AllocError, Mutator, PlanName};
use lists::{COLLECTING, Lists, heap, length, push};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs, io};

const DIRECTORY: &str = "HEAPWRIGHT_TEST_GROUP";
const MIB: usize = 1 << 20;

/// A group with a limit and one in it without, which are removed with it.
struct Group {
    outer: PathBuf,
    version: u8,
}

impl Group {
    /// Below the group that this process is in.
    fn new(limit: usize) -> io::Result<Self> {
        let mine = fs::read_to_string("/proc/self/cgroup")?;
        let path = |line: &str| {
            line.rsplit(':')
                .next()
                .unwrap_or("/")
                .trim_start_matches('/')
                .to_owned()
        };
        let v1 = mine.lines().find(|l| {
            l.split(':')
                .nth(1)
                .is_some_and(|c| c.split(',').any(|c| c == "memory"))
        });
        let (top, path, version) = match v1 {
            Some(line) => ("/sys/fs/cgroup/memory", path(line), 1),
            None => {
                let line = mine.lines().find(|l| l.starts_with("0::"));
                ("/sys/fs/cgroup", path(line.unwrap_or("0::/")), 2)
            }
        };
        let outer = Path::new(top)
            .join(path)
            .join(format!("heapwright-test-{}", std::process::id()));
        fs::create_dir(&outer)?;
        let group = Self { outer, version };
        if version == 2 {
            // Its parent hands out the controller, or there is none in it.
            fs::write(group.outer.join("cgroup.subtree_control"), "+memory")?;
        }
        fs::create_dir(group.inner())?;
        set_limit(&group.outer, limit)?;
        Ok(group)
    }

    fn inner(&self) -> PathBuf {
        self.outer.join("inner")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The child has ended; the system may take a moment to notice.
        for _ in 0..100 {
            let _ = fs::remove_dir(self.inner());
            if fs::remove_dir(&self.outer).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn limit_file(group: &Path) -> PathBuf {
    ["memory.max", "memory.limit_in_bytes"]
        .map(|name| group.join(name))
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| group.join("memory.max"))
}

fn set_limit(group: &Path, bytes: usize) -> io::Result<()> {
    fs::write(limit_file(group), bytes.to_string())
}

#[test]
fn a_heap_keeps_within_a_real_group() {
    let group = match Group::new(256 * MIB) {
        Ok(group) => group,
        Err(e) => {
            eprintln!("no control group can be made here ({e}): only the simulated one was tested");
            return;
        }
    };
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "inside_of_the_group", "--nocapture"])
        .env(DIRECTORY, group.inner())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr).into_owned();
    eprintln!("version {}\n{said}", group.version);
    assert!(child.status.success(), "{}: {said}", child.status);
    assert!(said.contains("in the group"), "{said}");
}

fn fill(mutator: &mut Mutator<Lists>, plan: PlanName) -> Result<(), AllocError> {
    let words = if plan == PlanName::PageProtect {
        30_000
    } else {
        500
    };
    loop {
        push(mutator, 0, words)?;
    }
}

/// What the other test runs in a process that it puts into the group.
#[test]
fn inside_of_the_group() {
    let Some(inner) = env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    fs::write(inner.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    let outer = inner.parent().unwrap();
    for plan in COLLECTING {
        set_limit(outer, 256 * MIB).unwrap();
        let heap = heap(plan, &[]);
        // The limit of the group above.
        assert_eq!(heap.limits().hard, 192 * MIB, "{plan}");
        let mut mutator = heap.attach(vec![0]).unwrap();
        // An error, where a heap that takes the machine's memory for its own would be killed.
        let refused = fill(&mut mutator, plan).unwrap_err();
        assert!(
            matches!(refused, AllocError::OutOfMemory { .. }),
            "{plan}: {refused}"
        );
        let used = heap.usage().used_bytes;
        assert!(used <= 192 * MIB && used > 60 * MIB, "{plan}: {used}");
        assert!(length(&mut mutator, 0) > 100);
        // The administrator changes the limit, and the heap follows.
        set_limit(outer, 512 * MIB).unwrap();
        std::thread::sleep(Duration::from_millis(600));
        mutator.collect();
        assert_eq!(heap.limits().hard, 384 * MIB, "{plan}");
        let before = length(&mut mutator, 0);
        for _ in 0..100 {
            push(&mut mutator, 0, 500).unwrap();
        }
        assert_eq!(length(&mut mutator, 0), before + 100);
    }
    let peak = ["memory.max_usage_in_bytes", "memory.peak"]
        .iter()
        .find_map(|name| fs::read_to_string(outer.join(name)).ok());
    eprintln!(
        "in the group: {} plans filled up to the limit of 256 MiB, each an error, none killed; the most that was charged: {} MiB",
        COLLECTING.len(),
        peak.and_then(|p| p.trim().parse::<usize>().ok())
            .map_or(0, |p| p / MIB)
    );
}
