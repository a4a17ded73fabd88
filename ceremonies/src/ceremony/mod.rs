//! The ceremony: one pure fold over its log, and the only place that decides what is allowed.
//!
//! Console, agents, enclaves and the offline verifier all run it. It must never read a clock, do I/O, or accept as true
//! anything that an entry's own author did not sign. What can be derived (authorised, committed, void) is derived and
//! never logged.

mod acts;
mod backups;
mod branch;
mod broadcast;
mod duty;
mod generation;
#[cfg(test)]
mod model;
mod people;
mod protocol;
mod rejection;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use self::duty::{Duty, SessionSpec};
pub use self::people::{WITHDRAW, opening_statement};
pub use self::protocol::{ToSign, test_digest};
pub use self::rejection::Rejection;
pub use self::view::{Phase, StepState, Void};
use crate::attestation::{EnclaveKeys, Measurement, TrustRoot};
use crate::charter::{Charter, ClusterKind, Role};
use crate::ids::{Hash, Line, NodeIndex, PersonName, StepId, UnixMillis};
use crate::log::{Entry, Event, TestSigned};
use crate::manifest::Manifest;
use crate::script::Script;
use crate::statement::{Answer, Presence};
use crate::subsets::{Subset, quick_cover};
use crate::wallet::BackedUp;
use crate::wallet::{Record, Wallet};

/// How far the manifest's opening may be from its entry's time: people need a moment to sign it.
const OPENING_SKEW_MS: i64 = 15 * 60 * 1000;
/// How often one signer set may try its test signature. Each try is a new session with a new digest.
pub const MAX_ATTEMPTS: u32 = 5;
/// How often one node may attest in a ceremony: each document is several kilobytes, and the log travels in orders.
pub const MAX_ATTESTATIONS: u32 = 8;
/// How many releases of one node's backup a step accepts: one for every enclave that may attest, and as many that did
/// not open.
pub const MAX_RELEASES: usize = 16;
/// How many bytes of entries one node may append to a ceremony, so that no agent makes a log that an order cannot carry. An
/// honest node needs a quarter of it where it appends everything that people sign.
pub const MAX_APPENDED: usize = 256 * 1024;

/// The generation that a ceremony works on, as far as it is known.
#[derive(Debug, Clone)]
enum Before {
    /// From the fold of the ceremony that made it.
    Whole(Arc<Wallet>),
    /// Its record alone, which the manifest names by digest. That it was ever committed is not checked here: see
    /// `decisions/0008-the-newest-certificate-vouches.md`.
    Record(Arc<Record>),
}

impl Before {
    fn record(&self) -> &Record {
        match self {
            Self::Whole(wallet) => &wallet.record,
            Self::Record(record) => record,
        }
    }
}

/// What the fold must know besides the log: all of it public, and pinned by hash in the manifest.
#[derive(Debug, Clone)]
pub struct Context {
    charter: Arc<Charter>,
    root: Arc<TrustRoot>,
    before: Option<Before>,
}

/// The trust root in use is not the one that the charter names.
#[derive(Debug, thiserror::Error)]
#[error("the attestation root here has SHA-256 {here}; the charter of this {kind} cluster names {named}")]
pub struct ForeignRoot {
    here: Hash,
    named: Hash,
    kind: ClusterKind,
}

impl Context {
    /// Combines a charter with its trust root.
    ///
    /// # Errors
    /// [`ForeignRoot`] when the charter names another root: a lab's documents never verify as production's.
    pub fn new(charter: Arc<Charter>, root: Arc<TrustRoot>) -> Result<Self, ForeignRoot> {
        let (here, named) = (root.fingerprint(), charter.attestation().root_sha256);
        if here != named {
            return Err(ForeignRoot { here, named, kind: charter.kind() });
        }
        Ok(Self { charter, root, before: None })
    }

    /// The same under an amended charter, whose root is the same.
    #[must_use]
    pub(crate) fn amended(&self, charter: Arc<Charter>) -> Self {
        Self { charter, ..self.clone() }
    }

    /// The same, with the committed wallet that a ceremony works on.
    #[must_use]
    pub fn with_wallet(&self, wallet: Option<Arc<Wallet>>) -> Self {
        Self { before: wallet.map(Before::Whole), ..self.clone() }
    }

    /// The same, with no more than the record of the generation that a ceremony works on.
    #[must_use]
    pub(crate) fn with_record(&self, record: Arc<Record>) -> Self {
        Self { before: Some(Before::Record(record)), ..self.clone() }
    }

    /// The charter that ceremonies are held under.
    #[must_use]
    pub fn charter(&self) -> &Arc<Charter> {
        &self.charter
    }

