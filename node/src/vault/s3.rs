//! A vault that is an S3 bucket with versions and object locks, at AWS or any provider that speaks S3.
//!
//! The credentials may write objects and read two settings of the bucket, nothing else: whoever takes over
//! this host can neither read a backup nor remove one. This module must never need more than that, and
//! never repeat a write by itself: the second try would be told that the key is taken.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, IdentityCache, Region, RequestChecksumCalculation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{BucketVersioningStatus, ChecksumAlgorithm, ObjectLockEnabled, ObjectLockMode};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ceremonies::ids::{Hash, UnixMillis};
use ceremonies::text::{chain, one_line};

use super::{ObjectKey, Put, VaultError};
use crate::config;
use crate::credentials;

/// Longest wait for all that [`S3::preflight`] asks: people are waiting.
const PREFLIGHT_DEADLINE: Duration = Duration::from_secs(8);
/// Longest wait for an object of some hundred kilobytes to be taken.
const PUT_DEADLINE: Duration = Duration::from_mins(1);
/// What the keys of objects begin with that are offered with a wrong checksum, so that they are never stored.
const TRIAL: &str = "preflight/";
/// The lock that the trial asks for: a credential that may not lock is found out as well.
const TRIAL_LOCK_MS: i64 = 24 * 60 * 60 * 1000;
/// Providers' names for bytes that do not match their checksum.
const MISMATCH: [&str; 3] = ["BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"];
/// AWS's name for a bucket that was made without locks.
const NO_LOCKS: &str = "ObjectLockConfigurationNotFoundError";

/// A bucket and where it is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    bucket: String,
    endpoint: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.bucket, self.endpoint)
    }
}

/// A bucket with locks.
pub struct S3 {
    config: config::Bucket,
    http: SharedHttpClient,
}

impl S3 {
    pub(super) fn open(config: &config::Bucket) -> Result<Self, VaultError> {
        let http = match &config.endpoint {
            None => https(),
            Some(endpoint) => {
                way(endpoint).map_err(|why| VaultError::Endpoint { endpoint: endpoint.clone(), why })?
            }
        };
        Ok(Self { config: config.clone(), http })
    }

    pub(super) async fn preflight(&self) -> Result<(), VaultError> {
        let checks = async {
            let client = self.client().await?;
            self.is_versioned(&client).await?;
            self.is_locking(&client).await?;
            self.is_checking(&client).await
        };
        match tokio::time::timeout(PREFLIGHT_DEADLINE, Box::pin(checks)).await {
            Ok(checked) => checked,
            Err(elapsed) => Err(self.unreachable("the preflight", elapsed)),
        }
    }

