//! The operating system behind one contract.
//!
//! [`Port`] states once what the memory calls promise; [`SystemPort`] is Linux, [`FaultyPort`] the same with calls that fail
//! when a test wants it. Errors are values that name the call, the range and the errno. This and the front ends are the only
//! crates that say `libc`.

pub mod clock;
mod error;
mod faulty;
mod futex;
pub mod limits;
mod lock;
mod machine;
mod port;
mod reservation;
mod system;
mod thread;

pub use error::{Op, OsError};
pub use faulty::{FaultPlan, FaultyPort};
pub use futex::{futex_wait, futex_wake};
pub use lock::RawLock;
pub use machine::{Machine, Memory, Pressure};
pub use port::Port;
pub use reservation::Reservation;
pub use system::{SystemPort, real_port};
pub use thread::{at_fork, current_thread, thread_number};
