//! What an agent could try by itself: it holds the role's credentials and carries every byte, but is no
//! enclave.

use std::fmt;
use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::{BehaviorVersion, Region};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use enclave::kms::Clock;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{HOST as KMS_HOST, KEY, Lab, REGION, SECRET, context};

type Tamper = Arc<dyn Fn(&mut Request<Bytes>) + Send + Sync>;

/// Sends requests to the lab's KMS as they are signed, or changed afterwards.
#[derive(Clone)]
struct Carrier {
    addr: std::net::SocketAddr,
    tls: TlsConnector,
    tamper: Tamper,
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Carrier")
    }
}

impl HttpConnector for Carrier {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let carrier = self.clone();
        HttpConnectorFuture::new(async move { Ok(carrier.send(request).await) })
    }
}

impl Carrier {
    async fn send(&self, request: HttpRequest) -> HttpResponse {
        let (mut parts, body) = request.try_into_http1x().unwrap().into_parts();
        parts.uri = "/".parse().unwrap();
        parts.headers.insert(HOST, HeaderValue::from_static(KMS_HOST));
        let body = Bytes::copy_from_slice(body.bytes().unwrap());
        let mut request = Request::from_parts(parts, body);
        (self.tamper)(&mut request);

        let stream = TcpStream::connect(self.addr).await.unwrap();
        let stream = self.tls.connect(ServerName::try_from(KMS_HOST).unwrap(), stream).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (parts, body) = sender.send_request(request.map(Full::new)).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        HttpResponse::try_from(Response::from_parts(parts, SdkBody::from(body))).unwrap()
    }
}

fn agent(lab: &Lab, tamper: Tamper) -> aws_sdk_kms::Client {
    let mut roots = RootCertStore::empty();
    roots.add(lab.kms.root().certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let carrier = Carrier { addr: lab.kms.addr(), tls: TlsConnector::from(Arc::new(tls)), tamper };
    let carrier = SharedHttpConnector::new(carrier);
    let time = lab.time.clone();
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(format!("https://{KMS_HOST}"))
        .credentials_provider(Credentials::from_keys("AKIDNODE1", SECRET, Some("token".to_owned())))
        .time_source(Clock::new(move || time.now()))
        .http_client(http_client_fn(move |_, _| carrier.clone()))
        .retry_config(RetryConfig::disabled())
        .build();
    aws_sdk_kms::Client::from_conf(config)
}

fn honest() -> Tamper {
    Arc::new(|_| {})
}

fn code<T, E: ProvideErrorMetadata, R>(answer: Result<T, SdkError<E, R>>) -> String {
    answer.err().and_then(|error| error.code().map(str::to_owned)).unwrap_or_else(|| "no refusal".to_owned())
}

#[tokio::test]
async fn agent_with_the_role_but_no_enclave_gets_no_key() {
    let lab = Lab::start().await;
    let data_key = lab.client().generate_data_key(lab.document(1), &context()).await.unwrap();
    let agent = agent(&lab, honest());
    let context = Some(context().encryption_context());

    let made = agent.generate_data_key().key_id(KEY).key_spec(DataKeySpec::Aes256);
    assert_eq!(code(made.set_encryption_context(context.clone()).send().await), "AccessDeniedException");
    assert!(lab.last_refusal().contains("NeverWithoutAttestation"), "{}", lab.last_refusal());
    let opened = agent.decrypt().ciphertext_blob(Blob::new(data_key.wrapped.clone()));
    assert_eq!(code(opened.set_encryption_context(context.clone()).send().await), "AccessDeniedException");
    let wrapped = agent.encrypt().key_id(KEY).plaintext(Blob::new([1; 32]));
    assert_eq!(code(wrapped.set_encryption_context(context).send().await), "AccessDeniedException");
    let moved = agent.re_encrypt().ciphertext_blob(Blob::new(data_key.wrapped)).destination_key_id(KEY);
    assert_eq!(code(moved.send().await), "AccessDeniedException");
    let lent = agent.create_grant().key_id(KEY).grantee_principal("arn:aws:iam::111122223333:role/other");
    assert_eq!(code(lent.operations("Decrypt".into()).send().await), "AccessDeniedException");
}

#[tokio::test]
async fn policy_without_conditions_gives_keys_in_clear() {
    let open = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*",
    }});
    let lab = Lab::with_policy(open).await;
    let agent = agent(&lab, honest());
    let made = agent.generate_data_key().key_id(KEY).key_spec(DataKeySpec::Aes256).send().await.unwrap();
    let opened = agent.decrypt().ciphertext_blob(made.ciphertext_blob.unwrap()).send().await.unwrap();
    assert_eq!(made.plaintext.unwrap(), opened.plaintext.unwrap());
    assert_eq!(code(agent.list_keys().send().await), "UnsupportedOperationException");
    let other = agent.generate_data_key().key_id("another").key_spec(DataKeySpec::Aes256);
    assert_eq!(code(other.send().await), "NotFoundException");
}

#[tokio::test]
async fn request_changed_after_it_was_signed_is_refused() {
    let open = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*",
    }});
    let lab = Lab::with_policy(open).await;
    let set = |name: &'static str, value: &'static str| -> Tamper {
        Arc::new(move |request| {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        })
    };
    let later = lab.time.clone();
    let cases: [(&str, Tamper, &str); 9] = [
        ("nothing", honest(), "no refusal"),
        (
            "body",
            Arc::new(|request| {
                let body = String::from_utf8(request.body().to_vec()).unwrap();
                assert!(body.contains("AES_256"));
                *request.body_mut() = body.replace("AES_256", "AES_128").into();
            }),
            "InvalidSignatureException",
        ),
        ("action", set("x-amz-target", "TrentService.Decrypt"), "InvalidSignatureException"),
        ("host", set("host", "kms.us-east-1.lab.internal"), "InvalidSignatureException"),
        ("date", set("x-amz-date", "20261118T000000Z"), "InvalidSignatureException"),
        ("header", set("x-amz-unsigned", "1"), "InvalidSignatureException"),
        ("token", set("x-amz-security-token", "another"), "UnrecognizedClientException"),
        (
            "signature",
            Arc::new(|request| drop(request.headers_mut().remove(AUTHORIZATION))),
            "IncompleteSignature",
        ),
        ("time", Arc::new(move |_| later.advance(5 * 60 * 1000 + 1000)), "InvalidSignatureException"),
    ];
    for (changed, tamper, expected) in cases {
        let agent = agent(&lab, tamper);
        let made = agent.generate_data_key().key_id(KEY).key_spec(DataKeySpec::Aes256).send().await;
        assert_eq!(code(made), expected, "{changed} changed: {:?}", lab.kms.audit().pop());
    }
}
