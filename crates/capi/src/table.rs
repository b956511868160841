//! The table of callbacks, and the runtime that the core sees behind it.

use crate::heap::Shared;
use core::ffi::{CStr, c_char, c_void};
use heapwright::{
    Address, CollectionStats, HashBits, Metadata, ObjectReference, RootVisitor, SlotVisitor,
    TypeId, Vm, WildWord, WordSlots,
};
use std::sync::Arc;

/// The address of an object's first byte; null for none. The first word of an object is its header: its low eight bits are the heap's, the
/// others the program's (`hw_set_header`). Fields that hold references are whole words.
pub type hw_object = *mut c_void;

/// In `hw_vm.flags`: the heap knows which addresses are objects. Needed for `hw_for_each_object`, `hw_object_at`, and roots that are pinned or
/// ambiguous. Objects are then aligned to 16 bytes, and plans that bump allocate by a call.
pub const HW_OBJECT_MAP: u32 = 1;

/// What a collection was, for `hw_vm.collected`. Sizes in bytes, times in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hw_collection {
    /// Its number, from 1.
    pub number: u64,
    /// How long the world was stopped.
    pub pause_ns: u64,
    /// What was in use before.
    pub before_bytes: usize,
    /// What lives.
    pub live_bytes: usize,
    /// What was copied to another place.
    pub copied_bytes: usize,
    /// 1: everything was traced; 0: only what is young.
    pub full: u32,
    /// Why: a word, good for ever.
    pub cause: *const c_char,
}

/// Takes the fields of one object: given to `hw_vm.scan`, for `hw_visit_slot` and `hw_visit_slots`. Good during that call.
#[derive(Debug)]
pub struct hw_visitor {
    visit: *mut c_void,
    slots: unsafe fn(*mut c_void, Address, usize),
    pinned: Option<unsafe fn(*mut c_void, ObjectReference)>,
    ambiguous: Option<unsafe fn(*mut c_void, usize)>,
}

/// How the heap sees the program's objects. Filled in by the program (`hw_vm_init` sets size, and the rest to zero); copied when a heap is
/// made. Callbacks get `user` first. None of them allocates on the heap, waits for another thread, jumps out of the call (`longjmp`), or
/// throws. `size`, `scan` and `type_of` are called by many threads at once.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct hw_vm {
    /// `sizeof(hw_vm)`, as the program was compiled.
    pub struct_size: usize,
    /// `HW_OBJECT_MAP`, or 0.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// The program's own: the first argument of each callback.
    pub user: *mut c_void,
    /// Must be there. The bytes of an object, as they were asked for when it was allocated. Reads nothing but the object.
    pub size: Option<unsafe extern "C" fn(user: *mut c_void, object: hw_object) -> usize>,
    /// Must be there. Hands each field that may hold a reference to `visitor`, once. A new object is all zero.
    pub scan: Option<
        unsafe extern "C" fn(user: *mut c_void, object: hw_object, visitor: *mut hw_visitor),
    >,
    /// May be null. Hands over the roots of one mutator, beside those of `hw_push_root`. World stopped.
    pub thread_roots: Option<
        unsafe extern "C" fn(user: *mut c_void, thread: *mut c_void, visitor: *mut hw_visitor),
    >,
    /// May be null. Hands over all other roots, beside those of `hw_add_root`. World stopped.
    pub roots: Option<unsafe extern "C" fn(user: *mut c_void, visitor: *mut hw_visitor)>,
    /// May be null: then there is one type, 0. A number for the type of an object.
    pub type_of: Option<unsafe extern "C" fn(user: *mut c_void, object: hw_object) -> u32>,
    /// May be null. What people call a type; the string is copied.
    pub type_name: Option<unsafe extern "C" fn(user: *mut c_void, id: u32) -> *const c_char>,
    /// May be null. A collection is over. Called by the thread that collected; uses no mutator.
    pub collected:
        Option<unsafe extern "C" fn(user: *mut c_void, collection: *const hw_collection)>,
}

/// A callback's pointer, which the program promises is good from any thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread(pub(crate) *mut c_void);
// SAFETY: the header says that callbacks run on any thread with this pointer.
unsafe impl Send for Thread {}

