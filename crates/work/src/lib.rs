#![doc = include_str!("../README.md")]

mod error;
mod parker;
mod phase;
mod pool;
mod primitive;
mod ring;
mod team;

#[cfg(all(test, loom))]
mod models;

pub use error::{Panic, PhaseError, StartCause, StartError};
pub use phase::{Phase, Worker};
pub use pool::{Config, Delay, MAX_WORKERS, Pool};
