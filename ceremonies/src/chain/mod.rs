//! The chains on which a wallet has addresses and whose transactions it signs: Bitcoin, and those of Ethereum's kind.

pub mod address;
pub mod transaction;
