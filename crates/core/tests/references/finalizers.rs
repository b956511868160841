//! Finalizers.

use crate::on_every_plan;
use crate::runtime::{Thread, WEAK, object, word};
use heapwright::FinalizerOrder::{Registration, Together};
use heapwright::{Finalizable, PlanName, Reference};
use std::panic::{AssertUnwindSafe, catch_unwind};

on_every_plan!(
    a_dead_object_is_queued_once_with_all_that_it_reaches,
    t,
    setting,
    {
        let count = setting.many(2000);
        for number in 0..count {
            let (outer, inner) = (t.new_object(number), t.new_object(count + number));
            t.link(outer, inner);
            t.finalizer(outer, Together);
            t.drop_root(inner);
        }
        assert_eq!(t.collect_young().finalizable, 0);
        for number in (0..count).step_by(2) {
            t.drop_root(2 * number);
        }
        let stats = t.collect();
        let expected: Vec<usize> = (0..count).step_by(2).collect();
        assert_eq!(stats.finalizable, expected.len(), "{setting:?}");
        assert_eq!(t.heap.queued(), (expected.len(), 0));
        // They are kept until they are taken, and are not queued again.
        assert_eq!(t.collect().finalizable, 0, "{setting:?}");
        let mut numbers = Vec::new();
        while let Some(next) = t.mutator.next_finalizable() {
            let number = Thread::<HEADER>::number(next.object);
            let inner = Thread::<HEADER>::next(next.object).unwrap();
            assert_eq!(
                Thread::<HEADER>::number(inner),
                count + number,
                "{setting:?}"
            );
            numbers.push(number);
        }
        assert_eq!(numbers, expected, "{setting:?}");
        assert_eq!(t.collect().finalizable, 0, "{setting:?}");
        for number in (1..count).step_by(2) {
            let root = t.at(2 * number);
            assert_eq!(Thread::<HEADER>::number(root), number);
        }
    }
);

on_every_plan!(
    young_finalizers_are_looked_at_by_minor_collections,
    t,
    setting,
    {
        for round in 0..4 {
            let (dead, old) = (t.new_object(round), t.new_object(100 + round));
            t.finalizer(dead, Together);
            t.finalizer(old, Together);
            t.drop_root(dead);
            assert_eq!(t.collect_young().finalizable, 1, "{setting:?}");
            assert_eq!(t.finalizable(), [round], "{setting:?}");
        }
        t.mutator.thread().clear();
        t.collect();
        assert_eq!(t.finalizable(), [100, 101, 102, 103], "{setting:?}");
    }
);

on_every_plan!(
    what_dies_together_is_queued_at_once_as_in_java,
    t,
    setting,
    {
        // 1 -> 2 -> 3 and a circle 4 -> 5 -> 4, registered from the end.
        let all = [1, 2, 3, 4, 5].map(|n| t.new_object(n));
        for (from, to) in [(0, 1), (1, 2), (3, 4), (4, 3)] {
            t.link(all[from], all[to]);
        }
        for root in all.iter().rev() {
            t.finalizer(*root, Together);
        }
        t.mutator.thread().clear();
        t.collect();
        assert_eq!(t.finalizable(), [5, 4, 3, 2, 1], "{setting:?}");
        assert_eq!(t.collect().finalizable, 0, "{setting:?}");
    }
);

on_every_plan!(
    in_order_of_registration_what_is_reached_waits,
    t,
    setting,
    {
        // 1 -> 2 -> 3 and a circle 4 -> 5 -> 4, registered from the start: 1 and 4 go first; then what they reached.
        let all = [1, 2, 3, 4, 5].map(|n| t.new_object(n));
        for (from, to) in [(0, 1), (1, 2), (3, 4), (4, 3)] {
            t.link(all[from], all[to]);
        }
        for root in all {
            t.finalizer(root, Registration);
        }
        t.mutator.thread().clear();
        for expected in [&[1, 4][..], &[2, 5], &[3], &[]] {
            t.collect();
            assert_eq!(t.finalizable(), expected, "{setting:?}");
        }
        // In another order of registration none waits for another.
        let all = [1, 2, 3].map(|n| t.new_object(n));
        t.link(all[0], all[1]);
        t.link(all[1], all[2]);
        for root in all.iter().rev() {
            t.finalizer(*root, Registration);
        }
        t.mutator.thread().clear();
        t.collect();
        assert_eq!(t.finalizable(), [3, 2, 1], "{setting:?}");
    }
);

