//! What is signed for each input: BIP-143's digest for `SIGHASH_ALL`.

use super::bytes::{LOCK_TIME, SEQUENCE, SIGHASH_ALL, VERSION, double_hash};
use super::{Bitcoin, Output};
use crate::ids::Hash;

/// What the digests of all inputs have in common.
pub(super) struct Common {
    pub(super) version: [u8; 4],
    /// Hash of all outpoints.
    pub(super) outpoints: Hash,
    /// Hash of all sequences.
    pub(super) sequences: Hash,
    /// Hash of all outputs.
    pub(super) outputs: Hash,
    pub(super) lock_time: [u8; 4],
}

/// What is the input's own.
pub(super) struct Own<'a> {
    pub(super) outpoint: &'a [u8],
    pub(super) program: &'a [u8; 20],
    pub(super) amount: u64,
    pub(super) sequence: [u8; 4],
}

impl Common {
    /// The digest of one input.
    pub(super) fn digest(&self, own: &Own<'_>) -> Hash {
        // The script that P2WPKH stands for: DUP HASH160 <program> EQUALVERIFY CHECKSIG.
        let script: [&[u8]; 3] = [&[0x19, 0x76, 0xa9, 0x14], own.program, &[0x88, 0xac]];
        let preimage: [&[u8]; 10] = [
            &self.version,
            self.outpoints.as_bytes(),
            self.sequences.as_bytes(),
            own.outpoint,
            &script.concat(),
            &own.amount.to_le_bytes(),
            &own.sequence,
            self.outputs.as_bytes(),
            &self.lock_time,
            &u32::from(SIGHASH_ALL).to_le_bytes(),
        ];
        double_hash(&preimage.concat())
    }
}

impl Bitcoin {
    /// The digest of each input, in order.
    #[must_use]
    pub fn digests(&self) -> Vec<Hash> {
        let outpoints: Vec<Vec<u8>> = self.inputs.iter().map(|input| input.outpoint.bytes()).collect();
        let outputs: Vec<Vec<u8>> = self.outputs.iter().map(Output::bytes).collect();
        let common = Common {
            version: VERSION,
            outpoints: double_hash(&outpoints.concat()),
            sequences: double_hash(&SEQUENCE.repeat(self.inputs.len())),
            outputs: double_hash(&outputs.concat()),
            lock_time: LOCK_TIME,
        };
        let own = self.inputs.iter().zip(&outpoints).map(|(input, outpoint)| Own {
            outpoint,
            program: input.address.program(),
            amount: input.amount.0,
            sequence: SEQUENCE,
        });
        own.map(|own| common.digest(&own)).collect()
    }
}
