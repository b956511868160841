//! Ephemerons of the runtime's objects, and its own weak tables.

use crate::on_every_plan;
use crate::runtime::{Thread, WEAK, word};
use heapwright::{FinalizerOrder, PlanName, Reference};
use std::time::{Duration, Instant};

on_every_plan!(a_value_lives_as_long_as_its_key, t, setting, {
    let count = setting.many(1500);
    for number in 0..count {
        let [holder, key, value, behind] =
            [0, 1, 2, 3].map(|part| t.new_object(part * count + number));
        t.ephemeron(holder, key, value);
        t.link(value, behind);
        t.drop_root(value);
        t.drop_root(behind);
    }
    let check = |t: &mut Thread<HEADER>, lives: &dyn Fn(usize) -> bool| {
        for number in 0..count {
            let expected = lives(number).then_some((count + number, Some(2 * count + number)));
            assert_eq!(t.read_ephemeron(4 * number), expected, "{setting:?}");
            if lives(number) {
                let pair = Thread::<HEADER>::pair(t.at(4 * number));
                // SAFETY: a registered ephemeron.
                let (_, value) = unsafe { t.mutator.ephemeron(&pair) }.unwrap();
                let behind = Thread::<HEADER>::next(value.unwrap()).unwrap();
                assert_eq!(Thread::<HEADER>::number(behind), 3 * count + number);
            }
        }
    };
    for number in (0..count).step_by(3) {
        t.drop_root(4 * number + 1);
    }
    t.collect_young();
    check(t, &|number| number % 3 != 0);
    for number in (1..count).step_by(3) {
        t.drop_root(4 * number + 1);
    }
    for _ in 0..2 {
        t.collect();
        check(t, &|number| number % 3 == 2);
    }
});

on_every_plan!(an_ephemeron_does_not_keep_its_key, t, setting, {
    // The value refers to the key; value and key are the same; the ephemeron is its own key.
    let all = [1, 2, 3, 4, 5, 6, 7].map(|n| t.new_object(n));
    t.ephemeron(all[0], all[1], all[2]);
    t.link(all[2], all[1]);
    t.ephemeron(all[3], all[4], all[4]);
    t.ephemeron(all[5], all[5], all[6]);
    for dead in [1, 2, 4, 6] {
        t.drop_root(all[dead]);
    }
    t.collect();
    assert_eq!(t.read_ephemeron(all[0]), None, "{setting:?}");
    assert_eq!(t.read_ephemeron(all[3]), None, "{setting:?}");
    assert_eq!(t.read_ephemeron(all[5]), Some((6, Some(7))), "{setting:?}");
    // Nothing is kept by an ephemeron that is dead.
    let value = t.new_object(8);
    let watch = t.new_object(9);
    t.weak(watch, value);
    let dead = t.new_object(10);
    t.ephemeron(dead, watch, value);
    t.drop_root(value);
    t.drop_root(dead);
    t.collect();
    assert_eq!(t.read_weak(watch), None, "{setting:?}");
});

/// Makes a chain: ephemeron n has as its key the value of ephemeron n - 1; the first key is a root. `holders`: the ephemerons are values
/// too, so that each is reached by the one before only.
fn chain<const HEADER: bool>(t: &mut Thread<HEADER>, length: usize, holders: bool, reverse: bool) {
    let base = t.mutator.thread().len();
    for number in 0..=length {
        t.new_object(number);
    }
    let ephemerons = t.mutator.thread().len();
    for number in 0..length {
        t.new_object(1_000_000 + number);
    }
    let each: Vec<usize> = if reverse {
        (0..length).rev().collect()
    } else {
        (0..length).collect()
    };
    for number in each {
        t.ephemeron(ephemerons + number, base + number, base + number + 1);
        if holders {
            // Behind the value, and so behind the ephemeron before.
            t.link(base + number, ephemerons + number);
        }
    }
    for root in base + 1..=base + length {
        t.drop_root(root);
    }
    if holders {
        for root in ephemerons..ephemerons + length {
            t.drop_root(root);
        }
    }
}

