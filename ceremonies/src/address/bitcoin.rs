//! Bitcoin addresses of keys: P2WPKH (BIP-141), written in bech32 (BIP-173).

use std::fmt;
use std::str::FromStr;

use bech32::{Hrp, segwit};
use ripemd::{Digest as _, Ripemd160};

use super::{AddressError, BitcoinNetwork, quoted};
use crate::ids::Hash;
use crate::wallet::Point;

/// A P2WPKH address of one network. Other kinds cannot be said: test transactions pay keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitcoinAddress {
    network: BitcoinNetwork,
    program: [u8; 20],
}

impl BitcoinAddress {
    /// An address from its witness program, RIPEMD-160 of SHA-256 of a compressed key.
    #[must_use]
    pub const fn new(network: BitcoinNetwork, program: [u8; 20]) -> Self {
        Self { network, program }
    }

    /// The address of a public key.
    #[must_use]
    pub fn of(network: BitcoinNetwork, key: &Point) -> Self {
        let program = Ripemd160::digest(Hash::of_bytes(key.as_bytes()).as_bytes());
        Self { network, program: program.into() }
    }

    /// Its network.
    #[must_use]
    pub const fn network(&self) -> BitcoinNetwork {
        self.network
    }

    /// The witness program, twenty bytes.
    #[must_use]
    pub const fn program(&self) -> &[u8; 20] {
        &self.program
    }

    /// The script that an output to this address has (BIP-141): version 0, then the program.
    #[must_use]
    pub fn script(&self) -> [u8; 22] {
        let mut script = [0; 22];
        let (head, program) = script.split_at_mut(2);
        head.copy_from_slice(&[0x00, 0x14]);
        program.copy_from_slice(&self.program);
        script
    }

    /// Refuses an address of another network.
    pub fn must_be_of(&self, network: BitcoinNetwork) -> Result<(), AddressError> {
        if self.network == network {
            return Ok(());
        }
        Err(AddressError::Network { address: *self, theirs: self.network, ours: network })
    }
}

impl fmt::Display for BitcoinAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = Hrp::parse(self.network.prefix()).map_err(|_| fmt::Error)?;
        f.pad(&segwit::encode_v0(prefix, &self.program).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for BitcoinAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// In lower case or, as QR codes have it, in upper case throughout (BIP-173).
impl FromStr for BitcoinAddress {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (prefix, version, program) =
            segwit::decode(text).map_err(|source| AddressError::Bech32 { text: quoted(text), source })?;
        let prefix = prefix.to_lowercase();
        let network = BitcoinNetwork::ALL.into_iter().find(|network| network.prefix() == prefix);
        let network = network.ok_or_else(|| AddressError::Prefix(quoted(text)))?;
        match <[u8; 20]>::try_from(program) {
            Ok(program) if version == segwit::VERSION_0 => Ok(Self { network, program }),
            Ok(_) | Err(_) => Err(AddressError::Kind(quoted(text))),
        }
    }
}
