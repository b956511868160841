//! From raw samples to a profile in pprof's format.

use super::proto::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType};
use super::raw::Process;
use super::symbols::{Frame, Symbols};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// Functions that stand between a program with a heap of its own and the sample, as their names begin,
const OURS: [&str; 4] = [
    "heapwright::",
    "heapwright_observe::",
    "heapwright_bench::vm::",
    "core::",
];
/// or where they are, for what is inlined: tables of lines have no paths.
const OUR_FILES: [&str; 4] = [
    "crates/core/src/",
    "crates/observe/src/",
    "crates/bench/src/vm",
    "library/core/src/",
];

/// The names of libgc's kinds, by number.
const KINDS: [&str; 5] = [
    "atomic",
    "normal",
    "uncollectable",
    "typed",
    "atomic uncollectable",
];

/// What the profile says in all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) samples: u64,
    pub(super) objects: f64,
    pub(super) bytes: f64,
    pub(super) lost: u64,
}

/// A function or an address in the stack, as samples share it.
type Place = (u64, u64, usize);
/// What samples have in common that are one in the profile: locations, size, kind, process.
type Key = (Vec<u64>, u64, u64, u64);

#[derive(Default)]
struct Builder {
    profile: Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<Frame, u64>,
    locations: HashMap<Place, u64>,
    mappings: HashMap<(u64, usize), u64>,
    /// The functions at an address of a process.
    frames: HashMap<(u64, u64), Vec<Frame>>,
    symbols: Symbols,
}

/// Makes the profile. `command`: what was run.
pub(super) fn build(processes: &BTreeMap<u64, Process>, command: &str) -> (Profile, Totals) {
    let mut builder = Builder::default();
    builder.string("");
    let mut totals = Totals::default();
    let mut sums: BTreeMap<Key, (f64, f64)> = BTreeMap::new();
    for (pid, process) in processes {
        totals.lost += process.lost;
        for sample in &process.samples {
            let stack = builder.stack(*pid, process, &sample.stack);
            let sum = sums
                .entry((stack, sample.bytes, sample.kind, *pid))
                .or_default();
            sum.0 += sample.weight;
            sum.1 += sample.weight * sample.bytes as f64;
            totals.samples += 1;
            totals.objects += sample.weight;
            totals.bytes += sample.weight * sample.bytes as f64;
        }
    }
    for ((location_id, bytes, kind, pid), (objects, space)) in sums {
        let name = processes.get(&pid).map_or("", |p| &*p.name);
        let label = builder.labels(bytes, kind, pid, name);
        builder.profile.sample.push(Sample {
            location_id,
            value: vec![objects.round() as i64, space.round() as i64],
            label,
        });
    }
    builder.describe(processes, command, &totals);
    (builder.profile, totals)
}

