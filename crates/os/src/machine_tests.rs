#![allow(clippy::unwrap_used)]
use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A machine below a directory of its own, which is removed with it.
struct Simulated(PathBuf);

impl Simulated {
    fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "heapwright-machine-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let simulated = Self(std::env::temp_dir().join(name));
        for (path, text) in files {
            simulated.write(path, text);
        }
        simulated
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn machine(&self) -> Machine {
        Machine::at(&self.0)
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const MEMINFO: (&str, &str) = (
    "proc/meminfo",
    "MemTotal:       16777216 kB\nMemFree: 1 kB\n",
);
const V2: (&str, &str) = (
    "proc/self/mountinfo",
    "24 1 0:22 / /proc rw - proc proc rw\n\
     30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
);
const V1: (&str, &str) = (
    "proc/self/mountinfo",
    "33 24 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
     34 24 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
);

#[test]
fn this_machine_says_what_it_has() {
    let memory = Machine::new().memory();
    let physical = memory.physical.unwrap();
    assert!(physical.abs_diff(crate::limits::physical_bytes()) <= physical / 8);
    assert!(memory.usable().unwrap() <= physical);
    assert_eq!(memory.unreadable, 0);
    let _ = Machine::new().pressure();
}

#[test]
fn the_least_limit_of_nested_groups_of_version_2_holds() {
    let s = Simulated::new(&[
        MEMINFO,
        V2,
        ("proc/self/cgroup", "0::/a/b/c\n"),
        ("sys/fs/cgroup/memory.max", "max\n"),
        ("sys/fs/cgroup/a/memory.max", "2147483648\n"),
        ("sys/fs/cgroup/a/memory.high", "1073741824\n"),
        ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ("sys/fs/cgroup/a/b/c/memory.max", "4294967296\n"),
        ("sys/fs/cgroup/a/b/c/memory.high", "max\n"),
        ("sys/fs/memory.max", "4096\n"),
    ]);
    let memory = s.machine().memory();
    assert_eq!(memory.physical, Some(16 << 30));
    assert_eq!(memory.group, Some(2 << 30));
    assert_eq!(memory.group_high, Some(1 << 30));
    assert_eq!(memory.usable(), Some(2 << 30));
    assert_eq!(memory.unreadable, 0);
    // Followed: what a file says next counts next.
    s.write("sys/fs/cgroup/a/b/memory.max", "1000000000\n");
    assert_eq!(s.machine().memory().group, Some(1_000_000_000));
    s.write("sys/fs/cgroup/a/b/memory.max", "max\n");
    s.write("sys/fs/cgroup/a/memory.max", "max\n");
    assert_eq!(s.machine().memory().group, Some(4 << 30));
}

#[test]
fn version_1_and_both_at_once() {
    let unlimited = "9223372036854771712\n";
    let s = Simulated::new(&[
        MEMINFO,
        V1,
        (
            "proc/self/cgroup",
            "5:cpu,cpuacct:/x\n4:memory:/a/b\n0::/\n",
        ),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", unlimited),
        ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "536870912"),
        ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", unlimited),
        ("sys/fs/cgroup/cpu/x/memory.limit_in_bytes", "4096"),
    ]);
    assert_eq!(s.machine().memory().group, Some(512 << 20));
    // What is above the container's root is told by the group's statistics.
    s.write(
        "sys/fs/cgroup/memory/a/b/memory.stat",
        "cache 1\nhierarchical_memory_limit 268435456\ntotal_cache 0\n",
    );
    assert_eq!(s.machine().memory().group, Some(256 << 20));
    s.write("sys/fs/cgroup/memory.max", "134217728\n");
    assert_eq!(s.machine().memory().group, Some(128 << 20));
}

#[test]
fn a_container_sees_its_group_at_the_mount_point() {
    for (mount_root, path) in [
        // The machine's path, of which a part is mounted;
        ("/docker/f00", "/docker/f00"),
        // a namespace of control groups;
        ("/", "/"),
        // one whose process was put elsewhere;
        ("/", "/../other"),
        // and a path that leads nowhere.
        ("/", "/gone"),
    ] {
        let s = Simulated::new(&[
            (
                "proc/self/mountinfo",
                &format!("30 23 0:26 {mount_root} /sys/fs/cgroup ro - cgroup2 cgroup rw\n"),
            ),
            ("proc/self/cgroup", &format!("0::{path}\n")),
            ("sys/fs/cgroup/memory.max", "33554432"),
        ]);
        assert_eq!(s.machine().memory().group, Some(32 << 20), "{path}");
    }
}

#[test]
fn limits_of_the_process_count() {
    let limits = |space: &str, data: &str| {
        format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max data size             {data}            unlimited            bytes     \n\
             Max address space         {space}           unlimited            bytes     \n"
        )
    };
    let s = Simulated::new(&[
        MEMINFO,
        ("proc/self/limits", &limits("unlimited", "unlimited")),
    ]);
    assert_eq!(s.machine().memory().usable(), Some(16 << 30));
    s.write("proc/self/limits", &limits("8589934592", "unlimited"));
    assert_eq!(s.machine().memory().usable(), Some(8 << 30));
    s.write("proc/self/limits", &limits("8589934592", "1048576"));
    assert_eq!(s.machine().memory().usable(), Some(1 << 20));
}

