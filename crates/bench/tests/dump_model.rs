//! Heap dumps against a model that is kept without the heap: what is in a dump, its size, what it refers to, and what keeps it, by kind; in all
//! plans, with everything that can keep an object, at several times, also in the middle of a mark that goes on.

#![allow(dead_code, clippy::unwrap_used, clippy::panic, missing_docs)]

mod dumps;
#[path = "../../core/tests/looks/mod.rs"]
mod looks;
#[path = "../../core/tests/toy/mod.rs"]
mod toy;

use dumps::{Hprof, size_in_tools};
use heapwright::{Kind, Mutator, PlanName, RootOrigin};
use heapwright_observe::dump::{
    Cells, Extent, Format, Node, Objects, RootKind, Source, Written, sizes_of, write,
};
use looks::model::Model;
use looks::runtime::{Look, bytes, header, id, object};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A heap snapshot: objects by their addresses, with type, bytes and references, and roots by what they hang from.
#[derive(Debug, Default, PartialEq, Eq)]
struct Snapshot {
    objects: BTreeMap<u64, (String, usize, Vec<u64>)>,
    roots: BTreeMap<String, BTreeSet<u64>>,
}

impl Snapshot {
    /// Of a heap that begins at `base`. Addresses are known by the identifiers.
    fn read(text: &[u8], base: usize) -> Self {
        let json: Value = serde_json::from_slice(text).unwrap();
        let numbers = |name: &str| -> Vec<usize> {
            let array = json[name].as_array().unwrap().iter();
            array.map(|n| n.as_u64().unwrap() as usize).collect()
        };
        let (nodes, edges) = (numbers("nodes"), numbers("edges"));
        let (nodes, edges) = (nodes.chunks_exact(7), edges.chunks_exact(3));
        let first = nodes.clone().filter(|node| node[0] == 9).count();
        let address = |index: usize| {
            let node = nodes.clone().nth(index).unwrap();
            assert_eq!(node[0], 3);
            (base + (node[2] - 1 - 2 * first) / 2 * 8) as u64
        };
        let addresses: Vec<u64> = (first..nodes.len()).map(address).collect();
        let mut edges = edges.map(|edge| {
            assert_eq!(edge[2] % 7, 0);
            edge[2] / 7
        });
        let mut read = Self::default();
        for (index, node) in nodes.enumerate() {
            let name = json["strings"][node[1]].as_str().unwrap().to_owned();
            let targets: Vec<usize> = edges.by_ref().take(node[4]).collect();
            assert_eq!(targets.len(), node[4]);
            if index < 2 {
                // The root, and what all kinds of roots hang from.
                assert!(targets.iter().all(|target| *target < first));
                continue;
            }
            let targets = targets.iter().map(|target| addresses[target - first]);
            if index < first {
                let (count, targets) = (targets.len(), targets.collect::<BTreeSet<_>>());
                assert_eq!(targets.len(), count, "{name}: one twice");
                read.roots.insert(name, targets);
            } else {
                let object = (name, node[3], targets.collect());
                let before = read.objects.insert(addresses[index - first], object);
                assert!(before.is_none());
            }
        }
        assert_eq!(edges.next(), None);
        read
    }

    fn roots(&self, name: &str) -> BTreeSet<u64> {
        self.roots[name].clone()
    }
}

/// Both formats, of a source of which there may be several.
fn both<S: Source>(extent: Extent, mut source: impl FnMut() -> S) -> (Hprof, Snapshot, Written) {
    let mut last = Written::default();
    let base = source().range().0;
    let texts = Format::ALL.map(|format| {
        let mut text = Vec::new();
        last = write(&mut source(), extent, format, &mut text).unwrap();
        assert_eq!(last.bytes, text.len() as u64);
        text
    });
    (
        Hprof::parse(&texts[0]),
        Snapshot::read(&texts[1], base),
        last,
    )
}

