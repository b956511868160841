//! Heap dumps of the embedded machine, read by parsers that others wrote, against what the machine itself knows.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod dumps;

use dumps::{Census, Hprof, size_in_tools, snapshot};
use heapwright::{Heap, Mutator, ObjectReference, Options, Strength, Vm, plan};
use heapwright_bench::runtime::{Root, Runtime, Thread};
use heapwright_bench::vm::{Embedded, EmbeddedThread, Machine};
use heapwright_observe::dump::{
    DumpError, DumpFile, Extent, Format, Objects, dump_heap, expand, write,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

fn runtime<const HEADER: bool, const MAPPED: bool>(plan: &str) -> Embedded<HEADER, MAPPED> {
    let mut options = Options::default();
    options.set("plan", plan).unwrap();
    options.set("max", "64m").unwrap();
    options.set("workers", "2").unwrap();
    let machine = Machine::<HEADER, MAPPED>::default();
    Embedded(
        Heap::<Machine<HEADER, MAPPED>>::builder()
            .options(options)
            .build(machine)
            .unwrap(),
    )
}

/// Objects of many sizes that refer to each other at random, of which a part lives.
fn fill<T: Thread<Ref = ObjectReference>>(t: &mut T) {
    let mut random = 7u64;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) as usize % below
    };
    let table = t.array(800).unwrap();
    let table = t.push(Some(table));
    for index in 0..3000 {
        let object = match next(40) {
            0 => t.array(next(200)).unwrap(),
            1 => t.bytes(next(800)).unwrap(),
            2 => t.bytes(40_000 + next(9000)).unwrap(),
            3 => t.object(40 + next(9), next(90)).unwrap(),
            4 => t.weak(Root(0)).unwrap(),
            _ => t.object(next(5), next(60)).unwrap(),
        };
        for field in 0..t.references(object) {
            let target = t.get(t.root(table).unwrap(), next(800));
            if next(4) != 0 {
                t.set(object, field, target);
            }
        }
        let all = t.root(table).unwrap();
        t.set(all, (index * 7 + next(3)) % 800, Some(object));
    }
    t.collect();
}

/// What the machine can reach from its stack: what each refers to.
fn reachable<T: Thread<Ref = ObjectReference>>(t: &T) -> BTreeMap<u64, Vec<u64>> {
    let number = |o: ObjectReference| o.to_address().as_usize() as u64;
    let mut found = BTreeMap::new();
    let mut stack: Vec<ObjectReference> = (0..t.height()).filter_map(|i| t.root(Root(i))).collect();
    while let Some(object) = stack.pop() {
        if found.contains_key(&number(object)) {
            continue;
        }
        let fields: Vec<_> = (0..t.references(object))
            .map(|i| t.get(object, i))
            .collect();
        stack.extend(fields.iter().flatten());
        found.insert(
            number(object),
            fields.iter().map(|f| f.map_or(0, number)).collect(),
        );
    }
    found
}

fn dump<const H: bool, const M: bool>(
    t: &mut EmbeddedThread<H, M>,
    extent: Extent,
    format: Format,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = t
        .mutator()
        .freeze(|frozen| write(&mut Objects::new(frozen), extent, format, &mut bytes))
        .unwrap();
    assert_eq!(written.bytes, bytes.len() as u64);
    bytes
}

/// What is reached is in the dump, with each of its references, and nothing else.
fn check_reachable<const H: bool, const M: bool>(plan: &str) {
    let runtime = runtime::<H, M>(plan);
    let mut t = runtime.attach().unwrap();
    fill(&mut t);
    let wanted = reachable(&t);
    assert!(wanted.len() > 600, "{}", wanted.len());
    let hprof = Hprof::parse(&dump(&mut t, Extent::Reachable, Format::Hprof));
    let found: BTreeSet<u64> = hprof.objects.keys().copied().collect();
    assert_eq!(found, wanted.keys().copied().collect(), "{plan}");
    assert_eq!(hprof.reachable(), found, "{plan}");
    let mut references = 0;
    for (object, fields) in &wanted {
        let found = &hprof.objects[object];
        let (fields_found, padding) = found.references.split_at(fields.len());
        assert_eq!(fields_found, fields);
        assert!(padding.iter().all(|p| *p == 0) && (padding.is_empty() || found.array));
        references += fields.iter().filter(|f| **f != 0).count();
    }
    let (census, retained, between) =
        snapshot(&dump(&mut t, Extent::Reachable, Format::HeapSnapshot));
    let objects: usize = census.values().map(|c| c.0).sum();
    let bytes: usize = census.values().map(|c| c.1).sum();
    assert_eq!((objects, between), (wanted.len(), references));
    assert_eq!(retained, bytes as u64, "everything hangs from the root");
    let counts = |c: &Census| c.iter().map(|(k, v)| (k.clone(), v.0)).collect::<Vec<_>>();
    assert_eq!(counts(&census), counts(&hprof.census()));
}

#[test]
fn what_is_reached_is_in_the_dump() {
    for (index, plan) in plan::ALL.iter().enumerate() {
        check_reachable::<false, false>(plan.name);
        if index % 2 == 0 {
            check_reachable::<true, true>(plan.name);
        }
    }
}

