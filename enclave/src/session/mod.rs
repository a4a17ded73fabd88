//! Protocol sessions between enclaves: the one driver for every protocol.
//!
//! Sans-I/O and synchronous: bytes and the time come in, actions go out. The driver does the ready barrier, the
//! session's id, rounds with deadlines, sealing, echo and limits, once for all protocols. It must never let bytes that
//! no party signed have any effect, and never run a phase twice.
//!
//! A shell owns a [`Session`] on a thread that may block: [`Session::receive`] computes for as long as a protocol phase
//! takes (a second natively). It calls [`Session::start`] once, `receive` for all bytes that the bus brings under the
//! session's label, from whomever, and [`Session::tick`] a few times a second; does all [`Action`]s in their order; and
//! drops the session after `Finished` or `Failed`, one of which always comes. What a peer may have missed is repeated
//! until it answers or its time is up; for a session that has finished, [`Finished`] answers.

mod barrier;
mod dkg;
mod driver;
mod echo;
mod envelope;
mod finished;
mod messages;
mod protocol;
mod rebuild;
mod refresh;
mod repair;
mod said;
mod setup;
mod share;
mod sign;

#[expect(unreachable_pub, reason = "generated code is public throughout; this module is not")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/custody.session.rs"));
}

use std::collections::BTreeMap;

use ceremonies::attestation::EnclaveKeys;
use ceremonies::ids::{Hash, NodeIndex};

pub use self::dkg::KeyGeneration;
pub use self::driver::Session;
pub use self::envelope::{BootKeys, Dropped, MAX_ENVELOPE};
pub use self::finished::Finished;
pub use self::protocol::{
    Factory, Inbound, Outgoing, Product, Protocol, ProtocolAbort, Round, Signature, Step,
};
pub use self::rebuild::Rebuilding;
pub use self::refresh::Refreshing;
pub use self::repair::Repairing;
pub use self::share::{KeyShare, NewShare, ShareError};
pub use self::sign::Signing;

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

/// How far a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionProgress {
    /// The phase, in words.
    pub phase: &'static str,
    /// Its number, from 1.
    pub number: u32,
    /// How many there are.
    pub count: u32,
    /// The peers whose message has not arrived yet.
    pub waiting_for: Vec<NodeIndex>,
}

/// Why a session is over without an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFailure {
    /// What happened, where, and what to do.
    pub reason: String,
    /// The party at fault, if its own signed messages show that. Silence shows nothing.
    pub culprit: Option<NodeIndex>,
    /// The peer that is banned from every further session: store this before showing it.
    pub ban: Option<NodeIndex>,
}

impl SessionFailure {
    /// A failure that proves nothing about any party.
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), culprit: None, ban: None }
    }

    /// A failure over what this party signed.
    fn by(culprit: NodeIndex, reason: impl Into<String>) -> Self {
        Self { culprit: Some(culprit), ..Self::new(reason) }
    }
}

/// A session's outcome.
pub struct Outcome {
    /// The session's id, agreed by all parties.
    pub session: Hash,
    /// Hash of everything that was broadcast.
    pub transcript: Hash,
    /// What it was held for.
    pub product: Product,
    /// The last envelope to each peer: one that repeats its own has not heard it.
    pub last_letters: Vec<(NodeIndex, Vec<u8>)>,
}

/// What the driver wants done.
pub enum Action {
    /// Bring these bytes to this party.
    Send {
        /// To whom.
        to: NodeIndex,
        /// What.
        bytes: Vec<u8>,
    },
    /// Tell people.
    Progress(SessionProgress),
    /// The session is over and has an outcome.
    Finished(Box<Outcome>),
    /// The session is over and has none.
    Failed(SessionFailure),
}
