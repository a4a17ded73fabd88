//! The stand-in's operations: what S3 puts on the wire for the rules in [`objects`](super::objects).
//!
//! What is not here is not offered: `s3s` answers `NotImplemented`. An option that this server does not honour is
//! refused, never ignored.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use ceremonies::ids::UnixMillis;
use futures_util::TryStreamExt as _;
use s3s::dto::{
    BucketVersioningStatus, DeleteMarkerEntry, DeleteObjectInput, DeleteObjectOutput, ETag, ETagCondition,
    GetBucketVersioningInput, GetBucketVersioningOutput, GetObjectInput, GetObjectLockConfigurationInput,
    GetObjectLockConfigurationOutput, GetObjectOutput, GetObjectRetentionInput, GetObjectRetentionOutput,
    HeadObjectInput, HeadObjectOutput, ListObjectVersionsInput, ListObjectVersionsOutput,
    ObjectLockConfiguration, ObjectLockEnabled, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode,
    ObjectVersion, PutBucketVersioningInput, PutBucketVersioningOutput, PutObjectInput, PutObjectOutput,
    PutObjectRetentionInput, PutObjectRetentionOutput, StreamingBlob, Timestamp, TimestampFormat,
};
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};

use super::Bucket;
use super::objects::{Contents, Object, Retention};
use crate::kms::Clock;

/// Largest object accepted; a backup is some hundred kilobytes.
const MAX_OBJECT: usize = 8 * 1024 * 1024;

/// The server apart from its network.
pub(super) struct Operations {
    buckets: Mutex<BTreeMap<String, Contents>>,
    clock: Clock,
}

impl Operations {
    pub(super) fn new(buckets: Vec<Bucket>, clock: Clock) -> Self {
        let buckets = buckets.into_iter().map(|bucket| (bucket.name.clone(), Contents::new(bucket)));
        Self { buckets: Mutex::new(buckets.collect()), clock }
    }

    /// Does something with a bucket, now.
    fn with<T>(
        &self,
        bucket: &str,
        work: impl FnOnce(&mut Contents, UnixMillis) -> S3Result<T>,
    ) -> S3Result<T> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = buckets.get_mut(bucket).ok_or_else(|| s3_error!(NoSuchBucket))?;
        work(contents, (self.clock)())
    }
}