    pub(super) async fn put(
        &self,
        key: &ObjectKey,
        bytes: &[u8],
        locked_until: UnixMillis,
    ) -> Result<Put, VaultError> {
        const OPERATION: &str = "PutObject";
        let locked_until = whole_second(locked_until);
        let checksum = checksum(bytes);
        let client = self.client().await?;
        let call = self.write(&client, key.as_str(), bytes, &checksum, locked_until);
        let answer = match tokio::time::timeout(PUT_DEADLINE, Box::pin(call.send())).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if is_taken(&error) => {
                return Err(VaultError::Taken { bucket: self.place(), key: key.clone() });
            }
            Ok(Err(error)) => return Err(self.failed(OPERATION, error)),
            Err(elapsed) => return Err(self.unreachable(OPERATION, elapsed)),
        };
        let malformed = |what| VaultError::Malformed { bucket: self.place(), key: key.clone(), what };
        if answer.checksum_sha256().is_some_and(|theirs| theirs != checksum) {
            return Err(malformed("carries another checksum than the object's"));
        }
        let version = answer.version_id().filter(|version| !version.is_empty() && *version != "null");
        let version = version.ok_or_else(|| malformed("names no version"))?.to_owned();
        Ok(Put { version, locked_until })
    }

    /// A client with the credentials now in force.
    async fn client(&self) -> Result<Client, VaultError> {
        let credentials = credentials::fetch(&self.config.credentials).await;
        let lent = credentials.map_err(|source| VaultError::Credentials { bucket: self.place(), source })?;
        let token = Some(lent.session_token).filter(|token| !token.is_empty());
        let credentials =
            Credentials::new(lent.access_key_id, lent.secret_access_key, token, None, "vault.s3.credentials");
        // Built field by field: what the environment says is not this file's.
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.config.region.clone()))
            .force_path_style(self.config.endpoint.is_some())
            .credentials_provider(credentials)
            .identity_cache(IdentityCache::no_cache())
            .http_client(self.http.clone())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        config.set_endpoint_url(self.config.endpoint.clone());
        Ok(Client::from_conf(config.build()))
    }

    fn write(
        &self,
        client: &Client,
        key: &str,
        bytes: &[u8],
        checksum: &str,
        locked_until: UnixMillis,
    ) -> PutObjectFluentBuilder {
        client
            .put_object()
            .bucket(&self.config.bucket)
            .key(key)
            .body(ByteStream::from(bytes.to_vec()))
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(checksum)
            .if_none_match("*")
            .object_lock_mode(ObjectLockMode::Compliance)
            .object_lock_retain_until_date(DateTime::from_millis(locked_until.0))
    }

    async fn is_versioned(&self, client: &Client) -> Result<(), VaultError> {
        let answer = client.get_bucket_versioning().bucket(&self.config.bucket).send().await;
        let answer = answer.map_err(|error| self.failed("GetBucketVersioning", error))?;
        match answer.status() {
            Some(BucketVersioningStatus::Enabled) => Ok(()),
            _ => Err(VaultError::Unversioned(self.place())),
        }
    }

    async fn is_locking(&self, client: &Client) -> Result<(), VaultError> {
        let answer = client.get_object_lock_configuration().bucket(&self.config.bucket).send().await;
        let unlocked = || VaultError::Unlocked(self.place());
        let answer = answer.map_err(|error| match error.code() {
            Some(NO_LOCKS) => unlocked(),
            _ => self.failed("GetObjectLockConfiguration", error),
        })?;
        match answer.object_lock_configuration().and_then(|locks| locks.object_lock_enabled()) {
            Some(ObjectLockEnabled::Enabled) => Ok(()),
            _ => Err(unlocked()),
        }
    }

    /// Offers an object whose checksum is wrong. Who may not write is refused for that, and who may for the
    /// checksum; nothing is stored either way.
    async fn is_checking(&self, client: &Client) -> Result<(), VaultError> {
        // Another key each time: one that is known could be taken, to keep ceremonies from being held.
        let key = format!("{TRIAL}{:016x}", rand::random::<u64>());
        let until = UnixMillis(jiff::Timestamp::now().as_millisecond()).plus(TRIAL_LOCK_MS);
        let until = whole_second(until);
        let trial = self.write(client, &key, b"a trial", &checksum(b"something else"), until);
        match trial.send().await {
            Err(error) if error.code().is_some_and(|code| MISMATCH.contains(&code)) => Ok(()),
            Err(error) => Err(self.failed("a trial PutObject with a lock of one day", error)),
            Ok(_) => Err(VaultError::Unchecked(self.place())),
        }
    }

    fn failed<E>(&self, operation: &'static str, error: SdkError<E, HttpResponse>) -> VaultError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let SdkError::ServiceError(refusal) = &error else {
            return self.unreachable(operation, error);
        };
        // The SDK takes whatever it cannot read for an error without a name.
        let code = refusal.err().code().map_or_else(|| format!("HTTP {}", refusal.raw().status()), one_line);
        let message = refusal.err().message().map_or_else(|| one_line(&chain(refusal.err())), one_line);
        VaultError::Refused { bucket: self.place(), operation, code, message }
    }

    fn unreachable(&self, operation: &'static str, source: impl Error + Send + Sync + 'static) -> VaultError {
        VaultError::Unreachable { bucket: self.place(), operation, source: Box::new(source) }
    }

    fn place(&self) -> Place {
        let amazon = || format!("AWS in {}", self.config.region);
        let endpoint = self.config.endpoint.clone().unwrap_or_else(amazon);
        Place { bucket: self.config.bucket.clone(), endpoint }
    }
}

/// The way to an endpoint, or why it is not to be used. The answer to a write is believed because TLS
/// vouches for who gave it.
fn way(endpoint: &str) -> Result<SharedHttpClient, &'static str> {
    let uri: http::Uri = endpoint.parse().map_err(|_| "this is not a URL; write `https://HOST`")?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => Ok(https()),
        (Some("http"), Some("127.0.0.1" | "localhost" | "[::1]")) => Ok(Builder::new().build_http()),
        _ => Err("use https, or http on this host alone"),
    }
}

/// TLS under the certificate authorities that this host trusts.
fn https() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https()
}

fn is_taken<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("PreconditionFailed")
}

/// Not every provider keeps fractions of a second: a lock may end later than asked, never earlier.
fn whole_second(at: UnixMillis) -> UnixMillis {
    UnixMillis(at.0.saturating_add(999).div_euclid(1000) * 1000)
}

fn checksum(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(Hash::of_bytes(bytes).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_without_tls_are_for_this_host_alone() {
        for good in ["https://s3.example.com", "https://s3.example.com:9000/", "http://127.0.0.1:9000"] {
            assert!(way(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "s3.example.com",
            "http://s3.example.com",
            "http://127.0.0.1@s3.example.com",
            "http://127.0.0.1.example.com",
            "ftp://127.0.0.1",
            "https://",
        ] {
            assert!(way(bad).is_err(), "{bad}");
        }
    }
}
