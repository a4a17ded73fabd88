//! A vault in an S3 bucket with versions and object locks, at AWS or any provider that speaks S3.
//!
//! The credentials may write objects and read two settings of the bucket, nothing else: whoever takes over this host
//! can neither read nor remove a backup. This module must never need more than that, never wait for an answer without a
//! limit, and never repeat a write on its own: the second try would be told that the key is taken.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, ConfigBag, Credentials, IdentityCache, Intercept, Region, RequestChecksumCalculation,
    RuntimeComponents, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::{ByteStream, DateTime, SdkBody};
use aws_sdk_s3::types::{BucketVersioningStatus, ChecksumAlgorithm, ObjectLockEnabled, ObjectLockMode};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ceremonies::ids::{Hash, UnixMillis};
use ceremonies::text::{chain, one_line};
use http_body_util::Limited;
use tokio::time::Instant;

use super::{Limits, ObjectKey, Put, VaultError};
use crate::config;
use crate::credentials;
use crate::deadline::Within;

/// Longest answer to be read, in bytes. The longest that S3 gives here are errors of a few hundred.
const MAX_ANSWER: usize = 64 * 1024;
/// The prefix of the keys of objects that are offered with a wrong checksum, so that they are never stored.
const TRIAL: &str = "preflight/";
/// The lock that the trial asks for, which also exposes credentials that may not lock.
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
    limits: Limits,
    http: SharedHttpClient,
}

/// When the answers to an operation are due.
#[derive(Clone, Copy)]
struct Deadline {
    within: Within,
    at: Instant,
}

impl Deadline {
    fn after(limit: Duration) -> Self {
        Self { within: Within(limit), at: Instant::now() + limit }
    }
}

type Answer<T, E> = Result<T, SdkError<E, HttpResponse>>;

impl S3 {
    pub(super) fn open(config: &config::Bucket, limits: Limits) -> Result<Self, VaultError> {
        let http = match &config.endpoint {
            None => https(),
            Some(endpoint) => {
                way(endpoint).map_err(|why| VaultError::Endpoint { endpoint: endpoint.clone(), why })?
            }
        };
        Ok(Self { config: config.clone(), limits, http })
    }

    pub(super) async fn preflight(&self) -> Result<(), VaultError> {
        let client = self.client().await?;
        let deadline = Deadline::after(self.limits.preflight);
        self.is_versioned(&client, deadline).await?;
        self.is_locking(&client, deadline).await?;
        self.is_checking(&client, deadline).await
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
        let answer =
            match self.answer(OPERATION, Deadline::after(self.limits.put), Box::pin(call.send())).await? {
                Ok(answer) => answer,
                Err(error) if is_taken(&error) => {
                    return Err(VaultError::Taken { bucket: self.place(), key: key.clone() });
                }
                Err(error) => return Err(self.failed(OPERATION, error)),
            };
        let malformed = |what| VaultError::Malformed { bucket: self.place(), key: key.clone(), what };
        if answer.checksum_sha256().is_some_and(|theirs| theirs != checksum) {
            return Err(malformed("carries a checksum other than the object's"));
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
        // Built field by field: the environment has no say in it.
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.config.region.clone()))
            .force_path_style(self.config.endpoint.is_some())
            .credentials_provider(credentials)
            .identity_cache(IdentityCache::no_cache())
            .http_client(self.http.clone())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .retry_config(RetryConfig::disabled())
            .interceptor(ShortAnswers)
            .timeout_config(TimeoutConfig::builder().connect_timeout(self.limits.connect).build())
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

    /// Waits for an answer to an operation, up to its deadline. The call is boxed because it is large.
    async fn answer<T, E>(
        &self,
        operation: &'static str,
        deadline: Deadline,
        call: Pin<Box<impl Future<Output = Answer<T, E>>>>,
    ) -> Result<Answer<T, E>, VaultError> {
        let answered = tokio::time::timeout_at(deadline.at, call).await;
        answered.map_err(|_| VaultError::Silent { bucket: self.place(), operation, within: deadline.within })
    }

    async fn is_versioned(&self, client: &Client, deadline: Deadline) -> Result<(), VaultError> {
        const OPERATION: &str = "GetBucketVersioning";
        let call = client.get_bucket_versioning().bucket(&self.config.bucket);
        let answer = self.answer(OPERATION, deadline, Box::pin(call.send())).await?;
        let answer = answer.map_err(|error| self.failed(OPERATION, error))?;
        match answer.status() {
            Some(BucketVersioningStatus::Enabled) => Ok(()),
            _ => Err(VaultError::Unversioned(self.place())),
        }
    }