on_every_plan!(
    what_goes_together_goes_before_what_is_in_order,
    t,
    setting,
    {
        // 1 in order, 2 together reaches 1, 3 in order.
        let all = [1, 2, 3].map(|n| t.new_object(n));
        t.link(all[1], all[0]);
        t.finalizer(all[0], Registration);
        t.finalizer(all[1], Together);
        t.finalizer(all[2], Registration);
        t.mutator.thread().clear();
        t.collect();
        assert_eq!(t.finalizable(), [2, 3], "{setting:?}");
        t.collect();
        assert_eq!(t.finalizable(), [1], "{setting:?}");
    }
);

on_every_plan!(an_object_may_have_several_finalizers, t, setting, {
    let root = t.new_object(1);
    let target = t.at(root);
    for token in [7, 8, 9] {
        t.mutator.add_finalizer(target, Together, token).unwrap();
    }
    t.drop_root(root);
    t.collect();
    let mut tokens = Vec::new();
    while let Some(Finalizable { token, .. }) = t.mutator.next_finalizable() {
        tokens.push(token);
    }
    assert_eq!(tokens, [7, 8, 9], "{setting:?}");
});

on_every_plan!(
    what_is_resurrected_lives_on_and_may_be_registered_again,
    t,
    setting,
    {
        let root = t.new_object(1);
        t.finalizer(root, Together);
        t.mutator.thread().clear();
        for round in 0..4 {
            t.collect_young();
            t.collect();
            let next = t.mutator.next_finalizable().unwrap();
            assert_eq!(
                Thread::<HEADER>::number(next.object),
                1,
                "{setting:?} {round}"
            );
            let back = t.keep(next.object);
            t.collect();
            assert_eq!(t.heap.queued(), (0, 0), "used up: {setting:?}");
            t.finalizer(back, Together);
            t.drop_root(back);
        }
    }
);

on_every_plan!(finalizers_may_allocate_collect_and_register, t, setting, {
    let count = setting.many(60);
    for number in 0..count {
        let root = t.new_object(number);
        t.finalizer(root, [Together, Registration][number % 2]);
    }
    t.mutator.thread().clear();
    t.collect();
    let mut order = Vec::new();
    let mut generation = count;
    loop {
        let most = count * 4;
        let done = t.mutator.run_finalizers(most, |mutator, next| {
            let number = Thread::<HEADER>::number(next.object);
            order.push(number);
            // Allocates: the object is a root meanwhile.
            mutator.thread().push(word(next.object));
            let new = mutator.alloc(crate::runtime::BYTES).unwrap();
            // SAFETY: a new object.
            unsafe {
                let header: usize = new.to_address().load();
                new.to_address().store(header | generation << 8);
            }
            // One of three that were there first makes another one that is to be finalized.
            if number.is_multiple_of(3) && number < count {
                mutator
                    .add_finalizer(new, Together, generation * 10)
                    .unwrap();
                generation += 1;
            }
            // One of ten collects.
            if number.is_multiple_of(10) {
                assert!(mutator.collect().is_none_or(|s| s.violations == 0));
                let me = object(*mutator.thread().last().unwrap());
                assert_eq!(Thread::<HEADER>::number(me), number);
            }
            mutator.thread().pop();
        });
        if done == 0 && t.collect().finalizable == 0 {
            break;
        }
    }
    assert_eq!(order.len(), count + count.div_ceil(3), "{setting:?}");
    order.sort_unstable();
    assert!(order.iter().copied().eq(0..order.len()), "{setting:?}");
});

/// A finalizer that panics takes the others with it no more than its own object.
#[test]
fn a_finalizer_that_panics_loses_nothing_else() {
    // The panics of this test are expected: they are not printed.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.to_string().contains("finalizer of 3") {
            hook(info);
        }
    }));
    for setting in crate::runtime::settings() {
        let heap = setting.heap::<true>(setting.options());
        let t = &mut Thread::new(&heap);
        for number in 0..6 {
            let root = t.new_object(number);
            t.finalizer(root, Together);
        }
        t.mutator.thread().clear();
        t.collect();
        let mut done = Vec::new();
        let result = catch_unwind(AssertUnwindSafe(|| {
            t.mutator.run_finalizers(usize::MAX, |_, next| {
                let number = Thread::<true>::number(next.object);
                assert_ne!(number, 3, "finalizer of 3");
                done.push(number);
            })
        }));
        assert!(result.is_err());
        assert_eq!(done, [0, 1, 2]);
        assert_eq!(t.heap.queued(), (2, 0));
        t.collect();
        assert_eq!(t.finalizable(), [4, 5], "{setting:?}");
    }
}

