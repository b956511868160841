//! Threads around a team: when they start, what a fork leaves of them, how they end.

use crate::error::{PhaseError, StartCause, StartError};
use crate::phase::Phase;
use crate::primitive::{AtomicBool, AtomicPtr, AtomicUsize, Mutex, Ordering, lock};
use crate::team::{Team, run_alone};
use std::fmt;
use std::io;
use std::process;
use std::ptr;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// The most workers that a pool can have: one bit each in one word.
pub const MAX_WORKERS: usize = 64;

/// Called by a worker, with its index.
pub type Delay = Arc<dyn Fn(usize) + Send + Sync>;

/// How a [`Pool`] is made.
#[derive(Clone)]
pub struct Config {
    /// Workers, the thread that runs a phase included. 0 counts as 1.
    pub workers: usize,
    /// The helpers' threads are called this, a hyphen, and their index. Linux shows 15 bytes.
    pub name: String,
    /// Stack of a helper in bytes; 0 for the standard library's default.
    pub stack_bytes: usize,
    /// Called around the creation of each helper, on the thread that called [`Pool::start`]. Has
    /// to call its argument once. A new thread inherits from its creator, so this is the place to
    /// block all signals before and to restore the mask after: no signal then ever reaches a
    /// helper, not even in its first instructions.
    pub around_spawn: Option<fn(spawn: &mut dyn FnMut())>,
    /// Items that a worker can have on offer at a time; rounded up to a power of two.
    pub deque_capacity: usize,
    /// Called by workers where the order of threads may matter: before one takes from another, enters a phase, or leaves it. A
    /// test may let other threads go first there. It must not panic, nor wait for a worker.
    pub delay: Option<Delay>,
}

impl Default for Config {
    /// One worker, 256 KiB of stack, room for 1024 items.
    fn default() -> Config {
        Config {
            workers: 1,
            name: String::from("heapwright"),
            stack_bytes: 256 << 10,
            around_spawn: None,
            deque_capacity: 1024,
            delay: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("workers", &self.workers)
            .field("name", &self.name)
            .field("stack_bytes", &self.stack_bytes)
            .field("around_spawn", &self.around_spawn.is_some())
            .field("deque_capacity", &self.deque_capacity)
            .field("delay", &self.delay.is_some())
            .finish()
    }
}

/// Workers for the phases of a collection (or of anything else), a value.
///
/// [`Pool::new`] starts nothing and allocates nothing; [`Pool::start`] allocates and creates
/// threads; [`Pool::run`] does neither, takes no lock that a thread outside of the phase can hold,
/// and prints nothing, so it may be called while the world is stopped. Dropping the pool joins the
/// helpers.
///
/// ```
/// use heapwright_work::{Config, Phase, Pool, Worker};
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// /// Adds up the numbers below `self.0`, by halving ranges that are given as `from << 16 | to`.
/// struct Sum(usize, AtomicUsize);
///
/// impl Phase for Sum {
///     fn work(&self, worker: &mut Worker<'_>) {
///         let mut local = if worker.index() == 0 { vec![self.0] } else { Vec::new() };
///         let mut sum = 0;
///         while let Some(range) = local.pop().or_else(|| worker.next()) {
///             let (from, to) = (range >> 16, range & 0xffff);
///             if to - from > 10 {
///                 let middle = (from + to) / 2;
///                 local.push(from << 16 | middle);
///                 let right = middle << 16 | to;
///                 if !worker.hungry() || worker.share(&[right]) == 0 {
///                     local.push(right);
///                 }
///             } else {
///                 sum += (from..to).sum::<usize>();
///             }
///         }
///         self.1.fetch_add(sum, Ordering::Relaxed);
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(Config { workers: 2, ..Config::default() });
/// pool.start()?;
/// let sum = Sum(1000, AtomicUsize::new(0));
/// pool.run(&sum)?;
/// assert_eq!(sum.1.into_inner(), 499_500);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pool {
    config: Config,
    /// Null before the first start and after a fork. From `Box::into_raw`; freed in `drop` only.
    crew: AtomicPtr<Crew>,
    /// A thread is in `start`.
    starting: AtomicBool,
}

