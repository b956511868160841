//! `heapwright map`: what a heap looks like, block by block; in the terminal, as JSON, or as a page.

mod picture;
mod terminal;

pub(crate) use picture::{MapData, Picture};

use crate::live::{Connection, is_process};
use crate::output;
use crate::refusal::Refusal;
use crate::report::map_page;
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
A process has to listen: `heapwright run --listen -- PROGRAM`. A recording, which `heapwright run --record FILE` writes, has pictures
of the heap before and after its collections; of a long run, of some of them. A file with what --json said is good, too.

Examples:
  heapwright map 1234                        the heap of a process now
  heapwright map 1234 --colour used          how full its blocks are
  heapwright map 1234 --json > now.json      to look at later: heapwright map now.json
  heapwright map run.jsonl --html map.html   a page that shows a run as a movie";

/// What a block's colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// Whose it is
    Space,
    /// How full it is
    Used,
    /// For how many collections it has been in use
    Age,
    /// Whether something in it is pinned
    Pins,
    /// How many holes it has
    Holes,
}

/// The command line of `heapwright map`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Map {
    /// The number of a process, the path of its socket, a recording, or a file with what --json said
    #[arg(value_name = "PID|FILE")]
    source: Option<OsString>,
    /// What colours say
    #[arg(long, value_enum, default_value = "space")]
    colour: Colour,
    /// The pictures as they are, a line of JSON for each
    #[arg(long)]
    json: bool,
    /// Write a page that shows them all
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Carries out `heapwright map`.
pub(crate) fn run(map: &Map) -> Result<ExitCode, Refusal> {
    if let Some(file) = &map.html {
        output::writable(file)?;
    }
    let (title, pictures) = match &map.source {
        Some(source) if !is_process(source) => read(Path::new(source))?,
        whom => now(whom.as_ref())?,
    };
    if let Some(file) = &map.html {
        output::write_file(file, page(&title, pictures.clone())?.as_bytes())?;
    }
    if map.json {
        let lines = pictures.iter().map(|p| output::json(p, false));
        return output::put(&lines.collect::<Result<String, _>>()?);
    }
    if map.html.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let columns = crossterm::terminal::size().map_or(80, |(columns, _)| columns);
    let columns = if io::stdout().is_terminal() {
        columns
    } else {
        80
    };
    // Of a run, how it was at the end.
    let last = pictures.last().map(|p| p.number);
    let mut text = String::new();
    for picture in pictures.iter().filter(|p| Some(p.number) == last) {
        text += &terminal::drawn(picture, map.colour, usize::from(columns), colours);
    }
    output::put(&text)
}

fn read(file: &Path) -> Result<(String, Vec<Picture>), Refusal> {
    let pictures = Picture::read(file)?;
    if pictures.is_empty() {
        return Err(Refusal::usage(format!(
            "{}: there is no picture of a heap in it: a recording has them from the first collection on",
            file.display()
        )));
    }
    Ok((format!("Heap map: {}", file.display()), pictures))
}

fn now(whom: Option<&OsString>) -> Result<(String, Vec<Picture>), Refusal> {
    let mut connection = Connection::to(whom)?;
    let status = crate::live::status(&connection.ask_now("status")?)?;
    let line = connection.ask_now("map")?;
    let picture = Picture::of(line.as_bytes())
        .ok_or_else(|| Refusal::ours("the answer is not understood: it is no picture of a heap"))?;
    let title = format!("Heap map: {} (process {})", status.program, status.pid);
    Ok((title, vec![picture]))
}

/// The whole page.
fn page(title: &str, pictures: Vec<Picture>) -> Result<String, Refusal> {
    let about = match pictures.len() {
        1 => "One picture".to_owned(),
        n => format!("{n} pictures"),
    };
    map_page(title, about, MapData::of(pictures))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_page_is_whole_and_needs_no_network() {
        let page = page("a <b>", vec![picture::tests::picture()]).unwrap();
        assert!(page.contains("<title>a &lt;b></title>"));
        assert!(page.contains("function heapMap("));
        assert_eq!(page.matches("</script>").count(), 4);
        assert!(!page.contains("ECharts"), "there are no charts in it");
        for from_elsewhere in ["src=", "<link", "@import", "url(", "http:", "https:"] {
            assert!(!page.contains(from_elsewhere), "{from_elsewhere}");
        }
    }
}
