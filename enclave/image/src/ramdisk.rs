//! A ramdisk: files and folders as a `newc` archive (Linux, `Documentation/driver-api/early-userspace/
//! buffer-format.rst`), owned by root, without times, in the order of their paths.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cpio::newc::{self, Builder};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;
const DEVICE: u32 = 0o020_600;
/// Major and minor number of the kernel's console.
const CONSOLE: (u32, u32) = (5, 1);

enum Node {
    Folder,
    Console,
    File { bytes: Vec<u8>, runs: bool },
}

/// What a ramdisk holds.
#[derive(Default)]
pub struct Ramdisk(BTreeMap<String, Node>);

impl Ramdisk {
    /// A folder, with those above it.
    pub fn folder(&mut self, path: &str) {
        for above in Path::new(path).ancestors().filter_map(Path::to_str).filter(|path| !path.is_empty()) {
            self.0.entry(above.to_owned()).or_insert(Node::Folder);
        }
    }

    /// A file, with the folders above it.
    pub fn file(&mut self, path: &str, bytes: Vec<u8>, runs: bool) {
        if let Some(above) = Path::new(path).parent().and_then(Path::to_str) {
            self.folder(above);
        }
        self.0.insert(path.to_owned(), Node::File { bytes, runs });
    }

    /// The device on which the kernel gives the first process its standard streams.
    pub fn console(&mut self, path: &str) {
        self.0.insert(path.to_owned(), Node::Console);
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When the file cannot be written, or something in it is too large for the format.
    pub fn write(&self, path: &Path) -> Result<PathBuf> {
        let mut archive = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        for (number, (name, node)) in (1..).zip(&self.0) {
            let entry = Builder::new(name).ino(number).uid(0).gid(0).mtime(0);
            let (entry, bytes) = match node {
                Node::Folder => (entry.mode(FOLDER).nlink(2), &[][..]),
                Node::Console => {
                    (entry.mode(DEVICE).nlink(1).rdev_major(CONSOLE.0).rdev_minor(CONSOLE.1), &[][..])
                }
                Node::File { bytes, runs } => {
                    (entry.mode(if *runs { PROGRAM } else { PLAIN }).nlink(1), bytes.as_slice())
                }
            };
            let size = u32::try_from(bytes.len()).with_context(|| format!("{name} is over 4 GiB"))?;
            let mut writer = entry.write(&mut archive, size);
            writer.write_all(bytes)?;
            writer.finish()?;
        }
        newc::trailer(&mut archive)?;
        archive.flush()?;
        Ok(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn archive_is_the_same_whatever_the_order_and_has_every_folder_once() {
        let folder = tempfile::tempdir().unwrap();
        let build = |name: &str, files: &[&str]| {
            let mut ramdisk = Ramdisk::default();
            ramdisk.console("dev/console");
            for file in files {
                ramdisk.file(file, file.as_bytes().to_vec(), *file == "init");
            }
            ramdisk.folder("dev");
            std::fs::read(ramdisk.write(&folder.path().join(name)).unwrap()).unwrap()
        };
        let one = build("one", &["init", "roots/a.pem", "roots/b.pem"]);
        let other = build("other", &["roots/b.pem", "roots/a.pem", "init"]);
        assert_eq!(one, other);
        assert_eq!(
            one.windows(6).filter(|bytes| bytes == b"070701").count(),
            7,
            "six entries and the trailer"
        );
    }
}
