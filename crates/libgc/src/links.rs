//! Disappearing links: words that become null when an object is found unreachable.
//!
//! *Short* links are cleared before finalizers are looked at, *long* ones after, when also no finalizer can reach the
//! object. A link that lies in an object that dies itself is forgotten. All under the heap's lock, clearing in the pause;
//! the tables are found by the link's address, so that registering, moving and removing take constant time.

use crate::alloc::{cell_at, untagged};
use crate::state;
use crate::table::{Entry, Guarded, Table};
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};
use heapwright::{Closure, WildWord};

/// Done.
const SUCCESS: c_int = 0;
/// There is one at that place already.
const DUPLICATE: c_int = 1;
/// There is no memory.
const NO_MEMORY: c_int = 2;
/// The arguments are no link and no object.
const UNIMPLEMENTED: c_int = 3;
/// There is none at that place.
const NOT_FOUND: c_int = 4;

/// One link: where it is, and on what it depends.
#[derive(Clone, Copy)]
struct Link {
    at: usize,
    object: usize,
}

// SAFETY: two integers.
unsafe impl Entry for Link {
    fn key(&self) -> usize {
        self.at
    }
}

/// One table of links.
pub(crate) struct Links(Guarded<Table<Link>>);

/// Cleared before finalization.
pub(crate) static SHORT: Links = Links(Guarded::new(Table::NEW));
/// Cleared after finalization.
pub(crate) static LONG: Links = Links(Guarded::new(Table::NEW));

impl Links {
    fn register(&self, at: *mut *mut c_void, object: *const c_void) -> c_int {
        if !is_place(at) || cell_at(untagged(object.addr()).as_ptr()).is_none() {
            return UNIMPLEMENTED;
        }
        let Some(heap) = state::heap_if_ready() else {
            return UNIMPLEMENTED;
        };
        match self.0.with(heap, |table| {
            table.insert(Link {
                at: at.addr(),
                object: object.addr(),
            })
        }) {
            Ok(None) => SUCCESS,
            Ok(Some(_)) => DUPLICATE,
            Err(_) => NO_MEMORY,
        }
    }

    fn unregister(&self, at: *mut *mut c_void) -> c_int {
        let Some(heap) = state::heap_if_ready() else {
            return 0;
        };
        c_int::from(self.0.with(heap, |table| table.remove(at.addr())).is_some())
    }

    fn move_to(&self, from: *mut *mut c_void, to: *mut *mut c_void) -> c_int {
        let Some(heap) = state::heap_if_ready() else {
            return NOT_FOUND;
        };
        if !is_place(to) {
            return UNIMPLEMENTED;
        }
        self.0.with(heap, |table| {
            if table.get(from.addr()).is_none() {
                return NOT_FOUND;
            }
            if from == to {
                return SUCCESS;
            }
            if table.get(to.addr()).is_some() {
                return DUPLICATE;
            }
            match table.remove(from.addr()) {
                // After a removal there is room.
                Some(link)
                    if table
                        .insert(Link {
                            at: to.addr(),
                            ..link
                        })
                        .is_ok() =>
                {
                    SUCCESS
                }
                _ => NOT_FOUND,
            }
        })
    }

    /// Clears the links whose object is not marked.
    ///
    /// # Safety
    /// The world is stopped and the calling thread holds the heap's lock.
    pub(crate) unsafe fn clear<C: Closure>(&self, closure: &C) {
        // SAFETY: the caller's promise.
        let table = unsafe { self.0.held() };
        table.retain(|link| {
            if closure.is_marked(untagged(link.object)) {
                return true;
            }
            let place: *const AtomicPtr<c_void> = core::ptr::with_exposed_provenance(link.at);
            // SAFETY: the client's promise: a word that can be written as long as it is registered, or one in an object, whose
            // memory is there until the end of the collection.
            unsafe { &*place }.store(core::ptr::null_mut(), Ordering::Relaxed);
            false
        });
    }

    /// Forgets the links that lie in objects that are not marked.
    ///
    /// # Safety
    /// As for [`Links::clear`].
    pub(crate) unsafe fn forget_dead<C: Closure>(&self, heap: &state::BoehmHeap, closure: &C) {
        // SAFETY: the caller's promise.
        let table = unsafe { self.0.held() };
        table.retain(|link| {
            heap.cell(WildWord::new(link.at))
                .is_none_or(|cell| closure.is_marked(cell.start))
        });
    }

    /// Gives back memory. World running.
    ///
    /// # Safety
    /// The calling thread holds the heap's lock.
    pub(crate) unsafe fn shrink(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.0.held() }.shrink();
    }

    /// How many there are. Takes no lock, so it may be out of date.
    ///
    /// # Safety
    /// The calling thread holds the heap's lock.
    pub(crate) unsafe fn len(&self) -> usize {
        // SAFETY: the caller's promise.
        unsafe { self.0.held() }.len()
    }
}

/// Can a link be there?
fn is_place(at: *mut *mut c_void) -> bool {
    !at.is_null() && at.is_aligned()
}

/// As [`GC_general_register_disappearing_link`], for the object that the link lies in. 3 if it lies in none.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_register_disappearing_link(link: *mut *mut c_void) -> c_int {
    let object = crate::alloc::GC_base(link.cast());
    SHORT.register(link, object)
}

/// Makes `*link` null as soon as the object that starts at `object` is found unreachable. 0; 1 if the link was registered,
/// and is now for this object; 2 if there is no memory; 3 if `object` is not the start of an object (but for tag bits) or the
/// link is not aligned. The word itself should not be visible to the collector.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_general_register_disappearing_link(
    link: *mut *mut c_void,
    object: *const c_void,
) -> c_int {
    SHORT.register(link, object)
}

/// Undoes a registration: 1, or 0 if there was none.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_unregister_disappearing_link(link: *mut *mut c_void) -> c_int {
    SHORT.unregister(link)
}

/// Lets a link be at another place, whose contents are not touched. 0; 1 if there is a link there; 4 if there is none here.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_move_disappearing_link(
    link: *mut *mut c_void,
    new_link: *mut *mut c_void,
) -> c_int {
    SHORT.move_to(link, new_link)
}

/// As [`GC_general_register_disappearing_link`], for links that last until no finalizer can reach the object.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_register_long_link(
    link: *mut *mut c_void,
    object: *const c_void,
) -> c_int {
    LONG.register(link, object)
}

/// Undoes a [`GC_register_long_link`]: 1, or 0 if there was none.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_unregister_long_link(link: *mut *mut c_void) -> c_int {
    LONG.unregister(link)
}

/// As [`GC_move_disappearing_link`], for long links.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_move_long_link(
    link: *mut *mut c_void,
    new_link: *mut *mut c_void,
) -> c_int {
    LONG.move_to(link, new_link)
}
