//! The enclave through its public interface.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks at the variants that it is about")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod backup;
#[expect(
    dead_code,
    reason = "a cluster on paper that tests of the domain share; not all of it is needed here"
)]
#[path = "../../../ceremonies/tests/it/cluster.rs"]
mod cluster;
mod generation;
#[expect(dead_code, reason = "as above")]
#[path = "../../../ceremonies/tests/it/keys.rs"]
mod keys;
#[expect(dead_code, reason = "as above")]
#[path = "../../../ceremonies/tests/it/kit.rs"]
mod kit;
#[path = "../../../ceremonies/tests/it/machine.rs"]
mod machine;
mod network;
mod orders;
mod rebuild;
mod refresh;
mod repair;
mod rooms;
mod session;
mod signer;
mod signing;
mod toy;
