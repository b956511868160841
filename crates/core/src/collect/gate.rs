//! The gate: how mutators stop cooperatively.
//!
//! A mutator is *inside* while it may touch the heap. It polls a flag of its own; when that is up it leaves, and comes back in
//! when the gate is open. Who wants to stop the world closes the gate, raises all flags, and waits until nobody but itself is
//! inside.
//!
//! | state | event | state |
//! |---|---|---|
//! | open, n inside | `close` by one of them | closed, n - 1 others to wait for |
//! | closed, k inside | one polls, or goes outside | closed, k - 1 inside; at 0 the closer goes on |
//! | closed | one comes back from outside, or attaches | it waits |
//! | closed | a second one wants to close | it waits as at a poll, and is told that somebody else collected |
//! | closed | `open` | open; all come back |
//! | open, nobody inside | `try_close` by one outside | closed; else nothing changes |

use crate::bugs::{Bug, is_on};
use crate::primitive::{AtomicU32, Condvar, Mutex, MutexGuard, Ordering};
use crate::vm::World;
use core::cell::UnsafeCell;
use std::sync::PoisonError;

/// A mutator's flag: not 0 when it is to stop at its next poll.
#[derive(Debug, Default)]
pub struct Interrupt(AtomicU32);

impl Interrupt {
    /// Is the mutator to stop? One load.
    #[inline(always)]
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Raises or lowers it.
    pub fn set(&self, raised: bool) {
        self.0.store(u32::from(raised), Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct State {
    inside: usize,
    closed: bool,
}

#[derive(Debug, Default)]
struct Parts {
    state: Mutex<State>,
    /// Somebody left, or the gate was opened.
    changed: Condvar,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Gate(UnsafeCell<Parts>);

// SAFETY: the parts are Sync; they are written as a whole only in the child of a fork, which has one thread (`forked`).
unsafe impl Sync for Gate {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Gate {}

impl Gate {
    /// An open gate with nobody inside.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn parts(&self) -> &Parts {
        // SAFETY: written in `forked` only, when nobody else is there.
        unsafe { &*self.0.get() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is a number and a flag: whole after any panic.
        let state = self.parts().state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// In the child of a fork, whose thread has the gate closed: nobody else is there, whatever others did in the parent.
    ///
    /// # Safety
    /// The calling thread is the only one of the process that uses the gate, and is in none of its methods.
    pub unsafe fn forked(&self, inside: bool) {
        let parts = Parts {
            state: Mutex::new(State {
                inside: usize::from(inside),
                closed: true,
            }),
            changed: Condvar::new(),
        };
        // SAFETY: the caller's promise. The old parts are not dropped: a thread of the parent may have had the mutex locked.
        unsafe { self.0.get().write(parts) };
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.parts()
            .changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread comes in, when the gate is open.
    pub fn enter(&self) {
        let mut state = self.state();
        while state.closed {
            state = self.wait(state);
        }
        state.inside += 1;
    }

    /// The calling thread, which is inside, goes out.
    pub fn leave(&self) {
        let mut state = self.state();
        state.inside -= 1;
        let closed = state.closed;
        drop(state);
        if closed {
            self.parts().changed.notify_all();
        }
    }

    /// The calling thread, which is inside, stops here as long as the gate is closed.
    pub fn stop(&self) {
        let mut state = self.state();
        if !state.closed {
            return;
        }
        state.inside -= 1;
        self.parts().changed.notify_all();
        while state.closed {
            state = self.wait(state);
        }
        state.inside += 1;
    }

    /// Stops all others: true when nobody else is inside. False if somebody else closed the gate; then that is over when this
    /// returns. `inside`: the calling thread is; `raise` raises the flags of all mutators, and is called with the gate closed.
    #[must_use]
    pub fn close(&self, inside: bool, raise: impl FnOnce()) -> bool {
        let mut state = self.state();
        if state.closed {
            if inside {
                state.inside -= 1;
                self.parts().changed.notify_all();
            }
            while state.closed {
                state = self.wait(state);
            }
            if inside {
                state.inside += 1;
            }
            return false;
        }
        state.closed = true;
        let own = usize::from(inside);
        if state.inside > own {
            raise();
            while state.inside > own && !is_on(Bug::StopNotAwaited) {
                state = self.wait(state);
            }
        }
        true
    }

    /// Closes the gate if nobody is inside and it is open: true if it did. The calling thread is outside.
    #[must_use]
    pub fn try_close(&self) -> bool {
        let mut state = self.state();
        if state.closed || state.inside != 0 && !is_on(Bug::QuietNotAsked) {
            return false;
        }
        state.closed = true;
        true
    }

    /// Lets all others run again.
    pub fn open(&self) {
        self.state().closed = false;
        self.parts().changed.notify_all();
    }
}

// SAFETY: 1, 3: `close` returns when the count of those inside is its own, which is kept under a mutex, as is `closed`; `enter` and
// `stop` come in only when it is not closed. 2: `close` waits for that. 4: nothing allocates on a heap.
unsafe impl World for Gate {
    fn enter(&self) {
        self.enter();
    }

    fn leave(&self) {
        self.leave();
    }

    fn stop(&self) {
        self.stop();
    }

    fn close(&self, inside: bool, raise: &dyn Fn()) -> bool {
        self.close(inside, raise)
    }

    fn try_close(&self) -> bool {
        self.try_close()
    }

    fn open(&self, _: bool) {
        self.open();
    }

    unsafe fn forked(&self, inside: bool) {
        // SAFETY: the caller's promise.
        unsafe { self.forked(inside) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicUsize;
    use std::thread;

    /// As in the child of a fork: a thread that is not there any more had the lock, and others wait at the gate.
    #[test]
    fn a_child_finds_the_gate_as_new_whatever_others_did() {
        for inside in [true, false] {
            let gate = Gate::new();
            if inside {
                gate.enter();
            }
            assert!(gate.close(inside, || ()));
            thread::scope(|scope| {
                scope.spawn(|| core::mem::forget(gate.state()));
            });
            // SAFETY: no other thread uses the gate any more.
            unsafe { gate.forked(inside) };
            assert!(!gate.try_close(), "closed by who forked");
            gate.open();
            assert_eq!(gate.try_close(), !inside, "nobody else is inside");
            if inside {
                gate.leave();
                assert!(gate.try_close());
            }
            gate.open();
            gate.enter();
            assert!(gate.close(true, || ()));
            gate.open();
        }
    }

    #[test]
    fn nobody_is_inside_while_the_gate_is_closed() {
        let gate = Gate::new();
        let flags: Vec<Interrupt> = (0..4).map(|_| Interrupt::default()).collect();
        let (shared, closed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for me in 0..4 {
                let (gate, flags, shared, closed) = (&gate, &flags, &shared, &closed);
                scope.spawn(move || {
                    gate.enter();
                    for round in 0..2000 {
                        // Not atomic on purpose: a lost update shows that two were inside while the gate was closed.
                        if round % 50 == me * 7 {
                            if gate.close(true, || flags.iter().for_each(|f| f.set(true))) {
                                let before = shared.load(Ordering::Relaxed);
                                thread::yield_now();
                                assert_eq!(shared.load(Ordering::Relaxed), before);
                                flags.iter().for_each(|f| f.set(false));
                                closed.fetch_add(1, Ordering::Relaxed);
                                gate.open();
                            }
                        } else if flags[me].is_raised() {
                            gate.stop();
                        } else if round % 97 == 0 {
                            gate.leave();
                            gate.enter();
                        }
                        shared.fetch_add(1, Ordering::Relaxed);
                    }
                    gate.leave();
                });
            }
        });
        assert!(closed.into_inner() > 0);
        assert_eq!(shared.into_inner(), 8000);
    }
}
