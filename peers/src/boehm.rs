//! The collector of Boehm, Demers and Weiser, as the system has it.
//!
//! Objects with references are scanned whole and conservatively, those without are not scanned: `GC_malloc` and
//! `GC_malloc_atomic`, which is how programs use it.

use crate::layout::{self, Object, from_word, to_word};
use crate::record::{self, Pause};
use core::ffi::{c_char, c_int, c_uint, c_void};
use core::ptr::NonNull;
use heapwright_bench::runtime::{Full, Root, Runtime, Thread};
use std::sync::Mutex;
use std::time::Instant;

#[repr(C)]
struct StackBase {
    memory: *mut c_void,
    // Not there on x86-64 and AArch64, but room for those who have it.
    registers: *mut c_void,
}

const SUCCESS: c_int = 0;
const DUPLICATE: c_int = 1;
const EVENT_START: c_int = 0;
const EVENT_END: c_int = 5;

#[link(name = "gc")]
unsafe extern "C" {
    fn GC_init();
    fn GC_malloc(bytes: usize) -> *mut c_void;
    fn GC_malloc_atomic(bytes: usize) -> *mut c_void;
    fn GC_malloc_uncollectable(bytes: usize) -> *mut c_void;
    fn GC_free(memory: *mut c_void);
    fn GC_gcollect();
    fn GC_set_max_heap_size(bytes: usize);
    fn GC_set_markers_count(count: c_uint);
    fn GC_allow_register_threads();
    fn GC_get_stack_base(base: *mut StackBase) -> c_int;
    fn GC_register_my_thread(base: *const StackBase) -> c_int;
    fn GC_unregister_my_thread() -> c_int;
    fn GC_general_register_disappearing_link(
        link: *mut *mut c_void,
        object: *const c_void,
    ) -> c_int;
    fn GC_set_on_collection_event(f: extern "C" fn(c_int));
    fn GC_set_warn_proc(f: unsafe extern "C" fn(*mut c_char, usize));
    fn GC_ignore_warn_proc(message: *mut c_char, argument: usize);
}

/// When the collection under way started.
static STARTED: Mutex<Option<Instant>> = Mutex::new(None);

/// Called with the collector's lock held and the world running.
extern "C" fn on_event(event: c_int) {
    let mut started = STARTED.lock().unwrap_or_else(|e| e.into_inner());
    match event {
        EVENT_START => *started = Some(Instant::now()),
        EVENT_END => {
            if let Some(from) = started.take() {
                record::pause(Pause {
                    time: from.elapsed(),
                    ends: true,
                    full: true,
                });
            }
        }
        _ => {}
    }
}

/// The heap; the library has one for the process.
#[derive(Debug)]
pub(crate) struct Boehm(());

impl Boehm {
    /// Sets the heap up. To be called once, by the first thread.
    pub(crate) fn new(heap_bytes: usize, workers: usize) -> Self {
        // SAFETY: in the order that the library wants, before other threads are there.
        unsafe {
            GC_set_markers_count(c_uint::try_from(workers).unwrap_or(1));
            GC_init();
            GC_allow_register_threads();
            GC_set_max_heap_size(heap_bytes);
            GC_set_warn_proc(GC_ignore_warn_proc);
            GC_set_on_collection_event(on_event);
        }
        Self(())
    }
}

impl Runtime for Boehm {
    type Thread<'r> = BoehmThread;

    fn attach(&self) -> Result<BoehmThread, Full> {
        let mut base = StackBase {
            memory: core::ptr::null_mut(),
            registers: core::ptr::null_mut(),
        };
        // SAFETY: for the calling thread, which unregisters when what is returned here is dropped, on the same thread, since
        // that is not `Send`.
        let registration = unsafe {
            if GC_get_stack_base(&raw mut base) != SUCCESS {
                return Err(Full);
            }
            match GC_register_my_thread(&raw const base) {
                SUCCESS => Some(Registration),
                // The first thread is known from the start.
                DUPLICATE => None,
                _ => return Err(Full),
            }
        };
        Ok(BoehmThread {
            stack: Stack::new(1024)?,
            _registration: registration,
        })
    }
}

/// A shadow stack, in memory that the collector scans and does not collect. What is above the height is empty.
#[derive(Debug)]
struct Stack {
    base: NonNull<Option<Object>>,
    height: usize,
    capacity: usize,
}

impl Stack {
    fn new(capacity: usize) -> Result<Self, Full> {
        // SAFETY: it comes back zeroed, which are empty places.
        let base = NonNull::new(unsafe { GC_malloc_uncollectable(capacity * 8) }).ok_or(Full)?;
        Ok(Self {
            base: base.cast(),
            height: 0,
            capacity,
        })
    }

    #[inline(always)]
    fn places(&self) -> &[Option<Object>] {
        // SAFETY: all below the height were written.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.height) }
    }

