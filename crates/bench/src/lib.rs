//! The embedded virtual machine of Heapwright and its workloads.
//!
//! [`runtime`] says what a workload needs; [`workload`] has the workloads; [`vm`] is a small virtual machine over the core
//! with every plan under it; [`oracle`] has two runtimes without a collector; [`fuzz`] compares random programs with a shadow; [`run`](run()) runs what a [`spec::Spec`] says.

mod dump;
pub mod fuzz;
mod observe;
pub mod oracle;
mod run;
pub mod runtime;
pub mod spec;
pub mod vm;
pub mod workload;

pub use run::run;
