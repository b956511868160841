//! Long arrays.

use super::{Fault, POLL, at, there};
use crate::runtime::{Root, Thread};

/// References to a slice, at most: 2 to this power.
const BITS: u32 = 16;
const LENGTH: usize = 1 << BITS;

/// A long array as an array of arrays, so that no object of it is larger than 512 KiB. It is in the shadow stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slices {
    root: Root,
    length: usize,
}

impl Slices {
    /// Allocates one, all of it empty, and pushes it onto the shadow stack. May collect.
    pub(super) fn new<T: Thread>(t: &mut T, length: usize) -> Result<Slices, Fault> {
        let count = length.div_ceil(LENGTH);
        let outer = t.array(count)?;
        let root = t.push(Some(outer));
        for index in 0..count {
            let slice = t.array((length - index * LENGTH).min(LENGTH))?;
            let outer = at(t, root)?;
            t.set(outer, index, Some(slice));
        }
        Ok(Slices { root, length })
    }

    /// How many references it has.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// How many objects it is.
    pub(super) fn objects(&self) -> usize {
        1 + self.length.div_ceil(LENGTH)
    }

    /// How many bytes of references it has.
    pub(super) fn bytes(&self) -> u64 {
        8 * (self.length + self.length.div_ceil(LENGTH)) as u64
    }

    /// The slice that `index` is in; its place there is what [`Slices::place`] says.
    #[inline(always)]
    pub(super) fn slice<T: Thread>(&self, t: &T, index: usize) -> Result<T::Ref, Fault> {
        there(t.get(at(t, self.root)?, index >> BITS))
    }

    /// The place of `index` in its slice.
    #[inline(always)]
    pub(super) fn place(index: usize) -> usize {
        index & (LENGTH - 1)
    }

    /// Reads a reference.
    #[inline(always)]
    pub(super) fn get<T: Thread>(&self, t: &T, index: usize) -> Result<Option<T::Ref>, Fault> {
        Ok(t.get(self.slice(t, index)?, Slices::place(index)))
    }

    /// Writes a reference.
    #[inline(always)]
    pub(super) fn set<T: Thread>(
        &self,
        t: &mut T,
        index: usize,
        value: Option<T::Ref>,
    ) -> Result<(), Fault> {
        let slice = self.slice(t, index)?;
        t.set(slice, Slices::place(index), value);
        Ok(())
    }

    /// Disposes of the arrays, and before that of what they have.
    pub(super) fn dispose<T: Thread>(self, t: &mut T) -> Result<(), Fault> {
        if !T::MANUAL {
            return Ok(());
        }
        for index in 0..self.length {
            if index.is_multiple_of(POLL) {
                t.poll();
            }
            if let Some(object) = self.get(t, index)? {
                t.dispose(object);
            }
        }
        let outer = at(t, self.root)?;
        for index in 0..self.length.div_ceil(LENGTH) {
            let slice = there(t.get(outer, index))?;
            t.dispose(slice);
        }
        t.dispose(outer);
        t.set_root(self.root, None);
        Ok(())
    }
}
