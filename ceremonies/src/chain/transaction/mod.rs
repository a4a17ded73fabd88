//! The transactions that a test signing may sign: small transfers, read from bytes and shown in plain words
//! before anyone signs. Whatever cannot be shown is refused.
//!
//! Nothing here knows a network's state: whether an output is unspent, or a nonce is the next one, is for the node that
//! receives the signed bytes. This module must never hold a private key.

mod amount;
pub mod bitcoin;
mod bytes;
pub mod evm;
mod id;
mod rlp;
mod signing;

use thiserror::Error;

pub use self::amount::{Sats, Wei};
use self::bitcoin::{Bitcoin, BitcoinError};
use self::evm::{Evm, EvmError};
pub use self::id::{Confirmation, InvalidTransactionId, TransactionId};
pub use self::rlp::RlpError;
pub use self::signing::{KeysError, SigningError};
use crate::curve::Point;
use crate::curve::{Child, Path, Signature};
use crate::ids::Hash;

/// Largest accepted transaction, in bytes; a Bitcoin transaction of a hundred inputs and outputs is smaller.
pub const MAX_TRANSACTION: usize = 16 * 1024;
/// First byte of an encoded Ethereum transaction, and of a Bitcoin transaction.
const EVM: u8 = 1;
const BITCOIN: u8 = 2;

/// Why bytes are not a transaction that may be signed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TransactionError {
    /// Too large to be read.
    #[error("the transaction has {0} bytes; at most {MAX_TRANSACTION} are read")]
    TooLarge(usize),
    /// No bytes.
    #[error("the transaction is empty")]
    Empty,
    /// Of no known kind.
    #[error("the transaction is of kind {0}; use 1 (Ethereum) or 2 (Bitcoin)")]
    Kind(u8),
    /// Not an Ethereum transaction that may be signed.
    #[error("the Ethereum transaction is refused")]
    Evm(#[from] EvmError),
    /// Not a Bitcoin transaction that may be signed.
    #[error("the Bitcoin transaction is refused")]
    Bitcoin(#[from] BitcoinError),
}

/// A checked transaction that is to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transaction {
    /// On Ethereum or another EVM chain.
    Evm(Evm),
    /// On Bitcoin.
    Bitcoin(Bitcoin),
}

impl Transaction {
    /// Reads what [`Transaction::encode`] writes, and nothing else: every transaction has one encoding.
    pub fn parse(bytes: &[u8]) -> Result<Self, TransactionError> {
        if bytes.len() > MAX_TRANSACTION {
            return Err(TransactionError::TooLarge(bytes.len()));
        }
        match bytes.split_first() {
            Some((&EVM, rest)) => Ok(Self::Evm(Evm::parse(rest)?)),
            Some((&BITCOIN, rest)) => Ok(Self::Bitcoin(Bitcoin::parse(rest)?)),
            Some((kind, _)) => Err(TransactionError::Kind(*kind)),
            None => Err(TransactionError::Empty),
        }
    }

    /// The bytes for a manifest: one for the kind, then the transaction with the keys that sign it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, rest) = match self {
            Self::Evm(transaction) => (EVM, transaction.encode()),
            Self::Bitcoin(transaction) => (BITCOIN, transaction.encode()),
        };
        std::iter::once(kind).chain(rest).collect()
    }

    /// What is to be signed, in order.
    #[must_use]
    pub fn digests(&self) -> Vec<Hash> {
        match self {
            Self::Evm(transaction) => vec![transaction.digest()],
            Self::Bitcoin(transaction) => transaction.digests(),
        }
    }

    /// Everything that it does, in plain words, one line each. No two transactions have the same words.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        match self {
            Self::Evm(transaction) => transaction.words(),
            Self::Bitcoin(transaction) => transaction.words(),
        }
    }

    /// The path of the key that signs each digest.
    #[must_use]
    pub fn paths(&self) -> Vec<Path> {
        match self {
            Self::Evm(transaction) => vec![transaction.path().clone()],
            Self::Bitcoin(transaction) => {
                transaction.inputs().iter().map(|input| input.path.clone()).collect()
            }
        }
    }

    /// The key below the wallet's that signs each digest. Refuses a Bitcoin input that is not the wallet's.
    pub fn keys(&self, public_key: &Point, chain_code: &Hash) -> Result<Vec<Child>, KeysError> {
        match self {
            Self::Evm(transaction) => transaction.keys(public_key, chain_code),
            Self::Bitcoin(transaction) => transaction.keys(public_key, chain_code),
        }
    }

    /// The bytes that the network takes, from a signature and a public key for each digest. Every signature
    /// is checked, so what comes out is valid wherever its inputs or its account are funded.
    pub fn signed(&self, signatures: &[Signature], keys: &[Point]) -> Result<Vec<u8>, SigningError> {
        match (self, signatures, keys) {
            (Self::Bitcoin(transaction), signatures, keys) => transaction.signed(signatures, keys),
            (Self::Evm(transaction), [signature], [key]) => transaction.signed(signature, key),
            (Self::Evm(_), signatures, keys) => {
                Err(SigningError::Count { digests: 1, signatures: signatures.len(), keys: keys.len() })
            }
        }
    }
}

#[cfg(test)]
mod tests;
