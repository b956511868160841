//! The classes of an HPROF dump: which class an object has, and what a class looks like. See [`super::hprof`].

use super::Node;
use super::numbering::Numbering;
use heapwright_memory::MappedVec;
use heapwright_os::{OsError, real_port};

/// What tools add to the fields of an instance, and to the elements of an array.
pub(super) const INSTANCE_HEADER: usize = 16;
const ARRAY_HEADER: usize = 20;

/// The largest instances.
pub(super) const MOST_BYTES: usize = 256;
pub(super) const MOST_FIELDS: usize = 32;
/// When there are so many shapes, objects of further ones become arrays.
const MOST_SHAPES: usize = 4096;
/// An array is not padded beyond this: a sub-record has less than 4 GiB.
const MOST_ELEMENTS: usize = 1 << 28;

/// A class of Java's that tools look for.
pub(super) struct BuiltIn {
    pub(super) name: &'static str,
    /// The one that it extends, as an index into [`BUILT_IN`].
    pub(super) extends: Option<usize>,
    /// It adds the field [`REFERENT`].
    pub(super) referent: bool,
    /// Bytes of an instance. There is none.
    pub(super) bytes: usize,
}

const fn built_in_class(name: &'static str, extends: usize) -> BuiltIn {
    BuiltIn {
        name,
        extends: Some(extends),
        referent: false,
        bytes: INSTANCE_HEADER,
    }
}

const fn reference_class(name: &'static str) -> BuiltIn {
    BuiltIn {
        bytes: INSTANCE_HEADER + 8,
        ..built_in_class(name, 4)
    }
}

/// All of them. Without those of references, VisualVM does not find out what is retained.
pub(super) const BUILT_IN: [BuiltIn; 9] = [
    BuiltIn {
        extends: None,
        ..built_in_class("java/lang/Object", 0)
    },
    built_in_class("java/lang/Class", 0),
    built_in_class("java/lang/ClassLoader", 0),
    built_in_class("java/lang/String", 0),
    BuiltIn {
        referent: true,
        extends: Some(0),
        ..reference_class("java/lang/ref/Reference")
    },
    reference_class("java/lang/ref/WeakReference"),
    reference_class("java/lang/ref/SoftReference"),
    reference_class("java/lang/ref/FinalReference"),
    reference_class("java/lang/ref/PhantomReference"),
];

/// The field of a reference of Java's.
pub(super) const REFERENT: &str = "referent";

/// A class: what it is a class of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
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
            Self::Shape(
                node.type_id,
                node.bytes.next_multiple_of(8),
                node.references,
            )
        } else {
            Self::Array(node.type_id)
        }
    }
}

/// Fields of an instance that are no references.
pub(super) fn raw_fields(bytes: usize, references: usize) -> usize {
    bytes.saturating_sub(INSTANCE_HEADER + 8 * references) / 8
}

pub(super) fn elements(node: &Node) -> usize {
    let fit = node.bytes.next_multiple_of(8).saturating_sub(ARRAY_HEADER) / 8;
    fit.min(MOST_ELEMENTS).max(node.references)
}

/// The classes of a dump.
pub(super) struct Classes {
    numbers: Numbering,
    /// For a type's class: how many shapes it has. For others nothing.
    shapes: MappedVec<u32>,
    all_shapes: usize,
}

impl Classes {
    pub(super) fn new() -> Result<Self, OsError> {
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
    pub(super) fn meet(&mut self, node: &Node) -> Result<(), OsError> {
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
    pub(super) fn of(&self, node: &Node) -> Class {
        let wanted = Class::wanted(node);
        let full = self.all_shapes == MOST_SHAPES;
        if full && self.numbers.get(wanted.key()).is_none() {
            return Class::Array(node.type_id);
        }
        wanted
    }

    pub(super) fn id(&self, class: Class) -> u64 {
        let number = self.numbers.get(class.key()).map_or(0, |n| n + 1);
        built_in(BUILT_IN.len() + number)
    }

    /// Are all instances of the type of one shape? Its class is then the type's.
    pub(super) fn is_alone(&self, type_id: u32) -> bool {
        let number = self.numbers.get(Class::Type(type_id).key());
        number.and_then(|n| self.shapes.get(n)) == Some(1)
    }

    /// Those that are written: with their super class.
    pub(super) fn each(&self) -> impl Iterator<Item = (Class, u64)> + '_ {
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
pub(super) fn built_in(index: usize) -> u64 {
    (index as u64 + 1) * 16
}

#[cfg(test)]
mod tests {
    use super::super::hprof::FIELD_NAMES;
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
        for bytes in (16..=MOST_BYTES).step_by(8) {
            for references in 0..=(bytes - INSTANCE_HEADER) / 8 {
                let fields = references + raw_fields(bytes, references);
                assert_eq!(INSTANCE_HEADER + 8 * fields, bytes);
                assert!(MOST_FIELDS + raw_fields(bytes, references) < FIELD_NAMES);
            }
            let full = bytes / 8 - 1;
            assert_eq!(raw_fields(bytes, full), 0);
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
