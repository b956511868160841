//! Soft, weak and phantom references of the runtime's objects.

use crate::on_every_plan;
use crate::runtime::{USED, WEAK};
use heapwright::{FinalizerOrder, Reference, Soft, Strength};

on_every_plan!(
    weak_references_are_cleared_when_their_objects_die,
    t,
    setting,
    {
        let count = setting.many(3000);
        let first = 0;
        for number in 0..count {
            let (holder, target) = (t.new_object(number), t.new_object(count + number));
            t.weak(holder, target);
            assert_eq!(
                (holder, target),
                (first + 2 * number, first + 2 * number + 1)
            );
        }
        // A third dies young, a third old, a third lives.
        for number in (0..count).step_by(3) {
            t.drop_root(2 * number + 1);
        }
        t.collect_young();
        for number in 0..count {
            let expected = (number % 3 != 0).then_some(count + number);
            assert_eq!(t.read_weak(2 * number), expected, "{setting:?}");
        }
        for number in (1..count).step_by(3) {
            t.drop_root(2 * number + 1);
        }
        for _ in 0..2 {
            t.collect();
            for number in 0..count {
                let expected = (number % 3 == 2).then_some(count + number);
                assert_eq!(t.read_weak(2 * number), expected, "{setting:?}");
            }
        }
    }
);

on_every_plan!(a_reference_dies_silently_with_its_holder, t, setting, {
    let (holder, target) = (t.new_object(1), t.new_object(2));
    t.refer(holder, target, |h| Reference::weak(h, WEAK).queued());
    t.drop_root(holder);
    t.drop_root(target);
    let stats = t.collect();
    assert_eq!((stats.references, stats.cleared), (1, 0), "{setting:?}");
    assert!(t.mutator.next_cleared().is_none());
    // It is forgotten.
    assert_eq!(t.collect().references, 0, "{setting:?}");
});

on_every_plan!(
    cleared_references_are_queued_in_order_of_registration,
    t,
    setting,
    {
        let count = setting.many(2500);
        for number in 0..count {
            let (holder, target) = (t.new_object(number), t.new_object(count + number));
            match number % 3 {
                0 => t.refer(holder, target, |h| Reference::weak(h, WEAK).queued()),
                1 => t.refer(holder, target, |h| Reference::weak(h, WEAK)),
                _ => t.refer(holder, target, |h| Reference::phantom(h, WEAK).queued()),
            }
            t.drop_root(target);
        }
        let stats = t.collect_young();
        assert_eq!(stats.cleared, count, "{setting:?}");
        assert_eq!(
            t.heap.queued(),
            (0, count - count.div_ceil(3) + usize::from(count % 3 == 1))
        );
        // The queue keeps its objects, also through further collections.
        t.mutator.thread().clear();
        t.collect_young();
        t.collect();
        let mut numbers = Vec::new();
        while let Some(next) = t.mutator.next_cleared() {
            let number = crate::runtime::Thread::<HEADER>::number(next.holder);
            let strength = [Strength::Weak, Strength::Soft, Strength::Phantom][number % 3];
            assert_eq!((next.strength, next.slot), (strength, WEAK));
            numbers.push(number);
        }
        let of = |rest| (0..count).filter(move |n| n % 3 == rest);
        let expected: Vec<usize> = of(0).chain(of(2)).collect();
        assert_eq!(numbers, expected, "{setting:?}");
        assert_eq!(t.heap.queued(), (0, 0));
    }
);

on_every_plan!(a_reference_that_was_cleared_may_be_set_again, t, setting, {
    let (holder, target) = (t.new_object(1), t.new_object(2));
    t.weak(holder, target);
    t.drop_root(target);
    t.collect();
    assert_eq!(t.read_weak(holder), None);
    let again = t.new_object(3);
    let (reference, to) = (Reference::weak(t.at(holder), WEAK), t.at(again));
    // SAFETY: the slot of a registered holder; both are alive.
    unsafe { t.mutator.set_referent(&reference, Some(to)).unwrap() };
    for _ in 0..2 {
        t.collect_young();
        assert_eq!(t.read_weak(holder), Some(3), "{setting:?}");
    }
    t.drop_root(again);
    t.collect();
    assert_eq!(t.read_weak(holder), None, "{setting:?}");
});

