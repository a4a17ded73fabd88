//! How far ahead of a node's own clock an entry may be dated.
//!
//! Times in a log never run back, so one entry from a fast clock drags the time of all later entries with it, until
//! attestations are too old for it. An honest agent holds such an entry back until its own clock is there. The fold
//! must never use this: it has no clock, and what is in the log folds for everyone or for no one.

use thiserror::Error;

use crate::ids::{CeremonyId, NodeIndex, UnixMillis};
use crate::log::Entry;

/// How far ahead an entry may be dated, in milliseconds: more than clocks under NTP differ, and little compared with
/// the minutes for which charters let attestations hold.
pub const MAX_AHEAD_MS: i64 = 60_000;

/// An entry is not accepted yet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "entry {seq} of {ceremony} is dated {time}, {} s ahead of the clock here, and is not accepted yet: check the clock \
     here and the clock of node {node}, which wrote the entry",
    .ahead_ms / 1000
)]
pub struct Ahead {
    /// Which ceremony.
    pub ceremony: CeremonyId,
    /// Which entry.
    pub seq: u64,
    /// The node that wrote it.
    pub node: NodeIndex,
    /// Its date.
    pub time: UnixMillis,
    /// How far that is ahead.
    pub ahead_ms: i64,
}

impl Ahead {
    /// The time from which the entry can be accepted, by the clock that refused it.
    #[must_use]
    pub fn until(&self) -> UnixMillis {
        self.time.plus(-MAX_AHEAD_MS)
    }
}

/// Checks that an entry is not dated too far ahead of this node's clock.
///
/// # Errors
/// [`Ahead`]; the same entry can be accepted later.
pub fn check_clock(entry: &Entry, now: UnixMillis) -> Result<(), Ahead> {
    let ahead_ms = entry.time.since(now);
    if ahead_ms <= MAX_AHEAD_MS {
        return Ok(());
    }
    let (ceremony, seq) = (entry.ceremony.clone(), entry.seq);
    Err(Ahead { ceremony, seq, node: entry.node, time: entry.time, ahead_ms })
}
