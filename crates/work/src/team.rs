//! The protocol of a phase: who may enter, when it is over, who is woken. The crate's README
//! derives it; no other file touches these words.
//!
//! `door`, the one word that says whether a phase is open and for how many:
//!
//! | door          | meaning                                | goes to                                 |
//! |---------------|----------------------------------------|-----------------------------------------|
//! | `0`           | no phase                               | `CLAIMED`: a thread wants to run one    |
//! | `CLAIMED`     | being set up, or over                  | `CLAIMED + 1` (set up) or `0` (over): the leader |
//! | `CLAIMED + n` | open, `n` workers are busy in it       | `+ 1`: a worker that sees an item; `- 1`: one that found none |
//!
//! Only a busy worker has work of its own or fills its ring, and it leaves with its ring empty.
//! So `n == 0` means: no work anywhere, and none can appear, as nobody enters at `n == 0`.
//!
//! `waiting`, one bit per worker: set by the worker before it looks for work a last time, cleared
//! by whoever wakes it (or by itself when it need not be woken after all). A worker that has been
//! woken and is not running yet is therefore not woken twice, nor counted as hungry.

use crate::error::{Panic, PhaseError};
use crate::parker::Parker;
use crate::phase::{Phase, Worker};
use crate::pool::Delay;
use crate::primitive::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering, Padded, fence, lock,
};
use crate::ring::Ring;
use std::collections::TryReserveError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// Index of the worker on the thread that runs the phase.
pub(crate) const LEADER: usize = 0;

const CLAIMED: u32 = 1 << 31;
const BUSY: u32 = CLAIMED - 1;

/// How often a worker looks for a token before it sleeps: about as long as a sleep and a wake-up
/// cost together (README, "How long to spin").
const SPINS: u32 = if cfg!(loom) { 0 } else { 200 };

/// A phase with its type erased. Lives on the leader's stack while the door is open.
struct Job {
    phase: *const (),
    work: unsafe fn(*const (), &mut Worker<'_>),
}

impl Job {
    fn of<P: Phase>(phase: &P) -> Job {
        /// # Safety
        /// `phase` points to a live `P`.
        unsafe fn work<P: Phase>(phase: *const (), worker: &mut Worker<'_>) {
            // SAFETY: this function's contract.
            let phase = unsafe { &*phase.cast::<P>() };
            phase.work(worker);
        }
        Job {
            phase: ptr::from_ref(phase).cast(),
            work: work::<P>,
        }
    }
}

/// What one worker owns and the others may reach.
#[derive(Debug)]
struct Seat {
    ring: Ring,
    parker: Padded<Parker>,
}

/// An item, and whether it was another worker's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caught {
    pub(crate) item: usize,
    pub(crate) stolen: bool,
}

/// What the workers of a pool share.
pub(crate) struct Team {
    door: Padded<AtomicU32>,
    waiting: Padded<AtomicU64>,
    seats: Box<[Seat]>,
    job: AtomicPtr<Job>,
    shutdown: AtomicBool,
    /// Set when one of the next two is; so that a good phase looks at one word.
    trouble: AtomicBool,
    abandoned: AtomicUsize,
    /// Helpers that have begun.
    arrived: AtomicUsize,
    panic: Mutex<Option<Panic>>,
    delay: Option<Delay>,
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team")
            .field("door", &self.door)
            .field("waiting", &self.waiting)
            .field("seats", &self.seats)
            .field("delay", &self.delay.is_some())
            .finish_non_exhaustive()
    }
}

/// Runs a phase on the calling thread and nowhere else.
pub(crate) fn run_alone<P: Phase>(phase: &P) -> Result<(), PhaseError> {
    let nobody = AtomicU64::new(0);
    let mut worker = Worker::alone(&nobody);
    catch_unwind(AssertUnwindSafe(|| phase.work(&mut worker))).map_err(|payload| {
        PhaseError::Panicked(Panic {
            worker: LEADER,
            payload,
        })
    })
}

impl Team {
    /// A team for up to `workers` workers with rings of `capacity` items, a power of two.
    pub(crate) fn new(
        workers: usize,
        capacity: usize,
        delay: Option<Delay>,
    ) -> Result<Team, TryReserveError> {
        let mut seats = Vec::new();
        seats.try_reserve_exact(workers)?;
        for _ in 0..workers {
            seats.push(Seat {
                ring: Ring::new(capacity)?,
                parker: Padded(Parker::new()),
            });
        }
        Ok(Team {
            door: Padded(AtomicU32::new(0)),
            waiting: Padded(AtomicU64::new(0)),
            seats: seats.into_boxed_slice(),
            job: AtomicPtr::new(ptr::null_mut()),
            shutdown: AtomicBool::new(false),
            trouble: AtomicBool::new(false),
            abandoned: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            panic: Mutex::new(None),
            delay,
        })
    }

    /// Lets others go first, if the configuration says how.
    fn delay(&self, me: usize) {
        if let Some(delay) = &self.delay {
            delay(me);
        }
    }

