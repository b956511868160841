//! The verifier: marks again by itself, and compares with what the plan believes.

pub mod objects;
pub mod words;
