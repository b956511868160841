//! Where the loader would find a program's libraries, and whether `libgc.so.1` is among them.
//!
//! The order is glibc's: the `DT_RPATH` of the object that needs the library and of those that brought it in (unless
//! the object has a `DT_RUNPATH`), `LD_LIBRARY_PATH`, the object's `DT_RUNPATH`, `/etc/ld.so.cache`, the standard
//! directories.

use crate::elf::{self, Object, Target};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

/// The name under which programs ask for the library.
pub(crate) const LIBGC: &str = "libgc.so.1";

/// More libraries than any real program has.
const MOST_OBJECTS: usize = 4096;

/// How a program comes to libgc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Needs {
    /// It, or one of its libraries, asks for it.
    Libgc {
        /// A `DT_RPATH` leads to a libgc before `LD_LIBRARY_PATH` is looked at.
        rpath_wins: bool,
    },
    /// Nothing asks for it.
    Nothing {
        /// Libraries that were not found, so that what they need is not known.
        not_found: Vec<String>,
    },
}

/// What the search takes from the environment.
#[derive(Debug, Default)]
pub(crate) struct Search {
    library_path: Vec<PathBuf>,
    cache: Option<HashMap<String, Vec<PathBuf>>>,
    cache_file: PathBuf,
}

struct Loaded {
    origin: PathBuf,
    object: Object,
    /// Who asked for it; the program itself has none.
    parent: Option<usize>,
}

impl Search {
    /// With the caller's `LD_LIBRARY_PATH`.
    pub(crate) fn from_env() -> Self {
        let library_path = std::env::var_os("LD_LIBRARY_PATH")
            .filter(|v| !v.is_empty())
            .map(|v| {
                use std::os::unix::ffi::{OsStrExt, OsStringExt};
                let dir = |d: &[u8]| {
                    PathBuf::from(std::ffi::OsString::from_vec(
                        if d.is_empty() { b"." } else { d }.to_vec(),
                    ))
                };
                v.as_bytes()
                    .split(|b| *b == b':' || *b == b';')
                    .map(dir)
                    .collect()
            })
            .unwrap_or_default();
        Self {
            library_path,
            cache: None,
            cache_file: PathBuf::from("/etc/ld.so.cache"),
        }
    }

    /// Follows what the program needs until libgc is found or nothing is left.
    pub(crate) fn needs(&mut self, program: &Path, object: Object) -> Needs {
        let target = object.target;
        let mut loaded = vec![Loaded {
            origin: origin(program),
            object,
            parent: None,
        }];
        let mut seen = HashSet::new();
        let mut not_found = Vec::new();
        let mut queue = VecDeque::from([0]);
        while let Some(at) = queue.pop_front() {
            for name in loaded[at].object.needed.clone() {
                if name == LIBGC {
                    let dirs = rpaths(&loaded, at);
                    return Needs::Libgc {
                        rpath_wins: dirs
                            .iter()
                            .any(|d| built_for(&d.join(LIBGC), target).is_some()),
                    };
                }
                if loaded.len() >= MOST_OBJECTS || !seen.insert(name.clone()) {
                    continue;
                }
                match self.find(&loaded, at, &name, target) {
                    Some((path, object)) => {
                        loaded.push(Loaded {
                            origin: origin(&path),
                            object,
                            parent: Some(at),
                        });
                        queue.push_back(loaded.len() - 1);
                    }
                    None => not_found.push(name),
                }
            }
        }
        Needs::Nothing { not_found }
    }

    fn find(
        &mut self,
        loaded: &[Loaded],
        at: usize,
        name: &str,
        target: Target,
    ) -> Option<(PathBuf, Object)> {
        let fits = |path: PathBuf| built_for(&path, target).map(|object| (path, object));
        if name.contains('/') {
            return fits(PathBuf::from(name));
        }
        let asker = &loaded[at];
        let runpath = asker
            .object
            .runpath
            .iter()
            .flatten()
            .flat_map(|d| expand(d, &asker.origin));
        let first = rpaths(loaded, at)
            .into_iter()
            .chain(self.library_path.iter().cloned())
            .chain(runpath);
        if let Some(found) = first.map(|d| d.join(name)).find_map(fits) {
            return Some(found);
        }
        let cache = self.cache.get_or_insert_with(|| {
            fs::read(&self.cache_file)
                .ok()
                .and_then(|b| read_cache(&b))
                .unwrap_or_default()
        });
        let cached = cache.get(name).cloned().unwrap_or_default();
        cached
            .into_iter()
            .chain(standard_directories().map(|d| d.join(name)))
            .find_map(fits)
    }
}

/// The object at `path`, if it is there and built for the same machine.
fn built_for(path: &Path, target: Target) -> Option<Object> {
    elf::read(path).ok().filter(|o| o.target == target)
}

fn origin(path: &Path) -> PathBuf {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real.parent().map(Path::to_owned).unwrap_or_default()
}

/// The `DT_RPATH` directories that count for what the object at `at` needs.
fn rpaths(loaded: &[Loaded], at: usize) -> Vec<PathBuf> {
    if loaded[at].object.runpath.is_some() {
        return Vec::new();
    }
    let mut dirs = Vec::new();
    let mut next = Some(at);
    while let Some(i) = next {
        let l = &loaded[i];
        dirs.extend(l.object.rpath.iter().flat_map(|d| expand(d, &l.origin)));
        next = l.parent;
    }
    dirs
}

