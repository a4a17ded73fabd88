//! Who may do what in the stand-in: a writer that sees nothing, a reader that changes nothing, an owner.
//!
//! `s3s` verifies the signature; this checks what a signature must cover. Presigned links and version 2 signatures
//! never grant access.

use async_trait::async_trait;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

use super::{Credential, Role};

const ALGORITHM: &str = "AWS4-HMAC-SHA256 ";

/// The credentials there are, and the region that requests are signed for.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) credentials: Vec<Credential>,
    pub(super) region: String,
}

impl Access {
    fn known(&self, key_id: &str) -> S3Result<&Credential> {
        let known = self.credentials.iter().find(|known| known.access_key_id == key_id);
        known.ok_or_else(|| s3_error!(InvalidAccessKeyId))
    }

    /// Checks that the signature was made for this region and covers the host and every `x-amz` header.
    fn is_covered(&self, cx: &S3AccessContext<'_>) -> S3Result<()> {
        let header = cx.headers().get("authorization").and_then(|header| header.to_str().ok());
        let fields = header.and_then(|header| header.strip_prefix(ALGORITHM));
        let fields =
            fields.ok_or_else(|| s3_error!(AccessDenied, "sign the request itself, with version 4"))?;
        let field = |name: &str| fields.split(',').find_map(|field| field.trim().strip_prefix(name));
        let region = field("Credential=").and_then(|scope| scope.rsplit('/').nth(2));
        if region != Some(self.region.as_str()) {
            return Err(s3_error!(AuthorizationHeaderMalformed, "the region is {}", self.region));
        }
        let names: Vec<&str> = field("SignedHeaders=").unwrap_or_default().split(';').collect();
        let present = cx.headers().keys().map(hyper::header::HeaderName::as_str);
        if names.contains(&"host")
            && present.filter(|name| name.starts_with("x-amz-")).all(|name| names.contains(&name))
        {
            Ok(())
        } else {
            Err(s3_error!(AccessDenied, "There were headers present in the request which were not signed"))
        }
    }
}

impl Role {
    fn may(self, operation: &str) -> bool {
        match self {
            Self::Writer => {
                matches!(operation, "PutObject" | "GetBucketVersioning" | "GetObjectLockConfiguration")
            }
            Self::Reader => {
                matches!(operation, "GetObject" | "HeadObject" | "ListObjectVersions" | "GetObjectRetention")
            }
            Self::Owner => true,
        }
    }
}

#[async_trait]
impl S3Auth for Access {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(SecretKey::from(self.known(access_key)?.secret_access_key.as_str()))
    }
}

#[async_trait]
impl S3Access for Access {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let caller = cx.credentials().ok_or_else(|| s3_error!(AccessDenied, "the request is not signed"))?;
        let caller = self.known(&caller.access_key)?;
        self.is_covered(cx)?;
        let operation = cx.s3_op().name();
        let allowed = caller.role.may(operation);
        tracing::info!(operation, role = ?caller.role, allowed, "lab S3");
        if allowed {
            Ok(())
        } else {
            Err(s3_error!(AccessDenied, "{:?} may not do {operation}", caller.role))
        }
    }
}