    async fn is_locking(&self, client: &Client, deadline: Deadline) -> Result<(), VaultError> {
        const OPERATION: &str = "GetObjectLockConfiguration";
        let call = client.get_object_lock_configuration().bucket(&self.config.bucket);
        let answer = self.answer(OPERATION, deadline, Box::pin(call.send())).await?;
        let unlocked = || VaultError::Unlocked(self.place());
        let answer = answer.map_err(|error| match error.code() {
            Some(NO_LOCKS) => unlocked(),
            _ => self.failed(OPERATION, error),
        })?;
        match answer.object_lock_configuration().and_then(|locks| locks.object_lock_enabled()) {
            Some(ObjectLockEnabled::Enabled) => Ok(()),
            _ => Err(unlocked()),
        }
    }

    /// Offers an object whose checksum is wrong. Credentials that may not write are refused for that, and others for
    /// the checksum; nothing is stored either way.
    async fn is_checking(&self, client: &Client, deadline: Deadline) -> Result<(), VaultError> {
        const OPERATION: &str = "a trial PutObject with a lock of one day";
        // A new key each time: a predictable one could be taken by somebody to keep ceremonies from being held.
        let key = format!("{TRIAL}{:016x}", rand::random::<u64>());
        let until = UnixMillis(jiff::Timestamp::now().as_millisecond()).plus(TRIAL_LOCK_MS);
        let until = whole_second(until);
        let trial = self.write(client, &key, b"a trial", &checksum(b"something else"), until);
        match self.answer(OPERATION, deadline, Box::pin(trial.send())).await? {
            Err(error) if error.code().is_some_and(|code| MISMATCH.contains(&code)) => Ok(()),
            Err(error) => Err(self.failed(OPERATION, error)),
            Ok(_) => Err(VaultError::Unchecked(self.place())),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a library's enum, of which two causes are told apart"
    )]
    fn failed<E>(&self, operation: &'static str, error: SdkError<E, HttpResponse>) -> VaultError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let refusal = match &error {
            SdkError::ServiceError(refusal) => refusal,
            // The connection's limit is the only one that the SDK enforces.
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                return VaultError::Unconnected { bucket: self.place(), within: Within(self.limits.connect) };
            }
            _ => {
                return VaultError::Unreachable { bucket: self.place(), operation, source: Box::new(error) };
            }
        };
        // The SDK treats whatever it cannot read as an error without a name.
        let code = refusal.err().code().map_or_else(|| format!("HTTP {}", refusal.raw().status()), one_line);
        let message = refusal.err().message().map_or_else(|| one_line(&chain(refusal.err())), one_line);
        VaultError::Refused { bucket: self.place(), operation, code, message }
    }

    fn place(&self) -> Place {
        let amazon = || format!("AWS in {}", self.config.region);
        let endpoint = self.config.endpoint.clone().unwrap_or_else(amazon);
        Place { bucket: self.config.bucket.clone(), endpoint }
    }
}

/// The connection to an endpoint, or why it must not be used. The answer to a write is believed because TLS vouches for
/// who gave it.
fn way(endpoint: &str) -> Result<SharedHttpClient, &'static str> {
    let uri: http::Uri = endpoint.parse().map_err(|_| "this is not a URL; write `https://HOST`")?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => Ok(https()),
        (Some("http"), Some("127.0.0.1" | "localhost" | "[::1]")) => Ok(Builder::new().build_http()),
        _ => Err("use https, or http on this host only"),
    }
}

/// Limits how much of an answer is read; the SDK would read it to its end.
#[derive(Debug)]
struct ShortAnswers;

impl Intercept for ShortAnswers {
    fn name(&self) -> &'static str {
        "short answers"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let whole = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(whole, MAX_ANSWER));
        Ok(())
    }
}

/// TLS under the certificate authorities that this host trusts.
fn https() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https()
}

fn is_taken<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.code() == Some("PreconditionFailed")
}

/// Not every provider keeps fractions of a second: a lock may end later than requested, never earlier.
fn whole_second(at: UnixMillis) -> UnixMillis {
    UnixMillis(at.0.saturating_add(999).div_euclid(1000) * 1000)
}