/// The tokens that may stand in a path: `$ORIGIN` and `$LIB`, with or without braces.
fn expand(dir: &str, origin: &Path) -> Vec<PathBuf> {
    let dir = dir
        .replace("${ORIGIN}", "$ORIGIN")
        .replace("${LIB}", "$LIB");
    let dir = dir.replace("$ORIGIN", &origin.to_string_lossy());
    if dir.contains("$LIB") {
        let multiarch = format!("lib/{}", multiarch());
        [multiarch.as_str(), "lib64", "lib"]
            .iter()
            .map(|lib| PathBuf::from(dir.replace("$LIB", lib)))
            .collect()
    } else {
        vec![PathBuf::from(dir)]
    }
}

fn multiarch() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

fn standard_directories() -> impl Iterator<Item = PathBuf> {
    let arch = multiarch();
    ["lib", "usr/lib"]
        .into_iter()
        .map(move |d| PathBuf::from(format!("/{d}/{arch}")))
        .chain(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from))
}

/// The cache of glibc since 2.2: a header of 48 bytes, entries of 24, then strings; all offsets count from the header.
/// It may stand behind an older table, which is passed over.
fn read_cache(bytes: &[u8]) -> Option<HashMap<String, Vec<PathBuf>>> {
    const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
    let start = bytes.windows(MAGIC.len()).position(|w| w == MAGIC)?;
    let cache = &bytes[start..];
    let word = |at: usize| {
        let field = cache.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_ne_bytes(field.try_into().ok()?)).ok()
    };
    let text = |at: usize| {
        let rest = cache.get(at..)?;
        let end = rest.iter().position(|b| *b == 0)?;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    };
    let mut map: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for i in 0..word(20)? {
        let entry = i.checked_mul(24)?.checked_add(48)?;
        let (name, path) = (
            text(word(entry.checked_add(4)?)?)?,
            text(word(entry.checked_add(8)?)?)?,
        );
        map.entry(name).or_default().push(PathBuf::from(path));
    }
    Some(map)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn cache(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = b"glibc-ld.so.cache1.1".to_vec();
        bytes.extend(u32::try_from(entries.len()).unwrap().to_ne_bytes());
        bytes.resize(48, 0);
        let mut strings = Vec::new();
        let base = 48 + entries.len() * 24;
        for (name, path) in entries {
            let mut put = |s: &str| {
                let at = u32::try_from(base + strings.len()).unwrap();
                strings.extend(s.as_bytes());
                strings.push(0);
                at.to_ne_bytes()
            };
            bytes.extend([3, 3, 0, 0]);
            bytes.extend(put(name));
            bytes.extend(put(path));
            bytes.extend([0; 12]);
        }
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn the_cache_is_read_and_damage_is_survived() {
        let bytes = cache(&[
            ("liba.so.1", "/x/liba.so.1"),
            ("libb.so", "/y/libb.so"),
            ("libb.so", "/z/libb.so"),
        ]);
        let map = read_cache(&bytes).unwrap();
        assert_eq!(
            map["libb.so"],
            [PathBuf::from("/y/libb.so"), PathBuf::from("/z/libb.so")]
        );
        let mut older = b"ld.so-1.7.0\0....".to_vec();
        older.extend(&bytes);
        assert_eq!(read_cache(&older).unwrap(), map);
        for n in 0..bytes.len() {
            let _ = read_cache(&bytes[..n]);
            let mut other = bytes.clone();
            other[n] = 0xff;
            let _ = read_cache(&other);
        }
    }

    #[test]
    fn tokens_are_replaced() {
        assert_eq!(
            expand("${ORIGIN}/../x", Path::new("/a/b")),
            [PathBuf::from("/a/b/../x")]
        );
        assert!(expand("/opt/$LIB", Path::new("/")).contains(&PathBuf::from("/opt/lib64")));
    }

    #[test]
    fn this_test_needs_no_libgc_and_all_it_needs_is_found() {
        let exe = std::env::current_exe().unwrap();
        let object = elf::read(&exe).unwrap();
        assert_eq!(
            Search::from_env().needs(&exe, object),
            Needs::Nothing {
                not_found: Vec::new()
            }
        );
    }

    #[test]
    fn rpaths_of_askers_count_unless_a_runpath_is_there() {
        let object = |rpath: &[&str], runpath: Option<&[&str]>| Object {
            rpath: rpath.iter().map(|s| (*s).to_owned()).collect(),
            runpath: runpath.map(|r| r.iter().map(|s| (*s).to_owned()).collect()),
            ..Object::default()
        };
        let loaded = |o, parent| Loaded {
            origin: PathBuf::from("/o"),
            object: o,
            parent,
        };
        let chain = [
            loaded(object(&["/main"], None), None),
            loaded(object(&["/lib"], None), Some(0)),
            loaded(object(&[], Some(&["/r"])), Some(1)),
        ];
        assert_eq!(
            rpaths(&chain, 1),
            [PathBuf::from("/lib"), PathBuf::from("/main")]
        );
        assert!(rpaths(&chain, 2).is_empty());
    }
}
