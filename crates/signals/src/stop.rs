//! The protocol, without the system calls: who is inside, who is in an interruptible section, and who is stopped in one.
//!
//! The *epoch* is odd while the world is closed. A thread in a section has its number in its record; it counts as inside. Who closes
//! makes the epoch odd, sends the signal to each thread in a section, and waits until each thread inside has gone outside, as at the
//! gate of the core, or has acknowledged the epoch in its handler, where it then waits for the epoch to change.
//!
//! | the thread is                      | the handler               | who closes counts on                          |
//! |------------------------------------|---------------------------|-----------------------------------------------|
//! | in a section                       | acknowledges and waits    | its acknowledgement                           |
//! | about to begin one                 | returns                   | the thread, which looks at the epoch and sends itself the signal |
//! | after the end of one               | returns                   | its next poll                                 |
//! | in a section, on a signal stack    | returns                   | the signal that is sent again                 |
//! | inside, in no section              | is not called             | its next poll                                 |
//! | outside                            | is not called             | nothing                                       |
//! | gone, with its section not ended   | is not called             | `ESRCH`: it is outside from then on           |
//!
//! The beginning is a store, then a load, with no fence between: who closes may look before the store is there for others, and the
//! thread may load an even epoch all the same. It has not acknowledged, so nothing goes wrong; it is found when signals are sent
//! again, to those that have not acknowledged after [`PATIENCE_NS`]. That is also for signals that get lost because one is pending.

use crate::primitive::{
    AtomicPtr, AtomicU32, AtomicUsize, Lock, Ordering, Word, instruction, monotonic_ns,
};
use crate::system::{self, Mask};
use core::ptr;

/// The first wait before signals are sent again; doubled each time.
const PATIENCE_NS: u64 = 500_000;
const PATIENCE_MAX_NS: u64 = 64_000_000;

/// What a section is known by. Used again when no handle refers to it; freed with the world.
#[derive(Debug)]
pub(crate) struct Record {
    /// The number of the thread that is in a section; 0 if none is.
    pub(crate) owner: AtomicU32,
    /// The last epoch that its thread acknowledged.
    acknowledged: AtomicU32,
    /// While it is acknowledged: the thread's registers and stack are from here to `high`.
    low: AtomicUsize,
    high: AtomicUsize,
    /// Sections in the section. Its thread's only.
    depth: AtomicU32,
    /// The record of the section of another world that this one is in. Its thread's only.
    pub(crate) outer: AtomicPtr<Record>,
    /// How many handles refer to it.
    pub(crate) handles: AtomicU32,
    next: AtomicPtr<Record>,
    /// The model's signal, and how often it was sent.
    #[cfg(loom)]
    pub(crate) pending: AtomicU32,
    #[cfg(loom)]
    pub(crate) sent: Word,
    /// The world. It outlives the record.
    pub(crate) stops: *const Stops,
}

// SAFETY: all is atomic but the pointer, which does not change, and leads to what is Sync and outlives the record.
unsafe impl Sync for Record {}
// SAFETY: as above.
unsafe impl Send for Record {}

#[derive(Debug, Default)]
struct State {
    inside: usize,
    closed: bool,
    /// What signals the thread that closed had blocked before; none if it sent no signals.
    mask: Option<Mask>,
}

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Stops {
    pub(crate) signal: i32,
    state: Lock<State>,
    /// Odd while the world is closed. Changed with the lock held.
    epoch: Word,
    /// Changes when somebody went outside or acknowledged.
    changed: Word,
    /// How many have acknowledged the present epoch.
    stopped: AtomicU32,
    records: AtomicPtr<Record>,
}

impl Stops {
    pub(crate) fn new(signal: i32) -> Self {
        Self {
            signal,
            state: Lock::default(),
            epoch: Word::default(),
            changed: Word::default(),
            stopped: AtomicU32::new(0),
            records: AtomicPtr::new(ptr::null_mut()),
        }
    }

    // ---- records -------------------------------------------------------------------------------------------------

    fn records(&self) -> impl Iterator<Item = &Record> {
        // SAFETY: records are in the list until the world is dropped.
        let get = |at: *mut Record| unsafe { at.as_ref() };
        let next = move |record: &&Record| get(record.next.load(Ordering::Relaxed));
        core::iter::successors(get(self.records.load(Ordering::Acquire)), next)
    }

