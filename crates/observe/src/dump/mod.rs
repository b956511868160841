//! Heap dumps in formats that other people's tools open.
//!
//! A [`Source`] is a heap whose world is stopped: [`Objects`] of a [`heapwright::Heap`], [`Cells`] of a [`heapwright::WordHeap`].
//! [`write()`] finds what lives and writes it in a [`Format`]; [`DumpFile`] gives it a file that has its name only when it is whole.
//! docs/heap-dumps.md says what becomes of an object in each format.
//!
//! **Memory**: a bit for each 8 bytes of the heap's range and an eighth of that for ranks (1.8 %), 16 bytes for each root, a mark stack of
//! 8 bytes for each object that was found and not yet looked at, and 1.1 MiB of buffers. Neither the graph nor the file is ever in memory.
//! All of it is mapped, and nothing here calls malloc: a source that does not may be dumped where malloc may not be called.

mod classes;
mod file;
mod graph;
mod heapsnapshot;
mod hprof;
mod numbering;
mod objects;
mod out;
mod request;
mod words;

pub use file::{DumpFile, expand};
pub use objects::{
    Objects, dump_heap, dump_heap_as, dump_heap_from_outside, dump_when_full, sizes_if_quiet,
    sizes_of,
};
pub use request::{Request, When, WrongRequest};
pub use words::{Cells, KindName};

use core::fmt;
use core::str::FromStr;
use graph::Graph;
use heapwright::Living;
use heapwright_os::{OsError, clock};
use out::Out;
use std::io;
use std::path::Path;

/// What a dump looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// For Eclipse MAT, VisualVM and others: the binary format of Java's heap dumps.
    Hprof,
    /// For the DevTools of Chrome and others: the JSON of V8's heap snapshots.
    HeapSnapshot,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Hprof, Self::HeapSnapshot];

    /// The extension of file names, which is what people call it.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Hprof => "hprof",
            Self::HeapSnapshot => "heapsnapshot",
        }
    }

    /// The format that a file's name asks for by its extension.
    ///
    /// # Errors
    /// If it asks for none.
    pub fn of(path: &Path) -> Result<Self, UnknownFormat> {
        let extension = path.extension().and_then(|e| e.to_str());
        extension.ok_or(UnknownFormat)?.parse()
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        let found = Self::ALL.into_iter().find(|f| f.extension() == text);
        found.ok_or(UnknownFormat)
    }
}

/// A name that says no format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownFormat;

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the name of a heap dump ends in .hprof (Eclipse MAT, VisualVM) or .heapsnapshot (Chrome DevTools)",
        )
    }
}

impl core::error::Error for UnknownFormat {}

/// Why there is no dump. The heap is as it was.
#[derive(Debug)]
#[non_exhaustive]
pub enum DumpError {
    /// The file could not be written.
    Write(io::Error),
    /// There was no memory to find out what lives.
    Memory(OsError),
    /// The heap does not know all of its objects: [`Extent::All`] needs [`heapwright::Vm::OBJECT_MAP`].
    NotAll,
    /// The name of the file says no format.
    Format(UnknownFormat),
    /// The thread is in the middle of a collection of the heap.
    InCollection,
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(e) => write!(f, "the heap dump could not be written: {e}"),
            Self::Memory(e) => write!(f, "no memory to find out what lives in the heap: {e}"),
            Self::NotAll => f.write_str(
                "a heap without an object map knows only the objects that can be reached",
            ),
            Self::Format(e) => e.fmt(f),
            Self::InCollection => f.write_str("the heap cannot be dumped by who collects it"),
        }
    }
}

impl core::error::Error for DumpError {}

impl From<io::Error> for DumpError {
    fn from(e: io::Error) -> Self {
        Self::Write(e)
    }
}

impl From<OsError> for DumpError {
    fn from(e: OsError) -> Self {
        Self::Memory(e)
    }
}

impl From<UnknownFormat> for DumpError {
    fn from(e: UnknownFormat) -> Self {
        Self::Format(e)
    }
}

