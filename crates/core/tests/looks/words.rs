//! A look at a heap of words, against a model. Cells do not move: they are known by where they are.

use crate::toy::{self, KEPT, KINDS, LEAF, NODE, Toy, WORDS, alloc, set};
use heapwright::alloc::Small;
use heapwright::{Address, Cell, Kind, WordHeap, WordRoot, WordView};
use std::collections::{BTreeMap, BTreeSet};

/// What there is: the kind of each cell, its bytes, and what it refers to.
#[derive(Default)]
pub struct Cells {
    pub all: BTreeMap<usize, (Kind, usize, Vec<usize>)>,
    /// What is kept by a word of the runtime, and what by its kind.
    pub roots: [BTreeSet<usize>; 2],
}

impl Cells {
    pub fn living(&self) -> BTreeSet<usize> {
        let mut living = BTreeSet::new();
        let mut stack: Vec<usize> = self.roots.iter().flatten().copied().collect();
        while let Some(cell) = stack.pop() {
            if living.insert(cell) {
                stack.extend(&self.all[&cell].2);
            }
        }
        living
    }
}

fn fill(heap: &WordHeap<Toy>, cells: &mut Cells) {
    let mut dice = 5u64;
    let mut next = |below: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (dice >> 33) as usize % below
    };
    let mut all: Vec<usize> = Vec::new();
    for index in 0..1500 {
        let kind = [LEAF, NODE, WORDS, KEPT, Kind(4)][next(30).min(4)];
        let words = match next(50) {
            0 => 600 + next(900),
            _ => 2 + next(20),
        };
        let cell = alloc(heap, kind, words * 8).unwrap();
        let mut references = Vec::new();
        for word in 0..words {
            set(cell, word, 0);
            if next(3) == 0 && !all.is_empty() {
                let target = all[next(all.len())];
                // Somewhere inside.
                set(cell, word, target + 8 * (word % 2));
                references.push(target);
            }
        }
        if kind == LEAF {
            references.clear();
        }
        let bytes = heap.cell(heapwright::WildWord::new(cell)).unwrap().bytes;
        let before = cells.all.insert(cell, (kind, bytes, references));
        assert!(before.is_none());
        all.push(cell);
        if index % 40 == 0 {
            toy::root(heap, cell + 8);
        }
    }
}

/// A heap with cells of all kinds, of which a part lives, and what it should hold.
pub fn filled() -> (WordHeap<Toy>, Cells) {
    let mut kinds = KINDS.to_vec();
    kinds.push(KINDS[1]);
    let heap = WordHeap::<Toy>::builder()
        .kinds(&kinds)
        .build(Toy::default())
        .unwrap();
    let mut cells = Cells::default();
    fill(&heap, &mut cells);
    let own = heap.vm().roots.lock().unwrap().clone();
    let kept = cells.all.iter().filter(|(_, cell)| cell.0 == KEPT);
    let kept: BTreeSet<usize> = kept.map(|(at, _)| *at).collect();
    assert!(kept.len() > 10);
    cells.roots = [own.iter().map(|word| word - 8).collect(), kept];
    // A word that happens to lead to a cell which nobody was given yet.
    let unused = heap.vm().runs.run_for(1, Small::of(16)).cells().0;
    assert!(unused != 0 && !cells.all.contains_key(&unused));
    toy::root(&heap, unused);
    let living = cells.living().len();
    assert!(living > 100 && living < 1400, "{living}");
    (heap, cells)
}

/// Has somebody look at the heap.
pub fn view<R>(heap: &WordHeap<Toy>, look: impl FnOnce(WordView<'_, Toy>) -> R) -> R {
    heap.lock();
    // SAFETY: the lock is held, and this thread is the only one.
    let result = look(unsafe { heap.view() });
    heap.unlock();
    result
}

/// Roots by kind, what lives, its kinds, sizes and references are those of the model; and what a program gets next was set aside for it.
pub fn cells_are_seen_as_they_are() {
    let (heap, mut cells) = filled();
    let (aside, roots, seen) = view(&heap, |view| {
        let mut aside = BTreeSet::new();
        view.for_each_set_aside(&mut |cell| {
            aside.insert(cell.as_usize());
        });
        let mut roots = [BTreeSet::new(), BTreeSet::new()];
        view.roots(&mut |root, cell| {
            let start = cell.start.as_usize();
            if !aside.contains(&start) {
                roots[usize::from(root == WordRoot::Uncollectable)].insert(start);
            }
        });
        let mut seen = BTreeMap::new();
        let mut stack: Vec<usize> = roots.iter().flatten().copied().collect();
        while let Some(start) = stack.pop() {
            if seen.contains_key(&start) {
                continue;
            }
            let Cell { bytes, kind, .. } = view.cell(Address::new(start)).unwrap();
            let mut references = Vec::new();
            view.references(view.cell(Address::new(start)).unwrap(), &mut |target| {
                references.push(target.start.as_usize());
            });
            stack.extend(&references);
            seen.insert(start, (kind, bytes, references));
        }
        (aside, roots, seen)
    });
    assert!(cells.all.keys().all(|cell| !aside.contains(cell)));
    assert_eq!(roots, cells.roots);
    let living = cells.living();
    cells.all.retain(|cell, _| living.contains(cell));
    assert_eq!(seen, cells.all);
    // Of each kind the runs are nowhere at their end.
    for kind in [LEAF, NODE, WORDS, Kind(4)] {
        let next = alloc(&heap, kind, 16).unwrap();
        assert!(aside.contains(&next), "{kind:?}");
    }
}
