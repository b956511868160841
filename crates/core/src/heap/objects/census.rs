//! Who is in the heap: identity hashes, and objects counted by type.

use super::Mutator;
use crate::plan::Allocates;
use crate::space::Policy;
use crate::vm::{HashState, TypeId, Vm, hash_of};
use core::sync::atomic::{AtomicUsize, Ordering};
use heapwright_address::ObjectReference;
use std::collections::BTreeMap;

/// How many objects of a type there are.
///
/// ```
/// use heapwright::example::{Pairs, push, push_holder};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("immix")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// for n in 0..5 {
///     push(&mut mutator, n)?;
/// }
/// push_holder(&mut mutator)?;
/// mutator.collect();
/// let census = mutator.census();
/// let counts: Vec<(&str, usize, usize)> = census
///     .iter()
///     .map(|t| (t.name.as_str(), t.objects, t.bytes))
///     .collect();
/// assert_eq!(counts, [("pair", 5, 160), ("holder", 1, 32)]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeCount {
    /// The type, as the runtime numbers it.
    pub id: TypeId,
    /// What the runtime calls it.
    pub name: String,
    /// Objects.
    pub objects: usize,
    /// Their bytes, as [`Vm::size`] has them.
    pub bytes: usize,
}

impl<V: Vm> Mutator<V> {
    /// A number of the object that stays the same while it lives, wherever it moves. Two objects may have the same. Needs
    /// [`Vm::HASH`], without which this does not compile. Not a safepoint.
    ///
    /// The first call for an object sets a bit in its first word, by an atomic read-modify-write; later ones are a load and a few
    /// instructions. In plans that slide each takes a lock and looks into a table.
    ///
    /// ```
    /// use heapwright::example::{Pairs, push, root};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///
    /// let heap = Pairs::heap("semispace")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// push(&mut mutator, 1)?;
    /// let object = root(&mutator, 0);
    /// let hash = mutator.identity_hash(object);
    /// mutator.collect();
    /// let moved = root(&mutator, 0);
    /// assert_ne!(moved, object);
    /// assert_eq!(mutator.identity_hash(moved), hash);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn identity_hash(&mut self, object: ObjectReference) -> usize {
        const {
            assert!(V::HASH.is_some(), "identity hashes need Vm::HASH");
        }
        let Some(bits) = V::HASH else {
            return 0;
        };
        let inner = self.inner();
        let at = object.to_address();
        // SAFETY: the first word of a live object, aligned to 8 (Vm rule 7: who else writes it does so atomically).
        let first = unsafe { &*at.as_ptr::<AtomicUsize>() };
        let address = at.as_usize();
        let mut state = bits.state(first.load(Ordering::Relaxed));
        if state == HashState::None {
            let before = first.fetch_or(bits.asked(), Ordering::Relaxed);
            state = bits.state(before | bits.asked());
        }
        if state == HashState::Stored {
            let size = (inner.vm.size(object) + 7) & !7;
            // SAFETY: the last word of an object that moved since it was hashed: the collector wrote it (Vm rule 7).
            return unsafe { at.add(size - 8).load() };
        }
        let slides = matches!(inner.facts.allocates, Allocates::Bump(Policy::Compact));
        if slides && inner.space.is_sliding(address) {
            return inner.hashes.of(address, hash_of(address));
        }
        hash_of(address)
    }

    /// Counts all objects by type, with their bytes, the most bytes first. Objects that died since the last collection count:
    /// collect first to have only those that live. A safepoint; the world is stopped meanwhile. Needs [`Vm::OBJECT_MAP`], without
    /// which this does not compile.
    pub fn census(&mut self) -> Vec<TypeCount> {
        let mut counts: BTreeMap<TypeId, (usize, usize)> = BTreeMap::new();
        let heap = self.heap();
        let vm = heap.vm();
        self.for_each_object(&mut |object| {
            let (objects, bytes) = counts.entry(vm.type_of(object)).or_default();
            *objects += 1;
            *bytes += vm.size(object);
        });
        let mut all: Vec<TypeCount> = counts
            .into_iter()
            .map(|(id, (objects, bytes))| TypeCount {
                id,
                name: vm.type_name(id),
                objects,
                bytes,
            })
            .collect();
        all.sort_by_key(|t| core::cmp::Reverse(t.bytes));
        all
    }
}