#[test]
fn counts_and_bytes_are_those_of_the_census() {
    for plan in plan::ALL {
        let runtime = runtime::<false, true>(plan.name);
        let mut t = runtime.attach().unwrap();
        fill(&mut t);
        // Some that are dead.
        for _ in 0..100 {
            t.object(1, 9).unwrap();
        }
        let mut census = Census::new();
        let mut in_tools = [Census::new(), Census::new()];
        for count in t.mutator().census() {
            census.insert(count.name, (count.objects, count.bytes));
        }
        let heap = runtime.0.clone();
        let mut sizes = Vec::new();
        t.mutator().for_each_object(&mut |o| {
            let vm = heap.vm();
            sizes.push((o, vm.type_name(vm.type_of(o)), vm.size(o)));
        });
        for (object, name, bytes) in sizes {
            for (tool, size) in size_in_tools(bytes, t.references(object))
                .into_iter()
                .enumerate()
            {
                let count = in_tools[tool].entry(name.clone()).or_default();
                count.0 += 1;
                count.1 += size;
            }
        }
        let hprof = Hprof::parse(&dump(&mut t, Extent::All, Format::Hprof));
        assert_eq!([hprof.census(), hprof.sizes()], in_tools, "{}", plan.name);
        let (found, ..) = snapshot(&dump(&mut t, Extent::All, Format::HeapSnapshot));
        assert_eq!(found, census, "{}", plan.name);
        // After a collection that leaves nothing dead, what is reached is everything.
        t.collect();
        if plan.name != "nogc" {
            let all = dump(&mut t, Extent::All, Format::Hprof);
            let reached = dump(&mut t, Extent::Reachable, Format::Hprof);
            assert_eq!(
                Hprof::parse(&all).objects,
                Hprof::parse(&reached).objects,
                "{}",
                plan.name
            );
        }
    }
}

#[test]
fn a_large_object_has_a_segment_of_its_own() {
    let runtime = runtime::<false, false>("immix");
    let mut t = runtime.attach().unwrap();
    let array = t.array(400_000).unwrap();
    let array = t.push(Some(array));
    let small = t.object(0, 24).unwrap();
    let all = t.root(array).unwrap();
    t.set(all, 399_999, Some(small));
    let hprof = Hprof::parse(&dump(&mut t, Extent::Reachable, Format::Hprof));
    assert_eq!(hprof.objects.len(), 2);
    let (census, ..) = snapshot(&dump(&mut t, Extent::Reachable, Format::HeapSnapshot));
    assert_eq!(census["array"], (1, 8 + 8 * 400_000));
    assert_eq!(census["object"], (1, 32));
}

#[test]
fn a_heap_without_a_map_says_that_it_does_not_know_all() {
    let runtime = runtime::<false, false>("immix");
    let mut t = runtime.attach().unwrap();
    let refused = t.mutator().freeze(|frozen| {
        let to = &mut std::io::sink();
        write(&mut Objects::new(frozen), Extent::All, Format::Hprof, to)
    });
    assert!(matches!(refused, Err(DumpError::NotAll)));
    let empty = Hprof::parse(&dump(&mut t, Extent::Reachable, Format::Hprof));
    assert!(empty.objects.is_empty());
    assert_eq!(
        snapshot(&dump(&mut t, Extent::Reachable, Format::HeapSnapshot)),
        (Census::new(), 0, 0)
    );
}

// ANCHOR: rust
/// Writes what lives to a file, now, and again when memory runs out.
fn dump_now_and_when_full<V: Vm>(mutator: &mut Mutator<V>, path: &Path) -> Result<u64, DumpError> {
    let full = path.with_file_name("full-%p.heapsnapshot");
    mutator.heap().on_out_of_memory(move |mutator, _bytes| {
        if let Err(why) = dump_heap(mutator, &full, Extent::Reachable) {
            eprintln!("{why}");
        }
    });
    let written = dump_heap(mutator, path, Extent::Reachable)?;
    Ok(written.objects)
}
// ANCHOR_END: rust

