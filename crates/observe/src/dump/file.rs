//! A file that has its name only when it is whole.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process;

/// The path that is meant: `%p` in it is the number of this process.
#[must_use]
pub fn expand(path: &Path) -> PathBuf {
    // A path that is no text is nobody's template.
    path.to_str().map_or_else(
        || path.to_owned(),
        |text| text.replace("%p", &process::id().to_string()).into(),
    )
}

/// The file of a dump on its way: `FILE.<process>.part` beside it. Dropping it removes that.
#[derive(Debug)]
pub struct DumpFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
    whole: bool,
}

impl DumpFile {
    /// Creates it, or empties what a process of the same number left.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn create(path: &Path) -> io::Result<Self> {
        let path = expand(path);
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut part = path.clone().into_os_string();
        part.push(format!(".{}.part", process::id()));
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
