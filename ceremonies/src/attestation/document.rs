//! Attestation documents as bytes: `COSE_Sign1` over a CBOR map, signed with ES384 by a certificate that
//! chains to a pinned root.
//!
//! Nothing in a document may be used before [`parse_and_verify`] has returned it, which is the only way to get one.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use ciborium::Value;
use coset::{Header, ProtectedHeader, SignatureContext, sig_structure_data};
use p384::ecdsa::Signature;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::aws_lc_rs::ECDSA_P384_SHA384;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{AttestationError, Pcr, TrustRoot};
use crate::ids::UnixMillis;
use crate::text::shortened;

/// Largest document that is read, in bytes; genuine ones have about five thousand.
pub const MAX_DOCUMENT: usize = 16 * 1024;
/// Longest public key in a document, in bytes.
pub const MAX_PUBLIC_KEY: usize = 1024;
/// Longest user data in a document, in bytes.
pub const MAX_USER_DATA: usize = 512;
/// Longest nonce in a document, in bytes.
pub const MAX_NONCE: usize = 512;

const MAX_CERTIFICATE: usize = 1024;
/// The deepest value is a byte string in a list in the payload's map.
const MAX_DEPTH: usize = 8;
/// The tag that a `COSE_Sign1` message may carry; AWS's own do not.
const TAG_COSE_SIGN1: u64 = 18;
/// `{1: -35}`: the algorithm is ES384, and nothing else is said.
const PROTECTED: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];
const FIELDS: [&str; 9] = [
    "module_id",
    "digest",
    "timestamp",
    "pcrs",
    "certificate",
    "cabundle",
    "public_key",
    "user_data",
    "nonce",
];

/// A verified attestation document: every field as the security module signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Document {
    /// Which security module signed.
    pub module_id: String,
    /// The hash function of the registers; always `SHA384`.
    pub digest: String,
    /// When the document was made, by the security module's own clock.
    pub timestamp: UnixMillis,
    /// The locked registers by index.
    pub pcrs: BTreeMap<u8, Vec<u8>>,
    /// The certificate (DER) whose key signed the document.
    pub certificate: Vec<u8>,
    /// The issuers' certificates (DER), from the root downwards.
    pub cabundle: Vec<Vec<u8>>,
    /// The public key that the asker handed in.
    pub public_key: Option<Vec<u8>>,
    /// The data that the asker handed in.
    pub user_data: Option<Vec<u8>>,
    /// The nonce that the asker handed in.
    pub nonce: Option<Vec<u8>>,
}

impl Document {
    /// A register's value.
    ///
    /// # Errors
    /// [`AttestationError::NoPcr`] when the document does not show it as SHA-384.
    pub fn pcr(&self, index: u8) -> Result<Pcr, AttestationError> {
        let bytes = self.pcrs.get(&index).ok_or(AttestationError::NoPcr(index))?;
        let bytes: [u8; 48] = bytes.as_slice().try_into().map_err(|_| AttestationError::NoPcr(index))?;
        Ok(Pcr::from(bytes))
    }
}

/// Reads a document and verifies its form, its signature, and its certificate's chain to `root` at the
/// document's own time.
///
/// This says that a machine under `root` signed these bytes; it does not say what runs there, nor when that
/// was: see [`check`](super::check).
///
/// # Errors
/// The first [`AttestationError`] found.
pub fn parse_and_verify(bytes: &[u8], root: &TrustRoot) -> Result<Document, AttestationError> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(AttestationError::TooLarge(bytes.len()));
    }
    let (payload, signature) = open_envelope(decode(bytes)?)?;
    let document = read_payload(decode(&payload)?)?;
    verify_signature(&document, &payload, &signature)?;
    verify_chain(&document, root)?;
    Ok(document)
}

