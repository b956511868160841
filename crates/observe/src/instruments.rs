//! All instruments of an embedded heap together, as people ask for them: by name, or by the variables that programs on libgc have, too.

use crate::Sizes;
use crate::dump::{self, Extent, When, dump_heap_from_outside, dump_when_full, sizes_if_quiet};
use crate::live::{History, Listening, Server, Source, Using, socket_for};
use crate::log::{self, Logger};
use crate::profile::{self, Profile, Shared};
use crate::record::{Recorder, Subject, file_of_process};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use heapwright::options::ENV_PREFIX;
use heapwright::{Event, ForkStep, Heap, HeapMap, Listener, Options, Sampler, Vm};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An instrument, for lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instrument {
    /// Its name for [`Wanted::set`].
    pub name: &'static str,
    /// What values look like.
    pub values: &'static str,
    /// One sentence.
    pub meaning: &'static str,
}

/// All instruments.
pub const TABLE: [Instrument; 5] = [
    Instrument {
        name: "log",
        values: "stderr, or gc[,phases][,json][=FILE]",
        meaning: "Write a line for each collection.",
    },
    Instrument {
        name: "record",
        values: "FILE",
        meaning: "Record all that the heap does, for `heapwright report`.",
    },
    Instrument {
        name: "listen",
        values: "1, or the path of a socket; 0: no",
        meaning: "Answer `heapwright top`, `heapwright map` and `heapwright dump`.",
    },
    Instrument {
        name: "profile",
        values: "FILE[,rate=SIZE][,limit=SIZE]",
        meaning: "Sample the stacks that allocate, for `heapwright profile`.",
    },
    Instrument {
        name: "dump",
        values: "oom=FILE",
        meaning: "Dump what lives when memory runs out.",
    },
];

/// What is wanted of a heap that is to be built. In names of files, `%p` is the number of the process.
///
/// ```
/// use heapwright::Heap;
/// use heapwright::example::{Pairs, push};
/// use heapwright_observe::{Instruments, Wanted};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let file = std::env::temp_dir().join(format!("heapwright-example-{}.log", std::process::id()));
/// let mut wanted = Wanted::from_env()?;
/// wanted.set("log", format!("gc={}", file.display()).as_ref())?;
/// let options = Pairs::options("immix")?;
/// let instruments = Instruments::begin(&wanted, "example", &options)?;
/// let mut builder = Heap::<Pairs>::builder()
///     .options(options)
///     .listener(Box::new(instruments.listener()));
/// if let Some(sampler) = instruments.sampler() {
///     builder = builder.sampler(sampler);
/// }
/// let heap = builder.build(Pairs)?;
/// let watching = instruments.watch(&heap)?;
///
/// let mut mutator = heap.attach(Vec::new())?;
/// push(&mut mutator, 1)?;
/// mutator.collect();
/// drop(mutator);
///
/// drop(watching);
/// assert!(std::fs::read_to_string(&file)?.contains("cause=requested"));
/// # std::fs::remove_file(&file)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    own: Choice,
    /// For one heap at a time: a file or a socket is no place for two.
    environment: Choice,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Choice {
    log: Option<OsString>,
    record: Option<PathBuf>,
    listen: Option<PathBuf>,
    profile: Option<profile::Request>,
    dump: Option<PathBuf>,
}

/// A heap of this process has the instruments that the environment asks for.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Whoever has this is that heap.
#[derive(Debug)]
struct Turn(());

