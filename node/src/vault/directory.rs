//! A vault in a folder: for a lab, a removable disk, or a mount that its owner locks.
//!
//! Objects are read-only files. A lock is a file of its own next to the object, and the end in it only ever moves
//! later. Both guard against this program and its mistakes, not against whoever owns the disk.
//!
//! An object gets its name by a hard link, the one way to name a complete file that fails everywhere if the name is
//! taken. A file system without hard links is refused by the preflight: this module must never write an object in a way
//! that could replace another.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ceremonies::ids::{Hash, UnixMillis};
use rustix::io::Errno;

use super::{LOCK_SUFFIX, Limits, ObjectKey, Put, VaultError};
use crate::deadline::{Threads, Within};
use crate::file::read;

/// The file that a writer to the folder holds locked. No key has this name, or begins like [`UNFINISHED`].
const WRITER: &str = ".writer";
/// The prefix of a file's name until it is complete, and of a trial folder's.
const UNFINISHED: &str = ".unfinished-";
/// Longest text of a lock: no number of milliseconds is longer.
const MAX_LOCK: u64 = 20;
/// How soon to look again whether another writer is done.
const LOOK: Duration = Duration::from_millis(20);

/// A folder of objects.
#[derive(Debug, Clone)]
pub struct Directory {
    folder: PathBuf,
    limits: Limits,
    /// One only: late work may still hold the lock on the folder.
    threads: Threads,
    link: Link,
}

/// Gives a file a second name, unless that is taken.
type Link = fn(&Path, &Path) -> io::Result<()>;

impl Directory {
    pub(super) fn open(folder: &Path, limits: Limits) -> Self {
        let link: Link = |from, to| fs::hard_link(from, to);
        Self { folder: folder.to_owned(), limits, threads: Threads::at_most(1), link }
    }

    pub(super) async fn preflight(&self) -> Result<(), VaultError> {
        self.apart(self.limits.preflight, Self::try_out).await
    }

    pub(super) async fn put(
        &self,
        key: &ObjectKey,
        bytes: &[u8],
        locked_until: UnixMillis,
    ) -> Result<Put, VaultError> {
        let (key, bytes) = (key.clone(), bytes.to_vec());
        self.apart(self.limits.put, move |directory| directory.store(&key, &bytes, locked_until)).await
    }

