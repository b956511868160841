//! Numbers that take long to find, kept in a file of the user's cache directory. Without one, all works and takes longer.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

/// A file with a JSON object of numbers.
#[derive(Debug)]
pub(crate) struct Cache(Option<PathBuf>);

impl Cache {
    /// The cache of that name, where the user's environment has such things.
    pub(crate) fn of_user(name: &str) -> Self {
        let path = |variable: &str| {
            env::var_os(variable)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        let base = path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")));
        Self(base.map(|b| b.join("heapwright").join(name)))
    }

    /// The number of that key.
    pub(crate) fn get(&self, key: &str) -> Option<usize> {
        self.0.as_deref().map(read)?.remove(key)
    }

    /// Keeps a number. If it cannot be kept, it is found again the next time.
    pub(crate) fn put(&self, key: &str, value: usize) {
        if let Some(path) = &self.0 {
            let mut all = read(path);
            all.insert(key.to_owned(), value);
            let _ = write(path, &all);
        }
    }
}

/// What the file has; nothing if there is none or it is damaged.
fn read(path: &Path) -> BTreeMap<String, usize> {
    let text = fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Puts a whole new file in the place of the old one: another command may be reading it.
fn write(path: &Path, all: &BTreeMap<String, usize>) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let new = path.with_extension(format!("{}.new", process::id()));
    fs::write(&new, serde_json::to_string_pretty(all)?)?;
    fs::rename(&new, path).inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn keeps_numbers_and_survives_damage() {
        let directory = env::temp_dir().join(format!("heapwright-cache-test-{}", process::id()));
        let file = directory.join("a/b.json");
        let cache = Cache(Some(file.clone()));
        assert_eq!(cache.get("x"), None);
        cache.put("x", 1);
        cache.put("y", 2);
        assert_eq!((cache.get("x"), cache.get("y")), (Some(1), Some(2)));
        fs::write(&file, "{\"x\":").unwrap();
        assert_eq!(cache.get("x"), None);
        cache.put("z", 3);
        assert_eq!(cache.get("z"), Some(3));
        fs::remove_dir_all(&directory).unwrap();
        let nowhere = Cache(Some("/dev/null/x.json".into()));
        nowhere.put("x", 1);
        assert_eq!(nowhere.get("x"), None);
    }
}
