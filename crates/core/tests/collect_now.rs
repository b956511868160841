//! A collection that is asked for frees all that is garbage when it is asked for, in every plan, also in the middle of a mark.

#![allow(missing_docs)]

mod lists;
mod requests;

use lists::COLLECTING;
use requests::what_is_garbage_is_gone;

#[test]
fn what_is_garbage_when_a_collection_is_asked_for_is_gone_after_it() {
    for plan in COLLECTING {
        what_is_garbage_is_gone(plan, 0, 12);
    }
}

#[test]
fn whatever_other_threads_do_meanwhile() {
    for plan in COLLECTING {
        what_is_garbage_is_gone(plan, 2, 12);
    }
}
