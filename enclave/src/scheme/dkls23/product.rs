//! What this scheme's protocols end with. All have one type, since an order decides at run time which of them is run. No
//! protocol may end with what it has not verified.

use super::share::{KeyShare, NewShare};
use crate::session;

/// Makes one of this scheme's protocols.
pub type Factory = session::Factory<Product>;

/// What a protocol was run for. Another `S` than a [`KeyShare`] stands in for one where nobody looks into shares.
pub enum Product<S = KeyShare> {
    /// A share of a new key, or a new share of a key.
    Share(Box<NewShare<S>>),
    /// The share that this party had lost. It can be refreshed, and nothing else.
    Repaired(Box<S>),
    /// Another party has its share again.
    Helped,
    /// A signature that verifies.
    Signature(Signature),
}

/// An ECDSA signature in the lower half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// r, big-endian.
    pub r: [u8; 32],
    /// s, big-endian.
    pub s: [u8; 32],
    /// 0 to 3.
    pub recovery_id: u8,
}
