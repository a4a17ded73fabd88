//! A transfer on Ethereum or another EVM chain: an EIP-1559 transaction without data and without access list.

use thiserror::Error;

use super::amount::Wei;
use super::bytes::{Reader, put_path};
use super::rlp::{self, Items, RlpError};
use super::signing::{KeysError, SigningError};
use crate::chain::address::{ChainId, EthereumAddress, InvalidNetwork, keccak256};
use crate::curve::Point;
use crate::curve::{Child, InvalidPath, Path, Signature, derive};
use crate::ids::Hash;

/// The transaction's type (EIP-2718, EIP-1559).
const TYPE: u8 = 0x02;
/// The least gas that a transfer costs (yellow paper, appendix G).
pub const MIN_GAS: u64 = 21_000;
/// Lowest maximum fee, per gas: below the price of gas on any chain in use. It limits what may be paid, not what is
/// paid (EIP-1559).
pub const MIN_MAX_FEE: Wei = Wei(1_000_000);
/// Highest maximum fee, per gas: more has hardly ever been paid.
pub const MAX_MAX_FEE: Wei = Wei(10_000_000_000_000);
/// The most gas that a transaction may use (EIP-7825).
pub const MAX_GAS: u64 = 1 << 24;

/// Why bytes or values are not a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EvmError {
    /// The bytes end before the list of fields begins.
    #[error("the Ethereum transaction ends too early")]
    Truncated,
    /// The key's path.
    #[error("the Ethereum transaction does not name a usable key")]
    Path(#[from] InvalidPath),
    /// Another type of transaction.
    #[error("not an EIP-1559 transaction: expected type 2 as the first byte, found {0}")]
    Type(u8),
    /// A field that cannot be read.
    #[error("the Ethereum transaction's {field} cannot be read")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: RlpError,
    },
    /// A field that must be empty here.
    #[error("the Ethereum transaction has a non-empty {0}: only plain transfers are signed here")]
    NotEmpty(&'static str),
    /// No such chain.
    #[error("the Ethereum transaction names no chain")]
    Chain(#[from] InvalidNetwork),
    /// The tip is above the fee that it is part of.
    #[error("the priority fee of {tip} wei is above the maximum fee of {max} wei per gas")]
    Tip {
        /// Priority fee per gas.
        tip: u128,
        /// Maximum fee per gas.
        max: u128,
    },
    /// A price that looks like a mistake, perhaps in gwei.
    #[error(
        "the maximum fee is {} per gas: between {} and {} are allowed; give it in wei (1 gwei is 1000000000 wei)",
        .0.gwei(), MIN_MAX_FEE.gwei(), MAX_MAX_FEE.gwei()
    )]
    Price(Wei),
    /// Too little to run, or more than a block takes.
    #[error("the gas limit is {0}; a transfer must have between {MIN_GAS} and {MAX_GAS}")]
    Gas(u64),
    /// A nonce that no transaction can have.
    #[error("the nonce is {}, and no transaction can have it: the largest is {} (EIP-2681)", u64::MAX, u64::MAX - 1)]
    Nonce,
    /// An address that belongs to nobody.
    #[error(
        "the recipient {0} is nobody's: addresses that begin with 18 zero bytes stand for the chain's own programs \
         (EIP-1352), and what is paid there is lost"
    )]
    Nobody(EthereumAddress),
    /// Value and fees together overflow.
    #[error("the value and fees of the Ethereum transaction exceed what can exist")]
    Overflow,
}

/// What a transfer does, in the words of EIP-1559.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// The chain that it is valid on.
    pub chain: ChainId,
    /// How many transactions the account has already sent.
    pub nonce: u64,
    /// The most that goes to the block's proposer, per gas.
    pub max_priority_fee: Wei,
    /// The most that is paid, per gas.
    pub max_fee: Wei,
    /// Most gas that is used.
    pub gas_limit: u64,
    /// Who is paid.
    pub to: EthereumAddress,
    /// How much is paid.
    pub value: Wei,
}

/// A checked transfer, and the key that signs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evm {
    path: Path,
    transfer: Transfer,
    most_fees: Wei,
}

impl Evm {
    /// Checks a transfer.
    pub fn new(path: Path, transfer: Transfer) -> Result<Self, EvmError> {
        let Transfer { nonce, max_priority_fee: tip, max_fee, gas_limit, to, value, .. } = transfer;
        if nonce == u64::MAX {
            return Err(EvmError::Nonce);
        }
        if to.is_reserved() {
            return Err(EvmError::Nobody(to));
        }
        if tip > max_fee {
            return Err(EvmError::Tip { tip: tip.0, max: max_fee.0 });
        }
        if !(MIN_MAX_FEE..=MAX_MAX_FEE).contains(&max_fee) {
            return Err(EvmError::Price(max_fee));
        }
        if !(MIN_GAS..=MAX_GAS).contains(&gas_limit) {
            return Err(EvmError::Gas(gas_limit));
        }
        let fees = max_fee.0.checked_mul(u128::from(gas_limit)).ok_or(EvmError::Overflow)?;
        value.0.checked_add(fees).ok_or(EvmError::Overflow)?;
        Ok(Self { path, transfer, most_fees: Wei(fees) })
    }

