//! What is done for a heap of words beside collections: idle memory goes back while the program does nothing, a sizing policy instead
//! of the trigger's own rule, and a soft limit.
//!
//! A heap of words belongs to a runtime that stops its threads in its own way, often by signals, which programs notice: a system
//! call that one interrupts may fail. So no collection is begun for it in the background; it says when one would be wanted, and
//! starts no thread: the runtime calls [`WordHeap::tend`] where it likes.

use super::{Locked, WordHeap};
use crate::alloc::BLOCK_BYTES;
use crate::event::{CollectionStats, Event};
use crate::heap::decay::{Scavenging, View};
use crate::heap::policy::{self, Measured, SizingPolicy};
use crate::options::{Options, SizingChoice};
use crate::probes;
use crate::space::pages::PAGE;
use crate::vm::words::WordVm;
use core::sync::atomic::Ordering;
use heapwright_os::{Machine, Pressure, clock};

/// Between two looks at the machine, in nanoseconds.
const FOLLOW_NS: u64 = 500_000_000;
/// Bytes that go back while the lock is held once.
const SLICE: usize = 4 << 20;
/// The least that may be allocated between two collections above the soft limit, in bytes.
const LEAST_ABOVE_SOFT: usize = 512 << 10;

/// What [`WordHeap::tend`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WordStep {
    /// Bytes that went back to the system.
    pub returned: usize,
    /// A collection would be apt: the program is quiet and allocated since the last, or memory is scarce.
    pub collect: bool,
    /// There will be more to do in a while.
    pub more: bool,
}

/// What is kept for it, under the heap's lock.
#[derive(Debug)]
pub(super) struct Tending {
    scavenging: Scavenging,
    /// Instead of the trigger's own rule.
    policy: Option<Box<dyn SizingPolicy>>,
    /// The process's CPU time when the last collection ended.
    cpu_ns: u64,
    /// What the option says, in bytes; 0: it follows the system.
    asked_soft: usize,
    soft: usize,
    pressure: Pressure,
    followed_ns: u64,
    collect_ns: u64,
}

impl Tending {
    pub(super) fn new(options: &Options) -> Self {
        let own = options.sizing != SizingChoice::Auto;
        Self {
            scavenging: Scavenging::new(options),
            policy: own.then(|| policy::choose(options)),
            cpu_ns: if own { clock::process_cpu_ns() } else { 0 },
            asked_soft: options.soft,
            soft: options.soft,
            pressure: Pressure::None,
            followed_ns: 0,
            collect_ns: 0,
        }
    }
}

impl Locked {
    /// After a collection, and the trigger's own decision: the budget that a policy gives, if there is one, and no more than the
    /// soft limit leaves.
    pub(super) fn resize(&mut self, stats: &CollectionStats, allocated: usize) {
        let tending = &mut self.tending;
        let took = stats.mark_ns + stats.weak_ns + stats.sweep_ns;
        tending.collect_ns = took;
        let live = stats.live_bytes;
        let used = self.stock.used();
        if let Some(policy) = &mut tending.policy {
            let cpu = clock::process_cpu_ns();
            let since = cpu.saturating_sub(tending.cpu_ns);
            tending.cpu_ns = cpu;
            let most = match self.stock.max() {
                0 => usize::MAX,
                max => max.saturating_sub(used),
            };
            let room = policy.room(&Measured {
                live_bytes: live,
                allocated_bytes: allocated as u64,
                program_ns: since.saturating_sub(took),
                collector_ns: took,
                full_ns: took,
                most_bytes: most,
                pressure: tending.pressure,
            });
            let room = match tending.pressure {
                Pressure::None => room,
                _ if policy.takes_all() => room,
                _ => room / 2,
            };
            // Without a limit a fixed size is the trigger's.
            if !(policy.takes_all() && most == usize::MAX) {
                self.trigger.set_budget(room.min(most));
            }
        }
        if tending.soft != 0 {
            let least = (used / 32).max(LEAST_ABOVE_SOFT);
            let most = tending.soft.saturating_sub(used).max(least);
            if self.trigger.budget() > most {
                self.trigger.set_budget(most);
            }
        }
    }
}

