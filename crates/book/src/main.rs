//! Builds the book into `target/book`, or into the directory that is named.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a command")]

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let into = std::env::args_os().nth(1).map_or_else(
        || heapwright_book::project().join("target/book"),
        PathBuf::from,
    );
    match heapwright_book::build(&into) {
        Ok(()) => {
            println!("{}", into.join("index.html").display());
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("the book cannot be built: {e}");
            ExitCode::FAILURE
        }
    }
}
