//! Which objects a dump has, and their numbers in the order of addresses.
//!
//! A bit for each 8 bytes of the heap's range says that an object begins there; the bits are found by a walk from the roots, or are
//! those of all objects. How many bits are set before each group of 512 is noted, so that an address becomes a number by counting the
//! bits of at most eight words (Jacobson, "Space-efficient static trees and graphs", 1989).

use super::{DumpError, Extent, RootKind, Source};
use heapwright::{Address, Living, ObjectReference};
use heapwright_memory::MappedVec;
use heapwright_os::{OsError, real_port};

/// Bytes for a bit.
const GRANULE: usize = 8;
/// Words of bits in a group.
const GROUP: usize = 8;
/// More roots than this are not noted. Only addresses until they are there.
const MOST_ROOTS: usize = 1 << 32;

/// A set of addresses in a range.
struct Bits {
    base: usize,
    words: MappedVec<u64>,
    /// Bits that are set before each group.
    ranks: MappedVec<u64>,
}

impl Bits {
    fn new((base, bytes): (usize, usize)) -> Result<Self, OsError> {
        let words = bytes.div_ceil(GRANULE * 64).next_multiple_of(GROUP);
        Ok(Self {
            base,
            words: MappedVec::<u64>::zeros(real_port(), words, c"heapwright dump")?,
            ranks: MappedVec::<u64>::zeros(real_port(), words / GROUP, c"heapwright dump")?,
        })
    }

    /// The word and the bit of an address; none outside of the range.
    #[inline]
    fn place(&self, address: usize) -> Option<(usize, u64)> {
        let granule = address.wrapping_sub(self.base) / GRANULE;
        let word = granule / 64;
        (word < self.words.len()).then_some((word, 1 << (granule % 64)))
    }

    #[inline]
    fn has(&self, address: usize) -> bool {
        let words = self.words.as_slice();
        self.place(address)
            .is_some_and(|(word, bit)| words[word] & bit != 0)
    }

    /// Adds an address: true if it was not there.
    #[inline]
    fn add(&mut self, address: usize) -> bool {
        let Some((word, bit)) = self.place(address) else {
            return false;
        };
        let word = &mut self.words.as_mut_slice()[word];
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Notes the ranks: how many addresses there are.
    fn count(&mut self) -> u64 {
        let mut total = 0;
        let groups = self.words.as_slice().chunks(GROUP);
        for (group, rank) in groups.zip(self.ranks.as_mut_slice()) {
            *rank = total;
            total += group.iter().map(|w| u64::from(w.count_ones())).sum::<u64>();
        }
        total
    }

    /// How many addresses are below this one, which is there.
    #[inline]
    fn index(&self, address: usize) -> Option<u64> {
        let (word, bit) = self.place(address)?;
        let words = self.words.as_slice();
        if words[word] & bit == 0 {
            return None;
        }
        let before = words[word / GROUP * GROUP..word].iter();
        let before: u32 = before.map(|w| w.count_ones()).sum();
        let within = (words[word] & (bit - 1)).count_ones();
        Some(self.ranks.as_slice()[word / GROUP] + u64::from(before + within))
    }

    fn for_each(&self, mut visit: impl FnMut(usize) -> bool) {
        for (index, word) in self.words.as_slice().iter().enumerate() {
            let mut word = *word;
            while word != 0 {
                let granule = index * 64 + word.trailing_zeros() as usize;
                word &= word - 1;
                if !visit(self.base + granule * GRANULE) {
                    return;
                }
            }
        }
    }
}

/// What was found so far, and what has not been looked at yet.
struct Found {
    bits: Bits,
    stack: MappedVec<usize>,
    roots: MappedVec<(RootKind, usize)>,
    /// What looks like an object and is none.
    aside: Option<Bits>,
    /// All objects are known: what is not among them is gone.
    complete: bool,
    error: Option<OsError>,
}

impl Found {
    fn reach(&mut self, object: usize) {
        if self.complete || self.aside.as_ref().is_some_and(|a| a.has(object)) {
            return;
        }
        if self.bits.add(object)
            && let Err(e) = self.stack.push(object)
        {
            self.error = Some(e);
        }
    }

    fn root(&mut self, kind: RootKind, object: usize) {
        self.reach(object);
        if self.bits.has(object)
            && let Err(e) = self.roots.push((kind, object))
        {
            self.error = Some(e);
        }
    }

    /// Looks at all that has not been: how many references there were.
    fn walk<S: Source>(&mut self, source: &S) -> Result<u64, OsError> {
        let mut edges = 0;
        while let Some(object) = self.stack.pop() {
            source.references(object, &mut |target| {
                if target != 0 {
                    self.reach(target);
                    edges += u64::from(self.bits.has(target));
                }
            });
            if self.error.is_some() {
                break;
            }
        }
        self.error.take().map_or(Ok(edges), Err)
    }
}

impl Living for Found {
    fn lives(&self, object: ObjectReference) -> bool {
        self.bits.has(object.to_address().as_usize())
    }

