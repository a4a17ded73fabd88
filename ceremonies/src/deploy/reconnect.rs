//! When to try the broker again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The shortest pause.
const FIRST: Duration = Duration::from_millis(100);
/// How often it is doubled.
const DOUBLINGS: usize = 6;

/// How long to wait before each attempt of one connection, which is counted from 1 since the last that succeeded: not at all
/// before its very first, and then from 0.1 s to 6.4 s. Whoever can end a connection, by what it says on it, does not have it
/// made anew without a pause.
pub fn pauses() -> impl Fn(usize) -> Duration + Send + Sync {
    let is_first = AtomicBool::new(true);
    move |attempt| {
        if is_first.swap(false, Ordering::Relaxed) {
            return Duration::ZERO;
        }
        FIRST * (1 << attempt.saturating_sub(1).min(DOUBLINGS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_attempt_of_all_is_made_at_once_and_no_pause_is_long() {
        let pause = pauses();
        let pauses = [1, 2, 3, 1, 2, 7, 8, usize::MAX].map(|attempt| pause(attempt).as_millis());
        assert_eq!(pauses, [0, 200, 400, 100, 200, 6400, 6400, 6400]);
    }
}
