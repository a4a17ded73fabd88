//! Ethereum addresses: the last twenty bytes of a key's hash, written with the checksum of EIP-55.

use std::fmt;
use std::str::FromStr;

use sha3::{Digest as _, Keccak256};

use super::{AddressError, BitcoinNetwork, BitcoinRecipient, ChainId, quoted};
use crate::curve::Point;

/// An Ethereum address. It is the same on every chain, so it does not name one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EthereumAddress([u8; 20]);

impl EthereumAddress {
    /// Reads an address to be paid on a chain: as it is, or in a payment link that has nothing but the address and the
    /// chain (EIP-681).
    pub fn parse(chain: ChainId, text: &str) -> Result<Self, AddressError> {
        let Some((scheme, rest)) = text.split_once(':') else { return Self::parse_alone(text) };
        let rest = if scheme.eq_ignore_ascii_case("ethereum") {
            rest
        } else {
            return Err(AddressError::Link(quoted(text)));
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let rest = rest.strip_prefix("pay-").unwrap_or(rest);
        let (rest, _) = rest.split_once('?').unwrap_or((rest, ""));
        if rest.contains('/') {
            return Err(AddressError::Call(quoted(text)));
        }
        let Some((address, theirs)) = rest.split_once('@') else { return Self::parse_alone(rest) };
        let is_decimal = !theirs.is_empty() && theirs.bytes().all(|digit| digit.is_ascii_digit());
        if !is_decimal {
            return Err(AddressError::LinkChain(quoted(theirs)));
        }
        if theirs.trim_start_matches('0') != chain.to_string() {
            return Err(AddressError::OtherChain { theirs: quoted(theirs), ours: chain.get() });
        }
        Self::parse_alone(address)
    }

    fn parse_alone(text: &str) -> Result<Self, AddressError> {
        let is_bitcoin = |network: &BitcoinNetwork| BitcoinRecipient::parse(*network, text).is_ok();
        if text.trim().is_empty() {
            Err(AddressError::Empty)
        } else if BitcoinNetwork::ALL.iter().any(is_bitcoin) {
            Err(AddressError::Elsewhere { text: quoted(text), what: "a Bitcoin address" })
        } else {
            text.parse()
        }
    }

    /// The address of a public key: Keccak-256 of its coordinates, the last twenty bytes.
    pub fn of(key: &Point) -> Result<Self, AddressError> {
        let hash = keccak256(&key.coordinates());
        hash.last_chunk().copied().map(Self).ok_or(AddressError::Key)
    }

    /// Whether it is one of those that stand for nobody or for the chain's own programs (EIP-1352).
    #[must_use]
    pub const fn is_reserved(&self) -> bool {
        matches!(self.0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, _, _])
    }

    /// The twenty bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

impl From<[u8; 20]> for EthereumAddress {
    fn from(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }
}

/// With the capitals of EIP-55: a letter is one where the hash of the lower-case digits has 8 to f.
impl fmt::Display for EthereumAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = hex::encode(self.0);
        let pattern = hex::encode(keccak256(digits.as_bytes()));
        let checked = digits.chars().zip(pattern.chars());
        let checked =
            checked.map(|(digit, hash)| if hash >= '8' { digit.to_ascii_uppercase() } else { digit });
        f.pad(&format!("0x{}", checked.collect::<String>()))
    }
}

impl fmt::Debug for EthereumAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Accepted only with its checksum: EIP-55 also allows a single case throughout, which catches no mistake.
impl FromStr for EthereumAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let form = || AddressError::Ethereum(quoted(text));
        let mut bytes = [0; 20];
        hex::decode_to_slice(text.strip_prefix("0x").ok_or_else(form)?, &mut bytes).map_err(|_| form())?;
        let address = Self(bytes);
        let has = |is: fn(&char) -> bool| text.chars().skip(2).any(|character| is(&character));
        if address.to_string() == text {
            Ok(address)
        } else if has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase) {
            Err(AddressError::Capitals(quoted(text)))
        } else {
            Err(AddressError::Unchecked(quoted(text)))
        }
    }
}

/// Keccak-256 as Ethereum uses it, which is not SHA3-256.
pub(crate) fn keccak256(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}
