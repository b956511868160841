//! Loom models of [`super::forward`]: workers race for one object, in either layout.
//!
//! The memory of a copy is a cell that loom watches: who reads it without having synchronised with its writer fails. Atoms that
//! forget an ordering, or that are none, and a claim that is taken back too early show that the models can fail.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::forward::{self, Atom, Forward, Side};
use core::sync::atomic::Ordering;
use loom::cell::UnsafeCell;

use loom::sync::atomic::{AtomicU64, AtomicUsize};
use loom::thread;
use std::sync::Arc;

const EPOCH: usize = 1;
/// What the object's first word is for the runtime: clear of the bits of a header.
const OWN: usize = 0x700;
/// What its other words are.
const CONTENTS: usize = 42;
/// Where it is.
const HERE: usize = 0x8000;
/// Its bit, and that of its neighbour in the same words.
const BIT: u64 = 1 << 5;
const NEIGHBOUR: u64 = 1 << 6;

fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = Some(preemptions);
    }
    builder.check(check);
}

// ---- atoms -----------------------------------------------------------------------------------------------------------

/// An atom that a model can make.
trait Made<T>: Atom<T> + Send + Sync + 'static {
    fn new(value: T) -> Self;
}

impl Made<usize> for AtomicUsize {
    fn new(value: usize) -> Self {
        Self::new(value)
    }
}

impl Made<u64> for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }
}

/// Wrong: publishes nothing.
struct NoRelease<A>(A);
/// Wrong: does not see what was published.
struct NoAcquire<A>(A);
/// Wrong: reads, and then writes.
struct Torn<A>(A);

macro_rules! forgets {
    ($name:ident, $order:ident) => {
        impl<T: 'static, A: Made<T>> Made<T> for $name<A> {
            fn new(value: T) -> Self {
                Self(A::new(value))
            }
        }

        impl<T, A: Atom<T>> Atom<T> for $name<A> {
            fn load(&self, order: Ordering) -> T {
                self.0.load(Self::of(order))
            }
            fn store(&self, value: T, order: Ordering) {
                self.0.store(value, Self::of(order));
            }
            fn exchange(&self, old: T, new: T, order: Ordering) -> Result<T, T> {
                self.0.exchange(old, new, Self::of(order))
            }
            fn set(&self, bits: T, order: Ordering) -> T {
                self.0.set(bits, Self::of(order))
            }
            fn clear(&self, bits: T, order: Ordering) -> T {
                self.0.clear(bits, Self::of(order))
            }
        }

        impl<A> $name<A> {
            fn of(order: Ordering) -> Ordering {
                match order {
                    Ordering::$order => Ordering::Relaxed,
                    other => other,
                }
            }
        }
    };
}

forgets!(NoRelease, Release);
forgets!(NoAcquire, Acquire);

macro_rules! torn {
    ($atomic:ty, $word:ty) => {
        impl Made<$word> for Torn<$atomic> {
            fn new(value: $word) -> Self {
                Self(<$atomic>::new(value))
            }
        }

        impl Atom<$word> for Torn<$atomic> {
            fn load(&self, order: Ordering) -> $word {
                self.0.load(order)
            }
            fn store(&self, value: $word, order: Ordering) {
                self.0.store(value, order);
            }
            fn exchange(&self, old: $word, new: $word, order: Ordering) -> Result<$word, $word> {
                let now = self.0.load(order);
                if now != old {
                    return Err(now);
                }
                self.0.store(new, Ordering::Release);
                Ok(now)
            }
            fn set(&self, bits: $word, order: Ordering) -> $word {
                let old = self.0.load(order);
                self.0.store(old | bits, Ordering::Release);
                old
            }
            fn clear(&self, bits: $word, order: Ordering) -> $word {
                let old = self.0.load(order);
                self.0.store(old & !bits, Ordering::Release);
                old
            }
        }
    };
}

torn!(AtomicUsize, usize);
torn!(AtomicU64, u64);

// ---- one object ------------------------------------------------------------------------------------------------------

/// Room for a copy.
struct Room {
    first_word: AtomicUsize,
    others: UnsafeCell<usize>,
}

/// Each worker has room for one copy.
struct Rooms([Room; 3]);

// SAFETY: loom fails a use of `others` that races with another.
unsafe impl Sync for Rooms {}
// SAFETY: as above.
unsafe impl Send for Rooms {}

impl Rooms {
    fn new() -> Self {
        Self([(); 3].map(|()| Room {
            first_word: AtomicUsize::new(0),
            others: UnsafeCell::new(0),
        }))
    }
}

/// The address of a worker's copy.
const fn address(worker: usize) -> usize {
    0x1000 * (worker + 1)
}

