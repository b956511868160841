//! Reference objects, ephemerons and finalizers of the embedded machine: what a runtime does for them is this.

use super::{EPHEMERON, EmbeddedThread, Machine, REFERENCE, field, header};
use crate::runtime::{Full, Root, Thread};
use heapwright::{
    Cleared, Ephemeron, Finalizable, FinalizerOrder, ObjectReference, Reference, Strength, WeakMap,
};

/// Raw words of such objects, behind the header: a number of the program's; the referent, or the key; when it was read, or the value.
const NUMBER: u32 = 8;
const FIRST: u32 = 16;
const SECOND: u32 = 24;
const BYTES: usize = 32;

/// The reference of a reference object.
fn reference(object: ObjectReference) -> Reference {
    match Strength::ALL[(header(object) >> 16) as usize % 3] {
        Strength::Soft => Reference::soft(object, FIRST, SECOND),
        Strength::Weak => Reference::weak(object, FIRST),
        Strength::Phantom => Reference::phantom(object, FIRST).queued(),
    }
}

fn ephemeron(holder: ObjectReference) -> Ephemeron {
    Ephemeron {
        holder,
        key: FIRST,
        value: SECOND,
    }
}

// What the heap wants of these objects: the slots are raw words, which `scan` does not report, and each object is registered once, when it
// is made.
impl<const HEADER: bool, const AMBIGUOUS: bool> EmbeddedThread<HEADER, AMBIGUOUS> {
    /// Allocates a reference object. May collect.
    ///
    /// # Errors
    /// [`Full`].
    pub fn reference(
        &mut self,
        strength: Strength,
        referent: Root,
    ) -> Result<ObjectReference, Full> {
        let shape = REFERENCE | (strength as u64) << 16 | ((BYTES - 8) as u64) << 32;
        let made = self.allocate(BYTES, shape)?;
        self.set_word(made, FIRST, self.root(referent));
        // SAFETY: see above.
        unsafe { self.0.add_reference(&reference(made)) }.map_err(|_| Full)?;
        Ok(made)
    }

    /// What a reference object refers to. For a phantom one as well, which no program could use.
    pub fn referent(&mut self, object: ObjectReference) -> Option<ObjectReference> {
        // SAFETY: see above; the object is alive.
        unsafe { self.0.referent(&reference(object)) }
    }

    /// Has it refer to another object, or to none.
    ///
    /// # Errors
    /// [`Full`].
    pub fn set_referent(
        &mut self,
        object: ObjectReference,
        referent: Option<ObjectReference>,
    ) -> Result<(), Full> {
        // SAFETY: see above; both are alive.
        unsafe { self.0.set_referent(&reference(object), referent) }.map_err(|_| Full)
    }

    /// Allocates an ephemeron. May collect.
    ///
    /// # Errors
    /// [`Full`].
    pub fn ephemeron(&mut self, key: Root, value: Root) -> Result<ObjectReference, Full> {
        let made = self.allocate(BYTES, EPHEMERON | ((BYTES - 8) as u64) << 32)?;
        self.set_word(made, FIRST, self.root(key));
        self.set_word(made, SECOND, self.root(value));
        // SAFETY: see above.
        unsafe { self.0.add_ephemeron(&ephemeron(made)) }.map_err(|_| Full)?;
        Ok(made)
    }

    /// Key and value of an ephemeron.
    pub fn pair(
        &mut self,
        object: ObjectReference,
    ) -> Option<(ObjectReference, Option<ObjectReference>)> {
        // SAFETY: see above; the object is alive.
        unsafe { self.0.ephemeron(&ephemeron(object)) }
    }

    /// Gives it others.
    ///
    /// # Errors
    /// [`Full`].
    pub fn set_pair(
        &mut self,
        object: ObjectReference,
        key: Option<ObjectReference>,
        value: Option<ObjectReference>,
    ) -> Result<(), Full> {
        // SAFETY: see above; all are alive.
        unsafe { self.0.set_ephemeron(&ephemeron(object), key, value) }.map_err(|_| Full)
    }

    /// Is it a reference object or an ephemeron?
    #[must_use]
    pub fn is_special(&self, object: ObjectReference) -> bool {
        matches!(header(object) & super::SHAPE, REFERENCE | EPHEMERON)
    }

    /// Gives such an object its number.
    pub fn set_number(&mut self, object: ObjectReference, number: u64) {
        self.set_raw(object, NUMBER as usize - 8, number);
    }

    /// Registers a finalizer.
    ///
    /// # Errors
    /// [`Full`].
    pub fn finalizer(
        &mut self,
        object: ObjectReference,
        order: FinalizerOrder,
        token: usize,
    ) -> Result<(), Full> {
        self.0.add_finalizer(object, order, token).map_err(|_| Full)
    }

    /// The next object that is to be finalized.
    pub fn next_finalizable(&mut self) -> Option<Finalizable> {
        self.0.next_finalizable()
    }

    /// The next phantom reference that was cleared.
    pub fn next_cleared(&mut self) -> Option<Cleared> {
        self.0.next_cleared()
    }

    /// A weak map.
    ///
    /// # Errors
    /// [`Full`].
    pub fn weak_map(&mut self) -> Result<WeakMap<Machine<HEADER, AMBIGUOUS>>, Full> {
        self.0.weak_map().map_err(|_| Full)
    }

    fn set_word(&mut self, object: ObjectReference, at: u32, target: Option<ObjectReference>) {
        let word = target.map_or(0, |t| t.to_address().as_usize());
        // SAFETY: a raw word of a new object of `BYTES`.
        unsafe { field(object, at as usize / 8 - 1).store(word) };
    }
}
