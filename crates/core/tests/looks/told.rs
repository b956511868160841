//! What listeners are told of the heap's blocks and of its workers.

use super::model::Model;
use super::runtime::{Look, Stack, bytes, header, id, make, object, word};
use heapwright::{
    BlockSpace, Event, Heap, HeapMap, Listener, MAP_BLOCK, MapBlock, Mutator, Options, PlanName,
    WorkerStats,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(60);
const PAGE: usize = 4096;
const LINE: usize = 256;

/// Writes down all that it is told.
#[derive(Default)]
pub struct Told {
    /// Blocks before and after each collection, by its number.
    maps: Mutex<BTreeMap<(u64, bool), Vec<MapBlock>>>,
    worked: Mutex<Vec<WorkerStats>>,
    /// When collections began and ended, in nanoseconds, by their numbers.
    pauses: Mutex<BTreeMap<u64, (u64, u64)>>,
}

fn blocks(map: &dyn HeapMap) -> Vec<MapBlock> {
    (0..map.blocks()).map(|index| map.block(index)).collect()
}

impl Listener for Told {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Map { number, after, map } => {
                let before = self
                    .maps
                    .lock()
                    .unwrap()
                    .insert((number, after), blocks(map));
                assert_eq!(before, None, "collection {number} twice");
            }
            Event::Worked(stats) => self.worked.lock().unwrap().push(*stats),
            Event::Collected(stats) => {
                let pause = (stats.start_ns, stats.start_ns + stats.pause_ns);
                self.pauses.lock().unwrap().insert(stats.number, pause);
            }
            _ => {}
        }
    }

    fn wants_details(&self) -> bool {
        true
    }

    fn wants_map(&self) -> bool {
        true
    }
}

impl Told {
    fn heap(plan: PlanName) -> (Arc<Self>, Heap<Look<true>>) {
        let told = Arc::new(Self::default());
        let mut options = Options {
            plan,
            ..Options::default()
        };
        for (name, value) in [("max", "256m"), ("nursery", "64m"), ("workers", "2")] {
            options.set(name, value).unwrap();
        }
        let heap = Heap::<Look<true>>::builder()
            .options(options)
            .listener(Box::new(Arc::clone(&told)))
            .build(Look::default())
            .unwrap();
        (told, heap)
    }

    /// No worker is told twice of a part of a collection; it came and went within the pause, was not busy for longer than it was there, and
    /// who came once was busy all the time. The first one has swept each heap once.
    fn check_workers(&self, what: &str) {
        let pauses = self.pauses.lock().unwrap();
        let mut seen = BTreeSet::new();
        for stats in self.worked.lock().unwrap().iter() {
            let what = format!("{what}: {stats:?}");
            let key = (stats.collection, stats.part.index(), stats.worker);
            assert!(seen.insert(key), "{what} twice");
            let (start, end) = pauses[&stats.collection];
            assert!(start <= stats.start_ns && stats.end_ns <= end, "{what}");
            let there = stats.end_ns - stats.start_ns;
            assert!(stats.busy_ns <= there, "{what}");
            assert!(stats.turns > 1 || stats.busy_ns == there, "{what}");
            let sweeps = stats.worker == 0 && stats.part == heapwright::Part::Sweep;
            assert!(!sweeps || stats.turns == 1, "{what}");
        }
        for number in pauses.keys() {
            let first = |part: &heapwright::Part| seen.contains(&(*number, part.index(), 0));
            assert!(
                first(&heapwright::Part::Closure),
                "{what}: {number} is missing"
            );
        }
    }
}

/// Objects of all sizes, small ones in `words`, and garbage between them. The first objects do not move.
fn fill(mutator: &mut Mutator<Look<true>>, model: &Mutex<Model>, count: usize) {
    for index in 0..count {
        let raw = match index % 97 {
            0 => 5000 + index,
            1..5 => 100 + index % 300,
            _ => index % 9,
        };
        let made = match index % 13 {
            0 => make(mutator, model, 0, raw, Mutator::alloc_unmoving),
            _ => make(mutator, model, 0, raw, Mutator::alloc),
        };
        // Half of each stretch of some KiB lives.
        if index / 200 % 2 == 0 && index % 3 != 0 || index % 97 == 0 && index % 2 == 0 {
            mutator.thread().words.push(word(made));
        }
    }
}

/// What a block should look like that has something in it.
#[derive(Default)]
struct Expected {
    space: Option<BlockSpace>,
    used: BTreeSet<usize>,
    pinned: bool,
}

/// The small objects of a plan are in blocks of this space after a full collection.
fn space_of(plan: PlanName) -> BlockSpace {
    match plan {
        PlanName::MarkSweep | PlanName::StickyMarkSweep => BlockSpace::Cells,
        PlanName::SemiSpace | PlanName::GenCopy => BlockSpace::Copy,
        PlanName::MarkCompact => BlockSpace::Compact,
        PlanName::PageProtect => BlockSpace::Large,
        _ => BlockSpace::Immix,
    }
}

