//! What a session has its shell do, and how it ends. An accusation must never rest on anything but what a party signed.

use ceremonies::ids::{Hash, NodeIndex};

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
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), culprit: None, ban: None }
    }

    /// A failure over what this party signed.
    pub(super) fn by(culprit: NodeIndex, reason: impl Into<String>) -> Self {
        Self { culprit: Some(culprit), ..Self::new(reason) }
    }
}

/// A session's outcome.
pub struct Outcome<T> {
    /// The session's id, agreed by all parties.
    pub session: Hash,
    /// Hash of everything that was broadcast.
    pub transcript: Hash,
    /// What it was held for.
    pub product: T,
    /// The last envelope to each peer: one that repeats its own has not heard it.
    pub last_letters: Vec<(NodeIndex, Vec<u8>)>,
}

/// What the driver wants done.
pub enum Action<T> {
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
    Finished(Box<Outcome<T>>),
    /// The session is over and has none.
    Failed(SessionFailure),
}
