//! A process that forks, with a heap.
//!
//! The child has one thread, and everything in memory as it was at the moment of the fork. So that this is a heap in order, the thread
//! that forks brings the world to a safepoint first, as for a collection: every mutator stands between two allocations, and a thread
//! that marks between two objects, with its stack in order. Then it takes each lock that a thread outside of the heap may hold, so that
//! what is under it is whole. Both are given back in the parent, which goes on as if nothing had been.
//!
//! | in the child | becomes |
//! |---|---|
//! | the world | as closed by the one thread there is, whatever others were about to do |
//! | the mutators of other threads | are retired: the heap takes their memory back, and does not look at their roots any more |
//! | helpers, the thread that marks, the scavenger | are started again when there is work for them, not before |
//! | a mark that goes on | goes on, as soon as a mutator takes memory; what was overwritten is not forgotten |
//!
//! Memory is private and anonymous: parent and child share pages until one of them writes. docs/embedding.md says what that means for a
//! child that collects.

use super::{Heap, Inner, Mutator, mutator};
use crate::bugs::{Bug, is_on};
use crate::collect::local::Local;
use crate::error::ForkError;
use crate::event::ForkStep;
use crate::vm::Vm;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::Ordering;
use heapwright_os::current_thread;
use std::process;
use std::sync::{Arc, PoisonError};

/// A lock that is held.
trait Held {}
impl<T> Held for T {}

/// The world is stopped for a fork, and all locks of the heap are held. Dropping it lets the heap go on, in the parent and in the child.
///
/// Made by [`Mutator::prepare_fork`] or [`Heap::prepare_fork`]. Until it is dropped the thread does nothing with the heap but fork.
///
/// ```
/// use heapwright::example::{Pairs, number, push, root};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let heap = Pairs::heap("immix")?;
/// let mut mutator = heap.attach(Vec::new())?;
/// push(&mut mutator, 7)?;
/// // SAFETY: no other thread has a mutator.
/// let ready = unsafe { mutator.prepare_fork() }?;
/// // Here the process forks; what comes is for the parent, and for a fork that failed.
/// ready.parent();
/// mutator.collect();
/// assert_eq!(number(root(&mutator, 0)), 7);
/// # Ok(())
/// # }
/// ```
#[must_use = "the world is stopped until this is dropped"]
pub struct Fork<'m, V: Vm> {
    /// Before the heap, which they are in.
    locks: Vec<Box<dyn Held>>,
    heap: Arc<Inner<V>>,
    /// The record of the mutator that forks, which is inside; null: the thread has none inside.
    own: *mut Local<V>,
    process: u32,
    done: bool,
    mutator: PhantomData<&'m mut Mutator<V>>,
}

impl<V: Vm> core::fmt::Debug for Fork<'_, V> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Fork").finish_non_exhaustive()
    }
}

impl<V: Vm> Heap<V> {
    /// Makes the heap ready for a fork by the calling thread, which has no mutator of it inside: stops the world, which takes as long as
    /// for a collection, and holds it stopped until the result is dropped.
    ///
    /// Each heap that the child is to use has to be made ready, and all are before any goes on.
    ///
    /// # Errors
    /// If the thread is in the middle of a collection of the heap.
    ///
    /// # Safety
    /// In the child, only mutators that stay are used: the one that forks, those outside of the heap that the same thread was the last
    /// to bring outside, and those outside that [`Vm::stays_after_fork`] wants. Others may be dropped.
    pub unsafe fn prepare_fork(&self) -> Result<Fork<'static, V>, ForkError> {
        prepare(&self.0, ptr::null_mut())
    }
}

impl<V: Vm> Mutator<V> {
    /// As [`Heap::prepare_fork`], by a thread whose mutator is inside. A safepoint.
    ///
    /// # Errors
    /// As [`Heap::prepare_fork`].
    ///
    /// # Safety
    /// As [`Heap::prepare_fork`].
    pub unsafe fn prepare_fork(&mut self) -> Result<Fork<'_, V>, ForkError> {
        prepare(self.shared(), self.record_ptr())
    }

    /// Runs `fork`, which forks the process, with the heap ready for it: what `fork` gave. A safepoint.
    ///
    /// ```
    /// use heapwright::example::{Pairs, number, push, root};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let heap = Pairs::heap("immix")?;
    /// let mut mutator = heap.attach(Vec::new())?;
    /// push(&mut mutator, 7)?;
    /// // SAFETY: the child uses this mutator only.
    /// let child = unsafe { mutator.fork(|| libc::fork()) }?;
    /// if child == 0 {
    ///     mutator.collect();
    ///     // SAFETY: ends the child, which has nothing else to do.
    ///     unsafe { libc::_exit(number(root(&mutator, 0)) as i32) };
    /// }
    /// let mut status = 0;
    /// // SAFETY: waits for the child; a status of our own.
    /// assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    /// assert_eq!(libc::WEXITSTATUS(status), 7);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Heap::prepare_fork`]; then `fork` was not called.
    ///
    /// # Safety
    /// As [`Heap::prepare_fork`].
    pub unsafe fn fork<R>(&mut self, fork: impl FnOnce() -> R) -> Result<R, ForkError> {
        // SAFETY: the caller's promise.
        let ready = unsafe { self.prepare_fork() }?;
        let result = fork();
        drop(ready);
        Ok(result)
    }
}

