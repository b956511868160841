//! How much memory the process may really use, and whether memory is scarce now.
//!
//! The answer is in files: `/proc/meminfo`, `/proc/self/limits`, the control groups that the process is in, and pressure stall
//! information. All of them are looked up below one directory, the root of the file system unless a test simulates another. What a
//! file says that nobody can make sense of counts as not said, and is counted: [`Memory::unreadable`].
//!
//! Control groups are nested, and each ancestor's limit holds too: of version 2 `memory.max` and `memory.high`, of version 1
//! `memory.limit_in_bytes`. The walk goes from the process's group up to where the hierarchy is mounted; what lies above that, as
//! seen from inside of a container, version 1 tells in `memory.stat`.

use std::fs;
use std::path::{Path, PathBuf};

/// Limits at or above this are none: version 1 writes "no limit" as the largest multiple of a page.
const NO_LIMIT: usize = 1 << 60;

/// A machine, seen through its files.
///
/// ```
/// use heapwright_os::Machine;
///
/// let machine = Machine::new();
/// // What this process may use: the least of the machine's memory, its control groups, and its limits.
/// assert!(machine.memory().usable().is_some_and(|bytes| bytes > 1 << 20));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    root: PathBuf,
}

/// What limits the memory of the process, in bytes; `None`: nothing does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What the machine has.
    pub physical: Option<usize>,
    /// The least limit of the control groups: beyond it the system kills.
    pub group: Option<usize>,
    /// The least `memory.high` of the control groups: beyond it the system slows down and takes back.
    pub group_high: Option<usize>,
    /// The limit on the address space: `ulimit -v`.
    pub address_space: Option<usize>,
    /// The limit on data: `ulimit -d`.
    pub data: Option<usize>,
    /// Files that were there and could not be made sense of.
    pub unreadable: usize,
}

impl Memory {
    /// What the process may use: the least of all limits. `None`: nobody knows one.
    #[must_use]
    pub fn usable(&self) -> Option<usize> {
        [self.physical, self.group, self.address_space, self.data]
            .into_iter()
            .flatten()
            .min()
    }
}

/// How scarce memory is, by the time that tasks waited for it in the last ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Nobody waits, or nobody knows.
    #[default]
    None,
    /// Some task waited for a tenth of the time.
    Some,
    /// All tasks waited for a twentieth of it.
    Full,
}

