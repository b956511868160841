use crate::MapError;
use crate::state::{ChunkState, Chunks};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use heapwright_address::{Address, Chunk};
use heapwright_os::{OsError, Port, RawLock, Reservation};
use std::sync::Arc;

/// Logarithm of the bytes that a slab describes: 1 GiB, 256 chunks of 4 MiB.
const LOG_SLAB: u32 = 30;
const CHUNKS_IN_SLAB: usize = 1 << (LOG_SLAB - Chunk::LOG_BYTES);
/// Logarithm of the first table's size.
const LOG_FIRST_TABLE: u32 = 9;
/// A slab's number has at most 4 digits of that width, which [`fold`] relies on.
const _: () = assert!((usize::BITS - LOG_SLAB).div_ceil(LOG_FIRST_TABLE) <= 4);
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

/// [`slab_hash`] of a slab's number as straight-line code, for tables that are not smaller than the first: each step
/// doubles how many digits are in the lowest one.
#[inline(always)]
fn fold(slab: usize, log_table: u32) -> usize {
    let two = slab ^ slab.unbounded_shr(log_table);
    let four = two ^ two.unbounded_shr(2 * log_table);
    four & ((1 << log_table) - 1)
}

type Slab = [ChunkState; CHUNKS_IN_SLAB];

/// One place of a table. `key` is the slab's number plus 1; 0: the place is empty, and so ends a probe. `slab` is written
/// before `key` is published, and neither changes afterwards.
struct Place {
    key: AtomicUsize,
    slab: AtomicPtr<Slab>,
}

/// A table: where its places are, and the logarithm of how many, in one word, so that readers get both at once.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Table(usize);

impl Table {
    /// Places start at a multiple of this, which leaves the low bits to the logarithm.
    const ALIGN: usize = 64;

    fn new(places: Address, log: u32) -> Self {
        Self(places.as_usize() | log as usize)
    }

    #[inline(always)]
    fn log(self) -> u32 {
        (self.0 % Self::ALIGN) as u32
    }

    /// A place by its number, which is below `1 << log`.
    #[inline(always)]
    fn place(&self, index: usize) -> &Place {
        let places = Address::new(self.0 - self.log() as usize).as_ptr::<Place>();
        // SAFETY: a table has `1 << log` places, in memory that lives as long as the mapper.
        unsafe { &*places.add(index) }
    }

