//! What is garbage when a collection is asked for, and what others do meanwhile.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use crate::lists::{Lists, array, heap, length, push};
use heapwright::{Address, Mutator, ObjectReference, PlanName, Strength, Weak};
use std::sync::atomic::{AtomicBool, Ordering};

/// Objects that are garbage soon, with what says whether they are gone: some in a list, some large.
fn doomed(mutator: &mut Mutator<Lists>, count: usize) -> Vec<Weak<Lists>> {
    let mut weak = Vec::new();
    for index in 0..count {
        if index % 50 == 0 {
            let large = array(mutator, 3000).unwrap();
            weak.push(mutator.weak(large, Strength::Weak).unwrap());
        }
        push(mutator, 1, 4).unwrap();
        let object = ObjectReference::from_address(Address::new(mutator.thread()[1])).unwrap();
        weak.push(mutator.weak(object, Strength::Weak).unwrap());
    }
    weak
}

/// Objects die in the middle of a mark, if the plan marks while mutators run, after they were seen: a collection that is asked for then
/// frees them, whatever `others` threads do meanwhile.
pub fn what_is_garbage_is_gone(plan: PlanName, others: usize, times: usize) {
    let settings = [
        ("max", "64m"),
        ("verify", "1"),
        // A mark takes long.
        ("stress", "1000000"),
        ("workers", "2"),
    ];
    let heap = heap(plan, &settings);
    let over = AtomicBool::new(false);
    let pages = plan == PlanName::PageProtect;
    std::thread::scope(|scope| {
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _over = Over(&over);
        for thread in 0..others {
            let (heap, over) = (&heap, &over);
            scope.spawn(move || {
                let mut mutator = heap.attach(vec![0, 0]).unwrap();
                while !over.load(Ordering::Relaxed) {
                    for _ in 0..20 {
                        push(&mut mutator, 0, 10).unwrap();
                    }
                    mutator.thread()[0] = 0;
                    match thread % 2 {
                        0 => mutator.collect_in_background(),
                        _ => drop(mutator.collect_young()),
                    }
                    mutator.outside(std::thread::yield_now);
                }
            });
        }
        let mut mutator = heap.attach(vec![0, 0]).unwrap();
        let kept = if pages { 100 } else { 2000 };
        for _ in 0..kept {
            push(&mut mutator, 0, 4).unwrap();
        }
        for n in 0..times {
            let weak = doomed(&mut mutator, if pages { 20 } else { 300 });
            // Old in plans with generations, and seen by a mark that begins.
            if n % 2 == 0 {
                let _ = mutator.collect_young();
            }
            mutator.collect_in_background();
            mutator.thread()[1] = 0;
            if n % 3 == 0 {
                mutator.outside(std::thread::yield_now);
            }
            let _ = mutator.collect();
            let left = weak
                .iter()
                .filter(|w| w.get(&mut mutator).is_some())
                .count();
            assert_eq!(left, 0, "{plan}: of {} left, round {n}", weak.len());
            assert_eq!(length(&mut mutator, 0), kept, "{plan}");
        }
    });
}
