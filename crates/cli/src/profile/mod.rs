//! `--profile`: where a program allocates, as a profile for pprof.
//!
//! The program writes raw samples to a file in a directory of ours ([`heapwright_observe::profile`]); when it has ended they are read
//! (`raw`), given names (`symbols`) and written in pprof's format (`build`, `proto`).

mod build;
mod proto;
mod raw;
mod symbols;

use crate::output;
use crate::refusal::Refusal;
use crate::summary::StatsDirectory;
use flate2::Compression;
use flate2::write::GzEncoder;
use heapwright::options::size;
use heapwright_observe::profile::{DEFAULT_RATE_BYTES, Request};
use prost::Message;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `--profile` and `--profile-rate` ask for.
#[derive(clap::Args, Debug)]
pub(crate) struct ProfileArgs {
    /// Sample where memory is allocated, and write a profile for pprof to FILE (gzip, like out.pb.gz)
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// One sample for so many bytes allocated, on average [default: 512k]
    #[arg(long, value_name = "SIZE", requires = "profile")]
    profile_rate: Option<String>,
}

impl ProfileArgs {
    /// The profile that is asked for. Its file is opened now: if it cannot be written, that is said before anything runs.
    pub(crate) fn target(&self) -> Result<Option<Target>, Refusal> {
        let Some(path) = &self.profile else {
            return Ok(None);
        };
        let rate = match &self.profile_rate {
            None => DEFAULT_RATE_BYTES,
            Some(text) => match size(text) {
                Ok(0) => Err(String::from("it must not be 0")),
                other => other,
            }
            .map_err(|why| Refusal::usage(format!("--profile-rate {text}: {why}")))?,
        };
        let refused = |e: io::Error| Refusal::ours(format!("--profile {}: {e}", path.display()));
        let existed = path.exists();
        // What is in it stays until there is something better.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(refused)?;
        let directory = StatsDirectory::new()
            .map_err(|e| Refusal::ours(format!("no directory for samples can be made: {e}")))?;
        Ok(Some(Target {
            path: std::path::absolute(path).map_err(refused)?,
            file,
            existed,
            written: false,
            rate,
            raw: directory.path().join("samples"),
            _directory: directory,
        }))
    }
}

/// What the environment says of profiles must be right: the library could not say so.
pub(crate) fn check_environment() -> Result<(), Refusal> {
    const NAME: &str = "HEAPWRIGHT_PROFILE";
    match std::env::var_os(NAME).filter(|v| !v.is_empty()) {
        Some(value) => match Request::parse(&value) {
            Ok(_) => Ok(()),
            Err(why) => Err(Refusal::usage(format!("in the environment: {NAME}: {why}"))),
        },
        None => Ok(()),
    }
}

/// A profile that is to be written.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    file: File,
    existed: bool,
    written: bool,
    rate: usize,
    raw: PathBuf,
    _directory: StatsDirectory,
}

impl Target {
    /// What the library under the program is to do: the value of its variable `HEAPWRIGHT_PROFILE`.
    pub(crate) fn request(&self) -> OsString {
        let mut value = output::literal(&self.raw);
        value.push(format!(",rate={}", self.rate));
        value
    }

