//! A runtime that knows its references: the interface for language runtimes.
//!
//! A runtime implements [`Vm`] on a value that its heap owns. References are the addresses of objects' first bytes; fields
//! and roots that hold them are *slots*, which the collector updates when objects move.

use super::identity::HashBits;
use crate::event::CollectionStats;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use heapwright_address::{Address, ObjectReference, WildWord};

/// How a reference is written into a field of an object.
///
/// All functions are called with addresses that [`Vm::scan`] reported, of objects that are alive.
pub trait SlotFormat: Copy + Send + Sync + 'static {
    /// Bytes of a slot: 4 or 8. Slots are aligned to their size.
    const BYTES: usize;
    /// The slot is a whole word that holds the address, and 0 for nothing.
    const IS_WORD: bool = false;

    /// What the slot refers to.
    ///
    /// # Safety
    /// `slot` is a readable slot of this format.
    unsafe fn load(self, slot: Address) -> Option<ObjectReference>;

    /// Makes it refer to an object, with the tag of references where there are tags.
    ///
    /// # Safety
    /// `slot` is a writable slot of this format, and nobody else writes it meanwhile.
    unsafe fn store(self, slot: Address, object: ObjectReference);

    /// Makes it refer to nothing: [`SlotFormat::load`] gives `None` then. By default it becomes 0; a format with tags may want another
    /// value of the runtime's.
    ///
    /// # Safety
    /// As for [`SlotFormat::store`].
    unsafe fn clear(self, slot: Address) {
        if Self::BYTES == 4 {
            // SAFETY: the caller's promise.
            unsafe { &*slot.as_ptr::<AtomicU32>() }.store(0, Ordering::Relaxed);
        } else {
            // SAFETY: as above.
            unsafe { word(slot) }.store(0, Ordering::Relaxed);
        }
    }
}

/// A word that a mutator may write while a worker reads it: the loads and stores of slots are relaxed atomics, which cost the
/// same as plain ones.
///
/// # Safety
/// `at` is a slot: aligned, readable and writable as long as the reference is used.
#[inline(always)]
unsafe fn word<'a>(at: Address) -> &'a AtomicUsize {
    // SAFETY: the caller's promise.
    unsafe { &*at.as_ptr::<AtomicUsize>() }
}

/// A slot is a whole word: an address, or 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WordSlots;

impl SlotFormat for WordSlots {
    const BYTES: usize = 8;
    const IS_WORD: bool = true;

    #[inline(always)]
    unsafe fn load(self, slot: Address) -> Option<ObjectReference> {
        // SAFETY: the caller's promise.
        ObjectReference::from_address(Address::new(unsafe { word(slot) }.load(Ordering::Relaxed)))
    }

    #[inline(always)]
    unsafe fn store(self, slot: Address, object: ObjectReference) {
        // SAFETY: the caller's promise.
        unsafe { word(slot) }.store(object.to_address().as_usize(), Ordering::Relaxed);
    }
}

/// A slot has 32 bits: the distance from `base`, shifted right by `shift`; 0 for nothing.
///
/// ```
/// use heapwright::{Address, CompressedSlots, ObjectReference, SlotFormat};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let slots = CompressedSlots {
///     base: Address::new(0x10_0000_0000),
///     shift: 3,
/// };
/// let mut half = 0u32;
/// let slot = Address::from_ptr(&raw mut half);
/// // SAFETY: four bytes of our own.
/// unsafe {
///     assert_eq!(slots.load(slot), None);
///     let object = ObjectReference::from_address(Address::new(0x10_0000_0080)).ok_or("not 0")?;
///     slots.store(slot, object);
///     assert_eq!(slots.load(slot), Some(object));
/// }
/// assert_eq!(half, 0x10);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressedSlots {
    /// What distances count from. No object is at the base itself.
    pub base: Address,
    /// Bits that are zero in every reference: 0 to 3.
    pub shift: u32,
}

impl SlotFormat for CompressedSlots {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load(self, slot: Address) -> Option<ObjectReference> {
        // SAFETY: the caller's promise.
        let bits = unsafe { &*slot.as_ptr::<AtomicU32>() }.load(Ordering::Relaxed);
        if bits == 0 {
            return None;
        }
        ObjectReference::from_address(self.base.add((bits as usize) << self.shift))
    }

    #[inline(always)]
    unsafe fn store(self, slot: Address, object: ObjectReference) {
        let distance = object.to_address().diff(self.base) >> self.shift;
        // SAFETY: the caller's promise.
        unsafe { &*slot.as_ptr::<AtomicU32>() }.store(distance as u32, Ordering::Relaxed);
    }
}

/// A slot is a word whose low three bits say what it is: a reference if they equal `tag`, else a value of the runtime.
///
/// ```
/// use heapwright::{Address, ObjectReference, SlotFormat, TaggedSlots};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let slots = TaggedSlots { tag: 1 };
/// let mut word = 42usize << 3; // A small number of the runtime.
/// let slot = Address::from_ptr(&raw mut word);
/// // SAFETY: a word of our own.
/// unsafe {
///     assert_eq!(slots.load(slot), None);
///     let object = ObjectReference::from_address(Address::new(0x1000)).ok_or("not 0")?;
///     slots.store(slot, object);
///     assert_eq!(slots.load(slot), Some(object));
/// }
/// assert_eq!(word, 0x1001);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaggedSlots {
    /// The tag of references: 0 to 7.
    pub tag: usize,
}

