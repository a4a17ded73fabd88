//! A wallet's generation: the public outcome of a key generation, checked to be one sharing of one key.
//!
//! The digest of a [`Record`] is what all enclaves sign to commit. Bytes whose shares do not interpolate everywhere
//! never become one.

use std::collections::BTreeMap;
use std::fmt;

use prost::Message;
use thiserror::Error;

use crate::curve::{self, InvalidPoint, Point};
use crate::ids::{
    CeremonyId, ClusterId, Generation, Hash, InvalidId, Line, NodeIndex, UnixMillis, WalletName,
};
use crate::manifest::Manifest;
use crate::subsets::Subset;
use crate::wire;
pub use crate::wire::log::Scheme;

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dkls23Secp256k1 => f.write_str("DKLs23, ECDSA on secp256k1"),
        }
    }
}

/// Why bytes are not a generation record.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// Not the message.
    #[error("generation record cannot be decoded")]
    Encoding,
    /// Another version.
    #[error("generation record has version {0}; this build reads version 1")]
    Version(u32),
    /// A scheme that this build does not know.
    #[error("generation record is of signature scheme {0}, which this build does not know")]
    Scheme(i32),
    /// A field is not what it must be.
    #[error("generation record contains a malformed name or value")]
    Field(#[from] InvalidId),
    /// Not a point of the curve.
    #[error("generation record has a key or public share that is not a point on secp256k1")]
    Point(#[from] InvalidPoint),
    /// The public shares are not one per node, in order.
    #[error(
        "generation record has {shares} public shares for a threshold of {threshold}, or lists a node twice"
    )]
    Shares {
        /// How many public shares there are.
        shares: usize,
        /// The threshold.
        threshold: u32,
    },
    /// Some t public shares give another key.
    #[error(
        "the public share of node {0} does not lie on the polynomial of the others: the shares are not of one key"
    )]
    Inconsistent(NodeIndex),
    /// The polynomial does not meet the public key.
    #[error("the public shares do not interpolate to the public key")]
    Key,
}

/// What a session that makes shares gives, the same to each of its parties: a sharing of one key.
#[derive(Debug, Clone)]
pub struct Sharing {
    /// The scheme that the shares are made for.
    pub scheme: Scheme,
    /// The key.
    pub public_key: Point,
    /// BIP-32 chain code.
    pub chain_code: Hash,
    /// `share·G` of every node.
    pub public_shares: BTreeMap<NodeIndex, Point>,
    /// The protocol session.
    pub session: Hash,
    /// Hash of everything broadcast in the session.
    pub transcript: Hash,
}

impl Sharing {
    /// The encoded [`Record`] of the generation that this manifest makes, with the hash of the attested enclave keys.
    /// Nothing is checked yet.
    #[must_use]
    pub fn record(&self, manifest: &Manifest, enclaves: &Hash) -> Vec<u8> {
        let share = |(node, point): (&NodeIndex, &Point)| wire::log::PublicShare {
            node: (*node).into(),
            point: point.as_bytes().to_vec(),
        };
        wire::log::GenerationRecord {
            version: wire::VERSION,
            cluster: manifest.cluster.to_string(),
            ceremony: manifest.ceremony.to_string(),
            manifest: manifest.hash().as_bytes().to_vec(),
            wallet: manifest.wallet.to_string(),
            generation: manifest.generation.0,
            threshold: manifest.threshold.into(),
            public_key: self.public_key.as_bytes().to_vec(),
            chain_code: self.chain_code.as_bytes().to_vec(),
            public_shares: self.public_shares.iter().map(share).collect(),
            session: self.session.as_bytes().to_vec(),
            transcript: self.transcript.as_bytes().to_vec(),
            enclaves: enclaves.as_bytes().to_vec(),
            scheme: self.scheme.into(),
        }
        .encode_to_vec()
    }
}

/// The validated public outcome of a key generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    bytes: Vec<u8>,
    digest: Hash,
    /// The cluster that holds the shares.
    pub cluster: ClusterId,
    /// The ceremony that made them.
    pub ceremony: CeremonyId,
    /// Hash of that ceremony's manifest.
    pub manifest: Hash,
    /// The wallet.
    pub wallet: WalletName,
    /// The scheme that its shares are made for.
    pub scheme: Scheme,
    /// The generation of its shares.
    pub generation: Generation,
    /// How many sign (t).
    pub threshold: u8,
    /// The wallet's public key.
    pub public_key: Point,
    /// BIP-32 chain code.
    pub chain_code: Hash,
    /// `share·G` of every node.
    pub public_shares: BTreeMap<NodeIndex, Point>,
    /// The protocol session.
    pub session: Hash,
    /// Hash of everything broadcast in the session.
    pub transcript: Hash,
    /// Hash of the attested enclave keys.
    pub enclaves: Hash,
}

