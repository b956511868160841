//! The recording: all that a heap says, as lines of JSON in a file. docs/observing.md describes it.
//!
//! Each line is an object whose `type` says what it is. The first says who is recorded; a process that ends in order closes with the
//! size classes of its objects and a line `end`. Times are nanoseconds since the heap was made.

use crate::line::Line;
use crate::log;
use crate::picture::{Ages, Painter, Schedule};
use crate::sink::Sink;
use core::sync::atomic::{AtomicU32, Ordering};
use heapwright::{CollectionStats, Event, HeapMap, Listener};
use heapwright_os::{clock, limits, real_port};
use std::ffi::{CStr, CString};
use std::io;
use std::sync::Mutex;
use std::time::SystemTime;

/// The version of what lines mean; a reader refuses a higher one.
pub const VERSION: u32 = 1;

/// Who is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The program, or what it does.
    pub program: &'a str,
    /// The plan's name.
    pub plan: &'a str,
    /// The most workers that the heap may have.
    pub workers: usize,
}

/// Listens to a heap and writes what it hears.
///
/// ```
/// use heapwright::Heap;
/// use heapwright::example::Pairs;
/// use heapwright_observe::Recorder;
/// use heapwright_observe::record::Subject;
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let file = std::env::temp_dir().join(format!("heapwright-example-{}", std::process::id()));
/// let path = std::ffi::CString::new(file.to_str().ok_or("a name")?)?;
/// let subject = Subject {
///     program: "example",
///     plan: "immix",
///     workers: 1,
/// };
/// let recorder = Arc::new(Recorder::begin(&path, &subject)?);
/// let heap = Heap::<Pairs>::builder()
///     .options(Pairs::options("immix")?)
///     .listener(Box::new(Arc::clone(&recorder)))
///     .build(Pairs)?;
/// heap.attach(Vec::new())?.collect();
/// recorder.end(0);
/// let text = std::fs::read_to_string(&file)?;
/// std::fs::remove_file(&file)?;
/// assert_eq!(text.matches(r#""type":"collection""#).count(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Recorder {
    sink: Sink,
    born_ns: u64,
    /// Another process than this, the child of a fork, writes nothing.
    process: AtomicU32,
    /// None: there was no memory for pictures.
    pictures: Option<Mutex<Pictures>>,
}

/// What pictures of the heap need.
#[derive(Debug)]
struct Pictures {
    ages: Ages,
    painter: Painter,
    schedule: Schedule,
}

impl Pictures {
    fn new() -> Option<Self> {
        Some(Self {
            ages: Ages::new().ok()?,
            painter: Painter::new().ok()?,
            schedule: Schedule::default(),
        })
    }
}

/// `%p` in the name of a file is the number of the process; `%%` is a percent sign.
#[must_use]
pub fn file_of_process(pattern: &[u8]) -> Option<CString> {
    let pid = rustix::process::getpid().as_raw_nonzero();
    let mut name = Vec::with_capacity(pattern.len() + 16);
    let mut bytes = pattern.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, bytes.as_slice().first()) {
            (b'%', Some(b'p')) => {
                bytes.next();
                name.extend(pid.to_string().bytes());
            }
            (b'%', Some(b'%')) => {
                bytes.next();
                name.push(b'%');
            }
            _ => name.push(byte),
        }
    }
    CString::new(name).ok()
}

/// Does each process have a file of its own by that name?
#[must_use]
pub fn differs_by_process(pattern: &[u8]) -> bool {
    pattern.windows(2).any(|w| w == b"%p")
}

impl Recorder {
    /// Begins a recording in a file that is made, or appended to.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn begin(path: &CStr, subject: &Subject<'_>) -> io::Result<Self> {
        let recorder = Self {
            sink: Sink::append(path)?,
            born_ns: clock::monotonic_ns(),
            process: AtomicU32::new(std::process::id()),
            pictures: Pictures::new().map(Mutex::new),
        };
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_millis());
        let mut line = Line::default();
        line.put(format_args!(
            "{{\"type\":\"begin\",\"version\":{VERSION},\"pid\":{},\"unix_ms\":{unix},\"program\":",
            std::process::id()
        ));
        line.string(subject.program);
        line.put(format_args!(
            ",\"plan\":\"{}\",\"workers\":{},\"page_bytes\":{}}}",
            subject.plan,
            subject.workers,
            real_port().page_size()
        ));
        recorder.send(&mut line);
        Ok(recorder)
    }

    /// Nothing in the child of a fork.
    fn send(&self, line: &mut Line) {
        if !self.is_ours() {
            return;
        }
        self.sink.send(line);
    }

    fn since(&self, ns: u64) -> u64 {
        ns.saturating_sub(self.born_ns)
    }

    fn collected(&self, stats: &CollectionStats) {
        let mut line = Line::default();
        line.put(format_args!(
            "{{\"type\":\"collection\",\"number\":{},\"cause\":\"{}\",\"kind\":\"{}\"",
            stats.number,
            stats.cause.name(),
            stats.kind()
        ));
        let resident = limits::resident_bytes();
        log::numbers(stats, true, self.born_ns, resident, |name, value| {
            line.put(format_args!(",\"{name}\":{value}"));
        });
        for (name, value) in [
            ("copied_bytes", stats.copied_bytes),
            ("root_bytes", stats.root_bytes),
            ("marked", stats.marked_cells),
            ("references", stats.references),
            ("cleared", stats.cleared),
        ] {
            line.put(format_args!(",\"{name}\":{value}"));
        }
        line.put(format_args!(
            ",\"process_cpu_ns\":{}}}",
            clock::process_cpu_ns()
        ));
        self.send(&mut line);
    }

    /// Draws a picture, if one is due.
    fn map(&self, number: u64, after: bool, map: &dyn HeapMap) {
        // One collection at a time calls this.
        let Some(Ok(mut pictures)) = self.pictures.as_ref().map(Mutex::try_lock) else {
            return;
        };
        let pictures = &mut *pictures;
        let begun = clock::monotonic_ns();
        if after {
            pictures.ages.collected(map);
        }
        let at_ns = self.since(begun);
        if pictures.schedule.is_due(number, after, at_ns) {
            let when = if after { "after" } else { "before" };
            let head = format_args!(
                "\"type\":\"map\",\"number\":{number},\"when\":\"{when}\",\"at_ns\":{at_ns}"
            );
            self.sink
                .send_bytes(pictures.painter.draw(head, map, &pictures.ages));
        }
        pictures.schedule.spent(clock::monotonic_ns() - begun);
    }

    /// Writes down how many objects of a size there are at the end.
    pub fn class(&self, bytes: usize, objects: usize) {
        let mut line = Line::default();
        line.put(format_args!(
            "{{\"type\":\"class\",\"bytes\":{bytes},\"objects\":{objects}}}"
        ));
        self.send(&mut line);
    }

    /// Ends the recording. `allocated_bytes`: all that was ever allocated.
    pub fn end(&self, allocated_bytes: u64) {
        let mut line = Line::default();
        line.put(format_args!(
            "{{\"type\":\"end\",\"at_ns\":{},\"cpu_ns\":{},\"allocated_bytes\":{allocated_bytes},\"peak_resident_bytes\":{},\"lost_lines\":{}}}",
            self.since(clock::monotonic_ns()),
            clock::process_cpu_ns(),
            limits::peak_resident_bytes(),
            self.sink.lost()
        ));
        self.send(&mut line);
    }

    /// Is the recorded process this one, and not the child of a fork?
    fn is_ours(&self) -> bool {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        self.process.load(Ordering::Relaxed) == pid.unsigned_abs()
    }
}