/// An object in a moving block, by where its bits are.
trait Layout: Send + Sync + 'static {
    fn new() -> Self;
    fn rooms(&self) -> &[Room];
    fn claim(&self) -> Forward;
    /// The first word of a copy.
    fn copied(kept: usize) -> usize;
    fn moved(&self, to: usize);
    fn stays(&self, kept: usize);
    /// Where the object is when all workers are done.
    fn outcome(&self) -> Option<usize>;
    /// Sets the mark, as of an object that does not move.
    fn mark(&self) -> bool;
    /// What another worker, or a mutator, does to the same words meanwhile.
    fn disturb(&self);
    /// What it did is still there.
    fn is_disturbed(&self) -> bool;
}

struct InHeader<W> {
    header: W,
    rooms: Rooms,
}

impl<W: Made<usize>> Layout for InHeader<W> {
    fn new() -> Self {
        Self {
            // Old, and marked in the epoch before.
            header: W::new(OWN | forward::marked(3 - EPOCH) | forward::UNLOGGED),
            rooms: Rooms::new(),
        }
    }
    fn rooms(&self) -> &[Room] {
        &self.rooms.0
    }
    fn claim(&self) -> Forward {
        forward::claim_header::<true>(&self.header, EPOCH)
    }
    fn copied(kept: usize) -> usize {
        forward::copied(kept, EPOCH, true)
    }
    fn moved(&self, to: usize) {
        forward::moved_header::<true>(&self.header, to);
    }
    fn stays(&self, kept: usize) {
        forward::stays_header(&self.header, kept, EPOCH);
    }
    fn outcome(&self) -> Option<usize> {
        forward::outcome(self.header.load(Ordering::Relaxed), EPOCH, HERE)
    }
    fn mark(&self) -> bool {
        forward::mark_header::<true>(&self.header, EPOCH)
    }
    /// The barrier of a mutator that runs while objects are marked.
    fn disturb(&self) {
        assert_ne!(
            self.header.clear(forward::UNLOGGED, Ordering::AcqRel) & forward::UNLOGGED,
            0
        );
    }
    fn is_disturbed(&self) -> bool {
        self.header.load(Ordering::Relaxed) == OWN | forward::marked(EPOCH)
    }
}

struct InSide<B> {
    first_word: AtomicUsize,
    claims: B,
    marks: B,
    stayed: B,
    /// The block's entry.
    retained: AtomicU64,
    rooms: Rooms,
}

impl<B: Made<u64>> Side for InSide<B> {
    type Word = AtomicUsize;
    type Bits = B;

    fn bit(&self) -> u64 {
        BIT
    }
    fn first_word(&self) -> &AtomicUsize {
        &self.first_word
    }
    fn claims(&self) -> &B {
        &self.claims
    }
    fn marks(&self) -> &B {
        &self.marks
    }
    fn stayed(&self) -> &B {
        &self.stayed
    }
    fn is_retained(&self) -> bool {
        Atom::load(&self.retained, Ordering::Relaxed) != 0
    }
    fn retain(&self) {
        self.retained.set(1, Ordering::Relaxed);
    }
}

impl<B: Made<u64>> InSide<B> {
    /// The state of a bit: claimed, marked.
    fn state(&self, bit: u64) -> (bool, bool) {
        let is_set = |word: &B| word.load(Ordering::Relaxed) & bit != 0;
        (is_set(&self.claims), is_set(&self.marks))
    }
}

impl<B: Made<u64>> Layout for InSide<B> {
    fn new() -> Self {
        Self {
            first_word: AtomicUsize::new(OWN),
            claims: B::new(0),
            marks: B::new(0),
            stayed: B::new(0),
            retained: AtomicU64::new(0),
            rooms: Rooms::new(),
        }
    }
    fn rooms(&self) -> &[Room] {
        &self.rooms.0
    }
    fn claim(&self) -> Forward {
        forward::claim_side::<true>(self)
    }
    fn copied(kept: usize) -> usize {
        kept
    }
    fn moved(&self, to: usize) {
        forward::moved_side::<true>(self, to);
    }
    fn stays(&self, _: usize) {
        forward::stays_side::<true>(self);
    }
    fn outcome(&self) -> Option<usize> {
        forward::settle_side(&self.claims, &self.stayed);
        match self.state(BIT) {
            (true, true) => Some(Atom::load(&self.first_word, Ordering::Relaxed)),
            (false, true) => Some(HERE),
            _ => None,
        }
    }
    fn mark(&self) -> bool {
        forward::mark_side::<true>(&self.marks, BIT)
    }
    /// A worker marks the neighbour.
    fn disturb(&self) {
        assert!(forward::mark_side::<true>(&self.marks, NEIGHBOUR));
    }
    fn is_disturbed(&self) -> bool {
        self.state(NEIGHBOUR) == (false, true)
    }
}

