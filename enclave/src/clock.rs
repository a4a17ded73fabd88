//! The enclave's trusted time.
//!
//! The host can set its own clock at will, so that is never asked. Time comes from the attestation documents that the
//! security module signs, carried forward by the monotonic clock.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ceremonies::ids::UnixMillis;

/// A clock set by attestation documents.
pub struct TrustedClock {
    last: Mutex<(UnixMillis, Instant)>,
}

impl TrustedClock {
    /// Starts from a document's timestamp.
    #[must_use]
    pub fn new(timestamp: UnixMillis) -> Self {
        Self { last: Mutex::new((timestamp, Instant::now())) }
    }

    /// Takes a later document's timestamp. Time never runs back.
    pub fn set(&self, timestamp: UnixMillis) {
        let now = self.now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (timestamp.max(now), Instant::now());
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        let (timestamp, at) = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        timestamp.plus(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}
