//! Statements: the text a person reads and signs, and the check of that signature.
//!
//! A statement is rendered from the fold's state, never taken from outside, so nobody can have a signature accepted
//! under a text other than the one that the ceremony calls for. It names no position in the log: it stays valid
//! whatever else is appended meanwhile. Anyone can check it with `ssh-keygen -Y verify -n custody-ceremony`.

use ssh_key::{Algorithm, PublicKey, SshSig};
use thiserror::Error;

use crate::chain::transaction::Confirmation;
use crate::charter::{Charter, Person, Role};
use crate::ids::{Hash, Line, NodeIndex, PersonName, StepId};
use crate::manifest::Manifest;
use crate::sshsig::{self, FormatError};
use crate::text::shortened;

/// The SSHSIG namespace: a signature made in any other does not count here.
pub const NAMESPACE: &str = "custody-ceremony";

/// FIDO2 flag: somebody touched the key.
const USER_PRESENT: u8 = 0x01;
/// FIDO2 flag: the key verified the person by PIN or biometric.
const USER_VERIFIED: u8 = 0x04;

/// What a step asks of a person besides the signature.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Answer {
    /// Nothing.
    #[default]
    None,
    /// The words as typed, normalised.
    Words(String),
    /// The record says what was seen.
    Agree,
    /// It does not; the reason stays in the record.
    Disagree(Line),
    /// The ceremony ends here, without being completed.
    Withdraw(Line),
    /// A backup's file key goes to an attested enclave.
    Release(Release),
    /// The signed transaction was sent and is in a block.
    Broadcast(Confirmation),
    /// It is not sent from here; the reason stays in the record.
    Withheld(Line),
}

/// A backup's file key, for the enclave of the node whose share the backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// That node.
    pub node: NodeIndex,
    /// SHA-256 of the backup.
    pub object: Hash,
    /// The age file key under HPKE: encapsulated key and ciphertext.
    pub sealed: Vec<u8>,
}

impl Answer {
    /// The release, if it is one.
    #[must_use]
    pub fn release(&self) -> Option<&Release> {
        if let Self::Release(release) = self { Some(release) } else { None }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("signed"),
            Self::Words(words) => write!(f, "words: {words}"),
            Self::Agree => f.write_str("agree"),
            Self::Disagree(reason) => write!(f, "disagree: {reason}"),
            Self::Withdraw(reason) => write!(f, "withdraw: {reason}"),
            Self::Release(release) => write!(f, "release of node {}'s backup", release.node),
            Self::Broadcast(confirmation) => confirmation.fmt(f),
            Self::Withheld(reason) => write!(f, "not sent from here: {reason}"),
        }
    }
}

/// What has been established by the time of a step, and is therefore part of its statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Established {
    /// Hash of the attested enclaves' keys.
    pub enclaves: Option<Hash>,
    /// Digest of the committed generation's record.
    pub record: Option<Hash>,
    /// Hash over all test signatures.
    pub signatures: Option<Hash>,
}

/// Everything a statement says.
#[derive(Debug, Clone)]
pub struct Statement<'a> {
    /// The ceremony.
    pub manifest: &'a Manifest,
    /// The charter that it is held under.
    pub charter: &'a Charter,
    /// What has been established before.
    pub established: Established,
    /// The step, or `withdraw`.
    pub step: StepId,
    /// Its title.
    pub title: Line,
    /// The role in which the person signs.
    pub role: Role,
    /// Who signs.
    pub person: &'a PersonName,
    /// What the person answers.
    pub answer: &'a Answer,
}

/// The place of a line: what people decide on comes first, what only a machine compares comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Which cluster.
    Cluster,
    /// What is done with the signature.
    Act,
    /// What it is done to.
    Subject,
    /// Who signs, where and when.
    Circumstance,
    /// Hashes.
    Proof,
}

/// The lines of a statement, as they are gathered.
#[derive(Default)]
struct Lines(Vec<(Place, String)>);

impl Lines {
    fn add(&mut self, place: Place, name: &str, value: &dyn std::fmt::Display) {
        self.0.push((place, format!("{name}: {value}\n")));
    }

    fn text(self, version: u8) -> String {
        let lines: String = self.0.into_iter().map(|(_, line)| line).collect();
        format!("Custody ceremony statement, version {version}\n{lines}")
    }
}

