//! Signals that reach this command while it waits go on to the program.
//!
//! What the terminal sends (Ctrl-C and the like) the kernel gives to the whole foreground group, so the program has
//! it already: only what a process sent is passed on. A signal that was ignored when we started stays ignored, for
//! us and for the program.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::raw::WithRawSiginfo;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

const FORWARDED: [Signal; 11] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGIO,
];

/// `si_code` of signals that the kernel made itself.
const SI_KERNEL: i32 = 0x80;

/// The handlers, installed before the program is started, so that no signal is lost in between.
pub(crate) struct Forwarding {
    signals: SignalsInfo<WithRawSiginfo>,
}

/// The program that receives signals; `None` once it has ended, as its number may then be another's.
#[derive(Clone)]
pub(crate) struct Receiver(Arc<Mutex<Option<Pid>>>);

impl Receiver {
    fn lock(&self) -> MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No signal is sent after this.
    pub(crate) fn stop(&self) {
        *self.lock() = None;
    }
}

impl Forwarding {
    /// Installs the handlers; signals wait until [`Forwarding::to`].
    pub(crate) fn prepare() -> io::Result<Self> {
        let ignored = ignored();
        let wanted = FORWARDED
            .iter()
            .map(|s| *s as i32)
            .filter(|s| ignored & (1 << (s - 1)) == 0);
        Ok(Self {
            signals: SignalsInfo::new(wanted)?,
        })
    }

    /// Passes on what came and what comes.
    pub(crate) fn to(mut self, program: Pid) -> io::Result<Receiver> {
        let receiver = Receiver(Arc::new(Mutex::new(Some(program))));
        let shared = receiver.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for info in self.signals.forever() {
                    if info.si_code != SI_KERNEL {
                        pass_on(&shared, info.si_signo);
                    }
                    if info.si_signo == Signal::SIGTSTP as i32 {
                        // As without a handler: this command stops too, and SIGCONT wakes it.
                        let _ = nix::sys::signal::raise(Signal::SIGSTOP);
                    }
                }
            })?;
        Ok(receiver)
    }
}

fn pass_on(to: &Receiver, number: i32) {
    let held = to.lock();
    if let (Some(program), Ok(signal)) = (*held, Signal::try_from(number)) {
        // It may have ended and not been waited for: then the signal has no effect, as it should.
        let _ = kill(program, signal);
    }
}

/// The set of signals that are ignored, as the kernel writes it: bit n-1 for signal n.
pub(crate) fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok())
        .unwrap_or(0)
}
