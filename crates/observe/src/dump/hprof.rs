//! The writer of HPROF, version 1.0.2, as the source of OpenJDK describes it (`heapDumper.cpp`): big-endian records with a tag and a
//! length, and segments of sub-records that are the dump proper. Identifiers have 8 bytes: an object's is its address.
//!
//! | an object of a type `T` | becomes |
//! |---|---|
//! | up to 256 bytes and 32 references | an instance, with a field for each reference, and raw fields for the rest |
//! | other | an array `T[]` of references, with nulls at its end for the rest |
//!
//! Tools do not read an object's size, they compute it: 16 bytes and the fields for an instance; 20 bytes and the elements for an array,
//! rounded up to 8. So instances get as many raw fields, and arrays as many nulls, that this is the size in the heap; an object that has
//! less beside its references than that looks up to 16 bytes larger than it is. Objects of one type that differ in size or in the number of
//! references need classes of their own, which extend the class `T`. Contents other than references are not in the dump.

use super::graph::Graph;
use super::numbering::Numbering;
use super::out::{Out, Text};
use super::{DumpError, Node, RootKind, Source};
use core::fmt::Write;
use heapwright_memory::MappedVec;
use heapwright_os::{OsError, real_port};
use std::time::{SystemTime, UNIX_EPOCH};

/// Records.
const UTF8: u8 = 0x01;
const LOAD_CLASS: u8 = 0x02;
const STACK_TRACE: u8 = 0x05;
const SEGMENT: u8 = 0x1c;
const END: u8 = 0x2c;
/// Sub-records.
const ROOT_GLOBAL: u8 = 0x01;
const ROOT_STACK: u8 = 0x04;
const CLASS_DUMP: u8 = 0x20;
const INSTANCE_DUMP: u8 = 0x21;
const ARRAY_DUMP: u8 = 0x22;

/// The types of fields, with their bytes.
const OBJECT: u8 = 2;
const LONG: (u8, usize) = (11, 8);
const SMALLER: [(u8, usize); 3] = [(10, 4), (9, 2), (8, 1)];

/// What tools add to the fields of an instance, and to the elements of an array.
const INSTANCE_HEADER: usize = 16;
const ARRAY_HEADER: usize = 20;

/// The largest instances.
const MOST_BYTES: usize = 256;
const MOST_FIELDS: usize = 32;
/// When there are so many shapes, objects of further ones become arrays.
const MOST_SHAPES: usize = 4096;
/// An array is not padded beyond this: a sub-record has less than 4 GiB.
const MOST_ELEMENTS: usize = 1 << 28;

/// Classes that tools look for.
const BUILT_IN: [&str; 4] = [
    "java/lang/Object",
    "java/lang/Class",
    "java/lang/ClassLoader",
    "java/lang/String",
];

/// The one stack trace that everything was allocated at: an empty one.
const TRACE: u32 = 1;

/// A class: what it is a class of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// A type, whose instances are of classes that extend it.
    Type(u32),
    /// Objects of a type with so many bytes and references.
    Shape(u32, usize, usize),
    /// Arrays of a type.
    Array(u32),
}

impl Class {
    /// As a number: two bits for which, then the type, then the references and the bytes of a shape.
    fn key(self) -> u64 {
        match self {
            Self::Type(t) => 1 << 62 | u64::from(t) << 16,
            Self::Shape(t, bytes, references) => {
                2 << 62 | u64::from(t) << 16 | (references as u64) << 9 | bytes as u64
            }
            Self::Array(t) => 3 << 62 | u64::from(t) << 16,
        }
    }

    fn of(key: u64) -> Self {
        let t = (key >> 16) as u32;
        match key >> 62 {
            1 => Self::Type(t),
            2 => Self::Shape(t, key as usize & 0x1ff, key as usize >> 9 & 0x7f),
            _ => Self::Array(t),
        }
    }

    /// The class of an object if there is no end of shapes.
    fn wanted(node: &Node) -> Self {
        if node.bytes <= MOST_BYTES && node.references <= MOST_FIELDS {
            Self::Shape(node.type_id, node.bytes, node.references)
        } else {
            Self::Array(node.type_id)
        }
    }
}

/// Bytes of fields that are no references.
fn raw_bytes(bytes: usize, references: usize) -> usize {
    bytes.saturating_sub(INSTANCE_HEADER + 8 * references)
}

fn field_bytes(bytes: usize, references: usize) -> usize {
    8 * references + raw_bytes(bytes, references)
}

