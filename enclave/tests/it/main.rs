//! The enclave through its public face.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod backup;
mod generation;
mod network;
mod rebuild;
mod refresh;
mod repair;
mod session;
mod signing;
