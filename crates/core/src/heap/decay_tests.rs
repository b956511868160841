use super::*;

const MIB: usize = 1 << 20;
const MS: u64 = 1_000_000;

fn scavenging(decay: Decay, rate: usize) -> Scavenging {
    Scavenging::new(&Options {
        decay,
        rate,
        ..Options::default()
    })
}

fn view(ms: u64, used: usize, idle: usize) -> View {
    View {
        now_ns: 5_000 * MS + ms * MS,
        used,
        idle,
        limit: used + idle,
        full_ns: 10 * MS,
        collects: true,
        ..View::default()
    }
}

/// Runs from `from` on, in milliseconds, with what was said given back: what is idle at the end, and the most that went in one go.
fn run(
    s: &mut Scavenging,
    from: u64,
    to: u64,
    idle: usize,
    change: impl Fn(&mut View),
) -> (usize, usize) {
    let (mut idle, mut most) = (idle, 0);
    for ms in (from..to).step_by(125) {
        let mut v = view(ms, 10 * MIB, idle);
        change(&mut v);
        let step = s.step(&v);
        assert!(step.give <= idle);
        idle -= step.give;
        most = most.max(step.give);
    }
    (idle, most)
}

#[test]
fn a_quiet_program_gives_back_nine_tenths_in_three_seconds_and_all_in_ten() {
    for idle in [MIB, 100 * MIB, 1 << 30, 100 << 30] {
        let mut s = scavenging(Decay::default(), 0);
        // The first second it is not known to be quiet.
        assert_eq!(run(&mut s, 0, 1000, idle, |_| {}).0, idle);
        let (left, _) = run(&mut s, 1000, 4100, idle, |_| {});
        assert!(left <= idle / 10, "{left} of {idle}");
        assert_eq!(run(&mut s, 4100, 13_000, left, |_| {}).0, 0);
    }
}

#[test]
fn what_a_program_that_allocates_will_need_stays() {
    let mut s = scavenging(Decay::default(), 0);
    let busy = |v: &mut View| v.blocks = v.now_ns;
    assert_eq!(run(&mut s, 0, 60_000, 100 * MIB, busy).0, 100 * MIB);
    // What is beyond its limit does not.
    let busy = |v: &mut View| {
        v.blocks = v.now_ns;
        v.limit = v.used + 30 * MIB;
    };
    let (left, _) = run(&mut s, 60_000, 70_000, 100 * MIB, busy);
    assert!(left.abs_diff(30 * MIB) < MIB, "{left}");
    // Unless memory is scarce, or the heap is above its soft limit.
    for change in [
        |v: &mut View| v.pressure = Pressure::Some,
        |v: &mut View| v.above_soft = true,
    ] {
        let mut s = scavenging(Decay::default(), 0);
        let hurry = |v: &mut View| {
            v.blocks = v.now_ns;
            change(v);
        };
        assert_eq!(run(&mut s, 0, 2000, 100 * MIB, hurry).0, 0);
    }
}

#[test]
fn the_rate_is_kept() {
    for (decay, rate) in [(Decay::Half(0), 64 * MIB), (Decay::Half(100), 8 * MIB)] {
        let mut s = scavenging(decay, rate);
        let (left, most) = run(&mut s, 0, 5000, 1 << 30, |_| {});
        assert!(most <= rate / 8, "{most}");
        let given = (1usize << 30) - left;
        assert!(given <= 5 * rate && given >= 3 * rate, "{given}");
    }
    // Without one it is over in three seconds or so, and not at once.
    let mut s = scavenging(Decay::default(), 0);
    let (_, most) = run(&mut s, 0, 9000, 30 << 30, |_| {});
    assert!(most <= 30 << 30 >> 4, "{most}");
}

#[test]
fn off_is_off_and_nothing_halves_at_once() {
    let mut s = scavenging(Decay::Off, 0);
    for ms in (0..60_000).step_by(125) {
        let mut v = view(ms, 100 * MIB, 100 * MIB);
        v.changes = 1;
        assert_eq!(s.step(&v), Step::default());
    }
    let mut s = scavenging(Decay::Half(0), 0);
    assert_eq!(run(&mut s, 0, 1200, 100 * MIB, |_| {}).0, 0);
}