fn decode(mut bytes: &[u8]) -> Result<Value, AttestationError> {
    let value = ciborium::de::from_reader_with_recursion_limit(&mut bytes, MAX_DEPTH)
        .map_err(|_| AttestationError::Malformed("the bytes are not CBOR, or nested too deeply"))?;
    if bytes.is_empty() { Ok(value) } else { Err(AttestationError::Malformed("bytes follow the CBOR item")) }
}

/// Takes payload and signature out of the `COSE_Sign1` message.
fn open_envelope(message: Value) -> Result<(Vec<u8>, Vec<u8>), AttestationError> {
    let message = if let Value::Tag(TAG_COSE_SIGN1, message) = message { *message } else { message };
    let parts = message.into_array().ok().and_then(|parts| <[Value; 4]>::try_from(parts).ok());
    let Some(
        [Value::Bytes(protected), Value::Map(unprotected), Value::Bytes(payload), Value::Bytes(signature)],
    ) = parts
    else {
        return Err(AttestationError::Malformed("it is not a COSE_Sign1 message with an embedded payload"));
    };
    if protected != PROTECTED {
        return Err(AttestationError::Malformed("its protected header does not say ES384, and only that"));
    }
    // Nobody signs this part: anything in it could be changed on the way.
    if !unprotected.is_empty() {
        return Err(AttestationError::Malformed("its unprotected header is not empty"));
    }
    Ok((payload, signature))
}

fn read_payload(payload: Value) -> Result<Document, AttestationError> {
    let Value::Map(entries) = payload else {
        return Err(AttestationError::Malformed("its payload is not a map"));
    };
    let mut fields = BTreeMap::new();
    for (key, value) in entries {
        let Value::Text(key) = key else {
            return Err(AttestationError::Malformed("its payload has a key that is not text"));
        };
        let Some(name) = FIELDS.into_iter().find(|name| *name == key) else {
            return Err(AttestationError::UnknownField(shortened(&key, 80)));
        };
        if fields.insert(name, value).is_some() {
            return Err(AttestationError::DuplicateField(name));
        }
    }
    let mut need = |name| fields.remove(name).ok_or(AttestationError::MissingField(name));
    Ok(Document {
        module_id: read_module_id(need("module_id")?)?,
        digest: read_digest(need("digest")?)?,
        timestamp: read_timestamp(&need("timestamp")?)?,
        pcrs: read_pcrs(need("pcrs")?)?,
        certificate: read_certificate(need("certificate")?, "certificate")?,
        cabundle: read_cabundle(need("cabundle")?)?,
        public_key: read_optional(
            fields.remove("public_key"),
            "public_key",
            1..=MAX_PUBLIC_KEY,
            "1 to 1024 bytes",
        )?,
        user_data: read_optional(
            fields.remove("user_data"),
            "user_data",
            0..=MAX_USER_DATA,
            "at most 512 bytes",
        )?,
        nonce: read_optional(fields.remove("nonce"), "nonce", 0..=MAX_NONCE, "at most 512 bytes")?,
    })
}

fn read_module_id(value: Value) -> Result<String, AttestationError> {
    let text = value.into_text().ok().filter(|id| !id.is_empty());
    text.ok_or(AttestationError::Field { field: "module_id", expected: "non-empty text" })
}

fn read_digest(value: Value) -> Result<String, AttestationError> {
    let text = value.into_text().ok().filter(|digest| digest == "SHA384");
    text.ok_or(AttestationError::Field { field: "digest", expected: "the text SHA384" })
}

fn read_timestamp(value: &Value) -> Result<UnixMillis, AttestationError> {
    value
        .as_integer()
        .and_then(|time| i64::try_from(time).ok())
        .filter(|time| *time > 0)
        .map(UnixMillis)
        .ok_or(AttestationError::Field { field: "timestamp", expected: "a number of milliseconds above 0" })
}

