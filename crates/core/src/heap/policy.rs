//! By how much a heap may grow before all of it is traced again: sizing policies.
//!
//! After each full collection a policy is asked for *room*: the bytes that the heap may take beyond what lives. The heap keeps
//! that below its limits. A policy sees sizes, rates and times, and no heap: it is tested by sequences of numbers.
//!
//! | option `sizing` | room |
//! |---|---|
//! | `fixed` | all that the limit leaves |
//! | `factor:F` | (F - 1) times what lives |
//! | `balance:N` | the square root of live bytes x N bytes x allocation rate / tracing rate: M. Kirisame, P. Shenoy, P. Panchekha, *Optimal Heap Limits for Reducing Browser Memory Use*, OOPSLA 2022 |
//! | `cpu:N` | what the program allocates in the time that makes the next full collection N % of all CPU time |
//!
//! A runtime that knows better implements [`SizingPolicy`] and hands it to [`crate::Builder::sizing`].

use crate::options::{DEFAULT_GROWTH, Options, SizingChoice};
use core::fmt::Debug;
use heapwright_os::Pressure;

/// A heap may always grow by so much, in bytes: for a small one collections would cost more than that memory.
pub(super) const LEAST_ROOM: usize = 8 << 20;
/// The least room of `balance`, which weighs small heaps against large ones.
const LEAST_BALANCED: usize = 2 << 20;
/// Room for this part of what lives there is always: so a heap doubles in a few collections, whatever was measured.
const LEAST_PART: usize = 8;
/// `cpu` and `balance` give at most so many times what lives, and [`MOST_SMALL`].
const MOST_TIMES: usize = 4;
/// For small heaps, in bytes.
const MOST_SMALL: usize = 64 << 20;

/// What a policy is told after a full collection. Sizes in bytes, times in nanoseconds of CPU time of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// What lives, and the external memory that the runtime reported.
    pub live_bytes: usize,
    /// What the program allocated since the full collection before.
    pub allocated_bytes: u64,
    /// How long the program ran since then: the process's CPU time outside of collections.
    pub program_ns: u64,
    /// How long all collections took since then, this one included.
    pub collector_ns: u64,
    /// How long this full one took.
    pub full_ns: u64,
    /// The most that the heap can be given: what its limits leave.
    pub most_bytes: usize,
    /// Whether the system is short of memory. The heap halves the room of every policy then.
    pub pressure: Pressure,
}

/// Decides by how much a heap grows.
///
/// It is called with the world stopped, by the thread that collects: it must not allocate on the heap, nor wait for a mutator.
///
/// ```
/// use heapwright::example::Pairs;
/// use heapwright::{Heap, Measured, SizingPolicy};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// /// As much as lives, and a megabyte.
/// #[derive(Debug)]
/// struct Twice;
///
/// impl SizingPolicy for Twice {
///     fn name(&self) -> &'static str {
///         "twice"
///     }
///
///     fn room(&mut self, measured: &Measured) -> usize {
///         measured.live_bytes + (1 << 20)
///     }
/// }
///
/// let heap = Heap::<Pairs>::builder()
///     .options(Pairs::options("immix")?)
///     .sizing(Box::new(Twice))
///     .build(Pairs)?;
/// heap.attach(Vec::new())?.collect();
/// # Ok(())
/// # }
/// ```
pub trait SizingPolicy: Send + Debug {
    /// What it is called in reports.
    fn name(&self) -> &'static str;

    /// The bytes that may be taken beyond what lives before the next full collection. The heap keeps within its limits, and gives a
    /// little more where none would be left.
    fn room(&mut self, measured: &Measured) -> usize;

    /// Does the heap use all of its limit from the first? Then memory pressure does not change its size, and a limit that is raised
    /// is used at once.
    fn takes_all(&self) -> bool {
        false
    }
}

/// The policy that the options ask for.
#[must_use]
pub fn choose(options: &Options) -> Box<dyn SizingPolicy> {
    match options.sizing {
        SizingChoice::Auto if options.max != 0 => Box::new(Fixed),
        SizingChoice::Auto if options.growth != DEFAULT_GROWTH => Box::new(Factor {
            growth: options.growth,
        }),
        SizingChoice::Auto => Box::new(CpuTarget::new(SizingChoice::DEFAULT_CPU)),
        SizingChoice::Fixed => Box::new(Fixed),
        SizingChoice::Factor(percent) => Box::new(Factor {
            growth: percent.saturating_sub(100),
        }),
        SizingChoice::Balance(price) => Box::new(Balance::new(price)),
        SizingChoice::Cpu(percent) => Box::new(CpuTarget::new(percent)),
    }
}

