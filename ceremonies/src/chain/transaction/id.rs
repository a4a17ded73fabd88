//! A signed transaction's id, by which a network knows it, and the block that a network says it is in.
//!
//! The id follows from the signed bytes alone. Whether a block exists is for people to look up: nothing here can know.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::Transaction;
use super::bitcoin::Txid;
use crate::chain::address::keccak256;
use crate::ids::Hash;
use crate::text::shortened;

/// Text that is no id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a transaction id: expected 64 hexadecimal digits in lower case, after 0x on Ethereum")]
pub struct InvalidTransactionId(String);

/// The id of a signed transaction, written as its network writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransactionId {
    /// Keccak-256 of the signed bytes: `0x` and 64 digits.
    Evm(Hash),
    /// SHA-256 twice over the bytes without witnesses: 64 digits, the bytes in reverse.
    Bitcoin(Txid),
}

/// A transaction that is in a block, as a network's node reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// The transaction.
    pub transaction: TransactionId,
    /// The block's hash, its bytes in the order in which the network writes them.
    pub block: Hash,
    /// How many blocks are before it.
    pub height: u64,
}

impl Transaction {
    /// The id that the network gives to what [`Transaction::signed`] has made of this transaction.
    #[must_use]
    pub fn id(&self, signed: &[u8]) -> TransactionId {
        match self {
            Self::Evm(_) => TransactionId::Evm(keccak256(signed).into()),
            Self::Bitcoin(transaction) => TransactionId::Bitcoin(transaction.txid()),
        }
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evm(hash) => write!(f, "0x{hash}"),
            Self::Bitcoin(txid) => txid.fmt(f),
        }
    }
}

/// Every id has one text.
impl FromStr for TransactionId {
    type Err = InvalidTransactionId;
    fn from_str(text: &str) -> Result<Self, InvalidTransactionId> {
        let invalid = |_| InvalidTransactionId(shortened(text, 80));
        if let Some(digits) = text.strip_prefix("0x") {
            return digits.parse().map(Self::Evm).map_err(invalid);
        }
        let written: Hash = text.parse().map_err(invalid)?;
        let mut bytes = *written.as_bytes();
        bytes.reverse();
        Ok(Self::Bitcoin(Txid(bytes)))
    }
}

impl Confirmation {
    /// The block's hash as its network writes it.
    #[must_use]
    pub fn block(&self) -> String {
        match self.transaction {
            TransactionId::Evm(_) => format!("0x{}", self.block),
            TransactionId::Bitcoin(_) => self.block.to_string(),
        }
    }
}

/// `transaction … is in block 7, …`.
impl fmt::Display for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {} is in block {}, {}", self.transaction, self.height, self.block())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let evm = format!("0x{}", "ab".repeat(32));
        let bitcoin = format!("{}01", "ab".repeat(31));
        for text in [evm, bitcoin] {
            assert_eq!(text.parse::<TransactionId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn no_other_text_is_an_id() {
        let digits = "ab".repeat(32);
        let others = [
            String::new(),
            "0x".to_owned(),
            digits.to_uppercase(),
            format!("0X{digits}"),
            format!("0x0x{digits}"),
            format!(" {digits}"),
            format!("{digits}ab"),
            digits[2..].to_owned(),
            format!("0x{}", &digits[1..]),
        ];
        for text in others {
            assert!(text.parse::<TransactionId>().is_err(), "{text:?}");
        }
    }
}
