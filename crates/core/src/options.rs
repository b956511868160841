//! The options of a heap: one table with name, default, unit and meaning.
//!
//! Each can be set in code ([`Options::set`]) and by an environment variable `HEAPWRIGHT_<NAME>` ([`Options::from_env`]).

use crate::error::OptionError;
use core::fmt;
use heapwright_os::limits;

/// The plans that exist. What each does is in [`crate::plan`].
///
/// ```
/// use heapwright::PlanName;
/// use heapwright::plan;
///
/// assert_eq!(PlanName::Immix.name(), "immix");
/// assert!(plan::ALL.iter().any(|p| p.name == "concurrentimmix" && p.concurrent));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PlanName {
    /// Never collects.
    NoGc,
    /// Segregated fit, non-moving, mark bits in a side table.
    #[default]
    MarkSweep,
    /// All objects move to the other half at each collection.
    SemiSpace,
    /// What lives slides together.
    MarkCompact,
    /// Lines of blocks are reused; fragmented blocks are emptied.
    Immix,
    /// A nursery before a semispace.
    GenCopy,
    /// A nursery before Immix.
    GenImmix,
    /// Immix with generations in place.
    StickyImmix,
    /// MarkSweep with generations in place.
    StickyMarkSweep,
    /// Immix that marks while mutators run.
    ConcurrentImmix,
    /// Each object has pages of its own, which nobody may touch any more when it is dead.
    PageProtect,
}

impl PlanName {
    /// All plans.
    pub const ALL: [Self; 11] = [
        Self::NoGc,
        Self::MarkSweep,
        Self::SemiSpace,
        Self::MarkCompact,
        Self::Immix,
        Self::GenCopy,
        Self::GenImmix,
        Self::StickyImmix,
        Self::StickyMarkSweep,
        Self::ConcurrentImmix,
        Self::PageProtect,
    ];

    /// Its name in options and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoGc => "nogc",
            Self::MarkSweep => "marksweep",
            Self::SemiSpace => "semispace",
            Self::MarkCompact => "markcompact",
            Self::Immix => "immix",
            Self::GenCopy => "gencopy",
            Self::GenImmix => "genimmix",
            Self::StickyImmix => "stickyimmix",
            Self::StickyMarkSweep => "stickymarksweep",
            Self::ConcurrentImmix => "concurrentimmix",
            Self::PageProtect => "pageprotect",
        }
    }

    /// Can it serve a runtime of words, as of programs that use libgc? Such a plan moves nothing and needs no write barrier.
    #[must_use]
    pub const fn serves_words(self) -> bool {
        matches!(self, Self::NoGc | Self::MarkSweep)
    }

    /// One sentence for lists.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::NoGc => "allocates and never collects",
            Self::MarkSweep => {
                "segregated fit, non-moving, parallel marking, free cells taken from the mark bits"
            }
            Self::SemiSpace => "copies all that lives from one half of the heap to the other",
            Self::MarkCompact => {
                "slides what lives together, in the order of addresses; needs no memory to copy to"
            }
            Self::Immix => {
                "bumps through free lines of blocks; empties fragmented blocks when there is room"
            }
            Self::GenCopy => "a copying nursery before a semispace",
            Self::GenImmix => "a copying nursery before Immix",
            Self::StickyImmix => "Immix whose marks stick: what is old is not traced each time",
            Self::StickyMarkSweep => {
                "MarkSweep whose marks stick: generations for runtimes whose objects cannot move"
            }
            Self::ConcurrentImmix => {
                "Immix that marks while the program runs, with two short pauses for each collection"
            }
            Self::PageProtect => {
                "for finding errors: whoever touches a dead object is stopped by the system"
            }
        }
    }
}

impl fmt::Display for PlanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a heap of objects asks for huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Huge {
    /// For what is above 64 MiB, or for all of a heap whose limit is not below that.
    #[default]
    Auto,
    /// For all of it.
    On,
    /// For nothing.
    Off,
}

