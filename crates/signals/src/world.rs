//! The interface: the world, and the sections of its threads.

use crate::SignalError;
use crate::stop::{Record, Stops};
use crate::system;
use core::hint::black_box;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Range;
use core::sync::atomic::{Ordering, fence};
use heapwright::{Address, RootVisitor, WildWord, World};
use std::sync::Arc;

/// A [`World`] whose threads stop at polls, and by a signal in interruptible sections. For [`heapwright::Builder::world`].
///
/// ```
/// use heapwright::example::{Pairs, number, push, root};
/// use heapwright::Heap;
/// use heapwright_signals::SignalWorld;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let world = SignalWorld::new()?;
/// let heap = Heap::<Pairs>::builder()
///     .options(Pairs::options("immix")?)
///     .world(world.clone())
///     .build(Pairs)?;
/// let mut mutator = heap.attach(Vec::new())?;
/// push(&mut mutator, 1)?;
/// // Threads that never begin a section are stopped as with the core's gate.
/// assert!(mutator.collect().is_some());
/// assert_eq!(number(root(&mutator, 0)), 1);
/// // What threads cause by themselves cannot stop them.
/// assert!(SignalWorld::with_signal(11).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SignalWorld {
    stops: Stops,
}

impl SignalWorld {
    /// With `SIGURG`: nobody sends it but who asked for it; where there is no handler it is ignored, as in a program that the process
    /// becomes by `exec`; debuggers pass it on; and it leaves `SIGPWR` to libgc.
    ///
    /// # Errors
    /// As [`SignalWorld::with_signal`].
    pub fn new() -> Result<Arc<Self>, SignalError> {
        Self::with_signal(libc::SIGURG)
    }

    /// With a signal of the runtime's choice. All worlds of a process may use one signal. The handler stays when the world is dropped;
    /// nobody may install another.
    ///
    /// # Errors
    /// If somebody else's handler is installed for it, or none can be.
    pub fn with_signal(signal: i32) -> Result<Arc<Self>, SignalError> {
        system::install(signal)?;
        Ok(Arc::new(Self {
            stops: Stops::new(signal),
        }))
    }

    /// What a mutator begins sections with. Any thread, at any time; waits for nobody.
    #[must_use]
    pub fn section(self: &Arc<Self>) -> Section {
        Section {
            record: self.stops.take_record(),
            world: Arc::clone(self),
            one_thread: PhantomData,
        }
    }
}

// SAFETY: 1, 3: those inside are counted with a lock held, under which the world is closed and opened; who closes waits until all of them are
// outside or have acknowledged the epoch (`bring_out`), after which they wait for it to change (`handle`). 2: `close` waits for that. 4: nothing
// allocates on a heap.
unsafe impl World for SignalWorld {
    fn enter(&self) {
        self.stops.come_in(1);
    }

    fn leave(&self) {
        self.stops.leave();
    }

    fn stop(&self) {
        self.stops.stop();
    }

    fn close(&self, inside: bool, raise: &dyn Fn()) -> bool {
        self.stops.close(inside, raise)
    }

    fn try_close(&self) -> bool {
        self.stops.try_close()
    }

    fn open(&self, _: bool) {
        self.stops.open();
    }

    unsafe fn forked(&self, inside: bool) {
        system::forked();
        // SAFETY: the caller's promise.
        unsafe { self.stops.forked(inside) };
    }
}

/// A mutator's interruptible sections. The runtime keeps one in its `Vm::Thread`, for [`Section::report`], and a clone with the thread
/// that uses the mutator. It goes with the mutator if that is handed to another thread.
///
/// A loop over an object's words that is stopped at once, without a poll in it:
///
/// ```
/// use heapwright::{Address, Heap, ObjectReference, RootVisitor, SlotVisitor, Vm, WordSlots};
/// use heapwright_signals::{Section, SignalWorld};
///
/// /// Objects are 64 words of data; a thread has nothing but a section.
/// struct Vectors;
///
/// // SAFETY: all objects have that size, and no references; what leads to them is a local variable in a section.
/// unsafe impl Vm for Vectors {
///     type Thread = Section;
///     type Slots = WordSlots;
///     const OBJECT_MAP: bool = true;
///     const PINS: bool = true;
///
///     fn slots(&self) -> WordSlots {
///         WordSlots
///     }
///
///     fn size(&self, _: ObjectReference) -> usize {
///         512
///     }
///
///     fn scan<S: SlotVisitor>(&self, _: ObjectReference, _: &mut S) {}
///
///     fn thread_roots<R: RootVisitor>(&self, section: &mut Section, visit: &mut R) {
///         section.report(visit);
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let world = SignalWorld::new()?;
/// let heap = Heap::<Vectors>::builder().world(world.clone()).build(Vectors)?;
/// let section = world.section();
/// let mut mutator = heap.attach(section.clone())?;
/// let vector = mutator.alloc(512)?.to_address();
/// // SAFETY: the code reads and writes words of an object that it holds by value, and calls nothing.
/// let sum = unsafe {
///     section.interruptible(move || {
///         let mut sum = 0;
///         for word in 0..64 {
///             vector.add(8 * word).store(word);
///             sum += vector.add(8 * word).load::<usize>();
///         }
///         sum
///     })
/// };
/// assert_eq!(sum, 2016);
/// drop(mutator);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Section {
    record: *const Record,
    world: Arc<SignalWorld>,
    /// Not for several threads at once: a thread that begins is the only one.
    one_thread: PhantomData<*mut ()>,
}

