//! Two runtimes in plain Rust memory, without a collector.
//!
//! [`Oracle`] frees nothing before it is dropped. Nothing can go wrong in it, so its checksums are the reference for all
//! others; and its time is that of the program with an allocator only. [`Malloc`] takes each object from the global
//! allocator and frees it when the program says that it is dead: the comparison with manual memory management.
//!
//! Both have the same objects: a header of 8 bytes (the number of references and of raw bytes), the references, the raw
//! bytes rounded up to whole words. Objects never move. An object is used by one thread at a time.

use core::mem::size_of;
use core::ptr::NonNull;
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::runtime::{Full, Root, Runtime, Thread};

const WORD: usize = size_of::<u64>();

/// Set in a header when the object is a weak box.
const IS_WEAK_BOX: u32 = 1 << 31;
/// Set in a header when a weak box holds the object.
const IN_WEAK_BOX: u32 = 1 << 30;
/// What a header has for the number of raw bytes.
const RAW_MASK: u32 = IN_WEAK_BOX - 1;

/// From here on a fresh mapping of the allocator is cheaper than to clear memory.
const ZEROED_FROM: usize = 32 << 10;

/// What an object begins with.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    references: u32,
    /// Raw bytes, and the two weak bits.
    raw: u32,
}

/// A reference to an object of [`Oracle`] or [`Malloc`]: its address.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reference(NonNull<u64>);

// A reference is an address, and using it takes a thread of the runtime; see the rule in the module's documentation.
// SAFETY: the address itself can go anywhere.
unsafe impl Send for Reference {}

impl Reference {
    #[inline]
    fn header_place(self) -> *mut Header {
        self.0.as_ptr().cast()
    }

    #[inline]
    fn header(self) -> Header {
        // SAFETY: a reference that is in use is the start of a live object, which begins with its header.
        unsafe { self.header_place().read() }
    }

    #[inline]
    fn references(self) -> usize {
        self.header().references as usize
    }

    #[inline]
    fn raw_bytes(self) -> usize {
        (self.header().raw & RAW_MASK) as usize
    }

    #[inline]
    fn field(self, index: usize) -> *mut Option<Reference> {
        debug_assert!(
            index < self.references(),
            "reference {index} of {}",
            self.references()
        );
        // SAFETY: the object has more than `index` references, which follow its header.
        unsafe { self.0.as_ptr().add(1 + index).cast() }
    }

    #[inline]
    fn get(self, index: usize) -> Option<Reference> {
        // SAFETY: `field` is inside the object and holds a reference or zero, which is `None`.
        unsafe { self.field(index).read() }
    }

    #[inline]
    fn set(self, index: usize, value: Option<Reference>) {
        // SAFETY: `field` is inside the object.
        unsafe { self.field(index).write(value) }
    }

    #[inline]
    fn raw_start(self) -> *mut u64 {
        // SAFETY: the raw part follows the references; it may be empty, and then this is the object's end.
        unsafe { self.0.as_ptr().add(1 + self.references()) }
    }

    #[inline]
    fn raw_word(self, offset: usize) -> *mut u64 {
        debug_assert!(
            offset.is_multiple_of(WORD) && offset < self.raw_bytes(),
            "raw offset {offset}"
        );
        // SAFETY: the raw part is of whole words, and `offset` is inside of it.
        unsafe { self.raw_start().add(offset / WORD) }
    }

    #[inline]
    fn add_flag(self, flag: u32) {
        let mut header = self.header();
        header.raw |= flag;
        // SAFETY: the header is inside the object.
        unsafe { self.header_place().write(header) }
    }
}

/// The shape of an object that is to be allocated.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    references: u32,
    raw: u32,
    words: usize,
}

impl Shape {
    /// The shape with these many references and raw bytes.
    ///
    /// # Errors
    /// If an object cannot be that large.
    #[inline]
    fn new(references: usize, raw: usize) -> Result<Shape, Full> {
        if references >= u32::MAX as usize || raw >= RAW_MASK as usize {
            return Err(Full);
        }
        Ok(Shape {
            references: references as u32,
            raw: raw as u32,
            words: 1 + references + raw.div_ceil(WORD),
        })
    }