on_every_plan!(finalizers_can_be_taken_back, t, setting, {
    let all = [1, 2, 3, 4].map(|n| t.new_object(n));
    t.finalizer(all[0], Together);
    t.finalizer(all[1], Registration);
    t.collect();
    t.finalizer(all[1], Together);
    t.finalizer(all[2], Together);
    t.finalizer(all[3], Together);
    let at = |root: usize| {
        move |m: &heapwright::Mutator<crate::runtime::Objects<HEADER>>| object(m.thread_ref()[root])
    };
    assert_eq!(t.mutator.remove_finalizers(at(all[1])), 2);
    assert_eq!(t.mutator.remove_finalizers(at(all[3])), 1);
    assert_eq!(t.mutator.remove_finalizers(at(all[3])), 0);
    t.mutator.thread().clear();
    t.collect();
    assert_eq!(t.finalizable(), [1, 3], "{setting:?}");
});

on_every_plan!(
    a_runtime_that_ends_may_have_all_finalizers_queued,
    t,
    setting,
    {
        for number in 0..50 {
            let root = t.new_object(number);
            t.finalizer(root, [Together, Registration][number % 2]);
            if number == 20 {
                t.collect();
            }
        }
        assert_eq!(t.mutator.queue_all_finalizers(), Ok(50));
        t.mutator.thread().clear();
        // What is queued is kept, also what is young.
        t.collect_young();
        t.collect();
        let expected: Vec<usize> = (0..50).collect();
        assert_eq!(t.finalizable(), expected, "{setting:?}");
        assert_eq!(t.mutator.queue_all_finalizers(), Ok(0));
    }
);

on_every_plan!(
    finalizers_of_several_threads_are_in_order_of_registration,
    t,
    setting,
    {
        let heap = &t.heap.clone();
        let count = setting.many(100);
        // Each thread registers its own objects; a lock makes an order of all of them.
        let next = &std::sync::Mutex::new(0);
        t.mutator.outside(|| {
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(move || {
                        let mut t = Thread::new(heap);
                        for _ in 0..count / 3 {
                            let root = t.new_object(0);
                            t.mutator.poll();
                            let mut next = next.lock().unwrap();
                            let at = t.at(root);
                            // SAFETY: an object of this thread's.
                            unsafe {
                                let header: usize = at.to_address().load();
                                at.to_address().store(header | *next << 8);
                            }
                            t.finalizer(root, Registration);
                            *next += 1;
                        }
                        // It ends, with some not taken over yet.
                    });
                }
            });
        });
        t.collect();
        let expected: Vec<usize> = (0..count / 3 * 3).collect();
        assert_eq!(t.finalizable(), expected, "{setting:?}");
    }
);

on_every_plan!(
    weak_references_to_what_is_resurrected_by_others_are_cleared,
    t,
    setting,
    {
        // 1 has a finalizer and reaches 2; 3 weakly refers to 2.
        let all = [1, 2, 3].map(|n| t.new_object(n));
        t.link(all[0], all[1]);
        t.refer(all[2], all[1], |h| Reference::weak(h, WEAK));
        t.finalizer(all[0], Together);
        t.drop_root(all[0]);
        t.drop_root(all[1]);
        t.collect();
        assert_eq!(t.read_weak(all[2]), None, "{setting:?}");
        assert_eq!(t.finalizable(), [1]);
    }
);

#[test]
fn without_collections_nothing_is_finalized_until_the_runtime_ends() {
    let setting = crate::runtime::Setting {
        plan: PlanName::NoGc,
        workers: 1,
        yields: 0,
    };
    let heap = setting.heap::<false>(setting.options());
    let t = &mut Thread::new(&heap);
    let (holder, target) = (t.new_object(1), t.new_object(2));
    t.weak(holder, target);
    t.finalizer(target, Together);
    t.drop_root(target);
    assert!(t.mutator.collect().is_none());
    assert_eq!(t.read_weak(holder), Some(2));
    assert_eq!(t.heap.queued(), (0, 0));
    assert_eq!(t.mutator.queue_all_finalizers(), Ok(1));
    assert_eq!(t.finalizable(), [2]);
}