impl<V: WordVm> WordHeap<V> {
    /// Gives idle memory back that the program does not need, as the options `decay` and `rate` say, and looks at what the system
    /// allows, now and then. To be called some times a second while [`WordStep::more`] says so, and after collections; by any
    /// thread, the program's or not, that does not hold the heap's lock. Not in a signal handler: it reads files.
    ///
    /// It never collects: that is left to the caller, who knows whether threads may be stopped now.
    pub fn tend(&self) -> WordStep {
        self.tend_as(&Machine::new())
    }

    /// As [`WordHeap::tend`], on a machine whose files are elsewhere.
    pub fn tend_as(&self, machine: &Machine) -> WordStep {
        let now = clock::monotonic_ns();
        let due = self.lock.with(|| {
            self.with_locked(|locked| {
                let due = now.saturating_sub(locked.tending.followed_ns) >= FOLLOW_NS;
                if due {
                    locked.tending.followed_ns = now;
                }
                due && self.options.follow
            })
        });
        // Not under the lock: it allocates from malloc, which a stopped thread may hold.
        let seen = due.then(|| (machine.memory(), machine.pressure()));
        let allocated = self.lock.with(|| self.space.allocated());
        let before = self.allocated_before.load(Ordering::Relaxed);
        let step = self.lock.with(|| {
            self.with_locked(|locked| {
                let tending = &mut locked.tending;
                if let Some((memory, pressure)) = seen {
                    tending.pressure = pressure;
                    if tending.asked_soft == 0 {
                        let most = memory.usable().map(|n| n / 4 * 3);
                        let high = memory.group_high.map(|n| n / 8 * 7);
                        tending.soft = most.into_iter().chain(high).min().unwrap_or(0);
                    }
                }
                let used = locked.stock.used();
                let blocks = (before + allocated as u64) / BLOCK_BYTES as u64;
                tending.scavenging.step(&View {
                    now_ns: now,
                    used,
                    idle: locked.stock.pages().idle_pages() * PAGE,
                    limit: used.saturating_add(locked.trigger.budget().saturating_sub(allocated)),
                    blocks,
                    changes: blocks,
                    changes_at_full: before / BLOCK_BYTES as u64,
                    full: self.collections.load(Ordering::Relaxed),
                    full_ns: tending.collect_ns,
                    pressure: tending.pressure,
                    above_soft: tending.soft != 0 && used > tending.soft,
                    collects: self.options.plan != crate::options::PlanName::NoGc,
                })
            })
        });
        let returned = self.give_back(step.give);
        if step.give > 0 && returned == 0 {
            self.lock
                .with(|| self.with_locked(|locked| locked.tending.scavenging.refused(now)));
        }
        WordStep {
            returned,
            collect: step.collect,
            more: step.more,
        }
    }

    /// Idle memory in bytes: free, and in the machine's memory. Takes the lock.
    #[must_use]
    pub fn idle_bytes(&self) -> usize {
        self.lock
            .with(|| self.with_locked(|locked| locked.stock.pages().idle_pages() * PAGE))
    }

    /// Sets the soft limit in bytes, above which collections come often and idle memory goes back at once; 0: it follows the system.
    /// Takes the lock.
    pub fn set_soft(&self, bytes: usize) {
        self.lock.with(|| {
            self.with_locked(|locked| {
                locked.tending.asked_soft = bytes;
                locked.tending.soft = bytes;
            });
        });
    }

    /// Gives idle memory back in slices, so that nobody waits long for the lock.
    fn give_back(&self, bytes: usize) -> usize {
        let (mut left, mut gone) = (bytes, 0);
        while left > 0 {
            let slice = left.min(SLICE);
            let returned = self.lock.with(|| {
                self.with_locked(|locked| {
                    let idle = locked.stock.pages().idle_pages() * PAGE;
                    locked.stock.return_idle(idle.saturating_sub(slice))
                })
            });
            if returned == 0 {
                break;
            }
            gone += returned;
            left -= slice;
        }
        if gone != 0 {
            probes::returned(gone as u64);
        }
        if let (Some(listener), true) = (&self.listener, gone != 0) {
            listener.event(Event::Returned {
                at_ns: clock::monotonic_ns(),
                bytes: gone,
            });
        }
        gone
    }
}
