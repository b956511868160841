//! One run of a workload on a plan, with options: to compare values of an option, each in a process of its own, in turn.
//!
//! `cargo run --release -p heapwright-bench --example one -- lru immix 0 sizing=cpu:5`
//!
//! Prints one line with seconds, collections, and the most memory that was occupied. The tables of docs/tuning.md, and that of huge
//! pages in docs/experiments.md, were made with it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks"
)]

use heapwright_bench::spec::Spec;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [workload, plan, mebibytes, options @ ..] = arguments.as_slice() else {
        eprintln!("usage: one WORKLOAD PLAN MEBIBYTES [OPTION=VALUE]...   (0 MEBIBYTES: no limit)");
        std::process::exit(2);
    };
    let heap_bytes = mebibytes.parse::<usize>().unwrap_or(0) << 20;
    let spec = Spec {
        options: options
            .iter()
            .filter_map(|o| o.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        ..Spec::new(workload, plan, heap_bytes)
    };
    let r = heapwright_bench::run(&spec);
    println!(
        "{:?} cpu {:.3} system {:.3} collector {:.3} collections {} full {} peak {} MiB",
        r.status,
        r.user_s + r.sys_s,
        r.sys_s,
        r.gc_s,
        r.collections,
        r.full_collections,
        r.peak_rss_bytes >> 20
    );
    if let Some(why) = r.why {
        eprintln!("{why}");
    }
}
