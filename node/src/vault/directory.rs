//! A vault that is a folder: for a lab, a removable disk, or a mount that its owner locks.
//!
//! Objects are read-only files. A lock is a file of its own next to the object, and the end in it only ever
//! moves away. Both keep this program and its mistakes out, not whoever owns the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ceremonies::ids::{Hash, UnixMillis};

use super::{LOCK_SUFFIX, ObjectKey, Put, VaultError};

/// The file that whoever writes to the folder holds locked. No key has this name, nor [`UNFINISHED`]'s.
const WRITER: &str = ".writer";
/// What the name of a file begins with until it is whole.
const UNFINISHED: &str = ".unfinished-";

/// A folder of objects.
#[derive(Debug, Clone)]
pub struct Directory {
    folder: PathBuf,
}

impl Directory {
    pub(super) fn open(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(super) async fn preflight(&self) -> Result<(), VaultError> {
        self.clone().apart(Self::try_out).await
    }

    pub(super) async fn put(
        &self,
        key: &ObjectKey,
        bytes: &[u8],
        locked_until: UnixMillis,
    ) -> Result<Put, VaultError> {
        let (key, bytes) = (key.clone(), bytes.to_vec());
        self.clone().apart(move |directory| directory.store(&key, &bytes, locked_until)).await
    }

    /// Does the work where it may wait for a disk.
    async fn apart<T: Send + 'static>(
        self,
        work: impl FnOnce(&Self) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let folder = self.folder.clone();
        let done = tokio::task::spawn_blocking(move || work(&self)).await;
        done.unwrap_or(Err(VaultError::CutOff(folder)))
    }

    fn try_out(&self) -> Result<(), VaultError> {
        let _writer = self.only_writer()?;
        let (first, second) = (unfinished(&self.folder), unfinished(&self.folder));
        let tried = write_whole(&first, b"a trial").and_then(|()| {
            let linked = fs::hard_link(&first, &second);
            linked.and_then(|()| fs::remove_file(&second))
        });
        let removed = fs::remove_file(&first);
        tried.and(removed).map_err(|source| failed(&self.folder, "write", source))
    }

    fn store(&self, key: &ObjectKey, bytes: &[u8], locked_until: UnixMillis) -> Result<Put, VaultError> {
        let _writer = self.only_writer()?;
        let path = self.folder.join(key.as_str());
        let parent = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).map_err(|source| failed(parent, "make this folder", source))?;

        let is_there = self.holds(&path, key, bytes)?;
        // The lock first: an object is never to be seen without one.
        self.lock(&path, key, locked_until)?;
        if !is_there {
            self.publish(&path, bytes, |unfinished| fs::hard_link(unfinished, &path))?;
        }
        self.settle(parent)?;
        Ok(Put { version: Hash::of_bytes(bytes).to_string(), locked_until })
    }

    /// Waits until no other program writes here.
    fn only_writer(&self) -> Result<File, VaultError> {
        let path = self.folder.join(WRITER);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let file = file.map_err(|source| failed(&path, "open this file", source))?;
        file.lock().map_err(|source| failed(&path, "lock this file", source))?;
        Ok(file)
    }

    /// Whether the object is there already; other bytes in its place are an error.
    fn holds(&self, path: &Path, key: &ObjectKey, bytes: &[u8]) -> Result<bool, VaultError> {
        let differs = || VaultError::Differs { folder: self.folder.clone(), key: key.clone() };
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(failed(path, "look at this file", source)),
        };
        if !found.is_file() || found.len() != bytes.len() as u64 {
            return Err(differs());
        }
        let found = fs::read(path).map_err(|source| failed(path, "compare this file", source))?;
        if found == bytes { Ok(true) } else { Err(differs()) }
    }

    fn lock(&self, path: &Path, key: &ObjectKey, until: UnixMillis) -> Result<(), VaultError> {
        let lock = self.folder.join(format!("{key}{LOCK_SUFFIX}"));
        match locked_until(&lock)? {
            Some(now) if now > until => {
                let folder = self.folder.clone();
                return Err(VaultError::Shortened { folder, key: key.clone(), until: now });
            }
            Some(now) if now == until => return Ok(()),
            Some(_) | None => {}
        }
        let text = until.0.to_string();
        self.publish(path, text.as_bytes(), |unfinished| fs::rename(unfinished, &lock))
    }

    /// Writes a file whole under a passing name and lets `place` give it its own.
    fn publish(
        &self,
        path: &Path,
        bytes: &[u8],
        place: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), VaultError> {
        let whole = unfinished(path.parent().unwrap_or(&self.folder));
        let placed = write_whole(&whole, bytes).and_then(|()| place(&whole));
        // Gone already where it was renamed.
        let _ = fs::remove_file(&whole);
        placed.map_err(|source| failed(path, "write this file", source))
    }

    /// Makes the names in `folder`, and those of the folders on the way to it, outlast a loss of power.
    fn settle(&self, folder: &Path) -> Result<(), VaultError> {
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(&self.folder)) {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(|source| failed(folder, "flush this folder", source))?;
        }
        Ok(())
    }
}

fn locked_until(lock: &Path) -> Result<Option<UnixMillis>, VaultError> {
    match fs::read_to_string(lock) {
        Ok(text) => {
            let until = text.parse().map_err(|_| VaultError::Lock(lock.to_owned()))?;
            Ok(Some(UnixMillis(until)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(lock, "read this lock", source)),
    }
}

/// A name that a file has until it is whole.
fn unfinished(folder: &Path) -> PathBuf {
    folder.join(format!("{UNFINISHED}{:016x}", rand::random::<u64>()))
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> VaultError {
    VaultError::File { path: path.to_owned(), action, source }
}
