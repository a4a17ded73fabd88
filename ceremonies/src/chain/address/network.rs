//! The networks that a wallet's key is used on. Their names are what is written in files and on command lines.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Largest chain id whose EIP-155 `v` fits into 64 bits (EIP-2294).
const MAX_CHAIN_ID: u64 = u64::MAX / 2 - 36;

/// Why text or a number is not a network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidNetwork {
    /// A chain id outside the allowed range.
    #[error("{0} is not an Ethereum chain id: expected 1 to {MAX_CHAIN_ID} (EIP-2294)")]
    ChainId(u64),
    /// Not a network's name.
    #[error(
        "`{0}` is not a network: expected bitcoin, bitcoin-testnet, bitcoin-regtest or ethereum-CHAIN_ID"
    )]
    Name(String),
}

/// The id of an Ethereum chain (EIP-155): 1 is the main network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct ChainId(NonZeroU64);

impl ChainId {
    /// Checks the range that EIP-2294 allows.
    pub fn new(id: u64) -> Result<Self, InvalidNetwork> {
        let id =
            NonZeroU64::new(id).filter(|id| id.get() <= MAX_CHAIN_ID).ok_or(InvalidNetwork::ChainId(id))?;
        Ok(Self(id))
    }

    /// The id as a number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl TryFrom<u64> for ChainId {
    type Error = InvalidNetwork;
    fn try_from(id: u64) -> Result<Self, InvalidNetwork> {
        Self::new(id)
    }
}

impl From<ChainId> for u64 {
    fn from(id: ChainId) -> u64 {
        id.get()
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which Bitcoin: an address names it, a signature does not (BIP-143 has no field for it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BitcoinNetwork {
    /// The one with money.
    Main,
    /// Public, without value; testnet and signet share their prefix.
    Testnet,
    /// Private, for tests.
    Regtest,
}

impl BitcoinNetwork {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Main, Self::Testnet, Self::Regtest];

    /// What its addresses start with (BIP-173).
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Main => "bc",
            Self::Testnet => "tb",
            Self::Regtest => "bcrt",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Main => "bitcoin",
            Self::Testnet => "bitcoin-testnet",
            Self::Regtest => "bitcoin-regtest",
        }
    }
}

/// In words, for people.
impl fmt::Display for BitcoinNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Main => "Bitcoin main network",
            Self::Testnet => "Bitcoin testnet",
            Self::Regtest => "Bitcoin regtest",
        })
    }
}

/// A network on which a wallet's key can own something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Network {
    /// Bitcoin.
    Bitcoin(BitcoinNetwork),
    /// Ethereum, or a chain like it.
    Ethereum(ChainId),
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bitcoin(network) => f.pad(network.name()),
            Self::Ethereum(chain) => f.pad(&format!("ethereum-{chain}")),
        }
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let bitcoin = BitcoinNetwork::ALL.into_iter().find(|network| network.name() == text);
        let ethereum = || text.strip_prefix("ethereum-")?.parse().ok().and_then(|id| ChainId::new(id).ok());
        bitcoin
            .map(Self::Bitcoin)
            .or_else(|| ethereum().map(Self::Ethereum))
            .filter(|network| network.to_string() == text)
            .ok_or_else(|| InvalidNetwork::Name(super::quoted(text)))
    }
}

impl TryFrom<String> for Network {
    type Error = InvalidNetwork;
    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}
