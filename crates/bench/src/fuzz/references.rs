//! Programs with reference objects, ephemerons, weak maps and finalizers, and what their shadows know of those.
//!
//! When a collection takes place the shadow does not know, so it does not know either when a reference is to be cleared. It knows when
//! none may be: a weak one not as long as something reaches its object; a phantom one and an ephemeron not even as long as an object does
//! that has yet to be finalized. And whatever is not cleared must lead to the right object, with all that it reaches.

use super::{Machine, Op, ROOTS, Shadow, program};
use crate::runtime::Full;
use crate::workload::Random;
use heapwright::{FinalizerOrder, ObjectReference, Strength};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};

/// One step with such an object. Places are numbers below `ROOTS`; where an object of a kind is wanted, it is the first in the roots from a
/// place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceOp {
    /// Makes a reference object to a root: strength, into, to.
    New(Strength, usize, usize),
    /// Reads a reference object into a root.
    Get(usize, usize),
    /// Has it refer to a root.
    Set(usize, usize),
    /// Makes an ephemeron: into, key, value.
    Ephemeron(usize, usize, usize),
    /// Reads its value into a root, or its key.
    Pair(usize, usize, bool),
    /// Gives it another key and value.
    SetPair(usize, usize, usize),
    /// Enters a key and a value into the map.
    Insert(usize, usize),
    /// Reads the value of a key into a root.
    Lookup(usize, usize),
    /// Takes a key out.
    Remove(usize),
    /// Registers a finalizer for a root.
    Finalizer(usize, FinalizerOrder),
    /// Takes an object that is to be finalized into a root.
    Finalize(usize),
}

/// A program in which two of five steps are such.
#[must_use]
pub fn references(seed: u64, length: usize) -> Vec<Op> {
    let mut random = Random::new(seed ^ 0x5eed);
    let mut below = |n: usize| random.below(n);
    let mut others = program(seed, length).into_iter();
    let mut ops = Vec::with_capacity(length);
    while ops.len() < length {
        let (a, b, c) = (below(ROOTS), below(ROOTS), below(ROOTS));
        let op = match below(100) {
            0..6 => ReferenceOp::New(Strength::ALL[below(3)], a, b),
            6..12 => ReferenceOp::Get(a, b),
            12..14 => ReferenceOp::Set(a, b),
            14..19 => ReferenceOp::Ephemeron(a, b, c),
            19..23 => ReferenceOp::Pair(a, b, c % 3 == 0),
            23..25 => ReferenceOp::SetPair(a, b, c),
            25..28 => ReferenceOp::Insert(a, b),
            28..31 => ReferenceOp::Lookup(a, b),
            31 => ReferenceOp::Remove(a),
            32..36 => ReferenceOp::Finalizer(
                a,
                [FinalizerOrder::Together, FinalizerOrder::Registration][b % 2],
            ),
            36..39 => ReferenceOp::Finalize(a),
            // More roots are dropped than else: so that objects are left to weak references.
            39..43 => {
                ops.push(Op::Move(a, None));
                continue;
            }
            43 => {
                ops.push([Op::Young, Op::Collect, Op::Background][a % 3]);
                continue;
            }
            _ => {
                ops.extend(others.next());
                continue;
            }
        };
        ops.push(Op::Reference(op));
    }
    ops
}

/// What an object is beside its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Plain,
    Reference(Strength, Option<u64>),
    Ephemeron(Option<(u64, u64)>),
}

/// What the shadow knows of what is not in objects.
#[derive(Debug, Default)]
pub(super) struct Registered {
    /// Distinguishes this program's objects from those of other threads, in the tokens of finalizers.
    tag: usize,
    finalizers: Vec<u64>,
    map: HashMap<u64, u64>,
    /// What may have been cleared as weak though it is reachable now: it was dead and came back.
    revived: HashSet<u64>,
}

static TAGS: AtomicUsize = AtomicUsize::new(1);

impl Registered {
    pub(super) fn new() -> Self {
        Self {
            tag: TAGS.fetch_add(1, Ordering::Relaxed) << 32,
            ..Self::default()
        }
    }
}

