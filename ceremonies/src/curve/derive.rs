//! Public derivation of keys below a wallet's key (BIP-32, `CKDpub`).

use hmac::{Hmac, Mac as _};
use k256::elliptic_curve::PrimeField as _;
use k256::{ProjectivePoint, Scalar};
use sha2::Sha512;
use thiserror::Error;

use super::{Path, Point};
use crate::ids::Hash;

/// Why there is no key at a path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeriveError {
    /// BIP-32 skips this index; the chance of that is 1 in 2^127.
    #[error("key path {path} has no key at index {index}: use the next index (BIP-32)")]
    Missing {
        /// The whole path.
        path: Path,
        /// The index that has no key.
        index: u32,
    },
}

/// A key below a wallet's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its public key.
    pub public_key: Point,
    /// Its chain code.
    pub chain_code: Hash,
    /// What is added to the wallet's private key to get this key's private key, over all levels: `public_key` is the
    /// wallet's key plus `tweak·G`. Anyone with the chain code can compute it.
    pub tweak: Scalar,
}

/// Derives the key at a path below a public key (BIP-32, public parent key → public child key).
pub fn derive(public_key: &Point, chain_code: &Hash, path: &Path) -> Result<Child, DeriveError> {
    let mut child = Child { public_key: *public_key, chain_code: *chain_code, tweak: Scalar::ZERO };
    for index in path.levels() {
        let missing = || DeriveError::Missing { path: path.clone(), index: *index };
        let (offset, chain_code) = offset(&child, *index).ok_or_else(missing)?;
        let point = ProjectivePoint::from(child.public_key.affine()) + ProjectivePoint::GENERATOR * offset;
        let public_key = Point::encode(&point).map_err(|_| missing())?;
        child = Child { public_key, chain_code, tweak: child.tweak + offset };
    }
    Ok(child)
}

/// HMAC-SHA512 of key and index under the chain code: the left half as a scalar, the right half as the
/// child's chain code. None when the left half is not below the group's order.
fn offset(parent: &Child, index: u32) -> Option<(Scalar, Hash)> {
    let mut mac = Hmac::<Sha512>::new_from_slice(parent.chain_code.as_bytes()).ok()?;
    mac.update(parent.public_key.as_bytes());
    mac.update(&index.to_be_bytes());
    let output = mac.finalize().into_bytes();
    let (left, right) = output.split_at(32);
    let left: [u8; 32] = left.try_into().ok()?;
    let scalar: Option<Scalar> = Scalar::from_repr(left.into()).into();
    Some((scalar?, Hash::try_from(right).ok()?))
}
