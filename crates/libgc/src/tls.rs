//! The one thread-local word: the calling thread's record.
//!
//! Allocation reads it each time, and so does the suspend handler, which must not allocate. Both rule out the general
//! dynamic model, whose first access in a thread may call malloc. On x86-64 the word therefore is defined in the
//! initial-exec model by hand: one load of the offset and one of the word. Elsewhere it is a `thread_local!` constant
//! without a destructor, which is accessed without allocating on the targets that exist, at the price of a call.

use crate::threads::ThreadRecord;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod word {
    use crate::threads::ThreadRecord;

    core::arch::global_asm!(
        ".section .tbss.heapwright_libgc_thread,\"awT\",@nobits",
        ".globl heapwright_libgc_thread",
        ".hidden heapwright_libgc_thread",
        ".type heapwright_libgc_thread, @object",
        ".size heapwright_libgc_thread, 8",
        ".p2align 3",
        "heapwright_libgc_thread:",
        ".zero 8",
        ".text",
    );

    #[inline(always)]
    pub(super) fn load() -> *mut ThreadRecord {
        let record;
        // SAFETY: the symbol is eight bytes of this module's thread-local storage, zero at first, which the loader gives
        // to each thread before it runs; its offset from the thread pointer is in the GOT.
        unsafe {
            core::arch::asm!(
                "mov {r}, qword ptr [rip + heapwright_libgc_thread@GOTTPOFF]",
                "mov {r}, qword ptr fs:[{r}]",
                r = out(reg) record,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        record
    }

    #[inline(always)]
    pub(super) fn store(record: *mut ThreadRecord) {
        // SAFETY: as in `load`; only the calling thread sees the word.
        unsafe {
            core::arch::asm!(
                "mov {o}, qword ptr [rip + heapwright_libgc_thread@GOTTPOFF]",
                "mov qword ptr fs:[{o}], {r}",
                o = out(reg) _,
                r = in(reg) record,
                options(nostack, preserves_flags),
            );
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod word {
    use crate::threads::ThreadRecord;
    use core::cell::Cell;

    std::thread_local! {
        static RECORD: Cell<*mut ThreadRecord> = const { Cell::new(core::ptr::null_mut()) };
    }

    pub(super) fn load() -> *mut ThreadRecord {
        RECORD.try_with(Cell::get).unwrap_or(core::ptr::null_mut())
    }

    pub(super) fn store(record: *mut ThreadRecord) {
        // Without a destructor the word is accessible as long as the thread lives, so this cannot fail.
        let _ = RECORD.try_with(|r| r.set(record));
    }
}

/// The calling thread's record; null if it is not registered. Never allocates; may be called in a signal handler.
#[inline(always)]
pub(crate) fn current() -> *mut ThreadRecord {
    word::load()
}

/// Makes `record` the calling thread's; null when it is unregistered.
#[inline]
pub(crate) fn set_current(record: *mut ThreadRecord) {
    word::store(record);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_its_own_word_and_it_starts_empty() {
        let before = current();
        let mine = core::ptr::without_provenance_mut(0x1230);
        set_current(mine);
        let seen = std::thread::spawn(|| {
            let first = current().addr();
            set_current(core::ptr::without_provenance_mut(0x4560));
            (first, current().addr())
        })
        .join();
        assert_eq!(seen.ok(), Some((0, 0x4560)));
        assert_eq!(current(), mine);
        set_current(before);
    }
}