#[test]
fn the_example_of_the_page_writes_both() {
    let directory = std::env::temp_dir().join(format!("heapwright-both-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let runtime = runtime::<false, false>("immix");
    let mut t = runtime.attach().unwrap();
    fill(&mut t);
    let path = directory.join("now.hprof");
    let objects = dump_now_and_when_full(t.mutator(), &path).unwrap();
    assert_eq!(
        Hprof::parse(&std::fs::read(&path).unwrap()).objects.len() as u64,
        objects
    );
    assert!(t.bytes(80 << 20).is_err());
    let full = expand(&directory.join("full-%p.heapsnapshot"), 1);
    let (census, ..) = snapshot(&std::fs::read(&full).unwrap());
    let counted: usize = census.values().map(|c| c.0).sum();
    assert_eq!(counted as u64, objects);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_file_has_its_name_when_it_is_whole() {
    let directory = std::env::temp_dir().join(format!("heapwright-dump-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let runtime = runtime::<false, false>("immix");
    let mut t = runtime.attach().unwrap();
    fill(&mut t);
    let path = directory.join("of-%p.hprof");
    let written = dump_heap(t.mutator(), &path, Extent::Reachable).unwrap();
    let bytes = std::fs::read(expand(&path, 1)).unwrap();
    assert_eq!(bytes.len() as u64, written.bytes);
    assert_eq!(Hprof::parse(&bytes).objects.len() as u64, written.objects);

    let mut half = DumpFile::create(&directory.join("half.hprof")).unwrap();
    std::io::Write::write_all(half.file(), b"JAVA").unwrap();
    drop(half);
    let refused = dump_heap(t.mutator(), &directory.join("dump.txt"), Extent::Reachable);
    assert!(matches!(refused, Err(DumpError::Format(_))));
    let refused = dump_heap(
        t.mutator(),
        &directory.join("no/x.hprof"),
        Extent::Reachable,
    );
    assert!(matches!(refused, Err(DumpError::Write(_))));
    // A disk that is always full.
    if Path::new("/dev/full").exists() {
        let mut full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let refused = t.mutator().freeze(|frozen| {
            write(
                &mut Objects::new(frozen),
                Extent::Reachable,
                Format::HeapSnapshot,
                &mut full,
            )
        });
        assert!(matches!(refused, Err(DumpError::Write(e)) if e.raw_os_error() == Some(28)));
    }
    let names: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(names, [expand(&path, 1)]);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn what_soft_references_and_ephemerons_keep_is_in_the_dump() {
    let runtime = runtime::<false, false>("immix");
    let mut t = runtime.attach().unwrap();
    let object = |t: &mut EmbeddedThread<false, false>, raw: usize| {
        let object = t.object(0, raw).unwrap();
        t.push(Some(object))
    };
    let key = object(&mut t, 8);
    let bottom = t.height();
    // An object by its size: what the first ephemeron keeps is the key of the second.
    let first = object(&mut t, 100);
    let second = object(&mut t, 108);
    let soft = object(&mut t, 116);
    let mapped = object(&mut t, 124);
    let weak = object(&mut t, 132);
    let dead = object(&mut t, 140);
    let map = t.weak_map().unwrap();
    let (k, v) = (t.root(key).unwrap(), t.root(mapped).unwrap());
    map.insert(t.mutator(), k, v).unwrap();
    let holders = [
        t.ephemeron(first, second),
        t.ephemeron(key, first),
        t.ephemeron(dead, weak),
        t.reference(Strength::Soft, soft),
        t.reference(Strength::Weak, weak),
        t.reference(Strength::Phantom, dead),
    ];
    t.truncate(bottom);
    for holder in holders {
        t.push(Some(holder.unwrap()));
    }
    let hprof = Hprof::parse(&dump(&mut t, Extent::Reachable, Format::Hprof));
    let objects = hprof.objects.values().filter(|o| o.kind == "object");
    let mut sizes: Vec<usize> = objects.map(|o| o.bytes).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [16, 112, 120, 128, 136]);
    assert_eq!(hprof.census()["ephemeron"].0, 3);
    assert_eq!(hprof.reachable().len(), hprof.objects.len());
}

#[test]
fn before_memory_runs_out_the_hook_sees_what_filled_it() {
    for plan in plan::ALL {
        let mut options = Options::default();
        options.set("plan", plan.name).unwrap();
        options.set("max", "4m").unwrap();
        let heap = Heap::<Machine<false, false>>::builder()
            .options(options)
            .build(Machine::default())
            .unwrap();
        let dumps = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&dumps);
        let dump_it = move |mutator: &mut Mutator<Machine<false, false>>, bytes: usize| {
            // What it allocates fails, and does not call it again.
            assert!(bytes == 48 || bytes > 100_000, "{bytes}");
            let refused = mutator.alloc(1 << 20);
            assert!(refused.is_err());
            let mut dump = Vec::new();
            mutator
                .freeze(|f| {
                    write(
                        &mut Objects::new(f),
                        Extent::Reachable,
                        Format::Hprof,
                        &mut dump,
                    )
                })
                .unwrap();
            to.lock().unwrap().push(dump);
        };
        assert!(heap.on_out_of_memory(dump_it));
        assert!(!heap.on_out_of_memory(|_, _| panic!("the second")));
        let runtime = Embedded(heap);
        let mut t = runtime.attach().unwrap();
        let list = t.push(None);
        let mut length = 0;
        while let Ok(node) = t.object(1, 32) {
            let next = t.root(list);
            t.set(node, 0, next);
            t.set_root(list, Some(node));
            length += 1;
        }
        assert!(t.bytes(8 << 20).is_err());
        let taken = dumps.lock().unwrap();
        assert_eq!(taken.len(), 2, "{}", plan.name);
        for dump in &*taken {
            let hprof = Hprof::parse(dump);
            assert_eq!(hprof.objects.len(), length, "{}", plan.name);
        }
        assert!(length > 500, "{}: {length}", plan.name);
        // The heap goes on.
        t.truncate(0);
        if plan.name != "nogc" {
            assert!(t.object(1, 32).is_ok(), "{}", plan.name);
        }
    }
}
