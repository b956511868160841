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
//! less beside its references than that looks up to 16 bytes larger than it is. A class says how large its instances are in the heap,
//! headers included and rounded up to 8, as newer Java machines do: VisualVM, which sees from the size of `java.lang.Object` that it is so,
//! shows that. Objects of one type that differ in size or in the number of references need classes of their own, which extend the class
//! `T`. Contents other than references are not in the dump.

use super::classes::{
    BUILT_IN, Class, Classes, INSTANCE_HEADER, MOST_BYTES, MOST_FIELDS, REFERENT, built_in,
    elements, raw_fields,
};
use super::graph::Graph;
use super::out::{Out, Text};
use super::{DumpError, RootKind, Source};
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

/// The types of fields, which have 8 bytes each.
const OBJECT: u8 = 2;
const LONG: u8 = 11;

/// The one stack trace that everything was allocated at: an empty one.
const TRACE: u32 = 1;

/// The identifiers of names. Fields have the first ones.
fn field_name(index: usize) -> u64 {
    index as u64 + 1
}

/// References, and longs, and the one field of a class of Java's.
pub(super) const FIELD_NAMES: usize = MOST_FIELDS + MOST_BYTES / 8 + 1;

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

/// A class of instances of so many bytes, with fields beyond those of its super class: their names and types.
fn class_dump(
    to: &mut Segments<'_, '_>,
    id: u64,
    super_class: u64,
    bytes: usize,
    fields: impl ExactSizeIterator<Item = (u64, u8)>,
) {
    to.begin(1 + 7 * 8 + 2 * 4 + 3 * 2 + 9 * fields.len());
    to.put(&[CLASS_DUMP]);
    to.id(id);
    to.int(TRACE as usize);
    to.id(super_class);
    // Class loader, signers, protection domain, two that are reserved.
    to.zeros(5 * 8);
    to.int(bytes);
    // No constants, no static fields.
    to.zeros(4);
    to.put(&(fields.len() as u16).to_be_bytes());
    for (name, kind) in fields {
        to.id(name);
        to.put(&[kind]);
    }
}

fn class_dumps(classes: &Classes, to: &mut Segments<'_, '_>) {
    for (index, class) in BUILT_IN.iter().enumerate() {
        let super_class = class.extends.map_or(0, built_in);
        let fields = 0..usize::from(class.referent);
        let fields = fields.map(|_| (field_name(FIELD_NAMES - 1), OBJECT));
        class_dump(to, built_in(index), super_class, class.bytes, fields);
    }
    for (class, super_class) in classes.each() {
        let (bytes, references) = match class {
            Class::Shape(_, bytes, references) => (bytes, references),
            _ => (INSTANCE_HEADER, 0),
        };
        let fields = 0..references + raw_fields(bytes, references);
        let fields = fields.map(|index| match index.checked_sub(references) {
            None => (field_name(index), OBJECT),
            Some(raw) => (field_name(MOST_FIELDS + raw), LONG),
        });
        class_dump(to, classes.id(class), super_class, bytes, fields);
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
    class_dumps(&classes, &mut to);
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
        let raw = 8 * raw_fields(bytes, references);
        let fields = 8 * references + raw;
        to.begin(25 + fields);
        to.put(&[INSTANCE_DUMP]);
        to.id(object as u64);
        to.int(TRACE as usize);
        to.id(classes.id(class));
        to.int(fields);
        raw
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
                Some(_) if index == FIELD_NAMES - 1 => text.write_str(REFERENT),
                Some(raw) => write!(text, "raw {raw}"),
            };
        });
    }
    for (index, class) in BUILT_IN.iter().enumerate() {
        put(class_name(built_in(index)), &|text| {
            let _ = text.write_str(class.name);
        });
    }
    for (class, _) in classes.each() {
        put(class_name(classes.id(class)), &|text| {
            put_name(source, classes, class, text);
        });
    }
}
