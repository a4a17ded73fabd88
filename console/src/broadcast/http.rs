//! One HTTP request at a time to an untrusted endpoint: over TLS, or in the clear to a node of one's own.
//!
//! Sizes and times are bounded, redirects are not followed and no proxy is used. Errors name the host and never the
//! rest of the address, which may hold somebody's key to the endpoint.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ceremonies::ids::Line;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Largest answer that is read, in bytes; that of a transaction with a hundred inputs and outputs is smaller.
const MAX_ANSWER: usize = 256 * 1024;
/// How long one request may take, from the connection to the answer's last byte.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why text is no endpoint.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum InvalidEndpoint {
    /// Not an address.
    #[error(
        "that is not an address: write https://HOST/PATH, or http://127.0.0.1:PORT for a node of your own"
    )]
    Syntax,
    /// Neither of the two.
    #[error("only https and http are supported")]
    Scheme,
    /// In the clear over a public network.
    #[error("without TLS, only this machine or a private address (10.…, 192.168.…) is allowed: use https")]
    Plain,
    /// A user's name or password in front of the host.
    #[error(
        "user names and passwords in an address are not sent: use an endpoint that needs none, has a key in its path, \
         or takes a token (--bearer)"
    )]
    Credentials,
    /// Not a name that a certificate can have.
    #[error("the host is not a name that a TLS certificate can be issued for")]
    Host,
    /// A file that holds no certificate.
    #[error("the file contains no PEM certificate that could act as a certificate authority")]
    Certificates,
    /// Certificate authorities for an endpoint without TLS.
    #[error("a certificate authority applies to https only, and the endpoint is http")]
    NoTls,
    /// Something that no header can carry.
    #[error("the bearer token has characters other than letters, digits and punctuation")]
    Token,
    /// TLS cannot be set up on this machine.
    #[error("TLS cannot be used here")]
    Tls(#[from] rustls::Error),
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// No connection, or none that TLS accepts.
    #[error("{host} cannot be reached")]
    Unreachable {
        /// Where.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("{host} did not answer within {} seconds", PATIENCE.as_secs())]
    Slow {
        /// Who.
        host: String,
    },
    /// Something listens there, but not for TLS.
    #[error(
        "{host} does not speak TLS there: give the port of its https, or write http:// if it is a node of your own"
    )]
    NoTls {
        /// Who.
        host: String,
        /// What came instead.
        source: io::Error,
    },
    /// The connection broke, or what came is not HTTP.
    #[error(
        "{host} did not answer in HTTP: see that the port is right, and write https:// if it speaks TLS there"
    )]
    Broken {
        /// Who.
        host: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is longer than any that is asked for.
    #[error("the answer of {0} exceeds {MAX_ANSWER} bytes and was not read")]
    TooLarge(String),
}

/// What was answered.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Where it sends those who ask, if it does.
    pub(super) elsewhere: Option<Elsewhere>,
    pub(super) body: Bytes,
}

impl Answer {
    /// Whether it is meant for a browser, as those of websites and of what stands before them are.
    pub(super) fn is_web_page(&self) -> bool {
        let begins = |mark: &str| {
            let text = self.body.trim_ascii_start();
            text.get(..mark.len()).is_some_and(|start| start.eq_ignore_ascii_case(mark.as_bytes()))
        };
        ["<!doctype html", "<html"].into_iter().any(begins)
    }

    /// What it says, cut to a line.
    pub(super) fn words(&self) -> Line {
        let text = String::from_utf8_lossy(&self.body);
        Line::lossy(if self.is_web_page() { "a web page" } else { &text })
    }
}

/// Where a redirect leads. The rest of that address may repeat somebody's key, and is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere(String);

