//! AWS Signature Version 4, the verifier's side: who sent a request, unchanged and just now.
//!
//! It must never base a decision on a header that the signature does not cover.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use ceremonies::ids::UnixMillis;
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::http::request::Parts;
use jiff::Timestamp;
use jiff::fmt::strtime;

/// How far a request's time may be from the server's, as at AWS.
const MAX_SKEW_MS: u64 = 5 * 60 * 1000;
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// An access key of the lab, and whose it is.
#[derive(Clone)]
pub struct Credential {
    /// The access key's id.
    pub access_key_id: String,
    /// The secret that requests are signed with.
    pub secret_access_key: String,
    /// The token that goes with temporary credentials.
    pub session_token: Option<String>,
    /// The ARN of the role or user it belongs to.
    pub principal: String,
}

/// Why a request is not authenticated, by AWS's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureError {
    /// No signature, or not a complete one.
    Incomplete(&'static str),
    /// An access key or token that is not known.
    UnknownKey,
    /// A signature of other bytes, by another secret, or of another time.
    Invalid(&'static str),
}

/// Finds whose request this is.
///
/// # Errors
/// [`SignatureError`] unless one of the `credentials` signed exactly this request for this region, now.
pub fn authenticate<'a>(
    parts: &Parts,
    body: &[u8],
    credentials: &'a [Credential],
    region: &str,
    now: UnixMillis,
) -> Result<&'a Credential, SignatureError> {
    use SignatureError::{Incomplete, Invalid, UnknownKey};
    let authorization =
        header(&parts.headers, AUTHORIZATION.as_str()).ok_or(Incomplete("no Authorization"))?;
    let fields = authorization.strip_prefix(ALGORITHM).ok_or(Incomplete("another algorithm"))?;
    let field = |name: &str| fields.split(',').find_map(|field| field.trim().strip_prefix(name));
    let (Some(credential), Some(signed_headers), Some(signature)) =
        (field("Credential="), field("SignedHeaders="), field("Signature="))
    else {
        return Err(Incomplete("Credential, SignedHeaders or Signature is missing"));
    };
    let (key_id, scope) = credential.split_once('/').ok_or(Incomplete("no scope"))?;
    let known = credentials.iter().find(|known| known.access_key_id == key_id).ok_or(UnknownKey)?;
    if header(&parts.headers, "x-amz-security-token") != known.session_token.as_deref() {
        return Err(UnknownKey);
    }

    let time = header(&parts.headers, "x-amz-date").ok_or(Incomplete("no X-Amz-Date"))?;
    let date = time.get(..8).ok_or(Invalid("unreadable date"))?;
    if scope != format!("{date}/{region}/kms/aws4_request") {
        return Err(Invalid("signed for another day, region or service"));
    }
    let sent = timestamp(time).ok_or(Invalid("unreadable date"))?;
    if sent.since(now).unsigned_abs() > MAX_SKEW_MS {
        return Err(Invalid("signature expired, or not yet current"));
    }

    let names: Vec<&str> = signed_headers.split(';').collect();
    let covered = |name: &str| names.contains(&name);
    let present = parts.headers.keys().map(hyper::header::HeaderName::as_str);
    if !covered("host") || !present.filter(|name| name.starts_with("x-amz-")).all(covered) {
        return Err(Invalid("the signature does not cover host and every x-amz header"));
    }
    let canonical = canonical_request(parts, body, &names).ok_or(Invalid("a signed header is missing"))?;
    let to_sign = format!("{ALGORITHM}\n{time}\n{scope}\n{}", hash(canonical.as_bytes()));

    let secret = format!("AWS4{}", known.secret_access_key);
    let mut key = Key::new(HMAC_SHA256, secret.as_bytes());
    for part in [date, region, "kms", "aws4_request"] {
        key = Key::new(HMAC_SHA256, sign(&key, part.as_bytes()).as_ref());
    }
    let signature = hex::decode(signature).map_err(|_| Invalid("the signature is not hexadecimal"))?;
    verify(&key, to_sign.as_bytes(), &signature).map_err(|_| Invalid("the signature does not match"))?;
    Ok(known)
}

fn canonical_request(parts: &Parts, body: &[u8], names: &[&str]) -> Option<String> {
    let mut headers = String::new();
    for name in names {
        let values = parts.headers.get_all(*name).iter();
        let values = values.map(|value| value.to_str().ok().map(collapse)).collect::<Option<Vec<_>>>()?;
        if values.is_empty() {
            return None;
        }
        headers.extend([name, ":", &values.join(","), "\n"]);
    }
    Some(format!(
        "{}\n{}\n{}\n{headers}\n{}\n{}",
        parts.method,
        parts.uri.path(),
        parts.uri.query().unwrap_or_default(),
        names.join(";"),
        hash(body)
    ))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn collapse(value: &str) -> String {
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

fn timestamp(text: &str) -> Option<UnixMillis> {
    let time = strtime::parse("%Y%m%dT%H%M%SZ", text).ok()?.to_datetime().ok()?;
    let time: Timestamp = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(UnixMillis(time.as_millisecond()))
}
