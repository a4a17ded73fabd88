//! Bitcoin addresses of keys: P2WPKH (BIP-141), written in bech32 (BIP-173).

use std::fmt;

use bech32::{Hrp, segwit};
use ripemd::{Digest as _, Ripemd160};

use super::{AddressError, BitcoinNetwork};
use crate::curve::Point;
use crate::ids::Hash;

/// A P2WPKH address on one network, which is what a wallet's keys have. Whoever the wallet pays is a
/// [`super::BitcoinRecipient`].
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

    /// Refuses an address of another network.
    pub fn must_be_of(&self, network: BitcoinNetwork) -> Result<(), AddressError> {
        if self.network == network {
            return Ok(());
        }
        Err(AddressError::Network { address: self.to_string(), theirs: self.network, ours: network })
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