impl Elsewhere {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let uri: Uri = headers.get(LOCATION)?.to_str().ok()?.parse().ok()?;
        let host = uri.authority()?.as_str().rsplit('@').next()?;
        Some(Self(format!("{}://{host}", uri.scheme_str()?)))
    }
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(place) = self;
        match place.parse::<Endpoint>() {
            Ok(_) => {
                write!(f, "it sends on to {place}, where nothing was sent: name that place as --endpoint")
            }
            Err(InvalidEndpoint::Plain) => write!(
                f,
                "it sends on to {place}, where nothing was sent because that is without TLS: ask its operator for an \
                 https address"
            ),
            Err(_) => write!(f, "it sends on to {place}, where nothing can be sent: use another endpoint"),
        }
    }
}

/// Where a network is reached.
#[derive(Clone)]
pub struct Endpoint {
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// As the request names it: with the port, where the address does.
    authority: String,
    host: String,
    port: u16,
    path: String,
    query: String,
    /// What tells the endpoint whose request it is. It is never shown.
    authorization: Option<HeaderValue>,
}

/// The host alone.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.authority)
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;
    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let uri: Uri = text.parse().map_err(|_| InvalidEndpoint::Syntax)?;
        let authority = uri.authority().ok_or(InvalidEndpoint::Syntax)?.as_str().to_owned();
        if authority.contains('@') {
            return Err(InvalidEndpoint::Credentials);
        }
        let named = uri.host().unwrap_or_default();
        let host = named.trim_matches(['[', ']']);
        // With a dot behind it, a name service might be asked where this machine is.
        let host = if is_this_machine(host) { LOCALHOST } else { host }.to_owned();
        let (tls, usual) = match uri.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| InvalidEndpoint::Host)?;
                let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
                (Some((tls(roots)?, name)), 443)
            }
            Some("http") if is_near(&host) => (None, 80),
            Some("http") => return Err(InvalidEndpoint::Plain),
            _ => return Err(InvalidEndpoint::Scheme),
        };
        // A malformed port would be dropped, and another port asked.
        let port = match authority.strip_prefix(named) {
            Some("") => usual,
            Some(port) => port.trim_start_matches(':').parse().map_err(|_| InvalidEndpoint::Syntax)?,
            None => return Err(InvalidEndpoint::Syntax),
        };
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self { tls, authority, host, port, path: uri.path().to_owned(), query, authorization: None })
    }
}

/// The name of this machine on itself.
const LOCALHOST: &str = "localhost";

fn is_this_machine(host: &str) -> bool {
    host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(LOCALHOST)
}

/// Whether nobody else is on the path to this host: it is this machine, or on a private network.
fn is_near(host: &str) -> bool {
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => is_this_machine(host),
    }
}

