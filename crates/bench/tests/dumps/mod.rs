//! Heap dumps as parsers see them that others wrote.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use jvm_hprof::heap_dump::{FieldType, FieldValue, SubRecord};
use jvm_hprof::{IdSize, RecordTag, parse_hprof};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Objects and bytes by type.
pub(crate) type Census = BTreeMap<String, (usize, usize)>;

/// An object of an HPROF dump.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// The name of its class, or of the one that its class extends.
    pub(crate) kind: String,
    /// What Eclipse MAT takes for its size: a header, and the fields or the elements.
    pub(crate) bytes: usize,
    /// What VisualVM takes for it: what the class of an instance says.
    pub(crate) size: usize,
    /// What it refers to, with 0 for nothing, and at the end of an array what pads it.
    pub(crate) references: Vec<u64>,
    /// It is an array.
    pub(crate) array: bool,
}

#[derive(Debug)]
struct Class {
    kind: String,
    fields: Vec<FieldType>,
    size: usize,
}

/// A whole dump.
#[derive(Debug, Default)]
pub(crate) struct Hprof {
    pub(crate) objects: BTreeMap<u64, Object>,
    pub(crate) roots: BTreeSet<u64>,
    /// Those of them that stacks have.
    pub(crate) stacks: BTreeSet<u64>,
    /// Those that the runtime has, which may be the same.
    pub(crate) globals: BTreeSet<u64>,
}