/// How large a heap grows: see [`crate::heap::policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SizingChoice {
    /// With a limit `max` all of it; with the option `growth` by that; else `cpu:10`.
    #[default]
    Auto,
    /// All that the limit leaves.
    Fixed,
    /// So many percent of what lives, more than 100.
    Factor(usize),
    /// By the square-root rule, with a price in bytes.
    Balance(usize),
    /// Such that collections take at most so many percent of CPU time.
    Cpu(usize),
}

impl SizingChoice {
    /// The price of `balance` without one, in bytes.
    pub const DEFAULT_BALANCE: usize = 64 << 20;
    /// The percent of `cpu` without one.
    pub const DEFAULT_CPU: usize = 10;

    fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once(':')
            .map_or((text, None), |(n, v)| (n, Some(v)));
        match (name, value) {
            ("auto", None) => Ok(Self::Auto),
            ("fixed", None) => Ok(Self::Fixed),
            ("factor", value) => percent(value.unwrap_or("1.8")).map(Self::Factor),
            ("balance", None) => Ok(Self::Balance(Self::DEFAULT_BALANCE)),
            ("balance", Some(value)) => match size(value)? {
                0 => Err(String::from(
                    "the price of balance is a size above 0, as in balance:64m",
                )),
                bytes => Ok(Self::Balance(bytes)),
            },
            ("cpu", None) => Ok(Self::Cpu(Self::DEFAULT_CPU)),
            ("cpu", Some(value)) => number(value, 1, 90).map(Self::Cpu),
            _ => Err(String::from(
                "auto, fixed, factor:1.8, balance, balance:64m, cpu or cpu:10 is wanted",
            )),
        }
    }
}

/// A factor with at most two decimals, as percent.
fn percent(text: &str) -> Result<usize, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let percent = (digits(whole) && digits(part) && part.len() <= 2)
        .then(|| {
            let hundredths = format!("{part:0<2}").parse::<usize>().ok()?;
            whole
                .parse::<usize>()
                .ok()?
                .checked_mul(100)?
                .checked_add(hundredths)
        })
        .flatten();
    match percent {
        Some(n) if (105..=10_000).contains(&n) => Ok(n),
        _ => Err(String::from(
            "a factor from 1.05 to 100 is wanted, as in factor:1.8",
        )),
    }
}

/// How memory that a heap does not need goes back to the system while the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// Only when it is asked for.
    Off,
    /// Half of it in so many milliseconds; 0: at once.
    Half(usize),
}

impl Default for Decay {
    fn default() -> Self {
        Self::Half(500)
    }
}

/// What a full collection of a plan with lines moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Evacuate {
    /// Nothing, ever: for runtimes that cannot move objects. Plans that have to move refuse it.
    Never,
    /// What is in fragmented blocks, when much is lost to holes.
    #[default]
    Fragmented,
    /// All that there is room for: for tests.
    All,
}

/// How long soft references hold what nothing else does. In an emergency, before memory runs out, none does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Soft {
    /// Not at all: they are weak ones.
    Clear,
    /// As long as there is room.
    Room,
    /// So many milliseconds for each MiB that is free, since they were last read (the policy of Java's machines). Time is counted from
    /// collection to collection: what was read since the last one holds.
    Recent(u32),
}

impl Default for Soft {
    fn default() -> Self {
        Self::Recent(1000)
    }
}