fn dumped<const MAP: bool>(
    mutator: &mut Mutator<Look<MAP>>,
    extent: Extent,
) -> (Hprof, Snapshot, Written) {
    let mut texts = Vec::new();
    let (mut base, mut written) = (0, Written::default());
    mutator.freeze(|frozen| {
        base = frozen.range().0.as_usize();
        for format in Format::ALL {
            let mut text = Vec::new();
            written = write(&mut Objects::new(frozen), extent, format, &mut text).unwrap();
            assert_eq!(written.bytes, text.len() as u64);
            texts.push(text);
        }
    });
    (
        Hprof::parse(&texts[0]),
        Snapshot::read(&texts[1], base),
        written,
    )
}

/// Who is at an address. No collection has been since.
fn who(address: u64) -> u32 {
    id(object(address as usize).unwrap())
}

fn check_reachable<const MAP: bool>(mutator: &mut Mutator<Look<MAP>>, model: &Model, what: &str) {
    let (hprof, snapshot, written) = dumped(mutator, Extent::Reachable);
    let (strongly, living) = model.living();
    let ids = |set: &BTreeSet<u64>| set.iter().map(|a| who(*a)).collect::<BTreeSet<_>>();
    // Roots by kind.
    let of = |origin| model.roots.get(&origin).cloned().unwrap_or_default();
    let kinds = [
        ("(Stack roots)", RootOrigin::Thread),
        ("(Global roots)", RootOrigin::Runtime),
        ("(Permanent objects)", RootOrigin::Immortal),
        ("(Queued for the runtime)", RootOrigin::Queued),
    ];
    for (name, origin) in kinds {
        assert_eq!(ids(&snapshot.roots(name)), of(origin), "{what}: {name}");
    }
    assert!(snapshot.roots("(Not reachable)").is_empty(), "{what}");
    let kept = ids(&snapshot.roots("(Soft references and ephemerons)"));
    assert!(kept.iter().all(|id| model.is_value(*id)), "{what}");
    assert!(kept.is_disjoint(&strongly), "{what}");
    assert_eq!(ids(&hprof.stacks), of(RootOrigin::Thread), "{what}");
    let others = kinds[1..].iter().flat_map(|(_, origin)| of(*origin));
    let others: BTreeSet<u32> = others.chain(kept).collect();
    assert_eq!(ids(&hprof.globals), others, "{what}");
    // Objects, each once.
    let found = |addresses: Vec<u64>| {
        let ids: BTreeSet<u32> = addresses.iter().map(|a| who(*a)).collect();
        assert_eq!(ids.len(), addresses.len(), "{what}: one twice");
        ids
    };
    assert_eq!(
        found(hprof.objects.keys().copied().collect()),
        living,
        "{what}"
    );
    assert_eq!(
        found(snapshot.objects.keys().copied().collect()),
        living,
        "{what}"
    );
    assert_eq!(hprof.reachable().len(), living.len(), "{what}");
    // Each of them.
    let mut total = 0;
    let mut sizes = BTreeMap::new();
    for (address, seen) in &hprof.objects {
        let id = who(*address);
        let node = &model.nodes[&id];
        let what = format!("{what}: object {id}");
        let name = ["first", "second", "third"][id as usize % 3];
        assert_eq!(seen.kind, name, "{what}");
        let count = node.references.len();
        assert_eq!(
            [seen.bytes, seen.size],
            size_in_tools(node.bytes(), count),
            "{what}"
        );
        let (fields, padding) = seen.references.split_at(count);
        let fields: Vec<_> = fields.iter().map(|f| (*f != 0).then(|| who(*f))).collect();
        assert_eq!(fields, node.references, "{what}");
        assert!(padding.iter().all(|p| *p == 0), "{what}");
        let (kind, bytes, edges) = &snapshot.objects[address];
        assert_eq!((kind.as_str(), *bytes), (name, node.bytes()), "{what}");
        let edges: Vec<_> = edges.iter().map(|a| who(*a)).collect();
        let full: Vec<_> = node.references.iter().flatten().copied().collect();
        assert_eq!(edges, full, "{what}");
        total += node.bytes();
        *sizes.entry(size_class(node.bytes())).or_insert(0) += 1;
    }
    assert_eq!(written.objects as usize, living.len(), "{what}");
    assert_eq!(written.references as usize, model.edges(&living), "{what}");
    assert_eq!(written.object_bytes as usize, total, "{what}");
    let mut seen = BTreeMap::new();
    let counted = sizes_of(mutator, Extent::Reachable).unwrap();
    counted.each(|bytes, objects| {
        seen.insert(bytes, objects);
    });
    assert_eq!(seen, sizes, "{what}");
}

