//! Reading the agent's orders: charter and log are folded here, and only what the fold calls for is ever done. Without
//! that, nothing that the agent says is believed.

use std::collections::BTreeSet;
use std::sync::Arc;

use ceremonies::attestation::{EnclaveKeys, TrustRoot};
use ceremonies::book::{Book, BranchError, NotTaken};
use ceremonies::ceremony::{Ceremony, Context, Duty, ForeignRoot, Phase, Rejection, SessionSpec};
use ceremonies::charter::{Charter, CharterError};
use ceremonies::ids::{CeremonyId, Generation, Hash, InvalidId, NodeIndex, UnixMillis, WalletName};
use ceremonies::log::{Entry, EntryError};
use ceremonies::wallet::{Record, RecordError, Wallet};
use thiserror::Error;

use enclave_link::message::Start;

/// Most entries of one log that are folded: far more than any ceremony has.
const MAX_ENTRIES: usize = 4096;
/// The most records of earlier generations that are read: one for each of the other logs, which are fewer.
const MAX_RECORDS: usize = 1024;

/// Why an order is refused.
#[derive(Debug, Error)]
pub(super) enum OrderError {
    /// The charter is refused.
    #[error("the charter is refused")]
    Charter(#[from] CharterError),
    /// The charter belongs to a trust root other than this enclave's.
    #[error("the charter is for another kind of cluster")]
    Root(#[from] ForeignRoot),
    /// The node's index is malformed.
    #[error("the order names a malformed node")]
    Node(#[from] InvalidId),
    /// Too long to be a ceremony.
    #[error("the log has {0} entries; at most {MAX_ENTRIES} are read")]
    TooLong(usize),
    /// Bytes that are not an entry.
    #[error("entry {seq} of the log cannot be read")]
    Entry {
        /// Its place in the log.
        seq: usize,
        /// Why.
        source: EntryError,
    },
    /// An entry that the fold refuses, or that forks from what this enclave was shown before.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// A branch of a log other than the one that this enclave was shown before, and which would undo something.
    #[error(
        "ceremony {ceremony} forks from what this enclave was shown; restart the enclave if the new branch is the one \
         that stands"
    )]
    Branch {
        /// Which ceremony.
        ceremony: CeremonyId,
        /// Why the branch is refused.
        source: BranchError,
    },
    /// More records than there can be logs.
    #[error("the order has {0} records; at most {MAX_RECORDS} are read")]
    TooManyRecords(usize),
    /// Bytes that are not a generation record.
    #[error("a record of an earlier generation is refused")]
    Record(#[from] RecordError),
    /// The log of the generation that the ceremony works on is missing, or it does not commit it.
    #[error("the order lacks the log of {0}, which made the generation that the ceremony works on")]
    NoOrigin(CeremonyId),
    /// The log is refused under its origin, which is now known.
    #[error("entry {seq} of {ceremony} is refused")]
    FoldedAgain {
        /// Which ceremony.
        ceremony: CeremonyId,
        /// The entry's number.
        seq: u64,
        /// Why.
        source: Box<Rejection>,
    },
    /// No entry.
    #[error("the order lacks a log")]
    NoLog,
    /// The fold calls for nothing from this enclave.
    #[error("the log calls for nothing from the enclave of node {node} now ({phase})")]
    NothingDue {
        /// The node.
        node: NodeIndex,
        /// Where the ceremony stands.
        phase: String,
    },
    /// Every session is run once.
    #[error("this enclave has already begun that session")]
    StartedBefore,
    /// The charter is not the one that this enclave was shown before.
    #[error(
        "since it booted, this enclave works for a cluster with another first charter; restart it to change clusters"
    )]
    OtherCharter,
    /// The wallet has gone on to another generation.
    #[error(
        "wallet {wallet} is at generation {current} and never goes back to {named}: this node's agent or its log is \
         behind; let it catch up"
    )]
    Superseded {
        /// The wallet.
        wallet: WalletName,
        /// What the order is about.
        named: Generation,
        /// What is in use.
        current: Generation,
    },
    /// The agent handed in the share of another generation.
    #[error(
        "the agent handed in its share of {wallet}, generation {held}, where generation {needed} is due: its store was \
         rolled back; have the node recovered"
    )]
    OldShare {
        /// The wallet.
        wallet: WalletName,
        /// The share's generation.
        held: Generation,
        /// The one that is due.
        needed: Generation,
    },
    /// Another ceremony makes the same generation.
    #[error(
        "{0} has made or may yet make this generation: withdraw this ceremony, or restart this enclave if {0} is void"
    )]
    Rival(CeremonyId),
    /// Nothing staged here.
    #[error(
        "this enclave holds no staged share of {0}, because it was restarted since: withdraw the ceremony and open a \
         new one"
    )]
    NotStaged(CeremonyId),
    /// A party's share is out of use.
    #[error(
        "node {0} was excluded from the cluster after its share of this wallet was made: have it recovered, or withdraw \
         this ceremony"
    )]
    Excluded(NodeIndex),
    /// A session that includes a banned pair of nodes.
    #[error("the session has a banned pair of nodes; follow the compromise runbook")]
    Banned,
}