/// A heap's options. `Default` gives the defaults of [`TABLE`].
///
/// ```
/// use heapwright::{Options, PlanName};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let mut options = Options::default();
/// options.set("plan", "genimmix")?;
/// options.set("max", "64m")?;
/// assert_eq!((options.plan, options.max), (PlanName::GenImmix, 64 << 20));
/// let error = options.set("max", "much").unwrap_err();
/// assert!(error.to_string().contains("max"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which plan.
    pub plan: PlanName,
    /// Bytes that may be allocated before the first collection; 0: the plan decides.
    pub heap: usize,
    /// The heap's hard limit in bytes, which it never passes; 0: three quarters of what the process may use.
    pub max: usize,
    /// The soft limit in bytes: above it the heap collects harder; 0: seven eighths of the control group's `memory.high`, if any.
    pub soft: usize,
    /// How large the heap grows below its limits.
    pub sizing: SizingChoice,
    /// How memory goes back to the system.
    pub decay: Decay,
    /// Bytes in a second that go back at most; 0: as many as are needed for it to be over in 3 seconds.
    pub rate: usize,
    /// Limits of control groups and of the process, and memory pressure, are looked at now and then.
    pub follow: bool,
    /// Threads that mark, the collecting one included; 0: see [`Options::most_workers`].
    pub workers: usize,
    /// The verifier checks the heap after each collection.
    pub verify: bool,
    /// Collect at every nth allocation; 0: never.
    pub stress: usize,
    /// Memory that is free is filled with a pattern: see [`crate::space::poison`].
    pub poison: bool,
    /// Threads let others go first at about one in so many points where that may matter; 0: never.
    pub yields: usize,
    /// What plans with lines evacuate in a full collection.
    pub evacuate: Evacuate,
    /// Part of the live size that a large heap may allocate between two collections, in percent; others in proportion.
    pub growth: usize,
    /// Memory that may always be allocated between two collections, in bytes.
    pub nursery: usize,
    /// Whether the heap asks for huge pages.
    pub huge: Huge,
    /// How long soft references hold.
    pub soft_references: Soft,
}

/// One row of the table of options.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The name in [`Options::set`]; `HEAPWRIGHT_` and the name in capitals in the environment.
    pub name: &'static str,
    /// The default as it would be written.
    pub default: &'static str,
    /// What values look like.
    pub unit: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    set: fn(&mut Options, &str) -> Result<(), String>,
}

