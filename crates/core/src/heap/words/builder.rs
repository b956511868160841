use super::super::trigger::Trigger;
use super::{Locked, WordHeap};
use crate::alloc::size_class::CLASS_COUNT;
use crate::alloc::{Countdown, FAST_KINDS, Run, Sampler};
use crate::collect::Yields;
use crate::collect::marker::MarkStack;
use crate::collect::words::MarkStacks;
use crate::collect::worked::Worked;
use crate::error::HeapError;
use crate::event::Listener;
use crate::options::Options;
use crate::space::pages::{CHUNK, PAGE, Pages};
use crate::space::poison::Poison;
use crate::space::tables::{PAIR, Tables};
use crate::space::{MarkSweep, Stock};
use crate::vm::{KindTraits, MAX_KINDS, WordVm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use heapwright_memory::{DenseMapper, MappedVec, Scope, SideLayout, SideMemory, SideMetadataSpec};
use heapwright_os::{Port, RawLock, Reservation, limits, real_port};
use heapwright_work::{Config, Pool};
use std::sync::Arc;

/// The mark stack keeps 16 bits of other things with each address. No system hands out higher ones unless asked for them.
pub(crate) const MOST_ADDRESS: usize = 1 << 48;
/// The smallest range that a heap reserves where addresses are not scarce,
const SMALLEST_RANGE: usize = 64 << 20;
/// and where they are.
const LEAST_RANGE: usize = 2 * CHUNK;
/// The largest: more than any machine's memory that this decade's collectors serve.
const LARGEST_RANGE: usize = 1 << 40;

/// A heap's memory: what is given back last.
#[derive(Debug)]
pub(super) struct Memory {
    _range: Reservation,
    _side: SideMemory,
}

/// Builds a [`WordHeap`].
#[derive(Default)]
pub struct WordBuilder {
    options: Options,
    kinds: Vec<KindTraits>,
    port: Option<Arc<dyn Port>>,
    listener: Option<Box<dyn Listener>>,
    sampler: Option<Box<dyn Sampler>>,
}

impl core::fmt::Debug for WordBuilder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("WordBuilder")
            .field("options", &self.options)
            .field("kinds", &self.kinds)
            .finish_non_exhaustive()
    }
}

impl WordBuilder {
    /// The options; else the defaults.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The first kinds, numbered from 0.
    #[must_use]
    pub fn kinds(mut self, kinds: &[KindTraits]) -> Self {
        self.kinds = kinds.to_vec();
        self
    }

    /// The operating system; else the real one.
    #[must_use]
    pub fn port(mut self, port: Arc<dyn Port>) -> Self {
        self.port = Some(port);
        self
    }

