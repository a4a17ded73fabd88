//! The enclave's own client of AWS KMS, which alone can unwrap the keys that shares are sealed with.
//!
//! Each call carries a fresh attestation document, and the KMS answers with a key encrypted to this enclave. The agent
//! lends the credentials and carries the bytes, but TLS terminates in here: an answer that the agent made up is
//! refused. This module must never accept a plaintext key, fall back to another endpoint or repeat a call on its own.

mod connector;
mod keys;
mod recipient;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{
    BehaviorVersion, IdentityCache, Region, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, EncryptionAlgorithmSpec, KeyEncryptionMechanism, RecipientInfo};
use aws_smithy_runtime_api::client::http::{SharedHttpConnector, http_client_fn};
use ceremonies::text::{chain, one_line};
use rustls::RootCertStore;
use thiserror::Error;
use zeroize::Zeroizing;

pub use connector::{Clock, Dial, Stream};
pub use keys::{KeyError, KmsKeys, RSA_BYTES};
pub use recipient::{Envelope, EnvelopeError, MAX_ENVELOPE};

use crate::context::SealContext;
use connector::{Connector, TransportError};

/// Largest wrapped key accepted: what the KMS itself takes as a `CiphertextBlob`.
pub const MAX_WRAPPED_KEY: usize = 6144;

/// Where the KMS is and how to recognise it.
#[derive(Debug, Clone)]
pub struct KmsConfig {
    /// The AWS region that requests are signed for.
    pub region: String,
    /// The endpoint's host name, which its certificate must carry.
    pub host: String,
    /// ARN or id of the wrapping key. Not an alias: whoever may move an alias would choose the key.
    pub key: String,
    /// The certificate authorities that may vouch for the host.
    pub roots: RootCertStore,
    /// The enclave's trusted time.
    pub clock: Clock,
    /// Longest wait for a stream and a TLS handshake.
    pub connect_timeout: Duration,
    /// Longest wait for a whole call.
    pub call_deadline: Duration,
}

impl KmsConfig {
    /// The wait for a connection that suits a network: [`Self::connect_timeout`] unless told otherwise.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// The wait for a call that suits a network: [`Self::call_deadline`] unless told otherwise.
    pub const CALL_DEADLINE: Duration = Duration::from_secs(15);
}

/// The certificate authorities of the public web, for the real KMS.
#[must_use]
pub fn web_roots() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

/// A data key, open and as the KMS wrapped it.
pub struct DataKey {
    /// The key itself.
    pub key: Zeroizing<[u8; 32]>,
    /// The wrapped form, which the KMS unwraps again for an admitted enclave and the same context.
    pub wrapped: Vec<u8>,
}

