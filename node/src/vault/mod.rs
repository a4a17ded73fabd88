//! Where an agent keeps backups: places that return nothing to it and let nobody overwrite or delete.
//!
//! What is written here is already encrypted. A vault answers for one thing: that the bytes are still there on the day
//! when everything else is gone. This module must never read a backup, overwrite one, or shorten a lock.

mod directory;
mod s3;

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ceremonies::ids::UnixMillis;
use thiserror::Error;

pub use directory::Directory;
pub use s3::{Place, S3};

use crate::config;
use crate::credentials::CredentialError;
use crate::deadline::{DiskError, Within};

/// Longest key of an object. File systems take more, and so does S3.
const MAX_KEY: usize = 200;
/// What a directory appends to a key for its lock file, so no part of a key may end in it.
const LOCK_SUFFIX: &str = ".lock";

/// How long to wait for a vault. Waiting for credentials is separate.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// For a connection to a bucket, TLS included.
    connect: Duration,
    /// For all that a preflight asks.
    preflight: Duration,
    /// For an object to be accepted.
    put: Duration,
    /// For another program that writes to a directory.
    writer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A few round trips to anywhere.
            connect: Duration::from_secs(5),
            // Four short answers; people are waiting.
            preflight: Duration::from_secs(15),
            // Some hundred kilobytes, over a slow line or to a slow disk.
            put: Duration::from_mins(1),
            // Writing takes well under a second. Less than a preflight has, so that the true reason is reported first.
            writer: Duration::from_secs(10),
        }
    }
}

/// The name of an object: `treasury/generation-1/node-2.age`. Parts between slashes begin with a letter or digit,
/// followed by letters, digits, `-` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ObjectKey {
    type Err = InvalidObjectKey;
    fn from_str(key: &str) -> Result<Self, InvalidObjectKey> {
        if key.len() <= MAX_KEY && !key.contains("..") && key.split('/').all(is_part) {
            Ok(Self(key.to_owned()))
        } else {
            Err(InvalidObjectKey(key.chars().take(2 * MAX_KEY).collect()))
        }
    }
}

fn is_part(part: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(letter)
        && part.chars().all(|c| letter(c) || c == '-' || c == '.')
        && !part.ends_with(LOCK_SUFFIX)
}

/// Text that names no object.
#[derive(Debug, Error)]
#[error(
    "`{0}` is not an object key: use up to {MAX_KEY} characters of a-z, 0-9, `-` and `.` in parts between slashes, \
     each starting with a letter or digit, without `..` and not ending in {LOCK_SUFFIX}"
)]
pub struct InvalidObjectKey(String);

/// What the vault answered to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The version it got.
    pub version: String,
    /// When it may be deleted at the earliest.
    pub locked_until: UnixMillis,
}

/// A place for backups.
pub enum Vault {
    /// A folder on this host.
    Directory(Directory),
    /// A bucket with versions and object locks.
    S3(Box<S3>),
}

impl Vault {
    /// Prepares a vault for use. Nothing is contacted yet.
    ///
    /// # Errors
    /// [`VaultError::Endpoint`] when the configuration names no usable endpoint.
    pub fn open(config: &config::Vault) -> Result<Self, VaultError> {
        match config {
            config::Vault::Directory(directory) => {
                Ok(Self::Directory(Directory::open(&directory.path, Limits::default())))
            }
            config::Vault::S3(bucket) => Ok(Self::S3(Box::new(S3::open(bucket, Limits::default())?))),
        }
    }

    /// How often a vault that works is to be checked again: some buckets keep every trial for ever.
    #[must_use]
    pub fn check_every(&self) -> Duration {
        match self {
            Self::Directory(_) => Duration::from_secs(10),
            Self::S3(_) => Duration::from_mins(10),
        }
    }

    /// Checks that the vault is reachable, versioned, has locks and accepts writes, without storing anything
    /// permanently. It ends within a limited time.
    ///
    /// # Errors
    /// [`VaultError`] says which of them is missing.
    pub async fn preflight(&self) -> Result<(), VaultError> {
        match self {
            Self::Directory(directory) => directory.preflight().await,
            Self::S3(bucket) => bucket.preflight().await,
        }
    }

    /// Stores an object that nobody can overwrite, or delete before `locked_until`. The same bytes under the same key
    /// again are fine for a directory, which answers the same version; a bucket refuses them, as it has no way to tell.
    /// It ends within a limited time; after a timeout, the caller does not know whether the object is there.
    ///
    /// # Errors
    /// [`VaultError`] names the key or the vault.
    pub async fn put(
        &self,
        key: &ObjectKey,
        bytes: &[u8],
        locked_until: UnixMillis,
    ) -> Result<Put, VaultError> {
        match self {
            Self::Directory(directory) => directory.put(key, bytes, locked_until).await,
            Self::S3(bucket) => bucket.put(key, bytes, locked_until).await,
        }
    }
}

