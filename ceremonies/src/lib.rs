#![doc = include_str!("../README.md")]

mod act;
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