/// Follows it from its first key: how long it is.
fn follow<const HEADER: bool>(t: &mut Thread<HEADER>, first: usize) -> usize {
    let mut at = t.at(first);
    let mut length = 0;
    while let Some(holder) = Thread::<HEADER>::next(at) {
        assert_eq!(Thread::<HEADER>::number(holder), 1_000_000 + length);
        // SAFETY: a registered ephemeron.
        let (key, value) = unsafe { t.mutator.ephemeron(&Thread::<HEADER>::pair(holder)) }.unwrap();
        assert_eq!(key, at);
        at = value.unwrap();
        length += 1;
        assert_eq!(Thread::<HEADER>::number(at), length);
    }
    length
}

on_every_plan!(a_chain_of_ephemerons_is_kept_to_its_end, t, setting, {
    for reverse in [false, true] {
        let length = setting.many(900) / 2;
        let first = t.mutator.thread().len();
        chain(t, length, true, reverse);
        for _ in 0..2 {
            t.collect_young();
            assert_eq!(follow(t, first), length, "{setting:?}");
            t.collect();
            assert_eq!(follow(t, first), length, "{setting:?}");
        }
        t.drop_root(first);
        t.collect();
        assert_eq!(t.collect().references, 0, "{setting:?}");
    }
});

/// The figure: a chain of 100,000 ephemerons in one collection under a second.
#[test]
fn a_chain_of_100000_ephemerons_takes_less_than_a_second() {
    const LENGTH: usize = 100_000;
    for plan in crate::runtime::COLLECTING {
        // It has pages for each object, 800 MiB for 200,000 of them: shorter chains are in the test above.
        if plan == PlanName::PageProtect {
            continue;
        }
        for workers in [1, 2] {
            for reverse in [false, true] {
                let setting = crate::runtime::Setting {
                    plan,
                    workers,
                    yields: 0,
                };
                let mut options = setting.options();
                options.max = 128 << 20;
                options.verify = false;
                options.poison = false;
                let heap = setting.heap::<false>(options);
                let t = &mut Thread::new(&heap);
                chain(t, LENGTH, true, reverse);
                let mut best = u64::MAX;
                for _ in 0..3 {
                    let stats = t.collect();
                    assert_eq!(stats.references, LENGTH);
                    best = best.min(stats.pause_ns);
                }
                assert_eq!(follow(t, 0), LENGTH);
                if workers == 1 {
                    eprintln!(
                        "{plan}: a chain of {LENGTH} ephemerons{}: {:.1} ms",
                        if reverse {
                            ", registered from its end"
                        } else {
                            ""
                        },
                        best as f64 / 1e6
                    );
                }
                if !cfg!(debug_assertions) {
                    assert!(
                        Duration::from_nanos(best) < Duration::from_secs(1),
                        "{setting:?}"
                    );
                }
            }
        }
    }
}

on_every_plan!(
    an_old_ephemeron_may_get_a_young_key_and_value,
    t,
    setting,
    {
        let count = setting.many(200);
        for number in 0..count {
            let [holder, key, value] = [0, 1, 2].map(|part| t.new_object(part * count + number));
            t.ephemeron(holder, key, value);
        }
        t.collect();
        let base = t.mutator.thread().len();
        for number in 0..count {
            let (key, value) = (t.new_object(5000 + number), t.new_object(6000 + number));
            let (pair, key_at, value_at) = (
                Thread::<HEADER>::pair(t.at(3 * number)),
                t.at(key),
                t.at(value),
            );
            // SAFETY: a registered ephemeron, and objects that are alive.
            unsafe {
                t.mutator
                    .set_ephemeron(&pair, Some(key_at), Some(value_at))
                    .unwrap();
            }
            t.drop_root(value);
        }
        for number in (0..count).step_by(2) {
            t.drop_root(base + 2 * number);
        }
        let stats = t.collect_young();
        if setting.generational() {
            assert!(
                !stats.full && stats.references == count,
                "{setting:?} {stats:?}"
            );
        }
        for _ in 0..2 {
            for number in 0..count {
                let expected = (number % 2 == 1).then_some((5000 + number, Some(6000 + number)));
                assert_eq!(t.read_ephemeron(3 * number), expected, "{setting:?}");
            }
            t.collect();
        }
    }
);