fn read_pcrs(value: Value) -> Result<BTreeMap<u8, Vec<u8>>, AttestationError> {
    let wrong = || AttestationError::Field {
        field: "pcrs",
        expected: "a map from 1 to 32 distinct indices (0 to 31) to 32, 48 or 64 bytes each",
    };
    let Value::Map(entries) = value else { return Err(wrong()) };
    let mut pcrs = BTreeMap::new();
    for (index, value) in entries {
        let index = index.as_integer().and_then(|index| u8::try_from(index).ok());
        let (Some(index @ 0..=31), Value::Bytes(value)) = (index, value) else { return Err(wrong()) };
        if !matches!(value.len(), 32 | 48 | 64) || pcrs.insert(index, value).is_some() {
            return Err(wrong());
        }
    }
    if pcrs.is_empty() { Err(wrong()) } else { Ok(pcrs) }
}

fn read_certificate(value: Value, field: &'static str) -> Result<Vec<u8>, AttestationError> {
    read_bytes(value, field, 1..=MAX_CERTIFICATE, "made of certificates of 1 to 1024 bytes")
}

fn read_cabundle(value: Value) -> Result<Vec<Vec<u8>>, AttestationError> {
    let list = value.into_array().ok().filter(|list| !list.is_empty());
    let list = list.ok_or(AttestationError::Field { field: "cabundle", expected: "a non-empty list" })?;
    list.into_iter().map(|certificate| read_certificate(certificate, "cabundle")).collect()
}

/// An optional field is left out or null.
fn read_optional(
    value: Option<Value>,
    field: &'static str,
    size: RangeInclusive<usize>,
    expected: &'static str,
) -> Result<Option<Vec<u8>>, AttestationError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read_bytes(value, field, size, expected).map(Some),
    }
}

fn read_bytes(
    value: Value,
    field: &'static str,
    size: RangeInclusive<usize>,
    expected: &'static str,
) -> Result<Vec<u8>, AttestationError> {
    let bytes = value.into_bytes().ok().filter(|bytes| size.contains(&bytes.len()));
    bytes.ok_or(AttestationError::Field { field, expected })
}

fn verify_signature(document: &Document, payload: &[u8], signature: &[u8]) -> Result<(), AttestationError> {
    let protected = ProtectedHeader { original_data: Some(PROTECTED.to_vec()), header: Header::default() };
    let signed = sig_structure_data(SignatureContext::CoseSign1, protected, None, &[], payload);
    // COSE writes r and s side by side; X.509 tools expect them in DER.
    let signature = Signature::from_slice(signature)
        .map_err(|_| AttestationError::Malformed("its signature is not 96 bytes of r and s"))?
        .to_der();
    let certificate = CertificateDer::from(document.certificate.as_slice());
    EndEntityCert::try_from(&certificate)
        .and_then(|leaf| leaf.verify_signature(ECDSA_P384_SHA384, &signed, signature.as_bytes()))
        .map_err(AttestationError::Signature)
}

fn verify_chain(document: &Document, root: &TrustRoot) -> Result<(), AttestationError> {
    let since_1970 = Duration::from_millis(document.timestamp.0.unsigned_abs());
    let leaf = CertificateDer::from(document.certificate.as_slice());
    // The first of the bundle claims to be the root: the pinned one takes its place.
    let issuers: Vec<_> =
        document.cabundle.iter().skip(1).map(|der| CertificateDer::from(der.as_slice())).collect();
    let chain = || {
        EndEntityCert::try_from(&leaf)?.verify_for_usage(
            &[ECDSA_P384_SHA384],
            &[anchor_from_trusted_cert(root.der())?],
            &issuers,
            UnixTime::since_unix_epoch(since_1970),
            // Nitro certificates name no extended usage; where one is named it must be a client's.
            KeyUsage::client_auth(),
            None,
            None,
        )?;
        Ok(())
    };
    chain().map_err(|source| AttestationError::Chain {
        root: root.fingerprint(),
        at: document.timestamp,
        source,
    })
}
