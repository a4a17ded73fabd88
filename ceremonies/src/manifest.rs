//! The manifest: everything the people approve before a protocol may start. Its hash stands in every
//! statement, and it is the nonce of every attestation.

mod subject;

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use thiserror::Error;

pub use self::subject::{Subject, Way};
use crate::chain::transaction::{Transaction, TransactionError};
use crate::charter::{CeremonyKind, Charter, CharterError, Incomplete};
use crate::ids::{
    CeremonyId, ClusterId, Generation, Hash, InvalidId, Line, NodeIndex, PersonName, UnixMillis, WalletName,
};
use crate::inventory::{InvalidItem, Item};
use crate::script::Script;
use crate::wire;

/// Largest accepted manifest, in bytes.
pub const MAX_MANIFEST: usize = 48 * 1024;
/// Longest time between opening and expiry: a day. An approval is not a standing order.
pub const MAX_LIFETIME_MS: i64 = 24 * 60 * 60 * 1000;

/// A validated manifest, with the bytes it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    bytes: Vec<u8>,
    hash: Hash,
    /// The ceremony's id; also its subject.
    pub ceremony: CeremonyId,
    /// What kind of ceremony.
    pub kind: CeremonyKind,
    /// The cluster it is for.
    pub cluster: ClusterId,
    /// That cluster's kind, in words: shown in every statement.
    pub cluster_kind: String,
    /// Hash of the charter in force.
    pub charter: Hash,
    /// Name of the script.
    pub script: String,
    /// Hash of the script.
    pub script_hash: Hash,
    /// The wallet it is about.
    pub wallet: WalletName,
    /// The generation it makes, signs with, or speaks of.
    pub generation: Generation,
    /// Why it is held.
    pub purpose: Line,
    /// When it was opened.
    pub opened: UnixMillis,
    /// After this nothing may be approved or started.
    pub expires: UnixMillis,
    /// How many shares sign (t).
    pub threshold: u8,
    /// The nodes that take part.
    pub roster: Vec<NodeIndex>,
    /// Who leads it.
    pub administrator: PersonName,
    /// All but key generation and amendment: the generation that it works on.
    pub origin: Option<Origin>,
    /// What it is about, besides its wallet.
    pub subject: Subject,
}

/// The generation that a later ceremony works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The ceremony that made it.
    pub ceremony: CeremonyId,
    /// The digest its enclaves signed.
    pub record: Hash,
}

