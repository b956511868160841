use core::ffi::CStr;
use core::fmt;
use core::marker::PhantomData;
use heapwright_os::{OsError, Port, Reservation};
use std::sync::Arc;

/// A growable vector on a reservation of its own: it never moves and never calls malloc.
///
/// Equations: `len <= committed <= max`; elements below `len` are initialised; memory below `committed` is accessible.
///
/// ```
/// use heapwright_memory::MappedVec;
/// use heapwright_os::real_port;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// // Room for a million in addresses; memory only for what is used.
/// let mut words = MappedVec::<u64>::new(real_port(), 1 << 20, c"example")?;
/// words.push(7)?;
/// words.push(9)?;
/// assert_eq!(words.as_slice(), [7, 9]);
/// assert_eq!((words.pop(), words.len()), (Some(9), 1));
/// # Ok(())
/// # }
/// ```
pub struct MappedVec<T: Copy> {
    memory: Reservation,
    pointer: *mut T,
    len: usize,
    committed: usize,
    max: usize,
    element: PhantomData<T>,
}

// SAFETY: it owns its memory and its elements.
unsafe impl<T: Copy + Send> Send for MappedVec<T> {}
// SAFETY: a shared vector only gives shared elements.
unsafe impl<T: Copy + Sync> Sync for MappedVec<T> {}

impl<T: Copy> fmt::Debug for MappedVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedVec")
            .field("len", &self.len)
            .field("committed", &self.committed)
            .finish_non_exhaustive()
    }
}

impl<T: Copy> MappedVec<T> {
    /// An empty vector for at most `max` elements, whose memory is called `name`. It costs addresses only.
    ///
    /// # Errors
    /// If the system refuses the addresses.
    pub fn new(port: Arc<dyn Port>, max: usize, name: &'static CStr) -> Result<Self, OsError> {
        let bytes = max.saturating_mul(size_of::<T>()).max(1);
        let memory = Reservation::new(Arc::clone(&port), bytes, align_of::<T>())?;
        port.name(memory.start(), memory.bytes(), name);
        let pointer = memory.start().as_mut_ptr();
        let max = if size_of::<T>() == 0 {
            usize::MAX
        } else {
            memory.bytes() / size_of::<T>()
        };
        Ok(Self {
            memory,
            pointer,
            len: 0,
            committed: 0,
            max,
            element: PhantomData,
        })
    }

    /// How many elements there are.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Are there none?
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends an element.
    ///
    /// # Errors
    /// If the system has no memory, or the vector its greatest length (ENOMEM). The vector is unchanged.
    #[inline(always)]
    pub fn push(&mut self, value: T) -> Result<(), OsError> {
        if self.len == self.committed {
            self.grow()?;
        }
        // SAFETY: len < committed.
        unsafe { self.pointer.add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) -> Result<(), OsError> {
        let page = self.memory.port().page_size();
        let size = size_of::<T>().max(1);
        let have = (self.committed * size)
            .next_multiple_of(page)
            .min(self.memory.bytes());
        let want = (have * 2).max(16 * page).min(self.memory.bytes());
        if want <= have && self.committed >= self.max {
            return Err(OsError {
                op: heapwright_os::Op::Commit,
                address: self.memory.start(),
                bytes: self.memory.bytes(),
                errno: 12,
            });
        }
        self.memory.port().commit(self.memory.start(), want)?;
        self.committed = (want / size).min(self.max);
        Ok(())
    }

    /// How many elements there is room for without further calls to the system.
    #[inline(always)]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.committed
    }

    /// Makes room for `more` elements without further calls to the system.
    ///
    /// # Errors
    /// As [`MappedVec::push`].
    #[inline(always)]
    pub fn reserve(&mut self, more: usize) -> Result<(), OsError> {
        while self.committed - self.len < more {
            self.grow()?;
        }
        Ok(())
    }

