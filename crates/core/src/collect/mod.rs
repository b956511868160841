//! Collecting: the tracing loop ([`marker`]) and what a pause consists of ([`cycle`]).

pub mod cycle;
pub mod marker;

pub use cycle::{Collector, Pause};
pub use marker::Marker;
