//! The file of a store on SQLite: literally the one that is configured, private to this user, and still there.

use std::fs::{Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;

/// What means nothing in a URL but itself.
const LITERAL: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
/// What everybody but the owner may be allowed to do.
const OTHERS: u32 = 0o077;

/// What is wrong with the file.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be had for this user alone.
    #[error("store file {0} cannot be made private to this user")]
    Private(PathBuf, #[source] io::Error),
    /// Not a file.
    #[error("store {0} is not a file: name one, or a place where one can be made")]
    NotFile(PathBuf),
    /// Deleted or replaced behind the program's back.
    #[error(
        "store file {0} was deleted or replaced while the agent runs: what it writes now is lost when it stops; bring the \
         file back from a copy, or have this node recovered, and restart the agent"
    )]
    Gone(PathBuf),
}

/// The file, as it was made private.
#[derive(Debug, Clone)]
pub(super) struct PrivateFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

/// The URL under which SQLite opens literally this file.
#[must_use]
pub fn sqlite_url(path: &Path) -> String {
    format!("sqlite:{}", utf8_percent_encode(&path.to_string_lossy(), &LITERAL))
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl PrivateFile {
    /// Makes the file, or makes the one that is there private.
    pub(super) fn create(path: &str) -> Result<Self, FileError> {
        let private = |error| FileError::Private(path.into(), error);
        // Absolute, so that no name of a file means something else to SQLite.
        let path = std::path::absolute(path.trim_start_matches("//")).map_err(private)?;
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(private)?;
        let found = file.metadata().map_err(private)?;
        if !found.is_file() {
            return Err(FileError::NotFile(path));
        }
        if found.mode() & OTHERS != 0 {
            file.set_permissions(Permissions::from_mode(0o600)).map_err(private)?;
        }
        Ok(Self { path, identity: identity(&found) })
    }

    pub(super) fn url(&self) -> String {
        sqlite_url(&self.path)
    }

    /// Whether the file still has its name, and the log beside it too once there is something in the file.
    pub(super) fn check(&self) -> Result<(), FileError> {
        let gone = || FileError::Gone(self.path.clone());
        let found = std::fs::metadata(&self.path).map_err(|_| gone())?;
        if identity(&found) == self.identity && found.len() > 0 { Ok(()) } else { Err(gone()) }
    }

    /// Whether SQLite's log is there, as it is from a write on for as long as somebody has the file open.
    pub(super) fn check_log(&self) -> Result<(), FileError> {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        if Path::new(&log).exists() { Ok(()) } else { Err(FileError::Gone(log.into())) }
    }
}