impl Builder {
    fn string(&mut self, text: &str) -> i64 {
        if let Some(number) = self.strings.get(text) {
            return *number;
        }
        let number = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), number);
        number
    }

    fn kind_of_value(&mut self, name: &str, unit: &str) -> ValueType {
        ValueType {
            r#type: self.string(name),
            unit: self.string(unit),
        }
    }

    fn labels(&mut self, bytes: u64, kind: u64, pid: u64, name: &str) -> Vec<Label> {
        let program = name.rsplit('/').next().unwrap_or_default();
        let (key, unit) = (self.string("bytes"), self.string("bytes"));
        let mut labels = vec![Label {
            key,
            num: bytes as i64,
            num_unit: unit,
            str: 0,
        }];
        let kind = usize::try_from(kind).unwrap_or(usize::MAX);
        let kind = KINDS.get(kind).copied().unwrap_or("of the program's own");
        // A heap of objects has no kinds: the embedded runtime names its runs "WORKLOAD on PLAN".
        let texts = [
            ("process", format!("{program} [{pid}]")),
            ("kind", kind.to_owned()),
        ];
        let wanted = if name.starts_with('/') { 2 } else { 1 };
        for (key, text) in texts.into_iter().take(wanted) {
            let (key, str) = (self.string(key), self.string(&text));
            labels.push(Label {
                key,
                str,
                ..Label::default()
            });
        }
        labels
    }

    /// The locations of a stack, without those of the library.
    fn stack(&mut self, pid: u64, process: &Process, stack: &[u64]) -> Vec<u64> {
        // The innermost function is the one of ours that walked the stack.
        let own = stack.first().and_then(|a| process.range(*a));
        let library = own
            .and_then(|r| process.ranges.get(r))
            .map(|r| r.file.clone());
        let library = library.filter(|file| *file != main_file(process));
        let mut locations = Vec::with_capacity(stack.len());
        let mut inside = true;
        for (depth, address) in stack.iter().enumerate() {
            let range = process.range(*address);
            let file = range.and_then(|r| process.ranges.get(r)).map(|r| &r.file);
            let last = depth + 1 == stack.len();
            if inside && !last && library.is_some() && file == library.as_ref() {
                continue;
            }
            let frames = self.frames(pid, process, *address);
            let mut skipped = 0;
            if inside && library.is_none() {
                skipped = frames.iter().take_while(|f| is_ours(f)).count();
                if skipped == frames.len() && skipped > 0 && !last {
                    continue;
                }
                skipped %= frames.len().max(1);
            }
            inside = false;
            locations.push(self.location(pid, process, range, *address, skipped));
        }
        locations
    }

    fn frames(&mut self, pid: u64, process: &Process, address: u64) -> Vec<Frame> {
        if let Some(known) = self.frames.get(&(pid, address)) {
            return known.clone();
        }
        let range = process.range(address).and_then(|r| process.ranges.get(r));
        let frames = range.map_or_else(Vec::new, |r| self.symbols.at(r, address));
        self.frames.insert((pid, address), frames.clone());
        frames
    }

    fn location(
        &mut self,
        pid: u64,
        process: &Process,
        range: Option<usize>,
        address: u64,
        skipped: usize,
    ) -> u64 {
        if let Some(id) = self.locations.get(&(pid, address, skipped)) {
            return *id;
        }
        let mapping_id = range.map_or(0, |r| self.mapping(pid, process, r));
        let frames = self.frames(pid, process, address);
        let line: Vec<Line> = frames
            .iter()
            .skip(skipped)
            .map(|frame| Line {
                function_id: self.function(frame),
                line: frame.line.into(),
            })
            .collect();
        if let Some(mapping) = self.profile.mapping.iter_mut().find(|m| m.id == mapping_id) {
            mapping.has_functions |= !line.is_empty();
            mapping.has_inline_frames |= line.len() > 1;
            mapping.has_filenames |= frames.iter().any(|f| !f.file.is_empty());
            mapping.has_line_numbers |= frames.iter().any(|f| f.line != 0);
        }
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(Location {
            id,
            mapping_id,
            address,
            line,
        });
        self.locations.insert((pid, address, skipped), id);
        id
    }

    fn function(&mut self, frame: &Frame) -> u64 {
        let known = Frame {
            line: 0,
            ..frame.clone()
        };
        if let Some(id) = self.functions.get(&known) {
            return *id;
        }
        let id = self.profile.function.len() as u64 + 1;
        let function = Function {
            id,
            name: self.string(&frame.name),
            system_name: self.string(&frame.system_name),
            filename: self.string(&frame.file),
        };
        self.profile.function.push(function);
        self.functions.insert(known, id);
        id
    }

    fn mapping(&mut self, pid: u64, process: &Process, index: usize) -> u64 {
        if let Some(id) = self.mappings.get(&(pid, index)) {
            return *id;
        }
        let Some(range) = process.ranges.get(index) else {
            return 0;
        };
        let build_id = self.symbols.build_id(&range.file);
        let id = self.profile.mapping.len() as u64 + 1;
        let mapping = Mapping {
            id,
            memory_start: range.start,
            memory_limit: range.end,
            file_offset: range.offset,
            filename: self.string(&range.file.to_string_lossy()),
            build_id: self.string(&build_id),
            ..Mapping::default()
        };
        self.profile.mapping.push(mapping);
        self.mappings.insert((pid, index), id);
        id
    }

    fn describe(&mut self, processes: &BTreeMap<u64, Process>, command: &str, totals: &Totals) {
        let types = [
            self.kind_of_value("alloc_objects", "count"),
            self.kind_of_value("alloc_space", "bytes"),
        ];
        self.profile.default_sample_type = types[1].r#type;
        self.profile.sample_type = types.to_vec();
        self.profile.period_type = Some(self.kind_of_value("space", "bytes"));
        let first = processes.values().min_by_key(|p| p.unix_ns);
        self.profile.period = first.map_or(0, |p| p.rate_bytes as i64);
        self.profile.time_nanos = first.map_or(0, |p| p.unix_ns as i64);
        let (begin, end) = (
            processes.values().map(|p| p.begin_ns).min(),
            processes.values().map(|p| p.end_ns).max(),
        );
        self.profile.duration_nanos = end.unwrap_or(0).saturating_sub(begin.unwrap_or(0)) as i64;
        let mut comments = vec![format!("heapwright: {command}")];
        for (pid, process) in processes {
            if let Some(bytes) = process.allocated_bytes {
                comments.push(format!("process {pid} allocated {bytes} bytes in all"));
            }
        }
        if totals.lost > 0 {
            comments.push(format!("{} samples were lost", totals.lost));
        }
        self.profile.comment = comments.iter().map(|text| self.string(text)).collect();
    }
}

