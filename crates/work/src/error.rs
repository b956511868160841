//! What can go wrong, as values.

use std::any::Any;
use std::fmt;

/// Not all helpers that were asked for could be started. The pool works with those it has.
#[derive(Debug)]
#[non_exhaustive]
pub struct StartError {
    /// Workers that the configuration asks for, the calling thread included.
    pub wanted: usize,
    /// Workers that the pool has now, the calling thread included; at least 1.
    pub running: usize,
    /// What stood in the way.
    pub cause: StartCause,
}

/// Why a helper could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartCause {
    /// More workers were asked for than [`MAX_WORKERS`](crate::MAX_WORKERS).
    TooMany,
    /// There is no memory for the queues.
    Memory,
    /// The operating system refused a thread.
    Thread(std::io::Error),
    /// [`Config::around_spawn`](crate::Config::around_spawn) did not call what it was given.
    Hook,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} workers: ", self.running, self.wanted)?;
        match &self.cause {
            StartCause::TooMany => {
                write!(f, "a pool has at most {} workers", crate::MAX_WORKERS)
            }
            StartCause::Memory => f.write_str("no memory for the work queues"),
            StartCause::Thread(error) => write!(f, "cannot start a thread: {error}"),
            StartCause::Hook => f.write_str("the hook around thread creation created no thread"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            StartCause::Thread(error) => Some(error),
            _ => None,
        }
    }
}

/// A phase that ended, but not as a phase should. All workers have left it.
#[derive(Debug)]
#[non_exhaustive]
pub enum PhaseError {
    /// [`Phase::work`](crate::Phase::work) panicked on at least one worker; this is the first.
    Panicked(Panic),
    /// [`Phase::work`](crate::Phase::work) returned on some worker before
    /// [`Worker::next`](crate::Worker::next) had said `None` to it, and left `items` shared items
    /// behind that nobody had taken. They are gone.
    Abandoned {
        /// Items left behind, over all workers.
        items: usize,
    },
}

impl fmt::Display for PhaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PhaseError::Panicked(panic) => write!(
                f,
                "a phase panicked on worker {}: {}",
                panic.worker,
                panic.message()
            ),
            PhaseError::Abandoned { items } => {
                write!(f, "a phase left {items} shared items behind")
            }
        }
    }
}

impl std::error::Error for PhaseError {}

/// A panic that was caught on a worker.
pub struct Panic {
    pub(crate) worker: usize,
    pub(crate) payload: Box<dyn Any + Send>,
}

impl Panic {
    /// The index of the worker that panicked.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// The text of the panic, where it has one.
    pub fn message(&self) -> &str {
        if let Some(text) = self.payload.downcast_ref::<&'static str>() {
            text
        } else if let Some(text) = self.payload.downcast_ref::<String>() {
            text
        } else {
            "a value that is not text"
        }
    }

    /// The payload, for `std::panic::resume_unwind`.
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        self.payload
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Panic")
            .field("worker", &self.worker)
            .field("message", &self.message())
            .finish()
    }
}
