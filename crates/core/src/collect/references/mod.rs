//! References that are not plain: soft, weak and phantom ones, ephemerons, weak maps, finalizers.
//!
//! What a runtime registers is in the heap's tables (`tables.rs`), by kind, in the order of registration. What was registered since the last
//! collection stands behind what is older: after any collection all that lives is old, so a minor one looks only at that part, and at
//! what was written since. A mutator registers in buffers of its own (`Registered`), which are taken over when the world stops. When a
//! buffer grows, room for all that fits into it is reserved in the table: so taking over needs no memory.
//!
//! `process` says what happens in a collection, in which order; docs/references.md what runtimes can rely on.

mod clears;
mod closure;
mod finalizers;
mod holds;
mod maps;
mod portions;
mod process;
mod tables;
mod waiting;

pub(crate) use maps::MapCore;
pub(crate) use process::Processed;
pub(crate) use tables::{Cell, NoMemory, References, Registered};
pub(crate) use waiting::{Value, Waiting};

use heapwright_address::ObjectReference;

/// How strongly a reference holds what it refers to.
///
/// ```
/// use heapwright::Strength;
/// use heapwright::example::{Pairs, push, root};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("marksweep")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// push(&mut mutator, 1)?;
/// let object = root(&mutator, 0);
/// let [soft, weak] = [Strength::Soft, Strength::Weak].map(|s| mutator.weak(object, s));
/// mutator.thread().clear();
/// mutator.collect();
/// // There is memory enough: only the soft one holds it.
/// assert!(soft?.get(&mut mutator).is_some());
/// assert!(weak?.get(&mut mutator).is_some(), "what is kept is there for all");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strength {
    /// Until memory is wanted: the option `softrefs` says when.
    Soft,
    /// Not at all: it is cleared before finalizers are looked for.
    Weak,
    /// Not at all, and it is cleared only when finalizers do not reach it any more.
    Phantom,
}

impl Strength {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Soft, Self::Weak, Self::Phantom];
}

/// A reference object of the runtime: an object (the *holder*) with a slot that does not keep alive what it refers to.
///
/// Offsets are in bytes from the holder's first byte. The slot has the format of the runtime's fields, and [`crate::Vm::scan`] does not
/// report it.
///
/// ```
/// use heapwright::Reference;
/// use heapwright::example::{Pairs, SLOTS, push, push_holder, root};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("immix")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// push_holder(&mut mutator)?;
/// push(&mut mutator, 1)?;
/// let (holder, target) = (root(&mutator, 0), root(&mutator, 1));
/// let reference = Reference::weak(holder, SLOTS[0]).queued();
/// // SAFETY: the slot is the holder's, it is empty, and the runtime does not scan it.
/// unsafe { mutator.add_reference(&reference) }?;
/// // SAFETY: as above; both are roots.
/// unsafe { mutator.set_referent(&reference, Some(target)) }?;
/// mutator.thread().truncate(1);
/// mutator.collect();
/// let cleared = mutator.next_cleared().ok_or("it was queued")?;
/// assert_eq!(cleared.holder, root(&mutator, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// How strongly it holds.
    pub strength: Strength,
    /// The reference object.
    pub holder: ObjectReference,
    /// Where the slot is.
    pub slot: u32,
    /// Of a soft reference: where the holder has a raw word in which the heap notes when it was last read; 0: nowhere.
    pub used: u32,
    /// When it is cleared, the holder is queued for [`crate::Mutator::next_cleared`].
    pub queued: bool,
}

impl Reference {
    /// A weak reference of `holder`, in the slot at an offset.
    #[must_use]
    pub const fn weak(holder: ObjectReference, slot: u32) -> Self {
        Self {
            strength: Strength::Weak,
            holder,
            slot,
            used: 0,
            queued: false,
        }
    }

    /// A soft one. `used`: where the holder has a raw word that says when it was last read; 0: nowhere.
    #[must_use]
    pub const fn soft(holder: ObjectReference, slot: u32, used: u32) -> Self {
        Self {
            strength: Strength::Soft,
            used,
            ..Self::weak(holder, slot)
        }
    }

    /// A phantom one.
    #[must_use]
    pub const fn phantom(holder: ObjectReference, slot: u32) -> Self {
        Self {
            strength: Strength::Phantom,
            ..Self::weak(holder, slot)
        }
    }

    /// The same, and its holder is queued when it is cleared.
    #[must_use]
    pub const fn queued(self) -> Self {
        Self {
            queued: true,
            ..self
        }
    }
}

/// An ephemeron of the runtime: an object with a key and a value in slots that [`crate::Vm::scan`] does not report. The value is kept as
/// long as both the ephemeron and the key live. Offsets as in [`Reference`].
///
/// ```
/// use heapwright::Ephemeron;
/// use heapwright::example::{Pairs, SLOTS, number, push, push_holder, root};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("semispace")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// push_holder(&mut mutator)?;
/// push(&mut mutator, 1)?;
/// push(&mut mutator, 2)?;
/// let at = |mutator: &heapwright::Mutator<Pairs>| Ephemeron {
///     holder: root(mutator, 0),
///     key: SLOTS[0],
///     value: SLOTS[1],
/// };
/// let ephemeron = at(&mutator);
/// let (key, value) = (root(&mutator, 1), root(&mutator, 2));
/// // SAFETY: the slots are the holder's, they are empty, and the runtime does not scan them.
/// unsafe { mutator.add_ephemeron(&ephemeron) }?;
/// // SAFETY: as above; all are roots.
/// unsafe { mutator.set_ephemeron(&ephemeron, Some(key), Some(value)) }?;
/// mutator.thread().truncate(2);
/// mutator.collect();
/// let ephemeron = at(&mutator);
/// // SAFETY: the holder lives.
/// let (_, value) = unsafe { mutator.ephemeron(&ephemeron) }.ok_or("its key lives")?;
/// assert_eq!(value.map(number), Some(2));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ephemeron {
    /// The object.
    pub holder: ObjectReference,
    /// Where the slot of the key is.
    pub key: u32,
    /// Where the slot of the value is.
    pub value: u32,
}

/// In which order objects become finalizable that die together.
///
/// ```
/// use heapwright::FinalizerOrder;
/// use heapwright::example::{Pairs, number, push, root};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("genimmix")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// for n in 0..3 {
///     push(&mut mutator, n)?;
///     let object = root(&mutator, n);
///     mutator.add_finalizer(object, FinalizerOrder::Together, 10 + n)?;
/// }
/// mutator.thread().clear();
/// mutator.collect();
/// let mut seen = Vec::new();
/// mutator.run_finalizers(usize::MAX, |_, next| seen.push((number(next.object), next.token)));
/// seen.sort_unstable();
/// assert_eq!(seen, [(0, 10), (1, 11), (2, 12)]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinalizerOrder {
    /// All at once, as in Java: also those that others of them reach.
    Together,
    /// One after the other, as they were registered; what one of them reaches lives on, and has its turn when that one is dead.
    Registration,
}

/// An object that is to be finalized. It is alive, with all that it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finalizable {
    /// The object.
    pub object: ObjectReference,
    /// What was said of it when it was registered.
    pub token: usize,
}

/// A reference object whose reference was cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// The reference object.
    pub holder: ObjectReference,
    /// Where its slot is, in bytes.
    pub slot: u32,
    /// How strong it was.
    pub strength: Strength,
}