/// The program's own file.
fn main_file(process: &Process) -> PathBuf {
    process
        .ranges
        .first()
        .map_or_else(PathBuf::new, |r| r.file.clone())
}

fn is_ours(frame: &Frame) -> bool {
    let name = frame.name.trim_start_matches(['<', '&', '*']);
    OURS.iter().any(|ours| name.starts_with(ours))
        || OUR_FILES.iter().any(|ours| frame.file.contains(ours))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::raw::{Range, Sampled};
    use super::*;

    fn process(stacks: &[&[u64]]) -> BTreeMap<u64, Process> {
        let range = |start, file: &str| Range {
            start,
            end: start + 0x1000,
            offset: 0,
            file: PathBuf::from(file),
        };
        let samples = stacks.iter().map(|stack| Sampled {
            bytes: 32,
            kind: 1,
            weight: 100.25,
            stack: stack.to_vec(),
        });
        let process = Process {
            name: String::from("/none/program"),
            rate_bytes: 1000,
            unix_ns: 5,
            begin_ns: 10,
            end_ns: 30,
            samples: samples.collect(),
            ranges: vec![
                range(0x1000, "/none/program"),
                range(0x8000, "/none/libgc.so.1"),
            ],
            allocated_bytes: Some(9000),
            lost: 2,
        };
        BTreeMap::from([(7, process)])
    }

    #[test]
    fn samples_with_the_same_stack_are_one_and_the_library_is_left_out() {
        let all = process(&[
            &[0x8001, 0x8010, 0x1100, 0x1200],
            &[0x8002, 0x8020, 0x1100, 0x1200],
            &[0x8001, 0x1300, 0x1200],
            // A stack that could not be followed has something, at least.
            &[0x8001],
        ]);
        let (profile, totals) = build(&all, "program");
        assert_eq!((totals.samples, totals.lost), (4, 2));
        assert!((totals.bytes - 4.0 * 3208.0).abs() < 1e-6);
        let stacks: Vec<Vec<u64>> = profile
            .sample
            .iter()
            .map(|s| {
                let address = |id: &u64| profile.location[*id as usize - 1].address;
                s.location_id.iter().map(address).collect()
            })
            .collect();
        assert_eq!(
            stacks,
            [vec![0x1100, 0x1200], vec![0x1300, 0x1200], vec![0x8001]]
        );
        assert_eq!(profile.sample[0].value, [201, 6416]);
        assert_eq!((profile.period, profile.duration_nanos), (1000, 20));
        let text = |n: i64| &*profile.string_table[n as usize];
        assert_eq!(text(0), "");
        let comments: Vec<&str> = profile.comment.iter().map(|c| text(*c)).collect();
        assert_eq!(
            comments,
            [
                "heapwright: program",
                "process 7 allocated 9000 bytes in all",
                "2 samples were lost"
            ]
        );
        let labels: Vec<&str> = profile.sample[0]
            .label
            .iter()
            .map(|l| text(l.key))
            .collect();
        assert_eq!(labels, ["bytes", "process", "kind"]);
        assert_eq!(text(profile.sample[0].label[2].str), "normal");
    }

    #[test]
    fn a_profile_of_nothing_is_one() {
        let (profile, totals) = build(&BTreeMap::new(), "true");
        assert_eq!(totals, Totals::default());
        assert_eq!((profile.sample.len(), profile.sample_type.len()), (0, 2));
    }
}