#[async_trait]
impl S3 for Operations {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        if request.trailing_headers.is_some() {
            return Err(s3_error!(NotImplemented, "this stand-in takes checksums from headers only"));
        }
        let mut input = request.input;
        let bytes = whole(input.body.take()).await?;
        let checksum = BASE64_STANDARD.encode(digest(&SHA256, &bytes));
        is_checked(&input, &checksum)?;
        let locked_until = lock_asked_for(&input)?;
        let must_be_new = must_be_new(&input)?;
        let object = Object { bytes, checksum: checksum.clone(), locked_until };
        let e_tag = Some(e_tag(&object));
        let id =
            self.with(&input.bucket, |contents, now| contents.put(&input.key, object, must_be_new, now))?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag,
            checksum_sha256: Some(checksum),
            version_id: Some(id),
            ..PutObjectOutput::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        if input.range.is_some() || input.part_number.is_some() {
            return Err(s3_error!(NotImplemented, "this stand-in returns whole objects only"));
        }
        self.with(&input.bucket, |contents, _| {
            let (version, object) = contents.get(&input.key, input.version_id.as_deref())?;
            Ok(S3Response::new(GetObjectOutput {
                body: Some(StreamingBlob::from(Body::from(object.bytes.clone()))),
                content_length: Some(length(object)),
                checksum_sha256: Some(object.checksum.clone()),
                e_tag: Some(e_tag(object)),
                last_modified: Some(timestamp(version.made)),
                object_lock_mode: object.locked_until.map(|_| compliance()),
                object_lock_retain_until_date: object.locked_until.map(timestamp),
                version_id: Some(version.id.clone()),
                ..GetObjectOutput::default()
            }))
        })
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        self.with(&input.bucket, |contents, _| {
            let (version, object) = contents.get(&input.key, input.version_id.as_deref())?;
            Ok(S3Response::new(HeadObjectOutput {
                content_length: Some(length(object)),
                e_tag: Some(e_tag(object)),
                last_modified: Some(timestamp(version.made)),
                object_lock_mode: object.locked_until.map(|_| compliance()),
                object_lock_retain_until_date: object.locked_until.map(timestamp),
                version_id: Some(version.id.clone()),
                ..HeadObjectOutput::default()
            }))
        })
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        let (id, is_mark) = self.with(&input.bucket, |contents, now| {
            contents.delete(&input.key, input.version_id.as_deref(), now)
        })?;
        Ok(S3Response::new(DeleteObjectOutput {
            delete_marker: Some(is_mark),
            version_id: Some(id),
            ..DeleteObjectOutput::default()
        }))
    }

    async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let input = request.input;
        if input.key_marker.is_some() || input.delimiter.is_some() || input.max_keys.is_some() {
            return Err(s3_error!(NotImplemented, "this stand-in lists everything at once"));
        }
        self.with(&input.bucket, |contents, _| {
            let (mut versions, mut delete_markers) = (Vec::new(), Vec::new());
            for (key, version, is_latest) in contents.list(input.prefix.as_deref().unwrap_or_default()) {
                let (key, id) = (Some(key.to_owned()), Some(version.id.clone()));
                let (is_latest, made) = (Some(is_latest), Some(timestamp(version.made)));
                match &version.object {
                    Some(object) => versions.push(ObjectVersion {
                        key,
                        version_id: id,
                        is_latest,
                        last_modified: made,
                        e_tag: Some(e_tag(object)),
                        size: Some(length(object)),
                        ..ObjectVersion::default()
                    }),
                    None => delete_markers.push(DeleteMarkerEntry {
                        key,
                        version_id: id,
                        is_latest,
                        last_modified: made,
                        ..DeleteMarkerEntry::default()
                    }),
                }
            }
            Ok(S3Response::new(ListObjectVersionsOutput {
                name: Some(input.bucket.clone()),
                prefix: input.prefix.clone(),
                is_truncated: Some(false),
                versions: Some(versions),
                delete_markers: Some(delete_markers),
                ..ListObjectVersionsOutput::default()
            }))
        })
    }

    async fn get_object_retention(
        &self,
        request: S3Request<GetObjectRetentionInput>,
    ) -> S3Result<S3Response<GetObjectRetentionOutput>> {
        let input = request.input;
        self.with(&input.bucket, |contents, _| {
            let (_, object) = contents.get(&input.key, input.version_id.as_deref())?;
            let until = object.locked_until.ok_or_else(|| s3_error!(NoSuchObjectLockConfiguration))?;
            let mode = ObjectLockRetentionMode::from_static(ObjectLockRetentionMode::COMPLIANCE);
            let retention =
                ObjectLockRetention { mode: Some(mode), retain_until_date: Some(timestamp(until)) };
            Ok(S3Response::new(GetObjectRetentionOutput { retention: Some(retention) }))
        })
    }

    async fn put_object_retention(
        &self,
        request: S3Request<PutObjectRetentionInput>,
    ) -> S3Result<S3Response<PutObjectRetentionOutput>> {
        let input = request.input;
        let asked = input.retention.unwrap_or_default();
        let retention = match (asked.mode, asked.retain_until_date) {
            (Some(mode), Some(until)) if mode.as_str() == ObjectLockRetentionMode::COMPLIANCE => {
                Retention::Compliance(millis(&until)?)
            }
            _ => Retention::Less,
        };
        self.with(&input.bucket, |contents, now| {
            contents.retain(&input.key, input.version_id.as_deref(), &retention, now)
        })?;
        Ok(S3Response::new(PutObjectRetentionOutput::default()))
    }

    async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let versioned = self.with(&request.input.bucket, |contents, _| Ok(contents.bucket().versioned))?;
        let status = versioned.then(|| BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED));
        Ok(S3Response::new(GetBucketVersioningOutput { status, ..GetBucketVersioningOutput::default() }))
    }

    async fn put_bucket_versioning(
        &self,
        request: S3Request<PutBucketVersioningInput>,
    ) -> S3Result<S3Response<PutBucketVersioningOutput>> {
        let input = request.input;
        let status = input.versioning_configuration.status;
        let versioned = status.is_some_and(|status| status.as_str() == BucketVersioningStatus::ENABLED);
        self.with(&input.bucket, |contents, _| contents.set_versioned(versioned))?;
        Ok(S3Response::new(PutBucketVersioningOutput::default()))
    }

    async fn get_object_lock_configuration(
        &self,
        request: S3Request<GetObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
        if !self.with(&request.input.bucket, |contents, _| Ok(contents.bucket().locks))? {
            return Err(s3_error!(ObjectLockConfigurationNotFoundError));
        }
        let enabled = ObjectLockEnabled::from_static(ObjectLockEnabled::ENABLED);
        let locks = ObjectLockConfiguration { object_lock_enabled: Some(enabled), rule: None };
        Ok(S3Response::new(GetObjectLockConfigurationOutput { object_lock_configuration: Some(locks) }))
    }
}

