use crate::{Op, OsError, Port};
use core::ffi::CStr;
use core::sync::atomic::{AtomicUsize, Ordering};
use heapwright_address::Address;
use std::sync::{Arc, Mutex, PoisonError};

/// Which call is to fail, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultPlan {
    /// Only calls of this operation count; `None`: all.
    pub op: Option<Op>,
    /// The first call that fails, counted from 0.
    pub at: usize,
    /// How many calls fail from there on.
    pub times: usize,
    /// With which error number.
    pub errno: i32,
}

/// A port whose calls fail when a test wants it: to walk every failure path.
///
/// A call that fails does nothing.
///
/// ```
/// use heapwright_os::{FaultPlan, FaultyPort, Op, Reservation, real_port};
/// use std::sync::Arc;
///
/// let third = FaultPlan {
///     op: Some(Op::Reserve),
///     at: 2,
///     times: 1,
///     errno: 12,
/// };
/// let port = Arc::new(FaultyPort::new(real_port(), Some(third)));
/// let reserve = || Reservation::new(Arc::clone(&port) as _, 1 << 20, 4096);
/// let outcomes: Vec<bool> = (0..4).map(|_| reserve().is_ok()).collect();
/// assert_eq!(outcomes, [true, true, false, true]);
/// ```
#[derive(Debug)]
pub struct FaultyPort {
    inner: Arc<dyn Port>,
    plan: Mutex<Option<FaultPlan>>,
    counted: AtomicUsize,
    failed: AtomicUsize,
}

impl FaultyPort {
    /// A port in front of `inner`. With no plan all calls go through, and are counted.
    #[must_use]
    pub fn new(inner: Arc<dyn Port>, plan: Option<FaultPlan>) -> Self {
        Self {
            inner,
            plan: Mutex::new(plan),
            counted: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
        }
    }

    /// Changes the plan and counts from 0 again.
    pub fn set(&self, plan: Option<FaultPlan>) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan;
        self.counted.store(0, Ordering::SeqCst);
        self.failed.store(0, Ordering::SeqCst);
    }

    /// Calls that counted towards the plan.
    #[must_use]
    pub fn counted(&self) -> usize {
        self.counted.load(Ordering::SeqCst)
    }

    /// Calls that failed by the plan.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failed.load(Ordering::SeqCst)
    }

    fn gate(&self, op: Op, address: Address, bytes: usize) -> Result<(), OsError> {
        let plan = *self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if plan.and_then(|p| p.op).is_some_and(|wanted| wanted != op) {
            return Ok(());
        }
        let index = self.counted.fetch_add(1, Ordering::SeqCst);
        match plan {
            Some(p) if index >= p.at && index - p.at < p.times => {
                self.failed.fetch_add(1, Ordering::SeqCst);
                Err(OsError {
                    op,
                    address,
                    bytes,
                    errno: p.errno,
                })
            }
            _ => Ok(()),
        }
    }
}

impl Port for FaultyPort {
    fn page_size(&self) -> usize {
        self.inner.page_size()
    }

    fn reserve(&self, bytes: usize, align: usize) -> Result<Address, OsError> {
        self.gate(Op::Reserve, Address::ZERO, bytes)?;
        self.inner.reserve(bytes, align)
    }

    fn reserve_at(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        self.gate(Op::ReserveAt, address, bytes)?;
        self.inner.reserve_at(address, bytes)
    }

    fn commit(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        self.gate(Op::Commit, address, bytes)?;
        self.inner.commit(address, bytes)
    }

    fn commit_executable(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        self.gate(Op::Commit, address, bytes)?;
        self.inner.commit_executable(address, bytes)
    }

    fn decommit(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        self.gate(Op::Decommit, address, bytes)?;
        self.inner.decommit(address, bytes)
    }

    fn uncommit(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        self.gate(Op::Uncommit, address, bytes)?;
        self.inner.uncommit(address, bytes)
    }

    fn protect(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        self.gate(Op::Protect, address, bytes)?;
        self.inner.protect(address, bytes)
    }

    fn release(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        self.gate(Op::Release, address, bytes)?;
        self.inner.release(address, bytes)
    }

    fn name(&self, address: Address, bytes: usize, name: &'static CStr) {
        self.inner.name(address, bytes, name);
    }

    fn populate(&self, address: Address, bytes: usize) -> Result<(), OsError> {
        self.gate(Op::Populate, address, bytes)?;
        self.inner.populate(address, bytes)
    }

    fn huge(&self, address: Address, bytes: usize, wanted: bool) -> Result<(), OsError> {
        self.gate(Op::Huge, address, bytes)?;
        self.inner.huge(address, bytes, wanted)
    }
}
