//! Backups: a share encrypted with age to its keepers, and opened again with a file key that one of them has released.
//!
//! The file is plain age (age-encryption.org/v1). The share inside is decrypted only in an enclave: a keeper unwraps
//! just the file key, and seals it to the enclave that the ceremony has approved.

use std::io::{Read as _, Write as _};

use age_core::format::{FileKey, Stanza};
use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::wallet::Record;
use prost::Message;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::scheme::dkls23::{KeyShare, ShareError};

mod proto {
    #![expect(unreachable_pub, reason = "generated from the .proto file, which is documented")]
    include!(concat!(env!("OUT_DIR"), "/custody.backup.v1.rs"));
}

const VERSION: u32 = 1;
/// Largest backup in bytes: a share of the largest cluster, with age's header and tags.
pub const MAX_BACKUP: usize = 1024 * 1024;
/// Length of age's file key.
const FILE_KEY: usize = 16;

/// Why a backup cannot be written or opened.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The charter names something that is not an age recipient.
    #[error("`{0}` is not an age X25519 recipient")]
    Recipient(String),
    /// age could not encrypt.
    #[error("the backup could not be encrypted")]
    Encryption,
    /// Larger than [`MAX_BACKUP`].
    #[error("a backup of {0} bytes is too large for a share")]
    Size(usize),
    /// Not an age file, altered, or the wrong file key.
    #[error(
        "the backup does not open with the released key: it is damaged, or the key belongs to another backup"
    )]
    Opening,
    /// Decrypted, but not written by this build.
    #[error("the backup does not hold a share in this version's format")]
    Format,
    /// No share.
    #[error("the backup does not hold a share")]
    Share(#[from] ShareError),
    /// A share of another node or generation.
    #[error("the backup does not hold node {0}'s share of the recorded generation")]
    OtherShare(NodeIndex),
}

/// Hands age the file key that a keeper released.
struct Released(Zeroizing<[u8; FILE_KEY]>);

impl age::Identity for Released {
    fn unwrap_stanza(&self, _: &Stanza) -> Option<Result<FileKey, age::DecryptError>> {
        Some(Ok(FileKey::init_with_mut(|key| key.copy_from_slice(&*self.0))))
    }
}

/// Encrypts a share to its keepers.
///
/// # Errors
/// [`BackupError`] for a malformed recipient.
pub fn write<'a>(
    share: &KeyShare,
    record: &Record,
    node: NodeIndex,
    recipients: impl Iterator<Item = &'a str>,
) -> Result<Vec<u8>, BackupError> {
    let recipients: Vec<age::x25519::Recipient> = recipients
        .map(|text| text.parse().map_err(|_| BackupError::Recipient(text.to_owned())))
        .collect::<Result<_, _>>()?;
    let backup = proto::Backup {
        version: VERSION,
        record: record.digest().as_bytes().to_vec(),
        node: node.into(),
        share: share.encode()?.to_vec(),
    };
    let mut plain = Zeroizing::new(Vec::with_capacity(backup.encoded_len()));
    let encoded = backup.encode(&mut *plain);
    drop(Zeroizing::new(backup.share));
    encoded.map_err(|_| BackupError::Encryption)?;
    let keepers = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(keepers).map_err(|_| BackupError::Encryption)?;
    let mut file = Vec::new();
    let written = encryptor.wrap_output(&mut file).and_then(|mut writer| {
        writer.write_all(&plain)?;
        writer.finish()
    });
    written.map_err(|_| BackupError::Encryption)?;
    Ok(file)
}

/// Opens a backup with its released file key, and checks that it holds the node's share of the recorded generation.
///
/// # Errors
/// [`BackupError`] says what it holds instead.
pub fn open(
    file: &[u8],
    file_key: Zeroizing<[u8; FILE_KEY]>,
    record: &Record,
    node: NodeIndex,
) -> Result<KeyShare, BackupError> {
    if file.len() > MAX_BACKUP {
        return Err(BackupError::Size(file.len()));
    }
    let decryptor = age::Decryptor::new(file).map_err(|_| BackupError::Opening)?;
    let identity = Released(file_key);
    let mut reader = decryptor
        .decrypt(std::iter::once(&identity as &dyn age::Identity))
        .map_err(|_| BackupError::Opening)?;
    // Allocated large enough: a buffer that grows leaves copies behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(file.len()));
    reader.read_to_end(&mut plain).map_err(|_| BackupError::Opening)?;
    let backup = proto::Backup::decode(plain.as_slice()).map_err(|_| BackupError::Format)?;
    let share = Zeroizing::new(backup.share);
    if backup.version != VERSION {
        return Err(BackupError::Format);
    }
    let of_this =
        Hash::try_from(backup.record.as_slice()) == Ok(record.digest()) && backup.node == u32::from(node);
    let share = KeyShare::decode(&share)?;
    if of_this && share.belongs_to(record, node) { Ok(share) } else { Err(BackupError::OtherShare(node)) }
}

/// The file key in what a keeper sealed, if there is one.
pub(crate) fn file_key(plain: &[u8]) -> Result<Zeroizing<[u8; FILE_KEY]>, BackupError> {
    Ok(Zeroizing::new(plain.try_into().map_err(|_| BackupError::Opening)?))
}
