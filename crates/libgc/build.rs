//! Gives the shared library Boehm's name, and puts a link of that name beside it.

#![allow(
    clippy::print_stdout,
    reason = "cargo reads what a build script prints"
)]

use std::env;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libgc.so.1");
    // A constructor's first call may come before this library's own relocations are lazily bound; binding them all at
    // load also keeps the loader's lock out of the time in which the world is stopped.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,now");
    link_beside();
}

/// `libgc.so.1 -> libgc.so` in the directory where cargo puts the library. It is a help for running programs straight
/// from the build; where it cannot be made, nothing else depends on it.
fn link_beside() {
    let Ok(out) = env::var("OUT_DIR") else { return };
    // OUT_DIR is <target>/<profile>/build/<package>-<hash>/out.
    let Some(profile) = Path::new(&out).ancestors().nth(3) else {
        return;
    };
    #[cfg(unix)]
    {
        let link = profile.join("libgc.so.1");
        if std::fs::symlink_metadata(&link).is_err()
            && let Err(e) = std::os::unix::fs::symlink("libgc.so", &link)
        {
            println!("cargo:warning=no link {}: {e}", link.display());
        }
    }
    #[cfg(not(unix))]
    let _ = profile;
}