impl Turn {
    fn take() -> Option<Self> {
        let free = !TAKEN.swap(true, Ordering::Relaxed);
        // Not `then_some`: what it would drop gives the turn back.
        free.then(|| Self(()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Relaxed);
    }
}

/// Why an instrument cannot be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum InstrumentError {
    /// There is none of that name.
    Unknown(String),
    /// Its value is wrong: which instrument, and why.
    Value(&'static str, String),
    /// A file or a socket cannot be had: for what instrument, where, and why.
    Open(&'static str, PathBuf, io::Error),
}

impl fmt::Display for InstrumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(f, "there is no instrument {name}; there are ")?;
                for (i, row) in TABLE.iter().enumerate() {
                    write!(f, "{}{}", if i == 0 { "" } else { ", " }, row.name)?;
                }
                Ok(())
            }
            Self::Value(name, why) => write!(f, "{name}: {why}"),
            Self::Open(name, path, e) => write!(f, "{name}: {}: {e}", path.display()),
        }
    }
}

impl core::error::Error for InstrumentError {}

impl Wanted {
    /// What the environment asks for: `HEAPWRIGHT_LOG`, `HEAPWRIGHT_RECORD` and so on. What is empty asks for nothing. It is for one heap: of
    /// several that a process has at a time, the first is watched.
    ///
    /// # Errors
    /// As [`Wanted::set`].
    pub fn from_env() -> Result<Self, InstrumentError> {
        let mut wanted = Self::default();
        for Instrument { name, .. } in TABLE {
            let value = std::env::var_os(format!("{ENV_PREFIX}{}", name.to_uppercase()));
            if let Some(value) = value.filter(|v| !v.is_empty()) {
                wanted.environment.set(name, &value)?;
            }
        }
        Ok(wanted)
    }

    /// Wants an instrument by its name, which is one of [`TABLE`], whatever the environment says of it.
    ///
    /// # Errors
    /// If there is none of that name, or the value is wrong.
    pub fn set(&mut self, name: &str, value: &OsStr) -> Result<(), InstrumentError> {
        self.own.set(name, value)
    }

    /// What one heap gets.
    fn choice(&self) -> (Choice, Option<Turn>) {
        let turn = (self.environment != Choice::default())
            .then(Turn::take)
            .flatten();
        let mut choice = self.own.clone();
        if turn.is_some() {
            let rest = self.environment.clone();
            choice = Choice {
                log: choice.log.or(rest.log),
                record: choice.record.or(rest.record),
                listen: choice.listen.or(rest.listen),
                profile: choice.profile.or(rest.profile),
                dump: choice.dump.or(rest.dump),
            };
        }
        (choice, turn)
    }
}

impl Choice {
    fn set(&mut self, name: &str, value: &OsStr) -> Result<(), InstrumentError> {
        let path = || Some(PathBuf::from(value));
        let wrong = |name, why: &str| InstrumentError::Value(name, why.to_owned());
        match name {
            "log" if value.is_empty() => return Err(wrong("log", "stderr or a file is wanted")),
            "record" if value.is_empty() => return Err(wrong("record", "a file is wanted")),
            "log" => self.log = Some(value.to_owned()),
            "record" => self.record = path(),
            "listen" if value.is_empty() => return Err(wrong("listen", "1 or a path is wanted")),
            "listen" => self.listen = path(),
            "profile" => {
                let request =
                    profile::Request::parse(value).map_err(|why| wrong("profile", &why))?;
                self.profile = Some(request);
            }
            "dump" => {
                let text = value
                    .to_str()
                    .ok_or_else(|| wrong("dump", "UTF-8 is wanted"))?;
                let requests = dump::Request::parse_all(text)
                    .map_err(|e| InstrumentError::Value("dump", e.to_string()))?;
                let [dump::Request { when, file, .. }] = &requests[..] else {
                    return Err(wrong("dump", "one file is wanted"));
                };
                if *when != [When::OutOfMemory] {
                    return Err(wrong(
                        "dump",
                        "a heap that is embedded is dumped when memory runs out: oom=FILE. At other times the program asks for it, or \
                         `heapwright dump` does of one that listens",
                    ));
                }
                self.dump = Some(file.clone());
            }
            _ => return Err(InstrumentError::Unknown(name.to_owned())),
        }
        Ok(())
    }
}