    /// A record for a new handle. Waits for nobody.
    pub(crate) fn take_record(&self) -> *const Record {
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        let free = |r: &&Record| r.handles.compare_exchange(0, 1, acquire, relaxed).is_ok();
        if let Some(record) = self.records().find(free) {
            return record;
        }
        let record = Box::into_raw(Box::new(Record {
            owner: AtomicU32::new(0),
            acknowledged: AtomicU32::new(0),
            low: AtomicUsize::new(0),
            high: AtomicUsize::new(0),
            depth: AtomicU32::new(0),
            outer: AtomicPtr::new(ptr::null_mut()),
            handles: AtomicU32::new(1),
            next: AtomicPtr::new(ptr::null_mut()),
            #[cfg(loom)]
            pending: AtomicU32::new(0),
            #[cfg(loom)]
            sent: Word::default(),
            stops: self,
        }));
        let mut first = self.records.load(relaxed);
        loop {
            // SAFETY: nobody frees it while the world is there.
            unsafe { &*record }.next.store(first, relaxed);
            let pushed = (self.records).compare_exchange(first, record, Ordering::Release, relaxed);
            match pushed {
                Ok(_) => return record,
                Err(now) => first = now,
            }
        }
    }

    // ---- sections ------------------------------------------------------------------------------------------------

    /// The calling thread, whose number is `own`, begins a section; all that is to be kept lies below `high` on its stack. True if it
    /// was in none with this record.
    #[inline(always)]
    pub(crate) fn begin(&self, record: &Record, own: u32, high: usize) -> bool {
        let depth = record.depth.load(Ordering::Relaxed);
        record.depth.store(depth + 1, Ordering::Relaxed);
        if depth != 0 {
            return false;
        }
        record.high.store(high, Ordering::Relaxed);
        instruction(record);
        record.owner.store(own, Ordering::Relaxed);
        instruction(record);
        if self.epoch.load() & 1 != 0 {
            self.stop_here(record, own);
        }
        true
    }

    /// The thread begins a section while the world is closed.
    #[cold]
    fn stop_here(&self, record: &Record, own: u32) {
        // The handler comes before the call returns, and waits there.
        while self.epoch.load() & 1 != 0 {
            system::unblock(self.signal);
            system::send(record, own, self.signal);
            instruction(record);
        }
    }

    /// The section ends: true if it was the outermost.
    #[inline(always)]
    pub(crate) fn end(record: &Record) -> bool {
        let depth = record.depth.load(Ordering::Relaxed).saturating_sub(1);
        record.depth.store(depth, Ordering::Relaxed);
        if depth != 0 {
            return false;
        }
        instruction(record);
        record.owner.store(0, Ordering::Release);
        instruction(record);
        true
    }

    /// In the handler, on the record's thread: if it is in a section and the world is closed, waits until it is open. Its registers and its stack
    /// begin at `low`; `fit` says whether that is true.
    pub(crate) fn handle(&self, record: &Record, low: usize, fit: impl Fn(usize) -> bool) {
        loop {
            let epoch = self.epoch.load();
            let owner = record.owner.load(Ordering::Relaxed);
            if epoch & 1 == 0 || owner == 0 {
                return;
            }
            let high = record.high.load(Ordering::Relaxed);
            if low >= high || !fit(high) {
                return;
            }
            if record.acknowledged.load(Ordering::Relaxed) != epoch {
                record.low.store(low, Ordering::Relaxed);
                record.acknowledged.store(epoch, Ordering::Relaxed);
                self.stopped.fetch_add(1, Ordering::Release);
                self.notify();
            }
            self.epoch.wait(epoch, None);
        }
    }

    /// World closed: where the registers and the stack of the record's thread are, if it is stopped in a section.
    pub(crate) fn stopped_at(&self, record: &Record) -> Option<core::ops::Range<usize>> {
        let epoch = self.epoch.load();
        if epoch & 1 == 0 || record.acknowledged.load(Ordering::Relaxed) != epoch {
            return None;
        }
        Some(record.low.load(Ordering::Relaxed)..record.high.load(Ordering::Relaxed))
    }

    // ---- the world -----------------------------------------------------------------------------------------------

    fn notify(&self) {
        self.changed.add();
        self.changed.wake();
    }

    /// As soon as the world is open, `count` more are inside.
    pub(crate) fn come_in(&self, count: usize) {
        loop {
            let epoch = self.epoch.load();
            let open = self.state.with(|state| {
                state.inside += if state.closed { 0 } else { count };
                !state.closed
            });
            if open {
                return;
            }
            self.epoch.wait(epoch, None);
        }
    }

