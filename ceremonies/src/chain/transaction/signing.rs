//! Why a transaction is not put together: a network would refuse it, or its keys are not the wallet's.

use thiserror::Error;

use crate::chain::address::BitcoinAddress;
use crate::curve::{DeriveError, InvalidSignature, Path, Point};

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
    Derive(#[from] DeriveError),
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

impl SigningError {
    pub(super) fn of(index: usize, key: &Point, why: InvalidSignature) -> Self {
        match why {
            InvalidSignature::Malformed => Self::Malformed(index),
            InvalidSignature::HighS => Self::HighS(index),
            InvalidSignature::OtherKey => Self::OtherSigner { index, key: Box::new(*key) },
        }
    }
}
