//! The life of a chunk, and the one implementation of its transitions, for every mapper.
//!
//! | state | accessible | counts as mapped | leaves it by |
//! |---|---|---|---|
//! | `Unmapped` | no | no | claim by `ensure_mapped` -> `Changing`; `mark_as_mapped` -> `Mapped` |
//! | `Mapped` | yes | yes | claim by `protect`, `unmap` -> `Changing`; by `decommit` -> `Dropping` |
//! | `Protected` | no, contents kept | no | claim by `ensure_mapped`, `unmap` -> `Changing` |
//! | `Changing` | unknown | no | only by whoever claimed it: the new state, or on failure the old one |
//! | `Dropping` | yes | yes | only by whoever claimed it, back to `Mapped` |
//!
//! A claim is a compare-and-swap, so at most one thread works on a chunk, and it looked at the state in the same step
//! (H1 of the field: two threads that both saw "unmapped" and both mapped, the second zeroing live data). The new state is
//! stored, with release ordering, after the system call has succeeded and the chunk's metadata is mapped; whoever loads
//! `Mapped`, with acquire ordering, may use both. A thread never waits while it holds a claim, so there is no deadlock.
//! Where the state is right already, nothing but loads happens.

use crate::primitive::{AtomicU8, Ordering, pause};
use crate::{MapError, SideMetadataSpec};
use heapwright_address::{Address, Chunk};
use heapwright_os::{OsError, Port};

const UNMAPPED: u8 = 0;
const MAPPED: u8 = IS_MAPPED;
const PROTECTED: u8 = 2;
const CHANGING: u8 = 4;
const DROPPING: u8 = 8 | IS_MAPPED;
/// The bit of the states that count as mapped.
const IS_MAPPED: u8 = 1;

/// The state of one chunk. All zero is "unmapped".
#[derive(Debug)]
#[repr(transparent)]
pub struct ChunkState(AtomicU8);

impl Default for ChunkState {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkState {
    /// Unmapped.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicU8::new(UNMAPPED))
    }

    #[inline(always)]
    fn load(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }

    #[inline(always)]
    pub(crate) fn is_mapped(&self) -> bool {
        self.load() & IS_MAPPED != 0
    }