/// The instruments of one heap. See [`Wanted`].
#[derive(Debug, Default)]
pub struct Instruments {
    ears: Ears,
    dump: Option<PathBuf>,
    watches: bool,
    turn: Option<Turn>,
}

impl Drop for Instruments {
    fn drop(&mut self) {
        // Nobody will answer.
        if let (Some(live), false) = (&self.ears.live, self.watches) {
            live.server.remove();
        }
    }
}

/// What hears of the heap's events.
#[derive(Clone, Debug, Default)]
struct Ears {
    recorder: Option<Arc<Recorder>>,
    logger: Option<Arc<Logger>>,
    live: Option<Arc<Live>>,
    profile: Option<Arc<Profile>>,
}

#[derive(Debug)]
struct Live {
    history: Arc<History>,
    server: Arc<Server>,
}

impl Instruments {
    /// Opens what is wanted, before the heap is built. `program` is what readers of the recording and the profile see.
    ///
    /// # Errors
    /// If a file or a socket cannot be opened: nothing is left open then.
    pub fn begin(
        wanted: &Wanted,
        program: &str,
        options: &Options,
    ) -> Result<Self, InstrumentError> {
        let open = |name, path: &Path| {
            let path = path.to_owned();
            move |e: io::Error| InstrumentError::Open(name, path, e)
        };
        let (wanted, turn) = wanted.choice();
        // Dropping it on the way takes the socket away.
        let mut made = Self {
            ears: Ears::default(),
            dump: wanted.dump,
            watches: false,
            turn,
        };
        // The first: nothing is written for a heap whose place is another's.
        if let Some(place) = wanted.listen.as_deref().filter(|p| *p != Path::new("0")) {
            let path = socket_for(place.as_os_str())
                .map_err(|e| InstrumentError::Value("listen", e.to_string()))?;
            let server = Server::open(&path).map_err(open("listen", &path))?;
            let (plan, workers) = (options.plan.name(), options.most_workers());
            made.ears.live = Some(Arc::new(Live {
                history: Arc::new(History::new(program, plan, workers)),
                server: Arc::new(server),
            }));
        }
        if let Some(value) = &wanted.log {
            let file = log::parse(value.as_bytes()).1.unwrap_or_default();
            let failed = open("log", Path::new(OsStr::from_bytes(file)));
            let logger = Logger::open(value.as_bytes()).map_err(failed)?;
            made.ears.logger = Some(Arc::new(logger));
        }
        if let Some(file) = &wanted.record {
            let subject = Subject {
                program,
                plan: options.plan.name(),
                workers: options.most_workers(),
            };
            let path = file_of_process(file.as_os_str().as_bytes());
            let begun = path
                .ok_or(io::ErrorKind::InvalidInput.into())
                .and_then(|path| Recorder::begin(&path, &subject));
            made.ears.recorder = Some(Arc::new(begun.map_err(open("record", file))?));
        }
        if let Some(request) = &wanted.profile {
            let begun = Profile::begin(request, program).map_err(open("profile", &request.file));
            made.ears.profile = Some(begun?);
        }
        Ok(made)
    }

    /// For [`heapwright::Builder::listener`].
    #[must_use]
    pub fn listener(&self) -> impl Listener + use<> {
        self.ears.clone()
    }

    /// For [`heapwright::Builder::sampler`], if a profile is wanted.
    #[must_use]
    pub fn sampler(&self) -> Option<Box<dyn Sampler>> {
        let profile = self.ears.profile.clone()?;
        Some(Box::new(Shared(profile)))
    }

