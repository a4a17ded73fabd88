//! When to try the broker again.

use std::time::Duration;

/// The pause after the first attempt that failed.
const FIRST: Duration = Duration::from_millis(100);
/// How often it is doubled.
const DOUBLINGS: usize = 6;

/// How long to wait before an attempt to connect, counted from 1: the first is made at once, and the pauses between the
/// others grow from 0.1 s to 6.4 s.
#[must_use]
pub fn pause_before(attempt: usize) -> Duration {
    match attempt {
        0 | 1 => Duration::ZERO,
        later => FIRST * (1 << (later - 2).min(DOUBLINGS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_waited_for_at_first_and_never_for_long() {
        let pauses = [0, 1, 2, 3, 4, 8, 9, usize::MAX].map(|attempt| pause_before(attempt).as_millis());
        assert_eq!(pauses, [0, 0, 100, 200, 400, 6400, 6400, 6400]);
    }
}
