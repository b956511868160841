//! The runtime, as C describes it: a table of callbacks.

use crate::observe::{hw_collection, note_violation};
use core::ffi::{CStr, c_char, c_void};
use heapwright::{
    Address, CollectionStats, Event, HashBits, Listener, Metadata, ObjectReference, RootVisitor,
    SlotVisitor, TypeId, Vm, WildWord, WordSlots,
};

/// The interface that this header describes. A program gives it in [`hw_vm::abi_version`], and the library refuses another one.
pub const HW_ABI_VERSION: u32 = 1;

/// For [`hw_vm::flags`]: the heap knows which addresses are objects. It costs a write of a bit per allocation, and a call for each: the
/// inline path is not used. Needed for ambiguous roots, [`hw_object_around`], [`hw_is_object`], [`hw_for_each_object`] and [`hw_census`].
///
/// [`hw_object_around`]: crate::hw_object_around
/// [`hw_is_object`]: crate::hw_is_object
/// [`hw_for_each_object`]: crate::hw_for_each_object
/// [`hw_census`]: crate::hw_census
pub const HW_OBJECT_MAP: u32 = 1;

/// An object: where it begins. Aligned to 8 bytes, to 16 with [`HW_OBJECT_MAP`]; never null. It is good until the calling thread's next
/// safepoint.
pub type hw_object = *mut c_void;

/// Takes the fields of an object: call `hw_visit` with it.
///
///
#[repr(C)]
#[derive(Debug)]
pub struct hw_slot_visitor {
    /// Called by `hw_visit`.
    pub visit: extern "C" fn(context: *mut c_void, first: *mut hw_object, count: usize),
    /// For it.
    pub context: *mut c_void,
}

/// Takes roots: call `hw_root`, `hw_root_pinned` or `hw_root_ambiguous` with it.
#[repr(C)]
#[derive(Debug)]
pub struct hw_root_visitor {
    /// Called by `hw_root`.
    pub visit: extern "C" fn(context: *mut c_void, first: *mut hw_object, count: usize),
    /// Called by `hw_root_pinned`.
    pub pinned: extern "C" fn(context: *mut c_void, object: hw_object),
    /// Called by `hw_root_ambiguous`.
    pub ambiguous: extern "C" fn(context: *mut c_void, word: usize),
    /// For them.
    pub context: *mut c_void,
}

/// The runtime: what the heap asks, each with the runtime's own pointer `user`. `size`, `scan` and `thread_roots` are needed, the others may be
/// null. The table is copied when the heap is made.
///
/// The rules that the heap relies on:
///
/// 1. `size` is what was asked for when the object was allocated, put through `hw_size`, from the first safepoint after that on.
/// 2. `scan` reports every field that holds a reference, each once, and nothing else.
/// 3. `thread_roots` and `roots` report every way in which a stopped thread can reach an object.
/// 4. The low eight bits of an object's first word are the heap's. Whoever writes that word keeps them, and writes it only while the
///    object is new. The first word holds no reference.
/// 5. Every write of a reference into an object goes through `hw_write`, or `hw_before_write`.
/// 6. No callback allocates on the heap, or waits for a thread that does. `size` and `scan` are called by many threads at once, and read
///    nothing but the object.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hw_vm {
    /// `sizeof(hw_vm)`: a later library takes the tables of earlier ones.
    pub struct_size: usize,
    /// [`HW_ABI_VERSION`].
    pub abi_version: u32,
    /// [`HW_OBJECT_MAP`], or 0.
    pub flags: u32,
    /// The runtime's own pointer. The callbacks are called with it, by any thread.
    pub user: *mut c_void,
    /// Bytes of an object, 16 or more: `hw_size(object, bytes)`.
    pub size: Option<extern "C" fn(user: *mut c_void, object: hw_object) -> usize>,
    /// Reports the fields of an object. Worker; in plans that mark concurrently while mutators run.
    pub scan:
        Option<extern "C" fn(user: *mut c_void, object: hw_object, visit: *mut hw_slot_visitor)>,
    /// Reports the roots of one thread: `thread` is what it attached with. World stopped.
    pub thread_roots:
        Option<extern "C" fn(user: *mut c_void, thread: *mut c_void, visit: *mut hw_root_visitor)>,
    /// Reports all other roots. World stopped.
    pub roots: Option<extern "C" fn(user: *mut c_void, visit: *mut hw_root_visitor)>,
    /// The number of an object's type.
    pub type_of: Option<extern "C" fn(user: *mut c_void, object: hw_object) -> u32>,
    /// What people call a type: a string that lives as long as the heap.
    pub type_name: Option<extern "C" fn(user: *mut c_void, type_: u32) -> *const c_char>,
    /// A collection has ended. World running again, on the thread that collected; must not allocate on the heap.
    pub collected: Option<extern "C" fn(user: *mut c_void, stats: *const hw_collection)>,
    /// With the option `verify`: something is wrong, in one sentence. World stopped.
    pub violation: Option<
        extern "C" fn(user: *mut c_void, what: *const c_char, object: hw_object, word: usize),
    >,
    /// In the child of a fork: does the mutator of another thread, which was outside of the heap, stay attached? `thread` is what it
    /// attached with. Null: none does.
    pub stays_after_fork: Option<extern "C" fn(user: *mut c_void, thread: *mut c_void) -> bool>,
}

