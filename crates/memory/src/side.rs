use crate::MapError;
use core::ffi::CStr;
use heapwright_address::Address;
use heapwright_os::{OsError, Port, Reservation};
use std::sync::Arc;

/// Whose a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every space's.
    Global,
    /// One space's.
    Local,
}

/// One table beside a range of addresses: so many bits for each region of so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideMetadataSpec {
    /// For messages.
    pub name: &'static str,
    /// Logarithm of the bits for each region, 0 to 6.
    pub log_bits: u32,
    /// Logarithm of a region's size in bytes.
    pub log_region: u32,
    /// Whose it is.
    pub scope: Scope,
    /// The range that the table describes; set by [`SideLayout`].
    pub(crate) base: Address,
    /// The address of the entry of `base`; set by [`SideLayout`].
    pub(crate) table: Address,
}

impl SideMetadataSpec {
    /// A table that has no place yet.
    #[must_use]
    pub const fn new(name: &'static str, log_bits: u32, log_region: u32, scope: Scope) -> Self {
        Self {
            name,
            log_bits,
            log_region,
            scope,
            base: Address::ZERO,
            table: Address::ZERO,
        }
    }

    /// The first byte of the table, once it has a place.
    #[must_use]
    pub fn table(&self) -> Address {
        self.table
    }

    /// The first address that the table describes, once it has a place.
    #[must_use]
    pub fn base(&self) -> Address {
        self.base
    }

    /// How many bytes of table describe `bytes` of memory: a region and a byte that are used in part count whole. The
    /// largest number if there is no such number.
    #[must_use]
    pub const fn bytes_for(&self, bytes: usize) -> usize {
        let regions = bytes.div_ceil(1 << self.log_region);
        match self.log_bits {
            0..3 => regions.div_ceil(8 >> self.log_bits),
            _ => regions.saturating_mul(1 << (self.log_bits - 3)),
        }
    }

    /// Maps the part of the table that describes `[start, start + bytes)`, rounded outward to pages. What is mapped already
    /// keeps its contents, so tables and chunks may share a page.
    pub(crate) fn map(&self, port: &dyn Port, start: Address, bytes: usize) -> Result<(), OsError> {
        let page = port.page_size();
        let offset = start.diff(self.base);
        // The byte that the first entry is in, which it may share with those before.
        let first = (offset >> self.log_region << self.log_bits) / 8;
        let from = self.table.add(first).align_down(page);
        let to = self.table.add(self.bytes_for(offset + bytes));
        let to = to.align_up(page).unwrap_or(to);
        port.commit(from, to.diff(from))
    }
}

/// Lays tables out beside a range, without overlap, in one reservation.
///
/// ```
/// use heapwright_address::Address;
/// use heapwright_memory::{Scope, SideLayout, SideMetadataSpec};
/// use heapwright_os::real_port;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// // A bit for each 16 bytes, beside 64 MiB: a 128th of that.
/// let marks = SideMetadataSpec::new("marks", 0, 4, Scope::Global);
/// assert_eq!(marks.bytes_for(64 << 20), 512 << 10);
/// let base = Address::new(0x2000_0000_0000);
/// let memory = SideLayout::new().with(marks).place(&real_port(), base, 64 << 20, c"example")?;
/// drop(memory);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct SideLayout {
    specs: Vec<SideMetadataSpec>,
}

/// The memory of the tables of one range. Nothing of it is accessible until a mapper maps it along with a chunk.
#[derive(Debug)]
pub struct SideMemory {
    memory: Reservation,
    specs: Vec<SideMetadataSpec>,
}

impl SideLayout {
    /// No tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a table.
    #[must_use]
    pub fn with(mut self, spec: SideMetadataSpec) -> Self {
        self.specs.push(spec);
        self
    }

    /// Places the tables of `[base, base + bytes)`. Each starts on a page of its own.
    ///
    /// # Errors
    /// If the system refuses the addresses.
    pub fn place(
        mut self,
        port: &Arc<dyn Port>,
        base: Address,
        bytes: usize,
        name: &'static CStr,
    ) -> Result<SideMemory, MapError> {
        let page = port.page_size();
        let mut offsets = Vec::with_capacity(self.specs.len());
        let mut total = 0usize;
        for spec in &self.specs {
            offsets.push(total);
            let size = spec.bytes_for(bytes).checked_next_multiple_of(page);
            total = size
                .and_then(|size| total.checked_add(size))
                .ok_or(MapError::Overflow { start: base, bytes })?;
        }
        let memory = Reservation::new(Arc::clone(port), total, page)?;
        port.name(memory.start(), memory.bytes(), name);
        for (spec, offset) in self.specs.iter_mut().zip(offsets) {
            spec.base = base;
            spec.table = memory.start().add(offset);
        }
        Ok(SideMemory {
            memory,
            specs: self.specs,
        })
    }
}

impl SideMemory {
    /// The tables, in the order in which they were added, with their places.
    #[must_use]
    pub fn specs(&self) -> &[SideMetadataSpec] {
        &self.specs
    }

    /// What the tables occupy in addresses, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use heapwright_os::real_port;

    #[test]
    fn tables_do_not_overlap_and_have_room_for_the_whole_range() {
        let base = Address::new(1 << 40);
        let bytes = 1 << 30;
        let layout = SideLayout::new()
            .with(SideMetadataSpec::new("bits", 0, 4, Scope::Global))
            .with(SideMetadataSpec::new("bytes", 3, 12, Scope::Local))
            .with(SideMetadataSpec::new("words", 6, 15, Scope::Local));
        let memory = layout.place(&real_port(), base, bytes, c"test").unwrap();
        let specs = memory.specs();
        assert_eq!(specs[0].bytes_for(bytes), bytes / 16 / 8);
        for pair in specs.windows(2) {
            assert!(pair[0].table().add(pair[0].bytes_for(bytes)) <= pair[1].table());
        }
        let last = specs.last().unwrap();
        assert!(
            last.table()
                .add(last.bytes_for(bytes))
                .diff(specs[0].table())
                <= memory.bytes()
        );
    }

    #[test]
    fn two_chunks_that_share_a_page_of_a_table_keep_each_others_entries() {
        let port = real_port();
        let base = Address::new(1 << 40);
        let spec = SideMetadataSpec::new("bytes", 3, 15, Scope::Local);
        let memory = SideLayout::new()
            .with(spec)
            .place(&port, base, 1 << 30, c"test")
            .unwrap();
        let spec = memory.specs()[0];
        spec.map(&*port, base, 4 << 20).unwrap();
        // SAFETY: mapped just now.
        unsafe { spec.table().store(42u8) };
        spec.map(&*port, base.add(4 << 20), 4 << 20).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { spec.table().load::<u8>() }, 42);
    }
}