/// What the core keeps for each mutator.
#[derive(Debug)]
pub(crate) struct Roots {
    pub(crate) thread: Thread,
    /// Addresses of the program's variables.
    pub(crate) stack: Vec<usize>,
}

/// The runtime behind a table. `MAP`: with an object map.
#[derive(Debug)]
pub(crate) struct Table<const MAP: bool> {
    pub(crate) vm: hw_vm,
    pub(crate) shared: Arc<Shared>,
}

// SAFETY: the header says that callbacks are called by any thread.
unsafe impl<const MAP: bool> Send for Table<MAP> {}
// SAFETY: as above.
unsafe impl<const MAP: bool> Sync for Table<MAP> {}

const HASH: HashBits = HashBits::IN_COLLECTORS_BYTE;

unsafe fn to_slots<S: SlotVisitor>(visit: *mut c_void, first: Address, count: usize) {
    // SAFETY: made from a `&mut S` in `scan`, during that call.
    unsafe { &mut *visit.cast::<S>() }.slots(first, count);
}

unsafe fn to_roots<R: RootVisitor>(visit: *mut c_void, first: Address, count: usize) {
    // SAFETY: made from a `&mut R` in `root_visitor`, during the callback.
    unsafe { &mut *visit.cast::<R>() }.slots(first, count);
}

unsafe fn to_pinned<R: RootVisitor>(visit: *mut c_void, object: ObjectReference) {
    // SAFETY: as above.
    unsafe { &mut *visit.cast::<R>() }.pinned(object);
}

unsafe fn to_ambiguous<R: RootVisitor>(visit: *mut c_void, word: usize) {
    // SAFETY: as above.
    unsafe { &mut *visit.cast::<R>() }.ambiguous(WildWord::new(word));
}

fn root_visitor<R: RootVisitor>(visit: &mut R, map: bool) -> hw_visitor {
    hw_visitor {
        visit: core::ptr::from_mut(visit).cast(),
        slots: to_roots::<R>,
        pinned: map.then_some(to_pinned::<R>),
        ambiguous: map.then_some(to_ambiguous::<R>),
    }
}

pub(crate) fn raw(object: ObjectReference) -> hw_object {
    object.to_address().as_ptr::<c_void>().cast_mut()
}

pub(crate) fn reference(object: hw_object) -> Option<ObjectReference> {
    ObjectReference::from_address(Address::from_ptr(object.cast_const()))
}

// SAFETY: the rules are handed on to the program by the header: 1 and 2 are `size` and `scan`, with the word for an identity hash counted
// here; 3 is roots; 4 and 7 are `hw_set_header`; 5 is `hw_write`; 6 stands at `hw_vm`.
unsafe impl<const MAP: bool> Vm for Table<MAP> {
    type Thread = Roots;
    type Slots = WordSlots;
    const METADATA: Metadata = Metadata::Header;
    const OBJECT_MAP: bool = MAP;
    const HASH: Option<HashBits> = Some(HASH);
    const PINS: bool = MAP;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, object: ObjectReference) -> usize {
        let Some(size) = self.vm.size else { return 16 };
        // SAFETY: the program's callback, with an object.
        let bytes = unsafe { size(self.vm.user, raw(object)) };
        // SAFETY: the first word of an object; the collector may set bits in it meanwhile.
        let first = unsafe {
            &*object
                .to_address()
                .as_ptr::<core::sync::atomic::AtomicUsize>()
        };
        let first = first.load(core::sync::atomic::Ordering::Relaxed);
        HASH.size(first, bytes.max(16))
    }

    fn scan<S: SlotVisitor>(&self, object: ObjectReference, visit: &mut S) {
        let Some(scan) = self.vm.scan else { return };
        let mut visitor = hw_visitor {
            visit: core::ptr::from_mut(visit).cast(),
            slots: to_slots::<S>,
            pinned: None,
            ambiguous: None,
        };
        // SAFETY: the program's callback, with an object and a visitor that lives meanwhile.
        unsafe { scan(self.vm.user, raw(object), &raw mut visitor) };
    }

    fn thread_roots<R: RootVisitor>(&self, roots: &mut Roots, visit: &mut R) {
        for slot in &roots.stack {
            visit.slot(Address::new(*slot));
        }
        if let Some(callback) = self.vm.thread_roots {
            let mut visitor = root_visitor(visit, MAP);
            // SAFETY: as above.
            unsafe { callback(self.vm.user, roots.thread.0, &raw mut visitor) };
        }
    }

    fn roots<R: RootVisitor>(&self, visit: &mut R) {
        for slot in self.shared.roots().iter() {
            visit.slot(Address::new(*slot));
        }
        if let Some(callback) = self.vm.roots {
            let mut visitor = root_visitor(visit, MAP);
            // SAFETY: as above.
            unsafe { callback(self.vm.user, &raw mut visitor) };
        }
    }

    fn type_of(&self, object: ObjectReference) -> TypeId {
        // SAFETY: the program's callback, with an object.
        TypeId(
            self.vm
                .type_of
                .map_or(0, |f| unsafe { f(self.vm.user, raw(object)) }),
        )
    }

    fn type_name(&self, id: TypeId) -> String {
        // SAFETY: the program's callback.
        let name = self.vm.type_name.map(|f| unsafe { f(self.vm.user, id.0) });
        match name.filter(|name| !name.is_null()) {
            // SAFETY: a string of the program's.
            Some(name) => unsafe { CStr::from_ptr(name) }
                .to_string_lossy()
                .into_owned(),
            None => format!("type {}", id.0),
        }
    }

    fn collected(&self, stats: &CollectionStats) {
        let Some(callback) = self.vm.collected else {
            return;
        };
        let collection = hw_collection {
            number: stats.number,
            pause_ns: stats.pause_ns,
            before_bytes: stats.before_bytes,
            live_bytes: stats.live_bytes,
            copied_bytes: stats.copied_bytes,
            full: stats.full.into(),
            cause: cause(stats.cause.name()).as_ptr(),
        };
        // SAFETY: the program's callback.
        unsafe { callback(self.vm.user, &raw const collection) };
    }
}

