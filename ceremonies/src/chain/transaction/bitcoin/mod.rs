//! A Bitcoin transaction from a wallet's keys: version 2, P2WPKH in, any kind of address out, nothing else.
//!
//! What an input spends is part of it, because a signer who does not know the amounts cannot know the fee; the digests
//! commit to them (BIP-143), so that a wrong amount makes the signature worthless.

mod bytes;
mod sighash;
mod words;

use std::collections::BTreeSet;

use thiserror::Error;

use super::amount::Sats;
use super::signing::{KeysError, SigningError};
use crate::chain::address::{AddressError, BitcoinAddress, BitcoinNetwork, BitcoinRecipient};
use crate::curve::Point;
use crate::curve::{Child, InvalidPath, Path, Signature, derive};
use crate::ids::Hash;

/// The most inputs, and the most outputs: more than people check. The largest signed transaction then has 18 kB.
pub const MAX_PARTS: usize = 100;
/// Lowest fee rate, in satoshi per virtual byte: what nodes relay (long Bitcoin Core's default).
pub const MIN_RATE: u64 = 1;
/// Highest fee rate: more has hardly ever been paid.
pub const MAX_RATE: u64 = 1000;
/// Highest fee as a fraction of what is spent: one part in this many.
pub const MAX_FEE_SHARE: u64 = 10;

/// Why bytes or values are not a transaction of this kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BitcoinError {
    /// The bytes end too early.
    #[error("the Bitcoin transaction ends too early")]
    Truncated,
    /// Bytes are left over.
    #[error("the Bitcoin transaction is followed by {0} bytes that do not belong to it")]
    Trailing(usize),
    /// A byte that does not stand for a network.
    #[error("the Bitcoin transaction names network {0}; use 0 (main), 1 (testnet) or 2 (regtest)")]
    Network(u8),
    /// A field that must have one particular value.
    #[error(
        "the Bitcoin transaction has an unusual {0}: only version 2, empty scripts, sequence fffffffd and no \
         lock time are signed here"
    )]
    Unusual(&'static str),
    /// An output that does not pay an address.
    #[error(
        "output {0} of the Bitcoin transaction does not pay an address: only P2PKH, P2SH, P2WPKH, P2WSH and P2TR can \
         be paid here"
    )]
    Script(usize),
    /// The path of an input.
    #[error("an input of the Bitcoin transaction does not name a usable key")]
    Path(#[from] InvalidPath),
    /// None or too many.
    #[error("the Bitcoin transaction has {count} {what}; between 1 and {MAX_PARTS} are allowed")]
    Count {
        /// Inputs or outputs.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// An address of another network.
    #[error("the Bitcoin transaction mixes networks")]
    Address(#[from] AddressError),
    /// The same output is spent twice.
    #[error("the Bitcoin transaction spends {0} twice")]
    Twice(Outpoint),
    /// An input that spends nothing.
    #[error(
        "input {0} of the Bitcoin transaction spends transaction 00…00, which cannot exist: give the id of a real one"
    )]
    NoTransaction(usize),
    /// Too small to be relayed.
    #[error(
        "output {index} pays {amount}, which is dust: Bitcoin nodes do not relay less than {least} sat to such an \
         address"
    )]
    Dust {
        /// Which output, from 0.
        index: usize,
        /// What it pays.
        amount: Sats,
        /// The least that is relayed.
        least: u64,
    },
    /// More than there can be.
    #[error("the Bitcoin transaction's {0} exceed all the bitcoin there can be")]
    Overflow(&'static str),
    /// It pays more than it spends.
    #[error("the Bitcoin transaction pays {paid} but spends only {spent}")]
    Short {
        /// Sum of the outputs.
        paid: Sats,
        /// Sum of what the inputs spend.
        spent: Sats,
    },
    /// A fee that looks like a mistake.
    #[error(
        "the fee is {fee}, {} sat/vB for {size} virtual bytes: between {MIN_RATE} and {MAX_RATE} sat/vB are allowed, here \
         {} to {} sat", rate(*fee, *size), MIN_RATE * size, MAX_RATE * size
    )]
    Rate {
        /// The fee.
        fee: Sats,
        /// The transaction's size.
        size: u64,
    },
    /// A fee that consumes too much of what is moved.
    #[error(
        "the fee is {fee} of {spent} spent; at most 1/{MAX_FEE_SHARE} is allowed: spend fewer small outputs, or wait \
         until fees are lower"
    )]
    Fee {
        /// The fee.
        fee: Sats,
        /// Sum of what the inputs spend.
        spent: Sats,
    },
}

/// A transaction id, written in reverse byte order, as is usual.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txid(pub [u8; 32]);

impl Txid {
    /// What stands where new coins are made, and no transaction has.
    const NONE: Self = Self([0; 32]);
}

/// An output of an earlier transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outpoint {
    /// The transaction.
    pub txid: Txid,
    /// Which of its outputs, from 0.
    pub index: u32,
}

/// What is spent, and the key that may spend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The output.
    pub outpoint: Outpoint,
    /// What is in it.
    pub amount: Sats,
    /// Whose it is.
    pub address: BitcoinAddress,
    /// The key of that address, below the wallet's.
    pub path: Path,
}

