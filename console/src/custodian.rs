//! How a custodian or the escrow trustee releases a backup: unwraps its file key and seals that to the attested enclave
//! of the node whose share it holds.
//!
//! The backup itself is never decrypted here. Identities are age's: a file of `AGE-SECRET-KEY-1…` lines, or of
//! `AGE-PLUGIN-…` lines whose plugin holds the key in hardware.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use age::Identity as _;
use age::secrecy::ExposeSecret as _;
use age_core::format::{FileKey, Stanza};
use ceremonies::ceremony::Ceremony;
use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::script::Act;
use ceremonies::statement::Release;
use ceremonies::text::{Encoding, utf8};
use ceremonies::wallet::release_info;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeS, Serializable as _};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::file::{FileError, MAX_SETTINGS, read};
use crate::plugin::{Plugin, PluginError};
use crate::waiting::Waiting;

/// Largest backup that an enclave opens.
pub const MAX_BACKUP: usize = 1024 * 1024;
/// Length of age's file key.
const FILE_KEY: usize = 16;

/// Why a backup is not released.
#[derive(Debug, Error)]
pub enum ReleaseError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// No identities.
    #[error("{0} is not a file of age identities (AGE-SECRET-KEY-1… or AGE-PLUGIN-…): {1}")]
    Identity(PathBuf, NoIdentity),
    /// The plugin that holds an identity failed.
    #[error("the backup of node {node} was not opened")]
    Plugin {
        /// Whose.
        node: NodeIndex,
        /// Why.
        source: PluginError,
    },
    /// Nothing asked for.
    #[error("no release of node {0}'s backup is due now")]
    NotAsked(NodeIndex),
    /// Not the bytes that the log names.
    #[error(
        "the backup of node {node} has SHA-256 {found}, and the log names {expected}: it is damaged, or of another \
         generation; fetch the named version again"
    )]
    Damaged {
        /// Whose.
        node: NodeIndex,
        /// What was found.
        found: Hash,
        /// What the log has.
        expected: Hash,
    },
    /// Not an age file.
    #[error("the backup of node {0} is not an age file")]
    Format(NodeIndex),
    /// Encrypted to others.
    #[error("this identity does not open the backup of node {0}: it is encrypted to other keepers")]
    NotKeeper(NodeIndex),
    /// The identity fits and does not open it.
    #[error("this identity did not open the backup of node {node}")]
    Unwrap {
        /// Whose.
        node: NodeIndex,
        /// Why.
        source: age::DecryptError,
    },
    /// The node's enclave has not attested.
    #[error("node {0} has no attested enclave in this ceremony")]
    NotAttested(NodeIndex),
    /// HPKE failed.
    #[error("the sealing key that node {0} attested cannot be used: restart its enclave")]
    Seal(NodeIndex),
}

/// What keeps a file from being one of identities. It never repeats the file, which may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoIdentity {
    /// Nothing in it.
    #[error("it holds nothing but comments")]
    Empty,
    /// Not text as age reads it.
    #[error("it is {0}, and age reads UTF-8")]
    Encoding(Encoding),
    /// A line is something else.
    #[error("line {0} is something else")]
    Line(usize),
    /// age reads capitals alone.
    #[error("the identity in line {0} is not in capitals, as age-keygen writes it and age reads it")]
    Case(usize),
}

/// What unwraps a file key.
enum Identity {
    Native(age::x25519::Identity),
    Plugin(Plugin),
}

/// Reads the identities in a file.
fn identities(path: &Path) -> Result<Vec<Identity>, ReleaseError> {
    let bytes = Zeroizing::new(read("identity", path, MAX_SETTINGS)?);
    parse(&bytes).map_err(|why| ReleaseError::Identity(path.to_owned(), why))
}

/// As age reads them: a line each, in capitals.
fn parse(bytes: &[u8]) -> Result<Vec<Identity>, NoIdentity> {
    let text = utf8(bytes).map_err(NoIdentity::Encoding)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let identities: Vec<Identity> =
        lines.map(|(index, line)| identity(line, index + 1)).collect::<Result<_, _>>()?;
    if identities.is_empty() { Err(NoIdentity::Empty) } else { Ok(identities) }
}

fn identity(line: &str, number: usize) -> Result<Identity, NoIdentity> {
    let native = line.parse().map(Identity::Native).ok();
    let identity = native.or_else(|| Plugin::parse(line).map(Identity::Plugin));
    let identity = identity.ok_or(NoIdentity::Line(number))?;
    if line.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(NoIdentity::Case(number));
    }
    Ok(identity)
}

