//! The smallest heap in which a workload lives, found by trying.
//!
//! It lives if it comes to its end within ten times the time that it takes without a limit: a heap in which it collects
//! all the time is not one to live in.

use super::cache::Cache;
use super::child::{Interrupted, Runner};
use super::request::Load;
use heapwright_bench::spec::{Report, Status};
use std::time::Duration;

/// The plan that says what a workload needs.
const PLAN: &str = "marksweep";

/// Sizes are multiples of this.
const UNIT: usize = 64 << 10;

/// Finds and remembers.
#[derive(Debug)]
pub(crate) struct Smallest(Cache);

impl Smallest {
    pub(crate) fn new() -> Self {
        Self(Cache::of_user("smallest-heaps.json"))
    }

    /// The size in bytes, or why it cannot be found.
    pub(crate) fn find(
        &self,
        runner: &mut Runner,
        load: &Load,
        seed: u64,
        timeout: Duration,
        say: impl Fn(String),
    ) -> Result<Result<usize, String>, Interrupted> {
        let key = format!(
            "{} scale={} seed={} mutators={} version={}",
            load.info.name,
            load.scale,
            seed,
            load.mutators,
            env!("CARGO_PKG_VERSION")
        );
        if let Some(known) = self.0.get(&key).filter(|n| *n > 0) {
            return Ok(Ok(known));
        }
        let spec = |heap_bytes| load.spec(PLAN, heap_bytes, seed);
        say(format!("{}: how much does it need?", load.info.name));
        let free = runner.run(&spec(0), timeout)?;
        if free.status != Status::Ok {
            return Ok(Err(format!("without a limit, {}", reason(&free))));
        }
        let limit = Duration::try_from_secs_f64(free.wall_s * 10.0 + 1.0);
        let limit = limit.unwrap_or(timeout).min(timeout);
        let found = search(usize::try_from(free.peak_rss_bytes).unwrap_or(0), |bytes| {
            say(format!(
                "{}: does it live in {} KiB?",
                load.info.name,
                bytes >> 10
            ));
            runner
                .run(&spec(bytes), limit)
                .map(|r| r.status == Status::Ok)
        })?;
        if let Some(bytes) = found {
            self.0.put(&key, bytes);
        }
        Ok(found.ok_or_else(|| "it lives only without a limit".to_owned()))
    }
}

fn reason(report: &Report) -> String {
    report.why.clone().unwrap_or_else(|| match report.status {
        Status::OutOfMemory => "memory runs out".to_owned(),
        _ => "it fails".to_owned(),
    })
}

/// The least size that `lives`, to a thirty-second part, given a guess of what is enough.
fn search<E>(
    guess: usize,
    mut lives: impl FnMut(usize) -> Result<bool, E>,
) -> Result<Option<usize>, E> {
    let mut high = guess.max(UNIT).next_multiple_of(UNIT);
    let mut low = 0;
    while !lives(high)? {
        low = high;
        match high.checked_mul(2) {
            Some(double) if high < guess.saturating_mul(64).max(UNIT << 6) => high = double,
            _ => return Ok(None),
        }
    }
    while high - low > (high / 32).max(UNIT) {
        let middle = (low + (high - low) / 2).next_multiple_of(UNIT);
        if middle >= high {
            break;
        }
        if lives(middle)? {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(Some(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn searched(guess: usize, least: usize) -> (Option<usize>, usize) {
        let mut runs = 0;
        let found = search::<()>(guess, |bytes| {
            runs += 1;
            Ok(bytes >= least)
        });
        (found.ok().flatten(), runs)
    }

    #[test]
    fn finds_the_least_from_any_guess() {
        for least in [1, UNIT, 5 << 20, 77 << 20, 1 << 30] {
            for guess in [1 << 20, 6 << 20, 100 << 20, 4 << 30] {
                let (found, runs) = searched(guess, least);
                let close = least + (least / 16).max(2 * UNIT);
                // From a guess that is far too low, no search.
                let Some(found) = found else {
                    assert!(least > guess * 64);
                    continue;
                };
                assert!((least..=close).contains(&found), "{least} {guess} {found}");
                assert!(runs < 24, "{runs}");
            }
        }
    }

    #[test]
    fn gives_up_where_nothing_is_enough() {
        assert_eq!(searched(1 << 20, usize::MAX).0, None);
        assert_eq!(search(0, |_| Err::<bool, u8>(3)), Err(3));
    }
}