/// All that the limit leaves.
#[derive(Debug)]
pub struct Fixed;

impl SizingPolicy for Fixed {
    fn name(&self) -> &'static str {
        "fixed"
    }

    fn room(&mut self, _: &Measured) -> usize {
        usize::MAX
    }

    fn takes_all(&self) -> bool {
        true
    }
}

/// In proportion to what lives.
#[derive(Debug)]
pub struct Factor {
    /// Percent of what lives.
    pub growth: usize,
}

impl SizingPolicy for Factor {
    fn name(&self) -> &'static str {
        "factor"
    }

    fn room(&mut self, measured: &Measured) -> usize {
        (measured.live_bytes / 100)
            .saturating_mul(self.growth)
            .max(LEAST_ROOM)
    }
}

/// Rates of the last collections: each weighs half of all before it.
#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    /// Bytes that the program allocates in a nanosecond.
    allocated: f64,
    /// Nanoseconds to trace a byte that lives.
    traced: f64,
    known: bool,
}

impl Rates {
    fn learn(&mut self, measured: &Measured) {
        // A program that ran for less than the clock's grain says nothing.
        let allocated = measured.allocated_bytes as f64 / measured.program_ns.max(1000) as f64;
        let traced = measured.full_ns as f64 / measured.live_bytes.max(4096) as f64;
        if self.known {
            self.allocated = (self.allocated + allocated) / 2.0;
            self.traced = (self.traced + traced) / 2.0;
        } else {
            *self = Self {
                allocated,
                traced,
                known: true,
            };
        }
    }
}

/// Between what keeps a heap from collecting all the time and what is more than anybody needs.
fn bounded(room: f64, live: usize, least: usize) -> usize {
    let least = least.max(live / LEAST_PART);
    let most = live.saturating_mul(MOST_TIMES).saturating_add(MOST_SMALL);
    // A float beyond the integers becomes the largest, and what is no number becomes 0.
    (room as usize).clamp(least, most)
}

/// The square-root rule of MemBalancer.
///
/// The time that collections take is `allocated / room * live * traced`. The sum of that over all heaps is least, for the same
/// memory, where an additional byte saves each heap the same time: `allocated * live * traced / room^2` is one number for all of
/// them. So heaps that share that number, the option, share memory well without knowing of each other.
///
/// Rates are averages of the last collections, so that one odd collection changes little; room shrinks by a half at once at most,
/// and grows at once, so that a heap that fills up need not collect ten times to double; small heaps have 2 MiB.
#[derive(Debug)]
pub struct Balance {
    price: f64,
    rates: Rates,
    last: usize,
}

impl Balance {
    /// With the room in bytes, squared and divided by what lives, where the program allocates as fast as it is traced.
    #[must_use]
    pub fn new(price: usize) -> Self {
        Self {
            price: price as f64,
            rates: Rates::default(),
            last: 0,
        }
    }
}

impl SizingPolicy for Balance {
    fn name(&self) -> &'static str {
        "balance"
    }

    fn room(&mut self, measured: &Measured) -> usize {
        self.rates.learn(measured);
        let live = measured.live_bytes as f64;
        let room = (live * self.price * self.rates.allocated * self.rates.traced).sqrt();
        let room = bounded(room, measured.live_bytes, LEAST_BALANCED);
        self.last = room.max(self.last / 2);
        self.last
    }
}

/// Collections take a part of all CPU time.
#[derive(Debug)]
pub struct CpuTarget {
    /// Of all CPU time.
    part: f64,
    rates: Rates,
}

impl CpuTarget {
    /// With the part in percent.
    #[must_use]
    pub fn new(percent: usize) -> Self {
        Self {
            part: percent.clamp(1, 90) as f64 / 100.0,
            rates: Rates::default(),
        }
    }
}

impl SizingPolicy for CpuTarget {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn room(&mut self, measured: &Measured) -> usize {
        self.rates.learn(measured);
        // What minor collections take is not left for the full one.
        let minor = measured.collector_ns.saturating_sub(measured.full_ns) as f64;
        let all = measured.program_ns as f64 + measured.collector_ns.max(1) as f64;
        let part = (self.part - minor / all).max(self.part / 4.0);
        let full = self.rates.traced * measured.live_bytes as f64;
        let room = self.rates.allocated * full * (1.0 - part) / part;
        bounded(room, measured.live_bytes, LEAST_ROOM)
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
