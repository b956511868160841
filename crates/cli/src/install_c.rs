//! The part of `heapwright install` for C: header, libraries, flags. Only where `cargo build --release -p heapwright-capi` has left the static
//! library beside this command; the shared one is linked from it, since only a C compiler's linker takes a list of versions.
//!
//! | file | what it is |
//! |---|---|
//! | `include/heapwright.h` | the header |
//! | `lib/libheapwright.a`, `lib/libheapwright.so.0`, `lib/libheapwright.so` | the libraries |
//! | `lib/pkgconfig/heapwright.pc` | the flags, for `pkg-config --cflags --libs heapwright` |

use crate::install::{copy, put};
use crate::refusal::Refusal;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const HEADER: &str = include_str!("../../capi/include/heapwright.h");
const VERSIONS: &str = include_str!("../../capi/heapwright.map");
const ARCHIVE: &str = "libheapwright_c.a";
const SYSTEM: &str = "-lpthread -ldl -lm";

/// All files that it may write.
pub(crate) fn files() -> [&'static str; 5] {
    [
        "include/heapwright.h",
        "lib/libheapwright.a",
        "lib/libheapwright.so.0",
        "lib/libheapwright.so",
        "lib/pkgconfig/heapwright.pc",
    ]
}

/// The static library, if it was built.
fn built(exe: &Path) -> Option<PathBuf> {
    let directory = exe.parent()?;
    let places = [
        directory.join(ARCHIVE),
        directory.join("deps").join(ARCHIVE),
    ];
    places.into_iter().find(|file| file.is_file())
}

/// Installs what there is: the files, none if the library was not built.
pub(crate) fn install(exe: &Path, prefix: &Path) -> Result<Vec<PathBuf>, Refusal> {
    let Some(archive) = built(exe) else {
        return Ok(Vec::new());
    };
    let [header, fixed, shared, link, flags] = files().map(|file| prefix.join(file));
    put(&header, |to| fs::write(to, HEADER))?;
    put(&fixed, |to| copy(&archive, to))?;
    put(&shared, |to| link_shared(&archive, to))?;
    put(&link, |to| symlink("libheapwright.so.0", to))?;
    let text = format!(
        "prefix={}\n\
         libdir=${{prefix}}/lib\n\
         includedir=${{prefix}}/include\n\
         \n\
         Name: Heapwright\n\
         Description: Memory managers for language runtimes\n\
         Version: {}\n\
         Libs: -L${{libdir}} -Wl,-rpath,${{libdir}} -lheapwright\n\
         Libs.private: {SYSTEM}\n\
         Cflags: -I${{includedir}}\n",
        prefix.display(),
        env!("CARGO_PKG_VERSION")
    );
    put(&flags, |to| fs::write(to, text))?;
    Ok([header, fixed, shared, link, flags].to_vec())
}

/// Links the shared library, with versions.
fn link_shared(archive: &Path, to: &Path) -> io::Result<()> {
    let versions = to.with_extension("map");
    fs::write(&versions, VERSIONS)?;
    let cc = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let done = Command::new(&cc)
        .args(["-shared", "-Wl,-soname,libheapwright.so.0", "-Wl,-z,now"])
        .arg(format!("-Wl,--version-script={}", versions.display()))
        .arg("-Wl,--whole-archive")
        .arg(archive)
        .arg("-Wl,--no-whole-archive")
        .args(SYSTEM.split(' '))
        .arg("-o")
        .arg(to)
        .output();
    let _ = fs::remove_file(&versions);
    match done {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(io::Error::other(format!(
            "the C compiler could not link it: {}",
            String::from_utf8_lossy(&done.stderr)
                .lines()
                .next()
                .unwrap_or_default()
        ))),
        Err(e) => Err(io::Error::other(format!(
            "{}: {e}; a C compiler is needed to link it (CC names another one)",
            Path::new(&cc).display()
        ))),
    }
}