/// As [`heapwright_observe::Sizes`] says.
fn size_class(bytes: usize) -> usize {
    match bytes {
        0..=4096 => bytes.next_multiple_of(16),
        _ => bytes.next_power_of_two(),
    }
}

/// Also what is dead: what the heap enumerates, and of what lives nothing less.
fn check_all(mutator: &mut Mutator<Look<true>>, model: &Model, what: &str) {
    let (hprof, snapshot, written) = dumped(mutator, Extent::All);
    let mut all = BTreeSet::new();
    mutator.for_each_object(&mut |object| {
        all.insert(id(object));
    });
    let living = model.living().1;
    let seen: BTreeSet<u32> = hprof.objects.keys().map(|a| who(*a)).collect();
    assert_eq!(seen, all, "{what}");
    assert!(snapshot.objects.keys().eq(hprof.objects.keys()), "{what}");
    if !model.collected {
        assert!(seen.iter().eq(model.nodes.keys()), "{what}");
    }
    let dead = snapshot.roots("(Not reachable)");
    let dead: BTreeSet<u32> = dead.iter().map(|a| who(*a)).collect();
    assert_eq!(dead, &all - &living, "{what}");
    let (mut edges, mut total) = (0, 0);
    for (address, (_, size, targets)) in &snapshot.objects {
        let (references, raw, id) = header(object(*address as usize).unwrap());
        assert_eq!(*size, bytes(references, raw), "{what}: object {id}");
        total += size;
        edges += targets.len();
        let own = model.nodes[&id].references.iter().flatten();
        let own: Vec<u32> = own.filter(|target| all.contains(target)).copied().collect();
        // What died with it may be gone, and its place another's.
        let targets: Vec<u32> = targets.iter().map(|a| who(*a)).collect();
        assert!(
            targets == own || !living.contains(&id) && model.collected,
            "{what}: object {id}"
        );
    }
    assert_eq!(written.references as usize, edges, "{what}");
    assert_eq!(written.object_bytes as usize, total, "{what}");
    assert_eq!(written.objects as usize, all.len(), "{what}");
}

#[test]
fn dumps_have_what_lives_with_all_that_is_said_of_it() {
    for plan in PlanName::ALL {
        looks::walk_through::<false>(plan, &mut check_reachable);
        looks::walk_through::<true>(plan, &mut check_reachable);
    }
}

#[test]
fn dumps_of_all_have_the_dead_too() {
    for plan in PlanName::ALL {
        looks::walk_through::<true>(plan, &mut check_all);
    }
}

