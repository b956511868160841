//! What a run tells of its heap: the log line, and a recording.

use crate::spec::Spec;
use heapwright::{Listener, Options};
use heapwright_observe::log::{self, Logger};
use heapwright_observe::record::Subject;
use heapwright_observe::{Recorder, Sink, Sizes};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// Who listens to the heap of a run.
#[derive(Debug, Default)]
pub(crate) struct Ears {
    recorder: Option<Arc<Recorder>>,
    logger: Option<Arc<Logger>>,
}

impl Ears {
    /// As the run says; a file that cannot be written is an error.
    pub(crate) fn of(spec: &Spec, options: &Options) -> Result<Self, String> {
        let mut ears = Self::default();
        if let Some(file) = &spec.record {
            let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
            let path = CString::new(file.as_os_str().as_bytes()).map_err(|e| failed(&e))?;
            let subject = Subject {
                program: &format!("workload {}", spec.workload),
                plan: options.plan.name(),
                workers: options.most_workers(),
            };
            let recorder = Recorder::begin(&path, &subject).map_err(|e| failed(&e))?;
            ears.recorder = Some(Arc::new(recorder));
        }
        if let Some(log) = &spec.log {
            let (form, file) = log::parse(log.as_bytes());
            let sink = match file {
                None => Sink::stderr(),
                Some(file) => {
                    let failed = |e: &dyn std::fmt::Display| format!("{log}: {e}");
                    let path = CString::new(file).map_err(|e| failed(&e))?;
                    Sink::append(&path).map_err(|e| failed(&e))?
                }
            };
            ears.logger = Some(Arc::new(Logger::new(form, sink)));
        }
        Ok(ears)
    }

    pub(crate) fn listener(&self) -> Box<dyn Listener> {
        Box::new((self.recorder.clone(), self.logger.clone()))
    }

    /// The workload has ended, with so many objects of each size.
    pub(crate) fn end(&self, sizes: Option<&Sizes>, allocated_bytes: u64) {
        if let Some(recorder) = &self.recorder {
            if let Some(sizes) = sizes {
                sizes.each(|bytes, objects| recorder.class(bytes, objects));
            }
            recorder.end(allocated_bytes);
        }
    }
}
