//! What the stand-in holds, and the rules of versions and locks. Synchronous; the time is handed in.
//!
//! It must never remove, or release early, what a COMPLIANCE lock holds, whoever asks.

use std::collections::BTreeMap;

use bytes::Bytes;
use ceremonies::ids::UnixMillis;
use s3s::{S3Result, s3_error};

use super::Bucket;

/// One version of an object, or the mark that it was deleted.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) id: String,
    pub(super) made: UnixMillis,
    /// None for the mark.
    pub(super) object: Option<Object>,
}

/// What was stored.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) bytes: Bytes,
    /// SHA-256 in base64.
    pub(super) checksum: String,
    /// When its COMPLIANCE lock ends, if it has one.
    pub(super) locked_until: Option<UnixMillis>,
}

/// A lock as somebody asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Retention {
    Compliance(UnixMillis),
    /// What the owner could lift, or no lock at all.
    Less,
}

/// A bucket and all versions in it, by key, oldest first.
pub(super) struct Contents {
    bucket: Bucket,
    versions: BTreeMap<String, Vec<Version>>,
}

impl Contents {
    pub(super) fn new(bucket: Bucket) -> Self {
        Self { bucket, versions: BTreeMap::new() }
    }

    pub(super) fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Stores a version and returns its id.
    pub(super) fn put(
        &mut self,
        key: &str,
        object: Object,
        must_be_new: bool,
        now: UnixMillis,
    ) -> S3Result<String> {
        if !self.bucket.versioned {
            return Err(s3_error!(NotImplemented, "this stand-in supports versioned buckets only"));
        }
        if let Some(until) = object.locked_until {
            if !self.bucket.locks {
                return Err(s3_error!(InvalidRequest, "Bucket is missing Object Lock Configuration"));
            }
            must_be_future(until, now)?;
        }
        if must_be_new && self.latest(key).is_some_and(|latest| latest.object.is_some()) {
            return Err(s3_error!(PreconditionFailed, "At least one of the preconditions did not hold"));
        }
        Ok(self.append(key, Some(object), now))
    }

    /// A version, or the latest where none is named.
    pub(super) fn get(&self, key: &str, id: Option<&str>) -> S3Result<(&Version, &Object)> {
        let found = match id {
            None => self.latest(key).ok_or_else(|| s3_error!(NoSuchKey))?,
            Some(id) => {
                let found = self.all(key).iter().find(|version| version.id == id);
                found.ok_or_else(|| s3_error!(NoSuchVersion))?
            }
        };
        let object = found.object.as_ref().ok_or_else(|| s3_error!(NoSuchKey, "it was deleted"))?;
        Ok((found, object))
    }

    /// Changes a lock, if that releases nothing earlier.
    pub(super) fn retain(
        &mut self,
        key: &str,
        id: Option<&str>,
        retention: &Retention,
        now: UnixMillis,
    ) -> S3Result<()> {
        if !self.bucket.locks {
            return Err(s3_error!(InvalidRequest, "Bucket is missing Object Lock Configuration"));
        }
        let id = self.get(key, id)?.0.id.clone();
        let versions = self.versions.get_mut(key).into_iter().flatten();
        let object = versions.filter(|version| version.id == id).find_map(|version| version.object.as_mut());
        let object = object.ok_or_else(|| s3_error!(NoSuchVersion))?;
        let held = object.locked_until.filter(|until| *until > now);
        match (held, retention) {
            (Some(held), Retention::Compliance(until)) if *until < held => Err(locked()),
            (Some(_), Retention::Less) => Err(locked()),
            (_, Retention::Compliance(until)) => {
                must_be_future(*until, now)?;
                object.locked_until = Some(*until);
                Ok(())
            }
            (None, Retention::Less) => {
                Err(s3_error!(NotImplemented, "this stand-in supports COMPLIANCE only"))
            }
        }
    }

    /// Deletes a version that no lock holds; without one named, only marks the object as deleted. Returns
    /// the version's id, and whether it is a mark.
    pub(super) fn delete(
        &mut self,
        key: &str,
        id: Option<&str>,
        now: UnixMillis,
    ) -> S3Result<(String, bool)> {
        let Some(id) = id else {
            return Ok((self.append(key, None, now), true));
        };
        let versions = self.versions.entry(key.to_owned()).or_default();
        let Some(at) = versions.iter().position(|version| version.id == id) else {
            return Ok((id.to_owned(), false));
        };
        let lock = versions[at].object.as_ref().and_then(|object| object.locked_until);
        if lock.is_some_and(|until| until > now) {
            return Err(locked());
        }
        Ok((id.to_owned(), versions.remove(at).object.is_none()))
    }

    /// Turns versions on; with locks they are never off again.
    pub(super) fn set_versioned(&mut self, versioned: bool) -> S3Result<()> {
        if self.bucket.locks && !versioned {
            return Err(s3_error!(
                InvalidBucketState,
                "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed."
            ));
        }
        self.bucket.versioned = versioned;
        Ok(())
    }

    /// All versions of the keys that begin with `prefix`, the newest of each key first.
    pub(super) fn list<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Version, bool)> {
        let keys = self.versions.iter().filter(move |(key, _)| key.starts_with(prefix));
        keys.flat_map(|(key, versions)| {
            let newest_first = versions.iter().rev().enumerate();
            newest_first.map(move |(age, version)| (key.as_str(), version, age == 0))
        })
    }

    fn append(&mut self, key: &str, object: Option<Object>, made: UnixMillis) -> String {
        let id = format!("{:032x}", rand::random::<u128>());
        self.versions.entry(key.to_owned()).or_default().push(Version { id: id.clone(), made, object });
        id
    }

    fn all(&self, key: &str) -> &[Version] {
        self.versions.get(key).map_or(&[], Vec::as_slice)
    }

    fn latest(&self, key: &str) -> Option<&Version> {
        self.all(key).last()
    }
}

fn must_be_future(until: UnixMillis, now: UnixMillis) -> S3Result<()> {
    if until > now {
        Ok(())
    } else {
        Err(s3_error!(InvalidArgument, "The retain until date must be in the future!"))
    }
}

fn locked() -> s3s::S3Error {
    s3_error!(AccessDenied, "Access Denied because object protected by object lock.")
}
