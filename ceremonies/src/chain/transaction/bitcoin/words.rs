//! A Bitcoin transaction as people read it.

use std::fmt;

use super::{Bitcoin, Outpoint, Output, Txid, rate};
use crate::chain::address::BitcoinRecipient;

impl fmt::Display for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reversed: Vec<u8> = self.0.iter().rev().copied().collect();
        f.pad(&hex::encode(reversed))
    }
}

impl fmt::Debug for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Outpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "output {} of {}", self.index, self.txid)
    }
}

impl Bitcoin {
    /// Everything that it does, in plain words: no two transactions have the same.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words = vec![format!("{}, transaction {}", self.network, self.txid())];
        for input in &self.inputs {
            let (amount, address, path) = (input.amount, input.address, &input.path);
            words.push(format!("spends {amount} of {address}, the wallet's key {path}: {}", input.outpoint));
        }
        words.extend(self.outputs.iter().map(|output| self.paid(output)));
        words.push(self.fee_in_words());
        words
    }

    fn paid(&self, output: &Output) -> String {
        let Output { amount, address } = output;
        let returns = self.inputs.iter().any(|input| BitcoinRecipient::from(input.address) == *address);
        format!("pays {amount} {} {address}", if returns { "back to" } else { "to" })
    }

    /// `fee 200 sat, 1.4 sat/vB`, rounded down.
    fn fee_in_words(&self) -> String {
        format!("fee {} sat, {} sat/vB", self.fee.0, rate(self.fee, self.virtual_size()))
    }
}