    fn of(header: Header) -> Shape {
        let raw = header.raw & RAW_MASK;
        Shape {
            references: header.references,
            raw,
            words: 1 + header.references as usize + (raw as usize).div_ceil(WORD),
        }
    }

    /// The memory of such an object.
    ///
    /// # Errors
    /// If there cannot be that much.
    #[inline]
    fn layout(self) -> Result<Layout, Full> {
        Layout::from_size_align(self.words * WORD, WORD).map_err(|_| Full)
    }

    /// Writes the header of a new object and returns the reference to it.
    ///
    /// # Safety
    /// `memory` is zero, aligned to words, of `self.words` words, and nobody else's.
    #[inline]
    unsafe fn begin(self, memory: NonNull<u64>) -> Reference {
        let object = Reference(memory);
        // SAFETY: the caller gives the memory, and there is at least one word.
        unsafe {
            object.header_place().write(Header {
                references: self.references,
                raw: self.raw,
            });
        }
        object
    }
}

/// Where a [`PlainThread`] gets objects from.
pub trait Source {
    /// Objects are freed with [`Source::free`] only.
    const MANUAL: bool;

    /// Allocates an object; its references and raw bytes are zero.
    ///
    /// # Errors
    /// [`Full`].
    fn allocate(&mut self, shape: Shape) -> Result<Reference, Full>;

    /// Notes that `weak` holds `referent`.
    fn note_weak(&mut self, weak: Reference, referent: Reference);

    /// Frees an object that is not used again.
    fn free(&mut self, object: Reference);
}

/// A thread of [`Oracle`] or of [`Malloc`].
#[derive(Debug)]
pub struct PlainThread<S: Source> {
    stack: Vec<Option<Reference>>,
    source: S,
}

impl<S: Source> PlainThread<S> {
    fn new(source: S) -> PlainThread<S> {
        PlainThread {
            stack: Vec::with_capacity(1 << 10),
            source,
        }
    }
}

impl<S: Source> Thread for PlainThread<S> {
    type Ref = Reference;

    const MANUAL: bool = S::MANUAL;

    #[inline]
    fn object(&mut self, references: usize, raw: usize) -> Result<Reference, Full> {
        self.source.allocate(Shape::new(references, raw)?)
    }

    #[inline]
    fn array(&mut self, length: usize) -> Result<Reference, Full> {
        self.source.allocate(Shape::new(length, 0)?)
    }

    #[inline]
    fn bytes(&mut self, length: usize) -> Result<Reference, Full> {
        self.source.allocate(Shape::new(0, length)?)
    }

    fn weak(&mut self, referent: Root) -> Result<Reference, Full> {
        let weak = self.source.allocate(Shape::new(1, 0)?)?;
        let referent = self.root(referent);
        weak.set(0, referent);
        if let Some(referent) = referent {
            self.source.note_weak(weak, referent);
        }
        Ok(weak)
    }

    #[inline]
    fn weak_get(&mut self, weak: Reference) -> Option<Reference> {
        weak.get(0)
    }

    #[inline]
    fn get(&self, object: Reference, index: usize) -> Option<Reference> {
        object.get(index)
    }

    #[inline]
    fn set(&mut self, object: Reference, index: usize, value: Option<Reference>) {
        object.set(index, value);
    }

    #[inline]
    fn references(&self, object: Reference) -> usize {
        object.references()
    }

    #[inline]
    fn raw_bytes(&self, object: Reference) -> usize {
        object.raw_bytes()
    }

    #[inline]
    fn raw(&self, object: Reference, offset: usize) -> u64 {
        // SAFETY: `raw_word` is inside the object.
        unsafe { object.raw_word(offset).read() }
    }

    #[inline]
    fn set_raw(&mut self, object: Reference, offset: usize, value: u64) {
        // SAFETY: `raw_word` is inside the object.
        unsafe { object.raw_word(offset).write(value) }
    }

    #[inline]
    fn raw_slice(&mut self, object: Reference) -> &mut [u8] {
        // SAFETY: the raw part is this long and was zero at first; the slice borrows the thread, through which alone the
        // object is used meanwhile.
        unsafe { core::slice::from_raw_parts_mut(object.raw_start().cast(), object.raw_bytes()) }
    }

