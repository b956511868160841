//! What happens before an allocation fails for want of room.

use super::{Heap, Mutator};
use crate::error::AllocError;
use crate::vm::Vm;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;

type Hook<V> = Box<dyn Fn(&mut Mutator<V>, usize) + Send + Sync>;

/// The runtime's wish.
pub(super) struct Full<V: Vm> {
    hook: OnceLock<Hook<V>>,
    /// It is being called.
    running: AtomicBool,
}

impl<V: Vm> Default for Full<V> {
    fn default() -> Self {
        Self {
            hook: OnceLock::new(),
            running: AtomicBool::new(false),
        }
    }
}

impl<V: Vm> Heap<V> {
    /// Has `hook` called whenever an allocation is about to fail with [`AllocError::OutOfMemory`], with the mutator that asked and the size
    /// in bytes: to dump the heap, for one. It is called on that mutator's thread, inside of the heap, and may stop the world; what it
    /// allocates fails. While it runs, other allocations that fail do not call it. A hook that holds a handle of the heap keeps the heap
    /// for ever. False if there is one already, which stays. Any thread.
    ///
    /// ```
    /// use heapwright::example::{BYTES, Pairs, push};
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("marksweep")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// let called = Arc::new(AtomicUsize::new(0));
    /// let noted = Arc::clone(&called);
    /// heap.on_out_of_memory(move |mutator, bytes| {
    ///     assert_eq!(bytes, BYTES);
    ///     assert!(mutator.thread_ref().len() > 1000);
    ///     noted.fetch_add(1, Relaxed);
    /// });
    /// // All of them are kept.
    /// while push(&mut mutator, 0).is_ok() {}
    /// assert_eq!(called.load(Relaxed), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_out_of_memory(
        &self,
        hook: impl Fn(&mut Mutator<V>, usize) + Send + Sync + 'static,
    ) -> bool {
        self.0.full.hook.set(Box::new(hook)).is_ok()
    }
}

impl<V: Vm> Mutator<V> {
    /// Tells who wants to know that an allocation of `bytes` fails.
    #[cold]
    pub(super) fn out_of_memory(&mut self, bytes: usize) -> AllocError {
        let inner = self.inner();
        let error = inner.out_of_memory(bytes);
        if let Some(hook) = inner.full.hook.get()
            && !inner.full.running.swap(true, Ordering::Acquire)
        {
            struct Over<'f>(&'f AtomicBool);
            impl Drop for Over<'_> {
                fn drop(&mut self) {
                    self.0.store(false, Ordering::Release);
                }
            }
            // Also if it panics.
            let _over = Over(&inner.full.running);
            hook(self, bytes);
        }
        error
    }
}
