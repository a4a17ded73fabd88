//! What the fuzz targets share: a recorded ceremony whose parts they start from, ceremonies on paper, and the
//! parties of a session.
//!
//! Nothing is read at run time, and keys that are made afresh stay out of the inputs, so that an input that was
//! found once is found again.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a target stops at the first surprise"
)]

pub mod paper;
pub mod recorded;
pub mod session;
pub mod signing;

// The kit of the domain's own tests: a ceremony's people, nodes and enclaves with their keys.
#[path = "../../../ceremonies/tests/it/cluster.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod cluster;
#[path = "../../../ceremonies/tests/it/keys.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod keys;
#[path = "../../../ceremonies/tests/it/kit.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod kit;
#[path = "../../../ceremonies/tests/it/machine.rs"]
mod machine;

// The same of the enclave's: parties of a session, on a network in memory or at one table.
#[path = "../../../enclave/tests/it/generation.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use more of it")]
mod generation;
#[path = "../../../enclave/tests/it/network.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod network;
