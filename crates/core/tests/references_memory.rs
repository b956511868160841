//! When memory for what the heap notes of references is refused: registering is an error, and a collection keeps more than it need, and
//! loses nothing.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

#[allow(dead_code, reason = "shared with another test")]
#[path = "references/runtime.rs"]
mod runtime;

use heapwright::{FinalizerOrder, Reference, ReferenceError, Strength};
use runtime::{Thread, USED, WEAK};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests of at least so many bytes are refused.
static REFUSED: AtomicUsize = AtomicUsize::new(usize::MAX);
/// How many were.
static COUNT: AtomicUsize = AtomicUsize::new(0);

struct Refusing;

impl Refusing {
    fn refuses(bytes: usize) -> bool {
        let refused = bytes >= REFUSED.load(Ordering::Relaxed);
        if refused {
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
        refused
    }
}

// SAFETY: the system's allocator, or null.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if Self::refuses(layout.size()) {
            return core::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) };
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if bytes > layout.size() && Self::refuses(bytes) {
            return core::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

/// Runs `f` with large requests refused.
fn refused<R>(f: impl FnOnce() -> R) -> R {
    COUNT.store(0, Ordering::Relaxed);
    REFUSED.store(32 << 10, Ordering::Relaxed);
    let result = f();
    REFUSED.store(usize::MAX, Ordering::Relaxed);
    assert!(COUNT.load(Ordering::Relaxed) > 0, "nothing was refused");
    result
}

const COUNTS: usize = 3000;

/// One test: the refusals are those of the whole process.
#[test]
fn without_memory_nothing_is_lost() {
    for setting in runtime::settings().filter(|s| s.many(COUNTS) == COUNTS) {
        let mut options = setting.options();
        // Its notes would be refused as well.
        options.verify = false;
        let heap = setting.heap::<true>(options);
        let t = &mut Thread::new(&heap);
        let soft = |h| Reference::soft(h, WEAK, USED);
        let map = t.mutator.weak_map().unwrap();
        let mut softs = Vec::new();
        // Number, and the place of the ephemeron; its key is the next root.
        for number in 0..COUNTS {
            let [holder, key, value] = [0, 1, 2].map(|part| t.new_object(part * COUNTS + number));
            t.ephemeron(holder, key, value);
            let other = t.new_object(3 * COUNTS + number);
            t.refer(other, value, soft);
            let (key_at, value_at) = (t.at(key), t.at(value));
            map.insert(&mut t.mutator, key_at, value_at).unwrap();
            if number % 3 == 0 {
                softs.push(t.mutator.weak(value_at, Strength::Soft).unwrap());
                t.finalizer(key, FinalizerOrder::Together);
            }
            t.drop_root(value);
        }
        // A third of the keys die, a third of what refers softly is cleared.
        for number in (0..COUNTS).step_by(3) {
            t.drop_root(4 * number + 1);
        }
        let stats = refused(|| t.mutator.collect()).unwrap();
        assert_eq!(
            stats.references,
            3 * COUNTS + 2 * COUNTS.div_ceil(3),
            "{setting:?}"
        );
        let check = |t: &mut Thread<true>, dead: bool| {
            for number in 0..COUNTS {
                let lives = !dead || number % 3 != 0;
                let expected = lives.then_some((COUNTS + number, Some(2 * COUNTS + number)));
                assert_eq!(
                    t.read_ephemeron(4 * number),
                    expected,
                    "{setting:?} {number}"
                );
                let value = t.read(4 * number + 3, soft);
                assert_eq!(value, Some(2 * COUNTS + number), "{setting:?}");
                if number % 3 != 0 {
                    let key = t.at(4 * number + 1);
                    let value = map.get(&mut t.mutator, key).unwrap();
                    assert_eq!(Thread::<true>::number(value), 2 * COUNTS + number);
                }
            }
        };
        // The keys that died wait to be finalized, and live.
        check(t, false);
        assert_eq!(map.len(), COUNTS, "{setting:?}");
        let expected: Vec<usize> = (0..COUNTS).step_by(3).map(|n| COUNTS + n).collect();
        // With one worker's share of the queue refused they are queued by the next collection.
        if t.heap.queued().0 == 0 {
            t.mutator.collect().unwrap();
        }
        assert_eq!(t.finalizable(), expected, "{setting:?}");
        // With memory again the dead go.
        t.mutator.collect().unwrap();
        check(t, true);
        assert_eq!(map.len(), COUNTS - COUNTS.div_ceil(3), "{setting:?}");
        assert!(softs.iter().all(|handle| !handle.is_cleared()));

        // Registering more and more is an error at some time, and what was registered before is there.
        let before = t.mutator.thread().len();
        let most = refused(|| {
            for number in 0..100_000 {
                let root = t.new_object(50_000 + number);
                let target = t.at(root);
                let to = t.at(0);
                // SAFETY: slots of a new object that nobody scans.
                unsafe {
                    let slot = target.to_address().add(WEAK as usize);
                    slot.store(to.to_address().as_usize());
                    match t.mutator.add_reference(&Reference::weak(target, WEAK)) {
                        Ok(()) => {}
                        Err(error) => {
                            assert_eq!(error, ReferenceError::NoMemory);
                            return number;
                        }
                    }
                }
            }
            panic!("nothing was refused");
        });
        t.mutator.collect().unwrap();
        assert!(most > 100);
        for number in 0..most {
            assert_eq!(t.read_weak(before + number), Some(0), "{setting:?}");
        }
        let refusal = refused(|| {
            (0..100_000).find_map(|_| {
                let target = t.at(0);
                t.mutator
                    .add_finalizer(target, FinalizerOrder::Together, 0)
                    .err()
            })
        });
        assert_eq!(refusal, Some(ReferenceError::NoMemory));
    }
}