    /// The root to which attestation documents chain.
    #[must_use]
    pub fn root(&self) -> &Arc<TrustRoot> {
        &self.root
    }
}

/// The last entry of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
    /// Its time.
    pub time: UnixMillis,
}

/// An enclave as it attested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestedEnclave {
    /// Its public keys.
    pub keys: EnclaveKeys,
    /// The image it runs.
    pub measurement: Measurement,
    /// The number of the entry in which it attested.
    pub seq: u64,
    /// The time in its document.
    pub at: UnixMillis,
    /// The document.
    pub document: Vec<u8>,
    /// How often the node has attested in this ceremony.
    pub times: u32,
}

/// A person's signature that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepSignature {
    /// The entry's number.
    pub seq: u64,
    /// When the agent took it.
    pub time: UnixMillis,
    /// Which step.
    pub step: StepId,
    /// In which role.
    pub role: Role,
    /// Who.
    pub person: PersonName,
    /// What was answered.
    pub answer: Answer,
    /// The text that was signed.
    pub text: String,
    /// The armoured SSHSIG.
    pub signature: Vec<u8>,
    /// What the signature proves of how it was made.
    pub presence: Presence,
}

/// A test signature and who vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestSignature {
    /// The group.
    pub subset: Subset,
    /// Which try.
    pub attempt: u32,
    /// Which of a transaction's digests, from 0; 0 for a test.
    pub input: u32,
    /// The protocol session.
    pub session: Hash,
    /// The digest that was signed.
    pub digest: Hash,
    /// r, big-endian.
    pub r: [u8; 32],
    /// s, big-endian, in the lower half.
    pub s: [u8; 32],
    /// 0 to 3.
    pub recovery_id: u8,
    /// The signers whose enclaves reported it.
    pub reported_by: BTreeSet<NodeIndex>,
}

impl TestSignature {
    /// Whether every signer has reported it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.subset.parties().iter().all(|party| self.reported_by.contains(party))
    }

    fn agrees_with(&self, other: &TestSigned) -> bool {
        self.session == other.session
            && self.r == other.r
            && self.s == other.s
            && self.recovery_id == other.recovery_id
    }
}

/// How a ceremony was ended from outside the script.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ending {
    /// An enclave gave the key generation up.
    Aborted { node: NodeIndex, reason: Line },
    /// An agent gave up.
    Faulted { node: NodeIndex, reason: Line },
    /// A node came back with another enclave after people had signed for the old one.
    Replaced { node: NodeIndex },
    /// A person ended it.
    Withdrawn { person: PersonName, reason: Line },
}

/// A ceremony as its log has made it.
#[derive(Debug, Clone)]
pub struct Ceremony {
    context: Context,
    script: Arc<Script>,
    manifest: Manifest,
    head: Head,
    enclaves: BTreeMap<NodeIndex, AttestedEnclave>,
    /// The enclaves' hash under which people signed, once anyone has.
    approved_enclaves: Option<Hash>,
    signatures: Vec<StepSignature>,
    /// The lost nodes that have their shares again.
    recovered: BTreeSet<NodeIndex>,
    /// Each node's record digest and blob digest, staged beside the share in use.
    staged: BTreeMap<NodeIndex, (Hash, Hash)>,
    /// Each node's record digest and blob digest.
    prepared: BTreeMap<NodeIndex, (Hash, Hash)>,
    /// The first record that was staged or prepared; all must match it.
    record: Option<Record>,
    aborted: BTreeSet<NodeIndex>,
    backups: BTreeMap<NodeIndex, BackedUp>,
    proved: BTreeSet<NodeIndex>,
    adopted: BTreeSet<NodeIndex>,
    retired: BTreeSet<NodeIndex>,
    /// The groups that test-sign here.
    cover: Vec<Subset>,
    tests: Vec<TestSignature>,
    /// Failed tries of test signatures: which node gave up, for which signer set and attempt.
    given_up: BTreeSet<(Subset, u32, NodeIndex)>,
    /// Who will never again work with whom.
    bans: BTreeSet<(NodeIndex, NodeIndex)>,
    ending: Option<Ending>,
    /// How many bytes each node has appended.
    appended: BTreeMap<NodeIndex, usize>,
}