/// Why a vault cannot be used, or accepted nothing.
#[derive(Debug, Error)]
pub enum VaultError {
    /// A file or a folder of a directory cannot be used.
    #[error("vault {path}: cannot {action}{}", remedy(source.kind()))]
    File {
        /// Which one.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A directory's disk gave no answer.
    #[error("vault {folder} cannot be used; check that it is mounted and that its server or disk answers")]
    Disk {
        /// The vault.
        folder: PathBuf,
        /// Why.
        source: DiskError,
    },
    /// A directory could not keep one object from replacing another.
    #[error(
        "vault {folder}: this file system has no hard links, which keep an object from being replaced; use another \
         file system, such as ext4, XFS or NFS"
    )]
    NoLinks {
        /// The vault.
        folder: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
    /// Another program is writing to a directory and does not finish.
    #[error(
        "vault {path}: another program keeps this file locked and did not release it {within}; find out which"
    )]
    Busy {
        /// The file.
        path: PathBuf,
        /// The limit.
        within: Within,
    },
    /// A directory has something else under the key.
    #[error(
        "vault {folder}: {key} already exists with different content; find out who wrote it, and keep it"
    )]
    Differs {
        /// The vault.
        folder: PathBuf,
        /// The key.
        key: ObjectKey,
    },
    /// A directory's lock would end earlier than it does.
    #[error(
        "vault {folder}: {key} is locked until {until}, and a lock cannot be shortened; ask for a later end"
    )]
    Shortened {
        /// The vault.
        folder: PathBuf,
        /// The key.
        key: ObjectKey,
        /// When its lock ends.
        until: UnixMillis,
    },
    /// A directory's lock cannot be read.
    #[error("vault {0}: this lock is not a number of milliseconds; find out who wrote it")]
    Lock(PathBuf),
    /// The configured endpoint is not one.
    #[error("vault.s3.endpoint `{endpoint}`: {why}")]
    Endpoint {
        /// What is configured.
        endpoint: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There are no credentials to write with.
    #[error("vault {bucket}: no credentials; correct vault.s3.credentials")]
    Credentials {
        /// The vault.
        bucket: Place,
        /// Why.
        source: CredentialError,
    },
    /// No route to a bucket, or no readable answer from it.
    #[error(
        "vault {bucket}: no usable answer to {operation}; check vault.s3.endpoint, the region and the network, then \
         try again"
    )]
    Unreachable {
        /// The vault.
        bucket: Place,
        /// What was asked.
        operation: &'static str,
        /// What went wrong on the way.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No connection to a bucket was accepted.
    #[error(
        "vault {bucket}: no connection {within}; check vault.s3.endpoint, the region and the network, then try again"
    )]
    Unconnected {
        /// The vault.
        bucket: Place,
        /// The limit.
        within: Within,
    },
    /// A bucket was asked but did not answer.
    #[error(
        "vault {bucket}: {operation}: the vault did not answer {within}; check vault.s3.endpoint and the network, ask \
         the provider, then try again"
    )]
    Silent {
        /// The vault.
        bucket: Place,
        /// What was asked.
        operation: &'static str,
        /// The limit.
        within: Within,
    },
    /// A bucket said no.
    #[error(
        "vault {bucket} refused {operation}: {code}: {message}; the credentials need s3:PutObject, \
         s3:PutObjectRetention, s3:GetBucketVersioning and s3:GetBucketObjectLockConfiguration, and no more"
    )]
    Refused {
        /// The vault.
        bucket: Place,
        /// What was asked.
        operation: &'static str,
        /// The provider's name for the error.
        code: String,
        /// The provider's words.
        message: String,
    },
    /// A bucket without versioning.
    #[error("vault {0} keeps no versions; enable versioning, or name a bucket that has it")]
    Unversioned(Place),
    /// A bucket without locks.
    #[error("vault {0} has no object locks; name a bucket that was made with object lock enabled")]
    Unlocked(Place),
    /// A provider that stores bytes other than those it was told to expect.
    #[error("vault {0} takes bytes that do not match their checksum; use a provider that verifies SHA-256")]
    Unchecked(Place),
    /// A bucket already has something under the key, perhaps from an earlier try of the same write.
    #[error(
        "vault {bucket}: {key} already exists and was left as it is; compare it, using credentials that can read, and \
         write under another key if it differs"
    )]
    Taken {
        /// The vault.
        bucket: Place,
        /// The key.
        key: ObjectKey,
    },
    /// An answer that lacks what a vault's answer must say.
    #[error(
        "vault {bucket}: the answer to {key} {what}; find out who answers there, and read the object back"
    )]
    Malformed {
        /// The vault.
        bucket: Place,
        /// The key.
        key: ObjectKey,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// What to do about a file that cannot be used, where that is known.
#[expect(clippy::wildcard_enum_match_arm, reason = "the standard library's enum, which grows")]
fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "; check that the folder exists and is mounted",
        ErrorKind::PermissionDenied => "; check that the agent's user may write there",
        ErrorKind::ReadOnlyFilesystem => "; mount it for writing",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room there",
        ErrorKind::Unsupported => "; use another file system, such as ext4, XFS or NFS",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_refuse_what_a_path_or_a_lock_would_read_differently() {
        let longest = "a".repeat(MAX_KEY);
        for good in ["treasury/generation-1/node-2.age", "a", "0.b-c", &longest] {
            assert!(good.parse::<ObjectKey>().is_ok(), "{good:?}");
        }
        let too_long = "a".repeat(MAX_KEY + 1);
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a..b", "a/.b", "-a", "A", "a b",
            "a\\b", "é", "a_b", "a\0", "a.lock", "a.lock/b", &too_long,
        ] {
            assert!(bad.parse::<ObjectKey>().is_err(), "{bad:?}");
        }
    }
}
