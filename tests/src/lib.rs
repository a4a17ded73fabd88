//! The lab: a whole Custody cluster on one machine, with stand-ins for what only AWS has.
//!
//! Everything that pretends to be something else lives here and nowhere else: the security module, the KMS,
//! the generated people. What is not a stand-in (broker, store, agents, enclave library, console) is the real
//! thing.

pub mod attack;
pub mod broker;
pub mod cluster;
pub mod control;
pub mod drive;
pub mod fault;
pub mod hardhat;
pub mod kms;
mod line;
pub mod microvm;
pub mod moto;
pub mod nsm;
pub mod people;
pub mod postgres;
pub mod programs;
pub mod s3;
pub mod service;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes a file that only this user can read.
///
/// # Errors
/// When it exists already or cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)
}
