//! What the heap keeps for each mutator, and the list of all of them.

use super::gate::Interrupt;
use super::references::Registered;
use super::yields::Yields;
use crate::alloc::{Countdown, LocalRuns};
use crate::space::objects::Region;
use crate::vm::Vm;
use core::cell::UnsafeCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One mutator. Used by its thread while that is inside of the heap, and by the collector while the world is stopped.
///
/// The region is the first field, and its cursor and limit are the first two words: that is what
/// [`crate::alloc::FastPath`] describes.
#[repr(C)]
#[allow(
    missing_debug_implementations,
    reason = "holds the runtime's thread data"
)]
pub struct Local<V: Vm> {
    pub(crate) region: Region,
    /// It is to stop at its next poll.
    pub(crate) interrupt: Interrupt,
    /// Which writes the barrier is to see.
    pub(crate) barrier: Barrier,
    /// What the first word of a new object is, where objects have header bits: 0, or the mark.
    pub(crate) new_header: usize,
    /// Up to so many bytes are allocated in `runs`: 0 for plans that bump.
    pub(crate) most_in_cells: usize,
    pub(crate) overflow: Region,
    /// For plans with size classes.
    pub(crate) runs: Option<Box<LocalRuns>>,
    /// Old objects that were written to; or, while marking concurrently, what was overwritten.
    pub(crate) log: Vec<usize>,
    /// The log could not grow: the next collection is to be a full one.
    pub(crate) log_lost: bool,
    /// Allocations left until the option `stress` collects.
    pub(crate) stress: usize,
    pub(crate) yields: Yields,
    /// References and finalizers that were registered since the world was last stopped.
    pub(crate) registered: Box<Registered>,
    /// The thread that attached it, or came back inside with it last: [`heapwright_os::current_thread`].
    pub(crate) owner: usize,
    /// Its thread is inside of the heap.
    pub(crate) inside: bool,
    /// To the next object that is sampled, in regions and in pages.
    pub(crate) countdown: Countdown,
    /// The runtime's own.
    pub(crate) thread: V::Thread,
}

/// What the write barrier does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Barrier {
    /// Nothing.
    #[default]
    None,
    /// Remembers old objects that are written to.
    Object,
    /// Remembers what is overwritten, while marking concurrently.
    Snapshot,
}

struct Place<V: Vm>(*mut UnsafeCell<Local<V>>);

// SAFETY: the pointer is used by the owner, or by who has stopped the world; `V::Thread` is Send.
unsafe impl<V: Vm> Send for Place<V> {}

/// All mutators of a heap.
#[allow(
    missing_debug_implementations,
    reason = "holds the runtime's thread data"
)]
pub struct Locals<V: Vm>(Mutex<Vec<Place<V>>>);

impl<V: Vm> Default for Locals<V> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<V: Vm> Locals<V> {
    fn list(&self) -> MutexGuard<'_, Vec<Place<V>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a mutator: where it is until [`Locals::remove`]. `None` if there is no memory for the list.
    #[must_use]
    pub fn add(&self, local: Local<V>) -> Option<*mut Local<V>> {
        let mut list = self.list();
        list.try_reserve(1).ok()?;
        let place = Box::into_raw(Box::new(UnsafeCell::new(local)));
        list.push(Place(place));
        Some(UnsafeCell::raw_get(place))
    }

    /// Takes a mutator out of the list and gives it back.
    ///
    /// # Safety
    /// `local` came from [`Locals::add`] of this list, is used by nobody else, and no collection is under way.
    #[must_use]
    pub unsafe fn remove(&self, local: *mut Local<V>) -> Option<Box<Local<V>>> {
        let mut list = self.list();
        let index = list
            .iter()
            .position(|p| core::ptr::eq(UnsafeCell::raw_get(p.0), local))?;
        let place = list.swap_remove(index);
        // SAFETY: from `Box::into_raw` in `add`, and out of the list now; the caller has it to itself.
        let cell = unsafe { Box::from_raw(place.0) };
        Some(Box::new(cell.into_inner()))
    }

    /// The lock of the list.
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        self.list()
    }

    /// In the child of a fork: takes out those that `keep` does not want. They are not freed: a thread that is gone may have had them
    /// on its stack, and what the runtime keeps of it may be in the middle of a change.
    ///
    /// # Safety
    /// The calling thread is the only one of the process that uses the heap, with the world stopped.
    pub(crate) unsafe fn forked(&self, mut keep: impl FnMut(&mut Local<V>) -> bool) {
        self.list().retain(|place| {
            // SAFETY: in the list; nobody else uses it, as the caller says.
            keep(unsafe { &mut *UnsafeCell::raw_get(place.0) })
        });
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list().len()
    }

    /// Raises or lowers the flags of all mutators. Any thread.
    pub fn interrupt(&self, raised: bool) {
        set_all(&self.list(), raised);
    }

    /// Runs `first`, and raises all flags after it, such that nobody else raises or lowers any meanwhile.
    pub(crate) fn raise_after(&self, first: impl FnOnce()) {
        let list = self.list();
        first();
        set_all(&list, true);
    }

    /// The same, and lowers them if it says so.
    pub(crate) fn lower_if(&self, first: impl FnOnce() -> bool) {
        let list = self.list();
        if first() {
            set_all(&list, false);
        }
    }

    /// Visits the mutator with a number below [`Locals::count`].
    ///
    /// # Safety
    /// The world is stopped, and nobody else visits this one meanwhile.
    pub unsafe fn visit(&self, index: usize, visit: impl FnOnce(&mut Local<V>)) {
        let place = self.list().get(index).map(|p| UnsafeCell::raw_get(p.0));
        if let Some(place) = place {
            // SAFETY: the caller's promise; it is in the list, and none leaves it while the world is stopped.
            visit(unsafe { &mut *place });
        }
    }

    /// Visits all mutators.
    ///
    /// # Safety
    /// The world is stopped, and the caller is the one who collects.
    pub unsafe fn each(&self, mut visit: impl FnMut(&mut Local<V>)) {
        for place in self.list().iter() {
            // SAFETY: the caller's promise: no mutator uses its own, and nobody else visits.
            visit(unsafe { &mut *UnsafeCell::raw_get(place.0) });
        }
    }
}

/// Raises or lowers the flags of all mutators of a list.
fn set_all<V: Vm>(list: &[Place<V>], raised: bool) {
    for place in list {
        // SAFETY: the mutator is in the list, so its memory is there; the flag is atomic, and only it is looked at.
        let interrupt: *const Interrupt =
            unsafe { &raw const (*UnsafeCell::raw_get(place.0)).interrupt };
        // SAFETY: as above.
        let interrupt = unsafe { &*interrupt };
        interrupt.set(raised);
    }
}