fn cause(name: &str) -> &'static CStr {
    match name {
        "budget" => c"budget",
        "limit" => c"limit",
        "requested" => c"requested",
        "stress" => c"stress",
        "concurrent" => c"concurrent",
        "idle" => c"idle",
        "external" => c"external",
        _ => c"other",
    }
}

/// In `scan` and in callbacks for roots: one word that holds a reference or null. It is updated if the object moves. Nulls are ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_visit_slot(visitor: *mut hw_visitor, slot: *mut hw_object) {
    // SAFETY: the caller's promise.
    unsafe { hw_visit_slots(visitor, slot, 1) };
}

/// The same for `count` words one after the other: the array of an object is divided among threads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_visit_slots(
    visitor: *mut hw_visitor,
    first: *mut hw_object,
    count: usize,
) {
    // SAFETY: the caller's promise: the visitor of a callback that runs now, or null.
    if let Some(visitor) = unsafe { visitor.as_ref() }
        && !first.is_null()
        && count > 0
    {
        // SAFETY: the visitor was made for this function.
        unsafe { (visitor.slots)(visitor.visit, Address::from_ptr(first.cast_const()), count) };
    }
}

/// In callbacks for roots: an object that is alive and stays where it is, as the reference to it cannot be updated. Only with `HW_OBJECT_MAP`:
/// 0 if it was not taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_visit_pinned(visitor: *mut hw_visitor, object: hw_object) -> i32 {
    // SAFETY: as above.
    let visitor = unsafe { visitor.as_ref() };
    let (Some(visitor), Some(object)) = (visitor, reference(object)) else {
        return 0;
    };
    let Some(pinned) = visitor.pinned else {
        return 0;
    };
    // SAFETY: as above.
    unsafe { pinned(visitor.visit, object) };
    1
}

/// In callbacks for roots: a word that may be a reference, or point into an object. What it leads to is alive and stays where it is. Only with
/// `HW_OBJECT_MAP`: 0 if it was not taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hw_visit_ambiguous(visitor: *mut hw_visitor, word: usize) -> i32 {
    // SAFETY: as above.
    let Some(visitor) = (unsafe { visitor.as_ref() }) else {
        return 0;
    };
    let Some(ambiguous) = visitor.ambiguous else {
        return 0;
    };
    // SAFETY: as above.
    unsafe { ambiguous(visitor.visit, word) };
    1
}
