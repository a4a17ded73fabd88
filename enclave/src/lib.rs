#![doc = include_str!("../README.md")]

pub mod attest;
pub mod backup;
pub mod clock;
pub mod context;
pub mod guest;
pub mod kms;
pub mod listen;
pub mod scheme;
pub mod seal;
pub mod session;
pub mod shell;
pub mod signer;
