//! Finalizers: which objects are queued, and in which order.

use super::FinalizerOrder;
use super::portions::{PORTION, portion};
use super::process::Processed;
use super::tables::{Queued, Tables};
use crate::bugs::{Bug, is_on};
use crate::collect::cycle::Pause;
use crate::collect::trace::{Outcomes, Trace};
use crate::vm::Vm;
use core::sync::atomic::{AtomicUsize, Ordering};

impl<V: Vm> Pause<'_, V> {
    /// Queues dead objects with finalizers, and traces them.
    pub(super) fn finalizers<const MOVES: bool>(
        &self,
        tables: &mut Tables,
        trace: &Trace<'_, V>,
        minor: bool,
        done: &mut Processed,
    ) {
        let Tables {
            finalizers,
            finalizable,
            ..
        } = tables;
        if is_on(Bug::FinalizerYoungSkipped) && minor {
            finalizers.old = finalizers.list.len();
        }
        let dead = AtomicUsize::new(0);
        self.for_entries(
            finalizers.part(minor),
            |registration, outcomes| match outcomes.of(registration.object) {
                Some(now) => registration.object = now,
                None => {
                    registration.object |= 1;
                    dead.fetch_add(1, Ordering::Relaxed);
                }
            },
        );
        let dead = dead.into_inner();
        if dead == 0 {
            finalizers.settle(minor, |_| false);
            return;
        }
        let before = finalizable.list.len();
        let room = finalizable.list.try_reserve(dead).is_ok();
        let outcomes = Outcomes::<V>::on(self.space);
        for registration in finalizers.part(minor) {
            let together = registration.order == FinalizerOrder::Together;
            if room && registration.object & 1 != 0 && together {
                finalizable.list.push_back(Queued {
                    object: registration.object & !1,
                    token: registration.token,
                });
                registration.object = 0;
            }
        }
        let new = &finalizable.list.make_contiguous()[before..];
        if !new.is_empty() && !is_on(Bug::FinalizableNotTraced) {
            self.closure::<MOVES, _>(trace, new.len().div_ceil(PORTION), |number, tracer| {
                for queued in portion(new, number) {
                    tracer.reach(queued.object);
                }
            });
            self.weak_tables::<MOVES>(trace);
        }
        for queued in finalizable.list.range_mut(before..) {
            queued.object = outcomes.of(queued.object).unwrap_or(queued.object);
        }
        for registration in finalizers.part(minor) {
            if registration.object & 1 == 0 {
                continue;
            }
            let object = registration.object & !1;
            // What an earlier one reaches lives.
            registration.object = match outcomes.of(object) {
                Some(now) => now,
                None => {
                    self.closure::<MOVES, _>(trace, 1, |_, tracer| {
                        tracer.reach(object);
                    });
                    self.weak_tables::<MOVES>(trace);
                    let now = outcomes.of(object).unwrap_or(object);
                    // Without room it waits for the next collection.
                    if room {
                        finalizable.list.push_back(Queued {
                            object: now,
                            token: registration.token,
                        });
                        0
                    } else {
                        now
                    }
                }
            };
        }
        done.finalizable += finalizable.list.len() - before;
        finalizers.settle(minor, |registration| registration.object == 0);
    }
}
