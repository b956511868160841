#![allow(clippy::unwrap_used)]
use super::*;

const MIB: usize = 1 << 20;

/// A program and a collector with constant rates.
#[derive(Clone, Copy)]
struct World {
    live: usize,
    /// Bytes in a nanosecond: 1 is about a GB in a second.
    allocates: f64,
    traces: f64,
}

impl World {
    fn measured(self, room: usize) -> Measured {
        let full_ns = (self.live as f64 / self.traces) as u64;
        Measured {
            live_bytes: self.live,
            allocated_bytes: room as u64,
            program_ns: (room as f64 / self.allocates) as u64,
            collector_ns: full_ns,
            full_ns,
            most_bytes: usize::MAX,
            pressure: Pressure::None,
        }
    }

    /// The room after so many collections, and what part of the time collections take with it.
    fn settle(self, policy: &mut dyn SizingPolicy, collections: usize) -> (usize, f64) {
        let mut room = LEAST_ROOM;
        for _ in 0..collections {
            room = policy.room(&self.measured(room));
        }
        let m = self.measured(room);
        let part = m.full_ns as f64 / (m.full_ns + m.program_ns) as f64;
        (room, part)
    }
}

#[test]
fn the_options_choose() {
    let name = |settings: &[(&str, &str)]| {
        let mut options = Options::default();
        for (name, value) in settings {
            options.set(name, value).unwrap();
        }
        choose(&options).name()
    };
    assert_eq!(name(&[]), "cpu");
    assert_eq!(name(&[("max", "1g")]), "fixed");
    assert_eq!(name(&[("growth", "100")]), "factor");
    assert_eq!(name(&[("max", "1g"), ("sizing", "cpu:5")]), "cpu");
    assert_eq!(name(&[("sizing", "fixed")]), "fixed");
    assert_eq!(name(&[("sizing", "factor:1.8")]), "factor");
    assert_eq!(name(&[("sizing", "balance")]), "balance");
}

#[test]
fn a_factor_is_of_what_lives() {
    let mut options = Options::default();
    options.set("sizing", "factor:1.8").unwrap();
    let mut policy = choose(&options);
    let mut room = |live| {
        policy.room(&Measured {
            live_bytes: live,
            ..Measured::default()
        })
    };
    assert_eq!(room(100 * MIB).next_multiple_of(MIB), 80 * MIB);
    assert_eq!(room(MIB), LEAST_ROOM);
}

#[test]
fn the_cpu_target_is_met_where_memory_allows_it() {
    for percent in [2, 5, 10, 25, 50] {
        for live in [20 * MIB, 100 * MIB, 1000 * MIB] {
            let world = World {
                live,
                allocates: 0.2,
                traces: 1.0,
            };
            let mut policy = CpuTarget::new(percent);
            let (room, part) = world.settle(&mut policy, 10);
            let most = live * MOST_TIMES + MOST_SMALL;
            assert!(
                part <= percent as f64 / 100.0 + 0.001 || room == most,
                "{percent} % of {live}: {part} with {room}"
            );
            // And no more memory than that asks for.
            assert!(
                part >= percent as f64 / 100.0 * 0.9 || room <= LEAST_ROOM.max(live / LEAST_PART),
                "{percent} % of {live}: {part} with {room}"
            );
        }
    }
}

#[test]
fn what_minor_collections_take_is_not_left_for_full_ones() {
    let world = World {
        live: 100 * MIB,
        allocates: 0.2,
        traces: 1.0,
    };
    let alone = CpuTarget::new(10).room(&world.measured(100 * MIB));
    let mut measured = world.measured(100 * MIB);
    measured.collector_ns += measured.program_ns / 20;
    assert!(CpuTarget::new(10).room(&measured) > alone * 3 / 2);
}

#[test]
fn balanced_heaps_gain_the_same_by_one_more_byte() {
    let gain = |world: World, room: usize| {
        world.allocates * world.live as f64 / world.traces / (room as f64).powi(2)
    };
    let worlds = [
        (50 * MIB, 0.5, 1.0),
        (400 * MIB, 0.5, 1.0),
        (100 * MIB, 2.0, 0.5),
        (200 * MIB, 0.1, 0.8),
    ]
    .map(|(live, allocates, traces)| World {
        live,
        allocates,
        traces,
    });
    let gains = worlds.map(|world| gain(world, world.settle(&mut Balance::new(64 * MIB), 12).0));
    for other in gains {
        assert!((other / gains[0] - 1.0).abs() < 0.05, "{gains:?}");
    }
    // Twice the price is 1.4 times the room.
    let [one, two] = [64, 128].map(|p| worlds[1].settle(&mut Balance::new(p * MIB), 12).0 as f64);
    assert!((two / one - 1.414).abs() < 0.02);
}

