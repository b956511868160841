//! Runs a workload in this process and reports.

use crate::observe::instruments;
use crate::runtime::Full;
use crate::spec::{Report, Spec, Status};
use crate::vm::{Embedded, Machine};
use crate::workload::{self, Settings};
use heapwright::{Heap, Options};
use std::time::Instant;

/// Runs what `spec` says on the embedded machine, in this process.
#[must_use]
pub fn run(spec: &Spec) -> Report {
    match (spec.header, spec.ambiguous) {
        (false, false) => run_on::<false, false>(spec),
        (true, false) => run_on::<true, false>(spec),
        (false, true) => run_on::<false, true>(spec),
        (true, true) => run_on::<true, true>(spec),
    }
}

/// The options of the heap.
fn options(spec: &Spec) -> Result<Options, String> {
    let mut options = Options::default();
    let mut set = |name: &str, value: String| options.set(name, &value).map_err(|e| e.to_string());
    set("plan", spec.plan.clone())?;
    set("max", spec.heap_bytes.to_string())?;
    if spec.workers != 0 {
        set("workers", spec.workers.to_string())?;
    }
    set("verify", u8::from(spec.verify).to_string())?;
    set("stress", spec.stress.to_string())?;
    if spec.nursery_bytes != 0 {
        set("nursery", spec.nursery_bytes.to_string())?;
    }
    for (name, value) in &spec.options {
        set(name, value.clone())?;
    }
    Ok(options)
}

fn run_on<const HEADER: bool, const AMBIGUOUS: bool>(spec: &Spec) -> Report {
    let options = match options(spec) {
        Ok(options) => options,
        Err(why) => return Report::ended(Status::Refused, why),
    };
    let instruments = match instruments(spec, &options) {
        Ok(instruments) => instruments,
        Err(e) => return Report::ended(Status::Failed, e.to_string()),
    };
    let mut builder = Heap::<Machine<HEADER, AMBIGUOUS>>::builder()
        .options(options)
        .listener(Box::new(instruments.listener()));
    if let Some(sampler) = instruments.sampler() {
        builder = builder.sampler(sampler);
    }
    let heap = match builder.build(Machine::<HEADER, AMBIGUOUS>::default()) {
        Ok(heap) => heap,
        Err(e) => return Report::ended(Status::Refused, e.to_string()),
    };
    let settings = Settings {
        scale: spec.scale,
        seed: spec.seed,
        mutators: spec.mutators.max(1),
        object_bytes: if spec.object_bytes == 0 {
            24
        } else {
            spec.object_bytes
        },
    };
    if let Some(path) = &spec.dump {
        heap.vm().dump().ask(path);
        // The hook is the heap's first.
        let _ = heap.on_out_of_memory(|mutator, _| crate::dump::take(mutator));
    }
    if spec.record.is_some() {
        heap.vm().dump().ask_for_sizes();
    }
    let watching = match instruments.watch(&heap) {
        Ok(watching) => watching,
        Err(e) => return Report::ended(Status::Failed, e.to_string()),
    };
    let runtime = Embedded(heap);
    let mut report = Report::default();
    let (start, before) = (Instant::now(), usage());
    for _ in 0..spec.iterations.max(1) {
        match workload::run(&spec.workload, &runtime, &settings) {
            None => {
                return Report::ended(
                    Status::Refused,
                    format!("there is no workload {}", spec.workload),
                );
            }
            Some(Err(Full)) => {
                report.status = Status::OutOfMemory;
                report.why = Some(String::from(
                    "the heap is full, and collecting did not help",
                ));
                break;
            }
            Some(Ok(outcome)) => {
                report.checksum = outcome.checksum;
                report.allocated_bytes += outcome.allocated_bytes;
                report.traced_objects = outcome.traced_objects;
                report.operation_ns = outcome.operation_ns;
            }
        }
    }
    report.wall_s = start.elapsed().as_secs_f64();
    let after = usage();
    let sizes = runtime.0.vm().dump().sizes();
    watching.end(sizes.as_ref().map(|s| &*s.0));
    // The counting is none of the workload's.
    let counting = sizes.map_or(0.0, |s| s.1.as_secs_f64());
    report.wall_s -= counting;
    report.user_s = (after.0 - before.0 - counting).max(0.0);
    report.sys_s = after.1 - before.1;
    report.peak_rss_bytes = after.2;
    let (pauses, violations) = runtime.0.vm().record();
    report.pauses_ms = pauses.iter().map(|ns| *ns as f64 / 1e6).collect();
    report.gc_s = pauses.iter().sum::<u64>() as f64 / 1e9;
    let usage = runtime.0.usage();
    report.collections = usage.collections;
    report.full_collections = usage.full_collections;
    report.violations = violations;
    if violations != 0 {
        report.status = Status::Failed;
        report.why = Some(format!("the verifier found {violations} violations"));
    }
    match runtime.0.vm().dump().taken() {
        Some(Ok(dumped)) => report.dump = Some(dumped),
        Some(Err(why)) => {
            report.status = Status::Failed;
            report.why = Some(why);
        }
        None => {}
    }
    report
}

/// Seconds in user and system mode, and the most bytes that were resident.
fn usage() -> (f64, f64, u64) {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    getrusage(UsageWho::RUSAGE_SELF).map_or((0.0, 0.0, 0), |u| {
        (
            u.user_time().num_microseconds() as f64 / 1e6,
            u.system_time().num_microseconds() as f64 / 1e6,
            u.max_rss() as u64 * 1024,
        )
    })
}