on_every_plan!(
    an_old_reference_to_a_young_object_is_looked_at_by_minor_collections,
    t,
    setting,
    {
        let count = setting.many(300);
        for number in 0..count {
            let (holder, target) = (t.new_object(number), t.new_object(1000));
            t.weak(holder, target);
        }
        t.collect();
        let base = t.mutator.thread().len();
        for number in 0..count {
            let young = t.new_object(2000 + number);
            // Several times: the last one counts.
            for to in [0, young] {
                let (reference, to) = (Reference::weak(t.at(2 * number), WEAK), t.at(to));
                // SAFETY: as above.
                unsafe { t.mutator.set_referent(&reference, Some(to)).unwrap() };
            }
        }
        for number in (0..count).step_by(2) {
            t.drop_root(base + number);
        }
        let stats = t.collect_young();
        if setting.generational() {
            assert!(
                !stats.full && stats.references <= 2 * count,
                "{setting:?} {stats:?}"
            );
        }
        for number in 0..count {
            let expected = (number % 2 == 1).then_some(2000 + number);
            assert_eq!(t.read_weak(2 * number), expected, "{setting:?}");
        }
        // All are old now, and nothing is to be looked at.
        let stats = t.collect_young();
        if setting.generational() {
            assert_eq!(stats.references, 0, "{setting:?}");
        }
    }
);

on_every_plan!(
    a_minor_collection_looks_only_at_what_is_young,
    t,
    setting,
    {
        let count = setting.many(500);
        for number in 0..count {
            let (holder, target) = (t.new_object(number), t.new_object(count + number));
            t.weak(holder, target);
            let holder = t.new_object(0);
            t.ephemeron(holder, target, target);
            t.finalizer(target, FinalizerOrder::Together);
        }
        assert_eq!(t.collect_young().references, 3 * count);
        let (holder, target) = (t.new_object(7), t.new_object(8));
        t.weak(holder, target);
        let stats = t.collect_young();
        let expected = if setting.generational() {
            1
        } else {
            3 * count + 1
        };
        assert_eq!(stats.references, expected, "{setting:?}");
        assert_eq!(t.collect().references, 3 * count + 1, "{setting:?}");
    }
);