/// Checks that a node of the charter appended the entry. Nodes listed in an amendment's new charter may append to its
/// ceremony too: when all machines are lost, there are no others. They order and date entries; only people approve.
fn check_author(entry: &Entry, charter: &Charter, manifest: &Manifest) -> Result<(), Rejection> {
    let next = manifest.amendment().map(AsRef::as_ref);
    match entry.node {
        _ if entry.is_by_its_node(charter) || next.is_some_and(|next| entry.is_by_its_node(next)) => Ok(()),
        node if charter.excludes(node) => Err(Rejection::Excluded(node)),
        node => Err(Rejection::Author(node)),
    }
}

impl Ceremony {
    /// Starts the fold with a log's first entry.
    ///
    /// # Errors
    /// [`Rejection`] unless it is a valid opening under this context.
    pub fn open(context: Context, first: &Entry) -> Result<Self, Rejection> {
        let Event::Opened { manifest, signature } = &first.event else {
            return Err(Rejection::Opening);
        };
        if first.ceremony != manifest.ceremony {
            return Err(Rejection::OtherCeremony {
                theirs: first.ceremony.clone(),
                ours: manifest.ceremony.clone(),
            });
        }
        Self::check_place(first, 1, Hash::ZERO, UnixMillis(0))?;
        check_author(first, &context.charter, manifest)?;
        let script = Arc::new(Script::builtin(manifest.kind).map_err(Rejection::Script)?);
        manifest.check(&context.charter, &script).map_err(Rejection::Manifest)?;
        if first.time > manifest.expires {
            return Err(Rejection::Expired { expired: manifest.expires });
        }
        if first.time.since(manifest.opened).abs() > OPENING_SKEW_MS {
            return Err(Rejection::OpenedElsewhen { opened: manifest.opened, at: first.time });
        }
        Self::check_origin(&context, manifest)?;
        let cover = quick_cover(&manifest.roster, usize::from(manifest.threshold));
        let mut ceremony = Self {
            context,
            script,
            manifest: manifest.as_ref().clone(),
            head: Head { seq: 1, hash: first.hash(), time: first.time },
            enclaves: BTreeMap::new(),
            approved_enclaves: None,
            signatures: Vec::new(),
            recovered: BTreeSet::new(),
            staged: BTreeMap::new(),
            prepared: BTreeMap::new(),
            record: None,
            aborted: BTreeSet::new(),
            backups: BTreeMap::new(),
            proved: BTreeSet::new(),
            adopted: BTreeSet::new(),
            retired: BTreeSet::new(),
            cover,
            tests: Vec::new(),
            given_up: BTreeSet::new(),
            bans: BTreeSet::new(),
            ending: None,
            appended: [(first.node, first.size())].into(),
        };
        let opening = ceremony.opening(signature, first)?;
        ceremony.signatures.push(opening);
        Ok(ceremony)
    }

    /// A refresh or recovery follows the generation that the context holds. All others are about that very generation,
    /// and are held among those of its nodes that the charter does not exclude.
    fn check_origin(context: &Context, manifest: &Manifest) -> Result<(), Rejection> {
        match (&manifest.origin, &context.before) {
            (None, _) => Ok(()),
            (Some(origin), Some(before)) => {
                let record = before.record();
                let same = record.digest() == origin.record
                    && record.ceremony == origin.ceremony
                    && record.wallet == manifest.wallet
                    && if manifest.kind.renews() {
                        record.generation < manifest.generation
                    } else {
                        record.generation == manifest.generation
                    }
                    && record.threshold == manifest.threshold
                    && if manifest.kind.rules().special.has_a_signer_set {
                        manifest.roster.iter().all(|node| record.public_shares.contains_key(node))
                    } else {
                        let left =
                            record.public_shares.keys().filter(|node| !context.charter.excludes(**node));
                        left.eq(&manifest.roster)
                    };
                if same { Ok(()) } else { Err(Rejection::Wallet) }
            }
            (Some(_), None) => Err(Rejection::Wallet),
        }
    }

    fn check_place(entry: &Entry, seq: u64, prev: Hash, time: UnixMillis) -> Result<(), Rejection> {
        if entry.seq != seq {
            return Err(Rejection::Sequence { got: entry.seq, expected: seq });
        }
        if entry.prev != prev {
            return Err(Rejection::Chain { got: entry.prev, expected: prev });
        }
        if entry.time < time {
            return Err(Rejection::TimeRunsBack { got: entry.time, last: time });
        }
        Ok(())
    }

