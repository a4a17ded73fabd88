//! The charter: which nodes, images, people and keys make up a cluster, and who must approve what.
//!
//! One file a cluster, hashed as bytes; everything else names that hash. This module must accept only
//! charters under which no single person, and no lab part, can act for a production cluster.

mod amendment;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ssh_key::PublicKey;
use thiserror::Error;

pub use self::amendment::{Article, Change};
use crate::attestation::{AWS_NITRO_G1_FINGERPRINT, Measurement, Pcr};
use crate::ids::{ClusterId, Hash, Line, NodeIndex, PersonName};

/// Largest accepted charter, in bytes.
pub const MAX_CHARTER: usize = 256 * 1024;
/// Most nodes in a cluster: a DKG among more takes longer than a ceremony may (see `limits`).
pub const MAX_NODES: usize = 20;
/// Longest accepted age of an attestation document, in seconds.
pub const MAX_ATTESTATION_AGE_S: u32 = 3600;

/// What a cluster is for. Never mixed: each part is started for one kind and refuses the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterKind {
    /// Real keys.
    Production,
    /// Real hardware and people, worthless keys.
    Rehearsal,
    /// One machine with stand-ins for AWS. Its attestation never verifies as anything else.
    Lab,
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
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "production" => Ok(Self::Production),
            "rehearsal" => Ok(Self::Rehearsal),
            "lab" => Ok(Self::Lab),
            other => Err(format!("`{other}` is not a cluster kind: use production, rehearsal or lab")),
        }
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
}

impl Role {
    /// Every role, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Administrator, Self::Operator, Self::Witness, Self::Auditor];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Administrator => "administrator",
            Self::Operator => "operator",
            Self::Witness => "witness",
            Self::Auditor => "auditor",
        })
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.to_string() == text)
            .ok_or_else(|| format!("`{text}` is not a role: use administrator, operator, witness or auditor"))
    }
}

/// A kind of ceremony.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CeremonyKind {
    /// Makes a new wallet's key.
    Dkg,
    /// Signs worthless digests with a wallet's current generation, to prove that it can.
    TestSign,
    /// Puts an amended charter in force.
    Amend,
}

impl CeremonyKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Dkg, Self::TestSign, Self::Amend];
}

impl fmt::Display for CeremonyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dkg => "dkg",
            Self::TestSign => "test-sign",
            Self::Amend => "amend",
        })
    }
}

impl FromStr for CeremonyKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .ok_or_else(|| format!("`{text}` is not a kind of ceremony: use dkg, test-sign or amend"))
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
    /// Who must approve a ceremony, by its kind. Without one for amendments the charter cannot be amended.
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
    /// The draft as a charter's file.
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
    #[error("charter is not UTF-8 text")]
    NotText,
    /// Not the charter's TOML.
    #[error("charter cannot be read")]
    Syntax(#[source] toml::de::Error),
    /// A format of another version.
    #[error("charter version {0} is not known to this build; it reads version 1")]
    Version(u32),
    /// A rule is broken; the text names field, value and remedy.
    #[error("{0}")]
    Rule(String),
}

fn rule(broken: bool, text: impl FnOnce() -> String) -> Result<(), CharterError> {
    if broken { Err(CharterError::Rule(text())) } else { Ok(()) }
}

/// The value that occurs a second time, if one does.
fn repeated<T: Ord>(values: impl IntoIterator<Item = T>) -> Option<T> {
    let mut seen = BTreeSet::new();
    values.into_iter().find_map(|value| seen.replace(value))
}

/// Nitro reports zero registers for an enclave started in debug mode, whose memory its host can read.
fn is_debug(measurement: &Measurement) -> bool {
    [measurement.pcr0, measurement.pcr1, measurement.pcr2].iter().any(Pcr::is_zero)
}

