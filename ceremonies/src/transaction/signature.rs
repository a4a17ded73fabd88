//! Signatures on their way into a transaction, which never gets one that a network would refuse.

use k256::ecdsa::{RecoveryId, VerifyingKey};
use thiserror::Error;

use crate::address::{BitcoinAddress, Path};
use crate::ids::Hash;
use crate::wallet::Point;

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

/// Why a transaction cannot be put together from signatures.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SigningError {
    /// Not one signature and one key for each digest.
    #[error(
        "the transaction has {digests} digests to sign, but there are {signatures} signatures and {keys} keys"
    )]
    Count {
        /// How many digests.
        digests: usize,
        /// How many signatures.
        signatures: usize,
        /// How many keys.
        keys: usize,
    },
    /// r or s is out of range, or there is no such recovery id.
    #[error(
        "signature {0} is malformed: r and s must be nonzero and below the group order, and the recovery id 0 to 3"
    )]
    Malformed(usize),
    /// s is in the upper half: networks do not relay it (BIP-146, EIP-2).
    #[error("signature {0} has a high s, which networks refuse: sign again")]
    HighS(usize),
    /// It does not recover to the key.
    #[error(
        "signature {index} does not recover to key {key}: it was made with another key or for another transaction"
    )]
    OtherSigner {
        /// Which signature, from 0.
        index: usize,
        /// The key that should have made it.
        key: Box<Point>,
    },
    /// The recovery id stands for a nonce that Ethereum cannot express; 1 in 2^127.
    #[error("signature {0} has a recovery id above 1, which Ethereum cannot express: sign again")]
    Parity(usize),
    /// The key does not own what the input spends.
    #[error("input {index} spends from {address}, which does not belong to key {key}")]
    NotOwner {
        /// Which input, from 0.
        index: usize,
        /// The address that it spends from.
        address: BitcoinAddress,
        /// The key that was given for it.
        key: Box<Point>,
    },
}

/// Why a wallet has no keys for a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeysError {
    /// No key at a path.
    #[error("one of the transaction's keys cannot be derived")]
    Derive(#[from] crate::address::DeriveError),
    /// An input spends what the wallet does not own.
    #[error(
        "input {index} spends from {address}, which is not the wallet's key {path}: correct the path or the address"
    )]
    Foreign {
        /// Which input, from 0.
        index: usize,
        /// The path that it names.
        path: Path,
        /// The address that it spends from.
        address: BitcoinAddress,
    },
}

impl Signature {
    /// Checks that it is a low-s signature of the digest that recovers to the key. `index` is for the error.
    pub(super) fn checked(
        &self,
        index: usize,
        digest: &Hash,
        key: &Point,
    ) -> Result<k256::ecdsa::Signature, SigningError> {
        let signature = k256::ecdsa::Signature::from_scalars(self.r, self.s);
        let signature = signature.map_err(|_| SigningError::Malformed(index))?;
        let recovery = RecoveryId::from_byte(self.recovery_id).ok_or(SigningError::Malformed(index))?;
        if signature.normalize_s() != signature {
            return Err(SigningError::HighS(index));
        }
        let found = VerifyingKey::recover_from_prehash(digest.as_bytes(), &signature, recovery);
        if found.is_ok_and(|found| found.to_sec1_point(true).as_bytes() == key.as_bytes()) {
            Ok(signature)
        } else {
            Err(SigningError::OtherSigner { index, key: Box::new(*key) })
        }
    }
}