/// Notes the file key on its way to the decryption, which never follows, and what kept a plugin from it.
struct Noting<'a> {
    identity: &'a Identity,
    waiting: Waiting<'a>,
    key: &'a RefCell<Option<Zeroizing<[u8; FILE_KEY]>>>,
    trouble: &'a RefCell<Option<PluginError>>,
}

impl Noting<'_> {
    fn unwrap(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, age::DecryptError>> {
        match self.identity {
            Identity::Native(identity) => identity.unwrap_stanzas(stanzas),
            Identity::Plugin(plugin) => plugin.unwrap(stanzas, self.waiting).map_or_else(
                |error| {
                    *self.trouble.borrow_mut() = Some(error);
                    Some(Err(age::DecryptError::DecryptionFailed))
                },
                |key| key.map(Ok),
            ),
        }
    }
}

impl age::Identity for Noting<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, age::DecryptError>> {
        self.unwrap_stanzas(std::slice::from_ref(stanza))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, age::DecryptError>> {
        let unwrapped = self.unwrap(stanzas);
        if let Some(Ok(key)) = &unwrapped {
            *self.key.borrow_mut() = Some(Zeroizing::new(*key.expose_secret()));
        }
        unwrapped
    }
}

/// The file key of an age file. The header's MAC has been checked with it.
fn file_key(
    node: NodeIndex,
    object: &[u8],
    identities: &[Identity],
    waiting: Waiting<'_>,
) -> Result<Zeroizing<[u8; FILE_KEY]>, ReleaseError> {
    let decryptor = age::Decryptor::new(object).map_err(|_| ReleaseError::Format(node))?;
    let (key, trouble) = (RefCell::new(None), RefCell::new(None));
    let noting = |identity| Noting { identity, waiting, key: &key, trouble: &trouble };
    let noting: Vec<Noting<'_>> = identities.iter().map(noting).collect();
    let opened = decryptor.decrypt(noting.iter().map(|identity| identity as &dyn age::Identity));
    let failure = opened.err();
    drop(noting);
    match (failure, trouble.into_inner()) {
        (None, _) => key.into_inner().ok_or(ReleaseError::NotKeeper(node)),
        (Some(_), Some(source)) => Err(ReleaseError::Plugin { node, source }),
        (Some(age::DecryptError::NoMatchingKeys), None) => Err(ReleaseError::NotKeeper(node)),
        (Some(source), None) => Err(ReleaseError::Unwrap { node, source }),
    }
}

/// A backup that a step of a ceremony asks to be released: read, compared with the log, and its file key sealed to the
/// node's enclave.
pub struct Released {
    /// What is signed.
    pub release: Release,
    /// The age file, for the node's agent.
    pub object: Vec<u8>,
}

/// Prepares the release of a node's backup for a step of this act. Nothing leaves this machine yet.
///
/// # Errors
/// [`ReleaseError`] names the node, and what to do.
pub fn release(
    ceremony: &Ceremony,
    act: Act,
    node: NodeIndex,
    object: &Path,
    identity: &Path,
    waiting: Waiting<'_>,
) -> Result<Released, ReleaseError> {
    let wanted = ceremony.wanted_backup(act, node).ok_or(ReleaseError::NotAsked(node))?;
    let object = read("backup", object, MAX_BACKUP)?;
    let found = Hash::of_bytes(&object);
    let is_root = act == Act::Recover && found == wanted.root.digest;
    if found != wanted.whole.digest && !is_root {
        return Err(ReleaseError::Damaged { node, found, expected: wanted.whole.digest });
    }
    let key = file_key(node, &object, &identities(identity)?, waiting)?;
    let enclave = ceremony.enclaves().get(&node).ok_or(ReleaseError::NotAttested(node))?;
    let info = release_info(&ceremony.manifest().hash(), node, &found);
    let sealed = seal(&enclave.keys.sealing, &info, &key).ok_or(ReleaseError::Seal(node))?;
    Ok(Released { release: Release { node, object: found, sealed }, object })
}

/// HPKE (RFC 9180) in base mode, as enclaves seal to each other.
fn seal(sealing: &[u8; 32], info: &Hash, key: &Zeroizing<[u8; FILE_KEY]>) -> Option<Vec<u8>> {
    let receiver = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(sealing).ok()?;
    let (encapsulated, ciphertext) =
        hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &receiver,
            info.as_bytes(),
            key.as_slice(),
            &[],
        )
        .ok()?;
    Some([encapsulated.to_bytes().as_slice(), &ciphertext].concat())
}
