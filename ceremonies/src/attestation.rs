//! What an enclave is, as vouched for by the machine that it runs on: the verdict on AWS Nitro attestation documents.
//!
//! Everything an enclave says later rests on keys that are taken from here, so nothing here is lenient: a document that
//! is not exactly what AWS specifies is refused, and so is a genuine one made for another request, at another time or
//! by another program. Lab and production differ only in the [`TrustRoot`] that is handed in; there is no way to ask
//! for less checking. This module must never read a clock or fetch anything: the verifier of old evidence runs the same
//! code with the time of the evidence.

mod document;
mod measurement;
mod root;

use thiserror::Error;

use crate::ids::{ClusterId, Hash, NodeIndex, UnixMillis};

pub use document::{Document, MAX_DOCUMENT, MAX_NONCE, MAX_PUBLIC_KEY, MAX_USER_DATA, parse_and_verify};
pub use measurement::{InvalidPcr, Measurement, Pcr};
pub use root::{AWS_NITRO_G1_FINGERPRINT, InvalidRoot, TrustRoot};

/// The prefix of the user data in an enclave's document; it names the layout of the keys that follow.
const KEYS_TAG: &[u8] = b"custody-enclave-keys-v1";

/// Why an attestation document is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AttestationError {
    /// Larger than any document AWS makes.
    #[error("the attestation document has {0} bytes; the limit is {MAX_DOCUMENT}")]
    TooLarge(usize),
    /// Bytes that are not one CBOR item, or not a `COSE_Sign1` message.
    #[error("not an attestation document: {0}")]
    Malformed(&'static str),
    /// A field of the payload that AWS does not specify.
    #[error("the attestation document has a field that AWS does not define: `{0}`")]
    UnknownField(String),
    /// A field that occurs twice; two readers could take different ones.
    #[error("the attestation document has its field `{0}` twice")]
    DuplicateField(&'static str),
    /// A field that must be there and is not.
    #[error("the attestation document lacks its field `{0}`")]
    MissingField(&'static str),
    /// A field of the wrong type, size or value.
    #[error("the attestation document's field `{field}` is not {expected}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What AWS specifies for it.
        expected: &'static str,
    },
    /// The bytes were not signed by the key of the document's own certificate.
    #[error("the attestation document was altered: its certificate's key did not sign it")]
    Signature(#[source] webpki::Error),
    /// The certificate does not chain to the expected root at the document's time.
    #[error(
        "the attestation document's certificate does not chain to the expected root (SHA-256 {root}) at {at}; check \
         that the document comes from the kind of cluster that the charter names"
    )]
    Chain {
        /// The fingerprint of the root that was expected.
        root: crate::ids::Hash,
        /// The document's own time, for which the chain was checked.
        at: UnixMillis,
        /// What the chain failed on.
        #[source]
        source: webpki::Error,
    },
    /// An enclave started in debug mode: its host can read its memory.
    #[error(
        "PCR{0} is all zeros: the enclave runs in debug mode, where the host can read its memory; start it without \
         --debug-mode"
    )]
    Debug(u8),
    /// A measurement register that the document does not show, or not as a SHA-384 value.
    #[error("the attestation document does not show PCR{0} as 48 bytes")]
    NoPcr(u8),
    /// There is nothing to compare with.
    #[error("the list of allowed enclave measurements is empty; add the image's PCRs to the charter")]
    NothingAllowed,
    /// A program that is not allowed.
    #[error(
        "PCR{pcr} is {found}, but the nearest allowed measurement has {allowed}: the enclave runs an image that the \
         charter does not allow"
    )]
    Measurement {
        /// The first register that differs from the nearest allowed measurement.
        pcr: u8,
        /// What that measurement has.
        allowed: Pcr,
        /// What the document shows.
        found: Pcr,
    },
    /// An image whose allowance has ended.
    #[error("the image with PCR0 {pcr0} was allowed until {until}: start the enclave with its successor")]
    Aged {
        /// Which image.
        pcr0: Pcr,
        /// When it was refused from.
        until: UnixMillis,
    },
    /// A document made for another request, or replayed.
    #[error("the attestation document carries the wrong nonce: expected {expected}, found {found}")]
    Nonce {
        /// The nonce of the request, in hexadecimal.
        expected: String,
        /// The nonce in the document, in hexadecimal, or `none`.
        found: String,
    },
    /// A document from another time.
    #[error(
        "the attestation document was made at {made}, more than {max_age_ms} ms away from {at}; request a new one and \
         compare the clocks"
    )]
    Stale {
        /// The document's own time.
        made: UnixMillis,
        /// The time it was expected at.
        at: UnixMillis,
        /// How far apart they may be.
        max_age_ms: u64,
    },
    /// User data that does not hold the enclave's keys.
    #[error(
        "the attestation document's user data does not contain an enclave's keys (custody-enclave-keys-v1)"
    )]
    Keys,
    /// No RSA key for the KMS to answer to.
    #[error("the attestation document carries no public key")]
    NoPublicKey,
}