#[test]
fn a_heap_that_fills_up_doubles_in_few_collections() {
    // Even if what was measured says that collections cost nothing.
    for world in [(10.0, 0.001), (0.001, 10.0), (1.0, 1.0)] {
        for mut policy in [
            Box::new(Balance::new(64 * MIB)) as Box<dyn SizingPolicy>,
            Box::new(CpuTarget::new(10)),
            Box::new(Factor { growth: 80 }),
        ] {
            let (mut live, mut collections) = (MIB, 0);
            while live < 1024 * MIB {
                let now = World {
                    live,
                    allocates: world.0,
                    traces: world.1,
                };
                live += policy.room(&now.measured(live));
                collections += 1;
            }
            assert!(collections <= 48, "{}: {collections}", policy.name());
        }
    }
}

#[test]
fn small_heaps_do_not_thrash() {
    for live in [0, 1, 4096, 100_000] {
        for allocates in [0.0001, 0.1, 5.0] {
            let world = World {
                live,
                allocates,
                traces: 1.0,
            };
            let mut policy = Balance::new(64 * MIB);
            assert!(world.settle(&mut policy, 50).0 >= LEAST_BALANCED);
            assert!(world.settle(&mut CpuTarget::new(10), 50).0 >= LEAST_ROOM);
        }
    }
}

#[test]
fn one_odd_collection_does_not_take_the_room_away() {
    let world = World {
        live: 100 * MIB,
        allocates: 1.0,
        traces: 1.0,
    };
    let mut policy = Balance::new(64 * MIB);
    let (room, _) = world.settle(&mut policy, 10);
    let odd = Measured {
        allocated_bytes: 0,
        live_bytes: 0,
        ..world.measured(room)
    };
    assert!(policy.room(&odd) >= room / 2);
    let after = policy.room(&world.measured(room));
    assert!(after >= room / 2, "{room} -> {after}");
}

proptest::proptest! {
    /// Whatever was measured, the room is within its bounds, and a heap that lives on grows.
    #[test]
    fn any_measurements_give_a_room_within_bounds(
        seen in proptest::collection::vec(
            (proptest::num::u64::ANY, proptest::num::u64::ANY, proptest::num::u64::ANY, proptest::num::u64::ANY, 0u32..64), 1..20),
        price in 1usize..usize::MAX,
        percent in 0usize..200,
    ) {
        let mut policies: [Box<dyn SizingPolicy>; 3] = [
            Box::new(Balance::new(price)), Box::new(CpuTarget::new(percent)), Box::new(Factor { growth: price })];
        for (live, allocated, program, collector, shift) in seen {
            let measured = Measured {
                live_bytes: (live >> shift) as usize,
                allocated_bytes: allocated >> (shift / 2),
                program_ns: program >> (63 - shift).clamp(1, 60),
                collector_ns: collector >> shift.max(1),
                full_ns: live >> (shift / 3),
                ..Measured::default()
            };
            for policy in &mut policies {
                let room = policy.room(&measured);
                proptest::prop_assert!(room >= LEAST_BALANCED);
                if policy.name() == "cpu" {
                    proptest::prop_assert!(room >= measured.live_bytes / LEAST_PART);
                    let most = measured.live_bytes.saturating_mul(MOST_TIMES).saturating_add(MOST_SMALL);
                    proptest::prop_assert!(room <= most);
                }
            }
        }
    }

    /// A program whose live size goes up and down at random is never left with much less than it had, nor without room.
    #[test]
    fn balance_shrinks_by_a_half_at_most(lives in proptest::collection::vec(0usize..2000, 2..60)) {
        let mut policy = Balance::new(64 * MIB);
        let mut last = 0;
        for live in lives {
            let world = World { live: live * MIB / 2, allocates: 0.5, traces: 1.0 };
            let room = policy.room(&world.measured(last.max(MIB)));
            proptest::prop_assert!(room >= last / 2 && room >= LEAST_BALANCED.max(world.live / LEAST_PART));
            last = room;
        }
    }
}

#[test]
fn numbers_that_make_no_sense_give_a_room_within_bounds() {
    let wild = [0, 1, 1000, u64::MAX / 2, u64::MAX];
    for policy in [
        &mut Balance::new(usize::MAX) as &mut dyn SizingPolicy,
        &mut CpuTarget::new(0),
        &mut CpuTarget::new(1000),
        &mut Factor { growth: usize::MAX },
    ] {
        for live in wild {
            for allocated in wild {
                for ns in wild {
                    let room = policy.room(&Measured {
                        live_bytes: live as usize,
                        allocated_bytes: allocated,
                        program_ns: ns / 2,
                        collector_ns: allocated / 2,
                        full_ns: live,
                        ..Measured::default()
                    });
                    assert!(room >= LEAST_BALANCED);
                }
            }
        }
    }
}
