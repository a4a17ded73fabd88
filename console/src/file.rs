//! People's files: read up to a limit, and written whole or not at all.
//!
//! Whatever a person names may be a device, a pipe or far too large, so no more than one byte beyond the limit is ever
//! read. A written file gets its name only once it is complete and on the disk: half a file would be taken for a whole
//! one, and would block the next try.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ceremonies::ids::Hash;
use rustix::fs::{OFlags, fcntl_setfl};
use tempfile::{Builder, NamedTempFile};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::waiting::A_TOUCH;

/// Largest file of settings, seeds, keys or certificates.
pub const MAX_SETTINGS: usize = 64 * 1024;

/// Why a file was not read or written.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{what} {path} cannot be read")]
    Read {
        /// What it should be.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A named pipe whose other end nobody has opened: reading it would wait for ever.
    #[error(
        "{what} {path} is a pipe into which nobody writes: give a file, or first start what is to write into it"
    )]
    Pipe {
        /// What it should be.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// A pipe that stays open while nothing comes.
    #[error(
        "{what} {path} is a pipe that did not end within {} seconds: give a file, or see what writes into it", limit.as_secs()
    )]
    Slow {
        /// What it should be.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// How long it was read.
        limit: Duration,
    },
    /// It is too large to be what it should be.
    #[error(
        "{what} {path} is larger than {limit} bytes, the most that such a file can have: give the right file"
    )]
    TooLarge {
        /// What it should be.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Most bytes that are read.
        limit: usize,
    },
    /// There is one already.
    #[error("{0} already exists and is not overwritten: name another file")]
    Exists(PathBuf),
    /// It cannot be written.
    #[error("{0} cannot be written; no part of it was left behind")]
    Write(PathBuf, #[source] io::Error),
}

/// Who may read a file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone.
    Owner,
    /// Whoever the person's umask lets.
    Anyone,
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// [`FileError`] names the file.
pub fn read(what: &'static str, path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    read_within(what, path, limit, A_TOUCH)
}

/// Reads a file of at most `limit` bytes; a pipe for no longer than this.
///
/// # Errors
/// [`FileError`] names the file.
pub fn read_within(
    what: &'static str,
    path: &Path,
    limit: usize,
    patience: Duration,
) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read { what, path: path.to_owned(), source };
    // Opening a pipe would wait for somebody to write into it.
    let without_waiting = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(without_waiting).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let is_pipe = metadata.file_type().is_fifo();
    let claimed = if is_pipe { limit } else { usize::try_from(metadata.len()).unwrap_or(usize::MAX) };
    // Allocated in one piece: a secret that moves as the buffer grows leaves copies that nobody erases.
    let mut bytes = Vec::with_capacity(claimed.min(limit) + 1);
    if is_pipe {
        match drain(&file, limit + 1, &mut bytes, patience).map_err(failed)? {
            Pipe::Ended => {}
            Pipe::Unopened => return Err(FileError::Pipe { what, path: path.to_owned() }),
            Pipe::Open => return Err(FileError::Slow { what, path: path.to_owned(), limit: patience }),
        }
    } else {
        fcntl_setfl(&file, OFlags::empty()).map_err(|error| failed(error.into()))?;
        file.take((limit + 1) as u64).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() > limit {
        return Err(FileError::TooLarge { what, path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// What became of a pipe that was read.
enum Pipe {
    /// Its end came, or enough of it.
    Ended,
    /// Nobody had it open for writing.
    Unopened,
    /// Somebody still has it open.
    Open,
}

/// Reads what is written into a pipe that does not block.
fn drain(mut pipe: &File, most: usize, bytes: &mut Vec<u8>, patience: Duration) -> io::Result<Pipe> {
    let until = Instant::now() + patience;
    let mut chunk = Zeroizing::new([0; 4096]);
    let mut was_open = false;
    while bytes.len() < most {
        match pipe.read(&mut *chunk) {
            Ok(0) if was_open => return Ok(Pipe::Ended),
            Ok(0) => return Ok(Pipe::Unopened),
            Ok(count) => bytes.extend_from_slice(&chunk[..count.min(most - bytes.len())]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= until {
                    return Ok(Pipe::Open);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
        was_open = true;
    }
    Ok(Pipe::Ended)
}

/// How the names begin of files that are to become this one.
fn beginning(path: &Path) -> String {
    let name = Hash::of_bytes(path.file_name().unwrap_or_default().as_encoded_bytes());
    format!(".custody-{}-", &name.to_string()[..16])
}

/// Removes what is left of earlier tries to write a file that were killed. Whoever still writes it holds a lock.
fn remove_unfinished(path: &Path) -> io::Result<()> {
    let beginning = beginning(path);
    for entry in fs::read_dir(folder(path))? {
        let entry = entry?;
        let is_one = entry.file_name().as_encoded_bytes().starts_with(beginning.as_bytes());
        if is_one && entry.file_type()?.is_file() && File::open(entry.path())?.try_lock().is_ok() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Writes the bytes to a file next to `path`, through to the disk.
fn beside(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<NamedTempFile> {
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::Anyone => 0o666,
    };
    // Whatever is in the way of that, the file can still be written.
    let _ = remove_unfinished(path);
    let mut file = Builder::new()
        .prefix(&beginning(path))
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder(path))?;
    // Some file systems have no locks; there, nothing is removed.
    let _ = file.as_file().try_lock();
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file that did not exist.
///
/// # Errors
/// [`FileError`]; then there is no such file, or the one that was there before.
pub fn write_new(path: &Path, bytes: &[u8], readers: Readers) -> Result<(), FileError> {
    let failed = |error| FileError::Write(path.to_owned(), error);
    let file = beside(path, bytes, readers).map_err(failed)?;
    file.persist_noclobber(path).map_err(|refused| match refused.error {
        error if error.kind() == io::ErrorKind::AlreadyExists => FileError::Exists(path.to_owned()),
        error => failed(error),
    })?;
    File::open(folder(path)).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Opens a file that did not exist, to be written bit by bit; only its owner can read it.
///
/// # Errors
/// [`FileError`] when there is one, or none can be made.
pub fn create_new(path: &Path) -> Result<File, FileError> {
    File::options().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            FileError::Exists(path.to_owned())
        } else {
            FileError::Write(path.to_owned(), error)
        }
    })
}

/// Writes a file that only its owner can read, in place of the one that was there, or that a symbolic link leads to.
///
/// # Errors
/// [`FileError`]; then the one that was there stays.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |error| FileError::Write(path.to_owned(), error);
    let place = if path.is_symlink() { path.canonicalize().map_err(failed)? } else { path.to_owned() };
    let file = beside(&place, bytes, Readers::Owner).map_err(failed)?;
    file.persist(&place).map_err(|refused| failed(refused.error))?;
    Ok(())
}
