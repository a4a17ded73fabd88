//! The node agent: it moves bytes between the bus, its enclave, its store and the KMS.
//!
//! It runs on a host that nobody trusts for secrecy or integrity, and so decides nothing that matters. It uses only the
//! wire types of the enclave's crate.

pub mod config;
pub mod core;
pub mod credentials;
pub mod deadline;
pub mod file;
pub mod host;
pub mod link;
pub mod privacy;
pub mod shell;
pub mod store;
pub mod vault;