    /// Watches the heap that was built with them, until the result is dropped. That has a handle of the heap, and keeps it.
    ///
    /// # Errors
    /// If there is no thread for the socket: the heap is not listened to then.
    pub fn watch<V: Vm>(mut self, heap: &Heap<V>) -> Result<Watching<V>, InstrumentError> {
        let mut listening = None;
        if let Some(live) = &self.ears.live {
            let (server, history) = (Arc::clone(&live.server), Arc::clone(&live.history));
            let started = Listening::start(server, history, Embedded(heap.clone()));
            let failed = |e| InstrumentError::Open("listen", live.server.path().to_owned(), e);
            listening = Some(started.map_err(failed)?);
        }
        self.watches = true;
        if let Some(file) = self.dump.take() {
            // What is there already stays.
            let _ = dump_when_full(heap, file);
        }
        Ok(Watching {
            ears: self.ears.clone(),
            heap: heap.clone(),
            listening,
            ended: false,
            turn: self.turn.take(),
        })
    }
}

impl Listener for Ears {
    fn event(&self, event: Event<'_>) {
        self.recorder.event(event);
        self.logger.event(event);
        if let Some(live) = &self.live {
            live.history.event(event);
        }
    }

    fn wants_details(&self) -> bool {
        self.recorder.wants_details() || self.logger.wants_details()
    }

    fn wants_map(&self) -> bool {
        let listens = self.live.as_ref().is_some_and(|l| l.history.wants_map());
        listens || self.recorder.wants_map()
    }

    fn fork(&self, step: ForkStep) {
        if let Some(live) = &self.live {
            live.server.fork(step);
            live.history.fork(step);
        }
        if let (Some(profile), ForkStep::Child) = (&self.profile, step) {
            profile.after_fork();
        }
    }
}

/// A heap that is watched. Dropping it ends the recording and the profile, and nobody listens any more; the log goes on.
#[derive(Debug)]
pub struct Watching<V: Vm> {
    ears: Ears,
    heap: Heap<V>,
    listening: Option<Listening>,
    ended: bool,
    /// Given back when all has ended.
    turn: Option<Turn>,
}

impl<V: Vm> Watching<V> {
    /// Ends it, with the objects that lived at the end by size. Without them, or if it is dropped, they are counted if no mutator is inside
    /// of the heap.
    pub fn end(mut self, sizes: Option<&Sizes>) {
        self.finish(sizes);
    }

    fn finish(&mut self, sizes: Option<&Sizes>) {
        if core::mem::replace(&mut self.ended, true) {
            return;
        }
        self.listening = None;
        let allocated = self.heap.usage().allocated_bytes;
        if let Some(recorder) = &self.ears.recorder {
            let counted = match sizes {
                Some(_) => None,
                None => sizes_if_quiet(&self.heap).and_then(Result::ok),
            };
            if let Some(sizes) = sizes.or(counted.as_ref()) {
                sizes.each(|bytes, objects| recorder.class(bytes, objects));
            }
            recorder.end(allocated);
        }
        if let Some(profile) = &self.ears.profile {
            profile.end(allocated);
        }
        self.turn = None;
    }
}

impl<V: Vm> Drop for Watching<V> {
    fn drop(&mut self) {
        self.finish(None);
    }
}

/// What the server asks of a heap.
#[derive(Debug)]
struct Embedded<V: Vm>(Heap<V>);

impl<V: Vm> Source for Embedded<V> {
    fn using(&self) -> Using {
        let usage = self.0.usage();
        Using {
            heap_bytes: usage.used_bytes + usage.idle_bytes,
            free_bytes: usage.idle_bytes,
            live_bytes: usage.live_bytes,
            limit_bytes: self.0.limits().hard,
            allocated_bytes: usage.allocated_bytes,
        }
    }

    fn map(&self, look: &mut dyn FnMut(&dyn HeapMap)) {
        self.0.map(look);
    }

    fn collect(&self) -> bool {
        self.0.ask_for_collection()
    }

    fn dump(&self, file: &Path) -> Result<u64, Option<String>> {
        let taken = dump_heap_from_outside(&self.0, file, Extent::Reachable);
        taken.map(|w| w.took_ns).map_err(|e| Some(e.to_string()))
    }
}