#[test]
fn after_the_system_refused_it_is_left_alone_for_a_while() {
    let mut s = scavenging(Decay::Half(0), 0);
    let idle = 10 * MIB;
    run(&mut s, 0, 900, idle, |_| {});
    s.refused(view(900, 0, 0).now_ns);
    assert_eq!(run(&mut s, 1000, 10_800, idle, |_| {}).0, idle);
    assert_eq!(run(&mut s, 10_900, 11_200, idle, |_| {}).0, 0);
}

#[test]
fn a_program_that_became_quiet_is_collected_once() {
    let mut s = scavenging(Decay::default(), 0);
    let mut asked = Vec::new();
    let (mut full, mut changes_at_full) = (3, 0);
    for ms in (0..300_000).step_by(125) {
        let mut v = view(ms, 100 * MIB, 0);
        v.blocks = 100 + ms.min(2000);
        v.changes = v.blocks;
        (v.full, v.changes_at_full) = (full, changes_at_full);
        if s.step(&v).collect {
            asked.push(ms);
            full += 1;
            changes_at_full = v.changes;
        }
    }
    assert_eq!(asked, [3000]);
}

#[test]
fn collections_that_free_little_become_rare_and_cost_little() {
    for full_ms in [10, 1000] {
        let mut s = scavenging(Decay::default(), 0);
        let (mut full, mut asked, mut more) = (0, Vec::new(), true);
        for ms in (0..600_000).step_by(125) {
            let mut v = view(ms, 100 * MIB, 0);
            // Threads wake up and go to sleep, and allocate nothing.
            v.changes = ms;
            v.changes_at_full = asked.last().copied().unwrap_or(0);
            (v.full, v.full_ns) = (full, full_ms * MS);
            let step = s.step(&v);
            if step.collect {
                asked.push(ms);
                full += 1;
            }
            more = step.more;
        }
        assert!(asked.len() <= 16 && asked.len() >= 6, "{asked:?}");
        assert!(asked[0] <= 1250);
        for pair in asked.windows(2) {
            assert!(pair[1] - pair[0] >= full_ms * TIMES, "{asked:?}");
        }
        assert!(!more, "it is not looked at any more");
    }
}

#[test]
fn small_heaps_and_plans_that_do_not_collect_are_left_alone() {
    for (used, collects) in [(3 * MIB, true), (100 * MIB, false)] {
        let mut s = scavenging(Decay::default(), 0);
        for ms in (0..10_000).step_by(125) {
            let mut v = view(ms, used, 0);
            v.changes = 7;
            v.collects = collects;
            let step = s.step(&v);
            assert!(!step.collect);
            assert_eq!(step.more, ms < 1000);
        }
    }
}

#[test]
fn what_is_asked_for_and_does_not_happen_is_asked_for_again() {
    let mut s = scavenging(Decay::default(), 0);
    let asked = (0..10_000)
        .step_by(125)
        .filter(|ms| {
            let mut v = view(*ms, 100 * MIB, 0);
            v.changes = 7;
            s.step(&v).collect
        })
        .count();
    assert!((4..=6).contains(&asked), "{asked}");
}

proptest::proptest! {
    /// Whatever the heap is like, no more goes than is idle, and never faster than the rate.
    #[test]
    fn no_more_goes_than_there_is(
        looks in proptest::collection::vec((0u64..3000, 0usize..1 << 40, 0usize..1 << 40, 0usize..1 << 40, 0u64..3, 0u64..3), 1..60),
        rate in 0usize..1 << 34,
        half in 0usize..5000,
    ) {
        let mut s = scavenging(Decay::Half(half), rate);
        let mut ms = 0;
        for (passed, used, idle, limit, blocks, changes) in looks {
            ms += passed;
            let v = View { limit, blocks, changes, ..view(ms, used, idle) };
            let step = s.step(&v);
            proptest::prop_assert!(step.give <= idle);
            proptest::prop_assert!(rate == 0 || step.give <= rate);
        }
    }
}
