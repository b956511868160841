//! Reports: one HTML file that has all in it, to be looked at without a network and to be attached to a bug.
//!
//! `page.html` is the frame, `style.css` and `report.js` are put into it with the library of the charts and the data, which `run` makes of a
//! recording and `grid` of the runs of `bench` and `compare`. The page of `heapwright map` is the same without charts.

mod grid;
mod run;

pub(crate) use grid::{Grid, Point};
pub(crate) use run::{Fineness, RunData};

use crate::map::MapData;
use crate::refusal::Refusal;
use serde::Serialize;

const FRAME: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("report.js");
/// The view of a heap: the function `heapMap(element, data)`, with a [`MapData`] as its data.
const MAP_SCRIPT: &str = include_str!("map.js");
const MAP_STYLE: &str = include_str!("map.css");
const LIBRARY: &str = include_str!("../../vendor/echarts/echarts.common.min.js");

/// The whole page of a run, or a grid of runs.
pub(crate) fn page(title: &str, data: &impl Serialize) -> Result<String, Refusal> {
    let made_with = " Charts: Apache ECharts, Apache License 2.0.";
    fill(title, data, LIBRARY, made_with)
}

/// The page of a heap's map, which has no charts, and not the library of them.
pub(crate) fn map_page(title: &str, about: String, map: MapData) -> Result<String, Refusal> {
    #[derive(Serialize)]
    struct Data {
        kind: &'static str,
        about: String,
        map: MapData,
    }
    let kind = "map";
    fill(title, &Data { kind, about, map }, "", "")
}

/// The frame with what belongs into it.
fn fill(
    title: &str,
    data: &impl Serialize,
    library: &str,
    made_with: &str,
) -> Result<String, Refusal> {
    let data = serde_json::to_string(data).map_err(|e| Refusal::ours(e.to_string()))?;
    let mut page = String::with_capacity(library.len() + data.len() + (64 << 10));
    let mut rest = FRAME;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        page += before;
        match name {
            "title" => page += &title.replace('&', "&amp;").replace('<', "&lt;"),
            "version" => page += env!("CARGO_PKG_VERSION"),
            // Inside of an element of scripts nothing else is special.
            "data" => page += &data.replace('<', "\\u003c"),
            "style" => page += STYLE,
            "map-style" => page += MAP_STYLE,
            "library" => page += library,
            "made-with" => page += made_with,
            "map-script" => page += MAP_SCRIPT,
            "script" => page += SCRIPT,
            _ => {}
        }
        rest = after;
    }
    Ok(page + rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_page_is_whole_and_needs_no_network() {
        let page = page("a <b> & c", &["</script><script>", "{{title}}"]).unwrap();
        assert!(page.contains("<title>a &lt;b> &amp; c</title>"));
        assert!(page.contains(r#"["\u003c/script>\u003cscript>","{{title}}"]"#));
        assert_eq!(page.matches("</script>").count(), 4);
        for from_elsewhere in ["src=", "<link", "@import", "url("] {
            let ours = [FRAME, STYLE, SCRIPT, MAP_STYLE, MAP_SCRIPT].concat();
            assert!(!ours.contains(from_elsewhere), "{from_elsewhere}");
        }
        assert!(!LIBRARY.contains("</script"));
    }
}
