//! The vault that is a folder.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ceremonies::ids::{Hash, UnixMillis};
use node::config;
use node::vault::{Vault, VaultError};

use super::{DAY, key, now};

fn open(path: &Path) -> Vault {
    Vault::open(&config::Vault::Directory(config::Directory { path: path.to_owned() })).unwrap()
}

/// The names in a folder that a key can have.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| name.into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != ".writer").collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_directory_never_overwrites_and_never_shortens() {
    let dir = tempfile::tempdir().unwrap();
    let vault = open(dir.path());
    vault.preflight().await.unwrap();
    assert_eq!(names(dir.path()), Vec::<String>::new());

    let (path, lock) = (dir.path().join(key().as_str()), dir.path().join(format!("{}.lock", key())));
    let until = now().plus(30 * DAY);
    let put = vault.put(&key(), b"sealed", until).await.unwrap();
    assert_eq!((put.version.as_str(), put.locked_until), (&*Hash::of_bytes(b"sealed").to_string(), until));
    assert_eq!(vault.put(&key(), b"sealed", until).await.unwrap(), put);

    let differs = vault.put(&key(), b"another", until.plus(DAY)).await.unwrap_err();
    assert!(matches!(differs, VaultError::Differs { .. }), "{differs}");
    assert!(differs.to_string().contains(key().as_str()), "{differs}");
    let shortened = vault.put(&key(), b"sealed", until.plus(-1)).await.unwrap_err();
    assert!(matches!(shortened, VaultError::Shortened { until: found, .. } if found == until), "{shortened}");
    assert_eq!(std::fs::read_to_string(&lock).unwrap(), until.0.to_string());

    let extended = vault.put(&key(), b"sealed", until.plus(DAY)).await.unwrap();
    assert_eq!((&extended.version, extended.locked_until), (&put.version, until.plus(DAY)));
    assert_eq!(std::fs::read_to_string(&lock).unwrap(), until.plus(DAY).0.to_string());
    assert_eq!(std::fs::read(&path).unwrap(), b"sealed");
    for file in [&path, &lock] {
        assert_eq!(
            std::fs::metadata(file).unwrap().permissions().mode() & 0o777,
            0o400,
            "{}",
            file.display()
        );
    }
    assert_eq!(names(path.parent().unwrap()), ["node-2.age", "node-2.age.lock"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_write_at_once_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let writers = (0..8_u8).map(|writer| {
        let vault = open(dir.path());
        tokio::spawn(async move { vault.put(&key(), &[writer; 4096], UnixMillis(DAY)).await })
    });
    let mut kept = Vec::new();
    for written in futures_util::future::join_all(writers).await {
        match written.unwrap() {
            Ok(put) => kept.push(put.version),
            Err(error) => assert!(matches!(error, VaultError::Differs { .. }), "{error}"),
        }
    }
    let found = Hash::of_bytes(&std::fs::read(dir.path().join(key().as_str())).unwrap());
    assert_eq!(kept, [found.to_string()]);
}

#[tokio::test]
async fn a_directory_that_is_missing_or_was_tampered_with_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("not-mounted");
    for refused in [
        open(&absent).preflight().await.unwrap_err(),
        open(&absent).put(&key(), b"sealed", now()).await.unwrap_err(),
    ] {
        assert!(refused.to_string().contains("not-mounted"), "{refused}");
    }
    assert!(!absent.exists());

    let lock = dir.path().join(format!("{}.lock", key()));
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    std::fs::write(&lock, "for ever").unwrap();
    let refused = open(dir.path()).put(&key(), b"sealed", now()).await.unwrap_err();
    assert!(matches!(&refused, VaultError::Lock(path) if *path == lock), "{refused}");
}