/// Why a manifest is refused.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Too large to be read.
    #[error("manifest has {0} bytes; at most {MAX_MANIFEST} are read")]
    TooLarge(usize),
    /// Not the message.
    #[error("manifest cannot be decoded")]
    Encoding(#[source] prost::DecodeError),
    /// A name, index or hash is malformed.
    #[error("manifest contains a malformed name or value")]
    Field(#[from] InvalidId),
    /// A field has a value that no manifest of this build may have.
    #[error("the manifest is refused: {0}")]
    Value(String),
    /// Its new charter is refused.
    #[error("the amended charter is refused")]
    Amendment(#[from] CharterError),
    /// Its transaction is refused.
    #[error("the transaction is refused")]
    Transaction(#[from] Box<TransactionError>),
    /// An item of its inventory is malformed.
    #[error(transparent)]
    Item(#[from] InvalidItem),
    /// It needs nodes that the charter excludes.
    #[error(transparent)]
    Incomplete(#[from] Incomplete),
    /// It names a node that the charter excludes.
    #[error("node {0} is excluded from the cluster and takes part in nothing: leave it out")]
    Excluded(NodeIndex),
    /// It is made for something else.
    #[error("manifest is for {what} {theirs}, but {ours} is in use here")]
    Elsewhere {
        /// Which field.
        what: &'static str,
        /// Its value in the manifest.
        theirs: String,
        /// The value here.
        ours: String,
    },
}

/// What a console fills in to open a ceremony; the rest follows from charter, script and wallet.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// What kind of ceremony.
    pub kind: CeremonyKind,
    /// The wallet it is about.
    pub wallet: WalletName,
    /// Why it is held.
    pub purpose: Line,
    /// Who leads it.
    pub administrator: PersonName,
    /// When it is opened.
    pub opened: UnixMillis,
    /// How long it may take, in milliseconds.
    pub lifetime_ms: i64,
    /// Random, so that no two ceremonies share a hash or an id.
    pub nonce: [u8; 16],
    /// The generation that it makes, signs with, or speaks of.
    pub generation: Generation,
    /// The generation that it works on: for all but key generation and amendment.
    pub origin: Option<Origin>,
    /// What it is about, besides its wallet.
    pub subject: Subject,
    /// Which nodes sign a transfer; in all others, every node takes part.
    pub signers: Option<Vec<NodeIndex>>,
}

impl Proposal {
    /// The manifest of this proposal.
    ///
    /// # Errors
    /// As [`Manifest::parse`], for a proposal that would be refused by everybody.
    pub fn manifest(&self, charter: &Charter, script: &Script) -> Result<Manifest, ManifestError> {
        let id = format!("{}-{}-{}", self.kind, self.wallet, hex::encode(&self.nonce[..4]));
        let origin = self.origin.as_ref();
        let roster = self.signers.clone().unwrap_or_else(|| charter.members());
        let mut wire = wire::log::Manifest {
            version: wire::VERSION,
            ceremony: id,
            kind: self.kind.rules().wire.into(),
            cluster: charter.cluster().to_string(),
            cluster_kind: charter.kind().to_string(),
            charter: charter.hash().as_bytes().to_vec(),
            script: script.name().to_string(),
            script_hash: script.hash().as_bytes().to_vec(),
            wallet: self.wallet.to_string(),
            generation: self.generation.0,
            purpose: self.purpose.to_string(),
            opened_ms: self.opened.0,
            expires_ms: self.opened.plus(self.lifetime_ms).0,
            threshold: charter.threshold().into(),
            roster: roster.into_iter().map(u32::from).collect(),
            administrator: self.administrator.to_string(),
            nonce: self.nonce.to_vec(),
            origin: origin.map(|origin| origin.ceremony.to_string()).unwrap_or_default(),
            record: origin.map(|origin| origin.record.as_bytes().to_vec()).unwrap_or_default(),
            ..wire::log::Manifest::default()
        };
        self.subject.write(&mut wire);
        Manifest::parse(&wire.encode_to_vec())
    }
}

fn value(broken: bool, text: &str) -> Result<(), ManifestError> {
    if broken { Err(ManifestError::Value(text.to_owned())) } else { Ok(()) }
}

impl Manifest {
    /// Reads a manifest and checks all that can be checked without charter and script.
    ///
    /// # Errors
    /// [`ManifestError`] says which part is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST {
            return Err(ManifestError::TooLarge(bytes.len()));
        }
        let wire = wire::log::Manifest::decode(bytes).map_err(ManifestError::Encoding)?;
        value(wire.version != wire::VERSION, "version is not 1, the only one that this build reads")?;
        value(wire.nonce.len() != 16, "nonce is not 16 bytes long")?;
        let lifetime = wire.expires_ms.saturating_sub(wire.opened_ms);
        value(lifetime <= 0, "it expires before it opens")?;
        value(lifetime > MAX_LIFETIME_MS, "it is valid for longer than a day")?;
        value(wire.generation == 0, "generation is 0; the first is 1")?;
        value(
            wire.generation == u32::MAX,
            "generation is the largest possible number; none could follow it",
        )?;
        let unknown = || ManifestError::Value("kind is missing or unknown to this build".into());
        let kind = CeremonyKind::from_wire(wire.kind()).ok_or_else(unknown)?;
        let origin = Self::origin(kind, &wire)?;
        let subject = Subject::read(kind, &wire)?;
        value(
            matches!(subject, Subject::Charter(_)) != (wire.wallet == WalletName::of_the_charter().as_str()),
            "an amendment must have the wallet name `charter`, and no other ceremony may",
        )?;
        (kind.rules().special.flaw)(&wire).map_or(Ok(()), |flaw| value(true, flaw))?;
        Ok(Self {
            hash: Hash::of_parts("custody/manifest/v1", &[bytes]),
            bytes: bytes.to_vec(),
            ceremony: wire.ceremony.try_into()?,
            kind,
            cluster: wire.cluster.try_into()?,
            cluster_kind: Line::try_from(wire.cluster_kind)?.into(),
            charter: wire.charter.as_slice().try_into()?,
            script: Line::try_from(wire.script)?.into(),
            script_hash: wire.script_hash.as_slice().try_into()?,
            wallet: wire.wallet.try_into()?,
            generation: Generation(wire.generation),
            purpose: wire.purpose.try_into()?,
            opened: UnixMillis(wire.opened_ms),
            expires: UnixMillis(wire.expires_ms),
            threshold: u8::try_from(wire.threshold)
                .map_err(|_| ManifestError::Value("threshold is over 255".into()))?,
            roster: wire.roster.into_iter().map(NodeIndex::try_from).collect::<Result<_, _>>()?,
            administrator: wire.administrator.try_into()?,
            origin,
            subject,
        })
    }

    fn origin(kind: CeremonyKind, wire: &wire::log::Manifest) -> Result<Option<Origin>, ManifestError> {
        if !kind.rules().special.has_an_origin {
            let has_one = !wire.origin.is_empty() || !wire.record.is_empty();
            value(has_one, &format!("a ceremony of kind {kind} has no origin"))?;
            value(
                wire.generation != Generation::FIRST.0,
                &format!("a ceremony of kind {kind} has generation 1"),
            )?;
            return Ok(None);
        }
        value(
            kind.renews() && wire.generation == Generation::FIRST.0,
            "a refresh or recovery follows an existing generation; it cannot make the first",
        )?;
        Ok(Some(Origin {
            ceremony: wire.origin.clone().try_into()?,
            record: wire.record.as_slice().try_into()?,
        }))
    }

    /// Checks that the manifest is for this charter and script, all of it.
    ///
    /// # Errors
    /// [`ManifestError::Elsewhere`] with the first field that differs; [`ManifestError::Amendment`] when the charter
    /// may not be amended in this way.
    pub fn check(&self, charter: &Charter, script: &Script) -> Result<(), ManifestError> {
        let same = |what: &'static str, theirs: String, ours: String| {
            if theirs == ours { Ok(()) } else { Err(ManifestError::Elsewhere { what, theirs, ours }) }
        };
        value(
            charter.quorum(self.kind).is_none(),
            "the charter names no quorum for a ceremony of this kind",
        )?;
        same("cluster", self.cluster.to_string(), charter.cluster().to_string())?;
        same("a cluster of kind", self.cluster_kind.clone(), charter.kind().to_string())?;
        same("charter", self.charter.to_string(), charter.hash().to_string())?;
        same("script", self.script.clone(), script.name().to_string())?;
        same("script", self.script_hash.to_string(), script.hash().to_string())?;
        same("a script of kind", self.kind.to_string(), script.kind().to_string())?;
        same("threshold", self.threshold.to_string(), charter.threshold().to_string())?;
        self.check_roster(charter)?;
        Ok(self.amendment().map_or(Ok(()), |amended| charter.check_amendment(amended))?)
    }

    /// All nodes that are not excluded take part; a transaction is signed by exactly a threshold of them.
    fn check_roster(&self, charter: &Charter) -> Result<(), ManifestError> {
        charter.check_whole(self.kind)?;
        if let Some(node) = self.roster.iter().find(|node| charter.excludes(**node)) {
            return Err(ManifestError::Excluded(*node));
        }
        let all = charter.members();
        let list = |nodes: &[NodeIndex]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let fits = if self.kind.rules().special.has_a_signer_set {
            self.roster.len() == usize::from(self.threshold)
                && self.roster.is_sorted_by(|a, b| a < b)
                && self.roster.iter().all(|node| all.contains(node))
        } else {
            self.roster == all
        };
        if fits {
            return Ok(());
        }
        Err(ManifestError::Elsewhere { what: "nodes", theirs: list(&self.roster), ours: list(&all) })
    }

    /// The nodes that have lost their shares, in a recovery or rebuild.
    #[must_use]
    pub fn lost(&self) -> &BTreeMap<NodeIndex, Way> {
        static NONE: BTreeMap<NodeIndex, Way> = BTreeMap::new();
        if let Subject::Losses(lost) = &self.subject { lost } else { &NONE }
    }

    /// What is to be signed, in a transfer.
    #[must_use]
    pub fn transaction(&self) -> Option<&Arc<Transaction>> {
        if let Subject::Transaction(transaction) = &self.subject { Some(transaction) } else { None }
    }

    /// The new charter, in an amendment.
    #[must_use]
    pub fn amendment(&self) -> Option<&Arc<Charter>> {
        if let Subject::Charter(charter) = &self.subject { Some(charter) } else { None }
    }

    /// Which copies exist or are gone, in an inventory.
    #[must_use]
    pub fn inventory(&self) -> &[Item] {
        if let Subject::Copies(items) = &self.subject { items } else { &[] }
    }

    /// Rebuild: the node whose enclave holds enough root shares for a moment to know the key. It is the first of those
    /// that have neither share nor backup.
    #[must_use]
    pub fn dealer(&self) -> Option<NodeIndex> {
        self.repaired().next().filter(|_| self.kind == CeremonyKind::Rebuild)
    }

    /// The lost nodes whose shares are worked out from those of others.
    pub fn repaired(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.lost().iter().filter(|(_, way)| **way == Way::Repair).map(|(node, _)| *node)
    }

    /// How a lost share comes back, for people.
    #[must_use]
    pub fn way_in_words(&self, way: Way) -> String {
        match (way, self.dealer()) {
            (Way::Repair, Some(dealer)) => {
                format!("without any backup left, rebuilt in node {dealer}'s enclave")
            }
            (way, _) => format!("by {way}"),
        }
    }

    /// The bytes that were hashed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What people's statements name, and what enclaves' attestations carry as nonce.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }
}
