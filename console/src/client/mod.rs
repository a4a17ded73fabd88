//! The console's side of the bus: it asks nodes by name, verifies what they sign, and never waits for just one of them.
//!
//! A subject says nothing about the sender, and an acknowledgement nothing about what is recorded. Nothing here may be
//! believed unless a node has signed it, nor called recorded on less than a quorum's signed heads.

mod answer;
mod branches;
mod catalogue;
mod connection;
mod diagnosis;
mod failover;
mod heads;
mod library;
mod listening;
mod news;
mod reading;
mod receipt;
mod submitting;
#[cfg(test)]
mod tests;
mod trouble;
mod voices;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use ceremonies::book::{Book, NotTaken};
use ceremonies::ceremony::{Context, Rejection};
use ceremonies::charter::Charter;
use ceremonies::deploy::subject;
use ceremonies::ids::{CeremonyId, NodeIndex};
use ceremonies::log::{Entry, EntryError};
use ceremonies::text::one_line;
use ceremonies::wire::{VERSION, bus};
use prost::Message;
use thiserror::Error;
use tokio::time::Instant;

pub use self::answer::verified;
pub use self::branches::{Branches, Budget, Misfit};
pub use self::catalogue::{Catalogue, Row, Summary};
pub use self::connection::{Client, Nats};
pub use self::heads::Heads;
pub use self::library::{Library, Scope, settle};
pub use self::news::{Ear, News};
pub use self::reading::Reading;
pub use self::receipt::{Outcome, Receipt, Recorded, Refusal};
pub use self::submitting::SubmitError;
pub use self::trouble::{Trouble, Troubles, named, those};
pub use self::voices::Voices;
use crate::file::FileError;
use crate::memory::Memory;
use failover::Pace;
use reading::proposed;

/// How long to wait for nodes, for anything that they answer at once.
const PACE: Pace = Pace { patience: Duration::from_secs(1), limit: Duration::from_secs(5) };
/// How long a node that was silent is asked only after the others.
const QUIET: Duration = Duration::from_secs(30);
/// How long a node may take with a backup: its enclave opens it.
const HANDING_IN: Duration = Duration::from_secs(10);