#[test]
fn nonsense_limits_nothing_and_is_counted() {
    let s = Simulated::new(&[
        ("proc/meminfo", "MemTotal: lots kB\n"),
        ("proc/self/limits", "Max data size\n"),
        V2,
        ("proc/self/cgroup", "rubbish\n0::/a\n7\n"),
        ("sys/fs/cgroup/memory.max", "-1\n"),
        ("sys/fs/cgroup/memory.high", "\n"),
        ("sys/fs/cgroup/a/memory.max", "12 parsecs\n"),
        ("sys/fs/cgroup/a/memory.high", "99999999999999999999999\n"),
    ]);
    let memory = s.machine().memory();
    assert_eq!(memory.unreadable, 6);
    assert_eq!(
        memory,
        Memory {
            unreadable: 6,
            ..Memory::default()
        }
    );
    assert_eq!(memory.usable(), None);
    let nothing = Machine::at("/nowhere/at/all");
    assert_eq!(nothing.memory(), Memory::default());
    assert_eq!(nothing.pressure(), Pressure::None);
}

#[test]
fn pressure_is_the_worse_of_the_machine_and_the_group() {
    let line = |some: &str, full: &str| {
        format!(
            "some avg10={some} avg60=0.00 avg300=0.00 total=1\nfull avg10={full} avg60=0.00 avg300=0.00 total=0\n"
        )
    };
    let s = Simulated::new(&[
        V2,
        ("proc/self/cgroup", "0::/a\n"),
        ("proc/pressure/memory", &line("0.00", "0.00")),
        ("sys/fs/cgroup/a/memory.pressure", &line("9.99", "4.99")),
    ]);
    let pressure = || s.machine().pressure();
    assert_eq!(pressure(), Pressure::None);
    s.write("sys/fs/cgroup/a/memory.pressure", &line("10.00", "0.00"));
    assert_eq!(pressure(), Pressure::Some);
    s.write("proc/pressure/memory", &line("0.00", "5.01"));
    assert_eq!(pressure(), Pressure::Full);
    for nonsense in [
        line("NaN", "inf"),
        line("-3", "1e9"),
        line("lots", ""),
        "some avg60=99.0\nfull".to_owned(),
        String::new(),
        "\u{0}\u{1}".to_owned(),
    ] {
        s.write("proc/pressure/memory", &nonsense);
        s.write("sys/fs/cgroup/a/memory.pressure", &nonsense);
        assert_eq!(pressure(), Pressure::None, "{nonsense:?}");
    }
}