/// Which objects a dump has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Extent {
    /// Those that something keeps.
    #[default]
    Reachable,
    /// Also those that are dead and not collected yet. Their references to what is gone are left out.
    All,
}

/// What keeps an object from outside of the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RootKind {
    /// The stack or the registers of a thread; in heaps of words, also static data.
    Thread,
    /// The runtime, beside its threads.
    Runtime,
    /// It lives as long as the heap, or until it is freed.
    Permanent,
    /// It waits to be finalized, or for the runtime to hear of it.
    Queued,
    /// A soft reference, an ephemeron or a weak map whose key lives.
    Reference,
    /// Nothing: it is dead and not collected yet.
    Dead,
}

impl RootKind {
    const ALL: [Self; 6] = [
        Self::Thread,
        Self::Runtime,
        Self::Permanent,
        Self::Queued,
        Self::Reference,
        Self::Dead,
    ];

    /// What the place is called that such objects hang from in a heap snapshot.
    const fn name(self) -> &'static str {
        match self {
            Self::Thread => "(Stack roots)",
            Self::Runtime => "(Global roots)",
            Self::Permanent => "(Permanent objects)",
            Self::Queued => "(Queued for the runtime)",
            Self::Reference => "(Soft references and ephemerons)",
            Self::Dead => "(Not reachable)",
        }
    }
}

/// An object, without what it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// The number of its type.
    pub type_id: u32,
    /// Its size in bytes.
    pub bytes: usize,
    /// How many places it has for references, empty ones included.
    pub references: usize,
}

/// A heap whose world is stopped. Everything in it stays as it is while it is looked at. An object is the address of its first byte, a
/// multiple of 8.
pub trait Source {
    /// Where objects can be: the first address and how many bytes.
    fn range(&self) -> (usize, usize);

    /// Visits what is kept from outside of the heap. Called once.
    fn roots(&mut self, visit: &mut dyn FnMut(RootKind, usize));

    /// Visits all objects, dead ones too. False, without a visit, if they are not known.
    fn all(&mut self, visit: &mut dyn FnMut(usize)) -> bool;

    /// Visits places that may look like objects and are none yet.
    fn set_aside(&mut self, visit: &mut dyn FnMut(usize)) {
        let _ = visit;
    }

    /// Reports what is kept because other objects live, besides by their references; again and again until nothing is added.
    fn kept(&mut self, living: &mut dyn Living) {
        let _ = living;
    }

    /// An object.
    fn node(&self, object: usize) -> Node;

    /// Visits what an object refers to: [`Node::references`] times, with 0 for an empty place.
    fn references(&self, object: usize, visit: &mut dyn FnMut(usize));

    /// Says what a type is called.
    fn type_name(&self, type_id: u32, put: &mut dyn FnMut(&str));
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// How many objects.
    pub objects: u64,
    /// Their bytes in the heap.
    pub object_bytes: u64,
    /// References from one to another.
    pub references: u64,
    /// The dump's own size in bytes.
    pub bytes: u64,
    /// How long it took, in nanoseconds.
    pub took_ns: u64,
}

/// Writes a dump of a heap. How long that takes, its world is stopped. What goes wrong is known at the end: `to` has a part of a dump
/// then.
///
/// # Errors
/// If `to` cannot be written to, there is no memory, or the heap does not know its objects.
pub fn write<S: Source>(
    source: &mut S,
    extent: Extent,
    format: Format,
    to: &mut dyn io::Write,
) -> Result<Written, DumpError> {
    let start = clock::monotonic_ns();
    let graph = Graph::of(source, extent)?;
    let mut out = Out::new(to)?;
    let object_bytes = match format {
        Format::Hprof => hprof::write(&graph, &mut out)?,
        Format::HeapSnapshot => heapsnapshot::write(&graph, &mut out)?,
    };
    let bytes = out.finish()?;
    Ok(Written {
        objects: graph.objects(),
        object_bytes,
        references: graph.edges(),
        bytes,
        took_ns: clock::monotonic_ns() - start,
    })
}