impl SlotFormat for TaggedSlots {
    const BYTES: usize = 8;

    #[inline(always)]
    unsafe fn load(self, slot: Address) -> Option<ObjectReference> {
        // SAFETY: the caller's promise.
        let bits = unsafe { word(slot) }.load(Ordering::Relaxed);
        if bits & 7 != self.tag {
            return None;
        }
        ObjectReference::from_address(Address::new(bits & !7))
    }

    #[inline(always)]
    unsafe fn store(self, slot: Address, object: ObjectReference) {
        // SAFETY: the caller's promise.
        unsafe { word(slot) }.store(object.to_address().as_usize() | self.tag, Ordering::Relaxed);
    }
}

/// A type of objects, as the runtime numbers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

/// Where the collector keeps what it must know of each object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// In side tables: objects have no bit for the collector.
    Side,
    /// In the low eight bits of each object's first word. The runtime keeps them when it writes that word, and ignores them
    /// when it reads it; they are 0 in a new object.
    Header,
}

/// Receives the fields of an object that hold references.
pub trait SlotVisitor {
    /// A field. It may hold nothing.
    fn slot(&mut self, slot: Address);
    /// `count` fields one after the other, as of an array: a long array is divided among workers.
    fn slots(&mut self, first: Address, count: usize);
}

/// Receives the roots.
pub trait RootVisitor {
    /// A whole word that holds a reference or 0, outside of the heap. Updated if the object moves.
    fn slot(&mut self, slot: Address);
    /// `count` such words one after the other.
    fn slots(&mut self, first: Address, count: usize);
    /// A reference that the collector cannot update: the object stays where it is. Only with [`Vm::PINS`].
    fn pinned(&mut self, object: ObjectReference);
    /// A word that may be a reference, or point into an object: what it leads to stays alive and where it is. Only with
    /// [`Vm::PINS`] and [`Vm::OBJECT_MAP`].
    fn ambiguous(&mut self, word: WildWord);
}

/// What a runtime asks about objects that it refers to weakly.
pub trait WeakLookup {
    /// Where the object is now; `None` if nothing reaches it.
    fn get(&self, object: ObjectReference) -> Option<ObjectReference>;
}

/// What a runtime asks about such objects, and which of them it keeps.
pub trait WeakVisitor: WeakLookup {
    /// Keeps the object and all that it reaches: where it is now.
    fn keep(&mut self, object: ObjectReference) -> ObjectReference;
}