    /// Who hears of events.
    #[must_use]
    pub fn listener(mut self, listener: Box<dyn Listener>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Who hears of sampled objects.
    #[must_use]
    pub fn sampler(mut self, sampler: Box<dyn Sampler>) -> Self {
        self.sampler = Some(sampler);
        self
    }

    /// Builds the heap. It reserves addresses and commits a few pages; threads start with the first collection that can
    /// use them.
    ///
    /// # Errors
    /// If the system refuses, or there are too many kinds. All that was reserved is given back.
    pub fn build<V: WordVm>(self, vm: V) -> Result<WordHeap<V>, HeapError> {
        let Self {
            options,
            kinds,
            port,
            listener,
            sampler,
        } = self;
        if !options.plan.serves_words() {
            return Err(HeapError::Plan {
                plan: options.plan.name(),
                why: "its objects move or need a write barrier, and a runtime of words has neither; use nogc or marksweep",
            });
        }
        let port = port.unwrap_or_else(real_port);
        let range = reserve_range(&port, options.max)?;
        if range.end().as_usize() > MOST_ADDRESS {
            return Err(HeapError::TooHigh);
        }
        let (base, bytes) = (range.start(), range.bytes());
        port.name(base, bytes, c"heapwright heap");
        let side = SideLayout::new()
            .with(SideMetadataSpec::new(
                "object and mark bits",
                6,
                PAIR.trailing_zeros() - 1,
                Scope::Global,
            ))
            .with(SideMetadataSpec::new("blocks", 5, 15, Scope::Global))
            .with(SideMetadataSpec::new("block links", 5, 15, Scope::Local))
            .with(SideMetadataSpec::new("large pages", 6, 12, Scope::Local))
            .place(&port, base, bytes, c"heapwright side tables")?;
        let specs = side.specs().to_vec();
        let table = |index: usize| specs.get(index).map_or(base, SideMetadataSpec::table);
        // SAFETY: the tables have the shapes that `Tables` describes (two words of 64 bits a pair, 32 bits a block, 64 bits
        // a page), the mapper maps them zeroed along with each chunk, and `Memory` keeps them until the heap is dropped.
        let tables = unsafe {
            Tables::new(
                base.as_usize(),
                table(0).as_ptr(),
                table(1).as_ptr(),
                table(2).as_ptr(),
                table(3).as_ptr(),
            )
        };
        let poison = options
            .poison
            .then(|| Arc::new(Poison::new(options.verify)));
        let space = MarkSweep::new(tables, options.stress != 0).with_poison(poison.clone());
        for traits in kinds {
            space.define_kind(traits).ok_or(HeapError::TooManyKinds)?;
        }
        let mapper = DenseMapper::new(Arc::clone(&port), base, bytes)?;
        let pages = Pages::new(Arc::clone(&port), mapper, specs, base, bytes)?.with_poison(poison);
        let workers = options.most_workers();
        let mut stacks = Vec::with_capacity(workers);
        for worker in 0..workers {
            let objects = MappedVec::new(Arc::clone(&port), bytes / 64, c"heapwright mark stack")?;
            stacks.push(MarkStack::new(objects, Yields::new(options.yields, worker)));
        }
        let central = (0..(MAX_KINDS - FAST_KINDS) * CLASS_COUNT)
            .map(|_| Run::NEW)
            .collect();
        let pool = Pool::new(Config {
            workers,
            delay: Yields::for_pool(options.yields, workers),
            ..Config::default()
        });
        let mut stock = Stock::new(pages, options.max.next_multiple_of(PAGE));
        // If there is no memory for it, there is none for the first object either, which says so.
        let _ = stock.set_aside_first(&space);
        Ok(WordHeap {
            vm,
            space,
            lock: RawLock::new(),
            locked: UnsafeCell::new(Locked {
                stock,
                trigger: Trigger::new(&options),
                tending: super::tend::Tending::new(&options),
                countdown: Countdown::new(),
            }),
            yields: Yields::new(options.yields, workers),
            options,
            central,
            pool,
            worked: Worked::new(stacks.len()),
            stacks: MarkStacks::new(stacks),
            listener,
            sampler,
            disabled: AtomicUsize::new(0),
            stress: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            helpers: AtomicBool::new(true),
            collections: AtomicU64::new(0),
            allocated_before: AtomicU64::new(0),
            live: AtomicUsize::new(0),
            _memory: Memory {
                _range: range,
                _side: side,
            },
        })
    }
}

/// Reserves the heap's range: a small multiple of the limit, or of the machine's memory if there is none; less where the
/// process may not have so many addresses.
pub(crate) fn reserve_range(port: &Arc<dyn Port>, max: usize) -> Result<Reservation, HeapError> {
    let wanted = if max == 0 {
        limits::physical_bytes().saturating_mul(2)
    } else {
        max.saturating_mul(2)
    };
    let mut bytes = wanted
        .clamp(SMALLEST_RANGE, LARGEST_RANGE)
        .next_multiple_of(CHUNK);
    if let Some(limit) = limits::address_space_limit() {
        bytes = bytes.min((limit / 2).max(LEAST_RANGE) / CHUNK * CHUNK);
    }
    loop {
        match Reservation::new(Arc::clone(port), bytes, CHUNK) {
            Ok(range) => return Ok(range),
            Err(e) if bytes <= LEAST_RANGE => return Err(e.into()),
            Err(_) => bytes = (bytes / 2).next_multiple_of(CHUNK),
        }
    }
}