    /// Does the work on a thread that may wait for a disk.
    async fn apart<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&Self) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let directory = self.clone();
        let done = self.threads.run(limit, move || work(&directory)).await;
        done.unwrap_or_else(|source| Err(VaultError::Disk { folder: self.folder.clone(), source }))
    }

    /// Stores an object in a temporary folder and moves its lock: all that a put does.
    fn try_out(&self) -> Result<(), VaultError> {
        let _writer = self.only_writer()?;
        let trial = unfinished_name();
        // Not the key of a backup, so that a trial is never taken for one.
        let key = ObjectKey(format!("{trial}/object"));
        let trial = self.folder.join(trial);
        fs::create_dir(&trial).map_err(|source| failed(&trial, "make this folder", source))?;
        let tried = self.write(&key, b"a trial", UnixMillis(0));
        let tried = tried.and_then(|_| self.write(&key, b"a trial", UnixMillis(1)));
        let removed = fs::remove_dir_all(&trial);
        tried?;
        removed.map_err(|source| failed(&trial, "remove this folder", source))
    }

    fn store(&self, key: &ObjectKey, bytes: &[u8], locked_until: UnixMillis) -> Result<Put, VaultError> {
        let _writer = self.only_writer()?;
        self.write(key, bytes, locked_until)
    }

    fn write(&self, key: &ObjectKey, bytes: &[u8], locked_until: UnixMillis) -> Result<Put, VaultError> {
        let path = self.folder.join(key.as_str());
        let parent = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).map_err(|source| failed(parent, "make this folder", source))?;

        let is_there = self.holds(&path, key, bytes)?;
        // The lock first: an object must never be visible without one.
        self.lock(&path, key, locked_until)?;
        if !is_there {
            self.publish(&path, bytes, |unfinished| self.name(unfinished, &path))?;
        }
        self.settle(parent)?;
        Ok(Put { version: Hash::of_bytes(bytes).to_string(), locked_until })
    }

    /// Waits until no other program writes here.
    fn only_writer(&self) -> Result<File, VaultError> {
        let path = self.folder.join(WRITER);
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let file = file.map_err(|source| failed(&path, "open this file", source))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(source)) => return Err(failed(&path, "lock this file", source)),
                Err(TryLockError::WouldBlock) if begun.elapsed() < self.limits.writer => thread::sleep(LOOK),
                Err(TryLockError::WouldBlock) => {
                    return Err(VaultError::Busy { path, within: Within(self.limits.writer) });
                }
            }
        }
    }

    /// Whether the object is already there; other bytes in its place are an error.
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
        let found = read(path, bytes.len()).map_err(|source| failed(path, "compare this file", source))?;
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
        self.publish(path, text.as_bytes(), |unfinished| {
            fs::rename(unfinished, &lock).map_err(|source| failed(&lock, "replace this lock", source))
        })
    }

    /// Gives a complete file its name, which must be free.
    fn name(&self, whole: &Path, path: &Path) -> Result<(), VaultError> {
        (self.link)(whole, path).map_err(|source| {
            if lacks_links(&source) {
                VaultError::NoLinks { folder: self.folder.clone(), source }
            } else {
                failed(path, "give a file this name", source)
            }
        })
    }

    /// Writes a complete file under a temporary name and lets `place` give it its own.
    fn publish(
        &self,
        path: &Path,
        bytes: &[u8],
        place: impl FnOnce(&Path) -> Result<(), VaultError>,
    ) -> Result<(), VaultError> {
        let whole = unfinished(path.parent().unwrap_or(&self.folder));
        let written = write_whole(&whole, bytes).map_err(|source| failed(&whole, "write this file", source));
        let placed = written.and_then(|()| place(&whole));
        // Already gone if it was renamed.
        let _ = fs::remove_file(&whole);
        placed
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
    let mut text = Vec::new();
    match File::open(lock).and_then(|file| file.take(MAX_LOCK + 1).read_to_end(&mut text)) {
        Ok(_) => {
            let text = str::from_utf8(&text).ok().filter(|_| text.len() as u64 <= MAX_LOCK);
            let until = text.and_then(|text| text.parse().ok());
            until.map(|until| Some(UnixMillis(until))).ok_or_else(|| VaultError::Lock(lock.to_owned()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(lock, "read this lock", source)),
    }
}

/// Whether linking failed for want of hard links. A file system says so in one of three ways, and the file to link was
/// written a moment ago in the same folder.
fn lacks_links(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS))
}

/// A file's name until it is complete.
fn unfinished(folder: &Path) -> PathBuf {
    folder.join(unfinished_name())
}