/// Why a call to the KMS gave no key.
#[derive(Debug, Error)]
pub enum KmsError {
    /// The configuration cannot be used.
    #[error("KMS configuration: {0}; correct the charter's kms entry")]
    Config(String),
    /// The KMS itself said no.
    #[error(
        "KMS refused {operation}: {code}: {message}; compare the key policy with this enclave's measurements \
         and role, and the stored share with its cluster, wallet, node and generation"
    )]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// The KMS's name for the error.
        code: String,
        /// The KMS's words.
        message: String,
    },
    /// Whoever answered could not prove to be the KMS.
    #[error(
        "the certificate of whoever answered {operation} at {host} is not KMS's; check the agent's forwarding and the \
         enclave's clock"
    )]
    Untrusted {
        /// What was asked.
        operation: &'static str,
        /// The host that was to answer.
        host: String,
        /// What TLS found.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No answer.
    #[error(
        "no answer to {operation} from {host}; check the agent's forwarding and the network, then try again"
    )]
    Unreachable {
        /// What was asked.
        operation: &'static str,
        /// The host that was to answer.
        host: String,
        /// What went wrong on the way.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("no answer to {operation} from {host} within {} s; check the network, then try again", .after.as_secs_f32())]
    Deadline {
        /// What was asked.
        operation: &'static str,
        /// The host that was to answer.
        host: String,
        /// The time it was given.
        after: Duration,
    },
    /// An unusable answer.
    #[error(
        "the answer to {operation} cannot be used: {what}; do not try again; find out who answers for KMS"
    )]
    Malformed {
        /// What was asked.
        operation: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

/// The KMS, as one enclave uses it: one wrapping key, one recipient.
pub struct Kms {
    client: Client,
    keys: Arc<KmsKeys>,
    key: String,
    host: String,
    deadline: Duration,
}

impl Kms {
    /// A client that reaches the KMS through `dial`, with credentials lent by the agent.
    ///
    /// # Errors
    /// [`KmsError::Config`] when host, key or roots cannot be used.
    pub fn new(
        config: KmsConfig,
        keys: Arc<KmsKeys>,
        dial: Arc<dyn Dial>,
        credentials: impl ProvideCredentials + 'static,
    ) -> Result<Self, KmsError> {
        let KmsConfig { region, host, key, roots, clock, connect_timeout, call_deadline } = config;
        if key.is_empty() || key.contains("alias/") {
            return Err(KmsError::Config(format!("`{key}` is not the ARN or id of a key")));
        }
        let connector = Connector::new(&host, roots, clock.clone(), connect_timeout, dial)?;
        let connector = SharedHttpConnector::new(connector);
        let http: SharedHttpClient = http_client_fn(move |_, _| connector.clone());
        // Built field by field, never from the environment, which the parent could influence.
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region))
            .endpoint_url(format!("https://{host}"))
            .credentials_provider(credentials)
            .identity_cache(IdentityCache::no_cache())
            .time_source(clock)
            .disable_clock_skew_correction(true)
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Ok(Self { client: Client::from_conf(config), keys, key, host, deadline: call_deadline })
    }

    /// Has the KMS make a data key for `context`. `document` must be a fresh attestation document with this enclave's
    /// [`KmsKeys::spki_der`].
    ///
    /// # Errors
    /// [`KmsError`], by who failed.
    pub async fn generate_data_key(
        &self,
        document: Vec<u8>,
        context: &SealContext,
    ) -> Result<DataKey, KmsError> {
        const OPERATION: &str = "GenerateDataKey";
        let call = self
            .client
            .generate_data_key()
            .key_id(&self.key)
            .key_spec(DataKeySpec::Aes256)
            .set_encryption_context(Some(context.encryption_context()))
            .recipient(recipient_info(document));
        let answer = self.within_deadline(OPERATION, call.send()).await?;
        let key = self.open(
            OPERATION,
            answer.plaintext(),
            answer.key_id(),
            answer.ciphertext_for_recipient().map(Blob::as_ref),
        )?;
        let wrapped = answer.ciphertext_blob().map(Blob::as_ref).unwrap_or_default();
        if wrapped.is_empty() || wrapped.len() > MAX_WRAPPED_KEY {
            let what = format!("the wrapped key has {} bytes", wrapped.len());
            return Err(KmsError::Malformed { operation: OPERATION, what });
        }
        Ok(DataKey { key, wrapped: wrapped.to_vec() })
    }

    /// Has the KMS unwrap a data key that it made for `context`. `document` as for
    /// [`Self::generate_data_key`].
    ///
    /// # Errors
    /// [`KmsError`], by who failed.
    pub async fn decrypt(
        &self,
        document: Vec<u8>,
        wrapped: &[u8],
        context: &SealContext,
    ) -> Result<DataKey, KmsError> {
        const OPERATION: &str = "Decrypt";
        let call = self
            .client
            .decrypt()
            .key_id(&self.key)
            .encryption_algorithm(EncryptionAlgorithmSpec::SymmetricDefault)
            .ciphertext_blob(Blob::new(wrapped))
            .set_encryption_context(Some(context.encryption_context()))
            .recipient(recipient_info(document));
        let answer = self.within_deadline(OPERATION, call.send()).await?;
        let key = self.open(
            OPERATION,
            answer.plaintext(),
            answer.key_id(),
            answer.ciphertext_for_recipient().map(Blob::as_ref),
        )?;
        Ok(DataKey { key, wrapped: wrapped.to_vec() })
    }

    async fn within_deadline<T, E, R>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, SdkError<E, R>>>,
    ) -> Result<T, KmsError>
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        match tokio::time::timeout(self.deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(operation, error)),
            Err(_) => Err(KmsError::Deadline { operation, host: self.host.clone(), after: self.deadline }),
        }
    }

    fn failed<E, R>(&self, operation: &'static str, error: SdkError<E, R>) -> KmsError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        let host = self.host.clone();
        match &error {
            SdkError::ServiceError(refusal) => {
                let refusal = refusal.err().meta();
                let Some(code) = refusal.code().map(one_line) else {
                    // The SDK treats whatever it cannot read as an error without a name.
                    return KmsError::Malformed { operation, what: one_line(&chain(&error)) };
                };
                let message = one_line(refusal.message().unwrap_or("no reason given"));
                return KmsError::Refused { operation, code, message };
            }
            SdkError::ResponseError(_) => {
                return KmsError::Malformed { operation, what: one_line(&chain(&error)) };
            }
            SdkError::ConstructionFailure(_)
            | SdkError::TimeoutError(_)
            | SdkError::DispatchFailure(_)
            | _ => {}
        }
        let untrusted = causes(&error).any(
            |cause| matches!(cause.downcast_ref(), Some(TransportError::Tls(error)) if is_about_trust(error)),
        );
        let source = Box::new(error);
        if untrusted {
            KmsError::Untrusted { operation, host, source }
        } else {
            KmsError::Unreachable { operation, host, source }
        }
    }

    fn open(
        &self,
        operation: &'static str,
        plaintext: Option<&Blob>,
        key_id: Option<&str>,
        envelope: Option<&[u8]>,
    ) -> Result<Zeroizing<[u8; 32]>, KmsError> {
        let malformed = |what: &str| KmsError::Malformed { operation, what: what.to_owned() };
        if plaintext.is_some_and(|plaintext| !plaintext.as_ref().is_empty()) {
            return Err(malformed("it carries a plaintext key, which others may have read"));
        }
        // The KMS names the key by its ARN, however it was asked.
        let id = |arn: &'_ str| arn.rsplit_once(":key/").is_some_and(|(_, id)| id == self.key);
        if !key_id.is_some_and(|arn| arn == self.key || id(arn)) {
            return Err(malformed("it is about a key other than the one requested"));
        }
        let envelope = envelope.ok_or_else(|| malformed("it has no ciphertext for this enclave"))?;
        Envelope::parse(envelope)
            .and_then(|envelope| envelope.open(&self.keys))
            .map_err(|error| malformed(&error.to_string()))
    }
}

fn recipient_info(document: Vec<u8>) -> RecipientInfo {
    RecipientInfo::builder()
        .key_encryption_algorithm(KeyEncryptionMechanism::RsaesOaepSha256)
        .attestation_document(Blob::new(document))
        .build()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// A handshake that fails because a stream ended says nothing about who was there.
fn is_about_trust(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>)
}