impl Hprof {
    /// Reads it with the crate `jvm-hprof`.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let hprof = parse_hprof(bytes).unwrap();
        let id_size = hprof.header().id_size();
        assert!(matches!(id_size, IdSize::U64));
        let mut texts = HashMap::new();
        let mut names = HashMap::new();
        let mut classes = HashMap::new();
        let mut dump = Self::default();
        let mut ended = false;
        for record in hprof.records_iter().map(Result::unwrap) {
            assert!(!ended, "a record behind the end");
            match record.tag() {
                RecordTag::Utf8 => {
                    let text = record.as_utf_8().unwrap().unwrap();
                    texts.insert(text.name_id(), text.text_as_str().unwrap().to_owned());
                }
                RecordTag::LoadClass => {
                    let class = record.as_load_class().unwrap().unwrap();
                    names.insert(class.class_obj_id(), texts[&class.class_name_id()].clone());
                }
                RecordTag::HeapDumpSegment => {
                    let segment = record.as_heap_dump_segment().unwrap().unwrap();
                    for sub in segment.sub_records().map(Result::unwrap) {
                        dump.take(sub, id_size, &names, &mut classes);
                    }
                }
                RecordTag::HeapDumpEnd => ended = true,
                RecordTag::StackTrace => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(ended, "the dump was cut off");
        dump
    }

    fn take(
        &mut self,
        sub: SubRecord<'_>,
        id_size: IdSize,
        names: &HashMap<jvm_hprof::Id, String>,
        classes: &mut HashMap<jvm_hprof::Id, Class>,
    ) {
        let (id, object) = match sub {
            SubRecord::GcRootNativeStack(root) => {
                self.roots.insert(root.obj_id().id());
                self.stacks.insert(root.obj_id().id());
                return;
            }
            SubRecord::GcRootJniGlobal(root) => {
                self.roots.insert(root.obj_id().id());
                self.globals.insert(root.obj_id().id());
                return;
            }
            SubRecord::Class(class) => {
                let fields: Vec<FieldType> = class
                    .instance_field_descriptors()
                    .map(|f| f.unwrap().field_type())
                    .collect();
                let own = &names[&class.obj_id()];
                let kind = match class.super_class_obj_id() {
                    Some(above) if !names[&above].starts_with("java/lang/") => {
                        assert!(own.starts_with(&names[&above]), "{own}");
                        names[&above].clone()
                    }
                    _ => own.clone(),
                };
                let size = class.instance_size_bytes() as usize;
                classes.insert(class.obj_id(), Class { kind, fields, size });
                return;
            }
            SubRecord::Instance(instance) => {
                let class = &classes[&instance.class_obj_id()];
                let bytes: usize = class.fields.iter().map(width).sum();
                assert_eq!(instance.fields().len(), bytes);
                let mut rest: &[u8] = instance.fields();
                let bytes = 16 + rest.len();
                let mut references = Vec::new();
                for field in &class.fields {
                    let (after, value) = field.parse_value(rest, id_size).unwrap();
                    rest = after;
                    if let FieldValue::ObjectId(target) = value {
                        references.push(target.map_or(0, |t| t.id()));
                    }
                }
                assert!(rest.is_empty());
                let object = Object {
                    kind: class.kind.clone(),
                    bytes: bytes.next_multiple_of(8),
                    size: class.size,
                    references,
                    array: false,
                };
                (instance.obj_id().id(), object)
            }
            SubRecord::ObjectArray(array) => {
                let name = &classes[&array.array_class_obj_id()].kind;
                let kind = name.strip_prefix("[L").unwrap().strip_suffix(';').unwrap();
                let references: Vec<u64> = array
                    .elements(id_size)
                    .map(|e| e.unwrap().map_or(0, |t| t.id()))
                    .collect();
                let bytes = (20 + 8 * references.len()).next_multiple_of(8);
                let object = Object {
                    kind: kind.to_owned(),
                    bytes,
                    size: bytes,
                    references,
                    array: true,
                };
                (array.obj_id().id(), object)
            }
            other => panic!("{other:?}"),
        };
        assert!(self.objects.insert(id, object).is_none(), "{id:x} twice");
    }

    /// Objects by type, with the bytes that Eclipse MAT sees.
    pub(crate) fn census(&self) -> Census {
        let mut census = Census::new();
        for object in self.objects.values() {
            let count = census.entry(object.kind.clone()).or_default();
            count.0 += 1;
            count.1 += object.bytes;
        }
        census
    }

    /// The same, with the bytes that VisualVM sees.
    pub(crate) fn sizes(&self) -> Census {
        let mut census = Census::new();
        for object in self.objects.values() {
            let count = census.entry(object.kind.clone()).or_default();
            count.0 += 1;
            count.1 += object.size;
        }
        census
    }

    /// What can be reached from the roots.
    pub(crate) fn reachable(&self) -> BTreeSet<u64> {
        let mut seen = self.roots.clone();
        let mut stack: Vec<u64> = seen.iter().copied().collect();
        while let Some(object) = stack.pop() {
            for target in &self.objects[&object].references {
                if *target != 0 && seen.insert(*target) {
                    stack.push(*target);
                }
            }
        }
        seen
    }
}

fn width(field: &FieldType) -> usize {
    match field {
        FieldType::Boolean | FieldType::Byte => 1,
        FieldType::Char | FieldType::Short => 2,
        FieldType::Float | FieldType::Int => 4,
        _ => 8,
    }
}

/// What tools compute as the size of an object from what the dump says of it: Eclipse MAT, VisualVM.
pub(crate) fn size_in_tools(bytes: usize, references: usize) -> [usize; 2] {
    if bytes <= 256 && references <= 32 {
        [
            bytes.next_multiple_of(8).max(16 + 8 * references),
            bytes.next_multiple_of(8),
        ]
    } else {
        let elements = (bytes.next_multiple_of(8).saturating_sub(20) / 8).max(references);
        [(20 + 8 * elements).next_multiple_of(8); 2]
    }
}

/// A heap snapshot as the crate `v8-heap-parser` reads it: objects by type, what retains everything, and how many references there are
/// from object to object.
pub(crate) fn snapshot(bytes: &[u8]) -> (Census, u64, usize) {
    let json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    let graph = v8_heap_parser::decode_slice(bytes).unwrap();
    let nodes = graph.nodes().len();
    assert_eq!(json["snapshot"]["node_count"], nodes);
    assert_eq!(json["nodes"].as_array().unwrap().len(), nodes * 7);
    let edges = json["edges"].as_array().unwrap().len();
    assert_eq!(json["snapshot"]["edge_count"], edges / 3);
    let mut census = Census::new();
    let mut ids = BTreeSet::new();
    let (mut between, mut all) = (0, 0);
    for index in 0..nodes {
        let node = graph.get_node(index).unwrap();
        assert!(ids.insert(node.id), "an identifier twice");
        all += graph.children(index).len();
        assert_eq!(graph.children(index).len(), node.edge_count);
        if node.typ == v8_heap_parser::NodeType::Object {
            let count = census.entry(node.name().to_owned()).or_default();
            count.0 += 1;
            count.1 += node.self_size as usize;
            between += node.edge_count;
        }
    }
    assert_eq!(all, edges / 3);
    (census, graph.retained_size(graph.root_index), between)
}
