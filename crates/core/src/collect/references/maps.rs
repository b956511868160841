//! Weak maps that the program has: keys by identity, values that live as long as their keys.

use super::NoMemory;
use core::hash::{BuildHasherDefault, Hasher};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Hashes an address.
#[derive(Debug, Default)]
pub(crate) struct ByAddress(u64);

impl Hasher for ByAddress {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, word: usize) {
        // The upper bits choose within a group of places, the lower ones the group: both are to depend on the whole address.
        let hash = (self.0 ^ word as u64 >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = hash ^ hash >> 32;
    }
}

/// What a map is, as the heap and its users share it.
#[derive(Debug, Default)]
pub(crate) struct MapCore(Mutex<MapState>);

/// A map's lock is held, and the map is there as long.
#[derive(Debug)]
pub(super) struct MapHeld {
    /// Dropped before the map.
    _state: MutexGuard<'static, MapState>,
    _map: Arc<MapCore>,
}

impl MapHeld {
    pub(super) fn new(map: &Arc<MapCore>) -> Self {
        let map = Arc::clone(map);
        // SAFETY: only the lifetime differs: the map stays where it is as long as there is an `Arc` to it, and the one here is dropped
        // after the guard.
        let state = unsafe {
            core::mem::transmute::<MutexGuard<'_, MapState>, MutexGuard<'static, MapState>>(
                map.lock(),
            )
        };
        Self {
            _state: state,
            _map: map,
        }
    }
}

impl MapCore {
    /// The contents. Mutator running, or world stopped; nobody comes to a safepoint with it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, MapState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Values by keys, both by their addresses.
#[derive(Debug, Default)]
pub(crate) struct MapState {
    entries: HashMap<usize, usize, BuildHasherDefault<ByAddress>>,
    /// Keys that were written since the last collection: a minor one looks at no others.
    young: Vec<usize>,
    /// What a collection has in its hands.
    pairs: Vec<(usize, usize)>,
}

impl MapState {
    pub(crate) fn get(&self, key: usize) -> Option<usize> {
        self.entries.get(&key).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Enters a value: what was there before, or an error if there is no memory. With it comes the memory that a collection needs.
    pub(crate) fn insert(&mut self, key: usize, value: usize) -> Result<Option<usize>, NoMemory> {
        self.entries.try_reserve(1).map_err(|_| NoMemory)?;
        self.pairs
            .try_reserve(self.entries.len() + 1)
            .map_err(|_| NoMemory)?;
        if self.young.len() > 64 && self.young.len() > 2 * self.entries.len() {
            // Written again and again.
            self.young.sort_unstable();
            self.young.dedup();
            let entries = &self.entries;
            self.young.retain(|key| entries.contains_key(key));
        }
        self.young.try_reserve(1).map_err(|_| NoMemory)?;
        self.young.push(key);
        Ok(self.entries.insert(key, value))
    }

    pub(crate) fn remove(&mut self, key: usize) -> Option<usize> {
        self.entries.remove(&key)
    }

    /// Visits all entries.
    pub(crate) fn each(&self, mut visit: impl FnMut(usize, usize)) {
        self.entries.iter().for_each(|(k, v)| visit(*k, *v));
    }

    /// Takes out what a collection looks at: all, or what was written since the last.
    pub(super) fn take(&mut self, minor: bool) {
        let Self {
            entries,
            young,
            pairs,
        } = self;
        pairs.clear();
        if minor {
            pairs.extend(young.iter().filter_map(|key| entries.remove_entry(key)));
        } else {
            pairs.extend(entries.drain());
        }
        young.clear();
    }

    /// What was taken out.
    pub(super) fn taken(&self) -> &[(usize, usize)] {
        &self.pairs
    }

    /// The same, to be updated: a key of 0 says that the entry is gone.
    pub(super) fn taken_mut(&mut self) -> &mut [(usize, usize)] {
        &mut self.pairs
    }

    /// Puts back what is left. There is room: nothing was entered since.
    pub(super) fn put_back(&mut self) {
        let Self { entries, pairs, .. } = self;
        entries.extend(pairs.drain(..).filter(|(key, _)| *key != 0));
    }
}