async fn whole(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let mut bytes = BytesMut::new();
    let Some(mut body) = body else { return Ok(Bytes::new()) };
    // `s3s` compares the stream with the hash that the signature covers, and aborts it if they differ.
    let broken = |error| s3_error!(BadDigest, "the body did not arrive complete: {error}");
    while let Some(chunk) = body.try_next().await.map_err(broken)? {
        if bytes.len() + chunk.len() > MAX_OBJECT {
            return Err(s3_error!(EntityTooLarge));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn is_checked(input: &PutObjectInput, checksum: &str) -> S3Result<()> {
    let others =
        [&input.checksum_crc32, &input.checksum_crc32c, &input.checksum_crc64nvme, &input.checksum_sha1];
    if others.iter().any(|other| other.is_some()) || input.content_md5.is_some() {
        return Err(s3_error!(NotImplemented, "this stand-in verifies SHA-256 only"));
    }
    match &input.checksum_sha256 {
        Some(expected) if expected == checksum => Ok(()),
        Some(_) => {
            Err(s3_error!(BadDigest, "The SHA256 you specified did not match the calculated checksum."))
        }
        None if input.object_lock_mode.is_some() => Err(s3_error!(
            InvalidRequest,
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"
        )),
        None => Ok(()),
    }
}

fn lock_asked_for(input: &PutObjectInput) -> S3Result<Option<UnixMillis>> {
    match (&input.object_lock_mode, &input.object_lock_retain_until_date) {
        (None, None) if input.object_lock_legal_hold_status.is_none() => Ok(None),
        (Some(mode), Some(until)) if mode.as_str() == ObjectLockMode::COMPLIANCE => Ok(Some(millis(until)?)),
        (Some(_), None) | (None, Some(_)) => Err(s3_error!(
            InvalidArgument,
            "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied"
        )),
        (None, None) | (Some(_), Some(_)) => {
            Err(s3_error!(NotImplemented, "this stand-in supports COMPLIANCE only"))
        }
    }
}

fn must_be_new(input: &PutObjectInput) -> S3Result<bool> {
    match (&input.if_none_match, &input.if_match) {
        (None, None) => Ok(false),
        (Some(ETagCondition::Any), None) => Ok(true),
        (_, _) => Err(s3_error!(NotImplemented, "this stand-in knows `If-None-Match: *` only")),
    }
}

fn compliance() -> ObjectLockMode {
    ObjectLockMode::from_static(ObjectLockMode::COMPLIANCE)
}

fn e_tag(object: &Object) -> ETag {
    ETag::Strong(object.checksum.clone())
}

fn length(object: &Object) -> i64 {
    i64::try_from(object.bytes.len()).unwrap_or(i64::MAX)
}

fn timestamp(at: UnixMillis) -> Timestamp {
    let since = Duration::from_millis(u64::try_from(at.0).unwrap_or_default());
    Timestamp::from(UNIX_EPOCH + since)
}

fn millis(at: &Timestamp) -> S3Result<UnixMillis> {
    let unreadable = || s3_error!(InvalidArgument, "the date cannot be read");
    let mut text = Vec::new();
    at.format(TimestampFormat::DateTime, &mut text).map_err(|_| unreadable())?;
    let text = std::str::from_utf8(&text).map_err(|_| unreadable())?;
    let at: jiff::Timestamp = text.parse().map_err(|_| unreadable())?;
    Ok(UnixMillis(at.as_millisecond()))
}