    pub(crate) fn waiting(&self) -> &AtomicU64 {
        &self.waiting
    }

    // ---- the leader ----------------------------------------------------------------------

    /// Runs a phase with the calling thread as worker 0; on this thread alone while another
    /// phase runs.
    pub(crate) fn run<P: Phase>(&self, phase: &P) -> Result<(), PhaseError> {
        // Acquire: the previous leader's use of seat 0 happened before.
        let claimed = self
            .door
            .compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed);
        if claimed.is_err() {
            return run_alone(phase);
        }
        let job = Job::of(phase);
        self.job
            .store(ptr::from_ref(&job).cast_mut(), Ordering::Relaxed);
        // Release: who enters sees the job.
        self.door.store(CLAIMED | 1, Ordering::Release);

        let mut worker = Worker::of(self, LEADER, None);
        let outcome = catch_unwind(AssertUnwindSafe(|| phase.work(&mut worker)));
        if let Err(payload) = outcome {
            self.record_panic(LEADER, payload);
        }
        if !worker.is_over() {
            self.abandon(LEADER, 0);
            self.leave();
            // Whoever leaves last leaves a token.
            while self.busy() != 0 {
                self.seats[LEADER].parker.wait(SPINS, || true);
            }
        }
        // Nobody is in the phase and nobody can enter: `job` and `phase` may go.
        let result = self.verdict();
        self.door.store(0, Ordering::Release);
        result
    }

    /// An item for the leader, or None when the phase is over.
    pub(crate) fn next_of_leader(&self) -> Option<Caught> {
        loop {
            if let Some(caught) = self.catch(LEADER) {
                return Some(caught);
            }
            self.delay(LEADER);
            if self.leave() == 0 || !self.wait_to_enter() {
                return None;
            }
        }
    }

    /// The leader, out of the phase, waits to enter it again. False: it is over.
    fn wait_to_enter(&self) -> bool {
        loop {
            self.announce(LEADER);
            if self.busy() == 0 {
                self.retract(LEADER);
                return false;
            }
            if self.work_in_sight() {
                self.retract(LEADER);
                return self.enter();
            }
            // A token comes from who shares (having cleared our bit) or from who leaves last.
            self.seats[LEADER].parker.wait(SPINS, || true);
            self.retract(LEADER);
        }
    }

    /// How the phase went.
    fn verdict(&self) -> Result<(), PhaseError> {
        // Written, if at all, before its writer left.
        if !self.trouble.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.trouble.store(false, Ordering::Relaxed);
        let items = self.abandoned.swap(0, Ordering::Relaxed);
        let panic = lock(&self.panic).take();
        match panic {
            Some(panic) => Err(PhaseError::Panicked(panic)),
            None => Err(PhaseError::Abandoned { items }),
        }
    }

    // ---- a helper ------------------------------------------------------------------------

    /// Waits until so many helpers have begun, but not for long.
    ///
    /// A new thread takes locks of the standard library before it comes to our code. A fork at that moment would leave them
    /// taken in the child for ever, and no thread that the child starts would get through: seen once in 12,000 forks of a test
    /// that started threads while another forked. So a thread that comes back from `Pool::start` may fork.
    #[cfg(not(loom))]
    pub(crate) fn wait_for_arrivals(&self, helpers: usize) {
        let begin = std::time::Instant::now();
        while self.arrived.load(Ordering::Acquire) < helpers
            && begin.elapsed() < std::time::Duration::from_millis(20)
        {
            std::thread::yield_now();
        }
    }

    #[cfg(loom)]
    pub(crate) fn wait_for_arrivals(&self, _: usize) {}

    /// Have so many helpers begun, or do they soon? Waits longer than they take on a busy machine.
    #[cfg(not(loom))]
    pub(crate) fn have_arrived(&self, helpers: usize) -> bool {
        for _ in 0..50 {
            self.wait_for_arrivals(helpers);
            if self.arrived.load(Ordering::Acquire) >= helpers {
                return true;
            }
        }
        false
    }

    #[cfg(loom)]
    pub(crate) fn have_arrived(&self, _: usize) -> bool {
        true
    }

    /// The life of helper `me`. Returns after [`Team::shut_down`].
    pub(crate) fn help(&self, me: usize) {
        self.arrived.fetch_add(1, Ordering::Release);
        let mut productive = false;
        loop {
            self.announce(me);
            if !self.work_in_sight() {
                // Spinning is for the next item of a phase that one has worked for.
                let spins = if productive { SPINS } else { 0 };
                self.seats[me].parker.wait(spins, || self.busy() != 0);
            }
            self.retract(me);
            // Acquire pairs with shut_down; its token is never lost.
            if self.shutdown.load(Ordering::Acquire) {
                return;
            }
            productive = self.take_turn(me);
        }
    }

    /// Enters the open phase, if there is one and an item can be caught in it, and works.
    /// False: there was nothing to do.
    fn take_turn(&self, me: usize) -> bool {
        if !self.work_in_sight() {
            return false;
        }
        self.delay(me);
        if !self.enter() {
            return false;
        }
        let first = self.catch(me).map(|caught| caught.item);
        if first.is_some() {
            let job = self.job.load(Ordering::Relaxed);
            let mut worker = Worker::of(self, me, first);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                // SAFETY: `enter` has counted this worker as busy and acquired what the leader
                // wrote before it opened the door; the leader keeps the job in place until
                // nobody is busy.
                let job = unsafe { &*job };
                // SAFETY: `Job::of` paired the two, and the phase outlives the job.
                unsafe { (job.work)(job.phase, &mut worker) }
            }));
            if let Err(payload) = outcome {
                self.record_panic(me, payload);
            }
            if !worker.is_over() {
                self.abandon(me, worker.leftovers());
            }
        }
        self.delay(me);
        if self.leave() == 0 {
            self.seats[LEADER].parker.notify();
        }
        first.is_some()
    }

    /// Sends all helpers home.
    pub(crate) fn shut_down(&self) {
        self.shutdown.store(true, Ordering::Release);
        for seat in self.seats.iter().skip(LEADER + 1) {
            seat.parker.notify();
        }
    }

    // ---- the door ------------------------------------------------------------------------

    fn busy(&self) -> u32 {
        self.door.load(Ordering::Acquire) & BUSY
    }

    /// Counts the caller as busy, unless nobody is: then there is no phase, or it is over, and the
    /// caller sees what was done in it (acquire on each look).
    fn enter(&self) -> bool {
        let mut door = self.door.load(Ordering::Acquire);
        loop {
            if door & BUSY == 0 {
                return false;
            }
            match self.door.compare_exchange_weak(
                door,
                door + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(now) => door = now,
            }
        }
    }

    /// Takes the caller, whose ring is empty, off the count; returns how many are still busy.
    /// Release: what the caller did is seen by the leader when the phase is over.
    fn leave(&self) -> u32 {
        (self.door.fetch_sub(1, Ordering::AcqRel) & BUSY) - 1
    }

    // ---- items ---------------------------------------------------------------------------

    /// The busy worker `me` offers items.
    pub(crate) fn share(&self, me: usize, items: &[usize]) -> usize {
        let taken = self.seats[me].ring.push(items);
        if taken > 0 {
            self.wake_one();
        }
        taken
    }

    /// An item for the busy worker `me`: its own, or another's.
    pub(crate) fn catch(&self, me: usize) -> Option<Caught> {
        let own = &self.seats[me].ring;
        if let Some(item) = own.take() {
            return Some(Caught {
                item,
                stolen: false,
            });
        }
        let (before, after) = self.seats.split_at(me);
        for victim in after[1..].iter().chain(before) {
            self.delay(me);
            if let Some(item) = victim.ring.take_half(own) {
                if !own.is_empty() || !victim.ring.is_empty() {
                    self.wake_one();
                }
                return Some(Caught { item, stolen: true });
            }
        }
        None
    }

    /// Whether a phase is open and some ring holds an item.
    fn work_in_sight(&self) -> bool {
        self.busy() != 0 && self.seats.iter().any(|seat| !seat.ring.is_empty())
    }

    /// Drops what a worker left behind that did not work to the end, and records it.
    fn abandon(&self, me: usize, more: usize) {
        let mut items = more;
        while self.seats[me].ring.take().is_some() {
            items += 1;
        }
        if items > 0 {
            self.abandoned.fetch_add(items, Ordering::Relaxed);
            self.trouble.store(true, Ordering::Relaxed);
        }
    }

    fn record_panic(&self, worker: usize, payload: Box<dyn std::any::Any + Send>) {
        self.trouble.store(true, Ordering::Relaxed);
        let mut first = lock(&self.panic);
        if first.is_none() {
            *first = Some(Panic { worker, payload });
        } else {
            // Its destructor is not ours to run: it could panic in turn.
            std::mem::forget(payload);
        }
    }

    // ---- waiting -------------------------------------------------------------------------

    /// Says that `me` is going to wait unless it finds work now. Either the next look for work
    /// sees an item, or the worker that pushed it sees the bit (two fences, README).
    fn announce(&self, me: usize) {
        self.waiting.fetch_or(1 << me, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back, if nobody has answered it.
    fn retract(&self, me: usize) {
        if self.waiting.load(Ordering::Relaxed) & (1 << me) != 0 {
            self.waiting.fetch_and(!(1 << me), Ordering::Relaxed);
        }
    }

    /// Wakes one waiting worker, after an item has been made public.
    fn wake_one(&self) {
        fence(Ordering::SeqCst);
        let mut waiting = self.waiting.load(Ordering::Relaxed);
        while waiting != 0 {
            let lowest = waiting.trailing_zeros();
            let before = self.waiting.fetch_and(!(1 << lowest), Ordering::Relaxed);
            if before & (1 << lowest) != 0 {
                self.seats[lowest as usize].parker.notify();
                return;
            }
            waiting = before;
        }
    }
}