    /// Applies the log's next entry, or refuses it and stays as it was.
    ///
    /// # Errors
    /// [`Rejection`] says what is wrong with it.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Rejection> {
        if entry.ceremony != self.manifest.ceremony {
            return Err(Rejection::OtherCeremony {
                theirs: entry.ceremony.clone(),
                ours: self.manifest.ceremony.clone(),
            });
        }
        Self::check_place(entry, self.head.seq + 1, self.head.hash, self.head.time)?;
        check_author(entry, &self.context.charter, &self.manifest)?;
        if self.is_closed() {
            // The head's words may be on paper by now.
            return Err(Rejection::Over(Phase::Closed.to_string()));
        }
        let appended = self.appended.get(&entry.node).copied().unwrap_or(0) + entry.size();
        if appended > MAX_APPENDED {
            return Err(Rejection::TooMuch(entry.node));
        }
        match &entry.event {
            Event::Opened { .. } => return Err(Rejection::Opening),
            Event::Attested { node, document } => self.attested(entry, *node, document)?,
            Event::Signed { step, role, person, answer, signature } => {
                let signed = self.judge(entry, step, *role, person, answer, signature)?;
                self.record_signature(signed);
            }
            Event::Prepared { node, record, blob, signature } => {
                self.prepared(*node, record, *blob, signature)?;
            }
            Event::BackedUp(backed_up) => self.backed_up(entry, backed_up)?,
            Event::Proved { node, object, point, signature } => {
                self.proved(*node, *object, point, signature)?;
            }
            Event::Recovered { node, signature } => self.recovered(*node, signature)?,
            Event::Staged { node, record, blob, signature } => {
                self.staged(*node, record, *blob, signature)?;
            }
            Event::Retired { node, record, signature } => self.retired(*node, *record, signature)?,
            Event::Adopted { node, record } => self.adopted(entry, *node, *record)?,
            Event::TestSigned(signed) => self.test_signed(signed)?,
            Event::Aborted(aborted) => self.aborted(aborted)?,
            Event::Faulted { node, reason } => self.faulted(entry, *node, reason)?,
            Event::Withdrawn { person, role, reason, signature } => {
                self.withdrawn(entry, person, *role, reason, signature)?;
            }
        }
        self.head = Head { seq: entry.seq, hash: entry.hash(), time: entry.time };
        self.appended.insert(entry.node, appended);
        Ok(())
    }

    /// Folds a whole log.
    ///
    /// # Errors
    /// [`Rejection`] of the first entry that is refused, with its number.
    pub fn fold(context: Context, entries: &[Entry]) -> Result<Self, (u64, Rejection)> {
        let (first, rest) = entries.split_first().ok_or((1, Rejection::Opening))?;
        let mut ceremony = Self::open(context, first).map_err(|rejection| (1, rejection))?;
        for (seq, entry) in (2..).zip(rest) {
            ceremony.apply(entry).map_err(|rejection| (seq, rejection))?;
        }
        Ok(ceremony)
    }

    /// What was approved.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The script it follows.
    #[must_use]
    pub fn script(&self) -> &Script {
        &self.script
    }

    /// The charter it is held under.
    #[must_use]
    pub fn charter(&self) -> &Charter {
        &self.context.charter
    }

    /// The last entry taken.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// The enclaves as they attested last.
    #[must_use]
    pub fn enclaves(&self) -> &BTreeMap<NodeIndex, AttestedEnclave> {
        &self.enclaves
    }

    /// Every person's signature, in order.
    #[must_use]
    pub fn signatures(&self) -> &[StepSignature] {
        &self.signatures
    }

    /// Every test signature reported, complete or not.
    #[must_use]
    pub fn tests(&self) -> &[TestSignature] {
        &self.tests
    }

    /// Who will never again work with whom (reporter, peer).
    #[must_use]
    pub fn bans(&self) -> &BTreeSet<(NodeIndex, NodeIndex)> {
        &self.bans
    }

    /// The nodes whose enclaves have signed a result.
    #[must_use]
    pub fn prepared_nodes(&self) -> BTreeSet<NodeIndex> {
        self.prepared.keys().copied().collect()
    }

    /// The nodes that have staged a result, where the ceremony stages them.
    #[must_use]
    pub fn staged_nodes(&self) -> BTreeSet<NodeIndex> {
        self.staged.keys().copied().collect()
    }

    /// The nodes that have deleted their shares of the generations before.
    #[must_use]
    pub fn retired_nodes(&self) -> &BTreeSet<NodeIndex> {
        &self.retired
    }

    /// The nodes that have adopted the committed generation.
    #[must_use]
    pub fn adopted_nodes(&self) -> &BTreeSet<NodeIndex> {
        &self.adopted
    }

    /// The charter that it has put in force, and when: from the last approval that was needed, for ever.
    #[must_use]
    pub fn amended(&self) -> Option<(&Arc<Charter>, UnixMillis)> {
        Some((self.manifest.amendment()?, self.approved_at()?))
    }
}
