//! The runtime of these tests: an object is a header, a strong field, and four words that nobody scans.

use heapwright::{
    Address, Builder, Ephemeron, Event, Heap, Listener, Metadata, Mutator, ObjectReference,
    Options, PlanName, Reference, RootVisitor, SlotVisitor, Vm, WeakVisitor, WordSlots,
};
use std::sync::Mutex;

pub(crate) const COLLECTING: [PlanName; 10] = [
    PlanName::MarkSweep,
    PlanName::SemiSpace,
    PlanName::MarkCompact,
    PlanName::Immix,
    PlanName::GenCopy,
    PlanName::GenImmix,
    PlanName::StickyImmix,
    PlanName::StickyMarkSweep,
    PlanName::ConcurrentImmix,
    PlanName::PageProtect,
];

/// Offsets in an object.
pub(crate) const NEXT: u32 = 8;
pub(crate) const WEAK: u32 = 16;
pub(crate) const VALUE: u32 = 24;
pub(crate) const USED: u32 = 32;
pub(crate) const BYTES: usize = 48;

/// The runtime. The header has the object's number, above the heap's bits.
#[derive(Debug, Default)]
pub(crate) struct Objects<const HEADER: bool> {
    /// A weak table of the runtime's own: keys and values. An entry whose key dies disappears.
    pub(crate) table: Mutex<Vec<(usize, usize)>>,
    /// How often it was asked what it keeps.
    pub(crate) asked: Mutex<usize>,
}

// SAFETY: 1, 2: all objects are alike. 3: the threads' words. 4: the number is above the low bits, which `new` keeps. 5: `link` writes
// through the barrier, the others by what the heap offers. 6: nothing allocates.
unsafe impl<const HEADER: bool> Vm for Objects<HEADER> {
    type Thread = Vec<usize>;
    type Slots = WordSlots;
    const METADATA: Metadata = if HEADER {
        Metadata::Header
    } else {
        Metadata::Side
    };
    const WEAK_TABLES: bool = true;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, _: ObjectReference) -> usize {
        BYTES
    }

    fn scan<S: SlotVisitor>(&self, object: ObjectReference, visit: &mut S) {
        visit.slot(object.to_address().add(NEXT as usize));
    }

    fn thread_roots<R: RootVisitor>(&self, thread: &mut Vec<usize>, visit: &mut R) {
        visit.slots(Address::from_ptr(thread.as_ptr()), thread.len());
    }

    fn weak_tables<W: WeakVisitor>(&self, visit: &mut W) {
        *self.asked.lock().unwrap() += 1;
        for (key, value) in self.table.lock().unwrap().iter() {
            if visit.get(object(*key)).is_some() {
                visit.keep(object(*value));
            }
        }
    }

    fn weak<W: WeakVisitor>(&self, visit: &mut W) {
        self.table.lock().unwrap().retain_mut(|(key, value)| {
            let Some(now) = visit.get(object(*key)) else {
                return false;
            };
            *key = word(now);
            *value = word(visit.get(object(*value)).unwrap());
            true
        });
    }
}

pub(crate) fn object(word: usize) -> ObjectReference {
    ObjectReference::from_address(Address::new(word)).unwrap()
}

pub(crate) fn word(object: ObjectReference) -> usize {
    object.to_address().as_usize()
}

/// Fails where the verifier finds something.
struct Strict;

impl Listener for Strict {
    fn event(&self, event: Event<'_>) {
        if let Event::Violation(violation) = event {
            eprintln!("{violation:?}");
        }
    }
}

/// How a heap of these tests is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) plan: PlanName,
    pub(crate) workers: usize,
    pub(crate) yields: usize,
}

impl Setting {
    pub(crate) fn options(&self) -> Options {
        let mut options = Options {
            plan: self.plan,
            max: 32 << 20,
            workers: self.workers,
            yields: self.yields,
            verify: true,
            poison: true,
            ..Options::default()
        };
        options.set("evacuate", "all").unwrap();
        options
    }

    pub(crate) fn heap<const HEADER: bool>(&self, options: Options) -> Heap<Objects<HEADER>> {
        Builder::default()
            .options(options)
            .listener(Box::new(Strict))
            .build(Objects::default())
            .unwrap()
    }

    pub(crate) fn generational(&self) -> bool {
        heapwright::plan::facts(self.plan).generational
    }

    /// A number of objects that the plan can afford.
    pub(crate) fn many(&self, count: usize) -> usize {
        if self.plan == PlanName::PageProtect {
            count.min(150)
        } else {
            count
        }
    }
}

/// All settings.
pub(crate) fn settings() -> impl Iterator<Item = Setting> {
    COLLECTING.into_iter().flat_map(|plan| {
        [(1, 0), (2, 20), (4, 3)].map(|(workers, yields)| Setting {
            plan,
            workers,
            yields,
        })
    })
}