// SAFETY: the record is the world's, which this keeps.
unsafe impl Send for Section {}

impl Clone for Section {
    fn clone(&self) -> Self {
        self.record().handles.fetch_add(1, Ordering::Relaxed);
        Self {
            record: self.record,
            world: Arc::clone(&self.world),
            one_thread: PhantomData,
        }
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        self.record().handles.fetch_sub(1, Ordering::Release);
    }
}

/// Ends a section, also if it panics.
struct End<'a>(&'a Section);

impl Drop for End<'_> {
    fn drop(&mut self) {
        // SAFETY: `interruptible` has begun it, on this thread.
        unsafe { self.0.end() };
    }
}

impl Section {
    #[inline(always)]
    fn record(&self) -> &Record {
        // SAFETY: records are freed with the world, which this keeps.
        unsafe { &*self.record }
    }

    /// Runs `code` in an interruptible section: while it runs, the thread can be stopped between any two instructions.
    ///
    /// For references that `code` holds by value (`move`), or gets from objects, that is no safepoint: what they lead to lives, and stays
    /// where it is. For all others that the thread has it is one: they have to be reported as roots, and may be updated. References
    /// that point into an object count; one that points behind its end, as in a loop that compares addresses, does not. What `code`
    /// returns is good until the next safepoint.
    ///
    /// Sections may be nested; only the end of the outermost has an effect.
    ///
    /// # Safety
    /// The calling thread is inside of the heaps of the world, with the mutator in whose `Vm::Thread` this section is. `code`
    /// 1. uses no mutator and no [`World`]: it allocates nothing, writes no references into objects, and does not poll;
    /// 2. calls no malloc, takes no lock that others wait for, and does not panic: it is stopped while it holds them;
    /// 3. does not touch the `Vm::Thread`, nor what the runtime reports as roots, but for reading;
    /// 4. stays on its stack, and is not a signal handler.
    ///
    /// It may read references, and read and write other fields.
    #[inline(never)]
    pub unsafe fn interruptible<R>(&self, code: impl FnOnce() -> R) -> R {
        // Below this frame all is kept.
        let frame = 0usize;
        // SAFETY: the caller's promise.
        unsafe { self.run(code, black_box(&raw const frame).addr()) }
    }

    #[inline(never)]
    unsafe fn run<R, F: FnOnce() -> R>(&self, code: F, frame: usize) -> R {
        let code = ManuallyDrop::new(code);
        // A large value may be in the frame of a caller.
        let end = black_box(&raw const code).addr() + size_of::<F>();
        // SAFETY: the caller's promise; ended below.
        unsafe { self.begin(Address::new(frame.max(end).next_multiple_of(8))) };
        let _end = End(self);
        ManuallyDrop::into_inner(code)()
    }

    /// Begins a section: for generated code, which ends it by [`Section::end`]. All references that it holds are in registers or on its stack
    /// below `high`, an address on it, a multiple of 8.
    ///
    /// # Safety
    /// As [`Section::interruptible`], of all that the thread does until the end. If it ends itself before that, its mutator must not be
    /// used or dropped: for the heap it is outside from then on.
    #[inline(always)]
    pub unsafe fn begin(&self, high: Address) {
        let record = self.record();
        let stops = &self.world.stops;
        let own = system::own_number(stops.signal);
        if record.owner.load(Ordering::Relaxed) == 0 {
            // In this order: the handler may come between.
            record
                .outer
                .store(system::current().cast_mut(), Ordering::Relaxed);
            system::set_current(self.record);
        }
        stops.begin(record, own, high.as_usize());
    }

    /// Ends the section that was begun last.
    ///
    /// # Safety
    /// The calling thread has begun it.
    #[inline(always)]
    pub unsafe fn end(&self) {
        if Stops::end(self.record()) {
            system::set_current(self.record().outer.load(Ordering::Relaxed));
        }
    }

    /// World stopped: where the words are that the thread holds, if it is stopped in a section: its registers, of all kinds, in the frame that
    /// the kernel made, and its stack up to where the section began. Multiples of 8.
    #[must_use]
    pub fn stopped_words(&self) -> Option<Range<Address>> {
        let words = self.world.stops.stopped_at(self.record())?;
        Some(Address::new(words.start)..Address::new(words.end))
    }

    /// Reports [`Section::stopped_words`] as ambiguous roots. In [`heapwright::Vm::thread_roots`].
    pub fn report<R: RootVisitor>(&self, visit: &mut R) {
        let Some(words) = self.stopped_words() else {
            return;
        };
        fence(Ordering::Acquire);
        let mut at = words.start;
        while at < words.end {
            // SAFETY: the stack of a thread that waits in its handler.
            let word = unsafe { at.as_ptr::<usize>().read_volatile() };
            visit.ambiguous(WildWord::new(word));
            at = at.add(8);
        }
    }
}
