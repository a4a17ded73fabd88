//! A Bitcoin transaction as bytes: without witnesses, followed by what it spends, for a manifest; with
//! witnesses (BIP-144), for the network.

use super::{Bitcoin, BitcoinError, Input, Outpoint, Output, Txid};
use crate::chain::address::{BitcoinAddress, BitcoinNetwork, BitcoinRecipient};
use crate::chain::transaction::amount::Sats;
use crate::chain::transaction::bytes::{Reader, Truncated, put_path};
use crate::curve::Point;
use crate::ids::Hash;

/// The transaction's version; 2 since BIP-68.
pub(super) const VERSION: [u8; 4] = [2, 0, 0, 0];
/// The sequence of every input: replaceable with a higher fee (BIP-125), so that a stuck test can be ended.
pub(super) const SEQUENCE: [u8; 4] = [0xfd, 0xff, 0xff, 0xff];
/// Valid at once.
pub(super) const LOCK_TIME: [u8; 4] = [0; 4];
/// Signatures commit to all inputs and outputs.
pub(super) const SIGHASH_ALL: u8 = 1;
/// Longest signature of a witness: DER with a high r and a low s, and the sighash byte.
const LONGEST_SIGNATURE: usize = 72;

impl From<Truncated> for BitcoinError {
    fn from(Truncated: Truncated) -> Self {
        Self::Truncated
    }
}

impl Outpoint {
    pub(super) fn bytes(&self) -> Vec<u8> {
        [self.txid.0.as_slice(), &self.index.to_le_bytes()].concat()
    }
}

impl Output {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let script = self.address.script();
        [self.amount.0.to_le_bytes().as_slice(), &[count(script.len())], &script].concat()
    }
}

impl Bitcoin {
    /// One byte for the network, the transaction without witnesses as every Bitcoin tool reads it, and for
    /// each input what it spends: the amount, the address's program and the key's path.
    pub(in crate::chain::transaction) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![network_byte(self.network)];
        bytes.extend(self.unsigned());
        for input in &self.inputs {
            bytes.extend(input.amount.0.to_le_bytes());
            bytes.extend(input.address.program());
            put_path(&mut bytes, &input.path);
        }
        bytes
    }

    /// What [`Bitcoin::encode`] writes.
    pub(in crate::chain::transaction) fn parse(bytes: &[u8]) -> Result<Self, BitcoinError> {
        let mut reader = Reader::new(bytes);
        let network = network_of(reader.byte()?)?;
        must_be("version", reader.take()?, VERSION)?;
        let outpoints = read_outpoints(&mut reader)?;
        let outputs = read_outputs(&mut reader, network)?;
        must_be("lock time", reader.take()?, LOCK_TIME)?;
        let mut inputs = Vec::with_capacity(outpoints.len());
        for outpoint in outpoints {
            let amount = Sats(u64::from_le_bytes(reader.take()?));
            let address = BitcoinAddress::new(network, reader.take()?);
            inputs.push(Input { outpoint, amount, address, path: reader.path()?? });
        }
        match reader.rest().len() {
            0 => Self::new(network, inputs, outputs),
            left => Err(BitcoinError::Trailing(left)),
        }
    }

    /// The transaction without witnesses: its id is the hash of this.
    #[must_use]
    pub fn unsigned(&self) -> Vec<u8> {
        [VERSION.as_slice(), &self.body(), &LOCK_TIME].concat()
    }

    /// The id, which no signature changes (BIP-141).
    #[must_use]
    pub fn txid(&self) -> Txid {
        Txid(*double_hash(&self.unsigned()).as_bytes())
    }

    pub(super) fn with_witnesses(&self, witnesses: &[Vec<u8>]) -> Vec<u8> {
        // BIP-144: a marker in place of the number of inputs, and a flag.
        [VERSION.as_slice(), &[0x00, 0x01], &self.body(), &witnesses.concat(), &LOCK_TIME].concat()
    }

    /// Its size for the fee, in virtual bytes (BIP-141), with signatures as long as they can be.
    #[must_use]
    pub fn virtual_size(&self) -> u64 {
        let witness = self.inputs.len() * (LONGEST_SIGNATURE + 33 + 3) + 2;
        (self.unsigned().len() * 4 + witness).div_ceil(4) as u64
    }

    fn body(&self) -> Vec<u8> {
        let mut bytes = vec![count(self.inputs.len())];
        for input in &self.inputs {
            bytes.extend(input.outpoint.bytes());
            bytes.push(0);
            bytes.extend(SEQUENCE);
        }
        bytes.push(count(self.outputs.len()));
        bytes.extend(self.outputs.iter().flat_map(Output::bytes));
        bytes
    }
}

fn read_outpoints(reader: &mut Reader<'_>) -> Result<Vec<Outpoint>, BitcoinError> {
    let mut outpoints = Vec::new();
    for _ in 0..read_count("inputs", reader)? {
        let txid = Txid(reader.take()?);
        outpoints.push(Outpoint { txid, index: u32::from_le_bytes(reader.take()?) });
        must_be("input script", reader.take()?, [0])?;
        must_be("sequence", reader.take()?, SEQUENCE)?;
    }
    Ok(outpoints)
}

fn read_outputs(reader: &mut Reader<'_>, network: BitcoinNetwork) -> Result<Vec<Output>, BitcoinError> {
    let mut outputs = Vec::new();
    for index in 0..read_count("outputs", reader)? {
        let amount = Sats(u64::from_le_bytes(reader.take()?));
        let length = usize::from(reader.byte()?);
        let script = reader.some(length)?;
        let address = BitcoinRecipient::of_script(network, script).ok_or(BitcoinError::Script(index))?;
        outputs.push(Output { amount, address });
    }
    Ok(outputs)
}

/// A count of at most [`super::MAX_PARTS`] is one byte in Bitcoin's encoding of sizes.
fn read_count(what: &'static str, reader: &mut Reader<'_>) -> Result<usize, BitcoinError> {
    let count = usize::from(reader.byte()?);
    super::must_be_few(what, count)?;
    Ok(count)
}

fn must_be<const N: usize>(
    what: &'static str,
    found: [u8; N],
    expected: [u8; N],
) -> Result<(), BitcoinError> {
    if found == expected { Ok(()) } else { Err(BitcoinError::Unusual(what)) }
}

/// A size below 253 is its own encoding; all sizes here are.
fn count(size: usize) -> u8 {
    u8::try_from(size).unwrap_or(u8::MAX)
}

const fn network_byte(network: BitcoinNetwork) -> u8 {
    match network {
        BitcoinNetwork::Main => 0,
        BitcoinNetwork::Testnet => 1,
        BitcoinNetwork::Regtest => 2,
    }
}

fn network_of(byte: u8) -> Result<BitcoinNetwork, BitcoinError> {
    let found = BitcoinNetwork::ALL.into_iter().find(|network| network_byte(*network) == byte);
    found.ok_or(BitcoinError::Network(byte))
}

/// A witness of P2WPKH (BIP-141): the signature, given in DER, and the key.
pub(super) fn witness(mut signature: Vec<u8>, key: &Point) -> Vec<u8> {
    signature.push(SIGHASH_ALL);
    let mut bytes = vec![2, count(signature.len())];
    bytes.extend(signature);
    bytes.push(count(key.as_bytes().len()));
    bytes.extend(key.as_bytes());
    bytes
}

/// SHA-256 twice.
pub(super) fn double_hash(bytes: &[u8]) -> Hash {
    Hash::of_bytes(Hash::of_bytes(bytes).as_bytes())
}
