//! How the mutators of a heap are stopped, for runtimes that do it themselves.

/// Who is inside of a heap, and how all are brought out of it.
///
/// By default a heap has a gate of its own ([`crate::collect::gate::Gate`]): mutators poll a flag and stop. A runtime with other
/// means, such as one lock that only its running thread holds, implements this and hands it to [`crate::Builder::world`]. One
/// value may serve several heaps only if a thread that is inside of one is inside of all.
///
/// # Safety
/// 1. From a [`World::close`] that returned true to the following [`World::open`], no thread is inside but the one that closed, and
///    whatever others wrote while they were inside is visible to it.
/// 2. A [`World::close`] that returns false returns after another thread's closing began and ended.
/// 3. A thread that comes back inside sees what was written while the world was closed.
/// 4. No method allocates on the heap.
///
/// ```
/// use heapwright::example::Pairs;
/// use heapwright::{Heap, World};
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// /// For a runtime whose only thread is always inside.
/// struct Alone;
///
/// // SAFETY: there is nobody to stop, and nobody comes.
/// unsafe impl World for Alone {
///     fn enter(&self) {}
///
///     fn leave(&self) {}
///
///     fn stop(&self) {}
///
///     fn close(&self, _inside: bool, _raise: &dyn Fn()) -> bool {
///         true
///     }
///
///     fn open(&self, _inside: bool) {}
/// }
///
/// let heap = Heap::<Pairs>::builder()
///     .options(Pairs::options("markcompact")?)
///     .world(Arc::new(Alone))
///     .build(Pairs)?;
/// let mut mutator = heap.attach(Vec::new())?;
/// assert!(mutator.collect().is_some());
/// # Ok(())
/// # }
/// ```
pub unsafe trait World: Send + Sync {
    /// The calling thread, which is outside, comes inside, as soon as the world is open.
    fn enter(&self);

    /// The calling thread, which is inside, goes outside.
    fn leave(&self);

    /// The calling thread, which is inside, saw its flag raised: it stops here as long as the world is closed, and is inside when
    /// this returns. It may find that the world is open again.
    fn stop(&self);

    /// Brings all others outside: true when they are. False if another thread did that at the same time; then it is over when this
    /// returns. `inside`: the calling thread is inside, and stays so in either case. `raise` raises the flags that mutators poll.
    fn close(&self, inside: bool, raise: &dyn Fn()) -> bool;

    /// Brings all others outside if they are outside already: true if so, and the calling thread, which is outside, has closed the
    /// world. False, and nothing changed, if anybody is inside, or closed it, or nobody knows. Never waits. Where it is always false,
    /// collections are left to mutators, also while all are blocked.
    fn try_close(&self) -> bool {
        false
    }

    /// Lets all others come back. By the thread that closed; `inside` as it said then.
    fn open(&self, inside: bool);

    /// In the child of a fork: the calling thread had the world closed when it forked, and still has; all others are gone, wherever
    /// they were. `inside` as in [`World::close`]. Locks that others may have held become free. By default nothing: enough where the
    /// one who closes holds all there is.
    ///
    /// # Safety
    /// As said: the calling thread is the only one that uses the world, and is in none of its methods.
    unsafe fn forked(&self, inside: bool) {
        let _ = inside;
    }
}
