//! Many heaps where the process may have few addresses (`ulimit -v`). Alone in its process, whose limit it changes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod lists;

use heapwright::{AllocError, Builder, Heap, HeapError, PlanName};
use lists::{Lists, length, options, push};

/// Sets the limit on addresses, in bytes; `None`: none beside the hard one.
fn limit(bytes: Option<usize>) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: writes to and reads from a local.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &raw mut limit), 0);
        limit.rlim_cur = bytes.map_or(limit.rlim_max, |b| b as libc::rlim_t);
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &raw const limit), 0);
    }
}

fn addresses() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<usize>().unwrap() * 4096
}

fn build(plan: PlanName) -> Result<Heap<Lists>, HeapError> {
    Builder::default()
        .options(options(plan, &[("max", "32m"), ("workers", "1")]))
        .build(Lists)
}

/// Uses a heap: true if all that its `max` allows had addresses.
fn works(heap: &Heap<Lists>, objects: usize) -> bool {
    let mut mutator = heap.attach(vec![0]).unwrap();
    for n in 0..objects {
        match push(&mut mutator, 0, 100) {
            Ok(()) => {}
            Err(AllocError::OutOfMemory { .. } | AllocError::Os(_)) => {
                assert_eq!(length(&mut mutator, 0), n);
                return false;
            }
            Err(e) => panic!("{e}"),
        }
    }
    let _ = mutator.collect();
    assert_eq!(length(&mut mutator, 0), objects);
    true
}

#[test]
fn heaps_that_find_no_addresses_are_an_error() {
    // What the test itself and the standard library take once.
    assert!(works(&build(PlanName::Immix).unwrap(), 10));
    for plan in [
        PlanName::Immix,
        PlanName::GenCopy,
        PlanName::MarkSweep,
        PlanName::ConcurrentImmix,
    ] {
        limit(Some(addresses() + (900 << 20)));
        let mut heaps = Vec::new();
        let error = loop {
            match build(plan) {
                Ok(heap) => heaps.push(heap),
                Err(e) => break e,
            }
            assert!(heaps.len() < 1000, "the limit is not kept");
        };
        let said = error.to_string();
        eprintln!("{plan}: {} heaps, then: {said}", heaps.len());
        assert!(heaps.len() >= 4, "{}", heaps.len());
        assert!(said.contains("ulimit -v") && said.contains("max"), "{said}");
        // Those that are there can be used, for more than a little.
        assert!(works(&heaps[0], 12_000), "{plan}");
        for heap in &heaps {
            assert!(works(heap, 10), "{plan}");
            let _ = works(heap, 12_000);
        }
        // One that goes makes room for another.
        heaps.truncate(heaps.len() / 2);
        heaps.push(build(plan).unwrap());
        assert!(works(&heaps[heaps.len() - 1], 4000), "{plan}");
        drop(heaps);
        limit(None);
    }
}