impl Listener for Recorder {
    fn event(&self, event: Event<'_>) {
        let mut line = Line::default();
        match event {
            Event::Collected(stats) => return self.collected(stats),
            Event::Map { number, after, map } => return self.map(number, after, map),
            Event::Worked(w) => line.put(format_args!(
                "{{\"type\":\"worker\",\"number\":{},\"part\":\"{}\",\"worker\":{},\"at_ns\":{},\"ns\":{},\"busy_ns\":{},\"cpu_ns\":{},\"turns\":{},\"steals\":{}}}",
                w.collection,
                w.part.name(),
                w.worker,
                self.since(w.start_ns),
                w.end_ns - w.start_ns,
                w.busy_ns,
                w.cpu_ns,
                w.turns,
                w.steals
            )),
            Event::MutatorStopped(stop) => line.put(format_args!(
                "{{\"type\":\"stopped\",\"thread\":{},\"at_ns\":{},\"ns\":{}}}",
                stop.thread,
                self.since(stop.stopped_ns),
                stop.resumed_ns.saturating_sub(stop.stopped_ns)
            )),
            Event::Returned { at_ns, bytes } => line.put(format_args!(
                "{{\"type\":\"returned\",\"at_ns\":{},\"bytes\":{bytes}}}",
                self.since(at_ns)
            )),
            Event::OutOfMemory { requested } => line.put(format_args!(
                "{{\"type\":\"out_of_memory\",\"at_ns\":{},\"bytes\":{requested}}}",
                self.since(clock::monotonic_ns())
            )),
            _ => return,
        };
        self.send(&mut line);
    }

    fn wants_details(&self) -> bool {
        true
    }

    fn wants_map(&self) -> bool {
        self.is_ours()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use heapwright::{MutatorStop, Part, WorkerStats};

    #[test]
    fn the_longest_lines_are_whole_json() {
        let path = std::env::temp_dir().join(format!("heapwright-record-{}", std::process::id()));
        let name = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        let program = "\"".repeat(600);
        let subject = Subject {
            program: &program,
            plan: "stickymarksweep",
            workers: 64,
        };
        let recorder = Recorder::begin(&name, &subject).unwrap();
        let most = u64::MAX;
        recorder.event(Event::Collected(&CollectionStats {
            marked_cells: usize::MAX,
            references: usize::MAX,
            cleared: usize::MAX,
            copied_bytes: usize::MAX,
            root_bytes: usize::MAX,
            ..log::tests::longest()
        }));
        recorder.event(Event::Worked(&WorkerStats {
            collection: most,
            part: Part::Closure,
            worker: usize::MAX,
            start_ns: 0,
            end_ns: most,
            busy_ns: most,
            cpu_ns: most,
            turns: most,
            steals: most,
        }));
        recorder.event(Event::MutatorStopped(&MutatorStop {
            thread: most,
            stopped_ns: most,
            resumed_ns: most,
        }));
        recorder.event(Event::Returned {
            at_ns: most,
            bytes: usize::MAX,
        });
        recorder.event(Event::OutOfMemory {
            requested: usize::MAX,
        });
        recorder.class(usize::MAX, usize::MAX);
        recorder.end(most);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let types: Vec<String> = text
            .lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                value["type"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(
            types.join(" "),
            "begin collection worker stopped returned out_of_memory class end"
        );
    }

    #[test]
    fn a_file_may_have_the_process_in_its_name() {
        let pid = std::process::id();
        for (pattern, wanted) in [
            ("a", "a".to_owned()),
            ("a.%p.b%", format!("a.{pid}.b%")),
            ("100%%p", "100%p".to_owned()),
            ("%p%p", format!("{pid}{pid}")),
        ] {
            let name = file_of_process(pattern.as_bytes()).unwrap();
            assert_eq!(name.to_str().unwrap(), wanted);
        }
        assert!(file_of_process(b"a\0b").is_none());
    }
}
