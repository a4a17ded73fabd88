//! The KMS's operations: who may do what, and what they get.
//!
//! Speaks AWS JSON 1.1 as the unmodified SDK expects it. It must never answer with a key before the
//! signature, the attestation document and the key policy have been checked, in that order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError, RwLock};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ceremonies::ids::UnixMillis;
use hyper::http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::policy::{self, Decision, Policy, Request};
use super::sigv4::{self, Credential, SignatureError};
use super::wrapping::{EncryptionContext, WrappingKey};
use super::{Clock, VerifiedDocument, Verifier, envelope};

/// How old an attestation document may be, as at AWS.
pub const MAX_DOCUMENT_AGE_MS: u64 = 5 * 60 * 1000;
/// Decisions kept; a lab that runs for days must not grow.
const MAX_AUDIT: usize = 10_000;

/// One request and what became of it. Holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// When it was decided.
    pub at: UnixMillis,
    /// The ARN of who asked, when the signature said.
    pub principal: Option<String>,
    /// What was asked, such as `kms:Decrypt`.
    pub action: String,
    /// The encryption context it was asked with.
    pub context: EncryptionContext,
    /// Whether a key was given.
    pub allowed: bool,
    /// The statement that allowed it, or why not.
    pub reason: String,
}

/// A refusal, as AWS words it on the wire.
#[derive(Debug)]
pub(super) struct Refusal {
    /// AWS's name for the error.
    pub(super) code: &'static str,
    /// The reason.
    pub(super) message: String,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Operation {
    key_id: Option<String>,
    key_spec: Option<String>,
    encryption_algorithm: Option<String>,
    #[serde(default)]
    encryption_context: EncryptionContext,
    ciphertext_blob: Option<String>,
    recipient: Option<Recipient>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Recipient {
    key_encryption_algorithm: String,
    attestation_document: String,
}

/// The KMS apart from its network.
pub(super) struct Service {
    pub(super) region: String,
    pub(super) policy: RwLock<Policy>,
    pub(super) credentials: Vec<Credential>,
    pub(super) verifier: Verifier,
    pub(super) clock: Clock,
    pub(super) key: WrappingKey,
    pub(super) audit: Mutex<VecDeque<AuditRecord>>,
}

impl Service {
    /// Answers one request.
    pub(super) fn answer(&self, parts: &Parts, body: &[u8]) -> Result<Value, Refusal> {
        let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        let action = target.and_then(|target| target.strip_prefix("TrentService.")).unwrap_or("(none)");
        let mut record = AuditRecord {
            at: (self.clock)(),
            principal: None,
            action: format!("kms:{}", action.chars().take(80).collect::<String>()),
            context: EncryptionContext::new(),
            allowed: false,
            reason: String::new(),
        };
        let answer = self.decide(parts, body, action, &mut record);
        if let Err(refusal) = &answer {
            record.allowed = false;
            record.reason = format!("{}: {}", refusal.code, refusal.message);
        }
        tracing::info!(action = record.action, allowed = record.allowed, reason = record.reason, "lab KMS");
        let mut audit = self.audit.lock().unwrap_or_else(PoisonError::into_inner);
        if audit.len() == MAX_AUDIT {
            audit.pop_front();
        }
        audit.push_back(record);
        answer
    }

    fn decide(
        &self,
        parts: &Parts,
        body: &[u8],
        action: &str,
        record: &mut AuditRecord,
    ) -> Result<Value, Refusal> {
        let caller = sigv4::authenticate(parts, body, &self.credentials, &self.region, record.at)?;
        record.principal = Some(caller.principal.clone());
        let is_known = matches!(action, "GenerateDataKey" | "Decrypt");
        // Operations that are not offered are still put to the policy, so that the audit shows who tried.
        let operation = if is_known { read(body)? } else { Operation::default() };
        record.context.clone_from(&operation.encryption_context);
        if operation.key_id.as_deref().is_some_and(|key_id| !self.key.is_named(key_id)) {
            return Err(Refusal::new("NotFoundException", "there is no such key"));
        }
        let document = operation.recipient.as_ref().map(|recipient| self.attested(recipient, record.at));
        let document = document.transpose()?;

        let request = Request {
            principal: &caller.principal,
            action: &record.action,
            resource: self.key.arn(),
            conditions: conditions(document.as_ref(), &operation.encryption_context, record.at),
        };
        let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
        match policy::evaluate(&policy, &request) {
            Decision::Allowed(statement) => record.reason = format!("{statement} allows it"),
            Decision::Denied(reason) => {
                let (principal, key) = (&caller.principal, self.key.arn());
                return Err(Refusal::new(
                    "AccessDeniedException",
                    format!("{principal} is not authorized to perform {} on {key}: {reason}", record.action),
                ));
            }
        }
        let answer = match action {
            "GenerateDataKey" => self.generate_data_key(&operation, document.as_ref()),
            "Decrypt" => self.decrypt(&operation, document.as_ref()),
            _ => Err(Refusal::new(
                "UnsupportedOperationException",
                "the lab's KMS does not support this operation",
            )),
        }?;
        record.allowed = true;
        Ok(answer)
    }

    fn attested(&self, recipient: &Recipient, now: UnixMillis) -> Result<VerifiedDocument, Refusal> {
        if recipient.key_encryption_algorithm != "RSAES_OAEP_SHA_256" {
            return Err(Refusal::new(
                "ValidationException",
                "the recipient's algorithm is not RSAES_OAEP_SHA_256",
            ));
        }
        let document = decode(&recipient.attestation_document, "AttestationDocument")?;
        let document = (self.verifier)(&document).map_err(|reason| {
            Refusal::new("ValidationException", format!("the attestation document is not valid: {reason}"))
        })?;
        if document.timestamp.since(now).unsigned_abs() > MAX_DOCUMENT_AGE_MS {
            let message = format!("the attestation document of {} has expired by {now}", document.timestamp);
            return Err(Refusal::new("ValidationException", message));
        }
        Ok(document)
    }

    fn generate_data_key(
        &self,
        operation: &Operation,
        document: Option<&VerifiedDocument>,
    ) -> Result<Value, Refusal> {
        if operation.key_id.is_none() || operation.key_spec.as_deref() != Some("AES_256") {
            return Err(Refusal::new("ValidationException", "KeyId and KeySpec AES_256 are needed"));
        }
        let mut data_key = [0; 32];
        rand::fill(&mut data_key).map_err(|_| Refusal::new("KMSInternalException", "no random bytes"))?;
        let wrapped = self.key.wrap(&data_key, &operation.encryption_context).map_err(internal)?;
        self.deliver(&data_key, document, json!({"CiphertextBlob": BASE64_STANDARD.encode(wrapped)}))
    }

    fn decrypt(&self, operation: &Operation, document: Option<&VerifiedDocument>) -> Result<Value, Refusal> {
        if !matches!(operation.encryption_algorithm.as_deref(), None | Some("SYMMETRIC_DEFAULT")) {
            return Err(Refusal::new("ValidationException", "the only algorithm is SYMMETRIC_DEFAULT"));
        }
        let wrapped = operation.ciphertext_blob.as_deref().unwrap_or_default();
        let wrapped = decode(wrapped, "CiphertextBlob")?;
        let data_key = self.key.unwrap(&wrapped, &operation.encryption_context);
        let data_key = data_key.ok_or_else(|| {
            Refusal::new(
                "InvalidCiphertextException",
                "the ciphertext, its key or its encryption context is wrong",
            )
        })?;
        self.deliver(&data_key, document, json!({"EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}))
    }

    /// A key for the enclave alone if one was attested; in clear if the policy let somebody else in.
    fn deliver(
        &self,
        data_key: &[u8],
        document: Option<&VerifiedDocument>,
        mut answer: Value,
    ) -> Result<Value, Refusal> {
        answer["KeyId"] = self.key.arn().into();
        match document {
            Some(document) => {
                let envelope = envelope::encrypt_to(&document.public_key, data_key);
                let envelope =
                    envelope.map_err(|error| Refusal::new("ValidationException", format!("{error:#}")))?;
                answer["CiphertextForRecipient"] = BASE64_STANDARD.encode(envelope).into();
            }
            None => answer["Plaintext"] = BASE64_STANDARD.encode(data_key).into(),
        }
        Ok(answer)
    }
}

impl From<SignatureError> for Refusal {
    fn from(error: SignatureError) -> Self {
        match error {
            SignatureError::Incomplete(what) => Self::new("IncompleteSignature", what),
            SignatureError::UnknownKey => Self::new(
                "UnrecognizedClientException",
                "the access key or its session token is not known here",
            ),
            SignatureError::Invalid(what) => Self::new("InvalidSignatureException", what),
        }
    }
}

fn read(body: &[u8]) -> Result<Operation, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::new("SerializationException", error.to_string()))
}

fn decode(text: &str, field: &str) -> Result<Vec<u8>, Refusal> {
    let bytes = BASE64_STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty());
    bytes.ok_or_else(|| Refusal::new("ValidationException", format!("{field} is missing or not base64")))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn internal(error: anyhow::Error) -> Refusal {
    Refusal::new("KMSInternalException", format!("{error:#}"))
}

fn conditions(
    document: Option<&VerifiedDocument>,
    context: &EncryptionContext,
    at: UnixMillis,
) -> BTreeMap<String, String> {
    let mut conditions: BTreeMap<_, _> =
        context.iter().map(|(key, value)| (format!("kms:EncryptionContext:{key}"), value.clone())).collect();
    conditions.insert("aws:CurrentTime".to_owned(), at.to_string());
    for (index, pcr) in document.into_iter().flat_map(|document| &document.pcrs) {
        conditions.insert(format!("kms:RecipientAttestation:PCR{index}"), hex::encode(pcr));
        if *index == 0 {
            conditions.insert("kms:RecipientAttestation:ImageSha384".to_owned(), hex::encode(pcr));
        }
    }
    conditions
}
