//! Backups that nobody can overwrite, shorten or delete: the vault against the lab's S3, and whoever holds
//! one of its credentials against the vault.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod answers;
mod directory;
mod moto;

use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    BucketVersioningStatus, ChecksumAlgorithm, Delete, ObjectIdentifier, ObjectLockMode, ObjectLockRetention,
    ObjectLockRetentionMode, VersioningConfiguration,
};
use aws_smithy_http_client::Builder;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ceremonies::ids::{Hash, UnixMillis};
use lab::s3::{Bucket, Credential, Role, S3Config, S3Server};
use node::config::{self, CredentialSource};
use node::vault::{ObjectKey, Put, Vault, VaultError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const REGION: &str = "eu-central-1";
const DAY: i64 = 24 * 60 * 60 * 1000;

fn key() -> ObjectKey {
    "treasury/generation-1/node-2.age".parse().unwrap()
}

fn now() -> UnixMillis {
    UnixMillis(jiff::Timestamp::now().as_millisecond())
}

/// A vault as an agent opens it: its credentials lie in a file in `dir`.
fn vault(dir: &Path, url: &str, bucket: &str, id: &str, secret: &str) -> Vault {
    let credentials = dir.join(format!("{id}.json"));
    let text = serde_json::json!({"Version": 1, "AccessKeyId": id, "SecretAccessKey": secret});
    std::fs::write(&credentials, text.to_string()).unwrap();
    let bucket = config::Bucket {
        bucket: bucket.to_owned(),
        region: REGION.to_owned(),
        endpoint: Some(url.to_owned()),
        credentials: CredentialSource::File(credentials),
    };
    Vault::open(&config::Vault::S3(bucket)).unwrap()
}

/// The unmodified SDK in an attacker's hands.
fn client(url: &str, id: &str, secret: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(url)
        .force_path_style(true)
        .credentials_provider(Credentials::from_keys(id, secret, None))
        .http_client(Builder::new().build_http())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .retry_config(RetryConfig::disabled());
    Client::from_conf(config.build())
}

fn checksum(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(Hash::of_bytes(bytes).as_bytes())
}

fn put_unconditionally(client: &Client, bytes: &'static [u8], until: UnixMillis) -> PutObjectFluentBuilder {
    client
        .put_object()
        .bucket("locked")
        .key(key().as_str())
        .body(ByteStream::from_static(bytes))
        .checksum_algorithm(ChecksumAlgorithm::Sha256)
        .checksum_sha256(checksum(bytes))
        .object_lock_mode(ObjectLockMode::Compliance)
        .object_lock_retain_until_date(DateTime::from_millis(until.0))
}

fn retention(mode: ObjectLockRetentionMode, until: UnixMillis) -> ObjectLockRetention {
    ObjectLockRetention::builder().mode(mode).retain_until_date(DateTime::from_millis(until.0)).build()
}

/// The server's name for why it refused.
#[track_caller]
fn code<T: Debug, E: ProvideErrorMetadata + Debug, R: Debug>(answer: Result<T, SdkError<E, R>>) -> String {
    answer.unwrap_err().code().unwrap_or("(none)").to_owned()
}

/// One server, its time, and everybody's credentials.
struct Lab {
    dir: tempfile::TempDir,
    time: Arc<AtomicI64>,
    server: S3Server,
}

impl Lab {
    async fn start() -> Self {
        let time = Arc::new(AtomicI64::new(now().0));
        let credential = |id: &str, role| Credential {
            access_key_id: id.to_owned(),
            secret_access_key: format!("secret of the {id}"),
            role,
        };
        let bucket = |name: &str, versioned, locks| Bucket { name: name.to_owned(), versioned, locks };
        let clock = Arc::clone(&time);
        let server = S3Server::start(S3Config {
            region: REGION.to_owned(),
            buckets: vec![
                bucket("locked", true, true),
                bucket("versioned", true, false),
                bucket("plain", false, false),
            ],
            credentials: vec![
                credential("writer", Role::Writer),
                credential("reader", Role::Reader),
                credential("owner", Role::Owner),
            ],
            clock: Arc::new(move || UnixMillis(clock.load(Ordering::SeqCst))),
        });
        Self { dir: tempfile::tempdir().unwrap(), time, server: server.await.unwrap() }
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(self.time.load(Ordering::SeqCst))
    }

    fn advance(&self, millis: i64) {
        self.time.fetch_add(millis, Ordering::SeqCst);
    }

    fn vault(&self, bucket: &str) -> Vault {
        self.vault_of("writer", bucket)
    }

    fn vault_of(&self, id: &str, bucket: &str) -> Vault {
        vault(self.dir.path(), &self.server.url(), bucket, id, &format!("secret of the {id}"))
    }

    fn client(&self, id: &str) -> Client {
        client(&self.server.url(), id, &format!("secret of the {id}"))
    }

    async fn put(&self, bytes: &[u8], days: i64) -> Put {
        self.vault("locked").put(&key(), bytes, self.now().plus(days * DAY)).await.unwrap()
    }

    /// What a reader gets of a version.
    async fn read(&self, version: &str) -> Vec<u8> {
        let reader = self.client("reader");
        let read = reader.get_object().bucket("locked").key(key().as_str()).version_id(version);
        read.send().await.unwrap().body.collect().await.unwrap().to_vec()
    }

    async fn versions(&self) -> usize {
        let listed = self.client("reader").list_object_versions().bucket("locked").send().await.unwrap();
        listed.versions().len()
    }
}

#[tokio::test]
async fn a_backup_is_kept_as_it_was_written_and_its_key_is_never_written_again() {
    let lab = Lab::start().await;
    lab.vault("locked").preflight().await.unwrap();
    assert_eq!(lab.versions().await, 0);

    let asked = lab.now().plus(30 * DAY);
    let put = lab.vault("locked").put(&key(), b"sealed", asked).await.unwrap();
    assert!((0..1000).contains(&put.locked_until.since(asked)));
    assert_eq!(lab.read(&put.version).await, b"sealed");
    let reader = lab.client("reader");
    let lock = reader.get_object_retention().bucket("locked").key(key().as_str()).send().await.unwrap();
    let lock = lock.retention.unwrap();
    assert_eq!(lock.mode, Some(ObjectLockRetentionMode::Compliance));
    assert_eq!(lock.retain_until_date.unwrap().to_millis().unwrap(), put.locked_until.0);

    for bytes in [b"sealed".as_slice(), b"another"] {
        let again = lab.vault("locked").put(&key(), bytes, asked).await.unwrap_err();
        assert!(matches!(&again, VaultError::Taken { key: named, .. } if *named == key()), "{again}");
    }
    assert_eq!(lab.versions().await, 1);
}

#[tokio::test]
async fn a_stolen_writer_reads_nothing_and_takes_nothing_away() {
    let lab = Lab::start().await;
    let put = lab.put(b"sealed", 30).await;
    let writer = lab.client("writer");
    let key = key();
    let of_key = key.as_str();

    assert_eq!(code(writer.get_object().bucket("locked").key(of_key).send().await), "AccessDenied");
    let head = writer.head_object().bucket("locked").key(of_key).send().await.unwrap_err();
    assert_eq!(head.raw_response().unwrap().status().as_u16(), 403);
    assert_eq!(code(writer.list_objects_v2().bucket("locked").send().await), "AccessDenied");
    assert_eq!(code(writer.list_object_versions().bucket("locked").send().await), "AccessDenied");
    let source = format!("locked/{of_key}");
    let copy = writer.copy_object().bucket("locked").key("copy").copy_source(source).send().await;
    assert_eq!(code(copy), "AccessDenied");
    let lock = writer.get_object_retention().bucket("locked").key(of_key).send().await;
    assert_eq!(code(lock), "AccessDenied");

    let delete = writer.delete_object().bucket("locked").key(of_key);
    assert_eq!(code(delete.clone().send().await), "AccessDenied");
    assert_eq!(code(delete.version_id(&put.version).send().await), "AccessDenied");
    let later = retention(ObjectLockRetentionMode::Compliance, lab.now().plus(60 * DAY));
    let relock = writer.put_object_retention().bucket("locked").key(of_key).retention(later).send().await;
    assert_eq!(code(relock), "AccessDenied");

    // All it can do is add a version on top, which hides nothing from a reader by version.
    put_unconditionally(&writer, b"rubbish", lab.now().plus(DAY)).send().await.unwrap();
    assert_eq!(lab.versions().await, 2);
    assert_eq!(lab.read(&put.version).await, b"sealed");
}

#[tokio::test]
async fn a_stolen_reader_writes_nothing_and_strangers_are_nobody() {
    let lab = Lab::start().await;
    let put = lab.put(b"sealed", 30).await;
    let write = put_unconditionally(&lab.client("reader"), b"rubbish", lab.now().plus(DAY)).send().await;
    assert_eq!(code(write), "AccessDenied");
    let delete = lab.client("reader").delete_object().bucket("locked").key(key().as_str());
    assert_eq!(code(delete.version_id(&put.version).send().await), "AccessDenied");

    let forged = client(&lab.server.url(), "reader", "another secret");
    let read = forged.get_object().bucket("locked").key(key().as_str()).send().await;
    assert_eq!(code(read), "SignatureDoesNotMatch");
    let unknown = client(&lab.server.url(), "stranger", "secret");
    let read = unknown.get_object().bucket("locked").key(key().as_str()).send().await;
    assert_eq!(code(read), "InvalidAccessKeyId");

    // A presigned link would be a credential that nobody should hand out.
    let hour = PresigningConfig::expires_in(Duration::from_hours(1)).unwrap();
    let link = lab.client("reader").get_object().bucket("locked").key(key().as_str()).presigned(hour).await;
    let link = link.unwrap().uri().strip_prefix(&lab.server.url()).unwrap().to_owned();
    let answer = get(&lab.server.url(), &link).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("sign the request itself"), "{answer}");
}

