//! An impostor in the provider's place, whose answers a vault must not rely on.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use node::vault::{Vault, VaultError};
use tokio::net::TcpListener;

use super::{DAY, checksum, key, now, vault};

const VERSIONED: &str = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
const SUSPENDED: &str = "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>";
const LOCKED: &str =
    "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";

/// What is answered to reading the versions, and to every write.
#[derive(Clone, Copy)]
struct Answers {
    versioning: &'static str,
    headers: &'static [(&'static str, &'static str)],
}

async fn answer(request: Request<Incoming>, answers: Answers) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    body.collect().await.unwrap();
    let query = parts.uri.query().unwrap_or_default();
    let body = match parts.method {
        Method::PUT => "",
        _ if query.contains("versioning") => answers.versioning,
        _ => LOCKED,
    };
    let mut response = Response::builder();
    if parts.method == Method::PUT {
        for (name, value) in answers.headers {
            response = response.header(*name, *value);
        }
    }
    Ok(response.body(Full::from(body)).unwrap())
}

/// A vault whose provider answers so, until the test ends.
async fn answered(dir: &tempfile::TempDir, answers: Answers) -> Vault {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request| answer(request, answers));
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    vault(dir.path(), &url, "locked", "writer", "secret")
}

#[tokio::test]
async fn a_provider_that_stores_what_does_not_match_or_keeps_no_versions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = Answers { versioning: VERSIONED, headers: &[("x-amz-version-id", "one")] };

    let unchecked = answered(&dir, good).await.preflight().await.unwrap_err();
    assert!(matches!(unchecked, VaultError::Unchecked(_)), "{unchecked}");
    let suspended = Answers { versioning: SUSPENDED, ..good };
    let suspended = answered(&dir, suspended).await.preflight().await.unwrap_err();
    assert!(matches!(suspended, VaultError::Unversioned(_)), "{suspended}");
    let unreadable = Answers { versioning: "<html>proxy</html>", ..good };
    let unreadable = answered(&dir, unreadable).await.preflight().await.unwrap_err();
    assert!(matches!(&unreadable, VaultError::Refused { code, .. } if code == "HTTP 200"), "{unreadable}");
}

#[tokio::test]
async fn an_answer_without_a_version_or_about_other_bytes_is_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let other: &'static str = checksum(b"another").leak();
    let headers: [&'static [(&str, &str)]; 3] = [
        &[],
        &[("x-amz-version-id", "null")],
        Vec::leak(vec![("x-amz-version-id", "one"), ("x-amz-checksum-sha256", other)]),
    ];
    for headers in headers {
        let vault = answered(&dir, Answers { versioning: VERSIONED, headers }).await;
        let put = vault.put(&key(), b"sealed", now().plus(DAY)).await.unwrap_err();
        assert!(matches!(put, VaultError::Malformed { .. }), "{put}");
    }
}
