//! The enclave signer: protocol sessions, sealed channels, share sealing and the attestation driver.
//!
//! Once attested, it is trusted by everyone; it trusts its host with nothing. It has no storage and no network: one
//! connection to its agent carries everything. Shares never leave [`session`] and [`seal`] in the clear.

pub mod attest;
pub mod backup;
pub mod clock;
pub mod context;
pub mod guest;
pub mod kms;
pub mod listen;
pub mod seal;
pub mod service;
pub mod session;