    /// The slab, or the number of the place where it would be. The step differs from slab to slab, and reaches every place
    /// since it is odd: slabs that share a home do not follow each other all the way.
    fn probe(self, slab: usize) -> Result<*mut Slab, usize> {
        let mask = (1 << self.log()) - 1;
        let step = (slab.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) | 1;
        let mut index = fold(slab, self.log());
        loop {
            let place = self.place(index);
            match place.key.load(Ordering::Acquire) {
                0 => return Err(index),
                key if key == slab + 1 => return Ok(place.slab.load(Ordering::Relaxed)),
                _ => index = index.wrapping_add(step) & mask,
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
    /// Zeroed memory, aligned to [`Table::ALIGN`].
    fn take(&mut self, bytes: usize) -> Result<Address, OsError> {
        let at = self.used.next_multiple_of(Table::ALIGN);
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
    log_page: u32,
    /// The places of the first table. What is in them stays true when there are larger tables.
    first: *const Place,
    /// A [`Table`]. Those that were before stay in the arena, since readers may still be in them.
    current: AtomicUsize,
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
    /// If the system has no memory for the first table (8 KiB, of which a page is touched).
    pub fn new(port: Arc<dyn Port>, addresses: Addresses) -> Result<Self, MapError> {
        let memory = Reservation::new(Arc::clone(&port), ARENA_BYTES, 4096)?;
        port.name(memory.start(), memory.bytes(), c"heapwright slabs");
        let mut writers = Writers {
            arena: Arena {
                memory,
                used: 0,
                committed: 0,
            },
            slabs: 0,
        };
        let table = Self::make_table(&mut writers, LOG_FIRST_TABLE)?;
        Ok(Self {
            log_page: port.page_size().trailing_zeros(),
            port,
            addresses,
            first: table.place(0),
            current: AtomicUsize::new(table.0),
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
        self.table().log()
    }

    #[inline(always)]
    fn table(&self) -> Table {
        Table(self.current.load(Ordering::Acquire))
    }

    /// The slab, if there is one. Nearly always it is at home in the first table, whose hash is made of constants and whose
    /// address needs no synchronisation; all else is out of line.
    #[inline(always)]
    fn slab(&self, number: usize) -> Option<&Slab> {
        // SAFETY: the first table has so many places, and lives as long as the mapper.
        let home = unsafe { &*self.first.add(fold(number, LOG_FIRST_TABLE)) };
        let key = home.key.load(Ordering::Acquire);
        if key == number + 1 {
            // SAFETY: a slab lives as long as the mapper, and is made of atomics.
            return Some(unsafe { &*home.slab.load(Ordering::Relaxed) });
        }
        // A table that has a successor gets no new slabs.
        if key == 0 && self.table().log() == LOG_FIRST_TABLE {
            return None;
        }
        self.slab_elsewhere(number)
    }

    /// As `slab`, for one that is not at home in the first table.
    #[inline(never)]
    fn slab_elsewhere(&self, number: usize) -> Option<&Slab> {
        // SAFETY: as in `slab`.
        self.table()
            .probe(number)
            .ok()
            .map(|slab| unsafe { &*slab })
    }

    fn make_table(writers: &mut Writers, log: u32) -> Result<Table, MapError> {
        let places = writers.arena.take(size_of::<Place>() << log)?;
        Ok(Table::new(places, log))
    }

    #[cold]
    fn create(&self, slab: usize) -> Result<&Slab, MapError> {
        self.lock.with(|| {
            // SAFETY: the lock is held.
            let writers = unsafe { &mut *self.writers.get() };
            let mut table = self.table();
            if let Ok(found) = table.probe(slab) {
                // SAFETY: a slab lives as long as the mapper, and is made of atomics.
                return Ok(unsafe { &*found });
            }
            if (writers.slabs + 1) * FULL_DENOMINATOR > FULL_NUMERATOR << table.log() {
                table = self.grow(writers, table)?;
            }
            // Zero is "unmapped".
            let fresh = writers.arena.take(size_of::<Slab>())?.as_mut_ptr::<Slab>();
            writers.slabs += 1;
            Self::insert(table, slab, fresh);
            // SAFETY: as above.
            Ok(unsafe { &*fresh })
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
        let table = Self::make_table(writers, old.log() + 1)?;
        for index in 0..1usize << old.log() {
            let place = old.place(index);
            let key = place.key.load(Ordering::Relaxed);
            if key != 0 {
                Self::insert(table, key - 1, place.slab.load(Ordering::Relaxed));
            }
        }
        self.current.store(table.0, Ordering::Release);
        Ok(table)
    }
}

impl Chunks for FragmentedMapper {
    #[inline(always)]
    fn find(&self, chunk: usize) -> Option<&ChunkState> {
        let slab = self.slab(chunk / CHUNKS_IN_SLAB)?;
        Some(&slab[chunk % CHUNKS_IN_SLAB])
    }

    fn find_or_create(&self, chunk: usize) -> Result<&ChunkState, MapError> {
        let number = chunk / CHUNKS_IN_SLAB;
        let slab = match self.slab(number) {
            Some(slab) => slab,
            None => self.create(number)?,
        };
        Ok(&slab[chunk % CHUNKS_IN_SLAB])
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

    #[inline(always)]
    fn log_page(&self) -> u32 {
        self.log_page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_straight_line_hash_is_the_hash() {
        let mut slab = 1usize;
        for log in LOG_FIRST_TABLE..28 {
            for _ in 0..1000 {
                slab = slab.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
                let number = slab >> LOG_SLAB;
                assert_eq!(
                    fold(number, log),
                    slab_hash(Address::new(number << LOG_SLAB), log)
                );
            }
        }
    }
}
