//! Handles and maps that the program has outside of the heap.

use crate::on_every_plan;
use crate::runtime::{Objects, Thread};
use heapwright::{FinalizerOrder, ReferenceError, Soft, Strength, Weak};

on_every_plan!(handles_follow_their_objects_and_are_cleared, t, setting, {
    let count = setting.many(2500);
    let mut handles: Vec<Weak<Objects<HEADER>>> = Vec::new();
    for number in 0..count {
        let root = t.new_object(number);
        let target = t.at(root);
        handles.push(t.mutator.weak(target, Strength::Weak).unwrap());
    }
    let check = |t: &mut Thread<HEADER>, handles: &[Weak<_>], lives: &dyn Fn(usize) -> bool| {
        for (number, handle) in handles.iter().enumerate() {
            let target = handle.get(&mut t.mutator);
            let expected = lives(number).then_some(number);
            assert_eq!(
                target.map(Thread::<HEADER>::number),
                expected,
                "{setting:?}"
            );
            assert_eq!(handle.is_cleared(), !lives(number));
            if lives(number) {
                assert_eq!(target, Some(t.at(number)));
            }
        }
    };
    check(t, &handles, &|_| true);
    for number in (0..count).step_by(3) {
        t.drop_root(number);
    }
    t.collect_young();
    check(t, &handles, &|n| n % 3 != 0);
    for number in (1..count).step_by(3) {
        t.drop_root(number);
    }
    for _ in 0..2 {
        t.collect();
        check(t, &handles, &|n| n % 3 == 2);
    }
    // Handles that are dropped are forgotten; clones are the same handle.
    let clone = handles[2].clone();
    let cleared = handles[5].clone();
    cleared.clear();
    assert!(handles[5].is_cleared() && handles[5].get(&mut t.mutator).is_none());
    handles.clear();
    t.collect();
    assert_eq!(t.collect().references, 1, "{setting:?}");
    assert_eq!(clone.get(&mut t.mutator), Some(t.at(2)));
});

on_every_plan!(handles_may_be_soft_or_phantom, t, setting, {
    let all = [0, 1, 2].map(|n| t.new_object(n));
    let [soft, phantom, plain] = [
        (0, Strength::Soft),
        (1, Strength::Phantom),
        (1, Strength::Weak),
    ]
    .map(|(root, strength)| {
        let target = t.at(all[root]);
        t.mutator.weak(target, strength).unwrap()
    });
    t.finalizer(all[1], FinalizerOrder::Together);
    t.mutator.thread().clear();
    assert_eq!(t.heap.options().soft_references, Soft::default());
    t.collect();
    let target = soft.get(&mut t.mutator).unwrap();
    assert_eq!(Thread::<HEADER>::number(target), 0, "{setting:?}");
    assert!(plain.is_cleared() && !phantom.is_cleared(), "{setting:?}");
    assert_eq!(
        phantom.get(&mut t.mutator),
        None,
        "it never gives its object"
    );
    assert_eq!(t.finalizable(), [1]);
    t.collect();
    assert!(phantom.is_cleared(), "{setting:?}");
});

on_every_plan!(
    a_handle_outlives_its_heap_and_does_not_know_others,
    t,
    setting,
    {
        let root = t.new_object(1);
        let target = t.at(root);
        let handle = t.mutator.weak(target, Strength::Weak).unwrap();
        let map = t.mutator.weak_map().unwrap();
        assert_eq!(map.insert(&mut t.mutator, target, target), Ok(None));
        let other = setting.heap::<HEADER>(setting.options());
        let mut other = Thread::new(&other);
        let foreign = other.new_object(2);
        let foreign = other.at(foreign);
        assert_eq!(
            handle.get(&mut other.mutator),
            None,
            "a mutator of another heap"
        );
        assert_eq!(map.get(&mut other.mutator, target), None);
        assert_eq!(map.remove(&mut other.mutator, target), None);
        let refused = map.insert(&mut other.mutator, foreign, foreign);
        assert_eq!(refused, Err(ReferenceError::OtherHeap));
        map.for_each(&mut other.mutator, &mut |_, _| panic!("of another heap"));
        assert_eq!(map.len(), 1);
        assert!(!handle.is_cleared());
        let (handle, map) = {
            let heap = setting.heap::<HEADER>(setting.options());
            let mut own = Thread::new(&heap);
            let root = own.new_object(3);
            let target = own.at(root);
            let handle = own.mutator.weak(target, Strength::Soft).unwrap();
            let map = own.mutator.weak_map().unwrap();
            map.insert(&mut own.mutator, target, target).unwrap();
            (handle, map)
        };
        assert!(handle.is_cleared() && handle.get(&mut t.mutator).is_none());
        assert!(map.is_empty() && map.get(&mut t.mutator, target).is_none());
        drop((handle.clone(), map.clone()));
    }
);