/// A team and the threads of its helpers.
#[derive(Debug)]
struct Crew {
    team: Arc<Team>,
    /// Helpers that run; they have the seats 1 to `helpers`.
    helpers: AtomicUsize,
    /// Locked while `Pool::starting` is set, and in `drop`.
    handles: Mutex<Vec<JoinHandle<()>>>,
    /// The process that the helpers are in.
    process: u32,
}

impl Pool {
    /// A pool without helpers yet. Allocates nothing, starts nothing.
    pub fn new(config: Config) -> Pool {
        Pool {
            config,
            crew: AtomicPtr::new(ptr::null_mut()),
            starting: AtomicBool::new(false),
        }
    }

    /// Allocates the queues and starts the helpers, as far as that is not done yet. To be called
    /// with the world running. Cheap when there is nothing to do (two loads). While one thread is
    /// in here, another returns at once, and its phases may run with fewer workers.
    ///
    /// # Errors
    /// When not all helpers could be started. The pool works all the same, and the next `start`
    /// tries again. Small allocations of the standard library's thread creation that fail are the
    /// allocator's to report, which by default aborts.
    pub fn start(&self) -> Result<(), StartError> {
        let wanted = self.config.workers.max(1);
        if self.workers() == wanted || self.starting.swap(true, Ordering::Acquire) {
            return Ok(());
        }
        let outcome = self.start_helpers(wanted.min(MAX_WORKERS));
        self.starting.store(false, Ordering::Release);
        let outcome = match outcome {
            Ok(()) if wanted > MAX_WORKERS => Err(StartCause::TooMany),
            other => other,
        };
        outcome.map_err(|cause| StartError {
            wanted,
            running: self.workers(),
            cause,
        })
    }

    fn start_helpers(&self, workers: usize) -> Result<(), StartCause> {
        if workers == 1 {
            return Ok(());
        }
        let crew = match self.crew() {
            Some(crew) => crew,
            None => {
                let crew = Box::into_raw(Box::new(self.new_crew(workers)?));
                self.crew.store(crew, Ordering::Release);
                // SAFETY: just leaked; freed in `drop` only, which has the pool to itself.
                unsafe { &*crew }
            }
        };
        let mut handles = lock(&crew.handles);
        let missing = workers - 1 - handles.len();
        handles
            .try_reserve(missing)
            .map_err(|_| StartCause::Memory)?;
        while handles.len() < workers - 1 {
            let handle = self.start_helper(crew, 1 + handles.len())?;
            handles.push(handle);
            crew.helpers.store(handles.len(), Ordering::Release);
        }
        crew.team.wait_for_arrivals(handles.len());
        Ok(())
    }

    fn new_crew(&self, workers: usize) -> Result<Crew, StartCause> {
        let capacity = self
            .config
            .deque_capacity
            .checked_next_power_of_two()
            .ok_or(StartCause::Memory)?;
        let team = Team::new(workers, capacity, self.config.delay.clone())
            .map_err(|_| StartCause::Memory)?;
        Ok(Crew {
            team: Arc::new(team),
            helpers: AtomicUsize::new(0),
            handles: Mutex::new(Vec::new()),
            process: process::id(),
        })
    }

    fn start_helper(&self, crew: &Crew, index: usize) -> Result<JoinHandle<()>, StartCause> {
        let mut created: Option<io::Result<JoinHandle<()>>> = None;
        let mut spawn = || {
            if created.is_some() {
                return;
            }
            let team = Arc::clone(&crew.team);
            let mut builder = Builder::new().name(format!("{}-{index}", self.config.name));
            if self.config.stack_bytes != 0 {
                builder = builder.stack_size(self.config.stack_bytes);
            }
            created = Some(builder.spawn(move || team.help(index)));
        };
        match self.config.around_spawn {
            Some(around) => around(&mut spawn),
            None => spawn(),
        }
        match created {
            Some(handle) => handle.map_err(StartCause::Thread),
            None => Err(StartCause::Hook),
        }
    }