on_every_plan!(a_value_may_be_young_when_only_it_is_replaced, t, setting, {
    let [holder, key, value] = [1, 2, 3].map(|n| t.new_object(n));
    t.ephemeron(holder, key, value);
    t.collect();
    let new = t.new_object(4);
    let (pair, key_at, value_at) = (Thread::<HEADER>::pair(t.at(holder)), t.at(key), t.at(new));
    // SAFETY: as above.
    unsafe {
        t.mutator
            .set_ephemeron(&pair, Some(key_at), Some(value_at))
            .unwrap();
    }
    t.drop_root(new);
    t.collect_young();
    assert_eq!(t.read_ephemeron(holder), Some((2, Some(4))), "{setting:?}");
    // Without a key it holds nothing.
    // SAFETY: as above.
    unsafe {
        let pair = Thread::<HEADER>::pair(t.at(holder));
        let (_, value) = t.mutator.ephemeron(&pair).unwrap();
        t.mutator.set_ephemeron(&pair, None, value).unwrap();
    }
    t.collect();
    assert_eq!(t.read_ephemeron(holder), None, "{setting:?}");
});

on_every_plan!(
    ephemerons_hold_for_finalizers_and_what_they_reach,
    t,
    setting,
    {
        // 1 has a finalizer; 2 is an ephemeron with the key 1 and the value 3; 4 weakly refers to 3: the value dies with its key, and is
        // resurrected with it.
        let all = [1, 2, 3, 4].map(|n| t.new_object(n));
        t.ephemeron(all[1], all[0], all[2]);
        t.weak(all[3], all[2]);
        t.finalizer(all[0], FinalizerOrder::Together);
        t.drop_root(all[0]);
        t.drop_root(all[2]);
        t.collect();
        assert_eq!(t.read_weak(all[3]), None, "{setting:?}");
        assert_eq!(t.read_ephemeron(all[1]), Some((1, Some(3))), "{setting:?}");
        assert_eq!(t.finalizable(), [1]);
        t.collect();
        assert_eq!(t.read_ephemeron(all[1]), None, "{setting:?}");
    }
);

on_every_plan!(
    phantom_references_see_what_ephemerons_of_the_finalizable_hold,
    t,
    setting,
    {
        let all = [1, 2, 3, 4].map(|n| t.new_object(n));
        t.ephemeron(all[1], all[0], all[2]);
        t.refer(all[3], all[2], |h| Reference::phantom(h, WEAK));
        t.finalizer(all[0], FinalizerOrder::Registration);
        t.drop_root(all[0]);
        t.drop_root(all[2]);
        t.collect();
        let make = |h| Reference::phantom(h, WEAK);
        assert_eq!(t.read(all[3], make), Some(3), "{setting:?}");
        assert_eq!(t.finalizable(), [1]);
        t.collect();
        assert_eq!(t.read(all[3], make), None, "{setting:?}");
    }
);

