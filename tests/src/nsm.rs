//! The lab's security module: it measures the enclave that it is about to launch and signs attestation
//! documents for it, under a root of the lab's own.
//!
//! It runs outside the enclaves. A measurement belongs to a socket and is fixed before the program behind it
//! starts, so neither enclave nor agent can have another one signed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use bytes::Bytes;
use ceremonies::attestation::{MAX_DOCUMENT, Measurement, Pcr, TrustRoot};
use ceremonies::ids::UnixMillis;
use ciborium::Value;
use coset::{CborSerializable as _, CoseSign1Builder, HeaderBuilder, iana};
use enclave::attest::{AttestError, SecurityModule};
use futures_util::{SinkExt as _, StreamExt as _};
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey};
use p384::pkcs8::DecodePrivateKey as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha384};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// How long a machine's certificate is valid, as on Nitro; a new one is made in good time before.
const LEAF_LIFE: Duration = Duration::from_hours(3);
const LEAF_USE: Duration = Duration::from_hours(2);

/// The lab's certificate authority for attestation, kept in a folder.
pub struct LabRoot {
    key: KeyPair,
    pem: PathBuf,
    trust: TrustRoot,
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).context("making a P-384 key")
}

impl LabRoot {
    /// Opens the authority in `folder`, and makes it on first use.
    ///
    /// # Errors
    /// Says which file cannot be read, written or understood.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (key_file, pem) = (folder.join("root.key"), folder.join("root.pem"));
        if !key_file.exists() {
            let key = new_key()?;
            let certificate = authority("Custody lab attestation root").self_signed(&key)?;
            fs::write(&pem, certificate.pem())?;
            crate::write_private(&key_file, key.serialize_pem().as_bytes())?;
        }
        let key = fs::read_to_string(&key_file).with_context(|| format!("reading {}", key_file.display()))?;
        let key = KeyPair::from_pem(&key).context("the lab root's key is no private key")?;
        let trust = TrustRoot::from_pem(&fs::read(&pem)?).context("the lab root is no certificate")?;
        Ok(Self { key, pem, trust })
    }

    /// The root as verifiers take it.
    #[must_use]
    pub fn trust(&self) -> &TrustRoot {
        &self.trust
    }

    /// The root's file.
    #[must_use]
    pub fn pem(&self) -> &Path {
        &self.pem
    }

    /// A machine with a certificate of its own, valid from `from` on.
    ///
    /// # Errors
    /// When a certificate cannot be made.
    pub fn machine(&self, from: SystemTime) -> Result<Machine> {
        let root_der = rustls_pki_types::CertificateDer::from(self.trust_der()?);
        let issuer = Issuer::from_params(&ISSUER, &self.key);
        let middle_key = new_key()?;
        let middle_params = dated(authority("Custody lab machines"), from);
        let middle = middle_params.signed_by(&middle_key, &issuer)?;
        let leaf_key = new_key()?;
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name.push(DnType::CommonName, "Custody lab security module");
        leaf.is_ca = IsCa::ExplicitNoCa;
        let leaf =
            dated(leaf, from).signed_by(&leaf_key, &Issuer::from_params(&middle_params, &middle_key))?;
        Ok(Machine {
            bundle: vec![root_der.to_vec(), middle.der().to_vec()],
            leaf: leaf.der().to_vec(),
            key: SigningKey::from_pkcs8_der(leaf_key.serialized_der()).context("reading the leaf's key")?,
            until: from + LEAF_USE,
        })
    }

    fn trust_der(&self) -> Result<Vec<u8>> {
        use rustls_pki_types::pem::PemObject as _;
        let pem = fs::read(&self.pem)?;
        let der = rustls_pki_types::CertificateDer::from_pem_slice(&pem)?;
        Ok(der.to_vec())
    }
}

