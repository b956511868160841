//! What looks at the heap sees what is there: each look is compared with what a model says that is kept without the heap.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod looks;
mod toy;

use heapwright::PlanName;

#[test]
fn a_frozen_heap_shows_what_lives_and_what_keeps_it() {
    for plan in PlanName::ALL {
        looks::walk_through::<false>(plan, &mut looks::frozen::check);
        looks::walk_through::<true>(plan, &mut looks::frozen::check);
        // By itself: a look takes back what a census would have to.
        looks::walk_through::<true>(plan, &mut looks::frozen::check_census);
    }
}

#[test]
fn a_heap_of_words_shows_its_cells() {
    looks::words::cells_are_seen_as_they_are();
}

#[test]
fn maps_agree_with_a_walk() {
    looks::told::maps_agree_with_a_walk();
}

#[test]
fn workers_are_told_with_their_collection() {
    looks::told::workers_are_told_with_their_collection();
}

#[test]
fn a_look_that_panics_lets_the_world_go_on() {
    let heap = looks::heap::<true>(PlanName::Immix);
    let mut mutator = heap.attach(Default::default()).unwrap();
    mutator.alloc(32).unwrap();
    let quiet = |look: &mut dyn FnMut()| {
        let look = std::panic::AssertUnwindSafe(look);
        assert!(std::panic::catch_unwind(look).is_err());
    };
    quiet(&mut || mutator.freeze(|_| panic!("on purpose")));
    quiet(&mut || mutator.for_each_object(&mut |_| panic!("on purpose")));
    // Another mutator comes in, and stops the world.
    mutator.outside(|| {
        std::thread::scope(|scope| {
            let collect = || heap.attach(Default::default()).unwrap().collect();
            assert!(scope.spawn(collect).join().unwrap().is_some());
        });
    });
}
