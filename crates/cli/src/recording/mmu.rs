//! Minimum mutator utilisation: in the worst stretch of so many milliseconds, what part of the time did the program run? (Cheng and
//! Blelloch, "A parallel, real-time garbage collector", 2001.)

/// The stretches of the summary, in milliseconds.
pub(crate) const WINDOWS_MS: [u64; 3] = [1, 10, 100];

/// The minimum utilisation, from 0 to 1, in any stretch of `window` nanoseconds between 0 and `end`. `pauses`: beginning and length, in
/// order, one after the other. A stretch longer than all is as all.
#[allow(
    clippy::cast_precision_loss,
    reason = "nanoseconds of a run are below 2^53"
)]
pub(crate) fn utilisation(pauses: &[(u64, u64)], end: u64, window: u64) -> f64 {
    let window = window.min(end);
    if window == 0 {
        return 1.0;
    }
    // The worst stretch begins with a pause or ends with one: as long as neither holds, it can be shifted without getting better.
    let mut worst = 0;
    let (mut low, mut sum) = (0, 0);
    for (at, &(start, ns)) in pauses.iter().enumerate() {
        // The stretch that ends with this pause.
        let to = (start + ns).min(end).max(window);
        let from = to - window;
        sum += ns;
        while low < at && pauses[low].0 + pauses[low].1 <= from {
            sum -= pauses[low].1;
            low += 1;
        }
        let cut = |p: (u64, u64)| from.saturating_sub(p.0).min(p.1);
        worst = worst.max(sum.saturating_sub(cut(pauses[low])).min(window));
    }
    let (mut high, mut sum) = (pauses.len(), 0);
    for (at, &(start, ns)) in pauses.iter().enumerate().rev() {
        // The stretch that begins with this pause.
        let from = start.min(end - window);
        let to = from + window;
        sum += ns;
        while high > at + 1 && pauses[high - 1].0 >= to {
            sum -= pauses[high - 1].1;
            high -= 1;
        }
        let last = pauses[high - 1];
        let cut = (last.0 + last.1).saturating_sub(to).min(last.1);
        worst = worst.max(sum.saturating_sub(cut).min(window));
    }
    1.0 - worst as f64 / window as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By its definition: all stretches that begin at a whole number.
    fn by_definition(pauses: &[(u64, u64)], end: u64, window: u64) -> f64 {
        let window = window.min(end);
        let overlap = |from: u64| {
            pauses
                .iter()
                .map(|(s, n)| (s + n).min(from + window).saturating_sub((*s).max(from)))
                .sum::<u64>()
        };
        let worst = (0..=end - window).map(overlap).max().unwrap_or(0);
        1.0 - worst as f64 / window as f64
    }

    #[test]
    fn agrees_with_its_definition() {
        let mut seed = 1u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        for _ in 0..500 {
            let (mut pauses, mut at) = (Vec::new(), 0);
            for _ in 0..random(8) {
                at += random(20);
                let ns = 1 + random(9);
                pauses.push((at, ns));
                at += ns;
            }
            let end = at + 1 + random(30);
            for window in [1, 3, 10, 25, 1000] {
                let (fast, slow) = (
                    utilisation(&pauses, end, window),
                    by_definition(&pauses, end, window),
                );
                assert!(
                    (fast - slow).abs() < 1e-9,
                    "{pauses:?} {end} {window}: {fast} {slow}"
                );
            }
        }
    }

    #[test]
    fn without_pauses_it_is_all() {
        assert_eq!(utilisation(&[], 100, 10), 1.0);
        assert_eq!(utilisation(&[], 0, 10), 1.0);
    }
}
