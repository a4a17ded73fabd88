//! A key share: the secret that everything here protects. It is never printed, cloned or compared, leaves this
//! room only to be sealed, backed up, or handed over in a rebuild, and is wiped when dropped.

use std::collections::BTreeMap;

use ceremonies::curve::{Path, Point};
use ceremonies::ids::{Hash, NodeIndex};
use ceremonies::wallet::Record;
use dkls23::protocols::{Parameters, PartyIndex};
use dkls23::secp256k1::{Party, PublicKeyPackage};
use dkls23::utilities::zero_shares::ZeroShare;
use k256::elliptic_curve::group::GroupEncoding;
use k256::{AffinePoint, ProjectivePoint};
use thiserror::Error;
use zeroize::Zeroizing;

use super::messages::index;
use crate::session::{self, ProtocolAbort};

/// Bytes are no share.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the bytes are not a key share in this version's format")]
pub struct ShareError;

/// One party's share of a wallet's key, with its multiplication state.
pub struct KeyShare(pub(super) Party);

impl KeyShare {
    /// The share as bytes to be sealed: postcard of dkls23 0.6.2's `Party`, whose layout is the storage
    /// format.
    ///
    /// # Errors
    /// [`ShareError`] if it cannot be encoded, which only lack of memory could cause.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, ShareError> {
        session::encode(&self.0).map_err(|_| ShareError)
    }

    /// Reads a share that was sealed before.
    ///
    /// # Errors
    /// [`ShareError`] unless the bytes are exactly one share.
    pub fn decode(bytes: &[u8]) -> Result<Self, ShareError> {
        match postcard::take_from_bytes::<Party>(bytes) {
            Ok((party, [])) => Ok(Self(party)),
            Ok(_) | Err(_) => Err(ShareError),
        }
    }

    /// The share of a key below the wallet's (BIP-32, not hardened). It signs, and is never kept.
    ///
    /// # Errors
    /// [`ShareError`] for a path that does not lead to a key; there are practically none.
    pub fn derive(&self, path: &Path) -> Result<Self, ShareError> {
        let derived = self.0.derive_from_path(&path.to_string(), |_| String::new());
        derived.map(Self).map_err(|_| ShareError)
    }

    /// The root share alone: what a complete refresh needs, and too little to sign with. A few hundred bytes.
    #[must_use]
    pub fn root(&self) -> Self {
        let Party { parameters, party_index, session_id, poly_point, pk, derivation_data, .. } = &self.0;
        Self(Party {
            parameters: parameters.clone(),
            party_index: *party_index,
            session_id: session_id.clone(),
            poly_point: *poly_point,
            pk: *pk,
            zero_share: ZeroShare::initialize(Vec::new()),
            mul_senders: BTreeMap::new(),
            mul_receivers: BTreeMap::new(),
            derivation_data: derivation_data.clone(),
            address: String::new(),
        })
    }

    /// `share·G`.
    ///
    /// # Errors
    /// [`ShareError`] for a share that is zero.
    pub fn public_point(&self) -> Result<Point, ShareError> {
        let public = (ProjectivePoint::GENERATOR * self.0.poly_point).to_affine().to_bytes();
        Point::decode(&public).map_err(|_| ShareError)
    }

    /// Whether this is the node's share of this key. [`Self::belongs_to`] checks that it is of the right generation.
    pub(super) fn is_for(&self, node: NodeIndex, public_key: &Point) -> bool {
        self.0.party_index.as_u8() == node.get() && self.0.pk.to_bytes().as_slice() == public_key.as_bytes()
    }

    /// Whether this is the node's share of the recorded generation: same key, chain code and threshold, and `share·G`
    /// is the node's public share. The crate keeps second copies of share and key, for derivation.
    #[must_use]
    pub fn belongs_to(&self, record: &Record, node: NodeIndex) -> bool {
        let public = (ProjectivePoint::GENERATOR * self.0.poly_point).to_affine().to_bytes();
        self.is_for(node, &record.public_key)
            && self.0.parameters.threshold == record.threshold
            && usize::from(self.0.parameters.share_count) == record.public_shares.len()
            && self.0.derivation_data.chain_code == *record.chain_code.as_bytes()
            && self.0.derivation_data.poly_point == self.0.poly_point
            && self.0.derivation_data.pk == self.0.pk
            && self.0.derivation_data.depth == 0
            && record.public_shares.get(&node).is_some_and(|share| public.as_slice() == share.as_bytes())
    }
}

/// What a key generation gives one party: its share, and what all parties can see.
pub struct NewShare<S = KeyShare> {
    /// The secret.
    pub share: S,
    /// The wallet's public key.
    pub public_key: Point,
    /// BIP-32 chain code.
    pub chain_code: Hash,
    /// `share·G` of every party.
    pub public_shares: BTreeMap<NodeIndex, Point>,
}

impl NewShare {
    pub(super) fn new(party: Party, package: &PublicKeyPackage) -> Result<Self, ProtocolAbort> {
        let unusable =
            || ProtocolAbort::new("the protocol ended with a key or public share that is not a point");
        let point = |bytes: &[u8]| Point::decode(bytes).map_err(|_| unusable());
        let mut public_shares = BTreeMap::new();
        for index in 1..=party.parameters.share_count {
            let node = NodeIndex::new(index).map_err(|_| unusable())?;
            let index = PartyIndex::new(index).map_err(|_| unusable())?;
            let share = package.verifying_share(index).ok_or_else(unusable)?;
            public_shares.insert(node, point(&share.to_bytes())?);
        }
        Ok(Self {
            public_key: point(&party.pk.to_bytes())?,
            chain_code: Hash::from(party.derivation_data.chain_code),
            public_shares,
            share: KeyShare(party),
        })
    }
}

/// A record's public shares as the crate has them.
pub(super) fn package(record: &Record) -> Result<PublicKeyPackage, ProtocolAbort> {
    let unusable =
        || ProtocolAbort::new("the recorded generation has a key or public share that is not a point");
    let point = |point: &Point| {
        let affine: Option<AffinePoint> = AffinePoint::from_bytes(&(*point.as_bytes()).into()).into();
        affine.ok_or_else(unusable)
    };
    let count = u8::try_from(record.public_shares.len()).map_err(|_| unusable())?;
    let parameters = Parameters::new(record.threshold, count).map_err(|_| unusable())?;
    let mut shares = BTreeMap::new();
    for (node, share) in &record.public_shares {
        shares.insert(index(*node)?, point(share)?);
    }
    Ok(PublicKeyPackage::new(point(&record.public_key)?, shares, parameters))
}