    #[inline]
    fn same(&self, a: Reference, b: Reference) -> bool {
        a == b
    }

    #[inline]
    fn push(&mut self, value: Option<Reference>) -> Root {
        let place = Root(self.stack.len());
        self.stack.push(value);
        place
    }

    #[inline]
    fn root(&self, root: Root) -> Option<Reference> {
        self.stack[root.0]
    }

    #[inline]
    fn set_root(&mut self, root: Root, value: Option<Reference>) {
        self.stack[root.0] = value;
    }

    #[inline]
    fn height(&self) -> usize {
        self.stack.len()
    }

    #[inline]
    fn truncate(&mut self, height: usize) {
        self.stack.truncate(height);
    }

    #[inline]
    fn poll(&mut self) {}

    #[inline]
    fn collect(&mut self) {}

    fn outside<R>(&mut self, f: impl FnOnce() -> R) -> R {
        f()
    }

    #[inline]
    fn dispose(&mut self, object: Reference) {
        if S::MANUAL {
            self.source.free(object);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much a thread of [`Oracle`] takes at once.
const CHUNK: usize = 1 << 20;

/// Memory that an [`Oracle`] has.
#[derive(Debug)]
struct Chunk {
    start: NonNull<u64>,
    layout: Layout,
}

// SAFETY: a chunk is memory of its owner; no thread's state is in it.
unsafe impl Send for Chunk {}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: `start` came from the global allocator with this layout, and is freed here only.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) }
    }
}

/// A runtime that frees nothing before it is dropped. A weak box keeps what it holds.
#[derive(Debug)]
pub struct Oracle {
    chunks: Mutex<Vec<Chunk>>,
    used: AtomicUsize,
    limit: usize,
}

impl Oracle {
    /// A runtime with as much memory as there is.
    pub fn new() -> Oracle {
        Oracle::with_limit(usize::MAX)
    }

    /// A runtime that is full at `limit` bytes.
    pub fn with_limit(limit: usize) -> Oracle {
        Oracle {
            chunks: Mutex::new(Vec::new()),
            used: AtomicUsize::new(0),
            limit,
        }
    }

    /// Bytes that the runtime has taken from the global allocator.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes zeroed memory. It belongs to the oracle.
    fn take(&self, layout: Layout) -> Result<NonNull<u64>, Full> {
        let room = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(layout.size())
                    .filter(|sum| *sum <= self.limit)
            });
        if room.is_err() {
            return Err(Full);
        }
        // SAFETY: no layout here is of size 0.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(memory.cast::<u64>()) else {
            self.used.fetch_sub(layout.size(), Ordering::Relaxed);
            return Err(Full);
        };
        lock(&self.chunks).push(Chunk { start, layout });
        Ok(start)
    }
}

impl Default for Oracle {
    fn default() -> Oracle {
        Oracle::new()
    }
}

impl Runtime for Oracle {
    type Thread<'r> = PlainThread<Arena<'r>>;

    fn attach(&self) -> Result<PlainThread<Arena<'_>>, Full> {
        Ok(PlainThread::new(Arena {
            next: NonNull::dangling(),
            left: 0,
            oracle: self,
        }))
    }
}

/// The memory of a thread of [`Oracle`].
#[derive(Debug)]
pub struct Arena<'r> {
    next: NonNull<u64>,
    /// Words from `next` on that are free.
    left: usize,
    oracle: &'r Oracle,
}

impl Arena<'_> {
    #[cold]
    #[inline(never)]
    fn slow(&mut self, shape: Shape) -> Result<Reference, Full> {
        if shape.words > CHUNK / WORD / 8 {
            let memory = self.oracle.take(shape.layout()?)?;
            // SAFETY: the memory is new, zero and of the layout of this shape.
            return Ok(unsafe { shape.begin(memory) });
        }
        self.next = self
            .oracle
            .take(Layout::from_size_align(CHUNK, 64).map_err(|_| Full)?)?;
        self.left = CHUNK / WORD;
        self.allocate(shape)
    }
}