impl Record {
    /// Decodes and checks a record: every t-subset of the public shares interpolates to the public key.
    ///
    /// # Errors
    /// [`RecordError`] says which part is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let wire = wire::log::GenerationRecord::decode(bytes).map_err(|_| RecordError::Encoding)?;
        if wire.version != wire::VERSION {
            return Err(RecordError::Version(wire.version));
        }
        let scheme = Scheme::try_from(wire.scheme).map_err(|_| RecordError::Scheme(wire.scheme))?;
        let mut public_shares = BTreeMap::new();
        for share in &wire.public_shares {
            public_shares.insert(NodeIndex::try_from(share.node)?, Point::decode(&share.point)?);
        }
        let shares = || RecordError::Shares { shares: wire.public_shares.len(), threshold: wire.threshold };
        let threshold = u8::try_from(wire.threshold).map_err(|_| shares())?;
        if public_shares.len() != wire.public_shares.len()
            || threshold < 2
            || usize::from(threshold) > public_shares.len()
        {
            return Err(shares());
        }
        let record = Self {
            digest: Self::digest_of(bytes),
            bytes: bytes.to_vec(),
            cluster: wire.cluster.try_into()?,
            ceremony: wire.ceremony.try_into()?,
            manifest: wire.manifest.as_slice().try_into()?,
            wallet: wire.wallet.try_into()?,
            scheme,
            generation: Generation(wire.generation),
            threshold,
            public_key: Point::decode(&wire.public_key)?,
            chain_code: wire.chain_code.as_slice().try_into()?,
            public_shares,
            session: wire.session.as_slice().try_into()?,
            transcript: wire.transcript.as_slice().try_into()?,
            enclaves: wire.enclaves.as_slice().try_into()?,
        };
        record.check_one_polynomial()?;
        Ok(record)
    }

    /// The digest of the record with these bytes, if they are one.
    #[must_use]
    pub fn digest_of(bytes: &[u8]) -> Hash {
        Hash::of_parts("custody/generation-record/v1", &[bytes])
    }

    /// All n points lie on one polynomial of degree t−1 that meets the public key at 0. That holds exactly
    /// when each node's point follows from the first t, and it implies that every t-subset interpolates.
    fn check_one_polynomial(&self) -> Result<(), RecordError> {
        let base: Vec<_> = self.public_shares.keys().copied().take(usize::from(self.threshold)).collect();
        let base = Subset::new(base);
        for (node, share) in &self.public_shares {
            if !base.contains(*node) && self.interpolate(&base, node.get()) != Some(*share) {
                return Err(RecordError::Inconsistent(*node));
            }
        }
        if self.interpolate(&base, 0) == Some(self.public_key) { Ok(()) } else { Err(RecordError::Key) }
    }

    /// The value at `x` of the polynomial through this subset's public shares; at 0, the public key as
    /// these parties alone would rebuild it. None when a party has no share or the value is infinity.
    #[must_use]
    pub fn interpolate(&self, subset: &Subset, x: u8) -> Option<Point> {
        curve::interpolate(&self.public_shares, subset, x)
    }

    /// The bytes that were hashed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the enclaves sign to commit.
    #[must_use]
    pub fn digest(&self) -> Hash {
        self.digest
    }

    /// The nodes that hold shares.
    #[must_use]
    pub fn roster(&self) -> Vec<NodeIndex> {
        self.public_shares.keys().copied().collect()
    }

    /// What people compare by ear and eye: a hash of key, shares and chain code.
    #[must_use]
    pub fn fingerprint(&self) -> Hash {
        Hash::of_parts("custody/wallet-fingerprint/v1", &[self.digest.as_bytes()])
    }
}

/// What each enclave signs under `Prepared`: the record all have in common and its own sealed share.
#[must_use]
pub fn prepared_message(record: &Hash, node: NodeIndex, blob: &Hash) -> Hash {
    Hash::of_parts("custody/prepared/v1", &[record.as_bytes(), &[node.get()], blob.as_bytes()])
}

/// What each enclave signs under `BackedUp`: the digests of the whole share's backup and of the root share's.
#[must_use]
pub fn backed_up_message(record: &Hash, node: NodeIndex, whole: &Hash, root: &Hash) -> Hash {
    let parts = [record.as_bytes().as_slice(), &[node.get()], whole.as_bytes(), root.as_bytes()];
    Hash::of_parts("custody/backed-up/v1", &parts)
}

/// What each enclave signs under `Proved`.
#[must_use]
pub fn proved_message(manifest: &Hash, node: NodeIndex, object: &Hash, point: &Point) -> Hash {
    let parts = [manifest.as_bytes().as_slice(), &[node.get()], object.as_bytes(), point.as_bytes()];
    Hash::of_parts("custody/proved/v1", &parts)
}

/// What a backup's file key is bound to when it is sealed for an enclave.
#[must_use]
pub fn release_info(manifest: &Hash, node: NodeIndex, object: &Hash) -> Hash {
    let parts = [manifest.as_bytes().as_slice(), &[node.get()], object.as_bytes()];
    Hash::of_parts("custody/file-key/v1", &parts)
}