    fn claim(&self, from: u8, busy: u8) -> bool {
        self.0
            .compare_exchange(from, busy, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    fn publish(&self, state: u8) {
        self.0.store(state, Ordering::Release);
    }
}

/// How a mapper finds the states of chunks. `chunk` is an address divided by [`Chunk::BYTES`].
pub(crate) trait Chunks: Send + Sync {
    /// The state, if the mapper has one. Never locks, never allocates.
    fn find(&self, chunk: usize) -> Option<&ChunkState>;

    /// The state, made if need be.
    fn find_or_create(&self, chunk: usize) -> Result<&ChunkState, MapError>;

    /// Makes a run of unmapped chunks readable, writable and zero.
    fn supply(&self, start: Address, bytes: usize) -> Result<(), OsError>;

    /// Undoes `supply`.
    fn withdraw(&self, start: Address, bytes: usize) -> Result<(), OsError>;

    /// The operating system.
    fn port(&self) -> &dyn Port;

    /// Logarithm of the port's page size, at hand.
    fn log_page(&self) -> u32;
}

/// Is the whole range mapped? Only says yes for a range that is right, not empty, and in one chunk: what blocks ask for time
/// and again.
#[inline(always)]
fn quickly_mapped<C: Chunks + ?Sized>(chunks: &C, start: Address, pages: usize) -> bool {
    let log_page = chunks.log_page();
    let inner = start.as_usize() % Chunk::BYTES;
    let room = (Chunk::BYTES - inner) >> log_page;
    inner & ((1 << log_page) - 1) == 0
        && pages.wrapping_sub(1) < room
        && chunks
            .find(start.as_usize() >> Chunk::LOG_BYTES)
            .is_some_and(ChunkState::is_mapped)
}

/// What [`Mmapper::ensure_mapped`] does when not all is mapped, or the range is wrong.
#[cold]
#[inline(never)]
fn map_missing<C: Chunks>(
    chunks: &C,
    start: Address,
    pages: usize,
    global: &[SideMetadataSpec],
    local: &[SideMetadataSpec],
) -> Result<(), MapError> {
    let bytes = bytes_of(chunks.port(), start, pages)?;
    let Some(range) = chunks_of(chunks.port(), start, bytes)? else {
        return Ok(());
    };
    let step = |state| match state {
        UNMAPPED | PROTECTED => Step::Claim(CHANGING),
        CHANGING => Step::Wait,
        _ => Step::Pass,
    };
    walk(chunks, range, true, step, |first, count, from| {
        let (at, bytes) = (address_of(first), count << Chunk::LOG_BYTES);
        let result = if from == PROTECTED {
            // A refused commit may have opened a part of the run: close it again.
            chunks.port().commit(at, bytes).inspect_err(|_| {
                let _ = chunks.port().protect(at, bytes);
            })
        } else {
            let tables = global
                .iter()
                .chain(local)
                .try_for_each(|spec| spec.map(chunks.port(), at, bytes));
            tables.and_then(|()| chunks.supply(at, bytes))
        };
        publish_run(
            chunks,
            first,
            count,
            if result.is_ok() { MAPPED } else { from },
        );
        result.map_err(MapError::Os)
    })
}

/// Answers, for any address at all, whether its 4 MiB chunk is mapped, protected or not ours, and makes it so.
///
/// Ranges of bytes or pages round outward to chunks (but for `decommit`), may cross whatever the mapper is made of, and may
/// end at the top of the address space. An empty range is nothing. A start that is no multiple of the system's page, and a
/// range that overflows, are errors. All functions may be called by any thread at any time, also on overlapping ranges.
///
/// ```
/// use heapwright_memory::{Addresses, FragmentedMapper, MapError, Mmapper};
/// use heapwright_address::Chunk;
/// use heapwright_os::{Reservation, real_port};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = Reservation::new(real_port(), 2 * Chunk::BYTES, Chunk::BYTES)?;
/// let (first, second) = (memory.start(), memory.start().add(Chunk::BYTES));
/// let mapper = FragmentedMapper::new(real_port(), Addresses::Reserved)?;
/// // One page is asked for; its chunk is mapped, and no other.
/// mapper.ensure_mapped(first, 1, &[], &[])?;
/// assert!(mapper.is_mapped_address(first.add(Chunk::BYTES - 1)));
/// assert!(!mapper.is_mapped_address(second));
/// // What is not mapped cannot be protected.
/// let refused = mapper.protect(second, 1);
/// assert_eq!(refused, Err(MapError::NotMapped { chunk: second }));
/// # Ok(())
/// # }
/// ```
pub trait Mmapper: Send + Sync {
    /// Maps ranges given as pairs of start and end, without metadata.
    ///
    /// # Errors
    /// As [`Mmapper::ensure_mapped`]; an odd number of addresses is an overflow of the last range.
    fn eagerly_mmap_all_spaces(&self, space_map: &[Address]) -> Result<(), MapError>;

    /// Records that the caller mapped a range itself. No system call. What is protected stays so.
    ///
    /// # Errors
    /// If the range is wrong.
    fn mark_as_mapped(&self, start: Address, bytes: usize) -> Result<(), MapError>;

    /// Makes the range readable and writable, along with the part of the tables that describes it. What was mapped is not
    /// touched; what was protected comes back with its contents; what this call newly maps is zero. One system call for
    /// each run of equal chunks (and for each of its tables).
    ///
    /// # Errors
    /// If the range is wrong or the system refuses. Each chunk is then as it was, or fully mapped with its metadata.
    fn ensure_mapped(
        &self,
        start: Address,
        pages: usize,
        global: &[SideMetadataSpec],
        local: &[SideMetadataSpec],
    ) -> Result<(), MapError>;

    /// Is the address in a mapped chunk? Any bit pattern; protected counts as not mapped. Never locks, never allocates.
    fn is_mapped_address(&self, address: Address) -> bool;

    /// Forbids access to the range and keeps its contents. What is protected stays so.
    ///
    /// # Errors
    /// If a chunk is not mapped (then nothing was changed), the range is wrong, or the system refuses (then each chunk is
    /// mapped or protected).
    fn protect(&self, start: Address, pages: usize) -> Result<(), MapError>;

    /// Gives the memory of the range back and forbids access. What is not mapped stays so.
    ///
    /// # Errors
    /// If the range is wrong, or the system refuses.
    fn unmap(&self, start: Address, pages: usize) -> Result<(), MapError>;

    /// Gives the memory of exactly these pages back; they stay mapped and read zero.
    ///
    /// # Errors
    /// If a chunk is not mapped, the range is wrong, or the system refuses.
    fn decommit(&self, start: Address, pages: usize) -> Result<(), MapError>;
}

/// First and last chunk of a range; `None` if it is empty.
fn chunks_of(
    port: &dyn Port,
    start: Address,
    bytes: usize,
) -> Result<Option<(usize, usize)>, MapError> {
    if !start.is_aligned_to(port.page_size()) {
        return Err(MapError::Unaligned { start });
    }
    if bytes == 0 {
        return Ok(None);
    }
    let last = start
        .checked_add(bytes - 1)
        .ok_or(MapError::Overflow { start, bytes })?;
    Ok(Some((
        start.as_usize() >> Chunk::LOG_BYTES,
        last.as_usize() >> Chunk::LOG_BYTES,
    )))
}

fn bytes_of(port: &dyn Port, start: Address, pages: usize) -> Result<usize, MapError> {
    pages
        .checked_mul(port.page_size())
        .ok_or(MapError::Overflow {
            start,
            bytes: usize::MAX,
        })
}

fn address_of(chunk: usize) -> Address {
    Address::new(chunk << Chunk::LOG_BYTES)
}

/// Claims `first` and the chunks behind it, up to `last`, that are in state `from`. Gives how many; 0 if another was faster.
fn claim_run<C: Chunks + ?Sized>(
    chunks: &C,
    first: usize,
    last: usize,
    from: u8,
    busy: u8,
) -> usize {
    let mut count = 0;
    while first + count <= last {
        match chunks.find_or_create(first + count) {
            Ok(state) if state.claim(from, busy) => count += 1,
            _ => break,
        }
    }
    count
}

fn publish_run<C: Chunks + ?Sized>(chunks: &C, first: usize, count: usize, state: u8) {
    for chunk in first..first + count {
        if let Some(s) = chunks.find(chunk) {
            s.publish(state);
        }
    }
}

/// Brings each chunk of a range to a state: `step` says what to do for the state it is in.
enum Step {
    /// It is right.
    Pass,
    /// Claim chunks in this state as that one, and then work on them.
    Claim(u8),
    /// Somebody works on it.
    Wait,
    /// The operation does not allow this state.
    Refuse,
}

fn walk<C: Chunks + ?Sized>(
    chunks: &C,
    (first, last): (usize, usize),
    create: bool,
    step: impl Fn(u8) -> Step,
    mut work: impl FnMut(usize, usize, u8) -> Result<(), MapError>,
) -> Result<(), MapError> {
    let mut chunk = first;
    let mut round = 0;
    while chunk <= last {
        let found = if create {
            Some(chunks.find_or_create(chunk)?)
        } else {
            chunks.find(chunk)
        };
        let state = found.map_or(UNMAPPED, ChunkState::load);
        match step(state) {
            Step::Pass => chunk += 1,
            Step::Refuse => {
                return Err(MapError::NotMapped {
                    chunk: address_of(chunk),
                });
            }
            Step::Wait => {
                pause(round);
                round += 1;
            }
            Step::Claim(busy) => {
                let count = claim_run(chunks, chunk, last, state, busy);
                if count != 0 {
                    work(chunk, count, state)?;
                    chunk += count;
                }
            }
        }
    }
    Ok(())
}

impl<C: Chunks> Mmapper for C {
    fn eagerly_mmap_all_spaces(&self, space_map: &[Address]) -> Result<(), MapError> {
        let page = self.port().page_size();
        for pair in space_map.chunks(2) {
            let (start, end) = (pair[0], pair.get(1).copied().unwrap_or(Address::ZERO));
            let bytes = end
                .checked_sub(start.as_usize())
                .ok_or(MapError::Overflow {
                    start,
                    bytes: usize::MAX,
                })?;
            self.ensure_mapped(start, bytes.as_usize().div_ceil(page), &[], &[])?;
        }
        Ok(())
    }

    fn mark_as_mapped(&self, start: Address, bytes: usize) -> Result<(), MapError> {
        let Some(range) = chunks_of(self.port(), start, bytes)? else {
            return Ok(());
        };
        let step = |state| match state {
            UNMAPPED => Step::Claim(CHANGING),
            CHANGING => Step::Wait,
            _ => Step::Pass,
        };
        walk(self, range, true, step, |first, count, _| {
            publish_run(self, first, count, MAPPED);
            Ok(())
        })
    }

    #[inline]
    fn ensure_mapped(
        &self,
        start: Address,
        pages: usize,
        global: &[SideMetadataSpec],
        local: &[SideMetadataSpec],
    ) -> Result<(), MapError> {
        if quickly_mapped(self, start, pages) {
            return Ok(());
        }
        map_missing(self, start, pages, global, local)
    }

    #[inline]
    fn is_mapped_address(&self, address: Address) -> bool {
        self.find(address.as_usize() >> Chunk::LOG_BYTES)
            .is_some_and(ChunkState::is_mapped)
    }

    fn protect(&self, start: Address, pages: usize) -> Result<(), MapError> {
        let bytes = bytes_of(self.port(), start, pages)?;
        let Some(range) = chunks_of(self.port(), start, bytes)? else {
            return Ok(());
        };
        let step = |state| match state {
            UNMAPPED => Step::Refuse,
            PROTECTED => Step::Pass,
            MAPPED => Step::Claim(CHANGING),
            _ => Step::Wait,
        };
        // A look ahead, so that a range with a hole is refused whole.
        for chunk in range.0..=range.1 {
            if self.find(chunk).is_none_or(|s| s.load() == UNMAPPED) {
                return Err(MapError::NotMapped {
                    chunk: address_of(chunk),
                });
            }
        }
        walk(self, range, false, step, |first, count, from| {
            let (at, bytes) = (address_of(first), count << Chunk::LOG_BYTES);
            // A refused call may have closed a part of the run: open it again.
            let result = self.port().protect(at, bytes).inspect_err(|_| {
                let _ = self.port().commit(at, bytes);
            });
            publish_run(
                self,
                first,
                count,
                if result.is_ok() { PROTECTED } else { from },
            );
            result.map_err(MapError::Os)
        })
    }

    fn unmap(&self, start: Address, pages: usize) -> Result<(), MapError> {
        let bytes = bytes_of(self.port(), start, pages)?;
        let Some(range) = chunks_of(self.port(), start, bytes)? else {
            return Ok(());
        };
        let step = |state| match state {
            UNMAPPED => Step::Pass,
            MAPPED | PROTECTED => Step::Claim(CHANGING),
            _ => Step::Wait,
        };
        walk(self, range, false, step, |first, count, from| {
            let (at, bytes) = (address_of(first), count << Chunk::LOG_BYTES);
            // A refused call may have closed a part of the run: what counts as mapped is opened again, without its contents.
            let result = self.withdraw(at, bytes).inspect_err(|_| {
                let _ = if from == MAPPED {
                    self.port().commit(at, bytes)
                } else {
                    self.port().protect(at, bytes)
                };
            });
            publish_run(
                self,
                first,
                count,
                if result.is_ok() { UNMAPPED } else { from },
            );
            result.map_err(MapError::Os)
        })
    }

    fn decommit(&self, start: Address, pages: usize) -> Result<(), MapError> {
        let bytes = bytes_of(self.port(), start, pages)?;
        let Some(range) = chunks_of(self.port(), start, bytes)? else {
            return Ok(());
        };
        let step = |state| match state {
            MAPPED => Step::Claim(DROPPING),
            DROPPING | CHANGING => Step::Wait,
            _ => Step::Refuse,
        };
        let end = start.as_usize().wrapping_add(bytes - 1);
        walk(self, range, false, step, |first, count, from| {
            let low = address_of(first).as_usize().max(start.as_usize());
            let high = address_of(first)
                .as_usize()
                .wrapping_add((count << Chunk::LOG_BYTES) - 1)
                .min(end);
            let result = self.port().decommit(Address::new(low), high - low + 1);
            publish_run(self, first, count, from);
            result.map_err(MapError::Os)
        })
    }
}

#[cfg(all(test, loom))]
mod models {
    //! The machine above under a model checker: every interleaving of two threads.
    #![allow(clippy::unwrap_used)]
    use super::*;
    use core::ffi::CStr;
    use heapwright_os::Op;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicUsize};

    /// Two chunks, each with one datum that `supply` zeroes and a flag that says whether it may be accessed.
    #[derive(Debug)]
    struct Fake {
        states: [ChunkState; 2],
        memory: Memory,
    }

    #[derive(Debug)]
    struct Memory {
        data: [AtomicUsize; 2],
        open: [AtomicBool; 2],
        supplied: [AtomicUsize; 2],
        failures: AtomicUsize,
    }

    fn each(start: Address, bytes: usize) -> core::ops::Range<usize> {
        let first = start.as_usize() >> Chunk::LOG_BYTES;
        first..first + (bytes >> Chunk::LOG_BYTES)
    }

    impl Memory {
        fn set(&self, start: Address, bytes: usize, open: bool) -> Result<(), OsError> {
            each(start, bytes).for_each(|c| self.open[c].store(open, Ordering::Relaxed));
            Ok(())
        }
    }

    impl Port for Memory {
        fn page_size(&self) -> usize {
            4096
        }
        fn reserve(&self, _: usize, _: usize) -> Result<Address, OsError> {
            Ok(Address::ZERO)
        }
        fn reserve_at(&self, _: Address, _: usize) -> Result<(), OsError> {
            Ok(())
        }
        fn commit(&self, a: Address, n: usize) -> Result<(), OsError> {
            self.set(a, n, true)
        }
        fn decommit(&self, a: Address, n: usize) -> Result<(), OsError> {
            each(a, n).for_each(|c| self.data[c].store(0, Ordering::Relaxed));
            Ok(())
        }
        fn uncommit(&self, a: Address, n: usize) -> Result<(), OsError> {
            self.decommit(a, n)?;
            self.set(a, n, false)
        }
        fn protect(&self, a: Address, n: usize) -> Result<(), OsError> {
            self.set(a, n, false)
        }
        fn release(&self, a: Address, n: usize) -> Result<(), OsError> {
            self.uncommit(a, n)
        }
        fn name(&self, _: Address, _: usize, _: &'static CStr) {}
        fn populate(&self, _: Address, _: usize) -> Result<(), OsError> {
            Ok(())
        }
        fn huge(&self, _: Address, _: usize, _: bool) -> Result<(), OsError> {
            Ok(())
        }
    }

    impl Fake {
        fn new(failures: usize) -> Arc<Self> {
            let memory = Memory {
                data: [AtomicUsize::new(9), AtomicUsize::new(9)],
                open: [AtomicBool::new(false), AtomicBool::new(false)],
                supplied: [AtomicUsize::new(0), AtomicUsize::new(0)],
                failures: AtomicUsize::new(failures),
            };
            Arc::new(Self {
                states: [ChunkState::new(), ChunkState::new()],
                memory,
            })
        }

        /// Accessible exactly where the state says so, and nothing is left in between.
        fn check(&self) {
            for c in 0..2 {
                let state = self.states[c].load();
                assert!(matches!(state, UNMAPPED | MAPPED | PROTECTED));
                assert_eq!(state == MAPPED, self.memory.open[c].load(Ordering::Relaxed));
            }
        }
    }

    impl Chunks for Fake {
        fn find(&self, chunk: usize) -> Option<&ChunkState> {
            self.states.get(chunk)
        }
        fn find_or_create(&self, chunk: usize) -> Result<&ChunkState, MapError> {
            self.find(chunk).ok_or(MapError::OutOfRange {
                chunk: address_of(chunk),
            })
        }
        fn supply(&self, start: Address, bytes: usize) -> Result<(), OsError> {
            if self.memory.failures.load(Ordering::Relaxed) != 0 {
                self.memory.failures.fetch_sub(1, Ordering::Relaxed);
                return Err(OsError {
                    op: Op::Commit,
                    address: start,
                    bytes,
                    errno: 12,
                });
            }
            for c in each(start, bytes) {
                self.memory.supplied[c].fetch_add(1, Ordering::Relaxed);
                self.memory.data[c].store(0, Ordering::Relaxed);
            }
            self.memory.set(start, bytes, true)
        }
        fn withdraw(&self, start: Address, bytes: usize) -> Result<(), OsError> {
            self.memory.uncommit(start, bytes)
        }
        fn port(&self) -> &dyn Port {
            &self.memory
        }

        fn log_page(&self) -> u32 {
            4096_u32.trailing_zeros()
        }
    }

    const PAGES: usize = Chunk::BYTES / 4096;

    /// H1, H2: of two threads that want overlapping ranges one maps each chunk, and neither zeroes what the other wrote.
    #[test]
    fn data_written_after_ensure_mapped_is_never_zeroed() {
        loom::model(|| {
            let fake = Fake::new(0);
            let other = Arc::clone(&fake);
            let thread = loom::thread::spawn(move || {
                other
                    .ensure_mapped(Address::ZERO, 2 * PAGES, &[], &[])
                    .unwrap();
                other.memory.data[0].store(1, Ordering::Relaxed);
            });
            fake.ensure_mapped(address_of(1), PAGES, &[], &[]).unwrap();
            assert!(fake.is_mapped_address(address_of(1)));
            fake.memory.data[1].store(2, Ordering::Relaxed);
            thread.join().unwrap();
            assert_eq!(
                [0, 1].map(|c| fake.memory.data[c].load(Ordering::Relaxed)),
                [1, 2]
            );
            assert_eq!(
                [0, 1].map(|c| fake.memory.supplied[c].load(Ordering::Relaxed)),
                [1, 1]
            );
            fake.check();
        });
    }

    /// H3: protection is neither lost nor kept against the state, and contents survive it.
    #[test]
    fn protection_and_its_end_do_not_mix() {
        loom::model(|| {
            let fake = Fake::new(0);
            fake.ensure_mapped(Address::ZERO, PAGES, &[], &[]).unwrap();
            fake.memory.data[0].store(7, Ordering::Relaxed);
            fake.protect(Address::ZERO, PAGES).unwrap();
            let other = Arc::clone(&fake);
            let thread = loom::thread::spawn(move || {
                other.ensure_mapped(Address::ZERO, PAGES, &[], &[]).unwrap()
            });
            fake.protect(Address::ZERO, PAGES).unwrap();
            thread.join().unwrap();
            assert_eq!(fake.memory.data[0].load(Ordering::Relaxed), 7);
            fake.check();
        });
    }

    /// H10: a refused call leaves the chunk as it was, and the next one succeeds.
    #[test]
    fn a_failure_is_undone_and_can_be_tried_again() {
        loom::model(|| {
            let fake = Fake::new(1);
            let other = Arc::clone(&fake);
            let thread = loom::thread::spawn(move || {
                other.ensure_mapped(Address::ZERO, PAGES, &[], &[]).is_ok()
            });
            let mine = fake.ensure_mapped(Address::ZERO, PAGES, &[], &[]).is_ok();
            let theirs = thread.join().unwrap();
            assert!(mine || theirs, "only one call is refused");
            fake.check();
            fake.ensure_mapped(Address::ZERO, PAGES, &[], &[]).unwrap();
            assert_eq!(fake.memory.supplied[0].load(Ordering::Relaxed), 1);
        });
    }

    /// Unmapping against mapping ends in one of the two, consistently.
    #[test]
    fn unmap_and_ensure_mapped_take_turns() {
        loom::model(|| {
            let fake = Fake::new(0);
            fake.ensure_mapped(Address::ZERO, PAGES, &[], &[]).unwrap();
            let other = Arc::clone(&fake);
            let thread = loom::thread::spawn(move || other.unmap(Address::ZERO, PAGES).unwrap());
            fake.ensure_mapped(Address::ZERO, PAGES, &[], &[]).unwrap();
            thread.join().unwrap();
            fake.check();
        });
    }
}