impl Statement<'_> {
    /// The exact text that is signed: UTF-8, lines ended by a line feed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = self.lines();
        lines.0.sort_by_key(|(place, _)| *place);
        lines.text(2)
    }

    /// The text of version 1, which did not put first what is decided. It is no longer signed; records made with it
    /// stay valid.
    fn version_1(&self) -> String {
        self.lines().text(1)
    }

    /// Checks a person's armoured SSHSIG over this statement, and returns the text that it covers.
    ///
    /// # Errors
    /// [`SignatureError`] says why it fails over the current version's text.
    pub fn verify(&self, person: &Person, armoured: &[u8]) -> Result<(String, Presence), SignatureError> {
        let text = self.text();
        match verify(person, &text, armoured) {
            Ok(presence) => Ok((text, presence)),
            Err(refused @ SignatureError::Text(_)) => {
                let text = self.version_1();
                verify(person, &text, armoured).map(|presence| (text, presence)).map_err(|_| refused)
            }
            Err(refused) => Err(refused),
        }
    }

    /// Every line, in the order of version 1.
    fn lines(&self) -> Lines {
        let mut lines = Lines::default();
        self.add_subject(&mut lines);
        self.add_circumstances(&mut lines);
        self.add_answer(&mut lines);
        lines
    }

    fn add_subject(&self, lines: &mut Lines) {
        let m = self.manifest;
        lines.add(
            Place::Cluster,
            "cluster",
            &format_args!("{} ({})", m.cluster, m.cluster_kind.to_uppercase()),
        );
        lines.add(Place::Circumstance, "ceremony", &m.ceremony);
        lines.add(Place::Subject, "kind", &m.kind);
        match m.amendment() {
            None => lines.add(
                Place::Subject,
                "wallet",
                &format_args!("{}, generation {}", m.wallet, m.generation),
            ),
            Some(charter) => lines.add(Place::Subject, "new charter", &charter.hash()),
        }
        for (name, said) in self.charter.exclusion_lines(m.amendment().map(AsRef::as_ref)) {
            lines.add(Place::Subject, name, &said);
        }
        if let Some(origin) = m.origin.as_ref().filter(|_| m.kind.renews()) {
            lines.add(Place::Proof, "replaces", &origin.record);
        }
        for said in m.transaction().into_iter().flat_map(|transaction| transaction.words()) {
            lines.add(Place::Subject, "transaction", &said);
        }
        if m.transaction().is_some() {
            let signers: Vec<_> = m.roster.iter().map(ToString::to_string).collect();
            lines.add(Place::Subject, "signing nodes", &signers.join(", "));
        }
        for (node, way) in m.lost() {
            lines.add(Place::Subject, "lost", &format_args!("node {node}, {}", m.way_in_words(*way)));
        }
        if let Some(dealer) = m.dealer() {
            let within = format_args!("for a moment within reach of node {dealer}'s enclave alone");
            lines.add(Place::Subject, "whole key", &within);
        }
        for item in m.inventory() {
            lines.add(Place::Subject, "inventory", item);
        }
        lines.add(Place::Subject, "purpose", &m.purpose);
    }

    fn add_circumstances(&self, lines: &mut Lines) {
        let m = self.manifest;
        lines.add(Place::Circumstance, "opened", &m.opened);
        lines.add(Place::Circumstance, "expires", &m.expires);
        lines.add(Place::Act, "step", &format_args!("{} ({})", self.step, self.title));
        lines.add(Place::Circumstance, "role", &self.role);
        lines.add(Place::Circumstance, "person", &self.person);
        lines.add(Place::Proof, "charter", &m.charter);
        lines.add(Place::Proof, "script", &m.script_hash);
        lines.add(Place::Proof, "manifest", &m.hash());
        let established = &self.established;
        for (name, hash) in [
            ("enclaves", established.enclaves),
            ("record", established.record),
            ("signatures", established.signatures),
        ] {
            if let Some(hash) = hash {
                lines.add(Place::Proof, name, &hash);
            }
        }
    }

    fn add_answer(&self, lines: &mut Lines) {
        let mut act = |name: &str, value: &dyn std::fmt::Display| lines.add(Place::Act, name, value);
        match self.answer {
            Answer::None => {}
            Answer::Words(words) => act("words", words),
            Answer::Agree => act("verdict", &"agree"),
            Answer::Disagree(reason) => act("verdict", &format_args!("disagree, because: {reason}")),
            Answer::Withdraw(reason) => act("verdict", &format_args!("withdraw, because: {reason}")),
            Answer::Release(release) => {
                let whose = release.node;
                act("releases", &format_args!("the backup of node {whose} to its attested enclave"));
                lines.add(Place::Proof, "backup", &release.object);
                lines.add(Place::Proof, "sealed key", &Hash::of_bytes(&release.sealed));
            }
            Answer::Broadcast(confirmation) => {
                act("broadcast", &confirmation.transaction);
                act("in block", &confirmation.block());
                act("height", &confirmation.height);
            }
            Answer::Withheld(reason) => act("broadcast", &format_args!("not from here, because: {reason}")),
        }
    }
}

/// What a good signature says about how it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Presence {
    /// Made by a FIDO2 key.
    pub hardware: bool,
    /// Somebody touched the key.
    pub present: bool,
    /// The key verified the person (PIN or biometric).
    pub verified: bool,
}

