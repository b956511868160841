//! What a heap should hold, without the heap: objects by their numbers.

use super::runtime::bytes;
use heapwright::RootOrigin;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub struct Node {
    pub references: Vec<Option<u32>>,
    pub raw: usize,
}

impl Node {
    pub fn bytes(&self) -> usize {
        bytes(self.references.len(), self.raw)
    }
}

#[derive(Debug, Default)]
pub struct Model {
    /// All objects that were ever made.
    pub nodes: BTreeMap<u32, Node>,
    pub roots: BTreeMap<RootOrigin, BTreeSet<u32>>,
    /// What lives if all of the first live, as far as there are any.
    pub kept: Vec<([Option<u32>; 2], u32)>,
    /// Phantom references: who has it, and to what, which is dead.
    pub phantoms: Vec<(u32, u32)>,
    /// There was a collection.
    pub collected: bool,
}

impl Model {
    pub fn add(&mut self, references: usize, raw: usize) -> u32 {
        let id = self.nodes.len() as u32 + 1;
        let references = vec![None; references];
        self.nodes.insert(id, Node { references, raw });
        id
    }

    pub fn set(&mut self, id: u32, index: usize, target: Option<u32>) {
        self.nodes.get_mut(&id).unwrap().references[index] = target;
    }

    pub fn root(&mut self, origin: RootOrigin, id: u32) {
        self.roots.entry(origin).or_default().insert(id);
    }

    pub fn keeps(&mut self, conditions: [Option<u32>; 2], id: u32) {
        self.kept.push((conditions, id));
    }

    /// A full collection has found that what they refer to is dead, and queued them.
    pub fn phantoms_are_cleared(&mut self) {
        for (holder, _) in std::mem::take(&mut self.phantoms) {
            self.root(RootOrigin::Queued, holder);
        }
    }

    fn reach(&self, living: &mut BTreeSet<u32>, from: u32) {
        let mut stack = vec![from];
        while let Some(id) = stack.pop() {
            if living.insert(id) {
                stack.extend(self.nodes[&id].references.iter().flatten());
            }
        }
    }

    /// What lives: by roots, and in all.
    pub fn living(&self) -> (BTreeSet<u32>, BTreeSet<u32>) {
        let mut living = BTreeSet::new();
        for root in self.roots.values().flatten() {
            self.reach(&mut living, *root);
        }
        let strongly = living.clone();
        loop {
            let before = living.len();
            for (conditions, id) in &self.kept {
                if conditions.iter().flatten().all(|c| living.contains(c)) {
                    self.reach(&mut living, *id);
                }
            }
            if living.len() == before {
                return (strongly, living);
            }
        }
    }

    /// May the object be kept by a reference that is no root and no field?
    pub fn is_value(&self, id: u32) -> bool {
        self.kept.iter().any(|(_, value)| *value == id)
    }

    pub fn edges(&self, living: &BTreeSet<u32>) -> usize {
        let edges = |id: &u32| self.nodes[id].references.iter().flatten().count();
        living.iter().map(edges).sum()
    }
}
