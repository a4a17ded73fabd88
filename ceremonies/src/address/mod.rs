//! Where a key below a wallet's key receives: Ethereum and Bitcoin addresses, and the networks they are of.
//!
//! An address is read by people and copied by hand, so one that fails its checksum is never guessed at. This
//! module knows no transactions and no wallets; it must never hold a private key.

mod bitcoin;
mod derive;
mod ethereum;
mod network;
mod path;

use std::fmt;

use thiserror::Error;

pub use self::bitcoin::BitcoinAddress;
pub use self::derive::{Child, DeriveError, derive};
pub use self::ethereum::EthereumAddress;
pub(crate) use self::ethereum::keccak256;
pub use self::network::{BitcoinNetwork, ChainId, InvalidNetwork, Network};
pub use self::path::{InvalidPath, MAX_LEVELS, Path};
use crate::wallet::Point;

/// Why text is not an address, or a key has none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Not the form of an Ethereum address.
    #[error("`{0}` is not an Ethereum address: write 0x and 40 hexadecimal digits")]
    Ethereum(String),
    /// Not written with its checksum.
    #[error(
        "`{0}` does not have the capitals that its EIP-55 checksum asks for: copy it again from its source"
    )]
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
    /// A prefix of no Bitcoin network.
    #[error("`{0}` starts with the prefix of no Bitcoin network: expected bc, tb or bcrt")]
    Prefix(String),
    /// A segwit address of another kind.
    #[error("`{0}` is not a P2WPKH address: only keys are paid here, no scripts and no taproot")]
    Kind(String),
    /// An address of another network.
    #[error("`{address}` is an address of {theirs}, but it is used on {ours}")]
    Network {
        /// The address.
        address: BitcoinAddress,
        /// Its network.
        theirs: BitcoinNetwork,
        /// The network it was to be used on.
        ours: BitcoinNetwork,
    },
    /// A key that is no point.
    #[error("the public key is no point of secp256k1, so it has no address")]
    Key,
}

/// An address of one of the networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// Twenty bytes; the same on every chain.
    Ethereum(EthereumAddress),
    /// P2WPKH, with its network.
    Bitcoin(BitcoinAddress),
}

impl Address {
    /// The address of a public key on a network.
    pub fn of(network: Network, key: &Point) -> Result<Self, AddressError> {
        match network {
            Network::Ethereum(_) => EthereumAddress::of(key).map(Self::Ethereum),
            Network::Bitcoin(network) => Ok(Self::Bitcoin(BitcoinAddress::of(network, key))),
        }
    }

    /// Reads an address of a network.
    pub fn parse(network: Network, text: &str) -> Result<Self, AddressError> {
        match network {
            Network::Ethereum(_) => text.parse().map(Self::Ethereum),
            Network::Bitcoin(network) => {
                let address: BitcoinAddress = text.parse()?;
                address.must_be_of(network)?;
                Ok(Self::Bitcoin(address))
            }
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

/// What an error quotes of text that may be of any length.
fn quoted(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests;