/// Why the nodes did not give what was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The seed cannot be read.
    #[error(transparent)]
    Seed(#[from] FileError),
    /// The file holds something else.
    #[error(
        "the file that the cluster file names as `seed` has no NKey seed: it is one line of 58 letters and digits that \
         begins with SU, as `nk -gen user` writes it"
    )]
    Key,
    /// The charter does not list this console.
    #[error("this console's NKey is not in the charter")]
    Unknown,
    /// No connection.
    #[error("the bus cannot be reached")]
    Connect(#[source] async_nats::ConnectError),
    /// Not connected, and so nothing was asked.
    #[error("the bus cannot be reached: no node was asked")]
    NotConnected,
    /// No subscription.
    #[error("the bus refused a subscription")]
    Subscribe(#[source] async_nats::SubscribeError),
    /// No node gave an answer that could be used.
    #[error("no node gave a usable answer: {0}")]
    Nodes(Troubles),
    /// A node's log contradicts the book.
    #[error("a node answered with a log that does not verify")]
    Log(#[from] NotTaken),
    /// Nothing that the nodes gave folds.
    #[error("no node has a log of {ceremony} that verifies: entry {seq} of {nodes} is refused")]
    Refuted {
        /// Which ceremony.
        ceremony: CeremonyId,
        /// The entry.
        seq: u64,
        /// Whose.
        nodes: String,
        /// Why.
        #[source]
        source: Box<Rejection>,
    },
    /// A node refused something that it alone decides.
    #[error("node {0} refused: {1}")]
    Refused(NodeIndex, String),
}

impl ClientError {
    fn nodes(troubles: Troubles) -> Self {
        if troubles.is_not_connected() { Self::NotConnected } else { Self::Nodes(troubles) }
    }
}

/// What carries a question to whoever listens, and an answer back.
pub trait Bus: Send + Sync + 'static {
    /// Asks, and waits for the answer within the bus's own limit.
    fn ask(&self, subject: String, request: Vec<u8>) -> impl Future<Output = Result<Bytes, Trouble>> + Send;
}

struct Shared {
    first: Context,
    /// The amendments that are known: whose words count follows from them.
    amendments: RwLock<Arc<Book>>,
    /// When nodes were found silent.
    quiet: Mutex<BTreeMap<NodeIndex, Instant>>,
    /// Whose turn it is to be asked first.
    turn: AtomicUsize,
    memory: Memory,
}

/// The nodes of a cluster, as they can be asked over a bus. Cheap to clone.
pub struct Nodes<B> {
    bus: Arc<B>,
    shared: Arc<Shared>,
}

impl<B> Clone for Nodes<B> {
    fn clone(&self) -> Self {
        Self { bus: Arc::clone(&self.bus), shared: Arc::clone(&self.shared) }
    }
}

impl<B: Bus> Nodes<B> {
    /// The nodes of the cluster with this first charter.
    #[must_use]
    pub fn new(bus: B, first: Context, memory: Memory) -> Self {
        let shared = Shared {
            amendments: RwLock::new(Arc::new(Book::new(first.clone()))),
            first,
            quiet: Mutex::new(BTreeMap::new()),
            turn: AtomicUsize::new(rand::random::<u8>().into()),
            memory,
        };
        Self { bus: Arc::new(bus), shared: Arc::new(shared) }
    }

    /// What this console remembers.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// The amendments that are known here.
    #[must_use]
    pub fn amendments(&self) -> Arc<Book> {
        Arc::clone(&self.shared.amendments.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn learn(&self, amendments: Book) {
        *self.shared.amendments.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(amendments);
    }

    /// The charter in force, as far as it is known here.
    #[must_use]
    pub fn charter(&self) -> Arc<Charter> {
        Arc::clone(self.amendments().context().charter())
    }

    fn voices(&self, proposed: Option<Arc<Charter>>) -> Voices {
        Voices::new(self.charter(), proposed)
    }

    /// Whose words count in a ceremony with this log: for an amendment that a person has opened, also those of the nodes that
    /// it would bring. Anybody can make up an opening, and with it nodes that say what they like.
    fn voices_in(&self, log: &[Entry]) -> Voices {
        self.voices(proposed(log).filter(|_| self.opens(log)))
    }

    /// Whether a log begins with an opening that its administrator has signed.
    fn opens(&self, log: &[Entry]) -> bool {
        log.first().is_some_and(|first| self.amendments().examine(first.clone()).is_ok())
    }

    fn quiet(&self) -> BTreeSet<NodeIndex> {
        let quiet = self.shared.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        quiet.iter().filter(|(_, since)| since.elapsed() < QUIET).map(|(node, _)| *node).collect()
    }

    fn remember_quiet(&self, troubles: &Troubles) {
        let mut quiet = self.shared.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = troubles.iter().filter(|(_, trouble)| matches!(trouble, Trouble::Silent(_)));
        quiet.extend(silent.map(|(node, _)| (node, Instant::now())));
    }

    fn heard(&self, node: NodeIndex) {
        self.shared.quiet.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }

    /// In which order nodes are asked: each in its turn, those that were silent last.
    fn order(&self, nodes: &BTreeSet<NodeIndex>) -> Vec<NodeIndex> {
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        let mut order: Vec<NodeIndex> = nodes.iter().copied().collect();
        let at = turn % order.len().max(1);
        order.rotate_left(at);
        let quiet = self.quiet();
        order.sort_by_key(|node| quiet.contains(node));
        order
    }

    async fn ask(&self, subject: String, request: Vec<u8>) -> Result<Bytes, Trouble> {
        self.bus.ask(subject, request).await
    }

    /// Hands a backup in for a node's enclave.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the node's reason.
    pub async fn hand_in(
        &self,
        node: NodeIndex,
        ceremony: &CeremonyId,
        object: Vec<u8>,
    ) -> Result<(), ClientError> {
        let backup =
            bus::Backup { version: VERSION, ceremony: ceremony.to_string(), object, nonce: answer::nonce() };
        let (subject, request) = (subject::backup(node), backup.encode_to_vec());
        let alone = |trouble| {
            let mut troubles = Troubles::default();
            troubles.add(node, trouble);
            ClientError::nodes(troubles)
        };
        let asked = tokio::time::timeout(HANDING_IN, self.ask(subject.clone(), request.clone())).await;
        let answer = asked.unwrap_or(Err(Trouble::Silent(HANDING_IN))).map_err(alone)?;
        let body = verified(&self.voices(None), node, (&subject, &request), &answer).map_err(alone)?;
        let reply =
            bus::BackupReply::decode(body.as_slice()).map_err(|error| alone(Trouble::Unreadable(error)))?;
        if reply.refusal.is_empty() {
            Ok(())
        } else {
            Err(ClientError::Refused(node, one_line(&reply.refusal)))
        }
    }
}

fn malformed(error: ceremonies::ids::InvalidId) -> Trouble {
    Trouble::Entry(EntryError::Field(error))
}