/// The one table of options.
pub const TABLE: &[Row] = &[
    Row {
        name: "plan",
        default: "marksweep",
        unit: "a name (heapwright plans)",
        meaning: "how memory is given out and how the living are found",
        set: |o, v| {
            o.plan = PlanName::ALL
                .into_iter()
                .find(|p| p.name() == v)
                .ok_or_else(|| {
                    format!(
                        "plans are: {}",
                        PlanName::ALL.map(PlanName::name).join(", ")
                    )
                })?;
            Ok(())
        },
    },
    Row {
        name: "heap",
        default: "0",
        unit: "bytes, or with k, m, g",
        meaning: "what may be allocated before the first collection; 0: the plan decides",
        set: |o, v| size(v).map(|n| o.heap = n),
    },
    Row {
        name: "max",
        default: "0",
        unit: "bytes, or with k, m, g",
        meaning: "the heap's hard limit, never passed; 0: three quarters of what the process may use by the machine, its control groups \
                  and ulimit (under libgc programs: no limit)",
        set: |o, v| size(v).map(|n| o.max = n),
    },
    Row {
        name: "soft",
        default: "0",
        unit: "bytes, or with k, m, g",
        meaning: "above this soft limit the heap collects harder before it grows; 0: seven eighths of the control group's memory.high, \
                  if there is one",
        set: |o, v| size(v).map(|n| o.soft = n),
    },
    Row {
        name: "sizing",
        default: "auto",
        unit: "auto | fixed | factor[:F] | balance[:SIZE] | cpu[:PERCENT]",
        meaning: "how large the heap grows below its limits: fixed uses all of the limit; factor:1.8 grows to 1.8 times what lives; \
                  balance shares memory well among heaps (square-root rule; more with a larger size, 64m if not given); cpu:10 \
                  spends at most 10 % of CPU time on collections. auto: fixed if max is given, by growth if that is, else cpu:10; under \
                  libgc programs a rule of their own",
        set: |o, v| SizingChoice::parse(v).map(|s| o.sizing = s),
    },
    Row {
        name: "decay",
        default: "500",
        unit: "milliseconds, or off",
        meaning: "the time in which half of the memory that the heap does not need goes back to the system, in the background; 0: at \
                  once; off: only when asked for",
        set: |o, v| {
            o.decay = if v == "off" {
                Decay::Off
            } else {
                number(v, 0, 86_400_000)
                    .map(Decay::Half)
                    .map_err(|e| format!("{e}, or off"))?
            };
            Ok(())
        },
    },
    Row {
        name: "rate",
        default: "0",
        unit: "bytes a second, or with k, m, g",
        meaning: "how much of that goes back at most; 0: as much as it takes to be done in 3 seconds",
        set: |o, v| size(v).map(|n| o.rate = n),
    },
    Row {
        name: "follow",
        default: "1",
        unit: "0 | 1",
        meaning: "follow changes of the control group's limits, and hurry when the system says that memory is scarce (pressure stall \
                  information)",
        set: |o, v| number(v, 0, 1).map(|n| o.follow = n == 1),
    },
    Row {
        name: "workers",
        default: "auto",
        unit: "threads, 1 to 64, or auto",
        meaning: "how many threads mark, the collecting one included; auto: the processors, at most 4, and one while \
                  less than 32m live",
        set: |o, v| {
            o.workers = if v == "auto" {
                0
            } else {
                number(v, 1, 64).map_err(|e| format!("{e}, or auto"))?
            };
            Ok(())
        },
    },
    Row {
        name: "verify",
        default: "0",
        unit: "0 | 1",
        meaning: "check the whole heap after each collection (slow)",
        set: |o, v| number(v, 0, 1).map(|n| o.verify = n == 1),
    },
    Row {
        name: "stress",
        default: "0",
        unit: "allocations",
        meaning: "collect at every nth allocation; 0: never (very slow)",
        set: |o, v| number(v, 0, usize::MAX).map(|n| o.stress = n),
    },
    Row {
        name: "poison",
        default: "0",
        unit: "0 | 1",
        meaning: "fill free memory with the byte 0xdb; verify then also finds who wrote to it (slow)",
        set: |o, v| number(v, 0, 1).map(|n| o.poison = n == 1),
    },
    Row {
        name: "yields",
        default: "0",
        unit: "points",
        meaning: "threads of the heap let others go first, at random, at one in so many points; 0: never (slow)",
        set: |o, v| number(v, 0, usize::MAX).map(|n| o.yields = n),
    },
    Row {
        name: "evacuate",
        default: "fragmented",
        unit: "never | fragmented | all",
        meaning: "what full collections of the Immix family move: nothing, ever; what is in fragmented blocks; all that there is room for (slow). \
                  Not used under libgc programs",
        set: |o, v| {
            o.evacuate = match v {
                "never" => Evacuate::Never,
                "fragmented" => Evacuate::Fragmented,
                "all" => Evacuate::All,
                _ => return Err(String::from("never, fragmented or all is wanted")),
            };
            Ok(())
        },
    },
    Row {
        name: "growth",
        default: "80",
        unit: "percent, 5 to 1000",
        meaning: "how much a large heap may allocate between two collections, as a part of what was live; others in proportion",
        set: |o, v| number(v, 5, 1000).map(|n| o.growth = n),
    },
    Row {
        name: "nursery",
        default: "384k",
        unit: "bytes, or with k, m, g",
        meaning: "what may always be allocated between two collections; 384k: plans with a nursery decide",
        set: |o, v| size(v).map(|n| o.nursery = n),
    },
    Row {
        name: "huge",
        default: "auto",
        unit: "auto | on | off",
        meaning: "ask for huge pages, in heaps of objects; auto: for what is above 64m, or above 4m if max is at least 64m; off: only small ones; not \
                  used under libgc programs",
        set: |o, v| {
            o.huge = match v {
                "auto" => Huge::Auto,
                "on" => Huge::On,
                "off" => Huge::Off,
                _ => return Err(String::from("auto, on or off is wanted")),
            };
            Ok(())
        },
    },
    Row {
        name: "softrefs",
        default: "1000",
        unit: "clear | room | milliseconds",
        meaning: "how long soft references hold, in heaps of objects: not at all; while there is room; so long after they were read, for each \
                  MiB that is free",
        set: |o, v| {
            o.soft_references = match v {
                "clear" => Soft::Clear,
                "room" => Soft::Room,
                _ => Soft::Recent(
                    number(v, 0, u32::MAX as usize)
                        .map_err(|e| format!("{e}, or clear, or room"))? as u32,
                ),
            };
            Ok(())
        },
    },
];

/// The default of [`Options::growth`].
pub const DEFAULT_GROWTH: usize = 80;

/// The default of [`Options::nursery`].
pub const DEFAULT_NURSERY: usize = 384 << 10;