fn checksum(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(Hash::of_bytes(bytes).as_bytes())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::config::CredentialSource;

    const SOON: Duration = Duration::from_millis(500);
    const PATIENCE: Duration = Duration::from_secs(20);
    const PATIENT: Limits =
        Limits { connect: PATIENCE, preflight: PATIENCE, put: PATIENCE, writer: PATIENCE };
    const GOOD: &str = r#"echo '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "hidden"}'"#;

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

    /// A stand-in at a vault's address that accepts every connection.
    #[derive(Clone, Copy)]
    enum Provider {
        /// Says nothing.
        Silent,
        /// Begins an answer and says no more.
        Stalled,
        /// Goes on with an answer, a byte at a time.
        Trickling,
        /// Goes on with an answer as fast as it is read.
        Endless,
    }

    impl Provider {
        async fn serve(self, mut stream: TcpStream) {
            const BEGINNING: &[u8] =
                b"HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\ncontent-length: 4000000000\r\n\r\n<";
            let mut request = vec![0; 64 * 1024];
            // A client that leaves is no trouble here.
            let _ = stream.read(&mut request).await;
            let _ = match self {
                Self::Silent => Ok(()),
                Self::Stalled => stream.write_all(BEGINNING).await,
                Self::Trickling => {
                    let mut pace = tokio::time::interval(Duration::from_millis(5));
                    let _ = stream.write_all(BEGINNING).await;
                    while stream.write_all(b"x").await.is_ok() {
                        pace.tick().await;
                    }
                    Ok(())
                }
                Self::Endless => {
                    let _ = stream.write_all(BEGINNING).await;
                    while stream.write_all(&request).await.is_ok() {}
                    Ok(())
                }
            };
            // Open until the client leaves.
            while stream.read(&mut request).await.is_ok_and(|length| length > 0) {}
        }
    }

    /// A bucket at such a provider, and its address.
    async fn bucket(provider: Provider, scheme: &str, limits: Limits) -> (S3, String) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(provider.serve(stream));
            }
        });
        let config = config::Bucket {
            bucket: "backups-of-node-1".to_owned(),
            region: "eu-central-1".to_owned(),
            endpoint: Some(url.clone()),
            credentials: CredentialSource::Process(["sh", "-c", GOOD].map(str::to_owned).to_vec()),
        };
        (S3::open(&config, limits).unwrap(), url)
    }

    async fn refused_preflight(bucket: &S3) -> VaultError {
        ended(bucket.preflight()).await
    }

    async fn refused_put(bucket: &S3) -> VaultError {
        let key = "treasury/node-1.age".parse().unwrap();
        ended(bucket.put(&key, b"sealed", UnixMillis(0))).await
    }

    /// The error of an operation that must end in time.
    async fn ended<T>(operation: impl Future<Output = Result<T, VaultError>>) -> VaultError {
        let ended = tokio::time::timeout(PATIENCE, operation).await.unwrap();
        let error = ended.err().unwrap();
        assert!(!chain(&error).contains("hidden"), "{error}");
        error
    }

    #[tokio::test]
    async fn vault_that_does_not_answer_is_named_at_the_deadline() {
        for provider in [Provider::Silent, Provider::Stalled, Provider::Trickling] {
            let limits = Limits { preflight: SOON, ..PATIENT };
            let (vault, url) = bucket(provider, "http", limits).await;
            let silent = refused_preflight(&vault).await.to_string();
            let expected = format!(
                "vault backups-of-node-1 at {url}: GetBucketVersioning: the vault did not answer within 0.5 s"
            );
            assert!(silent.starts_with(&expected), "{silent}");

            let limits = Limits { put: SOON, ..PATIENT };
            let (vault, url) = bucket(provider, "http", limits).await;
            let silent = refused_put(&vault).await.to_string();
            let expected =
                format!("vault backups-of-node-1 at {url}: PutObject: the vault did not answer within 0.5 s");
            assert!(silent.starts_with(&expected), "{silent}");
        }
    }

    #[tokio::test]
    async fn vault_that_does_not_complete_a_connection_is_left_sooner_than_one_that_thinks() {
        let (vault, url) = bucket(Provider::Silent, "https", Limits { connect: SOON, ..PATIENT }).await;
        for refused in [refused_preflight(&vault).await, refused_put(&vault).await] {
            assert!(matches!(refused, VaultError::Unconnected { .. }), "{refused}");
            let expected = format!("vault backups-of-node-1 at {url}: no connection within 0.5 s");
            assert!(refused.to_string().starts_with(&expected), "{refused}");
        }
    }

    #[tokio::test]
    async fn answer_without_end_is_read_no_further_than_an_answer_may_be_long() {
        let (vault, _) = bucket(Provider::Endless, "http", PATIENT).await;
        for refused in [refused_preflight(&vault).await, refused_put(&vault).await] {
            assert!(matches!(refused, VaultError::Unreachable { .. }), "{refused}");
            assert!(chain(&refused).contains("length limit exceeded"), "{}", chain(&refused));
        }
    }

    #[tokio::test]
    async fn credentials_that_fail_are_not_blamed_on_the_bucket() {
        let (mut vault, _) = bucket(Provider::Silent, "http", PATIENT).await;
        let helper = ["sh", "-c", "echo the token has expired >&2; exit 1"];
        vault.config.credentials = CredentialSource::Process(helper.map(str::to_owned).to_vec());
        for refused in [refused_preflight(&vault).await, refused_put(&vault).await] {
            assert!(matches!(refused, VaultError::Credentials { .. }), "{refused}");
            assert!(chain(&refused).ends_with("it said: the token has expired"), "{}", chain(&refused));
        }
    }
}