/// Why a person's signature is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SignatureError {
    /// Not a signature file as `ssh-keygen` writes it.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Labelled as made by another kind of key.
    #[error("{person}'s key is of kind {key}, but the signature says {said}: sign again with that key")]
    Algorithm {
        /// Who is said to have signed.
        person: PersonName,
        /// The kind of their key.
        key: Algorithm,
        /// The kind that the signature names.
        said: Algorithm,
    },
    /// Made for another purpose.
    #[error("signed in namespace `{found}`; sign with `-n {wanted}`")]
    Namespace {
        /// The purpose that it names.
        found: String,
        /// The one that it must name.
        wanted: &'static str,
    },
    /// Not one of the person's keys.
    #[error("{person}'s signature was made with key {key}, which the charter does not list for {person}")]
    Key {
        /// Who is said to have signed.
        person: PersonName,
        /// Fingerprint of the key that signed.
        key: String,
    },
    /// Over another text, or damaged.
    #[error(
        "{0}'s signature is not over this statement: it was made for another ceremony, step, role or \
             manifest, or is damaged"
    )]
    Text(PersonName),
    /// Over the statement as another program saved it.
    #[error(
        "{person}'s signature is over this statement {how}: sign the text exactly as `custody ceremony statement` prints it"
    )]
    Resaved {
        /// Who signed.
        person: PersonName,
        /// What was changed.
        how: &'static str,
    },
    /// A hardware key signed without a touch.
    #[error("{0}'s hardware key signed without a touch; create it without `no-touch-required`")]
    NotPresent(PersonName),
    /// The charter asks for verification of this person.
    #[error("{0}'s key did not verify the person; the charter requires `verify-required` keys")]
    NotVerified(PersonName),
}

/// Checks a person's signature over a statement. It must be in the one form that [`sshsig::canonical`] gives.
///
/// # Errors
/// [`SignatureError`] says whose signature fails and why.
pub fn verify(person: &Person, text: &str, armoured: &[u8]) -> Result<Presence, SignatureError> {
    verify_in(NAMESPACE, person, text, armoured)
}

/// Checks a person's signature over a text other than a statement: its namespace keeps the two apart.
///
/// # Errors
/// As [`verify`].
pub fn verify_in(
    namespace: &'static str,
    person: &Person,
    text: &str,
    armoured: &[u8],
) -> Result<Presence, SignatureError> {
    let signature = sshsig::stored(armoured)?;
    if signature.namespace() != namespace {
        let found = shortened(signature.namespace(), 40);
        return Err(SignatureError::Namespace { found, wanted: namespace });
    }
    let key = person.keys.iter().find(|key| key.key_data() == signature.public_key());
    let key = key.ok_or_else(|| SignatureError::Key {
        person: person.name.clone(),
        key: PublicKey::from(signature.public_key().clone())
            .fingerprint(ssh_key::HashAlg::Sha256)
            .to_string(),
    })?;
    // No signature covers this label, and `key.verify` goes by the key alone: if relabelled, a hardware key's signature
    // would still verify and its touch would no longer be checked.
    if signature.algorithm() != key.algorithm() {
        return Err(SignatureError::Algorithm {
            person: person.name.clone(),
            key: key.algorithm(),
            said: signature.algorithm(),
        });
    }
    let is_over = |text: &str| key.verify(namespace, text.as_bytes(), &signature).is_ok();
    if !is_over(text) {
        let how = resaved(text).find(|(_, text)| is_over(text)).map(|(how, _)| how);
        let person = person.name.clone();
        return Err(
            how.map_or(SignatureError::Text(person.clone()), |how| SignatureError::Resaved { person, how })
        );
    }
    let presence = presence(&signature);
    if presence.hardware && !presence.present {
        return Err(SignatureError::NotPresent(person.name.clone()));
    }
    if person.verified && !presence.verified {
        return Err(SignatureError::NotVerified(person.name.clone()));
    }
    Ok(presence)
}

/// What editors, shells and clipboards make of a statement. None of it is accepted; it is only named.
fn resaved(text: &str) -> impl Iterator<Item = (&'static str, String)> {
    let windows = text.replace('\n', "\r\n");
    [
        ("with Windows line endings", windows.clone()),
        ("with Windows line endings and without the last of them", windows.trim_end().to_owned()),
        ("without its final line feed", text.trim_end().to_owned()),
        ("with an extra empty line at its end", format!("{text}\n")),
        ("with a byte order mark before it", format!("\u{feff}{text}")),
        ("with a byte order mark before it and Windows line endings", format!("\u{feff}{windows}")),
    ]
    .into_iter()
}

/// The flags of a FIDO2 signature: the byte before its four-byte counter (OpenSSH `PROTOCOL.u2f`).
fn presence(signature: &SshSig) -> Presence {
    let hardware = matches!(signature.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256);
    let bytes = signature.signature_bytes();
    let flags = if hardware && bytes.len() > 5 { bytes[bytes.len() - 5] } else { 0 };
    Presence { hardware, present: flags & USER_PRESENT != 0, verified: flags & USER_VERIFIED != 0 }
}
