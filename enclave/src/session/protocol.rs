//! A protocol as the session driver sees it: rounds of broadcasts and private messages, and a product.
//!
//! What is in the messages is up to the protocol; [`super::exact`] has what every one must check of them. A protocol must
//! never do I/O or look at a clock, and it sees only messages whose sender is proven.

use std::collections::BTreeMap;

use ceremonies::ids::{Hash, NodeIndex};
use thiserror::Error;
use zeroize::Zeroizing;

/// What a party sends in a round.
#[derive(Default)]
pub struct Outgoing {
    /// The same bytes for everybody.
    pub broadcast: Vec<u8>,
    /// For one party only, itself included if the protocol requires it.
    pub private: BTreeMap<NodeIndex, Zeroizing<Vec<u8>>>,
}

/// What one party sent in a round.
#[derive(Default)]
pub struct Inbound {
    /// What it sent to everybody.
    pub broadcast: Vec<u8>,
    /// What it sent to this party; empty for nothing.
    pub private: Zeroizing<Vec<u8>>,
}

/// All messages of a round, one from each party, this one included.
pub type Round = BTreeMap<NodeIndex, Inbound>;

/// What follows from a round.
pub enum Step<T> {
    /// Another round.
    Next(Outgoing),
    /// The end, and what the protocol was run for.
    Done(T),
}

/// Why a protocol stops.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct ProtocolAbort {
    /// What went wrong.
    pub reason: String,
    /// Whose message it was.
    pub culprit: Option<NodeIndex>,
    /// The peer that is banned from every further session.
    pub ban: Option<NodeIndex>,
}

impl ProtocolAbort {
    /// An abort with no party at fault.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), culprit: None, ban: None }
    }

    /// An abort over a message of this party.
    #[must_use]
    pub fn by(culprit: NodeIndex, reason: impl Into<String>) -> Self {
        Self { culprit: Some(culprit), ..Self::new(reason) }
    }
}

/// A multi-party protocol as one of its parties runs it.
pub trait Protocol: Send {
    /// What it is run for.
    type Product;

    /// The names of its rounds, for people; as many as it has.
    fn rounds(&self) -> &'static [&'static str];

    /// The first round's messages.
    ///
    /// # Errors
    /// [`ProtocolAbort`] when it cannot begin.
    fn start(&mut self) -> Result<Outgoing, ProtocolAbort>;

    /// Takes the messages of round `number` (from 1) and gives the next round's, or the product.
    ///
    /// # Errors
    /// [`ProtocolAbort`] ends the session.
    fn round(&mut self, number: usize, messages: Round) -> Result<Step<Self::Product>, ProtocolAbort>;
}

/// Makes the protocol once the parties have agreed on the session's id. It is boxed because an order decides at run time
/// which one it is.
pub type Factory<T> = Box<dyn FnOnce(Hash) -> Result<Box<dyn Protocol<Product = T>>, ProtocolAbort> + Send>;
