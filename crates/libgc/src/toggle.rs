//! Toggle references: references that a client's function makes strong or weak before each collection.

use crate::alloc::cell_at;
use crate::callback::Callback;
use crate::state;
use crate::table::{Entry, Guarded, Table};
use core::ffi::{c_int, c_void};
use heapwright::{Address, Closure, WildWord, WordVisitor};

/// Decides about an object: 0 drop the reference, 1 strong, 2 weak.
pub type GC_toggleref_func = unsafe extern "C-unwind" fn(*mut c_void) -> c_int;

const DROP: c_int = 0;
const STRONG: c_int = 1;

#[derive(Clone, Copy)]
struct Toggle {
    object: usize,
    strong: usize,
}

// SAFETY: two integers.
unsafe impl Entry for Toggle {
    fn key(&self) -> usize {
        self.object
    }
}

static TOGGLES: Guarded<Table<Toggle>> = Guarded::new(Table::NEW);
static DECIDE: Callback<GC_toggleref_func> = Callback::NONE;

/// Asks the client about each reference. World running, heap lock held.
pub(crate) fn ask() {
    let Some(decide) = DECIDE.get() else { return };
    // SAFETY: the lock is held; the client's function is called with the lock held, and may not come back here.
    let toggles = unsafe { TOGGLES.held() };
    // `retain` may ask twice, so it only looks at what was decided.
    const FORGET: usize = 2;
    let mut drop_some = false;
    for toggle in toggles.each_mut() {
        // SAFETY: the client's function, called as the interface says.
        let decision = unsafe { decide(crate::alloc::pointer(toggle.object)) };
        toggle.strong = if decision == DROP {
            FORGET
        } else {
            usize::from(decision == STRONG)
        };
        drop_some |= decision == DROP;
    }
    if drop_some {
        toggles.retain(|toggle| toggle.strong != FORGET);
    }
}

/// Reports the strong ones. World stopped, heap lock held.
pub(crate) fn roots<T: WordVisitor>(visit: &mut T) {
    // SAFETY: the collecting thread holds the lock.
    let toggles = unsafe { TOGGLES.held() };
    toggles.each(|toggle| {
        if toggle.strong != 0 {
            visit.root_word(WildWord::new(toggle.object));
        }
    });
}

/// Drops those whose object is dead. World stopped, heap lock held.
pub(crate) fn forget_dead<C: Closure>(closure: &C) {
    // SAFETY: the collecting thread holds the lock.
    let toggles = unsafe { TOGGLES.held() };
    toggles.retain(|toggle| closure.is_marked(Address::new(toggle.object)));
}

/// Adds a toggle reference to the object that starts at `object`. 0 (also if there is no deciding function, or no object
/// there), 2 if there is no memory.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GC_toggleref_add(object: *mut c_void, is_strong: c_int) -> c_int {
    let (Some(heap), Some(_), Some(_)) = (state::heap_if_ready(), DECIDE.get(), cell_at(object))
    else {
        return 0;
    };
    let toggle = Toggle {
        object: object.addr(),
        strong: usize::from(is_strong != 0),
    };
    if TOGGLES.with(heap, |toggles| toggles.insert(toggle)).is_ok() {
        0
    } else {
        2
    }
}

/// Sets the function that decides, with the heap's lock held and the world running. Null: none.
#[unsafe(no_mangle)]
pub extern "C" fn GC_set_toggleref_func(function: Option<GC_toggleref_func>) {
    DECIDE.set(function);
}

/// The function that decides.
#[unsafe(no_mangle)]
pub extern "C" fn GC_get_toggleref_func() -> Option<GC_toggleref_func> {
    DECIDE.get()
}