impl Endpoint {
    /// The endpoint of a firm's own node, whose certificate is under one of these authorities (PEM) and no other.
    ///
    /// # Errors
    /// [`InvalidEndpoint`].
    pub fn trusting(mut self, authorities: &[u8]) -> Result<Self, InvalidEndpoint> {
        let (_, name) = self.tls.take().ok_or(InvalidEndpoint::NoTls)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            let certificate = certificate.map_err(|_| InvalidEndpoint::Certificates)?;
            roots.add(certificate).map_err(|_| InvalidEndpoint::Certificates)?;
        }
        if roots.is_empty() {
            return Err(InvalidEndpoint::Certificates);
        }
        self.tls = Some((tls(roots)?, name));
        Ok(self)
    }

    /// The endpoint of somebody who wants to see a token with every request.
    ///
    /// # Errors
    /// [`InvalidEndpoint::Token`].
    pub fn with_bearer(mut self, token: &str) -> Result<Self, InvalidEndpoint> {
        let is_plain = !token.is_empty() && token.chars().all(|character| character.is_ascii_graphic());
        let header = HeaderValue::try_from(format!("Bearer {token}"));
        let mut header = header.ok().filter(|_| is_plain).ok_or(InvalidEndpoint::Token)?;
        header.set_sensitive(true);
        self.authorization = Some(header);
        Ok(self)
    }

    /// Who answers: the host, and the port where the address has one.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Asks for what is at this place below the endpoint's own.
    pub(super) async fn get(&self, place: &str) -> Result<Answer, HttpError> {
        self.ask(Method::GET, place, "", Bytes::new()).await
    }

    /// Hands something in at this place below the endpoint's own.
    pub(super) async fn post(&self, place: &str, kind: &str, body: String) -> Result<Answer, HttpError> {
        self.ask(Method::POST, place, kind, body.into()).await
    }

    async fn ask(&self, method: Method, place: &str, kind: &str, body: Bytes) -> Result<Answer, HttpError> {
        let path = if place.is_empty() { &self.path } else { self.path.trim_end_matches('/') };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{path}{place}{}", self.query))
            .header(HOST, &self.authority);
        if !kind.is_empty() {
            request = request.header(CONTENT_TYPE, kind);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|error| self.broken(error))?;
        let asked = tokio::time::timeout(PATIENCE, self.connected(request)).await;
        asked.map_err(|_| HttpError::Slow { host: self.authority.clone() })?
    }

    async fn connected(&self, request: Request<Full<Bytes>>) -> Result<Answer, HttpError> {
        let unreachable = |source| HttpError::Unreachable { host: self.authority.clone(), source };
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(unreachable)?;
        match &self.tls {
            None => self.exchange(stream, request).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(|source| {
                    if is_no_tls(&source) {
                        HttpError::NoTls { host: self.authority.clone(), source }
                    } else {
                        unreachable(source)
                    }
                })?;
                self.exchange(stream, request).await
            }
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, HttpError> {
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| self.broken(error))?;
        // Ends with this request, answered or not.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let answer = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        let status = answer.status();
        let elsewhere = Elsewhere::of(answer.headers()).filter(|_| status.is_redirection());
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                HttpError::TooLarge(self.authority.clone())
            } else {
                self.broken(error)
            }
        })?;
        Ok(Answer { status, elsewhere, body: body.to_bytes() })
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HttpError {
        HttpError::Broken { host: self.authority.clone(), source: source.into() }
    }
}

/// Whether a handshake failed because what came is no TLS at all.
fn is_no_tls(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(rustls::Error::InvalidMessage(_)))
}

