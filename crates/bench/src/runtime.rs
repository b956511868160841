//! What a workload needs from a runtime. Workloads are written once against these traits and run on every runtime: the
//! embedded VM over each of our plans, and the peers that the comparison measures.
//!
//! References are raw: a [`Thread::Ref`] is good until the next call that may collect (the allocating ones,
//! [`Thread::poll`], [`Thread::collect`], [`Thread::outside`]). What is to outlive that goes to the thread's shadow stack and
//! is read again from there.

/// The heap is full, and collecting did not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl core::fmt::Display for Full {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("out of memory")
    }
}

impl core::error::Error for Full {}

/// A place in the shadow stack of a thread, counted from its bottom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root(pub usize);

/// A heap that threads can attach to.
pub trait Runtime: Sync {
    /// A thread of the runtime. Dropping it detaches the thread.
    type Thread<'r>: Thread
    where
        Self: 'r;

    /// Attaches the calling thread.
    ///
    /// # Errors
    /// If there is no memory for it.
    fn attach(&self) -> Result<Self::Thread<'_>, Full>;
}

/// A thread that allocates, reads and writes objects.
///
/// Objects have `references` fields that hold a reference or nothing, and `raw` bytes that the runtime does not look at.
/// Both are zero at first. Fields and raw bytes are checked against the object's shape in debug builds only.
pub trait Thread {
    /// A reference to an object.
    type Ref: Copy;

    /// The runtime frees only what [`Thread::dispose`] is told of.
    const MANUAL: bool = false;

    /// Allocates an object. May collect.
    ///
    /// # Errors
    /// [`Full`].
    fn object(&mut self, references: usize, raw: usize) -> Result<Self::Ref, Full>;

    /// Allocates an array of `length` references. May collect.
    ///
    /// # Errors
    /// [`Full`].
    fn array(&mut self, length: usize) -> Result<Self::Ref, Full>;

    /// Allocates an object of raw bytes only. May collect.
    ///
    /// # Errors
    /// [`Full`].
    fn bytes(&mut self, length: usize) -> Result<Self::Ref, Full>;

    /// Allocates a weak box: what it holds is not kept alive by it, and it is emptied when that dies. `referent` is a
    /// place of the shadow stack. May collect.
    ///
    /// # Errors
    /// [`Full`].
    fn weak(&mut self, referent: Root) -> Result<Self::Ref, Full>;

    /// What a weak box holds, if it still lives.
    fn weak_get(&mut self, weak: Self::Ref) -> Option<Self::Ref>;

    /// Reads reference `index` of an object or array.
    fn get(&self, object: Self::Ref, index: usize) -> Option<Self::Ref>;

    /// Writes reference `index` of an object or array.
    fn set(&mut self, object: Self::Ref, index: usize, value: Option<Self::Ref>);

    /// How many references an object or array has.
    fn references(&self, object: Self::Ref) -> usize;

    /// How many raw bytes an object has.
    fn raw_bytes(&self, object: Self::Ref) -> usize;

    /// Reads the raw 64-bit word at `offset` bytes into the raw part; `offset` is a multiple of 8.
    fn raw(&self, object: Self::Ref, offset: usize) -> u64;

    /// Writes it.
    fn set_raw(&mut self, object: Self::Ref, offset: usize, value: u64);

    /// The raw part, for reading and writing at once. Valid until the next call that may collect.
    fn raw_slice(&mut self, object: Self::Ref) -> &mut [u8];

    /// The same object?
    fn same(&self, a: Self::Ref, b: Self::Ref) -> bool;

    /// Pushes a reference onto the shadow stack.
    fn push(&mut self, value: Option<Self::Ref>) -> Root;

    /// Reads a place of the shadow stack.
    fn root(&self, root: Root) -> Option<Self::Ref>;

    /// Writes a place of the shadow stack.
    fn set_root(&mut self, root: Root, value: Option<Self::Ref>);

    /// How high the shadow stack is.
    fn height(&self) -> usize;

    /// Cuts the shadow stack back to a height.
    fn truncate(&mut self, height: usize);

    /// The workload is done: as [`Thread::truncate`]. What the stack held until now is what a heap dump shows.
    fn finish(&mut self, height: usize) {
        self.truncate(height);
    }

    /// A safepoint: the thread may be stopped here. To be called at least once in each loop that does not allocate.
    fn poll(&mut self);

    /// Collects now. May be a hint for runtimes that cannot.
    fn collect(&mut self);

    /// Runs `f` with the thread outside of the heap: it may be collected meanwhile. `f` touches no object.
    fn outside<R>(&mut self, f: impl FnOnce() -> R) -> R;

    /// The object will not be used again. Frees it where the runtime is [`Thread::MANUAL`]; nothing elsewhere.
    fn dispose(&mut self, object: Self::Ref) {
        let _ = object;
    }
}
