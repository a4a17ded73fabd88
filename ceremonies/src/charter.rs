//! The charter: which nodes, images, people and keys make up a cluster, and who must approve what.
//!
//! One file a cluster, hashed as bytes; everything else names that hash. This module must accept only charters under
//! which no single person, and no part of a lab, can act for a production cluster.

mod amendment;
mod backups;
mod check;
mod exclusion;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ssh_key::PublicKey;
use thiserror::Error;

pub use self::amendment::{Article, Change};
pub use self::backups::{BackupRules, Custodian, Keeper};
pub use self::exclusion::Incomplete;
use crate::attestation::Measurement;
use crate::ids::{ClusterId, Hash, Line, NodeIndex, PersonName, UnknownWord};
pub use crate::kinds::CeremonyKind;
use crate::text::{Encoding, utf8};

/// Largest accepted charter, in bytes.
pub const MAX_CHARTER: usize = 256 * 1024;
/// Most nodes in a cluster: a DKG among more takes longer than a ceremony may (see `limits`).
pub const MAX_NODES: usize = 20;
/// Longest accepted age of an attestation document, in seconds.
pub const MAX_ATTESTATION_AGE_S: u32 = 3600;

/// Longest lock of a backup, in days: ten years.
pub const MAX_LOCK_DAYS: u32 = 3650;

/// What a cluster is for. Kinds never mix: each part is started for one kind and refuses the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterKind {
    /// Real keys.
    Production,
    /// Real hardware and people, worthless keys.
    Rehearsal,
    /// One machine with stand-ins for AWS. Its attestation never verifies as another kind's.
    Lab,
}

impl ClusterKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Production, Self::Rehearsal, Self::Lab];
}

impl fmt::Display for ClusterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Production => "production",
            Self::Rehearsal => "rehearsal",
            Self::Lab => "lab",
        })
    }
}

impl FromStr for ClusterKind {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        UnknownWord::read(text, "kind of cluster", Self::ALL)
    }
}

/// What a person does in a ceremony. One person fills one role in one ceremony.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Opens, paces and closes; never holds a share.
    Administrator,
    /// Answers for a node.
    Operator,
    /// Internal witness; never operates.
    Witness,
    /// External auditor; never operates.
    Auditor,
    /// Keeps the identity that opens some nodes' backups; never operates.
    Custodian,
}

impl Role {
    /// Every role, in the order in which they are shown.
    pub const ALL: [Self; 5] =
        [Self::Administrator, Self::Operator, Self::Witness, Self::Auditor, Self::Custodian];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Administrator => "administrator",
            Self::Operator => "operator",
            Self::Witness => "witness",
            Self::Auditor => "auditor",
            Self::Custodian => "custodian",
        })
    }
}

impl FromStr for Role {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        UnknownWord::read(text, "role", Self::ALL)
    }
}

/// How many people of which role must sign.
pub type Quorum = BTreeMap<Role, u32>;

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its index, and its share's.
    pub index: NodeIndex,
    /// Where it stands, for people.
    pub zone: Line,
    /// Its NATS user key (`U…`), which also signs its log entries.
    pub nkey: String,
    /// Whether it takes part in nothing, until an amendment takes it back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub excluded: bool,
}

/// A person who may act in ceremonies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Unique in the charter.
    pub name: PersonName,
    /// The roles the person may fill, one of them in a ceremony.
    pub roles: BTreeSet<Role>,
    /// OpenSSH public keys, any of which speaks for the person.
    pub keys: Vec<PublicKey>,
    /// Whether a signature must prove that the person was verified by the key (PIN or biometric). Only
    /// FIDO2 `sk-` keys can.
    #[serde(default)]
    pub verified: bool,
}

/// A console's NATS credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleKey {
    /// Unique among consoles.
    pub name: PersonName,
    /// Its NATS user key (`U…`).
    pub nkey: String,
}

/// Which attestation documents are believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestationRules {
    /// SHA-256 of the root certificate's DER, to which every document must chain.
    pub root_sha256: Hash,
    /// How far a document's time may be from the entry that carries it, in seconds.
    pub max_age_s: u32,
    /// The images that may hold shares.
    pub measurements: Vec<Measurement>,
}

/// The key that wraps the shares' data keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsRules {
    /// Key id or ARN.
    pub key: String,
    /// AWS region, such as `eu-central-1`.
    pub region: String,
    /// The host that the enclave's TLS must meet, such as `kms.eu-central-1.amazonaws.com`.
    pub host: String,
}