#[test]
fn dumps_of_a_heap_of_words_have_its_cells() {
    let (heap, cells) = looks::words::filled();
    let (hprof, snapshot, written) = looks::words::view(&heap, |_| {
        both(Extent::Reachable, || {
            // SAFETY: the lock is held, and this thread is the only one.
            let view = unsafe { heap.view() };
            Cells::new(view, |Kind(kind), put| put(&format!("kind {kind}")))
        })
    });
    let living = cells.living();
    let wide = |set: &BTreeSet<usize>| set.iter().map(|a| *a as u64).collect::<BTreeSet<_>>();
    assert_eq!(snapshot.roots("(Stack roots)"), wide(&cells.roots[0]));
    assert_eq!(snapshot.roots("(Permanent objects)"), wide(&cells.roots[1]));
    assert_eq!(hprof.stacks, wide(&cells.roots[0]));
    assert_eq!(hprof.globals, wide(&cells.roots[1]));
    assert!(hprof.objects.keys().copied().eq(wide(&living)));
    assert!(snapshot.objects.keys().copied().eq(wide(&living)));
    let (mut edges, mut total) = (0, 0);
    for cell in &living {
        let (kind, bytes, references) = &cells.all[cell];
        let references: Vec<u64> = references.iter().map(|r| *r as u64).collect();
        let name = format!("kind {}", kind.0);
        let seen = &snapshot.objects[&(*cell as u64)];
        assert_eq!(*seen, (name.clone(), *bytes, references.clone()));
        let seen = &hprof.objects[&(*cell as u64)];
        assert_eq!(seen.kind, name);
        assert_eq!(
            [seen.bytes, seen.size],
            size_in_tools(*bytes, references.len())
        );
        assert_eq!(seen.references[..references.len()], references);
        edges += references.len();
        total += bytes;
    }
    assert_eq!(written.objects as usize, living.len());
    assert_eq!(written.references as usize, edges);
    assert_eq!(written.object_bytes as usize, total);
}

/// Objects of 16 bytes at multiples of 64, whose references are given.
struct Given(Vec<(usize, Vec<usize>)>);

impl Source for Given {
    fn range(&self) -> (usize, usize) {
        (1 << 20, 1 << 16)
    }

    fn roots(&mut self, visit: &mut dyn FnMut(RootKind, usize)) {
        visit(RootKind::Thread, self.0[0].0);
    }

    fn all(&mut self, visit: &mut dyn FnMut(usize)) -> bool {
        self.0.iter().for_each(|(object, _)| visit(*object));
        true
    }

    fn node(&self, object: usize) -> Node {
        let mut references = 0;
        self.references(object, &mut |_| references += 1);
        Node {
            type_id: 0,
            bytes: 16,
            references,
        }
    }

    fn references(&self, object: usize, visit: &mut dyn FnMut(usize)) {
        let found = self.0.iter().find(|(own, _)| *own == object);
        let (_, references) = found.unwrap_or_else(|| panic!("what is gone is looked at"));
        references.iter().for_each(|target| visit(*target));
    }

    fn type_name(&self, _: u32, put: &mut dyn FnMut(&str)) {
        put("given");
    }
}

#[test]
fn what_the_dead_refer_to_and_is_gone_is_left_out() {
    let at = |n: usize| (1 << 20) + 64 * n;
    let given = || {
        Given(vec![
            (at(0), vec![at(2), 0]),
            // Dead: it refers to one that lives, one that is dead, one that is gone, and far away.
            (at(1), vec![at(0), at(3), at(700), 64]),
            (at(2), vec![at(2)]),
            (at(3), vec![]),
        ])
    };
    let (hprof, snapshot, written) = both(Extent::All, given);
    assert_eq!((written.objects, written.references), (4, 4));
    let seen = |n| &snapshot.objects[&(at(n) as u64)].2;
    assert_eq!(*seen(0), [at(2) as u64]);
    assert_eq!(*seen(1), [at(0) as u64, at(3) as u64]);
    assert_eq!(hprof.objects.len(), 4);
    assert_eq!(
        hprof.objects[&(at(1) as u64)].references,
        [at(0) as u64, at(3) as u64, 0, 0]
    );
    assert_eq!(snapshot.roots("(Not reachable)").len(), 2);
    let (hprof, _, written) = both(Extent::Reachable, given);
    assert_eq!((written.objects, written.references), (2, 2));
    assert_eq!(hprof.reachable().len(), 2);
}