    /// The place of the first element, for writing up to what [`MappedVec::reserve`] made room for.
    #[inline(always)]
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.pointer
    }

    /// The place of the first element. What is reached through it may be written if it is atomic.
    #[inline(always)]
    #[must_use]
    pub fn as_ptr(&self) -> *const T {
        self.pointer
    }

    /// Changes the length.
    ///
    /// # Safety
    /// Elements below `len` are initialised, within what [`MappedVec::reserve`] made room for.
    #[inline(always)]
    pub unsafe fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.committed);
        self.len = len;
    }

    /// Removes the last element.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<T> {
        if self.len == 0 {
            return None;
        }
        self.len -= 1;
        // SAFETY: it was below len.
        Some(unsafe { self.pointer.add(self.len).read() })
    }

    /// The element at an index.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<T> {
        self.as_slice().get(index).copied()
    }

    /// Removes the element at an index and puts the last one in its place.
    pub fn swap_remove(&mut self, index: usize) -> Option<T> {
        let value = self.get(index)?;
        let last = self.pop()?;
        if let Some(place) = self.as_mut_slice().get_mut(index) {
            *place = last;
        }
        Some(value)
    }

    /// Removes all elements; the memory stays.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Removes the elements from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// All elements.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: elements below len are initialised.
        unsafe { core::slice::from_raw_parts(self.pointer, self.len) }
    }

    /// All elements, for writing.
    #[inline]
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and the vector is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.pointer, self.len) }
    }

    /// Gives back the memory behind the last element, but for the first 64 KiB. A refusal changes nothing.
    pub fn shrink(&mut self) {
        let page = self.memory.port().page_size();
        let keep = (self.len * size_of::<T>())
            .next_multiple_of(page)
            .max(16 * page);
        let have = (self.committed * size_of::<T>())
            .next_multiple_of(page)
            .min(self.memory.bytes());
        if have > keep {
            // What is decommitted stays accessible, so `committed` is as it was.
            let _ = self
                .memory
                .port()
                .decommit(self.memory.start().add(keep), have - keep);
        }
    }
}

macro_rules! zeros {
    ($($number:ty)*) => {$(
        impl MappedVec<$number> {
            /// A vector of so many zeros, whose memory is called `name`. What is not written to takes no memory.
            ///
            /// # Errors
            /// If the system refuses.
            pub fn zeros(
                port: Arc<dyn Port>,
                len: usize,
                name: &'static CStr,
            ) -> Result<Self, OsError> {
                let mut zeros = Self::new(port, len, name)?;
                zeros.reserve(len)?;
                // SAFETY: committed for the first time, so it is zero, which is a number.
                unsafe { zeros.set_len(len) };
                Ok(zeros)
            }
        }
    )*};
}

zeros!(u8 u64);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use heapwright_os::{FaultPlan, FaultyPort, Op, real_port};

    #[test]
    fn it_grows_to_its_greatest_length_and_no_further() {
        let mut v = MappedVec::<u64>::new(real_port(), 100_000, c"test").unwrap();
        let max = v.max as u64;
        for i in 0..max {
            v.push(i).unwrap();
        }
        assert!(v.push(0).is_err());
        assert_eq!(v.len() as u64, max);
        assert!(v.as_slice().iter().copied().eq(0..max));
        assert_eq!(v.swap_remove(5), Some(5));
        assert_eq!(v.get(5), Some(max - 1));
        v.truncate(3);
        v.shrink();
        assert_eq!(v.as_slice(), [0, 1, 2]);
        v.push(9).unwrap();
        assert_eq!(v.pop(), Some(9));
        v.clear();
        assert_eq!(v.pop(), None);
        assert!(v.is_empty());
    }

    #[test]
    fn zeros_are_zero() {
        let mut v = MappedVec::<u64>::zeros(real_port(), 100_000, c"test").unwrap();
        assert!(v.len() == 100_000 && v.as_slice().iter().all(|n| *n == 0));
        v.as_mut_slice()[99_999] = 7;
        assert_eq!(v.pop(), Some(7));
        assert!(
            MappedVec::<u8>::zeros(real_port(), 0, c"test")
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_refused_growth_leaves_it_as_it_was() {
        let port = Arc::new(FaultyPort::new(real_port(), None));
        let mut v =
            MappedVec::<u32>::new(Arc::clone(&port) as Arc<dyn Port>, 1 << 20, c"test").unwrap();
        port.set(Some(FaultPlan {
            op: Some(Op::Commit),
            at: 1,
            times: 1,
            errno: 12,
        }));
        let mut pushed = 0;
        while v.push(pushed).is_ok() {
            pushed += 1;
        }
        assert!(pushed > 0 && v.len() == pushed as usize);
        v.push(pushed).unwrap();
        assert!(v.as_slice().iter().copied().eq(0..=pushed));
    }
}