on_every_plan!(many_threads_register_ephemerons, t, setting, {
    let count = setting.many(120) / 3;
    let heap = &t.heap.clone();
    t.mutator.outside(|| {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(move || {
                    let mut t = Thread::<HEADER>::new(heap);
                    for number in 0..count {
                        let all = [0, 1, 2].map(|part| t.new_object(part * count + number));
                        t.ephemeron(all[0], all[1], all[2]);
                        t.drop_root(all[2]);
                        if number % 37 == 5 {
                            t.mutator.collect_young();
                        }
                        t.mutator.poll();
                    }
                    for number in 0..count {
                        let expected = Some((count + number, Some(2 * count + number)));
                        assert_eq!(t.read_ephemeron(3 * number), expected, "{setting:?}");
                    }
                });
            }
        });
    });
    assert!(t.collect().references <= 3 * count);
    assert_eq!(t.collect().references, 0, "{setting:?}");
});

on_every_plan!(
    the_runtimes_own_weak_tables_are_asked_until_nothing_changes,
    t,
    setting,
    {
        // A chain in the runtime's table, in the wrong order: the last link comes first.
        let length = setting.many(60);
        for number in 0..=length {
            t.new_object(number);
        }
        for number in (0..length).rev() {
            let entry = (word(t.at(number)), word(t.at(number + 1)));
            t.heap.vm().table.lock().unwrap().push(entry);
        }
        for root in 1..=length {
            t.drop_root(root);
        }
        for _ in 0..2 {
            *t.heap.vm().asked.lock().unwrap() = 0;
            t.collect();
            assert!(*t.heap.vm().asked.lock().unwrap() > length, "{setting:?}");
            let table = t.heap.vm().table.lock().unwrap();
            assert_eq!(table.len(), length, "{setting:?}");
            for (index, (key, value)) in table.iter().enumerate() {
                let number = length - 1 - index;
                let numbers =
                    [*key, *value].map(|w| Thread::<HEADER>::number(crate::runtime::object(w)));
                assert_eq!(numbers, [number, number + 1], "{setting:?}");
            }
        }
        // It takes part with ephemerons: the last value is the key of one, whose value is the key of an entry of the table.
        let all = [900, 901, 902].map(|n| t.new_object(n));
        let last = crate::runtime::object(t.heap.vm().table.lock().unwrap()[0].1);
        let last = t.keep(last);
        t.ephemeron(all[0], last, all[1]);
        let entry = (word(t.at(all[1])), word(t.at(all[2])));
        t.heap.vm().table.lock().unwrap().insert(0, entry);
        for root in [all[1], all[2], last] {
            t.drop_root(root);
        }
        t.collect();
        assert_eq!(
            t.heap.vm().table.lock().unwrap().len(),
            length + 1,
            "{setting:?}"
        );
        assert_eq!(t.read_ephemeron(all[0]), Some((length, Some(901))));
        t.mutator.thread()[0] = 0;
        t.collect();
        assert!(t.heap.vm().table.lock().unwrap().is_empty(), "{setting:?}");
    }
);

/// Ephemerons whose keys are reached from the values of others, in a graph with many ways: several workers find the same ones.
#[test]
fn several_workers_trace_ephemerons() {
    let begin = Instant::now();
    for setting in crate::runtime::settings() {
        let heap = setting.heap::<true>(setting.options());
        let t = &mut Thread::<true>::new(&heap);
        let count = setting.many(3000) / 3;
        for number in 0..count {
            t.new_object(number);
        }
        let holders = t.mutator.thread().len();
        for number in 0..count {
            let holder = t.new_object(10_000 + number);
            // 0 is the root: n holds 2n+1 and, by a strong field, 2n+2.
            let key = number;
            if 2 * number + 1 < count {
                t.ephemeron(holder, key, 2 * number + 1);
            }
            if 2 * number + 2 < count {
                t.link(number, 2 * number + 2);
            }
        }
        for root in 1..count {
            t.drop_root(root);
        }
        for _ in 0..2 {
            t.collect();
            for number in (0..count).filter(|n| 2 * n + 1 < count) {
                let expected = Some((number, Some(2 * number + 1)));
                assert_eq!(t.read_ephemeron(holders + number), expected, "{setting:?}");
            }
        }
    }
    assert!(begin.elapsed().as_secs() < 100);
}
