//! The allocation profile: for each sampled object the stack that allocated it, as a record in a file.
//!
//! The process writes raw addresses and nothing that takes time; the `heapwright` command makes a profile in pprof's format of
//! them. The file has records ([`mod@format`]), each written by one system call: a process that is killed leaves what it had to say so
//! far, a full disk loses samples and nothing else, and processes can share a file: a fork's child goes on in its parent's.
//!
//! What it costs is bounded. Samples of an ordinary program come so rarely that they cost far less than a percent; where a
//! program allocates gigabytes in a second, or has deep stacks, they come half as often when they take more than
//! [`BUDGET_PER_MILLE`] of the CPU time, and again, and more often again when they take less than a quarter of that. Each sample says at which
//! rate it was taken, so estimates stay right. The file is bounded in the same way ([`Request::limit_bytes`]).

pub mod format;
mod maps;
mod request;
mod stack;

pub use request::{DEFAULT_LIMIT_BYTES, DEFAULT_RATE_BYTES, Request};

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use format::Record;
use heapwright::{Sample, Sampler};
use heapwright_os::clock;
use maps::Maps;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::SystemTime;

/// How much of the process's CPU time samples may take, in thousandths.
pub const BUDGET_PER_MILLE: u64 = 5;
/// The CPU time is looked at whenever so many samples were taken.
const WINDOW: u64 = 64;
/// Threads that sample at this moment, by their numbers modulo this.
const PLACES: usize = 64;

/// Writes samples to a file. See the module.
#[derive(Debug)]
pub struct Profile {
    file: OwnedFd,
    /// Its device and number: a program may close all files that it has, and open others.
    identity: (u64, u64),
    pid: AtomicU32,
    name: String,
    rate: usize,
    limit: u64,
    /// Doublings of the rate: for the file's size, and for the time.
    halvings: AtomicU32,
    haste: AtomicU32,
    mean: AtomicUsize,
    seeds: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
    taken: AtomicU64,
    spent_ns: AtomicU64,
    since_ns: AtomicU64,
    weighing: AtomicBool,
    places: [AtomicI32; PLACES],
    maps: Maps,
}

