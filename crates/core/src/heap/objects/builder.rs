use super::concurrent::Background;
use super::limits::{Bounds, Limits};
use super::pins::Pins;
use super::sizing::Sizing;
use super::tend::Tending;
use super::{Clocks, Heap, Immortals, Inner};
use crate::alloc::{BLOCK_BYTES, Sampler};
use crate::collect::cycle::TraceStacks;
use crate::collect::gate::Gate;
use crate::collect::local::Locals;
use crate::collect::references::References;
use crate::collect::trace::TraceStack;
use crate::collect::worked::Worked;
use crate::collect::{Hashes, Yields};
use crate::error::{HeapError, LimitError, OptionError};
use crate::event::Listener;
use crate::heap::policy::{self, SizingPolicy};
use crate::heap::scavenger::Scavenger;
use crate::heap::words::builder::{MOST_ADDRESS, reserve_range};
use crate::heap::workers::Workers;
use crate::options::{Evacuate, Huge, Options};
use crate::plan::{self, Allocates};
use crate::space::objects::{CODE, CompactTables, LINE, ObjectSpace, ObjectStock, ObjectTables};
use crate::space::pages::{CHUNK, Pages};
use crate::space::poison::Poison;
use crate::space::tables::{Entry, PAIR, Tables};
use crate::space::{MarkSweep, Policy, Stock};
use crate::vm::{KindTraits, Metadata, Vm, World};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use heapwright_memory::{DenseMapper, MappedVec, Scope, SideLayout, SideMemory, SideMetadataSpec};
use heapwright_os::{Machine, Port, Reservation, clock, real_port};
use std::sync::{Arc, Mutex};

/// From this size on, in bytes, a heap asks for huge pages by itself: there tracing waits for the memory, a third less with them,
/// and what they waste is little beside the heap.
const HUGE_FROM: usize = 64 << 20;

/// What a heap uses first, in bytes, has small pages unless it is asked for huge ones: a heap with a few objects occupies what they need, and
/// not a huge page.
const FIRST_SMALL: usize = CHUNK;

/// A heap's memory: what is given back last.
#[derive(Debug)]
pub(super) struct Memory {
    _range: Reservation,
    _side: SideMemory,
}

/// Builds a [`Heap`].
///
/// ```
/// use heapwright::example::Pairs;
/// use heapwright::{Heap, Scavenger, Workers};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let (workers, scavenger) = (Workers::new(2), Scavenger::new());
/// // Two heaps that share threads.
/// let build = || {
///     Heap::<Pairs>::builder()
///         .options(Pairs::options("semispace")?)
///         .workers(&workers)
///         .scavenger(&scavenger)
///         .build(Pairs)
///         .map_err(Box::<dyn std::error::Error>::from)
/// };
/// let heaps = [build()?, build()?];
/// for heap in &heaps {
///     heap.attach(Vec::new())?.collect();
///     assert_eq!(heap.usage().collections, 1);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Builder {
    options: Options,
    port: Option<Arc<dyn Port>>,
    listener: Option<Box<dyn Listener>>,
    sampler: Option<Box<dyn Sampler>>,
    world: Option<Arc<dyn World>>,
    sizing: Option<Box<dyn SizingPolicy>>,
    machine: Machine,
    scavenger: Scavenger,
    workers: Option<Workers>,
}