/// Who is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// How much.
    pub amount: Sats,
    /// To whom.
    pub address: BitcoinRecipient,
}

/// A checked transaction that is to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitcoin {
    network: BitcoinNetwork,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    fee: Sats,
}

impl Bitcoin {
    /// Checks that addresses, amounts and fee are those of a sensible transaction.
    pub fn new(
        network: BitcoinNetwork,
        inputs: Vec<Input>,
        outputs: Vec<Output>,
    ) -> Result<Self, BitcoinError> {
        must_be_few("inputs", inputs.len())?;
        must_be_few("outputs", outputs.len())?;
        let mut seen = BTreeSet::new();
        for (index, input) in inputs.iter().enumerate() {
            if input.outpoint.txid == Txid::NONE {
                return Err(BitcoinError::NoTransaction(index));
            }
            input.address.must_be_of(network)?;
            if !seen.insert(input.outpoint) {
                return Err(BitcoinError::Twice(input.outpoint));
            }
        }
        for (index, output) in outputs.iter().enumerate() {
            output.address.must_be_of(network)?;
            let least = output.address.dust();
            if output.amount.0 < least {
                return Err(BitcoinError::Dust { index, amount: output.amount, least });
            }
        }
        let fee = fee(&inputs, &outputs)?;
        let made = Self { network, inputs, outputs, fee };
        let size = made.virtual_size();
        if fee.0 < MIN_RATE * size || fee.0 > MAX_RATE * size {
            return Err(BitcoinError::Rate { fee, size });
        }
        Ok(made)
    }

    /// The network that its addresses are of. Signatures do not commit to it; outpoints exist on one only.
    #[must_use]
    pub const fn network(&self) -> BitcoinNetwork {
        self.network
    }

    /// What it spends.
    #[must_use]
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// What it pays.
    #[must_use]
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// What is spent and not paid.
    #[must_use]
    pub const fn fee(&self) -> Sats {
        self.fee
    }

    /// The keys of its inputs, if the wallet owns what they spend.
    pub(super) fn keys(&self, public_key: &Point, chain_code: &Hash) -> Result<Vec<Child>, KeysError> {
        let mut keys = Vec::new();
        for (index, Input { path, address, .. }) in self.inputs.iter().enumerate() {
            let key = derive(public_key, chain_code, path)?;
            if BitcoinAddress::of(self.network, &key.public_key) != *address {
                return Err(KeysError::Foreign { index, path: path.clone(), address: *address });
            }
            keys.push(key);
        }
        Ok(keys)
    }

    /// The bytes that a node takes: every input with its signature, in DER with `SIGHASH_ALL`, and its key.
    pub fn signed(&self, signatures: &[Signature], keys: &[Point]) -> Result<Vec<u8>, SigningError> {
        let digests = self.digests();
        if signatures.len() != digests.len() || keys.len() != digests.len() {
            let (signatures, keys) = (signatures.len(), keys.len());
            return Err(SigningError::Count { digests: digests.len(), signatures, keys });
        }
        let mut witnesses = Vec::new();
        let parts = self.inputs.iter().zip(&digests).zip(signatures.iter().zip(keys));
        for (index, ((input, digest), (signature, key))) in parts.enumerate() {
            let address = input.address;
            if BitcoinAddress::of(self.network, key) != address {
                return Err(SigningError::NotOwner { index, address, key: Box::new(*key) });
            }
            let der = signature.check(digest, key).and_then(|()| signature.to_der());
            let der = der.map_err(|why| SigningError::of(index, key, why))?;
            witnesses.push(bytes::witness(der, key));
        }
        Ok(self.with_witnesses(&witnesses))
    }
}

/// A fee rate in satoshi per virtual byte, rounded down: `1.4`.
fn rate(fee: Sats, size: u64) -> String {
    let tenths = fee.0.saturating_mul(10) / size.max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
}

const fn must_be_few(what: &'static str, count: usize) -> Result<(), BitcoinError> {
    if count == 0 || count > MAX_PARTS { Err(BitcoinError::Count { what, count }) } else { Ok(()) }
}

fn fee(inputs: &[Input], outputs: &[Output]) -> Result<Sats, BitcoinError> {
    let spent = sum("inputs", inputs.iter().map(|input| input.amount))?;
    let paid = sum("outputs", outputs.iter().map(|output| output.amount))?;
    let fee = Sats(spent.0.checked_sub(paid.0).ok_or(BitcoinError::Short { paid, spent })?);
    if fee.0 > spent.0 / MAX_FEE_SHARE {
        return Err(BitcoinError::Fee { fee, spent });
    }
    Ok(fee)
}

fn sum(what: &'static str, mut amounts: impl Iterator<Item = Sats>) -> Result<Sats, BitcoinError> {
    amounts
        .try_fold(0_u64, |sum, amount| sum.checked_add(amount.0))
        .map(Sats)
        .filter(|sum| *sum <= Sats::MAX)
        .ok_or(BitcoinError::Overflow(what))
}

#[cfg(test)]
mod tests;
