//! What is made of a recording: a page, a timeline, a summary. For `heapwright run`, which has it written, and for `heapwright
//! report`, which is given one.

use crate::map::{MapData, Picture};
use crate::output;
use crate::recording::{Digest, Recording};
use crate::refusal::Refusal;
use crate::report::{Fineness, RunData, page};
use crate::{summary, trace};
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
A recording is what HEAPWRIGHT_RECORD=FILE or `heapwright run --record FILE` wrote. One that a killed process left is good, too.

Examples:
  heapwright report run.jsonl                         a summary
  heapwright report run.jsonl --html run.html         a page with charts
  heapwright report run.jsonl --trace run.json        a timeline for ui.perfetto.dev";

/// What `heapwright run` makes of the run.
#[derive(Args, Debug, Default)]
pub(crate) struct Outputs {
    /// Make a page with charts of the run, as one HTML file
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Write a timeline for ui.perfetto.dev and chrome://tracing, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Keep the recording that these are made of, for `heapwright report`; until the end, and for processes that the program starts, it is
    /// called FILE.PID
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
}

impl Outputs {
    pub(crate) fn any(&self) -> bool {
        self.report.is_some() || self.trace.is_some() || self.record.is_some()
    }

    /// A file that cannot be written is said before the run.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        for file in [&self.report, &self.trace, &self.record]
            .into_iter()
            .flatten()
        {
            output::writable(file)?;
        }
        Ok(())
    }
}

/// Where the recordings of a run are.
#[derive(Debug)]
pub(crate) struct Recordings {
    /// Each process's own ends with a point, its number, and this.
    stem: PathBuf,
    /// The program's own gets this name in the end.
    wanted: Option<PathBuf>,
}

impl Recordings {
    /// Where the user wants it, else in a directory that goes away.
    pub(crate) fn beside(outputs: &Outputs, directory: &Path) -> Result<Self, Refusal> {
        let Some(file) = &outputs.record else {
            return Ok(Self {
                stem: directory.join("run"),
                wanted: None,
            });
        };
        let wrong = |e: std::io::Error| Refusal::usage(format!("--record {}: {e}", file.display()));
        let file = std::path::absolute(file).map_err(wrong)?;
        Ok(Self {
            stem: file.clone(),
            wanted: Some(file),
        })
    }

    /// For the environment: a percent sign in the name means itself.
    pub(crate) fn pattern(&self) -> OsString {
        let mut pattern = output::literal(&self.stem);
        pattern.push(".%p");
        pattern
    }

    /// Reads what the program left and makes what is wanted of it; what could not be made.
    pub(crate) fn finish(
        &self,
        outputs: &Outputs,
        pid: u32,
        name: &OsStr,
    ) -> (Option<Recording>, Vec<Refusal>) {
        let mut file = self.stem.clone().into_os_string();
        file.push(format!(".{pid}"));
        let mut file = PathBuf::from(file);
        if !file.exists() {
            let none = || {
                Refusal::ours(format!(
                    "{} left no recording, so there is nothing to report: it never used libgc, or became another program before",
                    name.to_string_lossy()
                ))
            };
            let troubles = outputs.any().then(none);
            return (None, troubles.into_iter().collect());
        }
        if let Some(wanted) = &self.wanted {
            match fs::rename(&file, wanted) {
                Ok(()) => file.clone_from(wanted),
                Err(e) => {
                    let text = format!("{} stays: {}: {e}", file.display(), wanted.display());
                    return (None, vec![Refusal::ours(text)]);
                }
            }
        }
        let recording = match Recording::read(&file) {
            Ok(recording) => recording,
            Err(trouble) => return (None, vec![trouble]),
        };
        let title = format!("{} under heapwright", name.to_string_lossy());
        let made = [
            outputs
                .report
                .as_deref()
                .map(|to| html(&recording, &file, &title, to)),
            outputs.trace.as_deref().map(|to| timeline(&file, to)),
        ];
        let troubles = made.into_iter().flatten().filter_map(Result::err).collect();
        (Some(recording), troubles)
    }
}

/// The page of the recording that was read from `file`.
fn html(recording: &Recording, file: &Path, title: &str, to: &Path) -> Result<(), Refusal> {
    let mut data = RunData::of(recording, title, Fineness::ONE);
    data.map = Some(MapData::of(Picture::read(file)?));
    output::write_file(to, page(title, &data)?.as_bytes())
}

pub(crate) fn timeline(recording: &Path, to: &Path) -> Result<(), Refusal> {
    let failed = |e| Refusal::ours(format!("{}: {e}", to.display()));
    let mut out = BufWriter::new(File::create(to).map_err(failed)?);
    trace::write(recording, &mut out)
}

/// `heapwright report`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Report {
    /// The recording
    #[arg(value_name = "RECORDING")]
    recording: PathBuf,
    /// Make a page with charts, as one HTML file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a timeline for ui.perfetto.dev and chrome://tracing, as JSON
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// The summary as JSON
    #[arg(long)]
    json: bool,
}

/// Carries out `heapwright report`.
pub(crate) fn run(report: &Report) -> Result<ExitCode, Refusal> {
    for file in [&report.html, &report.trace].into_iter().flatten() {
        output::writable(file)?;
    }
    let recording = Recording::read(&report.recording)?;
    if let Some(to) = &report.html {
        let title = format!("{} under heapwright", recording.begin.program);
        html(&recording, &report.recording, &title, to)?;
    }
    if let Some(to) = &report.trace {
        timeline(&report.recording, to)?;
    }
    let digest = Digest::of(&recording);
    if report.json {
        output::put(&output::json(&digest, true)?)
    } else if report.html.is_none() && report.trace.is_none() {
        output::put(&summary::details(&digest))
    } else {
        Ok(ExitCode::SUCCESS)
    }
}
