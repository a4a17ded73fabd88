//! The domain of Custody: what a ceremony is, who may do what in it, and how anyone can check it later.
//!
//! Everything here is a function of its arguments. There is no clock, no I/O, no randomness and no runtime:
//! console, agents, enclaves and the offline verifier run the same code over the same bytes and therefore
//! cannot disagree about what was approved.

pub mod address;
pub mod attestation;
pub mod book;
pub mod broker;
pub mod ceremony;
pub mod charter;
pub mod entry;
pub mod evidence;
pub mod ids;
pub mod inventory;
mod kinds;
pub mod kms_policy;
pub mod listing;
pub mod manifest;
pub mod record;
pub mod said;
pub mod script;
pub mod sshsig;
pub mod statement;
pub mod subject;
pub mod subsets;
pub mod text;
pub mod transaction;
pub mod wallet;
pub mod wire;
pub mod words;
