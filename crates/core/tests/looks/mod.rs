//! A heap with all that can keep an object, and a model of it in ordinary collections: what lives, what keeps it, and what refers to what
//! are known without a look at the heap.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

pub mod frozen;
pub mod model;
pub mod runtime;
pub mod told;
pub mod words;

use heapwright::{
    Ephemeron, FinalizerOrder, Heap, Mutator, Options, PlanName, Reference, RootOrigin, Strength,
};
use model::Model;
use runtime::{Look, Stack, field, id, make, object, set, word};
use std::sync::Mutex;
use std::sync::mpsc::channel;

/// Where such objects have what is registered: raw words, of which a holder has three.
const FIRST: u32 = 8;
const SECOND: u32 = 16;
const THIRD: u32 = 24;

type At<'m, const MAP: bool> = (&'m mut Mutator<Look<MAP>>, &'m Mutex<Model>);

/// What a look has to agree with.
pub type Check<'c, const MAP: bool> = dyn FnMut(&mut Mutator<Look<MAP>>, &Model, &str) + 'c;

pub fn heap<const MAP: bool>(plan: PlanName) -> Heap<Look<MAP>> {
    let mut options = Options {
        plan,
        ..Options::default()
    };
    // Nothing is collected unasked, soft references are kept, and a mark takes long.
    let settings = [
        ("max", "256m"),
        ("nursery", "64m"),
        ("verify", "1"),
        ("workers", "2"),
        ("softrefs", "room"),
    ];
    for (name, value) in settings {
        options.set(name, value).unwrap();
    }
    if plan == PlanName::ConcurrentImmix {
        options.set("stress", "1000000").unwrap();
    }
    Heap::<Look<MAP>>::builder()
        .options(options)
        .build(Look::default())
        .unwrap()
}

/// A graph of objects of all sizes and allocated in all ways, of which a part is garbage at the end; the thread keeps it.
fn plant<const MAP: bool>((mutator, model): At<'_, MAP>, seed: u64, count: usize) {
    let mut dice = seed;
    let mut next = |below: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (dice >> 33) as usize % below
    };
    let table = make(mutator, model, count, 0, Mutator::alloc);
    let place = mutator.thread().words.len();
    // Roots may be the same several times.
    mutator.thread().words.extend([word(table); 3]);
    model.lock().unwrap().root(RootOrigin::Thread, id(table));
    for index in 0..count {
        let (references, raw) = match next(24) {
            0 => (300 + next(700), 0),
            1 => (next(3), 1000 + next(5000)),
            _ => (next(6), next(8)),
        };
        let made = match next(12) {
            0 => make(mutator, model, references, raw, Mutator::alloc_unmoving),
            1 => make(mutator, model, references, raw, |m, bytes| {
                m.alloc_aligned(bytes, 64, 16)
            }),
            2 => {
                let made = make(mutator, model, references, raw, Mutator::alloc_immortal);
                model.lock().unwrap().root(RootOrigin::Immortal, id(made));
                made
            }
            _ => make(mutator, model, references, raw, Mutator::alloc),
        };
        // It may have moved.
        let table = object(mutator.thread().words[place]).unwrap();
        for slot in 0..references {
            if next(3) == 0 && index > 0 {
                let target = field(table, next(index));
                set(mutator, model, made, slot, target);
            }
        }
        set(mutator, model, table, index, Some(made));
    }
    for index in 0..count {
        let table = object(mutator.thread().words[place]).unwrap();
        match index % 7 {
            0 | 2 | 5 => set(mutator, model, table, index, None),
            1 => {
                let kept = field(table, index).unwrap();
                let mut model = model.lock().unwrap();
                if MAP && index % 2 == 0 {
                    // Somewhere inside.
                    mutator.thread().wild.push(word(kept) + 12);
                    model.root(RootOrigin::Thread, id(kept));
                } else if index % 3 == 0 {
                    mutator.thread().pins.push(kept);
                    model.root(RootOrigin::Thread, id(kept));
                } else if index % 5 == 0 {
                    let part = index / 5 % 2;
                    mutator.vm().parts[part].lock().unwrap().push(word(kept));
                    model.root(RootOrigin::Runtime, id(kept));
                } else {
                    let globals = &mutator.vm().globals;
                    globals.lock().unwrap().extend([word(kept); 2]);
                    model.root(RootOrigin::Runtime, id(kept));
                }
            }
            _ => {}
        }
    }
}

