//! A shadow-heap fuzzer: random programs run on the embedded machine and, step by step, in ordinary Rust; the two must agree.
//!
//! A program is a list of [`Op`]s made from a seed, so that a failing seed can be replayed, and its program shortened
//! ([`shrink`]). Each object has a number in its first raw word; the shadow says which fields it has, what they refer to, and
//! what its last raw word is. After every so many steps everything that the roots reach is compared.

mod references;

pub use references::{ReferenceOp, references};

use crate::runtime::{Full, Root, Runtime, Thread};
use crate::vm::{Embedded, EmbeddedThread};
use crate::workload::Random;
use heapwright::{ObjectReference, PinGuard, WeakMap};
use references::{Registered, Special};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Roots of a program.
const ROOTS: usize = 24;
/// Weak boxes of a program.
const WEAKS: usize = 6;
/// Pins that a program holds at once.
const PINS: usize = 4;

/// One step. Places are numbers below `ROOTS`; fields are taken modulo the object's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Allocates an object with so many references and raw bytes into a root.
    New(usize, usize, usize),
    /// Allocates an array of references into a root.
    Array(usize, usize),
    /// Writes a root into a field of another.
    Write(usize, usize, usize),
    /// Clears a field of a root.
    Clear(usize, usize),
    /// Reads a field of a root into another.
    Read(usize, usize, usize),
    /// Copies a root, or drops it.
    Move(usize, Option<usize>),
    /// Makes a weak box to a root.
    Weak(usize, usize),
    /// Reads a weak box into a root.
    Strong(usize, usize),
    /// Pins a root's object; forgets the oldest pin.
    Pin(usize),
    /// Asks a root's object for its identity hash.
    Hash(usize),
    /// Allocates garbage of so many bytes.
    Garbage(usize),
    /// Collects everything.
    Collect,
    /// Collects what the plan thinks is due.
    Young,
    /// Begins a collection that goes on while the program runs, where the plan has such.
    Background,
    /// Compares all that is reachable.
    Compare,
    /// A step with reference objects, ephemerons, weak maps or finalizers.
    Reference(ReferenceOp),
}

/// What went wrong, in which step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step's number.
    pub step: usize,
    /// What differed.
    pub what: String,
}

/// The program of a seed.
#[must_use]
pub fn program(seed: u64, length: usize) -> Vec<Op> {
    let mut random = Random::new(seed);
    let mut below = |n: usize| random.below(n);
    let mut ops = Vec::with_capacity(length);
    while ops.len() < length {
        let root = below(ROOTS);
        ops.push(match below(100) {
            0..20 => Op::New(root, below(7), 8 + below(12) * 8),
            20..23 => Op::New(root, below(3), 8 + below(3000)),
            23 => Op::New(root, 2, 8 + below(40_000)),
            24..26 => Op::Array(root, below(40)),
            26 => Op::Array(root, below(6000)),
            27..52 => Op::Write(root, below(64), below(ROOTS)),
            52..56 => Op::Clear(root, below(64)),
            56..76 => Op::Read(root, below(64), below(ROOTS)),
            76..80 => Op::Move(root, Some(below(ROOTS))),
            80..83 => Op::Move(root, None),
            83..85 => Op::Weak(below(WEAKS), root),
            85..87 => Op::Strong(below(WEAKS), root),
            87..89 => Op::Pin(root),
            89..91 => Op::Hash(root),
            91..95 => Op::Garbage(16 + below(600)),
            95 => Op::Collect,
            96 => Op::Young,
            97 => Op::Background,
            _ => Op::Compare,
        });
    }
    ops
}