/// A charter as people write it, before it is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CharterDraft {
    /// Of the format: 1.
    pub version: u32,
    /// Hash of the charter that this one amends; none for a cluster's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amends: Option<Hash>,
    /// The cluster's id.
    pub cluster: ClusterId,
    /// What the cluster is for.
    pub kind: ClusterKind,
    /// How many shares sign (t).
    pub threshold: u8,
    /// NATS user key of the broker's administrator (system account).
    pub system_nkey: String,
    /// Which attestation documents are believed.
    pub attestation: AttestationRules,
    /// The key that wraps the shares' data keys.
    pub kms: KmsRules,
    /// How shares are backed up; left out where a cluster keeps no backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupRules>,
    /// Who must approve a ceremony, by its kind. A kind without one is never held.
    pub quorum: BTreeMap<CeremonyKind, Quorum>,
    /// The nodes, in the order of their indices, which are 1 to n.
    #[serde(rename = "node")]
    pub nodes: Vec<Node>,
    /// Everybody who may act.
    #[serde(rename = "person")]
    pub people: Vec<Person>,
    /// The consoles' NATS credentials.
    #[serde(rename = "console")]
    pub consoles: Vec<ConsoleKey>,
}

impl CharterDraft {
    /// The draft as a charter file.
    ///
    /// # Errors
    /// [`toml::ser::Error`] for what TOML cannot say, which a draft of these types is not.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

/// A validated charter. Immutable; compared and named by the hash of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charter {
    hash: Hash,
    text: String,
    file: CharterDraft,
}

/// Why a charter is refused.
#[derive(Debug, Error)]
pub enum CharterError {
    /// Larger than [`MAX_CHARTER`].
    #[error("charter has {0} bytes; at most {MAX_CHARTER} are read")]
    TooLarge(usize),
    /// Not UTF-8.
    #[error("charter is {0}: save it as UTF-8")]
    Encoding(Encoding),
    /// Not the charter's TOML.
    #[error("charter cannot be read")]
    Syntax(#[source] toml::de::Error),
    /// A format of another version.
    #[error("charter has version {0}; this build reads version 1")]
    Version(u32),
    /// A rule is broken; the text names field, value and remedy.
    #[error("{0}")]
    Rule(String),
}

impl Charter {
    /// Reads and checks a charter.
    ///
    /// # Errors
    /// [`CharterError`] names the first rule that is broken.
    pub fn parse(bytes: &[u8]) -> Result<Self, CharterError> {
        if bytes.len() > MAX_CHARTER {
            return Err(CharterError::TooLarge(bytes.len()));
        }
        let text = utf8(bytes).map_err(CharterError::Encoding)?;
        let file: CharterDraft = toml::from_str(text).map_err(CharterError::Syntax)?;
        check::check_file(text)?;
        file.check()?;
        Ok(Self { hash: Hash::of_bytes(bytes), text: text.to_owned(), file })
    }

    /// The charter as a draft of one that amends it.
    #[must_use]
    pub fn draft(&self) -> CharterDraft {
        self.file.clone()
    }

    /// SHA-256 of the file's bytes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The file as it was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Hash of the charter that this one amends; none for a cluster's first.
    #[must_use]
    pub fn amends(&self) -> Option<Hash> {
        self.file.amends
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> &ClusterId {
        &self.file.cluster
    }

    /// What the cluster is for.
    #[must_use]
    pub fn kind(&self) -> ClusterKind {
        self.file.kind
    }

    /// How many shares sign (t).
    #[must_use]
    pub fn threshold(&self) -> u8 {
        self.file.threshold
    }

    /// The nodes in the order of their indices, which are 1 to n.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.file.nodes
    }

    /// The indices of all nodes.
    #[must_use]
    pub fn roster(&self) -> Vec<NodeIndex> {
        self.file.nodes.iter().map(|node| node.index).collect()
    }

    /// The node with this index.
    #[must_use]
    pub fn node(&self, index: NodeIndex) -> Option<&Node> {
        self.file.nodes.iter().find(|node| node.index == index)
    }

    /// Everybody who may act.
    #[must_use]
    pub fn people(&self) -> &[Person] {
        &self.file.people
    }

    /// The person of this name.
    #[must_use]
    pub fn person(&self, name: &PersonName) -> Option<&Person> {
        self.file.people.iter().find(|person| person.name == *name)
    }

    /// Who must approve a ceremony of this kind.
    #[must_use]
    pub fn quorum(&self, kind: CeremonyKind) -> Option<&Quorum> {
        self.file.quorum.get(&kind)
    }

    /// How shares are backed up; none where a cluster keeps no backups.
    #[must_use]
    pub fn backup(&self) -> Option<&BackupRules> {
        self.file.backup.as_ref()
    }

    /// Which attestation documents are believed.
    #[must_use]
    pub fn attestation(&self) -> &AttestationRules {
        &self.file.attestation
    }

    /// The key that wraps the shares' data keys.
    #[must_use]
    pub fn kms(&self) -> &KmsRules {
        &self.file.kms
    }

    /// The consoles' NATS credentials.
    #[must_use]
    pub fn consoles(&self) -> &[ConsoleKey] {
        &self.file.consoles
    }

    /// The NATS user key of the broker's administrator.
    #[must_use]
    pub fn system_nkey(&self) -> &str {
        &self.file.system_nkey
    }
}