/// The types of the raw fields.
fn raw_fields(bytes: usize, references: usize) -> impl Iterator<Item = u8> {
    let raw = raw_bytes(bytes, references);
    let rest = SMALLER
        .into_iter()
        .filter(move |(_, bytes)| raw & bytes != 0);
    core::iter::repeat_n(LONG, raw / LONG.1)
        .chain(rest)
        .map(|(kind, _)| kind)
}

fn elements(node: &Node) -> usize {
    let fit = node.bytes.saturating_sub(ARRAY_HEADER) / 8;
    fit.min(MOST_ELEMENTS).max(node.references)
}

/// The classes of a dump.
struct Classes {
    numbers: Numbering,
    /// For a type's class: how many shapes it has. For others nothing.
    shapes: MappedVec<u32>,
    all_shapes: usize,
}

impl Classes {
    fn new() -> Result<Self, OsError> {
        Ok(Self {
            numbers: Numbering::new()?,
            shapes: MappedVec::new(real_port(), 1 << 26, c"heapwright dump")?,
            all_shapes: 0,
        })
    }

    fn number(&mut self, class: Class) -> Result<(usize, bool), OsError> {
        let (number, new) = self.numbers.number(class.key())?;
        if new {
            self.shapes.push(0)?;
        }
        Ok((number, new))
    }

    /// Meets an object.
    fn meet(&mut self, node: &Node) -> Result<(), OsError> {
        let class = self.of(node);
        if self.numbers.get(class.key()).is_some() {
            return Ok(());
        }
        if self.all_shapes == MOST_SHAPES || matches!(class, Class::Array(_)) {
            self.number(Class::Array(node.type_id))?;
            return Ok(());
        }
        let (of_type, _) = self.number(Class::Type(node.type_id))?;
        self.number(class)?;
        self.shapes.as_mut_slice()[of_type] += 1;
        self.all_shapes += 1;
        Ok(())
    }

    /// The class of an object.
    fn of(&self, node: &Node) -> Class {
        let wanted = Class::wanted(node);
        let full = self.all_shapes == MOST_SHAPES;
        if full && self.numbers.get(wanted.key()).is_none() {
            return Class::Array(node.type_id);
        }
        wanted
    }

    fn id(&self, class: Class) -> u64 {
        let number = self.numbers.get(class.key()).map_or(0, |n| n + 1);
        built_in(BUILT_IN.len() + number)
    }

    /// Are all instances of the type of one shape? Its class is then the type's.
    fn is_alone(&self, type_id: u32) -> bool {
        let number = self.numbers.get(Class::Type(type_id).key());
        number.and_then(|n| self.shapes.get(n)) == Some(1)
    }

    /// Those that are written: with their super class.
    fn each(&self) -> impl Iterator<Item = (Class, u64)> + '_ {
        self.numbers.keys().iter().filter_map(|key| {
            let class = Class::of(*key);
            match class {
                Class::Type(t) if self.is_alone(t) => None,
                Class::Shape(t, ..) if !self.is_alone(t) => Some((class, self.id(Class::Type(t)))),
                _ => Some((class, built_in(0))),
            }
        })
    }
}

/// The identifiers of classes: numbers below all addresses of objects.
fn built_in(index: usize) -> u64 {
    (index as u64 + 1) * 16
}

/// The identifiers of names. Fields have the first ones.
fn field_name(index: usize) -> u64 {
    index as u64 + 1
}

/// References, and the longs and smaller fields.
const FIELD_NAMES: usize = MOST_FIELDS + MOST_BYTES / 8 + 3;

fn class_name(class_id: u64) -> u64 {
    FIELD_NAMES as u64 + 1 + class_id
}

/// A record of the top level.
fn record(out: &mut Out<'_>, tag: u8, bytes: usize) {
    out.put(&[tag]);
    out.put(&0u32.to_be_bytes());
    out.put(&(bytes as u32).to_be_bytes());
}

fn name(out: &mut Out<'_>, id: u64, text: &Text) {
    record(out, UTF8, 8 + text.as_bytes().len());
    out.put(&id.to_be_bytes());
    out.put(text.as_bytes());
}

/// What a class is called, as in class files: an array's element between `[L` and `;`.
fn put_name<S: Source>(source: &S, classes: &Classes, class: Class, text: &mut Text) {
    let mut put = |part: core::fmt::Arguments<'_>| {
        // What does not fit is cut.
        let _ = text.write_fmt(part);
    };
    match class {
        Class::Type(t) => source.type_name(t, &mut |n| put(format_args!("{n}"))),
        Class::Array(t) => {
            put(format_args!("[L"));
            source.type_name(t, &mut |n| put(format_args!("{n}")));
            put(format_args!(";"));
        }
        Class::Shape(t, bytes, references) => {
            source.type_name(t, &mut |n| put(format_args!("{n}")));
            if !classes.is_alone(t) {
                let s = if references == 1 { "" } else { "s" };
                put(format_args!(" ({bytes} bytes, {references} reference{s})"));
            }
        }
    }
}