/// Moves objects out of what a concurrent mark has yet to see: begins a collection in the background, and then takes each of
/// many objects out of the array that alone refers to it, into an array that is allocated meanwhile. Without a snapshot of what
/// is overwritten they would be lost. To be run with the option `stress`, which slows the marker down.
///
/// # Errors
/// What was lost; [`Full`] is not a failure.
pub fn hide<const HEADER: bool, const AMBIGUOUS: bool>(
    runtime: &Embedded<HEADER, AMBIGUOUS>,
    objects: usize,
) -> Result<(), String> {
    fn steps<const HEADER: bool, const AMBIGUOUS: bool>(
        thread: &mut EmbeddedThread<HEADER, AMBIGUOUS>,
        objects: usize,
    ) -> Result<Result<(), String>, Full> {
        let array = thread.array(objects)?;
        let from = thread.push(Some(array));
        let to = thread.push(None);
        for index in 0..objects {
            let object = thread.object(0, 8)?;
            thread.set_raw(object, 0, index as u64);
            if let Some(array) = thread.root(from) {
                thread.set(array, index, Some(object));
            }
        }
        thread.collect_in_background();
        let array = thread.array(objects)?;
        thread.set_root(to, Some(array));
        for index in 0..objects {
            let (Some(old), Some(new)) = (thread.root(from), thread.root(to)) else {
                return Ok(Err(String::from("a root was lost")));
            };
            let object = thread.get(old, index);
            thread.set(new, index, object);
            thread.set(old, index, None);
            thread.poll();
        }
        thread.collect();
        for _ in 0..objects {
            let _ = thread.object(0, 8)?;
        }
        for index in 0..objects {
            let object = thread.root(to).and_then(|array| thread.get(array, index));
            if object.map(|o| thread.raw(o, 0)) != Some(index as u64) {
                return Ok(Err(format!("object {index} was lost")));
            }
        }
        thread.truncate(0);
        Ok(Ok(()))
    }
    let Ok(mut thread) = runtime.attach() else {
        return Ok(());
    };
    steps(&mut thread, objects).unwrap_or(Ok(()))
}

/// Leaves holes of two lines, which objects of three lines find too small, has a minor collection come in between, and fills the
/// holes with small objects: each must keep its own memory.
///
/// # Errors
/// What was found wrong.
pub fn small_holes<const HEADER: bool, const AMBIGUOUS: bool>(
    runtime: &Embedded<HEADER, AMBIGUOUS>,
    objects: usize,
) -> Result<(), String> {
    /// Bytes of a line's worth of object, without its header.
    const LINE_OBJECT: usize = 248;
    fn steps<const HEADER: bool, const AMBIGUOUS: bool>(
        thread: &mut EmbeddedThread<HEADER, AMBIGUOUS>,
        objects: usize,
    ) -> Result<Result<(), String>, Full> {
        let holes = push_array(thread, objects)?;
        let small = push_array(thread, objects * 8)?;
        fill(thread, holes, 0..objects, LINE_OBJECT)?;
        if let Some(array) = thread.root(holes) {
            for index in (0..objects).filter(|index| index % 3 != 0) {
                thread.set(array, index, None);
            }
        }
        thread.collect();
        for _ in 0..4 {
            let _ = thread.object(0, 3 * LINE_OBJECT)?;
        }
        thread.collect_young();
        fill(thread, small, 0..objects * 8, 24)?;
        let right = numbered(thread, small, 0..objects * 8)
            .and_then(|()| numbered(thread, holes, (0..objects).step_by(3)));
        thread.truncate(0);
        Ok(right)
    }
    let Ok(mut thread) = runtime.attach() else {
        return Ok(());
    };
    steps(&mut thread, objects).unwrap_or(Ok(()))
}

