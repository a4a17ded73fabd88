//! The file of an SQLite store: literally the one that is configured, private to this user, and still there.

use std::fs::{File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;

/// Characters that stand only for themselves in a URL.
const LITERAL: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
/// The permission bits of everyone but the owner.
const OTHERS: u32 = 0o077;

/// What is wrong with the file.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be made private to this user.
    #[error("store file {0} cannot be made private to this user")]
    Private(PathBuf, #[source] io::Error),
    /// Not a file.
    #[error("store {0} is not a file: name a file, or a path where one can be made")]
    NotFile(PathBuf),
    /// Deleted or replaced behind the program's back.
    #[error(
        "store file {0} was deleted or replaced while the agent is running: whatever it writes now is lost when it \
         stops; restore the file from a copy, or have this node recovered, and restart the agent"
    )]
    Gone(PathBuf),
    /// Another agent has it.
    #[error("another agent is running with store {0}: two would speak as one node; stop one of them")]
    Taken(PathBuf),
}

/// The file, as it was made private.
#[derive(Debug, Clone)]
pub(super) struct PrivateFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// Those of SQLite's write-ahead log, once it was seen.
    log: Arc<OnceLock<(u64, u64)>>,
}

/// The URL under which SQLite opens literally this file.
#[must_use]
pub fn sqlite_url(path: &Path) -> String {
    format!("sqlite:{}", utf8_percent_encode(&path.to_string_lossy(), &LITERAL))
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Creates the file, which only this user may read.
fn make(path: &Path) -> io::Result<Metadata> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.metadata()
}

impl PrivateFile {
    /// Makes the file, or makes the one that is there private.
    pub(super) fn create(path: &str) -> Result<Self, FileError> {
        let private = |error| FileError::Private(path.into(), error);
        // Absolute, so that no file name means something special to SQLite.
        let path = std::path::absolute(path.trim_start_matches("//")).map_err(private)?;
        // Never opened if it is there: closing it again would take from this process the locks with which SQLite has it
        // open, and whatever other program read the store next would delete its write-ahead log when it was done.
        let found = match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path),
            found => found,
        };
        let found = found.map_err(private)?;
        if !found.is_file() {
            return Err(FileError::NotFile(path));
        }
        // Where the name is a link, SQLite keeps its write-ahead log beside the file itself.
        let path = std::fs::canonicalize(&path).map_err(private)?;
        if found.mode() & OTHERS != 0 {
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(private)?;
        }
        Ok(Self { path, identity: identity(&found), log: Arc::default() })
    }

    pub(super) fn url(&self) -> String {
        sqlite_url(&self.path)
    }

    /// Keeps every other agent from this store until what is returned is dropped. The lock is on a file beside it: SQLite
    /// would lose its own locks with any other handle of the store.
    pub(super) fn claim(&self) -> Result<File, FileError> {
        let private = |error| FileError::Private(self.path.clone(), error);
        let mut path = self.path.clone().into_os_string();
        path.push("-agent");
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(private)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(FileError::Taken(self.path.clone())),
            Err(TryLockError::Error(error)) => Err(private(error)),
        }
    }

    /// Whether the file still has its name and, once it has content, the write-ahead log next to it too.
    pub(super) fn check(&self) -> Result<(), FileError> {
        let gone = || FileError::Gone(self.path.clone());
        let found = std::fs::metadata(&self.path).map_err(|_| gone())?;
        if identity(&found) == self.identity && found.len() > 0 { Ok(()) } else { Err(gone()) }
    }

    /// Whether SQLite's write-ahead log is there, as it is after the first write while the file is open, and is the one that
    /// was there before: any reader makes another where it is missing, which is not the one that is written to.
    pub(super) fn check_log(&self) -> Result<(), FileError> {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        match std::fs::metadata(&log) {
            Ok(found) if *self.log.get_or_init(|| identity(&found)) == identity(&found) => Ok(()),
            Ok(_) | Err(_) => Err(FileError::Gone(log.into())),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn write_ahead_log_is_looked_for_beside_the_file_and_not_beside_a_link_to_it() {
        let (folder, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, store) = (folder.path().join("store.db"), disk.path().join("moved.db"));
        std::fs::write(&store, "").unwrap();
        std::os::unix::fs::symlink(&store, &link).unwrap();
        let file = PrivateFile::create(&link.to_string_lossy()).unwrap();
        std::fs::write(disk.path().join("moved.db-wal"), "written").unwrap();
        file.check_log().unwrap();
        let _claimed = file.claim().unwrap();
        let same = PrivateFile::create(&store.to_string_lossy()).unwrap();
        assert!(matches!(same.claim(), Err(FileError::Taken(_))), "two agents have one store");
    }

    #[test]
    fn write_ahead_log_in_the_place_of_the_one_that_was_there_is_not_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store.db");
        let file = PrivateFile::create(&store.to_string_lossy()).unwrap();
        let log = folder.path().join("store.db-wal");
        assert!(file.check_log().is_err(), "the write-ahead log is gone");
        std::fs::write(&log, "written").unwrap();
        file.check_log().unwrap();
        std::fs::write(&log, "").unwrap();
        file.check_log().unwrap();
        std::fs::rename(&log, folder.path().join("aside")).unwrap();
        assert!(file.check_log().is_err(), "it is gone");
        std::fs::write(&log, "by a reader").unwrap();
        assert!(file.clone().check_log().is_err(), "another is in its place");
        std::fs::rename(folder.path().join("aside"), &log).unwrap();
        file.check_log().unwrap();
    }
}