    /// Reads the unsigned bytes that wallets exchange: `0x02 || rlp([chain id, …, access list])`.
    pub fn from_unsigned(path: Path, bytes: &[u8]) -> Result<Self, EvmError> {
        let (first, rest) = bytes.split_first().ok_or(EvmError::Truncated)?;
        if *first != TYPE {
            return Err(EvmError::Type(*first));
        }
        let mut items = Items::of(rest).map_err(in_field("list of fields"))?;
        let transfer = Transfer {
            chain: ChainId::new(word(&mut items, "chain id")?)?,
            nonce: word(&mut items, "nonce")?,
            max_priority_fee: wei(&mut items, "priority fee")?,
            max_fee: wei(&mut items, "maximum fee")?,
            gas_limit: word(&mut items, "gas limit")?,
            to: address(&mut items)?,
            value: wei(&mut items, "value")?,
        };
        if !items.string().map_err(in_field("data"))?.is_empty() {
            return Err(EvmError::NotEmpty("data field"));
        }
        let access = items.list().map_err(in_field("access list"))?;
        access.end().map_err(|_| EvmError::NotEmpty("access list"))?;
        items.end().map_err(in_field("list of nine fields"))?;
        Self::new(path, transfer)
    }

    /// The unsigned bytes: what is hashed for signing.
    #[must_use]
    pub fn unsigned(&self) -> Vec<u8> {
        typed(&self.fields())
    }

    /// What [`Evm::encode`] writes: the path, then the unsigned bytes.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, EvmError> {
        let mut reader = Reader::new(bytes);
        let path = reader.path().map_err(|_| EvmError::Truncated)??;
        Self::from_unsigned(path, reader.rest())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_path(&mut bytes, &self.path);
        bytes.extend(self.unsigned());
        bytes
    }

    /// What it does.
    #[must_use]
    pub const fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// The key that signs it, below the wallet's.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
    }

    /// The digest to be signed: Keccak-256 of the unsigned bytes (EIP-1559).
    #[must_use]
    pub fn digest(&self) -> Hash {
        keccak256(&self.unsigned()).into()
    }

    /// The key that signs it.
    pub(super) fn keys(&self, public_key: &Point, chain_code: &Hash) -> Result<Vec<Child>, KeysError> {
        Ok(vec![derive(public_key, chain_code, &self.path)?])
    }

    /// The signed bytes, as `eth_sendRawTransaction` takes them.
    pub fn signed(&self, signature: &Signature, key: &Point) -> Result<Vec<u8>, SigningError> {
        signature.check(&self.digest(), key).map_err(|why| SigningError::of(0, key, why))?;
        if signature.recovery_id > 1 {
            return Err(SigningError::Parity(0));
        }
        let mut fields = self.fields();
        fields.push(rlp::number(u128::from(signature.recovery_id)));
        fields.extend([&signature.r, &signature.s].map(|scalar| rlp::string(without_zeros(scalar))));
        Ok(typed(&fields))
    }

    /// Everything that it does, in plain words: no two transfers have the same.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let Transfer { chain, nonce, max_priority_fee, max_fee, gas_limit, to, value } = &self.transfer;
        vec![
            format!("Ethereum chain {chain}, nonce {nonce}"),
            format!("signed with the wallet's key {}", self.path),
            format!("pays {value} to {to}"),
            format!("at most {} in fees", self.most_fees),
            format!(
                "up to {gas_limit} gas at up to {}, tip up to {}",
                max_fee.gwei(),
                max_priority_fee.gwei()
            ),
        ]
    }

    fn fields(&self) -> Vec<Vec<u8>> {
        let Transfer { chain, nonce, max_priority_fee, max_fee, gas_limit, to, value } = &self.transfer;
        vec![
            rlp::number(u128::from(chain.get())),
            rlp::number(u128::from(*nonce)),
            rlp::number(max_priority_fee.0),
            rlp::number(max_fee.0),
            rlp::number(u128::from(*gas_limit)),
            rlp::string(to.as_bytes()),
            rlp::number(value.0),
            rlp::string(&[]),
            rlp::list(&[]),
        ]
    }
}

fn typed(fields: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![TYPE];
    bytes.extend(rlp::list(fields));
    bytes
}

/// A 32-byte number as RLP writes it.
fn without_zeros(scalar: &[u8; 32]) -> &[u8] {
    let zeros = scalar.iter().take_while(|byte| **byte == 0).count();
    scalar.get(zeros..).unwrap_or_default()
}

fn in_field(field: &'static str) -> impl Fn(RlpError) -> EvmError {
    move |source| EvmError::Field { field, source }
}

fn wei(items: &mut Items<'_>, field: &'static str) -> Result<Wei, EvmError> {
    items.number().map(Wei).map_err(in_field(field))
}

fn word(items: &mut Items<'_>, field: &'static str) -> Result<u64, EvmError> {
    let number = items.number().map_err(in_field(field))?;
    u64::try_from(number).map_err(|_| in_field(field)(RlpError::TooLong))
}

fn address(items: &mut Items<'_>) -> Result<EthereumAddress, EvmError> {
    let bytes = items.string().map_err(in_field("recipient"))?;
    let wrong = |_| match bytes.len() {
        0..20 => in_field("recipient")(RlpError::Truncated),
        _ => in_field("recipient")(RlpError::TooLong),
    };
    <[u8; 20]>::try_from(bytes).map(EthereumAddress::from).map_err(wrong)
}
