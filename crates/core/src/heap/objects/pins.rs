//! Pins: objects that stay where they are, for as long as a guard lives, until they are released, or for ever.
//!
//! A pin does not keep an object alive. What each plan does about pins is in `docs/pinning.md`.

use super::Inner;
use crate::error::PinError;
use crate::vm::Vm;
use heapwright_address::ObjectReference;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How an object is pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// How many guards and counted pins hold it.
    pub count: usize,
    /// It is pinned as long as it lives.
    pub for_ever: bool,
}

/// All pins of a heap.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<HashMap<usize, Pinned>>);

impl Pins {
    fn all(&self) -> MutexGuard<'_, HashMap<usize, Pinned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, for a fork.
    pub(super) fn hold(&self) -> impl Sized + '_ {
        self.all()
    }

    /// One more: how many there are now.
    fn add(&self, object: usize) -> usize {
        let mut all = self.all();
        let pinned = all.entry(object).or_default();
        pinned.count += 1;
        pinned.count
    }

    /// One less: how many are left.
    fn take(&self, object: usize) -> Result<usize, PinError> {
        match self.all().entry(object) {
            Entry::Occupied(mut entry) if entry.get().count > 0 => {
                entry.get_mut().count -= 1;
                let left = *entry.get();
                if left == Pinned::default() {
                    entry.remove();
                }
                Ok(left.count)
            }
            _ => Err(PinError::NotPinned),
        }
    }

    /// The addresses of all that is pinned. World stopped.
    pub(super) fn addresses(&self, into: &mut Vec<usize>) {
        into.extend(self.all().keys());
    }

    /// Those that died are not pinned for ever any more. World stopped, after a trace.
    pub(super) fn keep(&self, mut lives: impl FnMut(usize) -> bool) {
        self.all().retain(|object, pinned| {
            if pinned.for_ever && !lives(*object) {
                pinned.for_ever = false;
            }
            *pinned != Pinned::default()
        });
    }
}

/// What is asked about pins on a heap and on its mutators alike.
impl<V: Vm> super::Heap<V> {
    /// Keeps an object where it is until the guard is dropped; counted. It is not kept alive. Mutator running.
    ///
    /// Plans that copy keep the object's whole block of 32 KiB in place, with all in it that is reached.
    #[must_use]
    pub fn pin(&self, object: ObjectReference) -> PinGuard<V> {
        PinGuard::new(Arc::clone(&self.0), object)
    }

    /// As [`super::Heap::pin`], for those who cannot keep a guard: until [`super::Heap::unpin`] was called as often. How many
    /// counted pins and guards the object has now. Mutator running.
    ///
    /// ```
    /// use heapwright::PinError;
    /// use heapwright::example::{Pairs, push, root};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("immix")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// push(&mut mutator, 1)?;
    /// let pair = root(&mutator, 0);
    /// assert_eq!(heap.pin_counted(pair), 1);
    /// assert_eq!(heap.pin_counted(pair), 2);
    /// assert_eq!(heap.unpin(pair), Ok(1));
    /// assert_eq!(heap.unpin(pair), Ok(0));
    /// assert_eq!(heap.unpin(pair), Err(PinError::NotPinned));
    /// // As long as it lives:
    /// heap.pin_for_ever(pair);
    /// assert!(heap.pinned(pair).is_some_and(|pinned| pinned.for_ever));
    /// assert_eq!(heap.unpin(pair), Err(PinError::NotPinned));
    /// # Ok(())
    /// # }
    /// ```
    pub fn pin_counted(&self, object: ObjectReference) -> usize {
        self.0.pins.add(object.to_address().as_usize())
    }

    /// Takes one [`super::Heap::pin_counted`] back: how many pins and guards are left. Mutator running.
    ///
    /// # Errors
    /// [`PinError::NotPinned`]: there is none, or the object is only pinned for ever, which is not taken back.
    pub fn unpin(&self, object: ObjectReference) -> Result<usize, PinError> {
        self.0.pins.take(object.to_address().as_usize())
    }

    /// Keeps an object where it is as long as it lives. Mutator running.
    pub fn pin_for_ever(&self, object: ObjectReference) {
        let mut all = self.0.pins.all();
        all.entry(object.to_address().as_usize())
            .or_default()
            .for_ever = true;
    }

    /// How an object is pinned; nothing if it is not. Objects that no plan moves, such as large ones, need no pin and have none. Mutator
    /// running.
    #[must_use]
    pub fn pinned(&self, object: ObjectReference) -> Option<Pinned> {
        let key = object.to_address().as_usize();
        self.0.pins.all().get(&key).copied()
    }
}

/// Keeps an object where it is: see [`super::Heap::pin`].
///
/// ```
/// use heapwright::example::{Pairs, push, root};
/// use heapwright::Pinned;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("semispace")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// push(&mut mutator, 1)?;
/// let guard = mutator.pin(root(&mutator, 0));
/// mutator.collect();
/// assert_eq!(root(&mutator, 0), guard.object());
/// let pinned = heap.pinned(guard.object());
/// assert_eq!(pinned, Some(Pinned { count: 1, for_ever: false }));
/// let before = guard.object();
/// drop(guard);
/// mutator.collect();
/// assert_ne!(root(&mutator, 0), before);
/// # Ok(())
/// # }
/// ```
pub struct PinGuard<V: Vm> {
    inner: Arc<Inner<V>>,
    object: ObjectReference,
}

impl<V: Vm> core::fmt::Debug for PinGuard<V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("PinGuard").field(&self.object).finish()
    }
}

impl<V: Vm> PinGuard<V> {
    pub(super) fn new(inner: Arc<Inner<V>>, object: ObjectReference) -> Self {
        inner.pins.add(object.to_address().as_usize());
        Self { inner, object }
    }

    /// The object.
    #[must_use]
    pub fn object(&self) -> ObjectReference {
        self.object
    }
}

impl<V: Vm> Drop for PinGuard<V> {
    fn drop(&mut self) {
        // It is there: this guard added it.
        let _ = self.inner.pins.take(self.object.to_address().as_usize());
    }
}
