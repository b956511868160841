//! The identity hashes of objects that slide, beside the heap: a plan that slides cannot make an object larger.

use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Hashes by where the objects are.
#[derive(Debug, Default)]
pub struct Hashes {
    all: Mutex<HashMap<usize, usize>>,
    /// There are some.
    any: AtomicBool,
}

impl Hashes {
    /// The hash of the object at an address; `new` is what it gets if it has none. Mutator running.
    pub(crate) fn of(&self, object: usize, new: usize) -> usize {
        self.any.store(true, Ordering::Relaxed);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(object).or_insert(new)
    }

    /// Forgets the dead. World stopped, after a trace.
    pub(crate) fn keep(&self, mut lives: impl FnMut(usize) -> bool) {
        if self.any.load(Ordering::Relaxed) {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|object, _| lives(*object));
        }
    }

    /// Follows the living. World stopped, objects slide.
    pub(crate) fn follow(&self, to: impl Fn(usize) -> usize) {
        if self.any.load(Ordering::Relaxed) {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            *all = all.drain().map(|(from, hash)| (to(from), hash)).collect();
        }
    }
}
