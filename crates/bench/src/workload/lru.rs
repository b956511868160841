//! `lru`: a cache of strings, as servers have it, and how long its operations take.
//!
//! A hash table of chained entries, which are also in a doubly linked list in the order of their last use. An operation
//! looks a key up, or makes an entry for it; the entry that was not used for longest leaves then. Objects therefore die
//! old, the worst case for generations. Values have 16 to 4096 bytes, small ones more often; some keys are asked for more
//! often than others.

use std::time::Instant;

use super::checksum::{Checksum, fill};
use super::histogram::Histogram;
use super::random::{Random, mix};
use super::slices::Slices;
use super::{Fault, Outcome, POLL, Settings, at, there};
use crate::runtime::{Root, Thread};

// References of an entry. Its raw bytes are the hash of its key.
const KEY: usize = 0;
const VALUE: usize = 1;
/// The next entry of the bucket.
const CHAIN: usize = 2;
/// The entry that was used next before this one.
const OLDER: usize = 3;
/// The entry that was used next after this one.
const NEWER: usize = 4;
const ENTRY_REFERENCES: usize = 5;
const ENTRY_RAW: usize = 8;

struct Cache {
    buckets: Slices,
    /// An entry without key and value; the list of entries is a ring with this one in it.
    sentinel: Root,
    mask: usize,
    allocated_bytes: u64,
}

impl Cache {
    fn new<T: Thread>(t: &mut T, capacity: usize) -> Result<Cache, Fault> {
        let length = capacity.next_power_of_two();
        let buckets = Slices::new(t, length)?;
        let sentinel = t.object(ENTRY_REFERENCES, ENTRY_RAW)?;
        t.set(sentinel, OLDER, Some(sentinel));
        t.set(sentinel, NEWER, Some(sentinel));
        Ok(Cache {
            allocated_bytes: buckets.bytes(),
            buckets,
            sentinel: t.push(Some(sentinel)),
            mask: length - 1,
        })
    }

    /// Finds the entry of a key.
    #[inline]
    fn find<T: Thread>(&self, t: &T, id: u64, hash: u64) -> Result<Option<T::Ref>, Fault> {
        let mut entry = self.buckets.get(t, hash as usize & self.mask)?;
        while let Some(this) = entry {
            if t.raw(this, 0) == hash {
                let key = there(t.get(this, KEY))?;
                if t.raw(key, 0) == id {
                    return Ok(Some(this));
                }
            }
            entry = t.get(this, CHAIN);
        }
        Ok(None)
    }

    /// Takes an entry out of the list.
    #[inline]
    fn unlink<T: Thread>(t: &mut T, entry: T::Ref) -> Result<(), Fault> {
        let older = there(t.get(entry, OLDER))?;
        let newer = there(t.get(entry, NEWER))?;
        t.set(newer, OLDER, Some(older));
        t.set(older, NEWER, Some(newer));
        Ok(())
    }

    /// Makes an entry the newest of the list.
    #[inline]
    fn link<T: Thread>(&self, t: &mut T, entry: T::Ref) -> Result<(), Fault> {
        let sentinel = at(t, self.sentinel)?;
        let newest = there(t.get(sentinel, OLDER))?;
        t.set(entry, OLDER, Some(newest));
        t.set(entry, NEWER, Some(sentinel));
        t.set(newest, NEWER, Some(entry));
        t.set(sentinel, OLDER, Some(entry));
        Ok(())
    }

    /// Removes the oldest entry.
    fn evict<T: Thread>(&self, t: &mut T) -> Result<(), Fault> {
        let oldest = there(t.get(at(t, self.sentinel)?, NEWER))?;
        Cache::unlink(t, oldest)?;
        let bucket = t.raw(oldest, 0) as usize & self.mask;
        let rest = t.get(oldest, CHAIN);
        let mut entry = there(self.buckets.get(t, bucket)?)?;
        if t.same(entry, oldest) {
            self.buckets.set(t, bucket, rest)?;
        } else {
            loop {
                let next = there(t.get(entry, CHAIN))?;
                if t.same(next, oldest) {
                    break;
                }
                entry = next;
            }
            t.set(entry, CHAIN, rest);
        }
        Cache::dispose_entry(t, oldest)
    }

    fn dispose_entry<T: Thread>(t: &mut T, entry: T::Ref) -> Result<(), Fault> {
        if T::MANUAL {
            let key = there(t.get(entry, KEY))?;
            t.dispose(key);
            let value = there(t.get(entry, VALUE))?;
            t.dispose(value);
            t.dispose(entry);
        }
        Ok(())
    }

