//! Carries the SDK's requests over whatever byte stream the enclave is given.
//!
//! There is one TLS connection per call. It terminates here inside the enclave, checked against the roots and the clock
//! that were handed in. The bytes below it pass through the parent host, which may drop, delay or replace them and
//! gains nothing by it. This module must never read the system's clock or trust store: both belong to the parent.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::KmsError;
use async_trait::async_trait;
use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use ceremonies::ids::UnixMillis;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Largest answer read. A `GenerateDataKey` answer has about 1.5 KiB.
const MAX_ANSWER: usize = 64 * 1024;

/// A byte stream to the KMS endpoint.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Opens byte streams to the KMS endpoint; in an enclave, through its agent.
#[async_trait]
pub trait Dial: Send + Sync {
    /// Opens one stream. TLS checks where it leads.
    async fn dial(&self) -> io::Result<Box<dyn Stream>>;
}

/// The enclave's trusted time: TLS validity and request signatures are judged by it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixMillis + Send + Sync>);

impl Clock {
    /// A clock that asks `now` each time.
    pub fn new(now: impl Fn() -> UnixMillis + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        (self.0)()
    }

    /// Time since 1970; a clock set before that is useless.
    fn since_epoch(&self) -> Option<Duration> {
        u64::try_from(self.now().0).ok().map(Duration::from_millis)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        self.since_epoch().map(UnixTime::since_unix_epoch)
    }
}

impl TimeSource for Clock {
    fn now(&self) -> std::time::SystemTime {
        UNIX_EPOCH + self.since_epoch().unwrap_or_default()
    }
}

/// Why a request did not get an answer.
#[derive(Debug, Error)]
pub(super) enum TransportError {
    /// The agent gave no stream.
    #[error("no stream to the KMS endpoint")]
    Dial(#[source] io::Error),
    /// The other end does not have the right certificate.
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    /// Neither stream nor handshake in time.
    #[error("no TLS connection within {} s", .0.as_secs_f32())]
    ConnectTimeout(Duration),
    /// The exchange broke off.
    #[error("the HTTP exchange broke off")]
    Http(#[source] hyper::Error),
    /// The answer could not be read whole.
    #[error("the answer is longer than {MAX_ANSWER} bytes, or broke off")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The SDK asked for something that HTTP cannot carry.
    #[error("the request cannot be sent: {0}")]
    Request(String),
}

/// The SDK's transport: HTTP/1.1 over TLS over a dialled stream.
#[derive(Clone)]
pub(super) struct Connector {
    dial: Arc<dyn Dial>,
    tls: TlsConnector,
    server: ServerName<'static>,
    host: HeaderValue,
    connect_timeout: Duration,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Connector {
    /// A connector to `host` that trusts `roots` and nothing else. The error says what is wrong with them.
    pub(super) fn new(
        host: &str,
        roots: RootCertStore,
        clock: Clock,
        connect_timeout: Duration,
        dial: Arc<dyn Dial>,
    ) -> Result<Self, KmsError> {
        if roots.is_empty() {
            return Err(KmsError::Config("there are no TLS roots".to_owned()));
        }
        let no_host = |why: String| KmsError::Config(format!("host `{host}`: {why}"));
        let server = ServerName::try_from(host.to_owned()).map_err(|error| no_host(error.to_string()))?;
        let header = HeaderValue::from_str(host).map_err(|error| no_host(error.to_string()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_details(provider, Arc::new(clock))
            .with_safe_default_protocol_versions()
            .map_err(|error| KmsError::Config(format!("TLS: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { dial, tls: TlsConnector::from(Arc::new(tls)), server, host: header, connect_timeout })
    }

    async fn connect(&self) -> Result<TlsStream<Box<dyn Stream>>, TransportError> {
        let connecting = async {
            let stream = self.dial.dial().await.map_err(TransportError::Dial)?;
            self.tls.connect(self.server.clone(), stream).await.map_err(TransportError::Tls)
        };
        tokio::time::timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_| TransportError::ConnectTimeout(self.connect_timeout))?
    }

    fn request(&self, request: HttpRequest) -> Result<Request<Full<Bytes>>, TransportError> {
        let request = request.try_into_http1x().map_err(|e| TransportError::Request(e.to_string()))?;
        let (mut parts, body) = request.into_parts();
        let body = body.bytes().map(Bytes::copy_from_slice);
        let body = body.ok_or_else(|| TransportError::Request("its body is a stream".to_owned()))?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = path.parse().map_err(|_| TransportError::Request("its path is not a URI".to_owned()))?;
        parts.headers.insert(HOST, self.host.clone());
        Ok(Request::from_parts(parts, Full::new(body)))
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        let request = self.request(request)?;
        let stream = self.connect().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(TransportError::Http)?;
        let exchange = async {
            let (parts, body) =
                sender.send_request(request).await.map_err(TransportError::Http)?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(TransportError::Answer)?;
            Ok(Response::from_parts(parts, SdkBody::from(body.to_bytes())))
        };
        tokio::pin!(exchange);
        // Polled together rather than spawned, so that giving up on the call closes the stream.
        let answer = tokio::select! {
            answer = &mut exchange => answer?,
            closed = connection => {
                closed.map_err(TransportError::Http)?;
                exchange.await?
            }
        };
        HttpResponse::try_from(answer).map_err(|e| TransportError::Answer(e.into()))
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move {
            connector.exchange(request).await.map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}