/// An object with three raw words, by the number of a place in the thread's stack, which is no root in the model.
fn holder<const MAP: bool>((mutator, model): At<'_, MAP>) -> usize {
    let made = make(mutator, model, 0, 3, Mutator::alloc);
    mutator.thread().words.push(word(made));
    mutator.thread().words.len() - 1
}

/// References that are not plain: the holders, keys and values are in the stack from `bottom` on, and the caller takes off what is to
/// die.
fn reference_objects<const MAP: bool>((mutator, model): At<'_, MAP>) {
    let bottom = mutator.thread().words.len();
    // Queued to be finalized. First: it takes over what mutators registered.
    for token in 0..3 {
        let made = holder((mutator, model));
        let made = object(mutator.thread().words[made]).unwrap();
        mutator
            .add_finalizer(made, FinalizerOrder::Together, token)
            .unwrap();
        model.lock().unwrap().root(RootOrigin::Queued, id(made));
    }
    mutator.queue_all_finalizers().unwrap();
    mutator.thread().words.truncate(bottom);
    // Some live, some are dead. A soft reference keeps, a weak and a phantom one do not, nor does any whose holder is dead.
    let live: Vec<usize> = (0..12).map(|_| holder((mutator, model))).collect();
    let dead: Vec<usize> = (0..16).map(|_| holder((mutator, model))).collect();
    let at = |mutator: &mut Mutator<Look<MAP>>, place: usize| {
        object(mutator.thread().words[place]).unwrap()
    };
    let register = |mutator: &mut Mutator<Look<MAP>>, strength, holder, target| {
        let (holder, target) = (at(mutator, holder), at(mutator, target));
        let reference = match strength {
            Strength::Soft => Reference::soft(holder, FIRST, SECOND),
            Strength::Weak => Reference::weak(holder, FIRST),
            Strength::Phantom => Reference::phantom(holder, FIRST).queued(),
        };
        // SAFETY: raw words of the holder, which is registered once; both are roots now.
        unsafe {
            mutator.add_reference(&reference).unwrap();
            mutator.set_referent(&reference, Some(target)).unwrap();
        }
        let mut model = model.lock().unwrap();
        match strength {
            Strength::Soft => model.keeps([Some(id(holder)), None], id(target)),
            Strength::Weak => {}
            Strength::Phantom => model.phantoms.push((id(holder), id(target))),
        }
    };
    register(mutator, Strength::Soft, live[0], dead[0]);
    register(mutator, Strength::Soft, dead[1], dead[2]);
    register(mutator, Strength::Weak, live[1], dead[3]);
    register(mutator, Strength::Phantom, live[2], dead[4]);
    let pair = |mutator: &mut Mutator<Look<MAP>>, holder, key, value| {
        let [holder, key, value] = [holder, key, value].map(|place| at(mutator, place));
        let ephemeron = Ephemeron {
            holder,
            key: SECOND,
            value: THIRD,
        };
        // SAFETY: as above.
        unsafe {
            mutator.add_ephemeron(&ephemeron).unwrap();
            mutator
                .set_ephemeron(&ephemeron, Some(key), Some(value))
                .unwrap();
        }
        let conditions = [Some(id(holder)), Some(id(key))];
        model.lock().unwrap().keeps(conditions, id(value));
    };
    // A chain in the wrong order: the first one's key is what the second one keeps.
    pair(mutator, live[3], dead[5], dead[6]);
    pair(mutator, live[4], live[5], dead[5]);
    // The key is dead; the holder is.
    pair(mutator, live[6], dead[7], dead[8]);
    pair(mutator, dead[9], live[7], dead[10]);
    let enter = |mutator: &mut Mutator<Look<MAP>>, map: &heapwright::WeakMap<Look<MAP>>, k, v| {
        let (key, value) = (at(mutator, k), at(mutator, v));
        map.insert(mutator, key, value).unwrap();
        (id(key), id(value))
    };
    let map = mutator.weak_map().unwrap();
    for (key, value) in [(live[8], dead[11]), (dead[12], dead[13])] {
        let (key, value) = enter(mutator, &map, key, value);
        model.lock().unwrap().keeps([Some(key), None], value);
    }
    mutator.thread().maps.push(map);
    // One that nobody has any more keeps nothing.
    let gone = mutator.weak_map().unwrap();
    let _ = enter(mutator, &gone, live[9], dead[14]);
    drop(gone);
    // The runtime's own table.
    let (key, value) = (at(mutator, live[10]), at(mutator, dead[15]));
    let entry = (word(key), word(value));
    mutator.vm().table.lock().unwrap().push(entry);
    model
        .lock()
        .unwrap()
        .keeps([Some(id(key)), None], id(value));
    // A handle of the program that is soft.
    let soft = holder((mutator, model));
    let soft = at(mutator, soft);
    let handle = mutator.weak(soft, Strength::Soft).unwrap();
    mutator.thread().handles.push(handle);
    model.lock().unwrap().keeps([None, None], id(soft));
    // One whose object lives: it keeps nothing.
    let finalized = at(mutator, live[11]);
    mutator
        .add_finalizer(finalized, FinalizerOrder::Together, 9)
        .unwrap();
    for place in live {
        let live = at(mutator, place);
        model.lock().unwrap().root(RootOrigin::Thread, id(live));
    }
    // The dead are no roots any more.
    mutator.thread().words.truncate(bottom + 12);
}

