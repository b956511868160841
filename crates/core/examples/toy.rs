//! A language runtime to learn from: objects with any number of fields, global variables, threads. On every plan.
//!
//!     cargo run --release -p heapwright --example toy
//!
//! The book explains it line by line (docs/bind-a-vm.md).

#![allow(clippy::print_stdout)]

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use heapwright::{
    Address, AllocError, Heap, Metadata, Mutator, ObjectReference, Options, PlanName, RootVisitor,
    SlotVisitor, Vm, WordSlots,
};

// ANCHOR: runtime
/// The runtime: what all threads share.
#[derive(Debug, Default)]
pub struct Toy {
    globals: [AtomicUsize; 2],
}

/// What each thread has for itself.
#[derive(Debug)]
pub struct Thread {
    stack: Vec<usize>,
    /// Which global variable it uses.
    global: usize,
}

/// An object: a header, and fields. The header has the number of fields above the low eight bits, which are the heap's.
const WORD: usize = 8;

fn fields(object: ObjectReference) -> usize {
    // SAFETY: the first word of an object, which is written once.
    unsafe { object.to_address().load::<usize>() >> 8 }
}

fn field(object: ObjectReference, index: usize) -> Address {
    object.to_address().add(WORD * (1 + index))
}
// ANCHOR_END: runtime

// ANCHOR: vm
// SAFETY: 1: the header says how many fields were asked for. 2: those are all. 3: references are on stacks and in globals only, while
// a thread can be stopped. 4: `Op::New` keeps the header's low bits. 5: fields are written by `Mutator::write`. 6: nothing here
// allocates or waits.
unsafe impl Vm for Toy {
    type Thread = Thread;
    type Slots = WordSlots;
    const METADATA: Metadata = Metadata::Header;

    fn slots(&self) -> WordSlots {
        WordSlots
    }

    fn size(&self, object: ObjectReference) -> usize {
        // At least 16 bytes: rule 1.
        (WORD * (1 + fields(object))).max(16)
    }

    fn scan<S: SlotVisitor>(&self, object: ObjectReference, visit: &mut S) {
        visit.slots(field(object, 0), fields(object));
    }

    fn thread_roots<R: RootVisitor>(&self, thread: &mut Thread, visit: &mut R) {
        visit.slots(Address::from_ptr(thread.stack.as_ptr()), thread.stack.len());
    }

    fn roots<R: RootVisitor>(&self, visit: &mut R) {
        visit.slots(Address::from_ptr(self.globals.as_ptr()), self.globals.len());
    }
}
// ANCHOR_END: vm

// ANCHOR: code
/// What a program consists of. The stack is the thread's; `top` is what was pushed last.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Pushes nothing.
    Nil,
    /// Pops so many values and pushes an object that holds them.
    New(usize),
    /// Pushes the thread's global variable.
    Load,
    /// Pops a value and writes it into that variable.
    Store,
    /// Pops a value.
    Drop,
    /// A part of the program, so many times.
    Repeat(usize, &'static [Op]),
}

fn reference(word: usize) -> Option<ObjectReference> {
    ObjectReference::from_address(Address::new(word))
}
// ANCHOR_END: code

// ANCHOR: run
/// Runs a program on the calling thread's mutator.
///
/// # Errors
/// If the heap is full.
pub fn run(mutator: &mut Mutator<Toy>, program: &[Op]) -> Result<(), AllocError> {
    for op in program {
        match *op {
            Op::Nil => mutator.thread().stack.push(0),
            Op::New(count) => {
                let object = mutator.alloc((WORD * (1 + count)).max(16))?;
                let header = object.to_address();
                // SAFETY: the first word of a new object, which nobody else knows.
                unsafe { header.store(header.load::<usize>() | count << 8) };
                for index in (0..count).rev() {
                    if let Some(value) = mutator.thread().stack.pop().and_then(reference) {
                        // SAFETY: a field of the object; the value was on the stack, and there was no safepoint since.
                        unsafe { mutator.write(object, field(object, index), value) };
                    }
                }
                mutator.thread().stack.push(object.to_address().as_usize());
            }
            Op::Load => {
                let value = mutator.vm().globals[mutator.thread_ref().global].load(Relaxed);
                mutator.thread().stack.push(value);
            }
            Op::Store => {
                let value = mutator.thread().stack.pop().unwrap_or(0);
                mutator.vm().globals[mutator.thread_ref().global].store(value, Relaxed);
            }
            Op::Drop => drop(mutator.thread().stack.pop()),
            Op::Repeat(times, part) => {
                for _ in 0..times {
                    run(mutator, part)?;
                    mutator.poll();
                }
            }
        }
    }
    Ok(())
}
// ANCHOR_END: run

// ANCHOR: main
/// Makes a list of a thousand objects in a global variable, and fifty times as many objects that nobody needs.
const GARBAGE: &[Op] = &[Op::Nil, Op::Nil, Op::New(2), Op::Drop];
const LONGER: &[Op] = &[Op::Load, Op::New(1), Op::Store];
const PROGRAM: &[Op] = &[Op::Repeat(50, GARBAGE), Op::Repeat(1, LONGER)];

/// Two threads on one heap: how long their lists are in the end, and how many collections there were.
///
/// # Errors
/// If the heap cannot be built, or is too small.
pub fn threads(plan: PlanName) -> Result<([usize; 2], u64), Box<dyn core::error::Error>> {
    let mut options = Options::from_env()?;
    options.plan = plan;
    // NoGc never frees, and a page for each object takes much room.
    let roomy = matches!(plan, PlanName::NoGc | PlanName::PageProtect);
    options.max = if roomy { 2 << 30 } else { 1 << 20 };
    let heap = Heap::<Toy>::builder()
        .options(options)
        .build(Toy::default())?;
    std::thread::scope(|scope| {
        let started = [0, 1].map(|global| {
            let (heap, stack) = (&heap, Vec::new());
            scope.spawn(move || -> Result<usize, String> {
                let thread = Thread { stack, global };
                let mut mutator = heap.attach(thread).map_err(|e| e.to_string())?;
                run(&mut mutator, &[Op::Repeat(1000, PROGRAM)]).map_err(|e| e.to_string())?;
                Ok(length(&mutator))
            })
        });
        let mut lengths = [0; 2];
        for (length, thread) in lengths.iter_mut().zip(started) {
            *length = thread.join().map_err(|_| "a panic")??;
        }
        Ok((lengths, heap.usage().collections))
    })
}

/// The length of the list in the thread's global variable.
fn length(mutator: &Mutator<Toy>) -> usize {
    let global = &mutator.vm().globals[mutator.thread_ref().global];
    // SAFETY: the first field of an object that a global leads to; there is no safepoint here.
    let next = |object: &ObjectReference| reference(unsafe { field(*object, 0).load() });
    core::iter::successors(reference(global.load(Relaxed)), next).count()
}

/// Runs all plans.
#[allow(dead_code, reason = "the tests use `threads`")]
fn main() -> Result<(), Box<dyn core::error::Error>> {
    for plan in PlanName::ALL {
        let (lengths, collections) = threads(plan)?;
        println!("{plan}: lists of {lengths:?} objects after {collections} collections");
    }
    Ok(())
}
// ANCHOR_END: main