/// Blocks after a full collection by the objects that are in them.
fn walk(mutator: &mut Mutator<Look<true>>, plan: PlanName, pinned: u32) -> Vec<Expected> {
    let (start, extent) = mutator.freeze(|frozen| frozen.range());
    let mut blocks: Vec<Expected> = (0..extent / MAP_BLOCK)
        .map(|_| Expected::default())
        .collect();
    let mut objects = Vec::new();
    mutator.for_each_object(&mut |object| objects.push(object));
    for object in objects {
        let (references, raw, id) = header(object);
        let bytes = bytes(references, raw);
        let first = object.to_address().diff(start);
        let large = bytes > 32 << 10 || plan == PlanName::PageProtect && id % 13 != 1;
        let unmoving = id % 13 == 1;
        let (space, unit) = match (large, unmoving) {
            (true, _) => (BlockSpace::Large, PAGE),
            (_, true) => (BlockSpace::Cells, 16),
            _ => (space_of(plan), LINE),
        };
        for at in (first / unit..=(first + bytes - 1) / unit).map(|n| n * unit) {
            let block = &mut blocks[at / MAP_BLOCK];
            assert!(block.space.is_none_or(|before| before == space), "{plan}");
            block.space = Some(space);
            block.used.insert(match space {
                BlockSpace::Cells => first,
                _ => at,
            });
            block.pinned |= id == pinned;
        }
    }
    blocks
}

/// After a collection each block is said to be of the space that its objects are in, with as much memory in use as they take, and those
/// without objects of none.
pub fn maps_agree_with_a_walk() {
    for plan in PlanName::ALL {
        if plan == PlanName::NoGc {
            continue;
        }
        let (told, heap) = Told::heap(plan);
        let model = Mutex::new(Model::default());
        let mut mutator = heap.attach(Stack::default()).unwrap();
        fill(&mut mutator, &model, 13 * 300);
        let kept = object(mutator.thread().words[17]).unwrap();
        let _pin = mutator.pin(kept);
        for round in 1..4 {
            let before = mutator.freeze(|_| heap.map(blocks));
            let number = mutator.collect().unwrap().number;
            let after = heap.map(blocks);
            let maps = std::mem::take(&mut *told.maps.lock().unwrap());
            let what = format!("{plan}, round {round}");
            let spaces = |blocks: &[MapBlock]| blocks.iter().map(|b| b.space).collect::<Vec<_>>();
            assert_eq!(spaces(&maps[&(number, false)]), spaces(&before), "{what}");
            assert_eq!(maps[&(number, true)], after, "{what}");
            let expected = walk(&mut mutator, plan, id(kept));
            assert_eq!(after.len(), expected.len(), "{what}");
            for (index, (block, expected)) in after.iter().zip(&expected).enumerate() {
                let what = format!("{what}, block {index}: {block:?}");
                let Some(space) = expected.space else {
                    // Pages of the dead are nobody's for a while, where that is to be noticed.
                    let quarantined = plan == PlanName::PageProtect && block.holes == 1;
                    assert!(!block.space.is_used() || quarantined, "{what}");
                    assert_eq!((block.used_bytes, block.held), (0, false), "{what}");
                    continue;
                };
                assert_eq!(block.space, space, "{what}");
                let used = expected.used.len();
                let wanted = match space {
                    BlockSpace::Cells => used * block.cell_bytes,
                    BlockSpace::Large => used * PAGE,
                    BlockSpace::Immix => used * LINE,
                    _ => MAP_BLOCK,
                };
                assert_eq!(block.used_bytes, wanted, "{what}");
                let moves = matches!(space, BlockSpace::Copy);
                assert!(!moves || block.held == expected.pinned, "{what}");
            }
            assert!(expected.iter().any(|e| e.space == Some(space_of(plan))));
            // Half of what there is dies.
            let mut keep = 0;
            mutator.thread().words.retain(|w| {
                keep += 1;
                keep % 2 == 0 || *w == word(kept)
            });
            fill(&mut mutator, &model, 13 * 100);
        }
        told.check_workers(&format!("{plan}"));
    }
}

/// A collection while nobody is inside is told by its thread when others may collect already: what its workers did is still its own.
pub fn workers_are_told_with_their_collection() {
    let (told, heap) = Told::heap(PlanName::Immix);
    let (came, entered) = channel();
    let came = Mutex::new(came);
    let (done, other) = channel::<()>();
    let other = Mutex::new(other);
    *heap.vm().hook.write().unwrap() = Some(Box::new(move |stats| {
        if stats.number == 1 {
            came.lock().unwrap().send(()).unwrap();
            // If the other one fails, there is nothing to wait for.
            let _ = other.lock().unwrap().recv_timeout(PATIENCE);
        }
    }));
    {
        let mut mutator = heap.attach(Stack::default()).unwrap();
        fill(&mut mutator, &Mutex::new(Model::default()), 2000);
    }
    std::thread::scope(|scope| {
        let tends = scope.spawn(|| heap.release_memory());
        entered.recv_timeout(PATIENCE).unwrap();
        let mut mutator = heap.attach(Stack::default()).unwrap();
        assert_eq!(mutator.collect().unwrap().number, 2);
        drop(mutator);
        done.send(()).unwrap();
        tends.join().unwrap();
    });
    told.check_workers("outside");
    assert_eq!(told.pauses.lock().unwrap().len(), 2);
}
