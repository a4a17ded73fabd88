//! The lab's KMS: a server on this machine that the unmodified AWS SDK takes for AWS KMS.
//!
//! It decides as the real one does (request signatures, attestation documents and their age, the key policy's own
//! JSON), so that what the lab shows about who can unwrap a share holds in production. It is for the lab only: its
//! wrapping key is kept in a file.

mod envelope;
pub mod policy;
mod service;
pub mod sigv4;
pub(crate) mod state;
mod tls;
mod wrapping;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use ceremonies::attestation::{AttestationError, TrustRoot, parse_and_verify};
use ceremonies::ids::UnixMillis;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub use envelope::encrypt_to;
pub use service::{AuditRecord, MAX_DOCUMENT_AGE_MS};
pub use sigv4::Credential;
pub use tls::LabRoot;
pub use wrapping::EncryptionContext;

use policy::Policy;
use service::{Refusal, Service};
use wrapping::WrappingKey;

/// Largest request read: a document of 16 KiB in base64, and room.
const MAX_REQUEST: usize = 64 * 1024;
/// Longest life of a connection; the enclave opens one per call.
const CONNECTION_LIFE: Duration = Duration::from_mins(1);

/// What a verified attestation document says, as far as a KMS cares.
#[derive(Debug, Clone)]
pub struct VerifiedDocument {
    /// The measured registers, by index.
    pub pcrs: BTreeMap<u8, [u8; 48]>,
    /// The enclave's RSA key, as DER `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
    /// When the document was made.
    pub timestamp: UnixMillis,
}

/// Verifies an attestation document's signature and chain, and reads it, or says why not. The KMS itself judges the
/// age.
pub type Verifier = Arc<dyn Fn(&[u8]) -> Result<VerifiedDocument, String> + Send + Sync>;

/// Verifies real documents: those of machines that `root` vouches for.
#[must_use]
pub fn attested_under(root: TrustRoot) -> Verifier {
    Arc::new(move |bytes| {
        let document = parse_and_verify(bytes, &root).map_err(|error| error.to_string())?;
        let pcrs = document.pcrs.keys().map(|index| Ok((*index, *document.pcr(*index)?.as_bytes())));
        let pcrs = pcrs.collect::<Result<_, AttestationError>>().map_err(|error| error.to_string())?;
        let public_key = document.public_key.ok_or("it carries no public key")?;
        Ok(VerifiedDocument { pcrs, public_key, timestamp: document.timestamp })
    })
}

/// The server's time.
pub type Clock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// What a lab's KMS is started with.
pub struct LabKmsConfig {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The host name its certificate carries.
    pub host: String,
    /// The region that requests must be signed for.
    pub region: String,
    /// The ARN of its one key.
    pub key_arn: String,
    /// The key's policy, in AWS's own JSON.
    pub policy: Value,
    /// The access keys it knows.
    pub credentials: Vec<Credential>,
    /// How it verifies attestation documents.
    pub verifier: Verifier,
    /// Its time.
    pub clock: Clock,
}

/// A running KMS. It stops when dropped.
pub struct LabKms {
    addr: SocketAddr,
    root: LabRoot,
    service: Arc<Service>,
    task: JoinHandle<()>,
}

impl LabKms {
    /// Starts a KMS whose key and TLS root are in `dir`, made there on first use.
    ///
    /// # Errors
    /// Says what in `dir`, the policy or the network cannot be used.
    pub async fn start(dir: &Path, config: LabKmsConfig) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let root = LabRoot::open(dir)?;
        let acceptor = TlsAcceptor::from(root.server_config(&config.host)?);
        let service = Arc::new(Service {
            region: config.region,
            policy: RwLock::new(Policy::read(&config.policy)?),
            credentials: config.credentials,
            verifier: config.verifier,
            clock: config.clock,
            key: WrappingKey::open(dir, &config.key_arn)?,
            audit: Mutex::new(VecDeque::new()),
        });
        let listener = TcpListener::bind(config.listen).await;
        let listener = listener.with_context(|| format!("listening on {}", config.listen))?;
        let addr = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&service)));
        Ok(Self { addr, root, service, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The TLS root to trust it by.
    #[must_use]
    pub fn root(&self) -> &LabRoot {
        &self.root
    }

    /// The file with that root, in PEM.
    #[must_use]
    pub fn root_pem(&self) -> PathBuf {
        self.root.pem().to_owned()
    }

    /// Gives the key another policy, as `kms:PutKeyPolicy` does.
    ///
    /// # Errors
    /// When it is not one that can be evaluated here; the old one stays.
    pub fn put_key_policy(&self, policy: &Value) -> anyhow::Result<()> {
        *self.service.policy.write().unwrap_or_else(PoisonError::into_inner) = Policy::read(policy)?;
        Ok(())
    }

    /// What it has decided so far, oldest first.
    #[must_use]
    pub fn audit(&self) -> Vec<AuditRecord> {
        self.service.audit.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Stops, and returns once nobody listens any more.
    pub async fn stop(mut self) {
        self.task.abort();
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            tracing::error!("the lab's KMS panicked");
        }
    }
}

impl Drop for LabKms {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, service: Arc<Service>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, acceptor.clone(), Arc::clone(&service)));
                }
                Err(error) => tracing::warn!(%error, "the lab's KMS could not accept a connection"),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, service: Arc<Service>) {
    let serving = async {
        let stream = acceptor.accept(stream).await?;
        let answer = service_fn(|request| respond(request, Arc::clone(&service)));
        // Without a date: hyper would take it from the system, but this server has a clock of its own.
        let mut http = hyper::server::conn::http1::Builder::new();
        http.auto_date_header(false).serve_connection(TokioIo::new(stream), answer).await?;
        anyhow::Ok(())
    };
    match tokio::time::timeout(CONNECTION_LIFE, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("the lab's KMS lost a connection: {error:#}"),
        Err(_) => tracing::debug!("the lab's KMS closed a connection that stayed open too long"),
    }
}

async fn respond(
    request: Request<Incoming>,
    service: Arc<Service>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let answer = match Limited::new(body, MAX_REQUEST).collect().await {
        Ok(body) => service.answer(&parts, &body.to_bytes()),
        Err(_) => Err(Refusal { code: "ValidationException", message: "the request is too long".to_owned() }),
    };
    let (status, body) = match answer {
        Ok(answer) => (StatusCode::OK, answer),
        Err(Refusal { code, message }) => {
            (StatusCode::BAD_REQUEST, json!({"__type": code, "message": message}))
        }
    };
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/x-amz-json-1.1"));
    Ok(response)
}