/// Blocks of cells that a thread left unfinished, which is when they are listed for others, and in which nothing outlives a minor
/// collection. Then objects of their sizes and of others, to be where the blocks are: `objects` of each size.
///
/// # Errors
/// An object that is not what it was.
pub fn unfinished_blocks<const HEADER: bool, const AMBIGUOUS: bool>(
    runtime: &Embedded<HEADER, AMBIGUOUS>,
    objects: usize,
) -> Result<(), String> {
    /// Raw bytes of objects in different size classes, and of large ones.
    const SIZES: [usize; 7] = [24, 56, 120, 248, 504, 1016, 8184];
    fn steps<const HEADER: bool, const AMBIGUOUS: bool>(
        thread: &mut EmbeddedThread<HEADER, AMBIGUOUS>,
        objects: usize,
    ) -> Result<Result<(), String>, Full> {
        let all = objects * SIZES.len();
        // Large, to be in no block of cells.
        let held = push_array(thread, all.max(1024))?;
        thread.collect();
        for raw in SIZES {
            let _ = thread.object(0, raw)?;
        }
        thread.collect_young();
        // The largest first: they take the blocks that are free, and the small ones those that are listed.
        for (turn, raw) in SIZES.into_iter().rev().enumerate() {
            fill(thread, held, turn * objects..(turn + 1) * objects, raw)?;
        }
        let mut right = numbered(thread, held, 0..all);
        thread.collect_young();
        right = right.and_then(|()| numbered(thread, held, 0..all));
        thread.collect();
        right = right.and_then(|()| numbered(thread, held, 0..all));
        thread.truncate(0);
        Ok(right)
    }
    let Ok(mut thread) = runtime.attach() else {
        return Ok(());
    };
    steps(&mut thread, objects).unwrap_or(Ok(()))
}

/// A root that holds a new array.
fn push_array<const HEADER: bool, const AMBIGUOUS: bool>(
    thread: &mut EmbeddedThread<HEADER, AMBIGUOUS>,
    length: usize,
) -> Result<Root, Full> {
    let array = thread.array(length)?;
    Ok(thread.push(Some(array)))
}

/// New objects of `raw` bytes at those places of the array in a root, each with its place as its contents.
fn fill<const HEADER: bool, const AMBIGUOUS: bool>(
    thread: &mut EmbeddedThread<HEADER, AMBIGUOUS>,
    root: Root,
    places: Range<usize>,
    raw: usize,
) -> Result<(), Full> {
    for index in places {
        let object = thread.object(0, raw)?;
        thread.set_raw(object, 0, index as u64);
        if let Some(array) = thread.root(root) {
            thread.set(array, index, Some(object));
        }
    }
    Ok(())
}

/// Has each of those objects still its place as its contents?
fn numbered<const HEADER: bool, const AMBIGUOUS: bool>(
    thread: &EmbeddedThread<HEADER, AMBIGUOUS>,
    root: Root,
    mut places: impl Iterator<Item = usize>,
) -> Result<(), String> {
    let wrong = places.find(|&index| {
        let object = thread.root(root).and_then(|array| thread.get(array, index));
        object.map(|o| thread.raw(o, 0)) != Some(index as u64)
    });
    wrong.map_or(Ok(()), |index| {
        Err(format!("object {index} was overwritten"))
    })
}

/// What the shadow knows of an object.
#[derive(Clone, Debug)]
struct Shadow {
    fields: Vec<Option<u64>>,
    /// Raw bytes; 0 for an array, which has no number of its own and is known by its first element.
    raw: usize,
    last: u64,
    /// Its identity hash, if it was asked for that.
    hash: Option<usize>,
    special: Special,
}

struct Machine<'t, const HEADER: bool, const AMBIGUOUS: bool> {
    thread: &'t mut EmbeddedThread<HEADER, AMBIGUOUS>,
    shadows: HashMap<u64, Shadow>,
    roots: [Option<u64>; ROOTS],
    weaks: [Option<u64>; WEAKS],
    pins: Vec<PinGuard<crate::vm::Machine<HEADER, AMBIGUOUS>>>,
    next: u64,
    base: usize,
    registered: Registered,
    map: WeakMap<crate::vm::Machine<HEADER, AMBIGUOUS>>,
}

