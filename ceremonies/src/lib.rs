#![doc = include_str!("../README.md")]

mod act;
pub mod attestation;
pub mod book;
pub mod ceremony;
pub mod chain;
pub mod charter;
pub mod curve;
pub mod deploy;
pub mod evidence;
pub mod ids;
pub mod inventory;
mod kinds;
pub mod listing;
pub mod log;
pub mod manifest;
pub mod record;
pub mod said;
pub mod script;
pub mod sshsig;
pub mod statement;
pub mod subsets;
pub mod text;
pub mod wallet;
pub mod wire;
pub mod words;
