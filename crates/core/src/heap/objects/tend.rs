//! What the scavenger does for a heap of objects: memory goes back to the system, also on request.

use super::{Effort, Heap, Inner, Mutator};
use crate::bugs::{Bug, is_on};
use crate::collect::local::Locals;
use crate::event::{Cause, Event};
use crate::heap::decay::{Scavenging, View};
use crate::heap::scavenger::{Scavenger, Tended};
use crate::options::Options;
use crate::probes;
use crate::space::pages::PAGE;
use crate::vm::Vm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use heapwright_os::{clock, current_thread};
use std::sync::{Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// A heap that never had so many blocks, 1 MiB, is not looked after: it would cost more than there is to be had.
const WORTH: u64 = 32;
/// How many milliseconds a request waits for a mark that goes on.
const MARK_LOOKS: u32 = 1000;
/// Pages that go back while the lock is held once: some hundred microseconds.
const SLICE: usize = (4 << 20) / PAGE;

/// A collection that mutators are to make at their next safepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Wish {
    Nothing,
    /// The program is quiet.
    Idle,
    /// There is much new external memory.
    External,
    /// A thread that may not collect asked: [`Heap::ask_for_collection`].
    Requested,
}

/// What a heap keeps for it.
#[derive(Debug)]
pub(super) struct Tending<H> {
    scavenger: Scavenger,
    heap: Weak<H>,
    tended: AtomicBool,
    /// Raised under the lock of the list of mutators, before their flags; lowered before them, by who has the world stopped. So if
    /// it is up, so are the flags of all who were attached.
    wish: AtomicU32,
    blocks: AtomicU64,
    changes: AtomicU64,
    changes_at_begin: AtomicU64,
    changes_at_full: AtomicU64,
    /// How long the last full collection took, in nanoseconds.
    full_ns: AtomicU64,
    returned: AtomicUsize,
    state: Mutex<Scavenging>,
    /// Held while a thread that is outside tells the listener something: the listener's own locks are then free when it is.
    telling: Mutex<()>,
}

impl<V: Vm> Tending<Inner<V>> {
    pub(super) fn new(scavenger: Scavenger, heap: Weak<Inner<V>>, options: &Options) -> Self {
        Self {
            scavenger,
            heap,
            tended: AtomicBool::new(options.decay == crate::options::Decay::Off),
            wish: AtomicU32::new(Wish::Nothing as u32),
            blocks: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            changes_at_begin: AtomicU64::new(0),
            changes_at_full: AtomicU64::new(0),
            full_ns: AtomicU64::new(0),
            returned: AtomicUsize::new(0),
            state: Mutex::new(Scavenging::new(options)),
            telling: Mutex::default(),
        }
    }

    /// The heap.
    pub(super) fn heap(&self) -> &Weak<Inner<V>> {
        &self.heap
    }

    /// The locks, for a fork.
    pub(super) fn hold(&self) -> (impl Sized + '_, impl Sized + '_, impl Sized + '_) {
        let telling = self.telling();
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (self.scavenger.hold(), state, telling)
    }

    /// Before a thread that is outside tells the listener something.
    fn telling(&self) -> impl Sized + '_ {
        let hold = !is_on(Bug::ForkListenerNotHeld);
        hold.then(|| self.telling.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// In the child of a fork there is no thread yet that would have it in hand.
    pub(super) fn forked(&self, options: &Options) {
        let off = options.decay == crate::options::Decay::Off;
        if !is_on(Bug::ForkTendedKept) {
            self.tended.store(off, Ordering::Relaxed);
        }
    }

    /// A mutator took blocks or pages.
    pub(super) fn took(&self, blocks: usize) {
        self.blocks
            .fetch_add(blocks.max(1) as u64, Ordering::Relaxed);
        self.changed();
    }

    /// Something happened after which other objects may live than before.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.wake();
    }

    /// Has the scavenger look at the heap.
    pub(super) fn wake(&self) {
        if !self.tended.load(Ordering::Relaxed) && self.blocks.load(Ordering::Relaxed) >= WORTH {
            self.scavenger.look_after(&self.heap, &self.tended);
        }
    }