    fn keep(&mut self, object: ObjectReference) {
        self.root(RootKind::Reference, object.to_address().as_usize());
    }
}

/// The objects of a dump.
pub(super) struct Graph<'s, S> {
    source: &'s S,
    bits: Bits,
    /// In order, each once.
    roots: MappedVec<(RootKind, usize)>,
    objects: u64,
    edges: u64,
}

impl<'s, S: Source> Graph<'s, S> {
    /// Finds them.
    pub(super) fn of(source: &'s mut S, extent: Extent) -> Result<Self, DumpError> {
        let range = source.range();
        let mut found = Found {
            bits: Bits::new(range)?,
            stack: MappedVec::new(real_port(), range.1 / 16 + 1, c"heapwright dump")?,
            roots: MappedVec::new(real_port(), MOST_ROOTS, c"heapwright dump")?,
            aside: None,
            complete: false,
            error: None,
        };
        let mut aside = None;
        let mut error = None;
        source.set_aside(&mut |place| {
            if aside.is_none() {
                aside = Bits::new(range).map_err(|e| error = Some(e)).ok();
            }
            let _ = aside.as_mut().is_some_and(|a| a.add(place));
        });
        if let Some(e) = error {
            return Err(e.into());
        }
        found.aside = aside;
        source.roots(&mut |kind, object| found.root(kind, object));
        if let Some(e) = found.error.take() {
            return Err(e.into());
        }
        let mut edges = found.walk(source)?;
        loop {
            source.kept(&mut found);
            if let Some(e) = found.error.take() {
                return Err(e.into());
            }
            if found.stack.is_empty() {
                break;
            }
            edges += found.walk(source)?;
        }
        if extent == Extent::All {
            let known = source.all(&mut |object| {
                if !found.bits.has(object) {
                    found.root(RootKind::Dead, object);
                }
            });
            if !known {
                return Err(DumpError::NotAll);
            }
            found.complete = true;
            edges += found.walk(source)?;
        }
        let Found {
            mut bits,
            mut roots,
            ..
        } = found;
        roots.as_mut_slice().sort_unstable();
        let objects = bits.count();
        Ok(Self {
            source,
            bits,
            roots,
            objects,
            edges,
        })
    }

    pub(super) fn source(&self) -> &S {
        self.source
    }

    /// How many objects there are.
    pub(super) fn objects(&self) -> u64 {
        self.objects
    }

    /// How many references from one to another.
    pub(super) fn edges(&self) -> u64 {
        self.edges
    }

    /// Visits each object, in the order of addresses, until `visit` says that it is enough.
    pub(super) fn for_each(&self, visit: impl FnMut(usize) -> bool) {
        self.bits.for_each(visit);
    }

    /// Each root once, in order.
    pub(super) fn roots(&self) -> impl Iterator<Item = (RootKind, usize)> + '_ {
        let roots = self.roots.as_slice();
        let new = |i: usize| i == 0 || roots[i] != roots[i - 1];
        (0..roots.len())
            .filter(move |i| new(*i))
            .map(|i| roots[i])
            .filter(|(_, object)| self.bits.has(*object))
    }

    /// Is it one of the objects?
    #[inline]
    pub(super) fn has(&self, object: usize) -> bool {
        self.bits.has(object)
    }

    /// An object's number.
    #[inline]
    pub(super) fn index(&self, object: usize) -> Option<u64> {
        self.bits.index(object)
    }

    /// The first address at which an object can be.
    pub(super) fn base(&self) -> usize {
        self.bits.base
    }
}

/// An address as the core has it.
pub(super) fn reference(object: usize) -> Option<ObjectReference> {
    ObjectReference::from_address(Address::new(object))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn addresses_are_numbered_in_order() {
        let mut bits = Bits::new((0x10_0000, 1 << 20)).unwrap();
        let addresses: Vec<usize> = (0..1000).map(|i| 0x10_0000 + i * i % 131_072 * 8).collect();
        let mut distinct = addresses.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let new = addresses.iter().filter(|a| bits.add(**a)).count();
        assert_eq!(new, distinct.len());
        assert!(!bits.add(0x10_0000 - 8) && !bits.add(0x20_0000));
        assert_eq!(bits.count(), distinct.len() as u64);
        let mut seen = Vec::new();
        bits.for_each(|a| {
            seen.push(a);
            true
        });
        assert_eq!(seen, distinct);
        for (number, address) in distinct.iter().enumerate() {
            assert_eq!(bits.index(*address), Some(number as u64));
        }
        assert_eq!(bits.index(0x10_0010), None);
        assert!(bits.has(distinct[3]) && !bits.has(0x10_0010));
    }
}