impl hw_vm {
    /// Bytes of the first table that had this version of the interface. What came later stands behind it, and is null where it is missing.
    pub(crate) const FIRST_SIZE: usize = core::mem::offset_of!(Self, stays_after_fork);

    /// A copy of a program's table of `size` bytes, at least [`Self::FIRST_SIZE`].
    pub(crate) fn of(table: *const Self, size: usize) -> Self {
        // SAFETY: all bits zero is a table: numbers, a null pointer, and callbacks that are not there.
        let mut vm = unsafe { core::mem::zeroed::<Self>() };
        let bytes = size.min(size_of::<Self>());
        // SAFETY: the program's table has that many bytes, by its own word.
        unsafe { core::ptr::copy_nonoverlapping(table.cast::<u8>(), (&raw mut vm).cast(), bytes) };
        vm
    }
}

/// What a thread attached with.
#[derive(Debug)]
pub struct ThreadData(pub(crate) *mut c_void);

// SAFETY: the runtime's pointer, which is only handed back to it, while the thread is stopped.
unsafe impl Send for ThreadData {}

/// The runtime with its table. `MAP`: the heap has an object map.
#[derive(Debug)]
pub struct CVm<const MAP: bool>(pub(crate) hw_vm);

// SAFETY: a copied table; what the callbacks do with `user` is bound by the rules in the header.
unsafe impl<const MAP: bool> Send for CVm<MAP> {}
// SAFETY: as above.
unsafe impl<const MAP: bool> Sync for CVm<MAP> {}

fn pointer(object: ObjectReference) -> hw_object {
    object.to_address().as_mut_ptr()
}

pub(crate) fn reference(object: hw_object) -> Option<ObjectReference> {
    ObjectReference::from_address(Address::from_ptr(object))
}

/// Calls back a visitor of Rust from C.
extern "C" fn visit_slots<S: SlotVisitor>(
    context: *mut c_void,
    first: *mut hw_object,
    count: usize,
) {
    // SAFETY: the context that `scan` gave, within its call.
    let visit = unsafe { &mut *context.cast::<S>() };
    visit.slots(Address::from_ptr(first), count);
}

extern "C" fn visit_roots<R: RootVisitor>(
    context: *mut c_void,
    first: *mut hw_object,
    count: usize,
) {
    // SAFETY: the context that `with_roots` gave, within its call.
    let visit = unsafe { &mut *context.cast::<R>() };
    visit.slots(Address::from_ptr(first), count);
}

extern "C" fn visit_pinned<R: RootVisitor>(context: *mut c_void, object: hw_object) {
    // SAFETY: as above.
    let visit = unsafe { &mut *context.cast::<R>() };
    if let Some(object) = reference(object) {
        visit.pinned(object);
    }
}

