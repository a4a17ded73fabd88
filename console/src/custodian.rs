//! How a custodian or the escrow trustee releases a backup: unwraps its file key and seals that to the attested enclave
//! of the node whose share it holds.
//!
//! The backup itself is never decrypted here. Identities are age's: a file of `AGE-SECRET-KEY-1…` lines, or of
//! `AGE-PLUGIN-…` lines whose plugin holds the key in hardware.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use age_core::format::{FileKey, Stanza};
use ceremonies::ceremony::Ceremony;
use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::script::Act;
use ceremonies::statement::Release;
use ceremonies::wallet::release_info;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem, OpModeS, Serializable as _};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::file::{FileError, MAX_SETTINGS, read};

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
    #[error("{0} is not a file of age identities (AGE-SECRET-KEY-1… or AGE-PLUGIN-…)")]
    Identity(PathBuf),
    /// The plugin of one is missing.
    #[error("an identity in {path} cannot be used")]
    Plugin {
        /// Where.
        path: PathBuf,
        /// Why.
        source: age::DecryptError,
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
    /// The identity, or the plugin that holds its key, failed.
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

type Identities = Vec<Box<dyn age::Identity + Send + Sync>>;

/// Reads the identities in a file.
fn identities(path: &Path) -> Result<Identities, ReleaseError> {
    let bytes = Zeroizing::new(read("identity", path, MAX_SETTINGS)?);
    let not_one = || ReleaseError::Identity(path.to_owned());
    let file = age::IdentityFile::from_buffer(bytes.as_slice()).map_err(|_| not_one())?;
    let identities = file
        .with_callbacks(age::NoCallbacks)
        .into_identities()
        .map_err(|source| ReleaseError::Plugin { path: path.to_owned(), source })?;
    // To age, a file of nothing but comments is an identity file.
    if identities.is_empty() { Err(not_one()) } else { Ok(identities) }
}

/// Notes the file key on its way to the decryption, which never follows.
struct Noting<'a> {
    identity: &'a dyn age::Identity,
    key: &'a RefCell<Option<Zeroizing<[u8; FILE_KEY]>>>,
}

impl Noting<'_> {
    fn note(
        &self,
        unwrapped: Option<Result<FileKey, age::DecryptError>>,
    ) -> Option<Result<FileKey, age::DecryptError>> {
        if let Some(Ok(key)) = &unwrapped {
            *self.key.borrow_mut() = Some(Zeroizing::new(*key.expose_secret()));
        }
        unwrapped
    }
}

impl age::Identity for Noting<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, age::DecryptError>> {
        self.note(self.identity.unwrap_stanza(stanza))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, age::DecryptError>> {
        self.note(self.identity.unwrap_stanzas(stanzas))
    }
}

/// The file key of an age file. The header's MAC has been checked with it.
fn file_key(
    node: NodeIndex,
    object: &[u8],
    identities: &Identities,
) -> Result<Zeroizing<[u8; FILE_KEY]>, ReleaseError> {
    let decryptor = age::Decryptor::new(object).map_err(|_| ReleaseError::Format(node))?;
    let key = RefCell::new(None);
    let noting: Vec<Noting<'_>> =
        identities.iter().map(|identity| Noting { identity: identity.as_ref(), key: &key }).collect();
    match decryptor.decrypt(noting.iter().map(|identity| identity as &dyn age::Identity)) {
        Ok(_) => {}
        Err(age::DecryptError::NoMatchingKeys) => return Err(ReleaseError::NotKeeper(node)),
        Err(source) => return Err(ReleaseError::Unwrap { node, source }),
    }
    drop(noting);
    key.into_inner().ok_or(ReleaseError::NotKeeper(node))
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
) -> Result<Released, ReleaseError> {
    let wanted = ceremony.wanted_backup(act, node).ok_or(ReleaseError::NotAsked(node))?;
    let object = read("backup", object, MAX_BACKUP)?;
    let found = Hash::of_bytes(&object);
    let is_root = act == Act::Recover && found == wanted.root.digest;
    if found != wanted.whole.digest && !is_root {
        return Err(ReleaseError::Damaged { node, found, expected: wanted.whole.digest });
    }
    let key = file_key(node, &object, &identities(identity)?)?;
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