/// TLS to whoever has a certificate under these roots.
fn tls(roots: RootCertStore) -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(versions.with_root_certificates(roots).with_no_client_auth()).into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A server on this machine with a certificate of its own for this name, and roots with that certificate.
    async fn server(name: &str) -> (u16, RootCertStore) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.clone()], key.into()).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            // A client that does not trust the certificate hangs up.
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                assert!(request[..length].starts_with(b"GET /api/x?key=1 HTTP/1.1\r\n"));
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
            }
        });
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        (port, roots)
    }

    async fn asked(port: u16, roots: Option<RootCertStore>) -> Result<Answer, HttpError> {
        let mut endpoint: Endpoint = format!("https://localhost:{port}/api/?key=1").parse().unwrap();
        endpoint.host = "127.0.0.1".to_owned();
        if let Some(roots) = roots {
            endpoint.tls = endpoint.tls.map(|(_, name)| (tls(roots).unwrap(), name));
        }
        endpoint.get("/x").await
    }

    #[tokio::test]
    async fn a_host_with_a_trusted_certificate_is_asked_over_tls() {
        let (port, roots) = server("localhost").await;
        let answer = asked(port, Some(roots)).await.unwrap();
        assert_eq!((answer.status, answer.body.as_ref()), (StatusCode::OK, b"hi".as_slice()));
    }

    #[tokio::test]
    async fn a_certificate_of_another_name_or_root_is_refused() {
        let (port, roots) = server("another.example").await;
        assert!(matches!(asked(port, Some(roots)).await, Err(HttpError::Unreachable { .. })));
        let (port, _) = server("localhost").await;
        assert!(matches!(asked(port, None).await, Err(HttpError::Unreachable { .. })));
    }

    #[tokio::test]
    async fn a_firms_own_authority_is_trusted_when_it_is_given_and_no_other_then() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let foreign = made.cert.pem();
        let (port, _) = server("localhost").await;
        let mut endpoint: Endpoint = format!("https://localhost:{port}/api/?key=1").parse().unwrap();
        endpoint.host = "127.0.0.1".to_owned();
        let endpoint = endpoint.trusting(foreign.as_bytes()).unwrap();
        assert!(matches!(endpoint.get("/x").await, Err(HttpError::Unreachable { .. })));
        let https = || "https://localhost".parse::<Endpoint>().unwrap();
        for nothing in
            ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            assert_eq!(https().trusting(nothing.as_bytes()).unwrap_err(), InvalidEndpoint::Certificates);
        }
        let http: Endpoint = "http://127.0.0.1".parse().unwrap();
        assert_eq!(http.trusting(foreign.as_bytes()).unwrap_err(), InvalidEndpoint::NoTls);
    }

    #[tokio::test]
    async fn a_bearer_token_goes_with_the_request_and_is_shown_nowhere() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint: Endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let endpoint = endpoint.with_bearer("s3cret.token").unwrap();
        assert!(!format!("{endpoint:?}").contains("s3cret"));
        let asked = tokio::spawn(async move { endpoint.get("/x").await });
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let length = stream.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        assert!(request.contains("authorization: Bearer s3cret.token\r\n"), "{request}");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert_eq!(asked.await.unwrap().unwrap().status, StatusCode::OK);
        for token in ["", "two words", "line\r\nhost: other", "é"] {
            let endpoint: Endpoint = "http://127.0.0.1".parse().unwrap();
            assert_eq!(endpoint.with_bearer(token).unwrap_err(), InvalidEndpoint::Token, "{token:?}");
        }
    }

    #[test]
    fn an_endpoint_is_shown_without_what_may_be_a_key() {
        let endpoint: Endpoint = "https://rpc.example:8443/v2/secret?key=secret".parse().unwrap();
        assert_eq!((endpoint.authority(), endpoint.port), ("rpc.example:8443", 8443));
        assert!(!format!("{endpoint:?}").contains("secret"));
    }

    #[test]
    fn ports_follow_from_the_scheme_and_brackets_are_no_part_of_a_host() {
        let port = |text: &str| text.parse::<Endpoint>().unwrap().port;
        assert_eq!((port("https://a.example"), port("http://10.0.0.7/x")), (443, 80));
        assert_eq!("http://[::1]:8545".parse::<Endpoint>().unwrap().host, "::1");
    }

    #[test]
    fn this_machine_is_near_however_it_is_written() {
        for (text, host) in [
            ("HTTP://LOCALHOST:8545", "localhost"),
            ("http://localhost.:8545/x", "localhost"),
            ("http://LocalHost", "localhost"),
            ("http://[::ffff:127.0.0.1]:8545", "::ffff:127.0.0.1"),
            ("http://[::ffff:10.1.2.3]", "::ffff:10.1.2.3"),
            ("http://127.8.9.1", "127.8.9.1"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().host, host, "{text}");
        }
        for text in [
            "http://localhost..",
            "http://localhost.example.",
            "http://notlocalhost",
            "http://[::ffff:8.8.8.8]",
            "http://[::127.0.0.1]",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap_err(), InvalidEndpoint::Plain, "{text}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        let refused = |text: &str| text.parse::<Endpoint>().unwrap_err();
        for text in ["", "/tx", "https://", "http://a b", "http://127.0.0.1:99999", "http://localhost:"] {
            assert_eq!(refused(text), InvalidEndpoint::Syntax, "{text}");
        }
        for text in ["ftp://a.example", "ws://a.example/x"] {
            assert_eq!(refused(text), InvalidEndpoint::Scheme, "{text}");
        }
        for text in
            ["http://a.example", "http://8.8.8.8:8545", "http://localhost.example", "http://[2001:db8::1]"]
        {
            assert_eq!(refused(text), InvalidEndpoint::Plain, "{text}");
        }
        assert_eq!(refused("https://me:word@a.example"), InvalidEndpoint::Credentials);
        assert_eq!(refused("https://a..example"), InvalidEndpoint::Host);
    }
}
