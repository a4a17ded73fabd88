//! Reading credentials from a file that something else keeps fresh.
//!
//! This module must never wait for whoever writes the file: only a regular file is certain to end.

use std::fs::{File, FileType, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{CredentialError, enough, is_too_long, room};
use crate::deadline::Threads;

/// A disk that is gone holds one thread per try. A configuration has two sources, so this leaves room for the one whose
/// disk is there.
static THREADS: LazyLock<Threads> = LazyLock::new(|| Threads::at_most(8));

pub(super) async fn read(path: &Path, limit: Duration) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    let file = path.to_owned();
    let read = THREADS.run(limit, move || read_now(&file)).await;
    read.unwrap_or_else(|error| Err(CredentialError::Disk(path.to_owned(), error)))
}

fn read_now(path: &Path) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    let failed = |source| CredentialError::Read(path.to_owned(), source);
    let file = open(path).map_err(failed)?;
    if let Some(what) = other_than_file(file.metadata().map_err(failed)?.file_type()) {
        return Err(CredentialError::NotAFile { path: path.to_owned(), what });
    }
    let mut text = room();
    file.take(enough()).read_to_end(&mut text).map_err(failed)?;
    if is_too_long(&text) {
        return Err(CredentialError::TooLong {
            source_name: format!("AWS credentials file {}", path.display()),
        });
    }
    Ok(text)
}

/// Opens the file without waiting for the other end of a FIFO.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

fn other_than_file(found: FileType) -> Option<&'static str> {
    if found.is_file() {
        None
    } else if found.is_dir() {
        Some("a directory")
    } else if found.is_fifo() {
        Some("a FIFO")
    } else {
        Some("a device")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;
    use crate::config::CredentialSource;
    use crate::credentials::{MAX_ANSWER, fetch_within};

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn refusal(path: &Path) -> String {
        let source = CredentialSource::File(path.to_owned());
        let error = fetch_within(&source, PATIENCE).await.unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        ceremonies::text::chain(&error)
    }

    #[tokio::test]
    async fn file_is_read_up_to_the_longest_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aws.json");
        let text = r#"{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "s"}"#;
        for (length, fits) in
            [(text.len(), true), (MAX_ANSWER.into(), true), (usize::from(MAX_ANSWER) + 1, false)]
        {
            std::fs::write(&path, format!("{text:length$}")).unwrap();
            let fetched = fetch_within(&CredentialSource::File(path.clone()), PATIENCE).await;
            assert_eq!(fetched.is_ok(), fits, "{length}");
        }
        let endless = File::create(&path).unwrap();
        endless.set_len(1 << 40).unwrap();
        assert!(refusal(&path).await.contains("more than 16384 bytes"));
    }

    #[tokio::test]
    async fn fifo_is_refused_at_once_although_nobody_writes_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aws.json");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let refused = refusal(&path).await;
        assert!(refused.contains("is a FIFO; name a regular file"), "{refused}");
    }

    #[tokio::test]
    async fn directory_device_and_missing_file_are_refused_for_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        assert!(refusal(dir.path()).await.contains("is a directory"));
        assert!(refusal(Path::new("/dev/zero")).await.contains("is a device"));
        assert!(refusal(&dir.path().join("absent")).await.contains("No such file"));
    }

    #[tokio::test]
    async fn malformed_file_is_named_and_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aws.json");
        std::fs::write(&path, "SecretAccessKey = hidden").unwrap();
        let refused = refusal(&path).await;
        assert!(refused.ends_with("it is not JSON") && !refused.contains("hidden"), "{refused}");
    }
}
