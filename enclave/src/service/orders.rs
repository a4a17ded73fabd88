//! Reading the agent's orders: charter and log are folded here, and what the fold calls for is all that is
//! ever done. Nothing the agent says is believed without it.

use std::sync::Arc;

use ceremonies::attestation::{EnclaveKeys, TrustRoot};
use ceremonies::ceremony::{Ceremony, Context, Duty, ForeignRoot, Rejection, SessionSpec};
use ceremonies::charter::{CeremonyKind, Charter, CharterError};
use ceremonies::entry::{Entry, EntryError, Event};
use ceremonies::ids::{InvalidId, NodeIndex, UnixMillis};
use ceremonies::wallet::Wallet;
use thiserror::Error;

use crate::wire::link::Start;

/// Most entries of one log that are folded: far more than any ceremony has.
const MAX_ENTRIES: usize = 4096;

/// Why an order is not followed.
#[derive(Debug, Error)]
pub enum OrderError {
    /// The charter is refused.
    #[error("the charter is refused")]
    Charter(#[from] CharterError),
    /// The charter belongs to another trust root than this enclave's.
    #[error("the charter is for another kind of cluster")]
    Root(#[from] ForeignRoot),
    /// The node's index is malformed.
    #[error("the order names a malformed node")]
    Node(#[from] InvalidId),
    /// Too long to be a ceremony.
    #[error("the log has {0} entries; at most {MAX_ENTRIES} are read")]
    TooLong(usize),
    /// Bytes that are no entry.
    #[error("entry {seq} of the log cannot be read")]
    Entry {
        /// Its place in the log.
        seq: usize,
        /// Why.
        source: EntryError,
    },
    /// An entry the fold refuses.
    #[error("entry {seq} of the log is refused")]
    Rejected {
        /// Its place in the log.
        seq: u64,
        /// Why.
        #[source]
        source: Box<Rejection>,
    },
    /// The ceremony that made the wallet has not committed one.
    #[error("the log of the wallet's origin has no committed generation")]
    NoWallet,
    /// The fold calls for nothing that an enclave does in a session.
    #[error("the log calls for nothing that this enclave of node {node} should do now ({phase})")]
    NothingDue {
        /// The node.
        node: NodeIndex,
        /// Where the ceremony stands.
        phase: String,
    },
    /// Every session is run once.
    #[error("this enclave has begun that session before")]
    StartedBefore,
    /// The charter is another than the first this enclave was shown.
    #[error("this enclave works under another charter since it booted; restart it to change")]
    OtherCharter,
    /// A session with somebody this enclave, or another party, has banned.
    #[error("the session has a banned pair of nodes; follow the compromise runbook")]
    Banned,
}

/// What the fold calls for.
pub(super) struct Order {
    pub(super) node: NodeIndex,
    pub(super) charter: Arc<Charter>,
    pub(super) ceremony: Ceremony,
    pub(super) duty: Duty,
    pub(super) spec: SessionSpec,
    /// The generation to sign with; none for a key generation.
    pub(super) wallet: Option<Wallet>,
}

fn entries(log: &[Vec<u8>]) -> Result<Vec<Entry>, OrderError> {
    if log.len() > MAX_ENTRIES {
        return Err(OrderError::TooLong(log.len()));
    }
    let decode = |(seq, bytes): (usize, &Vec<u8>)| {
        Entry::decode(bytes).map_err(|source| OrderError::Entry { seq, source })
    };
    (1..).zip(log).map(decode).collect()
}

fn fold(context: Context, log: &[Entry]) -> Result<Ceremony, OrderError> {
    Ceremony::fold(context, log)
        .map_err(|(seq, source)| OrderError::Rejected { seq, source: Box::new(source) })
}

fn is_test_signing(log: &[Entry]) -> bool {
    matches!(log.first().map(|entry| &entry.event),
        Some(Event::Opened { manifest, .. }) if manifest.kind == CeremonyKind::TestSign)
}

impl Order {
    /// Folds what the agent handed in and finds out what is due for the enclave with these keys.
    pub(super) fn read(
        start: &Start,
        root: &Arc<TrustRoot>,
        own: &EnclaveKeys,
        now: UnixMillis,
    ) -> Result<Self, OrderError> {
        let node = NodeIndex::try_from(start.node)?;
        let charter = Arc::new(Charter::parse(&start.charter)?);
        let context = Context::new(Arc::clone(&charter), Arc::clone(root))?;
        let log = entries(&start.log)?;
        let wallet = if is_test_signing(&log) {
            let origin = fold(context.clone(), &entries(&start.origin)?)?;
            Some(origin.committed().ok_or(OrderError::NoWallet)?)
        } else {
            None
        };
        let ceremony = fold(context.with_wallet(wallet.clone().map(Arc::new)), &log)?;
        let nothing = || OrderError::NothingDue { node, phase: ceremony.phase_at(now).to_string() };
        let duty = ceremony.duty(node, own, now).ok_or_else(nothing)?;
        let spec = ceremony.session(&duty).ok_or_else(nothing)?;
        if spec.parties.get(&node) != Some(own) {
            return Err(nothing());
        }
        let wallet = wallet.or_else(|| ceremony.committed());
        Ok(Self { node, charter, ceremony, duty, spec, wallet })
    }
}