on_every_plan!(maps_hold_values_as_long_as_their_keys_live, t, setting, {
    let count = setting.many(2000);
    let map = t.mutator.weak_map().unwrap();
    for number in 0..count {
        let (key, value) = (t.new_object(number), t.new_object(count + number));
        // The value refers to its key.
        t.link(value, key);
        let (key, at) = (t.at(key), t.at(value));
        assert_eq!(map.insert(&mut t.mutator, key, at), Ok(None));
        t.drop_root(value);
    }
    let check = |t: &mut Thread<HEADER>, lives: &dyn Fn(usize) -> bool| {
        let mut expected = 0;
        for number in (0..count).filter(|n| lives(*n)) {
            let key = t.at(2 * number);
            let value = map.get(&mut t.mutator, key).unwrap();
            assert_eq!(
                Thread::<HEADER>::number(value),
                count + number,
                "{setting:?}"
            );
            assert_eq!(Thread::<HEADER>::next(value), Some(key));
            expected += 1;
        }
        assert_eq!(map.len(), expected, "{setting:?}");
        let mut seen = 0;
        map.for_each(&mut t.mutator, &mut |key, value| {
            let numbers = [key, value].map(Thread::<HEADER>::number);
            assert_eq!(numbers[0] + count, numbers[1]);
            seen += 1;
        });
        assert_eq!(seen, expected);
    };
    check(t, &|_| true);
    for number in (0..count).step_by(3) {
        t.drop_root(2 * number);
    }
    t.collect_young();
    check(t, &|n| n % 3 != 0);
    for number in (1..count).step_by(3) {
        t.drop_root(2 * number);
    }
    for _ in 0..2 {
        t.collect();
        check(t, &|n| n % 3 == 2);
    }
    // An old map with young values, a young key, and an entry that is taken out.
    let (old, young) = (t.at(2 * 2), t.new_object(7));
    let (value, key) = (t.new_object(8), t.at(young));
    let value_at = t.at(value);
    let before = map.insert(&mut t.mutator, old, value_at).unwrap();
    assert_eq!(before.map(Thread::<HEADER>::number), Some(count + 2));
    map.insert(&mut t.mutator, key, value_at).unwrap();
    let gone = t.at(2 * 5);
    assert!(map.remove(&mut t.mutator, gone).is_some());
    assert!(map.remove(&mut t.mutator, gone).is_none());
    t.drop_root(value);
    for _ in 0..2 {
        let stats = t.collect_young();
        if setting.generational() {
            assert!(!stats.full && stats.references <= 2, "{setting:?}");
        }
        for root in [2 * 2, young] {
            let key = t.at(root);
            let value = map.get(&mut t.mutator, key).unwrap();
            assert_eq!(Thread::<HEADER>::number(value), 8, "{setting:?}");
        }
    }
    t.collect();
    let (a, b) = (t.at(2 * 2), t.at(young));
    assert_eq!(map.get(&mut t.mutator, a), map.get(&mut t.mutator, b));
    // A map that is dropped holds nothing.
    drop(map);
    assert_eq!(t.collect().references, 0, "{setting:?}");
});

on_every_plan!(maps_hold_chains_through_each_other, t, setting, {
    let length = setting.many(300);
    let maps = [0; 3].map(|_| t.mutator.weak_map().unwrap());
    for number in 0..=length {
        t.new_object(number);
    }
    for number in (0..length).rev() {
        let (key, value) = (t.at(number), t.at(number + 1));
        maps[number % 3].insert(&mut t.mutator, key, value).unwrap();
    }
    for root in 1..=length {
        t.drop_root(root);
    }
    for _ in 0..2 {
        t.collect();
        let mut at = t.at(0);
        for number in 0..length {
            at = maps[number % 3].get(&mut t.mutator, at).unwrap();
            assert_eq!(Thread::<HEADER>::number(at), number + 1, "{setting:?}");
        }
    }
    t.drop_root(0);
    t.collect();
    assert!(
        maps.iter().all(heapwright::WeakMap::is_empty),
        "{setting:?}"
    );
});

on_every_plan!(many_threads_use_a_map, t, setting, {
    let map = &t.mutator.weak_map().unwrap();
    let heap = &t.heap.clone();
    let count = setting.many(150) / 3;
    t.mutator.outside(|| {
        std::thread::scope(|scope| {
            for thread in 0..3 {
                scope.spawn(move || {
                    let mut t = Thread::<HEADER>::new(heap);
                    for number in 0..count {
                        let (key, value) = (
                            t.new_object(number),
                            t.new_object(1000 * (thread + 1) + number),
                        );
                        let (key, at) = (t.at(key), t.at(value));
                        map.insert(&mut t.mutator, key, at).unwrap();
                        t.drop_root(value);
                        if number % 41 == 7 {
                            t.mutator.collect_young();
                        }
                    }
                    for number in 0..count {
                        let key = t.at(2 * number);
                        let value = map.get(&mut t.mutator, key).unwrap();
                        let expected = 1000 * (thread + 1) + number;
                        assert_eq!(Thread::<HEADER>::number(value), expected, "{setting:?}");
                    }
                });
            }
        });
    });
    t.collect();
    assert!(map.is_empty(), "{setting:?}");
});