extern "C" fn visit_ambiguous<R: RootVisitor>(context: *mut c_void, word: usize) {
    // SAFETY: as above.
    let visit = unsafe { &mut *context.cast::<R>() };
    visit.ambiguous(WildWord::new(word));
}

extern "C" fn visit_nothing(_: *mut c_void, _: usize) {}

impl<const MAP: bool> CVm<MAP> {
    fn with_roots<R: RootVisitor>(&self, visit: &mut R, run: impl FnOnce(*mut hw_root_visitor)) {
        let mut visitor = hw_root_visitor {
            visit: visit_roots::<R>,
            pinned: visit_pinned::<R>,
            // Without a map nobody knows what such a word leads to.
            ambiguous: if MAP {
                visit_ambiguous::<R>
            } else {
                visit_nothing
            },
            context: core::ptr::from_mut(visit).cast(),
        };
        run(&raw mut visitor);
    }
}

// SAFETY: the rules in the header are those of `Vm`, by the same numbers; rule 7 by `hw_size`.
unsafe impl<const MAP: bool> Vm for CVm<MAP> {
    type Thread = ThreadData;
    type Slots = WordSlots;
    const METADATA: Metadata = Metadata::Header;
    const OBJECT_MAP: bool = MAP;
    const HASH: Option<HashBits> = Some(HashBits::IN_COLLECTORS_BYTE);
    const PINS: bool = true;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    #[inline]
    fn size(&self, object: ObjectReference) -> usize {
        self.0
            .size
            .map_or(16, |size| size(self.0.user, pointer(object)))
    }

    #[inline]
    fn scan<S: SlotVisitor>(&self, object: ObjectReference, visit: &mut S) {
        if let Some(scan) = self.0.scan {
            let mut visitor = hw_slot_visitor {
                visit: visit_slots::<S>,
                context: core::ptr::from_mut(visit).cast(),
            };
            scan(self.0.user, pointer(object), &raw mut visitor);
        }
    }

    fn thread_roots<R: RootVisitor>(&self, thread: &mut ThreadData, visit: &mut R) {
        if let Some(roots) = self.0.thread_roots {
            self.with_roots(visit, |v| roots(self.0.user, thread.0, v));
        }
    }

    fn roots<R: RootVisitor>(&self, visit: &mut R) {
        if let Some(roots) = self.0.roots {
            self.with_roots(visit, |v| roots(self.0.user, v));
        }
    }

    fn type_of(&self, object: ObjectReference) -> TypeId {
        TypeId(
            self.0
                .type_of
                .map_or(0, |of| of(self.0.user, pointer(object))),
        )
    }

    fn type_name(&self, id: TypeId) -> String {
        let name = self.0.type_name.map(|name| name(self.0.user, id.0));
        match name.filter(|n| !n.is_null()) {
            // SAFETY: a string that lives as long as the heap (the header).
            Some(name) => unsafe { CStr::from_ptr(name) }
                .to_string_lossy()
                .into_owned(),
            None => format!("type {}", id.0),
        }
    }

    fn stays_after_fork(&self, thread: &ThreadData) -> bool {
        self.0
            .stays_after_fork
            .is_some_and(|stays| stays(self.0.user, thread.0))
    }

    fn collected(&self, stats: &CollectionStats) {
        if let Some(collected) = self.0.collected {
            let stats = hw_collection::of(stats);
            collected(self.0.user, &raw const stats);
        }
    }
}

/// Tells the runtime what the verifier finds.
#[derive(Debug)]
pub(crate) struct Findings(pub(crate) hw_vm);

// SAFETY: as for the runtime itself.
unsafe impl Send for Findings {}
// SAFETY: as above.
unsafe impl Sync for Findings {}

impl Listener for Findings {
    fn event(&self, event: Event<'_>) {
        if let (Event::Violation(violation), Some(tell)) = (event, self.0.violation) {
            note_violation(violation, |what, object, word| {
                tell(self.0.user, what, object, word);
            });
        }
    }
}