// ---- workers ---------------------------------------------------------------------------------------------------------

/// What a worker did with the object, or found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    Copied(usize),
    Found(usize),
    Kept,
    FoundKept,
}

/// A worker comes to the object: as the tracing loop does.
fn reach<L: Layout>(object: &L, worker: usize, has_room: bool) -> Did {
    match object.claim() {
        Forward::Claimed(kept) => {
            assert_eq!(kept, OWN);
            if !has_room {
                object.stays(kept);
                return Did::Kept;
            }
            let room = &object.rooms()[worker];
            room.others.with_mut(|others| {
                // SAFETY: this worker's own room; loom fails this if another one looks into it.
                unsafe { *others = CONTENTS }
            });
            Atom::store(&room.first_word, L::copied(kept), Ordering::Relaxed);
            object.moved(address(worker));
            Did::Copied(address(worker))
        }
        Forward::Moved(to) => {
            let worker = (0..3).find(|worker| address(*worker) == to);
            let room = &object.rooms()[worker.expect("moved to no room")];
            let others = room.others.with(|others| {
                // SAFETY: loom fails this if it is not ordered after the copying.
                unsafe { *others }
            });
            assert_eq!(others, CONTENTS);
            assert_eq!(
                Atom::load(&room.first_word, Ordering::Relaxed),
                L::copied(OWN)
            );
            Did::Found(to)
        }
        Forward::Stays => Did::FoundKept,
    }
}

/// Workers come to the object, each as often as it has an entry, which says whether it has room for a copy then.
fn race<L: Layout>(visits: &'static [&'static [bool]]) {
    let object = Arc::new(L::new());
    let work = |worker: usize, object: &L| -> Vec<Did> {
        visits[worker]
            .iter()
            .map(|has_room| reach(object, worker, *has_room))
            .collect()
    };
    let others: Vec<_> = (1..visits.len())
        .map(|worker| {
            let object = Arc::clone(&object);
            thread::spawn(move || work(worker, &object))
        })
        .collect();
    let mut did = work(0, &object);
    for other in others {
        did.extend(other.join().unwrap());
    }
    // One of them decided, and all others found what it did.
    let decided: Vec<Did> = did
        .iter()
        .copied()
        .filter(|did| matches!(did, Did::Copied(_) | Did::Kept))
        .collect();
    let [decided] = decided[..] else {
        panic!("not exactly one decided: {did:?}");
    };
    let (found, place) = match decided {
        Did::Copied(to) => (Did::Found(to), to),
        _ => (Did::FoundKept, HERE),
    };
    assert!(
        did.iter().all(|did| *did == decided || *did == found),
        "{did:?}"
    );
    assert_eq!(object.outcome(), Some(place), "{did:?}");
}

/// Two workers mark an object that does not move, and a third changes the same word.
fn mark_race<L: Layout>() {
    let object = Arc::new(L::new());
    let other = {
        let object = Arc::clone(&object);
        thread::spawn(move || object.mark())
    };
    let third = {
        let object = Arc::clone(&object);
        thread::spawn(move || object.disturb())
    };
    let first = object.mark();
    let second = other.join().unwrap();
    third.join().unwrap();
    assert!(
        first != second,
        "not exactly one marked it: {first}, {second}"
    );
    assert!(!object.mark(), "the mark was lost");
    assert!(object.is_disturbed(), "another change of the word was lost");
}

/// Worker 1 copies the object, worker 0 looks, and between the two a third changes the same words.
fn publication_with_a_neighbour<L: Layout>() {
    let object = Arc::new(L::new());
    let other = {
        let object = Arc::clone(&object);
        thread::spawn(move || reach(&*object, 1, true))
    };
    let third = {
        let object = Arc::clone(&object);
        thread::spawn(move || object.disturb())
    };
    let did = [reach(&*object, 0, true), other.join().unwrap()];
    third.join().unwrap();
    assert!(did.contains(&Did::Copied(address(0))) ^ did.contains(&Did::Copied(address(1))));
    assert!(object.is_disturbed());
}

type Header = InHeader<AtomicUsize>;
type Bits = InSide<AtomicU64>;

const ROOM: &[bool] = &[true];
const TWICE: &[bool] = &[true, true];
const NO_ROOM: &[bool] = &[false];
const TWICE_NO_ROOM: &[bool] = &[false, false];

#[test]
fn one_of_two_copies_in_header() {
    model(5, || race::<Header>(&[TWICE, TWICE]));
}

