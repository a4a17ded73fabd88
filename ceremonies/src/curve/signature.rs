//! ECDSA signatures as the cluster makes them.

use k256::ecdsa::signature::hazmat::PrehashVerifier as _;
use k256::ecdsa::{self, RecoveryId, VerifyingKey};
use thiserror::Error;

use super::Point;
use crate::ids::Hash;

/// An ECDSA signature as the cluster makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// r, big-endian.
    pub r: [u8; 32],
    /// s, big-endian, in the lower half.
    pub s: [u8; 32],
    /// 0 to 3; its lowest bit is the parity of the nonce's y.
    pub recovery_id: u8,
}

/// Why a signature is not one of a digest by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidSignature {
    /// r or s is out of range, or there is no such recovery id.
    #[error("r and s must be nonzero and below the group order, and the recovery id 0 to 3")]
    Malformed,
    /// s is in the upper half: networks do not relay it (BIP-146, EIP-2).
    #[error("s is in the upper half of the group order")]
    HighS,
    /// It does not recover to the key.
    #[error("it does not recover to the key")]
    OtherKey,
}

impl Signature {
    fn scalars(&self) -> Result<ecdsa::Signature, InvalidSignature> {
        ecdsa::Signature::from_scalars(self.r, self.s).map_err(|_| InvalidSignature::Malformed)
    }

    /// Checks that it is a low-s signature of the digest that recovers to the key with its recovery id, which implies
    /// that it verifies under it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, digest: &Hash, key: &Point) -> Result<(), InvalidSignature> {
        let signature = self.scalars()?;
        let recovery = RecoveryId::from_byte(self.recovery_id).ok_or(InvalidSignature::Malformed)?;
        if signature.normalize_s() != signature {
            return Err(InvalidSignature::HighS);
        }
        let found = VerifyingKey::recover_from_prehash(digest.as_bytes(), &signature, recovery);
        let is_by_key = found.is_ok_and(|found| found.to_sec1_point(true).as_bytes() == key.as_bytes());
        if is_by_key { Ok(()) } else { Err(InvalidSignature::OtherKey) }
    }

    /// The DER form (SEC 1, C.5).
    ///
    /// # Errors
    /// [`InvalidSignature::Malformed`] when r or s is out of range.
    pub fn to_der(&self) -> Result<Vec<u8>, InvalidSignature> {
        Ok(self.scalars()?.to_der().as_bytes().to_vec())
    }
}

/// Whether (r, s) is a low-s ECDSA signature of this digest under this key.
#[must_use]
pub fn verifies(key: &Point, digest: &Hash, r: &[u8; 32], s: &[u8; 32]) -> bool {
    let (Ok(key), Ok(signature)) =
        (VerifyingKey::from_sec1_bytes(key.as_bytes()), ecdsa::Signature::from_scalars(*r, *s))
    else {
        return false;
    };
    signature.normalize_s() == signature && key.verify_prehash(digest.as_bytes(), &signature).is_ok()
}
