//! What a session is given before it begins. All parties take it from the same log; nothing in it may come from a peer.

use std::collections::BTreeMap;

use ceremonies::attestation::EnclaveKeys;
use ceremonies::ids::{Hash, NodeIndex};

/// Milliseconds of a monotonic clock; its origin does not matter.
pub type Millis = u64;

/// What all parties of a session take from the same log.
#[derive(Debug, Clone)]
pub struct SessionPlan {
    /// Names the session on the bus.
    pub label: Hash,
    /// Hash of everything that must be the same for all parties.
    pub context: Hash,
    /// This party.
    pub own: NodeIndex,
    /// All parties, this one included, with the keys they attested.
    pub parties: BTreeMap<NodeIndex, EnclaveKeys>,
    /// How long all parties may take to be ready, in milliseconds.
    pub barrier_ms: Millis,
    /// How long a round may take, in milliseconds.
    pub round_ms: Millis,
}