/// Runs a program on a new thread of the machine: how many objects were compared.
///
/// # Errors
/// What differed, and where; [`Full`] is not a failure and ends the program.
pub fn run<const HEADER: bool, const AMBIGUOUS: bool>(
    runtime: &Embedded<HEADER, AMBIGUOUS>,
    ops: &[Op],
) -> Result<usize, Failure> {
    let Ok(mut thread) = runtime.attach() else {
        return Ok(0);
    };
    let base = thread.height();
    for _ in 0..ROOTS + WEAKS {
        thread.push(None);
    }
    let Ok(map) = thread.weak_map() else {
        return Ok(0);
    };
    let mut machine = Machine {
        thread: &mut thread,
        registered: Registered::new(),
        map,
        shadows: HashMap::new(),
        roots: [None; ROOTS],
        weaks: [None; WEAKS],
        pins: Vec::new(),
        next: 1,
        base,
    };
    let mut compared = 0;
    for (step, op) in ops.iter().chain([&Op::Collect, &Op::Compare]).enumerate() {
        match machine.step(*op) {
            Ok(Ok(count)) => compared += count,
            Ok(Err(Full)) => break,
            Err(what) => return Err(Failure { step, what }),
        }
    }
    Ok(compared)
}

/// Leaves out what the failure does not need. `fails` runs a program.
#[must_use]
pub fn shrink(ops: &[Op], fails: impl Fn(&[Op]) -> bool) -> Vec<Op> {
    let mut ops = ops.to_vec();
    let mut piece = ops.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut shorter = ops.clone();
            shorter.drain(at..(at + piece).min(ops.len()));
            if fails(&shorter) {
                ops = shorter;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    ops
}

impl<const HEADER: bool, const AMBIGUOUS: bool> Machine<'_, HEADER, AMBIGUOUS> {
    fn place(&self, root: usize) -> Root {
        Root(self.base + root)
    }

    fn object(&self, root: usize) -> Option<ObjectReference> {
        self.thread.root(self.place(root))
    }

    fn set(&mut self, root: usize, object: Option<ObjectReference>, id: Option<u64>) {
        let place = self.place(root);
        self.thread.set_root(place, object);
        self.roots[root] = id;
    }

    /// One step on both sides. The outer error is a difference.
    fn step(&mut self, op: Op) -> Result<Result<usize, Full>, String> {
        let done = match op {
            Op::New(root, references, raw) => self.new_object(root, references, raw),
            Op::Array(root, length) => self.new_array(root, length),
            Op::Garbage(bytes) => self.thread.bytes(bytes).map(|_| ()),
            Op::Write(root, field, from) => {
                self.write(root, field, Some(from));
                Ok(())
            }
            Op::Clear(root, field) => {
                self.write(root, field, None);
                Ok(())
            }
            Op::Read(root, field, to) => {
                self.read(root, field, to)?;
                Ok(())
            }
            Op::Move(root, to) => {
                if let Some(to) = to {
                    self.set(to, self.object(root), self.roots[root]);
                } else {
                    self.set(root, None, None);
                }
                Ok(())
            }
            Op::Weak(weak, root) => self.new_weak(weak, root),
            Op::Strong(weak, root) => {
                self.read_weak(weak, root)?;
                Ok(())
            }
            Op::Pin(root) => {
                self.pin(root)?;
                Ok(())
            }
            Op::Hash(root) => {
                if let (Some(object), Some(id)) = (self.object(root), self.roots[root]) {
                    self.hash(object, id, true)?;
                }
                Ok(())
            }
            Op::Collect => {
                self.thread.collect();
                Ok(())
            }
            Op::Young => {
                self.thread.collect_young();
                Ok(())
            }
            Op::Background => {
                self.thread.collect_in_background();
                Ok(())
            }
            Op::Reference(op) => return self.reference_step(op).map(|done| done.map(|()| 0)),
            Op::Compare => return self.compare().map(Ok),
        };
        Ok(done.map(|()| 0))
    }

    fn new_object(&mut self, root: usize, references: usize, raw: usize) -> Result<(), Full> {
        let object = self.thread.object(references, raw)?;
        let id = self.next;
        self.next += 1;
        self.thread.set_raw(object, 0, id);
        let last = (raw - 8) / 8 * 8;
        let word = if last == 0 {
            id
        } else {
            id.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        };
        self.thread.set_raw(object, last, word);
        self.shadows.insert(
            id,
            Shadow {
                fields: vec![None; references],
                raw,
                last: word,
                hash: None,
                special: Special::Plain,
            },
        );
        self.set(root, Some(object), Some(id));
        Ok(())
    }

    /// An array; its number is that of an object in its first element.
    fn new_array(&mut self, root: usize, length: usize) -> Result<(), Full> {
        let spare = (root + 1) % ROOTS;
        self.new_object(spare, 0, 8)?;
        let name = self.roots[spare];
        let array = self.thread.array(length + 1)?;
        let first = self.object(spare);
        self.thread.set(array, 0, first);
        let id = self.next;
        self.next += 1;
        let mut fields = vec![None; length + 1];
        fields[0] = name;
        self.shadows.insert(
            id,
            Shadow {
                fields,
                raw: 0,
                last: 0,
                hash: None,
                special: Special::Plain,
            },
        );
        self.set(root, Some(array), Some(id));
        Ok(())
    }

    /// The field that a number means: the first of an array is not written.
    fn field(&self, id: u64, field: usize) -> Option<usize> {
        let shadow = self.shadows.get(&id)?;
        let first = usize::from(shadow.raw == 0);
        let count = shadow.fields.len() - first;
        (count != 0).then(|| first + field * 97 % count)
    }

    fn write(&mut self, root: usize, field: usize, from: Option<usize>) {
        let (Some(object), Some(id)) = (self.object(root), self.roots[root]) else {
            return;
        };
        let Some(field) = self.field(id, field) else {
            return;
        };
        let (value, name) = from.map_or((None, None), |f| (self.object(f), self.roots[f]));
        self.thread.set(object, field, value);
        if let Some(shadow) = self.shadows.get_mut(&id) {
            shadow.fields[field] = name;
        }
    }

    fn read(&mut self, root: usize, field: usize, to: usize) -> Result<(), String> {
        let (Some(object), Some(id)) = (self.object(root), self.roots[root]) else {
            return Ok(());
        };
        let Some(field) = self.field(id, field) else {
            return Ok(());
        };
        let value = self.thread.get(object, field);
        let name = self.shadows.get(&id).and_then(|s| s.fields[field]);
        self.check(value, name)?;
        self.set(to, value, name);
        Ok(())
    }

    fn new_weak(&mut self, weak: usize, root: usize) -> Result<(), Full> {
        let place = self.place(root);
        let held = self.thread.weak(place)?;
        let weak_place = self.place(ROOTS + weak);
        self.thread.set_root(weak_place, Some(held));
        self.weaks[weak] = self.roots[root];
        Ok(())
    }

    fn read_weak(&mut self, weak: usize, root: usize) -> Result<(), String> {
        let Some(held) = self.object(ROOTS + weak) else {
            return Ok(());
        };
        match self.thread.weak_get(held) {
            Some(object) => {
                self.check(Some(object), self.weaks[weak])?;
                // The machine looks at its boxes when it is known what finalizers reach.
                if let Some(id) = self.weaks[weak] {
                    self.revive(id);
                }
                self.set(root, Some(object), self.weaks[weak]);
            }
            None => {
                if let Some(id) = self.weaks[weak]
                    && self.reachable().contains(&id)
                {
                    return Err(format!("a weak box lost object {id}, which is reachable"));
                }
                self.weaks[weak] = None;
                self.set(root, None, None);
            }
        }
        Ok(())
    }

    fn pin(&mut self, root: usize) -> Result<(), String> {
        if self.pins.len() == PINS {
            self.pins.remove(0);
        }
        let Some(object) = self.object(root) else {
            return Ok(());
        };
        let guard = self.thread.pin(object);
        self.thread.collect_young();
        let now = self.object(root);
        if now != Some(object) {
            return Err(format!("a pinned object moved from {object:?} to {now:?}"));
        }
        self.pins.push(guard);
        Ok(())
    }

    /// The hash of an object that was asked before is what it was; `ask`: ask it now if it was not.
    fn hash(&mut self, object: ObjectReference, id: u64, ask: bool) -> Result<(), String> {
        let Some(shadow) = self.shadows.get_mut(&id) else {
            return Ok(());
        };
        if shadow.hash.is_none() && !ask {
            return Ok(());
        }
        let now = self.thread.mutator().identity_hash(object);
        let before = *shadow.hash.get_or_insert(now);
        if now != before {
            return Err(format!(
                "object {id} had the hash {before:#x} and has {now:#x}"
            ));
        }
        Ok(())
    }

    fn reachable(&self) -> HashSet<u64> {
        self.closure(self.roots.iter().flatten().copied())
    }

    /// One object against its shadow.
    fn check(&self, object: Option<ObjectReference>, id: Option<u64>) -> Result<(), String> {
        let (object, id) = match (object, id) {
            (None, None) => return Ok(()),
            (Some(object), Some(id)) => (object, id),
            (object, id) => return Err(format!("{object:?} is there, and {id:?} should be")),
        };
        let Some(shadow) = self.shadows.get(&id) else {
            return Err(format!("object {id} has no shadow"));
        };
        let (references, raw) = (
            self.thread.references(object),
            self.thread.raw_bytes(object),
        );
        if references != shadow.fields.len() || raw != shadow.raw {
            return Err(format!(
                "object {id} has {references} references and {raw} raw bytes instead of {} and {}",
                shadow.fields.len(),
                shadow.raw
            ));
        }
        let special = shadow.special != Special::Plain;
        if self.thread.is_special(object) != special {
            return Err(format!("object {id} is another kind of object"));
        }
        if special {
            let first = self.thread.raw(object, 0);
            if first != id {
                return Err(format!("reference object {id} has the number {first}"));
            }
        } else if raw != 0 {
            let (first, last) = (
                self.thread.raw(object, 0),
                self.thread.raw(object, (raw - 8) / 8 * 8),
            );
            if first != id && raw >= 16 || last != shadow.last {
                return Err(format!(
                    "object {id} has the number {first} and ends in {last:#x}"
                ));
            }
        }
        Ok(())
    }

    /// All that is reachable against the shadow, and that what is one object there is one here.
    fn compare(&mut self) -> Result<usize, String> {
        let mut seen: HashMap<u64, ObjectReference> = HashMap::new();
        let mut todo: Vec<(Option<ObjectReference>, Option<u64>)> = (0..ROOTS)
            .map(|root| (self.object(root), self.roots[root]))
            .collect();
        while let Some((object, id)) = todo.pop() {
            self.check(object, id)?;
            let (Some(object), Some(id)) = (object, id) else {
                continue;
            };
            self.hash(object, id, false)?;
            if let Some(before) = seen.insert(id, object) {
                if !self.thread.same(before, object) {
                    return Err(format!("object {id} is at {before:?} and at {object:?}"));
                }
                continue;
            }
            let Some(shadow) = self.shadows.get(&id) else {
                continue;
            };
            for (field, name) in shadow.fields.iter().enumerate() {
                todo.push((self.thread.get(object, field), *name));
            }
        }
        // The shadow of what is unreachable is forgotten, but for what weak references and others may still give back.
        let keep = self.remembered(seen.keys().copied());
        self.shadows.retain(|id, _| keep.contains(id));
        Ok(seen.len())
    }
}