    /// Writes the profile: what is to be said of it. `command`: what was run.
    pub(crate) fn finish(mut self, command: &str) -> Result<String, Refusal> {
        let failed = |what: &str, e: &dyn std::fmt::Display| {
            Refusal::ours(format!("the profile {what}: {e}"))
        };
        let raw = match fs::read(&self.raw) {
            Ok(raw) => raw,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(failed(
                    "was not made",
                    &"the program did not use our library",
                ));
            }
            Err(e) => return Err(failed("was not made", &e)),
        };
        let processes = raw::read(&raw).map_err(|e| failed("was not made", &e))?;
        let (bytes, totals) =
            zipped(&processes, command).map_err(|e| failed("was not made", &e))?;
        self.put(&bytes)
            .map_err(|e| failed(&format!("cannot be written to {}", self.path.display()), &e))?;
        self.written = true;
        Ok(text(&totals, &self.path))
    }

    /// As [`Target::finish`], and says on stderr what is in the profile, unless that is to be read by programs (`json`). If there is
    /// none: why.
    pub(crate) fn tell(self, command: &str, json: bool) -> Option<Refusal> {
        match self.finish(command) {
            Ok(said) if !json => {
                let _ = writeln!(io::stderr(), "heapwright: {said}");
                None
            }
            Ok(_) => None,
            Err(refusal) => Some(refusal),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        // A pipe has no length.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write_all(bytes)?;
        self.file.flush()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.written && !self.existed {
            // Only what this command made, and did not fill.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A profile in pprof's format, and what is in it.
fn zipped(
    processes: &BTreeMap<u64, raw::Process>,
    command: &str,
) -> io::Result<(Vec<u8>, build::Totals)> {
    let (profile, totals) = build::build(processes, command);
    let mut zip = GzEncoder::new(Vec::new(), Compression::default());
    zip.write_all(&profile.encode_to_vec())?;
    Ok((zip.finish()?, totals))
}

const EXAMPLES: &str = "\
Samples are what HEAPWRIGHT_PROFILE=FILE has a program write, one that has a heap of ours embedded, too, and one that was killed. Names are looked \
up in the files of programs and libraries: make the profile on the machine on which they are.

Examples:
  HEAPWRIGHT_PROFILE=samples ./server
  heapwright profile samples out.pb.gz
  go tool pprof -top out.pb.gz";

/// The command line of `heapwright profile`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Convert {
    /// What the program wrote
    #[arg(value_name = "SAMPLES")]
    samples: PathBuf,
    /// Where the profile for pprof goes (gzip)
    #[arg(value_name = "PROFILE")]
    to: PathBuf,
}

/// Carries out `heapwright profile`.
pub(crate) fn convert(convert: &Convert) -> Result<ExitCode, Refusal> {
    let (from, to) = (&convert.samples, &convert.to);
    output::writable(to)?;
    let wrong = |e: &dyn std::fmt::Display| Refusal::usage(format!("{}: {e}", from.display()));
    let raw = fs::read(from).map_err(|e| wrong(&e))?;
    let processes = raw::read(&raw).map_err(|e| wrong(&e))?;
    if processes.is_empty() {
        return Err(wrong(
            &"that is not what HEAPWRIGHT_PROFILE has a program write",
        ));
    }
    let (bytes, totals) = zipped(&processes, "").map_err(|e| Refusal::ours(e.to_string()))?;
    output::write_file(to, &bytes)?;
    output::put(&format!("{}\n", text(&totals, to)))
}

fn text(totals: &build::Totals, path: &Path) -> String {
    let lost = match totals.lost {
        0 => String::new(),
        n => format!(" ({n} more were lost)"),
    };
    format!(
        "profile: {} samples{lost}, which stand for {:.0} objects and {} allocated, in {}",
        totals.samples,
        totals.objects,
        amount(totals.bytes),
        path.display()
    )
}

/// Bytes for people.
fn amount(bytes: f64) -> String {
    let (mut value, mut unit) = (bytes, "bytes");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value >= 1024.0 {
            (value, unit) = (value / 1024.0, next);
        }
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn args(profile: &Path, rate: Option<&str>) -> ProfileArgs {
        ProfileArgs {
            profile: Some(profile.to_owned()),
            profile_rate: rate.map(str::to_owned),
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_once() {
        let e = args(Path::new("/nonexistent/x.pb.gz"), None)
            .target()
            .unwrap_err();
        assert_eq!(e.status(), 125);
        assert!(e.to_string().contains("/nonexistent/x.pb.gz"), "{e}");
        let e = args(Path::new("/"), None).target().unwrap_err();
        assert_eq!(e.status(), 125);
        let file = std::env::temp_dir().join(format!("heapwright-{}.pb.gz", std::process::id()));
        for rate in ["0", "much"] {
            let e = args(&file, Some(rate)).target().unwrap_err();
            assert_eq!(e.status(), 2);
        }
        assert!(!file.exists());
    }

    #[test]
    fn a_file_that_was_there_is_not_lost_when_there_is_no_profile() {
        let file = std::env::temp_dir().join(format!("heapwright-old-{}", std::process::id()));
        fs::write(&file, "old").unwrap();
        let target = args(&file, None).target().unwrap().unwrap();
        let e = target.finish("x").unwrap_err();
        assert!(e.to_string().contains("did not use our library"), "{e}");
        assert_eq!(fs::read(&file).unwrap(), b"old");
        fs::remove_file(&file).unwrap();
        let target = args(&file, None).target().unwrap().unwrap();
        assert!(file.exists());
        assert!(target.finish("x").is_err());
        assert!(!file.exists());
    }

    #[test]
    fn amounts_have_units() {
        assert_eq!(amount(100.0), "100.0 bytes");
        assert_eq!(amount(1536.0), "1.5 KiB");
        assert_eq!(amount(3.0 * (1u64 << 40) as f64), "3.0 TiB");
    }
}