/// Sub-records on their way into segments, whose length comes before their contents.
struct Segments<'o, 'w> {
    out: &'o mut Out<'w>,
    buffer: MappedVec<u8>,
    used: usize,
    /// The present sub-record is longer than the buffer.
    direct: bool,
}

/// Bytes of a segment, but for what is longer.
const SEGMENT_BYTES: usize = 1 << 20;

impl<'o, 'w> Segments<'o, 'w> {
    fn new(out: &'o mut Out<'w>) -> Result<Self, OsError> {
        Ok(Self {
            out,
            buffer: MappedVec::<u8>::zeros(real_port(), SEGMENT_BYTES, c"heapwright dump")?,
            used: 0,
            direct: false,
        })
    }

    /// A sub-record of so many bytes begins, which are put next.
    fn begin(&mut self, bytes: usize) {
        if self.used + bytes > SEGMENT_BYTES {
            self.end();
        }
        self.direct = bytes > SEGMENT_BYTES;
        if self.direct {
            record(self.out, SEGMENT, bytes);
        }
    }

    fn end(&mut self) {
        if self.used != 0 {
            record(self.out, SEGMENT, self.used);
            self.out.put(&self.buffer.as_slice()[..self.used]);
            self.used = 0;
        }
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if self.direct {
            return self.out.put(bytes);
        }
        let end = self.used + bytes.len();
        if let Some(place) = self.buffer.as_mut_slice().get_mut(self.used..end) {
            place.copy_from_slice(bytes);
            self.used = end;
        }
    }

    fn id(&mut self, id: u64) {
        self.put(&id.to_be_bytes());
    }

    fn int(&mut self, number: usize) {
        self.put(&(number as u32).to_be_bytes());
    }

    fn zeros(&mut self, mut bytes: usize) {
        while bytes != 0 {
            let now = bytes.min(64);
            self.put(&[0; 64][..now]);
            bytes -= now;
        }
    }
}

/// A class, with the fields that it has beyond its super class.
fn class_dump(to: &mut Segments<'_, '_>, id: u64, super_class: u64, shape: (usize, usize)) {
    let (bytes, references) = shape;
    let raw = raw_fields(bytes, references).count();
    to.begin(1 + 7 * 8 + 2 * 4 + 3 * 2 + 9 * (references + raw));
    to.put(&[CLASS_DUMP]);
    to.id(id);
    to.int(TRACE as usize);
    to.id(super_class);
    // Class loader, signers, protection domain, two that are reserved.
    to.zeros(5 * 8);
    to.int(field_bytes(bytes, references));
    // No constants, no static fields.
    to.zeros(4);
    to.put(&((references + raw) as u16).to_be_bytes());
    for index in 0..references {
        to.id(field_name(index));
        to.put(&[OBJECT]);
    }
    for (index, kind) in raw_fields(bytes, references).enumerate() {
        to.id(field_name(MOST_FIELDS + index));
        to.put(&[kind]);
    }
}

/// Writes it: the bytes of all objects in the heap.
pub(super) fn write<S: Source>(graph: &Graph<'_, S>, out: &mut Out<'_>) -> Result<u64, DumpError> {
    let source = graph.source();
    let mut classes = Classes::new()?;
    let mut object_bytes = 0;
    let mut failed = None;
    graph.for_each(|object| {
        let node = source.node(object);
        object_bytes += node.bytes as u64;
        failed = classes.meet(&node).err();
        failed.is_none()
    });
    if let Some(e) = failed {
        return Err(e.into());
    }

    out.put(b"JAVA PROFILE 1.0.2\0");
    out.put(&8u32.to_be_bytes());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    out.put(&(now.map_or(0, |d| d.as_millis()) as u64).to_be_bytes());
    names(source, &classes, out);
    record(out, STACK_TRACE, 12);
    out.put(&TRACE.to_be_bytes());
    // No thread, no frames.
    out.put(&[0; 8]);
    let loaded = (0..BUILT_IN.len())
        .map(built_in)
        .chain(classes.each().map(|(class, _)| classes.id(class)));
    for (serial, id) in loaded.enumerate() {
        record(out, LOAD_CLASS, 24);
        out.put(&(serial as u32 + 1).to_be_bytes());
        out.put(&id.to_be_bytes());
        out.put(&TRACE.to_be_bytes());
        out.put(&class_name(id).to_be_bytes());
    }

    let mut to = Segments::new(out)?;
    for index in 0..BUILT_IN.len() {
        let super_class = if index == 0 { 0 } else { built_in(0) };
        class_dump(&mut to, built_in(index), super_class, (0, 0));
    }
    for (class, super_class) in classes.each() {
        let shape = match class {
            Class::Shape(_, bytes, references) => (bytes, references),
            _ => (0, 0),
        };
        class_dump(&mut to, classes.id(class), super_class, shape);
    }
    // Tools find out by themselves what nothing keeps.
    for (kind, object) in graph.roots().filter(|(k, _)| *k != RootKind::Dead) {
        if kind == RootKind::Thread {
            to.begin(13);
            to.put(&[ROOT_STACK]);
            to.id(object as u64);
            to.int(0);
        } else {
            to.begin(17);
            to.put(&[ROOT_GLOBAL]);
            to.id(object as u64);
            to.id(kind as u64);
        }
    }
    graph.for_each(|object| {
        put_object(graph, &classes, object, &mut to);
        !to.out.failed()
    });
    to.end();
    record(out, END, 0);
    Ok(object_bytes)
}

