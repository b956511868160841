//! A file that has its name only when it is whole.

use core::sync::atomic::{AtomicU32, Ordering};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process;

/// The path that is meant: `%p` in it is the number of this process, `%n` that of the dump.
#[must_use]
pub fn expand(path: &Path, dump: u32) -> PathBuf {
    // A path that is no text is nobody's template.
    let Some(text) = path.to_str() else {
        return path.to_owned();
    };
    text.replace("%p", &process::id().to_string())
        .replace("%n", &dump.to_string())
        .into()
}

/// How many dumps this process has begun.
static DUMPS: AtomicU32 = AtomicU32::new(0);

/// The file of a dump on its way: `FILE.<process>-<dump>.part` beside it. Dropping it removes that.
#[derive(Debug)]
pub struct DumpFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
    whole: bool,
}

impl DumpFile {
    /// Creates it for the next dump of this process: the first is number 1.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn create(path: &Path) -> io::Result<Self> {
        let dump = DUMPS.fetch_add(1, Ordering::Relaxed) + 1;
        let path = expand(path, dump);
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut part = path.clone().into_os_string();
        part.push(format!(".{}-{dump}.part", process::id()));
        let part = PathBuf::from(part);
        Ok(Self {
            file: File::create(&part)?,
            part,
            path,
            whole: false,
        })
    }

    /// What is to be written to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// It is whole: gives it its name.
    ///
    /// # Errors
    /// If the system refuses. There is no file then.
    pub fn finish(mut self) -> io::Result<()> {
        fs::rename(&self.part, &self.path)?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for DumpFile {
    fn drop(&mut self) {
        if !self.whole {
            // If it cannot be removed, its name still says that it is a part.
            let _ = fs::remove_file(&self.part);
        }
    }
}