/// What the fold calls for.
pub(super) struct Order {
    pub(super) node: NodeIndex,
    /// The cluster's first: what shares are sealed under, and the KMS key that no amendment changes.
    pub(super) charter: Arc<Charter>,
    pub(super) ceremony: Ceremony,
    pub(super) duty: Duty,
    pub(super) spec: SessionSpec,
    /// The generation whose share is needed, where one is and this node has not lost it.
    pub(super) wallet: Option<Wallet>,
    /// The bans of the ceremonies shown so far that hold in this one: reporter and peer.
    pub(super) bans: BTreeSet<(NodeIndex, NodeIndex)>,
    /// The same, whatever has become of it since.
    pub(super) logged_bans: BTreeSet<(NodeIndex, NodeIndex)>,
}

/// What an order comes to.
pub(super) enum Due {
    /// A session with other enclaves.
    Session(Box<Order>),
    /// Signing the certificate for the staged share.
    Prepare(NodeIndex, Box<Ceremony>),
    /// Forgetting the shares of the generations before.
    Retire(NodeIndex, Box<Wallet>),
}

/// The first charter of the cluster this enclave works for, and every log it was ever shown, folded. What it has seen
/// cannot be undone: an older log adds nothing. A log that forks from a known one is refused if this enclave has begun
/// something unfinished, and otherwise unless everything that the known one shows follows from it too.
#[derive(Default)]
pub(super) struct Ledger {
    known: Option<Known>,
}

struct Known {
    charter: Arc<Charter>,
    book: Book,
    /// The ceremonies in which this enclave has followed an order.
    begun: BTreeSet<CeremonyId>,
}

impl Ledger {
    /// What is known of the cluster with this first charter: an enclave works for one cluster from boot to end. A share
    /// that was sealed under another first charter does not open.
    fn under(&mut self, charter: &[u8], root: &Arc<TrustRoot>) -> Result<&mut Known, OrderError> {
        let known = match self.known.take() {
            Some(known) => known,
            None => Known::of(Arc::new(Charter::parse(charter)?), root)?,
        };
        let known = self.known.insert(known);
        if known.charter.text().as_bytes() == charter {
            return Ok(known);
        }
        Charter::parse(charter)?;
        Err(OrderError::OtherCharter)
    }
}

fn decode(log: &[Vec<u8>]) -> Result<Vec<Entry>, OrderError> {
    if log.len() > MAX_ENTRIES {
        return Err(OrderError::TooLong(log.len()));
    }
    let read = |(seq, bytes): (usize, &Vec<u8>)| {
        Entry::decode(bytes).map_err(|source| OrderError::Entry { seq, source })
    };
    (1..).zip(log).map(read).collect()
}

impl Known {
    /// Nothing but the charter.
    fn of(charter: Arc<Charter>, root: &Arc<TrustRoot>) -> Result<Self, OrderError> {
        let context = Context::new(Arc::clone(&charter), Arc::clone(root))?;
        Ok(Self { charter, book: Book::new(context), begun: BTreeSet::new() })
    }

    /// Takes a log and adds what is new in it to the known one.
    fn take(&mut self, log: &[Vec<u8>], now: UnixMillis) -> Result<Option<CeremonyId>, OrderError> {
        let entries = decode(log)?;
        for entry in &entries {
            match self.book.take(entry.clone()) {
                Ok(_) => {}
                Err(fork @ NotTaken::Fork { .. }) => {
                    self.take_branch(&entries, fork, now)?;
                    break;
                }
                Err(refused) => return Err(refused.into()),
            }
        }
        Ok(entries.last().map(|last| last.ceremony.clone()))
    }

    /// Takes a log that forks from the known one, if this enclave has nothing under way.
    fn take_branch(&mut self, log: &[Entry], fork: NotTaken, now: UnixMillis) -> Result<(), OrderError> {
        let Some(ceremony) = log.first().map(|first| first.ceremony.clone()) else { return Ok(()) };
        let branch = self.book.with_branch(log);
        let is_over =
            |book: &Book| book.get(&ceremony).is_some_and(|chapter| is_over(&chapter.ceremony, now));
        if self.begun.contains(&ceremony) && !branch.as_ref().is_ok_and(is_over) {
            return Err(fork.into());
        }
        self.book = branch.map_err(|source| OrderError::Branch { ceremony, source })?;
        Ok(())
    }

    /// Takes note of the earlier generations in this order by their records.
    fn rest_on(&mut self, records: &[Vec<u8>]) -> Result<(), OrderError> {
        if records.len() > MAX_RECORDS {
            return Err(OrderError::TooManyRecords(records.len()));
        }
        let records = records.iter().map(|record| Record::parse(record)).collect::<Result<Vec<_>, _>>()?;
        self.book.rest_on(records);
        Ok(())
    }

