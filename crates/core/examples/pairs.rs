//! A whole language runtime in a hundred lines: pairs of two references, as in Lisp, on every plan.
//!
//!     cargo run --release -p heapwright --example pairs

#![allow(clippy::print_stdout)]

use heapwright::{
    Address, AllocError, Heap, HeapError, Metadata, Mutator, ObjectReference, Options, PlanName,
    RootVisitor, SlotVisitor, Vm, WordSlots,
};

/// The runtime. It has no data of its own.
#[derive(Debug)]
pub struct Pairs;

/// Bytes of a pair: a header, `first` and `second`.
const PAIR: usize = 24;
/// What the runtime writes into a header. The low eight bits are the heap's.
const HEADER: usize = 0xc0 << 8;

fn first(pair: ObjectReference) -> Address {
    pair.to_address().add(8)
}

fn second(pair: ObjectReference) -> Address {
    pair.to_address().add(16)
}

// SAFETY: 1: all objects are pairs. 2: they have two fields. 3: the stack of each thread has all its references. 4: `pair` keeps
// the header's low bits. 5: pairs are written once, when they are new, and through the barrier all the same. 6: nothing here
// allocates or waits.
unsafe impl Vm for Pairs {
    type Thread = Vec<usize>;
    type Slots = WordSlots;
    const METADATA: Metadata = Metadata::Header;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, _: ObjectReference) -> usize {
        PAIR
    }

    fn scan<S: SlotVisitor>(&self, pair: ObjectReference, visit: &mut S) {
        visit.slots(first(pair), 2);
    }

    fn thread_roots<R: RootVisitor>(&self, stack: &mut Vec<usize>, visit: &mut R) {
        visit.slots(Address::from_ptr(stack.as_ptr()), stack.len());
    }
}

/// Replaces the two topmost references of the stack by a pair of them.
fn pair(mutator: &mut Mutator<Pairs>) -> Result<(), AllocError> {
    let pair = mutator.alloc(PAIR)?;
    // SAFETY: a new object of `PAIR` bytes: its header, and then its fields.
    unsafe {
        pair.to_address()
            .store(pair.to_address().load::<usize>() | HEADER)
    };
    for field in [second(pair), first(pair)] {
        if let Some(value) = mutator
            .thread()
            .pop()
            .and_then(|w| ObjectReference::from_address(Address::new(w)))
        {
            // SAFETY: a field of the new pair; the value was on the stack, so it is alive.
            unsafe { mutator.write(pair, field, value) };
        }
    }
    mutator.thread().push(pair.to_address().as_usize());
    Ok(())
}

/// A list of so many elements on top of the stack.
fn list(mutator: &mut Mutator<Pairs>, length: usize) -> Result<(), AllocError> {
    mutator.thread().push(0);
    for _ in 0..length {
        mutator.thread().push(0);
        pair(mutator)?;
    }
    Ok(())
}

/// The length of the list on top of the stack, which is taken off.
fn length(mutator: &mut Mutator<Pairs>) -> usize {
    let mut length = 0;
    let mut rest = mutator.thread().pop().unwrap_or(0);
    while let Some(pair) = ObjectReference::from_address(Address::new(rest)) {
        length += 1;
        // SAFETY: a field of a pair that is alive: there is no safepoint in this loop.
        rest = unsafe { first(pair).load() };
    }
    length
}

/// Keeps one list and drops many: how many collections that took. Gives the length of the list that was kept.
///
/// # Errors
/// If the heap cannot be built, or is too small.
pub fn run(plan: PlanName) -> Result<(usize, u64), Box<dyn std::error::Error>> {
    let max = if plan == PlanName::NoGc { 0 } else { 2 << 20 };
    let options = Options {
        plan,
        max,
        ..Options::default()
    };
    let heap = Heap::<Pairs>::builder().options(options).build(Pairs)?;
    let mut mutator = heap.attach(Vec::new()).map_err(|e: HeapError| e)?;
    let (kept, dropped) = if plan == PlanName::PageProtect {
        (100, 5)
    } else {
        (10_000, 50)
    };
    list(&mut mutator, kept)?;
    for _ in 0..dropped {
        list(&mut mutator, kept)?;
        mutator.thread().pop();
    }
    let length = length(&mut mutator);
    Ok((length, heap.usage().collections))
}

/// Runs all plans.
#[allow(dead_code, reason = "the tests use `run`")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    for plan in PlanName::ALL {
        let (length, collections) = run(plan)?;
        println!("{plan}: the list has {length} pairs after {collections} collections");
    }
    Ok(())
}