impl Source for Arena<'_> {
    const MANUAL: bool = false;

    #[inline]
    fn allocate(&mut self, shape: Shape) -> Result<Reference, Full> {
        if shape.words > self.left {
            return self.slow(shape);
        }
        let memory = self.next;
        // SAFETY: the chunk has `left` words from `next` on, and the shape has no more.
        self.next = unsafe { memory.add(shape.words) };
        self.left -= shape.words;
        // SAFETY: these words are of this thread's chunk, zero since it was taken, and given out here only.
        Ok(unsafe { shape.begin(memory) })
    }

    fn note_weak(&mut self, _: Reference, _: Reference) {}

    fn free(&mut self, _: Reference) {}
}

/// A runtime of the global allocator: what is not disposed of stays for ever.
#[derive(Debug, Default)]
pub struct Malloc {
    /// The weak boxes that hold an object.
    weak: Mutex<HashMap<Reference, Vec<Reference>>>,
    live: AtomicI64,
}

impl Malloc {
    /// A new runtime.
    pub fn new() -> Malloc {
        Malloc::default()
    }

    /// Objects that threads which are gone have allocated, less those that they have freed.
    pub fn live(&self) -> i64 {
        self.live.load(Ordering::Relaxed)
    }
}

impl Runtime for Malloc {
    type Thread<'r> = PlainThread<Global<'r>>;

    fn attach(&self) -> Result<PlainThread<Global<'_>>, Full> {
        Ok(PlainThread::new(Global {
            live: 0,
            malloc: self,
        }))
    }
}

/// The global allocator, for a thread of [`Malloc`].
#[derive(Debug)]
pub struct Global<'r> {
    live: i64,
    malloc: &'r Malloc,
}

impl Global<'_> {
    /// Empties the weak boxes that hold `object`, and forgets it if it is one.
    #[cold]
    #[inline(never)]
    fn forget(&mut self, object: Reference) {
        let flags = object.header().raw;
        let mut table = lock(&self.malloc.weak);
        if flags & IN_WEAK_BOX != 0
            && let Some(boxes) = table.remove(&object)
        {
            for weak in boxes {
                weak.set(0, None);
            }
        }
        if flags & IS_WEAK_BOX != 0
            && let Some(referent) = object.get(0)
            && let Some(boxes) = table.get_mut(&referent)
        {
            boxes.retain(|weak| *weak != object);
        }
    }
}

impl Source for Global<'_> {
    const MANUAL: bool = true;

    #[inline]
    fn allocate(&mut self, shape: Shape) -> Result<Reference, Full> {
        let layout = shape.layout()?;
        let memory = if layout.size() < ZEROED_FROM {
            // SAFETY: the layout has room for a header at least.
            let memory = unsafe { alloc(layout) };
            if !memory.is_null() {
                // SAFETY: the memory is new and of this size.
                unsafe { memory.write_bytes(0, layout.size()) };
            }
            memory
        } else {
            // SAFETY: as above.
            unsafe { alloc_zeroed(layout) }
        };
        let memory = NonNull::new(memory.cast()).ok_or(Full)?;
        self.live += 1;
        // SAFETY: the memory is new, zero and of the layout of this shape.
        Ok(unsafe { shape.begin(memory) })
    }

    fn note_weak(&mut self, weak: Reference, referent: Reference) {
        weak.add_flag(IS_WEAK_BOX);
        referent.add_flag(IN_WEAK_BOX);
        lock(&self.malloc.weak)
            .entry(referent)
            .or_default()
            .push(weak);
    }

    #[inline]
    fn free(&mut self, object: Reference) {
        let header = object.header();
        if header.raw & !RAW_MASK != 0 {
            self.forget(object);
        }
        let size = Shape::of(header).words * WORD;
        self.live -= 1;
        // SAFETY: an object comes from the global allocator with this layout, which was valid then; the program says that
        // it will not use it again.
        unsafe {
            let layout = Layout::from_size_align_unchecked(size, WORD);
            dealloc(object.0.as_ptr().cast(), layout);
        }
    }
}

impl Drop for Global<'_> {
    fn drop(&mut self) {
        self.malloc.live.fetch_add(self.live, Ordering::Relaxed);
    }
}