/// A language runtime. One value per heap; no statics.
///
/// # Safety
/// The heap relies on these rules. The verifier (option `verify`) checks 1 to 4 as far as they can be seen.
///
/// 1. [`Vm::size`] is what was asked for when the object was allocated (the heap rounds both alike), at least
///    16 bytes, from the time that a reference to it can be found on.
/// 2. [`Vm::scan`] reports every field that holds a reference, each once, and nothing else.
/// 3. [`Vm::roots`], [`Vm::roots_of`] and [`Vm::thread_roots`] report every way in which a stopped thread, or one that is outside of the heap,
///    can reach an object; they report the same each time they are called in one pause.
/// 4. With [`Metadata::Header`], the low eight bits of an object's first word are the heap's. An object's first word holds
///    no reference.
/// 5. Every write of a reference into an object goes through the write barrier of the [`crate::Mutator`] that writes, before
///    its next safepoint.
/// 6. None of the methods allocates on this heap or waits for a mutator. `size` and `scan` may be called by many threads at
///    once, and read nothing but the object itself.
/// 7. With [`Vm::HASH`], those two bits of an object's first word are the heap's, and 0 in a new object. Whoever writes the word
///    later does so by atomic read-modify-writes that leave them. An object that was hashed and then moved has a word more at its
///    end, and [`Vm::size`] counts it: [`HashBits::size`].
///
/// ```
/// use heapwright::{Address, Heap, ObjectReference, RootVisitor, SlotVisitor, Vm, WordSlots};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// /// Objects of two words, both of which are references. Threads have one root each.
/// struct Twins;
///
/// // SAFETY: all objects are of 16 bytes, and of the two words only the second is ever written, by `Mutator::write`; a thread's word is
/// // all that it has.
/// unsafe impl Vm for Twins {
///     type Thread = usize;
///     type Slots = WordSlots;
///
///     fn slots(&self) -> WordSlots {
///         WordSlots
///     }
///
///     fn size(&self, _: ObjectReference) -> usize {
///         16
///     }
///
///     fn scan<S: SlotVisitor>(&self, object: ObjectReference, visit: &mut S) {
///         visit.slot(object.to_address().add(8));
///     }
///
///     fn thread_roots<R: RootVisitor>(&self, root: &mut usize, visit: &mut R) {
///         visit.slot(Address::from_ptr(root));
///     }
/// }
///
/// let heap = Heap::<Twins>::builder().build(Twins)?;
/// let mut mutator = heap.attach(0)?;
/// for _ in 0..1000 {
///     let new = mutator.alloc(16)?;
///     let old = ObjectReference::from_address(Address::new(*mutator.thread()));
///     if let Some(old) = old {
///         // SAFETY: a field of the new object; both are alive, and there is no safepoint between.
///         unsafe { mutator.write(new, new.to_address().add(8), old) };
///     }
///     *mutator.thread() = new.to_address().as_usize();
/// }
/// mutator.collect();
/// # Ok(())
/// # }
/// ```
pub unsafe trait Vm: Sized + Send + Sync + 'static {
    /// What the runtime keeps for each mutator, such as its shadow stack. The collector hands it to
    /// [`Vm::thread_roots`] while the mutator is stopped.
    type Thread: Send;

    /// How fields hold references.
    type Slots: SlotFormat;

    /// Where the collector's bits of an object are.
    const METADATA: Metadata = Metadata::Side;

    /// The heap is to know which addresses are objects: for ambiguous roots, interior pointers, and to enumerate objects. It
    /// costs a write of a bit per allocation; objects are aligned to 16 bytes.
    const OBJECT_MAP: bool = false;

    /// Where objects have the two bits for identity hashes; without them there are none. See rule 7.
    const HASH: Option<HashBits> = None;

    /// The runtime reports pinned or ambiguous roots. Roots are then scanned twice by plans that move objects.
    const PINS: bool = false;

    /// The format of fields.
    fn slots(&self) -> Self::Slots;

    /// Bytes of an object. Mutator running, world stopped, or worker.
    fn size(&self, object: ObjectReference) -> usize;

    /// Reports the fields of an object. Any worker; also with the world running, by plans that mark concurrently, and then
    /// the fields may change meanwhile.
    fn scan<S: SlotVisitor>(&self, object: ObjectReference, visit: &mut S);

    /// Reports the roots of one mutator. World stopped; each mutator by one worker, several at once.
    fn thread_roots<R: RootVisitor>(&self, thread: &mut Self::Thread, visit: &mut R);

    /// Reports all other roots. World stopped.
    fn roots<R: RootVisitor>(&self, visit: &mut R) {
        let _ = visit;
    }

    /// In how many parts further roots are, for runtimes that have many beside their threads'. The same throughout a pause.
    fn root_parts(&self) -> usize {
        0
    }

    /// Reports one of these parts, from 0 on. World stopped; several workers at once, each with parts of its own.
    fn roots_of<R: RootVisitor>(&self, part: usize, visit: &mut R) {
        let _ = (part, visit);
    }

    /// The runtime has weak tables of its own in which the life of one object depends on that of another: [`Vm::weak_tables`].
    const WEAK_TABLES: bool = false;

    /// After the closure: keeps what the runtime's own weak tables hold by now ([`WeakLookup::get`] says whether a key lives). Called again
    /// and again until a call keeps nothing that was not alive, also when finalizers and [`Vm::weak`] have kept more. World stopped, one
    /// thread. It changes no references: that is for [`Vm::weak`] and [`Vm::weak_of`], which come later. Only with [`Vm::WEAK_TABLES`].
    ///
    /// Each round looks at the whole table, so a chain takes as many rounds as it has links, if they come in the wrong order; the heap's
    /// own ephemerons ([`crate::Mutator::add_ephemeron`]) do not.
    fn weak_tables<W: WeakVisitor>(&self, visit: &mut W) {
        let _ = visit;
    }

    /// After the closure: the runtime's weak references. World stopped, one thread. A plan that slides calls it a second time in
    /// the same pause, when objects have moved; then none is dead. What it kept and from then on reports as a root is
    /// updated as a root.
    fn weak<W: WeakVisitor>(&self, visit: &mut W) {
        let _ = visit;
    }

    /// In how many parts further weak references are, of which none is kept alive. The same throughout a pause.
    fn weak_parts(&self) -> usize {
        0
    }

    /// One of these parts, from 0 on. World stopped, after [`Vm::weak`] (and twice, as that); several workers at once, each with
    /// parts of its own.
    fn weak_of<W: WeakLookup>(&self, part: usize, visit: &mut W) {
        let _ = (part, visit);
    }

    /// The object's type, by a number of the runtime's own. Any thread; reads nothing but the object itself.
    fn type_of(&self, object: ObjectReference) -> TypeId {
        let _ = object;
        TypeId(0)
    }

    /// What people call a type.
    fn type_name(&self, id: TypeId) -> String {
        if id.0 == 0 {
            "object".to_owned()
        } else {
            format!("type {}", id.0)
        }
    }

    /// In the child of a fork: does the mutator of another thread, which was outside of the heap, stay attached? For runtimes whose
    /// mutators are not bound to threads. World stopped, by the only thread that is left.
    fn stays_after_fork(&self, thread: &Self::Thread) -> bool {
        let _ = thread;
        false
    }

    /// A collection has ended. World running again, on the thread that collected.
    fn collected(&self, stats: &CollectionStats) {
        let _ = stats;
    }
}