impl Profile {
    /// Begins a profile. `name` says whose it is.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn begin(request: &Request, name: &str) -> io::Result<Arc<Self>> {
        let path =
            crate::record::file_of_process(request.file.as_os_str().as_bytes()).unwrap_or_default();
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))?;
        let stat = rustix::fs::fstat(&file)?;
        let seed = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as u64);
        let profile = Arc::new(Self {
            file,
            identity: (stat.st_dev, stat.st_ino),
            pid: AtomicU32::new(0),
            name: name.to_owned(),
            rate: request.rate_bytes.max(1),
            limit: request.limit_bytes,
            halvings: AtomicU32::new(0),
            haste: AtomicU32::new(0),
            mean: AtomicUsize::new(request.rate_bytes.max(1)),
            seeds: AtomicU64::new(seed),
            written: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            spent_ns: AtomicU64::new(0),
            since_ns: AtomicU64::new(0),
            weighing: AtomicBool::new(false),
            places: [const { AtomicI32::new(0) }; PLACES],
            maps: Maps::default(),
        });
        profile.open();
        Ok(profile)
    }

    /// The first records of a process.
    fn open(&self) {
        self.pid.store(std::process::id(), Ordering::Relaxed);
        self.since_ns
            .store(clock::process_cpu_ns(), Ordering::Relaxed);
        let unix_ns = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_nanos() as u64);
        let mut record = Record::new(format::BEGIN);
        record.word(self.pid());
        record.word(format::VERSION);
        record.word(unix_ns);
        record.word(clock::monotonic_ns());
        record.word(self.rate as u64);
        record.text(self.name.as_bytes());
        self.send(&record);
        self.maps.write(|record| self.send(record), self.pid());
    }

    fn pid(&self) -> u64 {
        self.pid.load(Ordering::Relaxed).into()
    }

    /// In the child of a fork, which has one thread: it goes on in the same file.
    pub fn after_fork(&self) {
        self.places
            .iter()
            .for_each(|place| place.store(0, Ordering::Relaxed));
        for count in [&self.written, &self.lost, &self.taken, &self.spent_ns] {
            count.store(0, Ordering::Relaxed);
        }
        self.weighing.store(false, Ordering::Relaxed);
        self.maps.after_fork();
        self.open();
    }

    /// Ends it. `allocated_bytes`: all that was allocated, which readers compare with the estimate; 0: not known.
    pub fn end(&self, allocated_bytes: u64) {
        self.maps.write(|record| self.send(record), self.pid());
        let mut record = Record::new(format::END);
        record.word(self.pid());
        record.word(clock::monotonic_ns());
        record.word(allocated_bytes);
        record.word(self.lost());
        self.send(&record);
    }

    /// How many samples were lost: the disk is full, or the program has closed the file.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn send(&self, record: &Record) {
        let bytes = record.bytes();
        let is_ours = rustix::fs::fstat(&self.file)
            .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.identity);
        if is_ours && rustix::io::write(self.file.as_fd(), bytes) == Ok(bytes.len()) {
            self.written
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn set_mean(&self) {
        let doublings = self.halvings.load(Ordering::Relaxed) + self.haste.load(Ordering::Relaxed);
        let mean = self
            .rate
            .checked_shl(doublings)
            .filter(|m| m >> doublings == self.rate);
        self.mean
            .store(mean.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Samples come half as often each time that half of the room is used up that is left in the file.
    fn mind_the_size(&self) {
        let used = self.written.load(Ordering::Relaxed);
        let halvings = self.halvings.load(Ordering::Relaxed);
        let left = self.limit.checked_shr(halvings + 1).unwrap_or(0);
        if used > self.limit - left && halvings < 63 {
            self.halvings.store(halvings + 1, Ordering::Relaxed);
            self.set_mean();
        }
    }

    /// A sample took so long.
    fn mind_the_time(&self, ns: u64) {
        let spent = self.spent_ns.fetch_add(ns, Ordering::Relaxed) + ns;
        let taken = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        if !taken.is_multiple_of(WINDOW) || self.weighing.swap(true, Ordering::Acquire) {
            return;
        }
        let now = clock::process_cpu_ns();
        let passed = now.saturating_sub(self.since_ns.swap(now, Ordering::Relaxed));
        self.spent_ns.fetch_sub(spent, Ordering::Relaxed);
        let haste = self.haste.load(Ordering::Relaxed);
        let budget = passed / 1000 * BUDGET_PER_MILLE;
        if spent > budget && haste < 20 {
            self.haste.store(haste + 1, Ordering::Relaxed);
        } else if spent < budget / 4 && haste > 0 {
            self.haste.store(haste - 1, Ordering::Relaxed);
        }
        self.set_mean();
        self.weighing.store(false, Ordering::Release);
    }

    fn record(&self, sample: Sample, thread: i32) {
        let mut record = Record::new(format::SAMPLE);
        for word in [
            self.pid(),
            clock::monotonic_ns(),
            u64::from(thread.unsigned_abs()),
            sample.bytes as u64,
            sample.mean_bytes as u64,
            sample.kind.into(),
        ] {
            record.word(word);
        }
        let mut unknown = false;
        stack::walk(|pc| {
            unknown |= !self.maps.knows(pc);
            record.word(pc as u64)
        });
        if unknown {
            self.maps.missed(|record| self.send(record), self.pid());
        }
        if self.written.load(Ordering::Relaxed) + record.bytes().len() as u64 > self.limit {
            self.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            self.send(&record);
        }
        self.mind_the_size();
    }
}

impl Sampler for Profile {
    fn mean_bytes(&self) -> usize {
        self.mean.load(Ordering::Relaxed)
    }

    fn seed(&self) -> u64 {
        // An odd constant that is no multiple of the generator's.
        self.seeds
            .fetch_add(0x2545_f491_4f6c_dd1d, Ordering::Relaxed)
    }

    fn sample(&self, sample: Sample) {
        let begin = clock::thread_cpu_ns();
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        // To walk the stack may allocate, in programs whose malloc is ours: not again for that.
        let place = &self.places[thread.unsigned_abs() as usize % PLACES];
        if place.load(Ordering::Relaxed) == thread {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = place.swap(thread, Ordering::Relaxed);
        self.record(sample, thread);
        place.store(before, Ordering::Relaxed);
        self.mind_the_time(clock::thread_cpu_ns().saturating_sub(begin));
    }
}

/// A profile that a heap and somebody else have.
#[derive(Clone, Debug)]
pub struct Shared(pub Arc<Profile>);

impl Sampler for Shared {
    fn mean_bytes(&self) -> usize {
        self.0.mean_bytes()
    }

    fn seed(&self) -> u64 {
        self.0.seed()
    }

    fn sample(&self, sample: Sample) {
        self.0.sample(sample);
    }
}