    /// The ceremony that an order is about. Its origin must be known by its certificate: n enclaves have checked there what
    /// lies before, and nobody has checked what this ceremony says of its own origin.
    fn ceremony(&mut self, id: &CeremonyId) -> Result<Ceremony, OrderError> {
        self.book.fold_again(id).map_err(|(seq, source)| OrderError::FoldedAgain {
            ceremony: id.clone(),
            seq,
            source: Box::new(source),
        })?;
        let ceremony = self.book.get(id).ok_or(OrderError::NoLog)?.ceremony.clone();
        match &ceremony.manifest().origin {
            Some(origin) if ceremony.before().is_none() => Err(OrderError::NoOrigin(origin.ceremony.clone())),
            Some(_) | None => Ok(ceremony),
        }
    }
}

/// Whether nothing more is done in this ceremony.
fn is_over(ceremony: &Ceremony, now: UnixMillis) -> bool {
    match ceremony.phase_at(now) {
        Phase::Closed | Phase::Abandoned(_) | Phase::Void(_) => true,
        Phase::Gathering | Phase::Authorised | Phase::Committed => false,
    }
}

impl Order {
    /// Folds what the agent handed in and finds out what is due from the enclave with these keys.
    pub(super) fn read(
        start: &Start,
        ledger: &mut Ledger,
        root: &Arc<TrustRoot>,
        own: &EnclaveKeys,
        now: UnixMillis,
    ) -> Result<Due, OrderError> {
        let node = NodeIndex::try_from(start.node)?;
        let known = ledger.under(&start.charter, root)?;
        known.rest_on(&start.records)?;
        for other in &start.others {
            known.take(&other.entries, now)?;
        }
        let id = known.take(&start.log, now)?.ok_or(OrderError::NoLog)?;
        let ceremony = known.ceremony(&id)?;
        let due = Self::due(start, known, node, ceremony, own, now)?;
        known.begun.insert(id);
        Ok(due)
    }

    fn due(
        start: &Start,
        known: &Known,
        node: NodeIndex,
        ceremony: Ceremony,
        own: &EnclaveKeys,
        now: UnixMillis,
    ) -> Result<Due, OrderError> {
        let book = &known.book;
        let nothing = || OrderError::NothingDue { node, phase: ceremony.phase_at(now).to_string() };
        let duty = ceremony.duty(node, own, now).ok_or_else(nothing)?;
        if let Some(rival) = book.rival(&ceremony, now).filter(|_| ceremony.committed().is_none()) {
            return Err(OrderError::Rival(rival.clone()));
        }
        match &duty {
            Duty::Prepare => return Ok(Due::Prepare(node, Box::new(ceremony))),
            Duty::Retire => {
                return Ok(Due::Retire(node, Box::new(ceremony.committed().ok_or_else(nothing)?)));
            }
            // What there is no session for is refused below.
            Duty::Attest
            | Duty::Fault
            | Duty::Repair { .. }
            | Duty::Rebuild
            | Duty::Generate
            | Duty::Restore { .. }
            | Duty::Backup { .. }
            | Duty::Prove { .. }
            | Duty::Adopt
            | Duty::TestSign { .. } => {}
        }
        check_not_superseded(book, &ceremony)?;
        let spec = ceremony.session(&duty).ok_or_else(nothing)?;
        if spec.parties.get(&node) != Some(own) {
            return Err(nothing());
        }
        let out = book.out_of_use(ceremony.manifest());
        if let Some(party) = spec.parties.keys().find(|party| out.contains(party)) {
            return Err(OrderError::Excluded(*party));
        }
        let wallet = ceremony.share_for(&duty, node);
        if let Some(wallet) = &wallet {
            check_generation(book, wallet, node, &start.blob)?;
        }
        let bans = book.bans_in(ceremony.manifest());
        let logged_bans = book.bans().collect();
        let charter = Arc::clone(&known.charter);
        let order = Self { node, charter, ceremony, duty, spec, wallet, bans, logged_bans };
        Ok(Due::Session(Box::new(order)))
    }
}

/// Nothing more is done with a generation that another has replaced.
fn check_not_superseded(book: &Book, ceremony: &Ceremony) -> Result<(), OrderError> {
    let (Some(before), Some(current)) = (ceremony.before(), book.wallet(&ceremony.manifest().wallet)) else {
        return Ok(());
    };
    let (named, current) = (before.record.generation, current.record.generation);
    if current <= named || ceremony.committed().is_some_and(|made| made.record.generation == current) {
        return Ok(());
    }
    Err(OrderError::Superseded { wallet: ceremony.manifest().wallet.clone(), named, current })
}

/// Tells a share of another generation from a damaged one: the certificates name every sealed share.
fn check_generation(book: &Book, needed: &Wallet, node: NodeIndex, blob: &[u8]) -> Result<(), OrderError> {
    let digest = Hash::of_bytes(blob);
    if needed.blobs.get(&node) == Some(&digest) {
        return Ok(());
    }
    let committed = book.iter().filter_map(|(_, chapter)| chapter.ceremony.committed());
    let held = committed
        .filter(|other| other.record.wallet == needed.record.wallet)
        .find(|other| other.blobs.get(&node) == Some(&digest));
    held.map_or(Ok(()), |held| {
        Err(OrderError::OldShare {
            wallet: held.record.wallet,
            held: held.record.generation,
            needed: needed.record.generation,
        })
    })
}