/// The keys that an enclave made at boot and that its document vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnclaveKeys {
    /// Ed25519: what the enclave signs its entries and messages with.
    pub identity: [u8; 32],
    /// X25519: the key to which others seal messages for it.
    pub sealing: [u8; 32],
}

impl EnclaveKeys {
    /// The user data of the enclave's attestation documents.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [KEYS_TAG, &self.identity, &self.sealing].concat()
    }

    /// Reads the keys from a document's user data.
    ///
    /// # Errors
    /// [`AttestationError::Keys`] unless the data is exactly what [`encode`](Self::encode) writes.
    pub fn decode(user_data: &[u8]) -> Result<Self, AttestationError> {
        let keys = user_data.strip_prefix(KEYS_TAG).ok_or(AttestationError::Keys)?;
        let (identity, sealing) = keys.split_first_chunk::<32>().ok_or(AttestationError::Keys)?;
        let sealing = sealing.try_into().map_err(|_| AttestationError::Keys)?;
        Ok(Self { identity: *identity, sealing })
    }
}

/// The nonce of the document in a node's heartbeat. An agent requests only its own node's from its enclave, so no other
/// agent can show that document as its own.
#[must_use]
pub fn heartbeat_nonce(cluster: &ClusterId, node: NodeIndex) -> Hash {
    Hash::of_parts("custody/heartbeat/v1", &[cluster.as_str().as_bytes(), &[node.get()]])
}

/// What a document must show to be believed.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'a> {
    /// The root the machine's certificate must chain to.
    pub root: &'a TrustRoot,
    /// The programs that are allowed.
    pub allowed: &'a [Measurement],
    /// The nonce the document was asked for with; `None` only where freshness alone is meant to decide.
    pub nonce: Option<&'a [u8]>,
    /// When the document should have been made.
    pub at: UnixMillis,
    /// How many milliseconds before or after `at` it may have been made.
    pub max_age_ms: u64,
}

/// A document that met every expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attested {
    /// The document itself.
    pub document: Document,
    /// The enclave's own keys.
    pub keys: EnclaveKeys,
    /// The enclave's RSA public key, as DER (`SubjectPublicKeyInfo`): what the KMS answers to.
    pub rsa_spki: Vec<u8>,
    /// The entry of the allowed list that the enclave matches.
    pub measurement: Measurement,
}

/// Verifies a document and compares it with what is expected of it.
///
/// # Errors
/// The first [`AttestationError`] found: form, signature and chain; debug mode and measurements; nonce;
/// age; keys.
pub fn check(bytes: &[u8], expected: &Expectation<'_>) -> Result<Attested, AttestationError> {
    judge(parse_and_verify(bytes, expected.root)?, expected)
}

/// The part of [`check`] that depends on the time of asking, applied to a verified document.
///
/// # Errors
/// As [`check`], from debug mode on.
pub fn judge(document: Document, expected: &Expectation<'_>) -> Result<Attested, AttestationError> {
    let measurement = measurement::allowed(&document, expected.allowed, expected.at)?;
    if let Some(nonce) = expected.nonce
        && document.nonce.as_deref() != Some(nonce)
    {
        return Err(AttestationError::Nonce {
            expected: hex::encode(nonce),
            found: document.nonce.as_ref().map_or_else(|| "none".to_owned(), hex::encode),
        });
    }
    let made = document.timestamp;
    if made.since(expected.at).unsigned_abs() > expected.max_age_ms {
        return Err(AttestationError::Stale { made, at: expected.at, max_age_ms: expected.max_age_ms });
    }
    let keys = EnclaveKeys::decode(document.user_data.as_deref().unwrap_or_default())?;
    let rsa_spki = document.public_key.clone().ok_or(AttestationError::NoPublicKey)?;
    Ok(Attested { document, keys, rsa_spki, measurement })
}
