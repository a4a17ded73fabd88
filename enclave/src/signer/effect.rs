//! What the signer is told and what it has done: all that passes between it and whoever runs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ceremonies::attestation::EnclaveKeys;
use ceremonies::ceremony::ToSign;
use ceremonies::charter::Charter;
use ceremonies::curve::Point;
use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::wallet::Record;
use enclave_link::message::{Credentials, Deliver, Start, Stored, from_enclave};

use crate::scheme::dkls23::Product;
use crate::session::{Outcome, SessionFailure, SessionProgress};

/// Names an order that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderId {
    /// The label of its session. No session is held twice under one.
    pub label: Hash,
    /// The agent's number of the order: what is done about a backup is done under one label as often as it is ordered.
    pub request: u64,
}

/// What happens to the signer.
pub enum Input<S> {
    /// An agent connects.
    Connected,
    /// Its connection has ended.
    Lost,
    /// It gives an order.
    Start(Box<Start>),
    /// It brings a message from the bus.
    Deliver(Deliver),
    /// It hands back a sealed share that it has stored.
    Stored(Stored),
    /// It says that this ceremony is over.
    Stop(String),
    /// Something comes of an effect. What comes of an order that is over has no effect.
    News(OrderId, News<S>),
}

/// What comes of an order's effects.
pub enum News<S> {
    /// The session has a message for this party.
    Send {
        /// To whom.
        to: NodeIndex,
        /// What.
        bytes: Vec<u8>,
    },
    /// The session is this far.
    Progress(SessionProgress),
    /// The session has ended with an outcome.
    Finished(Box<Outcome<Product<S>>>),
    /// The session has ended without one. With the envelopes that show whose fault it is, if any do.
    Failed(SessionFailure, Vec<Vec<u8>>),
    /// The sealed share is open and is the one that was named.
    Opened(Arc<S>),
    /// The new share is sealed.
    Sealed(Vec<u8>),
    /// The share is encrypted for its keepers: the whole share, and the root share alone.
    BackedUp {
        /// The whole share's file.
        whole: Vec<u8>,
        /// The root share's file.
        root: Vec<u8>,
    },
    /// The backup holds the share with this public point.
    Proved(Point),
    /// The backup held this share.
    Restored(Arc<S>),
    /// The work was not done, for this reason.
    Undone(String),
}

/// What the signer wants done, in this order.
pub enum Effect<S> {
    /// Tell the agent.
    Tell(from_enclave::Kind),
    /// Begin a session.
    Begin(OrderId, Box<Begin<S>>),
    /// Hand a message to a session that has begun. It may be lost.
    Hand(OrderId, Vec<u8>),
    /// End a session, if it has not ended by itself.
    End(OrderId),
    /// Do something with a share.
    Work(OrderId, Box<Work<S>>),
}

/// A session to be held.
pub struct Begin<S> {
    /// Names the session on the bus.
    pub label: Hash,
    /// Hash of everything that must be the same for all parties.
    pub context: Hash,
    /// This party.
    pub own: NodeIndex,
    /// All parties with the keys they attested.
    pub parties: BTreeMap<NodeIndex, EnclaveKeys>,
    /// What the parties compute.
    pub task: Task<S>,
}

/// What the parties of a session compute. A share or record that is missing ends the session when it is needed.
pub enum Task<S> {
    /// A new key.
    Generate {
        /// How many shares sign.
        threshold: u8,
    },
    /// New shares of a key.
    Refresh {
        /// This party's.
        share: Option<Arc<S>>,
        /// The generation that it is of.
        before: Option<Record>,
    },
    /// The share that a party has lost.
    Repair {
        /// Which.
        lost: NodeIndex,
        /// This party's, unless it is the one.
        share: Option<Arc<S>>,
        /// The generation that the shares are of.
        before: Option<Record>,
    },
    /// The shares that too many parties have lost for a repair.
    Rebuild {
        /// Which.
        lost: Vec<NodeIndex>,
        /// This party's, unless it is one of them.
        share: Option<Arc<S>>,
        /// The generation that the shares are of.
        before: Option<Record>,
    },
    /// A signature.
    Sign {
        /// This party's share.
        share: Option<Arc<S>>,
        /// Of what, and under which key.
        to_sign: Option<ToSign>,
    },
}

/// What is done with a share outside of sessions. All of it ends with news of the order.
pub enum Work<S> {
    /// Open a sealed share: [`News::Opened`].
    Open(Open),
    /// Seal a new share: [`News::Sealed`].
    Seal(Seal<S>),
    /// Encrypt a share for its keepers: [`News::BackedUp`].
    BackUp(BackUp<S>),
    /// Show that a released backup holds the share: [`News::Proved`].
    Prove(Released),
    /// Take the share from a released backup: [`News::Restored`].
    Restore(Released),
}

/// A share to be opened.
pub struct Open {
    /// The first charter of the cluster, which the share is sealed under and which names the KMS key.
    pub charter: Arc<Charter>,
    /// With which the KMS is asked.
    pub credentials: Credentials,
    /// The generation that it must be of.
    pub record: Record,
    /// Whose it must be.
    pub node: NodeIndex,
    /// The sealed share, as the agent handed it in.
    pub blob: Vec<u8>,
    /// The digest that it must have.
    pub expected: Hash,
}

/// A share to be sealed.
pub struct Seal<S> {
    /// As in [`Open`].
    pub charter: Arc<Charter>,
    /// As in [`Open`].
    pub credentials: Credentials,
    /// The generation that it is of.
    pub record: Record,
    /// Whose it is.
    pub node: NodeIndex,
    /// The share.
    pub share: S,
}

/// A share to be backed up.
pub struct BackUp<S> {
    /// The generation that it is of.
    pub record: Record,
    /// Whose it is.
    pub node: NodeIndex,
    /// The share.
    pub share: Arc<S>,
    /// Who can open it afterwards.
    pub recipients: Vec<String>,
}

/// A backup whose key was released.
pub struct Released {
    /// The generation that its share must be of.
    pub record: Record,
    /// Whose share it must be.
    pub node: NodeIndex,
    /// The backup.
    pub backup: Vec<u8>,
    /// Its key, sealed to this enclave.
    pub key: Vec<u8>,
    /// What the key was sealed under.
    pub info: Hash,
}
