//! The enclave signer: protocol sessions, sealed channels, share sealing and the attestation driver.
//!
//! Once attested, it is trusted by everyone; it trusts its host with nothing. It has no storage and no network: one
//! connection to its agent carries everything. Shares never leave [`scheme`] in the clear, except to be sealed ([`seal`])
//! or backed up ([`backup`]).
//!
//! Imports go one way: [`service`], which follows orders, rests on [`scheme`], which has the protocols, and that on
//! [`session`], which runs any protocol of rounds and knows no scheme.

pub mod attest;
pub mod backup;
pub mod clock;
pub mod context;
pub mod guest;
pub mod kms;
pub mod listen;
pub mod scheme;
pub mod seal;
pub mod service;
pub mod session;
