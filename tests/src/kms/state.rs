//! Small secrets of the lab, kept in files so that a restarted lab is the same lab.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;

/// The content of `path`, made by `create` and written for the owner alone where it does not exist yet.
///
/// # Errors
/// Says what cannot be read, made or written.
pub(crate) fn read_or_create(
    path: &Path,
    create: impl FnOnce() -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        read => return read.with_context(|| format!("reading {}", path.display())),
    }
    let content = create()?;
    // Written aside and renamed, so that an interrupted start does not leave half a key behind.
    let unfinished = path.with_extension("unfinished");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(&content)?;
    file.sync_all()?;
    fs::rename(&unfinished, path).with_context(|| format!("writing {}", path.display()))?;
    Ok(content)
}
