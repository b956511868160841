use crate::state::{ChunkState, Chunks};
use crate::{MapError, MappedVec};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use heapwright_address::{Address, Chunk};
use heapwright_os::{OsError, Port, RawLock, Reservation};
use std::sync::Arc;

/// Logarithm of the bytes that a slab describes: 1 GiB, 256 chunks of 4 MiB.
const LOG_SLAB: u32 = 30;
const CHUNKS_IN_SLAB: usize = 1 << (LOG_SLAB - Chunk::LOG_BYTES);
/// Logarithm of the first table's size.
const LOG_FIRST_TABLE: u32 = 7;
/// A table grows when it is fuller than this part.
const FULL_NUMERATOR: usize = 1;
const FULL_DENOMINATOR: usize = 2;
/// The arena of slabs and tables: 57 bits of addresses are 2^27 slabs, which no machine can map; this is enough for 2^20
/// slabs, 1 PiB of memory, with their tables.
const ARENA_BYTES: usize = 512 << 20;

/// The home of a slab in a table of `1 << log_table` entries: the XOR of the successive digits, each `log_table` bits wide,
/// of `address >> 30`.
#[inline]
#[must_use]
pub fn slab_hash(address: Address, log_table: u32) -> usize {
    let mut rest = address.as_usize() >> LOG_SLAB;
    let mask = (1usize << log_table) - 1;
    let mut hash = 0;
    while rest != 0 {
        hash ^= rest & mask;
        rest >>= log_table;
    }
    hash
}

type Slab = [ChunkState; CHUNKS_IN_SLAB];

/// One place of a table. `key` is the slab's number plus 1; 0: the place is empty, and so ends a probe. `slab` is written
/// before `key` is published, and neither changes afterwards.
struct Place {
    key: AtomicUsize,
    slab: AtomicPtr<Slab>,
}

/// A table, in the arena; all zero is an empty one.
#[derive(Clone, Copy)]
struct Table {
    log: u32,
    places: *const Place,
}

impl Table {
    #[inline]
    fn place(&self, index: usize) -> &Place {
        // SAFETY: a table has `1 << log` places, in memory that lives as long as the mapper.
        unsafe { &*self.places.add(index & ((1 << self.log) - 1)) }
    }

    /// The slab, or the place where it would be.
    #[inline]
    fn probe(&self, slab: usize) -> Result<*mut Slab, usize> {
        let mut index = slab_hash(Address::new(slab << LOG_SLAB), self.log);
        loop {
            let place = self.place(index);
            match place.key.load(Ordering::Acquire) {
                0 => return Err(index),
                key if key == slab + 1 => return Ok(place.slab.load(Ordering::Relaxed)),
                _ => index += 1,
            }
        }
    }
}

/// Memory for slabs and tables: handed out in order, given back as a whole.
struct Arena {
    memory: Reservation,
    used: usize,
    committed: usize,
}

impl Arena {
    /// Zeroed memory, aligned to 64.
    fn take(&mut self, bytes: usize) -> Result<Address, OsError> {
        let at = self.used.next_multiple_of(64);
        let end = at + bytes;
        if end > self.committed {
            let want = end.next_multiple_of(64 << 10);
            if want > self.memory.bytes() {
                return Err(OsError {
                    op: heapwright_os::Op::Commit,
                    address: self.memory.start(),
                    bytes: want,
                    errno: 12,
                });
            }
            self.memory.port().commit(
                self.memory.start().add(self.committed),
                want - self.committed,
            )?;
            self.committed = want;
        }
        self.used = end;
        Ok(self.memory.start().add(at))
    }
}

/// What the writers share, under `FragmentedMapper::lock`.
struct Writers {
    arena: Arena,
    slabs: usize,
    /// All tables that ever were: readers may still be in an old one.
    tables: MappedVec<Table>,
}

/// Who reserves the addresses of chunks that the mapper is to map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// The caller has reserved them, from the same port.
    Reserved,
    /// The mapper claims them one by one; where a stranger's mapping is, it refuses.
    Claimed,
}

/// A mapper for addresses anywhere: a hash table from 1 GiB slabs to arrays of 256 chunk states.
///
/// Readers are wait-free: they load the current table and probe it. Slabs (256 bytes) are made on demand, under a lock that
/// only makers of slabs take. A table that is half full is replaced by one of twice the size; the old ones stay readable
/// until the mapper is dropped, and sum up to the size of the last.
pub struct FragmentedMapper {
    port: Arc<dyn Port>,
    addresses: Addresses,
    current: AtomicPtr<Table>,
    lock: RawLock,
    writers: core::cell::UnsafeCell<Writers>,
}

// SAFETY: `writers` is used under `lock`; what readers follow is published with release ordering and never freed before
// the mapper is dropped.
unsafe impl Send for FragmentedMapper {}
// SAFETY: as above.
unsafe impl Sync for FragmentedMapper {}

impl core::fmt::Debug for FragmentedMapper {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FragmentedMapper")
            .field("addresses", &self.addresses)
            .field("slabs", &self.slabs())
            .finish()
    }
}