    /// Workers that a phase can have now, the calling thread included.
    pub fn workers(&self) -> usize {
        1 + self
            .crew()
            .map_or(0, |crew| crew.helpers.load(Ordering::Acquire))
    }

    /// Runs a phase and returns when no worker is in it any more. The calling thread is worker 0;
    /// helpers come when it shares. Any thread may call it. Allocates nothing and takes no lock
    /// but the pool's own, which only a worker of the phase ever holds, for some instructions.
    ///
    /// While one phase runs, another that is started on the same pool, by another thread or from
    /// inside the phase, runs on its own thread alone: nobody waits for the pool.
    ///
    /// # Errors
    /// When a worker panicked, or left shared items behind. A panic does not unwind out of here
    /// (see [`Panic::into_payload`](crate::Panic::into_payload)), and does not stop the other
    /// workers: they finish what they have. Where panics abort, one in a phase does so.
    #[inline]
    pub fn run<P: Phase>(&self, phase: &P) -> Result<(), PhaseError> {
        match self.crew() {
            Some(crew) if crew.helpers.load(Ordering::Relaxed) != 0 => crew.team.run(phase),
            _ => run_alone(phase),
        }
    }

    /// In the child of a `fork`: there are no helpers any more. Until the next [`Pool::start`] the
    /// pool has one worker. Does nothing when no helpers had been started.
    ///
    /// The helpers' queues and handles are leaked, some 10 KiB per worker that the child shares
    /// with its parent until it writes to them: joining or detaching threads that do not exist is
    /// undefined. To be called before any other use of the pool in the child. In the parent there
    /// is nothing to do. (Called elsewhere it is safe, and loses the helpers for good.)
    ///
    /// What several owners share each of them may say this of: helpers that were started in the child are not forgotten.
    pub fn forget_helpers_after_fork(&self) {
        if self
            .crew()
            .is_some_and(|crew| crew.process == process::id())
        {
            return;
        }
        self.crew.store(ptr::null_mut(), Ordering::Release);
        self.starting.store(false, Ordering::Release);
    }

    /// Is the calling thread one of the helpers? Takes a lock that is held while helpers are started: not to be called while the
    /// world is stopped, but for one of them.
    pub fn is_helper(&self) -> bool {
        let me = std::thread::current().id();
        self.crew()
            .is_some_and(|crew| lock(&crew.handles).iter().any(|h| h.thread().id() == me))
    }

    fn crew(&self) -> Option<&Crew> {
        let crew = self.crew.load(Ordering::Acquire);
        // SAFETY: null, or leaked by `start_helpers` and freed in `drop` only, which has the pool
        // to itself: it outlives the borrow of `self`.
        unsafe { crew.as_ref() }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let crew = self.crew.load(Ordering::Acquire);
        if crew.is_null() {
            return;
        }
        // SAFETY: from `Box::into_raw` in `start_helpers`; `&mut self` says that nobody borrows it.
        let crew = unsafe { Box::from_raw(crew) };
        if crew.process != process::id() {
            // A child that was not told: there is nobody to join.
            std::mem::forget(crew);
            return;
        }
        crew.team.shut_down();
        if !crew.team.have_arrived(crew.helpers.load(Ordering::Acquire)) {
            // One that never began: in the child of a fork the standard library's locks may be taken for ever. It has the team.
            return;
        }
        let handles = std::mem::take(&mut *lock(&crew.handles));
        for handle in handles {
            // A helper catches the panics of its phases; if one died all the same, it is gone.
            let _ = handle.join();
        }
    }
}
