//! The `heapwright` command: runs a program that uses libgc on a Heapwright heap, and measures plans.
//!
//! `heapwright run` examines the program (`program`, which reads ELF files with `elf` and looks for libraries as the
//! loader does with `loader`), finds our library (`library`), and either becomes the program or starts it and waits
//! (`launch`, `signals`); `summary` says at the end what the heap did.
//!
//! `heapwright install` puts both under a directory (`install`), with the C interface (`install_c`).
//!
//! `heapwright bench` runs workloads on plans (`bench`), each run in a process of its own; `heapwright compare` (`compare`) on
//! other memory managers as well.

#![forbid(unsafe_code)]

mod args;
mod bench;
mod compare;
mod dump;
mod elf;
mod install;
mod install_c;
mod launch;
mod library;
mod listen;
mod live;
mod loader;
mod map;
mod output;
mod plans;
mod profile;
mod program;
mod recording;
mod refusal;
mod report;
mod reports;
mod signals;
mod summary;
mod table;
mod trace;

use clap::Parser;
use refusal::Refusal;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match args::Command::parse().action {
        args::Action::Run(run) => launch::run(&run),
        args::Action::Options(list) => table::print(&list),
        args::Action::Plans(list) => plans::print(&list),
        args::Action::Bench(bench) => bench::run(&bench),
        args::Action::Compare(compare) => compare::run(&compare),
        args::Action::Report(report) => reports::run(&report),
        args::Action::Top(top) => live::top(&top),
        args::Action::Dump(dump) => live::dump(&dump),
        args::Action::Profile(convert) => profile::convert(&convert),
        args::Action::Map(map) => map::run(&map),
        args::Action::Install(install) => install::install(&install),
        args::Action::Uninstall(uninstall) => install::uninstall(&uninstall),
        args::Action::BenchChild(child) => bench::child::run(&child),
    };
    done.unwrap_or_else(|refusal| complain(&refusal))
}

/// Says on stderr why nothing was run, and gives the status a shell would give.
fn complain(refusal: &Refusal) -> ExitCode {
    // Where stderr is closed, the exit status has to do.
    let _ = writeln!(std::io::stderr(), "heapwright: {refusal}");
    ExitCode::from(refusal.status())
}
