//! The bundle as a zip archive: written in one form only, read within limits.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _, Write as _};

use thiserror::Error;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// Largest bundle read, in bytes, packed or unpacked.
pub const MAX_BUNDLE: usize = 64 * 1024 * 1024;
/// Most files in a bundle.
const MAX_FILES: usize = 4096;

/// Why bytes are not the archive of a bundle.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// Over [`MAX_BUNDLE`].
    #[error("the bundle has more than {MAX_BUNDLE} bytes, packed or unpacked")]
    TooLarge,
    /// Over the number of files.
    #[error("the bundle has more than {MAX_FILES} files")]
    TooMany,
    /// Not a zip archive, or damaged.
    #[error("the bundle is not a complete zip archive")]
    Zip(#[source] zip::result::ZipError),
    /// A file in it is damaged.
    #[error("file {name} in the bundle is damaged")]
    Damaged {
        /// Which file.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file is there twice.
    #[error("file {0} appears twice in the bundle")]
    Twice(String),
    /// A file could not be added.
    #[error("file {0} could not be added")]
    Add(String),
}

/// Packs files in the order of their names, uncompressed and without times, so that the same files are
/// always the same bytes.
pub(super) fn write(files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, ArchiveError> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o644);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        let added = writer.start_file(name.as_str(), options).is_ok() && writer.write_all(content).is_ok();
        if !added {
            return Err(ArchiveError::Add(name.clone()));
        }
    }
    Ok(writer.finish().map_err(ArchiveError::Zip)?.into_inner())
}

/// Unpacks within limits. The sizes that the archive claims are not believed.
pub(super) fn read(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, ArchiveError> {
    if bytes.len() > MAX_BUNDLE {
        return Err(ArchiveError::TooLarge);
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(ArchiveError::Zip)?;
    if archive.len() > MAX_FILES {
        return Err(ArchiveError::TooMany);
    }
    let mut files = BTreeMap::new();
    let mut room = MAX_BUNDLE;
    for index in 0..archive.len() {
        let file = archive.by_index(index).map_err(ArchiveError::Zip)?;
        let name = file.name().to_owned();
        let mut content = Vec::new();
        file.take(room as u64 + 1)
            .read_to_end(&mut content)
            .map_err(|source| ArchiveError::Damaged { name: name.clone(), source })?;
        room = room.checked_sub(content.len()).ok_or(ArchiveError::TooLarge)?;
        if files.insert(name.clone(), content).is_some() {
            return Err(ArchiveError::Twice(name));
        }
    }
    Ok(files)
}
