//! The same vault against a server that others wrote.
//!
//! What moto 5.2.5 gets wrong is not asserted: it stores bytes that do not match their checksum, lets a
//! COMPLIANCE lock be shortened and downgraded and versions be suspended under it, lets whoever may put
//! objects change their locks and copy what they may not read, but not see whether a bucket has locks, and
//! answers `GetBucketVersioning` in XML that is not S3's, at which a preflight stops. The lab's own server is
//! strict in all of it.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::time::{Duration, Instant};

use aws_sdk_s3::types::ObjectLockEnabled;
use lab::moto::{Key, Moto};
use lab::programs;
use node::vault::{ObjectKey, Vault, VaultError};

use super::{DAY, client, code, key, now, vault};

/// How long the clock may take to pass a lock of two seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon it is tried again.
const AGAIN: Duration = Duration::from_millis(50);

fn vault_of(dir: &std::path::Path, moto: &Moto, bucket: &str) -> Vault {
    let Key { id, secret } = moto.writer();
    vault(dir, moto.url(), bucket, id, secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_agrees_about_versions_locks_and_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let tools = programs::target().unwrap().join("tools");
    let moto = tokio::task::spawn_blocking(move || Moto::start(&tools)).await.unwrap().unwrap();

    let locked = vault_of(dir.path(), &moto, "locked");
    let misread = locked.preflight().await.unwrap_err();
    assert!(
        matches!(&misread, VaultError::Refused { operation: "GetBucketVersioning", .. }),
        "moto answers as S3 does now: assert the rest of the preflight too: {misread}"
    );

    let put = locked.put(&key(), b"sealed", now().plus(DAY)).await.unwrap();
    let again = locked.put(&key(), b"another", now().plus(DAY)).await.unwrap_err();
    assert!(matches!(&again, VaultError::Taken { key: named, .. } if *named == key()), "{again}");

    let (writer, owner) = (moto.writer(), moto.owner());
    let (writer, owner) =
        (client(moto.url(), &writer.id, &writer.secret), client(moto.url(), &owner.id, &owner.secret));
    let locks = |bucket: &str| owner.get_object_lock_configuration().bucket(bucket).send();
    let enabled = locks("locked").await.unwrap().object_lock_configuration.unwrap().object_lock_enabled;
    assert_eq!(enabled, Some(ObjectLockEnabled::Enabled));
    assert_eq!(code(locks("versioned").await), "ObjectLockConfigurationNotFoundError");

    let key = key();
    let read = owner.get_object().bucket("locked").key(key.as_str()).version_id(&put.version).send().await;
    assert_eq!(read.unwrap().body.collect().await.unwrap().to_vec(), b"sealed");
    assert_eq!(code(writer.get_object().bucket("locked").key(key.as_str()).send().await), "AccessDenied");
    let head = writer.head_object().bucket("locked").key(key.as_str()).send().await.unwrap_err();
    assert_eq!(head.raw_response().unwrap().status().as_u16(), 403);
    assert_eq!(code(writer.list_objects_v2().bucket("locked").send().await), "AccessDenied");
    assert_eq!(code(writer.list_object_versions().bucket("locked").send().await), "AccessDenied");
    for thief in [writer, owner.clone()] {
        let delete = thief.delete_object().bucket("locked").key(key.as_str()).version_id(&put.version);
        assert_eq!(code(delete.bypass_governance_retention(true).send().await), "AccessDenied");
    }

    // This server has the system's clock alone, so the lock is a short one.
    let short: ObjectKey = "short.age".parse().unwrap();
    let put = locked.put(&short, b"sealed", now().plus(2000)).await.unwrap();
    let delete = owner.delete_object().bucket("locked").key(short.as_str()).version_id(&put.version);
    let begun = Instant::now();
    while let Err(error) = delete.clone().send().await {
        assert!(begun.elapsed() < PATIENCE, "{error:?}");
        tokio::time::sleep(AGAIN).await;
    }
    assert!(now() >= put.locked_until);
}