fn check_nkey(whose: &str, nkey: &str) -> Result<(), CharterError> {
    let user = nkey.starts_with('U') && nkeys::KeyPair::from_public_key(nkey).is_ok();
    rule(!user, || format!("{whose}: nkey `{nkey}` is not a NATS user public key (it starts with U)"))
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
        let text = std::str::from_utf8(bytes).map_err(|_| CharterError::NotText)?;
        let file: CharterDraft = toml::from_str(text).map_err(CharterError::Syntax)?;
        file.check()?;
        Ok(Self { hash: Hash::of_bytes(bytes), text: text.to_owned(), file })
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

impl CharterDraft {
    fn check(&self) -> Result<(), CharterError> {
        if self.version != 1 {
            return Err(CharterError::Version(self.version));
        }
        self.check_nodes()?;
        self.check_attestation()?;
        self.check_people()?;
        self.check_nkeys()?;
        for kind in CeremonyKind::ALL {
            self.check_quorum(kind)?;
        }
        rule(self.kms.key.is_empty() || self.kms.region.is_empty() || self.kms.host.is_empty(), || {
            "kms: key, region and host must all be given".to_owned()
        })
    }

    fn check_nodes(&self) -> Result<(), CharterError> {
        let n = self.nodes.len();
        rule(n > MAX_NODES, || format!("{n} nodes; at most {MAX_NODES} are supported"))?;
        rule(self.threshold < 2 || usize::from(self.threshold) > n, || {
            format!(
                "threshold is {} of {n} nodes; it must be at least 2 and at most the number of nodes",
                self.threshold
            )
        })?;
        for (position, node) in (1..).zip(&self.nodes) {
            rule(u32::from(node.index) != position, || {
                format!(
                    "node {} stands where node {position} belongs: list nodes 1 to n in order",
                    node.index
                )
            })?;
        }
        Ok(())
    }

    fn check_attestation(&self) -> Result<(), CharterError> {
        let rules = &self.attestation;
        let aws = rules.root_sha256.to_string() == AWS_NITRO_G1_FINGERPRINT;
        match self.kind {
            ClusterKind::Production | ClusterKind::Rehearsal => rule(!aws, || {
                format!(
                    "attestation.root_sha256 is {}; a {} cluster accepts only the AWS Nitro root {}",
                    rules.root_sha256, self.kind, AWS_NITRO_G1_FINGERPRINT
                )
            })?,
            ClusterKind::Lab => rule(aws, || {
                "attestation.root_sha256 is the AWS Nitro root; a lab cluster has its own".to_owned()
            })?,
        }
        rule(rules.max_age_s == 0 || rules.max_age_s > MAX_ATTESTATION_AGE_S, || {
            format!("attestation.max_age_s is {}; it must be 1 to {MAX_ATTESTATION_AGE_S}", rules.max_age_s)
        })?;
        rule(rules.measurements.is_empty(), || {
            "attestation.measurements is empty: no enclave could ever attest".to_owned()
        })?;
        let images = rules.measurements.iter().map(|image| Measurement { until: None, ..*image });
        rule(repeated(images).is_some(), || "attestation.measurements lists an image twice".to_owned())?;
        rule(rules.measurements.iter().any(is_debug), || {
            "attestation.measurements has zero PCRs, which are those of an enclave in debug mode".to_owned()
        })
    }

    fn check_people(&self) -> Result<(), CharterError> {
        if let Some(name) = repeated(self.people.iter().map(|person| &person.name)) {
            return Err(CharterError::Rule(format!("two people are called `{name}`")));
        }
        for person in &self.people {
            rule(person.keys.is_empty() || person.roles.is_empty(), || {
                format!("{}: give at least one role and one key", person.name)
            })?;
            for key in &person.keys {
                let kind = key.algorithm();
                let hardware =
                    matches!(kind, ssh_key::Algorithm::SkEd25519 | ssh_key::Algorithm::SkEcdsaSha2NistP256);
                rule(!hardware && kind != ssh_key::Algorithm::Ed25519, || {
                    format!("{}: key kind {kind} is not accepted; use ssh-ed25519 or an sk- key", person.name)
                })?;
                rule(person.verified && !hardware, || {
                    format!("{}: `verified` needs hardware keys, but one is {kind}", person.name)
                })?;
            }
        }
        let keys = self.people.iter().flat_map(|person| &person.keys);
        if let Some(key) = repeated(keys.map(|key| key.fingerprint(ssh_key::HashAlg::Sha256).to_string())) {
            return Err(CharterError::Rule(format!("key {key} belongs to two people, or is listed twice")));
        }
        Ok(())
    }

    fn check_nkeys(&self) -> Result<(), CharterError> {
        for node in &self.nodes {
            check_nkey(&format!("node {}", node.index), &node.nkey)?;
        }
        for console in &self.consoles {
            check_nkey(&format!("console {}", console.name), &console.nkey)?;
        }
        check_nkey("system_nkey", &self.system_nkey)?;
        let all = self.nodes.iter().map(|node| &node.nkey);
        let all = all.chain(self.consoles.iter().map(|console| &console.nkey)).chain([&self.system_nkey]);
        match repeated(all) {
            Some(nkey) => Err(CharterError::Rule(format!("nkey {nkey} is given twice"))),
            None => Ok(()),
        }
    }

    /// A quorum must be possible with one role a person, and must need more than one person. An amendment could
    /// lower every other: none may be higher than its own.
    fn check_quorum(&self, kind: CeremonyKind) -> Result<(), CharterError> {
        let Some(quorum) = self.quorum.get(&kind) else {
            // Nobody may hold a ceremony of a kind without quorum: such a charter is for ever.
            return rule(kind != CeremonyKind::Amend, || format!("quorum.{kind} is missing"));
        };
        let count = |role| quorum.get(&role).copied().unwrap_or(0);
        for (role, least) in [
            (Role::Administrator, 1),
            (Role::Operator, u32::from(self.threshold)),
            (Role::Witness, 1),
            (Role::Auditor, 1),
        ] {
            rule(count(role) < least, || {
                format!("quorum.{kind} asks for {} {role}(s); at least {least} must approve", count(role))
            })?;
        }
        rule(count(Role::Administrator) > 1, || {
            format!("quorum.{kind} asks for several administrators; a ceremony has one")
        })?;
        let amending = self.quorum.get(&CeremonyKind::Amend);
        let is_higher = |role: &&Role| {
            amending.is_some_and(|amending| amending.get(role).copied().unwrap_or(0) < count(**role))
        };
        if let Some(role) = Role::ALL.iter().find(is_higher) {
            return Err(CharterError::Rule(format!(
                "quorum.{kind} asks for more of role {role} than quorum.amend, by which it could be lowered"
            )));
        }
        match self.unfillable(quorum) {
            Some(role) => Err(CharterError::Rule(format!(
                "quorum.{kind} cannot be met: not enough people for {role} when each fills one role"
            ))),
            None => Ok(()),
        }
    }

    /// A role that stays short when every person fills one role, by augmenting paths (bipartite matching
    /// of seats to people).
    fn unfillable(&self, quorum: &Quorum) -> Option<Role> {
        let seats: Vec<Role> = quorum
            .iter()
            .flat_map(|(role, count)| std::iter::repeat_n(*role, (*count).min(1000) as usize))
            .collect();
        let mut seat_of: BTreeMap<usize, usize> = BTreeMap::new();
        (0..seats.len())
            .find(|seat| !self.seat(&seats, *seat, &mut seat_of, &mut BTreeSet::new()))
            .map(|seat| seats[seat])
    }

    fn seat(
        &self,
        seats: &[Role],
        seat: usize,
        seat_of: &mut BTreeMap<usize, usize>,
        tried: &mut BTreeSet<usize>,
    ) -> bool {
        for (index, person) in self.people.iter().enumerate() {
            if !person.roles.contains(&seats[seat]) || !tried.insert(index) {
                continue;
            }
            let held = seat_of.get(&index).copied();
            if held.is_none_or(|other| self.seat(seats, other, seat_of, tried)) {
                seat_of.insert(index, seat);
                return true;
            }
        }
        false
    }
}
