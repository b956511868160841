//! A system that hands out addresses above 2^48, as some do with page tables of five levels: what a heap does not support is an
//! error, and the addresses are given back.

#![allow(clippy::unwrap_used, missing_docs)]

mod toy;

#[allow(unreachable_pub, reason = "an example is a crate of its own")]
#[path = "../examples/pairs.rs"]
mod pairs;

use core::ffi::CStr;
use heapwright::{Address, HeapError};
use heapwright_os::{OsError, Port};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const HIGH: usize = 1 << 52;

/// Reserves above 2^48, and nothing else: whoever commits there is wrong.
#[derive(Debug, Default)]
struct HighPort {
    reserved: AtomicUsize,
    committed: AtomicUsize,
}

impl HighPort {
    fn commits(&self) -> Result<(), OsError> {
        self.committed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Port for HighPort {
    fn page_size(&self) -> usize {
        4096
    }
    fn reserve(&self, bytes: usize, _: usize) -> Result<Address, OsError> {
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        Ok(Address::new(HIGH))
    }
    fn reserve_at(&self, _: Address, bytes: usize) -> Result<(), OsError> {
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
    fn commit(&self, _: Address, _: usize) -> Result<(), OsError> {
        self.commits()
    }
    fn decommit(&self, _: Address, _: usize) -> Result<(), OsError> {
        self.commits()
    }
    fn uncommit(&self, _: Address, _: usize) -> Result<(), OsError> {
        self.commits()
    }
    fn protect(&self, _: Address, _: usize) -> Result<(), OsError> {
        self.commits()
    }
    fn release(&self, _: Address, bytes: usize) -> Result<(), OsError> {
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
        Ok(())
    }
    fn name(&self, _: Address, _: usize, _: &'static CStr) {}
    fn populate(&self, _: Address, _: usize) -> Result<(), OsError> {
        self.commits()
    }
    fn huge(&self, _: Address, _: usize, _: bool) -> Result<(), OsError> {
        self.commits()
    }
}

impl HighPort {
    fn is_unused(&self) -> bool {
        self.reserved.load(Ordering::Relaxed) == 0 && self.committed.load(Ordering::Relaxed) == 0
    }
}

#[test]
fn addresses_that_are_too_high_are_an_error() {
    let port = Arc::new(HighPort::default());
    let heap = heapwright::Builder::default()
        .port(Arc::clone(&port) as Arc<dyn Port>)
        .build(pairs::Pairs);
    assert!(matches!(heap, Err(HeapError::TooHigh)));
    assert!(port.is_unused(), "{port:?}");
    let heap = heapwright::WordHeap::<toy::Toy>::builder()
        .port(Arc::clone(&port) as Arc<dyn Port>)
        .build(toy::Toy::default());
    assert!(matches!(heap, Err(HeapError::TooHigh)));
    assert!(port.is_unused(), "{port:?}");
}
