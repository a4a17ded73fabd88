//! Files that the agent is told to read: a path may be a device, a pipe or far too large, so no more than one byte beyond
//! the limit is ever read.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Largest file of settings, seeds or certificates.
pub const MAX_SETTINGS: usize = 64 * 1024;

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// Those of the file system, and [`io::ErrorKind::FileTooLarge`].
pub fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let claimed = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    // Allocated in one piece: a secret that moves as the buffer grows leaves copies that nobody erases.
    let mut bytes = Vec::with_capacity(claimed.min(limit) + 1);
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        let text = format!(
            "it is larger than {limit} bytes, the most that such a file can have: give the right file"
        );
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}