/// A soft reference, which is read or not between collections, under a policy: whether it is kept through `collections`.
fn soft(setting: crate::runtime::Setting, policy: Soft, reads: bool, collections: usize) -> bool {
    let mut options = setting.options();
    options.soft_references = policy;
    let heap = setting.heap::<true>(options);
    let t = &mut crate::runtime::Thread::new(&heap);
    let (holder, target) = (t.new_object(1), t.new_object(2));
    let make = |h| Reference::soft(h, WEAK, USED);
    t.refer(holder, target, make);
    let behind = t.new_object(3);
    t.link(target, behind);
    t.drop_root(target);
    t.drop_root(behind);
    for _ in 0..collections {
        t.collect();
        if reads {
            t.read(holder, make);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let kept = t.read(holder, make) == Some(2);
    if kept {
        // With all that it reaches.
        let holder = t.at(holder);
        // SAFETY: as above.
        let target = unsafe { t.mutator.referent(&make(holder)) }.unwrap();
        let behind = crate::runtime::Thread::<true>::next(target).unwrap();
        assert_eq!(crate::runtime::Thread::<true>::number(behind), 3);
    }
    kept
}

#[test]
fn soft_references_hold_as_their_policy_says() {
    for setting in crate::runtime::settings() {
        assert!(!soft(setting, Soft::Clear, true, 1), "{setting:?}");
        assert!(soft(setting, Soft::Room, false, 4), "{setting:?}");
        // Nothing in 32 MiB is 32 seconds old.
        assert!(soft(setting, Soft::Recent(1000), false, 4), "{setting:?}");
        // What was not read since the collection before the last one is too old; what is read is not.
        assert!(!soft(setting, Soft::Recent(0), false, 4), "{setting:?}");
        assert!(soft(setting, Soft::Recent(0), true, 4), "{setting:?}");
    }
}

#[test]
fn soft_references_are_cleared_before_memory_runs_out() {
    for setting in crate::runtime::settings() {
        let mut options = setting.options();
        options.max = 1 << 20;
        let heap = setting.heap::<true>(options);
        let t = &mut crate::runtime::Thread::new(&heap);
        let make = |h| Reference::soft(h, WEAK, USED);
        // A chain of soft references, each of which holds the one before: more of them than the heap has room for.
        let mut links = 0;
        let mut last = t.new_object(0);
        loop {
            let next = t.new_object(links + 1);
            t.refer(next, last, make);
            t.mutator.thread().swap(0, next);
            t.mutator.thread().truncate(1);
            (last, links) = (0, links + 1);
            if links % 4096 == 0 {
                let (mut at, mut length) = (t.at(0), 0);
                // SAFETY: all of them are reference objects, but for the first, whose slot is empty.
                while let Some(before) = unsafe { t.mutator.referent(&make(at)) } {
                    at = before;
                    length += 1;
                }
                if length < links {
                    break;
                }
            }
            assert!(links < 30_000, "{setting:?}: 1 MiB holds all");
        }
    }
}

on_every_plan!(
    phantom_references_are_cleared_after_finalizers,
    t,
    setting,
    {
        let (weak, phantom, target) = (t.new_object(1), t.new_object(2), t.new_object(3));
        t.weak(weak, target);
        let make = |h| Reference::phantom(h, WEAK).queued();
        t.refer(phantom, target, make);
        t.finalizer(target, FinalizerOrder::Together);
        t.drop_root(target);
        t.collect();
        // The weak one is cleared before the finalizer runs, the phantom one when it has.
        assert_eq!(t.read_weak(weak), None, "{setting:?}");
        assert_eq!(t.read(phantom, make), Some(3), "{setting:?}");
        assert!(t.mutator.next_cleared().is_none());
        t.collect();
        assert_eq!(t.read(phantom, make), Some(3), "still queued: {setting:?}");
        assert_eq!(t.finalizable(), [3]);
        t.collect();
        assert_eq!(t.read(phantom, make), None, "{setting:?}");
        let queued = t.mutator.next_cleared().unwrap();
        assert_eq!(queued.strength, Strength::Phantom);
        assert_eq!(queued.holder, t.at(phantom));
    }
);

on_every_plan!(
    resurrection_does_not_bring_a_weak_reference_back,
    t,
    setting,
    {
        let (weak, target) = (t.new_object(1), t.new_object(2));
        t.weak(weak, target);
        t.finalizer(target, FinalizerOrder::Registration);
        t.drop_root(target);
        t.collect();
        let back = t.mutator.next_finalizable().unwrap().object;
        let back = t.keep(back);
        assert_eq!(t.read_weak(weak), None, "{setting:?}");
        t.collect();
        assert_eq!(t.read_weak(weak), None, "{setting:?}");
        let back = t.at(back);
        assert_eq!(crate::runtime::Thread::<HEADER>::number(back), 2);
    }
);

on_every_plan!(
    a_weak_reference_that_is_resurrected_refers_to_what_lives,
    t,
    setting,
    {
        // Dies with a finalizer: 1, which reaches the reference objects 2 and 4; 2 refers to 3, which 1 reaches too; 4 to 5, which
        // nothing does.
        let [one, two, three, four, five] = [1, 2, 3, 4, 5].map(|n| t.new_object(n));
        t.link(one, two);
        t.link(two, three);
        t.link(three, four);
        t.weak(two, three);
        t.refer(four, five, |h| Reference::weak(h, WEAK).queued());
        t.finalizer(one, FinalizerOrder::Together);
        t.mutator.thread().clear();
        t.collect();
        let one = t.mutator.next_finalizable().unwrap().object;
        let two = crate::runtime::Thread::<HEADER>::next(one).unwrap();
        let three = crate::runtime::Thread::<HEADER>::next(two).unwrap();
        let four = crate::runtime::Thread::<HEADER>::next(three).unwrap();
        let (two, four) = (t.keep(two), t.keep(four));
        assert_eq!(t.read_weak(two), Some(3), "{setting:?}");
        assert_eq!(t.read_weak(four), None, "{setting:?}");
        let queued = t.mutator.next_cleared().unwrap();
        assert_eq!(queued.holder, t.at(four));
        for _ in 0..2 {
            t.collect_young();
            assert_eq!(t.read_weak(two), Some(3), "{setting:?}");
        }
    }
);

on_every_plan!(
    all_references_to_an_object_are_cleared_at_once,
    t,
    setting,
    {
        // 1 softly, 2 and 3 weakly refer to 4, which alone reaches 5; 6 weakly refers to 5: never is one of them cleared and another not.
        let all = [1, 2, 3, 4, 5, 6].map(|n| t.new_object(n));
        let soft = |h| Reference::soft(h, WEAK, USED);
        t.refer(all[0], all[3], soft);
        t.weak(all[1], all[3]);
        t.weak(all[2], all[3]);
        t.link(all[3], all[4]);
        t.weak(all[5], all[4]);
        t.drop_root(all[3]);
        t.drop_root(all[4]);
        for _ in 0..3 {
            t.collect();
            assert_eq!(t.read(all[0], soft), Some(4), "{setting:?}");
            assert_eq!(t.read_weak(all[1]), Some(4));
            assert_eq!(t.read_weak(all[2]), Some(4));
            assert_eq!(t.read_weak(all[5]), Some(5));
        }
        let reference = soft(t.at(all[0]));
        // SAFETY: as above.
        unsafe { t.mutator.set_referent(&reference, None).unwrap() };
        assert_eq!(t.collect().cleared, 3, "{setting:?}");
        assert_eq!(t.read_weak(all[1]), None);
        assert_eq!(t.read_weak(all[2]), None);
        assert_eq!(t.read_weak(all[5]), None);
    }
);

/// While a marker runs, what is read from a weak reference is kept, though nothing else reaches it.
#[test]
fn what_is_read_while_marking_is_kept() {
    for setting in crate::runtime::settings() {
        let mut options = setting.options();
        options.stress = 1_000_000;
        let heap = setting.heap::<true>(options);
        let t = &mut crate::runtime::Thread::new(&heap);
        let count = setting.many(1000);
        for number in 0..count {
            let (holder, target) = (t.new_object(number), t.new_object(count + number));
            t.weak(holder, target);
            let behind = t.new_object(2 * count + number);
            t.link(target, behind);
        }
        // The objects that are referred to are reachable only weakly when the mark begins.
        for number in 0..count {
            t.drop_root(3 * number + 1);
            t.drop_root(3 * number + 2);
        }
        t.mutator.collect_in_background();
        let mut kept = Vec::new();
        for number in 0..count {
            let reference = Reference::weak(t.at(3 * number), WEAK);
            // SAFETY: as above.
            if let Some(target) = unsafe { t.mutator.referent(&reference) } {
                kept.push((number, t.keep(target)));
            }
            t.mutator.poll();
        }
        if setting.plan == heapwright::PlanName::ConcurrentImmix {
            assert!(!kept.is_empty(), "{setting:?}");
        }
        t.collect();
        for (number, root) in kept {
            let target = t.at(root);
            assert_eq!(
                crate::runtime::Thread::<true>::number(target),
                count + number
            );
            let behind = crate::runtime::Thread::<true>::next(target).unwrap();
            assert_eq!(
                crate::runtime::Thread::<true>::number(behind),
                2 * count + number
            );
        }
    }
}