fn prepare<'m, V: Vm>(heap: &Arc<Inner<V>>, own: *mut Local<V>) -> Result<Fork<'m, V>, ForkError> {
    let heap = Arc::clone(heap);
    if heap.is_collecting_here() {
        return Err(ForkError::InCollection);
    }
    let raise = || {
        heap.background.interrupt.set(true);
        heap.locals.interrupt(true);
    };
    while !heap.gate.close(!own.is_null(), &raise) {}
    heap.stopper.store(current_thread(), Ordering::Relaxed);
    let locks = hold(&heap);
    if let Some(listener) = &heap.listener {
        listener.fork(ForkStep::Before);
    }
    Ok(Fork {
        locks,
        heap,
        own,
        process: process::id(),
        done: false,
        mutator: PhantomData,
    })
}

/// Takes each lock that a thread outside of the heap may hold. Such a thread holds one of them at a time, but for the first, and comes inside
/// with none: so any order of the others will do.
fn hold<V: Vm>(heap: &Inner<V>) -> Vec<Box<dyn Held>> {
    let locks: Vec<Box<dyn Held + '_>> = vec![
        // The first: who tells the listener something may take one of the others.
        Box::new(heap.tending.hold()),
        Box::new(heap.pins.hold()),
        Box::new(heap.clocks()),
        Box::new(heap.immortals()),
        Box::new(heap.orphans.lock().unwrap_or_else(PoisonError::into_inner)),
        Box::new(heap.references.hold()),
        Box::new(heap.background.hold()),
        Box::new(heap.sizing.hold()),
        Box::new(heap.locals.hold()),
    ];
    heap.space.hold_lock();
    // SAFETY: only lifetimes differ. The locks are in the heap, which stays where it is as long as the `Fork` has its `Arc`, and
    // whoever has the `Fork` drops them first.
    unsafe { core::mem::transmute::<Vec<Box<dyn Held + '_>>, Vec<Box<dyn Held>>>(locks) }
}

impl<V: Vm> Fork<'_, V> {
    /// Lets the heap go on, in the parent, or where the fork failed.
    pub fn parent(mut self) {
        self.finish(false);
    }

    /// Lets the heap go on, in the child. Only for a child that has the same process number as its parent, as the first process
    /// of a namespace of its own may: else it is known without.
    ///
    /// # Safety
    /// This is the child: no other thread of the process uses the heap.
    pub unsafe fn child(mut self) {
        self.finish(true);
    }

    fn finish(&mut self, child: bool) {
        if core::mem::replace(&mut self.done, true) {
            return;
        }
        let heap = &self.heap;
        if let Some(listener) = &heap.listener {
            listener.fork(if child {
                ForkStep::Child
            } else {
                ForkStep::Parent
            });
        }
        heap.space.release_lock();
        self.locks.clear();
        let inside = !self.own.is_null();
        if child {
            // SAFETY: a forked process has one thread, this one, and it is here.
            unsafe {
                heap.gate.forked(inside && !is_on(Bug::ForkInsideForgotten));
                heap.forked(self.own);
            }
        }
        heap.background.interrupt.set(false);
        heap.tending.lower(&heap.locals);
        heap.stopper.store(0, Ordering::Relaxed);
        heap.gate.open(inside);
    }
}

impl<V: Vm> Drop for Fork<'_, V> {
    fn drop(&mut self) {
        self.finish(process::id() != self.process);
    }
}

impl<V: Vm> Inner<V> {
    /// Is the calling thread in the middle of a collection, so that it must not wait for the world?
    pub(super) fn is_collecting_here(&self) -> bool {
        let stopped_it = self.stopper.load(Ordering::Relaxed) == current_thread();
        stopped_it || self.background.is_me() || self.pool.pool().is_helper()
    }

    /// Puts the heap in order in the child, world closed. `own`: the mutator that forked.
    ///
    /// # Safety
    /// The calling thread is the only one of the process.
    unsafe fn forked(&self, own: *mut Local<V>) {
        if !is_on(Bug::ForkHelpersKept) {
            self.pool.pool().forget_helpers_after_fork();
        }
        self.background.forked(self.space.marking());
        self.tending.forked(&self.options);
        let mut gone = Vec::new();
        let me = current_thread();
        // SAFETY: the caller's promise, and the world is closed.
        unsafe {
            self.locals.forked(|local| {
                let stays = ptr::eq(local, own)
                    || !local.inside
                        && (local.owner == me || self.vm.stays_after_fork(&local.thread));
                if !stays && !is_on(Bug::ForkMutatorsKept) {
                    gone.push(ptr::from_mut(local));
                }
                stays || is_on(Bug::ForkMutatorsKept)
            });
        }
        for local in gone {
            // SAFETY: it was in the list, so its memory is there, and its thread is gone.
            let local = unsafe { &mut *local };
            mutator::end(self, local);
        }
    }
}