/// The prefix of environment variables.
pub const ENV_PREFIX: &str = "HEAPWRIGHT_";

/// Variables with the prefix that belong to front ends, not to a heap.
pub const FRONT_END_NAMES: &[&str] = &[
    "log",
    "record",
    "dump",
    "profile",
    "listen",
    "stats_dir",
    "lib",
    "test_stock",
];

fn number(v: &str, low: usize, high: usize) -> Result<usize, String> {
    match v.parse::<usize>() {
        Ok(n) if (low..=high).contains(&n) => Ok(n),
        _ if high == usize::MAX => Err(format!("a whole number, {low} or more, is wanted")),
        _ => Err(format!("a whole number from {low} to {high} is wanted")),
    }
}

/// Reads a size: digits, then nothing or one of `k`, `m`, `g`, `t` (powers of 1024, either case).
///
/// # Errors
/// A sentence that says what a size looks like.
pub fn size(v: &str) -> Result<usize, String> {
    let wrong = || String::from("a size is wanted, like 65536, 64k, 16m or 2g");
    let v = v.trim();
    let (digits, shift) = match v.as_bytes().last().map(u8::to_ascii_lowercase) {
        Some(b'k') => (&v[..v.len() - 1], 10),
        Some(b'm') => (&v[..v.len() - 1], 20),
        Some(b'g') => (&v[..v.len() - 1], 30),
        Some(b't') => (&v[..v.len() - 1], 40),
        _ => (v, 0),
    };
    let n: usize = digits.parse().map_err(|_| wrong())?;
    n.checked_mul(1 << shift).ok_or_else(wrong)
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plan: PlanName::MarkSweep,
            heap: 0,
            max: 0,
            soft: 0,
            sizing: SizingChoice::Auto,
            decay: Decay::default(),
            rate: 0,
            follow: true,
            workers: 0,
            verify: false,
            stress: 0,
            poison: false,
            yields: 0,
            evacuate: Evacuate::Fragmented,
            growth: DEFAULT_GROWTH,
            nursery: DEFAULT_NURSERY,
            huge: Huge::Auto,
            soft_references: Soft::default(),
        }
    }
}

impl Options {
    /// How many threads mark at most: the option, or with `auto` the processors that the process may use, but no more than 4.
    #[must_use]
    pub fn most_workers(&self) -> usize {
        match self.workers {
            0 => limits::processors().min(4),
            workers => workers,
        }
    }

    /// Can these options be those of a runtime of words, as of a program that uses libgc?
    ///
    /// # Errors
    /// If the plan cannot: the error names those that can.
    pub fn check_for_words(&self) -> Result<(), OptionError> {
        if self.plan.serves_words() {
            return Ok(());
        }
        let able: Vec<&str> = PlanName::ALL
            .iter()
            .filter(|plan| plan.serves_words())
            .map(|plan| plan.name())
            .collect();
        Err(OptionError {
            name: "plan".to_owned(),
            value: self.plan.name().to_owned(),
            why: format!(
                "it moves objects or needs a write barrier, and such a program has only words; there are: {}",
                able.join(", ")
            ),
        })
    }

