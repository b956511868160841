//! The dump of a heap of objects.

use super::graph::{Graph, reference};
use super::{DumpError, DumpFile, Extent, Format, Node, RootKind, Source, Written, write};
use crate::sizes::Sizes;
use core::sync::atomic::{AtomicBool, Ordering};
use heapwright::{Frozen, Heap, Living, Mutator, RootOrigin, TypeId, Vm};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A [`heapwright::Heap`] whose world is stopped: [`heapwright::Mutator::freeze`].
#[derive(Debug)]
pub struct Objects<'f, 'h, V: Vm>(&'f mut Frozen<'h, V>);

impl<'f, 'h, V: Vm> Objects<'f, 'h, V> {
    /// To dump it.
    #[must_use]
    pub fn new(frozen: &'f mut Frozen<'h, V>) -> Self {
        Self(frozen)
    }
}

impl<V: Vm> Source for Objects<'_, '_, V> {
    fn range(&self) -> (usize, usize) {
        let (base, bytes) = self.0.range();
        (base.as_usize(), bytes)
    }

    fn roots(&mut self, visit: &mut dyn FnMut(RootKind, usize)) {
        self.0.roots(&mut |origin, object| {
            let kind = match origin {
                RootOrigin::Thread => RootKind::Thread,
                RootOrigin::Runtime => RootKind::Runtime,
                RootOrigin::Immortal => RootKind::Permanent,
                RootOrigin::Queued => RootKind::Queued,
            };
            visit(kind, object.to_address().as_usize());
        });
    }

    fn all(&mut self, visit: &mut dyn FnMut(usize)) -> bool {
        self.0
            .for_each_object(&mut |object| visit(object.to_address().as_usize()))
    }

    fn kept(&mut self, living: &mut dyn Living) {
        self.0.kept(living);
    }

    fn node(&self, object: usize) -> Node {
        let vm = self.0.vm();
        reference(object).map_or(
            Node {
                type_id: 0,
                bytes: 0,
                references: 0,
            },
            |o| Node {
                type_id: vm.type_of(o).0,
                bytes: vm.size(o),
                references: self.0.fields(o),
            },
        )
    }

    fn references(&self, object: usize, visit: &mut dyn FnMut(usize)) {
        if let Some(object) = reference(object) {
            self.0.references(object, &mut |target| {
                visit(target.map_or(0, |t| t.to_address().as_usize()));
            });
        }
    }

    fn type_name(&self, type_id: u32, put: &mut dyn FnMut(&str)) {
        put(&self.0.vm().type_name(TypeId(type_id)));
    }
}

/// Dumps a heap to a file, in the format that the file's name says; `%p` in it is the process's number. A safepoint: the world is stopped
/// until the dump is written. The file has its name when it is whole; if there is an error, there is none.
///
/// # Errors
/// As [`write()`], and if the name says no format.
///
/// ```
/// use heapwright::example::{Pairs, push};
/// use heapwright_observe::dump::{Extent, dump_heap};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("semispace")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// push(&mut mutator, 1)?;
/// push(&mut mutator, 2)?;
/// let file = std::env::temp_dir().join(format!("heapwright-example-{}.hprof", std::process::id()));
/// let written = dump_heap(&mut mutator, &file, Extent::Reachable)?;
/// std::fs::remove_file(&file)?;
/// assert_eq!((written.objects, written.object_bytes), (2, 64));
/// # Ok(())
/// # }
/// ```
pub fn dump_heap<V: Vm>(
    mutator: &mut Mutator<V>,
    path: &Path,
    extent: Extent,
) -> Result<Written, DumpError> {
    dump_heap_as(mutator, path, Format::of(path)?, extent)
}

/// Counts the objects of a heap by size. A safepoint: the world is stopped meanwhile.
///
/// # Errors
/// If there is no memory for the walk, or the heap does not know its objects.
pub fn sizes_of<V: Vm>(mutator: &mut Mutator<V>, extent: Extent) -> Result<Sizes, DumpError> {
    mutator.freeze(|frozen| sizes(frozen, extent))
}

/// The same of what can be reached, by any thread, if no mutator is inside of the heap; else `None`.
///
/// # Errors
/// As [`sizes_of`].
pub fn sizes_if_quiet<V: Vm>(heap: &Heap<V>) -> Option<Result<Sizes, DumpError>> {
    heap.freeze_if_quiet(|frozen| sizes(frozen, Extent::Reachable))
}

fn sizes<V: Vm>(frozen: &mut Frozen<'_, V>, extent: Extent) -> Result<Sizes, DumpError> {
    let mut source = Objects::new(frozen);
    let graph = Graph::of(&mut source, extent)?;
    let mut sizes = Sizes::default();
    graph.for_each(|object| {
        sizes.add(graph.source().node(object).bytes, 1);
        true
    });
    Ok(sizes)
}

/// The same in a format, whatever the file's name says.
///
/// # Errors
/// As [`write()`].
pub fn dump_heap_as<V: Vm>(
    mutator: &mut Mutator<V>,
    path: &Path,
    format: Format,
    extent: Extent,
) -> Result<Written, DumpError> {
    to_file(path, |file| {
        mutator.freeze(|frozen| write(&mut Objects::new(frozen), extent, format, file))
    })
}

/// A file that has its name when it is whole.
fn to_file(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<Written, DumpError>,
) -> Result<Written, DumpError> {
    let mut file = DumpFile::create(path)?;
    let written = write(file.file())?;
    file.finish()?;
    Ok(written)
}

/// As [`dump_heap`], by a thread that has no mutator inside of the heap: with one it would wait for itself.
///
/// # Errors
/// As [`dump_heap`], and in the middle of a collection of the heap.
pub fn dump_heap_from_outside<V: Vm>(
    heap: &Heap<V>,
    path: &Path,
    extent: Extent,
) -> Result<Written, DumpError> {
    let format = Format::of(path)?;
    to_file(path, |file| {
        heap.freeze(|frozen| write(&mut Objects::new(frozen), extent, format, file))
            .ok_or(DumpError::InCollection)?
    })
}

/// Has the heap dumped when an allocation is about to fail for want of room, the first time: on the thread that asked. A dump that cannot
/// be written then is not missed. False if the heap has something to do then already, which stays.
pub fn dump_when_full<V: Vm>(heap: &Heap<V>, path: PathBuf) -> bool {
    let taken = AtomicBool::new(false);
    heap.on_out_of_memory(move |mutator, _| {
        if !taken.swap(true, Ordering::Relaxed) {
            // The allocation fails in any case; there is nobody to tell.
            let _ = dump_heap(mutator, &path, Extent::Reachable);
        }
    })
}