impl core::fmt::Debug for Builder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Builder")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// The options; else the defaults.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
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

    /// How mutators are stopped; else by a gate of the heap's own, where they stop when they poll or allocate.
    #[must_use]
    pub fn world(mut self, world: Arc<dyn World>) -> Self {
        self.world = Some(world);
        self
    }

    /// How large the heap grows; else as the option `sizing` says.
    #[must_use]
    pub fn sizing(mut self, policy: Box<dyn SizingPolicy>) -> Self {
        self.sizing = Some(policy);
        self
    }

    /// Who gives memory back while the program does nothing; else one of the heap's own. Many heaps that share one share its thread.
    #[must_use]
    pub fn scavenger(mut self, scavenger: &Scavenger) -> Self {
        self.scavenger = scavenger.clone();
        self
    }

    /// Who helps to collect; else threads of the heap's own. Many heaps that share workers share their threads; the option `workers`
    /// then only says whether one thread alone collects what is small (0).
    #[must_use]
    pub fn workers(mut self, workers: &Workers) -> Self {
        self.workers = Some(workers.clone());
        self
    }

    /// Where limits of memory and its scarcity are read; else in the files of this machine.
    #[must_use]
    pub fn machine(mut self, machine: Machine) -> Self {
        self.machine = machine;
        self
    }

    /// Builds the heap. It reserves addresses and commits a few pages; threads start with the first collection that can use
    /// them.
    ///
    /// # Errors
    /// If the system refuses, or the plan cannot serve the runtime. All that was reserved is given back.
    pub fn build<V: Vm>(self, vm: V) -> Result<Heap<V>, HeapError> {
        let Self {
            options,
            port,
            listener,
            sampler,
            world,
            sizing,
            machine,
            scavenger,
            workers: shared,
        } = self;
        let facts = plan::facts(options.plan);
        if options.evacuate == Evacuate::Never && !facts.can_stay() {
            return Err(HeapError::Plan {
                plan: facts.name.name(),
                why: "it has to move objects, and the option evacuate says never: immix, stickyimmix, concurrentimmix, marksweep and \
                      stickymarksweep can do without",
            });
        }
        let port = port.unwrap_or_else(real_port);
        let range = reserve_range(&port, options.max)?;
        if range.end().as_usize() > MOST_ADDRESS {
            return Err(HeapError::TooHigh);
        }
        let (base, bytes) = (range.start(), range.bytes());
        let asked = Limits {
            soft: options.soft,
            hard: options.max,
        };
        // A range may be smaller than it should be where addresses are scarce.
        let bounds = Bounds::new(asked, bytes.max(options.max)).map_err(refused)?;
        bounds.follow(machine.memory());
        port.name(base, bytes, c"heapwright heap");
        // Up to the first only small pages, from the second on huge ones; in between as the system is set.
        let (small_to, huge_from) = match options.huge {
            Huge::Off => (bytes, bytes),
            Huge::On => (0, 0),
            Huge::Auto if options.max >= HUGE_FROM => (FIRST_SMALL, FIRST_SMALL),
            Huge::Auto => (FIRST_SMALL.min(bytes), HUGE_FROM.min(bytes)),
        };
        // Hints: without them the heap is slower or larger, not wrong.
        let _ = port.huge(base, small_to, false);
        let _ = port.huge(base.add(huge_from), bytes - huge_from, true);
        let spec = |name, log_bits, log_bytes| {
            SideMetadataSpec::new(name, log_bits, log_bytes, Scope::Global)
        };
        let mut layout = SideLayout::new()
            .with(spec("bits", 6, PAIR.trailing_zeros() - 1))
            .with(spec("blocks", 5, 15))
            .with(spec("block links", 5, 15))
            .with(spec("large pages", 6, 12))
            .with(spec("lines", 3, LINE.trailing_zeros()))
            .with(spec("log bits", 6, PAIR.trailing_zeros()))
            .with(spec("pending", 6, PAIR.trailing_zeros() - 1));
        if V::OBJECT_MAP {
            layout = layout.with(spec("object map", 6, PAIR.trailing_zeros()));
        }
        let map_at = 7;
        let compact_at = map_at + usize::from(V::OBJECT_MAP);
        let compacts = facts.allocates == Allocates::Bump(Policy::Compact);
        if compacts {
            layout = layout
                .with(spec("live words", 6, PAIR.trailing_zeros() - 1))
                .with(spec("targets", 6, PAIR.trailing_zeros() - 1));
        }
        let stayed_at = compact_at + if compacts { 2 } else { 0 };
        if facts.moves && matches!(V::METADATA, Metadata::Side) {
            layout = layout.with(spec("stayed", 6, PAIR.trailing_zeros()));
        }
        let side = layout.place(&port, base, bytes, c"heapwright side tables")?;
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
        let objects = ObjectTables {
            lines: table(4).as_ptr(),
            unlogged: table(5).as_ptr(),
            pending: table(6).as_ptr(),
            // Without an object map never looked at.
            objects: table(map_at).as_ptr(),
            // Looked at only where the plan moves objects and their bits are in side tables.
            stayed: table(stayed_at).as_ptr(),
        };
        // As above, without the compacting plan.
        let compact = CompactTables {
            live: table(compact_at).as_ptr(),
            targets: table(compact_at + 1).as_ptr(),
        };
        let poison = options
            .poison
            .then(|| Arc::new(Poison::new(options.verify)));
        let cells = MarkSweep::new(tables, options.stress != 0).with_poison(poison.clone());
        // Data; machine code, which differs in how its pages are mapped; and what has to be at a certain address.
        for _ in 0..=CODE.max(Entry::APART).max(Entry::BEHIND) {
            cells
                .define_kind(KindTraits {
                    leaf: false,
                    zeroed: true,
                    collectable: true,
                    conservative: false,
                })
                .ok_or(HeapError::TooManyKinds)?;
        }
        let mapper = DenseMapper::new(Arc::clone(&port), base, bytes)?;
        let pages = Pages::new(Arc::clone(&port), mapper, specs, base, bytes)?.with_poison(poison);
        let young = MappedVec::new(Arc::clone(&port), bytes / 4096, c"heapwright young objects")?;
        let blocks = bytes.div_ceil(BLOCK_BYTES * 64);
        let touched = MappedVec::new(Arc::clone(&port), blocks, c"heapwright young blocks")?;
        let mut stock = ObjectStock::new(Stock::new(pages, 0), young, touched);
        stock.quarantine = facts.quarantine;
        let workers = shared
            .as_ref()
            .map_or_else(|| options.most_workers(), Workers::count);
        let mut stacks = Vec::with_capacity(workers);
        for worker in 0..workers {
            let entries = MappedVec::new(Arc::clone(&port), bytes / 16, c"heapwright mark stack")?;
            stacks.push(TraceStack::new(
                entries,
                Yields::new(options.yields, worker),
            ));
        }
        let space = ObjectSpace::new(cells, objects, compact, bytes, V::OBJECT_MAP, stock);
        let pool = shared.unwrap_or_else(|| Workers::own(workers, options.yields));
        let sizing = Sizing::new(
            &options,
            sizing.unwrap_or_else(|| policy::choose(&options)),
            bounds,
        );
        let yields = Yields::new(options.yields, workers);
        let inner = Arc::new_cyclic(|me| Inner {
            tending: Tending::new(scavenger, me.clone(), &options),
            vm,
            facts,
            space,
            options,
            gate: world.unwrap_or_else(|| Arc::new(Gate::new())),
            locals: Locals::default(),
            background: Background::new(pool.marker()),
            pool,
            stacks: TraceStacks::new(stacks),
            worked: Worked::new(workers),
            pins: Pins::default(),
            hashes: Hashes::default(),
            listener,
            full: Default::default(),
            sampler,
            sizing,
            spent: Mutex::new(Clocks {
                cpu_ns: clock::process_cpu_ns(),
                ..Clocks::default()
            }),
            machine,
            followed: AtomicU64::new(clock::monotonic_ns()),
            orphans: Mutex::new(Vec::new()),
            stopper: AtomicUsize::new(0),
            immortals: Mutex::new(Immortals::default()),
            references: References::new(clock::monotonic_ns()),
            yields,
            full_next: AtomicBool::new(false),
            collections: AtomicU64::new(0),
            full_collections: AtomicU64::new(0),
            traces: AtomicU64::new(0),
            traced: AtomicU64::new(0),
            allocated: AtomicU64::new(0),
            _memory: Memory {
                _range: range,
                _side: side,
            },
        });
        Ok(Heap(inner))
    }
}

/// Options whose limits contradict each other.
fn refused(e: LimitError) -> HeapError {
    let soft = match e {
        LimitError::SoftAboveHard { soft, .. } => soft,
        _ => 0,
    };
    HeapError::Option(OptionError {
        name: String::from("soft"),
        value: soft.to_string(),
        why: e.to_string(),
    })
}