    /// A mark begins that goes on while mutators run: what changes from now on, it does not see. World stopped.
    pub(super) fn marking_begins(&self) {
        let changes = self.changes.load(Ordering::Relaxed);
        self.changes_at_begin.store(changes, Ordering::Relaxed);
    }

    /// A full collection ended, with the world stopped: nothing changed since it began, unless it completed such a mark.
    pub(super) fn collected_all(&self, took_ns: u64, completed: bool) {
        self.full_ns.store(took_ns, Ordering::Relaxed);
        let seen = if completed {
            &self.changes_at_begin
        } else {
            &self.changes
        };
        self.changes_at_full
            .store(seen.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Bytes that went back to the system.
    pub(super) fn returned(&self) -> usize {
        self.returned.load(Ordering::Relaxed)
    }

    /// Has the mutators collect at their next safepoint.
    pub(super) fn wish(&self, locals: &Locals<V>, wish: Wish) {
        locals.raise_after(|| self.wish.store(wish as u32, Ordering::Relaxed));
    }

    /// The wish comes true, or there is none. By a mutator.
    pub(super) fn take_wish(&self) -> Wish {
        if self.wish.load(Ordering::Relaxed) == Wish::Nothing as u32 {
            return Wish::Nothing;
        }
        match self.wish.swap(Wish::Nothing as u32, Ordering::Relaxed) {
            1 => Wish::Idle,
            2 => Wish::External,
            3 => Wish::Requested,
            _ => Wish::Nothing,
        }
    }

    /// Lowers the flags of all mutators, and forgets the wish, but for a collection that was asked for. By who has the world stopped.
    pub(super) fn lower(&self, locals: &Locals<V>) {
        locals.lower_if(|| {
            // What was done with the world stopped may have been less than that.
            let stays = self.wish.load(Ordering::Relaxed) == Wish::Requested as u32;
            if !stays {
                self.wish.store(Wish::Nothing as u32, Ordering::Relaxed);
            }
            !stays
        });
    }
}

impl<V: Vm> Tended for Inner<V> {
    fn tended(&self) -> &AtomicBool {
        &self.tending.tended
    }

    fn tend(&self) -> bool {
        let pressure = self.follow();
        let view = self.view(pressure);
        let tending = &self.tending;
        let state = || tending.state.lock().unwrap_or_else(PoisonError::into_inner);
        let step = state().step(&view);
        if step.give > 0 && self.give_back(step.give) == 0 {
            state().refused(clock::monotonic_ns());
        }
        if step.collect && !self.collect_outside(Cause::Idle, Effort::Emergency) {
            tending.wish(&self.locals, Wish::Idle);
        }
        step.more
    }
}

impl<V: Vm> Inner<V> {
    fn view(&self, pressure: heapwright_os::Pressure) -> View {
        let tending = &self.tending;
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let usage = self.page_usage();
        let idle = self.space.with(|stock| stock.cells.pages().idle_pages());
        View {
            now_ns: clock::monotonic_ns(),
            used: usage.used * PAGE,
            idle: idle * PAGE,
            limit: usage.limit.saturating_mul(PAGE),
            blocks: load(&tending.blocks),
            changes: load(&tending.changes),
            changes_at_full: load(&tending.changes_at_full),
            full: load(&self.full_collections),
            full_ns: load(&tending.full_ns),
            pressure,
            above_soft: self.sizing.is_above_soft(usage.used),
            collects: self.facts.collects,
        }
    }

    /// Gives idle memory back, at most about so many bytes: how many went.
    pub(super) fn give_back(&self, bytes: usize) -> usize {
        let mut left = bytes.div_ceil(PAGE);
        let mut gone = 0;
        while left > 0 {
            let slice = left.min(SLICE);
            let bytes = self.space.with(|stock| {
                let idle = stock.cells.pages().idle_pages();
                stock.cells.return_idle(idle.saturating_sub(slice) * PAGE)
            });
            if bytes == 0 {
                break;
            }
            gone += bytes;
            left -= slice;
        }
        self.tending.returned.fetch_add(gone, Ordering::Relaxed);
        if gone != 0 {
            probes::returned(gone as u64);
        }
        if let (Some(listener), true) = (&self.listener, gone != 0) {
            let _telling = self.tending.telling();
            listener.event(Event::Returned {
                at_ns: clock::monotonic_ns(),
                bytes: gone,
            });
        }
        gone
    }

    /// Collects on the calling thread, which is outside of the heap, if nobody is inside: true if that is so.
    fn collect_outside(&self, cause: Cause, effort: Effort) -> bool {
        if !self.facts.collects || !self.gate.try_close() {
            return false;
        }
        self.stopper.store(current_thread(), Ordering::Relaxed);
        // Completing a mark that goes on frees nothing that died since it began.
        let collect = || {
            let stats = self.collect_stopped(cause, effort, false);
            // Before anybody else collects. Nobody is inside: who has a lock of malloc runs.
            let worked = match is_on(Bug::WorkedTogether) {
                true => Vec::new(),
                false => self.worked.take(stats.number),
            };
            (stats, worked)
        };
        let marked = self.space.marking().then(collect);
        let last = collect();
        self.tending.lower(&self.locals);
        self.stopper.store(0, Ordering::Relaxed);
        self.gate.open(false);
        for (stats, worked) in marked.iter().chain([&last]) {
            self.tell_runtime(stats);
            let _telling = self.tending.telling();
            if is_on(Bug::WorkedTogether) {
                self.tell_listener(stats, &self.worked.take(stats.number));
            } else {
                self.tell_listener(stats, worked);
            }
        }
        true
    }

    /// Gives back all that is idle.
    fn give_all_back(&self) -> usize {
        self.give_back(usize::MAX)
    }
}

impl<V: Vm> Heap<V> {
    /// Has everything collected soon: here and now if no mutator is inside of the heap, else by the first of them that comes to a safepoint.
    /// False: the plan does not collect. Any thread, at once otherwise.
    ///
    /// ```
    /// use heapwright::example::Pairs;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("gencopy")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// assert!(heap.ask_for_collection());
    /// mutator.poll();
    /// assert_eq!(heap.usage().full_collections, 1);
    /// mutator.outside(|| heap.ask_for_collection());
    /// assert_eq!(heap.usage().full_collections, 2);
    /// assert!(!Pairs::heap("nogc")?.ask_for_collection());
    /// # Ok(())
    /// # }
    /// ```
    pub fn ask_for_collection(&self) -> bool {
        let inner = &self.0;
        if inner.facts.collects && !inner.collect_outside(Cause::Requested, Effort::Full) {
            inner.tending.wish(&inner.locals, Wish::Requested);
        }
        inner.facts.collects
    }

    /// Gives all memory that nothing lives in back to the system, now: how many bytes went. Any thread.
    ///
    /// If no mutator is inside of the heap, it is collected first (a mark that goes on is waited for, up to a second); with one that is, [`Mutator::release_memory`] does that.
    /// Memory that the system does not take back stays with the heap.
    pub fn release_memory(&self) -> usize {
        let inner = &self.0;
        // The thread that marks is inside while it does, and a moment longer.
        let mut marked = true;
        for _ in 0..MARK_LOOKS {
            let marking = inner.space.marking();
            if inner.collect_outside(Cause::Requested, Effort::Emergency) || !marking && !marked {
                break;
            }
            marked = marking;
            thread::sleep(Duration::from_millis(1));
        }
        inner.give_all_back()
    }
}

impl<V: Vm> Mutator<V> {
    /// Collects everything, at any price, and gives all memory that nothing lives in back to the system, now: how many bytes went.
    /// A safepoint.
    pub fn release_memory(&mut self) -> usize {
        let inner = self.inner();
        let _ = inner.collect_all(Cause::Requested, Effort::Emergency);
        inner.give_all_back()
    }

    /// Collects if that was wished for. A safepoint.
    pub(super) fn grant(&mut self) {
        let inner = self.inner();
        match inner.tending.take_wish() {
            Wish::Nothing => {}
            Wish::Idle => {
                let _ = inner.collect_all(Cause::Idle, Effort::Emergency);
            }
            Wish::External => {
                let _ = inner.collect(Cause::External, Effort::Full);
            }
            Wish::Requested => {
                let _ = inner.collect_all(Cause::Requested, Effort::Full);
            }
        }
    }
}
