//! A runtime whose objects say who they are, with every kind of root that a runtime can have.

use super::model::Model;
use heapwright::{
    Address, AllocError, CollectionStats, Mutator, ObjectReference, PinGuard, RootVisitor,
    SlotVisitor, TypeId, Vm, Weak, WeakMap, WeakVisitor, WildWord, WordSlots,
};
use std::sync::{Mutex, RwLock};

/// Objects begin with a word that has the number of their references in the lowest 16 bits, then that of their raw words, and in the upper
/// half a number of their own; then come the references and the raw words. `MAP`: the heap has an object map.
#[derive(Default)]
pub struct Look<const MAP: bool> {
    pub globals: Mutex<Vec<usize>>,
    pub parts: [Mutex<Vec<usize>>; 2],
    /// Weak keys and their values.
    pub table: Mutex<Vec<(usize, usize)>>,
    /// Of all collections.
    pub collected: Mutex<Vec<CollectionStats>>,
    /// What is done when one has ended.
    pub hook: RwLock<Option<Box<Hook>>>,
}

pub type Hook = dyn Fn(&CollectionStats) + Send + Sync;

/// What a thread has.
#[derive(Default)]
pub struct Stack<const MAP: bool> {
    pub words: Vec<usize>,
    pub pins: Vec<ObjectReference>,
    pub wild: Vec<usize>,
    pub maps: Vec<WeakMap<Look<MAP>>>,
    pub handles: Vec<Weak<Look<MAP>>>,
    pub guards: Vec<PinGuard<Look<MAP>>>,
}

pub fn object(word: usize) -> Option<ObjectReference> {
    ObjectReference::from_address(Address::new(word))
}

pub fn word(object: ObjectReference) -> usize {
    object.to_address().as_usize()
}

/// References, raw words, and the number.
pub fn header(object: ObjectReference) -> (usize, usize, u32) {
    // SAFETY: an object begins with its header.
    let header = unsafe { object.to_address().load::<u64>() };
    (
        header as usize & 0xffff,
        header as usize >> 16 & 0xffff,
        (header >> 32) as u32,
    )
}

pub fn id(object: ObjectReference) -> u32 {
    header(object).2
}

pub fn bytes(references: usize, raw: usize) -> usize {
    (8 + 8 * (references + raw)).max(16)
}

fn slot(object: ObjectReference, index: usize) -> Address {
    object.to_address().add(8 + 8 * index)
}

/// What a reference of an object that lives refers to.
pub fn field(of: ObjectReference, index: usize) -> Option<ObjectReference> {
    assert!(index < header(of).0);
    // SAFETY: one of its references.
    object(unsafe { slot(of, index).load() })
}

/// A new object, here and in the model.
pub fn make<const MAP: bool>(
    mutator: &mut Mutator<Look<MAP>>,
    model: &Mutex<Model>,
    references: usize,
    raw: usize,
    alloc: impl FnOnce(&mut Mutator<Look<MAP>>, usize) -> Result<ObjectReference, AllocError>,
) -> ObjectReference {
    let made = alloc(mutator, bytes(references, raw)).unwrap();
    let id = model.lock().unwrap().add(references, raw);
    let header = references as u64 | (raw as u64) << 16 | u64::from(id) << 32;
    // SAFETY: a new object.
    unsafe { made.to_address().store(header) };
    made
}

/// Has a reference of an object refer to another one, here and in the model.
pub fn set<const MAP: bool>(
    mutator: &mut Mutator<Look<MAP>>,
    model: &Mutex<Model>,
    of: ObjectReference,
    index: usize,
    target: Option<ObjectReference>,
) {
    mutator.before_write(of, Some(slot(of, index)));
    // SAFETY: one of its references.
    unsafe { slot(of, index).store(target.map_or(0, word)) };
    model.lock().unwrap().set(id(of), index, target.map(id));
}

// SAFETY: 1, 2: the header says it. 3: a stack's words, and what is in the lists of the runtime. 4: no header bits. 5: `set` uses the
// barrier. 6: nothing allocates on the heap.
unsafe impl<const MAP: bool> Vm for Look<MAP> {
    type Thread = Stack<MAP>;
    type Slots = WordSlots;
    const OBJECT_MAP: bool = MAP;
    const PINS: bool = true;
    const WEAK_TABLES: bool = true;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, object: ObjectReference) -> usize {
        let (references, raw, _) = header(object);
        bytes(references, raw)
    }

    fn scan<V: SlotVisitor>(&self, object: ObjectReference, visit: &mut V) {
        let count = header(object).0;
        if count > 4 {
            visit.slots(slot(object, 0), count);
        } else {
            (0..count).for_each(|index| visit.slot(slot(object, index)));
        }
    }

    fn thread_roots<R: RootVisitor>(&self, stack: &mut Stack<MAP>, visit: &mut R) {
        visit.slots(Address::from_ptr(stack.words.as_ptr()), stack.words.len());
        stack.pins.iter().for_each(|pin| visit.pinned(*pin));
        for word in &stack.wild {
            visit.ambiguous(WildWord::new(*word));
        }
    }

    fn roots<R: RootVisitor>(&self, visit: &mut R) {
        for word in self.globals.lock().unwrap().iter_mut() {
            visit.slot(Address::from_ptr(&raw mut *word));
        }
    }

    fn root_parts(&self) -> usize {
        self.parts.len()
    }

    fn roots_of<R: RootVisitor>(&self, part: usize, visit: &mut R) {
        let part = self.parts[part].lock().unwrap();
        visit.slots(Address::from_ptr(part.as_ptr()), part.len());
    }

    fn weak_tables<W: WeakVisitor>(&self, visit: &mut W) {
        for (key, value) in self.table.lock().unwrap().iter() {
            if visit.get(object(*key).unwrap()).is_some() {
                visit.keep(object(*value).unwrap());
            }
        }
    }

    fn weak<W: WeakVisitor>(&self, visit: &mut W) {
        self.table.lock().unwrap().retain_mut(|(key, value)| {
            let Some(now) = visit.get(object(*key).unwrap()) else {
                return false;
            };
            *key = word(now);
            *value = word(visit.get(object(*value).unwrap()).unwrap());
            true
        });
    }

    fn type_of(&self, object: ObjectReference) -> TypeId {
        TypeId(id(object) % 3)
    }

    fn type_name(&self, id: TypeId) -> String {
        ["first", "second", "third"][id.0 as usize].to_owned()
    }

    fn collected(&self, stats: &CollectionStats) {
        self.collected.lock().unwrap().push(*stats);
        let hook = self.hook.read().unwrap();
        if let Some(hook) = &*hook {
            hook(stats);
        }
    }
}