/// A control group that limits memory: where its files are, and up to where its ancestors' are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    directory: PathBuf,
    top: PathBuf,
    version: u8,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn new() -> Self {
        Self::at("/")
    }

    /// A machine whose `/proc` and `/sys` are below a directory: for tests.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }

    /// Reads what limits the process's memory: some ten small files. Any thread; allocates from malloc.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let mut found = Memory::default();
        let mut note = |limit: &mut Option<usize>, text: Option<String>, parse: Parse| {
            let Some(text) = text else {
                return;
            };
            match parse(&text) {
                Ok(bytes) => *limit = least(*limit, bytes),
                Err(NoSense) => found.unreadable += 1,
            }
        };
        let (mut physical, mut space, mut data) = (None, None, None);
        note(&mut physical, self.read("proc/meminfo"), |text| {
            field(text, "MemTotal:", 1024)
        });
        let limits = self.read("proc/self/limits");
        note(&mut space, limits.clone(), |text| {
            field(text, "Max address space", 1)
        });
        note(&mut data, limits, |text| field(text, "Max data size", 1));
        let (mut max, mut high) = (None, None);
        for group in self.groups() {
            for directory in group.directory.ancestors() {
                let at = |name: &str| fs::read_to_string(directory.join(name)).ok();
                if group.version == 2 {
                    note(&mut max, at("memory.max"), bytes);
                    note(&mut high, at("memory.high"), bytes);
                } else {
                    note(&mut max, at("memory.limit_in_bytes"), bytes);
                }
                if directory == group.top {
                    break;
                }
            }
            if group.version == 1 {
                let stat = fs::read_to_string(group.directory.join("memory.stat")).ok();
                note(&mut max, stat, |text| {
                    field(text, "hierarchical_memory_limit", 1)
                });
            }
        }
        Memory {
            physical,
            group: max,
            group_high: high,
            address_space: space,
            data,
            unreadable: found.unreadable,
        }
    }

    /// Reads how scarce memory is, for the machine and for the process's control group: the worse of both.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        let machine = self.read("proc/pressure/memory");
        let groups = self.groups();
        groups
            .iter()
            .filter(|group| group.version == 2)
            .filter_map(|group| fs::read_to_string(group.directory.join("memory.pressure")).ok())
            .chain(machine)
            .map(|text| pressure_of(&text))
            .max()
            .unwrap_or_default()
    }

    /// The groups of the process that may limit memory: one of each version that is mounted.
    fn groups(&self) -> Vec<Group> {
        let mine = self.read("proc/self/cgroup").unwrap_or_default();
        let mounts = self.read("proc/self/mountinfo").unwrap_or_default();
        mine.lines()
            .filter_map(|line| {
                let mut parts = line.splitn(3, ':');
                let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
                let version = if number == "0" && controllers.is_empty() {
                    2
                } else if controllers.split(',').any(|c| c == "memory") {
                    1
                } else {
                    return None;
                };
                let (mount_root, point) = mounts
                    .lines()
                    .find_map(|line| mount_of(line, version))
                    .unwrap_or(match version {
                        2 => ("/".into(), "/sys/fs/cgroup".into()),
                        _ => ("/".into(), "/sys/fs/cgroup/memory".into()),
                    });
                let top = self.root.join(point.trim_start_matches('/'));
                // In a container the group's path may begin at the machine's root, and what is mounted below it.
                let below = Path::new(path)
                    .strip_prefix(&mount_root)
                    .ok()
                    .filter(|rest| rest.components().all(|part| part.as_os_str() != ".."));
                let directory = match below {
                    Some(rest) if top.join(rest).is_dir() => top.join(rest),
                    _ => top.clone(),
                };
                Some(Group {
                    directory,
                    top,
                    version,
                })
            })
            .collect()
    }
}

#[derive(Debug)]
struct NoSense;
/// Bytes, or no limit.
type Parse = fn(&str) -> Result<Option<usize>, NoSense>;

fn least(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    a.into_iter().chain(b).min()
}

/// A number of bytes, `max` or `unlimited`.
fn bytes(text: &str) -> Result<Option<usize>, NoSense> {
    match text.trim() {
        "max" | "unlimited" => Ok(None),
        digits => match digits.parse::<u64>() {
            Ok(n) => Ok(usize::try_from(n).ok().filter(|n| *n < NO_LIMIT)),
            Err(_) => Err(NoSense),
        },
    }
}

/// The first word after a name at the beginning of a line, times a unit. A line that is not there limits nothing.
fn field(text: &str, name: &str, unit: usize) -> Result<Option<usize>, NoSense> {
    match text.lines().find_map(|line| line.strip_prefix(name)) {
        None => Ok(None),
        Some(rest) => {
            let word = rest.split_whitespace().next().ok_or(NoSense)?;
            Ok(bytes(word)?.map(|n| n.saturating_mul(unit)))
        }
    }
}

/// Which part of a hierarchy of control groups a line of `mountinfo` mounts, and where.
fn mount_of(line: &str, version: u8) -> Option<(String, String)> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let mut kind = after.split(' ');
    let fits = match kind.next()? {
        "cgroup2" => version == 2,
        "cgroup" => version == 1 && kind.nth(1)?.split(',').any(|option| option == "memory"),
        _ => false,
    };
    // The system writes a space as `\040`.
    let plain = |text: &str| text.replace("\\040", " ");
    fits.then(|| (plain(root), plain(point)))
}

/// What a file of pressure stall information says. Nonsense says nothing.
fn pressure_of(text: &str) -> Pressure {
    let average = |kind: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(kind))
            .and_then(|rest| {
                rest.split_whitespace()
                    .find_map(|w| w.strip_prefix("avg10="))
            })
            .and_then(|number| number.parse::<f64>().ok())
            .filter(|percent| (0.0..=100.0).contains(percent))
            .unwrap_or(0.0)
    };
    if average("full") >= 5.0 {
        Pressure::Full
    } else if average("some") >= 10.0 {
        Pressure::Some
    } else {
        Pressure::None
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