    /// Makes an entry. May collect.
    fn insert<T: Thread>(
        &mut self,
        t: &mut T,
        id: u64,
        hash: u64,
        length: usize,
        contents: u64,
    ) -> Result<(), Fault> {
        let key_length = 16 + (id % 25) as usize;
        let key = t.bytes(key_length)?;
        fill(t.raw_slice(key), hash);
        t.set_raw(key, 0, id);
        let key = t.push(Some(key));
        let value = t.bytes(length)?;
        fill(t.raw_slice(value), contents);
        let value = t.push(Some(value));
        let entry = t.object(ENTRY_REFERENCES, ENTRY_RAW)?;
        t.set_raw(entry, 0, hash);
        let reference = t.root(key);
        t.set(entry, KEY, reference);
        let reference = t.root(value);
        t.set(entry, VALUE, reference);
        t.truncate(key.0);
        let bucket = hash as usize & self.mask;
        let slice = self.buckets.slice(t, bucket)?;
        let rest = t.get(slice, Slices::place(bucket));
        t.set(entry, CHAIN, rest);
        t.set(slice, Slices::place(bucket), Some(entry));
        self.allocated_bytes += (key_length + length + ENTRY_REFERENCES * 8 + ENTRY_RAW) as u64;
        self.link(t, entry)
    }

    /// Adds the contents of all entries, the newest first. May collect.
    fn add_all<T: Thread>(&self, t: &mut T, sum: &mut Checksum) -> Result<u64, Fault> {
        let mut count = 0;
        let newest = t.get(at(t, self.sentinel)?, OLDER);
        let cursor = t.push(newest);
        'all: loop {
            t.poll();
            let sentinel = at(t, self.sentinel)?;
            let mut entry = at(t, cursor)?;
            for _ in 0..POLL / 64 {
                if t.same(entry, sentinel) {
                    break 'all;
                }
                count += 1;
                sum.add(t.raw(entry, 0));
                let key = there(t.get(entry, KEY))?;
                sum.add_bytes(t.raw_slice(key));
                let value = there(t.get(entry, VALUE))?;
                sum.add_bytes(t.raw_slice(value));
                entry = there(t.get(entry, OLDER))?;
            }
            t.set_root(cursor, Some(entry));
        }
        t.truncate(cursor.0);
        Ok(count)
    }

    fn dispose<T: Thread>(self, t: &mut T) -> Result<(), Fault> {
        if T::MANUAL {
            let sentinel = at(t, self.sentinel)?;
            let mut entry = there(t.get(sentinel, OLDER))?;
            while !t.same(entry, sentinel) {
                let next = there(t.get(entry, OLDER))?;
                Cache::dispose_entry(t, entry)?;
                entry = next;
            }
            t.dispose(sentinel);
            for bucket in 0..self.buckets.len() {
                self.buckets.set(t, bucket, None)?;
            }
            self.buckets.dispose(t)?;
        }
        Ok(())
    }
}

/// The length of a value: 16 to 4096 bytes, 800 on average.
#[inline]
fn length(bits: u64) -> usize {
    let largest = (bits >> 40) as usize % 4081;
    let part = (bits & 0xffff_ffff) as usize % 101;
    16 + largest * (part * (part + 50)) / 15_000
}

/// Runs it.
pub(super) fn run<T: Thread>(t: &mut T, settings: &Settings) -> Result<Outcome, Fault> {
    let capacity = settings.count(250_000, 256);
    let operations = settings.count(3_000_000, 4096);
    let keys = 4 * capacity as u64;
    let mut random = Random::new(settings.seed);
    let mut times = Histogram::new();
    let mut sum = Checksum::new();
    let mut hits = 0_u64;
    let mut entries = 0;
    let bottom = t.height();
    let mut cache = Cache::new(t, capacity)?;

    let mut before = Instant::now();
    for _ in 0..operations {
        t.poll();
        // The cube of a random part: the first key is the most frequent one.
        let part = random.next() >> 43;
        let id = (((part * part * part) >> 31) * keys) >> 32;
        let hash = mix(id ^ settings.seed);
        match cache.find(t, id, hash)? {
            Some(entry) => {
                hits += 1;
                let value = there(t.get(entry, VALUE))?;
                sum.add(t.raw(value, 0));
                Cache::unlink(t, entry)?;
                cache.link(t, entry)?;
            }
            None => {
                if entries == capacity {
                    cache.evict(t)?;
                } else {
                    entries += 1;
                }
                let bits = random.next();
                cache.insert(t, id, hash, length(bits), bits)?;
            }
        }
        let now = Instant::now();
        times.add(now.duration_since(before).as_nanos() as u64);
        before = now;
    }

    sum.add(hits);
    let found = cache.add_all(t, &mut sum)?;
    sum.add(found);
    let allocated_bytes = cache.allocated_bytes + (ENTRY_REFERENCES * 8 + ENTRY_RAW) as u64;
    cache.dispose(t)?;
    t.finish(bottom);
    Ok(Outcome {
        checksum: sum.finish(),
        allocated_bytes,
        operation_ns: Some([
            times.percentile(0.5),
            times.percentile(0.99),
            times.percentile(0.999),
            times.largest(),
        ]),
        ..Outcome::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let mut random = Random::new(1);
        let lengths: Vec<usize> = (0..100_000).map(|_| length(random.next())).collect();
        let average = lengths.iter().sum::<usize>() / lengths.len();
        assert!((780..840).contains(&average), "{average}");
        assert!(lengths.iter().all(|length| (16..=4096).contains(length)));
    }
}