    #[inline(always)]
    fn places_mut(&mut self) -> &mut [Option<Object>] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.height) }
    }

    #[inline(always)]
    fn push(&mut self, value: Option<Object>) -> Root {
        if self.height == self.capacity {
            self.grow();
        }
        // SAFETY: within the capacity.
        unsafe { self.base.add(self.height).write(value) };
        self.height += 1;
        Root(self.height - 1)
    }

    #[cold]
    fn grow(&mut self) {
        // The traits have no error here, and such a stack is a mistake of the workload.
        let Ok(mut larger) = Self::new(self.capacity * 2) else {
            std::process::abort();
        };
        larger.height = self.height;
        larger.places_mut().copy_from_slice(self.places());
        *self = larger;
    }

    #[inline(always)]
    fn truncate(&mut self, height: usize) {
        if height < self.height {
            self.places_mut()[height..].fill(None);
            self.height = height;
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: it was allocated here.
        unsafe { GC_free(self.base.as_ptr().cast()) };
    }
}

/// A registered thread is unregistered by the fall of this.
#[derive(Debug)]
struct Registration;

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: this thread registered, and this does not leave it.
        unsafe { GC_unregister_my_thread() };
    }
}

/// A thread of [`Boehm`].
///
/// Field order is drop order: the stack needs the registration.
#[derive(Debug)]
pub(crate) struct BoehmThread {
    stack: Stack,
    _registration: Option<Registration>,
}

impl BoehmThread {
    #[inline(always)]
    fn scanned(references: usize, raw: usize) -> Result<Object, Full> {
        let bytes = layout::bytes(references, raw)?;
        // SAFETY: this thread is registered; what comes back is zeroed and ours.
        unsafe {
            let start = NonNull::new(GC_malloc(bytes)).ok_or(Full)?;
            Ok(Object::format(start.cast(), references, raw))
        }
    }

    #[inline(always)]
    fn unscanned(raw: usize) -> Result<Object, Full> {
        let bytes = layout::bytes(0, raw)?;
        // SAFETY: this thread is registered; what comes back is ours, and is zeroed here.
        unsafe {
            let start = NonNull::new(GC_malloc_atomic(bytes)).ok_or(Full)?;
            start.cast::<u8>().write_bytes(0, bytes);
            Ok(Object::format(start.cast(), 0, raw))
        }
    }
}

impl Thread for BoehmThread {
    type Ref = Object;

    #[inline(always)]
    fn object(&mut self, references: usize, raw: usize) -> Result<Object, Full> {
        if references == 0 {
            Self::unscanned(raw)
        } else {
            Self::scanned(references, raw)
        }
    }

    #[inline(always)]
    fn array(&mut self, length: usize) -> Result<Object, Full> {
        Self::scanned(length, 0)
    }

    #[inline(always)]
    fn bytes(&mut self, length: usize) -> Result<Object, Full> {
        Self::unscanned(length)
    }

    fn weak(&mut self, referent: Root) -> Result<Object, Full> {
        let new = Self::unscanned(8)?;
        if let Some(held) = self.root(referent) {
            new.set_raw(0, to_word(Some(held)));
            // SAFETY: the raw word is behind the header, is not scanned, and holds what it is registered for.
            let done = unsafe {
                let link = new.start().add(layout::HEADER).cast::<*mut c_void>();
                GC_general_register_disappearing_link(link.as_ptr(), held.start().as_ptr().cast())
            };
            if done != SUCCESS {
                return Err(Full);
            }
        }
        Ok(new)
    }

    #[inline(always)]
    fn weak_get(&mut self, weak: Object) -> Option<Object> {
        // Once it is in a register, the collector sees it.
        from_word(weak.raw(0))
    }

    #[inline(always)]
    fn get(&self, object: Object, index: usize) -> Option<Object> {
        object.get(index)
    }

    #[inline(always)]
    fn set(&mut self, object: Object, index: usize, value: Option<Object>) {
        object.set(index, value);
    }

    #[inline(always)]
    fn references(&self, object: Object) -> usize {
        object.references()
    }

    #[inline(always)]
    fn raw_bytes(&self, object: Object) -> usize {
        object.raw_bytes()
    }

    #[inline(always)]
    fn raw(&self, object: Object, offset: usize) -> u64 {
        object.raw(offset)
    }

    #[inline(always)]
    fn set_raw(&mut self, object: Object, offset: usize, value: u64) {
        object.set_raw(offset, value);
    }

    #[inline(always)]
    fn raw_slice(&mut self, object: Object) -> &mut [u8] {
        // SAFETY: nothing moves here; the workload sees to the rest.
        unsafe { object.raw_slice() }
    }

    #[inline(always)]
    fn same(&self, a: Object, b: Object) -> bool {
        a == b
    }

    #[inline(always)]
    fn push(&mut self, value: Option<Object>) -> Root {
        self.stack.push(value)
    }

    #[inline(always)]
    fn root(&self, root: Root) -> Option<Object> {
        self.stack.places()[root.0]
    }

    #[inline(always)]
    fn set_root(&mut self, root: Root, value: Option<Object>) {
        self.stack.places_mut()[root.0] = value;
    }

    #[inline(always)]
    fn height(&self) -> usize {
        self.stack.height
    }

    #[inline(always)]
    fn truncate(&mut self, height: usize) {
        self.stack.truncate(height);
    }

    #[inline(always)]
    fn poll(&mut self) {}

    fn collect(&mut self) {
        // SAFETY: this thread is registered.
        unsafe { GC_gcollect() };
    }

    fn outside<R>(&mut self, f: impl FnOnce() -> R) -> R {
        // A signal stops it wherever it is.
        f()
    }
}