    pub(crate) fn leave(&self) {
        let closed = self.state.with(|state| {
            state.inside -= 1;
            state.closed
        });
        if closed {
            self.notify();
        }
    }

    pub(crate) fn stop(&self) {
        let closed = self.state.with(|state| {
            state.inside -= usize::from(state.closed);
            state.closed
        });
        if closed {
            self.notify();
            self.come_in(1);
        }
    }

    /// Closes the world if nobody has: how many were inside then.
    fn begin_close(&self, state: &mut State) -> Option<usize> {
        if state.closed {
            return None;
        }
        state.closed = true;
        self.stopped.store(0, Ordering::Relaxed);
        self.epoch.add();
        Some(state.inside)
    }

    pub(crate) fn close(&self, inside: bool, raise: impl FnOnce()) -> bool {
        let own = usize::from(inside);
        let were = self.state.with(|state| {
            let were = self.begin_close(state);
            state.inside -= if were.is_none() { own } else { 0 };
            were
        });
        let Some(were) = were else {
            if inside {
                self.notify();
            }
            self.come_in(own);
            return false;
        };
        if were > own {
            raise();
            self.bring_out(own);
        }
        true
    }

    /// Waits until all but `own` are outside or stopped.
    fn bring_out(&self, own: usize) {
        let epoch = self.epoch.load();
        let mut patience = PATIENCE_NS;
        self.send_all(epoch);
        let mut deadline = monotonic_ns() + patience;
        loop {
            let seen = self.changed.load();
            // In this order: both numbers only come nearer to each other while the world is closed.
            let inside = self.state.with(|state| state.inside);
            if inside == own + self.stopped.load(Ordering::Acquire) as usize {
                return;
            }
            let now = monotonic_ns();
            if now < deadline || cfg!(loom) {
                self.changed
                    .wait(seen, Some(deadline.saturating_sub(now).max(1)));
                continue;
            }
            self.send_all(epoch);
            patience = (patience * 2).min(PATIENCE_MAX_NS);
            deadline = monotonic_ns() + patience;
        }
    }

    /// Sends the signal to all in sections that have not acknowledged.
    fn send_all(&self, epoch: u32) {
        #[cfg(loom)]
        crate::primitive::fence(Ordering::SeqCst);
        let mut masked = false;
        for record in self.records() {
            let owner = record.owner.load(Ordering::Acquire);
            if owner == 0 || record.acknowledged.load(Ordering::Relaxed) == epoch {
                continue;
            }
            if !masked {
                masked = true;
                // A handler of the program's might wait for what a stopped thread's handler holds.
                self.state.with(|state| {
                    state.mask = state.mask.take().or_else(system::block_all);
                });
            }
            let relaxed = Ordering::Relaxed;
            if !system::send(record, owner, self.signal)
                && (record.owner.compare_exchange(owner, 0, relaxed, relaxed)).is_ok()
            {
                // It is gone.
                record.depth.store(0, relaxed);
                self.state.with(|state| state.inside -= 1);
                self.notify();
            }
        }
    }

    pub(crate) fn try_close(&self) -> bool {
        self.state
            .with(|state| state.inside == 0 && self.begin_close(state).is_some())
    }

    pub(crate) fn open(&self) {
        let mask = self.state.with(|state| {
            state.closed = false;
            self.epoch.add();
            state.mask.take()
        });
        self.epoch.wake();
        if let Some(mask) = mask {
            system::restore(&mask);
        }
    }

    /// In the child of a fork: see [`heapwright::World::forked`].
    ///
    /// # Safety
    /// As there.
    #[cfg(not(loom))]
    pub(crate) unsafe fn forked(&self, inside: bool) {
        // SAFETY: the caller's promise; what is in the lock changes only while the world is open, but for `inside`.
        unsafe { self.state.forked() };
        self.state.with(|state| {
            state.inside = usize::from(inside);
            state.closed = true;
        });
        self.stopped.store(0, Ordering::Relaxed);
        for record in self.records() {
            record.owner.store(0, Ordering::Relaxed);
            record.depth.store(0, Ordering::Relaxed);
            record.acknowledged.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Stops {
    fn drop(&mut self) {
        if cfg!(loom) && std::thread::panicking() {
            // The model is over.
            return;
        }
        let mut at = self.records.load(Ordering::Relaxed);
        while !at.is_null() {
            // SAFETY: `take_record` made it, and with the last handle gone nobody refers to it.
            let record = unsafe { Box::from_raw(at) };
            at = record.next.load(Ordering::Relaxed);
        }
    }
}
