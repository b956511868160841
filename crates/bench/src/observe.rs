//! What a run tells of its heap while it runs.

use crate::spec::Spec;
use heapwright::Options;
use heapwright_observe::{InstrumentError, Instruments, Wanted};
use std::ffi::OsStr;

/// The instruments that a run is to have; a file or a socket that cannot be had is an error.
pub(crate) fn instruments(spec: &Spec, options: &Options) -> Result<Instruments, InstrumentError> {
    let mut wanted = Wanted::default();
    let values: [(&str, Option<&OsStr>); 4] = [
        ("log", spec.log.as_ref().map(OsStr::new)),
        ("record", spec.record.as_ref().map(OsStr::new)),
        ("listen", spec.listen.as_ref().map(OsStr::new)),
        ("profile", spec.profile.as_deref()),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            wanted.set(name, value)?;
        }
    }
    let program = format!("{} on {}", spec.workload, spec.plan);
    Instruments::begin(&wanted, &program, options)
}