/// The root's own parameters: what certificates under it name as their issuer.
static ISSUER: std::sync::LazyLock<CertificateParams> =
    std::sync::LazyLock::new(|| authority("Custody lab attestation root"));

fn dated(mut params: CertificateParams, from: SystemTime) -> CertificateParams {
    // A minute of grace: a document made at once must not be older than its certificate.
    let from = from - Duration::from_mins(1);
    params.not_before = from.into();
    params.not_after = (from + LEAF_LIFE).into();
    params
}

/// What a document says. Tests write wrong ones.
#[derive(Debug, Clone)]
pub struct DocumentSpec {
    /// The measured registers.
    pub measurement: Measurement,
    /// When it is made.
    pub timestamp: UnixMillis,
    /// What it was asked for with.
    pub nonce: Vec<u8>,
    /// The enclave's keys.
    pub user_data: Vec<u8>,
    /// The enclave's RSA key.
    pub public_key: Vec<u8>,
}

/// A certified machine: it signs documents.
pub struct Machine {
    bundle: Vec<Vec<u8>>,
    leaf: Vec<u8>,
    key: SigningKey,
    until: SystemTime,
}

impl Machine {
    /// A document in the layout of AWS's
    /// (<https://docs.aws.amazon.com/enclaves/latest/user/verify-root.html>).
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn sign(&self, spec: &DocumentSpec) -> Result<Vec<u8>> {
        let empty = Pcr::from([0; 48]);
        let registers = (0..16u8).map(|index| {
            let found = spec.measurement.registers().find(|(register, _)| *register == index);
            let value = found.map_or(empty, |(_, value)| value);
            (Value::from(index), Value::Bytes(value.as_bytes().to_vec()))
        });
        let payload = [
            ("module_id", Value::from("i-lab-enc-lab")),
            ("digest", Value::from("SHA384")),
            ("timestamp", Value::from(spec.timestamp.0)),
            ("pcrs", Value::Map(registers.collect())),
            ("certificate", Value::Bytes(self.leaf.clone())),
            ("cabundle", Value::Array(self.bundle.iter().cloned().map(Value::Bytes).collect())),
            ("public_key", Value::Bytes(spec.public_key.clone())),
            ("user_data", Value::Bytes(spec.user_data.clone())),
            ("nonce", Value::Bytes(spec.nonce.clone())),
        ]
        .map(|(name, value)| (Value::from(name), value));
        let mut bytes = Vec::new();
        ciborium::into_writer(&Value::Map(payload.into()), &mut bytes)?;
        CoseSign1Builder::new()
            .protected(HeaderBuilder::new().algorithm(iana::Algorithm::ES384).build())
            .payload(bytes)
            .create_signature(b"", |signed| {
                let signature: Signature = self.key.sign(signed);
                signature.to_vec()
            })
            .build()
            .to_vec()
            .map_err(|error| anyhow::anyhow!("encoding the document: {error}"))
    }
}

/// Measures as Nitro does: SHA-384 over 48 zero bytes and the SHA-384 of what is measured.
#[must_use]
pub fn register(measured: &[&[u8]]) -> Pcr {
    let mut inner = Sha384::new();
    for part in measured {
        inner.update(part);
    }
    let mut outer = Sha384::new();
    outer.update([0; 48]);
    outer.update(inner.finalize());
    Pcr::from(<[u8; 48]>::from(outer.finalize()))
}

/// The measurement of a program that runs as a process: register 0 is the program, 1 how it is run, 2 the
/// trust roots that it is given.
///
/// # Errors
/// When a file cannot be read.
pub fn measure(program: &Path, roots: &[&Path]) -> Result<Measurement> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("measuring {}", path.display()));
    let program = read(program)?;
    let roots = roots.iter().map(|root| read(root)).collect::<Result<Vec<_>>>()?;
    let roots: Vec<&[u8]> = roots.iter().map(Vec::as_slice).collect();
    Ok(Measurement {
        pcr0: register(&[&program]),
        pcr1: register(&[b"custody lab enclave, run as a process"]),
        pcr2: register(&roots),
        pcr8: None,
    })
}

