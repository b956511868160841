//! Reports: one HTML file that has all in it, to be looked at without a network and to be attached to a bug.
//!
//! `page.html` is the frame, `style.css` and `report.js` are put into it with the library of the charts and the data, which `run` makes of a
//! recording and `grid` of the runs of `bench` and `compare`.

mod grid;
mod run;

pub(crate) use grid::{Grid, Point};
pub(crate) use run::{Fineness, RunData};

use crate::refusal::Refusal;
use serde::Serialize;

const FRAME: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("report.js");
const LIBRARY: &str = include_str!("../../vendor/echarts/echarts.common.min.js");

/// The whole page.
pub(crate) fn page(title: &str, data: &impl Serialize) -> Result<String, Refusal> {
    let data = serde_json::to_string(data).map_err(|e| Refusal::ours(e.to_string()))?;
    // Inside of an element of scripts nothing else is special.
    let data = data.replace('<', "\\u003c");
    let mut page = String::with_capacity(LIBRARY.len() + data.len() + (64 << 10));
    let mut rest = FRAME;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        page += before;
        match name {
            "title" => page += &escaped(title),
            "version" => page += env!("CARGO_PKG_VERSION"),
            "style" => page += STYLE,
            "data" => page += &data,
            "library" => page += LIBRARY,
            "script" => page += SCRIPT,
            _ => {}
        }
        rest = after;
    }
    Ok(page + rest)
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
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
        assert_eq!(page.matches("</script>").count(), 3);
        for from_elsewhere in ["src=", "<link", "@import", "url("] {
            let ours = [FRAME, STYLE, SCRIPT].concat();
            assert!(!ours.contains(from_elsewhere), "{from_elsewhere}");
        }
        assert!(!LIBRARY.contains("</script"));
    }
}