/// A test for each setting, with bits in side tables and in headers. `$body` is a generic function of a mutator and its setting.
#[macro_export]
macro_rules! on_every_plan {
    ($(#[$about:meta])* $name:ident, $thread:ident, $setting:ident, $body:block) => {
        $(#[$about])*
        #[test]
        fn $name() {
            fn body<const HEADER: bool>(
                $thread: &mut $crate::runtime::Thread<HEADER>,
                $setting: $crate::runtime::Setting,
            ) $body
            for setting in $crate::runtime::settings() {
                let heap = setting.heap::<false>(setting.options());
                body::<false>(&mut $crate::runtime::Thread::new(&heap), setting);
                let heap = setting.heap::<true>(setting.options());
                body::<true>(&mut $crate::runtime::Thread::new(&heap), setting);
            }
        }
    };
}

/// A thread of the runtime, whose objects are named by places in its list of roots.
pub(crate) struct Thread<const HEADER: bool> {
    pub(crate) mutator: Mutator<Objects<HEADER>>,
    pub(crate) heap: Heap<Objects<HEADER>>,
}

impl<const HEADER: bool> Thread<HEADER> {
    pub(crate) fn new(heap: &Heap<Objects<HEADER>>) -> Self {
        Self {
            mutator: heap.attach(Vec::new()).unwrap(),
            heap: heap.clone(),
        }
    }

    /// A new object with a number, in a new root: its place.
    pub(crate) fn new_object(&mut self, number: usize) -> usize {
        let made = self.mutator.alloc(BYTES).unwrap();
        // SAFETY: a new object; its low bits stay.
        unsafe {
            let header: usize = made.to_address().load();
            made.to_address().store(header | number << 8);
        }
        self.mutator.thread().push(word(made));
        self.mutator.thread().len() - 1
    }

    pub(crate) fn at(&mut self, root: usize) -> ObjectReference {
        object(self.mutator.thread()[root])
    }

    pub(crate) fn drop_root(&mut self, root: usize) {
        self.mutator.thread()[root] = 0;
    }

    /// Puts an object into a root.
    pub(crate) fn keep(&mut self, object: ObjectReference) -> usize {
        self.mutator.thread().push(word(object));
        self.mutator.thread().len() - 1
    }

    pub(crate) fn number(object: ObjectReference) -> usize {
        // SAFETY: an object that is alive.
        unsafe { object.to_address().load::<usize>() >> 8 }
    }

    /// Writes the strong field.
    pub(crate) fn link(&mut self, from: usize, to: usize) {
        let (from, to) = (self.at(from), self.at(to));
        // SAFETY: the field of an object that is alive.
        unsafe {
            self.mutator
                .write(from, from.to_address().add(NEXT as usize), to);
        }
    }

    pub(crate) fn next(object: ObjectReference) -> Option<ObjectReference> {
        // SAFETY: the field of an object that is alive.
        let next = unsafe { object.to_address().add(NEXT as usize).load::<usize>() };
        ObjectReference::from_address(Address::new(next))
    }

    /// Collects everything.
    pub(crate) fn collect(&mut self) -> heapwright::CollectionStats {
        let stats = loop {
            if let Some(stats) = self.mutator.collect() {
                break stats;
            }
        };
        assert_eq!(stats.violations, 0);
        stats
    }

    /// Collects what is young, where the plan has generations; else everything.
    pub(crate) fn collect_young(&mut self) -> heapwright::CollectionStats {
        let stats = loop {
            if let Some(stats) = self.mutator.collect_young() {
                break stats;
            }
        };
        assert_eq!(stats.violations, 0);
        stats
    }

    // The words of these objects are as the heap wants them: all slots are in the object, and `scan` does not report them.

    /// Makes an object a reference object.
    pub(crate) fn refer(
        &mut self,
        holder: usize,
        target: usize,
        make: impl Fn(ObjectReference) -> Reference,
    ) {
        let (reference, target) = (make(self.at(holder)), self.at(target));
        let slot = reference.holder.to_address().add(reference.slot as usize);
        // SAFETY: see above; what is written before it is registered needs no barrier.
        unsafe {
            slot.store(word(target));
            self.mutator.add_reference(&reference).unwrap();
        }
    }

    pub(crate) fn weak(&mut self, holder: usize, target: usize) {
        self.refer(holder, target, |holder| Reference::weak(holder, WEAK));
    }

    /// What a reference object refers to.
    pub(crate) fn read(
        &mut self,
        holder: usize,
        make: impl Fn(ObjectReference) -> Reference,
    ) -> Option<usize> {
        let reference = make(self.at(holder));
        // SAFETY: see above.
        let target = unsafe { self.mutator.referent(&reference) };
        target.map(Self::number)
    }

    pub(crate) fn read_weak(&mut self, holder: usize) -> Option<usize> {
        self.read(holder, |holder| Reference::weak(holder, WEAK))
    }

    /// Makes an object an ephemeron.
    pub(crate) fn ephemeron(&mut self, holder: usize, key: usize, value: usize) {
        let (holder, key, value) = (self.at(holder), self.at(key), self.at(value));
        // SAFETY: see above.
        unsafe {
            holder.to_address().add(WEAK as usize).store(word(key));
            holder.to_address().add(VALUE as usize).store(word(value));
            self.mutator.add_ephemeron(&Self::pair(holder)).unwrap();
        }
    }

    pub(crate) fn pair(holder: ObjectReference) -> Ephemeron {
        Ephemeron {
            holder,
            key: WEAK,
            value: VALUE,
        }
    }

    /// The numbers of an ephemeron's key and value.
    pub(crate) fn read_ephemeron(&mut self, holder: usize) -> Option<(usize, Option<usize>)> {
        let pair = Self::pair(self.at(holder));
        // SAFETY: see above.
        let (key, value) = unsafe { self.mutator.ephemeron(&pair) }?;
        Some((Self::number(key), value.map(Self::number)))
    }

    /// The numbers of what is queued to be finalized, all of it.
    pub(crate) fn finalizable(&mut self) -> Vec<usize> {
        let mut numbers = Vec::new();
        while let Some(next) = self.mutator.next_finalizable() {
            assert_eq!(next.token, Self::number(next.object) * 10);
            numbers.push(Self::number(next.object));
        }
        numbers
    }

    pub(crate) fn finalizer(&mut self, root: usize, order: heapwright::FinalizerOrder) {
        let object = self.at(root);
        let token = Self::number(object) * 10;
        self.mutator.add_finalizer(object, order, token).unwrap();
    }
}
