//! Loom models: every interleaving (up to a bound on preemptions) and every value that a relaxed
//! load may see. Loom reports a deadlock when all threads sleep: a lost wake-up.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test -p heapwright-work --release --lib
//! ```
#![allow(clippy::unwrap_used, clippy::panic)]

use crate::error::PhaseError;
use crate::parker::Parker;
use crate::phase::{Phase, Worker};
use crate::primitive::{AtomicBool, AtomicUsize, Ordering};
use crate::ring::Ring;
use crate::team::Team;
use loom::sync::Arc;
use loom::thread;

fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = Some(preemptions);
    }
    builder.check(check);
}

/// Empties a ring, adding up what comes.
fn drain(ring: &Ring) -> usize {
    std::iter::from_fn(|| ring.take()).sum()
}

#[test]
fn ring_owner_and_thief() {
    model(4, || {
        let ring = Arc::new(Ring::new(2).unwrap());
        let thief = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.take().unwrap_or(0) + ring.take().unwrap_or(0))
        };
        // Four items through two slots: slots are written again while the thief reads.
        let mut own = 0;
        for item in [1, 10, 100, 1000] {
            while ring.push(&[item]) == 0 {
                own += ring.take().unwrap_or(0);
            }
        }
        own += drain(&ring);
        assert_eq!(own + thief.join().unwrap(), 1111);
    });
}

#[test]
fn ring_two_thieves_take_halves() {
    model(3, || {
        let ring = Arc::new(Ring::new(4).unwrap());
        assert_eq!(ring.push(&[1, 10, 100]), 3);
        let thieves = [(); 2].map(|()| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                let own = Ring::new(4).unwrap();
                ring.take_half(&own).unwrap_or(0) + drain(&own)
            })
        });
        let mut sum = ring.take().unwrap_or(0);
        assert_eq!(ring.push(&[1000]), 1);
        for thief in thieves {
            sum += thief.join().unwrap();
        }
        assert_eq!(sum + drain(&ring), 1111);
    });
}

/// A third party steals from the thief's ring while the thief fills it from another.
#[test]
fn ring_half_is_published_whole() {
    model(3, || {
        let from = Ring::new(4).unwrap();
        assert_eq!(from.push(&[1, 10, 100, 1000]), 4);
        let into = Arc::new(Ring::new(2).unwrap());
        let third = {
            let into = Arc::clone(&into);
            thread::spawn(move || into.take().unwrap_or(0))
        };
        let mut sum = from.take_half(&into).unwrap_or(0);
        sum += from.take_half(&into).unwrap_or(0);
        sum += drain(&from) + drain(&into);
        assert_eq!(sum + third.join().unwrap(), 1111);
    });
}

#[test]
fn a_token_is_never_lost() {
    model(5, || {
        let parker = Arc::new((Parker::new(), AtomicUsize::new(0)));
        let notifiers = [(); 2].map(|()| {
            let parker = Arc::clone(&parker);
            thread::spawn(move || {
                parker.1.fetch_add(1, Ordering::Relaxed);
                parker.0.notify();
            })
        });
        while parker.1.load(Ordering::Relaxed) != 2 {
            parker.0.wait(0, || true);
        }
        for notifier in notifiers {
            notifier.join().unwrap();
        }
    });
}

/// Item `n` counts 1 and has the children `n / 2` and `n - n / 2 - 1`: it stands for a tree of
/// `n` nodes. `plain` is written without synchronisation of its own.
struct Tree {
    nodes: usize,
    share_all: bool,
    counted: AtomicUsize,
    plain: [loom::cell::UnsafeCell<usize>; 3],
}

// SAFETY: each cell of `plain` belongs to one worker, and is read after the phase.
unsafe impl Sync for Tree {}

impl Tree {
    fn of(nodes: usize, share_all: bool) -> Tree {
        Tree {
            nodes,
            share_all,
            counted: AtomicUsize::new(0),
            plain: [(); 3].map(|()| loom::cell::UnsafeCell::new(0)),
        }
    }

    fn check(&self) {
        assert_eq!(self.counted.load(Ordering::Relaxed), self.nodes);
        // Loom fails these reads unless the end of the phase orders them after the writes.
        let plain: usize = self
            .plain
            .iter()
            .map(|cell| {
                // SAFETY: the phase is over.
                cell.with(|cell| unsafe { *cell })
            })
            .sum();
        assert_eq!(plain, self.nodes);
    }
}

impl Phase for Tree {
    fn work(&self, worker: &mut Worker<'_>) {
        let mut own = Vec::new();
        if worker.index() == 0 {
            own.push(self.nodes);
        }
        let mut counted = 0;
        while let Some(nodes) = own.pop().or_else(|| worker.next()) {
            counted += 1;
            for child in [nodes / 2, nodes - nodes / 2 - 1] {
                let share = self.share_all || worker.hungry();
                if child > 0 && !(share && worker.share(&[child]) == 1) {
                    own.push(child);
                }
            }
        }
        self.plain[worker.index()].with_mut(|cell| {
            // SAFETY: this worker's own cell; its turns do not overlap.
            unsafe { *cell += counted }
        });
        self.counted.fetch_add(counted, Ordering::Relaxed);
    }
}