/// What each enclave signs under `Staged`.
#[must_use]
pub fn staged_message(record: &Hash, node: NodeIndex, blob: &Hash) -> Hash {
    Hash::of_parts("custody/staged/v1", &[record.as_bytes(), &[node.get()], blob.as_bytes()])
}

/// What the enclave of a node that had lost its share signs under `Recovered`.
#[must_use]
pub fn recovered_message(manifest: &Hash, node: NodeIndex) -> Hash {
    Hash::of_parts("custody/recovered/v1", &[manifest.as_bytes(), &[node.get()]])
}

/// What each enclave signs under `Retired`: that it has forgotten its shares of the generations before this record.
#[must_use]
pub fn retired_message(record: &Hash, node: NodeIndex) -> Hash {
    Hash::of_parts("custody/retired/v1", &[record.as_bytes(), &[node.get()]])
}

/// An object where backups are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name there.
    pub key: Line,
    /// The version it was given.
    pub version: Line,
    /// SHA-256 of its bytes.
    pub digest: Hash,
    /// Until then nobody can delete it.
    pub locked_until: UnixMillis,
}

/// One node's backups of a new share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    /// Whose share.
    pub node: NodeIndex,
    /// The whole share: restored, it signs at once.
    pub whole: Object,
    /// The root share alone, small enough for paper: restored, it can be refreshed.
    pub root: Object,
    /// By the enclave, over the digests.
    pub signature: [u8; 64],
}

/// A committed generation: the record, and for each node the digest of the sealed share it prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wallet {
    /// The public outcome.
    pub record: Record,
    /// SHA-256 of each node's sealed share, as its enclave signed it in the commit certificate.
    pub blobs: BTreeMap<NodeIndex, Hash>,
    /// Each node's backups, as far as they are written.
    pub backups: BTreeMap<NodeIndex, BackedUp>,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use k256::elliptic_curve::group::GroupEncoding as _;
    use k256::{ProjectivePoint, Scalar};

    use super::*;

    /// A sharing of 7 + 3x + 5x².
    fn record(shares: &[(u32, u64)]) -> wire::log::GenerationRecord {
        let point =
            |value: u64| (ProjectivePoint::GENERATOR * Scalar::from(value)).to_affine().to_bytes().to_vec();
        wire::log::GenerationRecord {
            version: 1,
            cluster: "c".into(),
            ceremony: "dkg-w".into(),
            manifest: vec![1; 32],
            wallet: "w".into(),
            generation: 1,
            threshold: 3,
            public_key: point(7),
            chain_code: vec![2; 32],
            public_shares: shares
                .iter()
                .map(|(node, value)| wire::log::PublicShare { node: *node, point: point(*value) })
                .collect(),
            session: vec![3; 32],
            transcript: vec![4; 32],
            enclaves: vec![5; 32],
            scheme: 0,
        }
    }

    const SHARES: [(u32, u64); 5] = [(1, 15), (2, 33), (3, 61), (4, 99), (5, 147)];

    #[test]
    fn every_subset_of_a_sharing_gives_the_key() {
        let record = Record::parse(&record(&SHARES).encode_to_vec()).unwrap();
        for subset in crate::subsets::subsets(&record.roster(), 3) {
            assert_eq!(record.interpolate(&subset, 0), Some(record.public_key), "{subset}");
        }
    }

    #[test]
    fn a_share_off_the_polynomial_is_named() {
        let mut shares = SHARES;
        shares[4].1 += 1;
        let error = Record::parse(&record(&shares).encode_to_vec()).unwrap_err();
        assert_eq!(error, RecordError::Inconsistent(NodeIndex::new(5).unwrap()));
    }

    #[test]
    fn a_sharing_of_another_key_is_refused() {
        let mut other = record(&SHARES);
        other.public_key = other.public_shares[0].point.clone();
        assert_eq!(Record::parse(&other.encode_to_vec()).unwrap_err(), RecordError::Key);
    }

    #[test]
    fn record_that_names_no_scheme_is_of_the_first_and_one_of_an_unknown_scheme_is_refused() {
        let named = record(&SHARES);
        assert_eq!(Record::parse(&named.encode_to_vec()).unwrap().scheme, Scheme::Dkls23Secp256k1);
        for unknown in [1, -1, i32::MAX] {
            let other = wire::log::GenerationRecord { scheme: unknown, ..named.clone() };
            assert_ne!(other.encode_to_vec(), named.encode_to_vec());
            assert_eq!(Record::parse(&other.encode_to_vec()).unwrap_err(), RecordError::Scheme(unknown));
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        let mut doubled = SHARES;
        doubled[1].0 = 1;
        assert!(Record::parse(&record(&doubled).encode_to_vec()).is_err());
        assert!(Record::parse(&record(&SHARES[..2]).encode_to_vec()).is_err());
        let mut infinite = record(&SHARES);
        infinite.public_key = vec![0; 33];
        assert_eq!(Record::parse(&infinite.encode_to_vec()).unwrap_err(), RecordError::Point(InvalidPoint));
        assert_eq!(Record::parse(&[0xff; 40]).unwrap_err(), RecordError::Encoding);
    }
}