#[test]
fn one_of_two_copies_in_side() {
    model(5, || race::<Bits>(&[TWICE, TWICE]));
}

#[test]
fn one_of_three_copies_in_header() {
    model(3, || race::<Header>(&[ROOM, TWICE, ROOM]));
}

#[test]
fn one_of_three_copies_in_side() {
    model(3, || race::<Bits>(&[ROOM, TWICE, ROOM]));
}

/// Whoever is first decides for both. Each comes twice, as to an object with several references.
#[test]
fn one_without_room_keeps_it_in_header() {
    model(5, || race::<Header>(&[TWICE_NO_ROOM, TWICE]));
}

#[test]
fn one_without_room_keeps_it_in_side() {
    model(5, || race::<Bits>(&[TWICE_NO_ROOM, TWICE]));
}

#[test]
fn it_is_kept_once_in_header() {
    model(5, || race::<Header>(&[TWICE_NO_ROOM, TWICE_NO_ROOM]));
}

#[test]
fn it_is_kept_once_in_side() {
    model(5, || race::<Bits>(&[TWICE_NO_ROOM, TWICE_NO_ROOM]));
}

#[test]
fn three_come_to_what_stays_in_header() {
    model(3, || race::<Header>(&[NO_ROOM, ROOM, TWICE_NO_ROOM]));
}

#[test]
fn three_come_to_what_stays_in_side() {
    model(3, || race::<Bits>(&[NO_ROOM, ROOM, TWICE_NO_ROOM]));
}

#[test]
fn a_neighbour_does_not_break_publication() {
    model(3, publication_with_a_neighbour::<Bits>);
}

#[test]
fn one_of_two_marks_in_header() {
    model(5, mark_race::<Header>);
}

#[test]
fn one_of_two_marks_in_side() {
    model(5, mark_race::<Bits>);
}

// ---- what is wrong is found ------------------------------------------------------------------------------------------

#[test]
#[should_panic(expected = "Causality violation")]
fn a_header_published_without_release_is_found() {
    model(5, || {
        race::<InHeader<NoRelease<AtomicUsize>>>(&[ROOM, ROOM])
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_header_read_without_acquire_is_found() {
    model(5, || {
        race::<InHeader<NoAcquire<AtomicUsize>>>(&[ROOM, ROOM])
    });
}

#[test]
#[should_panic(expected = "not exactly one decided")]
fn a_claim_of_a_header_in_two_steps_is_found() {
    model(5, || race::<InHeader<Torn<AtomicUsize>>>(&[ROOM, ROOM]));
}

#[test]
#[should_panic(expected = "not exactly one marked it")]
fn a_mark_in_a_header_in_two_steps_is_found() {
    model(5, mark_race::<InHeader<Torn<AtomicUsize>>>);
}

#[test]
#[should_panic]
fn bits_published_without_release_are_found() {
    model(5, || race::<InSide<NoRelease<AtomicU64>>>(&[ROOM, ROOM]));
}

#[test]
#[should_panic]
fn bits_read_without_acquire_are_found() {
    model(5, || race::<InSide<NoAcquire<AtomicU64>>>(&[ROOM, ROOM]));
}

#[test]
#[should_panic(expected = "not exactly one decided")]
fn a_claim_of_bits_in_two_steps_is_found() {
    model(5, || race::<InSide<Torn<AtomicU64>>>(&[ROOM, ROOM]));
}

#[test]
#[should_panic]
fn a_mark_of_bits_in_two_steps_is_found() {
    model(5, mark_race::<InSide<Torn<AtomicU64>>>);
}

/// Wrong: who keeps an object takes his claim back at once, so that another one can claim it.
struct TakesBack(Bits);

impl Layout for TakesBack {
    fn new() -> Self {
        Self(Bits::new())
    }
    fn rooms(&self) -> &[Room] {
        self.0.rooms()
    }
    fn claim(&self) -> Forward {
        self.0.claim()
    }
    fn copied(kept: usize) -> usize {
        Bits::copied(kept)
    }
    fn moved(&self, to: usize) {
        self.0.moved(to);
    }
    fn stays(&self, kept: usize) {
        self.0.stays(kept);
        forward::settle_side(&self.0.claims, &self.0.stayed);
    }
    fn outcome(&self) -> Option<usize> {
        self.0.outcome()
    }
    fn mark(&self) -> bool {
        self.0.mark()
    }
    fn disturb(&self) {
        self.0.disturb();
    }
    fn is_disturbed(&self) -> bool {
        self.0.is_disturbed()
    }
}

#[test]
#[should_panic]
fn a_claim_taken_back_too_early_is_found() {
    model(5, || race::<TakesBack>(&[NO_ROOM, NO_ROOM]));
}