fn put_object<S: Source>(
    graph: &Graph<'_, S>,
    classes: &Classes,
    object: usize,
    to: &mut Segments<'_, '_>,
) {
    let source = graph.source();
    let node = source.node(object);
    let class = classes.of(&node);
    let rest = if let Class::Shape(_, bytes, references) = class {
        let fields = field_bytes(bytes, references);
        to.begin(25 + fields);
        to.put(&[INSTANCE_DUMP]);
        to.id(object as u64);
        to.int(TRACE as usize);
        to.id(classes.id(class));
        to.int(fields);
        raw_bytes(bytes, references)
    } else {
        let elements = elements(&node);
        to.begin(25 + 8 * elements);
        to.put(&[ARRAY_DUMP]);
        to.id(object as u64);
        to.int(TRACE as usize);
        to.int(elements);
        to.id(classes.id(class));
        8 * (elements - node.references)
    };
    source.references(object, &mut |target| {
        let known = target != 0 && graph.has(target);
        to.id(if known { target as u64 } else { 0 });
    });
    to.zeros(rest);
}

fn names<S: Source>(source: &S, classes: &Classes, out: &mut Out<'_>) {
    let mut put = |id: u64, write: &dyn Fn(&mut Text)| {
        let mut text = Text::new();
        write(&mut text);
        name(out, id, &text);
    };
    for index in 0..FIELD_NAMES {
        put(field_name(index), &|text| {
            // Short.
            let _ = match index.checked_sub(MOST_FIELDS) {
                None => write!(text, "reference {index}"),
                Some(raw) => write!(text, "raw {raw}"),
            };
        });
    }
    for (index, built) in BUILT_IN.iter().enumerate() {
        put(class_name(built_in(index)), &|text| {
            let _ = text.write_str(built);
        });
    }
    for (class, _) in classes.each() {
        put(class_name(classes.id(class)), &|text| {
            put_name(source, classes, class, text);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_its_key() {
        for class in [
            Class::Type(0),
            Class::Type(u32::MAX),
            Class::Shape(u32::MAX, 256, 32),
            Class::Shape(7, 16, 0),
            Class::Array(9),
        ] {
            assert_eq!(Class::of(class.key()), class);
        }
    }

    #[test]
    fn fields_and_header_are_the_size() {
        for bytes in 16..=MOST_BYTES {
            for references in 0..=(bytes - INSTANCE_HEADER) / 8 {
                assert_eq!(INSTANCE_HEADER + field_bytes(bytes, references), bytes);
                let raw: usize = raw_fields(bytes, references)
                    .map(|kind| match kind {
                        11 => 8,
                        10 => 4,
                        9 => 2,
                        _ => 1,
                    })
                    .sum();
                assert_eq!(raw, raw_bytes(bytes, references));
                assert!(raw_fields(bytes, references).count() <= FIELD_NAMES - MOST_FIELDS);
            }
        }
    }

    #[test]
    fn arrays_have_the_size_where_it_is_larger() {
        let node = |bytes, references| Node {
            type_id: 0,
            bytes,
            references,
        };
        for bytes in (264..10_000).step_by(8) {
            let computed = |n: usize| (ARRAY_HEADER + 8 * n).next_multiple_of(8);
            assert_eq!(computed(elements(&node(bytes, 3))), bytes);
        }
        assert_eq!(elements(&node(8 + 800, 100)), 100);
    }
}