/// Bytes of the raw part of such objects.
const RAW: usize = 24;

impl<const HEADER: bool, const AMBIGUOUS: bool> Machine<'_, HEADER, AMBIGUOUS> {
    /// All that some objects reach, by fields, and by ephemerons and the map.
    pub(super) fn closure(&self, start: impl IntoIterator<Item = u64>) -> HashSet<u64> {
        let mut seen = HashSet::new();
        let mut todo: Vec<u64> = start.into_iter().collect();
        let mut ephemerons = Vec::new();
        loop {
            while let Some(id) = todo.pop() {
                if seen.insert(id)
                    && let Some(shadow) = self.shadows.get(&id)
                {
                    todo.extend(shadow.fields.iter().flatten());
                    if let Special::Ephemeron(Some(pair)) = shadow.special {
                        ephemerons.push(pair);
                    }
                }
            }
            let map = self.registered.map.iter().map(|(k, v)| (*k, *v));
            let held = ephemerons.iter().copied().chain(map);
            todo.extend(
                held.filter(|(key, value)| seen.contains(key) && !seen.contains(value))
                    .map(|(_, value)| value),
            );
            if todo.is_empty() {
                return seen;
            }
        }
    }

    /// The same, also by what has yet to be finalized.
    fn closure_with_finalizers(&self) -> HashSet<u64> {
        let roots = self.roots.iter().flatten().copied();
        self.closure(roots.chain(self.registered.finalizers.iter().copied()))
    }

    /// What the shadow must not forget beside what is reachable: all that may come back.
    pub(super) fn remembered(&self, seen: impl Iterator<Item = u64>) -> HashSet<u64> {
        let mut keep = HashSet::new();
        let mut todo: Vec<u64> = seen
            .chain(self.weaks.iter().flatten().copied())
            .chain(self.registered.finalizers.iter().copied())
            .chain(self.registered.map.iter().flat_map(|(k, v)| [*k, *v]))
            .collect();
        while let Some(id) = todo.pop() {
            if keep.insert(id)
                && let Some(shadow) = self.shadows.get(&id)
            {
                todo.extend(shadow.fields.iter().flatten());
                match shadow.special {
                    Special::Plain => {}
                    Special::Reference(_, target) => todo.extend(target),
                    Special::Ephemeron(pair) => todo.extend(pair.iter().flat_map(|p| [p.0, p.1])),
                }
            }
        }
        keep
    }

    /// An object that only weak references, ephemerons or the queue reached is a root again: what it reaches may have been dead.
    pub(super) fn revive(&mut self, id: u64) {
        let before = self.reachable();
        if !before.contains(&id) {
            // With roots, for it may be the key of ephemerons that they reach.
            let all = self.closure(self.roots.iter().flatten().copied().chain([id]));
            let new = all.into_iter().filter(|id| !before.contains(id));
            self.registered.revived.extend(new);
        }
    }

    /// The first root from a place on whose object is of a kind.
    fn find(&self, from: usize, kind: impl Fn(Special) -> bool) -> Option<(usize, u64)> {
        (0..ROOTS)
            .map(|step| (from + step) % ROOTS)
            .find_map(|root| {
                let id = self.roots[root]?;
                self.shadows
                    .get(&id)
                    .is_some_and(|shadow| kind(shadow.special))
                    .then_some((root, id))
            })
    }

    fn special(&mut self, root: usize, made: ObjectReference, special: Special) {
        let id = self.next;
        self.next += 1;
        self.thread.set_number(made, id);
        let shadow = Shadow {
            fields: Vec::new(),
            raw: RAW,
            last: 0,
            hash: None,
            special,
        };
        self.shadows.insert(id, shadow);
        self.set(root, Some(made), Some(id));
    }

    fn set_special(&mut self, id: u64, special: Special) {
        if let Some(shadow) = self.shadows.get_mut(&id) {
            shadow.special = special;
        }
    }

    /// One step on both sides: the inner error says that memory ran out.
    pub(super) fn reference_step(&mut self, op: ReferenceOp) -> Result<Result<(), Full>, String> {
        let done = match op {
            ReferenceOp::New(strength, into, to) => self.new_reference(strength, into, to),
            ReferenceOp::Get(from, into) => return self.get_reference(from, into).map(Ok),
            ReferenceOp::Set(at, to) => self.set_reference(at, to),
            ReferenceOp::Ephemeron(into, key, value) => self.new_ephemeron(into, key, value),
            ReferenceOp::Pair(at, into, key) => return self.get_pair(at, into, key).map(Ok),
            ReferenceOp::SetPair(at, key, value) => self.set_pair(at, key, value),
            ReferenceOp::Insert(key, value) => self.insert(key, value),
            ReferenceOp::Lookup(key, into) => return self.lookup(key, into).map(Ok),
            ReferenceOp::Remove(key) => {
                if let (Some(object), Some(id)) = (self.object(key), self.roots[key]) {
                    self.map.remove(self.thread.mutator(), object);
                    self.registered.map.remove(&id);
                }
                Ok(())
            }
            ReferenceOp::Finalizer(root, order) => self.finalizer(root, order),
            ReferenceOp::Finalize(into) => return self.finalize(into),
        };
        Ok(done)
    }

    fn new_reference(&mut self, strength: Strength, into: usize, to: usize) -> Result<(), Full> {
        let place = self.place(to);
        let made = self.thread.reference(strength, place)?;
        let special = Special::Reference(strength, self.roots[to]);
        self.special(into, made, special);
        Ok(())
    }

    fn get_reference(&mut self, from: usize, into: usize) -> Result<(), String> {
        let found = self.find(from, |s| matches!(s, Special::Reference(_, Some(_))));
        let Some((root, id)) = found else {
            return Ok(());
        };
        let Some(object) = self.object(root) else {
            return Ok(());
        };
        let Some(Special::Reference(strength, Some(target))) =
            self.shadows.get(&id).map(|shadow| shadow.special)
        else {
            return Ok(());
        };
        let Some(now) = self.thread.referent(object) else {
            let lost = if strength == Strength::Phantom {
                self.closure_with_finalizers().contains(&target)
            } else {
                self.reachable().contains(&target) && !self.registered.revived.contains(&target)
            };
            self.set_special(id, Special::Reference(strength, None));
            return if lost {
                Err(format!("a reference, {strength:?}, lost object {target}"))
            } else {
                Ok(())
            };
        };
        self.check(Some(now), Some(target))?;
        // No program can use what a phantom reference refers to.
        if strength != Strength::Phantom {
            self.revive(target);
            self.set(into, Some(now), Some(target));
        }
        Ok(())
    }

    fn set_reference(&mut self, at: usize, to: usize) -> Result<(), Full> {
        let found = self.find(at, |s| {
            matches!(s, Special::Reference(Strength::Soft | Strength::Weak, _))
        });
        let Some((root, id)) = found else {
            return Ok(());
        };
        let (Some(object), target) = (self.object(root), self.object(to)) else {
            return Ok(());
        };
        self.thread.set_referent(object, target)?;
        if let Some(Special::Reference(strength, _)) = self.shadows.get(&id).map(|s| s.special) {
            self.set_special(id, Special::Reference(strength, self.roots[to]));
        }
        Ok(())
    }

    fn new_ephemeron(&mut self, into: usize, key: usize, value: usize) -> Result<(), Full> {
        let (key_place, value_place) = (self.place(key), self.place(value));
        let made = self.thread.ephemeron(key_place, value_place)?;
        let pair = self.roots[key].zip(self.roots[value]);
        if pair.is_none() {
            // Half of one: emptied, for the shadow to know what is in it.
            self.thread.set_pair(made, None, None)?;
        }
        self.special(into, made, Special::Ephemeron(pair));
        Ok(())
    }

    fn get_pair(&mut self, at: usize, into: usize, want_key: bool) -> Result<(), String> {
        let found = self.find(at, |s| matches!(s, Special::Ephemeron(Some(_))));
        let Some((root, id)) = found else {
            return Ok(());
        };
        let (Some(object), Some(Special::Ephemeron(Some((key, value))))) =
            (self.object(root), self.shadows.get(&id).map(|s| s.special))
        else {
            return Ok(());
        };
        let Some((key_now, value_now)) = self.thread.pair(object) else {
            self.set_special(id, Special::Ephemeron(None));
            return if self.closure_with_finalizers().contains(&key) {
                Err(format!("an ephemeron lost its key {key}"))
            } else {
                Ok(())
            };
        };
        self.check(Some(key_now), Some(key))?;
        self.check(value_now, Some(value))?;
        self.revive(key);
        self.revive(value);
        if want_key {
            self.set(into, Some(key_now), Some(key));
        } else {
            self.set(into, value_now, Some(value));
        }
        Ok(())
    }

    fn set_pair(&mut self, at: usize, key: usize, value: usize) -> Result<(), Full> {
        let Some((root, id)) = self.find(at, |s| matches!(s, Special::Ephemeron(_))) else {
            return Ok(());
        };
        let Some(object) = self.object(root) else {
            return Ok(());
        };
        let pair = self.roots[key].zip(self.roots[value]);
        let (key, value) = match pair {
            Some(_) => (self.object(key), self.object(value)),
            None => (None, None),
        };
        self.thread.set_pair(object, key, value)?;
        self.set_special(id, Special::Ephemeron(pair));
        Ok(())
    }

    fn insert(&mut self, key: usize, value: usize) -> Result<(), Full> {
        let (Some(key_at), Some(value_at)) = (self.object(key), self.object(value)) else {
            return Ok(());
        };
        let before = self.map.insert(self.thread.mutator(), key_at, value_at);
        before.map_err(|_| Full)?;
        if let (Some(key), Some(value)) = (self.roots[key], self.roots[value]) {
            self.registered.map.insert(key, value);
        }
        Ok(())
    }

    fn lookup(&mut self, key: usize, into: usize) -> Result<(), String> {
        let (Some(key_at), Some(id)) = (self.object(key), self.roots[key]) else {
            return Ok(());
        };
        let found = self.map.get(self.thread.mutator(), key_at);
        let expected = self.registered.map.get(&id).copied();
        self.check(found, expected)
            .map_err(|what| format!("in a weak map: {what}"))?;
        if found.is_some() {
            self.set(into, found, expected);
        }
        Ok(())
    }

    fn finalizer(&mut self, root: usize, order: FinalizerOrder) -> Result<(), Full> {
        let (Some(object), Some(id)) = (self.object(root), self.roots[root]) else {
            return Ok(());
        };
        let token = self.registered.tag | id as usize;
        self.thread.finalizer(object, order, token)?;
        self.registered.finalizers.push(id);
        Ok(())
    }

    fn finalize(&mut self, into: usize) -> Result<Result<(), Full>, String> {
        // So that the queue keeps nothing; nobody asks what was in it.
        while self.thread.next_cleared().is_some() {}
        let Some(next) = self.thread.next_finalizable() else {
            return Ok(Ok(()));
        };
        let tag = next.token >> 32 << 32;
        if tag != self.registered.tag {
            // Another thread's, which has its turn.
            let order = FinalizerOrder::Together;
            return Ok(self.thread.finalizer(next.object, order, next.token));
        }
        let id = (next.token - tag) as u64;
        let Some(index) = self.registered.finalizers.iter().position(|f| *f == id) else {
            return Err(format!("object {id} is finalized and was not registered"));
        };
        if self.reachable().contains(&id) && !self.registered.revived.contains(&id) {
            return Err(format!("object {id} is to be finalized and is reachable"));
        }
        self.check(Some(next.object), Some(id))?;
        self.revive(id);
        self.registered.finalizers.swap_remove(index);
        self.set(into, Some(next.object), Some(id));
        Ok(Ok(()))
    }
}