    /// Sets one option by its name in [`TABLE`].
    ///
    /// # Errors
    /// If there is no such option or it does not take the value; the error says what is allowed.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), OptionError> {
        let error = |why: String| OptionError {
            name: name.to_owned(),
            value: value.to_owned(),
            why,
        };
        let Some(row) = TABLE.iter().find(|r| r.name == name) else {
            let names: Vec<&str> = TABLE.iter().map(|r| r.name).collect();
            return Err(error(format!(
                "there is no such option; there are: {}",
                names.join(", ")
            )));
        };
        (row.set)(self, value).map_err(error)
    }

    /// The defaults, changed by the environment's `HEAPWRIGHT_*`.
    ///
    /// # Errors
    /// The first variable that is no option or has a wrong value. [`Options::from_vars_lenient`] goes on instead.
    pub fn from_env() -> Result<Self, OptionError> {
        let (options, error) = Self::from_vars_lenient(std::env::vars());
        error.map_or(Ok(options), Err)
    }

    /// As [`Options::from_env`], from the variables given; wrong ones are passed over and the first error is returned
    /// beside the options.
    pub fn from_vars_lenient(
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> (Self, Option<OptionError>) {
        let mut options = Self::default();
        let mut first = None;
        for (key, value) in vars {
            let Some(name) = key.strip_prefix(ENV_PREFIX) else {
                continue;
            };
            let name = name.to_ascii_lowercase();
            if FRONT_END_NAMES.contains(&name.as_str()) {
                continue;
            }
            if let Err(mut e) = options.set(&name, &value) {
                e.name = key;
                first.get_or_insert(e);
            }
        }
        (options, first)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_table_describes_the_defaults() {
        let mut o = Options {
            plan: PlanName::NoGc,
            heap: 1,
            max: 1,
            soft: 1,
            sizing: SizingChoice::Fixed,
            decay: Decay::Off,
            rate: 1,
            follow: false,
            workers: 9,
            verify: true,
            stress: 3,
            poison: true,
            yields: 3,
            evacuate: Evacuate::All,
            growth: 9,
            nursery: 9,
            huge: Huge::Off,
            soft_references: Soft::Clear,
        };
        for row in TABLE {
            o.set(row.name, row.default).unwrap();
        }
        assert_eq!(o, Options::default());
    }

    #[test]
    fn wrong_names_and_values_say_what_is_allowed() {
        let mut o = Options::default();
        assert!(
            o.set("plam", "x")
                .unwrap_err()
                .to_string()
                .contains("workers")
        );
        assert!(
            o.set("plan", "x")
                .unwrap_err()
                .to_string()
                .contains("marksweep")
        );
        assert!(
            o.set("workers", "0")
                .unwrap_err()
                .to_string()
                .contains("1 to 64")
        );
        assert!(o.set("max", "12q").unwrap_err().to_string().contains("64k"));
        assert!(o.set("max", "99999999999999999999g").is_err());
        assert_eq!(o, Options::default());
    }

    #[test]
    fn sizing_and_decay_are_read_and_refused_with_reasons() {
        let mut o = Options::default();
        for (value, choice) in [
            ("auto", SizingChoice::Auto),
            ("fixed", SizingChoice::Fixed),
            ("factor", SizingChoice::Factor(180)),
            ("factor:2", SizingChoice::Factor(200)),
            ("factor:1.5", SizingChoice::Factor(150)),
            ("factor:1.25", SizingChoice::Factor(125)),
            ("balance", SizingChoice::Balance(64 << 20)),
            ("balance:1g", SizingChoice::Balance(1 << 30)),
            ("cpu", SizingChoice::Cpu(10)),
            ("cpu:3", SizingChoice::Cpu(3)),
        ] {
            o.set("sizing", value).unwrap();
            assert_eq!(o.sizing, choice, "{value}");
        }
        for wrong in [
            "",
            "fix",
            "fixed:1",
            "auto:1",
            "factor:",
            "factor:1",
            "factor:-2",
            "factor:1.234",
            "factor:1e3",
            "factor:.5",
            "factor:99999999999999999999",
            "balance:0",
            "balance:x",
            "cpu:0",
            "cpu:91",
            "cpu:",
            "cpu:1.5",
        ] {
            let error = o.set("sizing", wrong).unwrap_err();
            assert!(
                error.why.contains("wanted") || error.why.contains("above 0"),
                "{error}"
            );
        }
        o.set("decay", "off").unwrap();
        assert_eq!(o.decay, Decay::Off);
        o.set("decay", "0").unwrap();
        assert_eq!(o.decay, Decay::Half(0));
        assert!(o.set("decay", "soon").unwrap_err().why.contains("or off"));
    }

    #[test]
    fn the_environment_is_read_and_its_first_error_kept() {
        let vars = [
            ("HEAPWRIGHT_MAX", "2g"),
            ("PATH", "x"),
            ("HEAPWRIGHT_LOG", "gc"),
            ("HEAPWRIGHT_NO", "1"),
            ("HEAPWRIGHT_STRESS", "-"),
        ];
        let (o, e) = Options::from_vars_lenient(vars.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(o.max, 2 << 30);
        assert_eq!(e.unwrap().name, "HEAPWRIGHT_NO");
    }
}
