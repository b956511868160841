//! Sampled objects: estimates are right for each site by itself, however sites alternate; and it is the object at hand that is sampled.

#![allow(missing_docs)]

mod lists;
mod sampled;
mod toy;

#[test]
fn words_are_sampled_without_bias() {
    sampled::words_are_sampled_without_bias();
}

#[test]
fn lists_of_cells_are_sampled_without_bias() {
    sampled::lists_of_cells_are_sampled_without_bias();
}

#[test]
fn objects_are_sampled_without_bias_on_every_plan() {
    sampled::objects_are_sampled_without_bias_on_every_plan();
}

#[test]
fn each_thread_has_a_sequence_of_its_own_and_the_rate_may_change() {
    sampled::each_thread_has_a_sequence_of_its_own_and_the_rate_may_change();
}

#[test]
fn aligned_objects_are_sampled_without_bias() {
    sampled::aligned_objects_are_sampled_without_bias();
}

#[test]
fn mutators_that_come_and_go_are_sampled_without_bias() {
    sampled::mutators_that_come_and_go_are_sampled_without_bias();
}

#[test]
fn each_object_is_told_once() {
    sampled::each_object_is_told_once();
}

#[test]
fn points_that_are_far_from_each_other_are_not_lost() {
    sampled::points_that_are_far_from_each_other_are_not_lost();
}