/// What a plain request is answered, such as a browser's.
async fn get(url: &str, path: &str) -> String {
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn not_even_the_owner_frees_a_backup_before_its_time() {
    let lab = Lab::start().await;
    let put = lab.put(b"sealed", 30).await;
    let owner = lab.client("owner");
    let key = key();
    let relock = |retention: ObjectLockRetention| {
        let change = owner.put_object_retention().bucket("locked").key(key.as_str());
        change.version_id(&put.version).bypass_governance_retention(true).retention(retention).send()
    };
    let delete = || owner.delete_object().bucket("locked").key(key.as_str());

    let earlier = lab.now().plus(DAY);
    assert_eq!(code(delete().version_id(&put.version).send().await), "AccessDenied");
    let bypassed = delete().version_id(&put.version).bypass_governance_retention(true).send().await;
    assert_eq!(code(bypassed), "AccessDenied");
    assert_eq!(code(relock(retention(ObjectLockRetentionMode::Compliance, earlier)).await), "AccessDenied");
    let downgraded = retention(ObjectLockRetentionMode::Governance, lab.now().plus(60 * DAY));
    assert_eq!(code(relock(downgraded).await), "AccessDenied");
    assert_eq!(code(relock(ObjectLockRetention::builder().build()).await), "AccessDenied");
    let suspended = VersioningConfiguration::builder().status(BucketVersioningStatus::Suspended).build();
    let suspended = owner.put_bucket_versioning().bucket("locked").versioning_configuration(suspended);
    assert_eq!(code(suspended.send().await), "InvalidBucketState");
    let one = ObjectIdentifier::builder().key(key.as_str()).version_id(&put.version).build().unwrap();
    let all = Delete::builder().objects(one).build().unwrap();
    assert_eq!(code(owner.delete_objects().bucket("locked").delete(all).send().await), "NotImplemented");
    assert_eq!(code(owner.delete_bucket().bucket("locked").send().await), "NotImplemented");

    // Without a version, deleting only hides; the version is there for who names it.
    assert_eq!(delete().send().await.unwrap().delete_marker(), Some(true));
    assert_eq!(lab.read(&put.version).await, b"sealed");

    relock(retention(ObjectLockRetentionMode::Compliance, lab.now().plus(60 * DAY))).await.unwrap();
    lab.advance(31 * DAY);
    assert_eq!(code(delete().version_id(&put.version).send().await), "AccessDenied");
    lab.advance(30 * DAY);
    delete().version_id(&put.version).send().await.unwrap();
    assert_eq!(lab.versions().await, 0);
}

#[tokio::test]
async fn bytes_that_do_not_match_their_checksum_are_not_stored() {
    let lab = Lab::start().await;
    let until = lab.now().plus(DAY);
    let writer = lab.client("writer");
    let put = put_unconditionally(&writer, b"sealed", until).checksum_sha256(checksum(b"other")).send().await;
    assert_eq!(code(put), "BadDigest");
    let late = put_unconditionally(&writer, b"sealed", lab.now()).send().await;
    assert_eq!(code(late), "InvalidArgument");
    assert_eq!(lab.versions().await, 0);
}

#[tokio::test]
async fn the_preflight_stops_where_a_backup_would_not_be_safe() {
    let lab = Lab::start().await;
    let plain = lab.vault("plain").preflight().await.unwrap_err();
    assert!(matches!(plain, VaultError::Unversioned(_)), "{plain}");
    let versioned = lab.vault("versioned").preflight().await.unwrap_err();
    assert!(matches!(versioned, VaultError::Unlocked(_)), "{versioned}");
    let absent = lab.vault("absent").preflight().await.unwrap_err();
    assert!(matches!(&absent, VaultError::Refused { code, .. } if code == "NoSuchBucket"), "{absent}");
    let reader = lab.vault_of("reader", "locked").preflight().await.unwrap_err();
    assert!(matches!(&reader, VaultError::Refused { code, .. } if code == "AccessDenied"), "{reader}");
    let stranger = lab.vault_of("stranger", "locked").preflight().await.unwrap_err();
    assert!(
        matches!(&stranger, VaultError::Refused { code, .. } if code == "InvalidAccessKeyId"),
        "{stranger}"
    );

    let vault = lab.vault("locked");
    vault.preflight().await.unwrap();
    std::fs::remove_file(lab.dir.path().join("writer.json")).unwrap();
    let forgotten = vault.preflight().await.unwrap_err();
    assert!(matches!(forgotten, VaultError::Credentials { .. }), "{forgotten}");
}

#[tokio::test]
async fn a_bucket_that_cannot_be_reached_is_named_in_time() {
    let lab = Lab::start().await;
    let (gone, url) = (lab.vault("locked"), lab.server.url());
    lab.server.stop().await;
    let refused = gone.preflight().await.unwrap_err();
    assert!(matches!(refused, VaultError::Unreachable { .. }), "{refused}");
    assert!(refused.to_string().contains("locked") && refused.to_string().contains(&url), "{refused}");

    // Nor is a provider whose TLS certificate nobody vouches for.
    let plain = Lab::start().await;
    let https = plain.server.url().replace("http://", "https://");
    let refused =
        vault(plain.dir.path(), &https, "locked", "writer", "secret").preflight().await.unwrap_err();
    assert!(matches!(refused, VaultError::Unreachable { .. }), "{refused}");

    let silent = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let silence = vault(lab.dir.path(), &url, "locked", "writer", "secret");
    let begun = Instant::now();
    let refused = silence.preflight().await.unwrap_err();
    assert!(matches!(refused, VaultError::Silent { .. }), "{refused}");
    assert!(refused.to_string().contains(&format!("locked at {url}")), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
