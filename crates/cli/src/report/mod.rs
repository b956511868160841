//! Reports: one HTML file that has all in it, to be looked at without a network and to be attached to a bug.
//!
//! `page.html` is the frame, `style.css` and `report.js` are put into it with the library of the charts and the data, which `run` makes of a
//! recording and `grid` of the runs of `bench` and `compare`.

mod grid;
mod run;

pub(crate) use grid::{Grid, Point};
pub(crate) use run::{Fineness, RunData};

use crate::map;
use crate::refusal::Refusal;
use serde::Serialize;

const FRAME: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("report.js");
const LIBRARY: &str = include_str!("../../vendor/echarts/echarts.common.min.js");

/// The whole page.
pub(crate) fn page(title: &str, data: &impl Serialize) -> Result<String, Refusal> {
    let data = serde_json::to_string(data).map_err(|e| Refusal::ours(e.to_string()))?;
    Ok(fill(FRAME, title, &data, |name| match name {
        "style" => STYLE,
        "map-style" => map::STYLE,
        "library" => LIBRARY,
        "map-script" => map::SCRIPT,
        "script" => SCRIPT,
        _ => "",
    }))
}

/// A page's frame with what belongs into it: the title, our version, the data, which are JSON, and parts by name.
pub(crate) fn fill(
    frame: &str,
    title: &str,
    data: &str,
    part: impl Fn(&str) -> &'static str,
) -> String {
    let mut page = String::with_capacity(LIBRARY.len() + data.len() + (64 << 10));
    let mut rest = frame;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        page += before;
        match name {
            "title" => page += &title.replace('&', "&amp;").replace('<', "&lt;"),
            "version" => page += env!("CARGO_PKG_VERSION"),
            // Inside of an element of scripts nothing else is special.
            "data" => page += &data.replace('<', "\\u003c"),
            name => page += part(name),
        }
        rest = after;
    }
    page + rest
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
            let ours = [FRAME, STYLE, SCRIPT, map::STYLE, map::SCRIPT].concat();
            assert!(!ours.contains(from_elsewhere), "{from_elsewhere}");
        }
        assert!(!LIBRARY.contains("</script"));
    }
}