/// Runs `check` in one heap at several times: before the first collection, after young and full ones, with new objects in between, and in
/// the middle of a mark that goes on.
pub fn walk_through<const MAP: bool>(plan: PlanName, check: &mut Check<'_, MAP>) {
    let heap = heap::<MAP>(plan);
    let model = Mutex::new(Model::default());
    let count = if plan == PlanName::PageProtect {
        40
    } else {
        250
    };
    std::thread::scope(|scope| {
        let mut ends = Vec::new();
        let (ready, all_ready) = channel();
        for seed in 1..3 {
            let (end, ended) = channel::<()>();
            ends.push(end);
            let (heap, model, ready) = (&heap, &model, ready.clone());
            scope.spawn(move || {
                let mut mutator = heap.attach(Stack::default()).unwrap();
                plant((&mut mutator, model), seed, count);
                // It has memory that it has not used, and waits outside.
                mutator.outside(|| {
                    ready.send(()).unwrap();
                    let _ = ended.recv();
                });
            });
            all_ready.recv().unwrap();
        }
        let mut mutator = heap.attach(Stack::default()).unwrap();
        let mutator = &mut mutator;
        plant((mutator, &model), 9, count);
        reference_objects((mutator, &model));
        let mut look = |mutator: &mut Mutator<Look<MAP>>, when: &str| {
            let what = format!("{plan}, map {MAP}, {when}");
            check(mutator, &model.lock().unwrap(), &what);
        };
        let collections = || heap.vm().collected.lock().unwrap().len();
        look(mutator, "before the first collection");
        assert_eq!(collections(), 0, "{plan}");
        if plan == PlanName::NoGc {
            return;
        }
        model.lock().unwrap().collected = true;
        let pinned = object(mutator.thread().words[0]).unwrap();
        let guard = mutator.pin(pinned);
        mutator.thread().guards.push(guard);
        mutator.collect_young().unwrap();
        // All was young.
        model.lock().unwrap().phantoms_are_cleared();
        plant((mutator, &model), 10, count / 4);
        look(mutator, "after a young collection");
        mutator.collect().unwrap();
        look(mutator, "after a full collection");
        plant((mutator, &model), 11, count / 4);
        look(mutator, "with new objects");
        if plan == PlanName::ConcurrentImmix {
            in_the_middle(|| {
                mutator.collect_in_background();
                plant((mutator, &model), 12, 10);
                let before = heap.vm().collected.lock().unwrap().last().unwrap().begins;
                look(mutator, "in the middle of a mark");
                before && heap.vm().collected.lock().unwrap().last().unwrap().begins
            });
        }
        mutator.collect().unwrap();
        look(mutator, "at the end");
        drop(ends);
    });
    let collected = heap.vm().collected.lock().unwrap();
    assert!(
        collected.iter().all(|stats| stats.violations == 0),
        "{plan}"
    );
}

/// Tries until a mark went on before and after.
fn in_the_middle(mut attempt: impl FnMut() -> bool) {
    assert!((0..50).any(|_| attempt()), "each mark was over too early");
}