#[derive(Serialize, Deserialize)]
struct Question {
    #[serde(with = "serde_bytes_vec")]
    nonce: Vec<u8>,
    #[serde(with = "serde_bytes_vec")]
    user_data: Vec<u8>,
    #[serde(with = "serde_bytes_vec")]
    public_key: Vec<u8>,
}

/// Byte strings as CBOR byte strings rather than arrays of numbers.
mod serde_bytes_vec {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        match ciborium::Value::deserialize(deserializer)? {
            ciborium::Value::Bytes(bytes) => Ok(bytes),
            _ => Err(serde::de::Error::custom("expected bytes")),
        }
    }
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(MAX_DOCUMENT).new_codec()
}

/// The security module of one enclave: a socket, and the measurement that it signs.
pub struct ModuleServer {
    task: JoinHandle<()>,
}

impl Drop for ModuleServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ModuleServer {
    /// Listens on `socket` for the enclave with this measurement.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(socket: &Path, root: Arc<LabRoot>, measurement: Measurement) -> Result<Self> {
        match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let listener =
            UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
        let signer = Arc::new(Signer { root, measurement, machine: Mutex::new(None) });
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let signer = Arc::clone(&signer);
                tokio::spawn(async move {
                    // A client that breaks off or asks nonsense gets no answer.
                    let _ = signer.answer(stream).await;
                });
            }
        });
        Ok(Self { task })
    }
}

struct Signer {
    root: Arc<LabRoot>,
    measurement: Measurement,
    machine: Mutex<Option<Machine>>,
}

impl Signer {
    async fn answer(&self, stream: UnixStream) -> Result<()> {
        let mut framed = Framed::new(stream, codec());
        while let Some(frame) = framed.next().await {
            let question: Question = ciborium::from_reader(frame?.as_ref())?;
            framed.send(Bytes::from(self.document(question)?)).await?;
        }
        Ok(())
    }

    fn document(&self, question: Question) -> Result<Vec<u8>> {
        let now = SystemTime::now();
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if machine.as_ref().is_none_or(|machine| machine.until < now) {
            *machine = Some(self.root.machine(now)?);
        }
        let machine = machine.as_ref().context("no machine")?;
        let since = now.duration_since(SystemTime::UNIX_EPOCH)?;
        machine.sign(&DocumentSpec {
            measurement: self.measurement,
            timestamp: UnixMillis(i64::try_from(since.as_millis())?),
            nonce: question.nonce,
            user_data: question.user_data,
            public_key: question.public_key,
        })
    }
}

/// The lab's security module as the lab's enclave reaches it.
pub struct LabModule {
    socket: PathBuf,
}

impl LabModule {
    /// The module behind this socket.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }
}

#[async_trait]
impl SecurityModule for LabModule {
    async fn attest(
        &self,
        nonce: &[u8],
        user_data: &[u8],
        public_key: &[u8],
    ) -> Result<Vec<u8>, AttestError> {
        let question = Question {
            nonce: nonce.to_vec(),
            user_data: user_data.to_vec(),
            public_key: public_key.to_vec(),
        };
        let mut bytes = Vec::new();
        ciborium::into_writer(&question, &mut bytes)
            .map_err(|error| AttestError::Refused(error.to_string()))?;
        let stream = UnixStream::connect(&self.socket).await.map_err(AttestError::Unreachable)?;
        let mut framed = Framed::new(stream, codec());
        framed.send(Bytes::from(bytes)).await.map_err(AttestError::Unreachable)?;
        match framed.next().await {
            Some(Ok(document)) => Ok(document.to_vec()),
            Some(Err(error)) => Err(AttestError::Unreachable(error)),
            None => Err(AttestError::Refused("it closed without an answer".to_owned())),
        }
    }
}