fn with_helpers(helpers: usize, capacity: usize, check: impl FnOnce(&Arc<Team>)) {
    let team = Arc::new(Team::new(helpers + 1, capacity, None).unwrap());
    let threads: Vec<_> = (1..=helpers)
        .map(|index| {
            let team = Arc::clone(&team);
            thread::spawn(move || team.help(index))
        })
        .collect();
    check(&team);
    team.shut_down();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// No item lost, no early end, no sleeper forgotten: with one helper.
#[test]
fn phase_with_one_helper() {
    model(3, || {
        with_helpers(1, 2, |team| {
            let tree = Tree::of(3, true);
            team.run(&tree).unwrap();
            tree.check();
        });
    });
}

/// The same where only a hungry worker is fed, so that the helper must have said it is.
#[test]
fn phase_that_shares_on_demand() {
    model(3, || {
        with_helpers(1, 2, |team| {
            let tree = Tree::of(4, false);
            team.run(&tree).unwrap();
            tree.check();
        });
    });
}

#[test]
fn phase_with_two_helpers() {
    model(2, || {
        with_helpers(2, 2, |team| {
            let tree = Tree::of(2, true);
            team.run(&tree).unwrap();
            tree.check();
        });
    });
}

/// A helper that was woken in the first phase may come as late as in the second, or after.
#[test]
fn two_phases_in_a_row() {
    model(2, || {
        with_helpers(1, 2, |team| {
            for _ in 0..2 {
                let tree = Tree::of(2, true);
                team.run(&tree).unwrap();
                tree.check();
            }
        });
    });
}

/// Two threads run phases on one team: one gets the helper, or each in turn; none waits.
#[test]
fn two_leaders() {
    model(2, || {
        with_helpers(1, 2, |team| {
            let other = {
                let team = Arc::clone(team);
                thread::spawn(move || {
                    let tree = Tree::of(2, true);
                    team.run(&tree).unwrap();
                    tree.check();
                })
            };
            let tree = Tree::of(2, true);
            team.run(&tree).unwrap();
            tree.check();
            other.join().unwrap();
        });
    });
}

/// The leader goes on only when the helper does: it shares one item and asks for the next, and
/// the helper, who holds all the work, is the one to feed it. A lost wake-up is a deadlock.
#[test]
fn leader_is_woken_by_the_helper() {
    struct Relay(AtomicUsize);
    impl Phase for Relay {
        fn work(&self, worker: &mut Worker<'_>) {
            if worker.index() == 0 {
                assert_eq!(worker.share(&[1]), 1);
            }
            while let Some(item) = worker.next() {
                self.0.fetch_add(item, Ordering::Relaxed);
                if item < 3 {
                    assert_eq!(worker.share(&[item + 1]), 1);
                }
            }
        }
    }
    model(3, || {
        with_helpers(1, 2, |team| {
            let relay = Relay(AtomicUsize::new(0));
            team.run(&relay).unwrap();
            assert_eq!(relay.0.load(Ordering::Relaxed), 6);
        });
    });
}

/// A sleeping helper is woken by `share`, or has not slept: the leader, busy with something
/// endless, needs the item done by somebody else.
#[test]
fn an_item_wakes_a_sleeper() {
    struct Handover {
        done: AtomicBool,
        told: Parker,
    }
    impl Phase for Handover {
        fn work(&self, worker: &mut Worker<'_>) {
            if worker.index() == 0 {
                assert_eq!(worker.share(&[7]), 1);
                // Does not ask for the item back: only the helper can do it.
                while !self.done.load(Ordering::Relaxed) {
                    self.told.wait(0, || true);
                }
            }
            while let Some(item) = worker.next() {
                assert_eq!((worker.index(), item), (1, 7));
                self.done.store(true, Ordering::Relaxed);
                self.told.notify();
            }
        }
    }
    model(3, || {
        with_helpers(1, 2, |team| {
            let handover = Handover {
                done: AtomicBool::new(false),
                told: Parker::new(),
            };
            team.run(&handover).unwrap();
        });
    });
}

/// A leader that returns without asking leaves its item: done by the helper, or reported.
#[test]
fn abandoned_items_are_reported() {
    struct Careless(AtomicUsize);
    impl Phase for Careless {
        fn work(&self, worker: &mut Worker<'_>) {
            if worker.index() == 0 {
                assert_eq!(worker.share(&[5, 6]), 2);
                return;
            }
            while worker.next().is_some() {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    model(3, || {
        with_helpers(1, 2, |team| {
            let careless = Careless(AtomicUsize::new(0));
            let lost = match team.run(&careless) {
                Ok(()) => 0,
                Err(PhaseError::Abandoned { items }) => items,
                Err(other) => panic!("{other}"),
            };
            assert_eq!(careless.0.load(Ordering::Relaxed) + lost, 2);
        });
    });
}