impl FragmentedMapper {
    /// A mapper that knows of nothing.
    ///
    /// # Errors
    /// If the system has no memory for the first table (2 KiB).
    pub fn new(port: Arc<dyn Port>, addresses: Addresses) -> Result<Self, MapError> {
        let memory = Reservation::new(Arc::clone(&port), ARENA_BYTES, 4096)?;
        port.name(memory.start(), memory.bytes(), c"heapwright slabs");
        let tables = MappedVec::new(Arc::clone(&port), 64, c"heapwright slab tables")?;
        let mut writers = Writers {
            arena: Arena {
                memory,
                used: 0,
                committed: 0,
            },
            slabs: 0,
            tables,
        };
        let table = Self::make_table(&mut writers, LOG_FIRST_TABLE)?;
        Ok(Self {
            port,
            addresses,
            current: AtomicPtr::new(table),
            lock: RawLock::new(),
            writers: core::cell::UnsafeCell::new(writers),
        })
    }

    /// How many slabs there are.
    #[must_use]
    pub fn slabs(&self) -> usize {
        // SAFETY: the lock is held.
        self.lock.with(|| unsafe { (*self.writers.get()).slabs })
    }

    /// Bytes of memory that slabs and tables have taken.
    #[must_use]
    pub fn metadata_bytes(&self) -> usize {
        // SAFETY: the lock is held.
        self.lock
            .with(|| unsafe { (*self.writers.get()).arena.used })
    }

    /// Logarithm of the size of the current table.
    #[must_use]
    pub fn log_table(&self) -> u32 {
        self.table().log
    }

    #[inline]
    fn table(&self) -> Table {
        // SAFETY: points into `writers.tables`, whose elements never move or change.
        unsafe { *self.current.load(Ordering::Acquire) }
    }

    fn make_table(writers: &mut Writers, log: u32) -> Result<*mut Table, MapError> {
        let places = writers.arena.take(size_of::<Place>() << log)?.as_ptr();
        writers.tables.push(Table { log, places })?;
        Ok(writers
            .tables
            .as_mut_slice()
            .last_mut()
            .map_or(ptr::null_mut(), ptr::from_mut))
    }

    #[cold]
    fn create(&self, slab: usize) -> Result<*mut Slab, MapError> {
        self.lock.with(|| {
            // SAFETY: the lock is held.
            let writers = unsafe { &mut *self.writers.get() };
            let mut table = self.table();
            if let Ok(found) = table.probe(slab) {
                return Ok(found);
            }
            if (writers.slabs + 1) * FULL_DENOMINATOR > FULL_NUMERATOR << table.log {
                table = self.grow(writers, table)?;
            }
            // Zero is "unmapped".
            let fresh = writers.arena.take(size_of::<Slab>())?.as_mut_ptr::<Slab>();
            writers.slabs += 1;
            Self::insert(table, slab, fresh);
            Ok(fresh)
        })
    }

    fn insert(table: Table, slab: usize, states: *mut Slab) {
        if let Err(index) = table.probe(slab) {
            let place = table.place(index);
            place.slab.store(states, Ordering::Relaxed);
            place.key.store(slab + 1, Ordering::Release);
        }
    }

    fn grow(&self, writers: &mut Writers, old: Table) -> Result<Table, MapError> {
        let pointer = Self::make_table(writers, old.log + 1)?;
        // SAFETY: just made.
        let table = unsafe { *pointer };
        for index in 0..1usize << old.log {
            let place = old.place(index);
            let key = place.key.load(Ordering::Relaxed);
            if key != 0 {
                Self::insert(table, key - 1, place.slab.load(Ordering::Relaxed));
            }
        }
        self.current.store(pointer, Ordering::Release);
        Ok(table)
    }

    #[inline]
    fn state_in(slab: *mut Slab, chunk: usize) -> *const ChunkState {
        // SAFETY: a slab has a state for each of its chunks; both live as long as the mapper.
        unsafe { ptr::from_ref(&(&*slab)[chunk % CHUNKS_IN_SLAB]) }
    }
}

impl Chunks for FragmentedMapper {
    #[inline]
    fn find(&self, chunk: usize) -> Option<&ChunkState> {
        let slab = self.table().probe(chunk / CHUNKS_IN_SLAB).ok()?;
        // SAFETY: as in `state_in`.
        Some(unsafe { &*Self::state_in(slab, chunk) })
    }

    #[inline]
    fn find_or_create(&self, chunk: usize) -> Result<&ChunkState, MapError> {
        let number = chunk / CHUNKS_IN_SLAB;
        let slab = match self.table().probe(number) {
            Ok(slab) => slab,
            Err(_) => self.create(number)?,
        };
        // SAFETY: as in `state_in`.
        Ok(unsafe { &*Self::state_in(slab, chunk) })
    }

    fn supply(&self, start: Address, bytes: usize) -> Result<(), OsError> {
        match self.addresses {
            Addresses::Reserved => self.port.commit(start, bytes),
            Addresses::Claimed => {
                self.port.reserve_at(start, bytes)?;
                self.port.commit(start, bytes).inspect_err(|_| {
                    let _ = self.port.release(start, bytes);
                })
            }
        }
    }

    fn withdraw(&self, start: Address, bytes: usize) -> Result<(), OsError> {
        match self.addresses {
            Addresses::Reserved => self.port.uncommit(start, bytes),
            Addresses::Claimed => self.port.release(start, bytes),
        }
    }

    fn port(&self) -> &dyn Port {
        &*self.port
    }
}
