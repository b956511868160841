//! A look at a frozen heap, against the model.

use super::model::Model;
use super::runtime::{Look, field, header, id};
use heapwright::{Frozen, Living, Mutator, ObjectReference, RootOrigin};
use std::collections::{BTreeMap, BTreeSet};

/// What a walk has found.
#[derive(Default)]
struct Found {
    objects: BTreeMap<ObjectReference, Vec<Option<ObjectReference>>>,
    stack: Vec<ObjectReference>,
    kept: BTreeSet<u32>,
}

impl Found {
    fn reach(&mut self, object: ObjectReference) {
        self.objects.entry(object).or_insert_with(|| {
            self.stack.push(object);
            Vec::new()
        });
    }

    fn walk<const MAP: bool>(&mut self, frozen: &Frozen<'_, Look<MAP>>) {
        while let Some(object) = self.stack.pop() {
            let mut fields = Vec::new();
            frozen.references(object, &mut |target| fields.push(target));
            assert_eq!(fields.len(), frozen.fields(object));
            fields
                .iter()
                .flatten()
                .for_each(|target| self.reach(*target));
            self.objects.insert(object, fields);
        }
    }
}

impl Living for Found {
    fn lives(&self, object: ObjectReference) -> bool {
        self.objects.contains_key(&object)
    }

    fn keep(&mut self, object: ObjectReference) {
        assert!(!self.lives(object));
        self.kept.insert(id(object));
        self.reach(object);
    }
}

/// Roots by kind, objects, their fields and sizes, and what else is kept are those of the model; and so is what the heap knows of
/// objects that nothing keeps.
pub fn check<const MAP: bool>(mutator: &mut Mutator<Look<MAP>>, model: &Model, what: &str) {
    mutator.freeze(|frozen| {
        let mut roots: BTreeMap<RootOrigin, BTreeSet<u32>> = BTreeMap::new();
        let mut found = Found::default();
        frozen.roots(&mut |origin, object| {
            roots.entry(origin).or_default().insert(id(object));
            found.reach(object);
        });
        assert_eq!(roots, model.roots, "{what}");
        let (strongly, living) = model.living();
        found.walk(frozen);
        let ids = |found: &Found| {
            found
                .objects
                .keys()
                .map(|o| id(*o))
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(ids(&found), strongly, "{what}: by roots alone");
        loop {
            frozen.kept(&mut found);
            if found.stack.is_empty() {
                break;
            }
            found.walk(frozen);
        }
        let seen = ids(&found);
        let lost: Vec<_> = living.difference(&seen).collect();
        let more: Vec<_> = seen.difference(&living).collect();
        assert!(
            lost.is_empty() && more.is_empty(),
            "{what}: lost {lost:?}, but {more:?}"
        );
        assert_eq!(found.objects.len(), living.len(), "{what}: one twice");
        assert!(found.kept.iter().all(|id| model.is_value(*id)), "{what}");
        for (object, fields) in &found.objects {
            let node = &model.nodes[&id(*object)];
            assert_eq!(header(*object).0, node.references.len(), "{what}");
            let fields: Vec<_> = fields.iter().map(|f| f.map(id)).collect();
            assert_eq!(fields, node.references, "{what}");
            let own: Vec<_> = (0..fields.len())
                .map(|i| field(*object, i).map(id))
                .collect();
            assert_eq!(own, node.references, "{what}");
            let (start, bytes) = frozen.range();
            assert!(
                object.to_address().diff(start) + node.bytes() <= bytes,
                "{what}"
            );
        }
        let mut all = BTreeSet::new();
        let known = frozen.for_each_object(&mut |object| {
            let id = id(object);
            assert!(
                model.nodes.contains_key(&id),
                "{what}: no object {object:?}"
            );
            assert!(all.insert(id), "{what}: one twice");
        });
        assert_eq!(known, MAP);
        check_all::<MAP>(&all, &living, model, what);
    });
}

/// What is enumerated: all that lives, and before the first collection all that was made.
pub fn check_all<const MAP: bool>(
    all: &BTreeSet<u32>,
    living: &BTreeSet<u32>,
    model: &Model,
    what: &str,
) {
    if !MAP {
        assert!(all.is_empty());
        return;
    }
    assert!(all.is_superset(living), "{what}");
    if !model.collected {
        assert!(all.iter().eq(model.nodes.keys()), "{what}");
    }
}

/// The same for [`Mutator::for_each_object`] and the census.
pub fn check_census(mutator: &mut Mutator<Look<true>>, model: &Model, what: &str) {
    let mut all = BTreeSet::new();
    let mut types: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    mutator.for_each_object(&mut |object| {
        let id = id(object);
        assert!(all.insert(id), "{what}: one twice");
        let node = model
            .nodes
            .get(&id)
            .unwrap_or_else(|| panic!("{what}: no object"));
        let name = ["first", "second", "third"][id as usize % 3];
        let count = types.entry(name.to_owned()).or_default();
        *count = (count.0 + 1, count.1 + node.bytes());
    });
    check_all::<true>(&all, &model.living().1, model, what);
    let census = mutator.census().into_iter();
    let census: BTreeMap<_, _> = census.map(|t| (t.name, (t.objects, t.bytes))).collect();
    assert_eq!(census, types, "{what}");
}
