//! The writer of V8's heap snapshots: one JSON object with flat arrays of numbers.
//!
//! An object is a node with the name of its type and its size in the heap; a reference is an edge whose name is the place's number, empty
//! ones not counted in between. Above the objects stand a root, `(GC roots)`, and a node for each kind of roots. A node's identifier is made
//! of its address, so that in plans that do not move, two snapshots of a process can be compared. Contents other than references are not in
//! the dump.

use super::graph::Graph;
use super::numbering::Numbering;
use super::out::{Out, Text};
use super::{DumpError, RootKind, Source};
use core::fmt::Write;

/// Fields of a node.
const FIELDS: u64 = 7;
/// Types of nodes.
const OBJECT: u64 = 3;
const SYNTHETIC: u64 = 9;
/// Types of edges.
const ELEMENT: u64 = 1;

const META: &str = r#"{"snapshot":{"meta":{"node_fields":["type","name","id","self_size","edge_count","trace_node_id","detachedness"],
"node_types":[["hidden","array","string","object","code","closure","regexp","number","native","synthetic","concatenated string","sliced string","symbol","bigint","object shape"],"string","number","number","number","number","number"],
"edge_fields":["type","name_or_index","to_node"],
"edge_types":[["context","element","property","internal","hidden","shortcut","weak"],"string_or_number","node"],
"trace_function_info_fields":["function_id","name","script_name","script_id","line","column"],
"trace_node_fields":["id","function_info_index","count","size","children"],
"sample_fields":["timestamp_us","last_assigned_id"],
"location_fields":["object_index","script_id","line","column"]},
"#;

/// Strings before those of the kinds of roots.
const STRINGS: [&str; 3] = ["<dummy>", "", "(GC roots)"];

/// Numbers of an array, with what stands between them.
struct Rows {
    first: bool,
}

impl Rows {
    fn row(&mut self, out: &mut Out<'_>, numbers: &[u64]) {
        out.put(if self.first { b"\n" } else { b"\n," });
        self.first = false;
        for (index, number) in numbers.iter().enumerate() {
            if index != 0 {
                out.put(b",");
            }
            out.number(*number);
        }
    }
}

/// How many roots of a kind there are.
fn roots_of<S: Source>(graph: &Graph<'_, S>, kind: RootKind) -> u64 {
    graph.roots().filter(|(k, _)| *k == kind).count() as u64
}

/// Writes it: the bytes of all objects in the heap.
pub(super) fn write<S: Source>(graph: &Graph<'_, S>, out: &mut Out<'_>) -> Result<u64, DumpError> {
    let source = graph.source();
    let kinds = RootKind::ALL.len() as u64;
    let above = 2 + kinds;
    let roots = graph.roots().count() as u64;
    out.put(META.as_bytes());
    out.put(b"\"node_count\":");
    out.number(above + graph.objects());
    out.put(b",\"edge_count\":");
    out.number(1 + kinds + roots + graph.edges());
    out.put(b",\"trace_function_count\":0},");

    out.put(b"\n\"nodes\":[");
    let mut rows = Rows { first: true };
    rows.row(out, &[SYNTHETIC, 1, 1, 0, 1, 0, 0]);
    rows.row(out, &[SYNTHETIC, 2, 3, 0, kinds, 0, 0]);
    for (index, kind) in RootKind::ALL.into_iter().enumerate() {
        let (name, id) = (STRINGS.len() + index, 5 + 2 * index as u64);
        let count = roots_of(graph, kind);
        rows.row(out, &[SYNTHETIC, name as u64, id, 0, count, 0, 0]);
    }
    let first_id = 5 + 2 * kinds;
    let first_type = (STRINGS.len() as u64) + kinds;
    // Readers keep 32 bits of it.
    let by_address = source.range().1 / 4 < u32::MAX as usize - 64;
    let mut types = Numbering::new()?;
    let mut object_bytes = 0;
    let mut error = None;
    let mut index = 0;
    graph.for_each(|object| {
        let node = source.node(object);
        object_bytes += node.bytes as u64;
        let name = match types.number(u64::from(node.type_id)) {
            Ok((number, _)) => first_type + number as u64,
            Err(e) => {
                error = Some(e);
                return false;
            }
        };
        let mut edges = 0;
        source.references(object, &mut |target| {
            edges += u64::from(target != 0 && graph.has(target));
        });
        let place = if by_address {
            (object - graph.base()) as u64 / 8
        } else {
            index
        };
        index += 1;
        let bytes = (node.bytes as u64).min(u32::MAX.into());
        let id = first_id + 2 * place;
        rows.row(out, &[OBJECT, name, id, bytes, edges, 0, 0]);
        !out.failed()
    });
    if let Some(e) = error {
        return Err(e.into());
    }

    out.put(b"],\n\"edges\":[");
    let mut rows = Rows { first: true };
    rows.row(out, &[ELEMENT, 1, FIELDS]);
    for index in 0..kinds {
        rows.row(out, &[ELEMENT, index + 1, (2 + index) * FIELDS]);
    }
    let to = |target| graph.index(target).map(|n| (above + n) * FIELDS);
    for kind in RootKind::ALL {
        let of_kind = graph.roots().filter(|(k, _)| *k == kind);
        for (number, target) in of_kind.filter_map(|(_, o)| to(o)).enumerate() {
            rows.row(out, &[ELEMENT, number as u64 + 1, target]);
        }
    }
    graph.for_each(|object| {
        let mut number = 0;
        source.references(object, &mut |target| {
            if target != 0
                && let Some(target) = to(target)
            {
                rows.row(out, &[ELEMENT, number, target]);
            }
            number += 1;
        });
        !out.failed()
    });

    out.put(
        b"],\n\"trace_function_infos\":[],\n\"trace_tree\":[],\n\"samples\":[],\n\"locations\":[],\n\"strings\":[",
    );
    let kinds = RootKind::ALL.map(RootKind::name);
    for (index, text) in STRINGS.into_iter().chain(kinds).enumerate() {
        string(out, index, text);
    }
    for (index, key) in types.keys().iter().enumerate() {
        let mut text = Text::new();
        source.type_name(*key as u32, &mut |part| {
            // What does not fit is cut.
            let _ = text.write_str(part);
        });
        string(out, first_type as usize + index, text.as_str());
    }
    out.put(b"]}\n");
    Ok(object_bytes)
}

/// A string of the array.
fn string(out: &mut Out<'_>, index: usize, text: &str) {
    out.put(if index == 0 { b"\n\"" } else { b",\n\"" });
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.put(&[b'\\', byte]),
            0..0x20 => {
                let digit = |n: u8| b"0123456789abcdef"[usize::from(n)];
                out.put(b"\\u00");
                out.put(&[digit(byte >> 4), digit(byte & 15)]);
            }
            _ => out.put(&[byte]),
        }
    }
    out.put(b"\"");
}