fn unfinished_name() -> String {
    format!("{UNFINISHED}{:016x}", rand::random::<u64>())
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> VaultError {
    VaultError::File { path: path.to_owned(), action, source }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;
    use crate::deadline::DiskError;

    const SOON: Duration = Duration::from_millis(100);
    const PATIENCE: Duration = Duration::from_secs(20);

    fn key() -> ObjectKey {
        "treasury/generation-1/node-2.age".parse().unwrap()
    }

    fn opened(folder: &Path) -> Directory {
        Directory::open(folder, Limits::default())
    }

    /// The names in a folder other than [`WRITER`].
    fn names(folder: &Path) -> Vec<String> {
        let names =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != WRITER).collect()
    }

    #[tokio::test]
    async fn folder_without_hard_links_is_refused_by_the_preflight_for_that() {
        let links: [Link; 3] = [
            |_, _| Err(Errno::PERM.into()),
            |_, _| Err(Errno::OPNOTSUPP.into()),
            |_, _| Err(Errno::NOSYS.into()),
        ];
        for link in links {
            let dir = tempfile::tempdir().unwrap();
            let directory = Directory { link, ..opened(dir.path()) };
            let refused = directory.preflight().await.unwrap_err();
            assert!(
                matches!(&refused, VaultError::NoLinks { folder, .. } if folder == dir.path()),
                "{refused}"
            );
            assert!(refused.to_string().contains("this file system has no hard links"), "{refused}");
            assert_eq!(names(dir.path()), Vec::<String>::new());
            let refused = directory.put(&key(), b"sealed", UnixMillis(1)).await.unwrap_err();
            assert!(matches!(refused, VaultError::NoLinks { .. }), "{refused}");
        }
    }

    #[tokio::test]
    async fn folder_that_fails_otherwise_is_refused_for_the_true_reason() {
        let links: [(Link, &str); 3] = [
            (|_, _| Err(Errno::NOSPC.into()), "make room there"),
            (|_, _| Err(Errno::ROFS.into()), "mount it for writing"),
            (|_, _| Err(Errno::IO.into()), "cannot give a file this name"),
        ];
        for (link, expected) in links {
            let dir = tempfile::tempdir().unwrap();
            let refused = Directory { link, ..opened(dir.path()) }.preflight().await.unwrap_err();
            assert!(refused.to_string().ends_with(expected), "{refused}");
            assert_eq!(names(dir.path()), Vec::<String>::new());
        }
        let dir = tempfile::tempdir().unwrap();
        let absent = opened(&dir.path().join("absent")).preflight().await.unwrap_err();
        assert!(absent.to_string().ends_with("check that the folder exists and is mounted"), "{absent}");
    }

    #[tokio::test]
    async fn name_that_somebody_else_took_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let link: Link = |from, to| {
            fs::write(to, "another's").unwrap();
            fs::hard_link(from, to)
        };
        let refused = Directory { link, ..opened(dir.path()) }.put(&key(), b"sealed", UnixMillis(1)).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, VaultError::File { .. }), "{refused}");
        assert_eq!(fs::read(dir.path().join(key().as_str())).unwrap(), b"another's");
    }

    #[tokio::test]
    async fn folder_that_another_program_keeps_locked_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { writer: SOON, preflight: PATIENCE, put: PATIENCE, ..Limits::default() };
        let other = File::create(dir.path().join(WRITER)).unwrap();
        other.lock().unwrap();
        let directory = Directory::open(dir.path(), limits);
        for refused in [
            directory.preflight().await.unwrap_err(),
            directory.put(&key(), b"sealed", UnixMillis(1)).await.unwrap_err(),
        ] {
            assert!(matches!(refused, VaultError::Busy { .. }), "{refused}");
            assert!(refused.to_string().contains("did not release it within 0.1 s"), "{refused}");
        }
        drop(other);
        directory.preflight().await.unwrap();
    }

    #[tokio::test]
    async fn folder_whose_disk_does_not_answer_is_given_up_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        // Opening this waits for a reader, as a disk that is gone is waited for.
        mkfifoat(CWD, dir.path().join(WRITER), Mode::RUSR | Mode::WUSR).unwrap();
        let limits = Limits { preflight: SOON, put: SOON, ..Limits::default() };
        let directory = Directory::open(dir.path(), limits);
        for late in [
            directory.preflight().await.unwrap_err(),
            directory.put(&key(), b"sealed", UnixMillis(1)).await.unwrap_err(),
        ] {
            assert!(matches!(&late, VaultError::Disk { source: DiskError::Late(_), .. }), "{late}");
            assert!(late.to_string().contains(&dir.path().display().to_string()), "{late}");
        }
        // Releases the waiting thread.
        drop(File::open(dir.path().join(WRITER)).unwrap());
    }

    #[tokio::test]
    async fn lock_that_is_longer_than_any_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join(format!("{}{LOCK_SUFFIX}", key()));
        fs::create_dir_all(lock.parent().unwrap()).unwrap();
        fs::write(&lock, "0".repeat(30)).unwrap();
        let refused = opened(dir.path()).put(&key(), b"sealed", UnixMillis(1)).await.unwrap_err();
        assert!(matches!(&refused, VaultError::Lock(path) if *path == lock), "{refused}");
    }
}
