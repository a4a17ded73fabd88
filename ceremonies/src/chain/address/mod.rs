//! The addresses of a wallet's derived keys on Ethereum and Bitcoin, and the networks that the addresses belong to.
//!
//! An address is read by people and copied by hand, so one that fails its checksum is never guessed at. This
//! module knows no transactions and no wallets; it must never hold a private key.

mod bitcoin;
mod ethereum;
mod network;
mod recipient;

use std::fmt;

use thiserror::Error;

pub use self::bitcoin::BitcoinAddress;
pub use self::ethereum::EthereumAddress;
pub(crate) use self::ethereum::keccak256;
pub use self::network::{BitcoinNetwork, ChainId, InvalidNetwork, Network};
pub use self::recipient::BitcoinRecipient;
use crate::curve::Point;
use crate::text::shortened;

/// Why text is not an address, or a key has none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Not the form of an Ethereum address.
    #[error("`{0}` is not an Ethereum address: write 0x and 40 hexadecimal digits")]
    Ethereum(String),
    /// Without a checksum, which alone shows a mistyped digit.
    #[error(
        "`{0}` is an address without a checksum (no capitals, or only capitals), so a mistake in it would go \
         unnoticed: copy it from a source that keeps the mixed case"
    )]
    Unchecked(String),
    /// Nothing where an address should be.
    #[error("no address is given: what should be one is empty")]
    Empty,
    /// An address of something else.
    #[error("`{text}` is {what}, which cannot be paid here")]
    Elsewhere {
        /// What was read, cut to 80 characters.
        text: String,
        /// What it is.
        what: &'static str,
    },
    /// A link of another scheme.
    #[error(
        "`{0}` is a link for something else than this network: ask its author for an address on this one"
    )]
    Link(String),
    /// A link that asks a contract for something: the address in it is the contract's.
    #[error(
        "`{0}` asks a contract for something, as one for tokens does, and this transaction pays coins: the address in it \
         is the contract's, and what is paid to that may be lost. Ask its author for an address that takes coins"
    )]
    Call(String),
    /// A link that must not be followed.
    #[error("the payment link requires `{0}`, which is not supported here: ask its author for an address")]
    Required(String),
    /// A link whose chain cannot be read.
    #[error(
        "the payment link names its chain as `{0}`, where only a decimal number can stand (EIP-681): find out which \
         chain it is for, and give the address alone"
    )]
    LinkChain(String),
    /// A link that leads to other means of payment.
    #[error(
        "the payment link has no Bitcoin address, only other means of payment: ask its author for an address"
    )]
    OtherMeans,
    /// A link for another chain.
    #[error("the payment link is for chain {theirs}, but it is used on chain {ours}")]
    OtherChain {
        /// The link's.
        theirs: String,
        /// The one it was to be used on.
        ours: u64,
    },
    /// A private key.
    #[error(
        "that is a PRIVATE KEY, not an address: anyone who has seen it can spend what it holds; move those funds \
         first"
    )]
    Private,
    /// Not base58, or the checksum does not hold.
    #[error("`{text}` is not a Bitcoin address: copy it again from its source")]
    Base58 {
        /// What was read, cut to 80 characters.
        text: String,
        /// What the decoder says.
        #[source]
        source: bs58::decode::Error,
    },
    /// Not written with its checksum.
    #[error("the capitals in `{0}` do not match its EIP-55 checksum: copy it again from its source")]
    Capitals(String),
    /// Not bech32, or the checksum does not hold.
    #[error("`{text}` is not a segwit address: copy it again from its source")]
    Bech32 {
        /// What was read, cut to 80 characters.
        text: String,
        /// What the decoder says.
        #[source]
        source: bech32::segwit::DecodeError,
    },
    /// Not the prefix of a Bitcoin network.
    #[error("`{0}` does not start with the prefix of a Bitcoin network: expected bc, tb or bcrt")]
    Prefix(String),
    /// An address of another kind.
    #[error("`{0}` is of a kind that cannot be paid here: use P2PKH, P2SH, P2WPKH, P2WSH or P2TR")]
    Kind(String),
    /// An address of another network.
    #[error("`{address}` is an address of {theirs}, but it is used on {ours}")]
    Network {
        /// The address.
        address: String,
        /// Its network.
        theirs: BitcoinNetwork,
        /// The network it was to be used on.
        ours: BitcoinNetwork,
    },
    /// A key that is not a point.
    #[error("the public key is not a point on secp256k1, so it has no address")]
    Key,
}

/// An address of one of the networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// Twenty bytes; the same on every chain.
    Ethereum(EthereumAddress),
    /// Of any kind, with its network.
    Bitcoin(BitcoinRecipient),
}

impl Address {
    /// The address of a public key on a network.
    pub fn of(network: Network, key: &Point) -> Result<Self, AddressError> {
        match network {
            Network::Ethereum(_) => EthereumAddress::of(key).map(Self::Ethereum),
            Network::Bitcoin(network) => Ok(Self::Bitcoin(BitcoinAddress::of(network, key).into())),
        }
    }

    /// Reads an address of a network, as it is or in a payment link (BIP-21, EIP-681). Blanks around it, as copying
    /// leaves them, are no part of it.
    pub fn parse(network: Network, text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        match network {
            Network::Ethereum(chain) => EthereumAddress::parse(chain, text).map(Self::Ethereum),
            Network::Bitcoin(network) => BitcoinRecipient::parse(network, text).map(Self::Bitcoin),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ethereum(address) => address.fmt(f),
            Self::Bitcoin(address) => address.fmt(f),
        }
    }
}

/// The part of a text of any length that an error quotes.
fn quoted(text: &str) -> String {
    shortened(text, 80)
}

#[cfg(test)]
mod tests;
