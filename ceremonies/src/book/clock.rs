//! How far ahead of a node's own clock an entry may be dated.
//!
//! Times in a log never run back, so one entry from a clock that is fast drags the time of all that follow with it, until
//! attestations are too old for it. An honest agent holds such an entry back until its own clock is there. The fold must
//! never ask here: it has no clock, and what is in the log folds for everybody or for nobody.

use thiserror::Error;

use crate::entry::Entry;
use crate::ids::{CeremonyId, NodeIndex, UnixMillis};

/// How far an entry may be ahead, in milliseconds: more than clocks under NTP differ, and small beside the minutes for
/// which charters let attestations hold.
pub const MAX_AHEAD_MS: i64 = 60_000;

/// An entry is not taken now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "entry {seq} of {ceremony} is dated {time}, {} s ahead of the clock here: it is not taken now; check the clock of \
     node {node}, which wrote it, and the one here",
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
    /// From when on the entry can be taken, by the clock that refused it.
    #[must_use]
    pub fn until(&self) -> UnixMillis {
        self.time.plus(-MAX_AHEAD_MS)
    }
}

/// Checks that an entry is not dated too far ahead of this node's clock.
///
/// # Errors
/// [`Ahead`]; the same entry can be taken later.
pub fn check_clock(entry: &Entry, now: UnixMillis) -> Result<(), Ahead> {
    let ahead_ms = entry.time.since(now);
    if ahead_ms <= MAX_AHEAD_MS {
        return Ok(());
    }
    let (ceremony, seq) = (entry.ceremony.clone(), entry.seq);
    Err(Ahead { ceremony, seq, node: entry.node, time: entry.time, ahead_ms })
}
